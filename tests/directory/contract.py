"""What every L{rvpfarm.directory.model.Directory} promises, as one test class for all of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rvpfarm.directory.model import Account, Directory, DirectoryUnavailable, Domain, Farm, Home

if TYPE_CHECKING:
    from twisted.trial.unittest import SynchronousTestCase

    class _Case(SynchronousTestCase):
        """A mixin is given its methods by the class it is mixed into."""
else:
    _Case = object

HS1 = Home("id-1", "hs1", "hs1.fabrik.example", 80, 8081)
HS2 = Home("id-2", "hs2", "hs2.fabrik.example", 80, 8081)
FABRIK = Domain("im.fabrik.example", ("fabrik.example",))


class DirectoryContract(_Case):
    """Tests over L{make}, L{put}, L{set_policy}, L{break_down} and L{settle}, which a subclass provides.

    A directory starts with the domain L{FABRIK}, the homes L{HS1} and L{HS2}, and nobody in it.
    """

    def make(self) -> Directory:
        """A directory that serves."""
        raise NotImplementedError

    def put(self, account: Account) -> None:
        """Somebody else adds or replaces an account."""
        raise NotImplementedError

    def set_policy(self, name: str, value: str) -> None:
        """Somebody else changes a farm-wide setting."""
        raise NotImplementedError

    def break_down(self) -> None:
        """What is behind the directory cannot be asked from now on."""
        raise NotImplementedError

    def settle(self) -> None:
        """Let everything happen that waits for threads or time."""
        raise NotImplementedError

    def setUp(self) -> None:
        """One directory, and who was told what."""
        self.directory = self.make()
        self.told: list[str | None] = []
        self.directory.watch(self.told.append)

    def account(self, alias: str, home: Home = HS1) -> Account:
        """An account of L{FABRIK}."""
        path = f"/instmsg/aliases/{alias}"
        return Account(
            id=f"id-{alias.lower()}",
            key=f"{FABRIK.name}{path}".lower(),
            kind="user",
            domain=FABRIK.name,
            path=path,
            alias=alias,
            home=home.id,
            enabled=True,
            display_name=alias,
            email="",
            address=f"{alias}@fabrik.example",
        )

    def find(self, key: str) -> Account | None:
        """The result of C{find}, which arrives once everything has settled."""
        found = self.directory.find(key)
        self.settle()
        return self.successResultOf(found)

    def test_farm_at_once(self) -> None:
        """The farm is known without waiting."""
        farm = self.directory.farm()
        self.assertIsInstance(farm, Farm)
        self.assertEqual(dict(farm.domains), {FABRIK.name: FABRIK})
        self.assertEqual(dict(farm.homes), {HS1.id: HS1, HS2.id: HS2})

    def test_find(self) -> None:
        """An account is found by its key, with its own letter case."""
        petra = self.account("Petra")
        self.put(petra)
        self.assertEqual(self.find(petra.key), petra)

    def test_find_nobody(self) -> None:
        """Nobody is C{None}, not a failure."""
        self.assertIs(self.find("im.fabrik.example/instmsg/aliases/nobody"), None)

    def test_peek_after_find(self) -> None:
        """What was found is remembered, and so is that there is nobody."""
        petra = self.account("Petra")
        nobody = "im.fabrik.example/instmsg/aliases/nobody"
        self.put(petra)
        self.settle()
        self.find(petra.key)
        self.find(nobody)
        self.assertEqual(self.directory.peek(petra.key), petra)
        self.assertIs(self.directory.peek(nobody), False)

    def test_peek_unknown(self) -> None:
        """Of a key that nobody asked for, nothing is known."""
        self.assertIs(self.directory.peek("im.fabrik.example/instmsg/aliases/never"), None)

    def test_forget(self) -> None:
        """After C{forget} the next C{find} asks again."""
        petra = self.account("Petra")
        self.put(petra)
        self.settle()
        self.find(petra.key)
        self.directory.forget(petra.key)
        self.assertIs(self.directory.peek(petra.key), None)
        self.assertEqual(self.find(petra.key), petra)
        self.assertEqual(self.directory.peek(petra.key), petra)

    def test_change_is_told_and_seen(self) -> None:
        """A changed account is told by its key, and found as it is now."""
        petra = self.account("Petra")
        self.put(petra)
        self.settle()
        self.find(petra.key)
        self.told.clear()
        moved = replace(petra, home=HS2.id)
        self.put(moved)
        self.settle()
        self.assertEqual(self.told, [petra.key])
        self.assertEqual(self.find(petra.key), moved)

    def test_nobody_becomes_somebody(self) -> None:
        """A new account is found though it was just remembered that there is none."""
        petra = self.account("Petra")
        self.find(petra.key)
        self.put(petra)
        self.settle()
        self.assertEqual(self.find(petra.key), petra)

    def test_farm_change_is_told(self) -> None:
        """A changed setting is told as C{None}, and the farm is another one."""
        before = self.directory.farm()
        self.set_policy("referral", "never")
        self.settle()
        self.assertEqual(self.told, [None])
        after = self.directory.farm()
        self.assertIsNot(after, before)
        self.assertEqual(after.policy("referral"), "never")
        self.assertGreater(after.generation, before.generation)

    def test_down(self) -> None:
        """When the directory cannot be asked, what is remembered serves on, and the rest fails as such."""
        petra = self.account("Petra")
        self.put(petra)
        self.settle()
        self.find(petra.key)
        self.break_down()
        self.settle()
        self.assertEqual(self.directory.peek(petra.key), petra)
        unknown = self.directory.find("im.fabrik.example/instmsg/aliases/unknown")
        self.settle()
        self.failureResultOf(unknown, DirectoryUnavailable)
        self.assertIn(FABRIK.name, self.directory.farm().domains)

    def test_nobody_while_down(self) -> None:
        """That there was nobody is no news of today: somebody may have been made since."""
        nobody = "im.fabrik.example/instmsg/aliases/nobody"
        self.find(nobody)
        self.break_down()
        self.settle()
        self.assertIs(self.directory.peek(nobody), None)
        unknown = self.directory.find(nobody)
        self.settle()
        self.failureResultOf(unknown, DirectoryUnavailable)
