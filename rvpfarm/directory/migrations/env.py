"""Alembic runs this: the steps go over the connection that L{rvpfarm.directory.schema} hands in."""

from __future__ import annotations

from alembic import context

from rvpfarm.directory.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite cannot alter a column: later steps copy the table there
    render_as_batch=True,
    # the caller's transaction holds every step, on SQLite as well
    transactional_ddl=True,
)
context.run_migrations()
