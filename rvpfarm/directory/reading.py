"""What can be read of the SQL directory inside one transaction."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from sqlalchemy import Connection, Result, Row, Select, func, select

from rvpfarm.directory import tables
from rvpfarm.directory.model import (
    Account,
    DirectoryUnavailable,
    Domain,
    Farm,
    Home,
    Network,
    Router,
    Verifier,
    still_former,
)

# one look at the feed of changes returns at most so many
_CHANGES_AT_ONCE = 5000


class StoreProblem(DirectoryUnavailable):
    """The SQL directory cannot be used; the text is one sentence with the remedy in it.

    @ivar passing: another try may go well at once.
    """

    passing = False


class OutOfBounds(Exception):
    """A change goes beyond what whoever makes it may change; nothing of it happens."""


class Sealer(Protocol):
    """What keeps secrets at rest: C{rvpfarm.auth.keys.FarmKey}."""

    def seal(self, plain: str, context: str) -> bytes:
        """C{plain}, unreadable without the key and bound to C{context}."""

    def open(self, sealed: bytes, context: str) -> str:
        """What was sealed.

        @raise ValueError: with another key or for another context.
        """


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened after a position in the feed of changes.

    @ivar position: where to go on from.
    @ivar keys: the accounts that changed.
    @ivar farm: something farm-wide changed.
    @ivar gap: older changes are no longer known: everything may have changed.
    @ivar more: ask again at once.
    @ivar mark: see L{Reading.mark}; empty where there is none.
    """

    position: int
    keys: tuple[str, ...] = ()
    farm: bool = False
    gap: bool = False
    more: bool = False
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept to check a password by.

    @ivar schemes: of the verifiers that there are, as L{Verifier.scheme}.
    @ivar since: when the password was set; C{None} when there never was one, or that is not known.
    @ivar policies: settings of the account itself, which go before those of its domain.
    """

    schemes: tuple[str, ...] = ()
    since: float | None = None
    policies: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One change and who made it.

    @ivar before: JSON text of what was there.
    @ivar after: JSON text of what is there now.
    @ivar previous_hash: the L{hash} of the row before, empty for the first.
    """

    seq: int
    at: float
    actor: str
    action: str
    subject: str
    before: str
    after: str
    previous_hash: str
    hash: str

    def expected_hash(self) -> str:
        """The hash that an untouched row has: over the hash before it and the row as canonical JSON."""
        fields = {
            "seq": self.seq,
            "at": self.at,
            "actor": self.actor,
            "action": self.action,
            "subject": self.subject,
            "before": self.before,
            "after": self.after,
        }
        return hashlib.sha256((self.previous_hash + canonical(fields)).encode()).hexdigest()


