"""The strings that name endpoints on the loop's own transports."""

from __future__ import annotations

import subprocess
import sys

from twisted.internet.endpoints import clientFromString, quoteStringArgument, serverFromString
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.web.fast import FastClientEndpoint, FastServerEndpoint
from tests.support.folders import folder
from tests.support.tls import write_certificate


class ServerStringTests(SynchronousTestCase):
    """C{fast:} strings make server endpoints, through Twisted's own plugin system."""

    def setUp(self) -> None:
        """A reactor that is not asyncio's, and records what it was asked for."""
        self.reactor = MemoryReactorClock()
        self.factory = Factory.forProtocol(Protocol)

    def test_tcp(self) -> None:
        """Port, interface and backlog are taken."""
        endpoint = serverFromString(self.reactor, "fast:tcp:8080:interface=127.0.0.1:backlog=7")
        self.assertIsInstance(endpoint, FastServerEndpoint)
        self.successResultOf(endpoint.listen(self.factory))
        self.assertEqual(self.reactor.tcpServers, [(8080, self.factory, 7, "127.0.0.1")])

    def test_named_port(self) -> None:
        """The port may be named, and an IPv6 interface is written with its colons escaped."""
        endpoint = serverFromString(self.reactor, r"fast:tcp:port=80:interface=\:\:1")
        self.successResultOf(endpoint.listen(self.factory))
        self.assertEqual([(each[0], each[3]) for each in self.reactor.tcpServers], [(80, "::1")])

    def test_ssl(self) -> None:
        """C{fast:ssl} takes a key and a certificate."""
        key, certificate = map(quoteStringArgument, write_certificate(folder(self)))
        endpoint = serverFromString(self.reactor, f"fast:ssl:443:privateKey={key}:certKey={certificate}")
        self.successResultOf(endpoint.listen(self.factory))
        self.assertEqual([each[0] for each in self.reactor.sslServers], [443])

    def test_proxied(self) -> None:
        """Plain or with TLS, a listener demands preambles where it is told to, and only there."""
        key, certificate = map(quoteStringArgument, write_certificate(folder(self)))
        for description in ("fast:tcp:80", f"fast:ssl:443:privateKey={key}:certKey={certificate}"):
            for option, proxied in (("", False), (":proxyProtocol=0", False), (":proxyProtocol=1", True)):
                endpoint = serverFromString(self.reactor, description + option)
                self.assertEqual(endpoint.proxied, proxied)

    def test_nonsense(self) -> None:
        """What cannot be meant is refused with a sentence that names it."""
        for description, complaint in (
            ("fast:udp:80", "fast:tcp"),
            ("fast:", "fast:tcp"),
            ("fast:tcp", "port is missing"),
            ("fast:tcp:http", "'http'"),
            ("fast:tcp:65536", "'65536'"),
            ("fast:tcp:-1", "'-1'"),
            ("fast:tcp:80:81", "too many"),
            ("fast:tcp:80:backlog=x", "backlog"),
            ("fast:tcp:80:reusePort=yes", "reusePort"),
            ("fast:tcp:80:proxyProtocol=2", "proxyProtocol"),
            ("fast:tcp:80:iface=::1", "too many|iface"),
            ("fast:ssl:443:privateKey=/nowhere/key.pem", "/nowhere/key.pem"),
        ):
            with self.subTest(description):
                problem = self.assertRaises(ValueError, serverFromString, self.reactor, description)
                self.assertRegex(str(problem), complaint)


class ClientStringTests(SynchronousTestCase):
    """C{fast:} strings make client endpoints."""

    def test_forms(self) -> None:
        """Host and port may stand alone or be named."""
        reactor = MemoryReactorClock()
        for description in (
            "fast:tcp:127.0.0.1:8081",
            "fast:tcp:host=127.0.0.1:port=8081",
            "fast:tcp:127.0.0.1:port=8081:timeout=5:bindAddress=127.0.0.1",
        ):
            endpoint = clientFromString(reactor, description)
            self.assertIsInstance(endpoint, FastClientEndpoint)
            endpoint.connect(Factory.forProtocol(Protocol))
        self.assertEqual([each[:2] for each in reactor.tcpClients], [("127.0.0.1", 8081)] * 3)
        self.assertEqual(reactor.tcpClients[2][3:], (5, ("127.0.0.1", 0)))

    def test_ssl(self) -> None:
        """C{fast:ssl} takes a name to check and certificates to trust."""
        _, certificate = write_certificate(folder(self))
        reactor = MemoryReactorClock()
        endpoint = clientFromString(
            reactor,
            "fast:ssl:127.0.0.1:443:hostname=im.fabrik.example:trustRoots="
            + quoteStringArgument(certificate),
        )
        endpoint.connect(Factory.forProtocol(Protocol))
        self.assertEqual([each[:2] for each in reactor.tcpClients], [("127.0.0.1", 443)])

    def test_nonsense(self) -> None:
        """What cannot be meant is refused."""
        for description in ("fast:tcp:host", "fast:tcp:h:1:2", "fast:ssl:h:1:trustRoots=/nowhere.pem"):
            with self.subTest(description):
                self.assertRaises(ValueError, clientFromString, MemoryReactorClock(), description)


class PluginTests(SynchronousTestCase):
    """The plugin file is loaded before a reactor is chosen."""

    def test_chooses_no_reactor(self) -> None:
        """Importing it installs no reactor."""
        script = "import sys; import twisted.plugins.rvpfarm_plugin; sys.exit('twisted.internet.reactor' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, b""))
