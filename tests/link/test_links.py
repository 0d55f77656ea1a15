"""Farm links: only members get in, each call is executed once, and nothing grows without bound."""

from __future__ import annotations

import errno
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, fail, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.error import ConnectError
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import TestCase

from rvpfarm.directory.model import Home
from rvpfarm.link import client as link_client
from rvpfarm.link import ledger, outlook
from rvpfarm.link.dialler import Dialler
from rvpfarm.link.frames import PROOF_ONLY, FrameReader, render_call
from rvpfarm.link.kinds import Kind
from rvpfarm.link.links import LinkClient, LinkFactory, Links
from rvpfarm.link.meeting import Challenge, Hello, Meeting, render_hello, render_proof
from rvpfarm.protocol.calls import (
    Busy,
    Call,
    Forbidden,
    Limits,
    Relayed,
    Reply,
    Slow,
    TooLarge,
    Unreachable,
    Untried,
)
from tests.support.links import HOME, KEY, WHERE, LinkTestCase, make_call


class CallTests(LinkTestCase):
    """A call goes to the home as it is, and its reply comes back as it is."""

    def test_there_and_back(self) -> None:
        """The home sees the call, its caller and who handed it on; the caller gets the reply's octets."""
        self.home.instead = lambda call: Reply(200, ((b"Subscription-Id", b"7"),), b"<y/>")
        outcome = self.call()
        self.network.pump()
        (call,) = self.home.calls
        self.assertEqual(
            (call.method, call.target, call.body), (b"NOTIFY", b"/instmsg/aliases/petra", b"<x/>")
        )
        self.assertEqual((call.peer, call.connection, call.via), ("10.1.2.3", "r1/x/7", "router-1"))
        self.assertEqual(call.headers, {b"host": b"im.fabrik.example"})
        self.assertFalse(call.vouched)
        self.assertEqual(
            outcome[0].wire,
            b"HTTP/1.1 200 Successful\r\nRVP-Notifications-Version: 0.2\r\nSubscription-Id: 7\r\n"
            b"Content-Length: 4\r\n\r\n<y/>",
        )
        self.assertEqual(self.client.in_flight, 0)

    def test_gone(self) -> None:
        """A linked home is told of a closed connection; another is not, and nobody connects for that."""
        gone: list[str] = []
        self.make_home(on_gone=gone.append)
        self.client.gone("r1/x/6")
        self.network.pump()
        self.call()
        self.network.pump()
        self.client.gone("r1/x/7")
        self.network.pump()
        self.assertEqual(gone, ["r1/x/7"])
        self.make_home()
        self.network.cut()
        self.client.gone("r1/x/8")
        self.assertEqual(gone, ["r1/x/7"])

    def test_vouched(self) -> None:
        """A member's own call arrives as one that it vouches for."""
        call = make_call()
        call.vouched = True
        self.client.call(call).addErrback(lambda failure: None)
        self.network.pump()
        self.assertTrue(self.home.calls[0].vouched)

    def test_any_order(self) -> None:
        """A reply that comes late holds up no other."""
        first, second = self.call(), self.call()
        self.network.pump()
        self.home.waiting[1].callback(Reply(207))
        self.network.pump()
        self.assertEqual((first, second[0].status), ([], 207))
        self.home.waiting[0].callback(Reply(200))
        self.network.pump()
        self.assertEqual(first[0].status, 200)

    def test_one_write_for_many(self) -> None:
        """The calls of one turn of the loop are one write, and so are their replies."""
        self.home.instead = lambda call: Reply(200)
        self.call()
        self.network.pump()
        near = self.network.pipes[0]
        calls, replies = near.writes, near.other.writes
        outcomes = [self.call() for _ in range(20)]
        self.clock.advance(0)
        self.assertEqual(near.writes, calls + 1)
        while self.network.step(upstream=True):
            pass
        self.assertEqual(near.other.writes, replies + 1)
        self.network.pump()
        self.assertEqual([outcome[0].status for outcome in outcomes], [200] * 20)

    def test_late_replies_in_one_write(self) -> None:
        """Calls that are answered later, but in one turn of the loop, share a write as well."""
        for _ in range(5):
            self.call()
        self.network.pump()
        far = self.network.pipes[0].other
        before = far.writes
        for waiting in self.home.waiting:
            waiting.callback(Reply(200))
        self.clock.advance(0)
        self.assertEqual(far.writes, before + 1)

    def test_refusal(self) -> None:
        """A refusal, at once or later, is a reply; so is a head that the strict reader refuses."""

        def refuse(call: Call) -> Any:
            raise Forbidden("no")

        self.home.instead = refuse
        at_once = self.call()
        self.network.pump()
        self.home.instead = None
        later, refused = self.call(), self.call(b"NOTIFY", b"", b"Bad Field: x\r\n")
        self.network.pump()
        self.home.waiting[0].errback(Forbidden("no"))
        self.network.pump()
        self.assertEqual([outcome[0].status for outcome in (at_once, later, refused)], [403, 403, 400])

    def test_bug(self) -> None:
        """A bug, at once or later, is logged once and becomes a 500 without details."""

        def fail(call: Call) -> Any:
            raise ZeroDivisionError("secret")

        self.home.instead = fail
        at_once = self.call()
        self.network.pump()
        self.home.instead = None
        later = self.call()
        self.network.pump()
        self.home.waiting[0].errback(ZeroDivisionError("secret"))
        self.network.pump()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        for outcome in (at_once, later):
            self.assertEqual(outcome[0].status, 500)
            self.assertNotIn(b"secret", outcome[0].wire)

    def test_impossible_reply(self) -> None:
        """A reply that cannot be sent, since it is huge or would break its framing, becomes a 500."""
        for reply in (Relayed(bytes(5 << 20)), Reply(200, ((b"X", b"a\r\nb: c"),))):
            self.home.instead = lambda call, reply=reply: reply
            outcome = self.call()
            self.network.pump()
            self.assertEqual(outcome[0].status, 500)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)

    def test_closing_reply(self) -> None:
        """That the caller's connection is to end travels beside the reply, not in it."""
        self.home.instead = lambda call: Reply(400, close=True)
        outcome = self.call()
        self.network.pump()
        self.assertTrue(outcome[0].close)
        self.assertNotIn(b"Connection", outcome[0].wire)

    def test_version(self) -> None:
        """The reply speaks the version of the call (protocol notes 2.3)."""
        self.home.instead = lambda call: Reply(200)
        outcome = self.call(b"NOTIFY", b"", b"RVP-Notifications-Version: 1.0\r\n")
        self.network.pump()
        self.assertIn(b"RVP-Notifications-Version: 1.0\r\n", outcome[0].wire)

    def test_hung_up(self) -> None:
        """When the caller hangs up, the home stops working on the call, and nobody waits any more."""
        deferred = self.client.call(make_call())
        other = self.call()
        self.network.pump()
        deferred.cancel()
        self.failureResultOf(deferred, CancelledError)
        self.network.pump()
        self.assertEqual(self.home.given_up, [0])
        self.home.waiting[1].callback(Reply(200))
        self.network.pump()
        self.assertEqual((other[0].status, self.client.in_flight, self.factory.in_work), (200, 0, 0))

    def test_hung_up_before_it_was_sent(self) -> None:
        """A call whose caller hangs up before it is sent is never sent."""
        self.call()
        self.network.pump()
        deferred = self.client.call(make_call())
        deferred.cancel()
        self.failureResultOf(deferred, CancelledError)
        self.network.pump()
        self.assertEqual((len(self.home.calls), self.client.in_flight), (1, 1))

    def test_slow(self) -> None:
        """A call without a reply by its deadline fails, and the home stops working on it."""
        outcome, quick = self.call(deadline_seconds=25.0), self.call(deadline_seconds=3.0)
        self.network.pump()
        self.network.advance(2.9)
        self.assertEqual(quick, [])
        self.network.advance(0.2)
        self.assert_failed(quick, Slow, maybe_done=True)
        self.network.advance(21.8)
        self.assertEqual(outcome, [])
        self.network.advance(0.2)
        self.assert_failed(outcome, Slow, maybe_done=True)
        self.assertEqual(sorted(self.home.given_up), [0, 1])

    def test_too_many(self) -> None:
        """Beyond the limit a newcomer is refused at once, and those before it are served."""
        self.patch(link_client, "CALLS_LIMIT", 3)
        outcomes = [self.call() for _ in range(3)]
        self.assertRaises(Busy, self.client.call, make_call())
        self.network.pump()
        self.home.waiting[0].callback(Reply(200))
        self.network.pump()
        self.call()
        self.assertEqual((outcomes[0][0].status, self.client.in_flight), (200, 3))

    def test_too_large(self) -> None:
        """A call that the home would not take is refused here, and breaks no link."""
        self.assertRaises(TooLarge, self.client.call, make_call(body=bytes(Limits().body + 20000)))

    def test_too_much_at_the_home(self) -> None:
        """A home with too much in work says so; nothing is executed, and later calls are."""

        class Room:
            limit, in_work = 1, 0

        self.factory = self.make_home(admission=Room)
        self.call()
        self.network.pump()
        self.assertEqual(Room.in_work, 1)
        refused = self.call()
        self.network.pump()
        self.assertEqual((refused[0].status, len(self.home.calls)), (503, 1))
        self.home.waiting[0].callback(Reply(200))
        self.network.pump()
        self.assertEqual(Room.in_work, 0)
        self.call()
        self.network.pump()
        self.assertEqual(len(self.home.calls), 2)


