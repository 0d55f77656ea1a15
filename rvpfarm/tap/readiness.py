"""Waits until every process of a farm says that it is ready."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import connectProtocol
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IDelayedCall, IReactorTime, IStreamClientEndpoint, ITCPTransport
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from rvpfarm.tap.settings import HostPort

_REQUEST = b"GET /readyz HTTP/1.0\r\n\r\n"
_MOST_BYTES = 16_384


class _Question(Protocol):
    """Asks C{/readyz} once."""

    transport: ITCPTransport

    def __init__(self, clock: IReactorTime, patience_seconds: float) -> None:
        self._clock = clock
        self._patience = patience_seconds
        self._data = b""
        self._timer: IDelayedCall | None = None
        self.answered: Deferred[str] = Deferred(lambda _deferred: self.transport.abortConnection())

    def connectionMade(self) -> None:
        """Ask."""
        self._timer = self._clock.callLater(self._patience, self.transport.abortConnection)
        self.transport.write(_REQUEST)

    def dataReceived(self, data: bytes) -> None:
        """Part of the answer."""
        self._data += data
        if len(self._data) > _MOST_BYTES:
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]  # Twisted's has a default
        """The answer is whole, or there will be none."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if not self.answered.called:
            self.answered.callback(read_answer(self._data))


def read_answer(data: bytes) -> str:
    """What an answer of C{/readyz} says against readiness; empty when there is nothing.

    A process that the directory has as draining is as ready as it will be.
    """
    head, separator, body = data.partition(b"\r\n\r\n")
    words = head.split(None, 2)
    if not separator or len(words) < 2 or not words[0].startswith(b"HTTP/"):
        return "it does not answer"
    if words[1] == b"200" or body == b"draining\n":
        return ""
    return "; ".join(body.decode("utf-8", "replace").split("\n")).strip("; ") or "it is not ready"


class Readiness(Service):
    """Asks each process again and again until all have said once that they are ready."""

    _log = Logger()

    #: Between two questions to one process, and how long an answer may take.
    interval_seconds = 0.2
    patience_seconds = 3.0

    #: How often it is said that some are still waited for.
    report_seconds = 20.0

    def __init__(
        self,
        clock: IReactorTime,
        connect: Callable[[HostPort], IStreamClientEndpoint],
        processes: Mapping[str, HostPort],
        done: Callable[[], None],
    ) -> None:
        """
        @param processes: where each process serves its health.
        @param done: called once, when all are ready.
        """
        self._clock = clock
        self._connect = connect
        self._waiting = {name: (place, "it is not up") for name, place in processes.items()}
        self._done = done
        self._asking: Deferred[None] | None = None
        self._report: IDelayedCall | None = None

    @property
    def missing(self) -> dict[str, str]:
        """Who is not ready, and why."""
        return {name: reason for name, (_place, reason) in self._waiting.items()}

    def startService(self) -> None:
        """Begin to ask."""
        super().startService()
        self._report = self._clock.callLater(self.report_seconds, self._tell)
        self._asking = Deferred.fromCoroutine(self._ask_all())
        self._asking.addErrback(self._ended)

    def stopService(self) -> None:
        """Ask no more."""
        super().stopService()
        if self._asking is not None:
            self._asking.cancel()
        self._hush()

    def _hush(self) -> None:
        """Say no more that somebody is waited for."""
        if self._report is not None:
            self._report.cancel()
            self._report = None

    def _ended(self, failure: Failure) -> None:
        """Asking was stopped, or failed by a fault of ours."""
        if self.running:
            self._log.failure("cannot find out who is ready", failure)

    async def _ask_all(self) -> None:
        """Ask all at once."""
        asking = [Deferred.fromCoroutine(self._ask(name)) for name in tuple(self._waiting)]
        await _all_of(asking)
        if self.running:
            self._hush()
            self._done()

    async def _ask(self, name: str) -> None:
        """Ask one process until it is ready."""
        place, _reason = self._waiting[name]
        while self.running:
            question = _Question(self._clock, self.patience_seconds)
            try:
                await connectProtocol(self._connect(place), question)
                reason = await question.answered
            except ConnectError as error:
                reason = f"no connection to {place}: {error}"
            if not reason:
                del self._waiting[name]
                return
            self._waiting[name] = (place, reason)
            await deferLater(self._clock, self.interval_seconds)

    def _tell(self) -> None:
        """Some are still waited for."""
        for name, reason in self.missing.items():
            self._log.warn("still waiting for {name}: {reason}", name=name, reason=reason)
        self._report = self._clock.callLater(self.report_seconds, self._tell)


def _all_of(asking: list[Deferred[None]]) -> Deferred[Any]:
    """Fires when all did; cancelled, it cancels them."""
    return gatherResults(asking, consumeErrors=True)
