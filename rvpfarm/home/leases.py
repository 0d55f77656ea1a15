"""What is held until when."""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import count
from typing import Generic, Protocol, TypeVar

#: The C{until} of something that nobody holds.
LAPSED = -1.0


class Leased(Protocol):
    """Whatever can be held: a subscription, a view, a property's value."""

    until: float


T = TypeVar("T", bound=Leased)


class LeaseBook(Generic[T]):
    """Who holds what, and until when.  It owns no clock.

    A renewal moves C{until} of the item and nothing else: the item's old place in the queue is
    found to be early when it comes up, and only then put right.  So a million renewals cost no memory.
    """

    def __init__(self) -> None:
        self._queue: list[tuple[float, int, T]] = []
        self._count = count()
        self._held = 0

    def __len__(self) -> int:
        """How many are held."""
        return self._held

    def grant(self, item: T, until: float) -> None:
        """Hold C{item} to C{until}; a second grant renews or shortens the first."""
        if item.until == LAPSED:
            self._held += 1
        if item.until == LAPSED or until < item.until:
            heappush(self._queue, (until, next(self._count), item))
        item.until = until

    def drop(self, item: T) -> None:
        """Nobody holds C{item} any more; it will not be swept."""
        if item.until != LAPSED:
            self._held -= 1
            item.until = LAPSED

    def sweep(self, now: float, most: int = 1000) -> list[T]:
        """Drop the leases due by C{now}, oldest first.

        @param most: look at no more than this many, so that a mass lapse does not hold the loop;
            as many as that returned means there may be more.
        """
        lapsed: list[T] = []
        queue = self._queue
        while queue and queue[0][0] <= now and len(lapsed) < most:
            _, _, item = heappop(queue)
            if item.until > now:
                heappush(queue, (item.until, next(self._count), item))
            elif item.until != LAPSED:
                self.drop(item)
                lapsed.append(item)
        return lapsed
