"""Threads that run when the test says so, in the test's own thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock
from twisted.python.failure import Failure


class ManualThreads:
    """A thread pool that waits for L{run}.

    @ivar running: between C{start} and C{stop}.
    """

    def __init__(self) -> None:
        self.running = False
        self._waiting: list[tuple[Callable[[bool, Any], None] | None, Callable[[], Any]]] = []

    def start(self) -> None:
        """Be ready."""
        self.running = True

    def stop(self) -> None:
        """Finish what was begun."""
        self.run()
        self.running = False

    def callInThreadWithCallback(
        self, onResult: Callable[[bool, Any], None] | None, func: Callable[..., Any], *args: Any
    ) -> None:
        """Keep the call for L{run}."""
        self._waiting.append((onResult, lambda: func(*args)))

    def run(self) -> int:
        """Do everything that waits; returns how much it was."""
        waiting, self._waiting = self._waiting, []
        for on_result, work in waiting:
            try:
                success, result = True, work()
            except Exception:  # as a pool does: the failure is the result
                success, result = False, Failure()
            if on_result is not None:
                on_result(success, result)
        return len(waiting)


class ThreadClock(Clock):
    """A clock that can be called from a thread, as a reactor can."""

    def callFromThread(self, callable: Callable[..., object], *args: object, **kw: object) -> None:
        """Call at once: there is only one thread."""
        callable(*args, **kw)
