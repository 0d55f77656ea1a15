"""One deadline that is moved often and reached seldom."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Deadline:
    """Calls back when a moment comes that may be moved, or called off, at next to no cost.

    A timer that is running is left alone when the moment moves into the future: it looks again when it
    fires.  So a busy connection costs its clock one timer per span of patience, not one per request.
    """

    __slots__ = ("_clock", "_reached", "_timer", "_timer_at", "until")

    until: float

    def __init__(self, clock: IReactorTime, reached: Callable[[], None]) -> None:
        """
        @param reached: told once for each moment that comes.
        """
        self._clock = clock
        self._reached = reached
        self._timer: IDelayedCall | None = None
        self._timer_at = inf
        self.until = inf

    def move(self, until: float) -> None:
        """The moment is C{until} now; infinity calls it off."""
        self.until = until
        if until < self._timer_at:
            self._arm()

    def stop(self) -> None:
        """Call it off, and leave no timer behind."""
        self.until = self._timer_at = inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = self.until
        self._timer = self._clock.callLater(max(0.0, self.until - self._clock.seconds()), self._look)

    def _look(self) -> None:
        self._timer, self._timer_at = None, inf
        if self._clock.seconds() >= self.until:
            self.until = inf
            self._reached()
        elif self.until < inf:
            self._arm()
