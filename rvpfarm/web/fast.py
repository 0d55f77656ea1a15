"""Endpoints that put a Twisted protocol on the event loop's own transport, at half the cost.

They serve where the reactor runs on an asyncio loop (uvloop or the stock one); on any other reactor they
hand the work to Twisted's own TCP and TLS endpoints, so that the same description serves everywhere.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.error import (
    CannotListenError,
    DNSLookupError,
    NoProtocol,
    TimeoutError,
    getConnectError,
)
from twisted.internet.interfaces import (
    IAddress,
    IHostResolution,
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IResolutionReceiver,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from rvpfarm.web.arriving import HANDSHAKE_SECONDS, Arrivals
from rvpfarm.web.transport import LoopTransport, address_of

if TYPE_CHECKING:
    from rvpfarm.web.tls import ClientTLS, ServerTLS

_log = Logger()


def loop_of(reactor: object) -> asyncio.AbstractEventLoop | None:
    """The asyncio loop that C{reactor} runs on, or C{None} when it runs on none."""
    # Twisted has no public name for it, and asyncio's "current loop" may be another one.
    loop: asyncio.AbstractEventLoop | None = getattr(reactor, "_asyncioEventloop", None)
    if loop is not None and loop.get_exception_handler() is None:
        loop.set_exception_handler(_report)
    return loop


# Any: no one interface has both a loop and timers
def soon_on(reactor: Any) -> Callable[[Callable[[], None]], object]:
    """What runs a function at the end of the present turn of the loop, if there is one.

    The loop is looked up each time: C{twistd} without C{-n} forks, and there is another one after that.
    """

    def soon(function: Callable[[], None]) -> object:
        loop: asyncio.AbstractEventLoop | None = getattr(reactor, "_asyncioEventloop", None)
        return reactor.callLater(0, function) if loop is None else loop.call_soon(function)

    return soon


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:  # Any: as asyncio has it
    """Bring what the loop could not hand to anybody into the log that everything else is in."""
    problem, text = context.get("exception"), context.get("message", "")
    if problem is None:
        _log.error("the event loop: {text}", text=text)
    else:
        _log.failure("the event loop: {text}", Failure(problem), text=text)


@implementer(IListeningPort)
class FastPort:
    """A listening socket that the loop accepts on."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        factory: IProtocolFactory,
        *,
        backlog: int,
        tls: ServerTLS | None,
        proxied: bool = False,
    ) -> None:
        """
        @param sock: bound and listening.
        @param proxied: see L{FastServerEndpoint}.
        """
        self._loop, self._socket, self._factory = loop, sock, factory
        self._backlog = backlog
        self._host = address_of(sock.getsockname())
        self._handle: asyncio.Handle | None = None
        self._task: asyncio.Task[None] | None = None
        self._server: asyncio.AbstractServer | None = None
        self._arrivals: Arrivals | None = None
        if tls is not None or proxied:
            self._arrivals = Arrivals(loop, sock, factory, tls=tls, proxied=proxied)
        self._stopping = False

    def startListening(self) -> None:
        """Have the loop accept, as soon as it runs; until then the kernel queues whoever connects."""
        self._factory.doStart()
        self._handle = self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        self._handle = None
        if self._arrivals is not None:
            self._arrivals.open()
        else:
            self._task = self._loop.create_task(self._serve())

    async def _serve(self) -> None:
        build = self._factory.buildProtocol
        try:
            self._server = await self._loop.create_server(
                lambda: LoopTransport(build),
                sock=self._socket,
                backlog=self._backlog,
            )
        except Exception:  # nobody waits for this task
            _log.failure("nobody can connect to {host}", host=self._host)

    def stopListening(self) -> Deferred[None]:
        """Accept no more.  Connections that are open stay so.

        @return: fires when the address is free again.
        """
        if self._stopping:
            return succeed(None)
        self._stopping = True
        if self._handle is not None:  # the loop never came round to it
            self._handle.cancel()
        if self._task is None or self._task.done():
            self._close()
            return succeed(None)
        closed: Deferred[None] = Deferred()

        def done(task: asyncio.Task[None]) -> None:
            self._close()
            closed.callback(None)

        self._task.add_done_callback(done)
        return closed

    def _close(self) -> None:
        if self._arrivals is not None:
            self._arrivals.close()
        if self._server is not None:
            self._server.close()
        else:
            self._socket.close()
        self._factory.doStop()

    def getHost(self) -> IPv4Address | IPv6Address:
        """Where it listens."""
        return self._host


