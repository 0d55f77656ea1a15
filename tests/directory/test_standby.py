"""A snapshot on disk: whole or not there at all, new when there is news, and never in anybody's way."""

from __future__ import annotations

import errno
import math
import os
import resource
import stat
import threading
from collections.abc import Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase, TestCase

from rvpfarm.directory.cache import CachedDirectory
from rvpfarm.directory.model import DirectoryUnavailable
from rvpfarm.directory.reading import Changes
from rvpfarm.directory.snapshot import BadSnapshot, Head, Kept, Snapshot
from rvpfarm.directory.standby import LEAST_SECONDS, LOOK_SECONDS, SnapshotFile, Standby
from rvpfarm.observe.metrics import Metrics
from tests.directory.test_cache import PETRA, TOMASZ, ScriptedSource
from tests.directory.test_snapshot import FARM, HEAD, KEY
from tests.support.directory import make_account
from tests.support.store import make_folder
from tests.support.threads import ManualThreads, ThreadClock

#: When L{HEAD} was known to be current, and what is kept with it.
THEN = HEAD.confirmed
KEPT = [Kept(PETRA, True), Kept(TOMASZ, False)]


def write(file: SnapshotFile, head: Head = HEAD) -> int:
    """Write a whole snapshot; its size."""
    draft = file.begin(head)
    draft.add(KEPT)
    return draft.finish()


class SnapshotFileTests(SynchronousTestCase):
    """A file is replaced as a whole, and read if it may be used."""

    def setUp(self) -> None:
        """A folder with nothing in it."""
        self.folder = make_folder(self)
        self.path = self.folder / "directory.snapshot"
        self.file = SnapshotFile(self.path, KEY)

    def names(self) -> list[str]:
        """What is in the folder."""
        return sorted(path.name for path in self.folder.iterdir())

    def refused(self, now: float = THEN + 5, *, key: bytes = KEY, verifiers: bool = True) -> str:
        """Why it may not be used."""
        file = SnapshotFile(self.path, key)
        return str(self.assertRaises(BadSnapshot, file.read, now, verifiers=verifiers))

    def test_round_trip(self) -> None:
        """What was written is read, with its age and size, and only the owner may do that."""
        octets = write(self.file)
        found = self.file.read(THEN + 5, verifiers=True)
        assert found is not None
        self.assertEqual((found.snapshot, found.age_seconds, found.octets), (Snapshot(HEAD, KEPT), 5, octets))
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)
        self.assertEqual(self.path.stat().st_size, octets)
        self.assertEqual(self.names(), ["directory.snapshot"])

    def test_none(self) -> None:
        """No file is no failure."""
        self.assertIs(self.file.read(THEN, verifiers=True), None)

    def test_replaced_at_the_end(self) -> None:
        """Until the new one is whole, the old one is there; a draft that is given up leaves nothing."""
        write(self.file)
        before = self.path.read_bytes()
        for end in ("discard", "finish"):
            draft = self.file.begin(HEAD)
            draft.add(KEPT)
            self.assertEqual(self.path.read_bytes(), before)
            getattr(draft, end)()
            self.assertEqual(self.names(), ["directory.snapshot"])
        self.assertNotEqual(self.path.read_bytes(), before)

    def test_two_at_once(self) -> None:
        """Two processes that share a file do not disturb each other: who comes last has written it."""
        one, two = self.file.begin(HEAD), SnapshotFile(self.path, KEY).begin(HEAD)
        one.add(KEPT)
        two.add(KEPT[:1])
        two.finish()
        one.finish()
        found = self.file.read(THEN, verifiers=True)
        assert found is not None
        self.assertEqual(list(found.snapshot.accounts), KEPT)

    def test_full_disk(self) -> None:
        """When there is no more room, the old one stays, and nothing else."""
        write(self.file)
        before = self.path.read_bytes()
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_FSIZE, (soft, hard))
        draft = self.file.begin(HEAD)
        draft.add([Kept(make_account(f"d/{os.urandom(40).hex()}", "h1"), True) for _ in range(200)])
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        self.assertRaises(OSError, draft.finish)
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        self.assertEqual((self.path.read_bytes(), self.names()), (before, ["directory.snapshot"]))

    def test_no_folder(self) -> None:
        """A place that does not exist is a plain OSError."""
        self.assertRaises(OSError, SnapshotFile(self.folder / "none" / "x", KEY).begin, HEAD)

    def test_left_behind(self) -> None:
        """What a killed process left unfinished is removed when it is old; what another one writes is not."""
        old, new, other = (
            self.folder / f".directory.snapshot.{name}" for name in ("a.unfinished", "b.unfinished", "c")
        )
        for path in (old, new, other):
            path.write_bytes(b"x")
        for path in (old, other):
            os.utime(path, (1000, 1000))
        write(self.file)
        self.assertEqual(self.names(), [new.name, other.name, self.path.name])

    def test_too_old(self) -> None:
        """The policy of the farm as it was then says how old it may be."""
        write(self.file)
        self.assertIsNot(self.file.read(THEN + 3600, verifiers=True), None)
        self.assertEqual(
            self.refused(THEN + 3601 + 3600),
            f"the snapshot {self.path} is 2 hours old, and the policy directory-staleness allows 60 minutes",
        )

    def test_future(self) -> None:
        """It may be a minute ahead, since clocks are never quite alike; more is not believed."""
        write(self.file)
        found = self.file.read(THEN - 60, verifiers=True)
        assert found is not None
        self.assertEqual(found.age_seconds, 0)
        self.assertIn("is from 2 minutes in the future", self.refused(THEN - 120))

    def test_of_a_router(self) -> None:
        """What does not say how passwords are checked would make every password a wrong one."""
        write(self.file, Head(FARM, 1, "", THEN, False))
        self.assertIn("made by a router", self.refused())
        self.assertIsNot(self.file.read(THEN, verifiers=False), None)

    def test_unusable(self) -> None:
        """One sentence each, which names the file."""
        write(self.file)
        self.assertIn("of another farm key", self.refused(key=b"K" * 32))
        self.path.write_bytes(self.path.read_bytes()[:-1])
        self.assertIn("is cut short", self.refused())
        self.path.write_bytes(b"")
        self.assertIn("is no snapshot", self.refused())
        self.path.unlink()
        self.path.mkdir()
        self.assertEqual(self.refused(), f"the snapshot {self.path} is no file")
        self.path.rmdir()
        os.mkfifo(self.path)
        self.assertIn("is no file", self.refused())
        self.path.unlink()
        self.path.symlink_to(self.path)
        self.assertIn("cannot be read: ", self.refused())


