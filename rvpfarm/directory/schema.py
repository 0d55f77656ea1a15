"""Which revision the directory's tables have, and bringing them to the one this program needs."""

from __future__ import annotations

from functools import lru_cache

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, func, inspect, select, text

from rvpfarm.directory import tables

# any number will do, as long as nobody else locks it: "rvpfarm" read as digits
_UPGRADE_LOCK = 7_873_276


def _config() -> Config:
    """Alembic's settings; there is no file of them, so that an installed package is enough."""
    config = Config()
    config.set_main_option("script_location", "rvpfarm.directory:migrations")
    config.set_main_option("path_separator", "os")
    return config


@lru_cache(maxsize=1)
def known_revisions() -> tuple[str, ...]:
    """The revisions that this program knows, the newest first."""
    scripts = ScriptDirectory.from_config(_config())
    return tuple(step.revision for step in scripts.walk_revisions())


def revision_of(connection: Connection) -> str | None:
    """The revision that the tables have; C{None} when there are none."""
    return MigrationContext.configure(connection).get_current_revision()


def mismatch(revision: str | None, known: tuple[str, ...] | None = None) -> str:
    """What is wrong with C{revision}, for the end of a sentence; empty when it is the newest known.

    @param known: the revisions to judge by, when not L{known_revisions}.
    """
    newest, *older = known or known_revisions()
    if revision == newest:
        return ""
    if revision is None:
        return "has no tables yet"
    if revision in older:
        return f"has the tables of an older version ({revision}, and this program needs {newest})"
    return f"has the tables of a newer version ({revision}, and this program knows {newest})"


def lock(connection: Connection) -> None:
    """Let a second upgrade wait until the transaction of C{connection} is over."""
    # SQLite's own write lock does so already
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_UPGRADE_LOCK)))
        if inspect(connection).has_table(tables.ledger.name):
            # a writer begins with this table too, so neither can have what the other one waits for
            connection.execute(text(f"LOCK TABLE {tables.ledger.name} IN ACCESS EXCLUSIVE MODE"))


def upgrade(connection: Connection) -> None:
    """Bring the tables to the newest revision, inside the transaction of C{connection}."""
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
