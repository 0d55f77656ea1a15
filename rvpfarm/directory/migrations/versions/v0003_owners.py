"""Groups and devices belong to somebody."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Users own themselves: C{owner} stays empty for them."""
    op.add_column("accounts", sa.Column("owner", sa.String(), nullable=False, server_default=""))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("accounts", "owner")