class BrokenLinkTests(LinkTestCase):
    """A link may break at any moment; a call is executed once all the same."""

    def test_cut_between_execution_and_reply(self) -> None:
        """The home executed the call and the reply was lost: sent again it is not executed again."""
        outcome = self.call()
        self.network.pump()
        self.home.waiting[0].callback(Reply(207, body=b"once"))
        self.clock.advance(0)
        self.assertTrue(self.network.pipes[0].other.waiting)
        self.network.cut()
        self.assertEqual(outcome, [])
        self.network.advance(1)
        self.assertEqual((outcome[0].status, outcome[0].wire[-4:]), (207, b"once"))
        self.assertEqual((len(self.home.calls), len(self.network.pipes)), (1, 2))

    def test_cut_during_execution(self) -> None:
        """The link broke while the home worked: the reply comes over the next one."""
        outcome = self.call()
        self.network.pump()
        self.network.cut()
        self.network.advance(1)
        self.home.waiting[0].callback(Reply(200))
        self.network.pump()
        self.assertEqual((outcome[0].status, len(self.home.calls)), (200, 1))

    def test_cut_before_arrival(self) -> None:
        """The call was lost on its way: it is sent again and executed then."""
        self.call()
        self.network.pump()
        outcome = self.call()
        self.clock.advance(0)
        self.network.cut()
        self.assertEqual(len(self.home.calls), 1)
        self.network.advance(1)
        self.home.waiting[1].callback(Reply(200))
        self.network.pump()
        self.assertEqual((outcome[0].status, len(self.home.calls)), (200, 2))

    def test_forgotten_when_acknowledged(self) -> None:
        """The home keeps a reply until the caller has it, and no longer."""
        self.home.instead = lambda call: Reply(200)
        self.call()
        self.network.pump()
        (kept,) = self.factory._ledgers.values()
        self.assertEqual(len(kept), 1)
        self.network.advance(16)
        self.assertEqual(len(kept), 0)

    def test_forgotten_when_nobody_comes(self) -> None:
        """The replies of a caller that never comes back are forgotten after a while, and so is the caller."""
        self.home.instead = lambda call: Reply(200)
        self.call()
        while self.network.step(upstream=True) or self.network.step(upstream=False):
            if self.home.calls:
                break
        self.client.stop()
        self.network.pump()
        self.assertEqual(len(self.factory._ledgers), 1)
        self.network.advance(ledger.KEEP_SECONDS + 21, pieces=20)
        self.assertEqual((self.factory._ledgers, self.clock.getDelayedCalls()), ({}, []))

    def test_broken_twice(self) -> None:
        """A call over which two links broke is given up: it may be what breaks them."""
        outcome = self.call()
        for _ in range(2):
            self.network.pump()
            self.network.cut()
            self.network.advance(1)
        self.assert_failed(outcome, Unreachable, maybe_done=True)

    def test_restarted_home(self) -> None:
        """A home started anew gets again only what may be done twice."""
        message = self.call(b"NOTIFY")
        new = self.call(b"SUBSCRIBE")
        refresh = self.call(b"SUBSCRIBE", b"", b"Subscription-Id: 12\r\n")
        query = self.call(b"PROPFIND")
        self.network.pump()
        self.restart(incarnation=2)
        self.network.advance(1)
        self.assert_failed(message, Unreachable, maybe_done=True)
        self.assert_failed(new, Unreachable, maybe_done=True)
        self.assertEqual([call.method for call in self.home.calls[4:]], [b"SUBSCRIBE", b"PROPFIND"])
        for waiting in self.home.waiting:
            waiting.callback(Reply(200))
        self.network.pump()
        self.assertEqual((refresh[0].status, query[0].status), (200, 200))

    def test_unsent_calls_survive_a_restart(self) -> None:
        """What was never sent is sent to the home started anew, whatever it is."""
        self.call(b"PROPFIND")
        self.network.pump()
        self.restart(incarnation=2)
        outcome = self.call(b"NOTIFY")
        self.network.advance(1)
        self.assertEqual([call.method for call in self.home.calls[1:]], [b"PROPFIND", b"NOTIFY"])
        self.home.waiting[1].callback(Reply(200))
        self.network.pump()
        self.assertEqual(outcome[0].status, 200)

    def test_gone_home(self) -> None:
        """What was sent to a home that does not come back fails after five seconds and may have been done."""
        outcome = self.call()
        self.network.pump()
        self.network.listen(*WHERE, None)
        self.network.cut()
        self.network.advance(4.5, pieces=50)
        self.assertEqual(outcome, [])
        self.network.advance(0.6)
        self.assert_failed(outcome, Unreachable, maybe_done=True)

    def test_hung_up_while_broken(self) -> None:
        """A caller who hangs up while the link is broken stops the work once it is back."""
        deferred = self.client.call(make_call())
        self.network.pump()
        self.network.cut()
        deferred.cancel()
        self.failureResultOf(deferred, CancelledError)
        self.network.advance(1)
        self.assertEqual((self.home.given_up, len(self.home.calls)), ([0], 1))

    def test_unread_calls_of_an_earlier_connection(self) -> None:
        """What is still on its way over a connection that was replaced is not executed."""
        self.call()
        self.network.pump()
        old = self.network.pipes[0]
        self.call()
        self.clock.advance(0)
        # only this end notices that the connection is dead
        old.connected = False
        old.protocol.connectionLost(_aborted())
        old.connected = True
        self.network.advance(1)
        self.assertEqual((len(self.home.calls), old.connected), (2, False))

    def test_silent_home(self) -> None:
        """A home that answers no sign of life is given up, and the calls go over a new link."""
        outcome = self.call(deadline_seconds=100.0)
        self.network.pump()
        self.network.pipes[0].other.reading = False
        self.network.advance(61, pieces=200)
        self.assertEqual(len(self.network.pipes), 2)
        self.home.waiting[0].callback(Reply(200))
        self.network.pump()
        self.assertEqual((outcome[0].status, len(self.home.calls)), (200, 1))

    def test_idle_link_stays(self) -> None:
        """A link without calls stays up as long as both ends live."""
        self.home.instead = lambda call: Reply(200)
        self.call()
        self.network.advance(600, pieces=200)
        self.assertEqual((len(self.network.pipes), self.client.connected), (1, True))

    def test_silent_caller(self) -> None:
        """A caller of whom nothing is heard is disconnected."""
        self.call(deadline_seconds=1000.0)
        self.network.pump()
        near = self.network.pipes[0]
        near.other.reading = near.reading = False
        near.protocol._timer.cancel()
        near.protocol._timer = None
        self.network.advance(71, pieces=20)
        self.assertFalse(near.connected)

    @settings(max_examples=150, deadline=None)
    @given(st.integers(0, 2**32), st.integers(1, 12))
    def test_cut_anywhere(self, seed: int, cuts: int) -> None:
        """Wherever links are cut, no call is executed twice, all end, and replies are not mixed up."""
        self.set_up(seed)
        random = self.network.random
        self.home.instead = lambda call: (
            Reply(200, body=call.body) if random.random() < 0.5 else _later(self.clock, call, random.random())
        )
        outcomes = []
        for number in range(cuts):
            outcomes += [(b"%d" % n, self.call(b"NOTIFY", b"%d" % n)) for n in (2 * number, 2 * number + 1)]
            for _ in range(random.randrange(40)):
                self.network.step(upstream=random.random() < 0.5, size=random.choice((1, 40, 1000)))
                self.clock.advance(random.choice((0, 0.01, 0.3)))
            self.network.cut()
        self.network.advance(60, pieces=100)
        executed = [call.body for call in self.home.calls]
        self.assertEqual(len(executed), len(set(executed)))
        for body, outcome in outcomes:
            self.assertEqual(len(outcome), 1)
            if isinstance(outcome[0], Relayed):
                self.assertTrue(outcome[0].wire.endswith(b"\r\n\r\n" + body))
                self.assertIn(body, executed)
            elif not outcome[0].value.maybe_done:
                self.assertNotIn(body, executed)
        self.assertEqual((self.client.in_flight, self.factory.in_work), (0, 0))


