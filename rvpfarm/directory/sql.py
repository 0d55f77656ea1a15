"""The SQL directory as the daemons ask it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from rvpfarm.directory.listening import Ear
from rvpfarm.directory.model import Account, Farm
from rvpfarm.directory.reading import Changes, Reading, StoreProblem
from rvpfarm.directory.store import Store

_Answer = TypeVar("_Answer")

# a replica that could not be asked, or is behind, is left alone for so long
_REST_SECONDS = 5.0


class SqlSource:
    """The few questions that C{rvpfarm.directory.cache} asks; each waits, so they are asked in threads.

    What changed is asked of the server that takes changes, so nothing is missed.  Accounts may be asked of
    a replica, if it is as far as is known that there is anything to know.
    """

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.monotonic) -> None:
        """
        @param store: with the farm key where verifiers are wanted.
        @param clock: seconds that only go on.
        """
        self._store, self._clock = store, clock
        self._position = 0
        self._rested = 0.0 if store.servers is not None and store.servers.replicas else float("inf")

    def position(self) -> int:
        """The end of the feed of changes."""
        return self._seen(self._ask(lambda reading: reading.position()))

    def farm(self) -> Farm:
        """Everything farm-wide."""
        return self._ask(lambda reading: reading.farm())

    def account(self, key: str) -> Account | None:
        """The account of the node C{key}, with its verifiers."""
        if self._clock() >= self._rested:
            known = self._position
            try:
                with self._store.read_replica() as reading:
                    if reading.position() >= known:
                        return reading.account(key)
            except StoreProblem:
                pass  # the server that it follows is asked, which says what is the matter if that fails too
            self._rested = self._clock() + _REST_SECONDS
        return self._ask(lambda reading: reading.account(key))

    def changes_since(self, position: int, mark: str) -> Changes:
        """What changed after C{position}; everything, if the directory is not the one that had C{mark}."""

        def look(reading: Reading) -> Changes:
            now = reading.mark()
            if mark not in ("", now) and not reading.follows(mark):
                return Changes(reading.position(), farm=True, gap=True, mark=now)
            return replace(reading.changes_since(position), mark=now)

        changes = self._ask(look)
        self._seen(changes.position)
        return changes

    def ear(self) -> Ear | None:
        """What hears of changes at once, where there is somebody who tells."""
        return None if self._store.servers is None else Ear(self._store.servers)

    def close(self) -> None:
        """Give every connection back."""
        self._store.close()

    def _seen(self, position: int) -> int:
        """The feed goes that far.  Another directory, such as an older copy, may have a shorter one."""
        self._position = position
        return position

    def _ask(self, question: Callable[[Reading], _Answer]) -> _Answer:
        """The answer, if need be at the second try: the connection may have been lost with its server."""
        try:
            with self._store.read() as reading:
                return question(reading)
        except StoreProblem as problem:
            if not problem.passing:
                raise
        with self._store.read() as reading:
            return question(reading)
