"""What a home keeps on disk: the rows, and the changes to them.

Strings in a row are as the rest of the home holds them: node and principal keys in lower case, URLs as
they are to be emitted.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class SavedSubscription:
    """One subscription of a node.

    @ivar id: the C{Subscription-Id}, unique in the home.
    @ivar node: key of the node subscribed to.
    @ivar kind: C{"pragma/notify"} or C{"update/propchange"}.
    @ivar principal: key of the principal who made it; empty for an anonymous one.
    @ivar principal_url: the same as it is to be emitted.
    @ivar call_back: where notifications go.
    @ivar until: when it ends.
    @ivar peer: the address that made it, as the edge of the farm saw it.
    @ivar proof: how the principal had proved who it is, as L{rvpfarm.auth.challenge.Identity.proof}.
    """

    id: int
    node: str
    kind: str
    principal: str
    principal_url: str
    call_back: str
    until: float
    peer: str
    proof: str


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
    """A subscription is new, or was refreshed."""

    row: SavedSubscription


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
    """A node left this home, with everything that was kept for it."""

    node: str


@dataclass(frozen=True, slots=True)
class PutMeta:
    """A note of the home to itself, by name."""

    key: str
    value: str


#: One step of what a home writes down.
Change = (
    PutSubscription
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
    """Everything that a home had written down when it last ran."""

    subscriptions: tuple[SavedSubscription, ...] = ()
    views: tuple[SavedView, ...] = ()
    acls: tuple[SavedAcl, ...] = ()
    properties: tuple[SavedProperty, ...] = ()
    meta: dict[str, str] = field(default_factory=dict)
