"""The store: one transaction, one audit row, and several processes on one file."""

from __future__ import annotations

import stat
import threading
from dataclasses import replace

from sqlalchemy import create_engine, delete, insert, select, text, update
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.admin import handlers
from rvpfarm.auth.keys import FarmKey
from rvpfarm.directory import tables
from rvpfarm.directory.model import Account, Network, Verifier
from rvpfarm.directory.reading import Changes, StoreProblem
from rvpfarm.directory.sql import SqlSource
from rvpfarm.directory.store import Store, database_path
from tests.support.store import beside, engine_of, make_farm_store, make_folder, make_store, open_store

PETRA = "im.fabrik.example/instmsg/aliases/petra"


def account_on(home: str, alias: str = "Petra") -> Account:
    """An account of C{im.fabrik.example}."""
    path = f"/instmsg/aliases/{alias}"
    return Account(
        id=f"id of {alias}",
        key=f"im.fabrik.example{path}".lower(),
        kind="user",
        domain="im.fabrik.example",
        path=path,
        alias=alias,
        home=home,
        enabled=True,
        display_name=f"{alias} Novak",
        email="",
        address=f"{alias}@fabrik.example",
    )


class StoreTests(SynchronousTestCase):
    """What is written is read again, with a trail, or nothing of it is there."""

    def setUp(self) -> None:
        """A directory with a domain and two homes."""
        self.folder = make_folder(self)
        self.store = make_farm_store(self, self.folder)
        with self.store.read() as reading:
            self.farm = reading.farm()
        self.home = next(iter(self.farm.homes))
        self.account = account_on(self.home)

    def _add(self, *verifiers: Verifier) -> None:
        with self.store.change("ann", "user enable", self.account.address) as change:
            change.add_account(self.account)
            if verifiers:
                change.put_verifiers(self.account, verifiers)

    def test_farm(self) -> None:
        """Domains, homes and settings come back as they were given, mail domains in their order."""
        domain = self.farm.domains["im.fabrik.example"]
        self.assertEqual(domain.mail_domains, ("fabrik.example",))
        self.assertEqual(domain.aliases, ("omnent",))
        self.assertEqual(domain.netbios, "FABRIK")
        self.assertEqual([home.name for home in self.farm.homes.values()], ["hs1", "hs2"])
        handlers.add_domain(self.store, "im.orchard.example", ["z.example", "a.example"], actor="test")
        with self.store.read() as reading:
            self.assertEqual(
                reading.farm().domains["im.orchard.example"].mail_domains, ("z.example", "a.example")
            )

    def test_policies(self) -> None:
        """A domain's setting is kept apart from the farm's, and can be taken back."""
        with self.store.change("ann", "policy set", "referral") as change:
            change.set_policy("", "referral", "never")
            change.set_policy("im.fabrik.example", "referral", "always")
        with self.store.read() as reading:
            farm = reading.farm()
        self.assertEqual(farm.policy("referral"), "never")
        self.assertEqual(farm.policy("referral", "im.fabrik.example"), "always")
        with self.store.change("ann", "policy set", "referral") as change:
            change.set_policy("im.fabrik.example", "referral", None)
        with self.store.read() as reading:
            self.assertEqual(reading.farm().policy("referral", "im.fabrik.example"), "never")

    def test_networks(self) -> None:
        """Ranges of addresses come and go."""
        inside = Network("inside", "192.0.2.0", "192.0.2.255")
        with self.store.change("ann", "network add", "inside") as change:
            change.add_network(inside)
        with self.store.read() as reading:
            self.assertEqual(reading.farm().networks, (inside,))
        with self.store.change("ann", "network remove", "inside") as change:
            change.remove_network(inside)
        with self.store.read() as reading:
            self.assertEqual(reading.farm().networks, ())

    def test_account(self) -> None:
        """An account is found by key and, in any letter case, by address; it keeps its own letter case."""
        verifier = Verifier("digest-md5", "FABRIK\\Petra", "im.fabrik.example", "f4" * 16)
        self._add(verifier)
        with self.store.read() as reading:
            found = reading.account(PETRA)
            self.assertEqual(found, reading.account_by_address("PETRA@fabrik.example"))
            self.assertIs(reading.account("im.fabrik.example/instmsg/aliases/nobody"), None)
        self.assertEqual(found, replace(self.account, verifiers=(verifier,)))

    def test_accounts_by_home(self) -> None:
        """Accounts can be counted and listed home by home."""
        self._add()
        with self.store.read() as reading:
            self.assertEqual(sorted(reading.home_loads().values()), [0, 1])
            self.assertEqual(list(reading.accounts(home=self.home)), [self.account])
            self.assertEqual(list(reading.accounts(domain="im.elsewhere.example")), [])

    def test_secrets_are_sealed(self) -> None:
        """A verifier's secret is nowhere in the file, and a store without the key gives out none."""
        secret = "0123456789abcdef" * 2
        self._add(Verifier("digest-md5", "petra", "im.fabrik.example", secret))
        with engine_of(self, self.store).connect() as connection:
            kept = [tuple(row) for row in connection.execute(select(tables.credentials))]
        self.assertEqual(len(kept), 1)
        self.assertNotIn(secret, repr(kept))
        bare = beside(self, self.store)
        with bare.read() as reading:
            self.assertEqual(reading.account(PETRA), self.account)

    def test_moved_secret_is_noticed(self) -> None:
        """A sealed secret that was moved to another name is an outage, not a wrong password."""
        self._add(Verifier("digest-md5", "petra", "im.fabrik.example", "f4" * 16))
        engine = engine_of(self, self.store)
        with engine.begin() as connection:
            connection.execute(update(tables.credentials).values(username="admin"))
        engine.dispose()
        source = SqlSource(self.store)
        problem = self.assertRaises(StoreProblem, source.account, PETRA)
        self.assertIn("does not open with this farm key", str(problem))

    def test_no_key_no_password(self) -> None:
        """Without the farm key no secret is written, sealed or not."""
        self._add()
        bare = beside(self, self.store)
        with (
            self.assertRaises(StoreProblem),
            bare.change("ann", "user passwd", "petra") as change,
        ):
            change.put_verifiers(self.account, [Verifier("digest-md5", "petra", "r", "s")])
        with self.store.read() as reading:
            self.assertEqual(reading.schemes(self.account.id), ())

    def test_all_or_nothing(self) -> None:
        """A change that fails halfway leaves neither the half nor a trail."""
        with self.store.read() as reading:
            before = reading.audit()
            position = reading.position()
        with (
            self.assertRaises(ZeroDivisionError),
            self.store.change("ann", "user enable", "petra") as change,
        ):
            change.add_account(self.account)
            raise ZeroDivisionError
        with self.store.read() as reading:
            self.assertIs(reading.account(PETRA), None)
            self.assertEqual(reading.audit(), before)
            self.assertEqual(reading.changes_since(position), Changes(position))

    def test_nothing_done_nothing_recorded(self) -> None:
        """A change that changes nothing leaves no audit row."""
        with self.store.read() as reading:
            before = len(reading.audit())
        with self.store.change("ann", "policy set", "referral") as change:
            change.set_policy("", "referral", None)
        with self.store.read() as reading:
            self.assertEqual(len(reading.audit()), before)

    def test_changes(self) -> None:
        """The feed names changed accounts once, and says whether anything farm-wide changed."""
        with self.store.read() as reading:
            start = reading.position()
        self._add()
        with self.store.change("ann", "user disable", "petra") as change:
            change.update_account(replace(self.account, enabled=False))
        with self.store.read() as reading:
            first = reading.changes_since(start)
        self.assertEqual((first.keys, first.farm, first.gap, first.more), ((PETRA,), False, False, False))
        with self.store.change("ann", "policy set", "referral") as change:
            change.set_policy("", "referral", "never")
        with self.store.read() as reading:
            second = reading.changes_since(first.position)
            self.assertEqual((second.keys, second.farm), ((), True))
            self.assertEqual(reading.changes_since(second.position), Changes(second.position))
            self.assertEqual(reading.farm().generation, second.position)

    def test_gap(self) -> None:
        """Whoever was away for longer than changes are kept is told that anything may have changed."""
        with self.store.read() as reading:
            start = reading.position()
        forgetful = beside(self, self.store, changes_kept=2)
        for value in ("never", "always", "auto"):
            handlers.set_policy(forgetful, "referral", value, actor="test")
        with self.store.read() as reading:
            end = reading.position()
            self.assertEqual(reading.changes_since(start), Changes(end, farm=True, gap=True))
            self.assertEqual(reading.changes_since(end - 1), Changes(end, farm=True))

    def test_restored_backup(self) -> None:
        """A position after the end of the feed, as when an older copy was restored, is a gap as well."""
        with self.store.read() as reading:
            end = reading.position()
            self.assertEqual(reading.changes_since(end + 5), Changes(end, farm=True, gap=True))

    def test_mark(self) -> None:
        """A copy that went ways of its own since is known as another directory, though it is as far as this one."""
        source = SqlSource(self.store)
        start = source.changes_since(source.position(), "")
        self._add()
        after = source.changes_since(start.position, start.mark)
        self.assertEqual((after.keys, after.gap), ((self.account.key,), False))
        self.assertEqual(source.changes_since(after.position, after.mark), replace(after, keys=()))
        other_way = "1 of another directory"
        for mark in (other_way, "nonsense", after.mark.replace(" ", " 0")):
            gap = Changes(after.position, farm=True, gap=True, mark=after.mark)
            self.assertEqual(source.changes_since(after.position, mark), gap)
        self.assertFalse(source.changes_since(after.position, "0 ").gap)


