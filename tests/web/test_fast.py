"""Twisted protocols on the loop's own transports, over real sockets on loopback.

What is promised here holds whichever way the endpoints take: on the loop's transports, or on Twisted's own
where the reactor is not asyncio's.  L{OtherReactorsTests} runs it all on the reactors that this one is not.
"""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from twisted.internet import reactor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import (
    CannotListenError,
    ConnectError,
    ConnectionDone,
    ConnectionRefusedError,
    DNSLookupError,
    TimeoutError,
)
from twisted.internet.interfaces import IHalfCloseableProtocol, IListeningPort, IResolutionReceiver
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from rvpfarm.protocol.calls import Limits, Reply
from rvpfarm.web.fast import FastClientEndpoint, FastServerEndpoint, loop_of
from rvpfarm.web.inherited import FastInheritedEndpoint
from rvpfarm.web.server import CallFactory
from rvpfarm.web.tls import ClientTLS, ServerTLS
from rvpfarm.web.transport import LoopTransport
from tests.support.connections import ask, statuses
from tests.support.folders import folder
from tests.support.tls import write_certificate

LOOPBACK = "127.0.0.1"
ROOT = Path(__file__).parents[2]


class Peer(Protocol):
    """Notes what happens to it.

    @ivar made: fires with it when it is connected.
    @ivar lost: fires with the reason when the connection is gone.
    """

    def __init__(self, made: Callable[[Peer], None] = lambda peer: None) -> None:
        """
        @param made: called when it is connected.
        """
        self._made = made
        self.data = bytearray()
        self.lost: Deferred[Failure] = Deferred()
        self._expected: tuple[int, Deferred[bytes]] | None = None

    def connectionMade(self) -> None:
        """Connected."""
        self._made(self)

    def dataReceived(self, data: bytes) -> None:
        """Something came."""
        self.data += data
        if self._expected is not None and len(self.data) >= self._expected[0]:
            _, done = self._expected
            self._expected = None
            done.callback(bytes(self.data))

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Gone."""
        self.lost.callback(reason.value)

    def received(self, size: int) -> Deferred[bytes]:
        """Fires when at least C{size} octets have come."""
        if len(self.data) >= size:
            return succeed(bytes(self.data))
        done: Deferred[bytes] = Deferred()
        self._expected = (size, done)
        return done


class Echo(Peer):
    """Sends back what it gets."""

    def dataReceived(self, data: bytes) -> None:
        """Something came."""
        self.transport.write(data)


@implementer(IHalfCloseableProtocol)
class HalfPeer(Peer):
    """Goes on when the other side has sent all."""

    def readConnectionLost(self) -> None:
        """The other side sends no more."""
        self.transport.write(b"and yet")
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """This side sends no more."""


class FastTestCase(TestCase):
    """Listens and connects, and leaves nothing open."""

    timeout = 20

    def listen(self, build: Callable[[], Protocol | None] | Factory, **options: Any) -> IListeningPort:
        """Listen on a free port."""
        factory = build if isinstance(build, Factory) else Built(build)
        endpoint = FastServerEndpoint(reactor, 0, **{"interface": LOOPBACK, **options})
        port: IListeningPort = self.successResultOf(endpoint.listen(factory))
        self.addCleanup(port.stopListening)
        return port

    def connect(self, port: int, peer: Protocol | None = None, host: str = LOOPBACK, **options: Any) -> Any:
        """Connect C{peer}."""
        protocol = Peer() if peer is None else peer
        connected = FastClientEndpoint(reactor, host, port, **options).connect(Built(lambda: protocol))
        return connected.addCallback(self._leave)

    def _leave(self, peer: Any) -> Any:
        def close() -> Deferred[Any]:
            if not peer.lost.called:
                peer.transport.abortConnection()
            return peer.lost

        self.addCleanup(close)
        return peer


class Built(Factory):
    """A factory of whatever is built."""

    noisy = False

    def __init__(self, build: Callable[[], Protocol | None]) -> None:
        self._build = build
        self.started = self.stopped = 0

    def buildProtocol(self, addr: Any) -> Any:
        """Build it."""
        return self._build()

    def startFactory(self) -> None:
        """Note it."""
        self.started += 1

    def stopFactory(self) -> None:
        """Note it."""
        self.stopped += 1


class ConnectionTests(FastTestCase):
    """A connection behaves as a Twisted connection does."""

    async def test_round_trip(self) -> None:
        """What is written comes back, and both ends know both addresses."""
        served: list[Echo] = []
        port = self.listen(lambda: Echo(served.append))  # type: ignore[arg-type]
        peer = await self.connect(port.getHost().port)
        peer.transport.write(b"hello, ")
        peer.transport.writeSequence([b"wor", b"ld"])
        self.assertEqual(await peer.received(12), b"hello, world")
        self.assertIsInstance(port.getHost(), IPv4Address)
        self.assertEqual(peer.transport.getPeer(), port.getHost())
        self.assertEqual(served[0].transport.getHost(), port.getHost())
        self.assertEqual(served[0].transport.getPeer(), peer.transport.getHost())

    async def test_ipv6(self) -> None:
        """The same over IPv6."""
        served: list[Echo] = []
        port = self.listen(lambda: Echo(served.append), interface="::1")  # type: ignore[arg-type]
        peer = await self.connect(port.getHost().port, host="::1")
        peer.transport.write(b"hello")
        self.assertEqual(await peer.received(5), b"hello")
        self.assertIsInstance(peer.transport.getPeer(), IPv6Address)
        self.assertEqual(served[0].transport.getPeer().host, "::1")

    async def test_nothing_in_between(self) -> None:
        """On a loop, C{write} is the loop's method and what arrives goes straight to the protocol."""
        port = self.listen(Echo)
        peer = await self.connect(port.getHost().port)
        if loop_of(reactor) is None:
            self.assertNotIsInstance(peer.transport, LoopTransport)
        else:
            self.assertIsInstance(peer.transport, LoopTransport)
            self.assertEqual(peer.transport.data_received, peer.dataReceived)
            self.assertEqual(peer.transport.write, peer.transport._transport.write)

    async def test_close_sends_all(self) -> None:
        """What was written before C{loseConnection} arrives; what is written after it goes nowhere."""
        size = 3_000_000

        def made(peer: Peer) -> None:
            peer.transport.write(b"x" * size)
            peer.transport.loseConnection()
            if loop_of(reactor) is not None:  # Twisted's own would still send it
                peer.transport.write(b"never sent")

        port = self.listen(lambda: Peer(made))
        peer = await self.connect(port.getHost().port)
        self.assertIsInstance(await peer.lost, ConnectionDone)
        self.assertEqual(len(peer.data), size)
        peer.transport.write(b"too late")
        peer.transport.loseConnection()
        peer.transport.abortConnection()

    async def test_abort(self) -> None:
        """C{abortConnection} ends a connection whatever is still to be sent."""
        served: list[Peer] = []
        port = self.listen(lambda: Peer(served.append))
        peer = await self.connect(port.getHost().port)
        peer.transport.pauseProducing()
        peer.transport.write(b"x")
        await served[0].received(1)
        served[0].transport.write(b"x" * 5_000_000)
        served[0].transport.abortConnection()
        reason = await served[0].lost
        self.assertNotIsInstance(reason, ConnectionDone)

    async def test_back_pressure(self) -> None:
        """A producer is paused when the other side does not read and goes on when it does."""
        told: list[str] = []
        reading = False
        resumed: Deferred[None] = Deferred()

        class Producer:
            """Notes what it is told."""

            def pauseProducing(self) -> None:
                """Stop."""
                told.append("pause")

            def resumeProducing(self) -> None:
                """Go on."""
                told.append("resume")
                if reading and not resumed.called:
                    resumed.callback(None)

            def stopProducing(self) -> None:
                """End."""

        served: list[Peer] = []
        port = self.listen(lambda: Peer(served.append))
        peer = await self.connect(port.getHost().port)
        peer.transport.write(b"x")
        peer.transport.pauseProducing()
        while not served:
            await deferLater(reactor, 0.01)
        await served[0].received(1)
        transport = served[0].transport
        transport.registerProducer(Producer(), True)
        self.assertRaises(RuntimeError, transport.registerProducer, Producer(), True)
        size = 0
        while told[-1:] != ["pause"]:
            transport.write(b"x" * 65536)
            size += 65536
            await deferLater(reactor, 0.01)  # the kernel may still take it
        reading = True
        peer.transport.resumeProducing()
        await resumed
        transport.unregisterProducer()
        self.assertEqual(len(await peer.received(size)), size)

    async def test_paused_from_the_start(self) -> None:
        """A protocol may refuse to read from the moment it is made."""
        served: list[Peer] = []

        def made(peer: Peer) -> None:
            served.append(peer)
            peer.transport.pauseProducing()

        port = self.listen(lambda: Peer(made))
        peer = await self.connect(port.getHost().port)
        peer.transport.write(b"hello")
        while not served:
            await deferLater(reactor, 0.01)
        await deferLater(reactor, 0.05)
        self.assertEqual(served[0].data, b"")
        served[0].transport.resumeProducing()
        self.assertEqual(await served[0].received(5), b"hello")

    async def test_half_closed(self) -> None:
        """One side can stop writing and still read; the other hears of it if it wants to."""
        served: list[HalfPeer] = []
        port = self.listen(lambda: HalfPeer(served.append))  # type: ignore[arg-type]
        peer = await self.connect(port.getHost().port)
        peer.transport.write(b"that was all")
        peer.transport.loseWriteConnection()
        self.assertIsInstance(await peer.lost, ConnectionDone)
        self.assertEqual(peer.data, b"and yet")
        self.assertEqual(served[0].data, b"that was all")

    async def test_peer_closes(self) -> None:
        """A protocol that knows nothing of half-closed connections loses the whole of it."""
        served: list[Peer] = []
        port = self.listen(lambda: Peer(served.append))
        peer = await self.connect(port.getHost().port)
        peer.transport.loseConnection()
        await peer.lost
        while not served:
            await deferLater(reactor, 0.01)
        self.assertIsInstance(await served[0].lost, ConnectionDone)

    async def test_socket_options(self) -> None:
        """Nagle's delay is off, or can be turned off; probes can be turned on."""
        port = self.listen(Echo)
        peer = await self.connect(port.getHost().port)
        if loop_of(reactor) is not None:
            self.assertTrue(peer.transport.getTcpNoDelay())
        peer.transport.setTcpNoDelay(True)
        self.assertTrue(peer.transport.getTcpNoDelay())
        peer.transport.setTcpKeepAlive(True)
        self.assertTrue(peer.transport.getTcpKeepAlive())

    async def test_not_wanted(self) -> None:
        """A factory that makes no protocol has the connection closed."""
        port = self.listen(lambda: None)
        peer = await self.connect(port.getHost().port)
        await peer.lost

    async def test_trouble_in_the_making(self) -> None:
        """A protocol that fails as it is made is logged, and its connection closed."""

        def made(peer: Peer) -> None:
            raise ZeroDivisionError

        port = self.listen(lambda: Peer(made))
        peer = await self.connect(port.getHost().port)
        if loop_of(reactor) is not None:  # Twisted's own keep such a connection
            await peer.lost
        while not self.flushLoggedErrors(ZeroDivisionError):
            await deferLater(reactor, 0.01)


