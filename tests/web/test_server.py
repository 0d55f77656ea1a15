"""One accepted connection: calls out of bytes, bytes out of replies, in order, within limits and in time."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.address import IPv6Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.protocol.calls import Call, Forbidden, Limits, NotFound, Relayed, Reply, Unreachable
from rvpfarm.web.server import LINGER_SECONDS, STALL_SECONDS, Admission, CallFactory, CallProtocol
from tests.support.connections import Answers, Wire, ask, connect, hang_up, join, read_all, statuses


def at_once(call: Call) -> Reply:
    """Answer 200 with the target as the body."""
    return Reply(200, body=call.target)


class Counted:
    """Metrics that are lists."""

    def __init__(self) -> None:
        self.requests: list[tuple[bytes, int, float]] = []
        self.reasons: list[str] = []

    def request(self, verb: bytes, status: int, seconds: float) -> None:
        """Note it."""
        self.requests.append((verb, status, seconds))

    def rejected(self, reason: str) -> None:
        """Note it."""
        self.reasons.append(reason)


class CallProtocolTests(SynchronousTestCase):
    """A connection turns bytes into calls and replies into bytes, in order."""

    def test_answered_with_one_write(self) -> None:
        """A call that is answered at once costs one write, and says nothing of the connection."""
        protocol, wire = connect(at_once)
        protocol.dataReceived(ask(b"/a"))
        self.assertEqual(
            wire.writes,
            [b"HTTP/1.1 200 Successful\r\nRVP-Notifications-Version: 0.2\r\nContent-Length: 2\r\n\r\n/a"],
        )
        self.assertFalse(wire.disconnecting)

    def test_call_knows_its_caller(self) -> None:
        """The call names the peer's address and a connection that no other bears."""
        answers = Answers()
        protocol, _ = connect(answers)
        protocol.dataReceived(ask())
        other, _ = join(protocol.factory)
        other.dataReceived(ask())
        first, second = answers.calls
        self.assertEqual(first.peer, "192.0.2.7")
        self.assertRegex(first.connection, r"^r1/[0-9a-f]{8}/1$")
        self.assertNotEqual(first.connection, second.connection)
        for each in answers.pending:
            each.callback(Reply(200))

    def test_mapped_address(self) -> None:
        """An IPv4 address on an IPv6 socket is shown as what it is."""
        seen: list[Call] = []

        def answer(call: Call) -> Reply:
            seen.append(call)
            return Reply(200)

        factory = CallFactory(answer, clock=Clock(), limits=Limits())
        for host in ("::ffff:192.0.2.9", "2001:db8::1"):
            wire = Wire()
            wire.peerAddr = IPv6Address("TCP", host, 1)
            protocol = factory.buildProtocol(None)
            protocol.makeConnection(wire)
            protocol.dataReceived(ask())
        self.assertEqual([call.peer for call in seen], ["192.0.2.9", "2001:db8::1"])

    def test_gone(self) -> None:
        """Somebody is told when a connection is closed, by the name that its calls bore."""
        seen: list[Call] = []
        gone: list[str] = []

        def answer(call: Call) -> Reply:
            seen.append(call)
            return Reply(200)

        factory = CallFactory(answer, clock=Clock(), limits=Limits(), on_gone=gone.append)
        protocol = factory.buildProtocol(None)
        protocol.makeConnection(Wire())
        protocol.dataReceived(ask())
        self.assertEqual(gone, [])
        hang_up(protocol)
        self.assertEqual(gone, [seen[0].connection])

    def test_two_calls_in_one_segment(self) -> None:
        """Both are answered, the first first, whichever reply comes first."""
        answers = Answers()
        protocol, wire = connect(answers)
        protocol.dataReceived(ask(b"/a") + ask(b"/b"))
        answers.pending[1].callback(Reply(207))
        self.assertEqual(wire.value(), b"")
        answers.pending[0].callback(Reply(200))
        self.assertEqual(statuses(wire.value()), [200, 207])

    def test_ready_answer_waits_its_turn(self) -> None:
        """An answer that is there at once is not written before that of an earlier call."""
        slow: Deferred[Reply] = Deferred()
        protocol, wire = connect(lambda call: slow if call.target == b"/slow" else Reply(207))
        protocol.dataReceived(ask(b"/slow"))
        protocol.dataReceived(ask(b"/fast"))
        self.assertEqual(wire.value(), b"")
        slow.callback(Reply(200))
        self.assertEqual(statuses(wire.value()), [200, 207])

    def test_deferreds_that_have_fired(self) -> None:
        """Hundreds of pipelined calls whose Deferreds have fired already are answered in order."""
        protocol, wire = connect(lambda call: succeed(Reply(200, body=call.target)))
        protocol.dataReceived(b"".join(ask(b"/%d" % number) for number in range(900)))
        self.assertEqual(
            [response.body for response in read_all(wire.value())], [b"/%d" % number for number in range(900)]
        )

    def test_relayed(self) -> None:
        """What another farm member rendered is written as it is."""
        relayed = b"HTTP/1.1 207 Multi-Status\r\nContent-Length: 1\r\n\r\nx"
        protocol, wire = connect(lambda _: Relayed(relayed))
        protocol.dataReceived(ask())
        self.assertEqual(wire.value(), relayed)

    def test_version_echoed(self) -> None:
        """0.2 and 1.0 come back; anything else is answered with 0.2."""
        protocol, wire = connect(at_once)
        for version in (b"0.2", b"1.0", b"7.5"):
            protocol.dataReceived(ask(b"/a", b"RVP-Notifications-Version: " + version))
        self.assertEqual(
            [answer.headers[b"rvp-notifications-version"] for answer in read_all(wire.value())],
            [b"0.2", b"1.0", b"0.2"],
        )

    def test_head_has_no_body(self) -> None:
        """HEAD is answered without a body, whose octets would pass for the next answer."""
        protocol, wire = connect(at_once)
        protocol.dataReceived(ask(b"/a", method=b"HEAD"))
        self.assertTrue(wire.value().endswith(b"Content-Length: 2\r\n\r\n"))

    def test_counted(self) -> None:
        """Each answer is counted with its verb, its status and how long it took."""
        clock, counted, answers = Clock(), Counted(), Answers()
        protocol, _ = connect(answers, clock, metrics=counted)
        protocol.dataReceived(ask(method=b"NOTIFY"))
        clock.advance(3)
        answers.pending[0].callback(Reply(207))
        protocol.dataReceived(b"what is this\r\n\r\n")
        self.assertEqual(counted.requests, [(b"NOTIFY", 207, 3.0), (b"", 400, 0.0)])


