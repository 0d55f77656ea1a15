"""The measurement of scale, on a small scale: that it measures, and that nothing acknowledged is lost."""

from __future__ import annotations

import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.bench.scale import measure


@pytest.mark.farm
class ScaleTests(SynchronousTestCase):
    """A home takes up its state, has it renewed, and survives C{kill -9}."""

    def test_few_hundred(self) -> None:
        """Every call is answered, and all that was answered before the end is there after it."""
        figures = measure(200, 10, 2.0)
        self.assertEqual((figures.failed, figures.lost), (0, 0))
        self.assertEqual(figures.subscriptions, 2200)
        self.assertGreater(figures.sampled, 20)
        self.assertGreater(figures.calls, 30)
