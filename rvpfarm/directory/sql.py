"""The SQL directory as the daemons ask it."""

from __future__ import annotations

from dataclasses import replace

from rvpfarm.directory.model import Account, Farm
from rvpfarm.directory.reading import Changes
from rvpfarm.directory.store import Store


class SqlSource:
    """The few questions that C{rvpfarm.directory.cache} asks; each waits, so they are asked in threads."""

    def __init__(self, store: Store) -> None:
        """
        @param store: with the farm key where verifiers are wanted.
        """
        self._store = store

    def position(self) -> int:
        """The end of the feed of changes."""
        with self._store.read() as reading:
            return reading.position()

    def farm(self) -> Farm:
        """Everything farm-wide."""
        with self._store.read() as reading:
            return reading.farm()

    def account(self, key: str) -> Account | None:
        """The account of the node C{key}, with its verifiers."""
        with self._store.read() as reading:
            return reading.account(key)

    def changes_since(self, position: int, mark: str) -> Changes:
        """What changed after C{position}; everything, if the directory is not the one that had C{mark}."""
        with self._store.read() as reading:
            now = reading.mark()
            if mark not in ("", now) and not reading.follows(mark):
                return Changes(reading.position(), farm=True, gap=True, mark=now)
            return replace(reading.changes_since(position), mark=now)

    def close(self) -> None:
        """Give every connection back."""
        self._store.close()
