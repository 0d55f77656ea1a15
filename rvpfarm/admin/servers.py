"""Homes and routers that are there already: moved, shown elsewhere, drained, removed (product F05, D21)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeVar

from rvpfarm.admin.actors import default_actor
from rvpfarm.admin.checks import Missing, Taken, check_address, check_metrics, check_place, enumerate_names
from rvpfarm.admin.handlers import check_ports
from rvpfarm.admin.users import Rehearsed
from rvpfarm.directory.model import Farm, Home, Router
from rvpfarm.directory.store import Store
from rvpfarm.directory.writing import Writing
from rvpfarm.discovery.zone import active

_Server = TypeVar("_Server", Home, Router)

#: What a server is when it takes whatever comes, and when it is being emptied.
ACTIVE, DRAINING = "active", "draining"

#: Why the rest of a server's record stays as it is, by the option that somebody may think of.
FIXED: Mapping[str, str] = {
    "home --host": 'the host of a home stands in its users\' URLs; "rvpfarm home rename" changes it',
    "home --port": "the port of a home stands in its users' URLs; create another home and give users to it",
    "home --link-port": "all members would have to follow at one moment; create another home instead",
    "router --host": 'the host of a router is published in DNS; "rvpfarm router rename" changes it',
    "router --port": "the port of a router is published in DNS; create another router instead",
}


@dataclass(frozen=True, slots=True)
class RouterChange:
    """What was done with a router.

    @ivar router: as it is now, or was when it was removed.
    @ivar left: how many routers are active afterwards.
    """

    router: Router
    left: int


def server_named(servers: Mapping[str, _Server], name: str, noun: str) -> _Server:
    """The home or router of that name.

    @raise Refused: there is none.
    """
    wanted = name.strip().lower()
    for server in servers.values():
        if server.name == wanted:
            return server
    names = enumerate_names(server.name for server in servers.values())
    raise Missing(f'there is no {noun} "{name}"; the directory has {names}', name)


def change_home(
    store: Store,
    name: str,
    *,
    metrics: str | None = None,
    address: str | None = None,
    actor: str | None = None,
) -> Home:
    """A home with another place; what is C{None} stays.

    @param metrics: C{ADDRESS:PORT} where it shows itself; empty for nowhere.
    @param address: its IP address; empty if it is to be looked up.
    @raise Refused: there is no such home, or somebody else is there.
    """
    with store.change(actor or default_actor(), "home set", name) as writing:
        farm = writing.farm()
        home = _moved(farm, server_named(farm.homes, name, "home"), metrics, address)
        others = replace(farm, homes={id: one for id, one in farm.homes.items() if id != home.id})
        if address is not None:
            ports = {"--port": home.port, "--link-port": home.link_port}
            check_ports(others, home.host, home.address, ports)
        writing.subject = home.name
        writing.update_home(home)
    return home


def change_router(
    store: Store,
    name: str,
    *,
    metrics: str | None = None,
    address: str | None = None,
    actor: str | None = None,
) -> Router:
    """A router with another place; see L{change_home}.

    @raise Refused: there is no such router, or somebody else is there.
    """
    with store.change(actor or default_actor(), "router set", name) as writing:
        farm = writing.farm()
        router = _moved(farm, server_named(farm.routers, name, "router"), metrics, address)
        others = replace(farm, routers={id: one for id, one in farm.routers.items() if id != router.id})
        if address is not None:
            check_ports(others, router.host, router.address, {"--port": router.port})
        writing.subject = router.name
        writing.update_router(router)
    return router


def drain_router(
    store: Store, name: str, *, force: bool = False, actor: str | None = None, dry_run: bool = False
) -> RouterChange:
    """A router that is to get nothing new, so that it can be stopped.

    @param force: also the last active one.
    @raise Refused: there is none of that name, it drains already, or nobody else would be left.
    """

    def drain(writing: Writing, farm: Farm, router: Router) -> Router:
        if router.state == DRAINING:
            raise Taken(f'router {router.name} drains already; "rvpfarm router resume" takes it back')
        _keep_one(farm, router, force)
        drained = replace(router, state=DRAINING)
        writing.update_router(drained)
        return drained

    return _change(store, "router drain", name, drain, actor, dry_run)


def resume_router(
    store: Store, name: str, *, actor: str | None = None, dry_run: bool = False
) -> RouterChange:
    """A router that drained and shall get work again.

    @raise Refused: there is none of that name, or it does not drain.
    """

    def resume(writing: Writing, farm: Farm, router: Router) -> Router:
        if router.state == ACTIVE:
            raise Taken(f"router {router.name} is active already")
        resumed = replace(router, state=ACTIVE)
        writing.update_router(resumed)
        return resumed

    return _change(store, "router resume", name, resume, actor, dry_run)


def remove_router(
    store: Store, name: str, *, force: bool = False, actor: str | None = None, dry_run: bool = False
) -> RouterChange:
    """A router that is there no longer.

    @param force: also an active one, or the last.
    @raise Refused: there is none of that name, it has not been drained, or nobody else would be left.
    """

    def remove(writing: Writing, farm: Farm, router: Router) -> Router:
        _keep_one(farm, router, force)
        if router.state == ACTIVE and not force:
            raise Taken(
                f'router {router.name} is active, and clients know it; first "rvpfarm router drain '
                f'{router.name}", or give --yes'
            )
        writing.remove_router(router)
        return router

    return _change(store, "router remove", name, remove, actor, dry_run)


def _moved(farm: Farm, server: _Server, metrics: str | None, address: str | None) -> _Server:
    """The record with what was given."""
    if metrics is not None:
        server = replace(server, metrics=check_place(metrics, "--metrics"))
    if address is not None:
        server = replace(server, address=check_address(address))
    check_metrics(farm, server)
    return server


def _keep_one(farm: Farm, router: Router, force: bool) -> None:
    """Another router than this one is active.

    @raise Refused: none is, and nobody insists.
    """
    others = [one for one in active(farm.routers.values()) if one.id != router.id]
    if others or force:
        return
    raise Taken(
        f"no other router is active, so that nobody would find the farm without {router.name}; "
        'make another with "rvpfarm router create", or give --yes'
    )


def _change(
    store: Store,
    action: str,
    name: str,
    change: Callable[[Writing, Farm, Router], Router],
    actor: str | None,
    dry_run: bool,
) -> RouterChange:
    """Do something with the router called C{name}."""
    with suppress(Rehearsed), store.change(actor or default_actor(), action, name) as writing:
        farm = writing.farm()
        router = server_named(farm.routers, name, "router")
        writing.subject = router.name
        router = change(writing, farm, router)
        done = RouterChange(router, len(active(writing.farm().routers.values())))
        if dry_run:
            raise Rehearsed
    return done
