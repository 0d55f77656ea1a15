"""Where a call goes: to its home through the router, or back to the caller with the home's address.

The original referred callers inside the firewall and relayed those outside (protocol notes 10.2); not
every client can follow a referral, so only one that says it can is referred.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from ipaddress import ip_address
from urllib.parse import quote

from rvpfarm.directory.model import Account, Farm, Home, Network, Router
from rvpfarm.directory.names import names_of
from rvpfarm.protocol.address import Target, parse_location
from rvpfarm.protocol.calls import BadRequest, Busy

#: How the C{User-Agent} of clients that follow referrals begins.
FOLLOWERS = b"msmsgs/"


@dataclass(frozen=True, slots=True)
class Redirect:
    """Tell the caller to ask at C{url} instead (302)."""

    url: str


@dataclass(frozen=True, slots=True)
class Forward:
    """Have C{home} answer, and pass its answer on."""

    home: Home


def route(
    account: Account,
    home: Home,
    farm: Farm,
    *,
    peer: str,
    user_agent: bytes,
    asked: str,
    policy: str | None = None,
) -> Redirect | Forward:
    """Decide about a call for a node that lives elsewhere.

    @param home: where C{account} lives.
    @param peer: the caller's address.
    @param asked: the host that the caller asked, without a port.
    @param policy: C{"auto"}, C{"always"} or C{"never"}; the domain's if not given.
    """
    if policy is None:
        policy = farm.policy("referral", account.domain)
    if policy == "never":
        return Forward(home)
    if policy == "auto":
        # cheapest first: this is asked of every call, and nearly every call is forwarded
        follows = user_agent[: len(FOLLOWERS)].lower() == FOLLOWERS
        if not follows or not is_inside(peer, farm.networks):
            return Forward(home)
    if _leads_back(home, farm, asked):
        return Forward(home)
    return Redirect(quote(account.physical_url(home), safe="/:%!$&'()*+,;=@~"))


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
            if other.id != home.id and place.key == target.key and not _leads_back(other, farm, ""):
                return other
            break
    members: list[Home | Router] = [*farm.homes.values(), *farm.routers.values()]
    if names.domain_of(place.host) is not None or any(place.host == member.address for member in members):
        raise Busy("a home refers back into the farm")
    return None


def is_inside(peer: str, networks: Iterable[Network]) -> bool:
    """Whether the address C{peer} lies in a range that is inside; without such ranges, everybody is.

    @param peer: empty for a caller behind a proxy that does not say who it is, and who is never inside.
    """
    ranges = [network for network in networks if network.kind == "inside"]
    if not ranges:
        return bool(peer)
    try:
        address = _number(peer)
    except ValueError:
        return False
    return any(_lies_in(address, network) for network in ranges)


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


def _leads_back(home: Home, farm: Farm, asked: str) -> bool:
    """Whether the home's URL leads back to a router, so that a referral would never end (notes 1.6)."""
    host = home.host
    if host in farm.domains or any(host in domain.aliases for domain in farm.domains.values()):
        return True
    if any((router.host, router.port) == (host, home.port) for router in farm.routers.values()):
        return True
    return asked.lower() == host


def _lies_in(address: int, network: Network) -> bool:
    try:
        return _number(network.first) <= address <= _number(network.last)
    except ValueError:
        return False


def _number(text: str) -> int:
    """An address as a number; an IPv4 address is the same number when it is written as IPv6."""
    address = ip_address(text)
    number = int(address)
    return number if address.version == 6 else 0xFFFF00000000 | number
