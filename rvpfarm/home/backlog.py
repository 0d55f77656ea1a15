"""Work on many things, a slice at a time, so that other work goes on in between (shell)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

T = TypeVar("T")


class Backlog(Generic[T]):
    """Things that wait to be worked on, in order."""

    _log = Logger()

    def __init__(self, clock: IReactorTime, work: Callable[[T], int], *, slice_size: int = 500) -> None:
        """
        @param work: deals with one thing, and says how much work that was.
        @param slice_size: how much work is done in one turn of the loop; it is exceeded by the last thing.
        """
        self._clock, self._work, self._slice_size = clock, work, slice_size
        self._waiting: deque[T] = deque()
        self._timer: IDelayedCall | None = None

    def __len__(self) -> int:
        """How many things wait."""
        return len(self._waiting)

    def add(self, things: Iterable[T]) -> None:
        """Work on C{things}, after those that wait already; a first slice of them now."""
        self._waiting.extend(things)
        if self._timer is None:
            self._run()

    def stop(self) -> None:
        """Leave undone what still waits."""
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _run(self) -> None:
        """Do one slice, and come back for the rest."""
        self._timer = None
        done = 0
        while self._waiting and done < self._slice_size:
            try:
                done += self._work(self._waiting.popleft())
            except Exception:  # or the rest would never be worked on
                self._log.failure("one thing of a backlog failed")
        if self._waiting:
            self._timer = self._clock.callLater(0, self._run)
