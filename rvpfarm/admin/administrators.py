"""Who may administer the farm from elsewhere, as what, and the tokens that prove it (product F51).

Whoever has the directory and the farm key needs none of this.  A token is shown once, when it is made: the
directory keeps a salted hash of it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass

from rvpfarm.admin.actors import default_actor
from rvpfarm.admin.checks import (
    Missing,
    Refused,
    Taken,
    check_server_name,
    check_text,
    domain_named,
    enumerate_names,
)
from rvpfarm.directory.administrators import (
    FARM,
    USER,
    Administrator,
    Proof,
    Token,
    administrators,
    drop_administrator,
    drop_tokens,
    proof_of,
    put_administrator,
    put_token,
    token_hash,
)
from rvpfarm.directory.reading import Reading
from rvpfarm.directory.store import Store

#: What an administrator may be.
ROLES = (FARM, USER)

#: For how long a token is good when nobody says, and at most.
USUAL_DAYS, MOST_DAYS = 90, 3650

_DAY_SECONDS = 86400
_PREFIX = "rvp"
_ID_OCTETS, _SECRET_OCTETS, _SALT_OCTETS = 6, 32, 16
_TOKENS_LIMIT = 100


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token that was just made.

    @ivar text: the whole token, which nobody can show again.
    """

    administrator: str
    token: Token
    text: str


def add_administrator(
    store: Store, name: str, role: str = USER, domains: Iterable[str] = (), *, actor: str | None = None
) -> Administrator:
    """Let somebody administer the farm, or the users of some IM domains, from elsewhere.

    @param name: what the administrator is called in the audit trail.
    @param role: C{farm} for everything, C{user} for the users of some IM domains.
    @param domains: the IM domains of an administrator of users.
    @raise Refused: there is one of that name, or role and domains do not go together.
    """
    label = check_server_name(name)
    given = list(domains)
    if role not in ROLES:
        raise Refused(f'"{role}" is no role; give --role one of {", ".join(ROLES)}')
    if role == USER and not given:
        raise Refused("which users? Give --domain at least one IM domain, or --role farm for everything")
    if role == FARM and given:
        raise Refused("an administrator of the farm is limited to no IM domain; leave --domain out")
    with store.change(actor or default_actor(), "admin add", label) as writing:
        if any(one.name == label for one in administrators(writing)):
            raise Taken(f'there is an administrator "{label}" already; "rvpfarm admin list" shows them')
        known = writing.farm().domains
        names = tuple(dict.fromkeys(domain_named(known, one).name for one in given))
        made = Administrator(label, role, names)
        put_administrator(writing, made, time.time())
    return made


def remove_administrator(store: Store, name: str, *, actor: str | None = None) -> Administrator:
    """Let somebody administer no longer; all tokens of that administrator are worth nothing at once.

    @param name: what the administrator is called.
    @raise Refused: there is none of that name.
    """
    with store.change(actor or default_actor(), "admin remove", name) as writing:
        gone = _existing(writing, name)
        writing.subject = gone.name
        drop_administrator(writing, gone)
    return gone


def list_administrators(store: Store) -> list[Administrator]:
    """The administrators by name, each with the tokens that there are, without what proves."""
    with store.read() as reading:
        return administrators(reading)


def administrator_named(store: Store, name: str) -> Administrator:
    """One administrator, with the tokens that there are.

    @param name: what the administrator is called.
    @raise Refused: there is none of that name.
    """
    with store.read() as reading:
        return _existing(reading, name)


def create_token(
    store: Store, name: str, label: str = "", days: int = USUAL_DAYS, *, actor: str | None = None
) -> NewToken:
    """A token that proves an administrator; it is shown this once.

    @param name: what the administrator is called.
    @param label: what the token is for, in a word; left out, the token's number.
    @param days: for how long it is good.
    @raise Refused: there is no such administrator, or the token would be good for too long.
    """
    if not 0 < days <= MOST_DAYS:
        raise Refused(f"a token is good for 1 to {MOST_DAYS} days; give --days such a number")
    now = time.time()
    number, secret = secrets.token_hex(_ID_OCTETS), secrets.token_urlsafe(_SECRET_OCTETS)
    salt = secrets.token_hex(_SALT_OCTETS)
    word = check_server_name(label) if check_text(label, "label") else number
    token = Token(number, word, now, now + days * _DAY_SECONDS)
    with store.change(actor or default_actor(), "admin token create", name) as writing:
        owner = _existing(writing, name)
        writing.subject = owner.name
        if len(owner.tokens) >= _TOKENS_LIMIT:
            raise Taken(f"{owner.name} has {_TOKENS_LIMIT} tokens already; revoke those that nobody needs")
        put_token(writing, Proof(owner.name, token, salt, token_hash(salt, secret)))
    return NewToken(owner.name, token, f"{_PREFIX}_{number}_{secret}")


def revoke_token(store: Store, name: str, token: str, *, actor: str | None = None) -> Token:
    """A token that is worth nothing from now on.

    @param name: what the administrator is called.
    @param token: the number of the token, or its label.
    @raise Refused: there is no such administrator or token.
    """
    with store.change(actor or default_actor(), "admin token revoke", name) as writing:
        owner = _existing(writing, name)
        writing.subject = owner.name
        found = [one for one in owner.tokens if one.id == token]
        found = found or [one for one in owner.tokens if one.label == token]
        if not found:
            known = enumerate_names(one.id for one in owner.tokens)
            raise Missing(f'{owner.name} has no token "{token}"; give one of {known}', token)
        if len(found) > 1:
            raise Taken(f"several tokens are called {token}; give one of {enumerate_names(_ids(found))}")
        drop_tokens(writing, found)
    return found[0]


def find_by_token(store: Store, text: str, now: float) -> tuple[Administrator, Token] | None:
    """Whom a token proves at the time C{now}; C{None} for nobody.

    @param text: as L{create_token} made it, or whatever somebody sent.
    """
    prefix, _, rest = text.partition("_")
    number, _, secret = rest.partition("_")
    if prefix != _PREFIX or len(number) != 2 * _ID_OCTETS or not number.isalnum() or not text.isascii():
        return None
    with store.read() as reading:
        proof = proof_of(reading, number)
        if proof is None or not proof.fits(secret) or now >= proof.token.until:
            return None
        owner = next((one for one in administrators(reading) if one.name == proof.administrator), None)
        return None if owner is None else (owner, proof.token)


def _existing(reading: Reading, name: str) -> Administrator:
    """The administrator called C{name}.

    @raise Refused: there is none.
    """
    wanted = name.strip().lower()
    for one in administrators(reading):
        if one.name == wanted:
            return one
    raise Missing(f'there is no administrator "{name}"; "rvpfarm admin list" shows them', name)


def _ids(tokens: Iterable[Token]) -> Iterable[str]:
    """Their numbers."""
    return (one.id for one in tokens)
