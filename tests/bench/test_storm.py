"""The measurements of a storm and of idle connections, on a small scale: that they measure."""

from __future__ import annotations

import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.bench import idle, storm


@pytest.mark.farm
class StormTests(SynchronousTestCase):
    """Everybody comes back to a home at once."""

    def test_few(self) -> None:
        """All come back, each makes all his calls, and who was there already is told of whom he watches."""
        figures = storm.measure(60, 5, 1.0)
        self.assertEqual((figures.back, figures.failed), (60, 0))
        self.assertEqual(figures.calls, 60 * (5 + 2))
        self.assertGreater(figures.told, 0)


@pytest.mark.farm
class IdleTests(SynchronousTestCase):
    """Connections rest at a router."""

    def test_few(self) -> None:
        """Each has had its request answered, and stays open."""
        figures = idle.measure(150)
        self.assertEqual(figures.open, 150)
