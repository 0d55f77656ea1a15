"""Tests of L{rvpfarm.tap.daemon}."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry
from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.admin import handlers
from rvpfarm.auth.keys import FarmKey
from rvpfarm.directory.cache import CachedDirectory
from rvpfarm.directory.model import Account
from rvpfarm.directory.snapshot import Head, Kept
from rvpfarm.directory.standby import SnapshotFile, Standby
from rvpfarm.observe.metrics import Metrics
from rvpfarm.tap.daemon import Daemon, OnStart, OnStop, metrics_place, open_directory
from rvpfarm.tap.settings import DaemonOptions, HomeOptions, HostPort
from tests.support.store import make_farm_store, make_folder
from tests.support.threads import ThreadClock


class DaemonTests(SynchronousTestCase):
    """Services start front to back and stop back to front."""

    def setUp(self) -> None:
        """A daemon of three services, the middle of which takes its time."""
        self.seen: list[str] = []
        self.daemon = Daemon()
        self.middle: Deferred[None] = Deferred()

        for name, answer in (("first", succeed(None)), ("middle", self.middle), ("last", succeed(None))):
            OnStart(partial(self.seen.append, f"+{name}")).setServiceParent(self.daemon)
            OnStop(partial(self._stop, name, answer)).setServiceParent(self.daemon)

    def _stop(self, name: str, answer: Deferred[None]) -> Deferred[None]:
        self.seen.append(f"-{name}")
        return answer

    def test_order(self) -> None:
        """Each is stopped when those after it have stopped."""
        self.daemon.startService()
        stopped = self.daemon.stopService()
        self.assertEqual(self.seen, ["+first", "+middle", "+last", "-last", "-middle"])
        self.assertNoResult(stopped)
        self.middle.callback(None)
        self.assertEqual(self.seen[-1], "-first")
        self.successResultOf(stopped)

    def test_one_fails_to_stop(self) -> None:
        """A service that fails to stop is logged and keeps none of the others running.

        Otherwise their threads would keep the process alive for ever.
        """
        self.daemon.startService()
        for problem in (ZeroDivisionError, RuntimeError):
            OnStop(partial(fail, problem())).setServiceParent(self.daemon)
        self.middle.callback(None)
        self.successResultOf(self.daemon.stopService())
        self.assertEqual(self.seen[3:], ["-last", "-middle", "-first"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError, RuntimeError)), 2)

    def test_not_running(self) -> None:
        """A stopped daemon says so, and so do its services."""
        service = Service()
        service.setServiceParent(self.daemon)
        self.daemon.startService()
        self.middle.callback(None)
        self.successResultOf(self.daemon.stopService())
        self.assertFalse(self.daemon.running or service.running)


class MetricsPlaceTests(SynchronousTestCase):
    """Where a daemon shows itself."""

    def place(self, given: HostPort | None, recorded: str) -> HostPort | None:
        """Where, if that is the option and that is in the directory."""
        options = DaemonOptions()
        options["metrics"] = given
        return metrics_place(options, recorded)

    def test_which(self) -> None:
        """The option counts, else the directory's record, else it is nowhere."""
        here = HostPort("127.0.0.1", 9464)
        self.assertEqual(self.place(here, "192.0.2.1:9000"), here)
        self.assertEqual(self.place(None, "192.0.2.1:9000"), HostPort("192.0.2.1", 9000))
        self.assertIsNone(self.place(None, ""))

    def test_nonsense(self) -> None:
        """Nonsense in the directory costs the metrics, never the daemon."""
        self.assertIsNone(self.place(None, "somewhere"))


