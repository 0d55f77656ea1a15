"""Where a call goes: to its home through the router, or back to the caller with the home's address.

The original referred callers inside the firewall and relayed those outside (protocol notes 10.2); not
every client can follow a referral, so only one that says it can is referred.  The decision needs nothing but
the directory: routers take it for every call, and C{rvpfarm network test} explains it.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from rvpfarm.directory.model import Account, Farm, Home
from rvpfarm.directory.networks import is_inside

#: How the C{User-Agent} of clients that follow referrals begins.
FOLLOWERS = b"msmsgs/"


@dataclass(frozen=True, slots=True)
class Redirect:
    """Tell the caller to ask at C{url} instead (302)."""

    url: str


@dataclass(frozen=True, slots=True)
class Forward:
    """Have C{home} answer, and pass its answer on."""

    home: Home


def route(
    account: Account,
    home: Home,
    farm: Farm,
    *,
    peer: str,
    user_agent: bytes,
    asked: str,
    policy: str | None = None,
) -> Redirect | Forward:
    """Decide about a call for a node that lives elsewhere.

    @param home: where C{account} lives.
    @param peer: the caller's address.
    @param asked: the host that the caller asked, without a port.
    @param policy: C{"auto"}, C{"always"} or C{"never"}; the domain's if not given.
    """
    if policy is None:
        policy = farm.policy("referral", account.domain)
    if not is_referred(policy, farm, peer, user_agent) or leads_back(home, farm, asked):
        return Forward(home)
    return Redirect(place_of(account, home))


def is_referred(policy: str, farm: Farm, peer: str, user_agent: bytes) -> bool:
    """Whether C{policy} has a caller referred, if there is somewhere to refer him to."""
    # cheapest first: this is asked of every call, and nearly every call is forwarded
    if policy == "never":
        return False
    return policy != "auto" or (follows(user_agent) and is_inside(peer, farm))


def place_of(account: Account, home: Home) -> str:
    """The URL at which C{home} serves the node of C{account}, as a C{Location} has it."""
    return quote(account.physical_url(home), safe="/:%!$&'()*+,;=@~")


def renamed(
    account: Account, home: Home, farm: Farm, *, peer: str, user_agent: bytes, asked: str
) -> Redirect | None:
    """Where to send a caller who asks C{home} by a name that it had before, if he can follow (KB 319758).

    @return: C{None} if the home should answer as if it were asked by its name.
    """
    if not home.former or asked.lower() not in home.former_hosts:
        return None
    decision = route(account, home, farm, peer=peer, user_agent=user_agent, asked=asked)
    return decision if isinstance(decision, Redirect) else None


def follows(user_agent: bytes) -> bool:
    """Whether a client that calls itself so is known to follow referrals (protocol notes 10.2)."""
    return user_agent[: len(FOLLOWERS)].lower() == FOLLOWERS


def leads_back(home: Home, farm: Farm, asked: str) -> bool:
    """Whether the home's URL leads back to a router, so that a referral would never end (notes 1.6)."""
    host = home.host
    if host in farm.domains or any(host in domain.aliases for domain in farm.domains.values()):
        return True
    if any((router.host, router.port) == (host, home.port) for router in farm.routers.values()):
        return True
    return asked.lower() == host