class AuditTests(SynchronousTestCase):
    """The audit trail tells who did what, and shows when somebody tampered with it."""

    def setUp(self) -> None:
        """A trail of four rows."""
        self.store = make_farm_store(self)
        with self.store.read() as reading:
            self.rows = reading.audit()

    def _tamper(self, statement: object) -> int | None:
        engine = engine_of(self, self.store)
        with engine.begin() as connection:
            connection.execute(statement)  # type: ignore[call-overload]
        engine.dispose()
        return handlers.check_audit(self.store)

    def test_rows(self) -> None:
        """A row says who, what, to whom, before and after; it never holds a secret."""
        handlers.enable_user(self.store, "petra@fabrik.example", password="Blue-Kite-41", actor="ann")
        with self.store.read() as reading:
            (row,) = reading.audit("petra@fabrik.example")
        self.assertEqual((row.actor, row.action), ("ann", "user enable"))
        self.assertIn('"display_name":"petra"', row.after)
        self.assertIn('"schemes":["digest-md5"', row.after)
        self.assertNotIn("Blue-Kite-41", row.after)
        self.assertNotIn("secret", row.after)
        self.assertEqual(row.before, '{"schemes":[]}')

    def test_whole(self) -> None:
        """An untouched trail is whole, and each row carries the hash of the one before."""
        self.assertIs(handlers.check_audit(self.store), None)
        self.assertEqual([row.previous_hash for row in self.rows[1:]], [row.hash for row in self.rows[:-1]])

    def test_changed_row(self) -> None:
        """A changed row is found."""
        changed = update(tables.audit).where(tables.audit.c.seq == 2).values(actor="somebody else")
        self.assertEqual(self._tamper(changed), 2)

    def test_removed_row(self) -> None:
        """A missing row is found."""
        self.assertEqual(self._tamper(delete(tables.audit).where(tables.audit.c.seq == 3)), 3)

    def test_removed_end(self) -> None:
        """A trail that was cut off is found, though every row left is right."""
        last = self.rows[-1].seq
        self.assertEqual(self._tamper(delete(tables.audit).where(tables.audit.c.seq == last)), last)

    def test_added_row(self) -> None:
        """A row added with a right hash, but past the store, is found."""
        last = self.rows[-1]
        forged = replace(last, seq=last.seq + 1, previous_hash=last.hash)
        forged = replace(forged, hash=forged.expected_hash())
        values = {name: getattr(forged, name) for name in (column.name for column in tables.audit.c)}
        self.assertEqual(self._tamper(insert(tables.audit).values(**values)), last.seq + 2)


