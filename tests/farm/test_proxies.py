"""Routers behind nginx and HAProxy, as Debian has them, with the configurations that we recommend.

They need Debian's nginx-light, libnginx-mod-stream and haproxy.
"""

from __future__ import annotations

import atexit
import re
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar
from unittest import TestCase, skipUnless

from rvpfarm.admin import handlers
from tests.support import proxies
from tests.support.farmhouse import Member
from tests.support.homes import message
from tests.support.ntlm import NtlmClient
from tests.support.processes import BIN, free_ports, run, scratch, wait_for
from tests.support.tls import write_certificate
from tests.support.wire import Message, Wire

IM = "im.fabrik.example"
PETRA = f"http://{IM}/instmsg/aliases/petra"
PASSWORD = "Blue-Kite-41"

#: The proxies connect from here, and are listed.
PROXY = "127.0.0.1"
#: Callers: the first is inside, the second is not.
INSIDE, OUTSIDE = "127.0.0.41", "127.0.0.42"
#: Where the routers listen.
ROUTER = "127.0.0.21"

#: What clients that follow referrals say of themselves.
FOLLOWER = "msmsgs/4.6.0.84"

NGINX = proxies.find("nginx") is not None
STREAM = NGINX and proxies.STREAM_MODULE.exists()
HAPROXY = proxies.find("haproxy") is not None


