"""The machine that a directory in a file belongs to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Whoever makes this step takes the file for his machine."""
    for name in ("host_id", "host_boot", "host_name"):
        op.add_column("ledger", sa.Column(name, sa.String(), nullable=False, server_default=""))


def downgrade() -> None:
    """Drop them."""
    for name in ("host_name", "host_boot", "host_id"):
        op.drop_column("ledger", name)
