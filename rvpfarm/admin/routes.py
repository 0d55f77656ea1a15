"""What a router does with a call from some address, by the functions that routers ask (D24, D25)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rvpfarm.admin.checks import ALIASES, NO_HOME, Refused, domain_named, enumerate_names, is_ip
from rvpfarm.admin.networks import range_text
from rvpfarm.admin.users import existing_user
from rvpfarm.directory.callers import Caller, caller_of
from rvpfarm.directory.model import Account, Farm, Home
from rvpfarm.directory.names import names_of
from rvpfarm.directory.networks import is_inside, listed_by, ranges_of
from rvpfarm.directory.ranges import ALL, ALL_V4, Span, address_of, number_of
from rvpfarm.directory.reach import blocked_by
from rvpfarm.directory.referral import Redirect, follows, leads_back, route
from rvpfarm.directory.store import Store
from rvpfarm.protocol.address import parse_call_back

#: A client that follows referrals, for when nobody says which client calls.
FOLLOWER = "msmsgs/5.1"

#: Stands for the name of any user in a URL.
ANYBODY = "USER"

# the first port of those that clients listen on for a call-back
_CALL_BACK_PORT = 49152


@dataclass(frozen=True, slots=True)
class Call:
    """A call to think through.

    @ivar peer: where its connection comes from.
    @ivar accounts: whom it may be for, with their homes.
    @ivar forwarded: what the proxy's header says, or C{None} without one.
    @ivar asked: the host that it names, without a port.
    """

    peer: str
    farm: Farm
    domain: str
    accounts: tuple[tuple[Account, Home], ...]
    user_agent: str = FOLLOWER
    asked: str = ""
    forwarded: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a call for somebody on one home.

    @ivar url: where the caller is referred to; empty when the call is forwarded.
    @ivar back: a referral would lead back to a router.
    """

    home: Home
    url: str
    back: bool

    @property
    def word(self) -> str:
        """C{"refer"} or C{"forward"}."""
        return "refer" if self.url else "forward"


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a router does with a call, and why.

    @ivar inside: the caller counts as inside.
    @ivar ranges: the inside ranges that contain the caller; none may be needed.
    @ivar referral: the policy of the domain.
    @ivar follows: the client is known to follow referrals.
    @ivar served: the host that was asked means an IM domain of this farm.
    @ivar decisions: none when the call is refused at once.
    @ivar call_back: the rule that keeps the caller from naming a call-back at its own address, or C{None};
        C{"unknown"} when that address is not known.
    @ivar call_back_by_others: the same for everybody else.
    """

    call: Call
    caller: Caller
    inside: bool
    ranges: tuple[str, ...]
    referral: str
    follows: bool
    served: bool
    decisions: tuple[Decision, ...]
    call_back: str | None
    call_back_by_others: str | None


@dataclass(frozen=True, slots=True)
class Edge:
    """An address at the edge of the inside ranges, and what becomes of a call from there."""

    address: str
    inside: bool
    decisions: tuple[Decision, ...]


def think_of(
    store: Store,
    peer: str,
    *,
    user: str | None = None,
    domain: str | None = None,
    user_agent: str = FOLLOWER,
    host: str | None = None,
    forwarded: str | None = None,
) -> Call:
    """The call that an administrator means.

    @param user: whom it is for; left out, anybody on any home.
    @param domain: the IM domain; may be left out with C{user}, or when there is only one.
    @param host: the host that it names; left out, the IM domain.
    @raise Refused: there is no such user, domain or address, or no home.
    """
    if not is_ip(peer):
        raise Refused(f'"{peer}" is not an IP address; give one such as 192.0.2.7')
    with store.read() as reading:
        farm = reading.farm()
        account = None if user is None else existing_user(reading, user)
    if not farm.homes:
        raise Refused(NO_HOME)
    name = account.domain if account is not None else _domain(farm, domain)
    if domain is not None and domain_named(farm.domains, domain).name != name:
        raise Refused(f"{user} is a user of {name}; leave --domain out")
    if account is not None:
        accounts: tuple[tuple[Account, Home], ...] = ((account, farm.homes[account.home]),)
    else:
        homes = sorted(farm.homes.values(), key=lambda home: home.name)
        accounts = tuple((_anybody(name, home), home) for home in homes)
    asked = name if host is None else host.strip().rpartition("@")[2].partition(":")[0].rstrip(".")
    address = address_of(number_of(peer.strip("[]")))
    return Call(address, farm, name, accounts, user_agent, asked, forwarded)


def explain(call: Call) -> Explanation:
    """What a router does with C{call}."""
    farm = call.farm
    caller = caller_of(call.peer, call.forwarded, farm)
    ranges = tuple(range_text(one) for one in listed_by(caller.address, farm, "inside"))
    return Explanation(
        call,
        caller,
        is_inside(caller.address, farm),
        ranges,
        farm.policy("referral", call.domain),
        follows(call.user_agent.encode("latin-1", "replace")),
        names_of(farm).domain_of(call.asked) is not None,
        () if caller.malformed else tuple(_decisions(call, caller.address)),
        _barred(farm, caller.address, caller.address),
        _barred(farm, caller.address, ""),
    )


def edges(call: Call) -> tuple[Edge, ...]:
    """The decision just inside and just outside each edge of the inside ranges; those of C{call} for each.

    Ranges that overlap or adjoin have no edge where they meet.
    """
    found: dict[str, Edge] = {}
    for span in ranges_of(call.farm, "inside").spans:
        for number in _around(span):
            address = address_of(number)
            inside = is_inside(address, call.farm)
            found[address] = Edge(address, inside, tuple(_decisions(call, address)))
    return tuple(found.values())


def summarize(decisions: Sequence[Decision]) -> str:
    """What becomes of the calls, in a few words."""
    words = {decision.word for decision in decisions}
    if len(words) == 1:
        return words.pop()
    by_word = {word: [one.home.name for one in decisions if one.word == word] for word in sorted(words)}
    return "; ".join(f"{word} to {enumerate_names(names)}" for word, names in by_word.items())


def _decisions(call: Call, caller: str) -> Iterator[Decision]:
    """What becomes of C{call} for each whom it may be for."""
    for account, home in call.accounts:
        routed = route(
            account,
            home,
            call.farm,
            peer=caller,
            user_agent=call.user_agent.encode("latin-1", "replace"),
            asked=call.asked,
        )
        url = routed.url if isinstance(routed, Redirect) else ""
        yield Decision(home, url, leads_back(home, call.farm, call.asked))


def _barred(farm: Farm, address: str, peer: str) -> str | None:
    """The rule that keeps a caller at C{peer} from naming a call-back at C{address}."""
    if not address:
        return "unknown"
    host = f"[{address}]" if ":" in address else address
    call_back = parse_call_back(f"http://{host}:{_CALL_BACK_PORT}/", names_of(farm))
    return blocked_by(call_back, peer, farm)


def _around(span: Span) -> Iterator[int]:
    """The numbers just inside and just outside C{span}, without leaving the addresses of its version."""
    whole = ALL_V4 if ALL_V4.first <= span.first and span.last <= ALL_V4.last else ALL
    for number in (span.first - 1, span.first, span.last, span.last + 1):
        if whole.first <= number <= whole.last:
            yield number


def _domain(farm: Farm, name: str | None) -> str:
    """The IM domain that is meant."""
    if name is not None:
        return domain_named(farm.domains, name).name
    if len(farm.domains) != 1:
        raise Refused(f"in which domain? Give --user, or --domain one of {enumerate_names(farm.domains)}")
    return next(iter(farm.domains))


def _anybody(domain: str, home: Home) -> Account:
    """A user of C{domain} on C{home} who stands for all of them."""
    path = ALIASES + ANYBODY
    return Account(
        id="",
        key=f"{domain}{path}".lower(),
        kind="user",
        domain=domain,
        path=path,
        alias=ANYBODY,
        home=home.id,
        enabled=True,
        display_name=ANYBODY,
        email="",
        address=f"{ANYBODY}@{domain}",
    )
