"""Puts the farm's records into somebody's zones by signed updates (RFC 2136, RFC 8945); waits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rvpfarm.admin import resolving
from rvpfarm.admin.checks import Refused
from rvpfarm.admin.doctor.dnsview import Source
from rvpfarm.directory.model import Farm
from rvpfarm.discovery.update import (
    Change,
    Key,
    differences,
    in_zone,
    make_update,
    managed_sets,
    parse_key,
    shared_names,
)
from rvpfarm.discovery.zone import inside, plain_name


@dataclass(frozen=True, slots=True)
class ZonePlan:
    """What has to change in one zone.

    @ivar server: that keeps it.
    """

    zone: str
    server: Source
    changes: tuple[Change, ...]


def load_key(path: Path) -> Key:
    """The key in a file that C{tsig-keygen} wrote.

    @raise Refused: it cannot be read, everybody can read it, or it is none.
    """
    try:
        if path.stat().st_mode & 0o007:
            raise Refused(f"everybody can read the key {path}; chmod 640 it, and make a new one")
        return parse_key(path.read_text())
    except (OSError, UnicodeDecodeError) as problem:
        why = problem.strerror if isinstance(problem, OSError) else "it is no text"
        raise Refused(f"cannot read --key-file {path}: {why}") from problem
    except ValueError as problem:
        raise Refused(f"--key-file {path}: {problem}") from problem


def plan_updates(
    farm: Farm,
    server: tuple[str, int] | None,
    resolver: tuple[str, int] | None,
    seconds: float,
    only: Iterable[str] = (),
) -> list[ZonePlan]:
    """What differs, by zone.

    @param server: keeps all zones; else the primary of each is found by its SOA record.
    @param resolver: which DNS server is asked for that; C{None} for this machine's.
    @param only: these zones; all of them if there are none.
    @raise Refused: it cannot be found out.
    """
    wanted = managed_sets(farm)
    if not wanted:
        raise Refused('there is nothing to publish yet; "rvpfarm dns plan" says what is missing')
    known = Source(True, *server) if server is not None else None
    asked = known or _resolver(resolver)
    chosen = [plain_name(zone) for zone in only]
    keepers: dict[str, Source] = {}
    for name in sorted({name for name, _ in wanted}):
        if chosen and not any(inside(name, zone) for zone in chosen):
            continue
        zone, primary = resolving.zone_of(name, asked, seconds)
        if zone not in keepers:
            keepers[zone] = known or _keeper(primary, asked, seconds)
    plans = []
    for zone, keeper in sorted(keepers.items()):
        if chosen and zone not in chosen:
            continue
        sets = {
            place: records
            for place, records in wanted.items()
            if inside(place[0], zone)
            and not any(inside(place[0], other) for other in keepers if other != zone and inside(other, zone))
        }
        present = resolving.sets_at(keeper, sorted(sets), seconds)
        changes = in_zone(differences(sets, present, shared_names(farm)), zone)
        plans.append(ZonePlan(zone, keeper, tuple(changes)))
    missing = set(chosen) - {plan.zone for plan in plans}
    if missing:
        raise Refused(
            f"no record of the farm is in the zone {min(missing)}; the zones are {', '.join(keepers)}"
        )
    return plans


def publish(plan: ZonePlan, key: Key | None, seconds: float) -> None:
    """Make the changes of one zone, all of them or none.

    @raise Refused: none was made.
    """
    if plan.changes:
        resolving.carry(make_update(plan.zone, plan.changes, key), plan.zone, plan.server, seconds)


def _resolver(given: tuple[str, int] | None) -> Source:
    if given is not None:
        return Source(False, *given)
    found = resolving.own_resolvers()
    if not found:
        raise Refused(resolving.NO_RESOLVER)
    return found[0]


def _keeper(primary: str, resolver: Source, seconds: float) -> Source:
    address = resolving.address_of(primary, resolver, seconds)
    if not address:
        raise Refused(f"the primary server {primary} has no address in the DNS; give --server ADDRESS:PORT")
    return Source(True, address)
