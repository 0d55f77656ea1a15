"""Farms and a directory that tests can change, for tests of what follows the directory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from twisted.internet.defer import Deferred, succeed

from rvpfarm.directory.model import Account, Domain, Farm, Home, Router

DEMO = Farm(
    domains={"im.farm.localhost": Domain("im.farm.localhost", ("farm.localhost",))},
    homes={
        "h1": Home("h1", "home1", "home1.farm.localhost", 8080, 8081, "127.0.0.11"),
        "h2": Home("h2", "home2", "home2.farm.localhost", 8080, 8081, "127.0.0.12"),
    },
    routers={
        "r1": Router("r1", "router1", "router1.farm.localhost", 8080, "127.0.0.1"),
        "r2": Router("r2", "router2", "router2.farm.localhost", 8080, "127.0.0.2"),
    },
    generation=7,
)


class FarmDirectory:
    """A directory with a farm and no accounts."""

    def __init__(self, farm: Farm = DEMO) -> None:
        self._farm = farm
        self._watching: list[Callable[[str | None], None]] = []

    def change(self, **fields: object) -> None:
        """Replace fields of the farm, as an administrator's change would."""
        self._farm = replace(self._farm, generation=self._farm.generation + 1, **fields)  # type: ignore[arg-type]
        for changed in self._watching:
            changed(None)

    def farm(self) -> Farm:
        """The farm as it is now."""
        return self._farm

    def peek(self, key: str) -> Account | bool | None:
        """There is nobody."""
        return False

    def find(self, key: str) -> Deferred[Account | None]:
        """There is nobody."""
        return succeed(None)

    def forget(self, key: str) -> None:
        """Nothing was remembered."""

    def watch(self, changed: Callable[[str | None], None]) -> None:
        """Tell of every L{change}."""
        self._watching.append(changed)
