"""Whom a home may be asked to call back (design invariant 6): the call-back URL is a weapon.

By default a home calls nobody but the address that asked.  Any other target needs the
C{subscribe-others} right and an administrator's range of kind C{"call-back"}, and is never the farm itself.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

from rvpfarm.directory.model import Farm
from rvpfarm.protocol.address import CallBack, is_ip

Address = IPv4Address | IPv6Address


def blocked_by(call_back: CallBack, peer: str, farm: Farm) -> str | None:
    """The rule that forbids calling C{call_back} on behalf of a caller at C{peer}.

    @return: C{"farm"} (a server of this farm), C{"name"} (a host name, which could point anywhere by
        the time it is called), C{"special"} (loopback, link-local, multicast and the like) or
        C{"network"} (not in a range the administrator listed); C{None} when it may be called.
    """
    host = call_back.host
    if _is_server(host, call_back.port, farm):
        return "farm"
    if not is_ip(host):
        return "name"
    address = _plain(host)
    if peer and is_ip(peer) and address == _plain(peer):
        return None
    if _is_special(address):
        return "special"
    if not any(_within(address, network.first, network.last) for network in _listed(farm)):
        return "network"
    return None


def barred(address: str, port: int, farm: Farm) -> str | None:
    """The rule that forbids calling C{address}, to which the name of another organisation's server led.

    A watcher chooses that name, and whoever serves its DNS chooses the address: so it is judged each time
    it is called.  A range of kind C{"call-back"} lets through what is not on the public Internet.

    @return: C{"farm"}, C{"special"} or C{"network"} (a private address), as L{blocked_by}, or C{None}.
    """
    plain = _plain(address)
    if _is_server(str(plain), port, farm):
        return "farm"
    if any(_within(plain, network.first, network.last) for network in _listed(farm)):
        return None
    if _is_special(plain):
        return "special"
    return None if plain.is_global else "network"


def _listed(farm: Farm):  # type: ignore[no-untyped-def]
    return (network for network in farm.networks if network.kind == "call-back")


def _plain(host: str) -> Address:
    """The address that C{host} writes, an IPv4 address mapped into IPv6 as what it is."""
    address = ip_address(host.strip("[]"))
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _is_special(address: Address) -> bool:
    return (
        address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or (isinstance(address, IPv4Address) and address.is_reserved)
    )


def _within(address: Address, first: str, last: str) -> bool:
    low, high = ip_address(first), ip_address(last)
    if isinstance(address, IPv4Address):
        return isinstance(low, IPv4Address) and isinstance(high, IPv4Address) and low <= address <= high
    return isinstance(low, IPv6Address) and isinstance(high, IPv6Address) and low <= address <= high


def _is_server(host: str, port: int, farm: Farm) -> bool:
    """Is that an address on which a member of the farm listens."""
    for home in farm.homes.values():
        if host in (home.host, home.address, *home.former_hosts) and port in (home.port, home.link_port):
            return True
    return any(
        host in (router.host, router.address, *router.former_hosts) and port == router.port
        for router in farm.routers.values()
    )
