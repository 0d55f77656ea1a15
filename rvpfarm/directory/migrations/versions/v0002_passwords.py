"""When each password was set, and what may be kept of it: settings of single accounts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nobody knows when the passwords of before were set: C{password_set} stays empty for them."""
    op.add_column("accounts", sa.Column("password_set", sa.Double(), nullable=True))
    op.create_table(
        "account_policies",
        sa.Column("account", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("value", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account"], ["accounts.id"], name="fk_account_policies_account", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("account", "name", name="pk_account_policies"),
    )


def downgrade() -> None:
    """Drop both."""
    op.drop_table("account_policies")
    # not by copying the table, which would take the credentials along when the old one goes
    op.drop_column("accounts", "password_set")
