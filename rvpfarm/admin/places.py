"""Where servers are, by what the directory says of them: which are on one machine, which share a listener."""

from __future__ import annotations

from rvpfarm.admin.checks import Taken
from rvpfarm.directory.model import Farm, Home, Router


def is_same_machine(server: Home | Router, host: str, address: str) -> bool:
    """Does C{server} run on the machine of this name and address, as far as the directory can tell?"""
    if address and server.address:
        return address == server.address
    return host == server.host


def homes_beside(farm: Farm, home: Home) -> list[Home]:
    """The homes that have the address and port of C{home} too, by name: one process has to run them all."""
    return sorted(
        (
            one
            for one in farm.homes.values()
            if one.id != home.id and one.port == home.port and is_same_machine(one, home.host, home.address)
        ),
        key=lambda one: one.name,
    )


def check_url(farm: Farm, home: Home) -> None:
    """What the URLs of a home's nodes begin with leads to it alone (the original's rule for web sites).

    @raise Refused: it leads to another home.
    """
    for one in farm.homes.values():
        if (one.host, one.port) == (home.host, home.port):
            same = is_same_machine(one, home.host, home.address)
            what = "address, port and host name" if same else "port and host name"
            raise Taken(
                f"duplicate {what}: port {home.port} on {home.host} is taken by home {one.name}; "
                "give --host a name of the home's own, or --port another port"
            )
