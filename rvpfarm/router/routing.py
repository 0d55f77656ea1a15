"""What a router decides besides where a call goes (L{rvpfarm.directory.referral}): whether a home's own
referral is followed, who answers for names that are not known, and how a call is marked as passed on.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

from rvpfarm.directory.model import Farm, Home, Router
from rvpfarm.directory.names import names_of
from rvpfarm.directory.referral import leads_back
from rvpfarm.protocol.address import Target, parse_location
from rvpfarm.protocol.calls import BadRequest, Busy

_FIRST_HOP, _SECOND_HOP = b"\r\nRVP-Hop-Count: 1\r\n", b"\r\nRVP-Hop-Count: 2\r\n"


def referred_to(location: bytes, target: Target, home: Home, farm: Farm) -> Home | None:
    """Where the referral (302) leads that C{home} gave as its answer (protocol notes 10.3).

    @param location: its C{Location}; empty if it has none.
    @return: the home of this farm that serves the node by what C{home} says; C{None} if it sends the caller
        out of the farm.
    @raise Busy: it leads to somewhere in the farm where the caller would be sent round in circles, or
        nowhere.
    """
    names = names_of(farm)
    try:
        place = parse_location(location.decode("ascii"), names)
    except (BadRequest, UnicodeDecodeError):
        raise Busy("a home refers to nowhere") from None
    for other in farm.homes.values():
        if (other.host, other.port) == (place.host, place.port):
            if other.id != home.id and place.key == target.key and not leads_back(other, farm, ""):
                return other
            break
    members: list[Home | Router] = [*farm.homes.values(), *farm.routers.values()]
    if names.domain_of(place.host) is not None or any(place.host == member.address for member in members):
        raise Busy("a home refers back into the farm")
    return None


def choose_home(key: str, homes: Iterable[Home]) -> Home | None:
    """The home that answers for C{key} when no node of that name is known: always the same one.

    It asks who is calling before it says that there is no such node, so that nobody can harvest names.
    The choice moves as few keys as can be when homes come and go.

    @return: C{None} if there are no homes.
    """
    return max(
        homes, key=lambda home: blake2b(f"{home.id} {key}".encode(), digest_size=8).digest(), default=None
    )


def with_hops(head: bytes, hops: int) -> bytes:
    """The head of a request with C{RVP-Hop-Count} put to C{hops}, and all else as it was (notes 1.6).

    @param head: judged by the strict reader, so that the field is there once at most and in one line.
    """
    if hops == 2 and _FIRST_HOP in head:  # as nearly all clients write it
        return head.replace(_FIRST_HOP, _SECOND_HOP, 1)
    start = head.find(b"\nRVP-Hop-Count:")
    if start < 0:
        start = head.lower().find(b"\nrvp-hop-count:")
    if start < 0:
        start = head.index(b"\n")
        ending = b"\r" if head[start - 1 : start] == b"\r" else b""
        return b"%b\nRVP-Hop-Count: %d%b%b" % (head[:start], hops, ending, head[start:])
    end = head.index(b"\n", start + 1)
    if head[end - 1 : end] == b"\r":
        end -= 1
    return b"%b\nRVP-Hop-Count: %d%b" % (head[:start], hops, head[end:])
