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

from rvpfarm.home import journal as journal_module
from rvpfarm.home import tables
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
    RenewSubscription,
    Saved,
    SavedAcl,
    SavedProperty,
    SavedSubscription,
    SavedView,
    Subscriber,
)
from rvpfarm.home.tables import REMEMBERED
from rvpfarm.protocol.calls import Busy
from rvpfarm.protocol.headers import Kind

PETRA = "im.fabrik.example/instmsg/aliases/petra"
TOMASZ = "im.fabrik.example/instmsg/aliases/tomasz"

#: The tables of version 1.
FIRST_LAYOUT = """
CREATE TABLE subscriptions (
    id INTEGER PRIMARY KEY, node TEXT NOT NULL, kind TEXT NOT NULL, principal TEXT NOT NULL,
    principal_url TEXT NOT NULL, call_back TEXT NOT NULL, until REAL NOT NULL, peer TEXT NOT NULL,
    proof TEXT NOT NULL);
CREATE TABLE views (
    node TEXT NOT NULL, id INTEGER NOT NULL, state TEXT NOT NULL, fallback TEXT NOT NULL,
    until REAL NOT NULL, seconds REAL NOT NULL, address TEXT NOT NULL, position INTEGER NOT NULL,
    PRIMARY KEY (node, id)) WITHOUT ROWID;
CREATE TABLE acls (node TEXT PRIMARY KEY, xml BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE properties (
    node TEXT NOT NULL, namespace TEXT NOT NULL, local TEXT NOT NULL, value TEXT NOT NULL,
    "default" TEXT, until REAL NOT NULL,
    PRIMARY KEY (node, namespace, local)) WITHOUT ROWID;
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
PRAGMA application_id = 1381388394;
PRAGMA user_version = 1;
INSERT INTO meta VALUES ('#incarnation', '99999999');
INSERT INTO meta VALUES ('subscription-ids', '1001');
"""