class ListeningTests(FastTestCase):
    """An address is taken at once and given back whole."""

    async def test_busy(self) -> None:
        """A busy port fails before C{listen} returns."""
        port = self.listen(Echo)
        endpoint = FastServerEndpoint(reactor, port.getHost().port, interface=LOOPBACK)
        problem = self.failureResultOf(endpoint.listen(Built(Echo)), CannotListenError)
        self.assertEqual(problem.value.port, port.getHost().port)

    async def test_not_ours(self) -> None:
        """So does an address that is not this machine's."""
        endpoint = FastServerEndpoint(reactor, 0, interface="192.0.2.1")
        self.failureResultOf(endpoint.listen(Built(Echo)), CannotListenError)

    async def test_free_again(self) -> None:
        """When C{stopListening} has fired the address can be taken; open connections stay."""
        factory = Built(Echo)
        port = self.listen(factory)
        number = port.getHost().port
        peer = await self.connect(number)
        await port.stopListening()
        again = FastServerEndpoint(reactor, number, interface=LOOPBACK)
        other = self.successResultOf(again.listen(Built(Echo)))
        self.addCleanup(other.stopListening)
        peer.transport.write(b"still here")
        await peer.received(10)
        self.assertEqual((factory.started, factory.stopped), (1, 1))

    async def test_stopped_at_once(self) -> None:
        """Listening can stop before it has really begun, and nobody is let in then."""
        for turns in range(3):
            endpoint = FastServerEndpoint(reactor, 0, interface=LOOPBACK)
            port = self.successResultOf(endpoint.listen(Built(Echo)))
            number = port.getHost().port
            for _ in range(turns):
                await deferLater(reactor, 0)
            await port.stopListening()
            await self.assertFailure(self.connect(number), ConnectionRefusedError)

    async def test_who_waits_is_let_in(self) -> None:
        """Whoever the kernel had let in before listening stopped is served, not reset."""
        if loop_of(reactor) is None:
            return  # Twisted's own resets them
        directory = folder(self)
        for tls in (None, ServerTLS(*write_certificate(directory))):
            port = self.listen(Echo, tls=tls)
            where = (LOOPBACK, port.getHost().port)
            await self.connect(where[1])
            waiting = [socket.create_connection(where) for _ in range(20)]  # the loop does not turn meanwhile
            stopped = port.stopListening()
            for sock in waiting:
                sock.setblocking(False)
                peer = await self.adopt(
                    sock, None if tls is None else ClientTLS(LOOPBACK, f"{directory}/certificate.pem")
                )
                peer.transport.write(b"hello")
                self.assertEqual(await peer.received(5), b"hello")
            await stopped
            await self.assertFailure(self.connect(where[1]), ConnectionRefusedError)

    def adopt(self, sock: socket.socket, tls: ClientTLS | None) -> Deferred[Any]:
        """A peer on a socket that is connected."""
        loop, peer = loop_of(reactor), Peer()
        assert loop is not None
        connecting = loop.create_connection(
            lambda: LoopTransport(lambda _: peer),
            sock=sock,
            ssl=None if tls is None else tls.context,
            server_hostname=None if tls is None else tls.name,
        )
        connected: Deferred[Any] = Deferred.fromFuture(loop.create_task(connecting))
        return connected.addCallback(lambda _: self._leave(peer))

    async def test_handshake_under_way(self) -> None:
        """Who had connected, and was shaking hands when listening stopped, is let in."""
        if loop_of(reactor) is None:
            return
        directory = folder(self)
        made: list[Peer] = []
        port = self.listen(lambda: Peer(made.append), tls=ServerTLS(*write_certificate(directory)))
        connecting = self.connect(
            port.getHost().port, tls=ClientTLS(LOOPBACK, f"{directory}/certificate.pem")
        )
        while not port._arrivals.under_way:  # type: ignore[attr-defined]
            await deferLater(reactor, 0)
        self.assertEqual(made, [])
        await port.stopListening()
        self.assertEqual(len(made), 1)
        await connecting

    async def test_shared(self) -> None:
        """With C{reuse_port} several listeners share an address, where the reactor can do that."""
        endpoint = FastServerEndpoint(reactor, 0, interface=LOOPBACK, reuse_port=True)
        if loop_of(reactor) is None:
            self.failureResultOf(endpoint.listen(Built(Echo)), CannotListenError)
            return
        first = self.successResultOf(endpoint.listen(Built(Echo)))
        self.addCleanup(first.stopListening)
        second = FastServerEndpoint(reactor, first.getHost().port, interface=LOOPBACK, reuse_port=True)
        self.addCleanup(self.successResultOf(second.listen(Built(Echo))).stopListening)


