"""Whom a proxy says that it passes a request on for: C{X-Forwarded-For}, and C{Forwarded} of RFC 7239.

Each proxy on the way adds the address that it saw, on the right.  What a caller itself wrote stands to the
left of that, so the list is read from the right, and only as far as proxies wrote it that are believed.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address

from rvpfarm.protocol.calls import BadRequest

#: No request comes through more proxies of one's own.
PROXIES_LIMIT = 32

#: A name that a proxy made up for an address, or for a port (RFC 7239 6.3).
_OBFUSCATED = re.compile(r"_[A-Za-z0-9._-]+", re.ASCII)
_PORT = re.compile(r"[0-9]{1,5}|_[A-Za-z0-9._-]+", re.ASCII)

#: One C{name=value}, white space around it (RFC 7239 4, RFC 9110 5.6).
_PAIR = re.compile(
    rb"[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)="
    rb'(?:([!#$%&\'*+.^_`|~0-9A-Za-z-]+)|"((?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*)")[ \t]*'
)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_SPACE = re.compile(rb"[ \t]*")


def read_x_forwarded_for(value: bytes, trusted: Container[str]) -> str:
    """The caller by a value of C{X-Forwarded-For}: the last address that is no trusted proxy's own.

    Items to the left of that are the caller's to write, and are not looked at.

    @return: empty when it is not known.
    @raise BadRequest: a proxy that is believed wrote what is no address.
    """
    items = [item.strip(" \t") for item in value.decode("latin-1").split(",")]
    return _walk((item and _parse_node(item, bare=True) for item in reversed(items)), trusted)


def read_forwarded(value: bytes, trusted: Container[str]) -> str:
    """The caller by a value of C{Forwarded}; see L{read_x_forwarded_for}.

    All of it must be well-formed: a quote that a caller left open would hide what a proxy added.
    """
    nodes = _nodes(value)
    return _walk(("" if node is None else _parse_node(node) for node in reversed(nodes)), trusted)


def _walk(nodes: Iterable[str], trusted: Container[str]) -> str:
    """The first of C{nodes} that is no trusted proxy; the last one if all are.

    @param nodes: the address that each proxy saw, the nearest proxy's first; empty for unknown.
    """
    found = ""
    for number, node in enumerate(nodes):
        if number >= PROXIES_LIMIT:
            raise BadRequest("the request came through too many proxies")
        found = node
        if node not in trusted:
            break
    return found


def _nodes(value: bytes) -> Sequence[str | None]:
    """The C{for} of each element; C{None} where there is none.

    @raise BadRequest: the value is malformed.
    """
    nodes: list[str | None] = []
    node: str | None = None
    at = 0
    while True:
        pair = _PAIR.match(value, at)
        if pair is None:
            space = _SPACE.match(value, at)  # an element, or a pair of it, may be empty
            at = at if space is None else space.end()
        else:
            at = pair.end()
            if pair[1].lower() == b"for":
                if node is not None:
                    raise BadRequest("an element of Forwarded has for= twice")
                text = pair[2] if pair[3] is None else _ESCAPED.sub(rb"\1", pair[3])
                node = text.decode("latin-1")
        mark = value[at : at + 1]
        if mark != b";":
            nodes.append(node)
            node = None
            if not mark:
                return nodes
            if mark != b",":
                raise BadRequest("Forwarded is malformed")
        at += 1


def _parse_node(text: str, *, bare: bool = False) -> str:
    """The address of a node, in its usual spelling (RFC 7239 6); empty when it is not told.

    @param bare: an IPv6 address may stand without brackets, but then without a port.
    @raise BadRequest: it is no node.
    """
    if text[:1] == "[":
        host, closed, rest = text[1:].partition("]")
        sound = closed and (not rest or (rest[0] == ":" and _PORT.fullmatch(rest[1:])))
        return _address(host if sound else "", IPv6Address)
    if bare and text.count(":") > 1:
        return _address(text, IPv6Address)
    host, colon, port = text.partition(":")
    if colon and not _PORT.fullmatch(port):
        host = ""
    elif host.lower() == "unknown" or _OBFUSCATED.fullmatch(host):
        return ""
    return _address(host, IPv4Address)


def _address(text: str, make: type[IPv4Address | IPv6Address]) -> str:
    try:
        address = make(text)
    except ValueError:
        raise BadRequest("a proxy forwarded the request for what is no address") from None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            raise BadRequest("a proxy forwarded the request for an address of its own link")
        if address.ipv4_mapped is not None:
            address = address.ipv4_mapped
    return str(address)