def _later(clock: Clock, call: Call, seconds: float) -> Deferred[Reply]:
    deferred: Deferred[Reply] = Deferred()

    def answer() -> None:
        if not deferred.called:
            deferred.callback(Reply(200, body=call.body))

    clock.callLater(seconds, answer)
    return deferred


def _aborted() -> Any:
    from twisted.internet.error import ConnectionAborted
    from twisted.python.failure import Failure

    return Failure(ConnectionAborted())


class ConnectingTests(LinkTestCase):
    """A link is made when it is wanted, and not more often than makes sense."""

    def test_refused(self) -> None:
        """A home that refuses connections fails the call at once; nothing was done."""
        self.network.listen(*WHERE, None)
        outcome = self.call()
        self.assert_failed(outcome, Unreachable)

    def test_silence(self) -> None:
        """A home that does not answer fails the call after five seconds."""
        self.network.silent.add(WHERE)
        outcome = self.call()
        self.network.advance(4.9)
        self.assertEqual(outcome, [])
        self.network.advance(0.2)
        self.assert_failed(outcome, Unreachable)

    def test_half_a_handshake(self) -> None:
        """A home that takes the connection and then says nothing fails the call after five seconds."""
        outcome = self.call()
        self.network.pipes[0].other.reading = False
        self.network.advance(4.9)
        self.assertEqual(outcome, [])
        self.network.advance(0.2)
        self.assert_failed(outcome, Unreachable)
        self.assertFalse(self.network.pipes[0].connected)

    def test_no_demand(self) -> None:
        """A home that was never reached is not tried again before somebody wants it."""
        self.network.listen(*WHERE, None)
        self.call()
        self.network.advance(60)
        self.assertEqual(self.network.attempts, 1)
        self.network.listen(*WHERE, self.factory)
        self.call()
        self.network.advance(3)
        self.assertEqual((self.network.attempts, len(self.home.calls)), (2, 1))

    def test_comes_back(self) -> None:
        """A link that was up is made again without being asked for, with growing and bounded pauses."""
        self.home.instead = lambda call: Reply(200)
        self.call()
        self.network.pump()
        self.network.listen(*WHERE, None)
        self.network.cut()
        times = []
        for _ in range(60 * 10):
            before = self.network.attempts
            self.clock.advance(0.1)
            if self.network.attempts > before:
                times.append(self.clock.seconds())
        pauses = [round(later - earlier) for earlier, later in pairwise(times)]
        self.assertEqual(pauses, sorted(pauses))
        self.assertLess(times[0], 0.5)
        self.assertEqual(pauses[-1], round(outlook.LONGEST_PAUSE_SECONDS))
        self.network.listen(*WHERE, self.factory)
        self.network.advance(3)
        self.assertTrue(self.client.connected)

    def test_many_attempts_are_spread(self) -> None:
        """The pauses of several callers differ, as chance has it, whether they are long or short."""
        for way in (lambda dialler: dialler.later(2.0), Dialler.soon):
            clock, pauses = Clock(), set()
            for chance in (0.0, 0.5, 1.0):
                dialler = Dialler(
                    self.network.endpoint(*WHERE),
                    clock=clock,
                    chance=[chance].pop,
                    factory=lambda until: Factory(),
                    over=lambda why: None,
                )
                way(dialler)
                pauses |= {call.getTime() for call in clock.getDelayedCalls()}
                dialler.stop()
            self.assertEqual(len(pauses), 3)

    def test_stop(self) -> None:
        """Stopping gives up what is in flight, closes the connection and leaves nothing behind."""
        outcome = self.call()
        self.network.pump()
        stopped = self.client.stop()
        self.assertNoResult(stopped)
        self.assert_failed(outcome, Unreachable, maybe_done=True)
        self.network.pump()
        self.assertIsNone(self.successResultOf(stopped))
        self.assertFalse(self.network.pipes[0].connected)
        self.assertRaises(Unreachable, self.client.call, make_call())
        self.successResultOf(self.factory.drain())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_while_connecting(self) -> None:
        """Stopping ends an attempt to connect as well, and a pause between two."""
        self.network.silent.add(WHERE)
        self.call()
        self.successResultOf(self.client.stop())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_idle(self) -> None:
        """A client that was never used stops at once."""
        self.successResultOf(self.client.stop())
        self.successResultOf(self.client.stop())

    def test_drain(self) -> None:
        """A home that is to stop begins nothing new, finishes what it has, and closes.

        So it does for a caller that knows nothing of planned restarts.
        """
        self.client = self.make_client(edition=0)
        outcome = self.call()
        self.network.pump()
        drained = self.factory.drain()
        late = self.call()
        self.network.pump()
        self.assertEqual((late[0].status, len(self.home.calls)), (503, 1))
        self.home.waiting[0].callback(Reply(200))
        self.network.listen(*WHERE, None)
        self.network.pump()
        self.assertEqual(outcome[0].status, 200)
        self.successResultOf(drained)

    def test_drain_with_a_deadline(self) -> None:
        """What is not finished in time is given up, and a caller that does not read is not waited for."""
        outcome = self.call()
        self.network.pump()
        drained = self.factory.drain(seconds=5)
        self.network.pipes[0].reading = False
        self.network.listen(*WHERE, None)
        self.network.advance(8)
        self.successResultOf(drained)
        self.assertEqual(self.home.given_up, [0])
        self.network.advance(8)
        self.assertEqual(len(outcome), 1)


