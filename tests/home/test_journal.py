"""Tests of L{rvpfarm.home.journal}."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from queue import Queue
from tempfile import TemporaryDirectory
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.home.journal import Journal, JournalUnusable
from rvpfarm.home.records import (
    Change,
    DropAcl,
    DropNode,
    DropProperty,
    DropSubscription,
    DropView,
    PutAcl,
    PutMeta,
    PutProperty,
    PutSubscription,
    PutView,
    Saved,
    SavedAcl,
    SavedProperty,
    SavedSubscription,
    SavedView,
)
from rvpfarm.protocol.calls import Busy

PETRA = "im.fabrik.example/instmsg/aliases/petra"
TOMASZ = "im.fabrik.example/instmsg/aliases/tomasz"

#: A home of its own: writes subscriptions and prints each id once it is acknowledged, until it is killed.
CHILD = """
import sys
from twisted.internet import reactor
from rvpfarm.home.journal import Journal
from tests.home.test_journal import subscription
from rvpfarm.home.records import PutSubscription

journal = Journal(sys.argv[1], reactor)
first = journal.load().meta  # opens it
journal.startService()
base = journal.incarnation * 1000000

def write(number):
    journal.write([PutSubscription(subscription(number))], lambda problem: acknowledged(number, problem))

def acknowledged(number, problem):
    if problem is None:
        sys.stdout.write("%d\\n" % number)
        sys.stdout.flush()
        write(number + 16)

for number in range(16):
    reactor.callWhenRunning(write, base + number)
reactor.run()
"""


def subscription(number: int, node: str = PETRA, until: float = 1000.5) -> SavedSubscription:
    """A subscription of tomasz to C{node}."""
    return SavedSubscription(
        id=number,
        node=node,
        kind="update/propchange",
        principal=TOMASZ,
        principal_url="http://im.fabrik.example/instmsg/aliases/Tomasz",
        call_back="http://im.fabrik.example/instmsg/aliases/Tomasz",
        until=until,
        peer="192.0.2.77",
        proof="digest",
    )


def view(number: int, node: str = PETRA, state: str = "online") -> SavedView:
    """A view of C{node}."""
    return SavedView(node, number, state, "offline", 99.25, 1200.0, "192.0.2.77", 3)


class ThreadedClock(Clock):
    """A clock whose C{callFromThread} calls are made when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: Queue[tuple[Callable[..., Any], tuple[object, ...]]] = Queue()

    def callFromThread(self, callable: Callable[..., Any], *args: object, **kwargs: object) -> None:
        """Keep the call for L{next}."""
        self._calls.put((callable, args))

    def next(self) -> None:
        """Make the next call, waiting for it if need be."""
        callable, args = self._calls.get(timeout=30)
        callable(*args)


