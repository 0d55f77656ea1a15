"""A home whose callers come through a proxy: nobody is taken for somebody else, least of all for the proxy."""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.auth.challenge import Digest, Gate
from rvpfarm.auth.connections import Connections
from rvpfarm.auth.digest import Nonces
from rvpfarm.auth.handshakes import Negotiate, Ntlm
from rvpfarm.auth.logins import make_verifiers
from rvpfarm.directory.model import Network
from rvpfarm.protocol.calls import Limits
from rvpfarm.web.responses import Response
from rvpfarm.web.server import CallFactory
from tests.support.connections import Wire, join, read_all
from tests.support.homes import DOMAIN, PETRA, LocalHome
from tests.support.ntlm import NtlmClient

PASSWORD = "Blue-Kite-41"
PROXY = Network("trusted-proxy", "10.0.0.1", "10.0.0.1")


class ProxiedHomeTestCase(SynchronousTestCase):
    """A home with a listener, and petra, who has a password for every scheme."""

    def setUp(self) -> None:
        """Build it; 10.0.0.1 is a listed proxy."""
        self.connections = Connections()
        nonces = Nonces(b"k" * 32)
        schemes = [Negotiate(self.connections), Ntlm(self.connections), Digest(nonces)]
        self.local = LocalHome(
            gate=Gate(nonces, schemes=schemes), authentication="required", schemes="negotiate ntlm digest-md5"
        )
        self.addCleanup(self.local.stop)
        domain = self.local.directory.farm().domains[DOMAIN]
        petra = self.local.directory.remembered[f"{DOMAIN}/instmsg/aliases/petra"]
        assert petra is not None
        self.local.directory.put(replace(petra, verifiers=make_verifiers("petra", domain, PASSWORD, nt=True)))
        self.listed(PROXY)
        self.factory = CallFactory(
            self.local.home.answer, clock=self.local.clock, limits=Limits(), on_gone=self.connections.forget
        )
        self.factory.follow(self.local.directory)

    def listed(self, *networks: Network) -> None:
        """These networks are in the directory."""
        self.local.directory.set_farm(replace(self.local.directory.farm(), networks=networks))

    def ask(self, caller: tuple[object, Wire], *lines: str, method: str = "ACL", body: str = "") -> Response:
        """Send a request for petra's node, and read the answer."""
        protocol, wire = caller
        wire.clear()
        head = [f"{method} /instmsg/aliases/petra HTTP/1.1", f"Host: {DOMAIN}", *lines]
        head.append(f"Content-Length: {len(body)}")
        protocol.dataReceived("\r\n".join(head).encode() + b"\r\n\r\n" + body.encode())  # type: ignore[attr-defined]
        (response,) = read_all(wire.value())
        return response

    def offered(self, response: Response) -> list[bytes]:
        """The schemes of the challenges."""
        return [line.split(b" ")[0] for line in response.challenges]


class SharedConnectionTests(ProxiedHomeTestCase):
    """What is proved on a connection that several callers share is never another's (design invariant 7)."""

    def test_not_offered(self) -> None:
        """Through a proxy that reads HTTP, only Digest is offered."""
        shared = join(self.factory, "10.0.0.1")
        for lines in (("X-Forwarded-For: 198.51.100.7",), ()):
            response = self.ask(shared, *lines)
            self.assertEqual((response.status, self.offered(response)), (401, [b"Digest"]))
        direct = join(self.factory, "198.51.100.7")
        self.assertEqual(self.offered(self.ask(direct)), [b"Negotiate", b"NTLM", b"Digest"])

    def test_not_accepted(self) -> None:
        """Nor does a handshake begin, by NTLM or Negotiate, bare or wrapped; nothing of it is remembered."""
        shared = join(self.factory, "10.0.0.1")
        for scheme, wrapped in (("NTLM", False), ("Negotiate", False), ("Negotiate", True)):
            client = NtlmClient("petra", PASSWORD, scheme=scheme, wrapped=wrapped)
            authorization = f"Authorization: {client.step()}"
            response = self.ask(shared, "X-Forwarded-For: 198.51.100.7", authorization)
            self.assertEqual((response.status, self.offered(response)), (401, [b"Digest"]))
        self.assertEqual(len(self.connections), 0)

    def test_proved_before_it_was_listed(self) -> None:
        """What was proved before the proxy was listed is void when it is, and stays so when it no longer is."""
        self.listed()
        shared = join(self.factory, "10.0.0.1")
        client = NtlmClient("petra", PASSWORD)
        first = self.ask(shared, f"Authorization: {client.step()}")
        (challenge,) = first.challenges
        self.assertEqual(self.ask(shared, f"Authorization: {client.step(challenge.decode())}").status, 200)
        self.assertEqual(self.ask(shared).status, 200)
        for networks in ((PROXY,), ()):
            self.listed(*networks)
            self.assertEqual(self.ask(shared, "X-Forwarded-For: 198.51.100.9").status, 401)
        self.assertEqual(self.connections.proved, 0)

    def test_leg_before_it_was_listed(self) -> None:
        """A handshake that is under way when the proxy is listed comes to nothing."""
        self.listed()
        shared = join(self.factory, "10.0.0.1")
        client = NtlmClient("petra", PASSWORD)
        first = self.ask(shared, f"Authorization: {client.step()}")
        last = f"Authorization: {client.step(first.challenges[0].decode())}"
        for networks in ((PROXY,), ()):
            self.listed(*networks)
            self.assertEqual(self.ask(shared, last).status, 401)
        self.assertEqual(self.ask(shared).status, 401)


class UnknownCallerTests(ProxiedHomeTestCase):
    """A caller whose address the proxy does not tell has no address: none is taken for it."""

    def login(self, forwarded: str, url: str) -> int:
        """The status of a login with that call-back."""
        self.local.directory.set_farm(
            replace(self.local.directory.farm(), policies={"authentication": "off", "federation": "open"})
        )
        lines = (f"X-Forwarded-For: {forwarded}", f"RVP-From-Principal: {PETRA}", f"Call-Back: {url}")
        more = ("Notification-Type: pragma/notify", "Subscription-Lifetime: 14400")
        return self.ask(join(self.factory, "10.0.0.1"), *lines, *more, method="SUBSCRIBE").status

    def test_call_back(self) -> None:
        """Who is known may be called back where he is; who is not, nowhere, and least at the proxy."""
        self.assertEqual(self.login("198.51.100.7", "http://198.51.100.7:3155"), 200)
        self.assertEqual(self.login("198.51.100.7", "http://10.0.0.1:3155"), 403)
        for forwarded in ("unknown", "_hidden", "198.51.100.7, unknown", ""):
            for url in ("http://198.51.100.7:3155", "http://10.0.0.1:3155"):
                self.assertEqual(self.login(forwarded, url), 403)
