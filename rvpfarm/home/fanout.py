"""One change, many deliveries; and when a NOTIFY counts as acknowledged (protocol notes 6.3)."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from rvpfarm.protocol.calls import Failed, Precondition, Refusal, TimedOut
from rvpfarm.protocol.headers import Ack


class Outcome(Enum):
    """What became of one delivery.

    @ivar word: how it is counted.
    """

    #: the call-back answered 2xx
    DELIVERED = "delivered"
    #: it answered, with another status
    REFUSED = "refused"
    #: it could not be connected, or broke off
    DEAD = "dead"
    #: it had not answered when time ran out
    SLOW = "slow"
    #: it was never tried: its queue was full, or a newer notification took its place
    DROPPED = "dropped"

    def __init__(self, word: str) -> None:
        self.word = word  # C{value} is a method call


# To find a member of an enumeration by its name costs a method call each time.
_DELIVERED, _REFUSED, _SLOW = Outcome.DELIVERED, Outcome.REFUSED, Outcome.SLOW
_SINGLE_HOP, _DEEP_OR = Ack.SINGLE_HOP, Ack.DEEP_OR


class Acknowledgement:
    """Gathers the outcomes of one NOTIFY until the table of 6.3 says what to answer."""

    __slots__ = ("_ack", "_delivered", "_outstanding", "_refused", "_slow", "_total", "settled")

    def __init__(self, ack: Ack, deliveries: int) -> None:
        """
        @param ack: how deep the sender wants to be sure; C{SINGLE_HOP} is settled from the start.
        @param deliveries: how many distinct call-backs are tried; none means nobody is reachable.
        """
        self._ack = ack
        self._total = self._outstanding = deliveries
        self._delivered = self._refused = self._slow = 0
        self.settled = ack is _SINGLE_HOP or deliveries == 0

    def add(self, outcome: Outcome) -> bool:
        """Count one outcome.

        @return: whether this one settled the matter; L{verdict} is then ready, and stays as it is.
        """
        self._outstanding -= 1
        if self.settled:
            return False
        if outcome is _DELIVERED:
            self._delivered += 1
        elif outcome is _REFUSED:
            self._refused += 1
        elif outcome is _SLOW:
            self._slow += 1
        self.settled = self._outstanding == 0 or (self._ack is _DEEP_OR and self._delivered > 0)
        return self.settled

    def expire(self) -> None:
        """Time is up: whoever has not answered is slow."""
        self._slow += self._outstanding
        self.settled = True

    def verdict(self) -> Refusal | None:
        """What the sender is told: C{None} for success, else why not."""
        if self._total == 0:
            return Precondition("nobody is logged in there")
        if self._ack is _SINGLE_HOP:
            return None
        if self._delivered and (self._ack is _DEEP_OR or self._delivered == self._total):
            return None
        if self._delivered:
            return (
                TimedOut("not every place has answered") if self._slow else Failed("not every place took it")
            )
        if self._refused:
            return Failed("the user has left this conversation")
        if self._slow:
            return TimedOut("no place has answered in time")
        return Precondition("nobody could be reached there")


class Spread:
    """Follows one change on its way to all who watch: how many, and when the last had acknowledged."""

    __slots__ = ("_outstanding", "_report", "_seconds", "last", "size", "started")

    def __init__(
        self, started: float, report: Callable[[int, float], None], seconds: Callable[[], float]
    ) -> None:
        """
        @param started: when the change was accepted, seconds.
        @param seconds: tells the time.
        @param report: told once, when the last delivery has its outcome: how many deliveries were
            made, and after how many seconds the last acknowledgement came.
        """
        self.started = started
        self.size = 0
        self.last = started
        self._outstanding = 1  # the one who is still adding
        self._report, self._seconds = report, seconds

    def sent(self) -> None:
        """One more delivery is on its way."""
        self.size += 1
        self._outstanding += 1

    def settled(self, outcome: Outcome) -> None:
        """One delivery has its outcome."""
        if outcome is _DELIVERED or outcome is _REFUSED:
            self.last = self._seconds()
        self._outstanding -= 1
        if self._outstanding == 0:
            self._done()

    def complete(self) -> None:
        """All deliveries have been sent."""
        self._outstanding -= 1
        if self._outstanding == 0:
            self._done()

    def _done(self) -> None:
        if self.size:
            self._report(self.size, self.last - self.started)
