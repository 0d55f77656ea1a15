"""What is held until when."""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Generic, Protocol, TypeVar

#: The C{until} of something that nobody holds.
LAPSED = -1.0


class Leased(Protocol):
    """Whatever can be held: a subscription, a view, a property's value."""

    until: float


T = TypeVar("T", bound=Leased)


#: How much may lapse together in one look of the clock, in seconds.
GRAIN_SECONDS = 1.0


class LeaseBook(Generic[T]):
    """Who holds what, and until when.  It owns no clock.

    What ends within the same second waits in one list, so that a lease costs one place in a list.  A renewal
    moves C{until} of the item and nothing else: its old place is found to be early when it comes up, and only
    then put right.  So a million renewals cost no memory.
    """

    def __init__(self) -> None:
        self._due: dict[int, list[T]] = {}  # by the second in which they may end
        self._seconds: list[int] = []  # a heap of those keys
        self._early: list[T] = []  # taken out of L{_due} and still to be looked at, the earliest last
        self._held = 0

    def __len__(self) -> int:
        """How many are held."""
        return self._held

    def grant(self, item: T, until: float) -> None:
        """Hold C{item} to C{until}; a second grant renews or shortens the first."""
        if item.until == LAPSED:
            self._held += 1
            self._place(item, until)
        elif until < item.until:
            self._place(item, until)
        item.until = until

    def drop(self, item: T) -> None:
        """Nobody holds C{item} any more; it will not be swept."""
        if item.until != LAPSED:
            self._held -= 1
            item.until = LAPSED

    def sweep(self, now: float, most: int = 1000) -> list[T]:
        """Drop the leases due by C{now}, oldest first.

        @param most: drop no more than this many, so that a mass lapse does not hold the loop; as many as that
            returned means there may be more.
        """
        lapsed: list[T] = []
        held: list[T] = []
        while len(lapsed) < most and self._look(now):
            item = self._early.pop()
            if item.until > now:
                held.append(item)
            elif item.until != LAPSED:
                self.drop(item)
                lapsed.append(item)
        for item in held:  # afterwards, for it may end in this very second
            self._place(item, item.until)
        return lapsed

    def _look(self, now: float) -> bool:
        """Is there anything to look at in L{_early}?"""
        if not self._early and self._seconds and self._seconds[0] * GRAIN_SECONDS <= now:
            self._early = self._due.pop(heappop(self._seconds))
            self._early.sort(key=_until, reverse=True)
        return bool(self._early)

    def _place(self, item: T, until: float) -> None:
        second = int(until // GRAIN_SECONDS)
        items = self._due.get(second)
        if items is None:
            items = self._due[second] = []
            heappush(self._seconds, second)
        items.append(item)


def _until(item: Leased) -> float:
    return item.until
