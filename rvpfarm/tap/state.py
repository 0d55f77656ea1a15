"""The state directory of a farm on one machine: its files, its lock, its users' passwords."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO


@dataclass(frozen=True, slots=True)
class User:
    """One of the demo's users, as the banner shows them.

    @ivar home: the name of the home.
    @ivar password: empty when it was changed since and is not known.
    """

    alias: str
    address: str
    home: str
    password: str
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class State:
    """The files of a farm."""

    path: Path

    @property
    def directory(self) -> str:
        """The URL of the directory."""
        return f"sqlite:///{self.path / 'directory.sqlite'}"

    @property
    def key_file(self) -> Path:
        """The farm key."""
        return self.path / "farm.key"

    @property
    def passwords(self) -> Path:
        """The users' passwords, which only their owner may read."""
        return self.path / "passwords.txt"

    @property
    def logs(self) -> Path:
        """Where the children's output goes."""
        return self.path / "log"

    def home(self, name: str) -> Path:
        """Where a home keeps its own state."""
        return self.path / name


def open_state(path: Path) -> tuple[State, IO[str]]:
    """Make the state directory if need be, and keep every other farm out of it.

    @return: the state, and the lock, which is held until it is closed.
    @raise SystemExit: it cannot be made, or a farm runs in it.
    """
    state = State(path.absolute())
    try:
        state.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        state.logs.mkdir(mode=0o700, exist_ok=True)
        lock = (state.path / "lock").open("w")
    except OSError as error:
        raise SystemExit(
            f"rvp-farm: cannot keep state in {path}: {(error.strerror or str(error)).lower()}; "
            "choose another place with --state-dir"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise SystemExit(
            f"rvp-farm: another farm runs in {path}; stop it or choose another place with --state-dir"
        ) from None
    return state, lock


def read_passwords(path: Path) -> dict[str, str]:
    """The passwords in the file, by address; none if there is no file."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return {}
    pairs = (line.split(None, 1) for line in text.splitlines() if not line.startswith("#"))
    return {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2}


def write_passwords(path: Path, passwords: Mapping[str, str]) -> None:
    """Replace the file as a whole; only its owner may read it."""
    lines = ["# The users of this farm and their passwords.", ""]
    lines += [f"{address}  {password}" for address, password in sorted(passwords.items())]
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
