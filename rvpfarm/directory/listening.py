"""Hearing of changes to a directory in PostgreSQL when they are made, and not when it is looked again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol

from twisted.logger import Logger

from rvpfarm.directory.postgresql import CHANNEL, Dialler, Servers

# how often somebody who listens looks whether he is to stop
_LOOK_SECONDS = 0.5

# between two tries to be connected, the first and the longest
_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 15.0


class Hearing(Protocol):
    """What tells of changes; see L{Ear}."""

    def start(self, told: Callable[[], object]) -> None:
        """Call C{told} in any thread whenever something may have changed."""

    def stop(self) -> None:
        """Call it no more."""


class Ear:
    """Listens on a connection and in a thread of its own.

    Whoever is told has to look what changed: nothing is said of what, and what was said while the connection
    was lost is not repeated, but C{told} is called when it is there again.
    """

    _log = Logger()

    def __init__(self, servers: Servers) -> None:
        """
        @param servers: one of which takes changes, and tells of them.
        """
        self._dialler = Dialler(servers)
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._lost = False

    def start(self, told: Callable[[], object]) -> None:
        """Listen from now on.

        @param told: called in the thread.
        """
        self._stopped.clear()
        self._thread = threading.Thread(target=self._run, args=(told,), name="directory ear", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Listen no longer.  The thread ends by itself, soon."""
        self._stopped.set()

    def _run(self, told: Callable[[], object]) -> None:
        import psycopg

        pause = _PAUSE_SECONDS
        while not self._stopped.is_set():
            try:
                with self._dialler.connect(patient=True) as connection:
                    connection.autocommit = True
                    connection.execute(f"LISTEN {CHANNEL}")
                    pause = _PAUSE_SECONDS
                    self._regain()
                    told()
                    self._listen(connection, told)
            except psycopg.Error as problem:
                self._lose(" ".join(str(problem).split()))
                self._stopped.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            except Exception:  # or there would be nobody who listens, in silence
                self._log.failure("listening to the directory failed")
                self._stopped.wait(_LONGEST_PAUSE_SECONDS)

    # A connection's rows have a type of their own, and here there are none.
    def _listen(self, connection: Any, told: Callable[[], object]) -> None:
        """Tell, until the connection is lost or it is time to stop."""
        while not self._stopped.is_set():
            # several at once are one thing to look at
            if list(connection.notifies(timeout=_LOOK_SECONDS, stop_after=1)):
                told()

    def _lose(self, reason: str) -> None:
        if not self._lost and not self._stopped.is_set():
            self._lost = True
            self._log.warn(
                "changes of the directory are not heard at once, but when it is looked again: {reason}",
                reason=reason,
            )

    def _regain(self) -> None:
        if self._lost:
            self._lost = False
            self._log.info("changes of the directory are heard at once again")
