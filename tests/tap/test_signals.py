"""Tests of L{rvpfarm.tap.signals}."""

from __future__ import annotations

import signal
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.tap.signals import Signals


class FakeReactor:
    """Calls from other threads, and from handlers of signals, wait until it comes to them."""

    def __init__(self) -> None:
        self.waiting: list[Any] = []

    def callFromThread(self, function: Any) -> None:
        """Later."""
        self.waiting.append(function)


class SignalsTests(SynchronousTestCase):
    """Signals mean what a daemon says, from before it drops privileges until it has stopped."""

    def setUp(self) -> None:
        """A process with a handler of its own for one of two signals."""
        self.handlers: dict[int, Any] = {signal.SIGHUP: "before"}
        self.reactor = FakeReactor()
        self.seen: list[str] = []
        self.signals = Signals(
            self.reactor, {signal.SIGHUP: lambda: self.seen.append("hup")}, install=self.install
        )

    def install(self, number: int, handler: Any) -> Any:
        """As C{signal.signal}."""
        before, self.handlers[number] = self.handlers.get(number), handler
        return before

    def test_taken_and_given_back(self) -> None:
        """They are taken once, early, and given back at the end."""
        self.signals.privilegedStartService()
        taken = self.handlers[signal.SIGHUP]
        self.signals.startService()
        self.assertIs(self.handlers[signal.SIGHUP], taken)
        self.signals.take(signal.SIGTERM, lambda: self.seen.append("term"))
        self.signals.stopService()
        self.assertEqual(self.handlers, {signal.SIGHUP: "before", signal.SIGTERM: signal.SIG_DFL})

    def test_reactors_own_time(self) -> None:
        """A signal does its work when the reactor comes to it, not in the middle of something else."""
        self.signals.startService()
        self.handlers[signal.SIGHUP](signal.SIGHUP, None)
        self.assertEqual(self.seen, [])
        self.reactor.waiting.pop()()
        self.assertEqual(self.seen, ["hup"])

    def test_taken_over(self) -> None:
        """A signal can be given another meaning, and still goes back to what it was before the first."""
        self.signals.startService()
        self.signals.take(signal.SIGHUP, lambda: self.seen.append("again"))
        self.handlers[signal.SIGHUP](signal.SIGHUP, None)
        self.reactor.waiting.pop()()
        self.assertEqual(self.seen, ["again"])
        self.signals.stopService()
        self.assertEqual(self.handlers[signal.SIGHUP], "before")
