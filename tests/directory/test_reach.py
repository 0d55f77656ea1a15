"""Whom a home may be asked to call back (design invariant 6)."""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.directory.model import Farm, Home, Network, Router
from rvpfarm.directory.reach import barred, blocked_by
from rvpfarm.protocol.address import Names, parse_call_back

FARM = Farm(
    homes={"h": Home("h", "hs1", "hs1.fabrik.example", 80, 8081, "192.0.2.10")},
    routers={"r": Router("r", "r1", "r1.fabrik.example", 80, "192.0.2.20")},
    networks=(
        Network("call-back", "192.0.2.0", "192.0.2.255"),
        Network("call-back", "2001:db8::", "2001:db8::ffff"),
        Network("inside", "10.0.0.0", "10.255.255.255"),
    ),
)


def rule(url: str, peer: str) -> str | None:
    """The rule by which a caller at C{peer} may not name C{url}."""
    return blocked_by(parse_call_back(url, Names({}, {})), peer, FARM)


class ReachTests(SynchronousTestCase):
    """Each way in which a call-back could be turned into a weapon."""

    def test_the_callers_own_address(self) -> None:
        """A caller may be called where it called from, whatever that address is."""
        for peer in ("203.0.113.9", "127.0.0.1", "169.254.1.1"):
            self.assertIsNone(rule(f"http://{peer}:3155", peer))

    def test_own_address_over_ipv6(self) -> None:
        """An IPv4 address mapped into IPv6 is still the same address."""
        self.assertIsNone(rule("http://203.0.113.9:99", "::ffff:203.0.113.9"))
        self.assertIsNone(rule("http://[2001:db9::1]:99", "2001:db9::1"))

    def test_a_listed_network(self) -> None:
        """Another address only where an administrator listed it as a call-back network."""
        self.assertIsNone(rule("http://192.0.2.77:3155", "203.0.113.9"))
        self.assertIsNone(rule("http://[2001:db8::5]:3155", "203.0.113.9"))
        self.assertEqual(rule("http://10.1.2.3:3155", "203.0.113.9"), "network")

    def test_special_addresses(self) -> None:
        """Never loopback, link-local, multicast or unspecified on behalf of somebody else."""
        for host in (
            "127.0.0.1",
            "127.8.8.8",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "169.254.169.254",
            "224.0.0.1",
            "0.0.0.0",
        ):
            self.assertEqual(rule(f"http://{host}:80/", "203.0.113.9"), "special", host)

    def test_the_farm_itself(self) -> None:
        """Never a server of the farm, not even on behalf of itself."""
        for url in (
            "http://192.0.2.10:80/x",
            "http://192.0.2.10:8081/",
            "http://192.0.2.20/x",
            "http://hs1.fabrik.example:80/x",
        ):
            self.assertEqual(rule(url, "192.0.2.10"), "farm", url)

    def test_names(self) -> None:
        """A host name could point anywhere by the time it is called."""
        self.assertEqual(rule("http://intranet.fabrik.example:8000/", "203.0.113.9"), "name")


class BarredTests(SynchronousTestCase):
    """Where the name of another organisation's server may not lead."""

    def test_the_internet(self) -> None:
        """Public addresses are called."""
        for address in ("93.184.216.34", "2600::1"):
            self.assertIsNone(barred(address, 80, FARM), address)

    def test_special(self) -> None:
        """Loopback, link-local and the like are not, however they are written."""
        for address in (
            "127.0.0.1",
            "::1",
            "::ffff:127.0.0.1",
            "169.254.169.254",
            "fe80::1",
            "0.0.0.0",
            "::",
        ):
            self.assertEqual(barred(address, 80, FARM), "special", address)

    def test_private(self) -> None:
        """Nor is what is behind somebody's firewall, perhaps ours."""
        for address in ("10.1.2.3", "192.168.0.1", "fd00::1", "::ffff:10.1.2.3"):
            self.assertEqual(barred(address, 80, FARM), "network", address)

    def test_listed(self) -> None:
        """An administrator may list what is to be called all the same, the farm itself excepted."""
        listed = replace(
            FARM, networks=(Network("call-back", "127.0.0.0", "127.255.255.255"), *FARM.networks)
        )
        self.assertIsNone(barred("127.0.0.1", 80, listed))
        self.assertIsNone(barred("192.0.2.77", 80, listed))
        for address, port in (("192.0.2.10", 80), ("192.0.2.10", 8081), ("192.0.2.20", 80)):
            self.assertEqual(barred(address, port, listed), "farm", address)
