"""What the DNS has to say: the exact records, what is left out, and what is probably wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.admin.checks import Refused
from rvpfarm.admin.dnsplan import DnsPlan, plan_dns, zone_lines
from rvpfarm.directory.model import Domain, Farm, Home, Router
from rvpfarm.discovery.zone import records
from tests.admin.test_command import CommandCase
from tests.support.directory import make_farm

FABRIK = Domain("im.fabrik.example", ("fabrik.example", "fabrik.test"), ("old.fabrik.example", "omnent"))
R1 = Router("1", "r1", "im.fabrik.example", 80, "192.0.2.1")
R2 = Router("2", "r2", "r2.fabrik.example", 80, "2001:db8::2")
HS1 = Home("1", "hs1", "hs1.fabrik.example", 80, 8081, "192.0.2.11")
HS2 = Home("2", "hs2", "hs2.fabrik.example", 80, 8081, "192.0.2.12")


def farm_of(
    domains: list[Domain] | None = None, homes: list[Home] | None = None, routers: list[Router] | None = None
) -> Farm:
    """A farm of these parts, or of the usual ones."""
    return make_farm(
        [FABRIK] if domains is None else domains,
        [HS1, HS2] if homes is None else homes,
        [R1, R2] if routers is None else routers,
    )


def lines(plan: DnsPlan) -> list[str]:
    """The records as text."""
    return [f"{one.name} {one.type} {one.data}" for found in plan.zones.values() for one in found]


class PlanTests(SynchronousTestCase):
    """The records are those of routers that take work, of homes, and of names."""

    def rules(self, farm: Farm) -> dict[str, str]:
        """What is probably wrong, by rule."""
        return {problem.rule: problem.text for problem in plan_dns(farm).problems}

    def left_out(self, farm: Farm) -> dict[str, str]:
        """What is left out, and why."""
        return {one.what: one.why for one in plan_dns(farm).left_out}

    def test_records(self) -> None:
        """One SRV record for each mail domain, round robin over routers, and one name for each machine."""
        plan = plan_dns(farm_of())
        self.assertEqual(
            lines(plan),
            [
                "_rvp._tcp.fabrik.example SRV 0 0 80 im.fabrik.example.",
                "_rvp._tcp.im.fabrik.example SRV 0 0 80 im.fabrik.example.",
                "im.fabrik.example A 192.0.2.1",
                "im.fabrik.example AAAA 2001:db8::2",
                "old.fabrik.example A 192.0.2.1",
                "old.fabrik.example AAAA 2001:db8::2",
                "r2.fabrik.example AAAA 2001:db8::2",
                "hs1.fabrik.example A 192.0.2.11",
                "hs2.fabrik.example A 192.0.2.12",
                "_rvp._tcp.fabrik.test SRV 0 0 80 im.fabrik.example.",
            ],
        )
        self.assertEqual(list(plan.zones), ["fabrik.example", "fabrik.test"])
        self.assertEqual(plan.problems, ())

    def test_as_served(self) -> None:
        """The plan and what C{rvp-dns} serves are the same records, in every zone."""
        for farm in (
            farm_of(),
            farm_of(routers=[replace(R1, state="draining"), R2]),
            farm_of(routers=[]),
            farm_of(routers=[R1, R2, Router("3", "r3", "r3.fabrik.example", 81, "192.0.2.3")]),
            farm_of([FABRIK, Domain("im.orchard.example", ("orchard.example",))]),
        ):
            for zone, planned in plan_dns(farm).zones.items():
                served = records(farm, zone, server_address="192.0.2.53")
                self.assertEqual(set(planned), set(served[3:]), zone)

    def test_draining(self) -> None:
        """A draining router is left out, and that is said; a draining home keeps its name."""
        farm = farm_of(routers=[R1, replace(R2, state="draining")], homes=[replace(HS1, state="draining")])
        found = lines(plan_dns(farm))
        self.assertFalse([line for line in found if "2001:db8::2" in line])
        self.assertIn("hs1.fabrik.example A 192.0.2.11", found)
        self.assertIn("is draining, so 2001:db8::2 is not published", self.left_out(farm)["router r2"])

    def test_all_draining(self) -> None:
        """Homes do not stand in for routers that drain, and that nobody is found then is said (D02)."""
        farm = farm_of(routers=[replace(R1, state="draining")])
        self.assertEqual(
            lines(plan_dns(farm)),
            ["hs1.fabrik.example A 192.0.2.11", "hs2.fabrik.example A 192.0.2.12"],
        )
        self.assertEqual(
            self.rules(farm)["D02"], "no SRV record can lead to im.fabrik.example: no router is active"
        )
        self.assertIn("neither a router nor a home", self.rules(farm_of(homes=[], routers=[]))["D02"])

    def test_unknown_addresses(self) -> None:
        """A server without an address is named, with what to do about it."""
        farm = farm_of(
            routers=[replace(R1, address=""), replace(R2, address="")], homes=[replace(HS1, address=""), HS2]
        )
        left = self.left_out(farm)
        self.assertIn(
            "give im.fabrik.example, old.fabrik.example a record with it yourself", left["router r1"]
        )
        self.assertIn('"rvpfarm router set r1 --address IP"', left["router r1"])
        self.assertIn("old.fabrik.example and r2.fabrik.example a record", left["router r2"])
        self.assertIn("give hs1.fabrik.example exactly one address record", left["home hs1"])
        self.assertIn("search list", left["alias omnent"])
        self.assertIn("no address of a router is known", self.rules(farm)["D02"])

    def test_other_port(self) -> None:
        """A router on another port than most is not among the addresses, and that is said."""
        farm = farm_of(routers=[R1, R2, Router("3", "r3", "r3.fabrik.example", 81, "192.0.2.3")])
        self.assertIn("it listens on port 81 and the others on 80", self.left_out(farm)["router r3"])
        self.assertIn("r3.fabrik.example A 192.0.2.3", lines(plan_dns(farm)))

    def test_not_qualified(self) -> None:
        """A server with a short name cannot be found (D01)."""
        farm = farm_of(homes=[replace(HS1, host="hs1")])
        self.assertIn("hs1, the host of home hs1, is no full DNS name", self.rules(farm)["D01"])

    def test_homes_have_one_address(self) -> None:
        """Round robin over homes is warned of (D22), and so is a home behind a router's name."""
        self.assertIn(
            "has the addresses 192.0.2.11, 192.0.2.12",
            self.rules(farm_of(homes=[HS1, replace(HS2, host=HS1.host)]))["D22"],
        )
        farm = farm_of(homes=[replace(HS1, host=R2.host, address="")])
        self.assertIn("r2.fabrik.example is the host of home hs1 and of a router", self.rules(farm)["D22"])

    def test_other_ports(self) -> None:
        """Ports that old clients fail with are warned of (D32)."""
        found = plan_dns(farm_of(homes=[replace(HS1, port=8080)], routers=[replace(R1, port=8080)]))
        self.assertEqual([problem.rule for problem in found.problems], ["D32", "D32"])

    def test_one_domain(self) -> None:
        """The plan can be of one domain, with the servers."""
        orchard = Domain("im.orchard.example")
        farm = farm_of([FABRIK, orchard])
        found = lines(plan_dns(farm, "IM.Orchard.Example"))
        self.assertIn("_rvp._tcp.im.orchard.example SRV 0 0 80 im.orchard.example.", found)
        self.assertIn("hs1.fabrik.example A 192.0.2.11", found)
        self.assertFalse([line for line in found if line.startswith(("im.fabrik", "old.", "_rvp._tcp.f"))])
        self.assertEqual(list(plan_dns(farm, orchard.name).zones), ["fabrik.example", "orchard.example"])
        self.assertRaises(Refused, plan_dns, farm, "im.elsewhere.example")

    def test_comments(self) -> None:
        """In the zone format all that is no record is a comment."""
        farm = farm_of(homes=[replace(HS1, port=8080)], routers=[R1, replace(R2, state="draining")])
        shown = list(zone_lines(plan_dns(farm)))
        found = [line for line in shown if line and not line.startswith(";")]
        self.assertEqual(len(found), len(lines(plan_dns(farm))))
        self.assertTrue(all(line.split()[1:3] == ["60", "IN"] for line in found))
        self.assertTrue(any(line.startswith("; Left out: router r2: it is draining") for line in shown))
        self.assertTrue(any(line.startswith("; Warning (D32): ") for line in shown))


