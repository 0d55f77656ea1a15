"""Tests of L{rvpfarm.tap.daemon}."""

from __future__ import annotations

from functools import partial

from prometheus_client import CollectorRegistry
from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.observe.metrics import Metrics
from rvpfarm.tap.daemon import AGAIN_SECONDS, Daemon, OnStart, OnStop, show_certificate
from rvpfarm.web.listening import ListeningService
from tests.support.folders import folder
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
