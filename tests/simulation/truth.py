"""The directory behind all caches: what is true, and whether it can be asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from random import Random
from typing import Any

from twisted.python.failure import Failure

from rvpfarm.directory.model import Account, DirectoryUnavailable, Farm
from rvpfarm.directory.reading import Changes
from tests.simulation.timeline import Process


class Truth:
    """Accounts and the farm, and the feed of their changes.

    @ivar down: every question fails.
    @ivar slow: answers take so many times as long as usual.
    """

    def __init__(self, farm: Farm, accounts: Iterable[Account]) -> None:
        self.down = False
        self.slow = 1.0
        self._farm = farm
        self._accounts = {account.key: account for account in accounts}
        self._feed: list[str] = []

    def move(self, key: str, home: str) -> None:
        """Give a node to another home."""
        self._accounts[key] = replace(self._accounts[key], home=home)
        self._feed.append(key)

    def home_of(self, key: str) -> str:
        """The home that owns a node."""
        return self._accounts[key].home

    # what rvpfarm.directory.cache.Source asks for

    def position(self) -> int:
        """The end of the feed of changes."""
        self._check()
        return len(self._feed)

    def farm(self) -> Farm:
        """Everything farm-wide."""
        self._check()
        return self._farm

    def account(self, key: str) -> Account | None:
        """The account of the node C{key}."""
        self._check()
        return self._accounts.get(key)

    def changes_since(self, position: int, mark: str = "") -> Changes:
        """What changed after C{position}; there is no other directory that C{mark} could be of."""
        self._check()
        return Changes(len(self._feed), tuple(dict.fromkeys(self._feed[position:])))

    def close(self) -> None:
        """Nothing more is asked by one of those who ask."""

    def _check(self) -> None:
        if self.down:
            raise DirectoryUnavailable("the directory is down")


class Errands:
    """In place of a process' threads: asks the directory, which takes a while."""

    def __init__(self, truth: Truth, process: Process, random: Random) -> None:
        """
        @param random: decides how long.
        """
        self._truth, self._process, self._random = truth, process, random

    def start(self) -> None:
        """Be ready."""

    def stop(self) -> None:
        """Finish what was begun; nobody wants to know."""

    # Any: whatever the function takes and returns
    def callInThreadWithCallback(
        self, onResult: Callable[[bool, Any], None] | None, func: Callable[..., Any], *args: Any
    ) -> None:
        """Call C{func}, and tell its result some time after that."""
        there, back = (self._random.uniform(0.0005, 0.004) * self._truth.slow for _ in range(2))

        def ask() -> None:
            try:
                success, result = True, func(*args)
            except Exception:  # as a pool of threads does: the failure is the result
                success, result = False, Failure()
            if onResult is not None:
                self._process.callLater(back, onResult, success, result)

        self._process.callLater(there, ask)
