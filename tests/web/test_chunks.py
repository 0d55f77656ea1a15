"""The chunked coding by itself; how it must not be written is in C{test_smuggling}."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.protocol.calls import BadRequest, TooLarge
from rvpfarm.web.chunks import ChunkedBody


class ChunkedBodyTests(SynchronousTestCase):
    """A body is taken out of its chunks, and not an octet more is used up."""

    def test_stops_at_its_end(self) -> None:
        """What follows the body is left alone."""
        body, wire = ChunkedBody(10), b"xx4\r\nabcd\r\n0\r\n\r\nGET"
        self.assertEqual(body.take(wire, 2), len(wire) - 3)
        self.assertTrue(body.done)
        self.assertEqual(body.body, b"abcd")

    def test_waits_for_lines(self) -> None:
        """An incomplete line is not used up; data is, as it comes."""
        body = ChunkedBody(10)
        self.assertEqual(body.take(b"4", 0), 0)
        self.assertEqual(body.take(b"4\r\nab", 0), 5)
        self.assertEqual(body.take(b"cd\r", 0), 2)
        self.assertEqual(body.take(b"\r\n0\r\nX: y\r", 0), 5)
        self.assertEqual(body.take(b"X: y\r\n\r\n", 0), 8)
        self.assertTrue(body.done)

    def test_limit(self) -> None:
        """A body of exactly the limit passes; the size alone of one that is longer is refused."""
        self.assertEqual(ChunkedBody(4).take(b"4\r\nabcd\r\n", 0), 9)
        self.assertRaises(TooLarge, ChunkedBody(3).take, b"4\r\n", 0)

    def test_refusals_end_the_connection(self) -> None:
        """After a broken chunk nothing can be trusted."""
        refusal = self.assertRaises(BadRequest, ChunkedBody(10).take, b"x\r\n", 0)
        self.assertTrue(refusal.close)

    @settings(max_examples=100, deadline=None, database=None)
    @given(st.lists(st.binary(min_size=1, max_size=30), max_size=6), st.integers(1, 9))
    def test_any_chunks(self, chunks: list[bytes], step: int) -> None:
        """Any data in any chunks comes out whole, however it arrives."""
        wire = b"".join(b"%X\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
        body, kept = ChunkedBody(200), b""
        for start in range(0, len(wire), step):
            kept += wire[start : start + step]
            kept = kept[body.take(kept, 0) :]
        self.assertTrue(body.done)
        self.assertEqual((bytes(body.body), kept), (b"".join(chunks), b""))
