"""Connections on their way in: the preamble of a proxy, then the TLS handshake, and only then a protocol.

Until there is a protocol that could be told to be patient with a peer, or to lose patience, that is done
here: whoever is on his way in counts like everybody else (see L{Edge}), and has a deadline for each step.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from rvpfarm.protocol.address import unmapped
from rvpfarm.protocol.calls import Limits
from rvpfarm.web.edge import Edge
from rvpfarm.web.preamble import PREAMBLE_LIMIT, Announced, BadPreamble, PreambleReader
from rvpfarm.web.transport import LoopTransport

if TYPE_CHECKING:
    from rvpfarm.web.tls import ServerTLS

#: A TLS handshake takes no longer than this.
HANDSHAKE_SECONDS = 10.0

#: So many are accepted in one turn of the loop.
_BATCH = 128

#: So many that find no room may come in at a time, only to be told so; the rest is closed without a word.
_TOLD = 64

#: What the system says when it has no sockets left, or no memory for them; it is asked again after a while.
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_EXHAUSTED_SECONDS = 1.0


class Arrivals:
    """Accepts on one socket and brings connections to their protocols.

    @ivar factory: makes the protocols; if it has an C{edge}, that says who may come.
    @ivar proxied: each connection must be of a listed proxy and begin with a preamble.
    """

    _log = Logger()

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listening: socket.socket,
        factory: IProtocolFactory,
        *,
        tls: ServerTLS | None = None,
        proxied: bool = False,
        preamble_seconds: float = Limits().head_seconds,
        handshake_seconds: float = HANDSHAKE_SECONDS,
    ) -> None:
        """
        @param listening: bound and listening; whoever owns it closes it after L{close}.
        """
        self.loop, self.factory, self.tls, self.proxied = loop, factory, tls, proxied
        self.preamble_seconds, self.handshake_seconds = preamble_seconds, handshake_seconds
        self.edge: Edge = getattr(factory, "edge", None) or Edge()
        self.told = 0
        self.reject: Callable[[str], None] = getattr(factory, "reject", lambda reason: None)
        self._listening = listening
        self._under_way: set[_Arrival] = set()
        self._pause: asyncio.TimerHandle | None = None

    @property
    def under_way(self) -> int:
        """How many have no protocol yet."""
        return len(self._under_way)

    def open(self) -> None:
        """Accept whoever comes."""
        if self.proxied and not self.edge.trusted:
            self._log.warn(
                "nobody can connect to port {port} yet: no proxy is listed; "
                '"rvpfarm network add trusted-proxy ADDRESS" lists one',
                port=self._listening.getsockname()[1],
            )
        self._accept_on()

    def close(self) -> None:
        """Accept nobody any more; those who have no protocol yet are cut off."""
        if self._pause is not None:
            self._pause.cancel()
        self.loop.remove_reader(self._listening.fileno())
        for arrival in list(self._under_way):
            arrival.stop()

    def _accept_on(self) -> None:
        self._pause = None
        self.loop.add_reader(self._listening.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(_BATCH):
            try:
                accepted, name = self._listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as problem:
                if problem.errno not in _EXHAUSTED:
                    continue  # that one was gone before it could be accepted (accept(2))
                self._log.error("nobody is accepted for a moment: {problem}", problem=problem)
                self.loop.remove_reader(self._listening.fileno())
                self._pause = self.loop.call_later(_EXHAUSTED_SECONDS, self._accept_on)
                return
            accepted.setblocking(False)
            _Arrival(self, accepted, unmapped(name[0])).begin()

    def refuse(self, peer: str, why: str) -> None:
        """Somebody at C{peer} has no business here: counted each time, and logged once per address."""
        self.reject("proxy")
        if self.edge.is_news(peer):
            self._log.warn(
                "a connection from {peer} was closed: {why} (said once per address)", peer=peer, why=why
            )

    # what the arrivals tell

    def begun(self, arrival: _Arrival) -> None:
        """One more is on its way."""
        self._under_way.add(arrival)

    def ended(self, arrival: _Arrival) -> None:
        """It has a protocol, or is gone."""
        self._under_way.discard(arrival)


class _Arrival:
    """One connection that has no protocol yet."""

    __slots__ = (
        "_arrivals",
        "_handed_over",
        "_host",
        "_reader",
        "_socket",
        "_source",
        "_task",
        "_timer",
        "_told",
    )

    _log = Logger()

    def __init__(self, arrivals: Arrivals, accepted: socket.socket, host: str) -> None:
        self._arrivals, self._socket, self._host = arrivals, accepted, host
        self._source: str | None = None  # where it is counted
        self._told = False  # there is no room for it; it comes in to be told so
        self._handed_over = False  # the loop has a transport for it
        self._reader = PreambleReader()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[Any] | None = None

    def begin(self) -> None:
        """It has just been accepted."""
        arrivals = self._arrivals
        arrivals.begun(self)
        if arrivals.proxied and self._host not in arrivals.edge.trusted:
            self._refuse(
                f'only listed proxies may; "rvpfarm network add trusted-proxy {self._host}" lists it'
            )
        elif not self._enter(self._host):
            return
        elif arrivals.proxied:
            self._timer = arrivals.loop.call_later(arrivals.preamble_seconds, self._overdue)
            arrivals.loop.add_reader(self._socket.fileno(), self._readable)
        else:
            self._go_in()

    def stop(self) -> None:
        """Cut it off."""
        if self._task is not None:
            self._task.cancel()
        else:
            self._close()

    # the preamble

    def _readable(self) -> None:
        """Take the preamble off the socket and leave what follows it, for the protocol or for TLS."""
        try:
            waiting = self._socket.recv(PREAMBLE_LIMIT, socket.MSG_PEEK)
            if waiting:
                self._socket.recv(self._reader.feed(waiting))
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._close()
            return
        except BadPreamble as problem:
            self._refuse(f"what it sent is no preamble of the PROXY protocol: {problem}")
            return
        if self._reader.done:
            self._stop_reading()
            announced = self._reader.announced
            self._leave()
            if self._enter(self._host if announced is None else announced.host):
                self._go_in()
        elif not waiting:
            if self._reader.begun:
                self._refuse("it closed in the middle of the preamble")
            else:
                self._close()  # a load balancer that only looks whether somebody listens

    def _overdue(self) -> None:
        self._timer = None
        self._refuse("it sent no preamble of the PROXY protocol in time")

    def _refuse(self, why: str) -> None:
        self._arrivals.refuse(self._host, why)
        self._close()

    def _stop_reading(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._arrivals.loop.remove_reader(self._socket.fileno())

    def _close(self) -> None:
        self._stop_reading()
        self._socket.close()
        self._leave()
        self._arrivals.ended(self)

    # counting

    def _enter(self, host: str) -> bool:
        """Be counted as one from C{host}; without room, come in to be told so, or be closed."""
        arrivals = self._arrivals
        source = arrivals.edge.source_of(host)
        reason = arrivals.edge.enter(source)
        if not reason:
            self._source = source
        elif arrivals.told < _TOLD:
            arrivals.told += 1
            self._told = True
        else:
            arrivals.reject(reason)
            self._close()
            return False
        return True

    def _leave(self) -> None:
        """Be counted no longer: by its protocol, from now on, or not at all."""
        if self._source is not None:
            self._arrivals.edge.leave(self._source)
            self._source = None
        if self._told:
            self._arrivals.told -= 1
            self._told = False

    # the handshake, and in

    def _go_in(self) -> None:
        arrivals = self._arrivals
        secure = arrivals.tls is not None
        self._task = arrivals.loop.create_task(
            arrivals.loop.connect_accepted_socket(
                self._transport,
                self._socket,
                ssl=arrivals.tls.context if arrivals.tls is not None else None,
                ssl_handshake_timeout=arrivals.handshake_seconds if secure else None,
            )
        )
        self._task.add_done_callback(self._gone_in)

    def _transport(self) -> LoopTransport:
        self._handed_over = True
        announced = self._reader.announced
        return LoopTransport(
            self._build,
            peer=None if announced is None else _address_of(announced),
            unannounced=self._arrivals.proxied and announced is None,
        )

    def _build(self, peer: IAddress) -> IProtocol | None:
        self._leave()
        return self._arrivals.factory.buildProtocol(peer)

    def _gone_in(self, task: asyncio.Task[Any]) -> None:
        """It has its protocol, or got none."""
        self._leave()
        self._arrivals.ended(self)
        if not self._handed_over:
            self._socket.close()
        problem = None if task.cancelled() else task.exception()
        if isinstance(problem, OSError):  # all that can go wrong with a handshake is one
            self._log.debug("{peer} did not get in: {problem}", peer=self._host, problem=problem)
        elif problem is not None:
            self._log.failure("{peer} did not get in", Failure(problem), peer=self._host)


def _address_of(caller: Announced) -> IPv4Address | IPv6Address:
    kind = IPv6Address if ":" in caller.host else IPv4Address
    return kind("TCP", caller.host, caller.port)
