"""Whose call it is when proxies stand before a router: only a trusted one is believed (product F28, D24)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rvpfarm.directory.model import Farm
from rvpfarm.directory.networks import address_of, number_of, ranges_of

#: The header that is believed when no policy says which.
USUAL_HEADER = "x-forwarded-for"


@dataclass(frozen=True, slots=True)
class Caller:
    """Where a call comes from.

    @ivar address: of whoever made it.
    @ivar proxy: the connection comes from a trusted proxy.
    @ivar believed: C{address} is what its header says.
    """

    address: str
    proxy: bool
    believed: bool


def believed_header(farm: Farm) -> str:
    """Whose word counts when a trusted proxy hands a call on: C{x-forwarded-for}, C{forwarded} or C{none}."""
    return farm.policies.get("forwarded-header", USUAL_HEADER)


def caller_of(peer: str, value: str | None, farm: Farm) -> Caller:
    """Whose call it is that arrives on a connection from C{peer}.

    Each proxy adds whom it heard from at the end: the last one that is no trusted proxy itself is the
    caller, and what stands before that is hearsay.

    @param value: of the header that L{believed_header} names, or C{None} when there was none.
    """
    proxies = ranges_of(farm, "trusted-proxy")
    try:
        proxy = number_of(peer) in proxies
    except ValueError:
        proxy = False
    header = believed_header(farm)
    if not proxy or value is None or header == "none":
        return Caller(peer, proxy, False)
    address = peer
    for said in _said(value, header):
        try:
            number = number_of(said)
        except ValueError:
            break
        address = address_of(number)
        if number not in proxies:
            break
    return Caller(address, True, address != peer)


def _said(value: str, header: str) -> Iterator[str]:
    """What the header names, the last one first; not all of it need be an address."""
    for element in reversed(value.split(",")):
        text = element.strip()
        if header == "forwarded":
            pairs = (pair.partition("=") for pair in text.split(";"))
            text = next((word.strip() for name, _, word in pairs if name.strip().lower() == "for"), "")
            text = text.strip('"')
        if text.startswith("["):
            text = text[1:].partition("]")[0]
        elif text.count(":") == 1:
            text = text.partition(":")[0]
        yield text