class TroubleTests(SynchronousTestCase):
    """Refusals become answers; bugs become a log entry and a 500 that tells nothing."""

    def test_refusal(self) -> None:
        """A refusal is answered as it says, raised at once or later, and the connection goes on."""
        protocol, wire = connect(
            lambda call: fail(NotFound("no such node")) if call.target == b"/a" else refuse()
        )

        def refuse() -> Reply:
            raise Forbidden

        protocol.dataReceived(ask(b"/a") + ask(b"/b"))
        self.assertEqual(statuses(wire.value()), [404, 403])
        self.assertIn(b"no such node", wire.value())
        self.assertFalse(wire.disconnecting)

    def test_bug(self) -> None:
        """Anything else is logged once with its traceback and answered 500 without details."""

        def answer(call: Call) -> Deferred[Reply]:
            if call.target == b"/a":
                raise ZeroDivisionError("secret")
            return fail(ZeroDivisionError("secret"))

        protocol, wire = connect(answer)
        protocol.dataReceived(ask(b"/a") + ask(b"/b"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        self.assertEqual(statuses(wire.value()), [500, 500])
        self.assertNotIn(b"secret", wire.value())
        self.assertEqual(protocol.factory.admission.in_work, 0)

    def test_answer_that_cannot_be_written(self) -> None:
        """A reply that would break the framing is a bug: 500, and the connection ends."""
        protocol, wire = connect(lambda _: Reply(200, ((b"X", b"a\r\nSet-Cookie: b"),)))
        protocol.dataReceived(ask())
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual(statuses(wire.value()), [500])
        self.assertTrue(wire.disconnecting)

    def test_broken_stream(self) -> None:
        """What cannot be read is refused after the calls before it; nothing after it is read."""
        answers = Answers()
        protocol, wire = connect(answers)
        protocol.dataReceived(ask(b"/a") + b"BROKEN\x00\r\n\r\n" + ask(b"/b"))
        protocol.dataReceived(ask(b"/c"))
        self.assertEqual(wire.value(), b"")
        answers.pending[0].callback(Reply(200))
        self.assertEqual(statuses(wire.value()), [200, 400])
        self.assertEqual(answers.targets, [b"/a"])
        self.assertIn(b"Connection: close", wire.value())

    def test_refusal_can_be_read(self) -> None:
        """After a refusal only the writing side closes, so that a peer still sending gets its answer."""
        clock = Clock()
        protocol, wire = connect(at_once, clock)
        protocol.dataReceived(ask(b"/a", b"Content-Length: 9999999"))
        self.assertEqual(statuses(wire.value()), [413])
        self.assertTrue(wire.write_closed)
        self.assertFalse(wire.disconnecting)
        protocol.dataReceived(b"x" * 5000)
        clock.advance(LINGER_SECONDS)
        self.assertTrue(wire.disconnected)

    def test_endless_sender(self) -> None:
        """A refused peer that goes on sending is not listened to for ever."""
        protocol, wire = connect(at_once)
        protocol.dataReceived(b"\x00\r\n\r\n")
        for _ in range(40):
            protocol.dataReceived(b"x" * 65536)
        self.assertTrue(wire.disconnected)

    def test_hang_up_cancels(self) -> None:
        """A caller that hangs up has its calls cancelled, in silence, and they count no longer."""
        answers, admission = Answers(), Admission(10)
        protocol, _ = connect(answers, admission=admission)
        protocol.dataReceived(ask(b"/a") + ask(b"/b"))
        self.assertEqual(admission.in_work, 2)
        hang_up(protocol)
        self.assertEqual(answers.cancelled, [b"/a", b"/b"])
        self.assertEqual(admission.in_work, 0)
        self.assertEqual(len(protocol.factory.connections), 0)

    def test_answer_after_hang_up(self) -> None:
        """An answer that comes too late goes nowhere; a bug that comes too late is still logged."""
        outcomes: dict[bytes, Callable[[Deferred[Reply]], None]] = {
            b"/a": lambda answer: answer.callback(Reply(200)),
            b"/b": lambda answer: answer.errback(Unreachable("gone")),
            b"/c": lambda answer: answer.errback(ZeroDivisionError()),
        }
        protocol, wire = connect(lambda call: Deferred(outcomes[call.target]))
        protocol.dataReceived(ask(b"/a") + ask(b"/b") + ask(b"/c"))
        hang_up(protocol)
        self.assertEqual(wire.value(), b"")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(protocol.factory.admission.in_work, 0)


class ClosingTests(SynchronousTestCase):
    """Connections stay open unless one side says otherwise."""

    def test_close_asked_for(self) -> None:
        """C{Connection: close} is honoured, said in the answer, and ends what was sent after it."""
        for headers in ((b"Connection: close",), (b"Connection: TE, Close",)):
            answers = Answers()
            protocol, wire = connect(answers)
            protocol.dataReceived(ask(b"/a", *headers) + ask(b"/b"))
            protocol.dataReceived(ask(b"/c"))
            answers.pending[0].callback(Reply(200))
            self.assertEqual(answers.targets, [b"/a"])
            self.assertEqual(statuses(wire.value()), [200])
            self.assertIn(b"Connection: close\r\n", wire.value())
            self.assertTrue(wire.write_closed)

    def test_clean_close(self) -> None:
        """When the peer has sent nothing more, the connection is closed whole and at once."""
        protocol, wire = connect(at_once)
        protocol.dataReceived(ask(b"/a", b"Connection: close"))
        self.assertTrue(wire.disconnecting)
        self.assertFalse(wire.write_closed)

    def test_hang_up_noticed_while_answer_pending(self) -> None:
        """After a last request the connection is still read, so that hanging up is noticed."""
        answers = Answers()
        protocol, wire = connect(answers)
        protocol.dataReceived(ask(b"/a", b"Connection: close") + ask(b"/b"))
        self.assertTrue(wire.reading)

    def test_http_1_0(self) -> None:
        """HTTP/1.0 closes after the answer, unless C{keep-alive} was asked for, which is confirmed."""
        protocol, wire = connect(at_once)
        protocol.dataReceived(b"PROPFIND /a HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")
        self.assertIn(b"Connection: Keep-Alive\r\n", wire.value())
        self.assertFalse(wire.disconnecting)
        wire.clear()
        protocol.dataReceived(b"PROPFIND /a HTTP/1.0\r\n\r\n")
        self.assertIn(b"Connection: close\r\n", wire.value())
        self.assertTrue(wire.disconnecting)

    def test_close_in_the_reply(self) -> None:
        """A reply can end the connection; calls begun after it are cancelled."""
        answers = Answers()
        protocol, wire = connect(answers)
        protocol.dataReceived(ask(b"/a") + ask(b"/b") + ask(b"/c"))
        answers.pending[2].callback(Reply(200))
        answers.pending[0].callback(Reply(503, close=True))
        self.assertEqual(statuses(wire.value()), [503])
        self.assertEqual(answers.cancelled, [b"/b"])
        self.assertTrue(wire.disconnecting)

    def test_closing_peer_that_does_not_read(self) -> None:
        """A connection that is being closed is cut off when the peer never lets it go."""
        clock = Clock()
        protocol, wire = connect(at_once, clock)
        protocol.dataReceived(ask(b"/a", b"Connection: close"))
        clock.advance(LINGER_SECONDS)
        self.assertTrue(wire.disconnected)


class ContinueTests(SynchronousTestCase):
    """C{100 Continue} is said to whom waits for it, in its turn, and to nobody else."""

    REQUEST = ask(b"/b", b"Expect: 100-continue", b"Content-Length: 3")

    def test_said(self) -> None:
        """It is said once, before the body, and the answer follows."""
        protocol, wire = connect(at_once)
        protocol.dataReceived(self.REQUEST)
        self.assertEqual(wire.value(), b"HTTP/1.1 100 Continue\r\n\r\n")
        protocol.dataReceived(b"a")
        protocol.dataReceived(b"bc")
        self.assertEqual(wire.value().count(b"100 Continue"), 1)
        self.assertTrue(wire.value().endswith(b"\r\n\r\n/b"))

    def test_not_before_an_earlier_answer(self) -> None:
        """It waits for the answers of earlier calls, or it would pass for one of them."""
        clock, answers = Clock(), Answers()
        protocol, wire = connect(answers, clock)
        protocol.dataReceived(ask(b"/a") + self.REQUEST)
        clock.advance(100)  # waiting for us, not we for it
        self.assertEqual(wire.value(), b"")
        answers.pending[0].callback(Reply(200))
        self.assertTrue(wire.value().endswith(b"HTTP/1.1 100 Continue\r\n\r\n"))
        clock.advance(Limits().body_seconds - 1)
        protocol.dataReceived(b"abc")
        self.assertEqual(answers.targets, [b"/a", b"/b"])

    def test_body_in_time(self) -> None:
        """A peer that was told to continue has the time of a body for it."""
        clock = Clock()
        protocol, wire = connect(at_once, clock)
        protocol.dataReceived(self.REQUEST)
        wire.clear()
        clock.advance(Limits().body_seconds)
        self.assertEqual(statuses(wire.value()), [408])

    def test_body_already_there(self) -> None:
        """It is not said to a peer that did not wait."""
        protocol, wire = connect(at_once)
        protocol.dataReceived(self.REQUEST + b"abc")
        self.assertEqual(statuses(wire.value()), [200])

    def test_not_for_a_body_that_is_refused(self) -> None:
        """A body over the limit is refused instead of being asked for."""
        protocol, wire = connect(at_once)
        protocol.dataReceived(ask(b"/b", b"Expect: 100-continue", b"Content-Length: 300000"))
        self.assertEqual(statuses(wire.value()), [413])


class LimitTests(SynchronousTestCase):
    """What one peer or all of them can make the process hold is bounded."""

    def test_pipelining(self) -> None:
        """So many calls of one connection are in work; then it is not read until one is answered."""
        answers = Answers()
        protocol, wire = connect(answers, limits=Limits(pipelined=3))
        protocol.dataReceived(b"".join(ask(b"/%d" % number) for number in range(5)))
        self.assertEqual(len(answers.calls), 3)
        self.assertFalse(wire.reading)
        answers.pending[0].callback(Reply(200))
        self.assertEqual(len(answers.calls), 4)
        answers.pending[1].callback(Reply(200))
        self.assertEqual(len(answers.calls), 5)
        self.assertFalse(wire.reading)
        answers.pending[2].callback(Reply(200))
        self.assertTrue(wire.reading)

    def test_large_read(self) -> None:
        """A read of many calls at once does not make as many calls in memory: it is looked at in pieces."""
        answers = Answers()
        protocol, wire = connect(answers, limits=Limits(pipelined=2))
        count = 6000
        protocol.dataReceived(b"".join(ask(b"/%d" % number) for number in range(count)))
        self.assertLess(len(protocol._waiting), 1000)
        for number in range(count):
            answers.pending[number].callback(Reply(200))
        self.assertEqual(answers.targets, [b"/%d" % number for number in range(count)])
        self.assertEqual(len(statuses(wire.value())), count)
        self.assertTrue(wire.reading)

    def test_large_body_in_one_read(self) -> None:
        """A body that arrives in one large piece arrives whole."""
        seen: list[Call] = []
        protocol, _ = connect(lambda call: seen.append(call) or Reply(200))
        body = bytes(range(256)) * 900
        protocol.dataReceived(ask(b"/a", method=b"NOTIFY", body=body) + ask(b"/b"))
        self.assertEqual([(call.target, call.body == body) for call in seen], [(b"/a", True), (b"/b", False)])

    def test_answers_not_fetched(self) -> None:
        """A peer that does not fetch its answers is not read and gets no further calls begun."""
        calls: list[bytes] = []
        protocol, wire = connect(lambda call: calls.append(call.target) or Reply(200))
        wire.producer.pauseProducing()
        protocol.dataReceived(ask(b"/a"))
        self.assertEqual(calls, [])
        self.assertFalse(wire.reading)
        wire.producer.resumeProducing()
        self.assertEqual(calls, [b"/a"])
        self.assertTrue(wire.reading)

    def test_stall_in_the_midst(self) -> None:
        """When the peer stops fetching in the middle of a pipeline, the rest waits."""
        calls: list[bytes] = []
        protocol, wire = connect(lambda call: calls.append(call.target) or Reply(200))
        write = wire.write

        def full(data: bytes) -> None:
            write(data)
            wire.producer.pauseProducing()

        wire.write = full  # type: ignore[method-assign]  # a buffer that is full with one answer
        protocol.dataReceived(ask(b"/a") + ask(b"/b") + ask(b"/c"))
        self.assertEqual(calls, [b"/a"])
        wire.producer.resumeProducing()
        self.assertEqual(calls, [b"/a", b"/b"])

    def test_stalled_peer_is_cut_off(self) -> None:
        """A peer that fetches nothing for long is cut off; one that fetched a little has that long again."""
        clock = Clock()
        protocol, wire = connect(at_once, clock)
        wire.producer.pauseProducing()
        clock.advance(STALL_SECONDS - 1)
        wire.producer.resumeProducing()
        wire.producer.pauseProducing()
        clock.advance(STALL_SECONDS - 1)
        self.assertFalse(wire.disconnected)
        clock.advance(1)
        self.assertTrue(wire.disconnected)
        hang_up(protocol)
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_work_in_the_process(self) -> None:
        """Beyond the limit of the process a call is answered 503 with Retry-After, in its turn."""
        answers, admission, counted = Answers(), Admission(2), Counted()
        first, _ = connect(answers, admission=admission, metrics=counted)
        second, wire = connect(answers, admission=admission, metrics=counted)
        first.dataReceived(ask(b"/a"))
        second.dataReceived(ask(b"/b") + ask(b"/c"))
        self.assertEqual(wire.value(), b"")
        answers.pending[1].callback(Reply(200))
        self.assertEqual(statuses(wire.value()), [200, 503])
        self.assertIn(b"Retry-After: 5\r\n", wire.value())
        self.assertFalse(wire.disconnecting)
        self.assertEqual(counted.reasons, ["queue"])
        second.dataReceived(ask(b"/d"))
        self.assertEqual(answers.targets, [b"/a", b"/b", b"/d"])

    def test_connections(self) -> None:
        """A connection over the limit is told 503 with Retry-After and closed so that it can read that."""
        clock, counted = Clock(), Counted()
        protocol, _ = connect(at_once, clock, limits=Limits(connections=1), metrics=counted)
        other, wire = join(protocol.factory)
        other.dataReceived(ask())
        self.assertEqual(statuses(wire.value()), [503])
        self.assertIn(b"Retry-After: ", wire.value())
        self.assertIn(b"Connection: close\r\n", wire.value())
        self.assertTrue(wire.write_closed)
        self.assertEqual(counted.reasons, ["conn"])
        clock.advance(LINGER_SECONDS)
        self.assertTrue(wire.disconnected)
        hang_up(other)
        hang_up(protocol)
        _, wire = join(protocol.factory)
        self.assertEqual(wire.value(), b"")

    def test_turned_away_are_bounded(self) -> None:
        """However many come beyond the limit, only so many are told; the rest is closed."""
        protocol, _ = connect(at_once, limits=Limits(connections=0))
        wires = [join(protocol.factory)[1] for _ in range(400)]
        told = [wire for wire in wires if wire.value()]
        self.assertTrue(0 < len(told) < 400)
        self.assertTrue(all(wire.disconnected for wire in wires if not wire.value()))


class DeadlineTests(SynchronousTestCase):
    """Nobody may take for ever, and only the injected clock says how long that is."""

    def test_slow_head(self) -> None:
        """A head that comes octet by octet has its time from the first octet on, then 408."""
        clock = Clock()
        protocol, wire = connect(at_once, clock)
        request = ask()
        clock.advance(100)
        for second in range(10):
            self.assertEqual(wire.value(), b"")
            protocol.dataReceived(request[second : second + 1])
            clock.advance(1)
        self.assertEqual(statuses(wire.value()), [408])
        self.assertTrue(wire.write_closed)

    def test_slow_body(self) -> None:
        """A body has its own time, from the end of the head on."""
        clock = Clock()
        protocol, wire = connect(at_once, clock)
        head = ask(b"/a", b"Content-Length: 100")
        protocol.dataReceived(head[:5])
        clock.advance(9)
        protocol.dataReceived(head[5:])
        for _ in range(29):
            protocol.dataReceived(b"x")
            clock.advance(1)
        self.assertEqual(wire.value(), b"")
        clock.advance(1)
        self.assertEqual(statuses(wire.value()), [408])

    def test_second_request_has_its_own_time(self) -> None:
        """The time of a head begins anew with each request."""
        clock = Clock()
        protocol, wire = connect(at_once, clock)
        request = ask()
        for _ in range(3):
            protocol.dataReceived(request[:-1])
            clock.advance(9)
            protocol.dataReceived(request[-1:] + request[:1])
            clock.advance(9)
            protocol.dataReceived(request[1:])
        self.assertEqual(statuses(wire.value()), [200] * 6)

    def test_slow_sender_behind_an_answer(self) -> None:
        """A slow request is refused in its turn, after the answers before it."""
        clock, answers = Clock(), Answers()
        protocol, wire = connect(answers, clock)
        protocol.dataReceived(ask(b"/a") + b"NOTIFY")
        clock.advance(10)
        self.assertEqual(wire.value(), b"")
        answers.pending[0].callback(Reply(200))
        self.assertEqual(statuses(wire.value()), [200, 408])

    def test_idle(self) -> None:
        """A connection that rests is closed without a word, counted from the last answer."""
        clock = Clock()
        protocol, wire = connect(at_once, clock)
        clock.advance(179)
        protocol.dataReceived(ask())
        clock.advance(179)
        self.assertFalse(wire.disconnecting)
        clock.advance(1)
        self.assertTrue(wire.disconnecting)
        self.assertEqual(statuses(wire.value()), [200])

    def test_waiting_for_us_is_not_idle(self) -> None:
        """A peer that waits for a slow answer is not idle; the time begins with the answer."""
        clock, answers = Clock(), Answers()
        protocol, wire = connect(answers, clock)
        protocol.dataReceived(ask())
        clock.advance(1000)
        self.assertFalse(wire.disconnecting)
        answers.pending[0].callback(Reply(200))
        clock.advance(179)
        self.assertFalse(wire.disconnecting)
        clock.advance(1)
        self.assertTrue(wire.disconnecting)

    def test_not_read_is_not_slow(self) -> None:
        """A peer that is not read for a while is not blamed for what it could not send."""
        clock, answers = Clock(), Answers()
        protocol, wire = connect(answers, clock, limits=Limits(pipelined=1))
        protocol.dataReceived(ask(b"/a") + b"NOTIFY")
        clock.advance(60)
        answers.pending[0].callback(Reply(200))
        self.assertEqual(statuses(wire.value()), [200])
        clock.advance(10)
        self.assertEqual(statuses(wire.value()), [200, 408])

    def test_one_timer(self) -> None:
        """A busy connection does not leave a timer behind with every request."""
        clock = Clock()
        protocol, _ = connect(at_once, clock)
        for _ in range(50):
            protocol.dataReceived(ask())
            clock.advance(1)
        self.assertEqual(len(clock.getDelayedCalls()), 1)
        hang_up(protocol)
        self.assertEqual(clock.getDelayedCalls(), [])


class DrainTests(SynchronousTestCase):
    """A listener that stops finishes what it began and begins nothing more."""

    def test_nothing_open(self) -> None:
        """With no connection it is done at once."""
        factory = CallFactory(at_once, clock=Clock(), limits=Limits())
        self.successResultOf(factory.drain())

    def test_idle_is_closed(self) -> None:
        """A connection without work is closed; the drain ends when it is gone."""
        protocol, wire = connect(at_once)
        done = protocol.factory.drain()
        self.assertTrue(wire.disconnecting)
        self.assertNoResult(done)
        hang_up(protocol)
        self.successResultOf(done)

    def test_work_is_finished(self) -> None:
        """What is in work or arriving is answered, with C{Connection: close}."""
        answers = Answers()
        working, wire = connect(answers)
        arriving, other = join(working.factory)
        working.dataReceived(ask(b"/a"))
        arriving.dataReceived(ask(b"/b")[:-1])
        done = working.factory.drain()
        self.assertFalse(wire.disconnecting or other.disconnecting)
        arriving.dataReceived(b"\n")
        for answer in answers.pending:
            answer.callback(Reply(200))
        for each in (wire, other):
            self.assertEqual(statuses(each.value()), [200])
            self.assertIn(b"Connection: close\r\n", each.value())
            self.assertTrue(each.disconnecting)
        hang_up(working)
        hang_up(arriving)
        self.successResultOf(done)

    def test_patience_ends(self) -> None:
        """What does not finish in time is cut off, so that stopping has an end."""
        clock, answers = Clock(), Answers()
        protocol, wire = connect(answers, clock)
        protocol.dataReceived(ask())
        done = [protocol.factory.drain(20), protocol.factory.drain(20)]
        clock.advance(20)
        self.assertTrue(wire.disconnected)
        hang_up(protocol)
        for each in done:
            self.successResultOf(each)
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_newcomers(self) -> None:
        """Who connects meanwhile is told 503."""
        counted = Counted()
        protocol, _ = connect(Answers(), metrics=counted)
        protocol.dataReceived(ask())
        protocol.factory.drain()
        _, wire = join(protocol.factory)
        self.assertEqual(statuses(wire.value()), [503])
        self.assertEqual(counted.reasons, ["drain"])

    def test_pipelined_work_is_finished(self) -> None:
        """Every request that had arrived is answered, and the last answer alone says that it is the last."""
        answers = Answers()
        protocol, wire = connect(answers)
        protocol.dataReceived(ask(b"/a") + ask(b"/b") + ask(b"/c")[:-1])
        done = protocol.factory.drain()
        answers.pending[1].callback(Reply(207))
        answers.pending[0].callback(Reply(200))
        self.assertEqual(statuses(wire.value()), [200, 207])
        self.assertNotIn(b"Connection: close", wire.value())
        self.assertFalse(wire.disconnecting)
        protocol.dataReceived(b"\n")
        answers.pending[2].callback(Reply(201))
        self.assertEqual(wire.value().count(b"Connection: close"), 1)
        self.assertEqual(statuses(wire.value()), [200, 207, 201])
        self.assertTrue(wire.disconnecting)
        hang_up(protocol)
        self.successResultOf(done)

    def test_nothing_after_the_last(self) -> None:
        """What arrives behind an answer that says that it is the last is not begun."""
        answers = Answers()
        protocol, wire = connect(answers)
        protocol.dataReceived(ask(b"/a") + ask(b"/b"))
        protocol.factory.drain()
        answers.pending[1].callback(Reply(207))
        protocol.dataReceived(ask(b"/c"))
        answers.pending[0].callback(Reply(200))
        self.assertEqual(answers.targets, [b"/a", b"/b"])
        self.assertEqual(statuses(wire.value()), [200, 207])
        self.assertTrue(wire.disconnecting or wire.write_closed)

    def test_answer_that_waits_its_turn(self) -> None:
        """A connection whose last answer was rendered before the drain is closed after it."""
        answers = Answers()
        protocol, wire = connect(answers)
        protocol.dataReceived(ask(b"/a") + ask(b"/b"))
        answers.pending[1].callback(Reply(207))
        protocol.factory.drain()
        answers.pending[0].callback(Reply(200))
        self.assertEqual(statuses(wire.value()), [200, 207])
        self.assertTrue(wire.disconnecting)


class GraceTests(SynchronousTestCase):
    """In the grace of a drain, idle connections may ask once more: closing them at once would race with that."""

    def setUp(self) -> None:
        """A server with two idle connections, which begins to drain."""
        self.clock, self.answers = Clock(), Answers()
        self.counted = Counted()
        self.first, self.wire = connect(self.answers, self.clock, grace_seconds=5, metrics=self.counted)
        self.factory = self.first.factory
        self.second, self.other = join(self.factory)
        self.done = self.factory.drain(20)

    def finish(self, *connections: CallProtocol) -> None:
        """The connections end, and the drain with them."""
        for connection in connections:
            self.assertNoResult(self.done)
            hang_up(connection)
        self.successResultOf(self.done)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_next_request_is_answered(self) -> None:
        """It is answered, and told that this connection takes no more."""
        self.assertFalse(self.wire.disconnecting)
        self.clock.advance(4.9)
        self.first.dataReceived(ask())
        self.answers.pending[0].callback(Reply(200))
        self.assertEqual(statuses(self.wire.value()), [200])
        self.assertIn(b"Connection: close\r\n", self.wire.value())
        self.assertTrue(self.wire.disconnecting)
        self.finish(self.first, self.second)

    def test_idle_to_the_end(self) -> None:
        """What stays idle is closed at the end of the grace, not before."""
        self.clock.advance(4.9)
        self.assertFalse(self.wire.disconnecting or self.other.disconnecting)
        self.clock.advance(0.1)
        self.assertTrue(self.wire.disconnecting and self.other.disconnecting)
        self.assertEqual(self.wire.value(), b"")
        self.finish(self.first, self.second)

    def test_arriving_at_the_end(self) -> None:
        """A request in work or arriving when the grace ends is finished."""
        self.first.dataReceived(ask(b"/a"))
        self.second.dataReceived(ask(b"/b")[:-1])
        self.clock.advance(5)
        self.second.dataReceived(b"\n")
        for answer, wire in zip(self.answers.pending, (self.wire, self.other), strict=True):
            self.assertFalse(wire.disconnecting)
            answer.callback(Reply(200))
            self.assertEqual(statuses(wire.value()), [200])
            self.assertTrue(wire.disconnecting)
        self.finish(self.first, self.second)

    def test_connected_just_before(self) -> None:
        """A connection that was on its way is served in the grace; after it, it is told 503."""
        late, wire = join(self.factory)
        late.dataReceived(ask())
        self.answers.pending[0].callback(Reply(200))
        self.assertEqual(statuses(wire.value()), [200])
        self.clock.advance(5)
        later, refused = join(self.factory)
        self.assertEqual(statuses(refused.value()), [503])
        self.assertEqual(self.counted.reasons, ["drain"])
        hang_up(later)
        self.finish(self.first, self.second, late)

    def test_over_early(self) -> None:
        """Nobody waits for the end of the grace when no connection is left."""
        self.finish(self.first, self.second)
        self.assertEqual(self.clock.seconds(), 0)

    def test_no_patience(self) -> None:
        """The drain can be cut short: everything is closed at once."""
        self.first.dataReceived(ask())
        self.factory.cut_off()
        self.assertTrue(self.wire.disconnected and self.other.disconnected)
        self.finish(self.first, self.second)
