"""Ranges of addresses that are asked often: for each connection, and for each name in a header."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from ipaddress import ip_address

from rvpfarm.directory.model import Network


class Ranges:
    """The addresses that count as one kind of thing, sorted and merged once."""

    __slots__ = ("_firsts", "_lasts")

    def __init__(self, kind: str = "", networks: Iterable[Network] = ()) -> None:
        """
        @param kind: those of C{networks} that count; see L{Network.kind}.
        """
        firsts: list[int] = []
        lasts: list[int] = []
        for first, last in sorted(_spans(kind, networks)):
            if lasts and first <= lasts[-1] + 1:
                lasts[-1] = max(lasts[-1], last)
            else:
                firsts.append(first)
                lasts.append(last)
        self._firsts, self._lasts = tuple(firsts), tuple(lasts)

    def __contains__(self, address: object) -> bool:
        """Whether C{address} lies in one of them; what is no address lies in none."""
        if not self._firsts or not isinstance(address, str):
            return False
        try:
            number = number_of(address)
        except ValueError:
            return False
        at = bisect_right(self._firsts, number)
        return at > 0 and number <= self._lasts[at - 1]

    def __bool__(self) -> bool:
        return bool(self._firsts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Ranges):
            return NotImplemented
        return (self._firsts, self._lasts) == (other._firsts, other._lasts)

    def __hash__(self) -> int:
        return hash((self._firsts, self._lasts))


def number_of(text: str) -> int:
    """An address as a number; an IPv4 address is the same number when it is written as IPv6.

    @raise ValueError: it is no address.
    """
    address = ip_address(text.partition("%")[0])
    number = int(address)
    return number if address.version == 6 else 0xFFFF00000000 | number


def _spans(kind: str, networks: Iterable[Network]) -> Iterable[tuple[int, int]]:
    """The first and the last number of each; one that cannot be read is left out."""
    for network in networks:
        if network.kind == kind:
            try:
                yield number_of(network.first), number_of(network.last)
            except ValueError:
                continue
