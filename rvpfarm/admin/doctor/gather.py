"""Looks at the directory, the DNS and the processes for the doctor; it changes nothing and waits (shell)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException

from rvpfarm.admin import resolving, users
from rvpfarm.admin.asking import ANSWER_LIMIT, ask_all, fetch
from rvpfarm.admin.doctor.dnsview import DnsView, domain_hosts, is_ip, questions_about
from rvpfarm.admin.doctor.dnsview import Source as DnsServer
from rvpfarm.admin.doctor.evidence import Accounts, Probe, audit
from rvpfarm.admin.doctor.figures import Figures, read_figures
from rvpfarm.admin.status import NoPage, Page, Place, Report, further_places, judge, places_of
from rvpfarm.directory.model import Farm, Home, Router
from rvpfarm.directory.store import Store
from rvpfarm.discovery.zone import edge

#: Processes and routers that are asked at once.
_AT_ONCE = 32
#: Addresses of one domain that are tried.
_MOST_ADDRESSES = 16


def look_at_accounts(store: Store) -> Accounts:
    """Audit every account."""
    lacking = (view.account.address for view in users.list_lacking(store))
    with store.read() as reading:
        return audit(reading.farm(), reading.accounts(), lacking)


def look_at_dns(
    farm: Farm, authoritative: Sequence[DnsServer], resolvers: Sequence[DnsServer], seconds: float
) -> DnsView:
    """Ask the authoritative servers and the resolvers for every name of the farm.

    @param authoritative: asked in place of those that the resolvers name, if there are any.
    @param resolvers: those of this machine if there are none.
    """
    questions = questions_about(farm)
    asked_too = list(resolvers) or resolving.own_resolvers()
    masters: dict[str, list[DnsServer]] = {}
    if not authoritative and asked_too:
        names = list(dict.fromkeys(question.name for question in questions))
        masters = resolving.authorities(names, asked_too[0], seconds)
    asked = [
        (server, question)
        for question in questions
        for server in (*(authoritative or masters.get(question.name, ())), *asked_too)
    ]
    return DnsView(tuple(resolving.ask_all(asked, seconds)))


def look_at_processes(farm: Farm, seconds: float) -> tuple[Report, dict[str, Figures], tuple[str, ...]]:
    """Ask every process for its status and metrics.

    @return: the report, the figures by the title of each process, and the titles of those without any.
    """
    servers: list[Home | Router] = [*farm.routers.values(), *farm.homes.values()]
    places, unknown = places_of(servers)
    answers: dict[Place, Page | str] = dict(ask_all(places, seconds))
    further = [
        other
        for place, answer in answers.items()
        if isinstance(answer, Page)
        for other in further_places(place, answer)
    ]
    answers |= ask_all(further, seconds)
    report = judge(farm, list(answers.items()), unknown)
    # homes that share a process share its page: their figures are told once
    shown = list(
        {
            (place.host, place.port): place for place, answer in answers.items() if isinstance(answer, Page)
        }.values()
    )
    figures: dict[str, Figures] = {}
    dumb: list[str] = []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for place, found in zip(shown, pool.map(lambda place: _figures(place, seconds), shown), strict=True):
            if found is None:
                dumb.append(place.title)
            else:
                figures[place.title] = found
    return report, figures, tuple(dumb)


def look_at_routers(farm: Farm, view: DnsView | None, seconds: float) -> tuple[Probe, ...]:
    """Ask at every address that a domain leads to whether the domain is served there.

    @param view: what the DNS says; without it the directory's addresses are asked.
    """
    port = next((machine.port for machine in edge(farm)), 80)
    asked: list[tuple[str, str]] = []
    for host, _ in domain_hosts(farm):
        found = view.addresses(host) if view is not None else None
        if not found:
            found = frozenset(machine.address for machine in edge(farm) if is_ip(machine.address or ""))
        asked += [(host, address) for address in sorted(found)[:_MOST_ADDRESSES]]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return tuple(pool.map(lambda one: probe_domain(one[0], one[1], port, seconds), asked))


def probe_domain(domain: str, address: str, port: int, seconds: float) -> Probe:
    """Does what listens there serve C{domain}?  It is asked for a user that nobody is called."""
    place = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    connection = HTTPConnection(address, port, timeout=seconds)
    try:
        connection.request(
            "PROPFIND",
            "/instmsg/aliases/no.such.user.of.the.doctor",
            headers={"Host": domain, "RVP-Notifications-Version": "0.2", "Depth": "0", "Content-Length": "0"},
        )
        answer = connection.getresponse()
        text = answer.read(ANSWER_LIMIT)
    except (OSError, HTTPException) as problem:
        return Probe(domain, place, False, str(problem) or type(problem).__name__)
    finally:
        connection.close()
    if answer.getheader("RVP-Notifications-Version") is None:
        return Probe(domain, place, False, f"what answers there ({answer.status}) is no RVP server")
    if answer.status == 404 and b"not served here" in text:
        return Probe(domain, place, False, "it says that it does not serve this domain")
    return Probe(domain, place, True)


def now() -> float:
    """The time of this machine."""
    return time.time()


def _figures(place: Place, seconds: float) -> Figures | None:
    try:
        return read_figures(fetch(place.host, place.port, seconds, "/metrics").decode("utf-8", "replace"))
    except (NoPage, HTTPException, OSError):
        return None


def servers_of(texts: Iterable[tuple[str, int]], *, authoritative: bool) -> list[DnsServer]:
    """The DNS servers that options name."""
    return [DnsServer(authoritative, address, port) for address, port in texts]