class InheritedTests(FastTestCase):
    """A socket that was handed down is served, and never closed for those who share it."""

    def setUp(self) -> None:
        """A socket that listens, as another process would hand it down."""
        self.sock = socket.create_server((LOOPBACK, 0))
        self.addCleanup(self.sock.close)
        self.port: int = self.sock.getsockname()[1]

    def serve(self, tls: ServerTLS | None = None) -> IListeningPort:
        """Listen on it."""
        endpoint = FastInheritedEndpoint(reactor, [self.sock.fileno()], tls=tls)
        port: IListeningPort = self.successResultOf(endpoint.listen(Built(Echo)))
        self.addCleanup(port.stopListening)
        return port

    async def test_nothing_is_lost(self) -> None:
        """Who connects while nobody listens waits for the next who does."""
        port = self.serve()
        self.assertEqual(port.getHost(), IPv4Address("TCP", LOOPBACK, self.port))
        peer = await self.connect(self.port)
        peer.transport.write(b"hello")
        await peer.received(5)
        await port.stopListening()
        other = await self.connect(self.port)
        other.transport.write(b"is anybody there")
        peer.transport.write(b", world")
        await peer.received(12)
        self.assertEqual(other.data, b"")
        self.serve()
        await other.received(16)

    async def test_tls(self) -> None:
        """It speaks TLS if it is given a certificate."""
        directory = folder(self)
        self.serve(ServerTLS(*write_certificate(directory)))
        peer = await self.connect(self.port, tls=ClientTLS(LOOPBACK, f"{directory}/certificate.pem"))
        peer.transport.write(b"hello")
        self.assertEqual(await peer.received(5), b"hello")


