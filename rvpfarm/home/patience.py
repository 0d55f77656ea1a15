"""Waiting equally long for many things, with one timer for all of them."""

from __future__ import annotations

from typing import Protocol

from twisted.internet.interfaces import IReactorTime

from rvpfarm.web.deadline import Deadline


class Impatient(Protocol):
    """What is not waited for for ever."""

    def expire(self) -> None:
        """It has been waited for long enough."""


class Patience:
    """Ends what has not come to its end by itself within a time that is the same for all.

    What began first is due first, so that the first of them is the only one that a timer has to know.
    """

    def __init__(self, clock: IReactorTime, seconds: float) -> None:
        """
        @param seconds: how long anything may take.
        """
        self._clock, self._seconds = clock, seconds
        self._until: dict[Impatient, float] = {}
        self._deadline = Deadline(clock, self._expire)

    def __len__(self) -> int:
        """How many are waited for."""
        return len(self._until)

    def begin(self, waiting: Impatient, now: float) -> None:
        """Wait for C{waiting} from C{now} on."""
        until = self._until[waiting] = now + self._seconds
        if len(self._until) == 1:
            self._deadline.move(until)

    def end(self, waiting: Impatient) -> None:
        """It has come to its end; what has ended may be told so again."""
        self._until.pop(waiting, None)

    def stop(self) -> None:
        """Wait for nothing any more."""
        self._until.clear()
        self._deadline.stop()

    def _expire(self) -> None:
        now = self._clock.seconds()
        for waiting, until in list(self._until.items()):
            if until > now:
                self._deadline.move(until)
                return
            del self._until[waiting]
            waiting.expire()
