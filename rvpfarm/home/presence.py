"""Several views, one online state (protocol notes 5.3).

A view is what one signed-in place contributes to the state of its principal.
"""

from __future__ import annotations

from dataclasses import dataclass

from rvpfarm.home.leases import LAPSED
from rvpfarm.protocol.properties import VIEW_LOCAL

OFFLINE = "offline"
INVISIBLE = "invisible"


@dataclass(slots=True, eq=False)
class View:
    """One place's contribution.

    @ivar node: key of the node it belongs to.
    @ivar id: names it on the wire, unique within the node.
    @ivar state: what the place says now.
    @ivar default: what it says when the lease runs out.
    @ivar seconds: the granted length of the lease.
    @ivar address: the caller's address when it was made (5.3 rule 2).
    @ivar order: rises with every setting; the highest shared state is the principal's.
    @ivar until: kept by the lease book.
    """

    node: str
    id: int
    state: str
    default: str
    seconds: float
    address: str
    order: int
    until: float = LAPSED


class Views:
    """The live views of one principal, and the state they add up to."""

    __slots__ = ("_live", "_order")

    def __init__(self) -> None:
        self._live: dict[int, View] = {}
        self._order = 0

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(tuple(self._live.values()))

    def __len__(self) -> int:
        return len(self._live)

    def restore(self, view: View) -> None:
        """Put back a view that was live before a restart."""
        self._live[view.id] = view
        self._order = max(self._order, view.order)

    def find(self, view_id: int | None, address: str) -> View | None:
        """The view that a call means: the one it names, else the latest made from its address (rule 2).

        @return: C{None} when the call makes a view of its own.
        """
        if view_id is not None:
            return self._live.get(view_id)
        made = [view for view in self._live.values() if view.address == address]
        return max(made, key=lambda view: view.order, default=None)

    def set(self, view: View, state: str, default: str, seconds: float) -> list[View]:
        """Let C{view}, live or new, say C{state}.

        @return: the other views that took a shared state over (rule 5).  A view set to offline has
            ended (rule 4) and is live no longer.
        """
        self._order += 1
        view.state, view.default, view.seconds, view.order = state, default, seconds, self._order
        if state == OFFLINE:
            self._live.pop(view.id, None)
            return []
        self._live[view.id] = view
        if state in VIEW_LOCAL:
            return []
        followers = [other for other in self._live.values() if other is not view]
        for other in followers:
            other.state = state
        return followers

    def lapse(self, view: View) -> bool:
        """The lease of C{view} ran out: it falls back to its default.

        @return: whether it goes on for one more lease, showing a default other than offline (rule 4).
        """
        if view.default == OFFLINE or view.state == view.default:
            self._live.pop(view.id, None)
            return False
        view.state = view.default
        return True

    def end(self, view: View) -> None:
        """C{view} is over: its lease was removed, or every call-back from its address is dead (rule 9)."""
        self._live.pop(view.id, None)

    @property
    def effective(self) -> str:
        """The state of the principal as the principal itself sees it (rule 7)."""
        best = 0
        state = OFFLINE
        for view in self._live.values():
            if view.state in VIEW_LOCAL:
                if best == 0:
                    state = "idle" if view.state == "idle" else state
            elif view.order > best:
                best, state = view.order, view.state
        return state


def visible(state: str) -> str:
    """What everybody else sees of C{state}: the invisible are offline (rule 8)."""
    return OFFLINE if state == INVISIBLE else state
