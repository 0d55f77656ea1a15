"""C{rvpfarm status}, C{home set} and C{router set}, as they are typed."""

from __future__ import annotations

import json
from typing import Any

from click.testing import CliRunner, Result
from prometheus_client import CollectorRegistry
from twisted.internet.task import Clock

from rvpfarm.admin.command import rvpfarm
from rvpfarm.observe.health import HealthServer
from rvpfarm.observe.status import Status
from tests.admin.test_command import CommandCase


class ServerCase(CommandCase):
    """A small farm whose servers show their status pages in this process."""

    def setUp(self) -> None:
        """Two homes and a router; nobody knows where they show themselves."""
        super().setUp()
        self.make_farm()
        self.states = {"hs1": "up", "hs2": "up"}

    def serve(self, role: str, name: str, **facts: Any) -> HealthServer:
        """Have a server show its page, and the directory say where."""
        reasons: list[str] = facts.pop("reasons", [])
        status = Status(role=role, name=name, ready=lambda: reasons)
        for fact, value in facts.items():
            status.show(fact, lambda value=value: value)  # type: ignore[misc]
        if role == "router":
            status.show("homes", lambda: [{"name": name, "state": self.states[name]} for name in self.states])
        registry = CollectorRegistry()
        server = HealthServer("127.0.0.1", 0, registry, clock=Clock(), status=status.render)
        server.startService()
        self.addCleanup(server.stopService)
        self.run_it(role, "set", name, "--metrics", f"127.0.0.1:{server.port}")
        return server

    def serve_all(self) -> None:
        """All is well."""
        for name in ("hs1", "hs2"):
            self.serve("home", name, users_online=7, connections=3, in_work=0)
        self.serve("router", "r1", connections=12, in_work=1, directory={"staleness_seconds": 0.5})

    def status(self, *args: str, status: int = 0) -> Result:
        """Run C{rvpfarm status}, which says everything on standard output whatever it finds."""
        result = CliRunner().invoke(
            rvpfarm, ["status", "--timeout", "30", *args], env={"RVPFARM_DIRECTORY": self.url}
        )
        self.assertEqual((result.exit_code, result.stderr), (status, ""), result.output)
        return result


class StatusTests(ServerCase):
    """C{rvpfarm status}"""

    def test_well(self) -> None:
        """A line for each server, a line for each home, and status 0."""
        self.serve_all()
        lines = self.status().stdout.splitlines()
        self.assertEqual(lines[0].split()[:3], ["server", "role", "state"])
        self.assertRegex(lines[1], r"^r1 +router +ready +\S+ +\d+ s +12 +1 +2 of 2 +0 s old$")
        self.assertRegex(lines[2], r"^hs1 +home +ready +\S+ +\d+ s +3 +0 +7$")
        self.assertRegex(lines[6], r"^hs1 +up at r1$")
        self.assertEqual(lines[-1], "All is well.")

    def test_not_well(self) -> None:
        """What is wrong is said in sentences, and status 1."""
        self.serve_all()
        self.states["hs2"] = "down"
        self.serve("home", "hs1", reasons=["not listening"])
        lines = self.status(status=1).stdout.splitlines()
        self.assertEqual(
            lines[-2:], ["Not well: home hs1: not ready: not listening.", "Not well: home hs2: down at r1."]
        )

    def test_nobody_knows_where(self) -> None:
        """A server whose place is not in the directory cannot be said to be well."""
        shown = self.status(status=1).stdout
        self.assertIn("unknown place", shown)
        self.assertIn("rvpfarm router set r1 --metrics ADDRESS:PORT", shown)

    def test_some(self) -> None:
        """Only the servers that are named, or of a role, are asked."""
        self.serve_all()
        self.serve("home", "hs1", reasons=["not listening"])
        self.assertNotIn("hs1", self.status("HS2").stdout)
        self.assertNotIn("home  ", self.status("--role", "router").stdout.splitlines()[1])
        self.assertIn("hs1", self.status("hs1", status=1).stdout)
        refused = self.run_it("status", "hs9", "r1", status=1)
        self.assertEqual(
            refused.stderr, "rvpfarm: status: there is no server called hs9; there is hs1, hs2, r1\n"
        )
        self.assertIn(
            "no router called hs1", self.run_it("status", "--role", "router", "hs1", status=1).stderr
        )

    def test_for_programs(self) -> None:
        """With C{--json} the keys are those that the help names, whatever is known."""
        self.serve_all()
        self.run_it("home", "create", "hs3", "--host", "hs3.fabrik.example")
        shown = json.loads(self.status("--json", status=1).stdout)
        words = " ".join(self.run_it("status", "--help").stdout.split())
        self.assertEqual(list(shown), ["well", "problems", "versions", "servers", "homes"])
        self.assertEqual(
            list(shown["servers"][0]),
            [
                "role",
                "name",
                "worker",
                "state",
                "reason",
                "place",
                "version",
                "pid",
                "started",
                "uptime_seconds",
                "connections",
                "in_work",
                "homes_up",
                "homes_known",
                "users_online",
                "staleness_seconds",
            ],
        )
        self.assertEqual(list(shown["homes"][0]), ["name", "disagree", "seen"])
        seen = shown["homes"][0]["seen"]
        self.assertEqual(list(seen[0]), ["router", "state", "circuit", "flapping", "since_seconds"])
        keys = {*shown, *shown["servers"][0], *shown["homes"][0], *seen[0]}
        self.assertEqual([key for key in keys if key not in words], [])
        self.assertEqual({len(server) for server in shown["servers"]}, {16})
        self.assertEqual((shown["well"], shown["servers"][0]["homes_up"]), (False, 2))

    def test_workers(self) -> None:
        """The other processes of a server are asked as well, at the ports that follow."""
        self.serve_all()
        self.serve("router", "r1", workers=2)
        self.assertIn("Not well: router r1/1 at 127.0.0.1:", self.status(status=1).stdout)

    def test_no_servers(self) -> None:
        """A farm without servers is said to have none."""
        for command in ("init",):
            self.run_it("--directory", f"{self.url}.empty", command)
        shown = self.run_it("--directory", f"{self.url}.empty", "status").stdout
        self.assertIn("There is no home or router yet.", shown)

    def test_no_directory(self) -> None:
        """Without the directory nobody can be asked, which is one sentence."""
        refused = self.run_it("--directory", f"{self.url}.none", "status", status=1)
        self.assertEqual(len(refused.stderr.splitlines()), 1)
        self.assertIn("there is no directory at", refused.stderr)


