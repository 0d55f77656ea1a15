"""Tests of C{rvpfarm.discovery.zone}."""

from __future__ import annotations

from dataclasses import replace

import dns.zone
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.directory.model import Domain, Farm, Home, Router
from rvpfarm.discovery.zone import Answer, Outcome, Service, Zone, record_text, records, zone_text
from tests.support.farms import DEMO


def lines(farm: Farm, zone: str = "farm.localhost", server_address: str = "") -> list[str]:
    """The records as text, without the SOA."""
    found = records(farm, zone, server_address=server_address)
    return [f"{record.name} {record.type} {record.data}" for record in found[1:]]


def shown(answer: Answer) -> list[str]:
    """What the answers say."""
    return [record.data for record in answer.answers]


class RecordsTests(SynchronousTestCase):
    """A farm's map becomes the records that clients look up."""

    def test_demo(self) -> None:
        """The demo farm: SRV of its mail domain, both routers, and each machine by name."""
        self.assertEqual(
            lines(DEMO, server_address="127.0.0.1"),
            [
                "farm.localhost NS ns.farm.localhost.",
                "ns.farm.localhost A 127.0.0.1",
                "_rvp._tcp.farm.localhost SRV 0 0 8080 im.farm.localhost.",
                "_rvp._tcp.im.farm.localhost SRV 0 0 8080 im.farm.localhost.",
                "im.farm.localhost A 127.0.0.1",
                "im.farm.localhost A 127.0.0.2",
                "router1.farm.localhost A 127.0.0.1",
                "router2.farm.localhost A 127.0.0.2",
                "home1.farm.localhost A 127.0.0.11",
                "home2.farm.localhost A 127.0.0.12",
            ],
        )

    def test_serial_follows_the_farm(self) -> None:
        """A change of the farm makes a higher serial, so that secondaries notice."""
        serials = [records(replace(DEMO, generation=n), "farm.localhost")[0].data.split()[2] for n in (7, 8)]
        self.assertEqual(serials, ["8", "9"])

    def test_ipv6(self) -> None:
        """A router with an IPv6 address has an AAAA record."""
        farm = replace(DEMO, routers={"r": Router("r", "r", "r.farm.localhost", 80, "2001:db8::1")})
        self.assertIn("im.farm.localhost AAAA 2001:db8::1", lines(farm))

    def test_homes_stand_in_for_routers(self) -> None:
        """In a farm without routers the IM domain is served by its homes."""
        found = lines(replace(DEMO, routers={}))
        self.assertIn("im.farm.localhost A 127.0.0.11", found)
        self.assertIn("im.farm.localhost A 127.0.0.12", found)

    def test_one_port(self) -> None:
        """Clients use the one port of the SRV record, so a router with another port is not shown."""
        odd = Router("r3", "router3", "router3.farm.localhost", 81, "127.0.0.3")
        found = lines(replace(DEMO, routers={**DEMO.routers, "r3": odd}))
        self.assertIn("_rvp._tcp.farm.localhost SRV 0 0 8080 im.farm.localhost.", found)
        self.assertNotIn("im.farm.localhost A 127.0.0.3", found)

    def test_draining_router(self) -> None:
        """A router that drains is not shown to anybody, neither by the IM domain's name nor by its own."""
        drained = {**DEMO.routers, "r2": replace(DEMO.routers["r2"], state="draining")}
        found = lines(replace(DEMO, routers=drained))
        self.assertIn("im.farm.localhost A 127.0.0.1", found)
        self.assertFalse([line for line in found if line.endswith(" 127.0.0.2")])

    def test_draining_port(self) -> None:
        """What port is usual is a matter of the routers that do not drain."""
        routers = {"r1": replace(DEMO.routers["r1"], state="draining"), "r3": DEMO.routers["r2"]}
        odd = {**routers, "r3": replace(DEMO.routers["r2"], port=81)}
        self.assertIn(
            "_rvp._tcp.farm.localhost SRV 0 0 81 im.farm.localhost.", lines(replace(DEMO, routers=odd))
        )

    def test_every_router_drains(self) -> None:
        """Homes do not stand in for routers that drain: clients are led nowhere, as was asked for."""
        routers = {id: replace(router, state="draining") for id, router in DEMO.routers.items()}
        found = lines(replace(DEMO, routers=routers))
        self.assertFalse([line for line in found if line.startswith(("im.", "_rvp", "router"))])
        self.assertIn("home1.farm.localhost A 127.0.0.11", found)

    def test_draining_home(self) -> None:
        """A home that drains keeps its name, but does not stand in for routers."""
        homes = {**DEMO.homes, "h2": replace(DEMO.homes["h2"], state="draining")}
        found = lines(replace(DEMO, routers={}, homes=homes))
        self.assertIn("home2.farm.localhost A 127.0.0.12", found)
        self.assertNotIn("im.farm.localhost A 127.0.0.12", found)

    def test_only_this_zone(self) -> None:
        """Names of other zones are left out, even those that end alike."""
        domains = {
            "im.farm.localhost": Domain("im.farm.localhost", ("farm.localhost", "otherfarm.localhost")),
            "im.fabrik.example": Domain("im.fabrik.example", ("fabrik.example",)),
        }
        names = {record.name for record in records(replace(DEMO, domains=domains), "Farm.Localhost.")}
        self.assertTrue(all(name.endswith("farm.localhost") for name in names))
        self.assertFalse([name for name in names if "otherfarm" in name or "fabrik" in name])

    def test_domain_aliases(self) -> None:
        """A further host name of a domain resolves like the domain itself."""
        domains = {"im.farm.localhost": Domain("im.farm.localhost", aliases=("old.farm.localhost",))}
        self.assertIn("old.farm.localhost A 127.0.0.2", lines(replace(DEMO, domains=domains)))

    def test_no_duplicates(self) -> None:
        """Two routers on one address make one record."""
        pair = {n: Router(n, n, f"{n}.farm.localhost", 8080, "127.0.0.1") for n in ("a", "b")}
        self.assertEqual(lines(replace(DEMO, routers=pair)).count("im.farm.localhost A 127.0.0.1"), 1)

    def test_machines_without_address(self) -> None:
        """A machine that is to be looked up elsewhere has no address record here."""
        homes = {"h": Home("h", "h", "h.farm.localhost", 80, 81)}
        self.assertFalse([line for line in lines(replace(DEMO, homes=homes)) if line.startswith("h.")])


