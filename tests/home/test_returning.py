"""Who comes back just after being taken for gone is noticed (D15)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.home.returning import ENDS_LIMIT, Ends


class EndsTests(SynchronousTestCase):
    """An end is remembered for a minute, and told once."""

    def test_soon(self) -> None:
        """Back within a minute is soon, later is not, and never having gone is neither."""
        ends = Ends()
        self.assertFalse(ends.returned("ann", "192.0.2.7", 1))
        ends.ended("ann", "192.0.2.7", 10)
        self.assertFalse(ends.returned("ann", "192.0.2.8", 11))
        self.assertTrue(ends.returned("ann", "192.0.2.7", 70))
        self.assertFalse(ends.returned("ann", "192.0.2.7", 71))
        ends.ended("ann", "192.0.2.7", 100)
        self.assertFalse(ends.returned("ann", "192.0.2.7", 161))

    def test_bounded(self) -> None:
        """However many end at once, the latest are remembered."""
        ends = Ends()
        for number in range(ENDS_LIMIT + 1):
            ends.ended(f"user{number}", "", 0)
        self.assertFalse(ends.returned("user0", "", 1))
        self.assertTrue(ends.returned("user1", "", 1))
