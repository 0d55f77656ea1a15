"""Tests of L{rvpfarm.observe.tallies}."""

from __future__ import annotations

import math

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.observe.tallies import Count, Spans, Tally

#: On a bound, next to it, between, beyond, and what no time ever is.
AMOUNTS = (0.0, 0.0005, 0.001, 0.0010001, 0.7, 1.0, 30, 1e9, -1.0, math.inf, 3)


class TallyTests(SynchronousTestCase):
    """What is shown is to the letter what C{prometheus_client} shows of its own metrics."""

    def setUp(self) -> None:
        """Two registries with the same metrics."""
        disable_created_metrics()
        self.theirs, self.ours = CollectorRegistry(), CollectorRegistry()

    def same(self) -> None:
        """Both say the same."""
        self.assertEqual(generate_latest(self.ours), generate_latest(self.theirs))

    def test_counter(self) -> None:
        """Of a counter."""
        theirs = Counter("rvp_things", "Things that happen", ("role", "kind"), registry=self.theirs)
        ours = Tally(Count, "rvp_things", "Things that happen", ("role", "kind"))
        self.ours.register(ours)
        self.same()
        for kind, times in (("a", 3), ('b"\n', 0), ("c", 1)):
            theirs.labels("home", kind).inc(times)
            for _ in range(times):
                ours.child(("home", kind)).value += 1
            ours.child(("home", kind))
        self.same()

    def test_histogram(self) -> None:
        """Of a histogram, with its labels in any order of making, and with no label at all."""
        bounds = (0.0005, 0.001, 1.0, 30)
        for labels in ((), ("verb",)):
            name = f"rvp_{len(labels)}_seconds"
            theirs = Histogram(name, "How long", labels, registry=self.theirs, buckets=bounds)
            ours = Tally(Spans, name, "How long", labels, bounds)
            self.ours.register(ours)
            mine = ours.child(labels)
            yours = theirs.labels(*labels) if labels else theirs
            self.same()
            for amount in AMOUNTS:
                yours.observe(amount)
                mine.observe(amount)
                self.same()

    def test_one_child_for_the_same_labels(self) -> None:
        """Whoever asks again gets the same child."""
        tally = Tally(Count, "rvp_things", "Things", ("kind",))
        self.assertIs(tally.child(("a",)), tally.child(("a",)))
        self.assertIsNot(tally.child(("a",)), tally.child(("b",)))
