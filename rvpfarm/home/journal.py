"""SQLite in one thread of its own: group commit, replay.

What was acknowledged survives the end of the process at any moment: the database runs in WAL mode with
C{synchronous=FULL}, and C{then} is called after the commit.  The state itself is disposable (a lease or a
new login heals it), so a database that cannot be trusted is moved aside and a new one begun.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from rvpfarm.home.records import Change, Saved
from rvpfarm.home.tables import APPLICATION, CONVERSION, SCHEMA, VERSION, Numbers, pieces, steps
from rvpfarm.protocol.calls import Busy

#: Called in the reactor's thread once a write is on disk (with C{None}) or has failed.
Then = Callable[[Failure | None], None]


class JournalMetrics(Protocol):
    """What the journal reports to C{rvpfarm.observe.metrics}."""

    def journal_commit(self, size: int, seconds: float) -> None:
        """C{size} changes were committed together within C{seconds}."""


class JournalReactor(Protocol):
    """What the journal needs of a reactor."""

    def seconds(self) -> float:
        """Wall time."""

    def callFromThread(self, callable: Callable[..., Any], *args: object, **kwargs: object) -> None:
        """Call in the reactor's thread."""


class JournalUnusable(Exception):
    """The journal cannot be opened, for a reason that moving it aside would not mend.

    Its text is one sentence for the administrator.
    """


class _Damaged(Exception):
    """The database is not one that this version can trust."""


class _Write:
    """One call of L{Journal.write}, on its way."""

    __slots__ = ("changes", "problem", "size", "then")

    def __init__(self, changes: Sequence[Change], then: Then | None) -> None:
        """
        @param changes: executed in this order, all or none.
        """
        self.changes = changes
        self.then = then
        self.size = len(changes) or 1  # a write of nothing still waits for its turn
        self.problem: Failure | None = None