@implementer(IStreamServerEndpoint)
class FastServerEndpoint:
    """Listens with the loop's own transports.

    The socket is bound and listening when C{listen} returns: a busy port fails at once, and a port below
    1024 is taken before privileges are dropped.

    @ivar proxied: each connection must be of a listed proxy and say first for whom it is, by the PROXY
        protocol; that is the peer then.
    """

    # Any: zope names no reactor that has all that an endpoint needs
    def __init__(
        self,
        reactor: Any,
        port: int,
        *,
        interface: str = "",
        backlog: int = 1024,
        reuse_port: bool = False,
        tls: ServerTLS | None = None,
        proxied: bool = False,
    ) -> None:
        """
        @param interface: an IPv4 or IPv6 address; empty for all IPv4 addresses.
        @param reuse_port: other processes may listen on the same address, and share its connections.
        """
        self.proxied = proxied
        self._reactor, self._port, self._interface = reactor, port, interface
        self._backlog, self._reuse_port, self._tls = backlog, reuse_port, tls

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Listen; connections are accepted once the loop runs.

        @return: fires at once with the port, or fails with C{CannotListenError}.
        """
        loop = loop_of(self._reactor)
        if loop is None:
            return self._without_loop(protocolFactory)
        try:
            sock = self._bind()
        except OSError as problem:
            return fail(CannotListenError(self._interface, self._port, problem))
        port = FastPort(
            loop, sock, protocolFactory, backlog=self._backlog, tls=self._tls, proxied=self.proxied
        )
        port.startListening()
        return succeed(port)

    def _bind(self) -> socket.socket:
        family, kind, number, _, address = socket.getaddrinfo(
            self._interface or "0.0.0.0",  # noqa: S104  # what an operator who names no interface asks for
            self._port,
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )[0]
        sock = socket.socket(family, kind, number)
        try:
            sock.setblocking(False)
            if os.name == "posix":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if self._reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(address)
            sock.listen(self._backlog)
        except BaseException:
            sock.close()
            raise
        return sock

    def _without_loop(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        from twisted.internet.endpoints import SSL4ServerEndpoint, TCP4ServerEndpoint, TCP6ServerEndpoint

        for option, wanted in (("reusePort", self._reuse_port), ("proxyProtocol", self.proxied)):
            if wanted:
                problem = OSError(f"{option} needs the asyncio reactor")
                return fail(CannotListenError(self._interface, self._port, problem))
        endpoint: IStreamServerEndpoint
        if self._tls is not None:
            endpoint = SSL4ServerEndpoint(
                self._reactor, self._port, self._tls.options(), self._backlog, self._interface
            )
        elif ":" in self._interface:
            endpoint = TCP6ServerEndpoint(self._reactor, self._port, self._backlog, self._interface)
        else:
            endpoint = TCP4ServerEndpoint(self._reactor, self._port, self._backlog, self._interface)
        listening: Deferred[IListeningPort] = endpoint.listen(factory)
        return listening


@implementer(IStreamClientEndpoint)
class FastClientEndpoint:
    """Connects with the loop's own transports.

    A name is looked up with the reactor's name resolver and its addresses are tried in turn.
    """

    # Any: zope names no reactor that has all that an endpoint needs
    def __init__(
        self,
        reactor: Any,
        host: str,
        port: int,
        *,
        timeout_seconds: float = 30.0,
        bind_address: str = "",
        tls: ClientTLS | None = None,
    ) -> None:
        """
        @param host: an address or a name.
        @param timeout_seconds: for looking up, connecting and shaking hands together.
        """
        self._reactor, self._host, self._port = reactor, host, port
        self._timeout_seconds, self._bind_address, self._tls = timeout_seconds, bind_address, tls

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect a protocol of C{protocolFactory}.

        @return: fires with the protocol, or fails with C{ConnectError} or one of its kinds.
        """
        loop = loop_of(self._reactor)
        if loop is None:
            return self._without_loop(protocolFactory)
        attempt = Deferred.fromCoroutine(self._connect(loop, protocolFactory))
        expired = False

        def expire() -> None:
            nonlocal expired
            expired = True
            attempt.cancel()

        timer = self._reactor.callLater(self._timeout_seconds, expire)

        def finish(result: IProtocol | Failure) -> IProtocol | Failure:
            if timer.active():
                timer.cancel()
            if expired and isinstance(result, Failure):
                return Failure(TimeoutError(f"no connection to {self._host}:{self._port} in time"))
            return result

        return attempt.addBoth(finish)

    async def _connect(self, loop: asyncio.AbstractEventLoop, factory: IProtocolFactory) -> IProtocol:
        problem: Exception = DNSLookupError(f"{self._host} has no address")
        for family, address in await self._addresses():
            try:
                return await self._connect_to(loop, factory, family, address)
            except OSError as refused:
                problem = getConnectError((refused.errno or 0, refused.strerror or str(refused)))
        raise problem

    async def _connect_to(
        self, loop: asyncio.AbstractEventLoop, factory: IProtocolFactory, family: int, address: str
    ) -> IProtocol:
        protocol: IProtocol | None = None

        def build(peer: IAddress) -> IProtocol | None:
            nonlocal protocol
            protocol = factory.buildProtocol(peer)
            return protocol

        factory.doStart()
        transport = LoopTransport(build, factory.doStop)
        connecting = loop.create_connection(
            lambda: transport,
            address,
            self._port,
            family=family,
            local_addr=(self._bind_address, 0) if self._bind_address else None,
            ssl=None if self._tls is None else self._tls.context,
            server_hostname=None if self._tls is None else self._tls.name,
            ssl_handshake_timeout=None if self._tls is None else HANDSHAKE_SECONDS,
        )
        try:
            await Deferred.fromFuture(asyncio.ensure_future(connecting, loop=loop))
        except asyncio.CancelledError:
            raise CancelledError from None
        finally:
            if not transport.connected:
                factory.doStop()
        if protocol is None:
            raise NoProtocol
        return protocol

    async def _addresses(self) -> list[tuple[int, str]]:
        family = _family_of(self._host)
        if family is not None:
            return [(family, self._host)]
        answers = await _look_up(self._reactor, self._host, self._port)
        return [
            (socket.AF_INET6 if isinstance(answer, IPv6Address) else socket.AF_INET, answer.host)
            for answer in answers
            if isinstance(answer, (IPv4Address, IPv6Address))
        ]

    def _without_loop(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        from twisted.internet import endpoints

        bind = (self._bind_address, 0) if self._bind_address else None
        make: Any = {  # Any: Twisted annotates none of the three
            socket.AF_INET: endpoints.TCP4ClientEndpoint,
            socket.AF_INET6: endpoints.TCP6ClientEndpoint,
            None: endpoints.HostnameEndpoint,
        }[_family_of(self._host)]
        endpoint: IStreamClientEndpoint = make(
            self._reactor, self._host, self._port, self._timeout_seconds, bind
        )
        if self._tls is not None:
            endpoint = endpoints.wrapClientTLS(self._tls.options(), endpoint)
        connected: Deferred[IProtocol] = endpoint.connect(factory)
        return connected


def _family_of(host: str) -> socket.AddressFamily | None:
    """The kind of address that C{host} is, or C{None} when it is a name."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host.partition("%")[0])
        except (OSError, ValueError):
            continue
        return family
    return None


def _look_up(reactor: Any, host: str, port: int) -> Deferred[list[IAddress]]:  # Any: as in the endpoints
    found: list[IAddress] = []
    resolution: list[IHostResolution] = []

    def cancel(_: Deferred[list[IAddress]]) -> None:
        for one in resolution:
            one.cancel()

    done: Deferred[list[IAddress]] = Deferred(cancel)

    @implementer(IResolutionReceiver)
    class Receiver:
        """Gathers addresses in the order in which they come."""

        def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
            """It can be cancelled from now on."""
            resolution.append(resolutionInProgress)

        def addressResolved(self, address: IAddress) -> None:
            """One more."""
            found.append(address)

        def resolutionComplete(self) -> None:
            """That was all."""
            if not done.called:
                done.callback(found)

    reactor.nameResolver.resolveHostName(
        Receiver(), host, port, [IPv4Address, IPv6Address], transportSemantics="TCP"
    )
    return done
