"""A network in one process: connections between real protocols, on a clock, with faults on request."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.interfaces import (
    IConsumer,
    IProtocol,
    IProtocolFactory,
    IPushProducer,
    IStreamClientEndpoint,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

#: A producer is paused when more than this waits to be delivered.
HIGH_WATER = 65536


@implementer(ITCPTransport, IConsumer, IPushProducer)
class Pipe:
    """One end of a connection, as the protocol at that end sees it.

    @ivar sent: everything ever written at this end.
    @ivar writes: how often something was written.
    @ivar waiting: written, and not delivered to the other end.
    @ivar reading: the protocol at this end wants to be told what arrives.
    """

    def __init__(self, here: IPv4Address, there: IPv4Address) -> None:
        """
        @param here: the address of this end.
        @param there: the address of the other end.
        """
        self._here, self._there = here, there
        self._producer: Any = None
        self._producer_paused = False
        self.protocol: Any = None  # whichever protocol the factory under test made
        self.other: Pipe
        self.sent = bytearray()
        self.writes = 0
        self.waiting = bytearray()
        self.reading = True
        self.connected = True
        self.disconnecting = False

    def write(self, data: bytes) -> None:
        """Have C{data} delivered."""
        if not isinstance(data, bytes):
            raise TypeError(f"bytes are written, not {type(data).__name__}")
        if self.connected and not self.disconnecting:
            self.sent += data
            self.waiting += data
            self.writes += 1
            if len(self.waiting) > HIGH_WATER and self._producer is not None and not self._producer_paused:
                self._producer_paused = True
                self._producer.pauseProducing()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Write all of C{data}."""
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """Close when everything is delivered; a registered producer keeps it open, as with sockets."""
        self.disconnecting = True

    def abortConnection(self) -> None:
        """Close now."""
        if self.connected:
            self.close(ConnectionAborted(), ConnectionLost())

    def close(self, here: Exception, there: Exception) -> None:
        """The connection ends at both ends, for these reasons."""
        for pipe, reason in ((self, here), (self.other, there)):
            if pipe.connected:
                pipe.connected = False
                pipe.waiting.clear()
                pipe._producer = None
                pipe.protocol.connectionLost(Failure(reason))

    def getPeer(self) -> IPv4Address:
        """The other end."""
        return self._there

    def getHost(self) -> IPv4Address:
        """This end."""
        return self._here

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Tell C{producer} when to pause and when to go on."""
        if self._producer is not None:
            raise RuntimeError("there is a producer already")
        assert streaming, "only streaming producers are known here"
        self._producer = producer

    def unregisterProducer(self) -> None:
        """Nobody needs to be told any more."""
        self._producer = None

    def pauseProducing(self) -> None:
        """Deliver nothing to this end for now."""
        self.reading = False

    def resumeProducing(self) -> None:
        """Deliver again."""
        self.reading = True

    def stopProducing(self) -> None:
        """Nobody wants what arrives any more."""
        self.loseConnection()

    def setTcpNoDelay(self, enabled: bool) -> None:
        """There is no delay here."""

    def getTcpNoDelay(self) -> bool:
        """There is no delay here."""
        return True

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Nothing is kept alive here."""

    def getTcpKeepAlive(self) -> bool:
        """Nothing is kept alive here."""
        return False

    def loseWriteConnection(self) -> None:
        """Close for writing; here that is closing."""
        self.loseConnection()

    def deliver(self, size: int) -> bool:
        """Hand up to C{size} octets to the other end.

        @return: whether anything happened.
        """
        if not self.connected:
            return False
        if self.waiting and self.other.reading:
            data = bytes(self.waiting[:size])
            del self.waiting[:size]
            self.other.protocol.dataReceived(data)
            if self._producer_paused and self.connected and len(self.waiting) <= HIGH_WATER // 4:
                self._producer_paused = False
                if self._producer is not None:
                    self._producer.resumeProducing()
            return True
        if self.disconnecting and not self.waiting and self._producer is None:
            self.close(ConnectionDone(), ConnectionDone())
            return True
        return False


