"""The state of a home on the machine where it runs: begun anew when it is in the way (product 3.1, row 11).

It is disposable: whoever is logged in then logs in again when the client renews, and watchers with it.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rvpfarm.admin.actors import default_actor
from rvpfarm.admin.checks import Refused, home_named
from rvpfarm.directory.model import Home
from rvpfarm.directory.store import Store

#: The state of a home, in its state directory.
STATE_FILE = "home.sqlite"

# With the database itself belong its log and what SQLite keeps beside it.
_PARTS = ("", "-wal", "-shm", "-journal")

# Where SQLite locks a database file: the pending, reserved and shared bytes (sqlite.org, "File Locking").
_LOCKED_FROM, _LOCKED_OCTETS = 0x40000000, 512


@dataclass(frozen=True, slots=True)
class Reset:
    """What is moved aside, or would be.

    @ivar moved: the old names and the new ones.
    @ivar octets: how much that is.
    """

    home: Home
    moved: tuple[tuple[Path, Path], ...]
    octets: int


def reset_home(
    store: Store,
    name: str,
    state_dir: Path,
    *,
    dry_run: bool = False,
    now: datetime | None = None,
    actor: str | None = None,
) -> Reset:
    """Move the state of a home that does not run aside, so that it begins with a new one.

    @param state_dir: as the daemon's C{--state-dir}; where several homes run in one process, theirs together.
    @raise Refused: there is no such home or state, or the home runs.
    """
    with store.read() as reading:
        home = home_named(reading.farm(), name)
    path = find_state(state_dir, home.name)
    stamp = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
    parts = [Path(f"{path}{part}") for part in _PARTS if Path(f"{path}{part}").exists()]
    moved = tuple((part, part.with_name(f"{STATE_FILE}.reset-{stamp}{_ending(part)}")) for part in parts)
    with _held(path, home.name):
        octets = sum(part.stat().st_size for part in parts)
        if dry_run:
            return Reset(home, moved, octets)
        with store.change(actor or default_actor(), "home reset", home.name) as writing:
            for old, new in moved:
                _rename(old, new)
            writing.note("state", str(path), str(moved[0][1]))
    return Reset(home, moved, octets)


def find_state(state_dir: Path, name: str) -> Path:
    """The database of the home called C{name}: alone in C{state_dir}, or in a folder of its own there.

    @raise Refused: there is none.
    """
    places = (state_dir / name / STATE_FILE, state_dir / STATE_FILE)
    found = [path for path in places if path.exists()]
    if len(found) > 1:
        raise Refused(
            f"{state_dir} has the state of a home that ran alone, and one of {name}; give --state-dir "
            f"{state_dir / name} for the latter"
        )
    if found:
        return found[0]
    raise Refused(
        f"there is no {STATE_FILE} of {name} in {state_dir}; give --state-dir as the daemon has it, on the "
        "machine where it runs"
    )


@contextmanager
def _held(path: Path, name: str) -> Iterator[None]:
    """Keep the home from starting meanwhile.

    The home holds SQLite's lock on the file while it runs, whatever state the file is in; so do we now.

    @raise Refused: it runs, or the file cannot be had.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except OSError as problem:
        raise Refused(f"cannot open {path}: {problem.strerror}; run this as the home's own user") from problem
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Refused(f"{path} is no file; give another --state-dir")
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, _LOCKED_OCTETS, _LOCKED_FROM)
        except OSError:
            raise Refused(
                f'home {name} runs on {path}; stop it first, and look with "rvpfarm status {name}"'
            ) from None
        yield
    finally:
        with suppress(OSError):
            os.close(descriptor)


def _ending(part: Path) -> str:
    return part.name.removeprefix(STATE_FILE)


def _rename(old: Path, new: Path) -> None:
    """Move a file aside.

    @raise Refused: it cannot be moved.
    """
    try:
        old.rename(new)
    except OSError as problem:
        raise Refused(f"cannot move {old}: {problem.strerror}; run this as the home's own user") from problem
