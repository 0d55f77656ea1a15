"""The farm key is replaced step by step, and at every step everything can be read by everybody."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.admin import handlers, keys, ldap
from rvpfarm.admin.bulk import Wanted, enable_many
from rvpfarm.admin.checks import Refused
from rvpfarm.auth.keys import FarmKey, read_key_file
from rvpfarm.directory import tables
from rvpfarm.directory.ldapsettings import LdapSettings
from rvpfarm.directory.ldapsource import reader_password
from rvpfarm.directory.reading import StoreProblem
from rvpfarm.directory.store import Store
from tests.support.postgres import OnPostgresql
from tests.support.processes import BIN, Ran, run
from tests.support.store import beside, directory_url, engine_of, make_farm_store, make_folder

_LDAP = LdapSettings(servers=("ldaps://ldap.fabrik.example",), base="dc=fabrik", bind_dn="cn=rvp,dc=fabrik")
PETRA = "im.fabrik.example/instmsg/aliases/petra"


class RotationTests(SynchronousTestCase):
    """Made, used, retired."""

    def setUp(self) -> None:
        """A directory with more users than one step seals."""
        self.folder = make_folder(self)
        self.path = self.folder / "farm.key"
        self.store = make_farm_store(self, self.folder)
        handlers.enable_user(self.store, "petra@fabrik.example", password="Blue-Kite-41", actor="test")
        self.former = FarmKey(read_key_file(self.path)[0].secret)
        self.before = self._petra(self.store)

    def _petra(self, store: Store) -> object:
        """What is known of somebody with a password."""
        with store.read() as reading:
            found = reading.account(PETRA)
        assert found is not None and found.verifiers
        return found

    def _fresh(self) -> Store:
        """A store as a process that was just started has it."""
        return beside(self, self.store, FarmKey.load(self.path))

    def test_all_steps(self) -> None:
        """At each step those of the step before and of the step after read everything."""
        keys.make_key(self.store, self.path, actor="test")
        made = self._fresh()
        self.assertEqual(self._petra(made), self.before)
        keys.use_key(self.path)
        used = self._fresh()
        total = [step.total for step in keys.seal_all(used, actor="test")]
        self.assertEqual(total[0], self._credentials())
        for store in (made, used, self._fresh()):
            self.assertEqual(self._petra(store), self.before)
            store.check()
        (dropped,) = keys.retire_keys(used, self.path, actor="test")
        self.assertEqual(dropped, self.former.marks[0].hex())
        last = self._fresh()
        self.assertEqual(self._petra(last), self.before)
        view = keys.show_keys(last, self.path)
        self.assertEqual([one.sealed for one in view.keys], [self._credentials()])
        self.assertEqual((view.unmarked, view.foreign), (0, 0))
        old = beside(self, self.store, self.former)
        self.assertRaises(StoreProblem, old.check)
        trail = [row.action for row in handlers.list_audit(last, "farm key")]
        self.assertEqual(trail, ["key rotate", "key rotate", "key retire"])
        self.assertIs(handlers.check_audit(last), None)

    def _credentials(self) -> int:
        with engine_of(self, self.store).connect() as connection:
            return len(list(connection.execute(tables.credentials.select())))

    def test_ldap_reader(self) -> None:
        """The password by which LDAP is read goes with the rest, and holds up the end until it has."""
        ldap.set_ldap(self.store, _LDAP, "Green-Boat-17", actor="test")
        keys.make_key(self.store, self.path, actor="test")
        keys.use_key(self.path)
        used = self._fresh()
        list(keys.seal_all(used, actor="test"))
        ldap.set_ldap(self.store, _LDAP, "Green-Boat-17", actor="test")  # by a process with the key of before
        with self.assertRaisesRegex(Refused, "1 secrets are not"):
            keys.retire_keys(used, self.path, actor="test")
        list(keys.seal_all(used, actor="test"))
        keys.retire_keys(used, self.path, actor="test")
        last = self._fresh()
        settings = ldap.ldap_of(last)
        assert settings is not None
        self.assertEqual(reader_password(settings, last.sealer), "Green-Boat-17")

    def test_running_daemon(self) -> None:
        """A process that was started before the new key was made looks for it in the file when it meets it."""
        running = self._fresh()
        self._petra(running)
        keys.make_key(self.store, self.path, actor="test")
        keys.use_key(self.path)
        list(keys.seal_all(self._fresh(), actor="test"))
        self.assertEqual(self._petra(running), self.before)

    def test_interrupted(self) -> None:
        """Cut off anywhere, everything opens; run again, it goes on, and what is done is not done again."""
        rows = [Wanted(f"u{number}@fabrik.example", password="Blue-Kite-41") for number in range(250)]
        list(enable_many(self.store, rows, actor="test"))
        keys.make_key(self.store, self.path, actor="test")
        keys.use_key(self.path)
        store = self._fresh()
        step = keys.seal_all(store, actor="test")
        next(step)
        self.assertGreater(next(step).done, 0)
        step.close()
        self.assertEqual(self._petra(self._fresh()), self.before)
        self.assertRaises(Refused, keys.retire_keys, store, self.path)
        keys.use_key(self.path)  # does nothing more
        done = list(keys.seal_all(store, actor="test"))[-1].done
        self.assertTrue(0 < done < self._credentials())
        self.assertEqual([one.done for one in keys.seal_all(store, actor="test")][-1], 0)

    def test_order(self) -> None:
        """No step can be left out, nor taken twice."""
        self.assertIn("replaces it", str(self.assertRaises(Refused, keys.retire_keys, self.store, self.path)))
        keys.make_key(self.store, self.path, actor="test")
        again = self.assertRaises(Refused, keys.make_key, self.store, self.path)
        self.assertIn("being replaced already", str(again))
        early = self.assertRaises(Refused, keys.retire_keys, self.store, self.path)
        self.assertIn("not used yet", str(early))
        self.assertEqual([line.role for line in read_key_file(self.path)], ["", "next"])

    def test_commands(self) -> None:
        """An administrator's commands say at each step what comes next."""

        def rvpfarm(*words: str) -> Ran:
            url = directory_url(self, self.folder)
            return run(BIN / "rvpfarm", "--directory", url, "--key-file", self.path, *words)

        self.assertIn("Would make", rvpfarm("key", "rotate", "--dry-run").out)
        self.assertIn("Made the key", rvpfarm("key", "rotate").out)
        would = rvpfarm("key", "rotate", "--dry-run").out
        self.assertIn(f"seal {self._credentials()} secrets", would)
        sealed = rvpfarm("key", "rotate")
        self.assertIn(f"Sealed {self._credentials()} of", sealed.err)
        self.assertIn("key retire", sealed.out)
        self.assertIn("former", rvpfarm("key", "show").out)
        self.assertIn("Would drop", rvpfarm("key", "retire", "--dry-run").out)
        self.assertIn("Dropped the key", rvpfarm("key", "retire").out)
        self.assertEqual(rvpfarm("key", "retire").status, 1)
        self.assertEqual(len(read_key_file(self.path)), 1)


class RotationOnPostgresqlTests(OnPostgresql, RotationTests):
    """The same in PostgreSQL."""
