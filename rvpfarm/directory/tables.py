"""The tables of the SQL directory, the same on SQLite and PostgreSQL.

The migrations make them; a test keeps the two in step.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

#: One row.  A writer locks it first, so that changes and audit rows have one order everywhere.
#: C{farm_seq} is the last change of anything farm-wide; C{key_check} is sealed with the farm key;
#: C{host_id}, C{host_boot} and C{host_name} are of the machine that a directory in a file belongs to.
ledger = Table(
    "ledger",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1", name="one"), primary_key=True, autoincrement=False),
    Column("change_seq", BigInteger, nullable=False),
    Column("farm_seq", BigInteger, nullable=False),
    Column("audit_seq", BigInteger, nullable=False),
    Column("audit_hash", String, nullable=False),
    Column("key_check", LargeBinary),
    Column("host_id", String, nullable=False, server_default=""),
    Column("host_boot", String, nullable=False, server_default=""),
    Column("host_name", String, nullable=False, server_default=""),
)

#: IM domains; C{policies} have their settings.
domains = Table(
    "domains",
    metadata,
    Column("name", String, primary_key=True),
    Column("netbios", String, nullable=False),
    Column("created", Double, nullable=False),
)

#: Further host names that mean an IM domain.
domain_aliases = Table(
    "domain_aliases",
    metadata,
    Column("name", String, primary_key=True),
    Column("domain", String, ForeignKey("domains.name"), nullable=False, index=True),
)

#: Which IM domain serves a mail domain; C{place} orders those of one IM domain, the primary one first.
mail_domains = Table(
    "mail_domains",
    metadata,
    Column("name", String, primary_key=True),
    Column("domain", String, ForeignKey("domains.name"), nullable=False, index=True),
    Column("place", Integer, nullable=False),
)

#: Home servers; C{state} is C{active} or C{draining}, C{metrics} where metrics and status are shown,
#: C{former} the hosts that it had before, with their ends.
homes = Table(
    "homes",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False, unique=True),
    Column("host", String, nullable=False),
    Column("port", Integer, nullable=False),
    Column("link_port", Integer, nullable=False),
    Column("address", String, nullable=False),
    Column("state", String, nullable=False),
    Column("created", Double, nullable=False),
    Column("metrics", String, nullable=False, server_default=""),
    Column("former", String, nullable=False, server_default=""),
)

#: Routers; C{state}, C{metrics} and C{former} as of homes.
routers = Table(
    "routers",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False, unique=True),
    Column("host", String, nullable=False),
    Column("port", Integer, nullable=False),
    Column("address", String, nullable=False),
    Column("created", Double, nullable=False),
    Column("state", String, nullable=False, server_default="active"),
    Column("metrics", String, nullable=False, server_default=""),
    Column("former", String, nullable=False, server_default=""),
)

#: Users, groups and devices.  C{key} and C{address_key} are lower case, the others as they are emitted;
#: C{password_set} is when the password was last set, if that is known; C{owner} is the key of the user who
#: owns a group or a device.
accounts = Table(
    "accounts",
    metadata,
    Column("id", String, primary_key=True),
    Column("kind", String, nullable=False),
    Column("domain", String, ForeignKey("domains.name"), nullable=False, index=True),
    Column("path", String, nullable=False),
    Column("key", String, nullable=False, unique=True),
    Column("alias", String, nullable=False),
    Column("display_name", String, nullable=False),
    Column("email", String, nullable=False),
    Column("address", String, nullable=False),
    Column("address_key", String, nullable=False, unique=True),
    Column("home", String, ForeignKey("homes.id"), nullable=False, index=True),
    Column("enabled", Boolean, nullable=False),
    Column("created", Double, nullable=False),
    Column("changed", Double, nullable=False),
    Column("password_set", Double),
    Column("owner", String, nullable=False, server_default=""),
)

#: Settings of single accounts, which go before those of their domain.
account_policies = Table(
    "account_policies",
    metadata,
    Column("account", String, ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True),
    Column("name", String, primary_key=True),
    Column("value", String, nullable=False),
)

#: How credentials are checked; C{sealed} with the farm key, never a password.
credentials = Table(
    "credentials",
    metadata,
    Column("account", String, ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True),
    Column("scheme", String, primary_key=True),
    Column("username", String, primary_key=True),
    Column("realm", String, primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
)

#: Settings; C{scope} is empty for the whole farm, else an IM domain.
policies = Table(
    "policies",
    metadata,
    Column("scope", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("value", String, nullable=False),
)

#: Ranges of addresses that count as something.
networks = Table(
    "networks",
    metadata,
    Column("kind", String, primary_key=True),
    Column("first", String, primary_key=True),
    Column("last", String, primary_key=True),
)

#: Who changed what.  Each row's C{hash} covers the row and the hash before it; C{before} and C{after} are
#: JSON text as it was hashed.
audit = Table(
    "audit",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Double, nullable=False),
    Column("actor", String, nullable=False),
    Column("action", String, nullable=False),
    Column("subject", String, nullable=False),
    Column("before", Text, nullable=False),
    Column("after", Text, nullable=False),
    Column("previous_hash", String, nullable=False),
    Column("hash", String, nullable=False),
)

#: Who may administer the farm from elsewhere; C{role} is C{farm} or C{user}.
administrators = Table(
    "administrators",
    metadata,
    Column("name", String, primary_key=True),
    Column("role", String, nullable=False),
    Column("created", Double, nullable=False),
)

#: The IM domains that an administrator of users is limited to.
administrator_domains = Table(
    "administrator_domains",
    metadata,
    Column("administrator", String, ForeignKey("administrators.name", ondelete="CASCADE"), primary_key=True),
    Column("domain", String, ForeignKey("domains.name"), primary_key=True),
)

#: What proves an administrator, until C{until}; C{hash} is salted, and the token itself is not kept.
administrator_tokens = Table(
    "administrator_tokens",
    metadata,
    Column("id", String, primary_key=True),
    Column(
        "administrator",
        String,
        ForeignKey("administrators.name", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    Column("label", String, nullable=False),
    Column("salt", String, nullable=False),
    Column("hash", String, nullable=False),
    Column("created", Double, nullable=False),
    Column("until", Double, nullable=False),
)

#: What caches have to look at again: C{kind} is C{account} (and C{key} its key) or C{farm}.
changes = Table(
    "changes",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", String, nullable=False),
    Column("key", String, nullable=False),
)

Index("ix_audit_subject", audit.c.subject)
