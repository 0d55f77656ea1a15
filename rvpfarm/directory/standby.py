"""Keeping a snapshot of the directory on disk, so that a daemon can start while the directory is down."""

from __future__ import annotations

import math
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from rvpfarm.directory.asking import Threads
from rvpfarm.directory.cache import CachedDirectory
from rvpfarm.directory.snapshot import (
    SALT_OCTETS,
    BadSnapshot,
    Head,
    Kept,
    Sealing,
    Snapshot,
    read_snapshot,
)
from rvpfarm.directory.spans import spell_span

if TYPE_CHECKING:
    from rvpfarm.observe.metrics import Metrics

#: How often it is looked whether there is something new to keep, and the least time between two snapshots.
LOOK_SECONDS = 5.0
LEAST_SECONDS = 60.0
#: After one that took long, so many times as long passes until the next one.
REST_FACTOR = 20
#: What has not changed is kept anew after this time, or a part of the policy's, for its age counts.
REFRESH_SECONDS, REFRESH_PART = 3600.0, 24

#: So many accounts are taken in one turn of the loop, and then the loop is left alone for a while: what is
#: done with them in a thread holds up everything else as well.
SLICE, PAUSE_SECONDS = 100, 0.01

#: How far the clocks of two machines, or of one before and after a restart, may be apart.
SKEW_SECONDS = 60.0

#: Unfinished files that nobody has written to for so long were left behind by a process that was killed.
_ABANDONED_SECONDS = 900.0
_UNFINISHED = ".unfinished"
#: A file system that gets everything at once at the end would keep others waiting that long.
_SYNC_OCTETS = 4 * 2**20

_Result = TypeVar("_Result")


class Draft(Protocol):
    """A snapshot that is being written, which blocks; it takes the place of the one before at L{finish}."""

    def add(self, accounts: Sequence[Kept]) -> None:
        """Some accounts more."""

    def finish(self) -> int:
        """Everything was added: from now on this is the snapshot.  Returns its size in octets."""

    def discard(self) -> None:
        """Leave no trace."""


class Shelf(Protocol):
    """Where the snapshot is kept; L{SnapshotFile}, or a test's own."""

    def begin(self, head: Head) -> Draft:
        """Begin to write a new one; it blocks.

        @raise OSError: it cannot be written; also by everything that is done with the draft.
        """


@dataclass(frozen=True, slots=True)
class Recalled:
    """A snapshot that was read, and what there is to know about its file."""

    snapshot: Snapshot
    age_seconds: float
    octets: int


