"""How often a password may be guessed.

Who fails too often is held back: his credentials are not looked at until some time has passed.  Only
failures count, so somebody who knows his password pays nothing, however many calls he makes.
Three counts are kept:

  - of each account at each address: whoever sits at one keyboard and guesses one password;
  - of each address: whoever guesses the passwords of many;
  - of each account, over all addresses: whoever guesses one password from many machines.

The last two hold back only where the account has not signed in lately, so that a stranger cannot keep
its owner away from where he usually is, nor one broken client the colleagues behind the same router.
Every count wears off with time, so nobody is locked out for good anywhere.

Who is held back is answered as for a wrong password: 401 with the usual challenges.  Old clients take any
status but 2xx for a failure and none knows 429 or reads C{Retry-After}, 503 would say that the farm is
overloaded and 403 that the ACL refuses; and whoever guesses is not to learn when his guesses began to be
thrown away.  The operator learns it, from the log and C{rvp_auth_throttled_total}.

Two limits of this.  Each home counts for itself.  And somebody who guesses from the very address that the
owner uses, behind one router with him, can keep his new sign-ins waiting there while he goes on.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from rvpfarm.protocol.address import site_of

#: What a sign-in may be held back for; a closed set, for a metric's label.
SCOPES = ("pair", "address", "account")

#: Seconds until one failure is forgiven, by scope.
FORGIVEN = {"pair": 30.0, "address": 2.0, "account": 20.0}

#: How many times the failures of one account at one address are let pass, by scope.
ROOM = {"pair": 1, "address": 5, "account": 3}

#: For how long an address counts as one where an account signs in, from the last time it did.
FAMILIAR_SECONDS = 30 * 86400.0

#: It is noted no more often than this, since it is so with every call.
_TOUCHED_SECONDS = 60.0


class Buckets:
    """How full each of many leaking buckets is; an empty one costs nothing.

    Memory is bounded: at the limit the bucket untouched for longest, which has leaked most, is forgotten.
    """

    def __init__(self, leak_seconds: float, *, most: int) -> None:
        """
        @param leak_seconds: in which one unit leaks away.
        @param most: how many buckets are remembered.
        """
        self._leak_seconds = leak_seconds
        self._most = most
        self._levels: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        """How many buckets are remembered."""
        return len(self._levels)

    def __contains__(self, key: Hashable) -> bool:
        """Is there anything in the bucket C{key}, as far as is remembered?"""
        return key in self._levels

    def level(self, key: Hashable, now: float) -> float:
        """What is in the bucket C{key}."""
        found = self._levels.get(key)
        if found is None:
            return 0.0
        level, at = found
        return max(0.0, level - max(0.0, now - at) / self._leak_seconds)

    def has_room(self, key: Hashable, now: float, capacity: float) -> bool:
        """Does one more unit fit in?"""
        return key not in self._levels or self.level(key, now) + 1 <= capacity

    def add(self, key: Hashable, now: float) -> None:
        """Put one unit in."""
        self._levels[key] = (self.level(key, now) + 1, now)
        self._levels.move_to_end(key)
        if len(self._levels) > self._most:
            self._levels.popitem(last=False)

    def wait(self, key: Hashable, now: float, capacity: float) -> float:
        """Seconds until one more unit fits in."""
        return max(0.0, self.level(key, now) + 1 - capacity) * self._leak_seconds

    def prune(self, now: float) -> None:
        """Forget the buckets that have become empty among those untouched for longest."""
        while self._levels:
            key = next(iter(self._levels))
            if self.level(key, now) > 0:
                break
            del self._levels[key]


class Episodes:
    """Tells the first of many things alike from the rest, so that it is logged once.

    An episode is over when nothing of its kind happened for a while.  Memory is bounded.
    """

    def __init__(self, quiet_seconds: float, *, most: int = 10_000) -> None:
        """
        @param quiet_seconds: after which the next one is a first one again.
        @param most: how many episodes are remembered.
        """
        self._quiet_seconds = quiet_seconds
        self._most = most
        self._last: OrderedDict[Hashable, float] = OrderedDict()

    def __len__(self) -> int:
        """How many episodes are remembered."""
        return len(self._last)

    def begins(self, key: Hashable, now: float) -> bool:
        """Something of the kind C{key} happened: is it the first of its episode?"""
        last = self._last.get(key)
        self._last[key] = now
        self._last.move_to_end(key)
        if len(self._last) > self._most:
            self._last.popitem(last=False)
        return last is None or now - last > self._quiet_seconds


class Throttle:
    """Holds back whoever fails too often.  It owns no clock."""

    def __init__(self, *, most: int = 50_000) -> None:
        """
        @param most: how much of each kind is remembered.
        """
        self._counts = {scope: Buckets(FORGIVEN[scope], most=most) for scope in SCOPES}
        self._familiar: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._most = most

    def __len__(self) -> int:
        """How many counts and familiar addresses are remembered, all together."""
        return sum(map(len, self._counts.values())) + len(self._familiar)

    def holds(self, account: str, address: str, now: float, allowed: int) -> str:
        """Is whoever says to be C{account} at C{address} held back?

        @param account: key of an account; empty when there is none of the name that was given.
        @param allowed: how many failures of one account at one address are let pass; 0 for any number.
        @return: one of L{SCOPES}, or an empty string when the credentials are to be looked at.
        """
        if allowed <= 0:
            return ""
        site = site_of(address)
        if account:
            pair = (account, site)
            if pair in self._counts["pair"] and self._is_full("pair", pair, now, allowed):
                return "pair"
            since = self._familiar.get(pair)
            if since is not None and now - since <= FAMILIAR_SECONDS:
                return ""
        if self._is_full("address", site, now, allowed):
            return "address"
        if account and self._is_full("account", account, now, allowed):
            return "account"
        return ""

    def failed(self, account: str, address: str, now: float) -> None:
        """The credentials of C{account} that came from C{address} were wrong; see L{holds}."""
        site = site_of(address)
        self._counts["address"].add(site, now)
        if not account:
            return  # or made-up names would push the counts of real accounts out of memory
        self._counts["pair"].add((account, site), now)
        if not self._is_familiar(account, site, now):
            self._counts["account"].add(account, now)

    def proved(self, account: str, address: str, now: float) -> None:
        """C{account} signed in from C{address}: it may do so again, whatever strangers do."""
        key = (account, site_of(address))
        since = self._familiar.get(key)
        if since is not None and 0 <= now - since < _TOUCHED_SECONDS:
            return
        self._familiar[key] = now
        self._familiar.move_to_end(key)
        if len(self._familiar) > self._most:
            self._familiar.popitem(last=False)

    def _is_full(self, scope: str, key: Hashable, now: float, allowed: int) -> bool:
        return not self._counts[scope].has_room(key, now, allowed * ROOM[scope])

    def _is_familiar(self, account: str, site: str, now: float) -> bool:
        since = self._familiar.get((account, site))
        return since is not None and now - since <= FAMILIAR_SECONDS
