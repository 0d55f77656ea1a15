"""C{rvpfarm home reset}: never under a home that runs, and nothing is deleted."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

from tests.admin.test_command import CommandCase

#: Holds a state as a home does, until its standard input ends.
HOLDER = """
import sys
from twisted.internet import reactor
from rvpfarm.home.journal import Journal
Journal(sys.argv[1], reactor).load(lambda saved: None, lambda: None)
print("held", flush=True)
sys.stdin.read()
"""


class ResetTests(CommandCase):
    """C{rvpfarm home reset}"""

    def setUp(self) -> None:
        """A home with a state."""
        super().setUp()
        self.make_farm()
        self.state = self.folder / "state"
        self.state.mkdir()
        self.database = self.state / "home.sqlite"

    def reset(self, *options: str, status: int = 0) -> str:
        """Reset hs1."""
        words = ("home", "reset", "hs1", "--state-dir", str(self.state), *options)
        return self.run_it(*words, status=status).output

    def fill(self, path: Path) -> None:
        """Some state."""
        with sqlite3.connect(path) as database:
            database.execute("CREATE TABLE x (y)")
        database.close()

    def test_moved_aside(self) -> None:
        """The state and what belongs to it get another name; nothing is deleted, and it is on the trail."""
        self.fill(self.database)
        Path(f"{self.database}-wal").write_bytes(b"w")
        self.assertIn("Would move", self.reset("--dry-run"))
        self.assertTrue(self.database.exists())
        self.reset("--yes")
        left = sorted(path.name for path in self.state.iterdir())
        self.assertEqual(len(left), 2)
        for name, ending in zip(left, ("Z", "Z-wal"), strict=True):
            self.assertRegex(name, rf"\Ahome\.sqlite\.reset-\d{{8}}T\d{{6}}{ending}\Z")
        self.assertIn("home reset", self.run_it("audit", "list").stdout)

    def test_damaged(self) -> None:
        """What is no database any more can be moved aside too."""
        self.database.write_bytes(b"nonsense" * 100)
        self.reset("--yes")
        self.assertFalse(self.database.exists())

    def test_running(self) -> None:
        """A home that runs keeps its state, with whatever it holds open."""
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(self.database)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert holder.stdout is not None
        try:
            self.assertEqual(holder.stdout.readline(), "held\n")
            self.assertIn("home hs1 runs on", self.reset("--yes", status=1))
            self.assertIn("home hs1 runs on", self.reset("--dry-run", status=1))
        finally:
            holder.communicate(timeout=60)
        self.reset("--yes")

    def test_several_homes(self) -> None:
        """Where several homes run in one process, each has a folder of its own."""
        (self.state / "hs1").mkdir()
        self.fill(self.state / "hs1" / "home.sqlite")
        self.reset("--yes")
        self.assertFalse((self.state / "hs1" / "home.sqlite").exists())

    def test_unclear(self) -> None:
        """Where there is no state, or two, nothing is done, and the sentence says what to give."""
        self.assertIn("there is no home.sqlite of hs1", self.reset("--yes", status=1))
        (self.state / "hs1").mkdir()
        for path in (self.state / "hs1" / "home.sqlite", self.database):
            self.fill(path)
        self.assertIn("for the latter", self.reset("--yes", status=1))
        self.run_it("home", "reset", "hs9", "--state-dir", str(self.state), status=1)
