"""What a home keeps on disk: the rows, and the changes to them.

Strings in a row are as the rest of the home holds them: node and principal keys in lower case, URLs as
they are to be emitted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from rvpfarm.protocol.headers import Kind


@dataclass(frozen=True, slots=True)
class Subscriber:
    """Who subscribes, and where he is told: the same for all contacts that one client watches.

    @ivar principal: key of the principal; empty for an anonymous one.
    @ivar url: the same as it is to be emitted.
    @ivar call_back: the normalised URL that notifications go to.
    @ivar peer: the address that he called from, as the edge of the farm saw it.
    @ivar proof: how he had proved who he is, as L{rvpfarm.auth.challenge.Identity.proof}; needed again when
        an access list changes.
    @ivar callee: key of the node to notify when C{call_back} is a logical URL, else empty.  It follows from
        C{call_back} and the names of the farm, so it is not written down.
    """

    principal: str
    url: str
    call_back: str
    peer: str
    proof: str
    callee: str = field(default="", compare=False)


class SavedSubscription(NamedTuple):
    """One subscription of a node.

    A tuple, since a home may have millions to take up when it starts, and of these it is made fastest.

    @ivar id: the C{Subscription-Id}, unique in the home.
    @ivar node: key of the node subscribed to.
    @ivar subscriber: who made it.
    @ivar until: when it ends.
    """

    id: int
    node: str
    kind: Kind
    subscriber: Subscriber
    until: float


@dataclass(frozen=True, slots=True)
class SavedView:
    """One signed-in place of a principal (protocol notes 5.3).

    @ivar node: key of the principal's node.
    @ivar id: the C{r:view-id}, unique in the node.
    @ivar state: the state it shows.
    @ivar default: the state after C{until}.
    @ivar until: when the lease of C{state} ends.
    @ivar seconds: how long that lease was granted for.
    @ivar address: the address that made the view.
    @ivar order: grows with every state that is set; the latest shared state wins.
    """

    node: str
    id: int
    state: str
    default: str
    until: float
    seconds: float
    address: str
    order: int


@dataclass(frozen=True, slots=True)
class SavedAcl:
    """The access list of a node whose owner changed it, as C{a:rvpacl} XML."""

    node: str
    xml: bytes


@dataclass(frozen=True, slots=True)
class SavedProperty:
    """One dead or directory-independent property of a node.

    @ivar value: the inner XML of the property.
    @ivar default: what it reverts to when its lease runs out; C{None} if it is then no more.
    @ivar until: when its lease runs out; negative when it is not leased.
    """

    node: str
    namespace: str
    local: str
    value: str
    default: str | None = None
    until: float = -1.0


@dataclass(frozen=True, slots=True)
class PutSubscription:
    """A subscription is new."""

    row: SavedSubscription


@dataclass(frozen=True, slots=True)
class RenewSubscription:
    """A subscription that was put before ends at another time."""

    id: int
    until: float


@dataclass(frozen=True, slots=True)
class DropSubscription:
    """A subscription ended."""

    id: int


@dataclass(frozen=True, slots=True)
class PutView:
    """A view is new, or changed."""

    row: SavedView


@dataclass(frozen=True, slots=True)
class DropView:
    """A view ended."""

    node: str
    id: int


@dataclass(frozen=True, slots=True)
class PutAcl:
    """An access list was set."""

    row: SavedAcl


@dataclass(frozen=True, slots=True)
class DropAcl:
    """A node has the default access list again."""

    node: str


@dataclass(frozen=True, slots=True)
class PutProperty:
    """A property was set."""

    row: SavedProperty


@dataclass(frozen=True, slots=True)
class DropProperty:
    """A property was removed."""

    node: str
    namespace: str
    local: str


@dataclass(frozen=True, slots=True)
class DropNode:
    """A node left this home, with everything that was kept for it but its subscriptions.

    Those are dropped one by one: their rows would have to be looked for among all.
    """

    node: str


@dataclass(frozen=True, slots=True)
class PutMeta:
    """A note of the home to itself, by name."""

    key: str
    value: str


#: One step of what a home writes down.
Change = (
    PutSubscription
    | RenewSubscription
    | DropSubscription
    | PutView
    | DropView
    | PutAcl
    | DropAcl
    | PutProperty
    | DropProperty
    | DropNode
    | PutMeta
)


@dataclass(frozen=True, slots=True)
class Saved:
    """What a home had written down when it last ran: all of it, or a piece."""

    subscriptions: tuple[SavedSubscription, ...] = ()
    views: tuple[SavedView, ...] = ()
    acls: tuple[SavedAcl, ...] = ()
    properties: tuple[SavedProperty, ...] = ()
    meta: dict[str, str] = field(default_factory=dict)
