"""PostgreSQL keeps every promise that SQLite keeps: the same tests over a real server, and its own."""

from __future__ import annotations

import threading

from sqlalchemy import text
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.admin import handlers
from rvpfarm.directory.postgresql import Place, is_postgresql, parse_servers
from rvpfarm.directory.reading import StoreProblem
from rvpfarm.directory.sql import SqlSource
from rvpfarm.directory.store import Store, database_path, public_form
from tests.admin import test_bulk, test_handlers, test_passwords
from tests.directory import test_contract, test_schema, test_store
from tests.support.postgres import PASSWORD, OnPostgresql, make_database, shared_cluster
from tests.support.processes import free_ports
from tests.support.store import beside, engine_of, make_farm_store, make_folder, open_store


class ContractTests(OnPostgresql, test_contract.CachedSqlTests):
    """The contract of every directory."""

    def break_down(self) -> None:
        """The database is gone, and whoever is connected to it is thrown out."""
        assert self.store.servers is not None
        name = self.store.servers.options["dbname"]
        server = shared_cluster()
        server.run(f"DROP DATABASE {name} WITH (FORCE)")


class StoreTests(OnPostgresql, test_store.StoreTests):
    """What is written is read again."""


class AuditTests(OnPostgresql, test_store.AuditTests):
    """The trail."""


class SeveralStoresTests(OnPostgresql, test_store.SeveralStoresTests):
    """Several processes on one database."""


class MigrationTests(OnPostgresql, test_schema.MigrationTests):
    """Every revision."""


class OtherVersionTests(OnPostgresql, test_schema.OtherVersionTests):
    """Another version's tables."""

    def test_no_tables(self) -> None:
        """An empty database asks for C{init}."""
        server, name = make_database(self)
        store = Store(server.url(name))
        self.addCleanup(store.close)
        self.assertIn("has no tables yet", str(self.assertRaises(StoreProblem, store.check)))
        self.assertIs(store.revision(), None)
        self.assertFalse(store.is_bound())

    def test_no_file(self) -> None:
        """A missing database is an outage."""
        store = Store(shared_cluster().url("missing"))
        self.addCleanup(store.close)
        self.assertIn('database "missing" does not exist', str(self.assertRaises(StoreProblem, store.check)))


class EnableManyTests(OnPostgresql, test_bulk.EnableManyTests):
    """Many users together."""


class InitTests(OnPostgresql, test_handlers.InitTests):
    """Made once."""


class ForbidTests(OnPostgresql, test_passwords.ForbidTests):
    """What is kept of passwords."""


