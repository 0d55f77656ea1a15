"""What the directory lists, as values, for the admin API and for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rvpfarm.admin.checks import domain_named, home_named
from rvpfarm.admin.dnsplan import LeftOut, Problem, plan_dns
from rvpfarm.admin.handlers import CHOICES, RANGES
from rvpfarm.admin.routes import FOLLOWER, Explanation, explain, think_of
from rvpfarm.admin.servers import server_named
from rvpfarm.directory.model import POLICIES, Account, Domain, Home, Network, Router
from rvpfarm.directory.store import Store


@dataclass(frozen=True, slots=True)
class PolicyView:
    """One policy with the value that counts.

    @ivar choices: the values that it may have; none for a number or a text.
    @ivar least: the least number, as C{most} is the greatest; C{None} when it is no number.
    """

    name: str
    value: str
    default: str
    choices: tuple[str, ...]
    least: int | None
    most: int | None


@dataclass(frozen=True, slots=True)
class Change:
    """A row of the audit trail.

    @ivar at: seconds since 1970.
    @ivar before: what was there, by what it is; C{after} likewise what is there now.
    @ivar hash: over the row and the hash of the row before.
    """

    seq: int
    at: float
    actor: str
    action: str
    subject: str
    before: Mapping[str, object]
    after: Mapping[str, object]
    hash: str


@dataclass(frozen=True, slots=True)
class AuditState:
    """Whether the audit trail is whole.

    @ivar whole: nobody changed, removed, inserted or reordered a row.
    @ivar broken: the number of the first row that does not follow from those before it.
    @ivar rows: how many rows there are to be, and C{head} the hash of the last: kept elsewhere, it tells
        later whether somebody cut the end off.
    @ivar expected: the hash that was expected is among them; C{None} when none was.
    """

    whole: bool
    broken: int | None
    rows: int
    head: str
    expected: bool | None


@dataclass(frozen=True, slots=True)
class RecordView:
    """One DNS record to publish.

    @ivar zone: the zone that it probably belongs to.
    @ivar ttl: how long it may be remembered, in seconds.
    """

    zone: str
    name: str
    ttl: int
    type: str
    data: str


@dataclass(frozen=True, slots=True)
class PlanView:
    """The DNS records to publish.

    @ivar left_out: what has no record, and why.
    @ivar problems: what is probably wrong.
    """

    records: tuple[RecordView, ...]
    left_out: tuple[LeftOut, ...]
    problems: tuple[Problem, ...]


def list_domains(store: Store) -> list[Domain]:
    """The IM domains, by name."""
    with store.read() as reading:
        return list(reading.farm().domains.values())


def list_homes(store: Store) -> list[Home]:
    """The home servers, by name."""
    with store.read() as reading:
        return list(reading.farm().homes.values())


def list_routers(store: Store) -> list[Router]:
    """The routers, by name."""
    with store.read() as reading:
        return list(reading.farm().routers.values())


def show_home(store: Store, name: str) -> Home:
    """The home server of that name.

    @param name: what administrators call it.
    @raise Refused: there is none.
    """
    with store.read() as reading:
        return server_named(reading.farm().homes, name, "home")


def show_router(store: Store, name: str) -> Router:
    """The router of that name.

    @param name: what administrators call it.
    @raise Refused: there is none.
    """
    with store.read() as reading:
        return server_named(reading.farm().routers, name, "router")


def list_networks(store: Store) -> list[Network]:
    """The ranges of addresses that count as something, by kind."""
    with store.read() as reading:
        return list(reading.farm().networks)


def list_policies(store: Store, domain: str | None = None) -> list[PolicyView]:
    """Every policy with the value that counts, by name.

    @param domain: for this IM domain; left out, for the farm.
    @raise Refused: there is no such domain.
    """
    with store.read() as reading:
        farm = reading.farm()
    chosen = None if domain is None else domain_named(farm.domains, domain).name
    return [
        PolicyView(
            name,
            farm.policy(name, chosen),
            POLICIES[name],
            tuple(CHOICES.get(name, ())),
            *RANGES.get(name, (None, None)),
        )
        for name in sorted(POLICIES)
    ]


def page_users(
    store: Store, domain: str | None = None, home: str | None = None, *, after: str = "", limit: int = 100
) -> Sequence[Account]:
    """Some of the users, by address.

    @param domain: only those of this IM domain.
    @param home: only those on the home of this name.
    @param after: only those whose address comes after this one.
    @param limit: at most so many.
    @raise Refused: there is no such domain or home.
    """
    with store.read() as reading:
        farm = reading.farm()
        home_id = None if home is None else home_named(farm, home).id
        name = None if domain is None else domain_named(farm.domains, domain).name
        return reading.page(name, home_id, after=after, limit=limit)


def verify_audit(store: Store, expect: str | None = None) -> AuditState:
    """Whether anybody changed, removed, inserted or reordered a row of the audit trail.

    @param expect: the hash of the newest row at some time, which was kept elsewhere: without it nobody can
        tell whether the newest rows were removed together with what remembers them.
    """
    with store.read() as reading:
        broken = reading.audit_break()
        rows, head = reading.audit_head()
        known = None if expect is None else reading.has_audit_hash(expect.strip().lower())
    return AuditState(broken is None and known is not False, broken, rows, head, known)


def list_changes(
    store: Store,
    subject: str | None = None,
    *,
    by: str | None = None,
    action: str | None = None,
    since: float | None = None,
    newest: int = 50,
) -> list[Change]:
    """Who changed what, the oldest first.

    @param subject: only what happened to this IM address, domain, server or administrator.
    @param by: only what this one did, as the trail has it.
    @param action: only this, such as C{user enable}, or every action of a noun, such as C{user}.
    @param since: only from then on, in seconds since 1970.
    @param newest: at most so many, the newest ones.
    """
    with store.read() as reading:
        rows = reading.audit(subject, newest, actor=by, action=action, since=since)
    return [
        Change(
            row.seq,
            row.at,
            row.actor,
            row.action,
            row.subject,
            json.loads(row.before),
            json.loads(row.after),
            row.hash,
        )
        for row in rows
    ]


def list_records(store: Store, domain: str | None = None) -> PlanView:
    """The DNS records to publish, what was left out, and what is probably wrong.

    @param domain: only those of this IM domain and of the servers.
    @raise Refused: there is no such domain.
    """
    with store.read() as reading:
        plan = plan_dns(reading.farm(), domain)
    records = tuple(
        RecordView(zone, one.name, one.ttl, one.type, one.data)
        for zone, found in plan.zones.items()
        for one in found
    )
    return PlanView(records, plan.left_out, plan.problems)


def explain_call(
    store: Store,
    address: str,
    *,
    user: str | None = None,
    domain: str | None = None,
    user_agent: str = FOLLOWER,
    host: str | None = None,
    forwarded: str | None = None,
) -> Explanation:
    """What a router does with a call from some address, and why; nothing is sent to anybody.

    @param address: where the connection comes from.
    @param user: whom the call is for; left out, anybody on any home.
    @param domain: the IM domain; may be left out with C{user}, or when there is only one.
    @param user_agent: what the client calls itself.
    @param host: the host that the client asks; left out, the IM domain.
    @param forwarded: what the header of a trusted proxy says.
    @raise Refused: there is no such user, domain or address, or no home.
    """
    call = think_of(
        store,
        address,
        user=user,
        domain=domain,
        user_agent=user_agent,
        host=host,
        forwarded=forwarded,
    )
    return explain(call)
