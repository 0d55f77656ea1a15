"""The directory in an SQL database: SQLite for one machine, PostgreSQL for many.

Everything here waits for the disk or the network; it is called from threads and commands, never from
the reactor.  Several processes may use one database at once.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event, exc, inspect, make_url, select

from rvpfarm.directory import schema, tables
from rvpfarm.directory.reading import KEY_CHECK, Reading, Sealer, StoreProblem
from rvpfarm.directory.writing import Writing

# how long a connection waits for the database server
_CONNECT_SECONDS = 5

# libpq: a server that has gone without a word is noticed within some ten seconds, not when TCP gives up
_NOTICE_LOSS = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}

# how long another process may take to turn a new file to write-ahead logging
_WAL_SECONDS = 10.0

# where a connection's record tells which file it has open
_FILE = "rvpfarm file"

# what SQLAlchemy raises when the database itself fails us, not our statement
_OUTSIDE = (exc.OperationalError, exc.InterfaceError, exc.InternalError, exc.TimeoutError)


class Store:
    """One directory.  Nothing is opened before it is needed, and everything is checked before it is used.

    @ivar sealer: the farm key, or C{None} where secrets are neither read nor made.
    @ivar where: the database's address without its password, for people.
    """

    def __init__(
        self,
        url: str,
        key: Sealer | None = None,
        *,
        now: Callable[[], float] = time.time,
        busy_seconds: float = 10.0,
        changes_kept: int = 100_000,
    ) -> None:
        """
        @param url: C{sqlite:///...} or C{postgresql://...}.
        @param key: the farm key; without it accounts come without verifiers.
        @param now: the time, for what is recorded.
        @param busy_seconds: how long a writer waits for another one (SQLite).
        @param changes_kept: how much of the feed of changes is kept; a cache that was away for longer
            starts afresh.
        @raise StoreProblem: the address cannot be used.
        """
        self.sealer = key
        self._now = now
        self._changes_kept = changes_kept
        self._url = _parse_url(url)
        self.where = self._url.render_as_string(hide_password=True)
        self._engine = _make_engine(self._url, busy_seconds)
        self._checked = False
        self._served = False
        self._rehearsing = False
        self._within: Collection[str] | None = None

    @property
    def path(self) -> Path | None:
        """The database file, if it is one."""
        return database_path(self._url)

    @property
    def exists(self) -> bool:
        """Is there a database at all?  It may still lack its tables."""
        return self.path is None or self.path.exists()

    def close(self) -> None:
        """Give every connection back."""
        self._engine.dispose()

    def revision(self) -> str | None:
        """The revision of the tables; C{None} when there are none.

        @raise StoreProblem: the database cannot be read.
        """
        if not self.exists:
            return None
        with self._connection(write=False) as connection:
            return schema.revision_of(connection)

    def is_bound(self) -> bool:
        """Are there secrets here that were sealed with some farm key?

        @raise StoreProblem: the database cannot be read.
        """
        if not self.exists:
            return False
        with self._connection(write=False) as connection:
            if not inspect(connection).has_table(tables.ledger.name):
                return False
            return connection.execute(select(tables.ledger.c.key_check)).scalar_one_or_none() is not None

    def upgrade(self) -> str | None:
        """Make the tables, or bring them to the revision that this program needs.

        @return: the revision they had before.
        @raise StoreProblem: it cannot be done, or they are newer than this program.
        """
        self._make_file()
        with self._connection(write=True) as connection:
            schema.lock(connection)
            before = schema.revision_of(connection)
            if before is not None and before not in schema.known_revisions():
                raise StoreProblem(f"the directory {self.where} {schema.mismatch(before)}; upgrade rvpfarm")
            schema.upgrade(connection)
        return before

    def check(self) -> None:
        """Make sure that this program, its farm key and the directory belong together.

        @raise StoreProblem: they do not, or there is no directory.
        """
        remedy = f'run "rvpfarm --directory {self.where} init"'
        if not self.exists:
            # made anew it would be an empty one, in which nobody has an account
            advice = "put back the one that was there" if self._served else remedy
            raise StoreProblem(f"there is no directory at {self.path}; {advice}")
        with self._connection(write=False) as connection:
            revision = schema.revision_of(connection)
            problem = schema.mismatch(revision)
            if problem:
                newer = revision is not None and revision not in schema.known_revisions()
                raise StoreProblem(
                    f"the directory {self.where} {problem}; {'upgrade rvpfarm' if newer else remedy}"
                )
            self._check_key(connection)
        self._checked = self._served = True

    def limited(self, *, rehearsing: bool = False, within: Collection[str] | None = None) -> Store:
        """The same directory, for whoever is not to do everything with it; only this one is to be closed.

        @param rehearsing: changes are made and taken back at once, so that nothing of them stays.
        @param within: the only IM domains whose accounts may change; nothing farm-wide may.
        """
        store = copy(self)
        store._rehearsing, store._within = rehearsing, within
        return store

    @contextmanager
    def read(self) -> Iterator[Reading]:
        """One transaction that only reads.

        @raise StoreProblem: the database cannot be used.
        """
        if not self._checked:
            self.check()
        with self._connection(write=False) as connection:
            yield Reading(connection, self.sealer)

    @contextmanager
    def change(self, actor: str, action: str, subject: str) -> Iterator[Writing]:
        """One change: all of it happens, with its audit row, or none of it.

        @param actor: who makes it.
        @param action: noun and verb.
        @param subject: what it is made to.
        @raise StoreProblem: the database cannot be used.
        @raise OutOfBounds: it goes beyond what this store is L{limited} to.
        """
        if not self._checked:
            self.check()
        with self._connection(write=True) as connection:
            writing = Writing(
                connection,
                self.sealer,
                actor=actor,
                action=action,
                subject=subject,
                now=self._now(),
                changes_kept=self._changes_kept,
            )
            yield writing
            if self._within is not None:
                writing.check_within(self._within)
            writing.finish()
            if self._rehearsing:
                connection.rollback()

    @contextmanager
    def _connection(self, *, write: bool) -> Iterator[Connection]:
        try:
            with self._engine.connect() as connection:
                connection.execution_options(rvpfarm_write=write)
                with connection.begin():
                    yield connection
        except _OUTSIDE as problem:
            self._checked = False  # what comes back may be another one, such as an older copy
            raise StoreProblem(f"the directory {self.where} cannot be used: {_reason(problem)}") from problem
        except exc.DatabaseError as problem:
            if type(problem) is not exc.DatabaseError:
                raise  # a statement of ours that the database refused: a bug, not an outage
            raise StoreProblem(f"the directory {self.where} cannot be used: {_reason(problem)}") from problem

    def _check_key(self, connection: Connection) -> None:
        if self.sealer is None:
            return
        check = connection.execute(select(tables.ledger.c.key_check)).scalar_one()
        if check is None:
            return
        try:
            self.sealer.open(check, KEY_CHECK)
        except ValueError:
            raise StoreProblem(
                f"the directory {self.where} was made with another farm key; "
                "give --key-file the key file that the rest of the farm uses"
            ) from None

    def _make_file(self) -> None:
        """An empty database file that only its owner may read."""
        if self.path is None or self.path.exists():
            return
        try:
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        except OSError as problem:
            raise StoreProblem(
                f"cannot make the directory {self.path}: {problem.strerror}; give --directory a path in a "
                "folder that exists and may be written"
            ) from problem


def database_path(url: URL | str) -> Path | None:
    """The file of an SQLite database; C{None} for any other.

    @raise StoreProblem: the address cannot be used.
    """
    parsed = _parse_url(url) if isinstance(url, str) else url
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        return None
    return Path(parsed.database)


def public_form(url: str) -> str:
    """A directory's URL as anybody may see it: without its password and its options.

    @raise StoreProblem: it is none.
    """
    return _parse_url(url).set(query={}).render_as_string(hide_password=True)


def _parse_url(url: str) -> URL:
    """The address of a database, as far as this program can use it."""
    advice = "give --directory sqlite:////var/lib/rvpfarm/directory.sqlite or postgresql://host/database"
    try:
        parsed = make_url(url)
    except exc.ArgumentError:
        # the text may hold a password
        raise StoreProblem(f"the directory's address cannot be read; {advice}") from None
    backend = parsed.get_backend_name()
    if backend not in ("sqlite", "postgresql"):
        raise StoreProblem(f'a directory cannot be kept in "{backend}"; {advice}')
    if backend == "sqlite" and (parsed.database in (None, "", ":memory:") or parsed.query):
        raise StoreProblem(f"a directory in SQLite is a file that every process of the farm opens; {advice}")
    return parsed


def _make_engine(url: URL, busy_seconds: float) -> Engine:
    """SQLAlchemy's engine, which connects when first used."""
    try:
        if url.get_backend_name() == "sqlite":
            engine = create_engine(url, connect_args={"timeout": busy_seconds})
            event.listen(engine, "do_connect", _open_sqlite)
            event.listen(engine, "connect", _set_up_sqlite)
            event.listen(engine, "checkout", _see_file)
            event.listen(engine, "begin", _begin_sqlite)
            return engine
        arguments = {"connect_timeout": _CONNECT_SECONDS, **_NOTICE_LOSS}
        return create_engine(url, connect_args=arguments, pool_pre_ping=True, pool_timeout=_CONNECT_SECONDS)
    except ImportError as problem:
        raise StoreProblem(
            f'the driver "{problem.name}" of the directory\'s database is not installed; '
            'run "python -m pip install psycopg[binary]"'
        ) from problem
    except exc.NoSuchModuleError as problem:
        raise StoreProblem(f"the directory's address names an unknown driver: {url.drivername}") from problem


# The types of a driver's connection and arguments are not SQLAlchemy's to promise.
def _open_sqlite(_dialect: object, record: Any, arguments: Any, options: Any) -> sqlite3.Connection:
    """Open the file that is there, and note which one it is: SQLite itself would make a missing one anew."""
    (path,) = arguments
    record.info[_FILE] = _file_at(path)
    connection: sqlite3.Connection = sqlite3.connect(f"file:{quote(path)}?mode=rw", uri=True, **options)
    return connection


def _see_file(_connection: object, record: Any, _proxy: object) -> None:
    """A file that was moved away can still be read by who has it open, but it is not the directory any more.

    @raise DisconnectionError: the connection is to another file than the one that has the name now.
    """
    path = record.info[_FILE].path
    if _file_at(path) != record.info[_FILE]:
        raise exc.DisconnectionError(f"{path} is another file now")


@dataclass(frozen=True, slots=True)
class _File:
    """Which file stands at C{path}; the numbers are 0 when there is none."""

    path: str
    device: int
    number: int


def _file_at(path: str) -> _File:
    try:
        status = Path(path).stat()
    except OSError:
        return _File(path, 0, 0)
    return _File(path, status.st_dev, status.st_ino)


# The driver's connection has no type that SQLAlchemy promises.
def _set_up_sqlite(connection: Any, _record: object) -> None:
    """Let several processes use the file at once, and hold references to be kept."""
    # transactions are begun by _begin_sqlite alone
    connection.isolation_level = None
    cursor = connection.cursor()
    _use_wal(cursor)
    for setting in ("synchronous = FULL", "foreign_keys = ON"):
        cursor.execute(f"PRAGMA {setting}")
    cursor.close()


def _use_wal(cursor: Any) -> None:
    """Turn the file to write-ahead logging, where SQLite fails and does not wait when several do it at once.

    @raise sqlite3.OperationalError: the file stayed locked for L{_WAL_SECONDS}.
    """
    end = time.monotonic() + _WAL_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as problem:
            if "locked" not in str(problem) or time.monotonic() > end:
                raise
            time.sleep(0.02)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    """A writer takes the lock at the beginning: taken later it could fail halfway, without waiting."""
    write = connection.get_execution_options().get("rvpfarm_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _reason(problem: Exception) -> str:
    """What the database said, on one line."""
    told = getattr(problem, "orig", None) or problem
    return " ".join(str(told).split())