def canonical(value: object) -> str:
    """The one JSON text of C{value}."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def seal_context(account_id: str, scheme: str, username: str) -> str:
    """What a sealed credential is bound to: moved to another account or name it cannot be opened."""
    return f"{account_id}\n{scheme}\n{username}"


#: What L{tables.ledger}C{.key_check} is bound to, and says.
KEY_CHECK = "rvpfarm farm key"


# A Row's columns are known to SQLAlchemy at run time only.
def account_from(row: Row[*tuple[Any, ...]], verifiers: tuple[Verifier, ...] = ()) -> Account:
    """The account in a row of L{tables.accounts}."""
    return Account(
        id=row.id,
        key=row.key,
        kind=row.kind,
        domain=row.domain,
        path=row.path,
        alias=row.alias,
        home=row.home,
        enabled=row.enabled,
        display_name=row.display_name,
        email=row.email,
        address=row.address,
        owner=row.owner,
        verifiers=verifiers,
    )


class Reading:
    """Reads within one transaction, so that everything read fits together."""

    def __init__(self, connection: Connection, sealer: Sealer | None) -> None:
        """
        @param sealer: opens credentials; without it accounts come without verifiers.
        """
        self._connection = connection
        self._sealer = sealer

    def farm(self) -> Farm:
        """Everything farm-wide."""
        rows, now = self._rows, time.time()
        policies = _grouped(rows(select(tables.policies)), "scope")
        aliases = _grouped(
            rows(select(tables.domain_aliases).order_by(tables.domain_aliases.c.name)), "domain"
        )
        mails = _grouped(rows(select(tables.mail_domains).order_by(tables.mail_domains.c.place)), "domain")
        domains = {
            row.name: Domain(
                row.name,
                tuple(mail.name for mail in mails.get(row.name, ())),
                tuple(alias.name for alias in aliases.get(row.name, ())),
                row.netbios,
                {policy.name: policy.value for policy in policies.get(row.name, ())},
            )
            for row in rows(select(tables.domains).order_by(tables.domains.c.name))
        }
        homes = {
            row.id: Home(
                row.id,
                row.name,
                row.host,
                row.port,
                row.link_port,
                row.address,
                row.state,
                row.metrics,
                still_former(row.former, now),
            )
            for row in rows(select(tables.homes).order_by(tables.homes.c.name))
        }
        routers = {
            row.id: Router(
                row.id,
                row.name,
                row.host,
                row.port,
                row.address,
                row.state,
                row.metrics,
                still_former(row.former, now),
            )
            for row in rows(select(tables.routers).order_by(tables.routers.c.name))
        }
        ranges = select(tables.networks).order_by(tables.networks.c.kind, tables.networks.c.first)
        networks = tuple(Network(row.kind, row.first, row.last) for row in rows(ranges))
        farm_wide = {policy.name: policy.value for policy in policies.get("", ())}
        generation = self._connection.execute(select(tables.ledger.c.farm_seq)).scalar_one()
        return Farm(domains, homes, routers, networks, farm_wide, generation)

    def account(self, key: str) -> Account | None:
        """The account of the node C{key}, with its verifiers."""
        return self._one_account(tables.accounts.c.key == key)

    def account_by_address(self, address: str) -> Account | None:
        """The account with that IM address, in whatever letter case, with its verifiers."""
        return self._one_account(tables.accounts.c.address_key == address.lower())

    def accounts(self, domain: str | None = None, home: str | None = None) -> Iterator[Account]:
        """Accounts by address, without verifiers: of one IM domain, on one home (by id), or all."""
        query = select(tables.accounts).order_by(tables.accounts.c.address_key)
        if domain is not None:
            query = query.where(tables.accounts.c.domain == domain)
        if home is not None:
            query = query.where(tables.accounts.c.home == home)
        for row in self._connection.execute(query):
            yield account_from(row)

    def schemes(self, account_id: str) -> tuple[str, ...]:
        """The schemes for which the account has verifiers."""
        column = tables.credentials.c.scheme
        query = select(column).where(tables.credentials.c.account == account_id).distinct().order_by(column)
        return tuple(self._connection.execute(query).scalars())

    def login_names(self, account_id: str, schemes: Collection[str]) -> frozenset[str]:
        """The login names with which the password of one account can be checked, by any of C{schemes}."""
        table = tables.credentials
        place = (table.c.account == account_id) & table.c.scheme.in_(schemes)
        return frozenset(self._connection.execute(select(table.c.username).where(place)).scalars())

    def kept(self, account_id: str) -> Kept:
        """What is kept to check the password of one account by."""
        return self.kept_by_account(tables.accounts.c.id == account_id).get(account_id, Kept())

    # A condition of SQLAlchemy's has no type of its own that says more.
    def kept_by_account(self, condition: Any = None) -> Mapping[str, Kept]:
        """What is kept to check the passwords of many accounts by, by their ids.

        @param condition: on L{tables.accounts}; left out, of all of them.
        """
        accounts, credentials, own = tables.accounts, tables.credentials, tables.account_policies
        chosen = select(accounts.c.id)
        if condition is not None:
            chosen = chosen.where(condition)
        since = select(accounts.c.id, accounts.c.password_set).where(accounts.c.id.in_(chosen))
        schemes = select(credentials.c.account, credentials.c.scheme).distinct()
        schemes = schemes.where(credentials.c.account.in_(chosen)).order_by(credentials.c.scheme)
        settings = select(own).where(own.c.account.in_(chosen)).order_by(own.c.name)
        by_scheme = _grouped(self._rows(schemes), "account")
        by_setting = _grouped(self._rows(settings), "account")
        return {
            row.id: Kept(
                tuple(one.scheme for one in by_scheme.get(row.id, ())),
                row.password_set,
                {one.name: one.value for one in by_setting.get(row.id, ())},
            )
            for row in self._rows(since)
        }

    def page(
        self, domain: str | None = None, home: str | None = None, *, after: str = "", limit: int = 100
    ) -> list[Account]:
        """Some of the users by address, without verifiers.

        @param home: only those on the home of this id.
        @param after: only those whose address comes after this one.
        @param limit: at most so many.
        """
        table = tables.accounts
        query = select(table).where(table.c.kind == "user").order_by(table.c.address_key).limit(limit)
        if domain is not None:
            query = query.where(table.c.domain == domain)
        if home is not None:
            query = query.where(table.c.home == home)
        if after:
            query = query.where(table.c.address_key > after.lower())
        return [account_from(row) for row in self._rows(query)]

    def addresses(self, prefix: str, limit: int) -> list[str]:
        """The addresses of users that begin with C{prefix}, in whatever letter case, at most C{limit}."""
        table = tables.accounts
        beginning = table.c.address_key.startswith(prefix.lower(), autoescape=True)
        query = select(table.c.address).where(beginning, table.c.kind == "user")
        return [row.address for row in self._rows(query.order_by(table.c.address_key).limit(limit))]

    def own_policy(self, account_id: str, name: str) -> str:
        """A setting of one account itself; empty when it has none of that name."""
        own = tables.account_policies
        query = select(own.c.value).where((own.c.account == account_id) & (own.c.name == name))
        return self._connection.execute(query).scalar_one_or_none() or ""

    def home_loads(self) -> Mapping[str, int]:
        """How many accounts each home has, by its id; only homes that take new ones."""
        query = (
            select(tables.homes.c.id, func.count(tables.accounts.c.id))
            .select_from(tables.homes.outerjoin(tables.accounts))
            .where(tables.homes.c.state == "active")
            .group_by(tables.homes.c.id)
        )
        return {row[0]: row[1] for row in self._rows(query)}

    def position(self) -> int:
        """The end of the feed of changes."""
        return int(self._connection.execute(select(tables.ledger.c.change_seq)).scalar_one())

    def changes_since(self, position: int) -> Changes:
        """What changed after C{position}, oldest first."""
        last = self.position()
        if last == position:
            return Changes(position)
        seq = tables.changes.c.seq
        query = select(tables.changes).where(seq > position).order_by(seq).limit(_CHANGES_AT_ONCE)
        rows = self._connection.execute(query).all()
        if last < position or not rows or rows[0].seq != position + 1:
            return Changes(last, farm=True, gap=True)
        keys = dict.fromkeys(row.key for row in rows if row.kind == "account")
        farm = any(row.kind == "farm" for row in rows)
        return Changes(rows[-1].seq, tuple(keys), farm, more=len(rows) == _CHANGES_AT_ONCE)

    def mark(self) -> str:
        """What tells later whether this is still the same directory: see L{follows}."""
        ledger = self._connection.execute(select(tables.ledger.c.audit_seq, tables.ledger.c.audit_hash)).one()
        return f"{ledger.audit_seq} {ledger.audit_hash}"

    def follows(self, mark: str) -> bool:
        """Was C{mark} once the L{mark} of this directory?

        If not, it is another one, such as an older copy that went ways of its own: positions in its feed
        of changes mean nothing here.
        """
        seq, _, known = mark.partition(" ")
        if seq == "0" or not seq.isdecimal():
            return seq == "0"
        query = select(tables.audit.c.hash).where(tables.audit.c.seq == int(seq))
        return self._connection.execute(query).scalar_one_or_none() == known

    def audit(
        self,
        subject: str | None = None,
        newest: int | None = None,
        *,
        actor: str | None = None,
        action: str | None = None,
        since: float | None = None,
    ) -> list[AuditRow]:
        """The audit trail, oldest first.

        @param subject: what was changed, such as an IM address.
        @param newest: at most so many, the newest ones.
        @param actor: only what this one did.
        @param action: only this, such as C{user enable}, or what begins with these words.
        @param since: only from then on, in seconds since 1970.
        """
        columns = tables.audit.c
        query = select(tables.audit).order_by(columns.seq.desc())
        if subject is not None:
            query = query.where(columns.subject == subject)
        if actor is not None:
            query = query.where(columns.actor == actor)
        if action is not None:
            begun = columns.action.startswith(f"{action} ", autoescape=True)
            query = query.where((columns.action == action) | begun)
        if since is not None:
            query = query.where(columns.at >= since)
        if newest is not None:
            query = query.limit(newest)
        return [AuditRow(*row) for row in self._rows(query)][::-1]

    def audit_break(self) -> int | None:
        """Where the audit trail was tampered with: the number of the first row that does not follow from
        the ones before it, or C{None} when all of it does.  A missing end counts as the row after the last.
        """
        ledger = self._connection.execute(select(tables.ledger)).one()
        previous, expected = "", 1
        for values in self._connection.execute(select(tables.audit).order_by(tables.audit.c.seq)):
            row = AuditRow(*values)
            if row.seq != expected or row.previous_hash != previous or row.hash != row.expected_hash():
                return expected
            previous, expected = row.hash, expected + 1
        return None if (ledger.audit_seq, ledger.audit_hash) == (expected - 1, previous) else expected

    def audit_head(self) -> tuple[int, str]:
        """The number and the hash of the newest audit row; 0 and nothing while there is none."""
        ledger = self._connection.execute(select(tables.ledger.c.audit_seq, tables.ledger.c.audit_hash)).one()
        return int(ledger.audit_seq), str(ledger.audit_hash)

    def has_audit_hash(self, value: str) -> bool:
        """Is there an audit row of this hash?"""
        query = select(tables.audit.c.seq).where(tables.audit.c.hash == value).limit(1)
        return self._connection.execute(query).first() is not None

    # A query of SQLAlchemy's has no type of its own that says more.
    def run(self, query: Any) -> Result[*tuple[Any, ...]]:
        """What the database answers to a statement about tables that this class knows nothing of."""
        return self._connection.execute(query)

    def _rows(self, query: Select[*tuple[Any, ...]]) -> list[Row[*tuple[Any, ...]]]:
        result = self._connection.execute(query)
        return list(result)

    # A condition of SQLAlchemy's has no type of its own that says more.
    def _one_account(self, condition: Any) -> Account | None:
        row = self._connection.execute(select(tables.accounts).where(condition)).one_or_none()
        return None if row is None else account_from(row, self._verifiers(row.id))

    def _verifiers(self, account_id: str) -> tuple[Verifier, ...]:
        if self._sealer is None:
            return ()
        table = tables.credentials
        query = select(table).where(table.c.account == account_id).order_by(table.c.scheme, table.c.username)
        verifiers = []
        for row in self._connection.execute(query):
            try:
                secret = self._sealer.open(row.sealed, seal_context(account_id, row.scheme, row.username))
            except ValueError:
                # not "wrong password": the farm has the wrong key, or somebody moved the row
                raise StoreProblem(
                    f"a credential of account {account_id} does not open with this farm key; "
                    "restore the key it was made with, or set the password again"
                ) from None
            verifiers.append(Verifier(row.scheme, row.username, row.realm, secret))
        return tuple(verifiers)


def _grouped(rows: list[Row[*tuple[Any, ...]]], column: str) -> dict[str, list[Row[*tuple[Any, ...]]]]:
    """The rows by the value of one column, in their order."""
    groups: dict[str, list[Row[*tuple[Any, ...]]]] = {}
    for row in rows:
        groups.setdefault(getattr(row, column), []).append(row)
    return groups