class Journal(Service):
    """Writes a home's state down, many writes in one commit, without ever holding up the reactor.

    @ivar incarnation: grows with every start of this home, also when its state is lost in between, for it
        is never less than the time of the start in seconds; 0 until L{load} or C{startService}.
    @ivar failing: the last commit failed.
    """

    _log = Logger()

    def __init__(
        self,
        path: str | Path,
        reactor: JournalReactor,
        *,
        metrics: JournalMetrics | None = None,
        queue_limit: int = 10000,
        lazy_seconds: float = 0.2,
    ) -> None:
        """
        @param path: the database file.  Nothing is touched before L{load} or C{startService}.
        @param queue_limit: most changes that may be under way; then L{write} raises L{Busy}.
        @param lazy_seconds: how long writes that nobody waits for may wait for company.
        """
        self.incarnation = 0
        self.failing = False
        self._path = Path(path)
        self._reactor = reactor
        self._metrics = metrics
        self._queue_limit = queue_limit
        self._lazy_seconds = lazy_seconds
        self._database: sqlite3.Connection | None = None
        self._numbers: Numbers | None = None
        self._thread: threading.Thread | None = None
        self._stopped: Deferred[None] | None = None
        self._closed = False
        self._under_way = 0  # changes queued or being committed; the reactor's thread alone counts
        # shared with the writer thread, under the condition's lock:
        self._wake = threading.Condition()
        self._queue: list[_Write] = []
        self._urgent = False
        self._stopping = False

    @property
    def depth(self) -> int:
        """How many changes are on their way to the disk."""
        return self._under_way

    def load(self, take: Callable[[Saved], None], forget: Callable[[], None]) -> None:
        """Read everything back.  For the time before serving: it waits for the disk.

        @param take: given what there is, piece by piece.
        @param forget: told that what was given so far was damaged, before it all begins anew.
        @raise JournalUnusable: there is nothing to be done without the administrator.
        """
        database = self._open()
        for _ in range(2):
            try:
                for piece in _intact(database):
                    take(piece)
                return
            except _Damaged as problem:
                self._log.warn("journal {path} cannot be read: {problem}", path=self._path, problem=problem)
                forget()
                database.close()
                self._move_aside()
                self._database = None
                database = self._open()
        raise JournalUnusable(f"The journal {self._path} cannot be read, not even after a fresh start.")

    def write(self, changes: Sequence[Change], then: Then | None) -> None:
        """Write C{changes} down, in order, all or none, after everything that was written before.

        @param then: called once from the reactor after the commit, with C{None}, or with what went wrong.
        @raise Busy: the disk cannot keep up, or the journal is stopped.
        """
        if self._closed or self._under_way >= self._queue_limit:
            raise Busy("the journal is full")
        write = _Write(changes, then)
        self._under_way += write.size
        with self._wake:
            self._queue.append(write)
            if then is not None:
                self._urgent = True
            if then is not None or len(self._queue) == 1:
                self._wake.notify()

    def startService(self) -> None:
        """Start the writer; what was queued before is written now."""
        super().startService()
        self._open()
        self._closed = self._stopping = False
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def stopService(self) -> Deferred[None]:
        """Write what is queued, then close.  Fires when it is done."""
        super().stopService()
        self._closed = True
        if self._thread is None:
            self._close()
            return succeed(None)
        self._stopped = Deferred()
        with self._wake:
            self._stopping = True
            self._wake.notify()
        return self._stopped

    # In the writer thread.

    def _run(self) -> None:
        """Commit what is queued, again and again, until stopped."""
        while True:
            batch = self._next_batch()
            if not batch:
                break
            started = time.monotonic()
            self._commit(batch)
            seconds = time.monotonic() - started
            self._reactor.callFromThread(self._settle, batch, seconds)
        try:
            self._close()
        finally:
            self._reactor.callFromThread(self._finish)

    def _next_batch(self) -> list[_Write]:
        """Wait for work; empty when there is none left and the journal stops."""
        with self._wake:
            while not self._queue and not self._stopping:
                self._wake.wait()
            if not self._urgent and not self._stopping:
                self._wake.wait_for(lambda: self._urgent or self._stopping, self._lazy_seconds)
            batch, self._queue, self._urgent = self._queue, [], False
            return batch

    def _commit(self, batch: list[_Write]) -> None:
        """Write C{batch} in one transaction, noting in each write what went wrong with it.

        Trouble with the disk fails them all.  A write that SQLite cannot take at all (a number too large,
        say) fails alone: the others are tried again one by one.
        """
        try:
            self._transact(batch)
        except Exception as problem:
            if len(batch) == 1 or _is_trouble(problem):
                failure = Failure()
                for write in batch:
                    write.problem = failure
            else:
                for write in batch:
                    self._commit([write])

    def _transact(self, batch: list[_Write]) -> None:
        """One transaction, whole or not at all."""
        database, numbers = self._database, self._numbers
        assert database is not None
        assert numbers is not None
        changes = [change for write in batch for change in write.changes]
        if not changes:
            return
        try:
            database.execute("BEGIN IMMEDIATE")
            for statement, rows in steps(changes, numbers):
                database.executemany(statement, rows)
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:
                database.rollback()
            raise

    def _close(self) -> None:
        """Close the database, which also folds the WAL into it."""
        if self._database is not None:
            self._database.close()
            self._database = None

    # In the reactor's thread.

    def _settle(self, batch: list[_Write], seconds: float) -> None:
        """Tell everyone in C{batch} how it went."""
        size = sum(write.size for write in batch)
        self._under_way -= size
        for write in batch:
            self._judge(write.problem)
            if write.then is not None:
                try:
                    write.then(write.problem)
                except Exception:  # or the others would never hear of it
                    self._log.failure("a write was settled, and its caller failed")
        if self._metrics is not None:
            try:
                self._metrics.journal_commit(size, seconds)
            except Exception:  # counting never stops the home
                self._log.failure("a commit could not be counted")

    def _judge(self, problem: Failure | None) -> None:
        """Log the beginning and the end of trouble with the disk once each, and every write that is a bug."""
        if problem is None:
            if self.failing:
                self._log.info("journal {path} can be written again", path=self._path)
            self.failing = False
        elif not _is_trouble(problem.value):
            self._log.failure("journal {path} cannot hold a write", problem, path=self._path)
        elif not self.failing:
            self.failing = True
            self._log.failure("journal {path} cannot be written", problem, path=self._path)

    def _finish(self) -> None:
        """The writer is through."""
        assert self._thread is not None
        self._thread.join()
        self._thread = None
        stopped, self._stopped = self._stopped, None
        if stopped is not None:
            stopped.callback(None)

    # Opening.

    def _open(self) -> sqlite3.Connection:
        """The database, opened, checked and with its incarnation counted up."""
        if self._database is not None:
            return self._database
        try:
            try:
                database = self._prepare()
            except _Damaged as damage:
                self._log.warn("journal {path} is moved aside: {damage}", path=self._path, damage=damage)
                self._move_aside()
                database = self._prepare()
        except (OSError, sqlite3.Error, _Damaged) as problem:
            hint = "is another home running on it?" if "locked" in str(problem) else "see to its directory."
            text = f"The journal {self._path} cannot be opened ({problem}): {hint}"
            raise JournalUnusable(text) from problem
        self._database = database
        return database

    def _prepare(self) -> sqlite3.Connection:
        """Open the file, make its tables if it is new, and count up the incarnation.

        @raise _Damaged: it is not an intact journal of this version.
        @raise JournalUnusable: it is the database of some other program.
        """
        self._path.touch(mode=0o600)
        database = sqlite3.connect(self._path, timeout=0.0, isolation_level=None, check_same_thread=False)
        try:
            # exclusive: a second process on the same state is a mistake, and the WAL needs no shared memory
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            version = self._version(database)
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            database.execute("PRAGMA journal_size_limit = 67108864")
            (verdict,) = database.execute("PRAGMA integrity_check(1)").fetchone()
            if verdict != "ok":
                raise _Damaged(verdict)
            self.incarnation = _begin(database, version, int(self._reactor.seconds()))
            self._numbers = Numbers(database)
        except sqlite3.DatabaseError as problem:
            database.close()
            if _is_damage(problem):
                raise _Damaged(str(problem)) from problem
            raise
        except BaseException:
            database.close()
            raise
        return database

    def _version(self, database: sqlite3.Connection) -> int:
        """The version of the tables, 0 if there are none yet."""
        (tables,) = database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if tables == 0:
            return 0
        (application,) = database.execute("PRAGMA application_id").fetchone()
        if application != APPLICATION:
            raise JournalUnusable(f"{self._path} is a database, but not a home's journal: name another file.")
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version not in (1, VERSION):
            raise _Damaged(f"its layout has version {version}, not {VERSION}")
        return int(version)

    def _move_aside(self) -> None:
        """Rename the database and what belongs to it, so that a new one can be begun."""
        stamp = datetime.fromtimestamp(self._reactor.seconds(), UTC).strftime("%Y%m%dT%H%M%SZ")
        aside = f"{self._path}.damaged-{stamp}"
        for suffix in ("-wal", "-shm", "-journal", ""):
            part = Path(f"{self._path}{suffix}")
            if part.exists():
                part.rename(f"{aside}{suffix}")


