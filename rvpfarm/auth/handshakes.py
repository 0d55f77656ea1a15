"""The schemes that authenticate connections and not calls: NTLM and Negotiate (protocol notes 9.3, 9.5)."""

from __future__ import annotations

from base64 import b64encode
from binascii import Error, a2b_base64
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias

from twisted.internet.defer import Deferred

from rvpfarm.auth.challenge import Attempt, Proved, Unfit
from rvpfarm.auth.connections import Connection, Connections, Step
from rvpfarm.auth.logins import NT
from rvpfarm.auth.lookup import look_up
from rvpfarm.auth.negotiate import (
    KERBEROS,
    KERBEROS_OF_WINDOWS,
    NTLM,
    BadTicket,
    Bare,
    Negotiation,
    Offer,
    Response,
    Session,
    Tampered,
    Ticket,
    choose,
    parse_token,
)
from rvpfarm.auth.ntlm import (
    NOBODY,
    SIGNATURE,
    Answer,
    Handshake,
    is_intact,
    issue,
    judge,
    message_type,
    parse_answer,
)
from rvpfarm.directory.model import Account
from rvpfarm.protocol.calls import BadRequest, Call

if TYPE_CHECKING:
    from twisted.python.failure import Failure

#: Failures on one connection that are let pass; the next one closes it.
FAILURES_LIMIT = 2

Found: TypeAlias = Account | Proved

#: What to do when an account has proved itself: told the account, the session, and the last token of the
#: mechanism for the client.
_Conclude: TypeAlias = Callable[[Account, Session, bytes], Found]


class Tickets(Protocol):
    """What accepts Kerberos tickets; L{rvpfarm.auth.kerberos.Keytab} is one."""

    def accept(self, token: bytes) -> Deferred[Ticket]:
        """Accept a token of Kerberos, without holding up the loop.

        It fails with L{BadTicket}, and with L{Busy <rvpfarm.protocol.calls.Busy>} when there is too much to
        do.
        """


class Ntlm:
    """NTLM, three calls on one connection; see L{rvpfarm.auth.challenge.Scheme}."""

    proof = "ntlm"
    token = b"ntlm"
    words: tuple[str, ...] = ("ntlm",)

    #: What it is called in headers, in the only letter case that old clients know.
    _name = b"NTLM"
    #: What is answered when it fails; C{None} for all that is offered.
    _failed_lines: tuple[bytes, ...] | None = (b"NTLM",)

    def __init__(self, connections: Connections) -> None:
        """
        @param connections: shared by the schemes that authenticate connections.
        """
        self._connections = connections

    def challenge(self, word: str, realm: str, nonce: str, stale: bool) -> bytes:
        """The bare name: some clients understand no other line."""
        return self._name

    def holds(self, connection: str) -> bool:
        """Has the connection been proved by this scheme?"""
        held = self._connections.held(connection)
        return held is not None and held.scheme is self

    def prove(self, attempt: Attempt, credentials: bytes | None) -> Found | Deferred[Found]:
        """The account that the connection is proved to be of; see L{rvpfarm.auth.challenge.Scheme.prove}."""
        if credentials is None:
            return self._recall(attempt)
        try:
            data = a2b_base64(credentials.strip().partition(b" ")[2].strip(), strict_mode=True)
        except Error:
            raise BadRequest("the credentials are not base 64") from None
        if not _lasts(attempt.call):
            raise Unfit("unsupported", lines=self._failed_lines)
        connection, step = self._connections.begin(attempt.call.connection, attempt.now)
        return self._take(attempt, connection, step, data)

    def _recall(self, attempt: Attempt) -> Found | Deferred[Found]:
        """Who the connection was proved to be, if he still is."""
        name = attempt.call.connection
        proved = self._connections.use(name, attempt.now)
        if proved is None:
            raise Unfit("")
        if attempt.directory.peek(proved.key) is proved:
            return proved
        return _look_up(attempt, proved.key, lambda account: self._still(name, proved, account))

    def _still(self, name: str, proved: Account, account: Account | None) -> Found:
        """The account as the directory has it now, if it is the one that was proved, with its password."""
        same = account is not None and account.id == proved.id and _secret(account) == _secret(proved)
        if account is not None and same and account.enabled:
            return account
        self._connections.forget(name)
        if account is not None and not account.enabled:
            raise Unfit("disabled", account=account)
        raise Unfit("")

    # the steps of a handshake

    def _take(
        self, attempt: Attempt, connection: Connection, step: Step | None, data: bytes
    ) -> Found | Deferred[Found]:
        """A message of NTLM as it is: a type 1, which always begins anew, or a type 3."""
        if message_type(data) == 1:
            handshake = self._greet(attempt, data)
            self._expect(attempt, connection, Step(attempt.now, handshake))
            raise self._more(handshake.challenge)
        turn = connection.turn

        def conclude(account: Account, session: Session, reply: bytes) -> Found:
            self._connections.bind(attempt.call.connection, connection, turn, self, account)
            return account

        issued = None if step is None or step.negotiation is not None else step.handshake
        return self._answered(attempt, connection, issued, data, conclude)

    def _greet(self, attempt: Attempt, greeting: bytes) -> Handshake:
        """Challenge the sender of a type 1."""
        domain = attempt.logins.farm.domains.get(attempt.domain)
        netbios = "" if domain is None else domain.netbios
        target = netbios or attempt.domain.partition(".")[0].upper()
        return issue(greeting, attempt.random(8), target=target, dns_name=attempt.domain, now=attempt.now)

    def _answered(
        self,
        attempt: Attempt,
        connection: Connection,
        issued: Handshake | None,
        data: bytes,
        conclude: _Conclude,
    ) -> Found | Deferred[Found]:
        """Judge a type 3, against the challenge that was issued on its own connection."""
        answer = parse_answer(data)
        if issued is None:
            raise self._failure(attempt, connection, "no-challenge")

        def decide(account: Account | None) -> Found:
            found, session = self._compare(attempt, connection, issued, answer, account)
            return conclude(found, session, b"")

        return _look_up(attempt, _key_of(attempt, answer), decide)

    def _compare(
        self,
        attempt: Attempt,
        connection: Connection,
        issued: Handshake,
        answer: Answer,
        account: Account | None,
    ) -> tuple[Account, Session]:
        """Compare first, whoever it is, and only then look at what else is wrong."""
        scope = attempt.held(account)
        secret = "" if account is None or scope else _secret(account)
        session = judge(issued, answer, bytes.fromhex(secret) if secret else NOBODY)
        if scope:
            raise self._failure(attempt, connection, "throttled", account, scope)
        if account is None:
            raise self._failure(attempt, connection, "unknown-user")
        if not secret:
            raise self._failure(attempt, connection, "no-verifier", account)
        if session is None:
            raise self._failure(attempt, connection, "wrong-password", account)
        if not is_intact(issued, answer, session):
            raise self._failure(attempt, connection, "tampered", account)
        if not account.enabled:
            raise self._failure(attempt, connection, "disabled", account)
        return account, session

    def _expect(self, attempt: Attempt, connection: Connection, step: Step | None) -> None:
        """The connection is to go on with C{step}, and has proved nothing."""
        self._connections.expect(attempt.call.connection, connection, step)

    def _more(self, token: bytes) -> Unfit:
        """The next step: the only challenge of its answer."""
        return Unfit("", lines=(self._line(token),))

    def _line(self, token: bytes) -> bytes:
        """The header value that carries C{token}."""
        return self._name + b" " + b64encode(token)

    def _failure(
        self,
        attempt: Attempt,
        connection: Connection,
        cause: str,
        account: Account | None = None,
        scope: str = "",
    ) -> Unfit:
        """A handshake that came to nothing; one may not try for ever on one connection."""
        connection.failures += 1
        close = connection.failures > FAILURES_LIMIT
        self._expect(attempt, connection, None)
        if close:
            self._connections.forget(attempt.call.connection)
        return Unfit(cause, lines=self._failed_lines, close=close, account=account, scope=scope)


