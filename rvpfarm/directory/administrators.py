"""Who may administer the farm, as what, and by which tokens they prove it; inside one transaction."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import delete, insert, select

from rvpfarm.directory import tables
from rvpfarm.directory.reading import Reading
from rvpfarm.directory.writing import Writing

#: What an administrator may be: of everything, or of the users of some IM domains (product F51).
FARM, USER = "farm", "user"


@dataclass(frozen=True, slots=True)
class Token:
    """A token as far as it is known: never what proves.

    @ivar id: the part of it that is no secret.
    @ivar label: what it is for, in a word.
    @ivar created: seconds since 1970, as C{until}.
    """

    id: str
    label: str
    created: float
    until: float


@dataclass(frozen=True, slots=True)
class Administrator:
    """One administrator.

    @ivar role: L{FARM} or L{USER}.
    @ivar domains: the IM domains whose users an administrator of users administers.
    """

    name: str
    role: str
    domains: tuple[str, ...] = ()
    tokens: tuple[Token, ...] = ()


@dataclass(frozen=True, slots=True)
class Proof:
    """What a secret is compared with.

    @ivar hash: hexadecimal text, as L{token_hash} makes it of C{salt} and the secret.
    """

    administrator: str
    token: Token
    salt: str
    hash: str

    def fits(self, secret: str) -> bool:
        """Is this the secret that the token was made with?"""
        return hmac.compare_digest(self.hash, token_hash(self.salt, secret))


def token_hash(salt: str, secret: str) -> str:
    """What is kept of a token: its secret is as random as the hash is long, so that a fast hash will do."""
    return hashlib.sha256(f"{salt}:{secret}".encode()).hexdigest()


def administrators(reading: Reading) -> list[Administrator]:
    """All of them by name."""
    names, domains, tokens = (
        tables.administrators,
        tables.administrator_domains,
        tables.administrator_tokens,
    )
    allowed: dict[str, list[str]] = {}
    for row in reading.run(select(domains).order_by(domains.c.domain)):
        allowed.setdefault(row.administrator, []).append(row.domain)
    proofs: dict[str, list[Token]] = {}
    for row in reading.run(select(tokens).order_by(tokens.c.created, tokens.c.id)):
        proofs.setdefault(row.administrator, []).append(Token(row.id, row.label, row.created, row.until))
    return [
        Administrator(row.name, row.role, tuple(allowed.get(row.name, ())), tuple(proofs.get(row.name, ())))
        for row in reading.run(select(names).order_by(names.c.name))
    ]


def proof_of(reading: Reading, token_id: str) -> Proof | None:
    """What the token C{token_id} is checked by; C{None} when there is none."""
    table = tables.administrator_tokens
    row = reading.run(select(table).where(table.c.id == token_id)).one_or_none()
    if row is None:
        return None
    return Proof(row.administrator, Token(row.id, row.label, row.created, row.until), row.salt, row.hash)


def put_administrator(writing: Writing, administrator: Administrator, now: float) -> None:
    """A new administrator, without tokens."""
    name = administrator.name
    writing.run(insert(tables.administrators).values(name=name, role=administrator.role, created=now))
    for domain in administrator.domains:
        writing.run(insert(tables.administrator_domains).values(administrator=name, domain=domain))
    writing.note("administrator", None, _shown(administrator))


def drop_administrator(writing: Writing, administrator: Administrator) -> None:
    """An administrator who is one no longer; the tokens are worth nothing from now on."""
    name = administrator.name
    for table in (tables.administrator_tokens, tables.administrator_domains):
        writing.run(delete(table).where(table.c.administrator == name))
    writing.run(delete(tables.administrators).where(tables.administrators.c.name == name))
    writing.note("administrator", _shown(administrator), None)


def put_token(writing: Writing, proof: Proof) -> None:
    """A new token."""
    values = {"administrator": proof.administrator, "salt": proof.salt, "hash": proof.hash}
    writing.run(insert(tables.administrator_tokens).values(**values, **asdict(proof.token)))
    writing.note("token", None, asdict(proof.token))


def drop_tokens(writing: Writing, tokens: Sequence[Token]) -> None:
    """Tokens that are worth nothing from now on."""
    table = tables.administrator_tokens
    for token in tokens:
        writing.run(delete(table).where(table.c.id == token.id))
        writing.note(f"token {token.id}", asdict(token), None)


def _shown(administrator: Administrator) -> dict[str, object]:
    """The administrator for the trail."""
    fields: dict[str, object] = asdict(administrator)
    return fields
