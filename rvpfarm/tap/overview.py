"""What operators are shown of a daemon besides its own counters: its part of C{/status}, and how homes stand.

Everything here is asked in the thread that serves the metrics, so it only looks.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

from twisted.internet.interfaces import IReactorTime

from rvpfarm.admin.checks import enumerate_names
from rvpfarm.directory.cache import CachedDirectory
from rvpfarm.directory.model import Farm
from rvpfarm.directory.store import public_form
from rvpfarm.observe.metrics import Metrics
from rvpfarm.observe.series import Sample, Series
from rvpfarm.observe.status import Status
from rvpfarm.router.health import Health, Seen, State

_HOMES = (
    Series(
        "home_up", "Whether a home is believed to be there; absent as long as that is not known", ("home",)
    ),
    Series("home_flapping", "Whether a home came and went so much that it is believed later", ("home",)),
    Series(
        "home_transitions", "How often a home came to be believed up, down or leaving", ("home", "to"), True
    ),
    Series("probes", "How often a home was asked whether it is there", ("home", "outcome"), True),
)
_BREAKERS = (Series("breaker_open", "Whether only single calls try to reach a target", ("target",)),)

_WORDS = {State.UNKNOWN: "not known yet"}


class Homes:
    """The homes as one process sees them."""

    def __init__(
        self, health: Health, directory: CachedDirectory, clock: IReactorTime, *, own_home: str | None = None
    ) -> None:
        """
        @param own_home: the id of the home that this process is, if it is one; it does not see itself.
        """
        self._health, self._directory, self._clock, self._own_home = health, directory, clock, own_home

    def show_breakers(self, metrics: Metrics) -> None:
        """Have the metrics tell which homes are asked no more than now and then."""
        metrics.series(_BREAKERS, self._breakers)

    def show(self, metrics: Metrics, status: Status) -> None:
        """Have metrics and status tell how the homes stand, where they are probed."""
        self.show_breakers(metrics)
        metrics.series(_HOMES, self._samples)
        status.show("homes", self._facts)

    def missing(self) -> str:
        """Why nobody can be served, in a sentence; empty when some home is up."""
        seen = self._seen()
        if any(home.state in (State.UP, State.LEAVING) for home in seen):
            return ""
        if not seen:
            return "the directory has no home"
        return "no home is up: " + enumerate_names(
            f"{home.name} is {_WORDS.get(home.state, home.state.value)}" for home in seen
        )

    def _seen(self) -> list[Seen]:
        return self._health.seen(self._directory.farm(), self._clock.seconds(), but=self._own_home)

    def _breakers(self) -> Iterator[Sample]:
        for home in self._seen():
            yield Sample("breaker_open", (home.name,), home.open)

    def _samples(self) -> Iterator[Sample]:
        for home in self._seen():
            if home.state is not State.UNKNOWN:
                yield Sample("home_up", (home.name,), home.state is not State.DOWN)
            yield Sample("home_flapping", (home.name,), home.flapping)
            for state, count in home.transitions.items():
                yield Sample("home_transitions", (home.name, state.value), count)
            for outcome, count in home.probes.items():
                yield Sample("probes", (home.name, outcome.value), count)

    def _facts(self) -> list[dict[str, object]]:
        return [
            {
                "name": home.name,
                "state": home.state.value,
                "circuit": "open" if home.open else "closed",
                "since_seconds": home.since_seconds,
                "flapping": home.flapping,
            }
            for home in self._seen()
        ]


def mark_of(farm: Farm) -> str:
    """Tells one state of the farm-wide settings from another; the same in every process that has the same."""
    facts = asdict(replace(farm, networks=tuple(sorted(farm.networks, key=repr)), generation=0))
    text = json.dumps(facts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def show_disk(status: Status, folder: Path) -> None:
    """Have the page tell how much room there is where the state is."""

    def facts() -> dict[str, object]:
        """The file system of the state directory."""
        found = shutil.disk_usage(folder)
        return {"free_bytes": found.free, "total_bytes": found.total}

    status.show("disk", facts)


def show_directory(status: Status, directory: CachedDirectory, url: str) -> None:
    """Have the page tell of the directory.

    @param url: as the daemon was given it; what is shown has no secrets in it.
    """
    where = public_form(url)

    def facts() -> dict[str, object]:
        """The directory as this process sees it."""
        return {
            "url": where,
            "staleness_seconds": directory.staleness_seconds,
            "limit_seconds": directory.limit_seconds,
            "cached": directory.cached,
        }

    status.show("directory", facts)
    status.show("config", lambda: mark_of(directory.farm()))


def show_work(status: Status, connections: Callable[[], int], in_work: Callable[[], int]) -> None:
    """Have the page tell how much there is to do."""
    status.show("connections", connections)
    status.show("in_work", in_work)