class Negotiate(Ntlm):
    """Negotiate (RFC 4559): NTLM or, with a keytab, Kerberos, each as it is or wrapped in SPNEGO.

    Its last token goes out with the answer to the call, by which the farm proves itself.
    """

    token = b"negotiate"
    words: tuple[str, ...] = ("negotiate",)

    _name = b"Negotiate"
    _failed_lines = None  # who fails here may have other ways

    def __init__(self, connections: Connections, tickets: Tickets | None = None) -> None:
        """
        @param tickets: accepts those of Kerberos, where that is configured.
        """
        super().__init__(connections)
        self._tickets = tickets
        self._have = frozenset((NTLM,) if tickets is None else (NTLM, KERBEROS, KERBEROS_OF_WINDOWS))

    def _take(
        self, attempt: Attempt, connection: Connection, step: Step | None, data: bytes
    ) -> Found | Deferred[Found]:
        """One token, of whatever kind."""
        if data.startswith(SIGNATURE):
            return super()._take(attempt, connection, step, data)
        token = parse_token(data)
        if isinstance(token, Bare):
            return self._accept(attempt, connection, token.token, self._unwrapped(attempt, connection))
        if isinstance(token, Offer):
            return self._choose(attempt, connection, token)
        if step is None or step.negotiation is None:
            raise self._failure(attempt, connection, "no-challenge")
        if step.account is not None:
            return self._confirm(attempt, connection, step, step.account, token)
        return self._go_on(attempt, connection, step.negotiation, step.handshake, token)

    def _choose(self, attempt: Attempt, connection: Connection, offer: Offer) -> Found | Deferred[Found]:
        """Begin with the first mechanism of the client's that we have."""
        negotiation = choose(offer, self._have)
        if negotiation is None:
            raise self._failure(attempt, connection, "unsupported")
        if negotiation.favourite and offer.token:
            return self._go_on(attempt, connection, negotiation, None, Response(offer.token))
        self._expect(attempt, connection, Step(attempt.now, negotiation=negotiation))
        raise self._more(negotiation.ask())

    def _go_on(
        self,
        attempt: Attempt,
        connection: Connection,
        negotiation: Negotiation,
        issued: Handshake | None,
        token: Response,
    ) -> Found | Deferred[Found]:
        """Let the chosen mechanism have its token."""
        conclude = self._wrapped(attempt, connection, negotiation, token.mic)
        if negotiation.mechanism != NTLM:
            return self._accept(attempt, connection, token.token, conclude)
        if message_type(token.token) == 1:
            handshake = self._greet(attempt, token.token)
            self._expect(attempt, connection, Step(attempt.now, handshake, negotiation))
            raise self._more(negotiation.ask(handshake.challenge))
        return self._answered(attempt, connection, issued, token.token, conclude)

    def _wrapped(
        self, attempt: Attempt, connection: Connection, negotiation: Negotiation, mic: bytes
    ) -> _Conclude:
        """What concludes a mechanism that is wrapped in SPNEGO."""
        turn = connection.turn

        def conclude(account: Account, session: Session, reply: bytes) -> Found:
            try:
                token, over = negotiation.conclude(session, mic, reply)
            except Tampered:
                raise self._failure(attempt, connection, "tampered", account) from None
            if not over:
                step = Step(attempt.now, negotiation=negotiation, session=session, account=account)
                self._expect(attempt, connection, step)
                raise self._more(token)
            return self._bind(attempt, connection, turn, account, token)

        return conclude

    def _unwrapped(self, attempt: Attempt, connection: Connection) -> _Conclude:
        """What concludes Kerberos that is not wrapped."""
        turn = connection.turn
        return lambda account, session, reply: self._bind(attempt, connection, turn, account, reply)

    def _confirm(
        self, attempt: Attempt, connection: Connection, step: Step, account: Account, token: Response
    ) -> Found:
        """The client's code over the list of mechanisms, after the mechanism was done."""
        assert step.negotiation is not None
        assert step.session is not None
        try:
            answer = step.negotiation.confirm(step.session, token.mic)
        except Tampered:
            raise self._failure(attempt, connection, "tampered", account) from None
        return self._bind(attempt, connection, connection.turn, account, answer)

    def _bind(
        self, attempt: Attempt, connection: Connection, turn: int, account: Account, token: bytes
    ) -> Found:
        """The connection is C{account}'s; C{token} is the last that the client gets."""
        self._connections.bind(attempt.call.connection, connection, turn, self, account)
        if not token:
            return account
        return Proved(account, ((b"WWW-Authenticate", self._line(token)),))

    def _accept(
        self, attempt: Attempt, connection: Connection, token: bytes, conclude: _Conclude
    ) -> Deferred[Found]:
        """Let Kerberos judge its token."""
        if self._tickets is None:
            raise self._failure(attempt, connection, "unsupported")

        def found(ticket: Ticket) -> Found | Deferred[Found]:
            def decide(account: Account | None) -> Found:
                if account is None:
                    raise self._failure(attempt, connection, "no-account")
                if not account.enabled:
                    raise self._failure(attempt, connection, "disabled", account)
                return conclude(account, ticket, ticket.reply)

            return look_up(attempt, _key_of_ticket(attempt, ticket.principal), decide)

        def failed(failure: Failure) -> Failure:
            if failure.check(BadTicket):
                raise self._failure(attempt, connection, "bad-ticket")
            return failure

        return self._tickets.accept(token).addCallbacks(found, failed)


