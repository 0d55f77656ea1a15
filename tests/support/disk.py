"""A disk in memory, with the tables of a home's journal: what was committed is there, whatever became of the home."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from rvpfarm.home.records import Change, Saved
from rvpfarm.home.tables import SCHEMA, Numbers, pieces, steps


class Disk:
    """What stays of a home when its process is gone.

    @ivar full: nothing more fits on it.
    @ivar slow: commits take so many times as long as usual.
    @ivar incarnation: of the last start.
    """

    def __init__(self) -> None:
        self.full = False
        self.slow = 1.0
        self.incarnation = 0
        self._database = sqlite3.connect(":memory:", isolation_level=None)
        for statement in SCHEMA:
            self._database.execute(statement)
        self._numbers = Numbers(self._database)

    def commit(self, changes: Sequence[Change]) -> None:
        """Execute all of C{changes} or none.

        @raise sqlite3.OperationalError: the disk is full.
        """
        self._database.execute("BEGIN")
        try:
            for statement, rows in steps(changes, self._numbers):
                self._database.executemany(statement, rows)
            if self.full:
                raise sqlite3.OperationalError("database or disk is full")
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    def read(self) -> Saved:
        """Everything that is on it."""
        found = Saved()
        for piece in pieces(self._database):
            found = Saved(
                (*found.subscriptions, *piece.subscriptions),
                (*found.views, *piece.views),
                (*found.acls, *piece.acls),
                (*found.properties, *piece.properties),
                {**found.meta, **piece.meta},
            )
        return found

    def opened(self) -> None:
        """A home was started anew that has it."""
        self._numbers = Numbers(self._database)

    def close(self) -> None:
        """It is not needed any more."""
        self._database.close()
