"""The router at work: it locates the owner of a node, and refers the caller to it or forwards the call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from rvpfarm.directory.model import Account, Directory, DirectoryUnavailable, Farm, Home
from rvpfarm.directory.names import names_of
from rvpfarm.directory.referral import is_referred, leads_back, place_of
from rvpfarm.link.links import Links
from rvpfarm.protocol.address import Target, parse_target
from rvpfarm.protocol.calls import (
    Busy,
    Call,
    Failed,
    NotFound,
    Refusal,
    Relayed,
    Reply,
    Slow,
    TimedOut,
    Unreachable,
    Untried,
)
from rvpfarm.protocol.headers import HOP_LIMIT, check_method, parse_hops
from rvpfarm.router.health import Health, Standing
from rvpfarm.router.routing import choose_home, referred_to, with_hops
from rvpfarm.web.reader import parse_head
from rvpfarm.web.writer import render_reply

if TYPE_CHECKING:
    from rvpfarm.observe.metrics import Metrics

Answered: TypeAlias = Reply | Relayed | Deferred[Reply | Relayed]

#: How a home of this process answers a call for a node that somebody else has looked up.
Take: TypeAlias = Callable[[Call, Target, "Account | None"], Answered]

#: How one farm member tells another that a node lives elsewhere; callers never see it.
MOVED_STATUS, MOVED_HEADER = 421, (b"RVP-Farm", b"moved")

#: What an C{Authorization} begins with that authenticates the connection and not only the call.
_BINDING = (b"ntlm", b"nego")
#: Connections of which it is remembered where they proved themselves.
BOUND_LIMIT = 100_000
#: Referrals that are kept as they were rendered, for callers ask for the same again and again.
REFERRALS_LIMIT = 10_000

_NO_KEYWORDS: Mapping[str, object] = MappingProxyType({})
_MOVED_DIGITS, _REFERRED_DIGITS = b"%d" % MOVED_STATUS, b"302"
_MOVED_LINE = b"\r\n%b: %b\r\n" % MOVED_HEADER


@dataclass(frozen=True, slots=True)
class _Referral:
    """Where a caller is referred, as long as the directory says what it said.

    @ivar answer: C{None} if it would lead back here.
    """

    account: Account
    farm: Farm
    answer: Relayed | None


class Router:
    """Answers any call for any node of the farm, and keeps nothing.

    A home has one too, for the nodes that are not its own; homes that share a process share one.

    No call goes round in circles: one that a farm member has handed on is handed on no further, one that
    comes by a node's physical URL was referred already and is not referred again, and a home that turns
    out not to have the node is asked for another place once (protocol notes 1.6).
    """

    _log = Logger()

    def __init__(
        self,
        directory: Directory,
        links: Links,
        *,
        clock: IReactorTime,
        metrics: Metrics | None = None,
        own_home: str | None = None,
        health: Health | None = None,
        sisters: Mapping[str, Take] = MappingProxyType({}),
    ) -> None:
        """
        @param links: to the homes.
        @param own_home: the id of the home that this router belongs to, if it belongs to one.
        @param health: how the homes stand, told by others as well; its own if not given.
        @param sisters: the homes that it belongs to, if there are several, by their ids; it may be filled
            before the first call.
        """
        self._directory, self._links, self._clock = directory, links, clock
        self._own_home, self._sisters = own_home, sisters
        self._count = _uncounted if metrics is None else metrics.route
        self._health = health or Health()
        self._standings = self._health.standings
        self._bound: dict[str, set[str]] = {}
        self._referrals: dict[tuple[str, str, bytes], _Referral] = {}
        directory.watch(self._changed)

    def answer(self, call: Call) -> Answered:
        """Refer or forward C{call}; a forwarded NOTIFY has made one more hop.

        @raise NotSupported: RVP has no such method; also L{NotAllowed <rvpfarm.protocol.calls.NotAllowed>}.
        @raise BadRequest: the target or the hop count is malformed.
        @raise NotFound: the IM domain is not served here.
        @raise Failed: the call has made too many hops.
        @raise Busy: the home, or the directory, cannot be reached now.
        """
        check_method(call.method)
        headers, farm = call.headers, self._directory.farm()
        target = parse_target(call.target, headers.get(b"host"), names_of(farm))
        if call.via is not None:
            # forwarded to us by one whose directory is older or newer than ours: it shall look again
            return Reply(MOVED_STATUS, (MOVED_HEADER,), reason=b"Misdirected Request")
        if call.method == b"NOTIFY":
            hops = parse_hops(headers)
            if hops > HOP_LIMIT:
                self._count("reject")
                raise Failed("the notification has made too many hops")
            if not call.vouched:  # a member's own notification is only now on its first hop
                call.head = with_hops(call.head, hops + 1)
        account = self._directory.peek(target.key)
        if account is None:
            return self._find(call, target, first=True)
        return self._carry(call, target, cast("Account | None", account or None), first=True)

    def healthy(self, home: Home) -> bool:
        """Whether C{home} answered when it was last asked."""
        standing = self._standings.get(home.id)
        return standing is None or standing.healthy

    def gone(self, connection: str) -> None:
        """A connection is closed: tell the homes where somebody may have proved himself on it."""
        homes = self._directory.farm().homes
        for id in self._bound.pop(connection, ()):
            if id in homes:
                self._links.to(homes[id]).gone(connection)

    def _find(self, call: Call, target: Target, *, first: bool) -> Deferred[Reply | Relayed]:
        """Ask the directory, then go on."""

        def found(account: Account | None) -> Answered:
            return self._carry(call, target, account, first=first)

        def failed(failure: Failure) -> Failure:
            if failure.check(DirectoryUnavailable):
                self._count("reject")
                raise Busy("the directory cannot be asked now")
            return failure

        asked: Deferred[Account | None] = self._directory.find(target.key)
        return asked.addCallbacks(found, failed)

    def _carry(self, call: Call, target: Target, account: Account | None, *, first: bool) -> Answered:
        """Refer the caller, or hand the call to the home of C{account} or, without one, to some home."""
        farm = self._directory.farm()
        home = self._home_of(target, account, farm.homes)
        if self._sisters and home.id in self._sisters:
            self._count("local")
            return _hand_over(self._sisters[home.id], call, target, account)
        if account is not None and first and not (call.vouched or target.physical):
            policy = farm.policy("referral", account.domain)
            if is_referred(policy, farm, call.peer, call.headers.get(b"user-agent", b"")):
                referral = self._referral(call, target, account, home, farm)
                if referral is not None:
                    self._count("redirect")
                    return referral
        return self._forward(call, target, home, first)

    def _referral(
        self, call: Call, target: Target, account: Account, home: Home, farm: Farm
    ) -> Relayed | None:
        """The answer that refers the caller to C{home}, unless he is not to be referred after all."""
        if _is_from_server(call):
            return None
        version = b"1.0" if call.headers.get(b"rvp-notifications-version") == b"1.0" else b"0.2"
        known = self._referrals.get((target.key, target.host, version))
        if known is None or known.account is not account or known.farm is not farm:
            answer = None
            if not leads_back(home, farm, target.host):
                reply = Reply(302, ((b"Location", place_of(account, home).encode("ascii")),))
                answer = Relayed(render_reply(reply, version=version))
            known = _Referral(account, farm, answer)
            if len(self._referrals) >= REFERRALS_LIMIT:
                self._referrals.clear()
            self._referrals[target.key, target.host, version] = known
        return known.answer

    def _home_of(self, target: Target, account: Account | None, homes: Mapping[str, Home]) -> Home:
        """
        @raise Busy: there is no such home.
        @raise NotFound: the home that asks is the one that has to answer.
        """
        home = choose_home(target.key, homes.values()) if account is None else homes.get(account.home)
        if home is None:
            self._count("reject")
            raise Busy("no home is known for that node")
        if home.id == self._own_home:
            self._count("reject")
            if account is None:
                raise NotFound("there is no node of that name")
            raise Busy("that node has just moved here", retry_after_seconds=1)
        return home

    def _forward(self, call: Call, target: Target, home: Home, first: bool) -> Deferred[Reply | Relayed]:
        standing = self._standings.get(home.id)
        if standing is None or not standing.clear:
            standing = self._check_standing(home)
        self._count("proxy")
        credentials = call.headers.get(b"authorization")
        if credentials is not None and credentials[:4].lower() in _BINDING:
            self._bind(call.connection, home.id)
        carried: Deferred[Relayed] = self._links.to(home).call(call)
        return carried.addCallbacks(
            self._answered,
            self._failed,
            (call, target, home, standing, first),
            _NO_KEYWORDS,
            (call, standing),
        )

    def _check_standing(self, home: Home) -> Standing:
        """
        @raise Busy: the home is down, or has not been reached of late, and others are finding out.
        """
        now = self._clock.seconds()
        standing = self._health.of(home.id, now)
        if not standing.allow(now):
            self._count("reject")
            left = ceil(standing.seconds_left(now))
            raise Busy("the home cannot be reached", retry_after_seconds=max(1, left))
        return standing

    def _bind(self, connection: str, home: str) -> None:
        """Remember that a connection proves itself to C{home}."""
        bound = self._bound.get(connection)
        if bound is not None:
            bound.add(home)
        elif len(self._bound) < BOUND_LIMIT:
            self._bound[connection] = {home}

    def _answered(
        self, relayed: Relayed, call: Call, target: Target, home: Home, standing: Standing, first: bool
    ) -> Answered:
        """Pass the answer on, unless the home says that the node is not its own."""
        if not standing.clear:
            standing.answered(self._clock.seconds())
        wire = relayed.wire
        digits = wire[9:12]
        if digits != _MOVED_DIGITS:
            return relayed if digits != _REFERRED_DIGITS else self._follow(relayed, call, target, home, first)
        if _MOVED_LINE not in wire:
            return relayed
        if not first:
            raise Busy("the node is being moved")
        self._log.info("{key} is not at {home} any more", key=target.key, home=home.name)
        self._directory.forget(target.key)
        return self._find(call, target, first=False)

    def _follow(self, relayed: Relayed, call: Call, target: Target, home: Home, first: bool) -> Answered:
        """Follow a home's referral in the caller's place, for not every client can (protocol notes 10.3).

        It is followed over the farm link, so to homes of this farm only, and once.

        @raise Busy: it leads in circles.
        """
        other = referred_to(_location_of(relayed.wire), target, home, self._directory.farm())
        if other is None:
            return relayed
        self._directory.forget(target.key)
        if not first or other.id == self._own_home or other.id in self._sisters:
            raise Busy("the node is being moved")
        self._log.info("{key} is at {other}, says {home}", key=target.key, other=other.name, home=home.name)
        return self._forward(call, target, other, first=False)

    def _failed(self, failure: Failure, call: Call, standing: Standing) -> Failure:
        """
        @raise TimedOut: what became of the call is not known.
        @raise Busy: nothing became of it, or it can be repeated.
        """
        if not failure.check(Unreachable):
            return failure
        unreachable = cast(Unreachable, failure.value)
        if isinstance(unreachable, Slow):
            raise TimedOut("the home did not answer in time")
        if isinstance(unreachable, Untried):
            raise Busy("this server cannot reach anybody now")
        if not unreachable.maybe_done:
            if not unreachable.echo:
                standing.unreached(self._clock.seconds())
        elif call.method == b"NOTIFY":
            raise TimedOut("the home was lost while it had the notification")
        raise Busy("the home cannot be reached")

    def _changed(self, key: str | None) -> None:
        """The directory changed: homes may have gone."""
        if key is None:
            homes = self._directory.farm().homes
            self._links.retain(homes)
            self._health.retain(homes)


def _uncounted(decision: str) -> None:
    """Nobody wants to know how a call was routed."""


def _hand_over(take: Take, call: Call, target: Target, account: Account | None) -> Answered:
    """Have a home of this process answer, as it would over a farm link."""
    if not call.vouched:
        return take(call, target, account)
    # a member's own call was rendered for a link: nobody has read its head yet, and a refusal is a reply
    read = parse_head(call.head)
    read.body, read.vouched = call.body, True
    try:
        answer = take(read, target, account)
    except Refusal as refusal:
        return refusal.reply()
    return answer.addErrback(_as_reply) if isinstance(answer, Deferred) else answer


def _as_reply(failure: Failure) -> Reply:
    failure.trap(Refusal)
    return cast(Refusal, failure.value).reply()


def _is_from_server(call: Call) -> bool:
    """Does a server make this call, and not a person?  Servers are not known to follow referrals."""
    principal = call.headers.get(b"rvp-from-principal")
    return principal is not None and b"://" not in principal


def _location_of(wire: bytes) -> bytes:
    """The C{Location} of a rendered answer; empty if there is none, or more than one."""
    fields = [line.partition(b":") for line in wire[: wire.index(b"\r\n\r\n")].split(b"\r\n")[1:]]
    found = [value.strip() for name, _, value in fields if name.lower() == b"location"]
    return found[0] if len(found) == 1 else b""
