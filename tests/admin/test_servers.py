"""Routers are drained before they go, and the last one is not lost by mistake."""

from __future__ import annotations

import json
import re

from rvpfarm.admin import handlers, servers
from rvpfarm.directory.model import Router
from tests.admin.test_command import CommandCase
from tests.admin.test_handlers import HandlerCase


class RouterTests(HandlerCase):
    """C{router drain|resume|remove}"""

    def setUp(self) -> None:
        """Two routers."""
        super().setUp()
        for number in (1, 2):
            name, address = f"r{number}", f"192.0.2.{number}"
            handlers.create_router(self.store, name, "im.fabrik.example", address=address)

    def routers(self) -> dict[str, str]:
        """The state of each router."""
        return {router.name: router.state for router in handlers.farm_of(self.store).routers.values()}

    def test_drain_and_resume(self) -> None:
        """The state is what changes, and the trail says who did it."""
        done = servers.drain_router(self.store, "R1", actor="ann")
        self.assertEqual((done.router.state, done.left), ("draining", 1))
        self.assertEqual(self.routers(), {"r1": "draining", "r2": "active"})
        row = handlers.list_audit(self.store)[-1]
        self.assertEqual((row.actor, row.action, row.subject), ("ann", "router drain", "r1"))
        self.refused("drains already", servers.drain_router, "r1")
        self.assertEqual(servers.resume_router(self.store, "r1").left, 2)
        self.assertEqual(self.routers(), {"r1": "active", "r2": "active"})
        self.refused("is active already", servers.resume_router, "r1")

    def test_remove(self) -> None:
        """An active router is not removed, unless somebody insists."""
        self.refused('first "rvpfarm router drain r1"', servers.remove_router, "r1")
        servers.drain_router(self.store, "r1")
        gone = servers.remove_router(self.store, "r1")
        self.assertIsInstance(gone.router, Router)
        self.assertEqual((gone.left, self.routers()), (1, {"r2": "active"}))
        handlers.create_router(self.store, "r3", "im.fabrik.example", address="192.0.2.3")
        servers.remove_router(self.store, "r3", force=True)
        self.assertEqual(self.routers(), {"r2": "active"})

    def test_last_one(self) -> None:
        """The last router that is active stays and is not drained, unless somebody insists."""
        servers.drain_router(self.store, "r1")
        self.refused("no other router is active", servers.drain_router, "r2")
        self.refused("no other router is active", servers.remove_router, "r2")
        self.assertEqual(servers.drain_router(self.store, "r2", force=True).left, 0)
        self.refused("no other router is active", servers.remove_router, "r1")
        for name in ("r1", "r2"):
            servers.remove_router(self.store, name, force=True)
        self.assertEqual(self.routers(), {})
        self.refused("the directory has none", servers.remove_router, "r1")

    def test_dry_run(self) -> None:
        """A rehearsal tells and changes nothing."""
        before = handlers.list_audit(self.store)
        self.assertEqual(servers.drain_router(self.store, "r1", dry_run=True).left, 1)
        self.assertEqual(servers.remove_router(self.store, "r1", force=True, dry_run=True).left, 1)
        self.assertEqual(
            (self.routers(), handlers.list_audit(self.store)), ({"r1": "active", "r2": "active"}, before)
        )

    def test_unknown(self) -> None:
        """A router that there is not is refused with those that there are."""
        for change in (servers.drain_router, servers.resume_router, servers.remove_router):
            self.refused("the directory has r1, r2", change, "r9")


class VerbTests(CommandCase):
    """The same, as an administrator types it."""

    def setUp(self) -> None:
        """A farm with two routers."""
        super().setUp()
        self.make_farm()
        self.run_it("router", "create", "r2", "--host", "r2.fabrik.example", "--address", "192.0.2.2")

    def test_life_of_a_router(self) -> None:
        """Drained, it says when it may be stopped; then it can be removed."""
        self.assertIn("nothing was changed", self.run_it("router", "drain", "r2", "--dry-run").stdout)
        told = self.run_it("router", "drain", "r2").stdout
        self.assertIn("Router r2 drains; 1 other is active.", told)
        self.assertRegex(told, r"for 60 seconds after .* may be stopped at \d\d:\d\d:\d\d UTC")
        self.assertRegex(self.run_it("router", "list").stdout, r"r2 +r2\.fabrik\.example +80 +draining")
        self.assertIn("nothing was changed", self.run_it("router", "resume", "r2", "--dry-run").stdout)
        self.assertIn("active again", self.run_it("router", "resume", "r2").stdout)
        self.assertIn("give --yes", self.run_it("router", "remove", "r2", status=1).stderr)
        self.run_it("router", "drain", "r2")
        self.assertIn("would be removed", self.run_it("router", "remove", "r2", "--dry-run").stdout)
        self.assertIn("Removed router r2; 1 other is active.", self.run_it("router", "remove", "r2").stdout)
        self.assertIn("nobody would find the farm", self.run_it("router", "remove", "r1", status=1).stderr)
        self.assertIn("nobody finds the farm", self.run_it("router", "remove", "r1", "--yes").stdout)

    def test_show_router(self) -> None:
        """It is shown with what clients are told of it."""
        facts = dict(
            re.split(r": +", line, maxsplit=1)
            for line in self.run_it("router", "show", "r2").stdout.splitlines()
        )
        self.assertEqual(
            (facts["Host"], facts["State"], facts["Led to"]), ("r2.fabrik.example", "active", "yes")
        )
        self.run_it("router", "drain", "r2")
        self.assertIn("the DNS plan leaves it out", self.run_it("router", "show", "r2").stdout)
        shown = json.loads(self.run_it("router", "show", "r2", "--json").stdout)
        words = self.run_it("router", "show", "--help").stdout
        self.assertTrue(all(key in words for key in shown))
        self.assertEqual((shown["state"], shown["published"]), ("draining", False))
        self.assertIn("the directory has r1, r2", self.run_it("router", "show", "r9", status=1).stderr)

    def test_show_home(self) -> None:
        """A home is shown with how many live there."""
        self.run_it("user", "enable", "petra@fabrik.example", "--home", "hs1", "--no-password")
        self.assertRegex(self.run_it("home", "show", "hs1").stdout, r"Accounts: +1\n")
        shown = json.loads(self.run_it("home", "show", "hs2", "--json").stdout)
        words = self.run_it("home", "show", "--help").stdout
        self.assertTrue(all(key in words for key in shown))
        self.assertEqual((shown["name"], shown["accounts"], shown["link_port"]), ("hs2", 0, 8081))
        self.assertIn("the directory has hs1, hs2", self.run_it("home", "show", "hs9", status=1).stderr)
