"""Tests of L{rvpfarm.directory.spans}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.directory.spans import spell_span


class SpellSpanTests(SynchronousTestCase):
    """A span is told in the unit that people would take."""

    def test_units(self) -> None:
        """The largest of which there are two; what is left over is left out."""
        for seconds, text in (
            (-5, "0 seconds"),
            (1.9, "1 second"),
            (119, "119 seconds"),
            (120, "2 minutes"),
            (7199, "119 minutes"),
            (7200, "2 hours"),
            (129_600, "36 hours"),
            (604_800, "7 days"),
        ):
            self.assertEqual(spell_span(seconds), text)
