"""Tests of L{rvpfarm.tap.farm}."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.tap.farm import FarmService, Options, child_arguments
from rvpfarm.tap.home import Options as HomeOptions
from rvpfarm.tap.nameserver import Options as NameServerOptions
from rvpfarm.tap.router import Options as RouterOptions
from rvpfarm.tap.state import State
from tests.tap.test_plan import plan_of


class FakeChildren(Service):
    """Children that end when the test says so."""

    def __init__(self, failing: Any) -> None:
        self.failing = failing
        self.stopped: Deferred[None] = Deferred()

    def log_path(self, name: str) -> Path:
        """A log that is not there."""
        return Path("/nonexistent") / name

    def stopService(self) -> Deferred[None]:
        """Not at once."""
        super().stopService()
        return self.stopped


class OptionsTests(SynchronousTestCase):
    """What can be changed about the demo."""

    def parse(self, *arguments: str) -> Options:
        """The options."""
        options = Options()
        options.parseOptions(arguments)
        return options

    def test_defaults(self) -> None:
        """Without options it is the demo of the documentation."""
        self.patch(os, "environ", {})
        options = self.parse()
        self.assertEqual(options["plan"], plan_of())
        self.assertEqual(options["state-dir"], "demo")

    def test_environment(self) -> None:
        """The state directory may come from the environment."""
        self.patch(os, "environ", {"RVPFARM_DEMO_STATE": "/srv/x"})
        self.assertEqual(self.parse()["state-dir"], "/srv/x")
        self.assertEqual(self.parse("--state-dir", "y")["state-dir"], "y")

    def test_everything_can_be_changed(self) -> None:
        """Every address, the domain and the users."""
        given = (
            "--router 127.0.0.3:80 --home 127.0.0.4:80/90 --home 127.0.0.5:80 --dns 127.0.0.6:53 "
            "--metrics 127.0.0.7:9000 --domain Corp.Test --user Ann --user ben"
        )
        plan = self.parse(*given.split())["plan"]
        self.assertEqual(
            [(str(member.listen), str(member.metrics)) for member in plan.members],
            [
                ("127.0.0.3:80", "127.0.0.7:9000"),
                ("127.0.0.4:80", "127.0.0.7:9001"),
                ("127.0.0.5:80", "127.0.0.7:9002"),
                ("127.0.0.6:53", "127.0.0.7:9003"),
            ],
        )
        self.assertEqual(str(plan.homes[0].link), "127.0.0.4:90")
        self.assertEqual((plan.mail_domain, plan.im_domain), ("corp.test", "im.corp.test"))
        self.assertEqual(plan.aliases, ("ann", "ben"))

    def test_nonsense(self) -> None:
        """A malformed address is refused before anything is made."""
        self.assertRaises(UsageError, self.parse, "--router", "8080")

    def test_the_reactor_stays_open(self) -> None:
        """The options of the farm choose no reactor: it has children, and uvloop is no good for that."""
        self.assertFalse(hasattr(Options, "environment"))


class ChildArgumentsTests(SynchronousTestCase):
    """Each child understands what it is told."""

    def test_arguments(self) -> None:
        """The options of routers, homes and the name server are theirs, and say the right thing."""
        plan, state = plan_of(), State(Path("/srv/demo"))
        kinds = {"router": RouterOptions, "home": HomeOptions, "dns": NameServerOptions}
        for member in plan.members:
            plugin, *arguments = child_arguments(member, plan, state)
            self.assertEqual(plugin, f"rvp-{member.role}")
            options = kinds[member.role]()
            options.parseOptions(arguments)
            self.assertEqual(options["name"], member.name)
            self.assertEqual(options["metrics"], member.metrics)
            self.assertEqual(options["directory"], "sqlite:////srv/demo/directory.sqlite")
            self.assertEqual(options["key-file"], "/srv/demo/farm.key")
            snapshots = {"router": f"{member.name}.snapshot", "home": f"{member.name}/directory.snapshot"}
            if member.role in snapshots:
                self.assertEqual(options["snapshot"], f"/srv/demo/{snapshots[member.role]}")
            if member.role == "dns":
                self.assertEqual((options["zone"], options["listen"]), ("farm.localhost", member.listen))
            else:
                expected = f"fast:tcp:{member.listen.port}:interface={member.listen.host}"
                self.assertEqual(options["listen"], expected)
            if member.link is not None:
                self.assertEqual(options["link"], f"fast:tcp:8081:interface={member.link.host}")
                self.assertEqual(options["state-dir"], f"/srv/demo/{member.name}")


class FarmServiceTests(SynchronousTestCase):
    """The farm is announced when it serves, and ends as a whole."""

    def setUp(self) -> None:
        """A farm with children of our own."""
        self.reactor = MemoryReactorClock()
        self.lock = io.StringIO()
        self.said: list[str] = []
        self.failed: list[bool] = []
        self.farm = FarmService(
            self.reactor,
            FakeChildren,
            plan_of(),
            self.lock,
            lambda: self.said.append("ready"),
            self.said.append,
            fail=lambda: self.failed.append(True),
        )
        self.farm.startService()

    def stop(self) -> Deferred[Any]:
        """Stop, with the children gone at once."""
        self.farm.children.stopped.callback(None)
        return self.farm.stopService()

    def test_asks_everybody(self) -> None:
        """Every process's health is asked for at its place."""
        asked = [(host, port) for host, port, *_rest in self.reactor.tcpClients]
        self.assertEqual(asked, [("127.0.0.1", port) for port in range(9464, 9469)])
        self.successResultOf(self.stop())

    def test_ready(self) -> None:
        """When all have answered it is announced."""
        for _host, _port, factory, _timeout, _bind in list(self.reactor.tcpClients):
            self.assertEqual(self.said, [])
            Answering(factory.buildProtocol(None)).answer()
        self.assertEqual(self.said, ["ready"])
        self.farm.children.failing("home1", "exit status 1")
        self.assertEqual(self.failed, [])
        self.assertIn("home1 keeps ending (exit status 1)", self.said[1])
        self.successResultOf(self.stop())

    def test_a_child_that_never_comes_up(self) -> None:
        """Before that, a child that keeps dying ends the farm, with a failure and a sentence."""
        self.farm.children.failing("home1", "exit status 1")
        self.assertIn("home1 keeps ending (exit status 1)", self.said[0])
        self.assertEqual(self.failed, [True])
        self.assertTrue(self.reactor.hasStopped)
        self.successResultOf(self.stop())

    def test_stop_waits(self) -> None:
        """The state is let go when the last child is gone, not before."""
        stopped = self.farm.stopService()
        self.assertNoResult(stopped)
        self.assertFalse(self.lock.closed)
        self.farm.children.stopped.callback(None)
        self.successResultOf(stopped)
        self.assertTrue(self.lock.closed)


class Answering(StringTransport):
    """A connection whose other end says that it is ready as soon as it is asked."""

    def __init__(self, protocol: Any) -> None:
        super().__init__()
        self.protocol = protocol

    def write(self, data: bytes) -> None:
        """The question is the cue."""
        self.protocol.dataReceived(b"HTTP/1.0 200 OK\r\n\r\nready\n")

    def answer(self) -> None:
        """The whole conversation."""
        self.protocol.makeConnection(self)
        self.protocol.connectionLost(Failure(ConnectionDone()))
