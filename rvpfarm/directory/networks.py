"""Which addresses count as what: the farm's ranges, parsed once and found by halving (product F23)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address

from rvpfarm.directory.model import Farm, Network


@dataclass(frozen=True, slots=True)
class Span:
    """Addresses from C{first} up to and including C{last}, as L{number_of} has them."""

    first: int
    last: int


#: IPv4 addresses are the numbers of their IPv6 form C{::ffff:a.b.c.d}: sockets may say them either way.
ALL_V4 = Span(0xFFFF00000000, 0xFFFFFFFFFFFF)


class Ranges:
    """The addresses that count as one thing.

    @ivar given: somebody said which; without that, there may be another meaning than "none of them".
    @ivar spans: the ranges in order, those that overlap or adjoin as one.
    """

    __slots__ = ("_firsts", "_lasts", "given", "spans")

    def __init__(self, networks: Iterable[Network]) -> None:
        """
        @param networks: in any order; one that is no range of addresses contains none.
        """
        listed = tuple(networks)
        self.given = bool(listed)
        self.spans = _merged(span for network in listed if (span := span_of(network)) is not None)
        self._firsts = [span.first for span in self.spans]
        self._lasts = [span.last for span in self.spans]

    def __contains__(self, address: int) -> bool:
        """Is the address, as a number, among them?"""
        place = bisect_right(self._firsts, address) - 1
        return place >= 0 and address <= self._lasts[place]


def ranges_of(farm: Farm, kind: str) -> Ranges:
    """What counts as C{kind} in C{farm}.

    A farm is replaced when anything in it changes, so what was made of the last one is kept.
    """
    global _last
    if _last is None or _last[0] is not farm:
        _last = (farm, {})
    found = _last[1].get(kind)
    if found is None:
        found = _last[1][kind] = Ranges(network for network in farm.networks if network.kind == kind)
    return found


_last: tuple[Farm, dict[str, Ranges]] | None = None


def is_inside(peer: str, farm: Farm) -> bool:
    """Whether the address C{peer} lies in a range that is inside; without such ranges, everybody is."""
    ranges = ranges_of(farm, "inside")
    if not ranges.given:
        return True
    try:
        return number_of(peer) in ranges
    except ValueError:
        return False


def listed_by(peer: str, farm: Farm, kind: str) -> tuple[Network, ...]:
    """The ranges of C{kind}, as they were given, in which the address C{peer} lies."""
    try:
        number = number_of(peer)
    except ValueError:
        return ()
    found = ((network, span_of(network)) for network in farm.networks if network.kind == kind)
    return tuple(network for network, span in found if span and span.first <= number <= span.last)


def number_of(text: str) -> int:
    """An address as a number; an IPv4 address is the same number when it is written as IPv6.

    @raise ValueError: it is no address.
    """
    address = ip_address(text)
    number = int(address)
    return number if address.version == 6 else ALL_V4.first | number


def address_of(number: int) -> str:
    """The address with that number, IPv4 as such."""
    if is_v4(number):
        return str(ip_address(number - ALL_V4.first))
    return str(ip_address(number.to_bytes(16, "big")))


def is_v4(number: int) -> bool:
    """Does C{number} mean an IPv4 address?"""
    return ALL_V4.first <= number <= ALL_V4.last


def span_of(network: Network) -> Span | None:
    """The numbers of a range; C{None} when it is none."""
    try:
        return Span(number_of(network.first), number_of(network.last))
    except ValueError:
        return None


def _merged(spans: Iterable[Span]) -> tuple[Span, ...]:
    """The spans in order, each apart from the next."""
    merged: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.first, span.last)):
        if merged and span.first <= merged[-1].last + 1:
            merged[-1] = Span(merged[-1].first, max(merged[-1].last, span.last))
        else:
            merged.append(span)
    return tuple(merged)