class Gauge:
    """Metrics that keep what they are told."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def journal_commit(self, size: int, seconds: float) -> None:
        """Remember the size of the commit."""
        self.sizes.append(size)


class JournalTestCase(SynchronousTestCase):
    """A journal in a directory of its own, whose thread the test waits for."""

    def setUp(self) -> None:
        """Make the directory."""
        self.clock = ThreadedClock()
        self.clock.advance(86400)
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = Path(directory.name)
        self.file = self.path / "home.db"
        self.outcomes: list[Failure | None] = []

    def open(self, **options: Any) -> Journal:
        """A journal that has loaded but not started."""
        journal = Journal(self.file, self.clock, **options)
        journal.load()
        return journal

    def stop(self, journal: Journal) -> None:
        """Stop C{journal}, and let it finish."""
        stopped = journal.stopService()
        done: list[None] = []
        stopped.addCallback(done.append)
        while not done:
            self.clock.next()
        self.successResultOf(stopped)

    def keep(self, *changes: Change) -> None:
        """Write C{changes} in a journal that is then stopped."""
        journal = self.open()
        journal.startService()
        journal.write(changes, self.outcomes.append)
        self.stop(journal)

    def reopened(self) -> Saved:
        """What a new journal on the same file remembers."""
        journal = Journal(self.file, self.clock)
        try:
            return journal.load()
        finally:
            self.successResultOf(journal.stopService())


class RecordTests(JournalTestCase):
    """Every row comes back as it was written."""

    def test_empty(self) -> None:
        """A new journal remembers nothing."""
        self.assertEqual(self.reopened(), Saved())

    def test_every_kind_of_row(self) -> None:
        """Subscriptions, views, access lists, properties and notes come back equal."""
        acl = SavedAcl(PETRA, b"<?xml version='1.0'?><a:rvpacl/>\x00\xff")
        plain = SavedProperty(PETRA, "http://schemas.microsoft.com/rvp/", "mobile-state", "1")
        leased = SavedProperty(PETRA, "urn:x", "mood", "<b xmlns='urn:y'>\u00e9</b>", "calm", 77.5)
        self.keep(
            PutSubscription(subscription(2147483647)),
            PutSubscription(subscription(5, TOMASZ)),
            PutView(view(7)),
            PutAcl(acl),
            PutProperty(plain),
            PutProperty(leased),
            PutMeta("last-id", "5"),
        )
        saved = self.reopened()
        self.assertEqual(saved.subscriptions, (subscription(5, TOMASZ), subscription(2147483647)))
        self.assertEqual(saved.views, (view(7),))
        self.assertEqual(saved.acls, (acl,))
        self.assertEqual(saved.properties, (plain, leased))
        self.assertEqual(saved.meta, {"last-id": "5"})
        self.assertEqual(self.outcomes, [None])

    def test_put_replaces(self) -> None:
        """A row that is put again takes the place of the first."""
        later = subscription(5, until=5000)
        self.keep(PutSubscription(subscription(5)), PutView(view(1)), PutView(view(1, state="busy")))
        self.keep(PutSubscription(later))
        saved = self.reopened()
        self.assertEqual(saved.subscriptions, (later,))
        self.assertEqual(saved.views, (view(1, state="busy"),))

    def test_drop(self) -> None:
        """What was dropped is gone, and nothing else."""
        keep = SavedProperty(PETRA, "urn:x", "a", "1")
        self.keep(
            PutSubscription(subscription(5)),
            PutSubscription(subscription(6)),
            PutView(view(1)),
            PutView(view(2)),
            PutAcl(SavedAcl(PETRA, b"x")),
            PutProperty(keep),
            PutProperty(SavedProperty(PETRA, "urn:x", "b", "2")),
        )
        self.keep(DropSubscription(5), DropView(PETRA, 1), DropAcl(PETRA), DropProperty(PETRA, "urn:x", "b"))
        self.assertEqual(
            self.reopened(), Saved(subscriptions=(subscription(6),), views=(view(2),), properties=(keep,))
        )

    def test_drop_node(self) -> None:
        """A node that leaves takes everything of its own along, and nothing of others."""
        for node in (PETRA, TOMASZ):
            self.keep(
                PutSubscription(subscription(len(node), node)),
                PutView(view(1, node)),
                PutAcl(SavedAcl(node, b"x")),
                PutProperty(SavedProperty(node, "urn:x", "b", "2")),
            )
        self.keep(DropNode(PETRA))
        saved = self.reopened()
        rows = [*saved.subscriptions, *saved.views, *saved.acls, *saved.properties]
        self.assertEqual([row.node for row in rows], [TOMASZ] * 4)

    def test_in_order(self) -> None:
        """Changes of one write and of several are made in the order in which they came."""
        journal = self.open()
        journal.write([PutSubscription(subscription(5)), DropSubscription(5)], None)
        journal.write([DropSubscription(6)], None)
        journal.write([PutSubscription(subscription(6))], None)
        journal.write([PutSubscription(subscription(6, until=9))], self.outcomes.append)
        journal.startService()
        self.stop(journal)
        self.assertEqual(self.reopened().subscriptions, (subscription(6, until=9),))

    def test_incarnation(self) -> None:
        """Every start has a greater number, which is not taken for a note of the home."""
        numbers = []
        for _ in range(3):
            journal = self.open()
            numbers.append(journal.incarnation)
            journal.startService()
            self.stop(journal)
        self.assertEqual(numbers, [86400, 86401, 86402])
        self.assertEqual(self.reopened().meta, {})

    def test_private_file(self) -> None:
        """Nobody but the daemon's own user may read the file."""
        self.keep(PutMeta("a", "b"))
        self.assertEqual(stat.S_IMODE(self.file.stat().st_mode) & 0o077, 0)


