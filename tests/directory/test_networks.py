"""Which addresses count as inside, as a trusted proxy, or as allowed for call-backs."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.directory.model import Network
from rvpfarm.directory.networks import (
    Ranges,
    address_of,
    is_inside,
    is_v4,
    listed_by,
    number_of,
    ranges_of,
)
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


class RangesTests(SynchronousTestCase):
    """However many ranges there are, and however they lie to each other, none is overlooked."""

    def test_merged(self) -> None:
        """Ranges that overlap or adjoin are one; their edges inside count for nothing."""
        ranges = Ranges(
            [
                Network("inside", "192.0.2.128", "192.0.2.255"),
                Network("inside", "192.0.2.0", "192.0.2.127"),
                Network("inside", "192.0.2.64", "192.0.2.70"),
                Network("inside", "198.51.100.7", "198.51.100.7"),
            ]
        )
        shown = [(address_of(span.first), address_of(span.last)) for span in ranges.spans]
        self.assertEqual(shown, [("192.0.2.0", "192.0.2.255"), ("198.51.100.7", "198.51.100.7")])
        self.assertTrue(Ranges(()).spans == () and not Ranges(()).given)

    @given(st.lists(st.tuples(ADDRESSES, ADDRESSES), max_size=8), ADDRESSES)
    @settings(max_examples=200, deadline=None)
    def test_as_one_by_one(self, pairs: list[tuple[str, str]], peer: str) -> None:
        """The answer is that of looking at every range in turn."""
        networks = [Network("inside", first, last) for first, last in pairs]
        farm = make_farm(networks=networks)
        number = number_of(peer)
        expected = [one for one in networks if number_of(one.first) <= number <= number_of(one.last)]
        self.assertEqual(number in ranges_of(farm, "inside"), bool(expected))
        self.assertEqual(listed_by(peer, farm, "inside"), tuple(expected))
        self.assertEqual(is_inside(peer, farm), bool(expected) or not networks)

    def test_numbers(self) -> None:
        """A number means one address, and every address comes back from its number."""
        for text in ("0.0.0.0", "192.0.2.1", "255.255.255.255", "::", "2001:db8::1", "::1:0:0:0"):
            self.assertEqual(address_of(number_of(text)), text)
            self.assertEqual(is_v4(number_of(text)), "." in text)
        self.assertEqual(address_of(number_of("::ffff:192.0.2.1")), "192.0.2.1")
        self.assertEqual(listed_by("nowhere", make_farm(networks=INSIDE), "inside"), ())
