"""Signing in to a farm of real processes: curl's three schemes, and an NTLM client on sockets of its own."""

from __future__ import annotations

import re
from pathlib import Path

from tests.farm.test_demo import IM, FarmTestCase, url_of
from tests.support import ntlm
from tests.support.homes import message
from tests.support.ntlm import NtlmClient
from tests.support.processes import BIN, Ran, run, scratch, wait_for
from tests.support.wire import Message, Wire

#: With this plug-in of GSSAPI, curl speaks NTLM inside SPNEGO.
GSS_NTLMSSP = list(Path("/usr/lib").glob("*/gssntlmssp/gssntlmssp.so"))

FIND = "<d:propfind xmlns:d='DAV:'><d:prop><d:displayname/></d:prop></d:propfind>"


def request(method: str, user: str, body: str = "", *lines: str) -> bytes:
    """A request for the node of C{user}."""
    data = body.encode()
    head = [
        f"{method} /instmsg/aliases/{user} HTTP/1.1",
        f"Host: {IM}",
        "RVP-Notifications-Version: 0.2",
        *lines,
        *(["Content-Type: text/xml"] if body else []),
        f"Content-Length: {len(data)}",
    ]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + data


class SigninTests(FarmTestCase):
    """Whoever can prove who he is gets in by every door: a router, his own home, the other home."""

    def setUp(self) -> None:
        """See that Negotiate is offered too."""
        super().setUp()
        directory = f"sqlite:///{self.farm.state / 'directory.sqlite'}"
        words = ("negotiate", "ntlm", "digest-md5", "digest-sha-256")
        done = run(BIN / "rvpfarm", "--directory", directory, "policy", "set", "schemes", " ".join(words))
        self.assertEqual(done.status, 0, done.err)
        self.doors = [self.farm.routers[0], *(home.partition("/")[0] for home in self.farm.homes)]
        for door in self.doors:
            wait_for("the policy", lambda door=door: "Negotiate" in self.curl("ACL", "alice", at=door).out)  # type: ignore[misc]

    def connect(self, door: str) -> Wire:
        """A connection to a member."""
        host, _, port = door.rpartition(":")
        wire = Wire(host, int(port))
        self.addCleanup(wire.close)
        return wire

    def handshake(self, wire: Wire, client: NtlmClient, text: str = "") -> Message:
        """Sign in with a call: for one's own access list or, given a text, a message to bob.

        Every leg carries its body, as the clients of RVP have it.
        """
        method, user = ("NOTIFY", "bob") if text else ("ACL", "alice")
        lines = [f"RVP-From-Principal: {url_of('alice')}", "RVP-Ack-Type: DeepOr", "Depth: 0"]
        body = message(url_of("alice"), url_of(user), text) if text else ""
        answer = wire.ask(request(method, user, body, *lines, f"Authorization: {client.step()}"))
        self.assertEqual((answer.status, answer.every("Connection")), (401, []))
        last = client.step(answer.header("WWW-Authenticate"))
        return wire.ask(request(method, user, body, *lines, f"Authorization: {last}"))

    # curl

    def by_curl(self, door: str, *options: str, **environment: str) -> list[int]:
        """The statuses that curl sees on its way to alice's access list."""
        host, _, port = door.rpartition(":")
        ran = run(
            *("curl", "-s", "-i", "-X", "ACL", "--resolve", f"{IM}:{port}:{host}", *options),
            f"http://{IM}:{port}/instmsg/aliases/alice",
            **environment,
        )
        return self.statuses(ran)

    def statuses(self, ran: Ran) -> list[int]:
        """Every status that curl saw."""
        self.assertEqual(ran.status, 0, ran.err)
        return [int(status) for status in re.findall(r"^HTTP/1\.1 (\d+)", ran.out, re.MULTILINE)]

    def test_curl_digest(self) -> None:
        """C{curl --digest}."""
        for door in self.doors:
            user = f"alice:{self.farm.password}"
            self.assertEqual(self.by_curl(door, "--digest", "-u", user), [401, 200])
            self.assertEqual(self.by_curl(door, "--digest", "-u", "carol:wrong")[-1], 401)

    def test_curl_ntlm(self) -> None:
        """C{curl --ntlm}, by every form of the name."""
        for door in self.doors:
            for name in ("alice", "Alice@farm.localhost", "WORKGROUP\\alice", "im.farm.localhost\\alice"):
                with self.subTest(door=door, name=name):
                    user = f"{name}:{self.farm.password}"
                    self.assertEqual(self.by_curl(door, "--ntlm", "-u", user), [401, 200])
            self.assertEqual(self.by_curl(door, "--ntlm", "-u", "carol:wrong"), [401, 401])

    def test_curl_negotiate(self) -> None:
        """C{curl --negotiate}, with NTLM inside SPNEGO: both ends prove by a code what was negotiated."""
        if not GSS_NTLMSSP:
            self.skipTest("GSSAPI has no NTLM here (gss-ntlmssp)")
        with scratch() as where:
            known = where / "ntlm"
            for user, password, last in (("alice", self.farm.password, 200), ("carol", "wrong", 401)):
                known.write_text(f"FARM:{user}:{password}\n")
                environment = {"NTLM_USER_FILE": str(known), "KRB5CCNAME": f"FILE:{where / 'none'}"}
                for door in self.doors:
                    with self.subTest(door=door, password=password):
                        found = self.by_curl(door, "--negotiate", "-u", ":", **environment)
                        self.assertEqual(found[:2], [401, last])

    def test_curl_sends_a_message(self) -> None:
        """C{curl --ntlm} and a NOTIFY, whose body goes with the last leg only."""
        listener = self.call_back()
        self.login("bob", listener)
        for door in self.doors:
            text = f"by {door}"
            body = message(url_of("alice"), url_of("bob"), text)
            user = f"alice:{self.farm.password}"
            ran = self.curl("NOTIFY", "bob", body, at=door, options=("--ntlm", "-u", user))
            self.assertEqual(self.statuses(ran), [401, 200])
            listener.wait(containing=text)

    # sockets

    def test_every_response(self) -> None:
        """NTLMv1, extended session security and NTLMv2; in NTLM, and in Negotiate with and without SPNEGO."""
        for door in self.doors:
            for level in (ntlm.V1, ntlm.EXTENDED, ntlm.V2):
                for scheme, wrapped in (("NTLM", False), ("Negotiate", False), ("Negotiate", True)):
                    with self.subTest(door=door, level=level, scheme=scheme, wrapped=wrapped):
                        client = NtlmClient(
                            "alice", self.farm.password, scheme=scheme, wrapped=wrapped, level=level
                        )
                        answer = self.handshake(self.connect(door), client)
                        self.assertEqual(answer.status, 200)
                        if wrapped and level != ntlm.V1:
                            client.step(answer.header("WWW-Authenticate"))
                            self.assertTrue(client.complete)

    def test_refused_and_yet_proved(self) -> None:
        """The farm proves itself with whatever it answers, be it a refusal."""
        wire = self.connect(self.doors[0])
        client = NtlmClient("alice", self.farm.password, scheme="Negotiate", wrapped=True)
        first = wire.ask(request("PROPFIND", "nobody", FIND, "Depth: 0", f"Authorization: {client.step()}"))
        last = client.step(first.header("WWW-Authenticate"))
        answer = wire.ask(request("PROPFIND", "nobody", FIND, "Depth: 0", f"Authorization: {last}"))
        self.assertEqual(answer.status, 404)
        client.step(answer.header("WWW-Authenticate"))
        self.assertTrue(client.complete)

    def test_connection(self) -> None:
        """Later calls on the connection are that user's; on another one, nobody's, whatever is repeated."""
        for door in self.doors:
            wire, client = self.connect(door), NtlmClient("alice", self.farm.password)
            first = wire.ask(request("ACL", "alice", "", f"Authorization: {client.step()}"))
            last = client.step(first.header("WWW-Authenticate"))
            other = self.connect(door).ask(request("ACL", "alice", "", f"Authorization: {last}"))
            self.assertEqual((other.status, other.every("WWW-Authenticate")), (401, ["NTLM"]))
            self.assertEqual(wire.ask(request("ACL", "alice", "", f"Authorization: {last}")).status, 200)
            for _ in range(3):
                self.assertEqual(wire.ask(request("ACL", "alice")).status, 200)
                found = wire.ask(request("PROPFIND", "alice", FIND, "Depth: 0"))
                self.assertEqual(found.status, 207)
            claimed = wire.ask(request("ACL", "alice", "", f"RVP-From-Principal: {url_of('dave')}"))
            self.assertEqual(claimed.status, 403)
            self.assertEqual(self.connect(door).ask(request("ACL", "alice")).status, 401)

    def test_each_home_for_itself(self) -> None:
        """By one connection to a router somebody signs in at both homes, once at each."""
        wire = self.connect(self.farm.routers[0])
        self.assertEqual(self.handshake(wire, NtlmClient("alice", self.farm.password)).status, 200)
        lines = (f"RVP-From-Principal: {url_of('alice')}", "Depth: 0")
        self.assertEqual(wire.ask(request("PROPFIND", "bob", FIND, *lines)).status, 401)
        found = self.handshake(wire, NtlmClient("alice", self.farm.password), "anybody there?")
        self.assertIn(found.status, (200, 412))
        self.assertEqual(wire.ask(request("PROPFIND", "bob", FIND, *lines)).status, 207)
        self.assertEqual(wire.ask(request("ACL", "alice")).status, 200)

    def test_messages(self) -> None:
        """A NOTIFY whose every leg carries its body is delivered once."""
        listener = self.call_back()
        self.login("bob", listener)
        for door in self.doors:
            client, text = NtlmClient("alice", self.farm.password), f"all legs by {door}."
            self.assertEqual(self.handshake(self.connect(door), client, text).status, 200)
            self.assertEqual(len(listener.wait(containing=text)), 1)

    def test_three_failures(self) -> None:
        """Two are answered with a bare challenge, the third closes the connection too."""
        for door in self.doors:
            wire = self.connect(door)
            for closing in ([], [], ["close"]):
                answer = self.handshake(wire, NtlmClient("carol", "wrong"))
                self.assertEqual((answer.status, answer.every("WWW-Authenticate")), (401, ["NTLM"]))
                self.assertEqual(answer.every("Connection"), closing)
            self.assertTrue(wire.at_end())

    def test_forgotten(self) -> None:
        """A home forgets what a connection proved when it is closed, also behind a router."""
        home = self.farm.homes[0].partition("/")[0]
        gauge = "rvp_authenticated_connections"
        for door in (self.farm.routers[0], home):
            wait_for("the end of the others", lambda: self.farm.metric(2, gauge) == 0)
            wire = self.connect(door)
            self.assertEqual(self.handshake(wire, NtlmClient("alice", self.farm.password)).status, 200)
            self.assertEqual(self.farm.metric(2, gauge), 1)
            wire.close()
            wait_for("the connection being forgotten", lambda: self.farm.metric(2, gauge) == 0)
