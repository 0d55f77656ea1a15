"""Long bodies and long answers pass through a connection with little of them held."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.protocol.calls import BadRequest, Busy, Call, Limits, Relayed, Reply, TooLarge
from rvpfarm.protocol.streams import HIGH_WATER, BodyStream, Streamed
from rvpfarm.web import server
from rvpfarm.web.reader import RequestReader, Stage
from rvpfarm.web.server import STALL_SECONDS
from tests.support.connections import Answers, ask, connect, hang_up, join, read_all, statuses
from tests.support.hypothesis import MODEST

LARGE = Limits(body=1 << 20, body_seconds=30.0)
BODY = b"".join(b"%07d\n" % number for number in range(20_000))


def chunked(body: bytes, size: int = 5000) -> bytes:
    """A request with C{body} in chunks."""
    chunks = [body[at : at + size] for at in range(0, len(body), size)]
    coded = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return ask(b"/c", b"Transfer-Encoding: chunked") + coded + b"0\r\n\r\n"


def stream_of(call: Call) -> BodyStream:
    """The stream of a call that has one."""
    assert call.stream is not None
    return call.stream


def all_of(call: Call) -> bytes:
    """The body of a call, however it comes."""
    return call.body if call.stream is None else call.stream.take(1 << 30)


class ReaderTests(SynchronousTestCase):
    """A call with a long body is handed over with its head; what follows goes into its stream."""

    def test_handed_over(self) -> None:
        """It is there when much of its body has come; the rest follows, and then comes another call."""
        reader = RequestReader(LARGE, 1000)
        data = ask(b"/long", body=BODY)
        end = len(data) - len(BODY)
        self.assertEqual(reader.feed(data[: end + 1000]), [])
        (call,) = reader.feed(data[end + 1000 : end + 1070])
        stream = stream_of(call)
        self.assertEqual((call.target, call.body, stream.size), (b"/long", b"", len(BODY)))
        self.assertEqual((stream.complete, reader.stage), (False, Stage.BODY))
        self.assertEqual(stream.take(2000), BODY[:1070])
        (after,) = reader.feed(data[end + 1070 :] + ask(b"/after", body=b"short"))
        self.assertEqual((stream.complete, stream.take(1 << 20)), (True, BODY[1070:]))
        self.assertEqual((after.target, after.body, reader.stage), (b"/after", b"short", Stage.IDLE))

    def test_all_at_once(self) -> None:
        """A long body that is there together with its head needs no stream."""
        (call,) = RequestReader(LARGE, 1000).feed(ask(body=BODY))
        self.assertEqual((call.body, call.stream), (BODY, None))

    def test_only_if_asked(self) -> None:
        """Who does not ask for it gets every body whole; who does, the short ones."""
        for reader, size in ((RequestReader(LARGE), len(BODY)), (RequestReader(LARGE, 1000), 1000)):
            for data in (ask(body=BODY[:size]), chunked(BODY[:size], 300)):
                (call,) = reader.feed(data)
                self.assertEqual((call.body, call.stream), (BODY[:size], None))

    def test_too_large(self) -> None:
        """A body over the limit is refused, from its length or when its chunks have become too many."""
        reader = RequestReader(Limits(body=5000), 1000)
        self.assertEqual(reader.feed(ask(body=BODY)), [])
        self.assertIsInstance(reader.refusal, TooLarge)
        reader = RequestReader(Limits(body=5000), 1000)
        data = chunked(BODY, 600)
        (call,) = reader.feed(data[:3000])
        self.assertEqual(reader.feed(data[3000:]), [])
        self.assertIsInstance(reader.refusal, TooLarge)
        self.assertEqual((stream_of(call).complete, stream_of(call).waiting < 3000), (False, True))

    def test_broken_chunk(self) -> None:
        """A coding that breaks leaves the body incomplete."""
        reader = RequestReader(LARGE, 1000)
        (call,) = reader.feed(chunked(BODY)[:20000])
        self.assertEqual(reader.feed(b"\0" * 9000), [])
        self.assertIsInstance(reader.refusal, BadRequest)
        self.assertFalse(stream_of(call).complete)

    @MODEST
    @given(
        st.lists(st.tuples(st.integers(0, 4000), st.booleans()), min_size=1, max_size=5),
        st.lists(st.integers(1, 5000), min_size=1, max_size=6),
    )
    def test_same_calls(self, made: list[tuple[int, bool]], sizes: list[int]) -> None:
        """Handed over or whole, in whatever pieces it comes, a stream of requests means the same calls."""
        data = b"".join(
            chunked(BODY[:size], 700) if coded else ask(b"/%d" % size, body=BODY[:size])
            for size, coded in made
        )
        late, early, at, turn = RequestReader(LARGE), RequestReader(LARGE, 1000), 0, 0
        wanted, found = list[Call](), list[Call]()
        while at < len(data):
            piece = data[at : at + sizes[turn % len(sizes)]]
            wanted += late.feed(piece)
            found += early.feed(piece)
            at, turn = at + len(piece), turn + 1
        self.assertEqual([call.head for call in found], [call.head for call in wanted])
        self.assertTrue(all(call.stream is None or call.stream.complete for call in found))
        for call, whole in zip(found, wanted, strict=True):
            self.assertTrue(call.stream is None or len(whole.body) > 1000)
        self.assertEqual([all_of(call) for call in found], [call.body for call in wanted])
        self.assertEqual((early.stage, early.refusal), (Stage.IDLE, None))


class LongBodyTests(SynchronousTestCase):
    """A call with a long body is begun at once; its caller is read as fast as the body is taken."""

    def setUp(self) -> None:
        """A connection whose calls are answered on request."""
        self.clock, self.answers = Clock(), Answers()
        self.protocol, self.wire = connect(self.answers, self.clock, limits=LARGE, stream_over=1000)

    def begin(self, *more: bytes) -> BodyStream:
        """Some of a long body has come."""
        self.data = ask(b"/long", *more, body=BODY)
        self.fed = len(self.data) - len(BODY) + 3000
        self.protocol.dataReceived(self.data[: self.fed])
        return stream_of(self.answers.calls[-1])

    def feed(self) -> None:
        """The peer sends what it can."""
        while self.wire.reading and self.fed < len(self.data):
            self.protocol.dataReceived(self.data[self.fed : self.fed + 8192])
            self.fed += 8192

    def test_begun_early(self) -> None:
        """The call is there with its caller's name, and its body follows."""
        stream = self.begin()
        (call,) = self.answers.calls
        self.assertEqual((call.peer, call.body, stream.take(5000)), ("192.0.2.7", b"", BODY[:3000]))

    def test_back_pressure(self) -> None:
        """While the body is not taken its caller is not read; what is held has a bound."""
        stream, out = self.begin(), b""
        while len(out) < len(BODY):
            self.feed()
            self.assertLessEqual(stream.waiting, HIGH_WATER + 16384)
            self.assertEqual(self.wire.reading, stream.complete or not stream.full)
            out += stream.take(10_000)
        self.assertEqual((out, stream.complete), (BODY, True))
        self.answers.pending[0].callback(Reply(200))
        self.protocol.dataReceived(ask(b"/next"))
        self.answers.pending[1].callback(Reply(207))
        self.assertEqual(statuses(self.wire.value()), [200, 207])
        self.assertFalse(self.wire.disconnecting)

    def test_much_at_once(self) -> None:
        """A read that brings more than has room is kept, and no more is read."""
        self.data = ask(b"/long", body=BODY)
        self.protocol.dataReceived(self.data + ask(b"/next"))
        stream = stream_of(self.answers.calls[0])
        self.assertEqual((self.wire.reading, len(self.answers.calls)), (False, 1))
        self.assertLessEqual(stream.waiting, HIGH_WATER + 16384)
        out = b""
        while stream.waiting:
            out += stream.take(5000)
        self.assertEqual((out, self.answers.targets, self.wire.reading), (BODY, [b"/long", b"/next"], True))

    def test_answered_early(self) -> None:
        """An answer before the end of the body ends the connection: the rest is asked of nobody."""
        stream = self.begin()
        self.answers.pending[0].callback(Reply(413))
        (response,) = read_all(self.wire.value())
        self.assertEqual((response.status, response.headers[b"connection"]), (413, b"close"))
        self.assertTrue(self.wire.write_closed)
        self.protocol.dataReceived(self.data[self.fed :] + ask(b"/never"))
        self.assertEqual((stream.waiting, self.answers.targets), (0, [b"/long"]))

    def test_answered_early_while_full(self) -> None:
        """So it does when its caller was not being read."""
        self.begin()
        self.feed()
        self.assertFalse(self.wire.reading)
        self.answers.pending[0].callback(Reply(503))
        self.assertEqual((statuses(self.wire.value()), self.wire.reading), ([503], True))

    def test_refused_at_once(self) -> None:
        """A refusal from the head alone does the same."""

        def refuse(call: Call) -> Reply:
            raise Busy("not now")

        protocol, wire = connect(refuse, self.clock, limits=LARGE, stream_over=1000)
        protocol.dataReceived(ask(b"/long", body=BODY)[:2000])
        self.assertEqual((statuses(wire.value()), wire.write_closed), ([503], True))
        protocol.dataReceived(BODY)
        self.assertEqual(statuses(wire.value()), [503])

    def test_after_another(self) -> None:
        """It waits for its turn behind an earlier answer."""
        self.protocol.dataReceived(ask(b"/first"))
        self.begin()
        self.answers.pending[1].callback(Reply(413))
        self.assertEqual(self.wire.value(), b"")
        self.protocol.dataReceived(self.data[self.fed :] + ask(b"/never"))
        self.answers.pending[0].callback(Reply(200))
        self.assertEqual((statuses(self.wire.value()), len(self.answers.calls)), ([200, 413], 2))

    def test_too_slow(self) -> None:
        """A body that does not come in time is 408, once, and its work is given up."""
        self.begin()
        self.clock.advance(29)
        self.protocol.dataReceived(self.data[self.fed : self.fed + 10])
        self.clock.advance(2)
        self.assertEqual((statuses(self.wire.value()), self.answers.cancelled), ([408], [b"/long"]))
        self.assertTrue(self.wire.write_closed)
        self.assertEqual(self.protocol.factory.admission.in_work, 0)

    def test_not_too_slow_while_full(self) -> None:
        """Nobody is too slow who is not read."""
        self.begin()
        self.feed()
        self.clock.advance(100)
        self.assertEqual((self.wire.value(), self.answers.cancelled), (b"", []))

    def test_broken(self) -> None:
        """A body whose coding breaks is 400, once, and its work is given up."""
        self.protocol.dataReceived(chunked(BODY)[:20000])
        self.protocol.dataReceived(b"\0" * 9000)
        self.assertEqual((statuses(self.wire.value()), self.answers.cancelled), ([400], [b"/c"]))

    def test_hung_up(self) -> None:
        """Who hangs up in the middle has his work given up."""
        self.begin()
        hang_up(self.protocol)
        self.assertEqual((self.answers.cancelled, self.clock.getDelayedCalls()), ([b"/long"], []))

    def test_continue(self) -> None:
        """Who waits to be told to go on is told so when it is his turn, once."""
        head = ask(b"/long", b"Expect: 100-continue", body=BODY)[: -len(BODY)]
        self.protocol.dataReceived(ask(b"/first"))
        self.protocol.dataReceived(head)
        self.assertEqual(self.wire.value(), b"")
        self.answers.pending[0].callback(Reply(200))
        self.assertTrue(self.wire.value().endswith(b"HTTP/1.1 100 Continue\r\n\r\n"))
        before = len(self.wire.value())
        self.protocol.dataReceived(BODY[:9000])
        self.assertEqual(len(self.wire.value()), before)
        self.assertEqual(stream_of(self.answers.calls[1]).waiting, 9000)

    def test_continue_behind_another(self) -> None:
        """A short body behind a long one that is whole is not asked for out of turn."""
        stream = self.begin()
        while not stream.complete:
            self.feed()
            stream.take(1 << 20)
        self.protocol.dataReceived(ask(b"/next", b"Expect: 100-continue", body=b"short")[:-5])
        self.assertEqual(self.wire.value(), b"")
        self.answers.pending[0].callback(Reply(200))
        self.assertTrue(self.wire.value().endswith(b"HTTP/1.1 100 Continue\r\n\r\n"))

    def test_many(self) -> None:
        """Many who are slow to send their bodies are refused beyond a limit, and take nothing from others."""
        self.patch(server, "LONG_LIMIT", 2)
        answers = Answers()
        first, _ = connect(answers, self.clock, limits=Limits(body=1 << 20, in_work=1), stream_over=1000)
        made = [(first, first.transport), join(first.factory), join(first.factory)]
        for protocol, _ in made:
            protocol.dataReceived(ask(b"/long", body=BODY)[:9000])
        self.assertEqual([statuses(wire.value()) for _, wire in made], [[], [], [503]])
        protocol, wire = join(first.factory)
        protocol.dataReceived(ask(b"/short"))
        answers.pending[2].callback(Reply(200))
        self.assertEqual(statuses(wire.value()), [200])
        hang_up(first)
        protocol, wire = join(first.factory)
        protocol.dataReceived(ask(b"/long", body=BODY)[:9000])
        self.assertEqual((wire.value(), first.factory.long.in_work), (b"", 2))

    def test_drained(self) -> None:
        """A server that stops lets a body come to its end, and answers it."""
        stream = self.begin()
        drained = self.protocol.factory.drain()
        while not stream.complete:
            self.feed()
            stream.take(1 << 20)
        self.answers.pending[0].callback(Reply(200))
        hang_up(self.protocol)
        self.successResultOf(drained)
        self.assertEqual(statuses(self.wire.value()), [200])