#: A home of its own: writes subscriptions and prints each id once it is acknowledged, until it is killed.
CHILD = """
import sys
from twisted.internet import reactor
from rvpfarm.home.journal import Journal
from tests.home.test_journal import subscription
from rvpfarm.home.records import PutSubscription

journal = Journal(sys.argv[1], reactor)
journal.load(lambda piece: None, lambda: None)  # opens it
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


def subscriber(peer: str = "192.0.2.77") -> Subscriber:
    """Tomasz at that address."""
    url = "http://im.fabrik.example/instmsg/aliases/Tomasz"
    return Subscriber(TOMASZ, url, url, peer, "digest")


AT_HIS_DESK = subscriber()


def subscription(
    number: int, node: str = PETRA, until: float = 1000.5, subscriber: Subscriber = AT_HIS_DESK
) -> SavedSubscription:
    """A subscription of tomasz to C{node}."""
    return SavedSubscription(
        id=number,
        node=node,
        kind=Kind.PROPERTY,
        subscriber=subscriber,
        until=until,
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


class Heir:
    """Takes up what a journal has kept.

    @ivar forgotten: how often it was told to begin anew.
    """

    def __init__(self) -> None:
        self.pieces: list[Saved] = []
        self.forgotten = 0

    def forget(self) -> None:
        """Begin anew."""
        self.pieces.clear()
        self.forgotten += 1

    @property
    def saved(self) -> Saved:
        """All pieces together."""
        return Saved(
            tuple(row for piece in self.pieces for row in piece.subscriptions),
            tuple(row for piece in self.pieces for row in piece.views),
            tuple(row for piece in self.pieces for row in piece.acls),
            tuple(row for piece in self.pieces for row in piece.properties),
            {key: value for piece in self.pieces for key, value in piece.meta.items()},
        )


def load(journal: Journal) -> Saved:
    """What C{journal} has kept."""
    heir = Heir()
    journal.load(heir.pieces.append, heir.forget)
    return heir.saved


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
        load(journal)
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
            return load(journal)
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

    def test_renew(self) -> None:
        """A renewal moves the end of a subscription, and brings none back that has ended."""
        self.keep(PutSubscription(subscription(5)), PutSubscription(subscription(6)))
        self.keep(RenewSubscription(5, 7000.25), RenewSubscription(7, 7000.25))
        self.keep(DropSubscription(6), RenewSubscription(6, 7000.25))
        self.assertEqual(self.reopened().subscriptions, (subscription(5, until=7000.25),))

    def test_drop_node(self) -> None:
        """A node that leaves takes everything of its own along but its subscriptions, and nothing of others."""
        for node in (PETRA, TOMASZ):
            self.keep(
                PutSubscription(subscription(len(node), node)),
                PutView(view(1, node)),
                PutAcl(SavedAcl(node, b"x")),
                PutProperty(SavedProperty(node, "urn:x", "b", "2")),
            )
        self.keep(DropNode(PETRA), DropSubscription(len(PETRA)))
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


class SubscriberTests(JournalTestCase):
    """What the subscriptions of one client have in common is kept once, and no longer than they are."""

    def kept(self) -> list[str]:
        """The addresses of the subscribers on disk."""
        database = sqlite3.connect(self.file)
        try:
            return [peer for (peer,) in database.execute("SELECT peer FROM subscribers ORDER BY id")]
        finally:
            database.close()

    def test_shared(self) -> None:
        """A contact list has one subscriber, also when it is read again."""
        self.keep(
            *(PutSubscription(subscription(number, subscriber=subscriber())) for number in range(1, 31))
        )
        self.assertEqual(self.kept(), ["192.0.2.77"])
        self.assertEqual(len({id(row.subscriber) for row in self.reopened().subscriptions}), 1)

    def test_leaves_with_the_last(self) -> None:
        """Who has no subscription left is not kept."""
        elsewhere = subscriber("192.0.2.78")
        self.keep(
            PutSubscription(subscription(1)),
            PutSubscription(subscription(2)),
            PutSubscription(subscription(3, subscriber=elsewhere)),
        )
        self.keep(DropSubscription(1), DropSubscription(3))
        self.assertEqual(self.kept(), ["192.0.2.77"])
        self.keep(DropSubscription(2))
        self.assertEqual(self.kept(), [])

    def test_comes_back(self) -> None:
        """Who left and subscribes again in the same run, or the same commit, is there again."""
        journal = self.open()
        journal.write([PutSubscription(subscription(1)), DropSubscription(1)], None)
        journal.startService()
        journal.write([PutSubscription(subscription(2))], self.outcomes.append)
        self.clock.next()
        journal.write([DropSubscription(2), PutSubscription(subscription(3))], self.outcomes.append)
        self.stop(journal)
        self.assertEqual(self.reopened().subscriptions, (subscription(3),))

    def test_comes_back_after_a_failed_commit(self) -> None:
        """A subscriber whose first commit failed is written with the next."""
        journal = self.open()
        journal.write([PutSubscription(subscription(1)), DropSubscription(2**70)], self.outcomes.append)
        journal.write([PutSubscription(subscription(2))], self.outcomes.append)
        journal.startService()
        self.stop(journal)
        self.flushLoggedErrors(OverflowError)
        self.assertEqual(self.reopened().subscriptions, (subscription(2),))

    def test_given_to_another(self) -> None:
        """A subscription that is put again may be another's; the first one is not kept for it."""
        here, there = subscriber("192.0.2.1"), subscriber("192.0.2.2")
        self.keep(
            PutSubscription(subscription(5, subscriber=here)),
            PutSubscription(subscription(5, subscriber=there)),
            PutSubscription(subscription(6, subscriber=here)),
        )
        rows = self.reopened().subscriptions
        self.assertEqual([row.subscriber.peer for row in rows], ["192.0.2.2", "192.0.2.1"])
        self.keep(PutSubscription(subscription(6, subscriber=there)))
        self.reopened()
        self.assertEqual(set(self.kept()), {"192.0.2.2"})

    def test_many(self) -> None:
        """Subscribers beyond those remembered are read back as they were, in pieces."""
        rows = tuple(
            subscription(number, subscriber=subscriber(f"10.0.{number >> 8}.{number & 255}"))
            for number in range(1, 2 * REMEMBERED + 10)
        )
        self.keep(*map(PutSubscription, rows))
        self.keep(*(RenewSubscription(row.id, 5000.0) for row in rows[:10]))
        saved = self.reopened().subscriptions
        self.assertEqual(saved[:10], tuple(row._replace(until=5000.0) for row in rows[:10]))
        self.assertTrue(saved[10:] == rows[10:])


