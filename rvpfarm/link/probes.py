"""Those who wait for a sign of life of one home: an answer to a ping, or the end of a handshake."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from rvpfarm.protocol.calls import Slow, Unreachable, Untried

#: Probes of one home under way at once.
PROBES_LIMIT = 16
#: A deadline that is noticed so much later was missed by us, whose loop stood still, and tells nothing.
LATE_SECONDS = 1.0
#: The tokens of pings begin here; smaller ones belong to the connection itself.
FIRST_TOKEN = 1000


class _Probe:
    """One who waits."""

    __slots__ = ("_probes", "_token", "deferred", "timer", "until")

    def __init__(self, probes: Probes, token: int, timer: IDelayedCall, until: float) -> None:
        self._probes, self._token, self.timer, self.until = probes, token, timer, until
        self.deferred: Deferred[None] = Deferred(self._cancel)

    def _cancel(self, deferred: Deferred[None]) -> None:
        self._probes.forget(self._token)


class Probes:
    """Asks whether the home is there, and tells everybody who wants to know."""

    def __init__(self, clock: IReactorTime, peer: str, ping: Callable[[int], None]) -> None:
        """
        @param peer: the id of the home, for people.
        @param ping: sends a ping of that token, when there is a connection.
        """
        self._clock, self._peer, self._ping = clock, peer, ping
        self._tokens = count(FIRST_TOKEN)
        self._waiting: dict[int, _Probe] = {}

    def begin(self, seconds: float, *, connected: bool) -> Deferred[None]:
        """Wait for a sign of life, for so long; without a connection, for the next one.

        @raise Untried: too many wait already.
        """
        if len(self._waiting) >= PROBES_LIMIT:
            raise Untried(f"{len(self._waiting)} probes of {self._peer} are under way already")
        token = next(self._tokens)
        timer = self._clock.callLater(seconds, self._too_late, token)
        probe = self._waiting[token] = _Probe(self, token, timer, self._clock.seconds() + seconds)
        if connected:
            self._ping(token)
        return probe.deferred

    def ponged(self, token: int) -> None:
        """The home has answered a ping."""
        probe = self.forget(token)
        if probe is not None:
            probe.deferred.callback(None)

    def welcomed(self) -> None:
        """The home has just proved itself."""
        for token in tuple(self._waiting):
            self.ponged(token)

    def failed(self, problem: Unreachable) -> None:
        """There is no way to the home."""
        for token in tuple(self._waiting):
            probe = self.forget(token)
            if probe is not None:
                probe.deferred.errback(problem)

    def _too_late(self, token: int) -> None:
        probe = self._waiting.pop(token)
        if self._clock.seconds() - probe.until >= LATE_SECONDS:
            probe.deferred.errback(Untried("this process was too busy to hear an answer"))
        else:
            probe.deferred.errback(Slow(f"{self._peer} gave no sign of life in time"))

    def forget(self, token: int) -> _Probe | None:
        """Nobody waits for the answer to that ping any longer."""
        probe = self._waiting.pop(token, None)
        if probe is not None:
            probe.timer.cancel()
        return probe
