"""Tests of C{rvpfarm.client.leases}."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.client.errors import NotDone
from rvpfarm.client.leases import Renewal, presence_due, subscription_due


class DueTests(SynchronousTestCase):
    """When to renew."""

    def test_subscription(self) -> None:
        """Five minutes before the end, or at three quarters of a short one."""
        self.assertEqual([subscription_due(s) for s in (14400, 1200, 300, 60)], [14100, 900, 225, 45])

    def test_presence(self) -> None:
        """At three quarters."""
        self.assertEqual(presence_due(1200), 900)


class RenewalTests(SynchronousTestCase):
    """A lease is renewed for as long as it is wanted."""

    def setUp(self) -> None:
        """A lease that is renewed as C{self.outcomes} say; without any, for 100 s."""
        self.clock = Clock()
        self.times: list[float] = []
        self.outcomes: list[Exception | Deferred[float] | float] = []
        self.troubles: list[str] = []
        self.renewal = Renewal(
            self.clock, "the lease", self._renew, lambda seconds: seconds - 10, self.troubles.append
        )

    async def _renew(self) -> float:
        self.times.append(self.clock.seconds())
        outcome = self.outcomes.pop(0) if self.outcomes else 100.0
        if isinstance(outcome, Exception):
            raise outcome
        return await outcome if isinstance(outcome, Deferred) else outcome

    def run_for(self, seconds: int) -> None:
        """Let time pass."""
        self.clock.pump([1.0] * seconds)

    def test_again_and_again(self) -> None:
        """Each grant leads to the next renewal."""
        self.renewal.granted(50)
        self.run_for(240)
        self.assertEqual(self.times, [40, 130, 220])
        self.successResultOf(self.renewal.stop())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_failures(self) -> None:
        """A failure is tried again after 2, 4, 8 ... 60 s, and told once."""
        self.outcomes = [NotDone("the server is busy")] * 8
        self.renewal.granted(20)
        self.run_for(250)
        self.assertEqual(self.times[:9], [10, 12, 16, 24, 40, 72, 132, 192, 252][: len(self.times)])
        self.assertEqual(self.troubles, ["the server is busy"])
        self.successResultOf(self.renewal.stop())

    def test_recovery(self) -> None:
        """After a success the next trouble is told again, and pauses begin anew."""
        self.outcomes = [NotDone("a"), NotDone("b"), 20.0, NotDone("c")]
        self.renewal.granted(20)
        self.run_for(30)
        self.assertEqual(self.times, [10, 12, 16, 26, 28])
        self.assertEqual(self.troubles, ["a", "c"])
        self.successResultOf(self.renewal.stop())

    def test_bug(self) -> None:
        """Whatever else goes wrong is logged, and the lease is tried again all the same."""
        self.outcomes = [ZeroDivisionError()]
        self.renewal.granted(20)
        self.run_for(12)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.times, [10, 12])
        self.successResultOf(self.renewal.stop())

    def test_stop_under_way(self) -> None:
        """Stopping breaks off a renewal that is under way, and waits for it."""
        waiting: Deferred[float] = Deferred()
        self.outcomes = [waiting]
        self.renewal.granted(20)
        self.run_for(10)
        self.successResultOf(self.renewal.stop())
        self.assertTrue(waiting.called)
        self.assertEqual((self.clock.getDelayedCalls(), self.troubles), ([], []))

    def test_granted_after_stop(self) -> None:
        """A lease that is not wanted any more is not renewed."""
        self.successResultOf(self.renewal.stop())
        self.renewal.granted(20)
        self.assertEqual(self.clock.getDelayedCalls(), [])
