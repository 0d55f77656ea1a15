"""Tests of L{rvpfarm.tap.daemon}."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry
from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.admin import handlers
from rvpfarm.auth.keys import FarmKey
from rvpfarm.directory.cache import CachedDirectory
from rvpfarm.directory.model import Account
from rvpfarm.directory.snapshot import Head, Kept
from rvpfarm.directory.standby import SnapshotFile, Standby
from rvpfarm.observe.metrics import Metrics
from rvpfarm.tap.daemon import (
    AGAIN_SECONDS,
    Daemon,
    OnStart,
    OnStop,
    metrics_place,
    open_directory,
    show_certificate,
)
from rvpfarm.tap.settings import DaemonOptions, HomeOptions, HostPort
from rvpfarm.web.listening import ListeningService
from tests.support.folders import folder
from tests.support.store import make_farm_store, make_folder
from tests.support.threads import ThreadClock
from tests.support.tls import write_certificate


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


class Busy(Service):
    """Takes its time to stop unless it is hurried; reloads, or says why not.

    @ivar reloaded: how often it was.
    """

    def __init__(self, trouble: Exception | None = None) -> None:
        self.stopped: Deferred[None] = Deferred()
        self.trouble = trouble
        self.reloaded = 0

    def stopService(self) -> Deferred[None]:
        """Not at once."""
        super().stopService()
        return self.stopped

    def hurry(self) -> None:
        """At once."""
        self.stopped.callback(None)

    def reload(self) -> None:
        """Note it."""
        self.reloaded += 1
        if self.trouble is not None:
            raise self.trouble


class DrainTests(SynchronousTestCase):
    """A daemon that is told to stop says so, waits, and can be hurried."""

    def setUp(self) -> None:
        """A daemon with a delay and one service, deep inside, that takes its time."""
        self.clock = Clock()
        self.daemon = Daemon(self.clock, delay_seconds=3)
        self.busy, doors = Busy(), MultiService()
        self.busy.setServiceParent(doors)
        doors.setServiceParent(self.daemon)
        self.told: list[bool] = []
        self.daemon.on_drain(lambda: self.told.append(self.daemon.draining))
        self.daemon.startService()

    def test_delay(self) -> None:
        """That it stops is told at once; the services run on for the delay."""
        self.assertFalse(self.daemon.draining)
        stopped = self.daemon.stopService()
        self.assertEqual(self.told, [True])
        self.clock.advance(2.9)
        self.assertTrue(self.busy.running)
        self.clock.advance(0.1)
        self.assertFalse(self.busy.running)
        self.assertNoResult(stopped)
        self.busy.stopped.callback(None)
        self.successResultOf(stopped)

    def test_told_again_in_the_delay(self) -> None:
        """A second signal ends the delay and hurries every service."""
        stopped = self.daemon.stopService()
        self.clock.advance(1)
        self.daemon.told_again()
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_told_again_later(self) -> None:
        """So it does when the services are stopping; further ones change nothing."""
        stopped = self.daemon.stopService()
        self.clock.advance(5)
        self.daemon.told_again()
        self.daemon.told_again()
        self.successResultOf(stopped)

    def test_same_wish(self) -> None:
        """Signals right after the first are the same wish: a group of processes may be told twice."""
        stopped = self.daemon.stopService()
        self.clock.advance(AGAIN_SECONDS / 2)
        self.daemon.told_again()
        self.assertNoResult(stopped)
        self.clock.advance(AGAIN_SECONDS / 2)
        self.daemon.told_again()
        self.successResultOf(stopped)


class ReloadTests(SynchronousTestCase):
    """A daemon has its services read again what they have read."""

    def setUp(self) -> None:
        """A daemon with services at two depths, and one that cannot reload."""
        self.daemon, doors = Daemon(), MultiService()
        self.services = [Busy(), Busy()]
        self.services[0].setServiceParent(doors)
        for service in (Service(), doors, self.services[1]):
            service.setServiceParent(self.daemon)

    def test_all(self) -> None:
        """All that can are asked to."""
        self.assertTrue(self.daemon.reload())
        self.assertEqual([service.reloaded for service in self.services], [1, 1])

    def test_trouble(self) -> None:
        """One that cannot is complained of, and keeps none of the others from it."""
        self.services[0].trouble = ValueError("the key is of no use")
        self.assertFalse(self.daemon.reload())
        self.assertEqual(self.services[1].reloaded, 1)
        self.services[0].trouble = ZeroDivisionError()
        self.assertFalse(self.daemon.reload())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.services[1].reloaded, 2)


class CertificateTests(SynchronousTestCase):
    """When certificates expire can be seen."""

    def test_shown(self) -> None:
        """By listener, for those that have one, and anew after a reload."""
        where, registry = folder(self), CollectorRegistry()
        metrics = Metrics(registry, role="router", node="r1")
        key, certificate = write_certificate(where)
        for description, option in (
            (f"fast:ssl:443:privateKey={key}:certKey={certificate}", "--listen"),
            ("fast:tcp:80", "--link"),
        ):
            service = ListeningService(MemoryReactorClock(), description, None, who="rvp-home", option=option)
            show_certificate(metrics, service)
            if option == "--listen":
                secure = service

        def shown(listener: str) -> float | None:
            return registry.get_sample_value(
                "rvp_certificate_expires_timestamp_seconds",
                {"role": "router", "node": "r1", "listener": listener},
            )

        before = shown("listen")
        self.assertEqual(before, secure.certificate_expires)
        self.assertIsNone(shown("link"))
        write_certificate(where, days=9)
        secure.reload()
        self.assertApproximates(shown("listen"), before + 8 * 24 * 3600, 60)
