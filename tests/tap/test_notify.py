"""Tests of L{rvpfarm.tap.notify}."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.tap.notify import Notices, Notifier, watchdog_seconds
from tests.support.folders import folder


class NotifierTests(SynchronousTestCase):
    """A notice reaches whoever wants it, and trouble with that stops nothing."""

    def supervisor(self, path: str) -> socket.socket:
        """A supervisor that listens at C{path}."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(sock.close)
        sock.setblocking(False)
        sock.bind(path)
        return sock

    def notifier(self, **environment: str) -> Notifier:
        """A notifier in this environment."""
        notifier = Notifier(environment)
        self.addCleanup(notifier.close)
        return notifier

    def test_socket(self) -> None:
        """One notice is one datagram, each of its lines ended."""
        path = str(folder(self) / "notify")
        supervisor = self.supervisor(path)
        notifier = self.notifier(NOTIFY_SOCKET=path)
        self.assertTrue(notifier.wanted)
        notifier.send("READY=1", "STATUS=ready")
        self.assertEqual(supervisor.recv(4096), b"READY=1\nSTATUS=ready\n")

    def test_abstract(self) -> None:
        """An address may be in the abstract name space."""
        name = f"rvpfarm-test-{os.getpid()}"
        supervisor = self.supervisor(f"\0{name}")
        self.notifier(NOTIFY_SOCKET=f"@{name}").send("READY=1")
        self.assertEqual(supervisor.recv(4096), b"READY=1\n")

    def test_pipe(self) -> None:
        """Our own supervisor reads a pipe, and no child of ours inherits that."""
        read, write = os.pipe()
        self.addCleanup(os.close, read)
        self.addCleanup(os.close, write)
        os.set_inheritable(write, True)
        notifier = self.notifier(NOTIFY_SOCKET="/nowhere", RVPFARM_NOTIFY_FD=str(write))
        notifier.send("READY=1", "STATUS=ready")
        self.assertEqual(os.read(read, 4096), b"READY=1\nSTATUS=ready\n")
        self.assertFalse(os.get_inheritable(write))

    def test_nobody(self) -> None:
        """Without a supervisor nothing is sent anywhere."""
        notifier = self.notifier()
        self.assertFalse(notifier.wanted)
        notifier.send("READY=1")

    def test_supervisor_comes_back(self) -> None:
        """A supervisor that is not there is of no consequence, and is heard again when it is."""
        path = str(folder(self) / "notify")
        notifier = self.notifier(NOTIFY_SOCKET=path)
        notifier.send("STATUS=one")
        first = self.supervisor(path)
        notifier.send("STATUS=two")
        self.assertEqual(first.recv(4096), b"STATUS=two\n")
        first.close()
        notifier.send("STATUS=three")
        os.unlink(path)
        second = self.supervisor(path)
        notifier.send("STATUS=four")
        self.assertEqual(second.recv(4096), b"STATUS=four\n")

    def test_busy(self) -> None:
        """A supervisor that does not listen just now makes nobody wait, but it can be tried again."""
        path = str(folder(self) / "notify")
        supervisor = self.supervisor(path)
        notifier = self.notifier(NOTIFY_SOCKET=path)
        count = 0
        while notifier.send(f"STATUS={count}"):
            count += 1
        self.assertGreater(count, 0)
        supervisor.recv(4096)
        self.assertTrue(notifier.send("READY=1"))


class WatchdogTests(SynchronousTestCase):
    """The span of the watchdog is in the environment."""

    def test_span(self) -> None:
        """It is in microseconds, and for one process only if that is named."""
        for environment, span in (
            ({}, 0.0),
            ({"WATCHDOG_USEC": "30000000"}, 30.0),
            ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 30.0),
            ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, 0.0),
            ({"WATCHDOG_USEC": "soon"}, 0.0),
        ):
            self.assertEqual(watchdog_seconds(environment, 7), span, environment)


class Heard(Notifier):
    """Notices that are noted.

    @ivar said: what was sent since it was last asked for.
    @ivar busy: nothing more can be taken just now.
    """

    def __init__(self, wanted: bool = True) -> None:
        super().__init__({})
        self.wanted = wanted
        self.busy = False
        self._said: list[str] = []

    def send(self, *lines: str) -> bool:
        """Note it, unless busy."""
        if not self.busy:
            self._said.append(" ".join(lines))
        return not self.busy

    @property
    def said(self) -> list[str]:
        """It is asked for."""
        said, self._said = self._said, []
        return said


