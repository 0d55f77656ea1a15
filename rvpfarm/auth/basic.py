"""Basic (RFC 7617): the password itself, so over encrypted connections only, checked where it is known.

Of a user out of LDAP the LDAP directory checks it; of any other, what is kept for Digest or NTLM does.  That
a connection is encrypted is for its listener to say: elsewhere the scheme is withheld (L{Call.withheld
<rvpfarm.protocol.calls.Call.withheld>}).
"""

from __future__ import annotations

import hmac
from base64 import b64decode
from binascii import Error
from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol

from twisted.internet.defer import Deferred, DeferredLock, succeed

from rvpfarm.auth.challenge import Attempt, Unfit
from rvpfarm.auth.digest import SCHEMES, ha1
from rvpfarm.auth.logins import NT
from rvpfarm.auth.lookup import look_up
from rvpfarm.auth.ntlm import nt_hash
from rvpfarm.directory.ldapsettings import BIND
from rvpfarm.directory.model import Account, Verifier
from rvpfarm.protocol.calls import BadRequest, Busy

#: For how long a right password is not checked again, and of how many people.
KEEP_SECONDS, KEEP_LIMIT = 60.0, 10_000
#: Passwords of one account that wait to be checked one after the other.
WAITING_LIMIT = 16
#: The longest credentials that are looked at.
CREDENTIALS_LENGTH = 1024

#: What the password of somebody unknown is compared with, so that he costs what others cost.
_NOBODY = Verifier("digest-sha-256", "nobody", "nowhere", "0" * 64)

_ALGORITHMS = {scheme: algorithm for algorithm, scheme in SCHEMES.items()}


class Prover(Protocol):
    """What asks the LDAP directory; L{rvpfarm.directory.ldapprover.LdapProver} is one."""

    def prove(self, account: Account, password: str) -> Deferred[bool]:
        """Is this the password of C{account}?

        It fails with L{DirectoryUnavailable <rvpfarm.directory.model.DirectoryUnavailable>} when that cannot
        be told now.
        """


@dataclass(frozen=True, slots=True)
class _Right:
    """A password that was right.

    @ivar mark: what it is known again by, and cannot be found out from.
    """

    account: Account
    mark: bytes
    until: float


class Basic:
    """Names and passwords; see L{rvpfarm.auth.challenge.Scheme}."""

    proof = "basic"
    token = b"basic"
    words: tuple[str, ...] = ("basic",)

    def __init__(self, secret: bytes, prover: Prover | None = None) -> None:
        """
        @param secret: new with each process; marks passwords that were right.
        @param prover: checks those of users out of LDAP.
        """
        self._secret, self._prover = secret, prover
        self._right: OrderedDict[str, _Right] = OrderedDict()
        self._lines: dict[str, DeferredLock] = {}

    def challenge(self, word: str, realm: str, nonce: str, stale: bool) -> bytes:
        """One line, which asks for UTF-8."""
        return f'Basic realm="{realm}", charset="UTF-8"'.encode()

    def holds(self, connection: str) -> bool:
        """Never: each call carries its own credentials."""
        return False

    def prove(self, attempt: Attempt, credentials: bytes | None) -> Account | Deferred[Account]:
        """The account whose password the sender gives; see L{rvpfarm.auth.challenge.Scheme.prove}."""
        login, password = _parse(credentials or b"")
        if not password or not login:
            raise Unfit("malformed")  # to an LDAP server a name without a password is nobody, and welcome
        key = attempt.logins.key(login, attempt.domain)
        return look_up(attempt, key, lambda account: self._judge(attempt, password, account))

    def _judge(self, attempt: Attempt, password: str, account: Account | None) -> Account | Deferred[Account]:
        """Compare first, whoever it is, and only then look at what else is wrong."""
        if account is None or not any(one.scheme == BIND for one in account.verifiers):
            return self._compare(attempt, password, account)
        if self._prover is None:
            raise Unfit("no-verifier", account=account)
        known = self._known(attempt, password, account)
        if known is not None:
            return known
        line = self._lines.setdefault(account.key, DeferredLock())
        if len(line.waiting) >= WAITING_LIMIT:
            raise Busy("too many passwords of one account wait to be checked")
        asked: Deferred[Account] = line.run(self._ask, attempt, password, account, self._prover)

        def over(result: object) -> object:
            if not line.locked and self._lines.get(account.key) is line:
                del self._lines[account.key]
            return result

        asked.addBoth(over)
        return asked

    def _known(self, attempt: Attempt, password: str, account: Account) -> Account | None:
        """The account, if this password of it was right just now.

        @raise Unfit: nobody may try just now.
        """
        scope = attempt.held(account)
        if scope:
            raise Unfit("throttled", account=account, scope=scope)
        right = self._right.get(account.key)
        if right is None or right.account is not account or right.until <= attempt.now:
            self._right.pop(account.key, None)
            return None
        return account if hmac.compare_digest(right.mark, self._mark(account, password)) else None

    def _ask(self, attempt: Attempt, password: str, account: Account, prover: Prover) -> Deferred[Account]:
        """Its turn has come, one after the other, so that all who guess at once are counted."""
        known = self._known(attempt, password, account)
        if known is not None:
            return succeed(known)

        def decide(right: bool) -> Account:
            if not right:
                raise Unfit("wrong-password", account=account)
            if not account.enabled:
                raise Unfit("disabled", account=account)
            mark, until = self._mark(account, password), attempt.now + KEEP_SECONDS
            self._right[account.key] = _Right(account, mark, until)
            if len(self._right) > KEEP_LIMIT:
                self._right.popitem(last=False)
            return account

        return prover.prove(account, password).addCallback(decide)

    def _compare(self, attempt: Attempt, password: str, account: Account | None) -> Account:
        """Check a password by what is kept of it here."""
        scope = attempt.held(account)
        if scope:
            raise Unfit("throttled", account=account, scope=scope)
        verifiers = () if account is None else account.verifiers
        verifier = next((one for one in verifiers if one.scheme in _ALGORITHMS or one.scheme == NT), None)
        right = _fits(verifier or _NOBODY, password)
        if account is None:
            raise Unfit("unknown-user")
        if verifier is None or not right:
            raise Unfit("no-verifier" if verifier is None else "wrong-password", account=account)
        if not account.enabled:
            raise Unfit("disabled", account=account)
        return account

    def _mark(self, account: Account, password: str) -> bytes:
        return hmac.digest(self._secret, f"{account.key}\0{password}".encode(), "sha256")


def _fits(verifier: Verifier, password: str) -> bool:
    """Is this the password that the verifier was made of?"""
    if verifier.scheme == NT:
        found = nt_hash(password).hex()
    else:
        found = ha1(_ALGORITHMS[verifier.scheme], verifier.username, verifier.realm, password)
    return hmac.compare_digest(found.encode(), verifier.secret.encode())


def _parse(credentials: bytes) -> tuple[str, str]:
    """The name and the password.

    @raise BadRequest: there are none.
    """
    if len(credentials) > CREDENTIALS_LENGTH:
        raise BadRequest("the credentials are too long")
    try:
        text = b64decode(credentials.strip().partition(b" ")[2].strip(), validate=True).decode()
    except (Error, UnicodeDecodeError):
        raise BadRequest("the credentials are not UTF-8 as base 64") from None
    login, colon, password = text.partition(":")
    if not colon or "\0" in text:
        raise BadRequest("the credentials are no name and password")
    return login, password