class Resolving:
    """The reactor, but for names."""

    def __init__(self, *addresses: str) -> None:
        """
        @param addresses: of every name there is.
        """
        self._addresses = addresses
        self.nameResolver = self

    def __getattr__(self, name: str) -> Any:
        """Everything else."""
        return getattr(reactor, name)

    def resolveHostName(
        self, receiver: IResolutionReceiver, hostName: str, portNumber: int = 0, *args: Any, **kwargs: Any
    ) -> Any:
        """Answer at once."""
        receiver.resolutionBegan(self)
        for address in self._addresses:
            receiver.addressResolved(IPv4Address("TCP", address, portNumber))
        receiver.resolutionComplete()
        return self


class ConnectingTests(FastTestCase):
    """Connecting succeeds, fails as Twisted's endpoints do, or can be called off."""

    async def test_refused(self) -> None:
        """Where nobody listens the connection is refused."""
        port = self.listen(Echo)
        number = port.getHost().port
        await port.stopListening()
        factory = Built(Peer)
        endpoint = FastClientEndpoint(reactor, LOOPBACK, number)
        await self.assertFailure(endpoint.connect(factory), ConnectionRefusedError)
        await deferLater(reactor, 0.01)
        self.assertEqual((factory.started, factory.stopped), (1, 1))

    async def test_factory_started_and_stopped(self) -> None:
        """A client's factory is started for the connection and stopped with it."""
        port = self.listen(Echo)
        factory = Built(Peer)
        peer: Any = await FastClientEndpoint(reactor, LOOPBACK, port.getHost().port).connect(factory)
        self.assertEqual((factory.started, factory.stopped), (1, 0))
        peer.transport.loseConnection()
        await peer.lost
        await deferLater(reactor, 0.01)
        self.assertEqual((factory.started, factory.stopped), (1, 1))

    async def test_addresses_in_turn(self) -> None:
        """Of a name's addresses the first that answers is taken."""
        port = self.listen(Echo)
        endpoint = FastClientEndpoint(
            Resolving("127.0.0.2", LOOPBACK), "im.fabrik.example", port.getHost().port
        )
        peer: Any = await endpoint.connect(Built(Peer))
        self.assertEqual(peer.transport.getPeer().host, LOOPBACK)
        peer.transport.loseConnection()
        await peer.lost

    async def test_no_address(self) -> None:
        """A name without an address is said to have none."""
        endpoint = FastClientEndpoint(Resolving(), "nowhere.fabrik.example", 80)
        await self.assertFailure(endpoint.connect(Built(Peer)), DNSLookupError)

    async def test_too_slow(self) -> None:
        """A connection that is not complete in time fails; the time includes shaking hands."""
        _, certificate = write_certificate(folder(self))
        port = self.listen(Peer)  # says nothing
        endpoint = FastClientEndpoint(
            reactor,
            LOOPBACK,
            port.getHost().port,
            timeout_seconds=0.2,
            tls=ClientTLS(LOOPBACK, certificate),
        )
        if loop_of(reactor) is None:
            self.assertIsNotNone(endpoint)  # Twisted's own ends with the TCP connection
            return
        await self.assertFailure(endpoint.connect(Built(Peer)), TimeoutError)

    async def test_called_off(self) -> None:
        """Connecting can be cancelled, at once or later, and leaves nothing open."""
        served: list[Peer] = []
        port = self.listen(lambda: Peer(served.append))
        for turns in range(4):
            factory = Built(Peer)
            attempt = FastClientEndpoint(reactor, LOOPBACK, port.getHost().port).connect(factory)
            for _ in range(turns):
                await deferLater(reactor, 0)
            attempt.addErrback(lambda failure: None)
            attempt.cancel()
            peer: Any = await attempt
            if peer is not None:  # it was quicker
                peer.transport.loseConnection()
                await peer.lost
        for each in served:
            await each.lost