class SlowPeerTests(LinkTestCase):
    """An end that does not read makes the other end stop, not grow."""

    def test_slow_home(self) -> None:
        """Calls to a home that does not read wait here, and do not pile up in the transport."""
        self.call()
        self.network.pump()
        near = self.network.pipes[0]
        near.other.reading = False
        outcomes = []
        for _ in range(100):
            outcomes.append(self.call(b"NOTIFY", bytes(10000)))
            self.clock.advance(0)
        self.assertLess(len(near.waiting), 100_000)
        near.other.reading = True
        self.network.pump()
        self.assertEqual(len(self.home.calls), 101)

    def test_bytes_are_bounded(self) -> None:
        """Large calls to a home that does not read are refused before they are many."""
        self.patch(link_client, "BYTES_LIMIT", 100_000)
        self.call()
        self.network.pump()
        self.network.pipes[0].other.reading = False
        for _ in range(10):
            self.call(b"NOTIFY", bytes(10000))
        self.assertRaises(Busy, self.client.call, make_call())

    def test_hung_up_while_waiting(self) -> None:
        """Calls that wait for a slow home and whose callers hang up are not sent to it at all."""
        self.call()
        self.network.pump()
        near = self.network.pipes[0]
        near.other.reading = False
        deferreds = []
        for _ in range(30):
            deferreds.append(self.client.call(make_call(body=bytes(10000))))
            self.clock.advance(0)
        for deferred in deferreds:
            deferred.cancel()
            self.failureResultOf(deferred, CancelledError)
        near.other.reading = True
        self.network.pump()
        self.assertLess(len(self.home.calls), 12)
        self.assertEqual(self.client.in_flight, 1)

    def test_slow_caller(self) -> None:
        """A caller that does not read its replies is not read either."""
        self.home.instead = lambda call: Reply(200, body=bytes(50000))
        outcomes = [self.call() for _ in range(2)]
        self.network.pump()
        near = self.network.pipes[0]
        near.reading = False
        for _ in range(10):
            outcomes.append(self.call())
            self.network.pump()
        self.assertFalse(near.other.reading)
        self.assertLess(len(near.other.waiting), 200_000)
        self.assertLess(len(self.home.calls), 6)
        near.reading = True
        self.network.pump()
        self.assertEqual([outcome[0].status for outcome in outcomes], [200] * 12)

    def test_unacknowledged_replies(self) -> None:
        """A caller that never acknowledges replies is refused further calls when they are too many."""
        self.patch(ledger, "WORKS_LIMIT", 4)
        self.home.instead = lambda call: Reply(200)
        outcomes = []
        for _ in range(6):
            outcomes.append(self.call())
            self.network.pump()
            self.client._seen.clear()
        self.assertEqual([outcome[0].status for outcome in outcomes], [200] * 4 + [503] * 2)
        self.assertEqual(len(self.home.calls), 4)


