"""SUBSCRIBE, UNSUBSCRIBE and SUBSCRIPTIONS (protocol notes 3.1 to 3.3)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial

from rvpfarm.auth.challenge import Identity
from rvpfarm.directory.reach import blocked_by
from rvpfarm.home.leases import LeaseBook
from rvpfarm.home.node import News, Node, Outcome, Subscription, Visit
from rvpfarm.home.properties import readable
from rvpfarm.home.records import (
    Change,
    DropSubscription,
    PutMeta,
    PutSubscription,
    RenewSubscription,
    SavedSubscription,
    Subscriber,
)
from rvpfarm.protocol.address import CallBack, Names, parse_call_back
from rvpfarm.protocol.calls import (
    BadRequest,
    Busy,
    Forbidden,
    Precondition,
    Refusal,
    Reply,
    Unproven,
)
from rvpfarm.protocol.headers import Kind, parse_kind, parse_lifetime, parse_subscription_id
from rvpfarm.protocol.properties import Propstat, render_multistatus
from rvpfarm.protocol.subscriptions import SubscriptionEntry, render_subscriptions

#: What is granted at most and at least, seconds (protocol notes 3.1, edge cases).
LONGEST, SHORTEST = 14400, 300
#: Multiplied with consecutive numbers and cut off at 32 bits, it spreads them evenly (Knuth 6.4).
_SPREADING = 2654435769
#: The last id before they begin again at 1 (2.2).
LAST_ID = 2147483647
#: Ids are reserved on disk in blocks, so that none is used twice after a crash.
BLOCK = 1000
#: Where the journal keeps the first id not yet reserved.
IDS_META = "subscription-ids"
#: The most that one node keeps of each kind: places logged in, and watchers.
MOST_LOGINS, MOST_WATCHERS = 32, 20000
#: How many subscribers are remembered so that their next subscriptions share what they have in common; beyond
#: this many all are forgotten, since a client subscribes to its contacts one after the other.
REMEMBERED = 5000
#: A normalised URL at an IPv4 address, which nearly all clients listen at.
_LISTENER = re.compile(r"http://([0-9.]+)(?::[0-9]+)?/")


class SubscriptionIds:
    """Numbers for new subscriptions: unique on this home, not soon used again, restarts included."""

    def __init__(self, saved: str | None) -> None:
        """
        @param saved: what the journal kept under L{IDS_META}.
        """
        self._next = self._reserved = int(saved or "1")

    def issue(self) -> tuple[int, tuple[Change, ...]]:
        """A new id, and what the journal must keep before it is used."""
        if self._next > LAST_ID:
            self._next = self._reserved = 1
        issued = self._next
        self._next += 1
        if issued < self._reserved:
            return issued, ()
        return issued, (PutMeta(IDS_META, str(min(issued + BLOCK, LAST_ID + 1))),)

    def kept(self, issued: int) -> None:
        """The journal has kept what came with the id C{issued}: the ids after it are reserved on disk."""
        if issued < self._next:  # else they have begun again at 1 meanwhile
            self._reserved = max(self._reserved, issued + BLOCK)


class Books:
    """What the subscriptions of all nodes share.

    @ivar online: how many nodes have somebody logged in.
    """

    def __init__(
        self,
        ids: SubscriptionIds,
        blocked: Callable[[str], None],
        renewed: Callable[[str], None] = lambda kind: None,
    ) -> None:
        """
        @param blocked: told the rule when a call-back is refused.
        @param renewed: told the kind when a subscription is renewed in time.
        """
        self.ids = ids
        self.blocked = blocked
        self.renewed = renewed
        self.logins: LeaseBook[Subscription] = LeaseBook()
        self.watchers: LeaseBook[Subscription] = LeaseBook()
        self.online = 0
        self._subscribers: dict[Subscriber, Subscriber] = {}

    def clear(self) -> None:
        """Strike off everything."""
        self.logins.clear()
        self.watchers.clear()
        self.online = 0

    def shared(self, subscriber: Subscriber) -> Subscriber:
        """An equal one that may be in use already."""
        if len(self._subscribers) >= REMEMBERED:
            self._subscribers.clear()
        return self._subscribers.setdefault(subscriber, subscriber)

    def leases(self, kind: Kind) -> LeaseBook[Subscription]:
        """The leases of one kind of subscription."""
        return self.logins if kind is Kind.LOGIN else self.watchers

    def enter(self, node: Node, subscription: Subscription, until: float) -> None:
        """Put C{subscription} on the books of its node."""
        if subscription.kind is Kind.LOGIN and not node.logins:
            self.online += 1
        node.subscriptions(subscription.kind)[subscription.id] = subscription
        self.leases(subscription.kind).grant(subscription, until)

    def remove(self, node: Node, subscription: Subscription) -> None:
        """Strike C{subscription} off, whether it has lapsed or was ended."""
        self.leases(subscription.kind).drop(subscription)
        held = node.subscriptions(subscription.kind).pop(subscription.id, None)
        if held is not None and subscription.kind is Kind.LOGIN and not node.logins:
            self.online -= 1


def subscribe(node: Node, visit: Visit, books: Books) -> Outcome:
    """Log in, watch, or renew either."""
    wanted = parse_subscription_id(visit.call.headers)
    if wanted is not None:
        return _refresh(node, visit, books, wanted)
    kind = parse_kind(visit.call.headers, required=True)
    assert kind is not None
    node.demand("receive-from" if kind is Kind.LOGIN else "presence", visit)
    asked = parse_lifetime(visit.call.headers)
    text = visit.call.headers.get(b"call-back", b"").decode("latin-1")
    if not text:
        raise BadRequest("a new subscription needs a Call-Back")
    call_back = parse_call_back(text, visit.names)
    _check_call_back(node, visit, books, kind, call_back)
    if len(node.subscriptions(kind)) >= (MOST_LOGINS if kind is Kind.LOGIN else MOST_WATCHERS):
        raise Busy("this node holds as many subscriptions as it may", retry_after_seconds=60)
    return _create(node, visit, books, kind, call_back, asked)


def granted(asked: int) -> int:
    """How many seconds a request for C{asked} is granted."""
    return max(SHORTEST, min(LONGEST, asked))


def announced(asked: int, number: int, percent: int) -> int:
    """How many seconds the subscription C{number} is said to be granted, when C{asked} are asked for.

    What began together, such as the whole contact list of everybody in the morning, would be renewed
    together for ever.  So whoever asks for as much as there is, is told a little less, to each his own.
    It is held for what L{granted} says all the same: Miranda does not look at the answer and renews 1800
    s before the end of what it asked for, Windows Messenger 300 s, and neither may find it gone.

    @param percent: by how much less at most (policy C{renewal-jitter}).
    """
    seconds = granted(asked)
    if seconds < LONGEST:
        return seconds
    share = (number * _SPREADING & 0xFFFFFFFF) / 2**32
    return seconds - int(seconds * percent / 100 * share)


def _check_call_back(node: Node, visit: Visit, books: Books, kind: Kind, call_back: CallBack) -> None:
    """Refuse a call-back that loops, that is not the caller's to give, or that must not be called.

    @raise BadRequest: a login that names a node: it would loop (1.6).
    @raise Forbidden: see L{rvpfarm.directory.reach}.
    """
    if call_back.principal is not None:
        if kind is Kind.LOGIN:
            raise BadRequest("a login must name the client's own listener")
        caller = visit.identity.principal
        if caller is None or call_back.principal != caller.key:
            node.demand("subscribe-others", visit)
        return
    rule = blocked_by(call_back, visit.call.peer, visit.farm)
    if rule == "farm":
        books.blocked(rule)
        raise Forbidden("a call-back cannot be a server of this farm")
    owner = visit.identity.principal is not None and visit.identity.principal.key == node.owner_key
    own_listener = kind is Kind.LOGIN and owner and call_back.host == visit.call.peer
    if not own_listener:
        node.demand("subscribe-others", visit)
    if rule is not None:
        books.blocked(rule)
        raise Forbidden("a call-back must be at the caller's own address or in a listed network")


def _create(node: Node, visit: Visit, books: Books, kind: Kind, call_back: CallBack, asked: int) -> Outcome:
    """Enter the new subscription and tell its creator the id, and a watcher the present state."""
    number, reserve = books.ids.issue()
    principal = visit.identity.principal
    state = node.state_for(principal.key if principal else "")
    subscriber = Subscriber(
        principal=principal.key if principal else "",
        url=principal.url if principal else "",
        call_back=call_back.url,
        peer=visit.call.peer,
        proof=visit.identity.proof,
        callee=call_back.principal or "",
    )
    subscription = Subscription(
        id=number,
        node=node.key,
        kind=kind,
        subscriber=books.shared(subscriber),
        reads=kind is Kind.LOGIN or node.allows("read", visit.identity, visit.farm),
        told=state,
        heard=state,
    )
    books.enter(node, subscription, visit.now + granted(asked))

    def undo() -> None:
        books.remove(node, subscription)

    if kind is Kind.LOGIN:
        reply = _granted(subscription, granted(asked))
    else:
        reply = _granted(subscription, _announced(node, visit, asked, number))
        assert node.account is not None
        props = readable(node, subscription.principal, reads=subscription.reads, lists=subscription.reads)
        reply.status = 207
        reply.headers = (*reply.headers, (b"Content-Type", b"text/xml"))
        reply.body = render_multistatus(node.account.url, [Propstat(200, props)])
    kept = partial(books.ids.kept, number) if reserve else None
    return Outcome(reply, (*reserve, PutSubscription(saved(subscription))), undo=undo, kept=kept)


def _announced(node: Node, visit: Visit, asked: int, number: int) -> int:
    """What L{announced} says where this node is."""
    return announced(asked, number, int(visit.farm.policy("renewal-jitter", node.domain)))


def _granted(subscription: Subscription, seconds: int) -> Reply:
    headers = (
        (b"Subscription-Id", b"%d" % subscription.id),
        (b"Subscription-Lifetime", b"%d" % seconds),
    )
    return Reply(200, headers)


def _refresh(node: Node, visit: Visit, books: Books, number: int) -> Outcome:
    """Hold a subscription of the caller's for longer; nothing else about it can be changed.

    @raise Precondition: this node has no such subscription (any more).
    @raise Forbidden: it is somebody else's.
    @raise BadRequest: the call contradicts what is on the books.
    """
    subscription = _find(node, visit, number)
    if not _is_creator(subscription, visit.identity):
        raise _not_yours(visit, "only its creator can renew a subscription")
    kind = parse_kind(visit.call.headers, required=False)
    if kind not in (None, subscription.kind):
        raise BadRequest("a renewal cannot change the Notification-Type")
    text = visit.call.headers.get(b"call-back", b"").decode("latin-1")
    if text and parse_call_back(text, visit.names).url != subscription.call_back:
        raise BadRequest("a renewal cannot change the Call-Back")
    asked = parse_lifetime(visit.call.headers)
    before = subscription.until
    leases = books.leases(subscription.kind)
    leases.grant(subscription, visit.now + granted(asked))
    books.renewed("login" if subscription.kind is Kind.LOGIN else "property")

    def undo() -> None:
        leases.grant(subscription, before)

    reply = _granted(subscription, _announced(node, visit, asked, number))
    news = _remind(node, subscription)
    return Outcome(reply, (RenewSubscription(number, subscription.until),), news=news, undo=undo)


def _remind(node: Node, watcher: Subscription) -> Sequence[News]:
    """What a watcher is told who renews and has, as far as is known, not heard the present state.

    A notification is given up in the end when its destination is not there, and one that was on its way when
    this home stopped is forgotten.  Whoever renews is there, so that a lease heals this too.
    """
    if watcher.kind is not Kind.PROPERTY or not watcher.sees:
        return ()
    if watcher.heard == node.state_for(watcher.principal):
        return ()
    watcher.told = ""
    return node.late_news()


def unsubscribe(node: Node, visit: Visit, books: Books) -> Outcome:
    """End one subscription; its creator and the owner of the node may (3.2).

    @raise BadRequest: without an id.
    """
    number = parse_subscription_id(visit.call.headers)
    if number is None:
        raise BadRequest("UNSUBSCRIBE needs a Subscription-Id")
    subscription = _find(node, visit, number)
    caller = visit.identity.principal
    owner = caller is not None and caller.key == node.owner_key
    if not owner and not _is_creator(subscription, visit.identity):
        raise _not_yours(visit, "only its creator and the owner of the node can end a subscription")
    until = subscription.until
    books.remove(node, subscription)

    def undo() -> None:
        books.enter(node, subscription, until)

    return Outcome(Reply(200), (DropSubscription(number),), undo=undo)


def subscriptions(node: Node, visit: Visit) -> Outcome:
    """List who is subscribed, by logical URL only: no address is ever told (3.3)."""
    node.demand("subscriptions", visit)
    kind = parse_kind(visit.call.headers, required=False)
    kinds = (kind,) if kind is not None else (Kind.LOGIN, Kind.PROPERTY)
    entries = [
        SubscriptionEntry(held.id, held.url, max(0, int(held.until - visit.now)))
        for wanted in kinds
        for held in node.subscriptions(wanted).values()
    ]
    return Outcome(Reply(200, ((b"Content-Type", b"text/xml"),), render_subscriptions(entries)))


def saved(subscription: Subscription) -> SavedSubscription:
    """The row that the journal keeps of C{subscription}."""
    return SavedSubscription(
        subscription.id, subscription.node, subscription.kind, subscription.subscriber, subscription.until
    )


def callee_of(subscriber: Subscriber, names: Names) -> str:
    """The C{callee} of a subscriber that was written down, as the farm's names have it now."""
    call_back = subscriber.call_back
    if call_back == subscriber.url:
        return subscriber.principal
    listener = _LISTENER.match(call_back)
    if listener is not None and names.domain_of(listener[1]) is None:
        return ""
    return parse_call_back(call_back, names).principal or ""


def _find(node: Node, visit: Visit, number: int) -> Subscription:
    subscription = node.find(number)
    if subscription is None or subscription.until <= visit.now:
        raise Precondition("this node has no such subscription")
    return subscription


def _not_yours(visit: Visit, why: str) -> Refusal:
    """No; but somebody who has not said who he is may turn out to be the right one."""
    return Unproven() if visit.identity.proof == "none" else Forbidden(why)


def _is_creator(subscription: Subscription, identity: Identity) -> bool:
    caller = identity.principal
    return caller.key == subscription.principal if caller else not subscription.principal
