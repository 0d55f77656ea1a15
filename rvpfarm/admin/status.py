"""What the answers of a farm's servers come to: how each is, how homes are seen, and what is wrong (core)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rvpfarm.directory.model import Farm, Home, Router

#: What is believed of anything that a server says, at most: it may not be one of ours.
TEXT_LIMIT, HOMES_LIMIT, REASONS_LIMIT, WORKERS_LIMIT = 200, 1000, 10, 64

#: What a router may say of a home that is all right.
_FINE = ("up", "leaving")
_STATES = ("up", "down", "leaving", "unknown")


@dataclass(frozen=True, slots=True)
class Place:
    """Where one process shows its status.

    @ivar role: C{"router"} or C{"home"}; C{name} likewise of the server in the directory.
    @ivar draining: the directory says that it is to be left alone.
    @ivar worker: which of the server's processes it is, from 0.
    """

    role: str
    name: str
    host: str
    port: int
    draining: bool = False
    worker: int = 0

    @property
    def title(self) -> str:
        """What to call the process."""
        return f"{self.name}/{self.worker}" if self.worker else self.name

    def __str__(self) -> str:
        """As it is typed."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class HomeView:
    """One home as one router sees it."""

    state: str
    open: bool = False
    flapping: bool = False
    since_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """What a process says of itself, as far as it makes sense; what it does not say is C{None}.

    @ivar names: of all servers that it is, if it is several.
    @ivar workers: how many processes the server has, at ports that follow each other.
    @ivar config: tells one state of the farm-wide settings from another.
    @ivar time: of its clock.
    @ivar disk_free: octets, where its state is; C{disk_total} likewise.
    """

    role: str
    name: str
    version: str
    ready: bool
    reasons: tuple[str, ...] = ()
    draining: bool = False
    names: tuple[str, ...] = ()
    pid: int | None = None
    started: float | None = None
    uptime_seconds: float | None = None
    connections: int | None = None
    in_work: int | None = None
    users_online: int | None = None
    staleness_seconds: float | None = None
    workers: int = 1
    config: str = ""
    time: float | None = None
    disk_free: float | None = None
    disk_total: float | None = None
    homes: Mapping[str, HomeView] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Server:
    """One process in the report.

    @ivar state: C{"ready"}, C{"draining"}, C{"not ready"}, C{"no answer"} or C{"unknown place"}.
    @ivar reason: why, for the last three.
    @ivar place: where it was asked; empty if that is unknown.
    """

    role: str
    name: str
    worker: int
    state: str
    reason: str = ""
    place: str = ""
    page: Page | None = None

    @property
    def title(self) -> str:
        """What to call it."""
        return f"{self.name}/{self.worker}" if self.worker else self.name

    @property
    def words(self) -> str:
        """The state for people."""
        return f"{self.state}: {self.reason}" if self.reason else self.state


@dataclass(frozen=True, slots=True)
class HomeReport:
    """One home, as routers see it: by the title of each router that said anything."""

    name: str
    views: Mapping[str, HomeView]

    @property
    def disagree(self) -> bool:
        """Whether not all routers see the same."""
        return len({view.state for view in self.views.values()}) > 1

    @property
    def words(self) -> str:
        """The views for people: C{up at r1, down at r2}."""
        if not self.views:
            return "no router says"
        groups: dict[str, list[str]] = {}
        for router, view in self.views.items():
            word = "not known yet" if view.state == "unknown" else view.state
            if view.flapping:
                word += ", comes and goes"
            if view.open:
                word += ", calls held back"
            groups.setdefault(word, []).append(router)
        return "; ".join(f"{word} at {_some(routers)}" for word, routers in groups.items())

    @property
    def well(self) -> bool:
        """Whether nothing is wrong with it."""
        return all(
            view.state in _FINE and not view.open and not view.flapping for view in self.views.values()
        )


@dataclass(frozen=True, slots=True)
class Report:
    """The state of the farm.

    @ivar problems: what is not as it should be, a sentence each.
    """

    servers: tuple[Server, ...]
    homes: tuple[HomeReport, ...]
    versions: tuple[str, ...]
    problems: tuple[str, ...]


class NoPage(Exception):
    """What a process answered is no status page; the text says why."""


def places_of(servers: Iterable[Home | Router]) -> tuple[list[Place], list[Home | Router]]:
    """Where to ask these servers.

    @return: the places, and the servers of which none is known.
    """
    known, unknown = [], []
    for server in servers:
        host, _, port = server.metrics.rpartition(":")
        if not host or not port.isdigit():
            unknown.append(server)
            continue
        role = "home" if isinstance(server, Home) else "router"
        draining = server.state == "draining"
        known.append(Place(role, server.name, host.strip("[]"), int(port), draining))
    return known, unknown


def further_places(place: Place, page: Page) -> list[Place]:
    """Where the other processes of the same server are, if it has any: at the ports that follow."""
    last = min(page.workers, WORKERS_LIMIT, 65536 - place.port)
    return [
        Place(place.role, place.name, place.host, place.port + number, place.draining, number)
        for number in range(1, last)
    ]


