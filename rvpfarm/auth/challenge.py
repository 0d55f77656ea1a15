"""Who is calling: what a call claims, what it proves, and the challenge when that is not enough.

The L{Gate} applies the rules that hold for every way of proving (protocol notes 2.2, 2.4, 8.3 and 9.5);
each way of proving is a L{Scheme}.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from twisted.internet.defer import Deferred

from rvpfarm.auth.digest import (
    SCHEMES,
    DigestAnswer,
    Nonces,
    Verdict,
    find_verifier,
    fits,
    parse_authorization,
)
from rvpfarm.auth.logins import Logins
from rvpfarm.auth.throttle import Throttle
from rvpfarm.directory.model import Account, Directory, DirectoryUnavailable, Farm, Verifier
from rvpfarm.protocol.address import Names, Principal, Target, parse_principal, parse_target
from rvpfarm.protocol.calls import SIGN_IN_SCHEMES, BadRequest, Busy, Call, Forbidden, Refusal, Unproven

if TYPE_CHECKING:
    from twisted.python.failure import Failure

#: Why somebody could not prove who he is; a closed set, for a metric's label.
CAUSES = frozenset(
    {
        "no-verifier",
        "wrong-password",
        "unknown-user",
        "disabled",
        "stale-nonce",
        "replayed",
        "malformed",
        "directory",
        "throttled",
        "no-challenge",
        "tampered",
        "unsupported",
        "bad-ticket",
        "no-account",
    }
)

#: The causes that count as guesses: the credentials were looked at, and are wrong.
GUESSES = frozenset({"wrong-password", "unknown-user"})

#: The causes that an operator should hear of, since nothing the user types helps.
NOTABLE = frozenset({"no-verifier", "throttled"})

#: The proofs of an L{Identity} for which somebody gave credentials.
PROVED = frozenset({"digest", "ntlm", "basic"})

#: The method that is counted when the C{Authorization} is of a scheme that is not offered.
OTHER_METHOD = "other"

#: Whose identities are kept ready; beyond this many all are forgotten.
KNOWN_LIMIT = 20_000

#: What the credentials of somebody unknown are compared with, so that he costs what others cost.
_NOBODY = (Verifier("digest-md5", "", "", ""),) * 16

#: What a call may say that it is from, for it to be kept with what that means: so many octets.
CLAIM_LENGTH = 256


@dataclass(frozen=True, slots=True)
class Identity:
    """Who makes a call.

    @ivar principal: C{None} for an anonymous caller.
    @ivar proof: C{"digest"}, C{"ntlm"} (Negotiate too), C{"basic"}, C{"internal"} (a farm member vouches),
        C{"assertion"} (only claimed) or C{"none"} (not even that).
    @ivar headers: sent with the answer, whatever it is: by them the farm proves itself to the caller.
    """

    principal: Principal | None
    proof: str
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Unfit(Exception):
    """Credentials that prove nothing.

    @ivar cause: one of L{CAUSES}.
    @ivar stale: only the nonce was wrong, so that the client need not ask for a password again.
    @ivar lines: the challenges to answer with, when they are not all that are offered; a handshake of
        several steps carries its next step here.
    @ivar close: the caller has tried often enough on this connection.
    @ivar account: whose credentials they are said to be; C{None} when there is nobody of that name.
    @ivar scope: of the cause C{"throttled"}, one of L{rvpfarm.auth.throttle.SCOPES}.
    """

    def __init__(
        self,
        cause: str,
        *,
        stale: bool = False,
        lines: tuple[bytes, ...] | None = None,
        close: bool = False,
        account: Account | None = None,
        scope: str = "",
    ) -> None:
        """
        @param cause: empty for a step of a handshake, which is no failure.
        """
        super().__init__(cause)
        self.cause = cause
        self.stale = stale
        self.lines = lines
        self.close = close
        self.account = account
        self.scope = scope


@dataclass(frozen=True, slots=True)
class Miss:
    """A failed attempt that an operator should hear of.

    @ivar method: how it was tried to prove who somebody is.
    @ivar cause: one of L{NOTABLE}.
    @ivar account: whose credentials were given; C{None} when there is nobody of that name.
    @ivar peer: address of the caller.
    @ivar scope: what was counted, when the caller is held back.
    """

    method: str
    cause: str
    account: Account | None
    peer: str
    scope: str
    now: float


@dataclass(frozen=True, slots=True)
class Offer:
    """What somebody may try who is to prove to be of a domain, at one kind of listener.

    @ivar required: proof is asked for at all.
    @ivar words: the offered schemes, in the order of their challenges.
    @ivar failed_logins: how many failures of one account at one address are let pass.
    @ivar schemes: those that one of C{words} names.
    """

    required: bool
    words: tuple[str, ...]
    failed_logins: int
    schemes: tuple[Scheme, ...]

    def scheme(self, token: bytes) -> Scheme | None:
        """The offered scheme that credentials with the first word C{token} are of."""
        for scheme in self.schemes:
            if scheme.token == token:
                return scheme
        return None


# Made once per call: a frozen dataclass costs four times as much.
@dataclass(slots=True, eq=False)
class Attempt:
    """One call whose sender is to be made out.

    @ivar claimed: who it says it is from.
    @ivar domain: the IM domain whose policies and realm count.
    @ivar offer: what may be tried.
    """

    call: Call
    target: Target
    claimed: Principal | None
    domain: str
    offer: Offer
    names: Names
    logins: Logins
    directory: Directory
    now: float
    random: Callable[[int], bytes]
    throttle: Throttle | None = None

    @property
    def words(self) -> tuple[str, ...]:
        """The offered schemes, in the order of their challenges."""
        return self.offer.words

    def held(self, account: Account | None) -> str:
        """Why credentials of C{account} are not to be looked at, for there were too many wrong ones.

        A scheme asks this right before it compares, with nothing in between that waits; it then raises
        L{Unfit} of the cause C{"throttled"}.

        @param account: C{None} when there is nobody of the name given.
        @return: one of L{rvpfarm.auth.throttle.SCOPES}; empty when they are to be looked at.
        """
        if self.throttle is None:
            return ""
        allowed = self.offer.failed_logins
        key = "" if account is None else account.key
        return self.throttle.holds(key, self.call.peer, self.now, allowed)


@dataclass(frozen=True, slots=True)
class Proved:
    """The account that proved to be calling, and what proves the farm to its user.

    @ivar headers: see L{Identity.headers}.
    """

    account: Account
    headers: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class _Claim:
    """What a call says of its sender, as others have said before.

    @ivar claimed: whom it says it is from.
    @ivar domain: the IM domain whose policies and realm count.
    @ivar is_ours: it is somebody of this farm that it says it is from.
    """

    claimed: Principal | None
    domain: str
    is_ours: bool
    offer: Offer


@dataclass(frozen=True, slots=True)
class Known:
    """The identity that a proof made out last, kept since people call again and again."""

    account: Account
    proof: str
    identity: Identity


class Scheme(Protocol):
    """One way to prove who one is.

    A scheme that authenticates connections and not calls keeps what it knows of them itself, under
    L{Call.connection}, and bounded: the farm link carries that name, so that it is the same at every
    member.

    @ivar proof: the proof of the identities it makes out; also its name in metrics.
    @ivar token: the first word of its C{Authorization}, in lower case.
    @ivar words: the words by which the policy C{schemes} offers it.
    """

    proof: str
    token: bytes
    words: tuple[str, ...]

    def challenge(self, word: str, realm: str, nonce: str, stale: bool) -> bytes:
        """The line that offers C{word}."""

    def holds(self, connection: str) -> bool:
        """Has this connection proved something that holds for calls without C{Authorization}?"""

    def prove(
        self, attempt: Attempt, credentials: bytes | None
    ) -> Account | Proved | Deferred[Account] | Deferred[Account | Proved]:
        """The account that C{credentials} prove to be calling.

        @param credentials: the value of C{Authorization}; C{None} when the connection L{holds}.
        @raise Unfit: they prove nothing.
        @raise BadRequest: they are malformed.
        @raise DirectoryUnavailable: that cannot be told now.
        """


@dataclass(slots=True, eq=False)
class _Login:
    """One login name, as somebody gives it again and again.

    @ivar logins: what its L{key} was worked out by.
    @ivar key: of the node that it means; C{None} when it can mean nobody.
    @ivar account: whose L{verifier} it is; of another account, be it only a newer record, it is not.
        C{None} when there is nobody of that name, C{False} before that is known.
    @ivar verifier: what a password given with it is checked by; C{None} when there is nothing.
    """

    logins: Logins
    key: str | None
    account: Account | bool | None = False
    verifier: Verifier | None = None


class Digest:
    """Digest credentials (protocol notes 9.4)."""

    proof = "digest"
    token = b"digest"
    words = tuple(SCHEMES.values())

    def __init__(self, nonces: Nonces) -> None:
        """
        @param nonces: judges the nonces of the challenges.
        """
        self._nonces = nonces
        # Of anybody, or it would show in the time that it takes which names somebody has.
        self._known: dict[tuple[str, str, str], _Login] = {}

    def challenge(self, word: str, realm: str, nonce: str, stale: bool) -> bytes:
        """One line: attribute names in lower case and no comma in a value, for the oldest clients."""
        algorithm = ", algorithm=SHA-256" if word == SCHEMES["SHA-256"] else ""
        ending = ", stale=true" if stale else ""
        return f'Digest qop="auth", realm="{realm}", nonce="{nonce}"{algorithm}{ending}'.encode()

    def holds(self, connection: str) -> bool:
        """Never: each call carries its own credentials."""
        return False

    def prove(self, attempt: Attempt, credentials: bytes | None) -> Account | Deferred[Account]:
        """The account whose password the sender knows; see L{Scheme.prove}."""
        answer = parse_authorization(credentials or b"")
        if SCHEMES[answer.algorithm] not in attempt.offer.words:
            raise Unfit("malformed")
        if not _is_of(answer.uri, attempt):
            raise BadRequest("the Digest credentials are for another node")
        login = self._login(answer, attempt.logins)
        account = False if login.key is None else attempt.directory.peek(login.key)
        if account is None and login.key is not None:
            found = attempt.directory.find(login.key)
            return found.addCallback(lambda account: self._judge(attempt, answer, login, account))
        return self._judge(attempt, answer, login, account if isinstance(account, Account) else None)

    def _login(self, answer: DigestAnswer, logins: Logins) -> _Login:
        """What is known of the login name that C{answer} gives."""
        name = (answer.username, answer.realm, answer.algorithm)
        known = self._known.get(name)
        if known is None or known.logins is not logins:
            if len(self._known) >= KNOWN_LIMIT:
                self._known.clear()
            known = self._known[name] = _Login(logins, logins.key(answer.username, answer.realm))
        return known

    def _judge(
        self, attempt: Attempt, answer: DigestAnswer, login: _Login, account: Account | None
    ) -> Account:
        """Compare first, whoever it is, and only then look at what else is wrong."""
        if login.account is not account:
            login.account = account
            login.verifier = find_verifier(answer, _NOBODY if account is None else account.verifiers)
        scope = attempt.held(account)
        right = fits(answer, attempt.call.method, None if scope else login.verifier)
        if scope:
            raise Unfit("throttled", account=account, scope=scope)
        if account is None:
            raise Unfit("unknown-user")
        if not right:
            raise Unfit("no-verifier" if login.verifier is None else "wrong-password", account=account)
        if not account.enabled:
            raise Unfit("disabled", account=account)
        verdict = self._nonces.judge(answer.nonce, answer.nc, attempt.now)
        if verdict is not Verdict.FRESH:
            raise Unfit("replayed" if verdict is Verdict.REPLAYED else "stale-nonce", stale=True)
        return account


class Gate:
    """Says who makes a call, or refuses it."""

    def __init__(
        self,
        nonces: Nonces,
        *,
        schemes: Sequence[Scheme] | None = None,
        on_failure: Callable[[str, str], None] | None = None,
        on_miss: Callable[[Miss], None] | None = None,
        throttle: Throttle | None = None,
    ) -> None:
        """
        @param schemes: what can be offered; Digest alone by default.
        @param on_failure: told the method and the cause (one of L{CAUSES}) of each failed attempt.
        @param on_miss: told more of those whose cause is one of L{NOTABLE}.
        @param throttle: holds back who fails too often; nobody is without it.
        """
        self._nonces = nonces
        self._schemes = tuple(schemes) if schemes is not None else (Digest(nonces),)
        self._by_word = {word: scheme for scheme in self._schemes for word in scheme.words}
        self._on_failure = on_failure
        self._on_miss = on_miss
        self._throttle = throttle
        self._logins = Logins(Farm())
        self._names: Names | None = None
        self._offers: dict[tuple[str, int], Offer] = {}
        self._claims: dict[tuple[bytes | None, str, int], _Claim] = {}
        self._identities: dict[str, Known] = {}

    def identify(
        self,
        call: Call,
        target: Target,
        farm: Farm,
        names: Names,
        directory: Directory,
        now: float,
        random: Callable[[int], bytes],
    ) -> Identity | Deferred[Identity]:
        """Find out who makes C{call}; everything it may raise may also come through the Deferred.

        @param random: that many unpredictable bytes.
        @raise Unproven: credentials are needed, and the challenges say which.
        @raise Forbidden: the caller is not who the call claims to be from.
        @raise BadRequest: the claim or the credentials are malformed.
        @raise Busy: the directory cannot tell.
        """
        if call.vouched:
            return Identity(_claim(call, names), "internal")
        claim = self._claim(call, target, farm, names)
        offer, claimed = claim.offer, claim.claimed
        if not offer.required:
            return Identity(claimed, "none" if claimed is None else "assertion")
        attempt = Attempt(
            call,
            target,
            claimed,
            claim.domain,
            offer,
            names,
            self._logins,
            directory,
            now,
            random,
            self._throttle,
        )
        credentials = call.headers.get(b"authorization")
        if credentials is None:
            connection = call.connection
            scheme = next((scheme for scheme in offer.schemes if scheme.holds(connection)), None)
        else:
            scheme = offer.scheme(credentials.strip().partition(b" ")[0].lower())
        if scheme is not None:
            return self._prove(attempt, scheme, credentials)
        if credentials is not None:
            self._count(OTHER_METHOD, "malformed")
        if credentials is not None or claim.is_ours:
            raise self._challenge(attempt.domain, offer.words, now, random)
        return Identity(claimed, "none" if claimed is None else "assertion")

    def recall(self, key: str, peer: str, now: float) -> None:
        """The account C{key} is known to have signed in from the address C{peer}, before a restart."""
        if self._throttle is not None:
            self._throttle.proved(key, peer, now)

    def unproven(
        self, call: Call, target: Target, farm: Farm, now: float, random: Callable[[int], bytes]
    ) -> Refusal:
        """The refusal of an anonymous call that might succeed with credentials (protocol notes 8.4)."""
        offer = self._offer(call, farm, target.domain)
        if not offer.required:
            return Forbidden("you may not do that here")
        return self._challenge(target.domain, offer.words, now, random)

    def _offer(self, call: Call, farm: Farm, domain: str) -> Offer:
        """What may be tried: what the domain offers, less what the caller's listener does not."""
        if self._logins.farm is not farm:
            self._begin_anew(farm, None)
        offer = self._offers.get((domain, call.withheld))
        if offer is None:
            offered = farm.policy("schemes", domain).split()
            words = tuple(word for word in offered if not call.withheld >> SIGN_IN_SCHEMES.index(word) & 1)
            offer = self._offers[domain, call.withheld] = Offer(
                farm.policy("authentication", domain) != "off",
                words,
                int(farm.policy("failed-logins", domain)),
                tuple(scheme for scheme in self._schemes if not set(words).isdisjoint(scheme.words)),
            )
        return offer

    def _begin_anew(self, farm: Farm, names: Names | None) -> None:
        """The farm is another: nothing that was worked out by it holds any longer."""
        self._logins, self._names = Logins(farm), names
        self._offers.clear()
        self._claims.clear()

    def _claim(self, call: Call, target: Target, farm: Farm, names: Names) -> _Claim:
        """What C{call} says of its sender, and what that means at C{target}.

        @raise BadRequest: nobody can be called that.
        """
        if self._logins.farm is not farm or self._names is not names:
            self._begin_anew(farm, names)
        said = call.headers.get(b"rvp-from-principal")
        known = self._claims.get((said, target.domain, call.withheld))
        if known is not None:
            return known
        claimed = _claim(call, names)
        local = None if claimed is None else names.domain_of(claimed.key.partition("/")[0])
        domain = local or target.domain
        claim = _Claim(claimed, domain, local is not None, self._offer(call, farm, domain))
        if said is None or len(said) <= CLAIM_LENGTH:
            if len(self._claims) >= KNOWN_LIMIT:
                self._claims.clear()
            self._claims[said, target.domain, call.withheld] = claim
        return claim

    def _prove(
        self, attempt: Attempt, scheme: Scheme, credentials: bytes | None
    ) -> Identity | Deferred[Identity]:
        """Let C{scheme} find the account, now or later."""
        try:
            found = scheme.prove(attempt, credentials)
        except (Unfit, BadRequest, DirectoryUnavailable) as problem:
            raise self._refusal(attempt, scheme, problem) from None
        if isinstance(found, Deferred):
            return self._prove_later(attempt, scheme, credentials, found)
        return self._proven(attempt, scheme, credentials, found)

    def _prove_later(
        self,
        attempt: Attempt,
        scheme: Scheme,
        credentials: bytes | None,
        found: Deferred[Account] | Deferred[Account | Proved],
    ) -> Deferred[Identity]:
        """The same, once the account is C{found}."""

        def failed(failure: Failure) -> Failure:
            if isinstance(failure.value, Unfit | BadRequest | DirectoryUnavailable):
                raise self._refusal(attempt, scheme, failure.value) from None
            return failure

        return found.addCallbacks(lambda found: self._proven(attempt, scheme, credentials, found), failed)

    def _proven(
        self, attempt: Attempt, scheme: Scheme, credentials: bytes | None, found: Account | Proved
    ) -> Identity:
        """The caller is who he proved to be, if he claims nothing else.

        @raise Forbidden: he does (invariant: authenticated user = C{RVP-From-Principal}).
        """
        account, headers = (found.account, found.headers) if isinstance(found, Proved) else (found, ())
        if self._throttle is not None and credentials is not None:
            self._throttle.proved(account.key, attempt.call.peer, attempt.now)
        if attempt.claimed is not None and attempt.claimed.key != account.key:
            raise Forbidden("you are not the principal that the call claims to be from")
        if headers:
            return Identity(Principal(account.key, account.url, False), scheme.proof, headers)
        known = self._identities.get(account.key)
        if known is None or known.proof != scheme.proof or known.account is not account:
            known = Known(
                account, scheme.proof, Identity(Principal(account.key, account.url, False), scheme.proof)
            )
            if len(self._identities) >= KNOWN_LIMIT:
                self._identities.clear()
            self._identities[account.key] = known
        return known.identity

    def _refusal(
        self, attempt: Attempt, scheme: Scheme, problem: Unfit | BadRequest | DirectoryUnavailable
    ) -> Refusal:
        """Count a failed attempt, and answer it."""
        if isinstance(problem, BadRequest):
            self._count(scheme.proof, "malformed")
            return problem
        if isinstance(problem, DirectoryUnavailable):
            self._count(scheme.proof, "directory")
            return Busy("who you are cannot be checked just now")
        if problem.cause:
            self._count(scheme.proof, problem.cause)
            self._judge(attempt, scheme, problem)
        if problem.lines is not None:
            headers = tuple((b"WWW-Authenticate", line) for line in problem.lines)
            return Unproven(headers=headers, close=problem.close)
        refusal = self._challenge(attempt.domain, attempt.words, attempt.now, attempt.random, problem.stale)
        refusal.close = problem.close
        return refusal

    def _judge(self, attempt: Attempt, scheme: Scheme, problem: Unfit) -> None:
        """A wrong guess counts against whoever made it; what no user can help is told the operator."""
        account, peer = problem.account, attempt.call.peer
        if problem.cause in GUESSES and self._throttle is not None:
            self._throttle.failed("" if account is None else account.key, peer, attempt.now)
        if problem.cause in NOTABLE and self._on_miss is not None:
            miss = Miss(scheme.proof, problem.cause, account, peer, problem.scope, attempt.now)
            self._on_miss(miss)

    def _challenge(
        self,
        domain: str,
        words: tuple[str, ...],
        now: float,
        random: Callable[[int], bytes],
        stale: bool = False,
    ) -> Unproven:
        """Every offered scheme on a line of its own (protocol notes 9.1), with a new nonce."""
        nonce = self._nonces.issue(now, random(8))
        return Unproven(
            headers=tuple(
                (b"WWW-Authenticate", self._by_word[word].challenge(word, domain, nonce, stale))
                for word in words
                if word in self._by_word
            )
        )

    def _count(self, method: str, cause: str) -> None:
        """Report a failed attempt."""
        if self._on_failure is not None:
            self._on_failure(method, cause)


def _claim(call: Call, names: Names) -> Principal | None:
    """Who the call says it is from.

    @raise BadRequest: nobody can be called that.
    """
    value = call.headers.get(b"rvp-from-principal")
    if value is None:
        return None
    try:
        return parse_principal(value.decode(), names)
    except UnicodeDecodeError:
        raise BadRequest("the principal is not a URL") from None


def _is_of(uri: str, attempt: Attempt) -> bool:
    """Does the C{uri} of Digest credentials name the node that the call is for, in whatever form?"""
    octets = uri.encode()
    if octets == attempt.call.target:
        return True
    try:
        named = parse_target(octets, attempt.target.domain.encode(), attempt.names)
    except Refusal:
        return False
    return named.key == attempt.target.key
