"""Calls to strangers: kept connections, short queues, deadlines, and each call's end told exactly once."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.protocol.calls import Slow, Unreachable
from rvpfarm.web.outgoing import DESTINATION_CONNECTIONS, DESTINATION_QUEUE, Outgoing
from rvpfarm.web.responses import Response
from tests.support.network import Network

HOST, PORT = "192.0.2.4", 8001
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
LAST = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


def wire(number: int = 0) -> bytes:
    """A request."""
    return b"NOTIFY /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number


class Listener(Protocol):
    """The other side of one connection, as the test plays it.

    @ivar heard: everything that came.
    """

    def __init__(self, everyone: list[Listener]) -> None:
        """
        @param everyone: gets this one too.
        """
        self.heard = b""
        self.gone = False
        everyone.append(self)

    def dataReceived(self, data: bytes) -> None:
        """Remember it."""
        self.heard += data

    def connectionLost(self, reason: object = None) -> None:
        """The connection is gone."""
        self.gone = True

    def answer(self, data: bytes = OK) -> None:
        """Answer so."""
        self.transport.write(data)


class Counted:
    """Metrics that are a list."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, str]] = []

    def outbound(self, verb: bytes, status: int, peer: str) -> None:
        """Note it."""
        self.calls.append((verb, status, peer))


class OutgoingTestCase(SynchronousTestCase):
    """Sends over a network in memory; the test plays the other side."""

    def setUp(self) -> None:
        """Somebody listens."""
        self.clock = Clock()
        self.network = Network(self.clock)
        self.there: list[Listener] = []
        self.results: list[Response | Unreachable] = []
        self.listen()
        self.outgoing = self.make()

    def make(self, **options: object) -> Outgoing:
        """Something that sends over this network."""
        outgoing = Outgoing(self.clock, self.network.endpoint, **options)  # type: ignore[arg-type]
        self.addCleanup(outgoing.stopService)
        return outgoing

    def listen(self, host: str = HOST) -> None:
        """Listen at an address."""
        factory = Factory()
        factory.noisy = False
        factory.buildProtocol = self.build  # type: ignore[method-assign]
        self.network.listen(host, PORT, factory)

    def build(self, addr: object) -> Listener:
        """The other side of one connection."""
        return Listener(self.there)

    def send(self, number: int = 0, host: str = HOST, **options: float) -> Callable[[], None]:
        """Send a request and note how it ends."""
        return self.outgoing.send(host, PORT, wire(number), self.results.append, **options)

    def pump(self) -> None:
        """Let the network come to rest."""
        self.network.pump()

    def cut(self, number: int) -> None:
        """A connection breaks."""
        self.network.pipes[number].close(ConnectionLost(), ConnectionLost())

    def statuses(self) -> list[int | str]:
        """What came of the calls so far: a status, or what was raised."""
        return [
            result.status if isinstance(result, Response) else type(result).__name__
            for result in self.results
        ]


