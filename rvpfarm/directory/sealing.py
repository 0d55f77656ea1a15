"""What of the directory is sealed with which farm key, and sealing it with another one."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, bindparam, func, select, update

from rvpfarm.directory import tables
from rvpfarm.directory.reading import Sealer, StoreProblem, seal_context

# so many accounts are one step
_ACCOUNTS = 200

# as many octets at the beginning as tell the keys apart
_PREFIX_OCTETS = 5

_SEAL = (
    update(tables.credentials)
    .where(
        tables.credentials.c.account == bindparam("of_account"),
        tables.credentials.c.scheme == bindparam("of_scheme"),
        tables.credentials.c.username == bindparam("of_username"),
        tables.credentials.c.realm == bindparam("of_realm"),
    )
    .values(sealed=bindparam("anew"))
)


def count_sealed(connection: Connection) -> Mapping[bytes, int]:
    """How many credentials there are, by the octets that what is sealed begins with."""
    prefix = func.substr(tables.credentials.c.sealed, 1, _PREFIX_OCTETS)
    counts: dict[bytes, int] = {}
    for begins, count in connection.execute(select(prefix, func.count()).group_by(prefix)):
        counts[bytes(begins)] = count
    return counts


def check_prefix(connection: Connection) -> bytes:
    """What the check of the farm key begins with; empty if there is none."""
    check = connection.execute(select(tables.ledger.c.key_check)).scalar_one()
    return b"" if check is None else bytes(check[:_PREFIX_OCTETS])


def seal_anew(connection: Connection, sealer: Sealer, prefix: bytes, after: str) -> tuple[int, str | None]:
    """Seal the credentials of some accounts with the key that is used now.

    @param prefix: what it begins with if that was done already.
    @param after: the id of the account to go on after.
    @return: how many were sealed anew, and where to go on; C{None} at the end.
    @raise StoreProblem: one does not open.
    """
    table = tables.credentials
    ids = select(table.c.account).where(table.c.account > after).distinct()
    accounts = list(connection.execute(ids.order_by(table.c.account).limit(_ACCOUNTS)).scalars())
    if not accounts:
        return 0, None
    anew = []
    for row in connection.execute(select(table).where(table.c.account.in_(accounts))):
        if row.sealed[: len(prefix)] == prefix:
            continue
        context = seal_context(row.account, row.scheme, row.username)
        try:
            plain = sealer.open(row.sealed, context)
        except ValueError:
            raise StoreProblem(
                f"a credential of account {row.account} does not open with any farm key of the key file; "
                "add the key it was made with, or set the password again"
            ) from None
        anew.append(
            {
                "of_account": row.account,
                "of_scheme": row.scheme,
                "of_username": row.username,
                "of_realm": row.realm,
                "anew": sealer.seal(plain, context),
            }
        )
    if anew:
        connection.execute(_SEAL, anew)
    return len(anew), accounts[-1]
