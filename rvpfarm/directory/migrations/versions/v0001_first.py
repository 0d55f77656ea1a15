"""The first tables: domains, servers, accounts, settings, and what happened to them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make every table, and the one row of the ledger."""
    _make_farm()
    _make_accounts()
    _make_history()


def _make_farm() -> None:
    """Domains, servers and settings."""
    op.create_table(
        "domains",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("netbios", sa.String(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_domains"),
    )
    op.create_table(
        "domain_aliases",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("domain", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["domain"], ["domains.name"], name="fk_domain_aliases_domain"),
        sa.PrimaryKeyConstraint("name", name="pk_domain_aliases"),
    )
    op.create_index("ix_domain_aliases_domain", "domain_aliases", ["domain"])
    op.create_table(
        "mail_domains",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("domain", sa.String(), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["domain"], ["domains.name"], name="fk_mail_domains_domain"),
        sa.PrimaryKeyConstraint("name", name="pk_mail_domains"),
    )
    op.create_index("ix_mail_domains_domain", "mail_domains", ["domain"])
    op.create_table(
        "homes",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("link_port", sa.Integer(), nullable=False),
        sa.Column("address", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_homes"),
        sa.UniqueConstraint("name", name="uq_homes_name"),
    )
    op.create_table(
        "routers",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("address", sa.String(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_routers"),
        sa.UniqueConstraint("name", name="uq_routers_name"),
    )
    op.create_table(
        "policies",
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("value", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("scope", "name", name="pk_policies"),
    )
    op.create_table(
        "networks",
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("first", sa.String(), nullable=False),
        sa.Column("last", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "first", "last", name="pk_networks"),
    )


def _make_accounts() -> None:
    """Accounts and their credentials."""
    op.create_table(
        "accounts",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("domain", sa.String(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("alias", sa.String(), nullable=False),
        sa.Column("display_name", sa.String(), nullable=False),
        sa.Column("email", sa.String(), nullable=False),
        sa.Column("address", sa.String(), nullable=False),
        sa.Column("address_key", sa.String(), nullable=False),
        sa.Column("home", sa.String(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("changed", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["domain"], ["domains.name"], name="fk_accounts_domain"),
        sa.ForeignKeyConstraint(["home"], ["homes.id"], name="fk_accounts_home"),
        sa.PrimaryKeyConstraint("id", name="pk_accounts"),
        sa.UniqueConstraint("key", name="uq_accounts_key"),
        sa.UniqueConstraint("address_key", name="uq_accounts_address_key"),
    )
    op.create_index("ix_accounts_domain", "accounts", ["domain"])
    op.create_index("ix_accounts_home", "accounts", ["home"])
    op.create_table(
        "credentials",
        sa.Column("account", sa.String(), nullable=False),
        sa.Column("scheme", sa.String(), nullable=False),
        sa.Column("username", sa.String(), nullable=False),
        sa.Column("realm", sa.String(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account"], ["accounts.id"], name="fk_credentials_account", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("account", "scheme", "username", "realm", name="pk_credentials"),
    )


def _make_history() -> None:
    """The audit trail, the feed of changes, and the row that orders them."""
    op.create_table(
        "audit",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("before", sa.Text(), nullable=False),
        sa.Column("after", sa.Text(), nullable=False),
        sa.Column("previous_hash", sa.String(), nullable=False),
        sa.Column("hash", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_audit"),
    )
    op.create_index("ix_audit_subject", "audit", ["subject"])
    op.create_table(
        "changes",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_changes"),
    )
    ledger = op.create_table(
        "ledger",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("change_seq", sa.BigInteger(), nullable=False),
        sa.Column("farm_seq", sa.BigInteger(), nullable=False),
        sa.Column("audit_seq", sa.BigInteger(), nullable=False),
        sa.Column("audit_hash", sa.String(), nullable=False),
        sa.Column("key_check", sa.LargeBinary(), nullable=True),
        sa.CheckConstraint("id = 1", name=op.f("ck_ledger_one")),
        sa.PrimaryKeyConstraint("id", name="pk_ledger"),
    )
    op.bulk_insert(ledger, [{"id": 1, "change_seq": 0, "farm_seq": 0, "audit_seq": 0, "audit_hash": ""}])


def downgrade() -> None:
    """Drop everything."""
    for name in (
        "ledger",
        "changes",
        "audit",
        "credentials",
        "accounts",
        "networks",
        "policies",
        "routers",
        "homes",
        "mail_domains",
        "domain_aliases",
        "domains",
    ):
        op.drop_table(name)
