"""The doctor at a running farm: quiet when it is well, and what is broken is found by the processes themselves."""

from __future__ import annotations

import json
import os
import signal
import stat
from unittest import TestCase

from rvpfarm.admin import handlers
from rvpfarm.admin.doctor.gather import probe_domain
from rvpfarm.admin.renaming import rename_home
from rvpfarm.directory.store import Store
from tests.support.daemons import ALICE, DOMAIN, LOOPBACK, Site, await_ready, metric
from tests.support.processes import BIN, DemoFarm, Ran, run, scratch, wait_for


class DemoTests(TestCase):
    """A whole farm of two routers and two homes, seen from outside."""

    def setUp(self) -> None:
        """The farm runs."""
        self.where = self.enterContext(scratch())
        self.farm = DemoFarm(self.where / "demo")
        self.farm.start()
        self.addCleanup(self.farm.stop)
        (directory,) = self.where.rglob("directory.sqlite")
        self.url = f"sqlite:///{directory}"

    def rvpfarm(self, *words: str) -> Ran:
        """Run the administrator's command."""
        return run(BIN / "rvpfarm", "--directory", self.url, *words)

    def doctor(self, *words: str) -> tuple[int, dict[str, str]]:
        """The exit status, and what each rule finds."""
        done = self.rvpfarm("doctor", "--json", "--dns", self.farm.dns, *words)
        self.assertIn(done.status, (0, 1), done)
        return done.status, {one["rule"]: one["what"] for one in json.loads(done.out)["findings"]}

    def test_end_to_end(self) -> None:
        """Probe users cross the farm in every direction; a home that stops is found by several rules."""
        probes = self.where / "probes.json"
        done = self.rvpfarm("doctor", "prepare", "--probe-file", str(probes))
        self.assertEqual(done.status, 0, done)
        self.assertEqual(stat.S_IMODE(probes.stat().st_mode), 0o600)
        self.assertIn("Made 0", self.rvpfarm("doctor", "prepare", "--probe-file", str(probes)).out)
        walk = ("--end-to-end", "--probe-file", str(probes))
        rules = [
            word for id in ("D04", "D06", "D10", "D11", "D23", "E05", "D03", "D05") for word in ("--rule", id)
        ]
        done = self.rvpfarm("doctor", "--dns", self.farm.dns, *walk, *rules)
        self.assertEqual(done.status, 0, done)
        for tried in (
            "reach home home1 by router router2",
            "log in a user without rights at home home2",
            "send from home home1 to home home2",
            "send from home home2 to home home1",
            "see from home home2 what changes at home home1",
        ):
            self.assertIn(tried, done.out)
        users = json.loads(probes.read_text())
        users["probes"][1]["password"] = "not the password"
        probes.write_text(json.dumps(users))
        status, found = self.doctor(*walk, *rules)
        self.assertEqual((status, set(found)), (1, {"D04"}))

    def test_stopped_home(self) -> None:
        """Whatever the ports are, a running farm has no error; without one of its homes it has."""
        quiet = {"D20", "D21", "D22", "D32", "D16", "D01", "D02", "D23"}  # ports and names of a demo
        _, found = self.doctor("--no-dns")
        self.assertEqual(set(found) - quiet, set(), found)
        pid = self.farm.member("home2")
        os.kill(pid, signal.SIGSTOP)
        self.addCleanup(os.kill, pid, signal.SIGCONT)
        wait_for("home2 being missed", lambda: "E04" in self.doctor("--no-dns", "--timeout", "1")[1])


class RenamedTests(TestCase):
    """A home is renamed while it runs, and clients that know its former host go on."""

    def setUp(self) -> None:
        """A home that runs."""
        self.site = Site()
        self.addCleanup(self.site.close)
        self.store = Store(self.site.url)
        self.addCleanup(self.store.close)

    def look(self, host: str, agent: str = "miranda") -> tuple[str, str]:
        """Ask the home for the state of alice by a physical URL.

        @return: the status, and where it leads.
        """
        path = f"/instmsg/local/{DOMAIN}/instmsg/aliases/alice"
        port = self.site.home_ports[0]
        done = run(
            *("curl", "-s", "-o", "/dev/null", "-w", "%{http_code} %{redirect_url}", "-X", "SUBSCRIPTIONS"),
            *("-H", f"Host: {host}:{port}", "-H", "RVP-Notifications-Version: 0.2", "-A", agent),
            *("-H", f"RVP-From-Principal: {ALICE}", f"http://{LOOPBACK}:{port}{path}"),
        )
        status, _, place = done.out.partition(" ")
        return status, place

    def test_former_host(self) -> None:
        """Both hosts are answered; a client that can follow is referred from the former one to the new one."""
        self.assertEqual(self.look("home1.farm.localhost"), ("200", ""))
        rename_home(self.store, "home1", "home9", "home9.farm.localhost", actor="test")
        old = "home1.farm.localhost"
        wait_for("the new name", lambda: self.look(old, "msmsgs/4.6.0.84")[0] == "302")
        self.assertEqual(self.look("home1.farm.localhost"), ("200", ""))
        status, place = self.look("home1.farm.localhost", "msmsgs/4.6.0.84")
        self.assertEqual(status, "302")
        self.assertTrue(place.startswith(f"http://home9.farm.localhost:{self.site.home_ports[0]}/"), place)
        self.assertEqual(self.look("home9.farm.localhost", "msmsgs/4.6.0.84"), ("200", ""))
        rename_home(self.store, "home9", "home1", "home1.farm.localhost", actor="test")
        wait_for("the old name", lambda: self.look("home1.farm.localhost", "msmsgs/4.6.0.84")[0] == "200")

    def test_router_follows(self) -> None:
        """A router goes on finding the home, whatever it is called."""
        router = self.site.router()
        self.addCleanup(router.end)
        await_ready(self.site.metrics)
        rename_home(self.store, "home1", "home9", "home9.farm.localhost", actor="test")
        done = run(
            *("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", "SUBSCRIPTIONS"),
            *("-H", f"Host: {DOMAIN}", "-H", "RVP-Notifications-Version: 0.2"),
            *("-H", f"RVP-From-Principal: {ALICE}"),
            f"http://{LOOPBACK}:{self.site.port}/instmsg/aliases/alice",
        )
        self.assertEqual(done.out, "200")

    def test_served_domain(self) -> None:
        """A router is asked whether it serves a domain, and says so truly (D23)."""
        router = self.site.router()
        self.addCleanup(router.end)
        await_ready(self.site.metrics)
        self.assertTrue(probe_domain(DOMAIN, LOOPBACK, self.site.port, 5).served)
        self.assertFalse(probe_domain("im.other.example", LOOPBACK, self.site.port, 5).served)
        handlers.add_domain(self.store, "im.other.example", actor="test")
        wait_for("the domain", lambda: probe_domain("im.other.example", LOOPBACK, self.site.port, 5).served)
        self.assertGreaterEqual(metric(self.site.metrics, "rvp_connections_limit"), 1)
