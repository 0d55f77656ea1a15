"""A deadline that is moved often and reached seldom."""

from __future__ import annotations

from math import inf

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.web.deadline import Deadline


class DeadlineTests(SynchronousTestCase):
    """It calls back at the moment it was moved to last."""

    def setUp(self) -> None:
        """Note when it calls back."""
        self.clock = Clock()
        self.reached: list[float] = []
        self.deadline = Deadline(self.clock, lambda: self.reached.append(self.clock.seconds()))

    def test_reached_once(self) -> None:
        """It calls back once, and leaves no timer behind."""
        self.deadline.move(5)
        self.clock.pump([1] * 20)
        self.assertEqual(self.reached, [5])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_moved(self) -> None:
        """Later or earlier, the last word counts."""
        self.deadline.move(5)
        self.deadline.move(9)
        self.clock.pump([1] * 7)
        self.deadline.move(8)
        self.clock.pump([1] * 10)
        self.assertEqual(self.reached, [8])

    def test_called_off(self) -> None:
        """Infinity calls it off; it can be set again."""
        self.deadline.move(5)
        self.deadline.move(inf)
        self.clock.pump([1] * 10)
        self.assertEqual(self.reached, [])
        self.deadline.move(12)
        self.clock.pump([1] * 5)
        self.assertEqual(self.reached, [12])

    def test_set_again_by_whom_it_tells(self) -> None:
        """Whoever is called back may set it again at once."""

        def reached() -> None:
            self.reached.append(self.clock.seconds())
            if len(self.reached) == 1:
                again.move(9)

        again = Deadline(self.clock, reached)
        again.move(3)
        self.clock.pump([1] * 10)
        self.assertEqual(self.reached, [3, 9])

    def test_cheap(self) -> None:
        """However often it is moved ahead, there is one timer; stopped, there is none."""
        for second in range(50):
            self.deadline.move(second + 10)
            self.assertEqual(len(self.clock.getDelayedCalls()), 1)
            self.clock.advance(1)
        self.deadline.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.reached, [])
