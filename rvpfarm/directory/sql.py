"""The SQL directory as the daemons ask it."""

from __future__ import annotations

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

    def changes_since(self, position: int) -> Changes:
        """What changed after C{position}."""
        with self._store.read() as reading:
            return reading.changes_since(position)

    def close(self) -> None:
        """Give every connection back."""
        self._store.close()