class OpenDirectoryTests(SynchronousTestCase):
    """A daemon starts with the directory, or with what it last knew of it, or not at all."""

    def setUp(self) -> None:
        """A directory with a user, of whom there is a snapshot."""
        self.patch(os, "environ", {})
        self.folder = make_folder(self)
        self.store = make_farm_store(self, self.folder)
        handlers.enable_user(self.store, "petra@fabrik.example", password="correct horse", actor="test")
        self.key = FarmKey.load(self.folder / "farm.key")
        self.path = self.folder / "hs1" / "directory.snapshot"
        self.path.parent.mkdir()
        with self.store.read() as reading:
            self.farm, self.position, self.mark = reading.farm(), reading.position(), reading.mark()
            petra = reading.account("im.fabrik.example/instmsg/aliases/petra")
        assert petra is not None
        self.petra: Account = petra
        self.keep()

    def keep(self, *, age: float = 90.0, verifiers: bool = True, key: FarmKey | None = None) -> None:
        """Write a snapshot."""
        head = Head(self.farm, self.position, self.mark, time.time() - age, verifiers)
        draft = SnapshotFile(self.path, (key or self.key).snapshot).begin(head)
        draft.add([Kept(self.petra, True)])
        draft.finish()

    def lose(self) -> None:
        """The directory is gone."""
        self.store.close()
        for file in self.folder.glob("directory.sqlite*"):
            file.unlink()

    def open(self, *more: str) -> tuple[CachedDirectory, Standby | None]:
        """Open it as a home does."""
        options = HomeOptions()
        url = f"sqlite:///{self.folder / 'directory.sqlite'}"
        options.parseOptions(["-d", url, "-n", "hs1", "-s", str(self.path.parent), *more])
        self.registry = CollectorRegistry()
        metrics = Metrics(self.registry, role="home", node="hs1")
        return open_directory(options, ThreadClock(), metrics=metrics, key=self.key, snapshots=self.key)

    def value(self, name: str) -> float:
        """A metric."""
        value = self.registry.get_sample_value(f"rvp_{name}", {"role": "home", "node": "hs1"})
        assert value is not None
        return value

    def refused(self, *more: str) -> str:
        """Why it cannot start."""
        return str(self.assertRaises(SystemExit, self.open, *more).code)

    def test_without_the_directory(self) -> None:
        """It starts with everybody who was known, and says how old that is, in the log and in metrics."""
        self.lose()
        with capturedLogs() as events:
            directory, _ = self.open()
        self.assertEqual(directory.farm(), self.farm)
        self.assertEqual(directory.peek(self.petra.key), self.petra)
        took, warned = map(formatEvent, events)
        self.assertEqual(took, f"the snapshot {self.path} is 90 seconds old; accounts taken up from it: 1")
        self.assertIn("what was known 90 seconds ago is served until it is 7 days old", warned)
        self.assertEqual(self.value("directory_up"), 0)
        self.assertGreaterEqual(self.value("directory_staleness_seconds"), 90)
        self.assertGreaterEqual(self.value("snapshot_age_seconds"), 90)
        self.assertEqual(self.value("snapshot_accounts"), 1)
        self.assertEqual(self.value("snapshot_size_bytes"), self.path.stat().st_size)
        self.assertFalse((self.folder / "directory.sqlite").exists())

    def test_with_the_directory(self) -> None:
        """It knows at once whom it knew before, as they are now, and need not ask for them again."""
        directory, _ = self.open()
        self.assertEqual(directory.peek(self.petra.key), self.petra)
        self.assertEqual((self.value("directory_up"), self.value("directory_staleness_seconds")), (1, 0))
        handlers.disable_user(self.store, "petra@fabrik.example", actor="test")
        directory, _ = self.open()
        self.assertIs(directory.peek(self.petra.key), None)

    def test_other_directory(self) -> None:
        """What was known of another directory than this one is worth nothing."""
        self.mark = "1 of another one"
        self.keep()
        directory, _ = self.open()
        self.assertIs(directory.peek(self.petra.key), None)

    def test_unusable(self) -> None:
        """Neither directory nor a good snapshot: one sentence with both reasons."""
        self.lose()
        self.keep(age=604_900)
        self.assertIn("is 7 days old, and the policy directory-staleness allows 7 days", self.refused())
        self.keep(age=-3600)
        self.assertIn("in the future", self.refused())
        self.keep(key=FarmKey.create(self.folder / "other.key"))
        self.assertIn("of another farm key", self.refused())
        self.keep(verifiers=False)
        self.assertIn("made by a router", self.refused())
        self.keep()
        os.truncate(self.path, 500)
        sentence = self.refused()
        self.assertTrue(sentence.startswith("rvpfarm: there is no directory at "), sentence)
        self.assertTrue(sentence.endswith(f"; the snapshot {self.path} is cut short or damaged"), sentence)

    def test_no_snapshot(self) -> None:
        """Without a snapshot, or with the option C{none}, it is as if there were no such thing."""
        self.lose()
        self.assertNotIn("snapshot", self.refused("--snapshot", "none"))
        self.path.unlink()
        self.assertNotIn("snapshot", self.refused())

    def test_made_anew(self) -> None:
        """A snapshot that is of no use keeps no daemon from starting with the directory."""
        self.path.write_bytes(b"something else")
        with capturedLogs() as events:
            _, standby = self.open()
        self.assertEqual(
            [formatEvent(event) for event in events],
            [f"the snapshot {self.path} is no snapshot of a directory; it is made anew"],
        )
        self.assertIsNot(standby, None)
        _, standby = self.open("--snapshot", "none")
        self.assertIs(standby, None)

    def test_other_place(self) -> None:
        """The file may be anywhere."""
        self.lose()
        other = self.folder / "kept elsewhere"
        Path(self.path).rename(other)
        directory, _ = self.open("--snapshot", str(other))
        self.assertEqual(directory.peek(self.petra.key), self.petra)