def _lasts(call: Call) -> bool:
    """Can the connection of C{call} carry a handshake: does it have a name, and may it stay open?"""
    options = [option.strip() for option in call.headers.get(b"connection", b"").lower().split(b",")]
    return bool(call.connection) and (call.minor > 0 or b"keep-alive" in options)


def _look_up(
    attempt: Attempt, key: str | None, decide: Callable[[Account | None], Found]
) -> Found | Deferred[Found]:
    """Have C{decide} told the account C{key}, now if it is remembered; nobody when there is none."""
    account = False if key is None else attempt.directory.peek(key)
    if account is None and key is not None:
        return attempt.directory.find(key).addCallback(decide)
    return decide(account if isinstance(account, Account) else None)


def _key_of(attempt: Attempt, answer: Answer) -> str | None:
    """The key of whoever answers: a domain counts only if it is one that is served here."""
    user, realm = answer.user, attempt.domain
    _, backslash, name = user.partition("\\")
    if backslash:
        return attempt.logins.key(user, realm) or attempt.logins.key(name, realm)
    if "@" in user or not answer.domain:
        return attempt.logins.key(user, realm)
    return attempt.logins.key(f"{answer.domain}\\{user}", realm) or attempt.logins.key(user, realm)


def _key_of_ticket(attempt: Attempt, principal: str) -> str | None:
    """The key of the account of a Kerberos principal: its realm must be a domain that is served here."""
    user, _, realm = principal.rpartition("@")
    if not user or not realm or any(mark in user for mark in "/\\@"):
        return None  # a service, or something that would be mistaken for another form of login name
    return attempt.logins.key(f"{user}@{realm}", "")


def _secret(account: Account) -> str:
    """The NT hash of the account's password, in hexadecimals; empty if none is kept."""
    for verifier in account.verifiers:
        if verifier.scheme == NT:
            return verifier.secret
    return ""
