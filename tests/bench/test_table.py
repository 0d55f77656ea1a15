"""The arithmetic of what was measured."""

from __future__ import annotations

import json
from io import StringIO
from xml.etree import ElementTree

from rich.console import Console
from twisted.trial.unittest import SynchronousTestCase

from tests.bench.peers import Missing
from tests.bench.plots import BEGIN, END, curves_of, ratios_of, with_table
from tests.bench.rows import OURS, Contender, Lineup, Outcome, Row, Sample, Spread, Target, rounds_of, spread
from tests.bench.table import report_of, table_of, verdict


def sample(cpu_seconds: float, p50_us: float = 100.0, failures: int = 0, late: int = 0) -> Sample:
    """A thousand operations in two seconds."""
    return Sample(1000, 2.0, cpu_seconds, p50_us, 900.0, failures, late)


def outcome(added: str = "") -> Outcome:
    """Three rounds of us and of nginx."""
    row = Row(1, "a row", "request", lambda *_: Lineup(), {"nginx": Target(1.0, 1.25)}, added)
    return Outcome(
        row,
        {
            OURS: [sample(0.010), sample(0.020, 150), sample(0.040, 300)],
            "nginx": [sample(0.011), sample(0.030), sample(0.080)],
        },
        {"haproxy": "haproxy is not installed (apt-get install haproxy)"},
    )


class OutcomeTests(SynchronousTestCase):
    """Rounds become figures."""

    def test_spread(self) -> None:
        """The median is the one in the middle, however far off the others are."""
        self.assertEqual(spread([5.0, 900.0, 4.0]), Spread(5.0, 4.0, 900.0))

    def test_per_operation(self) -> None:
        """Microseconds of CPU for one, operations per second."""
        self.assertAlmostEqual(sample(0.015).cpu_per_thousand, 15.0)
        self.assertEqual(sample(0.015).rate, 500.0)

    def test_ratios_are_those_of_rounds(self) -> None:
        """Each round is compared with itself: a machine that slows down for all changes no ratio."""
        ratio = outcome().ratios("nginx")
        assert ratio is not None
        self.assertEqual([round(each, 3) for each in (ratio.median, ratio.low, ratio.high)], [1.5, 1.1, 2.0])

    def test_nobody_to_compare_with(self) -> None:
        """Who did not take part has no ratio, and neither has a round too short for the clock."""
        made = outcome()
        self.assertIsNone(made.ratios("haproxy"))
        made.samples[OURS] = [sample(0.0)]
        self.assertIsNone(made.ratios("nginx"))

    def test_added_latency(self) -> None:
        """What a row adds is the median of the rounds' differences."""
        self.assertEqual(outcome("nginx").added_us(), Spread(50.0, 0.0, 200.0))

    def test_interleaved(self) -> None:
        """Everybody has a turn before anybody has a second one."""
        lineup = Lineup([Contender(name, lambda seconds: sample(seconds)) for name in "ab"])
        self.assertEqual([name for name, _ in rounds_of(lineup, 2, 1.0)], ["a", "b", "a", "b"])

    def test_absent(self) -> None:
        """Who lacks a package is left out, and what is to be installed is kept."""

        def lacking() -> Contender:
            raise Missing("haproxy")

        lineup = Lineup()
        lineup.add("haproxy", lacking)  # type: ignore[arg-type]
        self.assertEqual(lineup.contenders, [])
        self.assertIn("apt-get install haproxy", lineup.absent["haproxy"])


class TableTests(SynchronousTestCase):
    """Figures become words and pictures."""

    def test_verdicts(self) -> None:
        """A ratio below what must be is missed; one that reaches the aim says so."""
        target = Target(1.0, 1.25)
        said = [verdict(target, Spread(value, value, value)) for value in (0.99, 1.0, 1.25)]
        self.assertEqual(said, ["missed", "met", "aim met"])
        self.assertEqual(verdict(Target(None, 1.0), Spread(0.9, 0.9, 0.9)), "aim missed")
        self.assertEqual(verdict(Target(1.4), Spread(1.5, 1.5, 1.5)), "met")
        self.assertEqual(verdict(None, Spread(9, 9, 9)), "")

    def test_table(self) -> None:
        """It shows medians, least and most, what was missed, who is absent, and what failed."""
        made = outcome()
        made.samples["nginx"][0] = sample(0.011, failures=3, late=2)
        printed = StringIO()
        Console(file=printed, width=200).print(table_of(made))
        for text in ("20.0 (10.0-40.0)", "1.50 (1.10-2.00)", "1.00 / 1.25", "3 failed", "2 left out"):
            self.assertIn(text, printed.getvalue())
        self.assertIn("apt-get install haproxy", printed.getvalue())
        self.assertEqual(made.failures, 3)

    def test_given_up(self) -> None:
        """A row that came to nothing says why."""
        printed = StringIO()
        lost = Outcome(outcome().row, problem="given up: nobody listens", broken=True)
        Console(file=printed, width=200).print(table_of(lost))
        self.assertIn("given up: nobody listens", printed.getvalue())

    def test_report_can_be_drawn(self) -> None:
        """What is written as JSON makes a picture with a bar for each peer."""
        report = json.loads(json.dumps(report_of([outcome(), outcome("nginx")], {"rounds": 3})))
        self.assertAlmostEqual(report["rows"][0]["contenders"]["nginx"]["ratio"]["median"], 1.5)
        self.assertEqual(report["rows"][1]["added_us"]["median"], 50.0)
        drawn = ElementTree.fromstring(ratios_of(report))  # noqa: S314 - our own text
        self.assertEqual([each.text for each in drawn.iter() if each.text == "1. nginx"], ["1. nginx"])

    def test_document(self) -> None:
        """A document gets the new table in the place of the old one, and keeps all else."""
        report = json.loads(json.dumps(report_of([outcome()], {"rounds": 3, "seconds": 8.0})))
        old = f"before\n{BEGIN}\nold\n{END}\nafter\n"
        new = with_table(old, report)
        self.assertTrue(new.startswith("before\n") and new.endswith("after\n"))
        self.assertIn("| nginx |", new)
        self.assertNotIn("\nold\n", new)
        self.assertEqual(with_table(new, report), new)

    def test_curves(self) -> None:
        """What was not measured is left out of the picture."""
        drawn = curves_of(
            [
                {"users": 2000, "rss_bytes": 2e8, "start_seconds": 1.5},
                {"users": 1000, "rss_bytes": 1e8, "start_seconds": 0.5},
            ]
        )
        ElementTree.fromstring(drawn)  # noqa: S314 - our own text
        self.assertIn("memory, MB", drawn)
        self.assertNotIn("lag", drawn)
