"""What a cache asks, where it asks, and who waits for the answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from rvpfarm.directory.model import Account, Farm
from rvpfarm.directory.reading import Changes


class Source(Protocol):
    """A directory that is asked in threads, and may be slow or down.

    Each question fails with L{DirectoryUnavailable <rvpfarm.directory.model.DirectoryUnavailable>} when
    there is no answer now.
    """

    def position(self) -> int:
        """The end of the feed of changes."""

    def farm(self) -> Farm:
        """Everything farm-wide."""

    def account(self, key: str) -> Account | None:
        """The account of the node C{key}, with its verifiers."""

    def changes_since(self, position: int, mark: str) -> Changes:
        """What changed after C{position}.

        @param mark: came with the position; empty if nothing did.
        """

    def close(self) -> None:
        """Nothing more will be asked."""


class Threads(Protocol):
    """Where what waits is done: Twisted's C{ThreadPool}, or a test's own."""

    def start(self) -> None:
        """Be ready."""

    def stop(self) -> None:
        """Finish what was begun."""

    # The results are whatever the function returns.
    def callInThreadWithCallback(
        self, onResult: Callable[[bool, Any], None] | None, func: Callable[..., Any], *args: Any
    ) -> None:
        """Call C{func} in a thread and there C{onResult(success, result or failure)}."""


class Question:
    """One question on its way to the source, and who waits for its answer, each until a time of its own.

    @ivar current: the answer may be remembered: nothing changed since the question was put.
    """

    __slots__ = ("asked", "current", "waiting")

    def __init__(self, asked: float) -> None:
        self.asked = asked
        self.current = True
        self.waiting: dict[Deferred[Account | None], IDelayedCall] = {}

    def leave(self, waiter: Deferred[Account | None]) -> None:
        """C{waiter} waits no longer, if it still did."""
        timer = self.waiting.pop(waiter, None)
        if timer is not None and timer.active():
            timer.cancel()
