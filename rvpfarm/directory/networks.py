"""Which addresses count as what in a farm: inside, a trusted proxy, allowed for call-backs (product F23)."""

from __future__ import annotations

from rvpfarm.directory.model import Farm, Network
from rvpfarm.directory.ranges import Ranges, number_of, span_of


def ranges_of(farm: Farm, kind: str) -> Ranges:
    """What counts as C{kind} in C{farm}.

    A farm is replaced when anything in it changes, so what was made of the last one is kept.
    """
    global _last
    if _last is None or _last[0] is not farm:
        _last = (farm, {})
    found = _last[1].get(kind)
    if found is None:
        found = _last[1][kind] = Ranges(kind, farm.networks)
    return found


_last: tuple[Farm, dict[str, Ranges]] | None = None


def is_inside(peer: str, farm: Farm) -> bool:
    """Whether the address C{peer} lies in a range that is inside; without such ranges, everybody is.

    @param peer: empty for a caller behind a proxy that does not say who it is, and who is never inside.
    """
    ranges = ranges_of(farm, "inside")
    return peer in ranges if ranges.given else bool(peer)


def listed_by(peer: str, farm: Farm, kind: str) -> tuple[Network, ...]:
    """The ranges of C{kind}, as they were given, in which the address C{peer} lies."""
    try:
        number = number_of(peer)
    except ValueError:
        return ()
    found = ((network, span_of(network)) for network in farm.networks if network.kind == kind)
    return tuple(network for network, span in found if span and span.first <= number <= span.last)