class ZoneTextTests(SynchronousTestCase):
    """The zone as a master file."""

    def test_read_back(self) -> None:
        """dnspython reads the same records out of the text."""
        found = records(DEMO, "farm.localhost", server_address="127.0.0.1")
        zone = dns.zone.from_text(zone_text(found), relativize=False)
        read = {
            (str(name).rstrip("."), str(ttl), rdata.to_text()) for name, ttl, rdata in zone.iterate_rdatas()
        }
        self.assertEqual(read, {(record.name, str(record.ttl), record.data) for record in found})

    def test_lines(self) -> None:
        """A record by itself is the line that it is in the master file."""
        found = records(DEMO, "farm.localhost")
        _origin, *whole = zone_text(found).splitlines()
        self.assertEqual({record_text(record) for record in found}, set(whole))

    def test_bad_address(self) -> None:
        """An address that is none is refused rather than published."""
        homes = {"h": Home("h", "h", "h.farm.localhost", 80, 81, "127.0.0.300")}
        self.assertRaises(ValueError, zone_text, records(replace(DEMO, homes=homes), "farm.localhost"))


class ZoneTests(SynchronousTestCase):
    """A zone answers questions about its names, and says plainly what it does not have."""

    def setUp(self) -> None:
        """The demo's zone."""
        self.zone = Zone("farm.localhost", records(DEMO, "farm.localhost", server_address="127.0.0.1"))

    def test_service_with_addresses(self) -> None:
        """The SRV answer brings the routers' addresses along."""
        answer = self.zone.answer("_rvp._tcp.farm.localhost", "SRV")
        self.assertEqual(
            answer.answers,
            (Service("_rvp._tcp.farm.localhost", 60, target="im.farm.localhost", port=8080),),
        )
        self.assertEqual([record.data for record in answer.additional], ["127.0.0.1", "127.0.0.2"])

    def test_rotation(self) -> None:
        """Each answer begins with the next router."""
        orders = [shown(self.zone.answer("im.farm.localhost", "A")) for _ in range(3)]
        self.assertEqual(
            orders,
            [["127.0.0.1", "127.0.0.2"], ["127.0.0.2", "127.0.0.1"], ["127.0.0.1", "127.0.0.2"]],
        )

    def test_rotation_of_pairs(self) -> None:
        """Clients that ask for A and AAAA in turn are spread over the routers all the same."""
        first = []
        for _ in range(2):
            first.append(shown(self.zone.answer("im.farm.localhost", "A"))[0])
            self.zone.answer("im.farm.localhost", "AAAA")
        self.assertEqual(first, ["127.0.0.1", "127.0.0.2"])

    def test_case_does_not_matter(self) -> None:
        """Names are compared without regard to case or a final dot."""
        self.assertIs(self.zone.answer("IM.Farm.LocalHost.", "A").outcome, Outcome.FOUND)

    def test_no_data(self) -> None:
        """A name without records of the type: no answer, and the SOA says for how long."""
        answer = self.zone.answer("im.farm.localhost", "AAAA")
        self.assertIs(answer.outcome, Outcome.NO_DATA)
        self.assertEqual([record.type for record in answer.authority], ["SOA"])

    def test_name_above_a_record(self) -> None:
        """A name that only has others below it exists (RFC 8020)."""
        self.assertIs(self.zone.answer("_tcp.farm.localhost", "A").outcome, Outcome.NO_DATA)

    def test_no_name(self) -> None:
        """A name of the zone that is not there does not exist."""
        self.assertIs(self.zone.answer("nobody.farm.localhost", "A").outcome, Outcome.NO_NAME)

    def test_outside(self) -> None:
        """Names outside the zone are refused, also those that merely end alike."""
        for name in ("example.com", "otherfarm.localhost", "localhost", ""):
            self.assertIs(self.zone.answer(name, "A").outcome, Outcome.REFUSED)

    def test_any(self) -> None:
        """ANY gives all there is of a name."""
        self.assertEqual({r.type for r in self.zone.answer("farm.localhost", "ANY").answers}, {"SOA", "NS"})
