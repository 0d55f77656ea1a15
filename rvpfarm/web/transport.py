"""A Twisted transport over one of the event loop's own: the protocol is an ordinary Twisted one."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IHalfCloseableProtocol,
    IProducer,
    IProtocol,
    IPushProducer,
    ITCPTransport,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

#: The loop stops its producer when more than this waits to be written, and lets it go on below the other.
HIGH_WATER, LOW_WATER = 65536, 16384

_DONE = Failure(ConnectionDone())
_log = Logger()


def _discard(data: bytes) -> None:
    """What is written to a connection that has ended goes nowhere, as Twisted has it."""


def address_of(name: tuple[Any, ...]) -> IPv4Address | IPv6Address:  # Any: as the socket module has it
    """The address that the socket module calls C{name}."""
    if len(name) == 2:
        return IPv4Address("TCP", *name)
    return IPv6Address("TCP", *name)


@implementer(ITCPTransport, IConsumer, IPushProducer)
class LoopTransport(asyncio.Protocol):
    """A Twisted transport over one of the loop's own; to the loop, its protocol.

    C{data_received} is the Twisted protocol's C{dataReceived} and C{write} is the loop's method: nothing
    stands in between on the way in or on the way out.

    @ivar connected: the loop has had a connection for it, whatever became of it since.
    @ivar disconnecting: the connection is being closed from this side, or is gone.
    @ivar unannounced: a proxy that says for whom it connects did not say so: it connects for itself.
    """

    __slots__ = (
        "_build",
        "_ended",
        "_host",
        "_making",
        "_paused",
        "_peer",
        "_producer",
        "_protocol",
        "_reason",
        "_transport",
        "connected",
        "data_received",
        "disconnecting",
        "unannounced",
        "write",
    )

    write: Callable[[bytes], None]
    _peer: IPv4Address | IPv6Address | None
    _transport: Any  # as connection_made has it
    connected: bool
    disconnecting: bool

    def __init__(
        self,
        build: Callable[[IAddress], IProtocol | None],
        ended: Callable[[], None] | None = None,
        *,
        peer: IPv4Address | IPv6Address | None = None,
        unannounced: bool = False,
    ) -> None:
        """
        @param build: makes the protocol once the peer is known, as C{buildProtocol} does.
        @param ended: told when the connection is gone.
        @param peer: the other end as a proxy announced it; the connection's own if not given.
        """
        self._peer, self.unannounced = peer, unannounced
        self._build = build
        self._ended = ended
        self._protocol: IProtocol | None = None
        self._producer: IPushProducer | None = None
        self._host: IPv4Address | IPv6Address | None = None
        self._reason: Failure | None = None
        self._making = False
        self._paused = False
        self.connected = self.disconnecting = False
        self.write = self.data_received = _discard  # type: ignore[method-assign]  # a slot, not a method

    @property
    def secure(self) -> bool:
        """Is what goes over the connection encrypted?"""
        return self.connected and self._transport.get_extra_info("sslcontext") is not None

    # what the loop calls

    # Any: an asyncio.Transport by what it does, but uvloop's own are no subclass of it
    def connection_made(self, transport: Any) -> None:
        """The loop has a connection: make the Twisted protocol and tie the two together."""
        self._transport = transport
        self.connected = True
        name = transport.get_extra_info("peername")
        if not name:  # reset before it could be accepted
            transport.abort()
            return
        if self._peer is None:
            self._peer = address_of(name)
        try:
            protocol = self._build(self._peer)
            if protocol is None:
                transport.abort()
                return
            transport.set_write_buffer_limits(HIGH_WATER, LOW_WATER)
            self._protocol = protocol
            self.write = transport.write
            self.data_received = protocol.dataReceived  # type: ignore[method-assign]  # a slot, not a method
            transport.set_protocol(self)  # loops look data_received up once, here
            self._making = True
            protocol.makeConnection(self)
        except Exception:
            _log.failure("a connection from {peer} could not be taken up", peer=self._peer)
            transport.abort()
        self._making = False
        if self._paused:  # the loop starts to read when this method returns
            asyncio.get_running_loop().call_soon(self._pause_again)

    def _pause_again(self) -> None:
        if self._paused:
            self._transport.pause_reading()

    def eof_received(self) -> bool | None:
        """The peer sends no more.

        @return: true when the connection stays open for writing, which only a protocol that knows half-closed
            connections gets, and never over TLS.
        """
        half: Any = IHalfCloseableProtocol(self._protocol, None)  # Any: zope's adaptation has no type
        if half is None or self._transport.get_extra_info("sslcontext") is not None:
            return None
        half.readConnectionLost()
        return True

    def pause_writing(self) -> None:
        """More than L{HIGH_WATER} waits to be written."""
        if self._producer is not None:
            self._producer.pauseProducing()

    def resume_writing(self) -> None:
        """Less than L{LOW_WATER} waits to be written."""
        if self._producer is not None:
            self._producer.resumeProducing()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        protocol, self._protocol, self._producer = self._protocol, None, None
        self.write = self.data_received = _discard  # type: ignore[method-assign]  # a slot, not a method
        self.disconnecting = True
        try:
            if protocol is not None:
                reason = self._reason
                if reason is None:
                    reason = _DONE if exc is None else Failure(ConnectionLost(str(exc)))
                protocol.connectionLost(reason)
        finally:
            if self._ended is not None:
                self._ended()

    # what the protocol calls

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Write all of C{data}."""
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """Close when everything written so far is sent."""
        self.disconnecting = True
        self.write = _discard
        self._transport.close()

    def abortConnection(self) -> None:
        """Close now, whatever is still to be sent."""
        self.disconnecting = True
        self.write = _discard
        if self._reason is None:
            self._reason = Failure(ConnectionAborted())
        self._transport.abort()

    def loseWriteConnection(self) -> None:
        """Close for writing when everything written so far is sent, and read on.

        TLS cannot do that: there the connection closes altogether.
        """
        if not self._transport.can_write_eof():
            self.loseConnection()
            return
        self.write = _discard
        self._transport.write_eof()

    def getPeer(self) -> IPv4Address | IPv6Address:
        """The other end."""
        assert self._peer is not None, "there is a connection"
        return self._peer

    def getHost(self) -> IPv4Address | IPv6Address:
        """This end."""
        if self._host is None:
            self._host = address_of(self._transport.get_extra_info("sockname"))
        return self._host

    def pauseProducing(self) -> None:
        """Read nothing for now."""
        self._paused = True
        # While the connection is being made the loop has yet to start reading; some versions of the stock
        # one start all the same if they were told before, and then take a second pause for done.
        if not self._transport.is_closing() and not self._making:
            self._transport.pause_reading()

    def resumeProducing(self) -> None:
        """Read again."""
        self._paused = False
        if not self._transport.is_closing() and not self._making:
            self._transport.resume_reading()

    def stopProducing(self) -> None:
        """Nobody wants what arrives any more."""
        self.loseConnection()

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """Tell C{producer} when to pause and when to go on.

        @raise ValueError: it is not a streaming one.
        @raise RuntimeError: there is one already.
        """
        if not streaming:
            raise ValueError("the loop's own transports take streaming producers only")
        if self._producer is not None:
            raise RuntimeError("there is a producer already")
        if self._transport.is_closing():
            producer.stopProducing()
            return
        push: IPushProducer = producer  # type: ignore[assignment]  # that is what streaming says
        self._producer = push
        if self._transport.get_write_buffer_size() > HIGH_WATER:
            push.pauseProducing()

    def unregisterProducer(self) -> None:
        """Nobody needs to be told any more."""
        self._producer = None

    # socket options; the loop itself has turned Nagle's delay off

    def getTcpNoDelay(self) -> bool:
        """Is Nagle's delay off?"""
        return bool(self._socket().getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Turn Nagle's delay off, or on again."""
        self._socket().setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, int(enabled))

    def getTcpKeepAlive(self) -> bool:
        """Are keep-alive probes sent?"""
        return bool(self._socket().getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Send keep-alive probes, or do not."""
        self._socket().setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(enabled))

    def _socket(self) -> socket.socket:
        found: socket.socket = self._transport.get_extra_info("socket")
        return found