class TLSTests(FastTestCase):
    """TLS is the loop's own, 1.2 or later, and knows whom it talks to."""

    def setUp(self) -> None:
        """A server with a certificate."""
        self.key, self.certificate = write_certificate(folder(self))
        self.port = self.listen(Echo, tls=ServerTLS(self.key, self.certificate))

    async def test_round_trip(self) -> None:
        """What is written comes back."""
        peer = await self.connect(
            self.port.getHost().port, tls=ClientTLS("im.fabrik.example", self.certificate)
        )
        message = b"hello" * 50000
        peer.transport.write(message)
        self.assertEqual(await peer.received(len(message)), message)
        self.assertEqual(peer.transport.getPeer().host, LOOPBACK)
        peer.transport.loseConnection()
        await peer.lost

    async def test_wrong_name(self) -> None:
        """A certificate of another name is not believed."""
        if loop_of(reactor) is None:
            peer = Peer()  # Twisted's own connects first and shakes hands then
            await self.connect(
                self.port.getHost().port, peer, tls=ClientTLS("other.fabrik.example", self.certificate)
            )
            peer.transport.write(b"x")
            self.assertNotIsInstance(await peer.lost, ConnectionDone)
            return
        await self.assertFailure(
            self.connect(self.port.getHost().port, tls=ClientTLS("other.fabrik.example", self.certificate)),
            ConnectError,
        )

    async def test_stranger(self) -> None:
        """A certificate that nobody vouches for is not believed."""
        if loop_of(reactor) is not None:
            await self.assertFailure(
                self.connect(self.port.getHost().port, tls=ClientTLS("im.fabrik.example")), ConnectError
            )

    async def test_plain_text(self) -> None:
        """Whoever does not speak TLS gets nothing."""
        peer = await self.connect(self.port.getHost().port)
        peer.transport.write(ask())
        await peer.lost
        self.assertNotIn(b"200", peer.data)

    async def test_reload(self) -> None:
        """A new certificate is for new connections; those that are open go on."""
        tls = ServerTLS(self.key, self.certificate)
        port = self.listen(Echo, tls=tls)
        old = ClientTLS("im.fabrik.example", self.certificate)
        before = await self.connect(port.getHost().port, tls=old)
        before.transport.write(b"before")
        await before.received(6)
        for _ in range(2):
            write_certificate(Path(self.key).parent)
            tls.reload()
            for name in ("im.fabrik.example", LOOPBACK):  # a client names no server by its address
                peer = await self.connect(port.getHost().port, tls=ClientTLS(name, self.certificate))
                peer.transport.write(b"after")
                await peer.received(5)
        before.transport.write(b" and after")
        await before.received(16)
        if loop_of(reactor) is not None:
            await self.assertFailure(self.connect(port.getHost().port, tls=old), ConnectError)

    async def test_reload_of_something_broken(self) -> None:
        """A certificate that cannot be used changes nothing, and is complained of."""
        tls = ServerTLS(self.key, self.certificate)
        port, expires = self.listen(Echo, tls=tls), tls.expires
        believed = ClientTLS("im.fabrik.example", self.certificate)
        other_key, _ = write_certificate(folder(self))
        for content in (Path(other_key).read_bytes(), b"garbage"):  # noqa: ASYNC240
            Path(self.key).write_bytes(content)  # noqa: ASYNC240
            self.assertIn(self.key, str(self.assertRaises(ValueError, tls.reload)))
            peer = await self.connect(port.getHost().port, tls=believed)
            peer.transport.write(b"hello")
            await peer.received(5)
        self.assertEqual(tls.expires, expires)

    def test_expires(self) -> None:
        """It is known when the certificate expires."""
        self.assertApproximates(ServerTLS(self.key, self.certificate).expires, time.time() + 24 * 3600, 60)

    def test_encrypted_key(self) -> None:
        """Nobody is asked for a passphrase."""
        key = serialization.load_pem_private_key(Path(self.key).read_bytes(), None)
        Path(self.key).write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(b"secret"),
            )
        )
        problem = self.assertRaises(ValueError, ServerTLS, self.key, self.certificate)
        self.assertIn("the key is encrypted", str(problem))

    def test_versions(self) -> None:
        """Neither side goes below TLS 1.2."""
        for context in (ServerTLS(self.key, self.certificate).context, ClientTLS("x").context):
            self.assertEqual(context.minimum_version, ssl.TLSVersion.TLSv1_2)

    def test_files(self) -> None:
        """Files that cannot be used are named."""
        for make in (
            lambda: ServerTLS("/nowhere/key.pem", self.certificate),
            lambda: ServerTLS(self.certificate, self.key),
            lambda: ClientTLS("x", "/nowhere/roots.pem"),
        ):
            problem = self.assertRaises(ValueError, make)
            self.assertIn(".pem", str(problem))


