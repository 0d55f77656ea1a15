"""Many users are enabled together: each as if alone, none stopped by another, none twice."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.admin import handlers
from rvpfarm.admin.bulk import NEW, PRESENT, REFUSED, RETURNED, Batch, Wanted, enable_many
from rvpfarm.directory.reading import StoreProblem
from rvpfarm.directory.store import Store
from tests.support.store import make_farm_store


class EnableManyTests(SynchronousTestCase):
    """L{enable_many} over a directory with one domain and two homes."""

    def setUp(self) -> None:
        """Nobody is a user yet."""
        self.store = make_farm_store(self)

    def _enable(self, *rows: Wanted, batch: int = 3, dry_run: bool = False) -> list[Batch]:
        return list(enable_many(self.store, rows, batch=batch, actor="ann", dry_run=dry_run))

    def _what(self, batches: list[Batch]) -> list[str]:
        return [one.what for batch in batches for one in batch.outcomes]

    def test_as_if_alone(self) -> None:
        """What a user enabled among others has, says and leaves behind is what one enabled alone does."""
        handlers.enable_user(
            self.store, "Petra@fabrik.example", "hs2", None, "Petra Novak", "Blue-Kite-41", actor="ann"
        )
        row = Wanted("Tomas@fabrik.example", "hs2", None, "Tomas Novak", "Blue-Kite-41", number=7)
        (batch,) = self._enable(row)
        (outcome,) = batch.outcomes
        self.assertEqual((outcome.what, outcome.wanted.number, batch.seen), (NEW, 7, 1))
        alone = handlers.show_user(self.store, "petra@fabrik.example")
        view = handlers.show_user(self.store, "tomas@fabrik.example")
        self.assertEqual(view.account, outcome.account)
        self.assertEqual(view.password.works, alone.password.works)
        self.assertEqual((view.home, view.account.display_name), (alone.home, "Tomas Novak"))
        trails = [handlers.list_audit(self.store, f"{name}@fabrik.example") for name in ("Petra", "Tomas")]
        shapes = [
            [(row.actor, row.action, list(json.loads(row.before)), sorted(json.loads(row.after)))]
            for (row,) in trails
        ]
        self.assertEqual(shapes[0], shapes[1])
        self.assertIs(handlers.check_audit(self.store), None)
        with self.store.read() as reading:
            petra, tomas = (
                reading.account(f"im.fabrik.example/instmsg/aliases/{name}") for name in ("petra", "tomas")
            )
        assert petra is not None and tomas is not None
        self.assertEqual(len(tomas.verifiers), len(petra.verifiers))

    def test_batches(self) -> None:
        """Each batch is in the directory when it is told of, and caches learn of every user of it."""
        with self.store.read() as reading:
            start = reading.position()
        rows = [Wanted(f"u{number}@fabrik.example") for number in range(7)]
        seen = []
        for batch in enable_many(self.store, rows, batch=3, actor="ann"):
            seen.append(batch.seen)
            self.assertEqual(len(handlers.list_users(self.store)), batch.seen)
        self.assertEqual(seen, [3, 6, 7])
        with self.store.read() as reading:
            self.assertEqual(len(reading.changes_since(start).keys), 7)
            self.assertEqual(sorted(reading.home_loads().values()), [3, 4])
        self.assertIs(handlers.check_audit(self.store), None)

    def test_refused(self) -> None:
        """A row that cannot be had is told with its reason, and stops nobody."""
        batches = self._enable(
            Wanted("good@fabrik.example"),
            Wanted("bad@elsewhere.example", number=2),
            Wanted("far@fabrik.example", home="hs9"),
            Wanted("weak@fabrik.example", password="x"),
            Wanted("also@fabrik.example"),
        )
        self.assertEqual(self._what(batches), [NEW, REFUSED, REFUSED, REFUSED, NEW])
        reasons = [one.reason for batch in batches for one in batch.refused]
        for reason, words in zip(reasons, ("serves", 'no home "hs9"', "too short"), strict=True):
            self.assertIn(words, reason)
        self.assertEqual(
            [one.address for one in handlers.list_users(self.store)],
            ["also@fabrik.example", "good@fabrik.example"],
        )

    def test_twice_in_the_list(self) -> None:
        """Somebody who is named twice is enabled once, whatever the letter case and the batch, dry or not."""
        rows = [Wanted("petra@fabrik.example"), Wanted("PETRA@fabrik.example")]
        for dry_run in (True, False):
            for batch in (1, 2):
                batches = self._enable(*rows, batch=batch, dry_run=dry_run)
                first = NEW if dry_run or batch == 1 else PRESENT
                self.assertEqual(self._what(batches)[0], first)
                if first is NEW:
                    self.assertIn("twice", batches[-1].outcomes[-1].reason)

    def test_again(self) -> None:
        """Run again after an interruption, who is enabled stays as he was, and nothing is recorded of it."""
        rows = [Wanted(f"u{number}@fabrik.example", password="Blue-Kite-41") for number in range(5)]
        next(iter(enable_many(self.store, rows, batch=2, actor="ann")))
        self.assertEqual(len(handlers.list_users(self.store)), 2)
        before = handlers.show_user(self.store, "u0@fabrik.example").password.since
        self.assertEqual(self._what(self._enable(*rows)), [PRESENT, PRESENT, NEW, NEW, NEW])
        self.assertEqual(handlers.show_user(self.store, "u0@fabrik.example").password.since, before)
        trail = len(handlers.list_audit(self.store))
        self.assertEqual(self._what(self._enable(*rows)), [PRESENT] * 5)
        self.assertEqual(len(handlers.list_audit(self.store)), trail)

    def test_returning(self) -> None:
        """Who was disabled comes back with the password and the settings of before, unless given others."""
        for name in ("petra", "tomas"):
            handlers.enable_user(self.store, f"{name}@fabrik.example", password="Blue-Kite-41", actor="ann")
            handlers.change_user_policy(self.store, name, "nt-hashes", "forbidden", actor="ann")
            handlers.disable_user(self.store, name, actor="ann")
        before = handlers.show_user(self.store, "petra").password.since
        rows = [
            Wanted("petra@fabrik.example", display_name="Petra"),
            Wanted("tomas@fabrik.example", password="Red-Sparrow-52"),
        ]
        self.assertEqual(self._what(self._enable(*rows)), [RETURNED, RETURNED])
        petra, tomas = (handlers.show_user(self.store, name) for name in ("petra", "tomas"))
        self.assertTrue(petra.account.enabled and tomas.account.enabled)
        self.assertEqual((petra.account.display_name, petra.password.since), ("Petra", before))
        self.assertNotEqual(tomas.password.since, before)
        self.assertEqual(tomas.schemes, ("digest-md5", "digest-sha-256"))
        (row,) = handlers.list_audit(self.store, "tomas@fabrik.example", 1)
        self.assertEqual(json.loads(row.before)["schemes"], ["digest-md5", "digest-sha-256"])
        self.assertIs(handlers.check_audit(self.store), None)

    def test_dry_run(self) -> None:
        """Only said, nothing done."""
        batches = self._enable(Wanted("petra@fabrik.example"), Wanted("x@y.example"), dry_run=True)
        self.assertEqual(self._what(batches), [NEW, REFUSED])
        self.assertEqual(handlers.list_users(self.store), [])

    def test_no_key(self) -> None:
        """Passwords without a farm key fail as a whole, and are not refused one by one."""
        bare = Store(f"sqlite:///{self.store.path}")
        self.addCleanup(bare.close)
        rows = [Wanted("petra@fabrik.example", password="Blue-Kite-41")]
        problem = self.assertRaises(StoreProblem, list, enable_many(bare, rows, actor="ann"))
        self.assertIn("--key-file", str(problem))
        self.assertEqual(handlers.list_users(self.store), [])