def read_page(body: bytes) -> Page:
    """The page in C{body}.

    @raise NoPage: it is none.
    """
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        raise NoPage("what answers there is no JSON; is it another program?") from None
    if not isinstance(said, dict) or not isinstance(said.get("role"), str):
        raise NoPage("what answers there is no status page; is it an older rvpfarm, or another program?")
    directory = said.get("directory")
    disk = said.get("disk")
    disk = disk if isinstance(disk, dict) else {}
    reasons, names = said.get("reasons"), said.get("names")
    return Page(
        role=_text(said.get("role")),
        name=_text(said.get("name")),
        version=_text(said.get("version")) or "unknown",
        ready=said.get("ready") is True,
        reasons=tuple(_text(each) for each in reasons[:REASONS_LIMIT]) if isinstance(reasons, list) else (),
        draining=said.get("draining") is True,
        names=tuple(_text(each) for each in names[:HOMES_LIMIT]) if isinstance(names, list) else (),
        pid=_whole(said.get("pid")),
        started=_number(said.get("started")),
        uptime_seconds=_number(said.get("uptime_seconds")),
        connections=_whole(said.get("connections")),
        in_work=_whole(said.get("in_work")),
        users_online=_whole(said.get("users_online")),
        staleness_seconds=_number(directory.get("staleness_seconds"))
        if isinstance(directory, dict)
        else None,
        workers=max(1, _whole(said.get("workers")) or 1),
        config=_text(said.get("config")),
        time=_number(said.get("time")),
        disk_free=_number(disk.get("free_bytes")),
        disk_total=_number(disk.get("total_bytes")),
        homes=_homes(said.get("homes")),
    )


def judge(
    farm: Farm, answers: Sequence[tuple[Place, Page | str]], unknown: Sequence[Home | Router] = ()
) -> Report:
    """The report.

    @param answers: of every process that was asked, in order: its page, or why there is none.
    @param unknown: the servers of which nobody knows where to ask.
    """
    servers = [_judge_one(place, answer) for place, answer in answers]
    for server in unknown:
        role = "home" if isinstance(server, Home) else "router"
        servers.append(Server(role, server.name, 0, "unknown place"))
    servers.sort(key=lambda one: (one.role != "router", one.name, one.worker))
    homes = _judge_homes(farm, servers)
    versions = tuple(sorted({one.page.version for one in servers if one.page is not None}))
    problems = [_complaint(one) for one in servers if one.state not in ("ready", "draining")]
    problems += [f"home {home.name}: {home.words}" for home in homes if not home.well]
    if len(versions) > 1:
        problems.append(_mixture(servers, versions))
    return Report(tuple(servers), homes, versions, tuple(problems))


def _judge_one(place: Place, answer: Page | str) -> Server:
    def server(state: str, reason: str = "", page: Page | None = None) -> Server:
        return Server(place.role, place.name, place.worker, state, reason, str(place), page)

    if isinstance(answer, str):
        return server("no answer", answer)
    if answer.role != place.role or place.name not in (answer.name, *answer.names):
        who = f"{answer.role} {answer.name}".strip()
        return server("no answer", f"{who} answers there; is the place in the directory right?")
    if place.draining or answer.draining:
        return server("draining", "", answer)
    if answer.ready:
        return server("ready", "", answer)
    return server("not ready", "; ".join(answer.reasons) or "it does not say why", answer)


def _judge_homes(farm: Farm, servers: Sequence[Server]) -> tuple[HomeReport, ...]:
    """Every home of the farm as the routers see it; none if no router was asked."""
    pages = {one.title: one.page for one in servers if one.role == "router" and one.page is not None}
    if not pages:
        return ()
    reports = []
    for name in sorted(home.name for home in farm.homes.values()):
        views = {title: page.homes[name] for title, page in pages.items() if name in page.homes}
        reports.append(HomeReport(name, views))
    return tuple(reports)


def _complaint(server: Server) -> str:
    """What is wrong with a server."""
    if server.state == "unknown place":
        verb = f"rvpfarm {server.role} set {server.name} --metrics ADDRESS:PORT"
        return f'nobody knows where {server.role} {server.name} shows its status; say it with "{verb}"'
    where = f" at {server.place}" if server.state == "no answer" else ""
    return f"{server.role} {server.title}{where}: {server.words}"


def _mixture(servers: Sequence[Server], versions: Sequence[str]) -> str:
    """That not all run the same version, and who runs which."""
    runs = []
    for version in versions:
        who = [one.title for one in servers if one.page is not None and one.page.version == version]
        runs.append(f"{version} at {_some(who)}")
    return f"the farm runs {len(versions)} versions: {', '.join(runs)}"


def _some(names: Sequence[str], most: int = 12) -> str:
    """The names, or the first of them."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _homes(said: object) -> dict[str, HomeView]:
    found: dict[str, HomeView] = {}
    for one in said[:HOMES_LIMIT] if isinstance(said, list) else ():
        if isinstance(one, dict) and isinstance(one.get("name"), str):
            state = one.get("state")
            found[_text(one["name"])] = HomeView(
                state if isinstance(state, str) and state in _STATES else "unknown",
                one.get("circuit") == "open",
                one.get("flapping") is True,
                _number(one.get("since_seconds")),
            )
    return found


def _text(value: object) -> str:
    """One line that a terminal can be given."""
    if not isinstance(value, str):
        return ""
    return "".join(each if each.isprintable() else "?" for each in value[:TEXT_LIMIT])


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e15:
        return None
    return float(value)


def _whole(value: object) -> int | None:
    number = _number(value)
    return None if number is None else int(number)
