"""Ranges of addresses that are asked often."""

from __future__ import annotations

from ipaddress import IPv4Address

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.directory.model import Network
from rvpfarm.directory.ranges import Ranges
from tests.support.hypothesis import MODEST


def ranges(*spans: tuple[str, str]) -> Ranges:
    """The trusted proxies between these addresses."""
    return Ranges("trusted-proxy", [Network("trusted-proxy", *span) for span in spans])


class RangesTests(SynchronousTestCase):
    """An address lies in a range, its ends included, however it is written."""

    def test_edges(self) -> None:
        """Both ends count, their neighbours do not; overlapping and adjoining ranges are one."""
        found = ranges(("10.0.0.5", "10.0.0.9"), ("10.0.0.7", "10.0.0.12"), ("10.0.0.13", "10.0.0.13"))
        for address, inside in (
            ("10.0.0.4", False),
            ("10.0.0.5", True),
            ("10.0.0.11", True),
            ("10.0.0.13", True),
            ("10.0.0.14", False),
            ("0.0.0.0", False),
            ("255.255.255.255", False),
        ):
            self.assertEqual(address in found, inside, address)

    def test_families(self) -> None:
        """An IPv4 address is the same as IPv6; a zone says nothing about where an address lies."""
        found = ranges(("192.0.2.0", "192.0.2.255"), ("fe80::", "fe80::ffff"))
        self.assertIn("::ffff:192.0.2.7", found)
        self.assertIn("fe80::7%eth0", found)
        self.assertNotIn("::192.0.2.7", found)
        self.assertNotIn("2001:db8::1", found)

    def test_only_its_kind(self) -> None:
        """Networks of another kind do not count, nor does one that cannot be read."""
        networks = [Network("inside", "10.0.0.0", "10.0.0.9"), Network("trusted-proxy", "10.1", "?")]
        found = Ranges("trusted-proxy", networks)
        self.assertFalse(found)
        self.assertNotIn("10.0.0.1", found)

    def test_no_address(self) -> None:
        """What is no address lies nowhere, least of all an unknown caller."""
        found = ranges(("0.0.0.0", "255.255.255.255"), ("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"))
        for text in ("", "unknown", "10.0.0.1:80", "[::1]", None, 7):
            self.assertNotIn(text, found)

    def test_equal(self) -> None:
        """Two that hold the same addresses are equal, however they were put together."""
        whole, parts = (
            ranges(("10.0.0.0", "10.0.0.9")),
            ranges(("10.0.0.5", "10.0.0.9"), ("10.0.0.0", "10.0.0.4")),
        )
        self.assertEqual(whole, parts)
        self.assertEqual(hash(whole), hash(parts))
        self.assertNotEqual(whole, Ranges())
        self.assertNotEqual(whole, "10.0.0.0")

    @MODEST
    @given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=8), st.integers(0, 60))
    def test_as_one_by_one(self, spans: list[tuple[int, int]], number: int) -> None:
        """The answer is the one that asking each range in turn would give."""
        spans = [(min(span), max(span)) for span in spans]
        found = ranges(*((str(IPv4Address(first)), str(IPv4Address(last))) for first, last in spans))
        expected = any(first <= number <= last for first, last in spans)
        self.assertEqual(str(IPv4Address(number)) in found, expected)
