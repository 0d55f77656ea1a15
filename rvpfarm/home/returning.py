"""Who comes back just after being taken for gone: leases that are renewed too late (product D15; core)."""

from __future__ import annotations

from collections import OrderedDict

#: Back within so many seconds, it was the renewal that was late and not the person that was away.
SOON_SECONDS = 60.0
#: Ends that are remembered; the oldest are forgotten first.
ENDS_LIMIT = 4096


class Ends:
    """When the presence of each place ran out, for a minute."""

    __slots__ = ("_ended",)

    def __init__(self) -> None:
        self._ended: OrderedDict[tuple[str, str], float] = OrderedDict()

    def ended(self, node: str, address: str, now: float) -> None:
        """The presence of C{node} at C{address} ran out."""
        self._ended[node, address] = now
        if len(self._ended) > ENDS_LIMIT:
            self._ended.popitem(last=False)

    def returned(self, node: str, address: str, now: float) -> bool:
        """It shows itself again; was that soon?"""
        if not self._ended:
            return False
        ended = self._ended.pop((node, address), None)
        return ended is not None and now - ended <= SOON_SECONDS
