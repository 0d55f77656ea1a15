"""Tests of L{rvpfarm.tap.daemon}."""

from __future__ import annotations

from functools import partial

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.tap.daemon import Daemon, OnStart, OnStop, metrics_place
from rvpfarm.tap.settings import DaemonOptions, HostPort


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
