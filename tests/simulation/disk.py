"""A journal that keeps the contract of the real one without a thread.

Its rows are on a L{Disk}, which outlives the process of the home: what was committed is there afterwards,
whatever was not is gone.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from random import Random

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from rvpfarm.home.records import Change, Saved
from rvpfarm.protocol.calls import Busy
from tests.simulation.timeline import Process
from tests.support.disk import Disk

Then = Callable[[Failure | None], None]


class StepJournal(Service):
    """What L{rvpfarm.home.journal.Journal} promises: order, group commit, all or none, L{Busy} at its limit."""

    def __init__(
        self,
        disk: Disk,
        process: Process,
        random: Random,
        *,
        queue_limit: int = 10000,
        lazy_seconds: float = 0.2,
    ) -> None:
        """
        @param random: decides how long a commit takes, and whether one that was under way when the process
            died got through.
        """
        self.incarnation = 0
        self._disk, self._process, self._random = disk, process, random
        self._queue_limit, self._lazy_seconds = queue_limit, lazy_seconds
        self._queue: list[tuple[Sequence[Change], Then | None]] = []
        self._under_way = 0
        self._committing = False
        self._waking: float | None = None
        self._closed = False
        self._stopped: Deferred[None] | None = None
        self._begun: list[Change] = []

    @property
    def depth(self) -> int:
        """How many changes are on their way to the disk."""
        return self._under_way

    def load(self, take: Callable[[Saved], None], forget: Callable[[], None]) -> None:
        """Read everything back, and count the start."""
        self._open()
        take(self._disk.read())

    def _open(self) -> None:
        if not self.incarnation:
            self.incarnation = max(int(self._process.seconds()), self._disk.incarnation + 1)
            self._disk.incarnation = self.incarnation
            self._disk.opened()

    def startService(self) -> None:
        """Begin to write."""
        super().startService()
        self._open()
        self._wake()

    def write(self, changes: Sequence[Change], then: Then | None) -> None:
        """Write C{changes} after everything that was written before.

        @raise Busy: the disk cannot keep up, or the journal is stopped.
        """
        if self._closed or self._under_way >= self._queue_limit:
            raise Busy("the journal is full")
        self._under_way += len(changes) or 1
        self._queue.append((changes, then))
        self._wake()

    def stopService(self) -> Deferred[None]:
        """Write what is queued, then close."""
        super().stopService()
        self._closed = True
        if not self._queue and not self._committing:
            return succeed(None)
        self._stopped = Deferred()
        self._wake()
        return self._stopped

    def die(self) -> None:
        """The process was killed: a commit that was under way is on the disk, or it is not."""
        if self._begun and self._random.random() < 0.5 and not self._disk.full:
            self._disk.commit(self._begun)

    def _wake(self) -> None:
        """See that what is queued is committed: at once if somebody waits, else before long."""
        if self._committing or not self._queue or (not self.running and not self._closed):
            return
        urgent = self._closed or any(then is not None for _, then in self._queue)
        when = self._process.seconds() + (0 if urgent else self._lazy_seconds)
        if self._waking is None or when < self._waking:
            self._waking = when
            self._process.callLater(when - self._process.seconds(), self._begin, when)

    def _begin(self, when: float) -> None:
        """Take everything that is queued."""
        if self._waking != when:
            return
        self._waking = None
        batch, self._queue = self._queue, []
        self._committing = True
        self._begun = [change for changes, _ in batch for change in changes]
        self._process.callLater(self._random.uniform(0.0005, 0.012) * self._disk.slow, self._commit, batch)

    def _commit(self, batch: list[tuple[Sequence[Change], Then | None]]) -> None:
        """The disk has taken the batch, or refuses it."""
        problem: Failure | None = None
        try:
            self._disk.commit(self._begun)
        except sqlite3.OperationalError:
            problem = Failure()
        self._begun = []
        # as callFromThread: those who wait are told in a turn of their own
        self._process.callLater(0, self._settle, batch, problem)
        self._committing = False
        self._wake()

    def _settle(self, batch: list[tuple[Sequence[Change], Then | None]], problem: Failure | None) -> None:
        for changes, then in batch:
            self._under_way -= len(changes) or 1
            if then is not None:
                then(problem)
        if self._stopped is not None and not self._queue and not self._committing:
            stopped, self._stopped = self._stopped, None
            stopped.callback(None)
