"""Gives a home or a router another name and host, in one step (KB 319758 took five)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeVar

from rvpfarm.admin.actors import default_actor
from rvpfarm.admin.checks import Refused, check_host, check_server_name, serving
from rvpfarm.admin.places import check_url
from rvpfarm.admin.servers import server_named
from rvpfarm.admin.users import Rehearsed
from rvpfarm.directory.model import Farm, FormerHost, Home, Router, read_former, write_former
from rvpfarm.directory.store import Store

_Server = TypeVar("_Server", Home, Router)

#: For so long the former host is answered to: the longest that a client remembers it (subscriptions: 4 h).
FORMER_SECONDS = 14400.0


@dataclass(frozen=True, slots=True)
class Renaming:
    """What was done, or would be.

    @ivar until: when the former host is no longer answered to; 0 if the host stays.
    """

    before: Home | Router
    after: Home | Router
    until: float = 0.0


def rename_home(
    store: Store,
    name: str,
    new: str,
    host: str | None = None,
    *,
    now: float | None = None,
    actor: str | None = None,
    dry_run: bool = False,
) -> Renaming:
    """A home with another name, and another host if one is given; its users, state and URLs' ends stay.

    The former host goes on meaning this home for L{FORMER_SECONDS}.  To take it back is to rename it back.

    @raise Refused: there is no such home, or a name is none, or taken.
    """
    moment = time.time() if now is None else now
    with suppress(Rehearsed), store.change(actor or default_actor(), "home rename", name) as writing:
        farm = writing.farm()
        before = server_named(farm.homes, name, "home")
        after = _renamed(farm, farm.homes, before, new, host, moment)
        if after.host != before.host:
            domain = serving(after.host, farm.domains)
            if domain is not None and after.host not in domain.mail_domains:
                raise Refused(
                    f'"{after.host}" means the IM domain {domain.name}, which routers answer for; '
                    "give --host a name of the home's own, such as hs1.example.com"
                )
            check_url(_without(farm, before), after)
        writing.subject = after.name
        writing.update_home(after)
        if dry_run:
            raise Rehearsed
    return Renaming(before, after, 0.0 if after.host == before.host else moment + FORMER_SECONDS)


def rename_router(
    store: Store,
    name: str,
    new: str,
    host: str | None = None,
    *,
    now: float | None = None,
    actor: str | None = None,
    dry_run: bool = False,
) -> Renaming:
    """A router with another name, and another host if one is given; see L{rename_home}.

    @raise Refused: there is no such router, or a name is none, or taken.
    """
    moment = time.time() if now is None else now
    with suppress(Rehearsed), store.change(actor or default_actor(), "router rename", name) as writing:
        farm = writing.farm()
        before = server_named(farm.routers, name, "router")
        after = _renamed(farm, farm.routers, before, new, host, moment)
        writing.subject = after.name
        writing.update_router(after)
        if dry_run:
            raise Rehearsed
    return Renaming(before, after, 0.0 if after.host == before.host else moment + FORMER_SECONDS)


def _renamed(
    farm: Farm, servers: Mapping[str, _Server], before: _Server, new: str, host: str | None, now: float
) -> _Server:
    """The record with the new names."""
    label = check_server_name(new)
    if any(one.name == label and one.id != before.id for one in servers.values()):
        raise Refused(f'the name "{label}" is taken; choose another')
    advice = "give --host the name that clients resolve, such as hs1.example.com (KB 319758)"
    full = before.host if host is None else check_host(host, advice)
    if label == before.name and full == before.host:
        raise Refused(f"it is called {label} at {full} already; give another name or --host")
    others: list[Home | Router] = [*farm.homes.values(), *farm.routers.values()]
    for other in others:
        both_routers = isinstance(before, Router) and isinstance(other, Router)
        if other.id != before.id and not both_routers and full in other.former_hosts:
            raise Refused(
                f"{full} still means {other.name}, which had it before; give --host another name, or wait"
            )
    former = [one for one in read_former(before.former) if one.host != full and one.host != before.host]
    if full != before.host:
        former.append(FormerHost(before.host, now + FORMER_SECONDS))
    return replace(before, name=label, host=full, former=write_former(former))


def _without(farm: Farm, home: Home) -> Farm:
    return replace(farm, homes={id: one for id, one in farm.homes.items() if id != home.id})