class WritersTests(OnPostgresql, SynchronousTestCase):
    """Writers take turns, whatever comes in between; nobody is shown a conflict."""

    def setUp(self) -> None:
        """A directory with two homes."""
        self.folder = make_folder(self)
        self.store = make_farm_store(self, self.folder)

    def test_many_at_once(self) -> None:
        """Eight writers on connections of their own lose nothing, and the trail stays whole."""
        stores = [open_store(self, self.folder) for _ in range(8)]
        problems: list[Exception] = []

        def work(number: int, store: Store) -> None:
            try:
                for count in range(5):
                    handlers.enable_user(store, f"u{number}.{count}@fabrik.example", actor="test")
                    handlers.set_policy(store, "referral", ("never", "auto")[count % 2], actor="test")
            except Exception as problem:
                problems.append(problem)

        threads = [threading.Thread(target=work, args=each) for each in enumerate(stores)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(problems, [])
        self.assertEqual(len(handlers.list_users(self.store)), 40)
        self.assertIs(handlers.check_audit(self.store), None)

    def test_upgrade_beside_a_writer(self) -> None:
        """An upgrade waits for a change that has begun, and neither has what the other one waits for."""
        other = open_store(self, self.folder)
        ended: list[object] = []
        with self.store.change("test", "policy set", "referral") as change:
            thread = threading.Thread(target=lambda: ended.append(other.upgrade()))
            thread.start()
            change.set_policy("", "referral", "never")
        thread.join()
        self.assertEqual(ended, [self.store.revision()])

    def test_lost_connections(self) -> None:
        """Connections that were cut are noticed before anything is done with them."""
        server, servers = shared_cluster(), self.store.servers
        assert servers is not None
        server.end_connections(servers.options["dbname"])
        handlers.enable_user(self.store, "petra@fabrik.example", actor="test")
        self.assertEqual(len(handlers.list_users(self.store)), 1)

    def test_patience_ends(self) -> None:
        """A change that never ends makes others give up with a sentence."""
        blocker = engine_of(self, self.store)
        impatient = beside(self, self.store, self.store.sealer, busy_seconds=0.05)
        with blocker.connect() as connection:
            connection.execute(text("SELECT * FROM ledger FOR UPDATE"))
            problem = self.assertRaises(
                StoreProblem, handlers.set_policy, impatient, "referral", "never", actor="test"
            )
        self.assertIn("cannot be used", str(problem))


class ReadOnlyRoleTests(OnPostgresql, SynchronousTestCase):
    """Who only reads needs no right to write, and a router none to see credentials."""

    def test_router(self) -> None:
        """With no more than documented, a router's questions are answered, and changes are not possible."""
        store = make_farm_store(self)
        handlers.enable_user(store, "petra@fabrik.example", password="Blue-Kite-41", actor="test")
        assert store.servers is not None
        server, name = shared_cluster(), store.servers.options["dbname"]
        server.run(f"CREATE ROLE router_{name} LOGIN PASSWORD '{PASSWORD}'")
        self.addCleanup(server.run, f"DROP ROLE router_{name}")
        self.addCleanup(server.run, f"DROP OWNED BY router_{name}", name)
        readable = "alembic_version, ledger, domains, domain_aliases, mail_domains, homes, routers, policies"
        readable += ", networks, accounts, changes, audit"
        server.run(f"GRANT SELECT ON {readable} TO router_{name}", name)
        router = Store(server.url(name, user=f"router_{name}"))
        self.addCleanup(router.close)
        source = SqlSource(router)
        self.assertEqual(len(source.farm().homes), 2)
        found = source.account("im.fabrik.example/instmsg/aliases/petra")
        assert found is not None
        self.assertEqual(found.address, "petra@fabrik.example")
        self.assertEqual(source.changes_since(source.position(), "").keys, ())
        for forbidden in (
            lambda: handlers.set_policy(router, "referral", "never", actor="test"),
            lambda: handlers.show_user(router, "petra"),
        ):
            self.assertIn("docs/directory.md", str(self.assertRaises(StoreProblem, forbidden)))


class AddressTests(SynchronousTestCase):
    """The address of a directory in PostgreSQL is one as libpq reads it."""

    def test_several(self) -> None:
        """Several hosts have a port each, or one for all."""
        servers = parse_servers(
            "postgresql://rvp:hush@h1:5433,[2001:db8::2]:5434/rvpfarm?target_session_attrs=read-write"
            "&reads=replicas&sslmode=verify-full"
        )
        self.assertEqual(servers.places, (Place("h1", "5433"), Place("2001:db8::2", "5434")))
        self.assertEqual((servers.options["sslmode"], servers.replicas), ("verify-full", True))
        self.assertEqual(servers.public, "postgresql://rvp@h1:5433,[2001:db8::2]:5434/rvpfarm")
        self.assertEqual(
            parse_servers("postgresql://h1,h2/d?port=5433").places, (Place("h1", "5433"), Place("h2", "5433"))
        )

    def test_socket(self) -> None:
        """Without a host it is the socket where libpq looks for one, or the folder that is named."""
        self.assertEqual(parse_servers("postgresql:///rvpfarm").places, (Place("", ""),))
        (place,) = parse_servers("postgresql:///rvpfarm?host=/run/postgresql").places
        self.assertEqual(place, Place("/run/postgresql", ""))

    def test_public(self) -> None:
        """What anybody may see has neither password nor options."""
        shown = public_form("postgresql+psycopg://rvp:hush@h1,h2/rvpfarm?sslpassword=quiet")
        self.assertEqual(shown, "postgresql://rvp@h1,h2/rvpfarm")
        self.assertIs(database_path("postgresql://host/db"), None)
        self.assertFalse(is_postgresql("sqlite:////srv/directory.sqlite"))

    def test_refused(self) -> None:
        """An address that cannot be used is refused with what to give instead, and shows no password."""
        for url, words in (
            ("postgresql://rvp:hush@h1/d?nonsense=1", "cannot be read"),
            ("postgresql://rvp:hush@h1/d?reads=somewhere", "reads=primary or reads=replicas"),
            ("postgresql://rvp:hush@h1/d?target_session_attrs=any", "leave it out"),
            ("postgresql://rvp:hush@h1,h2,h3/d?port=1,2", "3 hosts and 2 ports"),
        ):
            problem = str(self.assertRaises(StoreProblem, Store, url))
            self.assertIn(words, problem)
            self.assertNotIn("hush", problem)

    def test_nobody_there(self) -> None:
        """A server that is not there is an outage, which names no password."""
        (port,) = free_ports(1)
        store = Store(f"postgresql://rvp:hush@127.0.0.1:{port}/d")
        self.addCleanup(store.close)
        problem = str(self.assertRaises(StoreProblem, store.check))
        self.assertIn("refused", problem)
        self.assertNotIn("hush", problem)