def _intact(database: sqlite3.Connection) -> Iterator[Saved]:
    """What is in the database, piece by piece.

    @raise _Damaged: a piece of it cannot be read.
    """
    try:
        yield from pieces(database)
    except (sqlite3.DatabaseError, ValueError, TypeError) as problem:
        raise _Damaged(str(problem)) from problem


def _begin(database: sqlite3.Connection, version: int, least: int) -> int:
    """Make the tables if need be, or convert those of version 1, and count this start: all or nothing.

    @param least: an incarnation number that was not reached before.
    @return: the new incarnation number.
    """
    database.execute("BEGIN IMMEDIATE")
    for statement in {0: SCHEMA, 1: CONVERSION}.get(version, ()):
        database.execute(statement)
    database.execute(f"PRAGMA application_id = {APPLICATION}")
    database.execute(f"PRAGMA user_version = {VERSION}")
    row = database.execute("SELECT value FROM meta WHERE key = '#incarnation'").fetchone()
    incarnation = least if row is None else max(least, int(row[0]) + 1)
    database.execute("REPLACE INTO meta VALUES ('#incarnation', ?)", (str(incarnation),))
    database.execute("COMMIT")
    return incarnation


def _is_damage(problem: sqlite3.DatabaseError) -> bool:
    """Does SQLite say that the file is broken, rather than out of reach?"""
    code = getattr(problem, "sqlite_errorcode", 0) & 0xFF
    # SQLITE_ERROR: "no such table" and its like
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)


def _is_trouble(problem: BaseException | None) -> bool:
    """Is it about the disk or the file, not about one write?"""
    return type(problem) in (sqlite3.OperationalError, sqlite3.DatabaseError)
