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


class ListeningService(Service):
    """Listens on an endpoint from when the services start until they stop.

    When it stops it takes no more connections and lets the factory finish what is in work, if the factory
    can C{drain}.
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
        self._factory, self._who, self._option = factory, who, option
        self._description = description
        self._port: IListeningPort | None = None
        self._waiting: Deferred[None] | None = None
        try:
            _check_prefix(description, factory)
            self._endpoint = serverFromString(reactor, description)
            _check_proxied(self._endpoint, factory)
        except (ValueError, TypeError) as problem:
            raise CannotServe(f"{who}: {option} {description}: {problem}") from problem

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
                raise CannotServe(self._complaint(problem)) from problem
            refused[0].raiseException()

    def _opened(self, port: IListeningPort) -> None:
        self._port = port

    def _complaint(self, problem: CannotListenError) -> str:
        host = problem.interface or "0.0.0.0"  # noqa: S104  # as it was asked for
        where = f"[{host}]:{problem.port}" if ":" in host else f"{host}:{problem.port}"
        number = getattr(problem.socketError, "errno", None)
        why = str(problem.socketError)
        if isinstance(number, int) and number in errno.errorcode:
            why = os.strerror(number).lower()
        return f"{self._who}: cannot listen on {where}: {why} ({self._option})"

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
            await drain()


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