class House:
    """A home with petra and tomasz, and three routers: in clear, and demanding preambles in clear and before TLS.

    @ivar plain: the port of the router without preambles; C{proxied} and C{secure} likewise.
    """

    def __init__(self, stack: ExitStack) -> None:
        """
        @param stack: closes everything.
        """
        self.state, self._stack = stack.enter_context(scratch()), stack
        self.directory = f"sqlite:///{self.state / 'directory.sqlite'}"
        self.plain, self.proxied, self.secure = free_ports(3, ROUTER)
        home, link = free_ports(2, "127.0.0.11")
        store, _ = handlers.prepare(self.directory, self.state / "farm.key")
        try:
            handlers.init(store)
            handlers.add_domain(store, IM, ["fabrik.example"], netbios="FABRIK")
            handlers.add_network(store, "inside", f"{INSIDE}/32")
            handlers.add_network(store, "trusted-proxy", f"{PROXY}/32")
            handlers.create_home(store, "hs1", "hs1.fabrik.example", 80, link, "127.0.0.11")
            for number, name in enumerate(("plain", "proxied", "secure"), 81):
                handlers.create_router(store, name, f"{name}.fabrik.example", number, ROUTER)
            for alias in ("petra", "tomasz"):
                handlers.enable_user(store, f"{alias}@fabrik.example", "hs1", password=PASSWORD)
        finally:
            store.close()
        key, self.certificate = write_certificate(self.state, IM)
        here = f"interface={ROUTER}:proxyProtocol=1"
        self.home = self._member(
            "hs1", "rvp-home", "127.0.0.11", home, "--state-dir", str(self.state / "hs1")
        )
        self.routers = {
            "plain": self._member("plain", "rvp-router", ROUTER, self.plain),
            "proxied": self._member(
                "proxied", "rvp-router", ROUTER, self.proxied, "--listen", f"fast:tcp:{self.proxied}:{here}"
            ),
            "secure": self._member(
                *("secure", "rvp-router", ROUTER, self.secure, "--listen"),
                f"fast:ssl:{self.secure}:privateKey={key}:certKey={self.certificate}:{here}",
            ),
        }
        for member in (self.home, *self.routers.values()):
            member.await_ready()

    def _member(self, name: str, plugin: str, host: str, port: int, *options: str) -> Member:
        member = Member(name, plugin, host, port, self.state, *options)
        self._stack.callback(member.stop)
        return member

    def folder(self, name: str) -> Path:
        """An empty directory."""
        made = self.state / name
        made.mkdir()
        return made

    def start_nginx(self, kind: str, port: int) -> int:
        """Start nginx before the router at C{port}; where it listens."""
        (here,) = free_ports(1)
        upstream = "10.0.0.21:80;" if kind == "http" else "10.0.0.21:8080;"
        places = {upstream: f"{ROUTER}:{port};", "listen 80;": f"listen 127.0.0.1:{here};"}
        proxy = proxies.nginx(
            self.folder(f"nginx-{kind}"), kind, proxies.render(f"nginx/{kind}.conf", places), here
        )
        self._stack.callback(proxy.stop)
        return here

    def metric(self, name: str, pattern: str) -> float:
        """A sample on the page of a router; 0 without one."""
        page = self.routers[name].page("/metrics").decode()
        found = re.search(rf"^{pattern} ([0-9.e+]+)$", page, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def metrics(self, name: str) -> str:
        """Where a router shows whether it is ready, as HAProxy is told it."""
        host, port = self.routers[name].metrics
        return f"addr {host} port {port}"

    def start_haproxy_http(self) -> int:
        """Start HAProxy reading HTTP before the plain router; where it listens."""
        (here,) = free_ports(1)
        places = {
            "10.0.0.21:80 ": f"{ROUTER}:{self.plain} ",
            "addr 10.0.0.21 port 9464": self.metrics("plain"),
            "bind :80": f"bind 127.0.0.1:{here}",
            # The most dangerous thing it can do: idle connections are anybody's.
            "option forwardfor": "option forwardfor\n    http-reuse always",
        }
        proxy = proxies.haproxy(self.folder("haproxy-http"), proxies.render("haproxy/http.cfg", places), here)
        self._stack.callback(proxy.stop)
        return here

    def start_haproxy_tcp(self, send: str) -> tuple[int, int]:
        """Start HAProxy before the routers that demand preambles; where it listens, in clear and for TLS.

        @param send: what it is told to send before anything else.
        """
        plain, secure = free_ports(2)
        places = {
            "10.0.0.21:8080 send-proxy-v2 proxy-v2-options crc32c": f"{ROUTER}:{self.proxied} {send}",
            "10.0.0.21:8443": f"{ROUTER}:{self.secure}",
            "addr 10.0.0.21 port 9464": self.metrics("proxied"),
            "addr 10.0.0.21 port 9465": self.metrics("secure"),
            "bind :80": f"bind 127.0.0.1:{plain}",
            "bind :443": f"bind 127.0.0.1:{secure}",
        }
        configuration = proxies.render("haproxy/tcp.cfg", places)
        state = self.folder(f"haproxy-{send.replace(' ', '-')}")
        self._stack.callback(proxies.haproxy(state, configuration, plain, secure).stop)
        return plain, secure


_until_exit = ExitStack()
atexit.register(_until_exit.close)


class ProxiesTestCase(TestCase):
    """Callers on several addresses of loopback, and doors of several kinds.

    Nothing here needs a reactor.  The house stands until the tests are over.
    """

    house: ClassVar[House | None] = None
    ports: ClassVar[dict[str, int]] = {}

    def setUp(self) -> None:
        """Open the house."""
        if ProxiesTestCase.house is None:
            ProxiesTestCase.house = House(_until_exit)
        self.home = ProxiesTestCase.house

    def door(self, name: str) -> int:
        """The port of a proxy, which is started when it is first asked for."""
        if name not in self.ports:
            house = self.home
            if name == "nginx http":
                self.ports[name] = house.start_nginx("http", house.plain)
            elif name == "nginx stream":
                self.ports[name] = house.start_nginx("stream", house.proxied)
            elif name == "haproxy http":
                self.ports[name] = house.start_haproxy_http()
            else:
                send = "send-proxy" if name == "haproxy v1" else "send-proxy-v2 proxy-v2-options crc32c"
                plain, self.ports["haproxy tls"] = house.start_haproxy_tcp(send)
                self.ports["haproxy v1" if name == "haproxy v1" else "haproxy v2"] = plain
        return self.ports[name]

    def curl(
        self, door: str | int, source: str, *options: str, method: str = "PROPFIND", user: str = "petra"
    ) -> list[int]:
        """Ask for a node through a proxy, as somebody at C{source}; every status that curl sees."""
        port, host = (self.door(door), PROXY) if isinstance(door, str) else (door, ROUTER)
        scheme = "https" if door == "haproxy tls" else "http"
        ran = run(
            *("curl", "-s", "-i", "-X", method, "--interface", source, "--cacert", self.home.certificate),
            *("--resolve", f"{IM}:{port}:{host}", "-H", "Depth: 0", *options),
            f"{scheme}://{IM}:{port}/instmsg/aliases/{user}",
        )
        found = re.findall(r"^HTTP/1\.1 (\d+)", ran.out, re.MULTILINE)
        return [int(status) for status in found]

    def login(self, door: str, source: str, call_back: str) -> int:
        """The status of petra's login from C{source} with that call-back, by Digest."""
        headers = (
            *("-H", f"RVP-From-Principal: {PETRA}", "-H", "Notification-Type: pragma/notify"),
            *("-H", f"Call-Back: http://{call_back}:3155", "-H", "Subscription-Lifetime: 14400"),
        )
        credentials = ("--digest", "-u", f"petra:{PASSWORD}")
        return self.curl(door, source, *credentials, *headers, method="SUBSCRIBE")[-1]

    def check_callers(self, door: str) -> None:
        """Through this door callers are seen as who they are.

        The one inside is referred to the home; the one outside is not, whatever it says of itself, and its
        call is forwarded.  The home sees its address too: it calls back there and nowhere else.
        """
        follower = ("-A", FOLLOWER)
        self.assertEqual(self.curl(door, INSIDE, *follower), [302])
        self.assertEqual(self.curl(door, OUTSIDE, *follower), [401])
        for header in ("X-Forwarded-For", "Forwarded", "X-Real-IP"):
            for value in (INSIDE, f"for={INSIDE}", 'for="'):
                self.assertEqual(self.curl(door, OUTSIDE, *follower, "-H", f"{header}: {value}"), [401])
        self.assertEqual(self.login(door, OUTSIDE, OUTSIDE), 200)
        self.assertEqual(self.login(door, OUTSIDE, PROXY), 403)
        self.assertEqual(self.login(door, OUTSIDE, INSIDE), 403)

    def check_message(self, door: str) -> None:
        """A message of petra's to herself is taken, once."""
        body = message(PETRA, PETRA, f"through {door}")
        options = ("-H", f"RVP-From-Principal: {PETRA}", "-H", "RVP-Ack-Type: SingleHop")
        more = ("-H", "Content-Type: text/xml", "--data-binary", body, "--digest", "-u", f"petra:{PASSWORD}")
        statuses = self.curl(door, OUTSIDE, *options, *more, method="NOTIFY")
        self.assertEqual(statuses[0], 401)
        self.assertIn(statuses[-1], (200, 412))

    def check_ntlm(self, door: str, *, kept: bool) -> None:
        """NTLM works through this door and binds to one connection; or it is neither offered nor taken."""
        user = f"petra:{PASSWORD}"
        signed_in = self.curl(door, OUTSIDE, "--ntlm", "-u", user, method="ACL")
        self.assertEqual(signed_in[-1], 200 if kept else 401)
        for _ in range(4):
            self.assertEqual(self.curl(door, OUTSIDE, method="ACL"), [401])
        port = self.door(door)
        wire = Wire(PROXY, port, source=OUTSIDE)
        self.addCleanup(wire.close)
        answer = wire.ask(b"ACL /instmsg/aliases/petra HTTP/1.1\r\nHost: %b\r\n\r\n" % IM.encode())
        words = {value.partition(" ")[0] for value in answer.every("WWW-Authenticate")}
        self.assertEqual(words, {"NTLM", "Digest"} if kept else {"Digest"})


@skipUnless(NGINX, "nginx is not installed (nginx-light)")
class NginxTests(ProxiesTestCase):
    """nginx as a reverse proxy that reads HTTP."""

    def test_callers(self) -> None:
        """It says who calls, in C{X-Forwarded-For}."""
        self.check_callers("nginx http")

    def test_message(self) -> None:
        """A message passes."""
        self.check_message("nginx http")

    def test_ntlm(self) -> None:
        """Its connections are everybody's, so nobody proves anything on one."""
        self.check_ntlm("nginx http", kept=False)

    def test_as_old_clients_write(self) -> None:
        """Lines that end in LF alone, as Miranda's do, pass."""
        wire = Wire(PROXY, self.door("nginx http"), source=OUTSIDE)
        self.addCleanup(wire.close)
        answer = wire.ask(b"ACL /instmsg/aliases/petra HTTP/1.1\nHost: %b\n\n" % IM.encode())
        self.assertEqual(answer.status, 401)


@skipUnless(STREAM, "nginx has no stream module (libnginx-mod-stream)")
class NginxStreamTests(ProxiesTestCase):
    """nginx as a balancer that sends the PROXY protocol, version 1."""

    def test_callers(self) -> None:
        """It says who calls, in the preamble; headers are not looked at."""
        self.check_callers("nginx stream")

    def test_ntlm(self) -> None:
        """Each caller has a connection of its own, so NTLM works."""
        self.check_ntlm("nginx stream", kept=True)


@skipUnless(HAPROXY, "HAProxy is not installed (haproxy)")
class HaproxyTests(ProxiesTestCase):
    """HAProxy as a reverse proxy that reads HTTP."""

    def setUp(self) -> None:
        """It finds its router ready."""
        super().setUp()
        wait_for("HAProxy's first look", lambda: self.curl("haproxy http", OUTSIDE) == [401])

    def test_callers(self) -> None:
        """It says who calls, in a C{X-Forwarded-For} that it adds to those of the caller."""
        self.check_callers("haproxy http")

    def test_message(self) -> None:
        """A message passes."""
        self.check_message("haproxy http")

    def test_ntlm(self) -> None:
        """With C{http-reuse always} its connections are everybody's, and nobody proves anything on one."""
        self.check_ntlm("haproxy http", kept=False)

    def test_shared(self) -> None:
        """Callers on one upstream connection are told apart, call by call."""
        callers = [Wire(PROXY, self.door("haproxy http"), source=source) for source in (INSIDE, OUTSIDE)]
        request = b"PROPFIND /instmsg/aliases/petra HTTP/1.1\r\nHost: %b\r\nUser-Agent: %b\r\n\r\n"
        for _ in range(5):
            answers = [wire.ask(request % (IM.encode(), FOLLOWER.encode())) for wire in callers]
            self.assertEqual([answer.status for answer in answers], [302, 401])
        for wire in callers:
            wire.close()


@skipUnless(HAPROXY, "HAProxy is not installed (haproxy)")
class HaproxyTcpTests(ProxiesTestCase):
    """HAProxy as a balancer that sends the PROXY protocol, either version, and TLS that it does not touch."""

    DOORS = ("haproxy v1", "haproxy v2", "haproxy tls")

    def setUp(self) -> None:
        """It finds its routers ready."""
        super().setUp()
        for door in self.DOORS:
            wait_for("HAProxy's first look", lambda door=door: self.curl(door, OUTSIDE) == [401])  # type: ignore[misc]

    def test_callers(self) -> None:
        """It says who calls, in the preamble; with TLS, before the handshake of the caller and the router."""
        for door in self.DOORS:
            with self.subTest(door):
                self.check_callers(door)

    def test_message(self) -> None:
        """A message passes, through TLS as well."""
        for door in self.DOORS:
            self.check_message(door)

    def test_ntlm(self) -> None:
        """Each caller has a connection of its own, so NTLM works."""
        for door in self.DOORS[:2]:
            self.check_ntlm(door, kept=True)

    def test_accepted(self) -> None:
        """Its preambles were all taken, those with a checksum and those without."""
        self.assertEqual(self.home.metric("secure", 'rvp_rejected_total{.*reason="proxy".*}'), 0)
        for name in ("proxied", "secure"):
            self.assertNotIn("is no preamble", self.home.routers[name].log)


class UnlistedTests(ProxiesTestCase):
    """Without a proxy, and with one that is not listed."""

    def test_direct(self) -> None:
        """Who comes straight to a router is who he is, whatever he forges."""
        for header in (f"X-Forwarded-For: {INSIDE}", f"Forwarded: for={INSIDE}", "X-Forwarded-For: ?"):
            for source, status in ((OUTSIDE, 401), (INSIDE, 302)):
                found = self.curl(self.home.plain, source, "-A", FOLLOWER, "-H", header)
                self.assertEqual(found, [status])

    def test_no_way_in(self) -> None:
        """A router that demands preambles takes nobody who is not listed, with or without one."""
        said = f"a connection from {OUTSIDE} was closed"
        before = self.home.routers["proxied"].log.count(
            said
        )  # it forgets whom it told of when settings change
        for first in (b"", f"PROXY TCP4 {INSIDE} {ROUTER} 4711 80\r\n".encode()):
            wire = Wire(ROUTER, self.home.proxied, source=OUTSIDE)
            wire.send(first + b"ACL /instmsg/aliases/petra HTTP/1.1\r\nHost: %b\r\n\r\n" % IM.encode())
            self.assertTrue(wire.at_end())
            wire.close()
        self.assertGreaterEqual(self.home.metric("proxied", 'rvp_rejected_total{.*reason="proxy".*}'), 2)
        log = self.home.routers["proxied"].log
        self.assertEqual(max(log.count(said), 1), max(before, 1), "said for each of them")
        self.assertIn(said, log)

    def test_shared_upstream(self) -> None:
        """On one connection of a proxy each call is its caller's, and what one proves is not the next one's."""
        upstream = Wire(ROUTER, self.home.plain, source=PROXY)
        self.addCleanup(upstream.close)

        def ask(method: str, caller: str, *lines: str) -> Message:
            """Pass a call on, as a proxy does."""
            head = [f"{method} /instmsg/aliases/petra HTTP/1.1", f"Host: {IM}", f"User-Agent: {FOLLOWER}"]
            head += [f"X-Forwarded-For: {caller}", *lines, "", ""]
            return upstream.ask("\r\n".join(head).encode())

        for _ in range(3):
            self.assertEqual([ask("ACL", caller).status for caller in (INSIDE, OUTSIDE)], [302, 401])
        for scheme, wrapped in (("NTLM", False), ("Negotiate", True)):
            client = NtlmClient("petra", PASSWORD, scheme=scheme, wrapped=wrapped)
            answer = ask("ACL", OUTSIDE, f"Authorization: {client.step()}")
            challenges = answer.every("WWW-Authenticate")
            self.assertEqual((answer.status, {line.split()[0] for line in challenges}), (401, {"Digest"}))
            self.assertEqual(ask("ACL", "127.0.0.43").status, 401)
        self.assertEqual(ask("ACL", "what").status, 400)
        self.assertEqual(ask("ACL", OUTSIDE).status, 401)

    @skipUnless(NGINX, "nginx is not installed (nginx-light)")
    def test_listed_while_running(self) -> None:
        """A proxy counts from when it is listed and no longer: no daemon is started anew for it."""
        command = (BIN / "rvpfarm", "--directory", self.home.directory, "network")

        def referred() -> bool:
            return self.curl("nginx http", INSIDE, "-A", FOLLOWER) == [302]

        self.assertTrue(referred())
        try:
            done = run(*command, "remove", "trusted-proxy", f"{PROXY}/32", "--yes")
            self.assertEqual(done.status, 0, done.err)
            wait_for("the proxy being the caller", lambda: not referred())
        finally:
            done = run(*command, "add", "trusted-proxy", f"{PROXY}/32")
            self.assertEqual(done.status, 0, done.err)
        wait_for("the proxy being believed", referred)

    def test_limits_while_running(self) -> None:
        """Limits count from when they are set: a gauge shows the one of connections, beside what is used."""
        command = (BIN / "rvpfarm", "--directory", self.home.directory, "policy", "set")

        def gauge(name: str) -> float:
            return self.home.metric("plain", f"{name}{{.*}}")

        self.assertEqual(gauge("rvp_connections_limit"), 20000)
        self.assertEqual(run(*command, "connections-per-source", "2").status, 0)
        self.assertEqual(run(*command, "max-connections", "300").status, 0)
        request = b"ACL /instmsg/aliases/petra HTTP/1.1\r\nHost: %b\r\n\r\n" % IM.encode()
        try:
            wait_for("the limit", lambda: gauge("rvp_connections_limit") == 300)
            wires = [Wire(ROUTER, self.home.plain, source="127.0.0.43") for _ in range(3)]
            self.assertEqual([wire.ask(request).status for wire in wires], [401, 401, 503])
            self.assertGreaterEqual(gauge("rvp_connections"), 2)
            other = Wire(ROUTER, self.home.plain, source="127.0.0.44")
            self.assertEqual(other.ask(request).status, 401)
            for wire in (*wires, other):
                wire.close()
        finally:
            for name in ("connections-per-source", "max-connections"):
                self.assertEqual(run(*command, name, "--default").status, 0)
        wait_for("the old limit", lambda: gauge("rvp_connections_limit") == 20000)


class PageTests(TestCase):
    """What docs/proxies.md recommends is what is tested here."""

    def test_configurations(self) -> None:
        """Each configuration stands there as it is in C{deploy/}."""
        page = (proxies.DEPLOY.parent / "docs" / "proxies.md").read_text()
        for path in sorted((*proxies.DEPLOY.glob("nginx/*"), *proxies.DEPLOY.glob("haproxy/*"))):
            self.assertIn(path.read_text(), page)
            self.assertIn(str(path.relative_to(proxies.DEPLOY.parent)), page)
