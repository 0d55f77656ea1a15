"""Routers that are being taken away, and where each server shows its metrics and status."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Every router takes callers; nobody said yet where a server shows its metrics."""
    op.add_column("routers", sa.Column("state", sa.String(), nullable=False, server_default="active"))
    op.add_column("routers", sa.Column("metrics", sa.String(), nullable=False, server_default=""))
    op.add_column("homes", sa.Column("metrics", sa.String(), nullable=False, server_default=""))


def downgrade() -> None:
    """Drop them."""
    op.drop_column("homes", "metrics")
    op.drop_column("routers", "metrics")
    op.drop_column("routers", "state")
