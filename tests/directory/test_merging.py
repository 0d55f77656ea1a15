"""Ranges of addresses, merged: none is overlooked, and each edge can be told."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.directory.model import Network
from rvpfarm.directory.ranges import ALL_V4, Ranges, Span, address_of, number_of, span_of


def ranges(*spans: tuple[str, str]) -> Ranges:
    """What is inside: from here to there."""
    return Ranges("inside", [Network("inside", *span) for span in spans])


class SpanTests(SynchronousTestCase):
    """What lies in a range, however many there are and however they lie to each other."""

    def test_merged(self) -> None:
        """Ranges that overlap or adjoin are one; their edges inside count for nothing."""
        found = ranges(
            ("192.0.2.128", "192.0.2.255"),
            ("192.0.2.0", "192.0.2.127"),
            ("192.0.2.64", "192.0.2.70"),
            ("198.51.100.7", "198.51.100.7"),
        )
        shown = [(address_of(span.first), address_of(span.last)) for span in found.spans]
        self.assertEqual(shown, [("192.0.2.0", "192.0.2.255"), ("198.51.100.7", "198.51.100.7")])

    def test_edges(self) -> None:
        """Both ends belong to a range, their neighbours do not; a zone and the way of writing do not matter."""
        found = ranges(("192.0.2.5", "192.0.2.9"), ("fe80::", "fe80::ffff"))
        for address in ("192.0.2.5", "192.0.2.9", "::ffff:192.0.2.7", "fe80::7%eth0"):
            self.assertIn(address, found)
        for address in ("192.0.2.4", "192.0.2.10", "::192.0.2.7", "", "petra", "[fe80::1]", None, 7):
            self.assertNotIn(address, found)

    def test_given(self) -> None:
        """A range that cannot be read, or goes backwards, contains nobody, but somebody gave one."""
        for bad in (("10.1", "?"), ("10.0.0.9", "10.0.0.0")):
            self.assertTrue(ranges(bad).given)
            self.assertFalse(ranges(bad))
        self.assertFalse(Ranges().given)
        self.assertFalse(Ranges("inside", [Network("call-back", "10.0.0.0", "10.0.0.9")]).given)
        self.assertIs(span_of(Network("inside", "10.1", "?")), None)

    def test_equal(self) -> None:
        """Two that hold the same addresses are equal, however they were put together."""
        whole, parts = (
            ranges(("10.0.0.0", "10.0.0.9")),
            ranges(("10.0.0.5", "10.0.0.9"), ("10.0.0.0", "10.0.0.4")),
        )
        self.assertEqual((whole, hash(whole)), (parts, hash(parts)))
        self.assertNotEqual(whole, Ranges())
        self.assertNotEqual(whole, "10.0.0.0")

    def test_numbers(self) -> None:
        """A number means one address, and every address comes back from its number."""
        for text in ("0.0.0.0", "192.0.2.1", "255.255.255.255", "::", "2001:db8::1", "::1:0:0:0"):
            number = number_of(text)
            self.assertEqual(address_of(number), text)
            self.assertEqual(ALL_V4.first <= number <= ALL_V4.last, "." in text)
        self.assertEqual(address_of(number_of("::ffff:192.0.2.1")), "192.0.2.1")
        self.assertEqual(span_of(Network("", "::1", "::2")), Span(1, 2))