class SendTests(OutgoingTestCase):
    """A call goes out and its answer comes back."""

    def test_answered(self) -> None:
        """The response is handed over, once."""
        self.send(7)
        self.pump()
        self.assertEqual(self.there[0].heard, wire(7))
        self.there[0].answer(b"HTTP/1.1 207 Multi-Status\r\nContent-Length: 2\r\n\r\nhi")
        self.pump()
        (response,) = self.results
        assert isinstance(response, Response)
        self.assertEqual((response.status, response.body), (207, b"hi"))

    def test_connection_kept(self) -> None:
        """The next call goes over the same connection, with one write and no waiting."""
        for number in range(3):
            self.send(number)
            self.pump()
            self.there[0].answer()
            self.pump()
        self.assertEqual(self.statuses(), [200] * 3)
        self.assertEqual(len(self.there), 1)
        self.assertEqual(self.network.pipes[0].writes, 3)
        self.assertEqual(self.outgoing.connected, 1)

    def test_not_kept(self) -> None:
        """A connection whose answer says close, or has no length, is closed and not used again."""
        for number, answer in enumerate((LAST, b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n")):
            self.send(number)
            self.pump()
            self.there[number].answer(answer)
            self.pump()
            self.assertTrue(self.there[number].gone)
        self.assertEqual(self.statuses(), [200] * 3)
        self.assertEqual(self.outgoing.connected, 0)

    def test_answer_until_the_end(self) -> None:
        """A listener that closes after a head without its empty line has answered."""
        self.send()
        self.pump()
        self.there[0].answer(b"HTTP/1.1 200 OK\nServer: old\n")
        self.there[0].transport.loseConnection()
        self.pump()
        self.assertEqual(self.statuses(), [200])

    def test_several_at_once(self) -> None:
        """Calls to one destination do not wait for each other, and their connections are kept."""
        for number in range(3):
            self.send(number)
        self.pump()
        self.assertEqual(len(self.there), 3)
        self.there[2].answer()
        self.pump()
        self.assertEqual(self.statuses(), [200])
        self.there[0].answer()
        self.there[1].answer()
        self.pump()
        for number in range(3):
            self.send(number)
        self.assertEqual(len(self.there), 3)

    def test_queue(self) -> None:
        """Beyond its connections a destination has a queue; it moves on as answers come."""
        for number in range(DESTINATION_CONNECTIONS + 2):
            self.send(number)
        self.pump()
        self.assertEqual(len(self.there), DESTINATION_CONNECTIONS)
        self.assertEqual(self.outgoing.waiting, 2)
        self.there[3].answer()
        self.pump()
        self.there[5].answer(LAST)
        self.pump()
        self.assertEqual(self.outgoing.waiting, 0)
        self.assertEqual(self.there[3].heard, wire(3) + wire(8))
        self.assertEqual(self.there[8].heard, wire(9))

    def test_queue_full(self) -> None:
        """A full queue refuses the newcomer, after C{send} has returned; the others stay."""
        for number in range(DESTINATION_CONNECTIONS + DESTINATION_QUEUE + 1):
            self.send(number)
        self.assertEqual(self.results, [])
        self.clock.advance(0)
        self.assertEqual(self.statuses(), ["Unreachable"])
        self.assertIn("full", str(self.results[0]))
        self.assertFalse(self.results[0].maybe_done)

    def test_one_destination_does_not_delay_another(self) -> None:
        """While one destination is silent, others are served."""
        self.network.silent.add(("192.0.2.9", PORT))
        for number in range(50):
            self.send(number, host="192.0.2.9")
        self.send(1)
        self.pump()
        self.there[0].answer()
        self.pump()
        self.assertEqual(self.statuses(), [200])

    def test_request(self) -> None:
        """C{request} is the same as a Deferred; cancelling it hangs up."""
        answer = self.outgoing.request(HOST, PORT, wire())
        self.pump()
        self.there[0].answer()
        self.pump()
        self.assertEqual(self.successResultOf(answer).status, 200)
        refused = self.outgoing.request("192.0.2.200", PORT, wire())
        self.assertNoResult(refused)
        self.pump()
        self.failureResultOf(refused, Unreachable)
        given_up = self.outgoing.request(HOST, PORT, wire())
        given_up.cancel()
        self.failureResultOf(given_up, CancelledError)
        self.pump()
        self.assertTrue(self.there[0].gone)

    def test_counted(self) -> None:
        """Each call is counted with its verb, its status (0 if none) and the kind of peer."""
        counted = Counted()
        self.outgoing = self.make(metrics=counted, peer="server")
        self.send()
        self.pump()
        self.there[0].answer()
        self.send(host="192.0.2.200")
        self.pump()
        self.assertEqual(sorted(counted.calls), [(b"NOTIFY", 0, "server"), (b"NOTIFY", 200, "server")])

    def test_trouble_of_whoever_is_told(self) -> None:
        """Whoever fails when told of an end is logged; the others are told."""

        def trouble(result: object) -> None:
            raise ZeroDivisionError

        self.outgoing.send(HOST, PORT, wire(), trouble)
        self.send()
        self.pump()
        for each in self.there:
            each.answer()
        self.pump()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.statuses(), [200])


class TroubleTests(OutgoingTestCase):
    """Whatever goes wrong comes back as L{Unreachable}, which says whether the call may have been done."""

    def test_refused(self) -> None:
        """Where nobody listens nothing can have been done."""
        self.send(host="192.0.2.200")
        self.pump()
        self.assertEqual(self.statuses(), ["Unreachable"])
        self.assertIn("192.0.2.200:8001", str(self.results[0]))
        self.assertFalse(self.results[0].maybe_done)

    def test_connecting_takes_too_long(self) -> None:
        """A connection is made in time or not at all."""
        self.network.silent.add((HOST, PORT))
        self.send()
        self.clock.advance(4.9)
        self.assertEqual(self.results, [])
        self.clock.advance(0.1)
        self.assertEqual(self.statuses(), ["Unreachable"])
        self.assertFalse(self.results[0].maybe_done)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_queue_of_a_dead_destination(self) -> None:
        """When no connection can be made, the queue does not wait for what cannot come."""
        self.network.silent.add((HOST, PORT))
        for number in range(DESTINATION_CONNECTIONS + 3):
            self.send(number)
        self.clock.advance(5)
        self.assertEqual(self.statuses(), ["Unreachable"] * (DESTINATION_CONNECTIONS + 3))
        self.assertEqual(self.network.attempts, DESTINATION_CONNECTIONS)

    def test_no_answer(self) -> None:
        """Without an answer in time the call is L{Slow}, may have been done, and the connection ends."""
        self.send(answer_seconds=7)
        self.pump()
        self.there[0].answer(OK[:20])
        self.pump()
        self.clock.advance(6.9)
        self.assertEqual(self.results, [])
        self.clock.advance(0.1)
        self.assertEqual(self.statuses(), ["Slow"])
        self.assertIsInstance(self.results[0], Slow)
        self.assertTrue(self.results[0].maybe_done)
        self.assertTrue(self.there[0].gone)

    def test_queue_too_long(self) -> None:
        """A call that finds no connection free in time was not done."""
        for number in range(DESTINATION_CONNECTIONS):
            self.send(number, answer_seconds=100)
        self.send(9, answer_seconds=10)
        self.pump()
        self.clock.advance(15)
        self.assertEqual(self.statuses(), ["Unreachable"])
        self.assertFalse(self.results[0].maybe_done)
        self.assertEqual(self.outgoing.waiting, 0)

    def test_broken_off(self) -> None:
        """A fresh connection that ends without an answer: the call may have been done."""
        self.send()
        self.pump()
        self.there[0].transport.loseConnection()
        self.pump()
        self.assertEqual(self.statuses(), ["Unreachable"])
        self.assertTrue(self.results[0].maybe_done)
        self.assertEqual(len(self.there), 1)

    def test_kept_connection_proves_closed(self) -> None:
        """A kept connection that ends before any answer is replaced by a fresh one, once."""
        self.send(1)
        self.pump()
        self.there[0].answer()
        self.pump()
        self.send(2)
        self.cut(0)
        self.pump()
        self.assertEqual(self.there[1].heard, wire(2))
        self.there[1].answer()
        self.pump()
        self.assertEqual(self.statuses(), [200, 200])

    def test_repeated_once_only(self) -> None:
        """The fresh connection is the last attempt."""
        self.send(1)
        self.pump()
        self.there[0].answer()
        self.pump()
        self.send(2)
        self.cut(0)
        self.pump()
        self.cut(1)
        self.pump()
        self.assertEqual(self.statuses(), [200, "Unreachable"])
        self.assertEqual(len(self.there), 2)

    def test_not_repeated_after_a_piece_of_an_answer(self) -> None:
        """A kept connection that ends in the middle of an answer was not closed before: no repetition."""
        self.send(1)
        self.pump()
        self.there[0].answer()
        self.pump()
        self.send(2)
        self.pump()
        self.there[0].answer(b"HTTP/1.1 2")
        self.pump()
        self.cut(0)
        self.pump()
        self.assertEqual(self.statuses(), [200, "Unreachable"])
        self.assertTrue(self.results[1].maybe_done)
        self.assertEqual(len(self.there), 1)

    def test_garbage(self) -> None:
        """What is no HTTP ends the connection; the call may have been done."""
        self.send()
        self.pump()
        self.there[0].answer(b"220 mail.fabrik.example ESMTP\r\n\r\n")
        self.pump()
        self.assertEqual(self.statuses(), ["Unreachable"])
        self.assertTrue(self.there[0].gone)

    def test_endless_answer(self) -> None:
        """An answer without end is cut off."""
        self.send()
        self.pump()
        self.there[0].answer(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100000)
        self.pump()
        self.assertEqual(self.statuses(), ["Unreachable"])
        self.assertTrue(self.there[0].gone)

    def test_answer_nobody_asked_for(self) -> None:
        """What arrives between calls is never taken for the answer of the next."""
        self.send(1)
        self.pump()
        self.there[0].answer()
        self.pump()
        self.there[0].answer(b"HTTP/1.1 500 Planted\r\nContent-Length: 0\r\n\r\n")
        self.pump()
        self.assertTrue(self.there[0].gone)
        self.send(2)
        self.pump()
        self.there[1].answer()
        self.pump()
        self.assertEqual(self.statuses(), [200, 200])


class CancelTests(OutgoingTestCase):
    """Whoever hangs up hears no more, and the place is free again."""

    def test_wherever_it_is(self) -> None:
        """On a connection, in the queue, or while connecting."""
        cancels = [self.send(number) for number in range(DESTINATION_CONNECTIONS + 2)]
        self.network.silent.add(("192.0.2.9", PORT))
        connecting = self.send(host="192.0.2.9")
        self.pump()
        cancels[DESTINATION_CONNECTIONS]()  # in the queue
        connecting()
        cancels[0]()  # on a connection; its place goes to the one that is left in the queue
        self.pump()
        self.assertTrue(self.there[0].gone)
        self.assertEqual(self.there[DESTINATION_CONNECTIONS].heard, wire(DESTINATION_CONNECTIONS + 1))
        for each in self.there[1:]:
            each.answer()
        self.pump()
        self.assertEqual(self.statuses(), [200] * DESTINATION_CONNECTIONS)
        for cancel in cancels:
            cancel()  # too late, and harmless
        self.assertEqual(self.outgoing.connected, DESTINATION_CONNECTIONS)

    def test_before_it_is_refused(self) -> None:
        """Even a refusal that is under way is not told then."""
        for number in range(DESTINATION_CONNECTIONS + DESTINATION_QUEUE):
            self.send(number)
        self.send()()
        self.clock.advance(0)
        self.assertEqual(self.results, [])

    def test_all_attempts(self) -> None:
        """When every connection that was being made is given up, the queue gets connections of its own."""
        self.network.silent.add((HOST, PORT))
        cancels = [self.send(number) for number in range(DESTINATION_CONNECTIONS + 1)]
        self.network.silent.clear()
        for cancel in cancels[:DESTINATION_CONNECTIONS]:
            cancel()
        self.pump()
        self.assertEqual([each.heard for each in self.there], [wire(DESTINATION_CONNECTIONS)])


class LimitTests(OutgoingTestCase):
    """Connections are not kept for ever, nor without number."""

    def test_idle(self) -> None:
        """A connection without work is closed after a while, counted from its last answer."""
        for second in (0, 50):
            self.clock.advance(second)
            self.send()
            self.pump()
            self.there[0].answer()
            self.pump()
        self.clock.advance(59)
        self.pump()
        self.assertFalse(self.there[0].gone)
        self.clock.advance(1)
        self.pump()
        self.assertTrue(self.there[0].gone)
        self.assertEqual(self.outgoing.connected, 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_other_side_closes(self) -> None:
        """A kept connection that the other side closes is forgotten."""
        self.send()
        self.pump()
        self.there[0].answer()
        self.there[0].transport.loseConnection()
        self.pump()
        self.assertEqual(self.outgoing.connected, 0)
        self.assertEqual(self.outgoing._destinations, {})

    def test_idle_ones_make_way(self) -> None:
        """At the limit of all connections the one that has been idle longest makes way."""
        self.outgoing = self.make(connections=2)
        for number in range(3):
            host = f"192.0.2.{10 + number}"
            self.listen(host)
            self.send(number, host=host)
            self.pump()
            self.there[number].answer()
            self.pump()
        self.assertEqual([each.gone for each in self.there], [True, False, False])
        self.assertEqual(self.statuses(), [200] * 3)

    def test_no_room(self) -> None:
        """When all are at work the newcomer is refused, or waits for those of its own destination."""
        self.outgoing = self.make(connections=1)
        self.listen("192.0.2.10")
        self.send(1)
        self.send(2, host="192.0.2.10")
        self.send(3)
        self.pump()
        self.assertEqual(self.statuses(), ["Unreachable"])
        self.there[0].answer()
        self.pump()
        self.assertEqual(self.there[0].heard, wire(1) + wire(3))

    def test_one_timer_per_connection(self) -> None:
        """A busy connection does not leave a timer behind with every call."""
        for _ in range(20):
            self.send()
            self.pump()
            self.there[0].answer()
            self.pump()
            self.clock.advance(1)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)


class StopTests(OutgoingTestCase):
    """When the service stops every call has an end and every connection is closed."""

    def test_everything_ends(self) -> None:
        """Calls at work, waiting and connecting come back as L{Unreachable}."""
        for number in range(DESTINATION_CONNECTIONS + 1):
            self.send(number)
        self.network.silent.add(("192.0.2.9", PORT))
        self.send(host="192.0.2.9")
        self.pump()
        stopped = self.outgoing.stopService()
        self.pump()
        self.successResultOf(stopped)
        self.assertEqual(self.statuses(), ["Unreachable"] * (DESTINATION_CONNECTIONS + 2))
        self.assertTrue(all(each.gone for each in self.there))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_idle_connections(self) -> None:
        """Stopping is done when idle connections are closed too."""
        self.send()
        self.pump()
        self.there[0].answer()
        self.pump()
        stopped = self.outgoing.stopService()
        self.assertNoResult(stopped)
        self.pump()
        self.successResultOf(stopped)

    def test_connection_that_does_not_go(self) -> None:
        """It does not wait for ever for one that will not close."""
        self.send()
        self.pump()
        self.there[0].answer()
        self.pump()
        stopped = self.outgoing.stopService()
        self.clock.advance(2)
        self.successResultOf(stopped)

    def test_afterwards(self) -> None:
        """Nothing is sent afterwards, until the service starts again."""
        self.successResultOf(self.outgoing.stopService())
        self.send()
        self.clock.advance(0)
        self.assertEqual(self.statuses(), ["Unreachable"])
        self.outgoing.startService()
        self.send()
        self.pump()
        self.assertEqual(self.there[0].heard, wire())


class AddressTests(SynchronousTestCase):
    """Destinations are told apart by host and port."""

    def test_endpoint_asked_for(self) -> None:
        """The endpoint is asked for with exactly what was passed, IPv6 without brackets."""
        asked: list[tuple[str, int]] = []

        class Nowhere:
            """Never connects."""

            def connect(self, factory: Factory) -> Deferred[Protocol]:
                """Not now."""
                factory.buildProtocol(IPv4Address("TCP", "192.0.2.1", 1))
                return Deferred()

        def endpoint(host: str, port: int) -> Nowhere:
            asked.append((host, port))
            return Nowhere()

        results: list[object] = []
        outgoing = Outgoing(Clock(), endpoint)  # type: ignore[arg-type]
        for host in ("2001:db8::1", "2001:db8::1", "im.fabrik.example"):
            outgoing.send(host, 80, wire(), results.append)
        self.assertEqual(asked, [("2001:db8::1", 80)] * 2 + [("im.fabrik.example", 80)])
        self.assertEqual(results, [])
