"""Which host names mean which IM domain: the directory's farm as L{rvpfarm.protocol.address} wants it."""

from __future__ import annotations

from collections.abc import Iterable

from rvpfarm.directory.model import Farm, Home, Router
from rvpfarm.protocol.address import Names


def names_of(farm: Farm) -> Names:
    """What host names mean in C{farm}.

    A farm is replaced when anything in it changes, so the answer for the last one is kept.
    """
    global _last
    if _last is None or _last[0] is not farm:
        _last = (farm, _names_of(farm))
    return _last[1]


_last: tuple[Farm, Names] | None = None


def _names_of(farm: Farm) -> Names:
    domains = {alias.lower(): domain.name for domain in farm.domains.values() for alias in domain.aliases}
    # a domain's own name wins over what another domain calls itself
    domains.update((name.lower(), name) for name in farm.domains)
    servers: list[Home | Router] = [*farm.homes.values(), *farm.routers.values()]
    hosts = [host.lower() for server in servers for host in (server.host, *server.former_hosts)]
    if not farm.domains:
        return Names(domains, {})
    return Names(domains, {host: _nearest(host, sorted(farm.domains)) for host in hosts})


def _nearest(host: str, domains: Iterable[str]) -> str:
    """The domain that a server stands for: the one its name has most in common with (protocol notes 1.3).

    Of several the first is taken, so all members of a farm take the same.
    """
    return max(domains, key=lambda domain: _common(host.split("."), domain.split(".")))


def _common(one: list[str], other: list[str]) -> int:
    """How many labels two names share, counted from the end."""
    count = 0
    for label, another in zip(reversed(one), reversed(other), strict=False):
        if label != another:
            break
        count += 1
    return count
