"""Tests of L{rvpfarm.observe.status} and L{rvpfarm.observe.series}."""

from __future__ import annotations

import json
import math
import os

from prometheus_client import CollectorRegistry, generate_latest
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.observe.metrics import Metrics
from rvpfarm.observe.series import SAMPLES_LIMIT, Sample, Series
from rvpfarm.observe.status import ITEMS_LIMIT, TEXT_LIMIT, Status, bounded


class StatusTests(SynchronousTestCase):
    """A daemon says what it is and how it is, whatever is wrong with parts of it."""

    def setUp(self) -> None:
        """A page of a daemon that was started at 1000, ten seconds ago."""
        self.reasons: list[str] = []
        self.draining = False
        self.ticks = 50.0
        self.status = Status(
            role="router",
            name="r1",
            ready=lambda: self.reasons,
            draining=lambda: self.draining,
            now=lambda: 1000.0,
            ticks=lambda: self.ticks,
        )
        self.ticks = 60.0

    def test_facts(self) -> None:
        """It begins with who it is and since when."""
        page = json.loads(self.status.render())
        self.assertEqual(
            list(page),
            [
                "role",
                "name",
                "version",
                "pid",
                "started",
                "time",
                "uptime_seconds",
                "ready",
                "reasons",
                "draining",
            ],
        )
        self.assertEqual((page["role"], page["name"], page["pid"]), ("router", "r1", os.getpid()))
        self.assertEqual((page["started"], page["uptime_seconds"]), (1000, 10))
        self.assertEqual((page["ready"], page["reasons"]), (True, []))

    def test_not_ready(self) -> None:
        """What speaks against sending work there is listed."""
        self.reasons.append("no home is up")
        page = self.status.page()
        self.assertEqual((page["ready"], page["reasons"]), (False, ["no home is up"]))

    def test_draining(self) -> None:
        """What is taken away on purpose says just that, whatever else is the matter, and is no trouble."""
        self.assertIs(self.status.page()["draining"], False)
        self.draining = True
        self.reasons.append("no home is up")
        page = self.status.page()
        self.assertEqual((page["ready"], page["reasons"], page["draining"]), (False, ["draining"], True))

    def test_parts(self) -> None:
        """What services add is asked for anew each time."""
        count = iter(range(10))
        self.status.show("connections", lambda: next(count))
        self.status.show_fields(lambda: {"sessions": 7, "role": "nobody can change that"})
        self.assertEqual([self.status.page()["connections"] for _ in range(3)], [0, 1, 2])
        self.assertEqual((self.status.page()["sessions"], self.status.page()["role"]), (7, "router"))

    def test_broken_part(self) -> None:
        """A part that fails is null and logged once; the others are there."""
        self.status.show("broken", lambda: 1 / 0)
        self.status.show_fields(lambda: {"x": 1 / 0})
        self.status.show("whole", lambda: True)
        for _ in range(3):
            page = self.status.page()
            self.assertEqual((page["broken"], page["whole"]), (None, True))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_unknown_readiness(self) -> None:
        """A daemon that cannot say whether it is ready is not."""

        def broken() -> list[str]:
            raise ZeroDivisionError

        self.status.ready = broken
        self.assertIs(self.status.page()["ready"], False)
        self.flushLoggedErrors(ZeroDivisionError)

    def test_bounded(self) -> None:
        """Nothing grows beyond its limit, and everything is JSON."""
        endless: list[object] = []
        endless.append(endless)
        odd = {
            "list": list(range(5000)),
            "text": "x" * 5000,
            "deep": endless,
            "odd": object(),
            "nan": math.nan,
        }
        self.status.show("odd", lambda: odd)
        page = json.loads(self.status.render())["odd"]
        self.assertEqual((len(page["list"]), len(page["text"])), (ITEMS_LIMIT, TEXT_LIMIT))
        self.assertEqual((page["odd"], page["nan"]), (None, None))
        self.assertEqual(len(bounded({str(n): n for n in range(500)})), 100)  # type: ignore[arg-type]
        self.assertIsNone(bounded(b"octets"))


class SeriesTests(SynchronousTestCase):
    """Metrics whose labels come and go."""

    SERIES = (
        Series("home_up", "Up", ("home",)),
        Series("probes", "Probes", ("home", "outcome"), counter=True),
    )

    def setUp(self) -> None:
        """Two metrics of whatever homes there are."""
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry, role="router", node="r1")
        self.samples = [Sample("home_up", ("hs1",), 1), Sample("probes", ("hs1", "answered"), 7)]
        self.metrics.series(self.SERIES, lambda: self.samples)

    def read(self, name: str, **labels: str) -> float | None:
        """One sample."""
        return self.registry.get_sample_value(name, {"role": "router", "node": "r1", **labels})

    def test_shown(self) -> None:
        """Each sample is shown under its name and labels, counters with their ending."""
        self.assertEqual(self.read("rvp_home_up", home="hs1"), 1)
        self.assertEqual(self.read("rvp_probes_total", home="hs1", outcome="answered"), 7)

    def test_gone(self) -> None:
        """What is told of no more is shown no more."""
        self.samples[:] = [Sample("home_up", ("hs2",), 0)]
        self.assertEqual(self.read("rvp_home_up", home="hs1"), None)
        self.assertEqual(self.read("rvp_home_up", home="hs2"), 0)

    def test_several(self) -> None:
        """Several parts of a process may tell of the same."""
        self.metrics.series(self.SERIES, lambda: [Sample("home_up", ("hs9",), 0)])
        self.assertEqual((self.read("rvp_home_up", home="hs1"), self.read("rvp_home_up", home="hs9")), (1, 0))

    def test_broken(self) -> None:
        """A reading that fails is logged once and hides nothing else."""
        self.metrics.rejected("conn")
        self.samples.append(Sample("nobody knows that", (), 1))
        for _ in range(2):
            self.assertIn(b'rvp_rejected_total{node="r1",reason="conn",role="router"} 1.0', self.page())
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def page(self) -> bytes:
        """Everything, as Prometheus reads it, with labels in a fixed order."""
        lines = []
        for metric in self.registry.collect():
            for sample in metric.samples:
                labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
                lines.append(f"{sample.name}{{{labels}}} {sample.value}")
        return "\n".join(lines).encode()

    def test_bounded(self) -> None:
        """However many there are, the page has an end."""
        self.samples[:] = [Sample("home_up", (f"hs{number}",), 1) for number in range(2 * SAMPLES_LIMIT)]
        text = generate_latest(self.registry).decode()
        self.assertEqual(text.count("rvp_home_up{"), SAMPLES_LIMIT)
