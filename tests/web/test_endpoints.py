"""The strings that name endpoints on the loop's own transports."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

from twisted.internet.endpoints import (
    _SystemdParser,
    clientFromString,
    quoteStringArgument,
    serverFromString,
)
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.python.systemd import ListenFDs
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.web.endpoints import on_descriptor
from rvpfarm.web.fast import FastClientEndpoint, FastServerEndpoint
from rvpfarm.web.inherited import FastInheritedEndpoint
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
        number = self.listening().fileno()
        for description in (
            "fast:tcp:80",
            f"fast:ssl:443:privateKey={key}:certKey={certificate}",
            f"fast:fd:{number}",
            f"fast:fd:{number}:privateKey={key}:certKey={certificate}",
        ):
            for option, proxied in (("", False), (":proxyProtocol=0", False), (":proxyProtocol=1", True)):
                endpoint = serverFromString(self.reactor, description + option)
                self.assertEqual(endpoint.proxied, proxied)

    def listening(self, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """A socket that another process may have opened."""
        sock = socket.socket(socket.AF_INET, kind)
        self.addCleanup(sock.close)
        sock.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            sock.listen()
        return sock

    def from_systemd(self, *names: str) -> list[socket.socket]:
        """Sockets that systemd handed down under these names."""
        sockets = [self.listening() for _ in names]
        self.patch(_SystemdParser, "_sddaemon", ListenFDs([sock.fileno() for sock in sockets], names))
        self.patch(os, "environ", {**os.environ, "LISTEN_FDNAMES": ":".join(names)})
        return sockets

    def port_of(self, description: str) -> int:
        """The port of the socket that an endpoint on a socket of somebody else's listens on."""
        endpoint = serverFromString(self.reactor, description)
        self.assertIsInstance(endpoint, FastInheritedEndpoint)
        (sock,) = endpoint.reserve(1)
        with sock:
            port: int = sock.getsockname()[1]
            return port

    def test_descriptor(self) -> None:
        """C{fast:fd} is a descriptor that the process was started with."""
        sock = self.listening()
        port = sock.getsockname()[1]
        self.assertEqual(self.port_of(f"fast:fd:{sock.fileno()}"), port)
        self.assertEqual(self.port_of(f"fast:fd:descriptor={sock.fileno()}:backlog=7"), port)
        key, certificate = map(quoteStringArgument, write_certificate(folder(self)))
        endpoint = serverFromString(
            self.reactor, f"fast:fd:{sock.fileno()}:privateKey={key}:certKey={certificate}"
        )
        self.assertIsNotNone(endpoint.tls)

    def test_systemd(self) -> None:
        """C{fast:systemd} is a socket that systemd opened, by its place or its name, as C{systemd} has it."""
        first, second, third = (sock.getsockname()[1] for sock in self.from_systemd("web", "link", "web"))
        for description, port in (
            ("fast:systemd:domain=INET:index=0", first),
            ("fast:systemd:INET:1", second),
            ("fast:systemd:index=2", third),
            ("fast:systemd:name=link", second),
            ("fast:systemd:domain=INET:name=web", first),
        ):
            self.assertEqual(self.port_of(description), port, description)
        for description, count in (("fast:systemd:name=web", 2), ("fast:systemd:index=0", 3)):
            sockets = serverFromString(self.reactor, description).reserve(count)
            for sock in sockets:
                sock.close()
            self.assertEqual(len(sockets), count)
        endpoint = serverFromString(self.reactor, "fast:systemd:name=web")
        problem = self.assertRaises(ValueError, endpoint.reserve, 3)
        self.assertIn("3 sockets are needed and 2 sockets were handed down", str(problem))

    def test_bad_sockets(self) -> None:
        """What was not handed down, or cannot be listened on, is refused with a sentence that says why."""
        datagrams, unbound = self.listening(socket.SOCK_DGRAM), socket.socket()
        self.addCleanup(unbound.close)
        with open(os.devnull) as file:
            nobody = os.dup(file.fileno())
            os.close(nobody)
            for description, complaint in (
                (f"fast:fd:{nobody}", "bad file descriptor"),
                (f"fast:fd:{file.fileno()}", "non-socket"),
                (f"fast:fd:{datagrams.fileno()}", "is no TCP socket of domain INET or INET6"),
                (f"fast:fd:{unbound.fileno()}", "does not listen"),
                ("fast:fd:http", "'http'"),
                ("fast:fd", "descriptor is missing"),
                ("fast:fd:3:port=80", "unknown argument port"),
                ("fast:systemd:index=0", "no socket was handed down by systemd, so there is no index=0"),
                ("fast:systemd:name=web", "no socket was handed down by systemd; none is named web"),
                ("fast:systemd:domain=INET", "index=N or with name=NAME"),
                ("fast:systemd:INET:0:web", "index=N or with name=NAME"),
                ("fast:systemd:domain=UNIX:index=0", "'UNIX'"),
            ):
                with self.subTest(description):
                    problem = self.assertRaises(ValueError, serverFromString, self.reactor, description)
                    self.assertIn(complaint, str(problem))
        self.from_systemd("web")
        for description, complaint in (
            ("fast:systemd:index=1", "one socket was handed down by systemd, so there is no index=1"),
            (
                "fast:systemd:name=link",
                "one socket was handed down by systemd, and named web; none is named link",
            ),
            ("fast:systemd:domain=INET6:index=0", "is no TCP socket of domain INET6"),
        ):
            problem = self.assertRaises(ValueError, serverFromString, self.reactor, description)
            self.assertIn(complaint, str(problem))

    def test_on_descriptor(self) -> None:
        """A description is carried over to a socket that is handed down, with all that is not about the socket."""
        for description, expected in (
            ("fast:tcp:80", "fast:fd:3"),
            (r"fast:tcp:port=80:interface=\:\:1:reusePort=1:backlog=7", "fast:fd:3:backlog=7"),
            (r"fast:ssl:443:privateKey=/k\:1.pem:certKey=c", r"fast:fd:3:privateKey=/k\:1.pem:certKey=c"),
            ("fast:systemd:INET:name=web:backlog=7", "fast:fd:3:backlog=7"),
            ("fast:systemd:domain=INET:index=0", "fast:fd:3"),
            ("fast:fd:9:backlog=7", "fast:fd:3:backlog=7"),
            ("fast:tcp:80:proxyProtocol=1", "fast:fd:3:proxyProtocol=1"),
        ):
            self.assertEqual(on_descriptor(description, 3), expected)

    def test_reserve(self) -> None:
        """One address can be had several times over, for processes that share it; a busy one not once."""
        endpoint = serverFromString(self.reactor, "fast:tcp:0:interface=127.0.0.1")
        sockets = endpoint.reserve(3)
        for sock in sockets:
            self.addCleanup(sock.close)
        self.assertEqual(len({sock.getsockname() for sock in sockets}), 1)
        taken = self.listening().getsockname()[1]
        busy = serverFromString(self.reactor, f"fast:tcp:{taken}:interface=127.0.0.1")
        self.assertEqual(self.assertRaises(CannotListenError, busy.reserve, 2).port, taken)

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
