"""The migrations make the tables that the code uses, and nobody opens tables of another version."""

from __future__ import annotations

from importlib import resources

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.admin import handlers
from rvpfarm.directory import schema, tables
from rvpfarm.directory.reading import StoreProblem
from rvpfarm.directory.store import Store
from tests.support.store import beside, engine_of, make_farm_store, make_folder, make_store


class MigrationTests(SynchronousTestCase):
    """Alembic runs inside the program, without files of its own beside it."""

    def setUp(self) -> None:
        """A new directory."""
        self.store = make_store(self)
        self.engine = engine_of(self, self.store)

    def test_migrated_tables_are_the_tables_used(self) -> None:
        """After every step the database has exactly the tables, columns and indexes that the code names."""
        with self.engine.connect() as connection:
            found = compare_metadata(MigrationContext.configure(connection), tables.metadata)
        self.assertEqual(found, [])

    def test_revision_is_the_newest(self) -> None:
        """A new directory needs no further step."""
        self.assertEqual(self.store.revision(), schema.known_revisions()[0])
        self.assertEqual(schema.mismatch(self.store.revision()), "")

    def test_again_changes_nothing(self) -> None:
        """Upgrading an up-to-date directory says what it was and keeps it."""
        self.assertEqual(self.store.upgrade(), schema.known_revisions()[0])
        self.store.check()

    def test_back_to_nothing(self) -> None:
        """Every step can be taken back."""
        config = schema._config()
        with self.engine.begin() as connection:
            config.attributes["connection"] = connection
            command.downgrade(config, "base")
        with self.engine.connect() as connection:
            self.assertEqual(inspect(connection).get_table_names(), ["alembic_version"])

    def test_passwords_of_before(self) -> None:
        """The second step keeps every account and what its password is checked by; so does its way back."""
        folder = make_folder(self)
        store = make_farm_store(self, folder)
        handlers.enable_user(store, "petra@fabrik.example", password="Blue-Kite-41")
        handlers.change_user_policy(store, "petra", "nt-hashes", "forbidden")
        with store.read() as reading:
            before = reading.account("im.fabrik.example/instmsg/aliases/petra")
        engine = engine_of(self, store)
        config = schema._config()
        with engine.begin() as connection:
            if store.path is not None:
                connection.execute(text("PRAGMA foreign_keys = ON"))
            config.attributes["connection"] = connection
            command.downgrade(config, "0001")
        self.assertIn("older version (0001", str(self.assertRaises(StoreProblem, store.check)))
        self.assertEqual(store.upgrade(), "0001")
        view = handlers.show_user(store, "petra")
        self.assertEqual((view.password.since, view.password.policies), (None, {}))
        with store.read() as reading:
            self.assertEqual(reading.account("im.fabrik.example/instmsg/aliases/petra"), before)
        self.assertEqual(len(view.schemes), 2)

    def test_from_every_revision(self) -> None:
        """Whatever revision a directory with people in it has, it is brought to the newest with all of them."""
        for revision in schema.known_revisions()[1:]:
            store = make_farm_store(self, make_folder(self))
            handlers.create_router(store, "r1", "im.fabrik.example", address="127.0.0.1", actor="test")
            handlers.enable_user(store, "petra@fabrik.example", password="Blue-Kite-41", actor="test")
            config = schema._config()
            with engine_of(self, store).begin() as connection:
                if store.path is not None:
                    connection.execute(text("PRAGMA foreign_keys = ON"))
                config.attributes["connection"] = connection
                command.downgrade(config, revision)
            with engine_of(self, store).begin() as connection:
                self.assertEqual(schema.revision_of(connection), revision)
            self.assertEqual(handlers.init(store, actor="test").before, revision)
            view = handlers.show_user(store, "petra@fabrik.example")
            self.assertEqual((view.account.display_name, len(view.schemes)), ("petra", 3))
            farm = handlers.farm_of(store)
            self.assertEqual(sorted(home.name for home in farm.homes.values()), ["hs1", "hs2"])
            self.assertEqual([router.state for router in farm.routers.values()], ["active"])
            self.assertIs(handlers.check_audit(store), None)
            handlers.set_password(store, "petra", "Red-Sparrow-52", actor="test")

    def test_template_is_shipped(self) -> None:
        """The template of new steps is found in the package, wherever it is installed."""
        template = resources.files("rvpfarm.directory") / "migrations" / "script.py.mako"
        self.assertIn("def upgrade", template.read_text())

    def test_tables_suit_postgresql(self) -> None:
        """Every table and index can be written in PostgreSQL's SQL."""
        dialect = postgresql.dialect()
        for table in tables.metadata.sorted_tables:
            self.assertIn("CREATE TABLE", str(CreateTable(table).compile(dialect=dialect)))
            for index in table.indexes:
                self.assertIn("CREATE INDEX", str(CreateIndex(index).compile(dialect=dialect)))


class OtherVersionTests(SynchronousTestCase):
    """A directory of another version is refused in one sentence that says what to do."""

    def _stamped(self, revision: str) -> Store:
        """A directory whose tables claim to be of C{revision}."""
        folder = make_folder(self)
        store = beside(self, make_store(self, folder))
        with engine_of(self, store).begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = :new"), {"new": revision})
        return store

    def test_newer(self) -> None:
        """Tables of a newer version ask for a newer program, when opened and when initialised."""
        store = self._stamped("9999")
        problem = self.assertRaises(StoreProblem, store.check)
        self.assertIn("newer version (9999", str(problem))
        self.assertIn("upgrade rvpfarm", str(problem))
        self.assertIn("upgrade rvpfarm", str(self.assertRaises(StoreProblem, store.upgrade)))

    def test_older(self) -> None:
        """Tables of an older version are told from those of a newer one."""
        self.assertEqual(
            schema.mismatch("0001", ("0002", "0001")),
            "has the tables of an older version (0001, and this program needs 0002)",
        )

    def test_no_tables(self) -> None:
        """An empty file asks for C{init}."""
        folder = make_folder(self)
        (folder / "directory.sqlite").touch()
        store = Store(f"sqlite:///{folder / 'directory.sqlite'}")
        self.addCleanup(store.close)
        self.assertIn("has no tables yet", str(self.assertRaises(StoreProblem, store.check)))
        self.assertIs(store.revision(), None)
        self.assertFalse(store.is_bound())

    def test_no_file(self) -> None:
        """A missing file is not made by reading."""
        folder = make_folder(self)
        store = Store(f"sqlite:///{folder / 'directory.sqlite'}")
        self.addCleanup(store.close)
        problem = self.assertRaises(StoreProblem, store.check)
        self.assertIn('run "rvpfarm --directory sqlite:///', str(problem))
        self.assertFalse(store.exists)
        self.assertIs(store.revision(), None)
