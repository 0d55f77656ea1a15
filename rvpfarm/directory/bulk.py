"""Many accounts put into the SQL directory in one transaction, as fast as the database takes them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import islice
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from rvpfarm.directory import tables
from rvpfarm.directory.model import Account, Verifier
from rvpfarm.directory.reading import (
    AuditRow,
    Reading,
    Sealer,
    StoreProblem,
    account_from,
    canonical,
    seal_context,
)
from rvpfarm.directory.writing import account_fields, tell, trim_changes

# parameters of one statement; SQLite takes 32,766 of them
_AT_ONCE = 5000


class Bulk(Reading):
    """Accounts that are put together: each leaves an audit row of its own, as if it had come alone.

    So the trail of one user says the same however he was enabled.  It holds the ledger's lock from the
    beginning, and writes when all is collected.
    """

    def __init__(
        self,
        connection: Connection,
        sealer: Sealer | None,
        *,
        actor: str,
        action: str,
        now: float,
        changes_kept: int,
    ) -> None:
        """
        @param actor: who makes the change.
        @param action: noun and verb, such as C{"user enable"}, of every one of them.
        @param changes_kept: how much of the feed of changes stays.
        """
        super().__init__(connection, sealer)
        self._actor, self._action, self._now = actor, action, now
        self._changes_kept = changes_kept
        self._ledger = connection.execute(select(tables.ledger).with_for_update()).one()
        self._new: list[dict[str, object]] = []
        self._changed: list[dict[str, object]] = []
        self._credentials: list[dict[str, object]] = []
        self._cleared: list[str] = []
        self._trail: list[AuditRow] = []
        self._links: list[dict[str, str]] = []
        self._keys: dict[str, None] = {}

    def accounts_among(self, keys: Collection[str], addresses: Collection[str]) -> list[Account]:
        """The accounts, without verifiers, that have one of these keys or, in lower case, IM addresses."""
        table = tables.accounts
        found: dict[str, Account] = {}
        for column, values in ((table.c.key, keys), (table.c.address_key, addresses)):
            for some in _slices(values):
                rows = self._connection.execute(select(table).where(column.in_(some)))
                found.update((row.id, account_from(row)) for row in rows)
        return list(found.values())

    def add(self, account: Account, verifiers: Sequence[Verifier] | None = None) -> None:
        """A new account.

        @param verifiers: how it proves itself; C{None} for not at all.
        @raise StoreProblem: there is no farm key to seal them with.
        """
        values = account_fields(account)
        extra: dict[str, object] = {"created": self._now, "changed": self._now}
        extra["address_key"] = account.address.lower()
        extra["password_set"] = None if verifiers is None else self._now
        self._new.append({**values, **extra})
        before: dict[str, object] = {}
        after: dict[str, object] = {"account": values}
        if verifiers is not None:
            before["schemes"] = ()
            after["schemes"] = self._seal(account, verifiers)
        self._leave(account, before, after)

    def put(self, old: Account, account: Account, verifiers: Sequence[Verifier] | None = None) -> None:
        """An account in its new form.

        @param old: as it is now; with the same id.
        @param verifiers: how it proves itself from now on; C{None} for as before.
        @raise StoreProblem: there is no farm key to seal them with.
        """
        values = account_fields(account)
        self._changed.append(
            {
                **{f"new_{name}": value for name, value in values.items()},
                "new_address_key": account.address.lower(),
                "new_changed": self._now,
            }
        )
        before: dict[str, object] = {"account": account_fields(old)}
        after: dict[str, object] = {"account": values}
        if verifiers is not None:
            before["schemes"] = self.schemes(account.id)
            after["schemes"] = self._seal(account, verifiers)
            self._cleared.append(account.id)
        self._keys[old.key] = None
        self._leave(account, before, after)

    def link(self, account: Account, policy: str, entry: str) -> None:
        """Tie an account to an entry elsewhere, by a policy of its own."""
        self._links.append({"account": account.id, "name": policy, "value": entry})

    def finish(self) -> None:
        """Write everything; nothing was written before."""
        if not self._trail:
            return
        run = self._connection.execute
        accounts, credentials = tables.accounts, tables.credentials
        if self._new:
            run(insert(accounts), self._new)
        if self._changed:
            run(_UPDATE, self._changed)
        for some in _slices(self._cleared):
            run(delete(credentials).where(credentials.c.account.in_(some)))
            run(update(accounts).where(accounts.c.id.in_(some)).values(password_set=self._now))
        if self._credentials:
            run(insert(credentials), self._credentials)
        if self._links:
            own = tables.account_policies
            for some in _slices(link["account"] for link in self._links):
                run(delete(own).where(own.c.account.in_(some), own.c.name == self._links[0]["name"]))
            run(insert(own), self._links)
        run(insert(tables.audit), [_columns(row) for row in self._trail])
        start = self._ledger.change_seq
        changes = [
            {"seq": start + place, "kind": "account", "key": key} for place, key in enumerate(self._keys, 1)
        ]
        run(insert(tables.changes), changes)
        end = start + len(changes)
        trim_changes(self._connection, end, self._changes_kept)
        tell(self._connection, end)
        last = self._trail[-1]
        run(update(tables.ledger).values(audit_seq=last.seq, audit_hash=last.hash, change_seq=end))

    def _seal(self, account: Account, verifiers: Sequence[Verifier]) -> list[str]:
        """Collect the verifiers of one account; returns their schemes for the trail."""
        if self._sealer is None:
            raise StoreProblem("a password cannot be kept without the farm key; give --key-file")
        for one in verifiers:
            sealed = self._sealer.seal(one.secret, seal_context(account.id, one.scheme, one.username))
            self._credentials.append(
                {
                    "account": account.id,
                    "scheme": one.scheme,
                    "username": one.username,
                    "realm": one.realm,
                    "sealed": sealed,
                }
            )
        return sorted({one.scheme for one in verifiers})

    def _leave(self, account: Account, before: dict[str, object], after: dict[str, object]) -> None:
        """Leave the trail of one account."""
        self._keys[account.key] = None
        seq, previous = self._ledger.audit_seq + 1, self._ledger.audit_hash
        if self._trail:
            seq, previous = self._trail[-1].seq + 1, self._trail[-1].hash
        row = AuditRow(
            seq,
            self._now,
            self._actor,
            self._action,
            account.address,
            canonical(before),
            canonical(after),
            previous,
            "",
        )
        self._trail.append(replace(row, hash=row.expected_hash()))


#: The new form of an account, whose columns are parameters called C{new_...}.
_UPDATE = (
    update(tables.accounts)
    .where(tables.accounts.c.id == bindparam("new_id"))
    .values(
        {
            name: bindparam(f"new_{name}")
            for name in (
                "kind",
                "domain",
                "path",
                "key",
                "alias",
                "display_name",
                "email",
                "address",
                "address_key",
                "home",
                "enabled",
                "owner",
                "changed",
            )
        }
    )
)


def _columns(row: AuditRow) -> dict[str, Any]:
    """A row of the trail by its columns."""
    return asdict(row)


def _slices(values: Iterable[str]) -> Iterator[list[str]]:
    """All of them, not too many at once."""
    rest = iter(values)
    while some := list(islice(rest, _AT_ONCE)):
        yield some
