"""How all servers of the farm are, asked of them at once."""

from __future__ import annotations

from collections.abc import Sequence

from rvpfarm.admin.asking import ask_all
from rvpfarm.admin.checks import Missing, Refused, enumerate_names
from rvpfarm.admin.status import Page, Place, Report, further_places, judge, places_of
from rvpfarm.directory.model import Farm, Home, Router
from rvpfarm.directory.store import Store

_MOST_SECONDS = 60


def survey(store: Store, names: Sequence[str] = (), role: str | None = None, timeout: float = 2.0) -> Report:
    """How the servers of the farm are.

    Each is asked where the directory says that it shows its metrics.

    @param names: only those called so.
    @param role: only those that are C{router} or C{home}.
    @param timeout: how many seconds each process has for its answer.
    @raise Refused: there is none of such a name, or the time is no time to wait.
    """
    if not 0.1 <= timeout <= _MOST_SECONDS:
        raise Refused(f"{timeout} seconds are no time to wait; give --timeout 0.1 to {_MOST_SECONDS}")
    if role not in (None, "router", "home"):
        raise Refused(f'"{role}" is no role; give --role router or home')
    with store.read() as reading:
        farm = reading.farm()
    places, unknown = places_of(_chosen(farm, names, role))
    return judge(farm, _ask(places, timeout), unknown)


def _chosen(farm: Farm, names: Sequence[str], role: str | None) -> list[Home | Router]:
    """The servers that are meant.

    @raise Refused: there is none of such a name.
    """
    servers: list[Home | Router] = []
    if role != "home":
        servers += farm.routers.values()
    if role != "router":
        servers += farm.homes.values()
    wanted = {name.strip().lower() for name in names}
    missing = wanted - {server.name for server in servers}
    if missing:
        known = enumerate_names({server.name for server in servers})
        lacking = enumerate_names(missing)
        raise Missing(f"there is no {role or 'server'} called {lacking}; there is {known}", lacking)
    return [server for server in servers if server.name in wanted or not wanted]


def _ask(places: Sequence[Place], seconds: float) -> list[tuple[Place, Page | str]]:
    """The answer of every process; servers of several processes say so, and the others are asked then."""
    answers: dict[Place, Page | str] = dict(ask_all(places, seconds))
    further = [
        other
        for place, answer in answers.items()
        if isinstance(answer, Page)
        for other in further_places(place, answer)
    ]
    answers |= ask_all(further, seconds)
    return list(answers.items())
