"""Tests of L{rvpfarm.tap.overview}."""

from __future__ import annotations

import json
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.observe.metrics import Metrics
from rvpfarm.observe.status import Status
from rvpfarm.router.health import Health, Outcome
from rvpfarm.tap.overview import Homes, show_directory, show_work
from tests.support.farms import FarmDirectory


class CachingDirectory(FarmDirectory):
    """As far as the page looks at it."""

    staleness_seconds = 1.23456
    limit_seconds = 86400.0
    cached = 17


class HomesTests(SynchronousTestCase):
    """How homes stand is told alike in metrics, on the status page and by readiness."""

    def setUp(self) -> None:
        """A router of a farm with two homes, of which nothing is known."""
        self.clock, self.health = Clock(), Health()
        self.directory: Any = CachingDirectory()  # no more of the real one is asked
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry, role="router", node="r1")
        self.status = Status(role="router", name="r1", ready=lambda: ())
        self.homes = Homes(self.health, self.directory, self.clock)
        self.homes.show(self.metrics, self.status)

    def probe(self, id: str, *outcomes: Outcome) -> None:
        """Somebody asked that home."""
        for outcome in outcomes:
            self.health.of(id, self.clock.seconds()).probed(outcome, self.clock.seconds())

    def read(self, name: str, **labels: str) -> float | None:
        """One sample."""
        return self.registry.get_sample_value(name, {"role": "router", "node": "r1", **labels})

    def test_missing(self) -> None:
        """A router can serve when one home is there; before and after it says which are not."""
        self.assertEqual(
            self.homes.missing(), "no home is up: home1 is not known yet, home2 is not known yet"
        )
        self.probe("h1", *[Outcome.UNREACHABLE] * 3)
        self.probe("h2", Outcome.ANSWERED)
        self.assertEqual(self.homes.missing(), "")
        self.health.leaving("h2", 0, 10)
        self.assertEqual(self.homes.missing(), "")
        self.clock.advance(20)
        self.probe("h2", *[Outcome.SLOW] * 3)
        self.assertEqual(self.homes.missing(), "no home is up: home1 is down, home2 is down")
        self.directory.change(homes={})
        self.assertEqual(self.homes.missing(), "the directory has no home")

    def test_metrics(self) -> None:
        """One series for each home and figure; none of what is not known, or gone."""
        self.probe("h1", Outcome.ANSWERED, *[Outcome.UNREACHABLE] * 3)
        self.assertEqual(self.read("rvp_home_up", home="home1"), 0)
        self.assertIsNone(self.read("rvp_home_up", home="home2"))
        self.assertEqual(self.read("rvp_home_flapping", home="home1"), 0)
        self.assertEqual(self.read("rvp_home_transitions_total", home="home1", to="down"), 1)
        self.assertEqual(self.read("rvp_probes_total", home="home1", outcome="unreachable"), 3)
        self.assertEqual(self.read("rvp_breaker_open", target="home1"), 0)
        for _ in range(5):
            self.health.of("h2", 0).unreached(0)
        self.assertEqual(self.read("rvp_breaker_open", target="home2"), 1)
        self.directory.change(homes={})
        self.assertIsNone(self.read("rvp_home_up", home="home1"))
        self.assertIsNone(self.read("rvp_breaker_open", target="home2"))

    def test_page(self) -> None:
        """The page has the same for programs."""
        self.probe("h1", Outcome.ANSWERED)
        self.clock.advance(2.5)
        self.assertEqual(
            json.loads(self.status.render())["homes"][0],
            {"name": "home1", "state": "up", "circuit": "closed", "since_seconds": 2.5, "flapping": False},
        )


class ShowTests(SynchronousTestCase):
    """The other parts of the page."""

    def test_directory(self) -> None:
        """The directory is named without its secrets."""
        status = Status(role="router", name="r1", ready=lambda: ())
        directory: Any = CachingDirectory()  # no more of the real one is asked
        show_directory(status, directory, "postgresql://ann:hush@db/rvp?password=hush&sslkey=x")
        shown = status.page()["directory"]
        self.assertEqual(
            shown,
            {
                "url": "postgresql://ann@db/rvp",
                "staleness_seconds": 1.235,
                "limit_seconds": 86400.0,
                "cached": 17,
            },
        )

    def test_work(self) -> None:
        """How much there is to do is asked when the page is."""
        status = Status(role="router", name="r1", ready=lambda: ())
        work = [3, 4]
        show_work(status, lambda: work[0], lambda: work[1])
        work[:] = [7, 8]
        self.assertEqual((status.page()["connections"], status.page()["in_work"]), (7, 8))
