"""Which addresses count as inside, as a trusted proxy, or as allowed for call-backs."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.directory.model import Network
from rvpfarm.directory.networks import is_inside, listed_by, ranges_of
from rvpfarm.directory.ranges import number_of
from tests.support.directory import make_farm

INSIDE = (Network("inside", "10.0.0.0", "10.255.255.255"), Network("inside", "fd00::", "fd00::ffff"))

ADDRESSES = st.one_of(
    st.integers(0, 40).map(lambda n: str(ip_address("192.0.2.0") + n)),
    st.integers(0, 40).map(lambda n: str(ip_address("2001:db8::") + n)),
)


class IsInsideTests(SynchronousTestCase):
    """An address is inside when a range says so."""

    def test_ranges(self) -> None:
        """The ends of a range belong to it, and an IPv4 address is the same when written as IPv6."""
        farm = make_farm(networks=INSIDE)
        for peer in ("10.0.0.0", "10.255.255.255", "::ffff:10.1.1.1", "fd00::1"):
            self.assertTrue(is_inside(peer, farm), peer)
        for peer in ("11.0.0.0", "9.255.255.255", "fd00::1:0", "::1", "", "petra"):
            self.assertFalse(is_inside(peer, farm), peer)

    def test_no_ranges(self) -> None:
        """Where nothing is said to be inside, everybody is; other kinds of ranges do not count."""
        self.assertTrue(is_inside("192.0.2.1", make_farm()))
        self.assertFalse(is_inside("", make_farm()))  # behind a proxy that does not say who calls
        self.assertTrue(
            is_inside("192.0.2.1", make_farm(networks=[Network("call-back", "10.0.0.0", "10.0.0.1")]))
        )

    def test_bad_range(self) -> None:
        """A range that is none contains nobody, and yet somebody said what is inside."""
        for bad in (
            Network("inside", "10.0.0.0", "everywhere"),
            Network("inside", "10.0.0.9", "10.0.0.0"),
        ):
            self.assertFalse(is_inside("10.0.0.1", make_farm(networks=[bad])))

    def test_follows_the_farm(self) -> None:
        """Ranges are parsed once for a farm, and anew for the next one."""
        farm = make_farm(networks=INSIDE)
        self.assertIs(ranges_of(farm, "inside"), ranges_of(farm, "inside"))
        self.assertIsNot(ranges_of(farm, "inside"), ranges_of(farm, "call-back"))
        self.assertFalse(is_inside("10.1.1.1", replace(farm, networks=INSIDE[1:])))
        self.assertTrue(is_inside("10.1.1.1", farm))


class ListedTests(SynchronousTestCase):
    """Which ranges contain an address can be told."""

    @given(st.lists(st.tuples(ADDRESSES, ADDRESSES), max_size=8), ADDRESSES)
    @settings(max_examples=200, deadline=None)
    def test_as_one_by_one(self, pairs: list[tuple[str, str]], peer: str) -> None:
        """The answer is that of looking at every range in turn, and so is whether it is inside."""
        networks = [Network("inside", first, last) for first, last in pairs]
        farm = make_farm(networks=networks)
        number = number_of(peer)
        expected = [one for one in networks if number_of(one.first) <= number <= number_of(one.last)]
        self.assertEqual(peer in ranges_of(farm, "inside"), bool(expected))
        self.assertEqual(listed_by(peer, farm, "inside"), tuple(expected))
        self.assertEqual(is_inside(peer, farm), bool(expected) or not networks)

    def test_nowhere(self) -> None:
        """What is no address lies in none."""
        self.assertEqual(listed_by("nowhere", make_farm(networks=INSIDE), "inside"), ())