class HandshakeTests(LinkTestCase):
    """Nobody gets in without the farm key, and nobody is read before."""

    def test_wrong_key(self) -> None:
        """With another key no call is made, and both ends say so once."""
        client = self.make_client(key=b"other" * 8)
        for _ in range(3):
            outcome = self.call(client=client)
            self.network.advance(3)
            self.assert_failed(outcome, Unreachable)
        self.assertEqual(self.home.calls, [])
        self.assertEqual(self.factory.callers, 0)

    def test_wrong_home(self) -> None:
        """A home with another id is not the one that was meant."""
        outcome = self.call(client=self.make_client(peer="another-home"))
        self.network.advance(1)
        self.assert_failed(outcome, Unreachable)
        self.assertEqual(self.home.calls, [])

    def test_false_home(self) -> None:
        """A home that does not know the key gets no call, though it let the caller in."""

        class Credulous(LinkFactory):
            def __init__(self, *arguments: Any, **more: Any) -> None:
                super().__init__(*arguments, **more)
                self.key = b"x" * 32

        factory = Credulous(
            self.home.answer, key=KEY, name=HOME, incarnation=1, clock=self.clock, limits=Limits()
        )
        self.network.listen(*WHERE, factory)
        client = self.make_client(key=b"x" * 32)
        self.call(client=client)
        client.key = b"y" * 32

        def lie(meeting: Meeting, key: bytes) -> bytes:
            return real(meeting, b"x" * 32)

        real = Meeting.caller_proof
        self.patch(Meeting, "caller_proof", lie)
        self.network.pump()
        self.assertEqual((factory.callers, self.home.calls, client.connected), (0, [], False))

    def handshake(self, key: bytes = KEY) -> tuple[StringTransport, Any, bytes]:
        """A connection on which the home has sent its challenge.

        @return: its transport, the home's protocol, and the right answer.
        """
        transport = StringTransport()
        protocol: Any = self.factory.buildProtocol(None)
        protocol.makeConnection(transport)
        nonce = b"c" * 32
        protocol.dataReceived(render_hello(Hello(5, nonce, "router-9", HOME)))
        (challenge,) = FrameReader({int(Kind.CHALLENGE): 33}).feed(transport.value())
        assert isinstance(challenge, Challenge)
        meeting = Meeting("router-9", HOME, 5, nonce, challenge.nonce)
        return transport, protocol, render_proof(meeting.caller_proof(key))

    def test_proved(self) -> None:
        """The right answer to the challenge lets the caller in."""
        transport, protocol, proof = self.handshake()
        protocol.dataReceived(proof)
        self.assertFalse(transport.disconnecting)
        protocol.dataReceived(render_call(1, make_call()))
        self.assertEqual((len(self.home.calls), self.factory.callers), (1, 1))

    def test_calls_before_the_proof(self) -> None:
        """A call before the proof, or in its place, or in the same breath, ends the connection unread."""
        call = render_call(1, make_call())
        for data in (call, render_proof(b"p" * 32) + call, self.handshake()[2] + call):
            transport, protocol, _ = self.handshake()
            protocol.dataReceived(data)
            self.assertTrue(transport.disconnected)
            self.assertEqual(self.home.calls, [])
            protocol.dataReceived(call)
            self.assertEqual(self.home.calls, [])

    def test_old_proof(self) -> None:
        """A proof of another meeting, recorded or reflected, proves nothing."""
        recorded = self.handshake()[2]
        transport, protocol, _ = self.handshake()
        protocol.dataReceived(recorded)
        self.assertTrue(transport.disconnected)
        self.assertNotIn(b"hello", transport.value())

    def test_too_slow(self) -> None:
        """A stranger has five seconds."""
        transport, _, _ = self.handshake()
        self.clock.advance(4.9)
        self.assertFalse(transport.disconnected)
        self.clock.advance(0.2)
        self.assertTrue(transport.disconnected)

    def test_many_strangers(self) -> None:
        """Only so many strangers are listened to at a time; members come and go regardless."""
        self.call()
        self.network.pump()
        made = [self.factory.buildProtocol(None)]
        strangers: list[Any] = []
        while made[-1] is not None and len(strangers) < 200:
            made[-1].makeConnection(StringTransport())
            strangers.append(made[-1])
            made.append(self.factory.buildProtocol(None))
        self.assertEqual(len(strangers), 64)
        self.clock.advance(5.1)
        for stranger in strangers:
            stranger.connectionLost(_aborted())
        self.assertIsNotNone(self.factory.buildProtocol(None))
        self.assertEqual(self.factory.callers, 1)

    def test_stolen_origin(self) -> None:
        """An origin belongs to the name that came with it first."""
        self.call()
        self.network.pump()
        thief = self.make_client(name="router-2")
        outcome = self.call(client=thief)
        self.network.advance(1)
        self.assert_failed(outcome, Unreachable)
        self.assertEqual((len(self.home.calls), self.client.connected), (1, True))

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.binary(max_size=100), max_size=4))
    def test_garbage(self, pieces: list[bytes]) -> None:
        """A stranger who talks nonsense gets nothing but the end of the connection."""
        self.set_up(seed=1)
        transport = StringTransport()
        protocol: Any = self.factory.buildProtocol(None)
        protocol.makeConnection(transport)
        for piece in pieces:
            protocol.dataReceived(piece)
        self.assertEqual((transport.value(), self.home.calls), (b"", []))

    def test_garbage_from_a_member(self) -> None:
        """A member that breaks the protocol is disconnected, and can come again."""
        transport, protocol, proof = self.handshake()
        protocol.dataReceived(proof)
        protocol.dataReceived(b"GET / HTTP/1.1\r\n\r\n")
        self.assertTrue(transport.disconnected)
        protocol.connectionLost(_aborted())
        transport, protocol, proof = self.handshake()
        protocol.dataReceived(proof)
        self.assertEqual((self.factory.callers, FrameReader(PROOF_ONLY).buffered), (1, 0))