class ServerTests(FastTestCase):
    """L{CallFactory} on these transports: what the fakes of its own tests promise, sockets keep."""

    async def test_pipeline(self) -> None:
        """Calls in one piece are answered in order."""
        port = self.listen(CallFactory(lambda call: Reply(200), clock=reactor, limits=Limits()))
        peer = await self.connect(port.getHost().port)
        peer.transport.write(ask() * 99 + ask(b"/z", b"Connection: close"))
        self.assertIsInstance(await peer.lost, ConnectionDone)
        self.assertEqual(statuses(bytes(peer.data)), [200] * 100)

    async def test_answers_not_fetched(self) -> None:
        """A peer that does not fetch its answers stops the work, and all of it is done when it does."""
        calls = 0

        def answer(call: Any) -> Reply:
            nonlocal calls
            calls += 1
            return Reply(200, body=b"x" * 10000)

        port = self.listen(CallFactory(answer, clock=reactor, limits=Limits()))
        peer = await self.connect(port.getHost().port)
        peer.transport.pauseProducing()
        count = 3000
        peer.transport.write(ask() * count)
        before = -1
        while calls != before:
            before = calls
            await deferLater(reactor, 0.1)
        self.assertLess(calls, count)
        peer.transport.resumeProducing()
        size = len(b"HTTP/1.1 200 Successful\r\nRVP-Notifications-Version: 0.2\r\n")
        size += len(b"Content-Length: 10000\r\n\r\n") + 10000
        await peer.received(count * size)
        self.assertEqual(calls, count)

    async def test_refusal_can_be_read(self) -> None:
        """A peer in the middle of a body that is too large gets its 413, not a reset connection."""
        port = self.listen(CallFactory(lambda call: Reply(200), clock=reactor, limits=Limits()))
        peer = await self.connect(port.getHost().port)
        peer.transport.write(ask(b"/a", b"Content-Length: 900000") + b"x" * 300000)
        await peer.received(100)
        peer.transport.write(b"x" * 300000)
        await peer.lost
        self.assertEqual(statuses(bytes(peer.data)), [413])

    async def test_drained(self) -> None:
        """A listener that is stopped and drained has nothing open."""
        factory = CallFactory(lambda call: Reply(200), clock=reactor, limits=Limits())
        port = self.listen(factory)
        peer = await self.connect(port.getHost().port)
        peer.transport.write(ask())
        await peer.received(10)
        await port.stopListening()
        await factory.drain()
        self.assertEqual(len(factory.connections), 0)
        await peer.lost


