"""The home server: finds the node, asks it, journals, then performs the effects (shell).

A call passes the checks in the order of protocol notes 2.4, which is what makes status codes predictable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from rvpfarm.auth.challenge import PROVED, Gate, Identity
from rvpfarm.directory.model import Account, Directory, DirectoryUnavailable, Farm
from rvpfarm.directory.names import names_of
from rvpfarm.home.backlog import Backlog
from rvpfarm.home.courier import Courier, Destination, Letter, Priority
from rvpfarm.home.delivery import Answer, Herald, Sender
from rvpfarm.home.fanout import Acknowledgement
from rvpfarm.home.fanout import Outcome as Delivered
from rvpfarm.home.garbage import lasting
from rvpfarm.home.journal import Journal
from rvpfarm.home.keeper import Keeper
from rvpfarm.home.node import News, Node, Outcome, Subscription, Visit
from rvpfarm.home.notifying import Relay, notify
from rvpfarm.home.patience import Patience
from rvpfarm.home.privacy import access, review
from rvpfarm.home.properties import propfind, proppatch
from rvpfarm.home.records import Change, Saved
from rvpfarm.home.subscribing import LONGEST, subscribe, subscriptions, unsubscribe
from rvpfarm.observe.metrics import Metrics
from rvpfarm.protocol.address import Principal, Target, parse_call_back, parse_target
from rvpfarm.protocol.calls import (
    Busy,
    Call,
    Failed,
    Forbidden,
    NotFound,
    Refusal,
    Relayed,
    Reply,
    Unproven,
)
from rvpfarm.protocol.headers import HOP_LIMIT, Kind, check_method, parse_envelope, parse_kind
from rvpfarm.web.writer import render_field

#: How long a deep acknowledgement may take in all (protocol notes 6.2): under the 30 s of old clients.
ACKNOWLEDGEMENT_SECONDS = 20.0
#: How often leases are looked at; they must lapse within 5 s (protocol notes 5.2).
SWEEP_SECONDS = 1.0
#: How long a home that stops goes on telling, and how often it looks whether it is done.
TELL_SECONDS, LOOK_SECONDS = 3.0, 0.05
#: Methods that mean nothing without a body.  A client that expects to be challenged, as curl does, asks
#: first with an empty one, and is to be challenged before it is told so.
_NEED_BODY = frozenset((b"NOTIFY", b"PROPFIND", b"PROPPATCH"))


class Home(Service):
    """Answers the calls for the nodes of one home, and hands on those for other homes."""

    _log = Logger()

    def __init__(
        self,
        home: str,
        *,
        directory: Directory,
        gate: Gate,
        journal: Journal,
        outgoing: Sender,
        elsewhere: Answer,
        clock: IReactorTime,
        metrics: Metrics,
        random: Callable[[int], bytes],
        strangers: Sender | None = None,
    ) -> None:
        """
        @param home: the id of this home in the directory.
        @param elsewhere: what answers a call for a node of another home.
        @param random: that many unpredictable bytes.
        @param strangers: carries calls to the servers of other organisations; C{outgoing} if not given.
        """
        self._home, self._directory, self._gate, self._journal = home, directory, gate, journal
        self._elsewhere, self._clock, self._metrics, self._random = elsewhere, clock, metrics, random
        self.courier = Courier(clock, self._died, metrics)
        self.keeper = Keeper(metrics, random)
        self.herald = Herald(
            home,
            directory,
            self.courier,
            outgoing,
            elsewhere,
            clock,
            strangers=strangers,
            local=self.keeper.get,
            lost=self._lost,
            report=self._spread,
            spared=metrics.presence_spared,
        )
        self._reviews: Backlog[Node] = Backlog(clock, self._review)
        self.patience = Patience(clock, ACKNOWLEDGEMENT_SECONDS)
        self._sweeper = LoopingCall(self._sweep)
        self._sweeper.clock = clock
        self._swept: Deferred[LoopingCall] | None = None
        self._rest: IDelayedCall | None = None
        self._show()

    def startService(self) -> None:
        """Take up what the journal kept, then begin to sweep leases."""
        farm, now = self._directory.farm(), self._clock.seconds()
        names = names_of(farm)

        def take(saved: Saved) -> None:
            self.keeper.restore(saved, names)
            for row in saved.subscriptions:
                if row.kind is Kind.LOGIN and row.subscriber.proof in PROVED:
                    self._gate.recall(row.subscriber.principal, row.subscriber.peer, now)

        with lasting():
            self._journal.load(take, self.keeper.forget)
            self.keeper.resume(farm)
        self._directory.watch(self._directory_changed)
        super().startService()
        self._swept = self._sweeper.start(SWEEP_SECONDS, now=False)

    def stopService(self) -> Deferred[None]:
        """Stop sweeping, tell what is still to be told, but not for long, and then stop delivering.

        After a restart everybody is taken to know what there is to know; whoever was not told would learn it
        with the next change only.
        """
        super().stopService()
        if self._sweeper.running:
            self._sweeper.stop()
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        self._reviews.stop()
        self.herald.hurry()
        return Deferred.fromCoroutine(self._finish())

    async def _finish(self) -> None:
        until = self._clock.seconds() + TELL_SECONDS
        courier, herald = self.courier, self.herald
        while (herald.busy or courier.queued or courier.under_way) and self._clock.seconds() < until:
            await deferLater(self._clock, LOOK_SECONDS)
        herald.stop()
        courier.stop()
        self.patience.stop()
        if self._swept is not None:
            await self._swept

    def answer(self, call: Call) -> Reply | Relayed | Deferred[Reply | Relayed]:
        """Answer one call.

        @raise Refusal: anything that protocol notes 2.4 to 3.9 refuse; also through the Deferred.
        """
        check_method(call.method)
        directory = self._directory
        target = parse_target(call.target, call.headers.get(b"host"), names_of(directory.farm()))
        account = directory.peek(target.key)
        if account is None:
            found = directory.find(target.key)
            found.addErrback(_unavailable)
            return found.addCallback(lambda account: self.take(call, target, account))
        return self.take(call, target, account if isinstance(account, Account) else None)

    def take(
        self, call: Call, target: Target, account: Account | None
    ) -> Reply | Relayed | Deferred[Reply | Relayed]:
        """Answer a call for a node that has been looked up: hand it on if the node is another home's.

        @param account: C{None} if there is no such node; its name is not to be harvested all the same.
        @raise Refusal: as L{answer}.
        """
        if account is not None and account.home != self._home:
            return self._elsewhere(call)
        if parse_envelope(call.headers).hops > HOP_LIMIT and call.method == b"NOTIFY":
            raise Failed("too many hops")
        directory = self._directory
        farm, now = directory.farm(), self._clock.seconds()
        identity = self._gate.identify(call, target, farm, names_of(farm), directory, now, self._random)
        if isinstance(identity, Deferred):
            return identity.addCallback(lambda identity: self._receive(call, target, account, identity))
        if identity.headers:
            return self._receive(call, target, account, identity)
        return self._visit(call, target, account, identity, farm, now)

    def _receive(
        self, call: Call, target: Target, account: Account | None, identity: Identity
    ) -> Reply | Deferred[Reply | Relayed]:
        """Answer a known caller; the answer carries what proves the farm to him, if he asked for that."""
        farm, now = self._directory.farm(), self._clock.seconds()
        if not identity.headers:
            return self._visit(call, target, account, identity, farm, now)

        async def visit() -> Reply | Relayed:
            try:
                answer = self._visit(call, target, account, identity, farm, now)
                reply = await answer if isinstance(answer, Deferred) else answer
            except Refusal as refusal:
                refusal.headers += identity.headers
                raise
            if isinstance(reply, Reply):
                return replace(reply, headers=reply.headers + identity.headers)
            return reply

        return Deferred.fromCoroutine(visit())

    def _visit(
        self,
        call: Call,
        target: Target,
        account: Account | None,
        identity: Identity,
        farm: Farm,
        now: float,
    ) -> Reply | Deferred[Reply | Relayed]:
        """Let a known caller do at the node what its access list permits."""
        principal = identity.principal
        if principal is not None and principal.key.partition("/")[0] not in farm.domains:
            _check_federation(farm, target)
        proved = identity.proof != "none"
        if account is None or not account.enabled:
            asked = farm.policy("authentication", target.domain) != "off"
            if asked and not proved:  # names cannot be harvested without saying who one is
                raise self._gate.unproven(call, target, farm, now, self._random)
            raise NotFound("there is no such node")
        if proved:
            self.courier.revive(call.peer)
        node = self.keeper.node(account)
        visit = Visit(call, identity, now, farm, names_of(farm))
        try:
            if not proved and not call.body and call.method in _NEED_BODY:
                raise Unproven()
            if call.method == b"NOTIFY":
                return self._relay(node, notify(node, visit, self._name_of), visit)
            return self._perform(node, self._decide(node, visit), now)
        except Unproven as refusal:
            if refusal.headers:
                raise
            raise self._gate.unproven(call, target, farm, now, self._random) from None
        finally:
            self.keeper.settle(node)

    def _decide(self, node: Node, visit: Visit) -> Outcome:
        """What the call does to the node."""
        method = visit.call.method
        if method == b"SUBSCRIBE":
            outcome = subscribe(node, visit, self.keeper.books)
            self._revive_call_back(visit)
            return outcome
        if method == b"UNSUBSCRIBE":
            return unsubscribe(node, visit, self.keeper.books)
        if method == b"SUBSCRIPTIONS":
            return subscriptions(node, visit)
        if method == b"PROPFIND":
            return propfind(node, visit)
        if method == b"PROPPATCH":
            return proppatch(node, visit, self.keeper.keeping)
        return access(node, visit)

    def _perform(self, node: Node, outcome: Outcome, accepted: float) -> Reply | Deferred[Reply | Relayed]:
        """Journal first, then tell the watchers, then answer."""
        if not outcome.changes or not outcome.durable:
            self._keep(outcome.changes)
            self._announce(node, outcome.news, accepted)
            return outcome.reply
        answer: Deferred[Reply | Relayed] = Deferred()

        def written(problem: Failure | None) -> None:
            if problem is None:
                if outcome.kept is not None:
                    outcome.kept()
                self._announce(node, outcome.news, accepted)
                answer.callback(outcome.reply)
                return
            if outcome.undo is not None:
                outcome.undo()
                self.keeper.settle(node)
            answer.errback(Busy("the home cannot keep its state just now", retry_after_seconds=30))

        try:
            self._journal.write(outcome.changes, written)
        except Busy:
            if outcome.undo is not None:
                outcome.undo()
            raise
        return answer

    def _keep(self, changes: Sequence[Change]) -> None:
        """Have the journal keep what nobody waits for.  If it is full, the end of a lease makes up for it."""
        if not changes:
            return
        try:
            self._journal.write(changes, None)
        except Busy:
            self._log.warn("the journal is full; {count} changes are not kept", count=len(changes))

    def _announce(self, node: Node, news: Sequence[News], accepted: float) -> None:
        """Tell watchers; after a restart the directory may have to be asked for the node's name first."""
        if not news:
            return
        if node.account is not None:
            self.herald.announce(node.account, news, accepted)
            return
        found = self._directory.find(node.key)

        def named(account: Account | None) -> None:
            if account is None:
                return
            if account.home == self._home:
                self.herald.announce(account, news, accepted)
            elif self.keeper.get(node.key) is node:  # moved while this home was down; its new home tells
                self._keep(self.keeper.retire(node)[0])

        def unnamed(failure: Failure) -> None:
            failure.trap(DirectoryUnavailable)
            self._log.warn("{node}: nobody was told: the directory is away", node=node.key)

        found.addCallbacks(named, unnamed)

    # Messages.

    def _relay(self, node: Node, relay: Relay, visit: Visit) -> Reply | Deferred[Reply | Relayed]:
        """Deliver a NOTIFY to every place, and answer as its acknowledgement type promises."""
        courier = self.courier
        reachable = [url for url in relay.call_backs if not courier.is_dead(url)]
        waiting = _Waiting(self, relay, len(reachable), visit.now)
        if not reachable:
            return waiting.answer()
        fields = _relay_fields(relay)
        for url in reachable:
            destination = self.herald.call_back(url)
            head = destination.opening + fields
            letter = Letter(
                head, relay.body, relay.priority, node.key, waiting.told, relay.key, about=relay.about
            )
            courier.post(destination, letter)
        return waiting.answer()

    def count_message(self, relay: Relay, outcome: str, accepted: float) -> None:
        """A NOTIFY was answered."""
        if relay.priority is not _PRESENCE:
            self._metrics.message(relay.ack.word, outcome, self._clock.seconds() - accepted)

    def _name_of(self, principal: Principal) -> str:
        """What to call a sender who did not say its name."""
        account = self._directory.peek(principal.key)
        if isinstance(account, Account):
            return account.display_name
        return principal.url.rpartition("/")[2]

    # What happens by itself.

    def _sweep(self) -> None:
        """Let lapse what nobody renewed."""
        now = self._clock.seconds()
        self.courier.prune(now - LONGEST)
        self.herald.prune(now)
        if self._rest is None:
            self._lapse()

    def _lapse(self) -> None:
        """Let lapse one slice of what is due, and come back for the rest: other work goes on in between."""
        self._rest = None
        now = self._clock.seconds()
        try:
            for node, changes, news in self.keeper.sweep(now):
                self._keep(changes)
                self._announce(node, news, now)
        except Exception:  # or the loop would end here, in silence
            self._log.failure("the sweep failed")
        if self.keeper.behind(now):
            self._rest = self._clock.callLater(0, self._lapse)

    def _died(self, destination: Destination, key: str) -> None:
        """A call-back is dead: a place whose every call-back is dead has no say any more (5.3 rule 9)."""
        node = self.keeper.get(key)
        if node is None:
            return
        urls = {login.call_back for login in node.logins.values()}
        hosts = {url: self.herald.call_back(url).host for url in urls}
        if any(host == destination.host and not self.courier.is_dead(url) for url, host in hosts.items()):
            return
        changes, news = self.keeper.end_views(node, destination.host)
        self._keep(changes)
        self._announce(node, news, self._clock.seconds())

    def _lost(self, subscription: Subscription) -> None:
        """A watcher is gone for good (403, 404): forget its subscription (protocol notes 6.5)."""
        self._keep(self.keeper.lose(subscription))

    def _directory_changed(self, key: str | None) -> None:
        """The directory says that an account, or the farm, is not what it was."""
        if key is None:
            self._reviews.add(self.keeper.farm_changed(self._directory.farm()))
            return
        node = self.keeper.get(key)
        if node is None:
            return
        found = self._directory.find(key)
        found.addCallbacks(
            lambda account: self._account_changed(node, account),
            lambda failure: failure.trap(DirectoryUnavailable),
        )

    def _account_changed(self, node: Node, account: Account | None) -> None:
        """Keep an account that is still ours; let go of one that was disabled or moved (product F49)."""
        if account is not None and account.enabled and account.home == self._home:
            node.account = account
            return
        known = node.account or account
        changes, news = self.keeper.retire(node)
        self._keep(changes)
        if known is not None:
            self.herald.announce(known, news, self._clock.seconds(), last=True)

    def _review(self, node: Node) -> int:
        """The default access list is another: who watches C{node} hears what that means for him (8.5)."""
        watchers = len(node.watchers)
        self._announce(node, review(node, self._directory.farm()), self._clock.seconds())
        return 1 + watchers

    def _revive_call_back(self, visit: Visit) -> None:
        """A client that names its call-back wants it tried again, whatever happened before; one that signs in
        there is told how everything is, and nothing that was so before."""
        headers = visit.call.headers
        url = headers.get(b"call-back")
        if not url:
            return
        destination = self.herald.call_back(parse_call_back(url.decode("latin-1"), visit.names).url)
        self.courier.revive_one(destination.name, destination.host)
        if b"subscription-id" not in headers and parse_kind(headers, required=False) is Kind.LOGIN:
            self.courier.begin_anew(destination.name)

    def _spread(self, size: int, seconds: float) -> None:
        self._metrics.fanout(size)
        self._metrics.fanout_done(seconds)

    def _show(self) -> None:
        """Let the metrics see what is held."""
        books, gauge = self.keeper.books, self._metrics.gauge
        gauge("users_online", lambda: books.online)
        gauge("sessions", lambda: len(self.keeper.keeping.views))
        gauge("subscriptions", lambda: len(books.logins), type="login")
        gauge("subscriptions", lambda: len(books.watchers), type="property")
        gauge("queue_depth", lambda: self.courier.queued, queue="outbound")
        gauge("queue_depth", lambda: self.herald.waiting, queue="fanout")
        gauge("queue_depth", lambda: self._journal.depth, queue="journal")

    def facts(self) -> dict[str, object]:
        """How much is held and waits, for the status page; safe to call from any thread."""
        books = self.keeper.books
        return {
            "users_online": books.online,
            "sessions": len(self.keeper.keeping.views),
            "subscriptions": {"login": len(books.logins), "property": len(books.watchers)},
            "queues": {"outbound": self.courier.queued, "fanout": self.herald.waiting},
            "journal": {
                "incarnation": self._journal.incarnation,
                "depth": self._journal.depth,
                "failing": self._journal.failing,
            },
        }


