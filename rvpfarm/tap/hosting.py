"""Several homes in one process: what each needs of its own, what they share, and where they listen.

The original ran several IM virtual servers on one machine, told apart by address, port and host header
(product F07).  Here each is a home with a record, a state, a farm link and figures of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from os import urandom
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from rvpfarm.admin.states import STATE_FILE
from rvpfarm.auth.challenge import Gate, Scheme
from rvpfarm.auth.connections import Connections
from rvpfarm.auth.digest import Nonces
from rvpfarm.auth.keys import FarmKey
from rvpfarm.auth.throttle import Throttle
from rvpfarm.directory.model import Directory, Farm
from rvpfarm.directory.model import Home as Record
from rvpfarm.home.control import Control
from rvpfarm.home.delivery import Sender
from rvpfarm.home.journal import Journal
from rvpfarm.home.server import Home
from rvpfarm.home.signins import SignIns
from rvpfarm.link.links import Answer, LinkFactory
from rvpfarm.observe.metrics import Metrics
from rvpfarm.protocol.address import asked_host
from rvpfarm.protocol.calls import Call, Limits
from rvpfarm.router.forwarder import Answered, Router
from rvpfarm.tap.settings import HostPort
from rvpfarm.web.admission import Admission


@dataclass(frozen=True, slots=True)
class Shared:
    """What the homes of one process have in common.

    @ivar reactor: the daemon's (C{Any}: no one interface has all that is needed of it).
    @ivar schemes: the ways to prove who one is; a handshake that one home began, any of them can end.
    @ivar strangers: carries calls to the servers of other organisations.
    """

    reactor: Any
    key: FarmKey
    directory: Directory
    outgoing: Sender
    strangers: Sender
    router: Router
    nonces: Nonces
    connections: Connections
    schemes: Sequence[Scheme]
    throttle: Throttle
    admission: Admission


class Hosted:
    """One home of a process.

    @ivar answer: what its own listener asks; C{metrics} is what it counts with.
    @ivar taken: takes those that come over farm links.
    """

    def __init__(self, record: Record, journal: Journal, metrics: Metrics, shared: Shared) -> None:
        """
        @param journal: its own; C{metrics} likewise.
        """
        self.record, self.metrics, self._journal = record, metrics, journal
        self.home = Home(
            record.id,
            directory=shared.directory,
            gate=Gate(
                shared.nonces,
                schemes=shared.schemes,
                on_failure=metrics.auth_failure,
                on_miss=SignIns(metrics).missed,
                throttle=shared.throttle,
            ),
            journal=journal,
            outgoing=shared.outgoing,
            elsewhere=shared.router.answer,
            clock=shared.reactor,
            metrics=metrics,
            random=urandom,
            strangers=shared.strangers,
        )
        self.answer: Answer = self.home.answer
        self.taken = LinkFactory(
            Control(self.home, record.id, shared.directory, shared.reactor).answer,
            key=shared.key.link,
            accepted=shared.key.links,
            name=record.id,
            incarnation=0,
            clock=shared.reactor,
            limits=Limits(),
            metrics=metrics,
            admission=shared.admission,
            on_gone=shared.connections.forget,
        )

    def number_start(self) -> None:
        """Each start has a number, so that routers know what a new process cannot remember."""
        self.taken.incarnation = self._journal.incarnation


class Reception:
    """Takes the calls of a listener that several homes share.

    The host that is asked chooses the home, else it is the first; what turns out to be for a sister, the
    home hands to her.

    A request is counted for the home that was asked, and what concerns the listener itself for the first.
    """

    def __init__(self, homes: Sequence[Hosted]) -> None:
        self._first = homes[0]
        self._by_host = {hosted.record.host: hosted for hosted in homes}
        self._whose = self._first.metrics

    def answer(self, call: Call) -> Answered:
        """Have a home answer; see L{Home.answer}."""
        host = asked_host(call.target, call.headers.get(b"host"))
        asked = self._by_host.get(host, self._first)
        self._whose = asked.metrics
        answer = asked.answer(call)
        if isinstance(answer, Deferred):
            self._whose = self._first.metrics
            answer.addBoth(self._ended, asked.metrics)
        return answer

    def _ended(self, result: Any, whose: Metrics) -> Any:  # Any: a reply or a failure, as it came
        self._whose = whose
        return result

    def request(self, verb: bytes, status: int, seconds: float) -> None:
        """The listener has answered a request, just after L{answer} or one of its answers came."""
        whose, self._whose = self._whose, self._first.metrics
        whose.request(verb, status, seconds)

    def rejected(self, reason: str) -> None:
        """The listener turned load away."""
        self._first.metrics.rejected(reason)


def facts_of(homes: Sequence[Hosted]) -> Mapping[str, object]:
    """What the status page says of the homes: of one alone what it holds, of several what each holds."""
    if len(homes) == 1:
        return homes[0].home.facts()
    facts = {hosted.record.name: hosted.home.facts() for hosted in homes}
    online = [each["users_online"] for each in facts.values()]
    return {
        "names": list(facts),
        "users_online": sum(each for each in online if isinstance(each, int)),
        "homes_here": facts,
    }


def all_draining(farm: Farm, homes: Sequence[Record]) -> bool:
    """Whether by the directory all these homes are being taken away; the process is theirs together."""
    now = [farm.homes.get(home.id) for home in homes]
    return all(home is not None and home.state == "draining" for home in now)


def listeners_of(homes: Sequence[Record]) -> Mapping[HostPort, Sequence[Record]]:
    """Where these homes listen for callers, and which of them at each place, in their order.

    A home without an address listens on every address, and so do others on its port.
    """
    everywhere = {home.port for home in homes if not home.address}
    found: dict[HostPort, list[Record]] = {}
    for home in homes:
        place = HostPort("" if home.port in everywhere else home.address, home.port)
        found.setdefault(place, []).append(home)
    return found


def check_together(homes: Sequence[Record]) -> None:
    """See that these homes can run in one process.

    @raise SystemExit: the farm link of one would be where another listens, or nothing tells two apart.
    """
    for one, other in combinations(homes, 2):
        if one.address and other.address and one.address != other.address:
            continue
        if (one.host, one.port) == (other.host, other.port):
            raise SystemExit(
                f"rvp-home: {one.name} and {other.name} are both {one.host} port {one.port}, so that nothing "
                "tells them apart; give each a host name of its own in the directory"
            )
        clash = {one.link_port} & {other.port, other.link_port} or {other.link_port} & {one.port}
        if clash:
            raise SystemExit(
                f"rvp-home: {one.name} and {other.name} would both listen on port {min(clash)}; "
                "give each home a link port of its own in the directory"
            )


def state_files(directory: str, names: Sequence[str]) -> list[Path]:
    """The databases of the homes' states: in C{directory} that of a home alone, else each in one below it.

    Directories are made if need be, for nobody else to read.

    @raise SystemExit: they cannot be made, or hold a state that would be forgotten.
    """
    top = Path(directory)
    alone = top / STATE_FILE
    places = [top] if len(names) == 1 else [top / name for name in names]
    try:
        for place in places:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        moved = [name for name in names if (top / name / STATE_FILE).exists()]
        if len(names) > 1 and alone.exists():
            raise SystemExit(
                f"rvp-home: --state-dir {top} holds the state of a home that ran alone: "
                f"move {STATE_FILE}* to {top / names[0]} if it was {names[0]}, else delete them"
            )
        if len(names) == 1 and moved and not alone.exists():
            raise SystemExit(
                f"rvp-home: --state-dir {top} holds the states of several homes; "
                f"give --state-dir {top / names[0]} to run {names[0]} alone"
            )
    except OSError as problem:
        raise SystemExit(f"rvp-home: --state-dir {top}: {problem.strerror}") from problem
    return [place / STATE_FILE for place in places]
