"""What signals mean to a daemon, and how it leaves with a failure."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any

from twisted.application.service import Service


class Signals(Service):
    """Has signals do what they mean here, in the reactor's own time.

    They are taken as soon as privileged services start, since the default of most is to end the process.
    What Twisted does with C{SIGINT}, C{SIGTERM} and C{SIGCHLD} stays, for it takes those when the reactor
    starts; whoever wants one of them after that may L{take} it.
    """

    def __init__(
        self,
        reactor: Any,
        meanings: Mapping[int, Callable[[], object]],
        *,
        install: Callable[[int, Any], Any] = signal.signal,
    ) -> None:
        """
        @param reactor: with C{callFromThread} (C{Any}: as handlers of signals have no common type either).
        @param install: as C{signal.signal}; answers with the handler before.
        """
        self._reactor, self._meanings, self._install = reactor, dict(meanings), install
        self._before: dict[int, Any] = {}

    def privilegedStartService(self) -> None:
        """Take the signals."""
        super().privilegedStartService()
        for number, meaning in self._meanings.items():
            self.take(number, meaning)

    def startService(self) -> None:
        """Take the signals, unless that is done."""
        super().startService()
        for number, meaning in self._meanings.items():
            if number not in self._before:
                self.take(number, meaning)

    def take(self, number: int, meaning: Callable[[], object]) -> None:
        """From now on the signal C{number} has C{meaning} called."""

        def arrived(number: int, frame: object) -> None:
            self._reactor.callFromThread(meaning)

        before = self._install(number, arrived)
        self._before.setdefault(number, before)

    def stopService(self) -> None:
        """Give the signals back."""
        super().stopService()
        for number, handler in self._before.items():
            self._install(number, signal.SIG_DFL if handler is None else handler)
        self._before.clear()


def leave_with_failure() -> None:
    """Make the exit status of this process 1: twistd itself always leaves with 0."""

    def leave() -> None:
        sys.stdout.flush()
        os._exit(1)

    atexit.register(leave)
