"""Servers that were renamed answer to their former hosts for a while."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nobody has been renamed yet."""
    for table in ("homes", "routers"):
        op.add_column(table, sa.Column("former", sa.String(), nullable=False, server_default=""))


def downgrade() -> None:
    """Drop them."""
    for table in ("routers", "homes"):
        op.drop_column(table, "former")
