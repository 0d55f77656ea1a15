"""The whole comparison, so small that its figures mean nothing; with whatever peers are installed."""

from __future__ import annotations

import json
import sys
from unittest import TestCase

import pytest

from tests.support.processes import run, scratch


@pytest.mark.farm
@pytest.mark.slow
class BenchTests(TestCase):
    """C{make bench} runs."""

    def test_quick(self) -> None:
        """Every row is there, nothing fails but what is not installed, and the report says what was seen."""
        with scratch() as folder:
            report = folder / "report.json"
            ran = run(sys.executable, "-m", "tests.bench", "--quick", "--json", report, seconds=600)
            self.assertEqual(ran.status, 0, ran.out + ran.err)
            told = json.loads(report.read_text())
            self.assertEqual([row["number"] for row in told["rows"]], [1, 2, 3, 4, 5, 6, 7])
            for row in told["rows"]:
                seen = [sample for each in row["contenders"].values() for sample in each["samples"]]
                self.assertTrue(seen or row["absent"] or "not installed" in row["problem"], row)
                self.assertEqual(sum(sample["failures"] for sample in seen), 0, row)
