"""Administrators and tokens: shown once, checked by a hash, worth nothing once revoked or too old."""

from __future__ import annotations

import time

from rvpfarm.admin import handlers
from rvpfarm.admin.administrators import (
    add_administrator,
    create_token,
    find_by_token,
    list_administrators,
    remove_administrator,
    revoke_token,
)
from rvpfarm.admin.checks import Missing, Taken
from tests.admin.test_command import CommandCase
from tests.admin.test_handlers import HandlerCase

DOMAIN = "im.fabrik.example"


class AdministratorTests(HandlerCase):
    """Who administers, and as what."""

    def test_roles(self) -> None:
        """One of users has domains, one of the farm has none; a name is taken once."""
        self.assertEqual(add_administrator(self.store, "Petra", domains=[DOMAIN, DOMAIN]).domains, (DOMAIN,))
        add_administrator(self.store, "chief", "farm")
        self.assertEqual([one.name for one in list_administrators(self.store)], ["chief", "petra"])
        self.assertRaises(Taken, add_administrator, self.store, "petra", "farm")
        self.refused("--domain", add_administrator, "x")
        self.refused("--domain", add_administrator, "x", "farm", [DOMAIN])
        self.refused("no IM domain", add_administrator, "x", "user", ["im.nowhere.example"])
        self.refused("no role", add_administrator, "x", "king")

    def test_token(self) -> None:
        """A token proves its administrator until its end, and nothing near it does."""
        add_administrator(self.store, "petra", domains=[DOMAIN])
        made = create_token(self.store, "petra", "laptop", 2)
        now = time.time()
        found = find_by_token(self.store, made.text, now)
        assert found is not None
        self.assertEqual((found[0].name, found[0].domains, found[1].label), ("petra", (DOMAIN,), "laptop"))
        self.assertIsNone(find_by_token(self.store, made.text, made.token.until))
        for wrong in ("", "x", made.text[:-1], made.text + "x", "rvp__", f"rvp_{made.token.id}_", "rvp_é_é"):
            self.assertIsNone(find_by_token(self.store, wrong, now), wrong)
        self.refused("--days", create_token, "petra", "x", 0)

    def test_revoked(self) -> None:
        """A revoked token, and every token of one who administers no longer, is worth nothing at once."""
        add_administrator(self.store, "petra", domains=[DOMAIN])
        one, two = (create_token(self.store, "petra", label) for label in ("laptop", "desk"))
        revoke_token(self.store, "petra", "laptop")
        self.assertIsNone(find_by_token(self.store, one.text, time.time()))
        self.assertIsNotNone(find_by_token(self.store, two.text, time.time()))
        self.assertRaises(Missing, revoke_token, self.store, "petra", "laptop")
        remove_administrator(self.store, "petra")
        self.assertIsNone(find_by_token(self.store, two.text, time.time()))

    def test_nothing_secret_is_kept(self) -> None:
        """Neither the trail nor the database file has the token, nor a password that was set."""
        add_administrator(self.store, "petra", domains=[DOMAIN])
        text = create_token(self.store, "petra").text
        secret = text.rpartition("_")[2]
        handlers.enable_user(self.store, "tomasz@fabrik.example", password="Blue-Kite-41")
        handlers.set_password(self.store, "tomasz@fabrik.example", "Red-Boat-Nine")
        trail = "".join(row.before + row.after for row in handlers.list_audit(self.store))
        path = self.store.path
        assert path is not None
        self.store.close()
        kept = b"".join(one.read_bytes() for one in path.parent.glob("directory.sqlite*"))
        for word in (text, secret, "Blue-Kite-41", "Red-Boat-Nine"):
            self.assertNotIn(word, trail)
            self.assertNotIn(word.encode(), kept)


class AdminVerbTests(CommandCase):
    """C{rvpfarm admin}"""

    def test_life(self) -> None:
        """Added, given a token, listed, revoked, removed; what destroys asks."""
        self.make_farm()
        self.run_it("admin", "add", "petra", "--domain", DOMAIN)
        told = self.run_it("admin", "token", "create", "petra", "--label", "laptop").stdout
        self.assertIn("(not shown again)", told)
        self.assertIn(DOMAIN, self.run_it("admin", "list").stdout)
        self.assertIn("laptop", self.run_it("admin", "token", "list", "petra").stdout)
        self.assertNotIn("rvp_", self.run_it("admin", "token", "list", "petra", "--json").stdout)
        would = self.run_it("admin", "token", "revoke", "petra", "laptop", "--dry-run").stdout
        self.assertIn("nothing was changed", would)
        self.run_it("admin", "token", "revoke", "petra", "laptop", "--yes")
        self.assertIn("There is no token", self.run_it("admin", "token", "list", "petra").stdout)
        self.assertIn("would", self.run_it("admin", "remove", "petra", "--dry-run").stdout)
        self.run_it("admin", "remove", "petra", "--yes")
        self.assertIn("no administrator yet", self.run_it("admin", "list").stdout)
