"""Tests of L{rvpfarm.home.backlog}."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.home.backlog import Backlog


class BacklogTests(SynchronousTestCase):
    """Things are worked on in order, so much in a turn of the loop."""

    def setUp(self) -> None:
        """A backlog of numbers, each as much work as it says."""
        self.clock = Clock()
        self.done: list[int] = []
        self.backlog = Backlog(self.clock, self.work, slice_size=10)

    def work(self, number: int) -> int:
        """Note it; zero is no number."""
        if number == 0:
            raise ZeroDivisionError
        self.done.append(number)
        return number

    def test_slices(self) -> None:
        """The first slice is done at once, the others one in each turn."""
        self.backlog.add([6, 6, 6, 3, 9])
        self.assertEqual((self.done, len(self.backlog)), ([6, 6], 3))
        self.clock.advance(0)
        self.assertEqual(self.done, [6, 6, 6, 3, 9][:5])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_added_meanwhile(self) -> None:
        """What is added while others wait comes after them, in its turn."""
        self.backlog.add([10, 1])
        self.backlog.add([2])
        self.assertEqual(self.done, [10])
        self.clock.advance(0)
        self.assertEqual(self.done, [10, 1, 2])

    def test_nothing(self) -> None:
        """Nothing to do takes no turn."""
        self.backlog.add([])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop(self) -> None:
        """What waits is left undone."""
        self.backlog.add([10, 10])
        self.backlog.stop()
        self.assertEqual((len(self.backlog), self.clock.getDelayedCalls()), (0, []))
        self.backlog.stop()

    def test_failure(self) -> None:
        """One that fails is logged, and the rest is done."""
        self.backlog.add([1, 0, 2])
        self.assertEqual(self.done, [1, 2])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
