"""Who is meant by a login name that is not the name in an IM address.

In an LDAP directory somebody may sign in by a name of his own, such as the sAMAccountName of Active Directory
where addresses are made of something else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import Deferred

from rvpfarm.auth.challenge import Attempt
from rvpfarm.directory.ldapsettings import LOGIN, RECORD
from rvpfarm.directory.model import Account

_Found = TypeVar("_Found")


def look_up(
    attempt: Attempt, key: str | None, decide: Callable[[Account | None], _Found | Deferred[_Found]]
) -> _Found | Deferred[_Found]:
    """Have C{decide} told whose login name it is that made C{key}, now if that is remembered.

    @param key: of the node that the name would be of; C{None} when it can mean nobody.
    """
    if key is None:
        return decide(None)
    known = attempt.directory.peek(key)
    if isinstance(known, Account):
        return decide(known)
    if known is False and RECORD not in attempt.logins.farm.policies:
        return decide(None)
    return Deferred.fromCoroutine(_ask(attempt, key)).addCallback(decide)


async def _ask(attempt: Attempt, key: str) -> Account | None:
    """Whose name it is, when somebody has to be asked."""
    account = await attempt.directory.find(key)
    if account is not None or RECORD not in attempt.logins.farm.policies:
        return account
    meant = await attempt.directory.find(LOGIN + key)
    # the record under its own key is the one that is kept up to date
    return None if meant is None else await attempt.directory.find(meant.key)
