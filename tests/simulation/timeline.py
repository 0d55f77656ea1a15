"""One clock for everything, jumping from event to event; and processes that can be killed or frozen on it."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Any

from twisted.internet.base import DelayedCall
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer


class Stuck(Exception):
    """So much happened at one moment that time no longer passes."""


@implementer(IReactorTime)
class Process:
    """What one process of the farm takes for its reactor.

    @ivar alive: it was not killed; a dead one is never called again.
    """

    def __init__(self, timeline: Timeline, name: str) -> None:
        """
        @param name: for the trace.
        """
        self._timeline = timeline
        self.name = name
        self.alive = True
        self._frozen: list[DelayedCall] | None = None

    def seconds(self) -> float:
        """The time."""
        return self._timeline.now

    # Any: as IReactorTime has it
    def callLater(
        self, delay: float, callable: Callable[..., Any], *args: object, **kw: object
    ) -> DelayedCall:
        """Call in C{delay} seconds, if it lives then."""
        return self._timeline.schedule(self, delay, callable, args, kw)

    def callFromThread(self, callable: Callable[..., Any], *args: object, **kw: object) -> None:
        """Call soon: there are no threads here."""
        self.callLater(0, callable, *args, **kw)

    def getDelayedCalls(self) -> list[DelayedCall]:
        """What it still waits for."""
        return self._timeline.waiting(self)

    def kill(self) -> None:
        """C{kill -9}."""
        self.alive = False
        self._frozen = None

    @property
    def frozen(self) -> bool:
        """Is it stopped, as by SIGSTOP?"""
        return self._frozen is not None

    def freeze(self) -> None:
        """Stop it, as SIGSTOP does: what falls due waits."""
        if self.alive and self._frozen is None:
            self._frozen = []

    def thaw(self) -> None:
        """Let it go on, with everything that fell due meanwhile at once, in order."""
        overdue, self._frozen = self._frozen, None
        for call in overdue or ():
            self._timeline.put(self, call)

    def postpone(self, call: DelayedCall) -> bool:
        """Is C{call}, which is due, to wait until the process goes on?"""
        if self._frozen is None:
            return False
        self._frozen.append(call)
        return True


class Timeline:
    """The future: what is to be called when, over all processes.

    Calls due at the same moment are made in the order in which they were asked for.

    @ivar now: the time, in seconds.
    @ivar current: the process that is running.
    @ivar events: how many calls were made.
    """

    #: Calls at one moment, at most.
    MOST_AT_ONCE = 200_000

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now
        self.events = 0
        self.current: Process | None = None
        self._queue: list[tuple[float, int, DelayedCall, Process]] = []
        self._numbers = count()

    # Any: as IReactorTime has it
    def schedule(
        self,
        process: Process,
        delay: float,
        callable: Callable[..., Any],
        args: tuple[object, ...],
        kw: dict[str, object],
    ) -> DelayedCall:
        """Have C{process} call something in C{delay} seconds."""
        assert delay >= 0, f"{process.name} wants to call into the past: {callable}"

        def moved(call: DelayedCall) -> None:
            self.put(process, call)

        call = DelayedCall(self.now + delay, callable, args, kw, lambda call: None, moved, lambda: self.now)
        self.put(process, call)
        return call

    def put(self, process: Process, call: DelayedCall) -> None:
        """Put C{call} into its place."""
        heappush(self._queue, (max(call.time, self.now), next(self._numbers), call, process))

    def waiting(self, process: Process) -> list[DelayedCall]:
        """What C{process} still waits for."""
        calls = {id(call): call for _, _, call, owner in self._queue if owner is process}
        return [call for call in calls.values() if call.active()]

    def run(self, until: float, watch: Callable[[], bool] = lambda: False) -> None:
        """Let everything happen that happens up to C{until}.

        @param watch: asked after every call; true ends the run there.
        @raise Stuck: time no longer passes.
        """
        at_once, moment = 0, self.now
        while self._queue and self._queue[0][0] <= until:
            when, _, call, process = heappop(self._queue)
            if not call.active() or not process.alive:
                continue
            due = call.getTime()
            if due > when:
                self.put(process, call)
                continue
            if when > moment:
                at_once, moment = 0, when
            at_once += 1
            if at_once > self.MOST_AT_ONCE:
                raise Stuck(f"{at_once} calls at {when}, the last one {call.func} of {process.name}")
            self.now = when
            if process.postpone(call):
                continue
            call.called = 1
            self.events += 1
            self.current = process
            try:
                call.func(*call.args, **call.kw)
            finally:
                self.current = None
            if watch():
                return
        self.now = max(self.now, until)