class VerbTests(CommandCase):
    """C{rvpfarm dns plan}"""

    def setUp(self) -> None:
        """A small farm."""
        super().setUp()
        self.make_farm()

    def plan(self, *args: str) -> Any:
        """What the command says."""
        return self.run_it("dns", "plan", *args)

    def test_zone(self) -> None:
        """Records to paste, nothing on standard error."""
        told = self.plan()
        self.assertIn("\n_rvp._tcp.fabrik.example. 60 IN SRV 0 0 80 im.fabrik.example.\n", told.stdout)
        self.assertIn("; Warning (D32): the URLs of home hs1 carry port 8080", told.stdout)
        self.assertEqual(told.stderr, "")

    def test_table(self) -> None:
        """A table, with the rest on standard error."""
        told = self.plan("--format", "table")
        self.assertRegex(told.stdout, r"\nim\.fabrik\.example +60 +A +192\.0\.2\.1\n")
        self.assertIn("rvpfarm: left out: home hs1: its address is not known", told.stderr)
        self.assertIn("(D32)", told.stderr)
        self.assertIn("nothing to publish", self.empty("--format", "table"))

    def empty(self, *args: str) -> str:
        """The plan of a farm without anything."""
        url = f"sqlite:///{self.folder / 'empty.sqlite'}"
        self.run_it("init", RVPFARM_DIRECTORY=url)
        return str(self.run_it("dns", "plan", *args, RVPFARM_DIRECTORY=url).stdout)

    def test_json(self) -> None:
        """JSON has the keys that the help names."""
        told = json.loads(self.plan("--format", "json").stdout)
        words = " ".join(self.plan("--help").stdout.split())
        for key in (*told, *told["records"][0], *told["left_out"][0], *told["warnings"][0]):
            self.assertIn(key, words)
        self.assertIn(
            {
                "zone": "fabrik.example",
                "name": "im.fabrik.example",
                "ttl": 60,
                "type": "A",
                "data": "192.0.2.1",
            },
            told["records"],
        )

    def test_refused(self) -> None:
        """An unknown domain or format is refused."""
        self.assertIn(
            "there is no IM domain", self.run_it("dns", "plan", "--domain", "x.example", status=1).stderr
        )
        self.run_it("dns", "plan", "--format", "xml", status=2)
