"""A directory that is a dict: what L{rvpfarm.directory.model.Directory} promises, without a database."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from twisted.internet.defer import Deferred, fail, succeed

from rvpfarm.directory.model import Account, DirectoryUnavailable, Domain, Farm, Home, Network, Router


def make_account(
    key: str, home: Home | str, *, display_name: str = "", enabled: bool = True, kind: str = "user"
) -> Account:
    """The account of the node C{key}, with everything else derived from it.

    @param key: letter case is kept in C{path} and C{alias}, and lowered in C{key}.
    """
    domain, _, path = key.partition("/")
    alias = path.rpartition("/")[2]
    return Account(
        id=f"account-{key.lower()}",
        key=key.lower(),
        kind=kind,
        domain=domain.lower(),
        path=f"/{path}",
        alias=alias,
        home=home if isinstance(home, str) else home.id,
        enabled=enabled,
        display_name=display_name or alias,
        email=f"{alias}@{domain}".lower(),
        address=f"{alias}@{domain}".lower(),
    )


def make_farm(
    domains: Iterable[Domain] = (),
    homes: Iterable[Home] = (),
    routers: Iterable[Router] = (),
    *,
    networks: Iterable[Network] = (),
    generation: int = 1,
    **policies: str,
) -> Farm:
    """A farm of these parts.

    @param policies: farm-wide policies; an underscore stands for the hyphen of the name.
    """
    return Farm(
        domains={domain.name: domain for domain in domains},
        homes={home.id: home for home in homes},
        routers={router.id: router for router in routers},
        networks=tuple(networks),
        policies={name.replace("_", "-"): value for name, value in policies.items()},
        generation=generation,
    )


class FakeDirectory:
    """Answers from memory, notes what it was asked, and can be unavailable.

    @ivar remembered: the keys that L{peek} knows; all of them unless C{cold} was passed.
    @ivar unavailable: L{find} fails with L{DirectoryUnavailable}; accounts that are remembered are still
        answered, but not that there is none.
    @ivar later: answer L{find} only when L{answer_finds} says so.
    @ivar asked: the keys L{find} was asked for, in order.
    @ivar forgotten: the keys L{forget} was told, in order.
    """

    def __init__(self, farm: Farm, accounts: Iterable[Account] = (), *, cold: bool = False) -> None:
        """
        @param cold: nothing is remembered until it has been found once.
        """
        self._farm = farm
        self._accounts = {account.key: account for account in accounts}
        self._watchers: list[Callable[[str | None], None]] = []
        self._waiting: list[tuple[str, Deferred[Account | None]]] = []
        self.remembered: dict[str, Account | None] = {} if cold else dict(self._accounts)
        self.unavailable = False
        self.later = False
        self.asked: list[str] = []
        self.forgotten: list[str] = []

    def farm(self) -> Farm:
        """The farm as it was last set."""
        return self._farm

    def peek(self, key: str) -> Account | bool | None:
        """What is remembered of C{key}."""
        account = self.remembered.get(key)
        if key not in self.remembered or (account is None and self.unavailable):
            return None
        return account or False

    def find(self, key: str) -> Deferred[Account | None]:
        """The truth about C{key}, remembered from now on."""
        self.asked.append(key)
        if self.unavailable:
            return fail(DirectoryUnavailable("the directory is down"))
        if self.later:
            waiting: Deferred[Account | None] = Deferred()
            self._waiting.append((key, waiting))
            return waiting
        return succeed(self._remember(key))

    def forget(self, key: str) -> None:
        """Drop what is remembered of C{key}."""
        self.forgotten.append(key)
        self.remembered.pop(key, None)

    def watch(self, changed: Callable[[str | None], None]) -> None:
        """Tell C{changed} of every later L{put}, L{remove} and L{set_farm}."""
        self._watchers.append(changed)

    def answer_finds(self) -> None:
        """Answer every L{find} that waits because of C{later}."""
        waiting, self._waiting = self._waiting, []
        for key, deferred in waiting:
            if not deferred.called:
                deferred.callback(self._remember(key))

    def put(self, account: Account, *, silently: bool = False) -> None:
        """Add or replace an account.

        @param silently: nobody is told and what is remembered stays as it was, as when an invalidation
            got lost.
        """
        self._accounts[account.key] = account
        if not silently:
            self._changed(account.key)

    def move(self, key: str, home: Home, *, silently: bool = False) -> None:
        """Give the node C{key} to another home; see L{put}."""
        self.put(replace(self._accounts[key], home=home.id), silently=silently)

    def remove(self, key: str) -> None:
        """Drop the account of C{key}."""
        self._accounts.pop(key, None)
        self._changed(key)

    def set_farm(self, farm: Farm) -> None:
        """Replace the farm."""
        self._farm = farm
        self._tell(None)

    def _remember(self, key: str) -> Account | None:
        found = self._accounts.get(key)
        self.remembered[key] = found
        return found

    def _changed(self, key: str) -> None:
        self._remember(key)
        self._tell(key)

    def _tell(self, key: str | None) -> None:
        for watcher in self._watchers:
            watcher(key)
