"""What travels in parts: no more of it than was let come, and of everything a little in its turn."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.link.arrivals import IDLE_SECONDS, OPEN_LIMIT, Arrivals, Store
from rvpfarm.link.download import Download
from rvpfarm.link.flows import Flows, Whole
from rvpfarm.link.frames import FrameReader, from_caller, from_home
from rvpfarm.link.kinds import BadFrame
from rvpfarm.link.parts import PART_SIZE, WINDOW_SIZE, Begin, Open, Part
from rvpfarm.protocol.calls import Busy, Limits, TooLarge
from rvpfarm.protocol.streams import BodyStream
from tests.support.hypothesis import MODEST

LARGE = Limits(body=1 << 20)


def parts(data: bytes) -> list[Part]:
    """The parts that C{data} consists of, and nothing else."""
    found = FrameReader(from_home()).feed(data)
    assert all(isinstance(frame, Part) for frame in found)
    return found  # type: ignore[return-value]  # as was just seen


def window(data: bytes) -> int:
    """What the one window that C{data} is lets come; 0 if it is empty."""
    frames: list[Any] = FrameReader(from_caller(LARGE)).feed(data)
    assert len(frames) <= 1
    return frames[0].octets if frames else 0


class FlowsTests(SynchronousTestCase):
    """What is sent takes turns, and waits to be let come."""

    def setUp(self) -> None:
        """Nothing is sent yet."""
        self.ended: list[int] = []
        self.flows = Flows(self.ended.append)

    def test_let_come(self) -> None:
        """Nothing goes that was not let come, and nothing twice; the last part says so."""
        self.flows.open(1, Whole(b"abcdef"))
        self.assertFalse(self.flows.ready)
        self.flows.grant(1, 4)
        (part,) = parts(self.flows.next(100))
        self.assertEqual((part.data, part.last, self.flows.ready, self.ended), (b"abcd", False, {}, []))
        self.flows.grant(1, 4)
        (part,) = parts(self.flows.next(100))
        self.assertEqual((part.data, part.last, self.ended, len(self.flows)), (b"ef", True, [1], 0))
        self.assertFalse(self.flows.grant(1, 4))

    def test_turns(self) -> None:
        """Of each that is ready one part goes, then again one of each, and no more than there is room for."""
        for id in (1, 2, 3):
            self.flows.open(id, Whole(bytes(3 * PART_SIZE)))
            self.flows.grant(id, WINDOW_SIZE)
        turns = []
        while self.flows.ready:
            frames = parts(self.flows.next(2 * PART_SIZE))
            self.assertLessEqual(len(frames), 2)
            turns += [frame.id for frame in frames]
        self.assertEqual(turns, [1, 2, 3] * 3)

    def test_arriving(self) -> None:
        """A body that is still arriving is sent as it comes; its end may come alone."""
        stream = BodyStream(None)
        self.flows.open(1, stream)
        self.flows.grant(1, 100)
        self.assertFalse(self.flows.ready)
        stream.feed(b"abc")
        self.flows.wake(1)
        self.assertEqual([(part.data, part.last) for part in parts(self.flows.next(100))], [(b"abc", False)])
        stream.finish()
        self.flows.wake(1)
        self.assertEqual([(part.data, part.last) for part in parts(self.flows.next(100))], [(b"", True)])

    def test_closed(self) -> None:
        """What is given up is sent no more, even when that happens while it is being taken."""
        stream = BodyStream(None)
        stream.feed(bytes(70000))
        stream.drained = lambda: self.flows.close(1)
        self.flows.open(1, stream)
        self.flows.open(2, Whole(b"x"))
        self.flows.grant(1, 1 << 20)
        self.assertEqual({part.id for part in parts(self.flows.next(1 << 20))}, {1})
        self.assertEqual((self.flows.ids(), self.flows.ready), ((2,), {}))
        self.flows.clear()
        self.assertEqual(len(self.flows), 0)

    @MODEST
    @given(st.data())
    def test_interleaved(self, data: st.DataObject) -> None:
        """However credit and octets come, each arrives whole, and none ahead of its credit."""
        flows = Flows()
        sizes = data.draw(st.lists(st.integers(1, 60000), min_size=1, max_size=4))
        bodies = {id: bytes([id]) * size for id, size in enumerate(sizes)}
        granted, got = dict.fromkeys(bodies, 0), dict.fromkeys(bodies, b"")
        for id, body in bodies.items():
            flows.open(id, Whole(body))
        while len(flows):
            id = data.draw(st.sampled_from(flows.ids()))
            octets = data.draw(st.integers(1, 40000))
            granted[id] += octets
            flows.grant(id, octets)
            for part in parts(flows.next(data.draw(st.sampled_from((1, PART_SIZE, 1 << 20))))):
                got[part.id] += part.data
                self.assertLessEqual(len(got[part.id]), granted[part.id])
        self.assertEqual(got, bodies)


class ArrivalsTests(SynchronousTestCase):
    """A home takes no more of a body than it has let come, and executes only what is whole."""

    def setUp(self) -> None:
        """A store for a little, and a caller."""
        self.store = Store(500_000)
        self.arrivals = Arrivals(self.store, LARGE.body)

    def open(self, id: int, size: int | None) -> int:
        """Announce a call.

        @return: how much of it is let come.
        """
        return window(self.arrivals.open(Open(id, False, 0, "", "", b"head", size), 0.0))

    def part(self, id: int, size: int, *, last: bool = False) -> Any:
        """A part comes."""
        return self.arrivals.part(Part(id, last, bytes(size)), 1.0)

    def test_whole(self) -> None:
        """What is whole is handed over, and its room given back."""
        self.assertEqual((self.open(1, 100_000), self.store.held), (WINDOW_SIZE, 100_000))
        for _ in range(3):
            self.part(1, PART_SIZE)
        self.assertEqual(window(self.part(1, PART_SIZE)), 0)
        call, body = self.part(1, 100_000 - 4 * PART_SIZE, last=True)
        self.assertEqual(
            (call.head, len(body), self.store.held, len(self.arrivals)), (b"head", 100_000, 0, 0)
        )

    def test_windows(self) -> None:
        """As it is taken more is let come: never above the window, never more than was announced."""
        for id, size in ((1, 300_000), (2, None)):
            granted, sent = self.open(id, size), 0
            while sent < 300_000:
                piece = min(PART_SIZE, granted - sent, 300_000 - sent)
                self.assertGreater(piece, 0)
                sent += piece
                come = self.part(id, piece, last=sent == 300_000)
                if isinstance(come, bytes):
                    granted += window(come)
                    self.assertLessEqual(granted - sent, WINDOW_SIZE)
                    self.assertLessEqual(granted, size or granted)
            self.assertEqual(len(come[1]), 300_000)

    def test_overrun(self) -> None:
        """More than was let come, or than was announced, or less, is against the protocol."""
        self.open(1, 100_000)
        self.assertRaises(BadFrame, self.part, 1, WINDOW_SIZE + 1)
        self.open(2, 70_000)
        self.part(2, 60_000)
        self.assertRaises(BadFrame, self.part, 2, 10_001)
        self.open(3, 70_000)
        self.assertRaises(BadFrame, self.part, 3, 60_000, last=True)
        self.assertRaises(BadFrame, self.open, 3, 70_000)
        self.assertRaises(BadFrame, self.open, 4, 0)

    def test_unknown(self) -> None:
        """A part of what is not awaited, or not any more, is thrown away."""
        self.assertEqual(self.part(9, 10), b"")
        self.open(1, 70_000)
        self.arrivals.close(1)
        self.assertEqual((self.part(1, 10, last=True), len(self.arrivals), self.store.held), (b"", 0, 0))

    def test_too_many(self) -> None:
        """Only so many are open at a time, and only so much of them all together."""
        for id in range(OPEN_LIMIT):
            self.open(id, 1000)
        self.assertRaises(Busy, self.open, OPEN_LIMIT, 1000)
        self.arrivals.clear()
        self.open(1, 400_000)
        self.assertRaises(Busy, self.open, 2, 100_001)
        self.assertEqual((self.arrivals.clear(), self.store.held), ([1], 0))

    def test_too_large(self) -> None:
        """A body over the limit is refused: from its announcement, or when it has become so."""
        self.assertRaises(TooLarge, self.open, 1, LARGE.body + 1)
        self.arrivals = Arrivals(self.store, 100_000)
        granted = self.open(2, None)
        granted += window(self.part(2, 60_000))
        self.assertRaises(TooLarge, self.part, 2, 40_001)
        self.arrivals.close(2)
        self.assertEqual(self.store.held, 0)

    def test_store_fills_up(self) -> None:
        """One whose size is not known takes room as it grows, and is refused when there is none."""
        self.open(1, 350_000)
        sent, granted = 0, self.open(2, None)
        with self.assertRaises(Busy):
            while True:
                sent += PART_SIZE
                self.assertLessEqual(sent, granted)
                granted += window(self.part(2, PART_SIZE))
        self.arrivals.clear()
        self.assertEqual(self.store.held, 0)

    def test_idle(self) -> None:
        """One of which nothing comes is not waited for."""
        self.open(1, 70_000)
        self.open(2, 70_000)
        self.part(2, 10)
        ((id, _),) = self.arrivals.idle(IDLE_SECONDS)
        self.assertEqual((id, len(self.arrivals), self.arrivals.idle(IDLE_SECONDS)), (1, 1, []))


class Reader:
    """Reads a reply, when it wants to.

    @ivar came: what has come.
    @ivar let: how much was let come.
    @ivar outcome: whether all came, once that is known.
    @ivar gone: nobody wants the rest.
    """

    def __init__(self, size: int, begin: int = 100) -> None:
        self.came, self.let, self.gone = b"", 0, False
        self.outcome: list[bool] = []
        self.download = Download(self, Begin(1, False, size, bytes(begin)))

    def let_come(self, download: Download, octets: int) -> None:
        """Note it."""
        self.let += octets

    def abandoned(self, download: Download) -> None:
        """Note it."""
        self.gone = True

    def write(self, data: bytes) -> None:
        """Note it."""
        self.came += data

    def start(self) -> None:
        """Let it come."""
        self.download.start(self.write, self.outcome.append)


class DownloadTests(SynchronousTestCase):
    """A caller lets no more of a reply come than its reader has taken."""

    def test_not_before_it_is_wanted(self) -> None:
        """Nothing is let come before it is started, nor while it is paused."""
        reader = Reader(200_000)
        self.assertEqual(reader.let, 0)
        reader.download.pause()
        reader.start()
        self.assertEqual((reader.let, reader.download.coming), (0, False))
        reader.download.resume()
        self.assertEqual((reader.let, reader.download.coming), (WINDOW_SIZE, True))

    def test_paused(self) -> None:
        """What is on its way when it is paused is taken; no more is let come until it goes on."""
        reader = Reader(200_000)
        reader.start()
        reader.download.pause()
        while len(reader.came) < WINDOW_SIZE:
            reader.download.take(Part(1, False, bytes(PART_SIZE)))
        self.assertEqual(reader.let, WINDOW_SIZE)
        reader.download.resume()
        self.assertEqual(reader.let, 2 * WINDOW_SIZE)

    def test_whole(self) -> None:
        """All of it comes, and is let come in time, and the reader is told."""
        for size in (101, 100 + WINDOW_SIZE, 101 + WINDOW_SIZE, 500_000):
            reader, last = Reader(size), False
            reader.start()
            while not last:
                piece = min(PART_SIZE, reader.let - len(reader.came))
                self.assertGreater(piece, 0)
                last = len(reader.came) + piece == size - 100
                self.assertEqual(reader.download.take(Part(1, last, bytes(piece))), last)
            reader.download.over(complete=True)
            self.assertEqual((len(reader.came), reader.let), (size - 100, size - 100))
            self.assertEqual(reader.outcome, [True])

    def test_wrong(self) -> None:
        """More than was let come, an end too soon or none in its place is against the protocol."""
        for size, part in (
            (200_000, Part(1, False, bytes(WINDOW_SIZE + 1))),
            (200_000, Part(1, True, b"x")),
            (110, Part(1, False, bytes(10))),
        ):
            reader = Reader(size)
            reader.start()
            self.assertRaises(BadFrame, reader.download.take, part)

    def test_broken_before_it_was_wanted(self) -> None:
        """Who begins to read what will not come is told so."""
        reader = Reader(200_000)
        reader.download.over(complete=False)
        reader.start()
        reader.download.resume()
        self.assertEqual((reader.outcome, reader.let), ([False], 0))

    def test_cancelled(self) -> None:
        """Who wants no more of it hears no more of it."""
        reader = Reader(200_000)
        reader.start()
        reader.download.cancel()
        reader.download.take(Part(1, False, b"x"))
        reader.download.over(complete=False)
        self.assertEqual((reader.gone, reader.came, reader.outcome), (True, b"", []))
