"""What the admin API has running homes do, and that a rehearsal has them do nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rvpfarm.admin import handlers
from rvpfarm.admin.catalogue import OPERATIONS
from rvpfarm.admin.operations import Caller, perform
from tests.farm import test_sessions


@pytest.mark.farm
class HomesTests(test_sessions.FarmCase):
    """C{rvpfarm api} at a farm where alice is signed in, and bob watches her."""

    def setUp(self) -> None:
        """Sign in."""
        super().setUp()
        self.ear = self.log_in("alice")
        self.watch("bob", "alice")

    def api(self, *words: str) -> Any:  # JSON is of every shape
        """What an operation returns."""
        return json.loads(self.admin("api", *words).out)

    def modes(self) -> tuple[str, int, int]:
        """The mode of alice's access list, how many sessions she has, and how long the audit trail is."""
        acl = self.api("user.acl", "address=alice@farm.localhost")
        found = self.api("session.list", "user=alice@farm.localhost")
        self.assertEqual(found["silent"], {})
        return acl["after"]["mode"], len(found["sessions"]), len(self.api("audit.list"))

    def test_rehearsed(self) -> None:
        """Nothing happens at any home, though what would is told; then it does, for a clerk of hers too."""
        self.assertEqual(len(self.api("user.watchers", "address=alice@farm.localhost")["watchers"]), 1)
        before = self.modes()
        changed = ("user.acl.set", "address=alice@farm.localhost", "mode=contacts-only")
        sent = ("broadcast", "text=Moving at noon", "sender=dave@farm.localhost")
        killed = ("session.kill", "user=alice@farm.localhost")
        self.assertEqual(self.api(*changed, "--dry-run")["after"]["mode"], "contacts-only")
        self.assertEqual(self.api(*sent, "--dry-run")["recipients"], 1)
        self.assertEqual(len(self.api(*killed, "--dry-run")["sessions"]), 1)
        self.assertEqual(self.modes(), before)
        self.assertEqual([one for one in self.ear.heard if one.has("Moving at noon")], [])

        self.assertEqual(self.api(*sent)["tally"]["delivered"], 1)
        self.ear.wait(1, containing="Moving at noon")
        self.api(*changed)
        store = handlers.open_store(
            f"sqlite:///{self.farm.state / 'directory.sqlite'}", self.farm.state / "farm.key"
        )
        self.addCleanup(store.close)
        clerk = Caller("token:clerk/desk", frozenset({test_sessions.IM}))
        perform(store, OPERATIONS["session.kill"], clerk, {"user": "alice@farm.localhost"})
        self.assertEqual(handlers.list_audit(store)[-1].actor, clerk.actor)
        self.assertEqual(self.modes(), ("contacts-only", 0, before[2] + 3))
