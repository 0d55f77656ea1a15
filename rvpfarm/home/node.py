"""One node: who watches it, where it is logged in, its views, properties and access list.

The modules beside this one decide, method by method, what a call does to a node; each returns an L{Outcome}.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rvpfarm.auth.acl import might_permit_with_credentials, permits
from rvpfarm.auth.challenge import Identity
from rvpfarm.directory.model import Account, Farm
from rvpfarm.home.leases import LAPSED
from rvpfarm.home.presence import Views, visible
from rvpfarm.home.records import Change, Subscriber
from rvpfarm.protocol.acls import Acl, default_acl
from rvpfarm.protocol.address import Names, Principal
from rvpfarm.protocol.calls import Call, Forbidden, Reply, Unproven
from rvpfarm.protocol.headers import Kind
from rvpfarm.protocol.properties import render_state
from rvpfarm.protocol.xml import QName


@dataclass(slots=True, eq=False)
class Subscription:
    """One subscription, of a watcher or of a login.

    There are more of these than of anything else: what many have in common is in L{Subscriber}.

    @ivar node: key of the node it is on.
    @ivar subscriber: who made it.
    @ivar sees: may see presence.
    @ivar reads: may read the other properties.
    @ivar told: the state it was told last, or empty when that is not known (any more).
    @ivar heard: the last state that arrived wherever its watcher is signed in; empty when that is not known.
    """

    id: int
    node: str
    kind: Kind
    subscriber: Subscriber
    sees: bool = True
    reads: bool = True
    told: str = ""
    heard: str = ""
    until: float = LAPSED

    @property
    def principal(self) -> str:
        """Key of its creator."""
        return self.subscriber.principal

    @property
    def url(self) -> str:
        """Logical URL of its creator."""
        return self.subscriber.url

    @property
    def call_back(self) -> str:
        """The normalised URL to notify."""
        return self.subscriber.call_back

    @property
    def callee(self) -> str:
        """Key of the node to notify when L{call_back} is a logical URL, else empty."""
        return self.subscriber.callee


@dataclass(slots=True, eq=False)
class Property:
    """A property that the owner set: dead, or one of the mobile pair.

    @ivar value: inner XML, or the text of a text property.
    @ivar default: what it reverts to when a lease on it runs out; C{None} for nothing.
    @ivar until: when the lease runs out, or L{LAPSED} when it is not leased.
    """

    node: str
    name: QName
    value: str
    default: str | None = None
    until: float = LAPSED


@dataclass(frozen=True, slots=True)
class News:
    """The same change, for all the watchers that may see it.

    @ivar props: serialised properties, changed ones only (RVP 5.2).
    @ivar state: the state that is all there is to tell; empty when it is something else.  Such news may
        wait a little, for what comes after it makes it void.
    """

    watchers: tuple[Subscription, ...]
    props: tuple[str, ...]
    state: str = ""


@dataclass(slots=True, eq=False)
class Visit:
    """One call at a node, understood: who asks, when, and how the farm stands."""

    call: Call
    identity: Identity
    now: float
    farm: Farm
    names: Names


@dataclass(slots=True)
class Outcome:
    """What a call leads to.

    @ivar changes: what the journal is to keep.
    @ivar durable: the reply waits until C{changes} are on disk (design: journal first, answer second).
    @ivar news: what watchers are told, once the changes are on disk if they have to be.
    @ivar undo: takes the change back when the disk refused it.
    @ivar kept: to be told that the changes are on disk.
    """

    reply: Reply
    changes: Sequence[Change] = ()
    durable: bool = True
    news: Sequence[News] = ()
    undo: Callable[[], None] | None = None
    kept: Callable[[], None] | None = None


class Node:
    """The state of one node of this home."""

    __slots__ = ("_acl", "_effective_acl", "account", "key", "logins", "properties", "views", "watchers")

    def __init__(self, key: str, account: Account | None = None) -> None:
        self.key = key
        self.account = account
        self.logins: dict[int, Subscription] = {}
        self.watchers: dict[int, Subscription] = {}
        self.views = Views()
        self.properties: dict[QName, Property] = {}
        self._acl: Acl | None = None
        self._effective_acl: Acl | None = None

    def subscriptions(self, kind: Kind) -> dict[int, Subscription]:
        """The subscriptions of one kind, by id."""
        return self.logins if kind is Kind.LOGIN else self.watchers

    def find(self, subscription_id: int) -> Subscription | None:
        """The subscription of that id on this node."""
        return self.watchers.get(subscription_id) or self.logins.get(subscription_id)

    @property
    def domain(self) -> str:
        """The IM domain it is in."""
        return self.key.partition("/")[0]

    @property
    def own_acl(self) -> Acl | None:
        """The list that somebody has set, or C{None} while the default stands."""
        return self._acl

    def set_acl(self, acl: Acl | None) -> None:
        """Replace the list; C{None} brings the default back."""
        self._acl = self._effective_acl = acl

    @property
    def owner_key(self) -> str:
        """Key of the principal that the node belongs to: a user's node to the user itself."""
        return self.key if self.account is None else self.account.owner_key

    def acl(self, farm: Farm) -> Acl:
        """The list in force (RVP 5.7)."""
        if self._effective_acl is not None:
            return self._effective_acl
        domain = self.domain
        owner = self.owner_key
        url = f"http://{owner}" if self.account is None or self.account.owner else self.account.url
        acl = default_acl(
            Principal(owner, url, False),
            authentication=farm.policy("authentication", domain) != "off",
            openness=farm.policy("default-acl", domain),
        )
        if self.account is not None:  # or the owner's URL would stay in lower case
            self._effective_acl = acl
        return acl

    def farm_changed(self) -> None:
        """Policies may have changed: work the default list out again."""
        self._effective_acl = self._acl

    def demand(self, right: str, visit: Visit) -> None:
        """Let C{visit} go on only with C{right}.

        @raise Unproven: credentials would help, or might (protocol notes 8.4).
        @raise Forbidden: they would not.
        """
        if not self.allows(right, visit.identity, visit.farm):
            self.refuse(right, visit)

    def refuse(self, right: str, visit: Visit) -> None:
        """Say no to a visit that lacks C{right}; see L{demand}."""
        if might_permit_with_credentials(self.acl(visit.farm), right, visit.identity, self.owner_key):
            raise Unproven()
        raise Forbidden(f'the access list of this node does not grant you "{right}"')

    def allows(self, right: str, identity: Identity, farm: Farm) -> bool:
        """May C{identity} use C{right} here."""
        return permits(self.acl(farm), right, identity, self.owner_key)

    def live_call_backs(self) -> Iterator[str]:
        """The distinct call-back URLs of the places that are logged in (protocol notes 6.2)."""
        if len(self.logins) < 2:
            return (login.subscriber.call_back for login in self.logins.values())
        return iter(dict.fromkeys(login.subscriber.call_back for login in self.logins.values()))

    def state_news(self, before: str) -> list[News]:
        """Who is to hear that the effective state is no longer C{before} (5.3 rule 8)."""
        after = self.views.effective
        if after == before:
            return []
        news: list[News] = []
        key = self.key
        seeing = [watcher for watcher in self.watchers.values() if watcher.sees]
        own = tuple(watcher for watcher in seeing if watcher.subscriber.principal == key)
        if own:
            news.append(News(own, (render_state(after),), after))
        others = tuple(watcher for watcher in seeing if watcher.subscriber.principal != key)
        if others and visible(after) != visible(before):
            news.append(News(others, (render_state(visible(after)),), visible(after)))
        return news

    def late_news(self) -> list[News]:
        """Who has still to hear of the present state, since L{state_news} was kept back from them."""
        behind: dict[str, list[Subscription]] = {}
        key, own = self.key, self.views.effective
        shown = visible(own)
        for watcher in self.watchers.values():
            state = own if watcher.subscriber.principal == key else shown
            if watcher.told != state and watcher.sees:
                behind.setdefault(state, []).append(watcher)
        return [News(tuple(watchers), (render_state(state),), state) for state, watchers in behind.items()]

    def believe_told(self) -> None:
        """Take each watcher to know the present state as he sees it; see L{state_for}."""
        key, own = self.key, self.views.effective
        shown = visible(own)
        for watcher in self.watchers.values():
            watcher.told = own if watcher.subscriber.principal == key else shown

    def property_news(self, props: tuple[str, ...]) -> list[News]:
        """Who is to hear of a change to properties other than the state."""
        readers = tuple(w for w in self.watchers.values() if w.sees and w.reads)
        return [News(readers, props)] if readers and props else []

    def state_for(self, principal: str) -> str:
        """The state as C{principal} sees it."""
        effective = self.views.effective
        return effective if principal == self.key else visible(effective)

    @property
    def idle(self) -> bool:
        """Nothing is kept here that a fresh node would not have."""
        return not (self.logins or self.watchers or len(self.views) or self.properties or self._acl)
