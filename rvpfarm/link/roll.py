"""The calls of one caller to one home that have no reply, and when each of them is given up."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from rvpfarm.link.pending import Pending
from rvpfarm.protocol.calls import Slow, Unreachable
from rvpfarm.web.deadline import Deadline

if TYPE_CHECKING:
    from rvpfarm.observe.metrics import Metrics

#: Deadlines are looked at no more often than this.
GRAIN_SECONDS = 0.05


def _uncounted(outcome: str) -> None:
    """Nobody wants to know what became of a call."""


class Roll:
    """The calls without a reply, in the order in which they were made.

    @ivar pending: all of them, by id.
    @ivar unsent: the frames of those that wait to be sent, or to be sent again, by id.
    @ivar weight: of how many octets they are, all together.
    @ivar count: lets the metrics know what became of a call.
    """

    def __init__(
        self,
        peer: str,
        clock: IReactorTime,
        *,
        dropped: Callable[[Pending, bool], None],
        expire: Callable[[float], float],
        metrics: Metrics | None,
    ) -> None:
        """
        @param peer: the id of the home.
        @param dropped: told of each call that is given up, and whether it waited to be sent.
        @param expire: told the time when deadlines are looked at; says when it wants to be told again.
        """
        self.pending: dict[int, Pending] = {}
        self.unsent: dict[int, bytes] = {}
        self.weight = 0
        self._peer, self._clock = peer, clock
        self.count = _uncounted if metrics is None else metrics.link_calls
        self._dropped, self._expire_others = dropped, expire
        self._expiry: IDelayedCall | None = None
        self._expiry_at = inf
        self._tired = Deadline(clock, self._tire)

    def add(self, pending: Pending) -> None:
        """One more, to be sent."""
        id = pending.id
        self.pending[id] = pending
        self.unsent[id] = pending.frame
        self.weight += pending.weight
        if pending.until < self._expiry_at:
            self.wake_by(pending.until)

    def was_sent(self, pending: Pending) -> bool:
        """Whether the home may have all of it."""
        return pending.tries > 0 or (pending.whole and pending.id not in self.unsent)

    def settle(self, pending: Pending) -> None:
        """Its reply has come, or begun to come in parts."""
        del self.pending[pending.id]
        self.unsent.pop(pending.id, None)
        self.weight -= pending.weight
        self.count("answered")

    def drop(self, pending: Pending) -> None:
        """Wait for its reply no longer."""
        del self.pending[pending.id]
        self.weight -= pending.weight
        self._dropped(pending, self.unsent.pop(pending.id, None) is not None)

    def fail(
        self,
        pending: Pending,
        why: str,
        *,
        maybe_done: bool = False,
        echo: bool = False,
        kind: type[Unreachable] = Unreachable,
    ) -> None:
        """Give up one of them; the other parameters are those of L{Unreachable}, or of its C{kind}."""
        self.drop(pending)
        self.count("unreachable")
        pending.deferred.errback(kind(why, maybe_done=maybe_done, echo=echo))

    # those whose callers wait no longer

    def wake_by(self, when: float) -> None:
        """Look at the deadlines then, or before."""
        if when < self._expiry_at:
            if self._expiry is not None:
                self._expiry.cancel()
            self._expiry_at = when
            self._expiry = self._clock.callLater(
                max(when - self._clock.seconds(), GRAIN_SECONDS), self._expire
            )

    def _expire(self) -> None:
        """Tell those who have waited long enough."""
        self._expiry, self._expiry_at = None, inf
        now = self._clock.seconds()
        for pending in [pending for pending in self.pending.values() if pending.until <= now]:
            if pending.id not in self.pending:
                continue  # given up by one of those before it
            if self.was_sent(pending):
                self.drop(pending)
                self.count("slow")
                pending.deferred.errback(Slow(f"{self._peer} did not answer in time", maybe_done=True))
            else:
                self.fail(pending, f"{self._peer} did not take the call in time")
        until = min((pending.until for pending in self.pending.values()), default=inf)
        self.wake_by(min(until, self._expire_others(now)))

    # those that wait for a home that is away

    def hold(self, pending: Pending, until: float) -> None:
        """Give up a call at that time unless it can be sent before."""
        pending.hold = until
        self._tired.move(min(self._tired.until, until))

    def back(self) -> None:
        """The home is not away any more."""
        self._tired.stop()

    def stop(self) -> None:
        """Leave no timer behind."""
        self._tired.stop()
        if self._expiry is not None:
            self._expiry.cancel()
        self._expiry, self._expiry_at = None, -inf

    def _tire(self) -> None:
        """Those who have waited long enough for the home are told that it has not come back."""
        now, first = self._clock.seconds(), True
        for id in tuple(self.unsent):
            pending = self.pending.get(id)
            if pending is not None and 0 < pending.hold <= now:
                why = f"{self._peer} cannot be reached any more"
                self.fail(pending, why, maybe_done=pending.tries > 0, echo=not first)
                first = False
        holds = [self.pending[id].hold for id in self.unsent]
        self._tired.move(min((hold for hold in holds if hold), default=inf))
