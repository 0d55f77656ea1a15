"""Whose call it is when proxies stand before a router: only a trusted one is believed (product F28, D24)."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass
from re import IGNORECASE
from re import compile as pattern

from rvpfarm.directory.model import Farm
from rvpfarm.directory.networks import ranges_of
from rvpfarm.directory.ranges import address_of, number_of

#: The header that is believed when no policy says which.
USUAL_HEADER = "x-forwarded-for"

# one element of Forwarded, quotes and all (RFC 7239 4)
_ELEMENT = pattern(r'((?:[^",]|"(?:[^"\\]|\\.)*")*)(,|\Z)')
_FOR = pattern(r'(?:^|;)\s*for=("?)([^";]*)\1\s*(?:;|$)', IGNORECASE)
_PORT = pattern(r":(?:[0-9]{1,5}|_[\w.-]+)\Z")
# what a proxy says instead of an address (RFC 7239 6.2, 6.3)
_UNTOLD = pattern(r"(?:unknown|_[\w.-]+)?", IGNORECASE)


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


def believed_header(farm: Farm) -> str:
    """Whose word counts when a trusted proxy hands a call on: C{x-forwarded-for}, C{forwarded} or C{none}."""
    return farm.policies.get("forwarded-header", USUAL_HEADER)


def caller_of(peer: str, value: str | None, farm: Farm) -> Caller:
    """Whose call it is that arrives on a connection from C{peer}.

    Each proxy adds whom it heard from on the right: the last one named that is no trusted proxy itself is the
    caller, and what stands left of that is the caller's to write.

    @param value: of the header that L{believed_header} names, or C{None} when there was none.
    """
    proxies = ranges_of(farm, "trusted-proxy")
    if peer not in proxies:
        return Caller(peer)
    header = believed_header(farm)
    if header == "none":
        return Caller(peer, proxy=True)
    if value is None:
        return Caller("", proxy=True)
    try:
        address = _last_stranger(_nodes(value) if header == "forwarded" else value.split(","), proxies)
    except ValueError:
        return Caller("", proxy=True, malformed=True)
    return Caller(address, proxy=True, believed=bool(address))


def _last_stranger(nodes: list[str], proxies: Container[str]) -> str:
    """The last of C{nodes} that is no trusted proxy, else the first of all; empty when it is not told.

    @raise ValueError: what stands there is no address.
    """
    found = ""
    for found in map(_address, reversed(nodes)):
        if found not in proxies:
            break
    return found


def _nodes(value: str) -> list[str]:
    """Whom each element of C{Forwarded} names.

    @raise ValueError: it is malformed.
    """
    return [found[2] if (found := _FOR.search(element)) else "" for element in _elements(value)]


def _elements(value: str) -> Iterator[str]:
    """What stands between the commas that no quotes are around.

    @raise ValueError: a quote is left open.
    """
    at, more = 0, ","
    while more:
        element = _ELEMENT.match(value, at)
        if element is None:
            raise ValueError("Forwarded is malformed")
        yield element[1].strip()
        at, more = element.end(), element[2]


def _address(node: str) -> str:
    """The address of a node, in its usual spelling; empty when it is not told.

    @raise ValueError: it is no node.
    """
    text = node.strip()
    if text.startswith("["):
        text, _, port = text[1:].partition("]")
        if port and not _PORT.match(port):
            raise ValueError("no port")
    elif text.count(":") == 1:
        text = _PORT.sub("", text)
    if _UNTOLD.fullmatch(text):
        return ""
    if "%" in text:
        raise ValueError("an address of the proxy's own link")
    return address_of(number_of(text))
