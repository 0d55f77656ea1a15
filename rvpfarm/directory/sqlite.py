"""A directory in an SQLite file, which several processes of one machine have open at once."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event, exc

# how long another process may take to turn a new file to write-ahead logging
_WAL_SECONDS = 10.0

# where a connection's record tells which file it has open
_FILE = "rvpfarm file"


def make_engine(url: URL, busy_seconds: float) -> Engine:
    """SQLAlchemy's engine, which opens the file when first used.

    @param busy_seconds: how long a writer waits for another one.
    """
    engine = create_engine(url, connect_args={"timeout": busy_seconds})
    event.listen(engine, "do_connect", _open_sqlite)
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "checkout", _see_file)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


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
