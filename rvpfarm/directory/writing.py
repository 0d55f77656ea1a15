"""What can be changed in the SQL directory inside one transaction, and the trail that it leaves."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import asdict, replace
from typing import Any

from sqlalchemy import Connection, Table, delete, func, insert, select, update

from rvpfarm.directory import tables
from rvpfarm.directory.model import Account, Domain, Home, Network, Router, Verifier
from rvpfarm.directory.postgresql import CHANNEL
from rvpfarm.directory.reading import (
    KEY_CHECK,
    AuditRow,
    OutOfBounds,
    Reading,
    Sealer,
    StoreProblem,
    canonical,
    seal_context,
)

#: What the trail notes of changes to accounts alone.
_OF_ACCOUNTS = frozenset({"account", "schemes", "policy", "dropped", "acl", "sessions"})


class Writing(Reading):
    """One change by one actor: whatever it consists of, it becomes one audit row, or nothing at all.

    It holds the ledger's lock from the beginning, so what it reads stays true until it is done.

    @ivar subject: what is changed, such as an IM address; it may become known on the way.
    """

    def __init__(
        self,
        connection: Connection,
        sealer: Sealer | None,
        *,
        actor: str,
        action: str,
        subject: str,
        now: float,
        changes_kept: int,
    ) -> None:
        """
        @param actor: who makes the change.
        @param action: noun and verb, such as C{"user enable"}.
        @param subject: what is changed, such as an IM address.
        @param changes_kept: how much of the feed of changes stays.
        """
        super().__init__(connection, sealer)
        self._actor, self._action, self._now = actor, action, now
        self._changes_kept = changes_kept
        self.subject = subject
        self._ledger = connection.execute(select(tables.ledger).with_for_update()).one()
        self._before: dict[str, object] = {}
        self._after: dict[str, object] = {}
        self._keys: dict[str, None] = {}
        self._farm = False

    def note(self, what: str, before: object, after: object) -> None:
        """Put on the trail what this class does not know itself, such as what is changed at a running home.

        @param what: names it.
        @param before: what it was, and C{after} what it is; C{None} where there is none.  Never a secret.
        """
        if before is not None:
            self._before[what] = before
        if after is not None:
            self._after[what] = after

    def add_domain(self, domain: Domain) -> None:
        """A new IM domain with its mail domains and aliases; its policies are set by L{set_policy}."""
        values = {"name": domain.name, "netbios": domain.netbios, "created": self._now}
        self._connection.execute(insert(tables.domains).values(**values))
        self._add_names(domain)
        fields = asdict(domain)
        del fields["policies"]
        self._after["domain"] = fields
        self._farm = True

    def update_domain(self, domain: Domain) -> None:
        """An IM domain with other mail domains or aliases; nothing else about it can change here."""
        old = self.farm().domains[domain.name]
        if (old.mail_domains, old.aliases) == (domain.mail_domains, domain.aliases):
            return
        run = self._connection.execute
        for table in (tables.mail_domains, tables.domain_aliases):
            run(delete(table).where(table.c.domain == domain.name))
        self._add_names(domain)
        for side, one in ((self._before, old), (self._after, domain)):
            names = {"mail_domains": one.mail_domains, "aliases": one.aliases}
            side[f"domain {domain.name}"] = names
        self._farm = True

    def _add_names(self, domain: Domain) -> None:
        """The mail domains and aliases of an IM domain that has none yet."""
        run = self._connection.execute
        for place, mail in enumerate(domain.mail_domains):
            run(insert(tables.mail_domains).values(name=mail, domain=domain.name, place=place))
        for alias in domain.aliases:
            run(insert(tables.domain_aliases).values(name=alias, domain=domain.name))

    def add_home(self, home: Home) -> None:
        """A new home that takes accounts."""
        values = asdict(home)
        self._connection.execute(insert(tables.homes).values(**values, created=self._now))
        self._after["home"] = values
        self._farm = True

    def add_router(self, router: Router) -> None:
        """A new router."""
        values = asdict(router)
        self._connection.execute(insert(tables.routers).values(**values, created=self._now))
        self._after["router"] = values
        self._farm = True

    def update_home(self, home: Home) -> None:
        """A home in its new form; the one with the same id is replaced, its accounts stay."""
        self._replace("home", tables.homes, asdict(home))

    def update_router(self, router: Router) -> None:
        """A router in its new form; the one with the same id is replaced."""
        self._replace("router", tables.routers, asdict(router))

    def remove_router(self, router: Router) -> None:
        """A router that is there no longer."""
        table = tables.routers
        self._connection.execute(delete(table).where(table.c.id == router.id))
        self._before[f"router {router.name}"] = asdict(router)
        self._farm = True

    def _replace(self, noun: str, table: Table, values: dict[str, object]) -> None:
        """Another row for a server, if it differs from the one that is there."""
        place = table.c.id == values["id"]
        columns = [table.c[name] for name in values]
        old = dict(self._connection.execute(select(*columns).where(place)).one()._mapping)
        if old == values:
            return
        self._connection.execute(update(table).where(place).values(**values))
        name = f"{noun} {values['name']}"
        self._before[name], self._after[name] = old, values
        self._farm = True

    def set_policy(self, scope: str, name: str, value: str | None) -> None:
        """A setting of the IM domain C{scope} or, when that is empty, of the farm.

        @param value: C{None} takes the setting back.
        """
        table = tables.policies
        place = (table.c.scope == scope) & (table.c.name == name)
        old = self._connection.execute(select(table.c.value).where(place)).scalar_one_or_none()
        if old == value:
            return
        self._connection.execute(delete(table).where(place))
        if value is not None:
            self._connection.execute(insert(table).values(scope=scope, name=name, value=value))
        self._before["policy"] = {"scope": scope, "name": name, "value": old}
        self._after["policy"] = {"scope": scope, "name": name, "value": value}
        self._farm = True

    def add_network(self, network: Network) -> None:
        """A new range of addresses."""
        values = asdict(network)
        self._connection.execute(insert(tables.networks).values(**values))
        self._after["network"] = values
        self._farm = True

    def remove_network(self, network: Network) -> None:
        """A range of addresses that counts no longer."""
        table = tables.networks
        place = (
            (table.c.kind == network.kind) & (table.c.first == network.first) & (table.c.last == network.last)
        )
        self._connection.execute(delete(table).where(place))
        self._before["network"] = asdict(network)
        self._farm = True

    def set_networks(self, kind: str, networks: Collection[Network]) -> None:
        """Exactly these ranges count as C{kind} from now on.

        @param networks: all of that kind, none of them twice.
        """
        table = tables.networks
        place = table.c.kind == kind
        columns = (table.c.first, table.c.last)
        old = {(row.first, row.last) for row in self._rows(select(*columns).where(place))}
        new = {(network.first, network.last) for network in networks}
        if new == old:
            return
        self._connection.execute(delete(table).where(place))
        if new:
            rows = [{"kind": kind, "first": first, "last": last} for first, last in sorted(new)]
            self._connection.execute(insert(table), rows)
        self._before["networks"] = {"kind": kind, "ranges": sorted(old)}
        self._after["networks"] = {"kind": kind, "ranges": sorted(new)}
        self._farm = True

    def add_account(self, account: Account) -> None:
        """A new account; its verifiers are put by L{put_verifiers}."""
        values = account_fields(account)
        extra = {"address_key": account.address.lower(), "created": self._now, "changed": self._now}
        self._connection.execute(insert(tables.accounts).values(**values, **extra))
        self._after["account"] = values
        self._keys[account.key] = None

    def update_account(self, account: Account) -> None:
        """An account in its new form; the one with the same id is replaced, its verifiers stay."""
        table = tables.accounts
        old = self._one_account(table.c.id == account.id)
        values = account_fields(account)
        extra = {"address_key": account.address.lower(), "changed": self._now}
        self._connection.execute(update(table).where(table.c.id == account.id).values(**values, **extra))
        if old is not None:
            self._before["account"] = account_fields(old)
            self._keys[old.key] = None
        self._after["account"] = values
        self._keys[account.key] = None

    def remove_account(self, account: Account) -> None:
        """An account that is no more, with everything kept for it."""
        self._connection.execute(delete(tables.accounts).where(tables.accounts.c.id == account.id))
        self._before["account"] = account_fields(account)
        self._keys[account.key] = None

    def put_verifiers(self, account: Account, verifiers: Iterable[Verifier]) -> None:
        """How C{account} proves itself from now on; what it had before is gone.

        @raise StoreProblem: there is no farm key to seal them with.
        """
        if self._sealer is None:
            raise StoreProblem("a password cannot be kept without the farm key; give --key-file")
        table = tables.credentials
        self._before["schemes"] = self.schemes(account.id)
        self._connection.execute(delete(table).where(table.c.account == account.id))
        for one in verifiers:
            sealed = self._sealer.seal(one.secret, seal_context(account.id, one.scheme, one.username))
            self._connection.execute(
                insert(table).values(
                    account=account.id,
                    scheme=one.scheme,
                    username=one.username,
                    realm=one.realm,
                    sealed=sealed,
                )
            )
        table = tables.accounts
        self._connection.execute(update(table).where(table.c.id == account.id).values(password_set=self._now))
        self._after["schemes"] = self.schemes(account.id)
        self._keys[account.key] = None

    def set_account_policy(self, account: Account, name: str, value: str | None) -> None:
        """A setting of C{account} itself.

        @param value: C{None} takes the setting back.
        """
        table = tables.account_policies
        place = (table.c.account == account.id) & (table.c.name == name)
        old = self._connection.execute(select(table.c.value).where(place)).scalar_one_or_none()
        if old == value:
            return
        self._connection.execute(delete(table).where(place))
        if value is not None:
            self._connection.execute(insert(table).values(account=account.id, name=name, value=value))
        self._before["policy"] = {"name": name, "value": old}
        self._after["policy"] = {"name": name, "value": value}
        self._keys[account.key] = None

    def drop_verifiers(self, account: Account, schemes: Collection[str]) -> int:
        """C{account} can no longer prove itself by C{schemes}.

        @return: how many accounts lost verifiers: one or none.
        """
        return self._drop_verifiers(tables.accounts.c.id == account.id, schemes)

    def drop_verifiers_in(
        self, domains: Collection[str], schemes: Collection[str], policy: str, exempt: str
    ) -> int:
        """No account of C{domains} can prove itself by C{schemes} any longer.

        @param exempt: an account whose own setting C{policy} is this keeps what it has.
        @return: how many accounts lost verifiers.
        """
        own = tables.account_policies
        spared = select(own.c.account).where((own.c.name == policy) & (own.c.value == exempt))
        table = tables.accounts
        return self._drop_verifiers(table.c.domain.in_(domains) & table.c.id.not_in(spared), schemes)

    # A condition of SQLAlchemy's has no type of its own that says more.
    def _drop_verifiers(self, condition: Any, schemes: Collection[str]) -> int:
        """Drop those of the accounts that meet C{condition}."""
        accounts, credentials = tables.accounts, tables.credentials
        of_these = credentials.c.scheme.in_(schemes)
        holders = select(credentials.c.account).where(of_these)
        found = select(accounts.c.id, accounts.c.key).where(condition & accounts.c.id.in_(holders))
        losing = self._rows(found)
        if not losing:
            return 0
        chosen = select(accounts.c.id).where(condition)
        self._connection.execute(delete(credentials).where(of_these & credentials.c.account.in_(chosen)))
        self._after["dropped"] = {"schemes": sorted(schemes), "accounts": len(losing)}
        self._keys.update((row.key, None) for row in losing)
        return len(losing)

    def bind_key(self) -> None:
        """Remember which farm key seals the secrets here, so that another one is noticed at once."""
        if self._sealer is not None and self._ledger.key_check is None:
            sealed = self._sealer.seal(KEY_CHECK, KEY_CHECK)
            self._connection.execute(update(tables.ledger).values(key_check=sealed))
            self._after["key"] = "bound"

    def seal_check(self, mark: str) -> None:
        """Let the directory be known by the farm key that is used now.

        @param mark: tells it from others.
        """
        if self._sealer is not None:
            sealed = self._sealer.seal(KEY_CHECK, KEY_CHECK)
            self._connection.execute(update(tables.ledger).values(key_check=sealed))
            self._after["used"] = mark

    def check_within(self, domains: Collection[str]) -> None:
        """Only accounts of these IM domains have changed so far.

        @raise OutOfBounds: something else has.
        """
        others = {key.partition("/")[0] for key in self._keys} - set(domains)
        noted = self._before.keys() | self._after.keys()
        if self._farm or others or noted - _OF_ACCOUNTS:
            raise OutOfBounds("this change goes beyond the IM domains that you administer")

    def finish(self) -> None:
        """Leave the trail: the audit row and the feed of changes.  Without a change there is none."""
        if not (self._before or self._after):
            return
        ledger = self._ledger
        row = AuditRow(
            ledger.audit_seq + 1,
            self._now,
            self._actor,
            self._action,
            self.subject,
            canonical(self._before),
            canonical(self._after),
            ledger.audit_hash,
            "",
        )
        row = replace(row, hash=row.expected_hash())
        self._connection.execute(insert(tables.audit).values(**asdict(row)))
        change_seq = self._announce(ledger.change_seq)
        self._connection.execute(
            update(tables.ledger).values(
                audit_seq=row.seq,
                audit_hash=row.hash,
                change_seq=change_seq,
                farm_seq=change_seq if self._farm else ledger.farm_seq,
            )
        )

    def _announce(self, seq: int) -> int:
        """Add to the feed of changes after C{seq}; returns its new end."""
        news = [("account", key) for key in self._keys] + [("farm", "")] * self._farm
        rows = [{"seq": seq + place, "kind": kind, "key": key} for place, (kind, key) in enumerate(news, 1)]
        seq += len(rows)
        if rows:
            self._connection.execute(insert(tables.changes), rows)
            trim_changes(self._connection, seq, self._changes_kept)
            tell(self._connection, seq)
        return seq


def trim_changes(connection: Connection, end: int, kept: int) -> None:
    """Only the last C{kept} of the feed of changes stay.

    @param end: of the feed.
    """
    connection.execute(delete(tables.changes).where(tables.changes.c.seq <= end - kept))


def tell(connection: Connection, end: int) -> None:
    """Let who listens know, once this is committed, that the feed of changes ends at C{end}."""
    # SQLite has nobody who listens: there it is looked again and again
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_notify(CHANNEL, str(end))))


def account_fields(account: Account) -> dict[str, object]:
    """The account as columns; never its verifiers."""
    fields: dict[str, object] = asdict(account)
    del fields["verifiers"]
    return fields
