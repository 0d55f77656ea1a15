"""Tests of L{rvpfarm.tap.home}: what C{rvp-home} is made of, on a real reactor."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import TestCase

from rvpfarm.admin import handlers
from rvpfarm.observe.health import HealthServer
from rvpfarm.tap.home import Options, makeService
from rvpfarm.web.listening import ListeningService
from tests.support.processes import free_ports
from tests.support.store import make_folder, open_store


class HomeProcessTests(TestCase):
    """One process runs as many homes as it is told, and says when it is ready."""

    timeout = 60

    def setUp(self) -> None:
        """A directory with three homes, two of which have one place."""
        self.folder = make_folder(self)
        store = open_store(self, self.folder)
        handlers.init(store)
        handlers.add_domain(store, "im.fabrik.example")
        self.port, other, *links, self.health = free_ports(6)
        places = (("hs1", self.port), ("hs2", self.port), ("hs3", other))
        for (name, port), link in zip(places, links, strict=True):
            handlers.create_home(store, name, f"{name}.fabrik.example", port, link, "127.0.0.1")

    def build(self, *arguments: str) -> None:
        """Build the process."""
        options = Options()
        options.parseOptions(
            [
                *("--directory", f"sqlite:///{self.folder / 'directory.sqlite'}"),
                *("--state-dir", str(self.folder / "state"), "--metrics", f"127.0.0.1:{self.health}"),
                *arguments,
            ]
        )
        self.top = makeService(options, reactor)

    def unready(self) -> Sequence[str]:
        """The reasons why no work should be sent there."""
        (health,) = (service for service in self.top if isinstance(service, HealthServer))
        return health._pages._ready()

    def listeners(self) -> int:
        """How many places it listens at."""
        return sum(isinstance(service, ListeningService) for service in self.top)

    def stop(self) -> Deferred[None]:
        """Stop the process."""
        return maybeDeferred(self.top.stopService)

    def test_ready(self) -> Deferred[None]:
        """Places are taken before anything starts, and the homes are ready when everything has started."""
        self.build("--name", "hs1,hs2,hs3")
        self.assertEqual(self.listeners(), 5)  # two of callers, three of farm members
        self.top.privilegedStartService()
        self.assertEqual(list(self.unready()), ["not listening"])
        self.top.startService()
        self.assertEqual(list(self.unready()), [])
        found = sorted(file.parent.name for file in (self.folder / "state").glob("*/home.sqlite"))
        self.assertEqual(found, ["hs1", "hs2", "hs3"])
        return self.stop().addCallback(lambda _: self.assertEqual(list(self.unready()), ["not listening"]))

    def test_alone(self) -> Deferred[None]:
        """A home that runs alone has its state where it always was."""
        self.build("--name", "hs1")
        self.assertEqual(self.listeners(), 2)
        self.top.privilegedStartService()
        self.top.startService()
        self.assertTrue((self.folder / "state" / "home.sqlite").exists())
        return self.stop()

    def test_listen(self) -> None:
        """One place can be given instead of the directory's, but not instead of two."""
        self.build("--name", "hs1,hs2", "--listen", f"tcp:{self.port}")
        self.assertEqual(self.listeners(), 3)
        refused = self.assertRaises(
            SystemExit, self.build, "--name", "hs1,hs3", "--listen", f"tcp:{self.port}"
        )
        self.assertIn("--listen is one place", str(refused))