class _Waiting(Acknowledgement):
    """A sender who waits for acknowledgements."""

    __slots__ = ("_accepted", "_deferred", "_home", "_relay")

    def __init__(self, home: Home, relay: Relay, deliveries: int, accepted: float) -> None:
        super().__init__(relay.ack, deliveries)
        self._home, self._relay, self._accepted = home, relay, accepted
        self._deferred: Deferred[Reply | Relayed] | None = None

    def told(self, outcome: Delivered) -> None:
        """One delivery has its outcome."""
        if outcome is _REFUSED and self._relay.priority is _PRESENCE:
            outcome = Delivered.DELIVERED  # any status of a client counts as that (6.5)
        if self.add(outcome) and self._deferred is not None:
            self._settle(self._deferred)

    def answer(self) -> Reply | Deferred[Reply | Relayed]:
        """The answer, at once if it is known.

        @raise Refusal: that is the answer.
        """
        if self.settled:
            return self._reply()
        self._deferred = Deferred()
        self._home.patience.begin(self, self._accepted)
        return self._deferred

    def expire(self) -> None:
        """Whoever has not acknowledged it by now is too slow."""
        super().expire()
        assert self._deferred is not None
        self._settle(self._deferred)

    def _settle(self, deferred: Deferred[Reply | Relayed]) -> None:
        self._home.patience.end(self)
        try:
            reply = self._reply()
        except Refusal as refusal:
            deferred.errback(refusal)
        else:
            deferred.callback(reply)

    def _reply(self) -> Reply:
        verdict = self.verdict()
        outcome = "delivered" if verdict is None else _OUTCOMES[verdict.status]
        self._home.count_message(self._relay, outcome, self._accepted)
        if verdict is not None:
            raise verdict
        return Reply(200)