class LinksTests(LinkTestCase):
    """There is one link to every home, where the home is now."""

    def setUp(self) -> None:
        """A process that knows how to connect."""
        super().setUp()
        self.asked: list[tuple[str, int]] = []
        self.links = Links(self.clock, self.connect, key=KEY, name="router-1", chance=lambda: 1.0)

    def connect(self, host: str, port: int) -> Any:
        """Note what is connected to."""
        self.asked.append((host, port))
        return self.network.endpoint(*WHERE)

    def test_one_link_per_home(self) -> None:
        """The same home, or an equal one, has the same link; another has another."""
        home = Home(HOME, "hs1", "hs1.fabrik.example", 80, 8081)
        again = Home(HOME, "renamed", "hs1.fabrik.example", 80, 8081)
        other = Home("4", "hs2", "hs2.fabrik.example", 80, 8082, "10.0.0.2")
        self.assertIs(self.links.to(home), self.links.to(again))
        self.assertIsNot(self.links.to(home), self.links.to(other))
        self.assertEqual(self.asked, [("hs1.fabrik.example", 8081), ("10.0.0.2", 8082)])

    def test_home_moves(self) -> None:
        """A home that has moved gets a new link, and the old one is closed."""
        old = self.links.to(Home(HOME, "hs1", "hs1.fabrik.example", 80, 8081))
        outcome = self.call(client=old)
        self.network.pump()
        self.assertEqual((self.links.connected, self.links.in_flight), (1, 1))
        new = self.links.to(Home(HOME, "hs1", "hs1.fabrik.example", 80, 9000))
        self.network.pump()
        self.assertIsNot(old, new)
        self.assertFalse(self.network.pipes[0].connected)
        self.assert_failed(outcome, Unreachable, maybe_done=True)

    def test_retain(self) -> None:
        """Links to homes that the farm no longer has are closed."""
        home = Home(HOME, "hs1", "hs1.fabrik.example", 80, 8081)
        client = self.links.to(home)
        self.links.retain({HOME: home})
        self.assertIs(self.links.to(home), client)
        self.links.retain({})
        self.assertRaises(Unreachable, client.call, make_call())

    def test_stop(self) -> None:
        """Stopping closes every link, and no new one can be used."""
        home = Home(HOME, "hs1", "hs1.fabrik.example", 80, 8081)
        self.call(client=self.links.to(home))
        self.network.pump()
        stopped = self.links.stop()
        self.network.pump()
        self.successResultOf(stopped)
        self.assertFalse(self.network.pipes[0].connected)
        self.assertRaises(Unreachable, self.links.to(home).call, make_call())


