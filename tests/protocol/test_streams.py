"""A body that is passed on while it arrives: nothing is lost, and little is held."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.protocol.streams import HIGH_WATER, LOW_WATER, BodyStream
from tests.support.hypothesis import MODEST


class BodyStreamTests(SynchronousTestCase):
    """Whoever fills it is told when to stop, whoever empties it when there is something."""

    def setUp(self) -> None:
        """A stream, and a list of what was told."""
        self.stream = BodyStream(None)
        self.told: list[str] = []
        self.stream.arrived = lambda: self.told.append("arrived")
        self.stream.drained = lambda: self.told.append("drained")

    def test_passed_on(self) -> None:
        """What was fed is taken, in order, as much at a time as is asked for."""
        self.stream.feed(b"abc")
        self.stream.feed(b"")
        self.stream.feed(b"def")
        self.assertEqual((self.stream.take(4), self.stream.taken, self.stream.waiting), (b"abcd", 4, 2))
        self.stream.finish()
        self.assertTrue(self.stream.complete)
        self.assertEqual((self.stream.take(4), self.told), (b"ef", ["arrived"] * 3))

    def test_full(self) -> None:
        """It is full from one mark up until the other down, and says so once."""
        self.stream.feed(bytes(HIGH_WATER - 1))
        self.assertFalse(self.stream.full)
        self.stream.feed(b"x")
        self.assertTrue(self.stream.full)
        self.stream.take(HIGH_WATER - LOW_WATER - 1)
        self.assertEqual((self.stream.full, self.told), (True, ["arrived"] * 2))
        self.stream.take(1)
        self.stream.take(1)
        self.assertEqual((self.stream.full, self.told), (False, ["arrived"] * 2 + ["drained"]))

    def test_complete(self) -> None:
        """When all of it has come nobody needs to stop."""
        self.stream.feed(bytes(HIGH_WATER))
        self.stream.finish()
        self.assertFalse(self.stream.full)

    def test_closed(self) -> None:
        """What nobody wants is thrown away, and nobody is told anything more."""
        self.stream.feed(bytes(HIGH_WATER))
        self.stream.close()
        self.stream.feed(b"more")
        self.stream.finish()
        self.assertEqual((self.stream.waiting, self.stream.full, self.told), (0, False, ["arrived"]))

    @MODEST
    @given(st.lists(st.one_of(st.binary(min_size=1, max_size=300), st.integers(1, 500)), max_size=40))
    def test_anything(self, steps: list[bytes | int]) -> None:
        """However it is filled and emptied, everything comes out once."""
        stream, into, out = BodyStream(None), b"", b""
        for step in steps:
            if isinstance(step, bytes):
                stream.feed(step)
                into += step
            else:
                out += stream.take(step)
        self.assertEqual((out + stream.take(1 << 20), stream.taken), (into, len(into)))