_OUTCOMES = {412: "unreachable", 500: "refused", 504: "slow"}

# To find a member of an enumeration by its name costs a method call each time.
_PRESENCE, _REFUSED = Priority.PRESENCE, Delivered.REFUSED


def _relay_fields(relay: Relay) -> bytes:
    """The headers of a relayed NOTIFY: those of its sender, one hop further (protocol notes 6.2)."""
    return b"%bRVP-Hop-Count: %d\r\n%b%bContent-Type: text/xml\r\nContent-Length: %d\r\n\r\n" % (
        b"" if relay.priority is _PRESENCE else render_field(b"RVP-Ack-Type", relay.ack.word),
        relay.hops,
        b"" if relay.number is None else b"Subscription-Id: %d\r\n" % relay.number,
        render_field(b"RVP-From-Principal", relay.sender) if relay.sender else b"",
        len(relay.body),
    )


def _check_federation(farm: Farm, target: Target) -> None:
    """Let principals of other organisations in only where the administrator federates.

    @raise Forbidden: federation is closed, which is the default (design invariant 9).
    """
    if farm.policy("federation", target.domain) != "open":
        raise Forbidden("this farm does not talk with that organisation")


def _unavailable(failure: Failure) -> Failure:
    """A directory that cannot be asked is no reason to say that nobody is there."""
    failure.trap(DirectoryUnavailable)
    raise Busy("the directory cannot be asked just now")