class ConversionTests(JournalTestCase):
    """A journal of version 1 is taken over when it is opened, and nothing in it is lost."""

    def setUp(self) -> None:
        """A journal that an earlier version left."""
        super().setUp()
        self.rows = [
            subscription(7),
            subscription(8, TOMASZ, until=2000.0),
            SavedSubscription(9, PETRA, Kind.LOGIN, subscriber("192.0.2.78"), 3000.25),
            subscription(2147483647),
        ]
        database = sqlite3.connect(self.file)
        database.executescript(FIRST_LAYOUT)
        for row in self.rows:
            who = row.subscriber
            values = (row.id, row.node, row.kind.value, who.principal, who.url)
            values += (who.call_back, row.until, who.peer, who.proof)
            database.execute("INSERT INTO subscriptions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
        database.execute(
            "INSERT INTO views VALUES (?, 1, 'online', 'offline', 99.25, 1200, ?, 3)", (PETRA, "")
        )
        database.commit()
        database.close()

    def test_nothing_is_lost(self) -> None:
        """Every row is read as it was, at once and after another restart, and the incarnation goes on."""
        for incarnation in (100000000, 100000001):
            journal = Journal(self.file, self.clock)
            saved = load(journal)
            self.assertEqual(saved.subscriptions, tuple(self.rows))
            self.assertEqual((len(saved.views), saved.meta), (1, {"subscription-ids": "1001"}))
            self.assertEqual(journal.incarnation, incarnation)
            self.successResultOf(journal.stopService())
        self.assertEqual([path.name for path in self.path.iterdir()], ["home.db"])

    def test_goes_on(self) -> None:
        """What was taken over is renewed and dropped as anything else."""
        self.keep(RenewSubscription(7, 9000.0), DropSubscription(8), DropSubscription(9))
        self.keep(PutSubscription(subscription(10)))
        kept = self.reopened().subscriptions
        self.assertEqual(kept, (subscription(7, until=9000.0), subscription(10), self.rows[3]))

    def test_stopped_half_way(self) -> None:
        """An upgrade that does not come to its end leaves the journal as it was, for the next try."""
        (*first, last) = tables.CONVERSION
        self.patch(
            journal_module, "CONVERSION", (*first, "INSERT INTO meta VALUES ('#incarnation', '1')", last)
        )
        self.assertRaises(JournalUnusable, load, Journal(self.file, self.clock))
        self.patch(journal_module, "CONVERSION", (*first, last))
        self.assertEqual(self.reopened().subscriptions, tuple(self.rows))


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

    def test_damage_in_the_middle(self) -> None:
        """What was read before the damage was met is forgotten again, and a fresh journal begun."""
        self.keep(PutMeta("a", "1"), *(PutSubscription(subscription(number)) for number in range(1, 9000)))
        database = sqlite3.connect(self.file)
        database.execute("UPDATE subscriptions SET subscriber = 999 WHERE id = 8000")
        database.commit()
        database.close()
        journal, heir = Journal(self.file, self.clock), Heir()
        journal.load(heir.pieces.append, heir.forget)
        self.successResultOf(journal.stopService())
        self.assertEqual((heir.forgotten, heir.saved), (1, Saved()))
        self.assertEqual(len(list(self.path.glob("home.db.damaged-*"))), 1)

    def test_heir_that_fails(self) -> None:
        """A fault of whoever takes it up is not taken for damage."""
        self.keep(PutMeta("a", "1"))
        journal = Journal(self.file, self.clock)

        def take(piece: Saved) -> None:
            raise ValueError("not my day")

        self.assertRaises(ValueError, journal.load, take, lambda: None)
        self.successResultOf(journal.stopService())
        self.assertEqual(self.reopened().meta, {"a": "1"})

    def test_other_program(self) -> None:
        """The database of some other program is left alone, with a sentence."""
        database = sqlite3.connect(self.file)
        database.execute("CREATE TABLE meta (key, value)")
        database.close()
        content = self.file.read_bytes()
        problem = self.assertRaises(JournalUnusable, load, Journal(self.file, self.clock))
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
        problem = self.assertRaises(JournalUnusable, load, Journal(self.file, self.clock))
        self.assertIn("another home", str(problem))
        self.successResultOf(journal.stopService())

    def test_no_directory(self) -> None:
        """A state directory that is not there is one sentence."""
        journal = Journal(self.path / "missing" / "home.db", self.clock)
        problem = self.assertRaises(JournalUnusable, load, journal)
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
        kept = {row.id for row in load(journal).subscriptions}
        stopped: Deferred[None] = journal.stopService()
        self.successResultOf(stopped)
        self.assertEqual(acknowledged - kept, set())
        self.assertGreaterEqual(len(acknowledged), 180)
