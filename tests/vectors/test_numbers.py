"""No vector is forgotten."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

#: How many there are in section 12 of the protocol notes.
VECTORS = 62


class NumbersTests(SynchronousTestCase):
    """Each vector has its test."""

    def test_every_vector(self) -> None:
        """There is one C{test_vector_N} for each number, and none is told to skip."""
        text = "".join(path.read_text("utf-8") for path in sorted(Path(__file__).parent.glob("test_*.py")))
        numbers = [int(number) for number in re.findall(r"def test_vector_(\d+)\(", text)]
        self.assertEqual(sorted(numbers), list(range(1, VECTORS + 1)))
        self.assertNotIn("Skip" + "Test", text)
        self.assertNotIn("mark.skip" + "if", text)
