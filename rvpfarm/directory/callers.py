"""Whose call it is when proxies stand before a router: only a trusted one is believed (product F28, D24)."""

from __future__ import annotations

from dataclasses import dataclass

from rvpfarm.directory.model import Farm
from rvpfarm.directory.networks import ranges_of
from rvpfarm.protocol.calls import BadRequest
from rvpfarm.protocol.forwarded import read_caller


@dataclass(frozen=True, slots=True)
class Caller:
    """Where a call comes from.

    @ivar address: of whoever made it; empty when a trusted proxy does not say.
    @ivar proxy: the connection comes from a trusted proxy.
    @ivar believed: C{address} is what its header says.
    @ivar malformed: its header cannot be read: the call is answered 400.
    """

    address: str
    proxy: bool = False
    believed: bool = False
    malformed: bool = False


def caller_of(peer: str, value: str | None, farm: Farm) -> Caller:
    """Whose call it is that arrives on a connection from C{peer}.

    @param value: of the header that the policy C{forwarded-header} names, or C{None} when there is none.
    """
    proxies = ranges_of(farm, "trusted-proxy")
    if peer not in proxies:
        return Caller(peer)
    header = farm.policy("forwarded-header")
    headers = {} if value is None else {header.encode(): value.encode("latin-1", "replace")}
    try:
        address = read_caller(header, peer, headers, proxies)
    except BadRequest:
        return Caller("", proxy=True, malformed=True)
    return Caller(address, proxy=True, believed=bool(address) and header != "none")
