"""Tests of L{rvpfarm.tap.router}."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.admin import handlers, servers
from rvpfarm.directory.cache import CachedDirectory
from rvpfarm.directory.standby import Standby
from rvpfarm.observe.health import HealthServer
from rvpfarm.tap.router import Options, makeService
from tests.support.store import make_farm_store, make_folder
from tests.support.threads import ThreadClock


class ListingTests(SynchronousTestCase):
    """A router keeps nothing: to add one is to start it, and to list it is for the DNS."""

    def setUp(self) -> None:
        """A directory that lists the router r1."""
        self.patch(os, "environ", {})
        folder = make_folder(self)
        self.store = store = make_farm_store(self, folder)
        handlers.create_router(store, "r1", "im.fabrik.example", actor="test")
        self.directory = f"sqlite:///{folder / 'directory.sqlite'}"
        self.warnings: list[str] = []
        globalLogPublisher.addObserver(self.note)
        self.addCleanup(globalLogPublisher.removeObserver, self.note)

    def note(self, event: Mapping[str, Any]) -> None:
        """Keep what is logged as a warning."""
        if getattr(event.get("log_level"), "name", "") == "warn":
            self.warnings.append(formatEvent(dict(event)))

    def make(self, *arguments: str) -> Any:
        """Build a router."""
        options = Options()
        options.parseOptions(["--directory", self.directory, *arguments])
        return makeService(options, ThreadClock())

    def test_listed(self) -> None:
        """A router that is listed is built without a warning, wherever it listens."""
        self.make("--name", "r1")
        self.make("--name", "r1", "--listen", "fast:tcp:8080")
        self.assertEqual(self.warnings, [])

    def test_unlisted(self) -> None:
        """One that is not listed works where it is told to listen, and says how to list it."""
        self.make("--name", "r9", "--listen", "fast:tcp:8080")
        (warning,) = self.warnings
        self.assertIn('does not list the router "r9"', warning)
        self.assertIn('"rvpfarm router create r9 --host HOST', warning)

    def test_listed_meanwhile(self) -> None:
        """One that is listed later follows its record from then on."""
        top = self.make("--name", "r9", "--listen", "fast:tcp:8080")
        (health,) = (service for service in top if isinstance(service, HealthServer))
        (directory,) = (service for service in top if isinstance(service, CachedDirectory))

        def says() -> tuple[object, object]:
            page = json.loads(health._pages.page("/status", "")[2])
            return page["draining"], page["reasons"]

        self.assertEqual(says(), (False, ["not listening"]))
        handlers.create_router(self.store, "r9", "im.fabrik.example", 8080, actor="test")
        servers.drain_router(self.store, "r9", actor="test")
        directory.load()
        self.assertEqual(says(), (True, ["draining"]))
        servers.remove_router(self.store, "r9", force=True, actor="test")
        directory.load()
        self.assertEqual(says(), (False, ["not listening"]))

    def test_worker(self) -> None:
        """A worker says which of how many it is, and only the first keeps the snapshot of the directory."""
        for seat, kept in (("0/3", True), ("2/3", False)):
            os.environ["RVPFARM_WORKER"] = seat
            top = self.make("--name", "r1", "--listen", "fast:tcp:8080")
            (health,) = (service for service in top if isinstance(service, HealthServer))
            page = json.loads(health._pages.page("/status", "")[2])
            self.assertEqual((page["workers"], page["worker"]), (3, int(seat[0])))
            self.assertIs(any(isinstance(service, Standby) for service in top), kept)

    def test_nowhere_to_listen(self) -> None:
        """One that is not listed, and not told where to listen, is refused."""
        problem = self.assertRaises(SystemExit, self.make, "--name", "r9")
        self.assertIn('the directory has no router "r9" (it has r1)', str(problem.code))