class ListDraft:
    """A draft in memory."""

    def __init__(self, shelf: ListShelf, head: Head) -> None:
        self._shelf, self._head = shelf, head
        self._accounts: list[Kept] = []
        self._shelf.open += 1

    def add(self, accounts: Sequence[Kept]) -> None:
        """Kept, if there is room."""
        self._shelf.fail()
        self._accounts += accounts

    def finish(self) -> int:
        """One more."""
        self._shelf.fail()
        self._shelf.open -= 1
        self._shelf.kept.append(Snapshot(self._head, self._accounts))
        return 1000 + len(self._accounts)

    def discard(self) -> None:
        """None more."""
        self._shelf.open -= 1


class ListShelf:
    """A shelf in memory.

    @ivar kept: the snapshots, the newest last.
    @ivar open: how many are being written.
    @ivar problem: raised by everything.
    """

    def __init__(self) -> None:
        self.kept: list[Snapshot] = []
        self.open = 0
        self.problem: Exception | None = None

    def begin(self, head: Head) -> ListDraft:
        """A new one."""
        self.fail()
        return ListDraft(self, head)

    def fail(self) -> None:
        """If it is to."""
        if self.problem is not None:
            raise self.problem


class StandbyTests(SynchronousTestCase):
    """A snapshot is made when there is news, at most once a minute, and when the daemon stops."""

    def setUp(self) -> None:
        """A directory of which nothing is kept yet; the clock on the wall is not the reactor's."""
        self.source, self.shelf = ScriptedSource(PETRA, TOMASZ), ListShelf()
        self.clock, self.threads, self.disk = ThreadClock(), ManualThreads(), ManualThreads()
        self.wall_ahead = 1_000_000.0
        self.registry = CollectorRegistry()
        self.directory = CachedDirectory(self.source, self.clock, threads=self.threads)
        self.directory.startService()
        self.addCleanup(self.directory.stopService)
        self.standby = Standby(
            self.directory,
            self.shelf,
            self.clock,
            verifiers=True,
            wall=self.wall,
            metrics=Metrics(self.registry, role="home", node="hs1"),
            threads=self.disk,
        )
        self.standby.startService()

    def tearDown(self) -> None:
        """Everything ends."""
        if self.standby.running:
            self.stop()

    def wall(self) -> float:
        """The time on the wall."""
        return self.clock.seconds() + self.wall_ahead

    def go_on(self, seconds: float = LOOK_SECONDS) -> None:
        """Time passes, and what waits for threads is done."""
        for _ in range(round(seconds)):
            self.clock.advance(1)
            for _ in range(8):
                self.threads.run()
                self.disk.run()
                self.clock.advance(0.01)

    def stop(self) -> Deferred[None]:
        """Stop, as far as that is possible at once."""
        stopped = self.standby.stopService()
        for _ in range(10):
            self.disk.run()
        return stopped

    def know(self, *accounts: str) -> None:
        """Somebody asks for these keys."""
        for key in accounts:
            self.directory.find(key)
        self.threads.run()

    def value(self, name: str, **labels: str) -> float:
        """A metric."""
        value = self.registry.get_sample_value(f"rvp_{name}", {"role": "home", "node": "hs1", **labels})
        assert value is not None
        return value

    def test_first(self) -> None:
        """Soon after the start there is one, with everybody who was asked for until then."""
        self.assertTrue(math.isnan(self.value("snapshot_age_seconds")))
        self.know(PETRA.key, "im.fabrik.example/instmsg/aliases/nobody")
        self.go_on()
        (snapshot,) = self.shelf.kept
        self.assertEqual(snapshot.accounts, [Kept(PETRA, True)])
        self.assertEqual((snapshot.head.farm, snapshot.head.position), (self.source.settings, 10))
        self.assertTrue(0 <= self.wall() - snapshot.head.confirmed < LOOK_SECONDS)
        self.assertEqual(self.value("snapshot_writes_total", outcome="written"), 1)
        self.assertEqual((self.value("snapshot_size_bytes"), self.value("snapshot_accounts")), (1001, 1))
        self.assertLess(self.value("snapshot_age_seconds"), 2)
        self.wall_ahead += 100
        self.assertGreater(self.value("snapshot_age_seconds"), 99)

    def test_at_most_once_a_minute(self) -> None:
        """What comes after it waits for a minute; without news there is nothing to do."""
        self.go_on()
        self.know(PETRA.key)
        self.go_on(LEAST_SECONDS - 5)
        self.assertEqual(len(self.shelf.kept), 1)
        self.go_on(10)
        self.assertEqual([len(each.accounts) for each in self.shelf.kept], [0, 1])
        self.go_on(5 * LEAST_SECONDS)
        self.assertEqual(len(self.shelf.kept), 2)

    def test_news(self) -> None:
        """Another farm, an account that changed, went or was called wrong are news; no name that nobody has is."""
        self.know(PETRA.key, TOMASZ.key)
        self.go_on(LEAST_SECONDS + 10)
        count = len(self.shelf.kept)

        def changed(*feed: Changes) -> bool:
            nonlocal count
            self.source.feed.extend(feed)
            self.go_on(LEAST_SECONDS + 10)
            before, count = count, len(self.shelf.kept)
            return count > before

        self.assertTrue(changed(Changes(11, farm=True)))
        self.assertTrue(changed(Changes(12, (PETRA.key,))))
        del self.source.accounts[PETRA.key]
        self.assertTrue(changed(Changes(13, (PETRA.key,))))
        self.assertEqual(self.shelf.kept[-1].accounts, [Kept(TOMASZ, True)])
        self.source.problem = DirectoryUnavailable("away")
        self.directory.forget(TOMASZ.key)
        self.assertTrue(changed())
        self.assertEqual(self.shelf.kept[-1].accounts, [Kept(TOMASZ, False)])
        self.source.problem = None
        self.go_on(2)
        self.know("im.fabrik.example/instmsg/aliases/nobody")
        self.assertFalse(changed(Changes(14, ("im.fabrik.example/instmsg/aliases/somebody",))))

    def test_kept_anew(self) -> None:
        """Without news it is kept anew every hour, for its age counts; not while the directory is down."""
        self.go_on(10)
        self.source.problem = DirectoryUnavailable("away")
        self.clock.advance(3590)
        self.go_on(20)
        self.assertEqual(len(self.shelf.kept), 1)
        self.source.problem = None
        self.go_on(10)
        self.assertEqual(len(self.shelf.kept), 2)

    def test_many(self) -> None:
        """Many accounts are taken a few at a time, and the loop is left alone in between."""
        many = [make_account(f"im.fabrik.example/instmsg/aliases/u{count}", "hs1") for count in range(1000)]
        self.source.accounts = {account.key: account for account in many}
        self.know(*self.source.accounts)
        self.clock.advance(LOOK_SECONDS)
        turns = 0
        while not self.shelf.kept:
            self.disk.run()
            self.clock.advance(0.01)
            turns += 1
        self.assertGreater(turns, 5)
        found = {each.account.key for each in self.shelf.kept[0].accounts}
        self.assertEqual(found, set(self.source.accounts))

    def test_long_ones_are_rare(self) -> None:
        """After one that took ten seconds there is none for two hundred."""
        self.clock.advance(LOOK_SECONDS)
        self.clock.advance(10)
        self.go_on(2)
        self.assertEqual(len(self.shelf.kept), 1)
        self.know(PETRA.key)
        self.go_on(190)
        self.assertEqual(len(self.shelf.kept), 1)
        self.go_on(30)
        self.assertEqual(len(self.shelf.kept), 2)

    def test_failing(self) -> None:
        """A disk that is full is told of once, counted each time, and tried again; so is its recovery."""
        self.shelf.problem = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with capturedLogs() as events:
            self.go_on(3 * LEAST_SECONDS)
            self.assertEqual(self.value("snapshot_writes_total", outcome="failed"), 3)
            self.shelf.problem = None
            self.go_on(LEAST_SECONDS)
        self.assertEqual(
            [formatEvent(event) for event in events],
            [
                "the snapshot of the directory cannot be written: No space left on device; everything else goes on",
                "the snapshot of the directory can be written again",
            ],
        )
        self.assertEqual(len(self.shelf.kept), 1)

    def test_failing_halfway(self) -> None:
        """What was begun is given up."""
        self.know(PETRA.key)
        self.clock.advance(LOOK_SECONDS)
        self.disk.run()
        self.assertEqual(self.shelf.open, 1)
        self.shelf.problem = OSError(errno.EIO, "broken")
        self.go_on()
        self.assertEqual((self.shelf.open, self.shelf.kept), (0, []))

    def test_bug(self) -> None:
        """A fault of the program is logged, and stops nothing."""
        self.shelf.problem = ZeroDivisionError("a bug")
        self.go_on(LEAST_SECONDS)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.shelf.problem = None
        self.go_on(LEAST_SECONDS)
        self.assertEqual(len(self.shelf.kept), 1)

    def test_stop(self) -> None:
        """The last news is kept before the daemon ends, without a pause; nothing is if there is none."""
        self.go_on()
        self.know(PETRA.key)
        self.successResultOf(self.stop())
        self.assertEqual([len(each.accounts) for each in self.shelf.kept], [0, 1])
        self.assertFalse(self.disk.running)
        self.directory.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_without_news(self) -> None:
        """What is kept is good enough."""
        self.go_on()
        self.successResultOf(self.stop())
        self.assertEqual(len(self.shelf.kept), 1)

    def test_stop_in_the_middle(self) -> None:
        """One that is being written is finished first, then the news since."""
        self.clock.advance(LOOK_SECONDS)
        self.disk.run()
        self.know(PETRA.key)
        stopped = self.stop()
        self.clock.advance(0.01)
        for _ in range(10):
            self.disk.run()
        self.successResultOf(stopped)
        self.assertEqual([len(each.accounts) for each in self.shelf.kept], [0, 1])

    def test_stop_with_a_full_disk(self) -> None:
        """A disk that is full keeps no daemon from ending."""
        self.shelf.problem = OSError(errno.ENOSPC, "full")
        self.successResultOf(self.stop())


class RealDiskTests(TestCase):
    """Over a real thread and a real disk."""

    timeout = 20

    async def test_written_and_read(self) -> None:
        """What one daemon keeps, another one knows."""
        path: Path = make_folder(self) / "directory.snapshot"
        source = ScriptedSource(PETRA)
        directory = CachedDirectory(source, reactor)
        directory.startService()
        self.addCleanup(directory.stopService)
        await directory.find(PETRA.key)
        file = SnapshotFile(path, KEY)
        standby = Standby(directory, file, reactor, verifiers=True, wall=lambda: 1000.0)
        standby.startService()
        await standby.stopService()
        found = file.read(1000.0, verifiers=True)
        assert found is not None
        self.assertEqual(found.snapshot.accounts, [Kept(PETRA, True)])
        self.assertEqual([each for each in threading.enumerate() if "snapshot" in each.name], [])
        await deferLater(reactor, 0, lambda: None)