class CommitTests(JournalTestCase):
    """Writes share commits, and hear of them in the reactor's thread."""

    def test_group_commit(self) -> None:
        """What was queued while nothing was committed shares one commit and one call into the reactor."""
        gauge = Gauge()
        journal = self.open(metrics=gauge)
        for number in range(1, 101):
            journal.write([PutSubscription(subscription(number))], self.outcomes.append)
        self.assertEqual(journal.depth, 100)
        journal.startService()
        self.clock.next()
        self.assertEqual(self.outcomes, [None] * 100)
        self.assertEqual(gauge.sizes, [100])
        self.assertEqual(journal.depth, 0)
        self.stop(journal)

    def test_then_in_order_from_the_reactor(self) -> None:
        """Acknowledgements come in the order of the writes, and in the reactor's thread alone."""
        journal = self.open()
        heard: list[tuple[int, threading.Thread]] = []
        for number in range(5):
            journal.write(
                [PutMeta(str(number), "")],
                lambda _, number=number: heard.append((number, threading.current_thread())),
            )
        journal.startService()
        self.stop(journal)
        self.assertEqual(heard, [(number, threading.current_thread()) for number in range(5)])

    def test_committed_before_then(self) -> None:
        """When C{then} is called another connection would already find the row on disk."""
        journal = self.open()
        journal.startService()
        journal.write([PutMeta("a", "b")], self.outcomes.append)
        self.clock.next()
        self.assertEqual(self.outcomes, [None])
        copy = self.path / "copy.db"
        for suffix in ("", "-wal"):
            Path(f"{copy}{suffix}").write_bytes(Path(f"{self.file}{suffix}").read_bytes())
        database = sqlite3.connect(copy)
        self.addCleanup(database.close)
        rows = database.execute("SELECT value FROM meta WHERE key = 'a'").fetchall()
        self.assertEqual(rows, [("b",)])
        self.stop(journal)

    def test_nobody_waits(self) -> None:
        """A write without C{then} is written all the same, with the next that somebody waits for."""
        gauge = Gauge()
        journal = self.open(metrics=gauge, lazy_seconds=3600.0)
        journal.startService()
        journal.write([PutMeta("a", "1")], None)
        journal.write([PutMeta("b", "2")], self.outcomes.append)
        self.clock.next()
        self.assertEqual(gauge.sizes, [2])
        self.stop(journal)
        self.assertEqual(self.reopened().meta, {"a": "1", "b": "2"})

    def test_nobody_ever_waits(self) -> None:
        """Writes that nobody waits for reach the disk after a short while by themselves."""
        gauge = Gauge()
        journal = self.open(metrics=gauge, lazy_seconds=0.01)
        journal.startService()
        journal.write([PutMeta("a", "1")], None)
        self.clock.next()
        self.assertEqual(gauge.sizes, [1])
        self.stop(journal)

    def test_write_of_nothing(self) -> None:
        """A write of no changes is told once everything before it is on disk."""
        journal = self.open()
        heard: list[str] = []
        journal.write([PutMeta("a", "1")], lambda _: heard.append("a"))
        journal.write([], lambda _: heard.append("nothing"))
        journal.startService()
        self.stop(journal)
        self.assertEqual(heard, ["a", "nothing"])
        self.assertEqual(journal.depth, 0)

    def test_bounded(self) -> None:
        """At the limit the newcomer is refused, and is welcome when there is room again."""
        journal = self.open(queue_limit=3)
        for number in range(3):
            journal.write([PutMeta(str(number), "")], None)
        self.assertRaises(Busy, journal.write, [PutMeta("x", "")], None)
        journal.startService()
        self.clock.next()
        journal.write([PutMeta("y", "")], self.outcomes.append)
        self.stop(journal)
        self.assertEqual(self.outcomes, [None])
        self.assertEqual(sorted(self.reopened().meta), ["0", "1", "2", "y"])

    def test_stop_flushes(self) -> None:
        """Stopping writes what is queued, and then takes no more."""
        journal = self.open(lazy_seconds=3600.0)
        journal.startService()
        for number in range(50):
            journal.write([PutMeta(str(number), "")], None)
        self.stop(journal)
        self.assertRaises(Busy, journal.write, [PutMeta("x", "")], None)
        self.assertEqual(len(self.reopened().meta), 50)

    def test_start_again(self) -> None:
        """A stopped journal can be started again."""
        journal = self.open()
        journal.startService()
        self.stop(journal)
        journal.startService()
        self.assertEqual(journal.incarnation, 86401)
        journal.write([PutMeta("a", "1")], self.outcomes.append)
        self.stop(journal)
        self.assertEqual(self.outcomes, [None])

    def test_caller_that_fails(self) -> None:
        """A C{then} that raises is logged, and the others are told."""
        journal = self.open()

        def fail(problem: Failure | None) -> None:
            raise ValueError("not my day")

        journal.write([PutMeta("a", "1")], fail)
        journal.write([PutMeta("b", "2")], self.outcomes.append)
        journal.startService()
        self.stop(journal)
        self.assertEqual(self.outcomes, [None])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_metrics_that_fail(self) -> None:
        """A metrics fault never stops the journal."""

        class Broken:
            """Metrics that cannot count."""

            def journal_commit(self, size: int, seconds: float) -> None:
                """Fail."""
                raise ValueError("cannot count")

        journal = self.open(metrics=Broken())
        journal.startService()
        journal.write([PutMeta("a", "1")], self.outcomes.append)
        self.stop(journal)
        self.assertEqual(self.outcomes, [None])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)