class FallBackTests(SynchronousTestCase):
    """Without an asyncio reactor Twisted's own endpoints do the work."""

    def test_listening(self) -> None:
        """Plain and TLS, IPv4 and IPv6."""
        memory = MemoryReactorClock()
        factory = Built(Echo)
        FastServerEndpoint(memory, 80, interface="::1", backlog=3).listen(factory)
        FastServerEndpoint(memory, 81).listen(factory)
        self.assertEqual(memory.tcpServers, [(80, factory, 3, "::1"), (81, factory, 1024, "")])
        key, certificate = write_certificate(folder(self))
        FastServerEndpoint(memory, 443, tls=ServerTLS(key, certificate)).listen(factory)
        self.assertEqual([each[:2] for each in memory.sslServers], [(443, factory)])

    def test_connecting(self) -> None:
        """An address is connected to as it is."""
        memory = MemoryReactorClock()
        FastClientEndpoint(memory, "192.0.2.4", 80).connect(Built(Peer))
        self.assertEqual(memory.tcpClients[0][:2], ("192.0.2.4", 80))


#: Runs the tests that its arguments name on a reactor of its own choice.
SCRIPT = """
import asyncio, sys
kind = sys.argv.pop(1)
if kind == "default":
    import twisted.internet.reactor
else:
    from rvpfarm.tap.reactor import LoopReactor, new_loop
    from twisted.internet.main import installReactor
    installReactor(LoopReactor(new_loop if kind == "uvloop" else asyncio.new_event_loop))
from twisted.scripts.trial import run
run()
"""

