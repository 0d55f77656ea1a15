"""What can change about a home or router in the directory: where it is, and where it shows itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from rvpfarm.admin.actors import default_actor
from rvpfarm.admin.checks import Refused, check_address, check_metrics, check_place, enumerate_names
from rvpfarm.admin.handlers import check_ports
from rvpfarm.directory.model import Farm, Home, Router
from rvpfarm.directory.store import Store

_Server = TypeVar("_Server", Home, Router)

#: Why the rest of a server's record stays as it is, by the option that somebody may think of.
FIXED: Mapping[str, str] = {
    "home --host": "the host of a home stands in its users' URLs; create another home and give users to it",
    "home --port": "the port of a home stands in its users' URLs; create another home and give users to it",
    "home --link-port": "all members would have to follow at one moment; create another home instead",
    "router --host": "the host of a router is published in DNS; create another router instead",
    "router --port": "the port of a router is published in DNS; create another router instead",
}


def server_named(servers: Mapping[str, _Server], name: str, noun: str) -> _Server:
    """The home or router of that name.

    @raise Refused: there is none.
    """
    wanted = name.strip().lower()
    for server in servers.values():
        if server.name == wanted:
            return server
    names = enumerate_names(server.name for server in servers.values())
    raise Refused(f'there is no {noun} "{name}"; the directory has {names}')


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


def _moved(farm: Farm, server: _Server, metrics: str | None, address: str | None) -> _Server:
    """The record with what was given."""
    if metrics is not None:
        server = replace(server, metrics=check_place(metrics, "--metrics"))
    if address is not None:
        server = replace(server, address=check_address(address))
    check_metrics(farm, server)
    return server
