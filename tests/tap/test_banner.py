"""Tests of L{rvpfarm.tap.banner}."""

from __future__ import annotations

import shlex
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.tap.banner import render_banner
from rvpfarm.tap.state import State, User
from tests.tap.test_plan import plan_of

USERS = (
    User("alice", "alice@farm.localhost", "home1", "bcd-fgh"),
    User("bob", "bob@farm.localhost", "home2", "it's $5"),
)


class BannerTests(SynchronousTestCase):
    """Whoever starts a farm learns how to use it."""

    def setUp(self) -> None:
        """The banner of the usual farm."""
        self.text = render_banner(
            plan_of(), USERS, State(Path("/srv/demo")), ".venv/bin/rvp", ".venv/bin/rvpfarm"
        )

    def command(self, beginning: str) -> str:
        """The line to paste that begins so."""
        (line,) = (line.strip() for line in self.text.splitlines() if line.strip().startswith(beginning))
        return line

    def test_everything_is_named(self) -> None:
        """Users, passwords, homes, and the addresses of everything."""
        for part in (
            "two routers, two homes",
            "alice@farm.localhost  bcd-fgh  on home1",
            "http://127.0.0.1:8080",
            "http://127.0.0.2:8080",
            "http://127.0.0.11:8080",
            "http://127.0.0.12:8080",
            "127.0.0.1:5300 (UDP and TCP)",
            "http://127.0.0.1:9464/metrics",
            "http://127.0.0.1:9467/metrics",
            "/srv/demo",
        ):
            self.assertIn(part, self.text)

    def test_curl(self) -> None:
        """The login can be pasted."""
        words = shlex.split(self.command("curl --digest"))
        self.assertEqual(words[:4], ["curl", "--digest", "-u", "alice:bcd-fgh"])
        self.assertEqual(words[-1], "http://im.farm.localhost:8080/instmsg/aliases/alice")
        self.assertNotIn("--resolve", words)

    def test_curl_elsewhere(self) -> None:
        """Where curl would not find the router by itself it is told."""
        plan = plan_of(routers=("127.0.0.5:8088",))
        text = render_banner(plan, USERS, State(Path("/srv/demo")), "rvp", "rvpfarm")
        self.assertIn("--resolve im.farm.localhost:8088:127.0.0.5", text)
        self.assertIn("one router,", text)

    def test_rvp(self) -> None:
        """Watching and sending can be pasted, whatever is in a password."""
        watch = shlex.split(self.command("RVP_PASSWORD='it"))
        self.assertEqual(watch[:4], ["RVP_PASSWORD=it's $5", ".venv/bin/rvp", "--as", "bob@farm.localhost"])
        self.assertEqual(watch[-4:], ["--dns", "127.0.0.1:5300", "watch", "alice@farm.localhost"])
        send = shlex.split(self.command("RVP_PASSWORD=bcd"))
        self.assertEqual(send[-3:], ["send", "bob@farm.localhost", "Hello from alice"])

    def test_metrics(self) -> None:
        """The metrics can be pasted."""
        self.assertEqual(self.command("curl -s"), "curl -s http://127.0.0.1:9464/metrics | grep '^rvp_'")

    def test_status(self) -> None:
        """The state of the farm can be pasted."""
        words = shlex.split(self.command(".venv/bin/rvpfarm"))
        self.assertEqual(words[1:], ["--directory", "sqlite:////srv/demo/directory.sqlite", "status"])

    def test_unknown_password(self) -> None:
        """A password that somebody changed is not shown, but how to come by a new one is."""
        users = (User("alice", "alice@farm.localhost", "home1", "", enabled=False), USERS[1])
        text = render_banner(plan_of(), users, State(Path("/srv/demo")), "rvp", "rvpfarm")
        self.assertIn("RVPFARM_DEMO_PASSWORD", text)
        self.assertIn("disabled, on home1", text)
        self.assertIn("alice:PASSWORD", text)