HERE = (ConnectionTests, ListeningTests, InheritedTests, ConnectingTests, TLSTests, ServerTests)


class OtherReactorsTests(SynchronousTestCase):
    """Everything here holds on uvloop, on the stock asyncio loop and on Twisted's default reactor."""

    def check(self, kind: str) -> None:
        """The tests above pass on a reactor of this kind; on the one of this process they ran already."""
        loop = loop_of(reactor)
        own = "default" if loop is None else "asyncio"
        if type(loop).__module__.startswith("uvloop"):
            own = "uvloop"
        if kind == own:
            return
        names = [f"{__name__}.{case.__name__}" for case in HERE]
        command = [
            sys.executable,
            "-c",
            SCRIPT,
            kind,
            "--temp-directory",
            str(folder(self) / "trial"),
            *names,
        ]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("PASSED", done.stdout)

    def test_uvloop(self) -> None:
        """On uvloop's loop."""
        self.check("uvloop")

    def test_asyncio(self) -> None:
        """On the stock loop."""
        self.check("asyncio")

    def test_default(self) -> None:
        """On Twisted's default reactor."""
        self.check("default")


DAEMON = """
from rvpfarm.tap.reactor import install
install()
from twisted.application.service import Application
from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol
from rvpfarm.web.listening import ListeningService

class Echo(Protocol):
    def dataReceived(self, data):
        self.transport.write(data)

application = Application("echo")
ListeningService(
    reactor, "fast:tcp:{port}:interface=127.0.0.1", Factory.forProtocol(Echo), who="echo"
).setServiceParent(application)
"""


class DaemonTests(SynchronousTestCase):
    """C{twistd} forks between making the services and starting them."""

    def test_daemonised(self) -> None:
        """A daemon in the background serves, and gives its port back when it is told to stop."""
        where = folder(self)
        with socket.create_server((LOOPBACK, 0)) as probe:
            port = probe.getsockname()[1]
        (where / "echo.tac").write_text(DAEMON.format(port=port))
        script = (
            "import sys; sys.path.insert(0, sys.argv.pop(1)); from twisted.scripts.twistd import run; run()"
        )
        options = ["--python", "echo.tac", "--pidfile", "echo.pid", "--logfile", "echo.log", "--no_save"]
        started = subprocess.run(
            [sys.executable, "-c", script, str(ROOT), *options],
            cwd=where,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual(started.returncode, 0, started.stderr)
        pid = int((where / "echo.pid").read_text())
        try:
            with socket.create_connection((LOOPBACK, port), 20) as client:
                client.settimeout(20)
                client.sendall(b"hello")
                self.assertEqual(client.recv(5), b"hello")
        finally:
            os.kill(pid, signal.SIGTERM)
        end = time.monotonic() + 20
        while (where / "echo.pid").exists():
            self.assertLess(time.monotonic(), end, (where / "echo.log").read_text())
            time.sleep(0.05)
        with socket.create_server((LOOPBACK, port)):
            pass
