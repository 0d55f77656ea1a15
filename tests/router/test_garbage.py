"""How often a router searches for garbage."""

from __future__ import annotations

import gc

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.router.garbage import UNDER_WAY, GarbagePace


class GarbagePaceTests(SynchronousTestCase):
    """A running router leaves calls under way alone, and a stopped one leaves the process as it was."""

    def test_pace(self) -> None:
        """Only the young are searched more seldom, and only while it runs."""
        before = gc.get_threshold()
        self.addCleanup(gc.set_threshold, *before)
        pace = GarbagePace()
        pace.startService()
        self.assertEqual(gc.get_threshold(), (UNDER_WAY, *before[1:]))
        pace.stopService()
        self.assertEqual(gc.get_threshold(), before)

    def test_still_searched(self) -> None:
        """Circles are found all the same."""
        self.addCleanup(gc.set_threshold, *gc.get_threshold())
        pace = GarbagePace()
        pace.startService()
        self.addCleanup(pace.stopService)
        before = gc.get_stats()[0]["collections"]
        kept = [[number] for number in range(2 * UNDER_WAY)]
        self.assertGreater(gc.get_stats()[0]["collections"], before)
        self.assertEqual(len(kept), 2 * UNDER_WAY)
