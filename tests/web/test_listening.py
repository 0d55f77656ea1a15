"""A listener as a service."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from rvpfarm.link.server import LinkFactory
from rvpfarm.protocol.calls import Limits, Reply
from rvpfarm.web.listening import CannotServe, ListeningService
from rvpfarm.web.server import CallFactory
from tests.support.folders import folder

LOOPBACK = "127.0.0.1"


class Draining(Factory):
    """Has work that the test finishes."""

    noisy = False
    protocol = Protocol

    def __init__(self) -> None:
        self.drained: Deferred[None] = Deferred()

    def drain(self) -> Deferred[None]:
        """Finish what is in work."""
        return self.drained


@implementer(IStreamServerEndpoint)
class Later:
    """Takes its time to listen."""

    def __init__(self) -> None:
        self.opened: Deferred[object] = Deferred()

    def listen(self, protocolFactory: object) -> Deferred[object]:
        """Not yet."""
        return self.opened


class ListeningServiceTests(SynchronousTestCase):
    """It listens from start to stop."""

    def service(self, description: str = "tcp:8080:interface=127.0.0.1") -> ListeningService:
        """A service on a reactor that only notes what it is asked."""
        self.reactor, self.factory = MemoryReactorClock(), Draining()
        return ListeningService(self.reactor, description, self.factory, who="rvp-router")

    def test_listens_once(self) -> None:
        """It listens when services start with privileges, and not again when they start."""
        service = self.service()
        self.assertEqual(self.reactor.tcpServers, [])
        self.assertFalse(service.listening)
        service.privilegedStartService()
        service.startService()
        self.assertEqual([each[:2] for each in self.reactor.tcpServers], [(8080, self.factory)])
        self.assertTrue(service.listening)

    def test_any_endpoint(self) -> None:
        """Any endpoint string serves, the fast ones too."""
        service = self.service("fast:tcp:8080")
        service.startService()
        self.assertEqual([each[0] for each in self.reactor.tcpServers], [8080])
        self.assertEqual(service.getHost().host, "0.0.0.0")

    def test_haproxy_prefix(self) -> None:
        """Twisted's own prefix for the PROXY protocol believes anybody: it is refused, with what to do instead."""
        calls = CallFactory(lambda call: Reply(200), clock=Clock(), limits=Limits())
        for description in ("haproxy:tcp:8080", "HAProxy:fast:tcp:8080", "haproxy:"):
            with self.assertRaises(CannotServe) as caught:
                ListeningService(MemoryReactorClock(), description, calls, who="rvp-router")
            self.assertIn("rvp-router: --listen " + description, str(caught.exception))
            self.assertIn("put proxyProtocol=1 at the end of fast:tcp:", str(caught.exception))
            self.assertIn("trusted-proxy", str(caught.exception))

    def test_not_for_members(self) -> None:
        """Where farm members connect, nobody speaks for others: a preamble cannot be demanded there."""
        links = LinkFactory(
            lambda call: Reply(200), key=b"k" * 32, name="h1", incarnation=1, clock=Clock(), limits=Limits()
        )
        for description, advice in (
            ("fast:tcp:8081:proxyProtocol=1", "leave proxyProtocol=1 out"),
            ("haproxy:tcp:8081", "leave the prefix haproxy: out"),
        ):
            with self.assertRaises(CannotServe) as caught:
                ListeningService(MemoryReactorClock(), description, links, who="rvp-home", option="--link")
            self.assertEqual(
                str(caught.exception),
                f"rvp-home: --link {description}: farm members connect without a proxy in between; {advice}",
            )

    def test_needs_a_loop(self) -> None:
        """A reactor without a loop cannot read a preamble, which is said in one sentence."""
        factory = CallFactory(lambda call: Reply(200), clock=Clock(), limits=Limits())
        service = ListeningService(
            MemoryReactorClock(), "fast:tcp:80:proxyProtocol=1", factory, who="rvp-router"
        )
        problem = self.assertRaises(CannotServe, service.startService)
        self.assertEqual(
            str(problem),
            "rvp-router: cannot listen on 0.0.0.0:80: proxyProtocol needs the asyncio reactor (--listen)",
        )

    def test_stop_waits_for_work(self) -> None:
        """Stopping is done when the factory has finished what was in work."""
        service = self.service()
        service.startService()
        stopped = service.stopService()
        self.assertFalse(service.listening)
        self.assertRaises(RuntimeError, service.getHost)
        self.assertNoResult(stopped)
        self.factory.drained.callback(None)
        self.successResultOf(stopped)

    def test_never_started(self) -> None:
        """Stopping what was not started is done at once."""
        self.successResultOf(self.service().stopService())

    def test_stopped_before_it_listens(self) -> None:
        """An endpoint that takes its time is called off."""
        service = self.service()
        service._endpoint = Later()
        service.startService()
        stopped = service.stopService()
        self.factory.drained.callback(None)
        self.successResultOf(stopped)

    def test_fails_later(self) -> None:
        """An endpoint that fails after a while is logged; the process goes on."""
        service = self.service()
        later = service._endpoint = Later()
        service.startService()
        later.opened.errback(OSError("no"))
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.factory.drained = succeed(None)
        self.successResultOf(service.stopService())

    def test_nonsense(self) -> None:
        """A string that describes no endpoint ends the daemon with a sentence that names the option."""
        for description in ("8080", "fast:tcp:http", "tcp:8080:colour=red"):
            problem = self.assertRaises(CannotServe, self.service, description)
            self.assertTrue(str(problem).startswith(f"rvp-router: --listen {description}: "), str(problem))