@implementer(IStreamClientEndpoint)
class Place:
    """Where somebody listens, or does not: the endpoint of a host and a port."""

    def __init__(self, network: Network, host: str, port: int) -> None:
        """
        @param network: in which it is.
        """
        self._network, self._where = network, (host, port)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect, be refused, or hear nothing."""
        return self._network.connect(self._where, protocolFactory)


class Network:
    """Joins servers and clients that run on one C{clock}, by seeded deliveries.

    @ivar pipes: the client's end of every connection there ever was, in order.
    @ivar silent: connecting to these places neither succeeds nor fails.
    @ivar attempts: how often anybody tried to connect.
    """

    def __init__(self, clock: Clock, seed: int = 0) -> None:
        """
        @param seed: decides in which pieces and in which order octets are delivered.
        """
        self.clock = clock
        self.random = Random(seed)
        self.pipes: list[Pipe] = []
        self.silent: set[tuple[str, int]] = set()
        self.attempts = 0
        self._listening: dict[tuple[str, int], Any] = {}

    def listen(self, host: str, port: int, factory: Any) -> None:
        """Have C{factory} take the connections to C{host} and C{port}; C{None} takes no more."""
        if factory is None:
            del self._listening[host, port]
        else:
            self._listening[host, port] = factory

    def endpoint(self, host: str, port: int) -> Place:
        """The way to C{host} and C{port}."""
        return Place(self, host, port)

    def connect(self, where: tuple[str, int], factory: Any) -> Deferred[Any]:
        """Connect a protocol made by C{factory} to whoever listens at C{where}."""
        self.attempts += 1
        if where in self.silent:
            return Deferred()
        server_factory = self._listening.get(where)
        if server_factory is None:
            return fail(ConnectionRefusedError())
        client_address = IPv4Address("TCP", "10.9.8.7", 40000 + len(self.pipes))
        server_address = IPv4Address("TCP", "10.0.0.1", where[1])
        near, far = Pipe(client_address, server_address), Pipe(server_address, client_address)
        near.other, far.other = far, near
        far.protocol = server_factory.buildProtocol(client_address)
        near.protocol = factory.buildProtocol(server_address)
        self.pipes.append(near)
        if far.protocol is None:
            far.protocol = Protocol()
            far.connected = False
            near.protocol.makeConnection(near)
            near.close(ConnectionLost(), ConnectionLost())
            return succeed(near.protocol)
        far.protocol.makeConnection(far)
        near.protocol.makeConnection(near)
        return succeed(near.protocol)

    def cut(self) -> None:
        """Every connection breaks; what was not delivered is lost."""
        for pipe in self.pipes:
            if pipe.connected:
                pipe.close(ConnectionLost(), ConnectionLost())

    def pump(self, rounds: int = 10000) -> None:
        """Deliver everything, in pieces and in an order that the seed decides, until all is quiet.

        What is due on the clock now happens in between.
        """
        for _ in range(rounds):
            self.clock.advance(0)
            ends = [end for pipe in self.pipes if pipe.connected for end in (pipe, pipe.other)]
            self.random.shuffle(ends)
            moved = [end.deliver(self._piece()) for end in ends]
            if not any(moved):
                self.clock.advance(0)
                if not any(end.waiting and end.connected and end.other.reading for end in ends):
                    return
        raise AssertionError("the network never became quiet")

    def step(self, *, upstream: bool, size: int = 1 << 20) -> bool:
        """Deliver once, in one direction only.

        @param upstream: from the clients to the servers.
        @return: whether anything happened.
        """
        self.clock.advance(0)
        ends = [pipe if upstream else pipe.other for pipe in self.pipes if pipe.connected]
        return sum(end.deliver(size) for end in ends) > 0

    def advance(self, seconds: float, pieces: int = 10) -> None:
        """Let time pass in small pieces, delivering in between."""
        for _ in range(pieces):
            self.clock.advance(seconds / pieces)
            self.pump()

    def _piece(self) -> int:
        return self.random.choice((1, 7, 100, 4096, 65536))