class SetTests(ServerCase):
    """C{home set} and C{router set}"""

    def test_set(self) -> None:
        """What is given changes, and what came of it is said."""
        self.assertEqual(
            self.run_it(
                "home", "set", "HS1", "--metrics", "192.0.2.11:9464", "--address", "192.0.2.11"
            ).stdout,
            "Home hs1 is at 192.0.2.11; metrics: 192.0.2.11:9464.\n",
        )
        self.assertEqual(
            self.run_it("home", "set", "hs1", "--metrics", "", "--address", "").stdout,
            "Home hs1 is at whatever hs1.fabrik.example resolves to; metrics: nowhere.\n",
        )
        self.run_it("router", "set", "r1", "--metrics", "r1.fabrik.example:9464")
        (listed,) = json.loads(self.run_it("router", "list", "--json").stdout)
        self.assertEqual((listed["metrics"], listed["address"]), ("r1.fabrik.example:9464", "192.0.2.1"))

    def test_made_with(self) -> None:
        """New servers can be given their place at once."""
        self.run_it(
            *("home", "create", "hs3", "--host", "hs3.fabrik.example", "--metrics", "[2001:DB8::3]:9464")
        )
        listed = json.loads(self.run_it("home", "list", "--json").stdout)
        self.assertEqual(listed[2]["metrics"], "[2001:db8::3]:9464")
        self.run_it(
            *("router", "create", "r2", "--host", "im.fabrik.example", "--address", "192.0.2.2"),
            *("--metrics", "192.0.2.2:9464"),
        )
        self.run_it("home", "create", "hs4", "--host", "hs4.fabrik.example", "--metrics", "9464", status=1)

    def test_fixed(self) -> None:
        """What others rely on cannot change, and why is said."""
        for noun, option, words in (
            ("home", "--host", "users' URLs"),
            ("home", "--port", "users' URLs"),
            ("home", "--link-port", "all members"),
            ("router", "--host", "published in DNS"),
            ("router", "--port", "published in DNS"),
        ):
            refused = self.run_it(noun, "set", "r1", option, "81", status=1).stderr
            self.assertIn(words, refused)
            self.assertTrue(refused.startswith(f"rvpfarm: {noun} set: "), refused)

    def test_wrong_usage(self) -> None:
        """Something has to change."""
        self.run_it("home", "set", "hs1", status=2)
        self.run_it("home", "set", "--metrics", "192.0.2.1:1", status=2)
