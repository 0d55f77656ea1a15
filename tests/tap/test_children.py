"""Tests of L{rvpfarm.tap.children}."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.tap.children import Children, child_environment, tail, twistd_arguments


class FakeProcess:
    """One run of one child, which ends when the test says so."""

    def __init__(self, protocol: Any, arguments: list[str], environment: dict[str, str]) -> None:
        self.protocol = protocol
        self.arguments = arguments
        self.environment = environment
        self.how: dict[str, Any] = {}
        self.signals: list[str] = []
        self.over = False

    def signalProcess(self, name: str) -> None:
        """Note a signal."""
        if self.over:
            raise ProcessExitedAlready
        self.signals.append(name)

    def end(self, status: int | None = 0, signal: int | None = None) -> None:
        """The process is gone."""
        self.over = True
        gone = ProcessTerminated(status, signal) if status or signal else ProcessDone(0)
        self.protocol.processEnded(Failure(gone))


class FakeReactor(Clock):
    """A clock that starts processes, or fails to."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: list[FakeProcess] = []
        self.broken = False

    def spawnProcess(
        self, protocol: Any, executable: str, arguments: list[str], env: dict[str, str], **how: Any
    ) -> None:
        """Start one."""
        if self.broken:
            raise OSError("no more processes")
        process = FakeProcess(protocol, arguments, env)
        process.how = how
        self.runs.append(process)
        protocol.makeConnection(process)


class ChildrenTests(SynchronousTestCase):
    """The processes of a farm run until they are told to stop."""

    def setUp(self) -> None:
        """One child, running."""
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.reactor = FakeReactor()
        self.failing: list[tuple[str, str]] = []
        self.children = Children(
            self.reactor, self.folder, lambda name, how: self.failing.append((name, how))
        )
        self.children.add("home1", ["python", "-x"], {"A": "b"})
        self.children.startService()

    @property
    def runs(self) -> list[FakeProcess]:
        """Every run so far."""
        return self.reactor.runs

    def finish(self) -> None:
        """Stop and let everything end."""
        self.children.stopService()
        if self.runs and not self.runs[-1].over:
            self.runs[-1].end()

    def test_start(self) -> None:
        """It is started as asked, and what it writes is in its log."""
        self.assertEqual((self.runs[0].arguments, self.runs[0].environment), (["python", "-x"], {"A": "b"}))
        self.runs[0].protocol.childDataReceived(1, b"out\n")
        self.runs[0].protocol.childDataReceived(2, b"err\n")
        self.finish()
        self.assertEqual(self.children.log_path("home1").read_bytes(), b"out\nerr\n")

    def test_log_is_bounded(self) -> None:
        """However much it writes, a few files of about a megabyte are all there is."""
        for _ in range(100):
            self.runs[0].protocol.childDataReceived(1, b"x" * 99_999 + b"\n")
        self.finish()
        sizes = [path.stat().st_size for path in self.folder.iterdir()]
        self.assertEqual(len(sizes), 3)
        self.assertLess(max(sizes), 1_200_000)

    def test_stop_waits(self) -> None:
        """It is told to stop, and stopping is over when it is gone."""
        stopped = self.children.stopService()
        self.assertEqual(self.runs[0].signals, ["TERM"])
        self.assertNoResult(stopped)
        self.runs[0].end()
        self.assertIsNone(self.successResultOf(stopped))
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(len(self.runs), 1)

    def test_stop_that_is_ignored(self) -> None:
        """Whoever does not stop is killed."""
        self.children.stopService()
        self.reactor.advance(5)
        self.assertEqual(self.runs[0].signals, ["TERM", "KILL"])
        self.runs[0].end(signal=9)

    def test_stop_between_two_runs(self) -> None:
        """A child that waits to be started again is not."""
        self.runs[0].end(1)
        self.successResultOf(self.children.stopService())
        self.reactor.advance(60)
        self.assertEqual(len(self.runs), 1)

    def test_started_again(self) -> None:
        """One that served for a while and died is started again at once, however often it is killed."""
        for count in range(2, 7):
            self.reactor.advance(3)
            self.runs[-1].end(signal=9)
            self.reactor.advance(0)
            self.assertEqual(len(self.runs), count)
        self.assertEqual(self.failing, [])
        self.finish()

    def test_keeps_dying(self) -> None:
        """One that never comes up is started ever more rarely, and reported once."""
        for delay in (0.5, 1, 2, 4, 5, 5):
            self.runs[-1].end(1)
            self.reactor.advance(delay - 0.1)
            count = len(self.runs)
            self.reactor.advance(0.1)
            self.assertEqual(len(self.runs), count + 1)
        self.assertEqual(self.failing, [("home1", "exit status 1")])
        self.finish()

    def test_cannot_be_started(self) -> None:
        """A start that fails counts as a death."""
        self.reactor.broken = True
        for delay in (0, 0.5, 1):
            if not self.runs[-1].over:
                self.runs[-1].end(1)
            self.reactor.advance(delay)
        self.assertEqual(self.failing, [("home1", "no more processes")])
        self.successResultOf(self.children.stopService())
        self.assertGreater(len(self.flushLoggedErrors(OSError)), 0)


