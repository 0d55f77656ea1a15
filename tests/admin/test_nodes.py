"""Groups and devices on the command line."""

from __future__ import annotations

import json

from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.admin import handlers
from rvpfarm.admin.checks import Refused
from rvpfarm.admin.command import rvpfarm
from rvpfarm.admin.nodes import create_node, find_node, list_nodes, remove_node
from tests.support.store import make_farm_store, make_folder


class NodeTests(SynchronousTestCase):
    """A group or device is made, listed and removed, and belongs to somebody."""

    def setUp(self) -> None:
        """A farm with one user."""
        self.store = make_farm_store(self)
        handlers.enable_user(self.store, "petra@fabrik.example")

    def test_made(self) -> None:
        """It is at its path, on a home, and its owner is the user's key; users do not list it."""
        made = create_node(
            self.store, "/groups/Shipping", "petra@fabrik.example", display_name="Shipping dept."
        )
        self.assertEqual(made.key, "im.fabrik.example/groups/shipping")
        self.assertEqual(made.url, "http://im.fabrik.example/groups/Shipping")
        self.assertEqual(made.owner_key, "im.fabrik.example/instmsg/aliases/petra")
        self.assertEqual(list_nodes(self.store), [made])
        self.assertEqual([user.alias for user in handlers.list_users(self.store)], ["petra"])

    def test_refused(self) -> None:
        """Nonsense is refused in a sentence: bad paths, users' places, unknown owners, what is there."""
        create_node(self.store, "/groups/shipping", "petra@fabrik.example")
        for path, owner in (
            ("groups/shipping", "petra@fabrik.example"),
            ("/groups", "petra@fabrik.example"),
            ("/groups/a b", "petra@fabrik.example"),
            ("/groups/../x", "nobody@fabrik.example"),
            ("/instmsg/aliases/olga", "petra@fabrik.example"),
            ("/GROUPS/Shipping", "petra@fabrik.example"),
            ("/groups/x", "nobody@fabrik.example"),
        ):
            with self.subTest(path=path, owner=owner):
                self.assertRaises(Refused, create_node, self.store, path, owner)

    def test_removed(self) -> None:
        """It is gone, and cannot be removed twice."""
        create_node(self.store, "/devices/till-4", "petra@fabrik.example", kind="device")
        remove_node(self.store, "/devices/till-4")
        self.assertEqual(list_nodes(self.store), [])
        self.assertRaises(Refused, remove_node, self.store, "/devices/till-4")
        self.assertRaises(Refused, find_node, self.store, "/instmsg/aliases/petra")

    def test_commands(self) -> None:
        """C{node create}, C{list} and C{remove}, which can be rehearsed."""

        def say(*words: str) -> str:
            url = self.store.where
            key = make_folder(self) / "unused"
            done = CliRunner().invoke(rvpfarm, ["--directory", url, "--key-file", str(key), "node", *words])
            self.assertEqual(done.exit_code, 0, done.output)
            return done.stdout

        self.assertIn(
            "Created the group http://im.fabrik.example/groups/x",
            say("create", "/groups/x", "--owner", "petra@fabrik.example"),
        )
        (row,) = json.loads(say("list", "--json"))
        self.assertEqual(row["owner"], "http://im.fabrik.example/instmsg/aliases/petra")
        self.assertIn("Would remove", say("remove", "/groups/x", "--dry-run"))
        self.assertIn("/groups/x", say("list"))
        say("remove", "/groups/x", "--yes")
        self.assertIn("no group or device", say("list"))
