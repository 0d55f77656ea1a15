"""Ranges of addresses that are asked often: sorted and merged once, found by halving."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address

from rvpfarm.directory.model import Network


@dataclass(frozen=True, slots=True)
class Span:
    """Addresses from C{first} up to and including C{last}, as L{number_of} has them."""

    first: int
    last: int


#: IPv4 addresses are the numbers of their IPv6 form C{::ffff:a.b.c.d}: sockets may say them either way.
ALL_V4 = Span(0xFFFF00000000, 0xFFFFFFFFFFFF)

#: Every address.
ALL = Span(0, (1 << 128) - 1)


class Ranges:
    """The addresses that count as one kind of thing.

    @ivar given: somebody said which, if perhaps in a way that cannot be read.
    @ivar spans: the ranges in order, those that overlap or adjoin as one.
    """

    __slots__ = ("_firsts", "_lasts", "given", "spans")

    def __init__(self, kind: str = "", networks: Iterable[Network] = ()) -> None:
        """
        @param kind: those of C{networks} that count; see L{Network.kind}.
        @param networks: in any order; one that cannot be read contains nobody.
        """
        listed = [network for network in networks if network.kind == kind]
        self.given = bool(listed)
        self.spans = _merged(span for network in listed if (span := span_of(network)) is not None)
        self._firsts = [span.first for span in self.spans]
        self._lasts = [span.last for span in self.spans]

    def __contains__(self, address: object) -> bool:
        """Whether C{address} lies in one of them; what is no address lies in none."""
        if not self._firsts or not isinstance(address, str):
            return False
        try:
            number = number_of(address)
        except ValueError:
            return False
        place = bisect_right(self._firsts, number)
        return place > 0 and number <= self._lasts[place - 1]

    def __bool__(self) -> bool:
        """Whether there is any address in them."""
        return bool(self.spans)

    def __eq__(self, other: object) -> bool:
        """Whether they hold the same addresses."""
        return self.spans == other.spans if isinstance(other, Ranges) else NotImplemented

    def __hash__(self) -> int:
        """As equal ones have."""
        return hash(self.spans)


def number_of(text: str) -> int:
    """An address as a number; an IPv4 address is the same number when it is written as IPv6.

    A zone says nothing about where an address lies.

    @raise ValueError: it is no address.
    """
    address = ip_address(text.partition("%")[0])
    number = int(address)
    return number if address.version == 6 else ALL_V4.first | number


def address_of(number: int) -> str:
    """The address with that number, an IPv4 address as such."""
    if ALL_V4.first <= number <= ALL_V4.last:
        return str(ip_address(number - ALL_V4.first))
    return str(ip_address(number.to_bytes(16, "big")))


def span_of(network: Network) -> Span | None:
    """The numbers of a range; C{None} when it cannot be read."""
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
        elif span.first <= span.last:
            merged.append(span)
    return tuple(merged)