class FullDisk(Journal):
    """A journal whose disk can be filled up."""

    full = False

    def _transact(self, batch: list[Any]) -> None:
        """Write, if the disk has room."""
        if self.full:
            raise sqlite3.OperationalError("database or disk is full")
        super()._transact(batch)


class TroubleTests(JournalTestCase):
    """A failing disk is told to everyone concerned, and a broken file does not stop the home."""

    def test_full_disk(self) -> None:
        """Each write fails with what went wrong; the log has it once; and it ends when there is room."""
        journal = FullDisk(self.file, self.clock)
        journal.startService()
        journal.full = True
        for number in range(3):
            journal.write([PutMeta(str(number), "")], self.outcomes.append)
            self.clock.next()
        self.assertTrue(journal.failing)
        for outcome in self.outcomes:
            assert outcome is not None
            self.assertEqual(str(outcome.value), "database or disk is full")
        self.assertEqual(len(self.flushLoggedErrors(sqlite3.OperationalError)), 1)
        journal.full = False
        journal.write([PutMeta("x", "")], self.outcomes.append)
        self.clock.next()
        self.assertFalse(journal.failing)
        self.assertIsNone(self.outcomes[-1])
        journal.full = True
        journal.write([PutMeta("y", "")], self.outcomes.append)
        self.clock.next()
        self.assertEqual(len(self.flushLoggedErrors(sqlite3.OperationalError)), 1)
        self.stop(journal)
        self.assertEqual(self.reopened().meta, {"x": ""})

    def test_real_full_disk(self) -> None:
        """When SQLite itself finds no room, the whole commit is undone, and later ones succeed."""
        journal = self.open()
        database = journal._open()
        pages = database.execute("PRAGMA page_count").fetchone()[0]
        database.execute(f"PRAGMA max_page_count = {pages}")
        journal.write([PutMeta("small", "")], self.outcomes.append)
        journal.write([PutAcl(SavedAcl(PETRA, b"x" * 100000))], self.outcomes.append)
        journal.startService()
        self.clock.next()
        self.assertEqual([outcome is None for outcome in self.outcomes], [False, False])
        self.assertEqual(len(self.flushLoggedErrors(sqlite3.OperationalError)), 1)
        journal.write([PutMeta("later", "")], self.outcomes.append)
        self.stop(journal)
        self.assertIsNone(self.outcomes[-1])
        self.assertEqual(self.reopened(), Saved(meta={"later": ""}))

    def test_one_bad_write(self) -> None:
        """A write that cannot be stored fails alone; its neighbours in the commit are kept."""
        journal = self.open()
        journal.write([PutMeta("a", "1")], self.outcomes.append)
        journal.write([PutMeta("bad", "1"), DropSubscription(2**70)], self.outcomes.append)
        journal.write([PutMeta("b", "2")], self.outcomes.append)
        journal.startService()
        self.stop(journal)
        self.assertEqual([outcome is None for outcome in self.outcomes], [True, False, True])
        self.assertEqual(len(self.flushLoggedErrors(OverflowError)), 1)
        self.assertFalse(journal.failing)
        self.assertEqual(self.reopened().meta, {"a": "1", "b": "2"})

    def assert_moved_aside(self) -> bytes:
        """The file is kept for the administrator, and a fresh journal begun.

        @return: what was kept.
        """
        journal = self.open()
        journal.startService()
        journal.write([PutMeta("a", "1")], self.outcomes.append)
        self.stop(journal)
        self.assertEqual(self.outcomes[-1], None)
        aside = self.path / "home.db.damaged-19700102T000000Z"
        return aside.read_bytes()

    def test_not_a_database(self) -> None:
        """A file that is no database is moved aside."""
        content = b"this was never a database" * 100
        self.file.write_bytes(content)
        self.assertTrue(self.assert_moved_aside() == content)

    def test_damaged_page(self) -> None:
        """A database with a page of rubbish is moved aside."""
        self.keep(*(PutSubscription(subscription(number)) for number in range(1, 500)))
        content = bytearray(self.file.read_bytes())
        content[8192:12288] = b"\xa5" * 4096
        self.file.write_bytes(content)
        self.assertTrue(self.assert_moved_aside() == content)

    def test_cut_short(self) -> None:
        """A database that lost its end is moved aside."""
        self.keep(*(PutSubscription(subscription(number)) for number in range(1, 500)))
        content = self.file.read_bytes()[:16384]
        self.file.write_bytes(content)
        self.assertTrue(self.assert_moved_aside() == content)

    def test_other_layout(self) -> None:
        """A journal of another version's layout is moved aside."""
        self.keep(PutMeta("a", "1"))
        database = sqlite3.connect(self.file)
        database.execute("PRAGMA user_version = 99")
        database.close()
        content = self.file.read_bytes()
        self.assertTrue(self.assert_moved_aside() == content)

    def test_unreadable_row(self) -> None:
        """A row that cannot be understood costs the journal, not the start."""
        self.keep(PutMeta("a", "1"))
        database = sqlite3.connect(self.file)
        database.execute("INSERT INTO properties VALUES (?, x'00ff', 'b', 'tell tale', NULL, -1)", (PETRA,))
        database.commit()
        database.close()
        self.assertTrue(b"tell tale" in self.assert_moved_aside())

    def test_other_program(self) -> None:
        """The database of some other program is left alone, with a sentence."""
        database = sqlite3.connect(self.file)
        database.execute("CREATE TABLE meta (key, value)")
        database.close()
        content = self.file.read_bytes()
        problem = self.assertRaises(JournalUnusable, Journal(self.file, self.clock).load)
        self.assertIn("not a home's journal", str(problem))
        self.assertEqual(self.file.read_bytes(), content)
        self.assertEqual([path.name for path in self.path.iterdir()], ["home.db"])

    def test_incarnation_after_loss(self) -> None:
        """A home whose state was lost does not take up a number that it has used."""
        first = self.open()
        self.successResultOf(first.stopService())
        self.file.unlink()
        self.clock.advance(1)
        second = self.open()
        self.assertGreater(second.incarnation, first.incarnation)
        self.successResultOf(second.stopService())

    def test_second_home(self) -> None:
        """Two homes cannot run on the same state."""
        journal = self.open()
        problem = self.assertRaises(JournalUnusable, Journal(self.file, self.clock).load)
        self.assertIn("another home", str(problem))
        self.successResultOf(journal.stopService())

    def test_no_directory(self) -> None:
        """A state directory that is not there is one sentence."""
        journal = Journal(self.path / "missing" / "home.db", self.clock)
        problem = self.assertRaises(JournalUnusable, journal.load)
        self.assertIn("missing", str(problem))


class KillTests(SynchronousTestCase):
    """What was acknowledged survives the sudden end of the process."""

    def test_kill_while_writing(self) -> None:
        """Killed in the middle of its work, three times, a home has lost nothing that it acknowledged."""
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        file = Path(directory.name) / "home.db"
        acknowledged: set[int] = set()
        for _ in range(3):
            child = subprocess.Popen(
                [sys.executable, "-c", CHILD, str(file)],
                stdout=subprocess.PIPE,
                cwd=Path(__file__).parents[2],
            )
            assert child.stdout is not None
            try:
                for _ in range(60):
                    acknowledged.add(int(child.stdout.readline()))
            finally:
                child.kill()
                rest, _ = child.communicate()
            acknowledged.update(int(line) for line in rest.splitlines(keepends=True) if line.endswith(b"\n"))
        journal = Journal(file, ThreadedClock())
        kept = {row.id for row in journal.load().subscriptions}
        stopped: Deferred[None] = journal.stopService()
        self.successResultOf(stopped)
        self.assertEqual(acknowledged - kept, set())
        self.assertGreaterEqual(len(acknowledged), 180)
