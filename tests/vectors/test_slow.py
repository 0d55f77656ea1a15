"""Vector 33 in real time: a minute of silence."""

from __future__ import annotations

import time

import pytest

from tests.support.vectors import VectorTestCase
from tests.support.wire import state_in


@pytest.mark.slow
class SilenceVectors(VectorTestCase):
    """What L{tests.vectors.test_properties} checks on a clock, waited for."""

    def test_vector_33_waited_for(self) -> None:
        """A lease of 60 s that nobody renews: the watcher is told between 60 and 65 s later."""
        orchard = self.orchard()
        self.watch(self.ingrid)
        begun = time.monotonic()
        self.set_state("online", timeout="60")
        granted = time.monotonic()
        _, told = orchard.wait(2, seconds=90)
        arrived = time.monotonic()
        self.assertEqual(state_in(told.body), "offline")
        self.assertGreaterEqual(arrived - begun, 60)
        self.assertLessEqual(arrived - granted, 65)
