"""C{rvpfarm status} on real processes, while one of them dies and comes back."""

from __future__ import annotations

import json
import re
from typing import Any
from unittest import TestCase

from tests.support.farmhouse import Farmhouse
from tests.support.processes import BIN, DemoFarm, Ran, run, scratch, wait_for


class KilledHomeTests(TestCase):
    """A home that dies is down for the routers and for whoever asks, until it is back."""

    def setUp(self) -> None:
        """Two homes and two routers, whose places the directory knows."""
        self.house = Farmhouse(homes=("hs1", "hs2"), routers=("router1", "router2"))
        self.addCleanup(self.house.close)
        for role, members in (("home", self.house.homes), ("router", self.house.routers)):
            for name, member in members.items():
                host, port = member.metrics
                done = self.admin(role, "set", name, "--metrics", f"{host}:{port}")
                self.assertEqual(done.status, 0, done.err)

    def admin(self, *words: str) -> Ran:
        """Run C{rvpfarm}."""
        return run(
            BIN / "rvpfarm", "--directory", f"sqlite:///{self.house.state / 'directory.sqlite'}", *words
        )

    def look(self) -> dict[str, Any]:
        """The state of the farm, as programs see it."""
        ran = self.admin("status", "--json", "--timeout", "10")
        found: dict[str, Any] = json.loads(ran.out)
        self.assertEqual(ran.status, 0 if found["well"] else 1)
        return found

    def seen(self, home: str) -> set[str]:
        """What the routers say of a home."""
        pages = [router.page("/status").partition(b"\r\n\r\n")[2] for router in self.house.routers.values()]
        homes = [one for page in pages for one in json.loads(page)["homes"]]
        return {one["state"] for one in homes if one["name"] == home}

    def test_killed_and_back(self) -> None:
        """Down at every router, silent itself; well again once started, with metrics where the directory says.

        While no home is up a router is not ready.
        """
        for home in ("hs1", "hs2"):
            wait_for(f"{home} being up", lambda home=home: self.seen(home) == {"up"})  # type: ignore[misc]
        self.assertTrue(self.look()["well"])
        for home in ("hs1", "hs2"):
            self.house.homes[home].kill()
        for home in ("hs1", "hs2"):
            wait_for(f"{home} being down", lambda home=home: self.seen(home) == {"down"})  # type: ignore[misc]
        found = self.look()
        states = {server["name"]: server["state"] for server in found["servers"]}
        self.assertEqual(
            states,
            {"hs1": "no answer", "hs2": "no answer", "router1": "not ready", "router2": "not ready"},
        )
        ran = self.admin("status")
        self.assertEqual(ran.status, 1)
        self.assertRegex(ran.out, r"(?m)^hs2 +down at router1, router2$")
        router = self.house.routers["router1"]
        self.assertIn(b"no home is up: hs1 is down, hs2 is down", router.page("/readyz"))
        self.assertRegex(router.page("/metrics").decode(), r'rvp_home_up\{home="hs2",.*\} 0\.0')
        for home in ("hs1", "hs2"):
            self.house.restart(home).await_ready()
        for home in ("hs1", "hs2"):
            wait_for(f"{home} being up again", lambda home=home: self.seen(home) == {"up"})  # type: ignore[misc]
        router.await_ready()
        self.assertEqual(self.admin("status").status, 0)


class DemoTests(TestCase):
    """The demo knows where its members are."""

    def test_out_of_the_box(self) -> None:
        """The line of the banner says that all is well, who is online is counted, and nobody is named."""
        with scratch() as where:
            farm = DemoFarm(where / "demo")
            farm.start()
            try:
                login, status = (self.line(farm, part) for part in ("curl --digest", " status"))
                self.assertIn(" 200 ", run("sh", "-c", login).out)
                ran = run("sh", "-c", status)
                self.assertEqual(ran.status, 0, ran.out + ran.err)
                self.assertIn("All is well.", ran.out)
                self.assertEqual(
                    len(re.findall(r"(?m)^(?:router|home)\d +(?:router|home) +ready", ran.out)), 4
                )
                pages = [run("curl", "-s", f"http://{place}/status").out for place in farm.metrics]
                self.assertEqual(sum(json.loads(page).get("users_online", 0) for page in pages), 1)
                self.assertNotIn("alice", "".join(pages))
            finally:
                farm.stop()

    def line(self, farm: DemoFarm, part: str) -> str:
        """The line of the banner that has C{part} in it."""
        (line,) = (line.strip() for line in farm.out.splitlines() if part in f"{line} ")
        return line
