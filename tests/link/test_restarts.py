"""A home that is replaced as planned fails no call; one that dies fails few, and each of them truthfully."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.link import client as link_client
from rvpfarm.link.frames import FrameReader, render_call, render_returned
from rvpfarm.link.kinds import Kind
from rvpfarm.link.links import LinkClient, LinkFactory
from rvpfarm.link.meeting import (
    Challenge,
    Hello,
    Meeting,
    render_edition,
    render_hello,
    render_proof,
)
from rvpfarm.link.outlook import GRACE_SECONDS, HOLD_SECONDS, RECENT_SECONDS, Outlook
from rvpfarm.protocol.calls import Busy, Call, Limits, Relayed, Reply, Unreachable, Untried
from tests.support.links import HOME, KEY, WHERE, LinkTestCase, make_call


class OutlookTests(SynchronousTestCase):
    """How long calls wait depends on what was last heard of the home."""

    def test_unknown(self) -> None:
        """Nobody waits for a home that was never there."""
        self.assertEqual(Outlook().hold(7.0), 7.0)

    def test_announced(self) -> None:
        """Calls wait as long as the home says, and no longer than is allowed here, for its return."""
        outlook = Outlook(hold_seconds=10.0)
        outlook.leaving(100.0, 4)
        self.assertEqual((outlook.hold(101.0), outlook.replaced(103.9)), (104.0, True))
        self.assertEqual((outlook.hold(104.0), outlook.replaced(104.0)), (104.0, False))
        outlook.leaving(200.0, 3600)
        self.assertEqual((outlook.hold(200.0), outlook.hold_sent(208.0)), (210.0, 213.0))
        outlook.back()
        self.assertFalse(outlook.replaced(201.0))

    def test_lost(self) -> None:
        """A home that was there a moment ago is worth a moment."""
        outlook = Outlook()
        outlook.lost(100.0)
        self.assertEqual(outlook.hold(101.0), 101.0 + GRACE_SECONDS)
        self.assertEqual(outlook.hold(100.0 + RECENT_SECONDS), 100.0 + RECENT_SECONDS)
        self.assertLess(outlook.longest_pause(101.0), outlook.longest_pause(200.0))


class PlannedTests(LinkTestCase):
    """Calls wait here while a home is replaced, and nothing becomes of them before."""

    def drain(self, **more: Any) -> Deferred[None]:
        """The home takes no more connections, and drains."""
        self.network.listen(*WHERE, None)
        return self.factory.drain(**more)

    def come_back(self, incarnation: int = 2) -> None:
        """The next incarnation takes connections."""
        self.factory = self.make_home(incarnation)

    def at_once(self) -> None:
        """The home answers every call as it comes."""
        self.home.instead = lambda call: Reply(200, body=call.body)

    def link(self) -> None:
        """Have the caller linked."""
        self.at_once()
        self.call()
        self.network.pump()
        self.home.calls.clear()

    def bodies(self) -> list[bytes]:
        """Of the calls that were executed, in order."""
        return [call.body for call in self.home.calls]

    def test_held(self) -> None:
        """Calls of any kind wait while the home is away, and then reach its next incarnation in order."""
        self.link()
        drained = self.drain()
        self.network.pump()
        self.successResultOf(drained)
        methods = (b"NOTIFY", b"SUBSCRIBE", b"PROPFIND", b"NOTIFY")
        outcomes = [self.call(method, b"%d" % number) for number, method in enumerate(methods)]
        self.network.advance(10, pieces=50)
        self.assertEqual((outcomes, self.bodies(), self.client.held), ([[]] * 4, [], 4))
        self.come_back()
        self.network.advance(0.3)
        self.assertEqual([outcome[0].status for outcome in outcomes], [200] * 4)
        self.assertEqual((self.bodies(), self.client.held), ([b"0", b"1", b"2", b"3"], 0))

    def test_handed_back(self) -> None:
        """Calls on their way to a home that begins to drain are done by the next one, in their order."""
        self.link()
        outcomes = [self.call(b"NOTIFY", b"%d" % number) for number in range(3)]
        self.clock.advance(0)
        self.assertTrue(self.network.pipes[0].waiting)
        drained = self.drain()
        outcomes.append(self.call(b"NOTIFY", b"3"))
        self.network.pump()
        self.successResultOf(drained)
        self.assertEqual((self.bodies(), self.client.held), ([], 4))
        self.come_back()
        self.network.advance(0.3)
        self.assertEqual([outcome[0].status for outcome in outcomes], [200] * 4)
        self.assertEqual(self.bodies(), [b"0", b"1", b"2", b"3"])

    def test_finished_first(self) -> None:
        """What is in work is answered before the link ends, and it is the caller that ends it."""
        outcome = self.call()
        self.network.pump()
        drained = self.drain(seconds=5.0)
        held = self.call(b"NOTIFY", b"held")
        self.network.advance(4)
        self.assertNoResult(drained)
        self.assertTrue(self.network.pipes[0].connected)
        self.home.waiting[0].callback(Reply(200))
        self.network.pump()
        self.assertEqual((outcome[0].status, held), (200, []))
        self.successResultOf(drained)
        self.assertLess(self.clock.seconds(), 4.1)

    def test_not_finished(self) -> None:
        """What takes too long is answered 504: nobody knows what became of it.  New calls wait on."""
        outcome = self.call()
        self.network.pump()
        drained = self.drain(seconds=2.0)
        held = self.call(b"NOTIFY", b"held")
        self.network.advance(2.1)
        self.successResultOf(drained)
        self.assertEqual((outcome[0].status, self.home.given_up, held), (504, [0], []))

    def test_hung_up_in_work(self) -> None:
        """When the last caller that was waited for hangs up, the link ends."""
        deferred = self.client.call(make_call())
        self.network.pump()
        drained = self.drain(seconds=5.0)
        self.network.pump()
        deferred.cancel()
        self.failureResultOf(deferred, CancelledError)
        self.network.pump()
        self.successResultOf(drained)
        self.assertEqual(self.home.given_up, [0])

    def test_never_back(self) -> None:
        """When the wait is over the calls fail, nothing having been done; as failures they count once."""
        self.link()
        self.drain()
        self.network.pump()
        outcomes = [self.call(b"NOTIFY", b"%d" % number) for number in range(3)]
        self.network.advance(HOLD_SECONDS - 0.1, pieces=50)
        outcomes.append(self.call(b"NOTIFY", b"3"))
        self.assertEqual(outcomes, [[]] * 4)
        self.network.advance(0.2)
        for outcome in outcomes:
            self.assert_failed(outcome, Unreachable)
        self.assertEqual([outcome[0].value.echo for outcome in outcomes], [False, True, True, True])
        after = self.call()
        self.network.advance(1)
        self.assert_failed(after, Unreachable)
        self.come_back()
        self.network.advance(3)
        self.assertEqual((self.bodies(), self.client.connected), ([], True))

    def test_as_long_as_the_home_says(self) -> None:
        """A home may say that it is back sooner, or that it will not be back."""
        for seconds in (3, 0):
            self.set_up(seed=seconds)
            self.link()
            outcome = self.call(b"NOTIFY", b"on its way")
            self.clock.advance(0)
            self.drain(hold_seconds=seconds)
            self.network.pump()
            if seconds:
                self.network.advance(seconds - 0.1, pieces=50)
                self.assertEqual(outcome, [])
            self.network.advance(0.2)
            self.assert_failed(outcome, Unreachable)
            self.assertEqual(self.bodies(), [])

    def test_no_longer_than_allowed_here(self) -> None:
        """However long a home says, its callers wait only so long."""
        self.client = self.make_client(hold_seconds=2.0)
        self.link()
        self.drain(hold_seconds=3600)
        self.network.pump()
        outcome = self.call()
        self.network.advance(2.1, pieces=20)
        self.assert_failed(outcome, Unreachable)

    def test_bounded(self) -> None:
        """Beyond the limit a newcomer is refused at once, and those that are held are served later."""
        self.patch(link_client, "CALLS_LIMIT", 3)
        self.link()
        self.drain()
        self.network.pump()
        outcomes = [self.call(b"NOTIFY", b"%d" % number) for number in range(3)]
        self.assertRaises(Busy, self.client.call, make_call())
        self.come_back()
        self.network.advance(0.3)
        self.assertEqual([outcome[0].status for outcome in outcomes], [200] * 3)

    def test_octets_are_bounded(self) -> None:
        """Many octets are held no more readily than many calls."""
        self.patch(link_client, "BYTES_LIMIT", 100_000)
        self.link()
        self.drain()
        self.network.pump()
        for _ in range(10):
            self.call(b"NOTIFY", bytes(10000))
        self.assertRaises(Busy, self.client.call, make_call())

    def test_hung_up_while_held(self) -> None:
        """A call whose caller hangs up while it is held is never sent."""
        self.link()
        self.drain()
        self.network.pump()
        deferred = self.client.call(make_call())
        other = self.call(b"NOTIFY", b"other")
        deferred.cancel()
        self.failureResultOf(deferred, CancelledError)
        self.come_back()
        self.network.advance(0.3)
        self.assertEqual((other[0].status, self.bodies()), (200, [b"other"]))

    def test_its_own_deadline(self) -> None:
        """A held call whose own time is over was not done, and is not called slow."""
        self.link()
        self.drain()
        self.network.pump()
        outcome = self.call(deadline_seconds=2.0)
        self.network.advance(2.1)
        self.assert_failed(outcome, Unreachable)

    def test_soon_and_often(self) -> None:
        """A home that is being replaced is tried several times a second, at once and to the end."""
        self.link()
        self.drain()
        self.network.pump()
        times = []
        for _ in range(1400):
            before = self.network.attempts
            self.clock.advance(0.01)
            if self.network.attempts > before:
                times.append(self.clock.seconds())
        pauses = [later - earlier for earlier, later in pairwise(times)]
        self.assertLess(times[0], 0.3)
        self.assertLess(max(pauses), 0.3)
        self.assertGreater(min(pauses), 0.09)

    def test_stopped_while_holding(self) -> None:
        """A caller that stops gives up what it holds, and leaves nothing behind."""
        self.link()
        self.drain()
        self.network.pump()
        outcome = self.call()
        self.successResultOf(self.client.stop())
        self.assert_failed(outcome, Untried)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_killed_while_it_drains(self) -> None:
        """A home that is killed before it is done: what it had may have been done, what is held was not."""
        lost = self.call(b"NOTIFY", b"lost")
        question = self.call(b"PROPFIND", b"question")
        self.network.pump()
        self.drain(seconds=5.0)
        held = self.call(b"NOTIFY", b"held")
        self.network.pump()
        self.network.cut()
        self.home.calls.clear()
        self.at_once()
        self.network.advance(8, pieces=40)
        self.assertEqual((lost, question, held), ([], [], []))
        self.come_back()
        self.network.advance(0.3)
        self.assert_failed(lost, Unreachable, maybe_done=True)
        self.assertEqual((question[0].status, held[0].status), (200, 200))
        self.assertEqual(self.bodies(), [b"question", b"held"])

    def test_handed_back_after_a_break(self) -> None:
        """A call over which a link broke and that is then handed back was certainly not executed."""
        self.link()
        outcome = self.call(b"NOTIFY", b"once")
        self.clock.advance(0)
        self.network.cut()
        while not self.client.connected:
            self.clock.advance(0.01)
            self.network.step(upstream=False)
            self.network.step(upstream=True, size=0 if self.client.connected else 1 << 20)
        self.drain()
        self.network.pump()
        self.assertEqual((outcome, self.bodies(), self.client.held), ([], [], 1))
        self.come_back()
        self.network.advance(0.3)
        self.assertEqual((outcome[0].status, self.bodies()), (200, [b"once"]))

    def test_handed_back_without_reason(self) -> None:
        """A home that hands a call back and does not leave will not get it again."""
        self.link()
        outcome = self.call()
        self.network.step(upstream=True, size=0)
        (line,) = self.factory._connections
        assert line.ledger is not None
        line.send(render_returned(2))
        self.network.step(upstream=False)
        self.assert_failed(outcome, Unreachable)

    def test_connecting_to_a_draining_home(self) -> None:
        """Who is not linked yet when the home drains is not let in, and has sent nothing in vain."""
        for frames in range(4):
            self.set_up(seed=frames)
            self.at_once()
            outcome = self.call()
            for number in range(frames):
                self.network.step(upstream=number % 2 == 0)
            drained = self.drain()
            self.network.pump()
            self.successResultOf(drained)
            self.assert_failed(outcome, Unreachable)
            self.assertEqual(self.bodies(), [])

    def test_gone_to_a_leaving_home(self) -> None:
        """A home that stops is not told of closed connections: it forgets them anyway."""
        gone: list[str] = []
        self.factory = self.make_home(on_gone=gone.append)
        self.call()
        self.network.pump()
        self.drain(seconds=5.0)
        self.network.pump()
        self.client.gone("r1/x/7")
        self.network.pump()
        self.assertEqual(gone, [])


class UnplannedTests(LinkTestCase):
    """A home that vanishes without a word is waited for a little, if it was there a moment ago."""

    def setUp(self) -> None:
        """The home was linked, and is gone."""
        super().setUp()
        self.home.instead = lambda call: Reply(200)
        self.call()
        self.network.pump()
        self.home.calls.clear()
        self.network.listen(*WHERE, None)
        self.network.cut()

    def test_back_in_time(self) -> None:
        """Calls that were never sent wait for a home that is soon back, whatever they are."""
        outcome = self.call()
        self.network.advance(2)
        self.assertEqual(outcome, [])
        self.make_home(incarnation=2)
        self.network.advance(0.6)
        self.assertEqual((outcome[0].status, len(self.home.calls)), (200, 1))

    def test_not_back(self) -> None:
        """They wait no longer than that, and fail as one."""
        outcomes = [self.call(), self.call()]
        self.network.advance(GRACE_SECONDS - 0.1)
        self.assertEqual(outcomes, [[], []])
        self.network.advance(0.2)
        for outcome in outcomes:
            self.assert_failed(outcome, Unreachable)
        self.assertEqual([outcome[0].value.echo for outcome in outcomes], [False, True])

    def test_long_gone(self) -> None:
        """A home that has been away for long is not waited for."""
        self.network.advance(RECENT_SECONDS + 0.1)
        outcome = self.call()
        self.network.advance(2.5)
        self.assert_failed(outcome, Unreachable)

    def test_unsent_when_it_broke(self) -> None:
        """So do calls that waited for a home that did not read, when its link broke."""
        self.make_home(incarnation=2)
        self.network.advance(3)
        near = self.network.pipes[-1]
        near.other.reading = False
        outcomes = []
        for _ in range(30):
            outcomes.append(self.call(b"NOTIFY", bytes(10000)))
            self.clock.advance(0)
        self.network.listen(*WHERE, None)
        self.network.cut()
        self.network.advance(1)
        self.assertEqual(outcomes, [[]] * 30)
        self.make_home(incarnation=3)
        self.network.advance(1)
        done = [isinstance(outcome[0], Relayed) for outcome in outcomes]
        self.assertEqual(done, sorted(done))
        self.assertGreater(sum(done), 20)
        self.assertEqual(len(self.home.calls), sum(done))


class EditionTests(LinkTestCase):
    """Members of different ages work together, whichever is replaced first."""

    def test_old_caller(self) -> None:
        """An old caller is refused while the home drains, is answered what it asked before, and comes back."""
        self.client = self.make_client(edition=0)
        first = self.call()
        self.network.pump()
        self.network.listen(*WHERE, None)
        drained = self.factory.drain()
        refused = self.call()
        self.network.pump()
        self.home.waiting[0].callback(Reply(200))
        self.network.pump()
        self.successResultOf(drained)
        self.assertEqual((first[0].status, refused[0].status, len(self.home.calls)), (200, 503, 1))
        self.make_home(incarnation=2)
        self.network.advance(1)
        again = self.call()
        self.network.pump()
        self.home.waiting[1].callback(Reply(200))
        self.network.pump()
        self.assertEqual(again[0].status, 200)

    def test_old_home(self) -> None:
        """An old home refuses while it drains; the caller makes nothing else of that."""
        self.factory = self.make_home(edition=0)
        first = self.call()
        self.network.pump()
        self.network.listen(*WHERE, None)
        drained = self.factory.drain()
        refused = self.call()
        self.network.pump()
        self.home.waiting[0].callback(Reply(200))
        self.network.pump()
        self.successResultOf(drained)
        self.assertEqual((first[0].status, refused[0].status, len(self.home.calls)), (200, 503, 1))
        self.make_home(incarnation=2)
        self.network.advance(1)
        self.assertTrue(self.client.connected)

    def test_home_replaced_by_a_newer_one(self) -> None:
        """A caller speaks with each incarnation as that one can."""
        for edition in (0, 1, 0):
            self.factory = self.make_home(edition=edition)
            self.network.cut()
            self.call()
            self.network.advance(2)
            (line,) = self.factory._connections
            self.assertEqual(line.edition, edition)

    def test_a_later_edition(self) -> None:
        """Who knows more than this speaks as we do."""
        self.client = self.make_client()
        self.client.edition = 200
        self.call()
        self.network.pump()
        (line,) = self.factory._connections
        self.assertEqual((line.edition, len(self.home.calls)), (1, 1))

    def test_out_of_turn(self) -> None:
        """An edition that is told twice, or is none, ends the connection."""
        for frames in (render_edition(1) * 2, render_edition(0)):
            transport = StringTransport()
            protocol: Any = self.factory.buildProtocol(None)
            protocol.makeConnection(transport)
            nonce = b"c" * 32
            protocol.dataReceived(render_hello(Hello(5, nonce, "router-9", HOME)))
            (challenge,) = FrameReader({int(Kind.CHALLENGE): 33}).feed(transport.value())
            assert isinstance(challenge, Challenge)
            meeting = Meeting("router-9", HOME, 5, nonce, challenge.nonce)
            protocol.dataReceived(render_proof(meeting.caller_proof(KEY)))
            protocol.dataReceived(frames + render_call(1, make_call()))
            self.assertTrue(transport.disconnected)
            self.assertEqual(self.home.calls, [])


class Farmstead(LinkTestCase):
    """A home that is drained, killed and started anew, as a seed decides, and the calls made meanwhile.

    @ivar executed: the body of every call that was executed, by incarnation.
    @ivar made: the method, the body and the outcome of every call.
    """

    def begin(self, seed: int, editions: tuple[int, ...]) -> None:
        """Two callers, and a home in its first incarnation."""
        self.set_up(seed)
        self.random = self.network.random
        self.executed: list[tuple[int, bytes]] = []
        self.made: list[tuple[bytes, bytes, list[Any]]] = []
        self.incarnation = 0
        self.away = False
        self.clients = [
            self.make_client(
                name=f"router-{edition}", origin=number, edition=edition, chance=self.random.random
            )
            for number, edition in enumerate(editions)
        ]
        self.start()

    def start(self) -> None:
        """The next incarnation listens; it has its own list of what it does."""
        self.incarnation += 1
        number, self.away = self.incarnation, False

        def answer(call: Call) -> Any:
            self.executed.append((number, call.body))
            if self.random.random() < 0.5:
                return Reply(200, body=call.body)
            deferred: Deferred[Reply] = Deferred(lambda deferred: None)
            self.clock.callLater(
                self.random.random(), lambda: deferred.called or deferred.callback(Reply(200, body=call.body))
            )
            return deferred

        self.factory = LinkFactory(
            answer, key=KEY, name=HOME, incarnation=number, clock=self.clock, limits=Limits()
        )
        self.network.listen(*WHERE, self.factory)

    def replace(self) -> None:
        """The home is drained, and started anew a little later."""
        if not self.away:
            self.away = True
            self.network.listen(*WHERE, None)
            seconds = self.random.choice((0.1, 0.5, 2.0))
            self.factory.drain().addCallback(lambda _: self.clock.callLater(seconds, self.start))

    def kill(self) -> None:
        """The home dies, and is started anew a little later."""
        if not self.away:
            self.away = True
            self.network.listen(*WHERE, None)
            self.network.cut()
            self.clock.callLater(self.random.choice((0.1, 1.0, 4.0, 12.0)), self.start)

    def call_some(self) -> None:
        """Somebody calls."""
        for _ in range(self.random.randrange(1, 4)):
            method, body = self.random.choice((b"NOTIFY", b"PROPFIND")), b"%d" % len(self.made)
            client: LinkClient = self.random.choice(self.clients)
            self.made.append((method, body, self.call(method, body, client=client)))

    def live(self, steps: int, events: list[Any]) -> None:
        """So many steps, with an event now and then; then peace returns."""
        for _ in range(steps):
            if self.random.random() < 0.5:
                self.call_some()
            if events and self.random.random() < 0.1:
                events.pop()()
            for _ in range(self.random.randrange(12)):
                self.network.step(
                    upstream=self.random.random() < 0.5, size=self.random.choice((1, 40, 1000, 100_000))
                )
                self.clock.advance(self.random.choice((0, 0, 0.01, 0.1)))
        for event in events:
            event()
        self.network.advance(60, pieces=300)

    def check(self) -> None:
        """What is promised of every call, whatever happens."""
        times = Counter(body for _, body in self.executed)
        for method, body, outcome in self.made:
            self.assertEqual(len(outcome), 1)
            if method == b"NOTIFY":
                self.assertLessEqual(times[body], 1)
            if isinstance(outcome[0], Relayed):
                if outcome[0].status == 200:
                    self.assertTrue(outcome[0].wire.endswith(b"\r\n\r\n" + body))
                    self.assertGreaterEqual(times[body], 1)
                elif outcome[0].status == 503 and method == b"NOTIFY":
                    self.assertEqual(times[body], 0)
            elif not outcome[0].value.maybe_done:
                self.assertEqual(times[body], 0)
        self.assertEqual(len(set(self.executed)), len(self.executed))
        self.assertEqual([client.in_flight for client in self.clients], [0] * len(self.clients))


class ScheduleTests(Farmstead):
    """Whatever befalls a home, what is said of a call is true."""

    @settings(max_examples=150, deadline=None)
    @given(st.integers(0, 2**32), st.integers(0, 3))
    def test_planned(self, seed: int, replacements: int) -> None:
        """Planned restarts alone lose nothing and fail nothing: each call is executed once and answered 200."""
        self.begin(seed, (1, 1))
        for client in self.clients:
            self.call(b"PROPFIND", b"hello", client=client)
        self.network.pump()
        self.network.advance(1)
        self.executed.clear()
        self.live(60, [self.replace] * replacements)
        self.check()
        self.assertEqual([outcome[0].status for _, _, outcome in self.made], [200] * len(self.made))
        self.assertEqual(
            Counter(body for _, body in self.executed), Counter(body for _, body, _ in self.made)
        )

    @settings(max_examples=150, deadline=None)
    @given(st.integers(0, 2**32), st.lists(st.sampled_from(("replace", "kill", "cut")), max_size=8))
    def test_anything(self, seed: int, events: list[str]) -> None:
        """Each call is executed at most once, and not at all where that is what its caller was told."""
        self.begin(seed, (1, 1))
        self.live(
            60, [{"replace": self.replace, "kill": self.kill, "cut": self.network.cut}[e] for e in events]
        )
        self.check()

    @settings(max_examples=100, deadline=None)
    @given(st.integers(0, 2**32), st.lists(st.sampled_from(("replace", "kill", "cut")), max_size=8))
    def test_mixed_editions(self, seed: int, events: list[str]) -> None:
        """So it is with callers of every edition at once."""
        self.begin(seed, (0, 1))
        self.live(
            60, [{"replace": self.replace, "kill": self.kill, "cut": self.network.cut}[e] for e in events]
        )
        self.check()