class NoticesTests(SynchronousTestCase):
    """The supervisor learns how the daemon is."""

    def setUp(self) -> None:
        """A daemon that is not ready yet."""
        self.clock, self.heard = Clock(), Heard()
        self.reasons: list[str] = ["not listening"]
        self.alive = True
        self.started: Callable[[], bool] | None = None
        self.notices = self.make(self.heard)

    def make(self, heard: Heard, **environment: str) -> Notices:
        """What gives notice."""
        return Notices(
            self.clock,
            heard,
            ready=lambda: tuple(self.reasons),
            started=self.started,
            alive=lambda: self.alive,
            environment=environment,
            getpid=lambda: 7,
            monotonic=lambda: 12.5,
        )

    def start(self) -> None:
        """Started, and ready."""
        self.reasons = []
        self.notices.startService()
        self.clock.advance(0)
        self.assertEqual(self.heard.said, ["READY=1 MAINPID=7 STATUS=ready"])

    def test_ready(self) -> None:
        """It is said once that the daemon is ready, when it is; before and after, what it waits for."""
        self.notices.startService()
        self.assertEqual(self.heard.said, [])
        self.clock.pump([0, 0.1, 0.1])
        self.assertEqual(self.heard.said, ["STATUS=not listening"])
        self.reasons = []
        self.clock.advance(0.1)
        self.assertEqual(self.heard.said, ["READY=1 MAINPID=7 STATUS=ready"])
        self.reasons = ["draining"]
        self.clock.advance(1)
        self.reasons = []
        self.clock.pump([1, 1, 1])
        self.assertEqual(self.heard.said, ["STATUS=draining", "STATUS=ready"])
        self.notices.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_started(self) -> None:
        """A daemon that runs is ready to its supervisor, though no work should come: it would be ended else."""
        self.started = lambda: "not listening" not in self.reasons
        notices = self.make(self.heard)
        notices.startService()
        self.clock.advance(0)
        self.reasons = ["no home is up"]
        self.clock.advance(0.1)
        self.reasons = []
        self.clock.advance(1)
        self.assertEqual(
            self.heard.said,
            ["STATUS=not listening", "READY=1 MAINPID=7 STATUS=no home is up", "STATUS=ready"],
        )
        notices.stopService()

    def test_reload(self) -> None:
        """The begin of a reload is said with its time, and its end with that it is ready."""
        self.start()
        self.notices.reloading()
        self.notices.reloaded()
        self.assertEqual(
            self.heard.said,
            ["RELOADING=1 MONOTONIC_USEC=12500000 STATUS=reloading", "READY=1 STATUS=ready"],
        )

    def test_reload_too_early(self) -> None:
        """A reload makes nobody believe that a daemon is ready which never was."""
        self.notices.startService()
        self.clock.advance(0)
        self.notices.reloading()
        self.notices.reloaded()
        self.assertEqual(self.heard.said, ["STATUS=not listening"])

    def test_stopping(self) -> None:
        """That the daemon stops is said at once, and is the last that is said of it."""
        self.start()
        self.notices.stopping()
        self.clock.pump([1, 1])
        self.assertEqual(self.heard.said, ["STOPPING=1 STATUS=draining"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_busy_supervisor(self) -> None:
        """What a supervisor has no room for just now it hears later, in order; that the loop turns it need not."""
        self.notices = self.make(self.heard, WATCHDOG_USEC="10000000")
        self.heard.busy, self.reasons = True, []
        self.notices.startService()
        self.clock.advance(0)
        self.notices.stopping()
        self.clock.pump([5, 5])
        self.heard.busy = False
        self.clock.advance(0.1)
        self.assertEqual(self.heard.said, ["READY=1 MAINPID=7 STATUS=ready", "STOPPING=1 STATUS=draining"])
        self.notices.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_watchdog(self) -> None:
        """Twice in its span the watchdog hears that the loop turns, to the end of the drain, if all is well."""
        self.notices = self.make(self.heard, WATCHDOG_USEC="10000000")
        self.start_with_watchdog()
        self.clock.pump([5, 5])
        self.assertEqual(self.heard.said, ["WATCHDOG=1"] * 2)
        self.alive = False
        self.clock.pump([5, 5])
        self.assertEqual(self.heard.said, [])
        self.alive = True
        self.notices.stopping()
        self.clock.advance(5)
        self.assertEqual(self.heard.said, ["STOPPING=1 STATUS=draining", "WATCHDOG=1"])
        self.notices.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def start_with_watchdog(self) -> None:
        """Started, ready, and alive."""
        self.reasons = []
        self.notices.startService()
        self.clock.advance(0)
        self.assertEqual(self.heard.said, ["READY=1 MAINPID=7 STATUS=ready", "WATCHDOG=1"])

    def test_nobody(self) -> None:
        """Without a supervisor there is nothing to do."""
        notices = self.make(Heard(wanted=False), WATCHDOG_USEC="10000000")
        notices.startService()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        notices.stopping()
        notices.stopService()
