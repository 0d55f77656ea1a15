"""A listener as a service: bound while the process still may, and gone when its work is done."""

from __future__ import annotations

import errno
import os
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

_NO_PROXIES = "farm members connect without a proxy in between"


class CannotServe(SystemExit, Exception):
    """The daemon cannot listen where it was told to; it ends with one sentence and status 1.

    It is an C{Exception} as well so that twistd takes its pid file away and tells the parent it forked from.
    """


def describe_refusal(who: str, option: str, problem: CannotListenError) -> str:
    """The sentence that says why an address, or the path of a Unix socket, cannot be listened on."""
    if isinstance(problem.port, str | bytes):
        why = os.strerror(getattr(problem.socketError, "errno", None) or errno.EADDRINUSE).lower()
        return f"{who}: cannot listen on {os.fsdecode(problem.port)}: {why} ({option})"
    host = problem.interface or "0.0.0.0"  # noqa: S104  # as it was asked for
    where = f"[{host}]:{problem.port}" if ":" in host else f"{host}:{problem.port}"
    number = getattr(problem.socketError, "errno", None)
    why = str(problem.socketError)
    if isinstance(number, int) and number in errno.errorcode:
        why = os.strerror(number).lower()
    return f"{who}: cannot listen on {where}: {why} ({option})"


def parse_endpoint(
    reactor: Any, description: str, factory: IProtocolFactory | None = None, *, who: str, option: str
) -> Any:
    """The server endpoint that C{description} names.

    C{Any} both times: no one interface names all that a reactor, or one of the fast endpoints, can do.

    @param factory: what is to listen there, if that is known.
    @raise CannotServe: it names none, or none for C{factory}.
    """
    try:
        if factory is not None:
            _check_prefix(description, factory)
        endpoint = serverFromString(reactor, description)
        if factory is not None:
            _check_proxied(endpoint, factory)
    except (ValueError, TypeError, LookupError) as problem:
        raise CannotServe(f"{who}: {option} {description}: {problem}") from problem
    return endpoint


class ListeningService(Service):
    """Listens on an endpoint from when the services start until they stop.

    When it stops it takes no more connections and lets the factory finish what is in work, if the factory
    can C{drain}.

    @ivar option: the option that says where.
    """

    _log = Logger()

    # Any: an endpoint needs more of a reactor than any one interface names
    def __init__(
        self,
        reactor: Any,
        description: str,
        factory: IProtocolFactory,
        *,
        who: str,
        option: str = "--listen",
    ) -> None:
        """
        @param description: the endpoint as a string, such as C{fast:tcp:8080:interface=127.0.0.1}.
        @param who: the daemon that complains when it cannot listen.
        @param option: the option that says where, named in the complaint.
        @raise CannotServe: this describes no endpoint.
        """
        self._factory, self._who, self.option = factory, who, option
        self._description = description
        self._port: IListeningPort | None = None
        self._waiting: Deferred[None] | None = None
        self._draining = self._hurried = False
        self._endpoint = parse_endpoint(reactor, description, factory, who=who, option=option)

    @property
    def listening(self) -> bool:
        """Is the address taken and open?"""
        return self._port is not None

    def getHost(self) -> Any:  # Any: what IListeningPort calls an address, with whatever attributes it has
        """Where it listens.

        @raise RuntimeError: nowhere now.
        """
        if self._port is None:
            raise RuntimeError(f"{self._who} does not listen on {self._description} now")
        return self._port.getHost()

    def privilegedStartService(self) -> None:
        """Take the address, while a low port can still be had.

        @raise CannotServe: it is not to be had.
        """
        super().privilegedStartService()
        self._listen()

    def startService(self) -> None:
        """Take the address, unless that is done.

        @raise CannotServe: it is not to be had.
        """
        super().startService()
        if self._waiting is None:
            self._listen()

    def _listen(self) -> None:
        refused: list[Failure] = []
        begun = False

        def fail(failure: Failure) -> None:
            if failure.check(CancelledError):
                return
            if begun:  # an endpoint of somebody else's, which takes its time
                self._log.failure("{who} cannot listen", failure, who=self._who)
            else:
                refused.append(failure)

        self._waiting = self._endpoint.listen(self._factory).addCallbacks(self._opened, fail)
        begun = True
        if refused:
            self._waiting = None
            problem = refused[0].value
            if isinstance(problem, CannotListenError):
                raise CannotServe(describe_refusal(self._who, self.option, problem)) from problem
            refused[0].raiseException()

    def _opened(self, port: IListeningPort) -> None:
        self._port = port

    def stopService(self) -> Deferred[None]:
        """Give the address back and finish what is in work.

        @return: fires when both are done.
        """
        super().stopService()
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return succeed(None)
        waiting.cancel()
        return Deferred.fromCoroutine(self._close(waiting))

    async def _close(self, opening: Deferred[None]) -> None:
        await opening
        port, self._port = self._port, None
        if port is not None:
            closed = port.stopListening()
            if closed is not None:
                await closed
        drain = getattr(self._factory, "drain", None)
        if drain is not None:
            drained = drain()
            self._draining = True
            if self._hurried:
                self._cut_off()
            await drained

    def hurry(self) -> None:
        """Wait for nothing while stopping, now or later: what is in work is cut off."""
        self._hurried = True
        if self._draining:
            self._cut_off()

    def _cut_off(self) -> None:
        cut_off = getattr(self._factory, "cut_off", None)
        if cut_off is not None:
            cut_off()

    # certificates

    @property
    def certificate_expires(self) -> float | None:
        """When the certificate shown here expires, in seconds since 1970; C{None} without one of ours."""
        tls = getattr(self._endpoint, "tls", None)
        return None if tls is None else float(tls.expires)

    def reload(self) -> None:
        """Show the certificate that its files hold now, if this endpoint has one of ours.

        @raise ValueError: it cannot be used; the old one stays.
        """
        tls = getattr(self._endpoint, "tls", None)
        if tls is not None:
            tls.reload()


def _check_prefix(description: str, factory: IProtocolFactory) -> None:
    """
    @raise ValueError: it would have Twisted read the PROXY protocol, from whoever sends it.
    """
    if description.partition(":")[0].strip().lower() != "haproxy":
        return
    if not hasattr(factory, "edge"):
        raise ValueError(f"{_NO_PROXIES}; leave the prefix haproxy: out")
    raise ValueError(
        "the prefix haproxy: would believe whoever connects; put proxyProtocol=1 at the end of fast:tcp:... "
        "or fast:ssl:... instead, and list the proxies as trusted-proxy"
    )


def _check_proxied(endpoint: object, factory: IProtocolFactory) -> None:
    """
    @raise ValueError: nobody speaks for others to C{factory}.
    """
    if getattr(endpoint, "proxied", False) and not hasattr(factory, "edge"):
        raise ValueError(f"{_NO_PROXIES}; leave proxyProtocol=1 out")