class Rest:
    """What is still to come of an answer, in the hands of the test.

    @ivar told: what it was told to do.
    """

    def __init__(self) -> None:
        self.told: list[str] = []
        self.write: Callable[[bytes], None] = lambda data: None
        self.over: Callable[[bool], None] = lambda complete: None

    def start(self, write: Callable[[bytes], None], over: Callable[[bool], None]) -> None:
        """Note it."""
        self.told.append("start")
        self.write, self.over = write, over

    def pause(self) -> None:
        """Note it."""
        self.told.append("pause")

    def resume(self) -> None:
        """Note it."""
        self.told.append("resume")

    def cancel(self) -> None:
        """Note it."""
        self.told.append("cancel")


WIRE = b"HTTP/1.1 200 Successful\r\nContent-Length: 9\r\n\r\nabc"


class LongAnswerTests(SynchronousTestCase):
    """A long answer is written as it comes, and comes as it is fetched."""

    def setUp(self) -> None:
        """A connection, and an answer with more to come."""
        self.clock, self.answers, self.rest = Clock(), Answers(), Rest()
        self.protocol, self.wire = connect(self.answers, self.clock, limits=LARGE)

    def begin(self, *headers: bytes, method: bytes = b"PROPFIND") -> None:
        """The beginning of it is there."""
        self.protocol.dataReceived(ask(b"/long", *headers, method=method))
        self.answers.pending[-1].callback(Streamed(WIRE, False, self.rest))

    def test_written(self) -> None:
        """The pieces follow each other, and the next answer them."""
        self.begin()
        self.protocol.dataReceived(ask(b"/next"))
        self.answers.pending[1].callback(Reply(207))
        self.rest.write(b"def")
        self.rest.write(b"ghi")
        self.assertTrue(self.wire.value().endswith(b"\r\n\r\nabcdefghi"))
        self.rest.over(True)
        self.assertEqual([response.status for response in read_all(self.wire.value())], [200, 207])
        self.assertEqual((read_all(self.wire.value())[0].body, self.rest.told), (b"abcdefghi", ["start"]))
        self.protocol.dataReceived(ask(b"/again"))
        self.answers.pending[2].callback(Reply(200))
        self.assertEqual(len(read_all(self.wire.value())), 3)

    def test_in_its_turn(self) -> None:
        """It does not come before its turn to be written."""
        self.protocol.dataReceived(ask(b"/first"))
        self.begin()
        self.assertEqual((self.rest.told, self.wire.value()), ([], b""))
        self.answers.pending[0].callback(Reply(200))
        self.assertEqual(self.rest.told, ["start"])

    def test_not_fetched(self) -> None:
        """While its peer does not fetch it no more of it is let come, and in the end the peer is cut off."""
        self.begin()
        self.protocol.pauseProducing()
        self.protocol.resumeProducing()
        self.assertEqual(self.rest.told, ["start", "pause", "resume"])
        self.protocol.pauseProducing()
        self.clock.advance(STALL_SECONDS + 1)
        self.assertTrue(self.wire.disconnected)

    def test_begun_while_not_fetched(self) -> None:
        """It does not come to a peer that has yet to fetch what is before it."""
        self.protocol.dataReceived(ask(b"/long"))
        self.protocol.pauseProducing()
        self.answers.pending[0].callback(Streamed(WIRE, False, self.rest))
        self.assertEqual(self.rest.told, ["pause", "start"])

    def test_breaks_off(self) -> None:
        """When the rest will not come the connection ends; nobody is answered twice."""
        self.begin()
        self.protocol.dataReceived(ask(b"/next"))
        self.rest.write(b"def")
        self.rest.over(False)
        self.assertTrue(self.wire.disconnected)
        hang_up(self.protocol)
        self.assertEqual(self.wire.value().count(b"HTTP/1.1"), 1)
        self.assertEqual(self.answers.cancelled, [b"/next"])

    def test_hung_up(self) -> None:
        """When the peer hangs up nobody wants the rest, whether or not its turn had come."""
        self.protocol.dataReceived(ask(b"/first"))
        self.begin()
        hang_up(self.protocol)
        self.assertEqual(self.rest.told, ["cancel"])
        self.setUp()
        self.begin()
        hang_up(self.protocol)
        self.assertEqual(self.rest.told, ["start", "cancel"])

    def test_too_late(self) -> None:
        """An answer that begins when its peer is gone is not wanted."""
        stubborn: Deferred[Reply | Relayed] = Deferred(lambda deferred: deferred.callback(Reply(200)))
        stubborn.addCallback(lambda _: Streamed(WIRE, False, self.rest))
        protocol, _ = connect(lambda call: stubborn)
        protocol.dataReceived(ask())
        hang_up(protocol)
        self.assertEqual(self.rest.told, ["cancel"])

    def test_head(self) -> None:
        """To a HEAD belongs no body (RFC 9110 9.3.2)."""
        self.begin(method=b"HEAD")
        self.assertTrue(self.wire.value().endswith(b"\r\n\r\n"))
        self.assertEqual(self.rest.told, ["cancel"])

    def test_impossible(self) -> None:
        """What cannot be written is a bug like any other, and its rest is not wanted."""
        self.protocol.dataReceived(ask(b"/long", b"Connection: close"))
        self.answers.pending[-1].callback(Streamed(b"no status line", False, self.rest))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual((statuses(self.wire.value()), self.rest.told), ([500], ["cancel"]))

    def test_closes(self) -> None:
        """A connection that is to end does so after the last piece."""
        self.begin(b"Connection: close")
        self.assertIn(b"Connection: close\r\n", self.wire.value())
        self.rest.write(b"defghi")
        self.assertFalse(self.wire.disconnecting)
        self.rest.over(True)
        self.assertTrue(self.wire.disconnecting)

    def test_drained(self) -> None:
        """So does one of a server that stops."""
        self.begin()
        drained = self.protocol.factory.drain()
        self.assertFalse(self.wire.disconnecting)
        self.rest.write(b"defghi")
        self.rest.over(True)
        hang_up(self.protocol)
        self.successResultOf(drained)