class RefusedTests(TestCase):
    """An address that is not to be had ends the daemon with one sentence."""

    timeout = 20

    def complaint(self, description: str) -> str:
        """What is said when this is listened on."""
        service = ListeningService(
            reactor, description, Factory.forProtocol(Protocol), who="rvp-home", option="--link"
        )
        return str(self.assertRaises(CannotServe, service.privilegedStartService))

    def test_busy(self) -> None:
        """A busy port is named, and the option that says it."""
        with socket.create_server((LOOPBACK, 0)) as other:
            port = other.getsockname()[1]
            for kind in ("tcp", "fast:tcp"):
                self.assertEqual(
                    self.complaint(f"{kind}:{port}:interface={LOOPBACK}"),
                    f"rvp-home: cannot listen on {LOOPBACK}:{port}: address already in use (--link)",
                )

    def test_not_ours(self) -> None:
        """So is an address of another machine."""
        self.assertIn(
            "cannot listen on 192.0.2.1:8080: cannot assign requested address",
            self.complaint("fast:tcp:8080:interface=192.0.2.1"),
        )

    def test_ipv6(self) -> None:
        """IPv6 addresses are written as in URLs."""
        self.assertIn(
            "cannot listen on [2001:db8::1]:80: ", self.complaint(r"fast:tcp:80:interface=2001\:db8\:\:1")
        )

    def test_daemon(self) -> None:
        """C{twistd} says that sentence once and ends with status 1, no traceback and no pid file left behind."""
        where = folder(self)
        with socket.create_server((LOOPBACK, 0)) as other:
            port = other.getsockname()[1]
            (where / "busy.tac").write_text(
                "from twisted.application.service import Application\n"
                "from twisted.internet import reactor\n"
                "from twisted.internet.protocol import Factory, Protocol\n"
                "from rvpfarm.web.listening import ListeningService\n"
                "application = Application('busy')\n"
                f"where = 'fast:tcp:{port}:interface={LOOPBACK}'\n"
                "factory = Factory.forProtocol(Protocol)\n"
                "ListeningService(reactor, where, factory, who='rvp-router').setServiceParent(application)\n"
            )
            script = "from twisted.scripts.twistd import run; run()"
            done = subprocess.run(
                [sys.executable, "-c", script, "--nodaemon", "--no_save", "--python", "busy.tac"],
                cwd=where,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        self.assertEqual(done.returncode, 1)
        said = done.stdout + done.stderr  # twistd puts its standard error into the log, which is here
        sentence = f"rvp-router: cannot listen on {LOOPBACK}:{port}: address already in use (--listen)"
        self.assertEqual(said.count(sentence), 1, said)
        self.assertNotIn("Traceback", said)
        self.assertFalse((where / "twistd.pid").exists())
