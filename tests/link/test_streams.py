"""Long calls and replies: they arrive whole, hold up nobody, and wait where they come from."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.testing import StringTransport

from rvpfarm.link.arrivals import IDLE_SECONDS, OPEN_LIMIT
from rvpfarm.link.frames import FrameReader, from_caller, render_ask, render_call
from rvpfarm.link.kinds import Kind
from rvpfarm.link.links import LinkClient
from rvpfarm.link.meeting import Challenge, Hello, Meeting, render_edition, render_hello, render_proof
from rvpfarm.link.parts import (
    PART_SIZE,
    WINDOW_SIZE,
    Part,
    render_begin,
    render_open,
    render_part,
    render_window,
)
from rvpfarm.link.transfers import STREAM_SECONDS
from rvpfarm.protocol.calls import Busy, Call, Limits, Relayed, Reply, Slow, TooLarge, Unreachable
from rvpfarm.protocol.streams import HIGH_WATER, BodyStream, Streamed
from tests.support.links import HOME, KEY, WHERE, LinkTestCase, make_call

LARGE = Limits(body=1 << 20)
#: A body that is the same nowhere.
BODY = b"".join(b"%07d\n" % number for number in range(25_000))


def streamed(size: int | None = None, method: bytes = b"NOTIFY") -> tuple[Call, BodyStream]:
    """A call whose body is still arriving."""
    call = make_call(method, b"")
    call.stream = BodyStream(size)
    return call, call.stream


def body_of(outcome: list[Any]) -> bytes:
    """The body of the only outcome, which is a reply that is here."""
    (reply,) = outcome
    assert isinstance(reply, Relayed), reply
    return reply.wire.partition(b"\r\n\r\n")[2]


class StreamTestCase(LinkTestCase):
    """A home that takes long calls, and a caller that passes on long replies as they come."""

    def set_up(self, seed: int) -> None:
        """As C{LinkTestCase}, with room for more."""
        super().set_up(seed)
        self.factory = self.make_home()
        self.client = self.make_client()

    def make_home(self, incarnation: int = 1, **more: Any) -> Any:
        """A home that takes long calls."""
        return super().make_home(incarnation, **{"limits": LARGE, **more})

    def make_client(self, **more: Any) -> LinkClient:
        """A caller that knows that."""
        return super().make_client(**{"limits": LARGE, **more})

    def send(self, call: Call, client: LinkClient | None = None) -> list[Any]:
        """Make a call.

        @return: where its outcome will be.
        """
        outcome: list[Any] = []
        (client or self.client).call(call).addBoth(outcome.append)
        return outcome

    def echo(self) -> None:
        """The home answers every call with its own body."""
        self.home.instead = lambda call: Reply(200, body=call.body)

    def link(self) -> None:
        """Have the caller linked."""
        self.echo()
        self.call()
        self.network.pump()
        self.home.calls.clear()
        self.home.instead = None

    def turns(self, ready: Any, limit: int = 1000) -> int:
        """How many turns of the loop it takes until C{ready()}; in each, both ends read once."""
        for turn in range(limit):
            if ready():
                return turn
            self.network.step(upstream=True, size=65536)
            self.network.step(upstream=False, size=65536)
        raise AssertionError("it did not come about")


class LongCallTests(StreamTestCase):
    """A long call is executed once it is whole, and not before."""

    def test_at_hand(self) -> None:
        """A body that is there goes in parts, none of them long, and arrives as it was."""
        outcome = self.send(make_call(body=BODY))
        self.network.pump()
        (call,) = self.home.calls
        self.assertEqual((call.body, call.peer, call.via), (BODY, "10.1.2.3", "router-1"))
        frames = FrameReader({**from_caller(LARGE), **dict.fromkeys((1, 3, 23), 1000)}).feed(
            bytes(self.network.pipes[0].sent)
        )
        sizes = [len(frame.data) for frame in frames if isinstance(frame, Part)]
        self.assertEqual((sum(sizes), max(sizes)), (len(BODY), PART_SIZE))
        self.home.waiting[0].callback(Reply(200))
        self.network.pump()
        self.assertEqual((outcome[0].status, self.client.in_flight, self.factory.store.held), (200, 0, 0))

    def test_still_arriving(self) -> None:
        """A body that is still arriving goes as it comes, whether or not its size is known."""
        for size in (len(BODY), None):
            self.set_up(seed=1)
            self.echo()
            call, stream = streamed(size)
            outcome = self.send(call)
            for at in range(0, len(BODY), 9000):
                self.network.pump()
                self.assertEqual((self.home.calls, stream.waiting), ([], 0))
                stream.feed(BODY[at : at + 9000])
            stream.finish()
            self.network.pump()
            self.assertEqual(self.home.calls[0].body, BODY)
            self.assertEqual(body_of(outcome), BODY)

    def test_before_the_link(self) -> None:
        """A body that arrives before the home is linked waits, and no more of it than has room."""
        self.network.silent.add(WHERE)
        call, stream = streamed(len(BODY))
        self.send(call)
        stream.feed(BODY[:HIGH_WATER])
        self.network.advance(1)
        self.assertTrue(stream.full)
        self.network.silent.clear()
        self.network.advance(6)
        self.assertEqual((stream.full, stream.waiting), (True, HIGH_WATER))

    def test_hung_up(self) -> None:
        """Who hangs up in the middle has nothing executed, and nothing kept for him."""
        call, stream = streamed(len(BODY))
        deferred = self.client.call(call)
        stream.feed(BODY[:40000])
        self.network.pump()
        self.assertEqual(self.factory.store.held, len(BODY))
        deferred.cancel()
        self.failureResultOf(deferred, CancelledError)
        stream.feed(BODY[40000:])
        stream.finish()
        self.network.pump()
        self.assertEqual((self.home.calls, self.factory.store.held, self.client.in_flight), ([], 0, 0))
        self.assertTrue(self.client.connected)

    def test_no_credit(self) -> None:
        """A home that takes nothing more has the caller stop, with little held on the way."""
        self.link()
        near = self.network.pipes[0]
        near.other.reading = False
        call, stream = streamed(len(BODY))
        self.send(call)
        near.other.reading = True
        for _ in range(3):
            self.network.step(upstream=True)
        near.other.reading = False
        self.network.step(upstream=False)
        fed = 0
        for _ in range(100):
            if not stream.full:
                stream.feed(BODY[fed : fed + 5000])
                fed += 5000
            self.clock.advance(0)
        self.assertTrue(stream.full)
        self.assertLessEqual(len(near.waiting) + stream.waiting, WINDOW_SIZE + HIGH_WATER + 6000)
        self.assertLess(fed, WINDOW_SIZE + HIGH_WATER + 6000)

    def test_too_large(self) -> None:
        """What the home would not take is refused here if that is known, and there if it is not."""
        self.assertRaises(TooLarge, self.client.call, make_call(body=bytes(LARGE.body + 20000)))
        call, stream = streamed(LARGE.body + 20000)
        self.assertRaises(TooLarge, self.client.call, call)
        self.make_home(limits=Limits(body=100_000))
        for size in (len(BODY), None):
            call, stream = streamed(size)
            outcome = self.send(call)
            at = 0
            while not outcome:
                stream.feed(BODY[at : at + 10000])
                at += 10000
                self.network.pump()
            self.assertEqual((outcome[0].status, self.home.calls), (413, []))
        self.assertTrue(self.client.connected)

    def test_too_many(self) -> None:
        """Beyond what a home takes at a time it says so, and takes the others."""
        self.echo()
        made = [streamed(None) for _ in range(OPEN_LIMIT + 6)]
        outcomes = [self.send(call) for call, _ in made]
        self.network.pump()
        refused = [outcome[0].status for outcome in outcomes if outcome]
        self.assertEqual(refused, [503] * 6)
        for (_, stream), outcome in zip(made, outcomes, strict=True):
            if not outcome:
                stream.feed(BODY)
                stream.finish()
        self.network.pump()
        self.assertEqual(len(self.home.calls), OPEN_LIMIT)

    def test_full_home(self) -> None:
        """A home with too much in work lets no body come."""

        class Room:
            limit, in_work = 0, 0

        self.make_home(admission=Room)
        call, stream = streamed(len(BODY))
        outcome = self.send(call)
        stream.feed(BODY[:50000])
        self.network.pump()
        self.assertEqual((outcome[0].status, stream.taken), (503, 0))

    def test_octets_are_bounded(self) -> None:
        """Long calls count among what may wait for a home."""
        with self.assertRaises(Busy):
            for _ in range(1000):
                self.send(make_call(body=BODY))
        self.assertLess(self.client.in_flight, 200)

    def test_slow_answer(self) -> None:
        """The time for the answer begins when all has been sent."""
        call, stream = streamed(len(BODY))
        outcome = self.send(call)
        for at in range(0, len(BODY), 10000):
            stream.feed(BODY[at : at + 10000])
            self.network.advance(5)
        stream.finish()
        self.network.pump()
        self.network.advance(24)
        self.assertEqual(outcome, [])
        self.network.advance(2)
        self.assert_failed(outcome, Slow, maybe_done=True)
        self.assertEqual(self.home.given_up, [0])

    def test_stuck(self) -> None:
        """A body that no longer moves is given up at both ends; nothing was done."""
        call, stream = streamed(len(BODY))
        outcome = self.send(call)
        stream.feed(BODY[:10000])
        self.network.advance(STREAM_SECONDS - 1, pieces=40)
        self.assertEqual(outcome, [])
        self.network.advance(2)
        self.assert_failed(outcome, Unreachable)
        self.assertEqual((self.home.calls, self.factory.store.held), ([], 0))

    def test_taken_elsewhere(self) -> None:
        """A body of which some is gone cannot be sent to another home."""
        call, stream = streamed(len(BODY))
        stream.feed(BODY)
        stream.take(1)
        self.assertRaises(Busy, self.client.call, call)


class BrokenUploadTests(StreamTestCase):
    """A link that breaks over a long call: nothing is done twice, and what was not done is known."""

    def begin(self, method: bytes = b"NOTIFY") -> tuple[list[Any], BodyStream]:
        """Some of a body has come to the home, and some is on its way."""
        call, stream = streamed(len(BODY), method)
        outcome = self.send(call)
        stream.feed(BODY[:40000])
        self.network.pump()
        return outcome, stream

    def end(self, stream: BodyStream) -> None:
        """The rest of it comes to the home."""
        at = 40000
        while at < len(BODY):
            stream.feed(BODY[at : at + 10000])
            at += 10000
            self.network.pump()
        stream.finish()
        self.network.pump()

    def test_in_the_middle(self) -> None:
        """A body that is not at hand any more cannot be sent again; nothing was done."""
        outcome, _ = self.begin()
        self.network.cut()
        self.assert_failed(outcome, Unreachable)
        self.network.advance(3)
        self.assertEqual((self.home.calls, self.factory.store.held), ([], 0))

    def test_in_the_middle_at_hand(self) -> None:
        """One that is at hand is sent again, from its beginning, and the call is executed once."""
        self.echo()
        self.link()
        self.echo()
        outcome = self.send(make_call(body=BODY))
        for _ in range(4):
            self.network.step(upstream=True, size=30000)
            self.network.step(upstream=False)
        self.network.cut()
        self.assertEqual((outcome, self.home.calls), ([], []))
        self.network.advance(1)
        self.assertEqual((body_of(outcome), len(self.home.calls)), (BODY, 1))

    def test_twice(self) -> None:
        """A call in the middle of which two links broke is given up."""
        self.link()
        outcome = self.send(make_call(body=BODY))
        for _ in range(2):
            for _ in range(20):
                self.clock.advance(0.05)
                self.network.step(upstream=True, size=30000)
                self.network.step(upstream=False, size=300)
                if self.factory.store.held:
                    break
            self.network.cut()
        self.assert_failed(outcome, Unreachable)
        self.assertEqual(self.home.calls, [])

    def test_before_it_was_let_come(self) -> None:
        """Of what was only announced nothing is lost with the link."""
        self.link()
        self.echo()
        call, stream = streamed(len(BODY))
        outcome = self.send(call)
        stream.feed(BODY[:HIGH_WATER])
        self.clock.advance(0)
        self.network.cut()
        self.assertEqual((outcome, stream.taken), ([], 0))
        self.network.advance(1)
        for at in range(HIGH_WATER, len(BODY), 10000):
            stream.feed(BODY[at : at + 10000])
            self.network.pump()
        stream.finish()
        self.network.pump()
        self.assertEqual((body_of(outcome), len(self.home.calls)), (BODY, 1))

    def test_after_its_end(self) -> None:
        """What was sent to its end is asked for: it is executed once, and its reply comes."""
        outcome, stream = self.begin()
        self.end(stream)
        self.assertEqual(len(self.home.calls), 1)
        self.network.cut()
        self.network.advance(1)
        self.assertEqual(outcome, [])
        self.home.waiting[0].callback(Reply(200, body=b"once"))
        self.network.pump()
        self.assertEqual((body_of(outcome), len(self.home.calls)), (b"once", 1))

    def test_reply_lost(self) -> None:
        """So it is when the reply had been given."""
        outcome, stream = self.begin()
        self.end(stream)
        self.home.waiting[0].callback(Reply(200, body=b"once"))
        self.clock.advance(0)
        self.network.cut()
        self.network.advance(1)
        self.assertEqual((body_of(outcome), len(self.home.calls)), (b"once", 1))

    def test_end_lost(self) -> None:
        """If the home never had all of it, it says so: nothing was done."""
        outcome, stream = self.begin()
        at = 40000
        while at < len(BODY):
            stream.feed(BODY[at : at + 10000])
            at += 10000
            if at < len(BODY):
                self.network.pump()
        stream.finish()
        self.clock.advance(0)
        self.network.cut()
        self.network.advance(1)
        self.assert_failed(outcome, Unreachable)
        self.assertEqual(self.home.calls, [])

    def test_another_incarnation(self) -> None:
        """An incarnation that cannot know what another did is not asked."""
        for method in (b"NOTIFY", b"PROPPATCH"):
            self.set_up(seed=1)
            outcome, stream = self.begin(method)
            self.end(stream)
            self.restart(incarnation=2)
            self.network.advance(1)
            self.assert_failed(outcome, Unreachable, maybe_done=True)

    def test_planned(self) -> None:
        """What a home has let come it takes to its end though it drains; the rest is held for the next."""
        outcome, stream = self.begin()
        self.network.listen(*WHERE, None)
        drained = self.factory.drain()
        call, late = streamed(len(BODY))
        after = self.send(call)
        late.feed(BODY[:HIGH_WATER])
        self.network.pump()
        self.end(stream)
        self.assertEqual(len(self.home.calls), 1)
        self.home.waiting[0].callback(Reply(200))
        self.network.pump()
        self.successResultOf(drained)
        self.assertEqual((outcome[0].status, after, late.taken), (200, [], 0))
        self.echo()
        self.factory = self.make_home(2)
        self.network.advance(1)
        for at in range(HIGH_WATER, len(BODY), 10000):
            late.feed(BODY[at : at + 10000])
            self.network.pump()
        late.finish()
        self.network.pump()
        self.assertEqual(body_of(after), BODY)

    def test_on_its_way_to_a_draining_home(self) -> None:
        """What is announced to a home that has begun to drain is handed back, and held."""
        self.link()
        outcome = self.send(make_call(body=BODY))
        self.clock.advance(0)
        self.network.listen(*WHERE, None)
        self.factory.drain()
        self.network.pump()
        self.assertEqual((outcome, self.client.held), ([], 1))
        self.echo()
        self.make_home(2)
        self.network.advance(1)
        self.assertEqual((body_of(outcome), len(self.home.calls)), (BODY, 1))

    def test_a_drain_that_ends_in_the_middle(self) -> None:
        """What has not come in time is handed back; without its body it cannot be held."""
        outcome, _ = self.begin()
        self.network.listen(*WHERE, None)
        self.factory.drain(seconds=2.0)
        self.network.advance(2.5)
        self.assert_failed(outcome, Unreachable)
        self.assertEqual(self.home.calls, [])


class LongReplyTests(StreamTestCase):
    """A long reply comes as fast as it is read, and no faster."""

    def set_up(self, seed: int) -> None:
        """The home has much to say."""
        super().set_up(seed)
        self.home.instead = lambda call: Reply(200, body=BODY)
        self.client = self.make_client(piecewise=True)

    def ask(self) -> Streamed:
        """Make a call whose reply has begun to come."""
        outcome = self.call()
        self.network.pump()
        (reply,) = outcome
        assert isinstance(reply, Streamed), reply
        return reply

    def read(self, reply: Streamed) -> tuple[list[bytes], list[bool]]:
        """Begin to read C{reply}."""
        pieces, over = [reply.wire], list[bool]()
        reply.rest.start(pieces.append, over.append)
        return pieces, over

    def test_as_it_is_read(self) -> None:
        """It begins with all of its head; the rest comes when it is wanted, and then is acknowledged."""
        reply = self.ask()
        self.assertEqual((reply.status, b"\r\n\r\n" in reply.wire), (200, True))
        self.assertLess(len(self.network.pipes[0].other.sent), PART_SIZE + 1000)
        pieces, over = self.read(reply)
        self.network.pump()
        self.assertEqual((b"".join(pieces).partition(b"\r\n\r\n")[2], over), (BODY, [True]))
        self.assertLessEqual(max(map(len, pieces)), PART_SIZE)
        (ledger,) = self.factory._ledgers.values()
        self.network.advance(16)
        self.assertEqual((len(ledger), self.client.in_flight), (0, 0))

    def test_slow_reader(self) -> None:
        """A reader that stops lets no more come than is on its way."""
        reply = self.ask()
        pieces, over = self.read(reply)
        reply.rest.pause()
        self.network.pump()
        self.assertLessEqual(sum(map(len, pieces[1:])), WINDOW_SIZE)
        self.assertEqual((over, len(self.network.pipes[0].other.waiting)), ([], 0))
        reply.rest.resume()
        self.network.pump()
        self.assertEqual(over, [True])

    def test_not_wanted(self) -> None:
        """What nobody wants any more is not sent, and forgotten."""
        for started in (False, True):
            self.set_up(seed=1)
            reply = self.ask()
            over = self.read(reply)[1] if started else []
            reply.rest.cancel()
            before = len(self.network.pipes[0].other.sent)
            self.network.pump()
            (ledger,) = self.factory._ledgers.values()
            (line,) = self.factory._connections
            self.assertEqual((len(ledger), len(line._flows), over), (0, 0, []))
            self.assertLess(len(self.network.pipes[0].other.sent) - before, WINDOW_SIZE + 1000)

    def test_broken(self) -> None:
        """When the link breaks the reader is told that the rest will never come."""
        reply = self.ask()
        pieces, over = self.read(reply)
        self.network.step(upstream=True)
        self.network.step(upstream=False, size=20000)
        self.network.cut()
        self.network.advance(3)
        self.assertEqual((over, len(self.home.calls)), ([False], 1))
        self.assertLess(len(b"".join(pieces)), len(BODY))

    def test_broken_before_it_began(self) -> None:
        """Before its beginning has come a long reply is sent again like any other."""
        outcome = self.call()
        while not self.home.calls:
            self.network.step(upstream=True)
            if not self.home.calls:
                self.network.step(upstream=False)
        self.network.cut()
        self.network.advance(1)
        pieces, over = self.read(outcome[0])
        self.network.pump()
        self.assertEqual((b"".join(pieces).partition(b"\r\n\r\n")[2], over), (BODY, [True]))
        self.assertEqual(len(self.home.calls), 1)

    def test_collected(self) -> None:
        """Who does not read piece by piece gets it in one, also when the link breaks in the middle."""
        self.client = self.make_client()
        outcome = self.call()
        while len(self.network.pipes[0].other.sent) < 60000:
            self.network.step(upstream=True)
            self.network.step(upstream=False, size=20000)
        self.network.cut()
        self.assertEqual(outcome, [])
        self.network.advance(1)
        self.assertEqual((body_of(outcome), type(outcome[0])), (BODY, Relayed))
        self.assertEqual(len(self.home.calls), 1)

    def test_hung_up_while_collected(self) -> None:
        """Nobody collects a reply for a caller who hung up."""
        self.client = self.make_client()
        deferred = self.client.call(make_call())
        while len(self.network.pipes) == 0 or len(self.network.pipes[0].other.sent) < 60000:
            self.network.step(upstream=True)
            self.network.step(upstream=False, size=20000)
        deferred.cancel()
        self.failureResultOf(deferred, CancelledError)
        self.network.pump()
        (ledger,) = self.factory._ledgers.values()
        self.assertEqual((len(ledger), self.client.in_flight), (0, 0))

    def test_stuck(self) -> None:
        """A home that sends nothing of what was let come is not waited for without end."""
        reply = self.ask()
        (line,) = self.factory._connections
        line._flows.clear()
        _, over = self.read(reply)
        self.network.advance(STREAM_SECONDS - 1, pieces=40)
        self.assertEqual(over, [])
        self.network.advance(2)
        self.assertEqual(over, [False])

    def test_forgotten(self) -> None:
        """A reply that nobody reads is not kept for ever."""
        self.ask()
        self.network.advance(140, pieces=100)
        (line,) = self.factory._connections
        self.assertEqual((len(line._flows), self.client.connected), (0, True))

    def test_drained(self) -> None:
        """A home that drains sends what it has begun to its end."""
        reply = self.ask()
        self.network.listen(*WHERE, None)
        drained = self.factory.drain()
        self.network.pump()
        self.assertNoResult(drained)
        _, over = self.read(reply)
        self.network.pump()
        self.successResultOf(drained)
        self.assertEqual(over, [True])

    def test_stopped(self) -> None:
        """A caller that stops tells the reader, and leaves nothing behind."""
        _, over = self.read(self.ask())
        stopped = self.client.stop()
        self.network.pump()
        self.successResultOf(stopped)
        self.assertEqual(over, [False])
        self.successResultOf(self.factory.drain())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_refused_in_the_middle_at_length(self) -> None:
        """A long reply may come before the end of a long call."""
        self.home.instead = None
        call, stream = streamed(None)
        outcome = self.send(call)
        stream.feed(BODY[:30000])
        self.network.pump()
        (line,) = self.factory._connections
        ledger = line.ledger
        assert ledger is not None
        work = ledger.begin(1)
        frame = self.factory._frame(1, Reply(403, body=BODY), b"0.2")
        ledger.answer(1, work, frame, 0.0)
        line._arrivals.close(1)
        line.send(frame)
        self.network.pump()
        _, over = self.read(outcome[0])
        stream.feed(BODY[30000:60000])
        self.network.pump()
        self.assertEqual((outcome[0].status, over), (403, [True]))


class CompanyTests(StreamTestCase):
    """Short calls pass long ones on the same connection."""

    def small(self) -> int:
        """How many turns a short call takes there and back."""
        outcome = self.call(b"NOTIFY", b"small")
        return self.turns(lambda: outcome)

    def setUp(self) -> None:
        """A linked caller, and a home that answers at once."""
        super().setUp()
        self.client = self.make_client(piecewise=True)
        self.link()
        self.home.instead = lambda call: Reply(200, body=BODY if call.body == b"much" else b"ok")
        self.alone = self.small()

    def test_long_calls(self) -> None:
        """While many bodies are on their way a short call takes a turn or two more."""
        outcomes = [self.send(make_call(body=BODY)) for _ in range(20)]
        for _ in range(8):
            self.assertLessEqual(self.small(), self.alone + 3)
        self.assertTrue(any(not outcome for outcome in outcomes))
        self.network.pump()
        self.assertEqual([outcome[0].status for outcome in outcomes], [200] * 20)

    def test_slow_senders(self) -> None:
        """Callers that do not finish their bodies delay nobody."""
        for _ in range(20):
            call, stream = streamed(None)
            self.send(call)
            stream.feed(bytes(30000))
        self.network.pump()
        for _ in range(8):
            self.assertEqual(self.small(), self.alone)

    def test_slow_readers(self) -> None:
        """Callers that do not read their replies delay nobody, and what is held for them is little."""
        held = [0]

        def note(data: bytes) -> None:
            held[0] += len(data)

        for number in range(20):
            outcome = self.call(b"NOTIFY", b"much")
            self.network.pump()
            if number % 2:
                outcome[0].rest.start(note, lambda complete: None)
                outcome[0].rest.pause()
        self.network.pump()
        self.assertLessEqual(held[0], 10 * WINDOW_SIZE)
        for _ in range(8):
            self.assertEqual(self.small(), self.alone)

    def test_long_replies(self) -> None:
        """While many replies are on their way a short call takes a turn or two more."""
        over, outcomes = list[bool](), [self.call(b"NOTIFY", b"much") for _ in range(20)]
        self.network.pump()
        for outcome in outcomes:
            outcome[0].rest.start(lambda data: None, over.append)
        for _ in range(8):
            self.assertLessEqual(self.small(), self.alone + 3)
        self.assertLess(len(over), 20)
        self.network.pump()
        self.assertEqual(over, [True] * 20)

    def test_little_in_the_transport(self) -> None:
        """However many long calls there are, little of them stands in front of what comes next."""
        near = self.network.pipes[-1]
        for _ in range(50):
            self.send(make_call(body=BODY))
        most = 0
        for _ in range(60):
            self.network.step(upstream=True, size=10000)
            self.network.step(upstream=False)
            most = max(most, len(near.waiting))
        self.assertLess(most, 65536 + 40000)


class OldMemberTests(StreamTestCase):
    """Who knows nothing of parts gets long calls and replies in one piece."""

    def test_old_home(self) -> None:
        """For an old home a body is collected first, whatever it comes as."""
        self.make_home(edition=0)
        self.home.instead = lambda call: Reply(200, body=call.body)
        for linked in (False, True):
            whole = self.send(make_call(body=BODY))
            call, stream = streamed(len(BODY))
            outcome = self.send(call)
            if linked:
                self.network.pump()
            for at in range(0, len(BODY), 10000):
                stream.feed(BODY[at : at + 10000])
                self.network.pump()
            self.assertEqual(outcome, [])
            stream.finish()
            self.network.pump()
            self.assertEqual((body_of(whole), body_of(outcome)), (BODY, BODY))
        self.assertEqual((self.client.in_flight, self.client._roll.weight), (0, 0))

    def test_given_up(self) -> None:
        """A body that is collected for nobody is not sent."""
        self.make_home(edition=0)
        self.link()
        call, stream = streamed(len(BODY))
        deferred = self.client.call(call)
        stream.feed(BODY[:50000])
        self.network.pump()
        deferred.cancel()
        self.failureResultOf(deferred, CancelledError)
        stream.feed(BODY[50000:])
        stream.finish()
        self.network.pump()
        self.assertEqual((self.home.calls, self.client._roll.weight), ([], 0))

    def test_broken(self) -> None:
        """When the link to an old home breaks meanwhile, nothing was done."""
        self.make_home(edition=0)
        self.link()
        call, stream = streamed(len(BODY))
        outcome = self.send(call)
        stream.feed(BODY[:50000])
        self.network.pump()
        self.network.cut()
        self.assert_failed(outcome, Unreachable)

    def test_home_gone_back(self) -> None:
        """What was asked of a new home cannot be asked of an old one."""
        call, stream = streamed(len(BODY), b"PROPPATCH")
        outcome = self.send(call)
        for at in range(0, len(BODY), 10000):
            stream.feed(BODY[at : at + 10000])
            self.network.pump()
        stream.finish()
        self.network.pump()
        self.make_home(1, edition=0)
        self.network.cut()
        self.network.advance(1)
        self.assert_failed(outcome, Unreachable, maybe_done=True)

    def test_home_replaced(self) -> None:
        """A body at hand goes to whichever home there is, as that home takes it."""
        outcome = self.send(make_call(b"PROPPATCH", BODY))
        self.network.pump()
        for incarnation, edition in ((2, 0), (3, 1)):
            self.set_up(seed=1)
            outcome = self.send(make_call(b"PROPPATCH", BODY))
            self.network.pump()
            self.make_home(incarnation, edition=edition)
            self.network.cut()
            self.echo()
            self.network.advance(1)
            self.assertEqual(body_of(outcome), BODY)

    def test_old_caller(self) -> None:
        """An old caller sends and gets everything in one piece."""
        self.client = self.make_client(edition=0)
        self.echo()
        outcome = self.send(make_call(body=BODY))
        self.network.pump()
        self.assertEqual(body_of(outcome), BODY)


class HostileCallerTests(StreamTestCase):
    """A member that does not keep to the protocol gains nothing."""

    def setUp(self) -> None:
        """It has proved itself, and speaks as we do."""
        super().setUp()
        self.transport = StringTransport()
        self.protocol: Any = self.factory.buildProtocol(None)
        self.protocol.makeConnection(self.transport)
        nonce = b"c" * 32
        self.protocol.dataReceived(render_hello(Hello(5, nonce, "router-9", HOME)))
        (challenge,) = FrameReader({int(Kind.CHALLENGE): 33}).feed(self.transport.value())
        assert isinstance(challenge, Challenge)
        meeting = Meeting("router-9", HOME, 5, nonce, challenge.nonce)
        self.protocol.dataReceived(render_proof(meeting.caller_proof(KEY)))
        self.protocol.dataReceived(render_edition(1))

    def feed(self, *frames: bytes) -> None:
        """It sends C{frames}."""
        for frame in frames:
            self.protocol.dataReceived(frame)

    def open(self, id: int, size: int | None = 100_000) -> bytes:
        """The announcement of a long call."""
        return render_open(id, make_call(body=b""), size)

    def assert_cut_off(self, *frames: bytes) -> None:
        """C{frames} end the connection, and nothing is executed or kept."""
        self.feed(*frames)
        self.assertTrue(self.transport.disconnected)
        self.assertEqual((self.home.calls, self.factory.store.held), ([], 0))

    def test_parts_of_nothing(self) -> None:
        """Parts of what was never announced, or is over, are thrown away."""
        whole = [render_part(3, bytes(PART_SIZE), False)] * 3 + [render_part(3, bytes(900), True)]
        for _ in range(1000):
            self.feed(render_part(7, bytes(PART_SIZE), False))
        self.feed(self.open(3, 3 * PART_SIZE + 900), *whole, *whole)
        self.assertEqual((len(self.home.calls), self.transport.disconnected), (1, False))
        self.assertEqual((self.factory.store.held, self.protocol._reader.buffered), (0, 0))

    def test_overrun(self) -> None:
        """More than was let come ends the connection."""
        self.assert_cut_off(self.open(3), *[render_part(3, bytes(PART_SIZE), False)] * 50)

    def test_longer_than_announced(self) -> None:
        """More than was announced ends the connection."""
        self.assert_cut_off(self.open(3, 70), render_part(3, bytes(71), False))

    def test_shorter_than_announced(self) -> None:
        """Less than was announced does too."""
        self.assert_cut_off(self.open(3, 70), render_part(3, bytes(69), True))

    def test_announced_twice(self) -> None:
        """So does one call that is announced twice."""
        self.assert_cut_off(self.open(3), self.open(3))

    def test_large_part(self) -> None:
        """A part is never long."""
        self.assert_cut_off(self.open(3), render_part(3, bytes(PART_SIZE + 1), False))

    def test_too_many(self) -> None:
        """What is announced in heaps is refused, and takes no room."""
        self.feed(*[self.open(id, 1 << 20) for id in range(3000)])
        self.assertFalse(self.transport.disconnected)
        self.assertLessEqual(self.factory.store.held, 64 << 20)
        self.assertEqual(self.transport.value().count(b" 503 "), 3000 - 64)  # of 1 MiB each

    def test_never_finished(self) -> None:
        """What is announced and never sent is given up after a while."""
        self.feed(*[self.open(id) for id in range(30)])
        for _ in range(9):
            self.clock.advance(10)
            self.feed(b"\0\0\0\x09" + bytes([Kind.PING]) + bytes(8))
        self.assertGreater(90, IDLE_SECONDS)
        self.assertEqual((self.factory.store.held, self.transport.value().count(b" 408 ")), (0, 30))

    def test_windows_and_questions(self) -> None:
        """Windows for nothing are of no effect; who asks for what never was is told so."""
        self.feed(*[render_window(id, 2**32 - 1) for id in range(100)], render_ask(8))
        self.assertFalse(self.transport.disconnected)
        self.assertTrue(self.transport.value().endswith(bytes([Kind.RETURNED]) + (8).to_bytes(8, "big")))

    def test_same_id(self) -> None:
        """A call that is sent whole and in parts under one id is executed once."""
        self.feed(render_call(4, make_call()), self.open(4, 10), render_part(4, bytes(10), True))
        self.assertEqual((len(self.home.calls), self.factory.store.held), (1, 0))


class HostileHomeTests(StreamTestCase):
    """A home that does not keep to the protocol is left."""

    def check(self, *frames: bytes, call: Call | None = None) -> None:
        """C{frames} end the link, on which there is the call number 2."""
        self.client = self.make_client(piecewise=True)
        self.link()
        outcome = self.send(call or make_call())
        self.network.pump()
        self.home.waiting.clear()
        (line,) = self.factory._connections
        for frame in frames:
            line.send(frame)
        self.network.step(upstream=False)
        self.network.step(upstream=False)
        self.assertFalse(self.network.pipes[0].connected)
        self.assertFalse(self.client.connected)
        del outcome

    def test_window_for_a_short_call(self) -> None:
        """A short call has no parts to ask for."""
        self.check(render_window(2, 100))

    def test_part_not_let_come(self) -> None:
        """A reply comes as far as it was let come."""
        self.check(
            render_begin(2, False, 1 << 20, b"HTTP/1.1 200 x\r\n\r\n"),
            render_part(2, b"x", False),
        )

    def test_begins_twice(self) -> None:
        """It begins once."""
        begin = render_begin(2, False, 1 << 20, b"HTTP/1.1 200 x\r\n\r\n")
        self.check(begin, begin)


class ChanceTests(StreamTestCase):
    """Whatever happens to long and short calls together, each is whole and executed once at most."""

    @settings(max_examples=100, deadline=None)
    @given(st.integers(0, 2**32), st.integers(0, 4))
    def test_interleaved(self, seed: int, cuts: int) -> None:
        """Bodies and replies of any length, cut anywhere, never mix, and nobody waits for ever."""
        self.set_up(seed)
        random = self.network.random
        self.client = self.make_client(piecewise=True)
        made: list[tuple[bytes, list[Any], BodyStream | None]] = []
        read: dict[int, tuple[list[bytes], list[bool]]] = {}
        answers = random.choice((1, 3000, 100_000))

        def answer(call: Call) -> Any:
            reply = Reply(200, body=(call.body * (answers // len(call.body) + 1))[: len(call.body) + answers])
            if random.random() < 0.5:
                return reply
            deferred: Deferred[Reply] = Deferred(lambda deferred: None)
            self.clock.callLater(random.random(), lambda: deferred.called or deferred.callback(reply))
            return deferred

        self.home.instead = answer
        feeding: list[tuple[BodyStream, bytes]] = []
        for step in range(120):
            if random.random() < 0.15 and len(made) < 12:
                size = random.choice((10, 1000, 70_000, 200_000))
                body = (b"%d." % len(made)) * (size // 3)
                if size > 60_000 and random.random() < 0.6:
                    call, stream = streamed(
                        random.choice((None, len(body))), random.choice((b"NOTIFY", b"ACL"))
                    )
                    feeding.append((stream, body))
                    made.append((body, self.send(call), stream))
                else:
                    made.append((body, self.send(make_call(body=body)), None))
            for stream, body in feeding:
                if not stream.full and random.random() < 0.7:
                    arrived = stream.taken + stream.waiting
                    stream.feed(body[arrived : arrived + random.choice((1, 16384))])
                    if stream.taken + stream.waiting == len(body):
                        stream.finish()
            feeding = [(stream, body) for stream, body in feeding if not stream.complete]
            self.read_replies(made, read)
            for _ in range(random.randrange(6)):
                self.network.step(upstream=random.random() < 0.5, size=random.choice((40, 5000, 100_000)))
            self.clock.advance(random.choice((0, 0, 0.01, 0.1)))
            if cuts and random.random() < 0.03:
                cuts -= 1
                self.network.cut()
            for _, _, stream in made:
                self.assertLessEqual(stream.waiting if stream is not None else 0, HIGH_WATER + 16384)
            del step
        for stream, body in feeding:
            while not stream.complete and stream.taken + stream.waiting < len(body):
                arrived = stream.taken + stream.waiting
                stream.feed(body[arrived : arrived + 16384])
                self.network.pump()
                if arrived == stream.taken + stream.waiting:
                    break
            stream.finish()
        for _ in range(60):
            self.network.advance(1)
            self.read_replies(made, read)
        self.check(made, read, answers)

    def read_replies(self, made: list[Any], read: dict[int, tuple[list[bytes], list[bool]]]) -> None:
        """Read what has begun to come."""
        for number, (_, outcome, _) in enumerate(made):
            if outcome and isinstance(outcome[0], Streamed) and number not in read:
                read[number] = ([outcome[0].wire], [])
                outcome[0].rest.start(read[number][0].append, read[number][1].append)

    def check(self, made: list[Any], read: dict[int, tuple[list[bytes], list[bool]]], answers: int) -> None:
        """Every call has ended, and as it was said to."""
        executed = [call.body for call in self.home.calls]
        self.assertEqual(len(set(executed)), len(executed))
        for number, (body, outcome, _) in enumerate(made):
            self.assertEqual(len(outcome), 1, (number, len(body)))
            result = outcome[0]
            if isinstance(result, Relayed):
                self.assertIn(body, executed)
                pieces, over = read.get(number, ([result.wire], [True]))
                self.assertEqual(len(over), 1)
                if over[0]:
                    wanted = (body * (answers // len(body) + 1))[: len(body) + answers]
                    self.assertEqual(b"".join(pieces).partition(b"\r\n\r\n")[2], wanted)
            elif not result.value.maybe_done:
                self.assertNotIn(body, executed)
        self.assertEqual((self.client.in_flight, self.client._roll.weight, self.factory.in_work), (0, 0, 0))
        self.assertEqual(self.factory.store.held, 0)