class ProbeTests(LinkTestCase):
    """Whether a home is there can be found out without a call."""

    def probe(self, seconds: float = 3.0) -> list[Any]:
        """Ask.

        @return: where the outcome will be.
        """
        outcome: list[Any] = []
        self.client.probe(seconds).addCallbacks(outcome.append, lambda failure: outcome.append(failure.value))
        return outcome

    def test_connects(self) -> None:
        """Without a connection one is made; that the home proves itself is the answer."""
        outcome = self.probe()
        self.assertEqual(outcome, [])
        self.network.pump()
        self.assertEqual((outcome, self.client.connected, self.home.calls), ([None], True, []))

    def test_pings(self) -> None:
        """Over a connection a ping is enough, and each who asks gets an answer of his own."""
        self.probe()
        self.network.pump()
        outcomes = [self.probe() for _ in range(3)]
        self.network.pump()
        self.assertEqual((outcomes, self.network.attempts), ([[None]] * 3, 1))

    def test_nobody_there(self) -> None:
        """A home that cannot be reached is said to be so at once."""
        self.network.listen(*WHERE, None)
        (problem,) = self.probe()
        self.assertIs(type(problem), Unreachable)

    def test_wrong_key(self) -> None:
        """Somebody else at its address is not the home."""
        self.make_home(key=b"x" * 32)
        outcome = self.probe()
        self.network.pump()
        self.assertIs(type(outcome[0]), Unreachable)

    def test_silence(self) -> None:
        """A home that gives no sign of life in time is slow, with a connection and without."""
        self.network.silent.add(WHERE)
        silent = self.probe()
        self.network.advance(3.1)
        self.assertIs(type(silent[0]), Slow)
        self.network.silent.clear()
        self.network.advance(5)
        self.probe()
        self.network.pump()
        self.network.pipes[0].other.reading = False
        frozen = self.probe()
        self.network.advance(3.1)
        self.assertIs(type(frozen[0]), Slow)

    def test_stood_still(self) -> None:
        """That we ourselves did not look for a while is not held against the home."""
        self.probe()
        self.network.pump()
        outcome = self.probe()
        self.clock.advance(10)
        self.assertIs(type(outcome[0]), Untried)

    def test_connection_breaks(self) -> None:
        """When the connection breaks meanwhile, the next one answers."""
        self.probe()
        self.network.pump()
        outcome = self.probe()
        self.network.cut()
        self.network.advance(2)
        self.assertEqual(outcome, [None])

    def test_answer_too_late(self) -> None:
        """An answer that nobody waits for any longer harms nobody."""
        self.probe()
        self.network.pump()
        waiting = self.client.probe(3)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.network.pump()
        self.assertTrue(self.client.connected)

    def test_bounded(self) -> None:
        """Only so many can ask at once."""
        self.network.silent.add(WHERE)
        outcomes = [self.probe() for _ in range(16)]
        self.assertRaises(Untried, self.client.probe, 3)
        self.network.advance(3.1)
        self.assertEqual([type(problem) for (problem,) in outcomes], [Slow] * 16)

    def test_stopped(self) -> None:
        """A client that stops, or has stopped, tells nothing about the home."""
        self.network.silent.add(WHERE)
        outcome = self.probe()
        self.client.stop()
        self.assertIs(type(outcome[0]), Untried)
        self.assertRaises(Untried, self.client.probe, 3)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_descriptors(self) -> None:
        """That nothing is left to connect with is our own trouble, also for calls."""
        self.network.connect = lambda where, factory: fail(  # type: ignore[method-assign]
            ConnectError(errno.EMFILE, "too many open files")
        )
        (problem,), call = self.probe(), self.call()
        self.assertIs(type(problem), Untried)
        self.assert_failed(call, Untried)


