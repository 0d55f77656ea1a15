"""Administrators, the IM domains that they are limited to, and the tokens that prove them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nobody is an administrator yet but who has the directory itself."""
    op.create_table(
        "administrators",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_administrators"),
    )
    op.create_table(
        "administrator_domains",
        sa.Column("administrator", sa.String(), nullable=False),
        sa.Column("domain", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["administrator"],
            ["administrators.name"],
            name="fk_administrator_domains_administrator",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["domain"], ["domains.name"], name="fk_administrator_domains_domain"),
        sa.PrimaryKeyConstraint("administrator", "domain", name="pk_administrator_domains"),
    )
    op.create_table(
        "administrator_tokens",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("administrator", sa.String(), nullable=False),
        sa.Column("label", sa.String(), nullable=False),
        sa.Column("salt", sa.String(), nullable=False),
        sa.Column("hash", sa.String(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("until", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["administrator"],
            ["administrators.name"],
            name="fk_administrator_tokens_administrator",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_administrator_tokens"),
    )
    op.create_index("ix_administrator_tokens_administrator", "administrator_tokens", ["administrator"])


def downgrade() -> None:
    """Drop them."""
    op.drop_table("administrator_tokens")
    op.drop_table("administrator_domains")
    op.drop_table("administrators")