class SnapshotFile:
    """A snapshot in a file that only its owner may read, sealed with the farm key.

    @ivar path: where it is.
    """

    def __init__(self, path: Path, key: bytes, *, random: Callable[[int], bytes] = os.urandom) -> None:
        """
        @param key: C{rvpfarm.auth.keys.FarmKey.snapshot}.
        @param random: that many unpredictable octets.
        """
        self.path = path
        self._key = key
        self._random = random

    def read(self, now: float, *, verifiers: bool) -> Recalled | None:
        """What was kept, if there is a file and it may be used; C{None} without one.

        @param now: the time, in seconds since 1970.
        @param verifiers: only accounts with what their users' passwords are checked by are of use.
        @raise BadSnapshot: it may not be used; a sentence that names the file.
        """
        try:
            if not stat.S_ISREG(self.path.stat().st_mode):
                raise BadSnapshot("is no file")
            with self.path.open("rb") as file:
                octets = os.fstat(file.fileno()).st_size
                snapshot = read_snapshot(self._key, file)
            age = self._age(snapshot.head, now)
            if verifiers and not snapshot.head.verifiers:
                raise BadSnapshot("was made by a router, and does not say what passwords are checked by")
        except FileNotFoundError:
            return None
        except OSError as problem:
            raise BadSnapshot(f"the snapshot {self.path} cannot be read: {problem.strerror}") from problem
        except BadSnapshot as problem:
            raise BadSnapshot(f"the snapshot {self.path} {problem}") from problem
        return Recalled(snapshot, age, octets)

    def _age(self, head: Head, now: float) -> float:
        """
        @raise BadSnapshot: too great, or less than nothing.
        """
        age, limit = now - head.confirmed, float(head.farm.policy("directory-staleness"))
        if age < -SKEW_SECONDS:
            raise BadSnapshot(f"is from {spell_span(-age)} in the future: this machine's clock is wrong")
        if age > limit:
            oldest = f"directory-staleness allows {spell_span(limit)}"
            raise BadSnapshot(f"is {spell_span(age)} old, and the policy {oldest}")
        return max(0.0, age)

    def begin(self, head: Head) -> Draft:
        """Begin to write a new one; see L{Shelf}."""
        self._sweep()
        return _FileDraft(self.path, Sealing(self._key, self._random(SALT_OCTETS)), head)

    def _sweep(self) -> None:
        """Remove what processes that were killed left behind."""
        for path in self.path.parent.glob(f".{self.path.name}.*{_UNFINISHED}"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                    path.unlink()


class _FileDraft:
    """A file of its own, whoever else writes one, until it is whole and on the disk."""

    def __init__(self, path: Path, sealing: Sealing, head: Head) -> None:
        self._path, self._sealing = path, sealing
        descriptor, name = tempfile.mkstemp(_UNFINISHED, f".{path.name}.", path.parent)
        self._name = Path(name)
        self._file = os.fdopen(descriptor, "wb")
        self._octets = self._synced = 0
        with self._whole():
            self._write(sealing.begin(head))

    def add(self, accounts: Sequence[Kept]) -> None:
        """Some accounts more."""
        with self._whole():
            self._write(self._sealing.add(accounts))

    def finish(self) -> int:
        """Put it in the place of the one before, in a way that survives a power cut."""
        with self._whole():
            self._write(self._sealing.end())
            self._sync()
            self._file.close()
            self._name.replace(self._path)
            descriptor = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        return self._octets

    def discard(self) -> None:
        """Leave no trace."""
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._name.unlink()

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """If it cannot be done, nothing is left of all of it."""
        try:
            yield
        except BaseException:
            self.discard()
            raise

    def _write(self, octets: bytes) -> None:
        self._file.write(octets)
        self._octets += len(octets)
        if self._octets - self._synced >= _SYNC_OCTETS:
            self._sync()

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._synced = self._octets


class Standby(Service):
    """Keeps a snapshot of a L{CachedDirectory} on a L{Shelf}, new whenever there is something new to keep.

    A shelf that fails is told of once until it works again, and stops nothing.
    """

    _log = Logger()

    def __init__(
        self,
        directory: CachedDirectory,
        shelf: Shelf,
        # Any: time and threads, which no one interface has together
        reactor: Any,
        *,
        verifiers: bool,
        wall: Callable[[], float] = time.time,
        metrics: Metrics | None = None,
        threads: Threads | None = None,
    ) -> None:
        """
        @param verifiers: keep what passwords are checked by.
        @param wall: the time in seconds since 1970, which goes on while nothing runs.
        @param threads: where it is written; left out, a thread of its own.
        """
        self._directory, self._shelf, self._reactor = directory, shelf, reactor
        self._verifiers, self._wall, self._metrics = verifiers, wall, metrics
        self._threads: Threads = threads or ThreadPool(0, 1, "snapshot")
        self._timer: IDelayedCall | None = None
        self._writing: Deferred[None] | None = None
        self._hurried = False
        self._failing = False
        self._edition: int | None = None
        self._confirmed = -math.inf
        self._octets = self._accounts = 0
        self._next = 0.0
        if metrics is not None:
            metrics.gauge("snapshot_age_seconds", lambda: self.age_seconds)
            metrics.gauge("snapshot_size_bytes", lambda: self._octets)
            metrics.gauge("snapshot_accounts", lambda: self._accounts)

    @property
    def age_seconds(self) -> float:
        """How old what the snapshot says is; not a number when there is none."""
        return max(0.0, self._wall() - self._confirmed) if math.isfinite(self._confirmed) else math.nan

    def recalled(self, found: Recalled) -> None:
        """The snapshot on the shelf is C{found}, and the directory has just been told of it."""
        self._edition = self._directory.edition
        self._confirmed = found.snapshot.head.confirmed
        self._octets, self._accounts = found.octets, len(found.snapshot.accounts)

    def startService(self) -> None:
        """Keep a snapshot from now on."""
        super().startService()
        self._threads.start()
        self._timer = self._reactor.callLater(LOOK_SECONDS, self._look)

    def stopService(self) -> Deferred[None]:
        """Keep the last state, if there is anything new about it; fires when that is done."""
        super().stopService()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._hurried = True
        return Deferred.fromCoroutine(self._finish())

    async def _finish(self) -> None:
        if self._writing is not None:
            await self._writing
        if self._news:
            await self._write()
        self._threads.stop()

    @property
    def _news(self) -> bool:
        """Is there something to keep that is not kept yet?"""
        if self._edition != self._directory.edition:
            return True
        least = max(LEAST_SECONDS, min(REFRESH_SECONDS, self._directory.limit_seconds / REFRESH_PART))
        return self._now_confirmed() - self._confirmed >= least

    def _now_confirmed(self) -> float:
        """When what is remembered was last known to be current, in seconds since 1970."""
        return self._wall() - self._directory.staleness_seconds

    def _look(self) -> None:
        """Write, if it is time."""
        self._timer = self._reactor.callLater(LOOK_SECONDS, self._look)
        if self._writing is None and self._news and self._reactor.seconds() >= self._next:
            self._writing = Deferred.fromCoroutine(self._write())

            def written(_: object) -> None:
                self._writing = None

            # what goes wrong is dealt with in _write
            self._writing.addBoth(written)

    async def _write(self) -> None:
        """Write one snapshot."""
        began = self._reactor.seconds()
        edition, confirmed = self._directory.edition, self._now_confirmed()
        try:
            octets, accounts = await self._write_all(confirmed)
        except (OSError, BadSnapshot) as problem:
            self._failed(str(getattr(problem, "strerror", None) or problem))
        except Exception:  # or nothing would be kept from now on, in silence
            self._failed("there is a fault in the program")
            self._log.failure("the snapshot could not be made")
        else:
            self._edition, self._confirmed = edition, confirmed
            self._octets, self._accounts = octets, accounts
            self._count("written")
            if self._failing:
                self._failing = False
                self._log.info("the snapshot of the directory can be written again")
        ended = self._reactor.seconds()
        self._next = ended + max(LEAST_SECONDS, REST_FACTOR * (ended - began))

    async def _write_all(self, confirmed: float) -> tuple[int, int]:
        """The size in octets and in accounts of a new snapshot."""
        head = self._directory.head(confirmed, verifiers=self._verifiers)
        draft = await self._do(self._shelf.begin, head)
        count = 0
        page: int | None = 0
        try:
            while page is not None:
                accounts, page = self._directory.accounts(page, SLICE)
                count += len(accounts)
                await self._do(draft.add, accounts)
                if not self._hurried:
                    await deferLater(self._reactor, PAUSE_SECONDS)
            return await self._do(draft.finish), count
        except Exception:
            await self._do(draft.discard)
            raise

    # C{Any}: whatever the function takes
    def _do(self, work: Callable[..., _Result], *arguments: Any) -> Deferred[_Result]:
        """Do what blocks in the thread."""
        done: Deferred[_Result] = Deferred()

        def ended(success: bool, result: Any) -> None:  # the result or a failure
            self._reactor.callFromThread(done.callback if success else done.errback, result)

        self._threads.callInThreadWithCallback(ended, work, *arguments)
        return done

    def _failed(self, reason: str) -> None:
        self._count("failed")
        if not self._failing:
            self._failing = True
            self._log.warn(
                "the snapshot of the directory cannot be written: {reason}; everything else goes on",
                reason=reason,
            )

    def _count(self, outcome: str) -> None:
        if self._metrics is not None:
            self._metrics.snapshot_write(outcome)