class SocketTests(TestCase):
    """A link works over sockets as it does over the pumps of the other tests."""

    timeout = 20

    async def test_large_and_broken(self) -> None:
        """Large calls and replies pass both ways at once, also over a connection that breaks meanwhile."""
        from twisted.internet import reactor

        clock: Any = reactor  # the one reactor is all interfaces at once
        executed: list[bytes] = []

        def answer(call: Call) -> Any:
            executed.append(call.body[:4])
            return _later(clock, call, 0.01)

        factory = LinkFactory(answer, key=KEY, name=HOME, incarnation=1, clock=clock, limits=Limits())
        port = await TCP4ServerEndpoint(clock, 0, interface="127.0.0.1").listen(factory)
        endpoint = TCP4ClientEndpoint(clock, "127.0.0.1", port.getHost().port)
        client = LinkClient(endpoint, key=KEY, name="router-1", peer=HOME, clock=clock, origin=1)
        bodies = [b"%04d" % number + bytes(100_000) for number in range(60)]
        replies = [client.call(make_call(body=body)) for body in bodies]

        def break_link(reply: Relayed) -> Relayed:
            assert client._line is not None
            client._line.abandon()
            return reply

        replies[5].addCallback(break_link)
        for body, reply in zip(bodies, await gatherResults(replies), strict=True):
            self.assertTrue(reply.wire.endswith(body))
        self.assertEqual(sorted(executed), [body[:4] for body in bodies])
        await client.stop()
        await port.stopListening()
        await factory.drain()