class OneChildTests(SynchronousTestCase):
    """Single children can be told something, listened to, and taken off."""

    def setUp(self) -> None:
        """Two children, of which one is listened to."""
        self.reactor = FakeReactor()
        self.heard: list[tuple[int, bytes]] = []
        self.ended: list[str] = []
        self.failing: list[str] = []
        self.children = Children(
            self.reactor,
            None,
            lambda name, how: self.failing.append(name),
            ended=self.ended.append,
            kill_seconds=30,
        )
        self.children.add(
            "one",
            ["python"],
            {},
            descriptors={0: "w", 3: 17, 4: "r"},
            heard=lambda fd, data: self.heard.append((fd, data)),
            directory="/srv",
        )
        self.children.add("two", ["python"], {})
        self.children.startService()
        self.one, self.two = self.reactor.runs

    def finish(self) -> None:
        """Stop, and let everything end."""
        stopped = self.children.stopService()
        for run in self.reactor.runs:
            if not run.over:
                run.end()
        self.successResultOf(stopped)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_how(self) -> None:
        """A child has the descriptors and the place that it was to have, and is heard on each of them."""
        self.assertEqual(self.one.how, {"childFDs": {0: "w", 3: 17, 4: "r"}, "path": "/srv"})
        self.assertEqual(self.two.how, {})
        self.one.protocol.childDataReceived(4, b"READY=1\n")
        self.assertEqual(self.heard, [(4, b"READY=1\n")])
        self.finish()

    def test_signals(self) -> None:
        """A signal is sent to all or to one; to one that is gone it is not."""
        self.children.send("HUP")
        self.children.send("KILL", "two")
        self.two.over = True
        self.children.send("HUP")
        self.assertEqual((self.one.signals, self.two.signals), (["HUP", "HUP"], ["HUP", "KILL"]))
        self.two.over = False
        self.finish()

    def test_removed(self) -> None:
        """A child that is taken off is told to stop, and not started again; the others run on."""
        gone = self.children.remove("one")
        self.assertEqual(self.one.signals, ["TERM"])
        self.assertNoResult(gone)
        self.one.end(signal=15)
        self.successResultOf(gone)
        self.reactor.advance(60)
        self.assertEqual((len(self.reactor.runs), self.ended, self.two.signals), (2, ["one"], []))
        self.children.add("one", ["python"], {})
        self.assertEqual(len(self.reactor.runs), 3)
        self.finish()

    def test_removed_by_force(self) -> None:
        """One that does not stop is killed when it has had its time."""
        self.children.remove("one")
        self.reactor.advance(30)
        self.assertEqual(self.one.signals, ["TERM", "KILL"])
        self.one.end(signal=9)
        self.finish()

    def test_removed_between_two_runs(self) -> None:
        """One that waits to be started again is gone already."""
        self.one.end(1)
        self.successResultOf(self.children.remove("one"))
        self.reactor.advance(60)
        self.assertEqual(len(self.reactor.runs), 2)
        self.finish()

    def test_stop_waits_for_the_removed(self) -> None:
        """The service has stopped when those that were taken off are gone as well."""
        gone = self.children.remove("one")
        stopped = self.children.stopService()
        self.two.end()
        self.assertNoResult(stopped)
        self.one.end()
        self.successResultOf(gone)
        self.successResultOf(stopped)


class CommandLineTests(SynchronousTestCase):
    """What a child runs, and what it is told of its surroundings."""

    def test_arguments(self) -> None:
        """The Python that runs now runs twistd in the foreground."""
        arguments = twistd_arguments("rvp-router", "--name", "router1")
        self.assertEqual(arguments[0], sys.executable)
        self.assertIn("--nodaemon", arguments)
        self.assertEqual(arguments[-3:], ["rvp-router", "--name", "router1"])

    def test_environment(self) -> None:
        """Settings meant for the farm itself do not reach its children; its end does."""
        ours = {"PATH": "/bin", "RVPFARM_DEMO_PASSWORD": "x", "RVPFARM_LISTEN": "y"}
        self.assertEqual(
            child_environment(ours),
            {"PATH": "/bin", "RVPFARM_STOP_AT_EOF": "1", "RVPFARM_DRAIN_GRACE": "0.5"},
        )


class TailTests(SynchronousTestCase):
    """The end of a child's log, for a person."""

    def test_tail(self) -> None:
        """JSON lines show their text and traceback, other lines themselves; the last ones only."""
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        path = folder / "home1.log"
        self.assertEqual(tail(path), [])
        event = {"level": "error", "text": "no directory", "traceback": "Traceback:\n  x\n"}
        path.write_text("first\n\n" + json.dumps(event) + "\n[1]\n{\n")
        self.assertEqual(tail(path, 5), ["error: no directory", "Traceback:", "  x", "[1]", "{"])
        path.write_text("y" * 100_000 + "\nlast\n")
        self.assertEqual(tail(path)[-1], "last")