class SeveralStoresTests(SynchronousTestCase):
    """Routers, homes and the command line use one file at once."""

    def test_seen_by_the_other(self) -> None:
        """What one store commits, another one on the same file sees at its next read."""
        folder = make_folder(self)
        one = make_farm_store(self, folder)
        other = open_store(self, folder)
        with other.read() as reading:
            start = reading.position()
        handlers.enable_user(one, "petra@fabrik.example", actor="test")
        with other.read() as reading:
            self.assertEqual(reading.changes_since(start).keys, (PETRA,))
            account = reading.account(PETRA)
            assert account is not None
            self.assertEqual(account.alias, "petra")

    def test_reading_while_another_writes(self) -> None:
        """A reader does not wait for a writer and sees what was there before it."""
        folder = make_folder(self)
        one = make_farm_store(self, folder)
        other = open_store(self, folder)
        with one.change("ann", "policy set", "referral") as change:
            change.set_policy("", "referral", "never")
            with other.read() as reading:
                self.assertEqual(reading.farm().policy("referral"), "auto")

    def test_writers_take_turns(self) -> None:
        """Writers on one file wait for each other: no change is lost and the trail stays whole."""
        folder = make_folder(self)
        make_farm_store(self, folder)
        stores = [open_store(self, folder) for _ in range(3)]
        problems: list[Exception] = []

        def enable(number: int, store: Store) -> None:
            try:
                for count in range(5):
                    handlers.enable_user(store, f"u{number}.{count}@fabrik.example", actor=f"writer {number}")
            except Exception as problem:
                problems.append(problem)

        threads = [threading.Thread(target=enable, args=one) for one in enumerate(stores)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(problems, [])
        self.assertEqual(len(handlers.list_users(stores[0])), 15)
        self.assertIs(handlers.check_audit(stores[0]), None)
        with stores[0].read() as reading:
            self.assertEqual(sorted(reading.home_loads().values()), [7, 8])

    def test_made_by_several_at_once(self) -> None:
        """Two first starts at one moment make one directory."""
        folder = make_folder(self)
        stores = [open_store(self, folder) for _ in range(2)]
        problems: list[Exception] = []

        def make(store: Store) -> None:
            try:
                handlers.init(store, actor="test")
            except Exception as problem:
                problems.append(problem)

        threads = [threading.Thread(target=make, args=(store,)) for store in stores]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(problems, [])
        with stores[0].read() as reading:
            self.assertEqual([row.action for row in reading.audit()], ["init"])


class PrivateFileTests(SynchronousTestCase):
    """A directory in a file is its owner's alone."""

    def test_mode(self) -> None:
        """Only its owner may read it."""
        store = make_farm_store(self)
        assert store.path is not None
        self.assertEqual(stat.S_IMODE(store.path.stat().st_mode), 0o600)

    def test_no_secret(self) -> None:
        """No verifier is anywhere in the file."""
        folder = make_folder(self)
        store = make_farm_store(self, folder)
        home = next(iter(handlers.farm_of(store).homes))
        secret = "0123456789abcdef" * 2
        with store.change("ann", "user enable", "petra") as change:
            change.add_account(account_on(home))
            change.put_verifiers(account_on(home), [Verifier("digest-md5", "petra", "r", secret)])
        for file in folder.glob("directory.sqlite*"):
            self.assertNotIn(secret.encode(), file.read_bytes())


class LostFileTests(SynchronousTestCase):
    """A file that is taken away is missed at once, never made anew, and read again when it is back."""

    def setUp(self) -> None:
        """A directory that is in use."""
        self.folder = make_folder(self)
        self.store = make_farm_store(self, self.folder)
        self.path, self.away = self.folder / "directory.sqlite", self.folder / "away"
        self.source = SqlSource(self.store)
        self.source.farm()

    def test_moved_away(self) -> None:
        """Neither the open file nor a new one in its place is taken for the directory."""
        self.path.rename(self.away)
        for _ in range(3):
            problem = self.assertRaises(StoreProblem, self.source.farm)
        self.assertIn("put back the one that was there", str(problem))
        self.assertFalse(self.path.exists())
        self.away.rename(self.path)
        self.assertIn("im.fabrik.example", self.source.farm().domains)

    def test_replaced(self) -> None:
        """Another file in its place is looked at like any other: it may be of another farm."""
        other = make_store(self, make_folder(self))
        other.close()
        for file in self.folder.glob("directory.sqlite*"):
            file.unlink()
        self.assertRaises(StoreProblem, self.source.farm)
        assert other.path is not None
        other.path.rename(self.path)
        self.assertIn("another farm key", str(self.assertRaises(StoreProblem, self.source.farm)))

    def test_odd_path(self) -> None:
        """What means something in an address means nothing in a path."""
        folder = self.folder / "100% sure #1"
        folder.mkdir()
        store = make_store(self, folder)
        self.assertEqual(SqlSource(store).farm().domains, {})
        self.assertTrue((folder / "directory.sqlite").is_file())


class UnusableTests(SynchronousTestCase):
    """A directory that cannot be used says so in a sentence, and never shows a password."""

    def test_other_key(self) -> None:
        """Another farm key than the one it was made with is noticed before anything is read."""
        folder = make_folder(self)
        store = beside(self, make_store(self, folder), FarmKey.create(folder / "other.key"))
        self.assertIn("another farm key", str(self.assertRaises(StoreProblem, store.check)))

    def test_not_a_database(self) -> None:
        """A file of something else is refused."""
        path = make_folder(self) / "directory.sqlite"
        path.write_bytes(b"something else entirely, and long enough to be looked at. " * 20)
        store = Store(f"sqlite:///{path}")
        self.addCleanup(store.close)
        self.assertIn("cannot be used", str(self.assertRaises(StoreProblem, store.check)))

    def test_locked(self) -> None:
        """A writer who never ends makes others give up with a sentence, not hang."""
        store = make_store(self)
        blocker = create_engine(f"sqlite:///{store.path}")
        self.addCleanup(blocker.dispose)
        impatient = Store(f"sqlite:///{store.path}", store.sealer, busy_seconds=0)
        self.addCleanup(impatient.close)
        with blocker.connect() as connection:
            connection.execute(text("BEGIN IMMEDIATE"))
            problem = self.assertRaises(StoreProblem, handlers.init, impatient, actor="test")
            connection.rollback()
        self.assertIn("locked", str(problem))

    def test_no_folder(self) -> None:
        """A database cannot be made in a folder that is not there."""
        store = Store(f"sqlite:///{make_folder(self) / 'missing' / 'directory.sqlite'}")
        self.addCleanup(store.close)
        self.assertIn("folder that exists", str(self.assertRaises(StoreProblem, store.upgrade)))

    def test_addresses(self) -> None:
        """An address that is none, of another kind of database, or in memory only is refused at once."""
        for url, words in (
            ("nonsense", "cannot be read"),
            ("mysql://ann:hush@host/db", 'kept in "mysql"'),
            ("sqlite://", "is a file"),
            ("sqlite:///:memory:", "is a file"),
            ("postgresql+unheardof://ann:hush@host/db", "unknown driver"),
        ):
            problem = str(self.assertRaises(StoreProblem, Store, url))
            self.assertIn(words, problem)
            self.assertNotIn("hush", problem)

    def test_path(self) -> None:
        """Only SQLite has a file."""
        path = database_path("sqlite:////srv/directory.sqlite")
        self.assertEqual(str(path), "/srv/directory.sqlite")
        self.assertIs(database_path("postgresql://host/db"), None)
