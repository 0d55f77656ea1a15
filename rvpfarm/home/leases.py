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


#: What ends within so many seconds is looked at together.
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
        self._looking: list[T] = []  # taken out of L{_due} and still to be looked at, the first one last
        self._held = 0

    def __len__(self) -> int:
        """How many are held."""
        return self._held

    def clear(self) -> None:
        """Nobody holds anything any more."""
        self._due.clear()
        self._seconds.clear()
        self._looking.clear()
        self._held = 0

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
        """Drop the leases due by C{now}, those of an earlier second first.

        @param most: look at no more than this many, renewed ones included, so that what was granted to many
            at the same moment does not hold the loop; see L{behind}.
        """
        lapsed: list[T] = []
        held: list[T] = []
        for _ in range(most):
            if not self._look(now):
                break
            item = self._looking.pop()
            if item.until > now:
                held.append(item)
            elif item.until != LAPSED:
                self.drop(item)
                lapsed.append(item)
        for item in held:  # afterwards, for it may end in this very second
            self._place(item, item.until)
        return lapsed

    def behind(self, now: float) -> bool:
        """Is there more to sweep already, whatever the last L{sweep} left or was kept from?"""
        return bool(self._looking) or bool(self._seconds and (self._seconds[0] + 1) * GRAIN_SECONDS <= now)

    def _look(self, now: float) -> bool:
        """Is there anything to look at?"""
        if not self._looking and self._seconds and self._seconds[0] * GRAIN_SECONDS <= now:
            items = self._due.pop(heappop(self._seconds))
            # An item that was dropped and granted again, or shortened, has two places until here.
            self._looking = list(dict.fromkeys(items))
            self._looking.reverse()
        return bool(self._looking)

    def _place(self, item: T, until: float) -> None:
        second = int(until // GRAIN_SECONDS)
        items = self._due.get(second)
        if items is None:
            items = self._due[second] = []
            heappush(self._seconds, second)
        items.append(item)
