"""The DNS records that a farm needs, whoever keeps the zones (product F18, D01, D02, D22, D32).

They are the records that C{rvp-dns} serves, put in order by zone, with what was left out and what is probably
wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from rvpfarm.admin.checks import domain_named, enumerate_names, is_ip
from rvpfarm.directory.model import Farm, Home, Router
from rvpfarm.discovery.zone import (
    TTL,
    Address,
    Record,
    Service,
    active,
    edge,
    inside,
    plain_name,
    published,
    record_text,
)

#: The port at which old clients look, whatever the SRV record says.
_USUAL_PORT = 80


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A server or name of which the plan has no record.

    @ivar what: such as C{router r2}.
    """

    what: str
    why: str


@dataclass(frozen=True, slots=True)
class Problem:
    """What is probably wrong.

    @ivar rule: of the product reference, such as C{D22}.
    """

    rule: str
    text: str


@dataclass(frozen=True, slots=True)
class DnsPlan:
    """Everything to publish.

    @ivar zones: the records by the zone that they probably belong to, which need not be its exact name.
    """

    zones: Mapping[str, tuple[Record, ...]]
    left_out: tuple[LeftOut, ...]
    problems: tuple[Problem, ...]


def plan_dns(farm: Farm, domain: str | None = None) -> DnsPlan:
    """The records of the farm.

    @param domain: only those of this IM domain and of the servers.
    @raise Refused: there is no such domain.
    """
    chosen = None if domain is None else domain_named(farm.domains, domain).name
    found = [record for record in published(farm, chosen) if "." in record.name]
    zones: dict[str, list[Record]] = {}
    for record in found:
        zones.setdefault(_zone_of(record.name, farm), []).append(record)
    domains = [one for one in farm.domains if chosen in (None, one)]
    return DnsPlan(
        {zone: tuple(zones[zone]) for zone in sorted(zones)},
        tuple(_left_out(farm, domains)),
        tuple(_problems(farm, domains, found)),
    )


def zone_lines(plan: DnsPlan) -> Iterator[str]:
    """The plan as lines of master files, the rest of it as comments."""
    yield f"; The DNS records of the farm.  A change is known everywhere {TTL} seconds after it is published."
    for one in plan.left_out:
        yield f"; Left out: {one.what}: {one.why}."
    for problem in plan.problems:
        yield f"; Warning ({problem.rule}): {problem.text}."
    for zone, found in plan.zones.items():
        yield ""
        yield f"; zone {zone}"
        yield from map(record_text, found)


def _left_out(farm: Farm, domains: Iterable[str]) -> Iterator[LeftOut]:
    """What has no record, and what to do about it."""
    shown = edge(farm)
    hosts = enumerate_names(_hosts(farm, domains))
    for router in sorted(farm.routers.values(), key=lambda one: one.name):
        what = f"router {router.name}"
        if router.state != "active":
            yield LeftOut(what, f"it is draining, so {router.address or router.host} is not published")
        elif router not in shown:
            yield LeftOut(
                what,
                f"it listens on port {router.port} and the others on {shown[0].port}, and clients take one "
                f"port for all, so {hosts} does not lead to it",
            )
        elif not router.address:
            yield LeftOut(
                what,
                f'its address is not known: "rvpfarm router set {router.name} --address IP" makes it so, or '
                f"give {_and_own(hosts, router, farm)} a record with it yourself",
            )
    for home in sorted(farm.homes.values(), key=lambda one: one.name):
        if not home.address:
            yield LeftOut(
                f"home {home.name}",
                f'its address is not known: "rvpfarm home set {home.name} --address IP" makes it so, or give '
                f"{home.host} exactly one address record yourself",
            )
    for name in domains:
        for alias in farm.domains[name].aliases:
            if "." not in alias:
                yield LeftOut(f"alias {alias}", "it is no full name: clients find it by their search list")


def _problems(farm: Farm, domains: Iterable[str], found: Iterable[Record]) -> Iterator[Problem]:
    """What is probably wrong about the servers and names."""
    servers: list[Router | Home] = [*farm.routers.values(), *farm.homes.values()]
    for server in servers:
        if "." not in server.host or is_ip(server.host):
            yield Problem(
                "D01", f"{server.host}, the host of {_noun(server)} {server.name}, is no full DNS name"
            )
    records = list(found)
    addresses: dict[str, set[str]] = {}
    for record in records:
        if isinstance(record, Address):
            addresses.setdefault(record.name, set()).add(record.address)
    for name in domains:
        if not edge(farm):
            why = "no router is active" if farm.routers else "there is neither a router nor a home"
            yield Problem("D02", f"no SRV record can lead to {name}: {why}")
        elif plain_name(name) not in addresses:
            yield Problem("D02", f"SRV records lead to {name}, and no address of a router is known")
    yield from _shared_homes(farm, addresses)
    port = next((record.port for record in records if isinstance(record, Service)), _USUAL_PORT)
    if port != _USUAL_PORT:
        yield Problem(
            "D32",
            f"the routers listen on port {port}: clients that know no SRV, or ignore its port, ask port "
            f"{_USUAL_PORT}",
        )
    for home in farm.homes.values():
        if home.port != _USUAL_PORT:
            yield Problem(
                "D32", f"the URLs of home {home.name} carry port {home.port}, with which some clients fail"
            )


def _shared_homes(farm: Farm, addresses: Mapping[str, set[str]]) -> Iterator[Problem]:
    """Homes whose name leads to more than one machine, or to a router (D22)."""
    routers = {router.host for router in active(farm.routers.values())}
    for home in farm.homes.values():
        several = addresses.get(plain_name(home.host), set())
        if len(several) > 1:
            yield Problem(
                "D22",
                f"{home.host}, the host of home {home.name}, has the addresses {enumerate_names(several)}: "
                "a home's name leads to one machine",
            )
        elif home.host in routers:
            yield Problem("D22", f"{home.host} is the host of home {home.name} and of a router")


def _zone_of(name: str, farm: Farm) -> str:
    """The zone that C{name} probably belongs to: that of a mail domain, or the name above."""
    host = ".".join(label for label in name.split(".") if not label.startswith("_"))
    mail_domains = (plain_name(mail) for domain in farm.domains.values() for mail in domain.mail_domains)
    found = [mail for mail in mail_domains if inside(host, mail)]
    if found:
        return max(found, key=len)
    above = host.partition(".")[2]
    return above if "." in above else host


def _hosts(farm: Farm, domains: Iterable[str]) -> list[str]:
    """Every full name that means one of the IM domains."""
    return [host for name in domains for host in (name, *farm.domains[name].aliases) if "." in host]


def _and_own(hosts: str, router: Router, farm: Farm) -> str:
    """The names that a router answers to."""
    names = {host for domain in farm.domains.values() for host in (domain.name, *domain.aliases)}
    return hosts if router.host in names else f"{hosts} and {router.host}"


def _noun(server: Home | Router) -> str:
    """What kind of server it is."""
    return "home" if isinstance(server, Home) else "router"
