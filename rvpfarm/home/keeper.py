"""All the nodes of one home, and everything on them that runs out (core).

Nodes come into being when somebody first calls at them and go when nothing is left to keep.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from rvpfarm.directory.model import Account, Farm
from rvpfarm.home.leases import LeaseBook
from rvpfarm.home.node import News, Node, Property, Subscription
from rvpfarm.home.presence import View
from rvpfarm.home.privacy import review
from rvpfarm.home.properties import Keeping, lapse_property, lapse_view
from rvpfarm.home.records import (
    Change,
    DropNode,
    DropSubscription,
    DropView,
    Saved,
    SavedSubscription,
    Subscriber,
)
from rvpfarm.home.subscribing import IDS_META, Books, SubscriptionIds, callee_of
from rvpfarm.protocol.acls import parse_acl
from rvpfarm.protocol.address import Names
from rvpfarm.protocol.headers import Kind
from rvpfarm.protocol.xml import QName

#: How long after its end a presence lease is let lapse.  A client that renews a moment late would have its
#: watchers see it leave and come back (product D15); they may see it up to 5 s late (protocol notes 5.2),
#: of which the sweep takes one.
GRACE_SECONDS = 3.0
#: How many leases of each kind are looked at in one turn of the loop: a few milliseconds' worth.
SLICE = 100


class Census(Protocol):
    """What a keeper reports to."""

    def lease_expired(self, kind: str) -> None:
        """A lease of that kind ran out."""

    def lease_renewed(self, kind: str) -> None:
        """A lease of that kind was renewed in time."""

    def lease_late(self) -> None:
        """A presence ran out, and was shown again within a minute."""

    def call_back_blocked(self, rule: str) -> None:
        """A call-back was refused by that rule."""


class Keeper:
    """Keeps the nodes of one home.

    @ivar books: subscriptions of all nodes.
    @ivar keeping: views and leased properties of all nodes.
    """

    def __init__(self, census: Census, random: Callable[[int], bytes]) -> None:
        """
        @param random: that many unpredictable bytes.
        """
        self._census = census
        self._nodes: dict[str, Node] = {}
        self._policies: dict[str, tuple[str, ...]] = {}
        self._restored: dict[Subscriber, Subscriber] = {}
        self.books = Books(SubscriptionIds(None), census.call_back_blocked, census.lease_renewed)
        views: LeaseBook[View] = LeaseBook()
        properties: LeaseBook[Property] = LeaseBook()
        self.keeping = Keeping(
            views,
            properties,
            lambda: 1 + int.from_bytes(random(4), "big") // 2,
            census.lease_renewed,
            census.lease_late,
        )

    def __len__(self) -> int:
        """How many nodes there is something to keep for."""
        return len(self._nodes)

    def get(self, key: str) -> Node | None:
        """The node of that key, if anything is kept for it."""
        return self._nodes.get(key)

    def __iter__(self) -> Iterator[Node]:
        """All nodes there is something to keep for."""
        return iter(self._nodes.values())

    def node(self, account: Account) -> Node:
        """The node of C{account}, made if need be; see L{settle}."""
        node = self._node(account.key)
        node.account = account
        return node

    def look(self, account: Account) -> Node:
        """The same for whoever changes nothing there: a node that is not kept is not kept for that."""
        node = self._nodes.get(account.key)
        if node is None:
            return Node(account.key, account)
        node.account = account
        return node

    def settle(self, node: Node) -> None:
        """Something happened to C{node}: keep it, or let it go if there is nothing left to keep."""
        if node.idle:
            self._nodes.pop(node.key, None)
        else:
            self._nodes.setdefault(node.key, node)

    def restore(self, saved: Saved, names: Names) -> None:
        """Take up a piece of what was kept before a restart; what has run out lapses at the next sweep.

        L{resume} ends it, and L{forget} begins anew.
        """
        if IDS_META in saved.meta:
            self.books.ids = SubscriptionIds(saved.meta[IDS_META])
        self._restore_subscriptions(saved.subscriptions, names)
        for kept in saved.views:
            view = View(kept.node, kept.id, kept.state, kept.default, kept.seconds, kept.address, kept.order)
            self._node(kept.node).views.restore(view)
            self.keeping.views.grant(view, kept.until)
        for each in saved.properties:
            prop = Property(each.node, QName(each.namespace, each.local), each.value, each.default)
            self._node(each.node).properties[prop.name] = prop
            if each.until > 0:
                self.keeping.properties.grant(prop, each.until)
        for acl in saved.acls:
            self._node(acl.node).set_acl(parse_acl(acl.xml, names))

    def _restore_subscriptions(self, rows: Iterable[SavedSubscription], names: Names) -> None:
        """The same for subscriptions, of which there may be millions."""
        nodes, books, login = self._nodes, self.books, Kind.LOGIN
        grant = books.watchers.grant
        last: Subscriber | None = None
        for number, key, kind, kept, until in rows:
            if kept is not last:  # they come client by client, for the most part
                last, subscriber = kept, self._restore_subscriber(kept, names)
            node = nodes.get(key)
            if node is None:
                node = nodes[key] = Node(key)
            subscription = Subscription(number, node.key, kind, subscriber)
            if kind is login:
                books.enter(node, subscription, until)
            else:  # as that does, without asking again what it is
                node.watchers[number] = subscription
                grant(subscription, until)

    def _restore_subscriber(self, kept: Subscriber, names: Names) -> Subscriber:
        """C{kept} as the farm's names have it now, the same one each time."""
        subscriber = self._restored.get(kept)
        if subscriber is None:
            callee = callee_of(kept, names)
            subscriber = kept
            if callee:
                subscriber = Subscriber(
                    kept.principal, kept.url, kept.call_back, kept.peer, kept.proof, callee
                )
            self._restored[kept] = subscriber
        return subscriber

    def forget(self) -> None:
        """What was taken up so far cannot be trusted: there is nothing kept."""
        self._nodes.clear()
        self._restored.clear()
        self.books.clear()
        self.books.ids = SubscriptionIds(None)
        self.keeping.views.clear()
        self.keeping.properties.clear()

    def _node(self, key: str) -> Node:
        node = self._nodes.get(key)
        if node is None:
            node = self._nodes[key] = Node(key)
        return node

    def sweep(self, now: float) -> Iterator[tuple[Node, list[Change], list[News]]]:
        """Let lapse what is due: per node, what the journal is to keep and what watchers are to hear.

        Of a mass of leases it takes a slice; L{behind} then says that there is more.
        """
        for kind in (Kind.LOGIN, Kind.PROPERTY):
            leases = self.books.leases(kind)
            for subscription in leases.sweep(now, SLICE):
                self._census.lease_expired("login" if kind is Kind.LOGIN else "property")
                node = self._nodes.get(subscription.node)
                if node is None:
                    continue
                self.books.remove(node, subscription)
                yield node, [DropSubscription(subscription.id)], []
                self.settle(node)
        for view in self.keeping.views.sweep(now - GRACE_SECONDS, SLICE):
            self._census.lease_expired("presence")
            node = self._nodes.get(view.node)
            if node is None:
                continue
            yield node, *lapse_view(node, view, self.keeping, now)
            self.settle(node)
        for prop in self.keeping.properties.sweep(now, SLICE):
            node = self._nodes.get(prop.node)
            if node is None:
                continue
            yield node, *lapse_property(node, prop)
            self.settle(node)

    def behind(self, now: float) -> bool:
        """Has the last L{sweep} left anything for the next turn of the loop?"""
        books, keeping = self.books, self.keeping
        leases: tuple[LeaseBook[Any], ...] = (books.logins, books.watchers, keeping.properties)
        return keeping.views.behind(now - GRACE_SECONDS) or any(each.behind(now) for each in leases)

    def end_views(self, node: Node, address: str) -> tuple[list[Change], list[News]]:
        """Nobody can be reached at C{address} any more: the views made there are over."""
        before = node.views.effective
        changes: list[Change] = []
        for view in node.views:
            if view.address == address:
                node.views.end(view)
                self.keeping.views.drop(view)
                changes.append(DropView(node.key, view.id))
        return changes, node.state_news(before)

    def lose(self, subscription: Subscription) -> list[Change]:
        """Strike off the subscription of a watcher who is gone for good."""
        node = self._nodes.get(subscription.node)
        if node is None or node.find(subscription.id) is not subscription:
            return []
        self.books.remove(node, subscription)
        self.settle(node)
        return [DropSubscription(subscription.id)]

    def retire(self, node: Node) -> tuple[list[Change], list[News]]:
        """Let go of a node that is not of this home any more; its watchers see it go offline."""
        before = node.views.effective
        for view in node.views:
            node.views.end(view)
            self.keeping.views.drop(view)
        news = node.state_news(before)
        changes: list[Change] = []
        for kind in (Kind.LOGIN, Kind.PROPERTY):
            for subscription in list(node.subscriptions(kind).values()):
                self.books.remove(node, subscription)
                changes.append(DropSubscription(subscription.id))
        for prop in node.properties.values():
            self.keeping.properties.drop(prop)
        self._nodes.pop(node.key, None)
        return [*changes, DropNode(node.key)], news

    def resume(self, farm: Farm) -> None:
        """After L{restore}: work out who may watch; what each was told is taken to be the present state."""
        self._restored = {}
        self._policies = _policies(farm)
        for node in self._nodes.values():
            if node.own_acl is not None or self._policies.get(node.domain) != _EVERYBODY:
                review(node, farm)
            node.believe_told()

    def farm_changed(self, farm: Farm) -> list[Node]:
        """Farm-wide settings changed: what follows from them is worked out anew when needed.

        @return: the nodes whose default list is not what it was: who watches them must be looked at again.
        """
        before, self._policies = self._policies, _policies(farm)
        changed = {name for name, values in self._policies.items() if before.get(name) != values}
        for node in self._nodes.values():
            node.farm_changed()
        return [
            node
            for node in self._nodes.values()
            if node.own_acl is None and node.watchers and node.domain in changed
        ]


#: The values of the policies of a domain whose default list lets everybody watch.
_EVERYBODY = ("open", "required")


def _policies(farm: Farm) -> dict[str, tuple[str, ...]]:
    """For each domain the settings that its default access list follows from."""
    return {
        name: (farm.policy("default-acl", name), farm.policy("authentication", name)) for name in farm.domains
    }
