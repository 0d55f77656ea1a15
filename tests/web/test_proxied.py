"""Listeners behind proxies, and listeners that one source floods: whom they believe, and how much they take."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.directory.model import Network
from rvpfarm.protocol.calls import CONNECTION_BOUND, IN_CLEAR, Call, Limits, Reply, withhold
from rvpfarm.web.server import LINGER_SECONDS, CallFactory, CallProtocol
from tests.support.connections import Answers, Wire, ask, hang_up, join, statuses
from tests.support.directory import FakeDirectory, make_farm
from tests.web.test_server import Counted

PROXY = Network("trusted-proxy", "10.0.0.0", "10.0.0.255")
CALLER = b"X-Forwarded-For: 198.51.100.7"


class Served:
    """A listener that follows a directory, and what came of it.

    @ivar calls: those that were answered, in order.
    @ivar gone: the names of connections that are closed, or called otherwise now.
    """

    def __init__(self, *networks: Network, limits: Limits | None = None, **policies: str) -> None:
        self.clock, self.counted = Clock(), Counted()
        self.calls: list[Call] = []
        self.gone: list[str] = []
        self.directory = FakeDirectory(make_farm(networks=networks, **policies))
        self.factory = CallFactory(
            self.answer,
            clock=self.clock,
            limits=limits or Limits(),
            metrics=self.counted,
            on_gone=self.gone.append,
            withheld=withhold(("ntlm", "digest-md5")),
        )
        self.factory.follow(self.directory)

    def answer(self, call: Call) -> Reply:
        """Answer 200."""
        self.calls.append(call)
        return Reply(200, body=call.target)

    def set(self, *networks: Network, **policies: str) -> None:
        """An administrator changes the directory."""
        self.directory.set_farm(make_farm(networks=networks, **policies))

    def flood(self, count: int, host: str) -> list[tuple[CallProtocol, Wire]]:
        """So many connections at once."""
        return [join(self.factory, host) for _ in range(count)]


class ForwardedTests(SynchronousTestCase):
    """A call that a listed proxy passes on is its caller's; nobody else can say so."""

    def test_caller(self) -> None:
        """Each call on a proxy's connection has a caller of its own."""
        served = Served(PROXY)
        protocol, wire = join(served.factory, "10.0.0.1")
        protocol.dataReceived(
            ask(b"/a", CALLER) + ask(b"/b", b"X-Forwarded-For: evil, 2001:db8::1, 10.0.0.2")
        )
        protocol.dataReceived(ask(b"/c"))
        self.assertEqual([call.peer for call in served.calls], ["198.51.100.7", "2001:db8::1", ""])
        self.assertEqual(statuses(wire.value()), [200] * 3)

    def test_forged(self) -> None:
        """What anybody else writes into such a header is not looked at, be it an address or garbage."""
        served = Served(PROXY)
        for host in ("192.0.2.7", "10.0.1.0"):
            protocol, wire = join(served.factory, host)
            for value in (b"10.0.0.1", b"198.51.100.7, 10.0.0.1", b"?", b""):
                protocol.dataReceived(ask(b"/a", b"X-Forwarded-For: " + value, b"Forwarded: " + value))
            self.assertEqual({call.peer for call in served.calls}, {host})
            self.assertEqual({call.withheld for call in served.calls}, {served.factory.withheld | IN_CLEAR})
            self.assertEqual(statuses(wire.value()), [200] * 4)
            served.calls.clear()

    def test_other_header(self) -> None:
        """Of the two headers the policy names one; it may change while connections are open."""
        served = Served(PROXY)
        protocol, _ = join(served.factory, "10.0.0.1")
        both = ask(b"/a", CALLER, b'Forwarded: for="[2001:db8::1]:80"')
        protocol.dataReceived(both)
        served.set(PROXY, forwarded_header="forwarded")
        protocol.dataReceived(both)
        served.set(PROXY, forwarded_header="none")
        protocol.dataReceived(both)
        self.assertEqual([call.peer for call in served.calls], ["198.51.100.7", "2001:db8::1", "10.0.0.1"])

    def test_garbage(self) -> None:
        """A proxy that writes garbage is told so for that call alone; the others' go on, in order."""
        served = Served(PROXY)
        protocol, wire = join(served.factory, "10.0.0.1")
        bad = ask(b"/b", b"X-Forwarded-For: 198.51.100.7, what")
        protocol.dataReceived(ask(b"/a", CALLER) + bad + ask(b"/c", CALLER))
        self.assertEqual(statuses(wire.value()), [200, 400, 200])
        self.assertEqual([call.target for call in served.calls], [b"/a", b"/c"])
        self.assertFalse(wire.disconnecting)
        self.assertEqual(served.factory.admission.in_work, 0)

    def test_nothing_proved_on_it_counts(self) -> None:
        """On a proxy's connection no scheme is offered that proves who is at its other end (invariant 7).

        That holds with and without the header: it is the proxy that may have several callers.
        """
        served = Served(PROXY)
        for policy in ("x-forwarded-for", "forwarded", "none"):
            served.set(PROXY, forwarded_header=policy)
            protocol, _ = join(served.factory, "10.0.0.1")
            protocol.dataReceived(ask(b"/a", CALLER, b"Forwarded: for=192.0.2.1") + ask(b"/b"))
        self.assertEqual(
            {call.withheld for call in served.calls}, {served.factory.withheld | CONNECTION_BOUND | IN_CLEAR}
        )
        self.assertEqual(CONNECTION_BOUND, withhold(("digest-md5", "digest-sha-256", "basic")))

    def test_proxy_with_itself_announced(self) -> None:
        """A balancer that connects for itself on a listener for preambles speaks for nobody."""
        served = Served(PROXY)
        wire = Wire("10.0.0.1")
        wire.unannounced = True  # type: ignore[attr-defined]  # as LoopTransport has it
        protocol = served.factory.buildProtocol(None)
        protocol.makeConnection(wire)
        protocol.dataReceived(ask(b"/a", CALLER))
        self.assertEqual(served.calls[0].peer, "10.0.0.1")
        self.assertEqual(served.calls[0].withheld, served.factory.withheld | IN_CLEAR)

    def test_calls_of_others_cost_nothing(self) -> None:
        """A connection that is no proxy's hands its calls straight to whoever answers them."""
        served = Served(PROXY)
        protocol, _ = join(served.factory)
        self.assertEqual(protocol._answer, served.answer)


class ListedTests(SynchronousTestCase):
    """Who is believed changes with the directory, while connections are open."""

    def test_listed_and_not(self) -> None:
        """The header counts from when the proxy is listed, and no longer than that."""
        served = Served()
        protocol, _ = join(served.factory, "10.0.0.1")
        for networks in ((), (PROXY,), (PROXY, Network("inside", "10.0.0.0", "10.0.0.9")), ()):
            served.set(*networks)
            protocol.dataReceived(ask(b"/a", CALLER))
        self.assertEqual(
            [call.peer for call in served.calls], ["10.0.0.1", "198.51.100.7", "198.51.100.7", "10.0.0.1"]
        )

    def test_what_was_proved_is_void(self) -> None:
        """Such a connection gets a new name with each turn: what the old one proved is nobody's now."""
        served = Served()
        protocol, _ = join(served.factory, "10.0.0.1")
        other, _ = join(served.factory, "192.0.2.7")
        for networks in ((), (PROXY,), (PROXY,), ()):
            served.set(*networks)
            protocol.dataReceived(ask(b"/a"))
            other.dataReceived(ask(b"/b"))
        first, second, again, last = (call.connection for call in served.calls if call.target == b"/a")
        self.assertEqual(second, again)
        self.assertEqual(len({first, second, last}), 3)
        self.assertEqual(served.gone, [first, second])
        self.assertEqual(len({call.connection for call in served.calls if call.target == b"/b"}), 1)
        hang_up(protocol)
        self.assertEqual(served.gone, [first, second, last])

    def test_accounts_are_no_networks(self) -> None:
        """A change of an account looks at no connection."""
        served = Served(PROXY)
        protocol, _ = join(served.factory, "10.0.0.1")
        served.directory.remove("im.fabrik.example/instmsg/aliases/petra")
        self.assertEqual(served.gone, [])
        hang_up(protocol)


class FloodTests(SynchronousTestCase):
    """One source cannot have it all, whatever it does."""

    def test_connections(self) -> None:
        """Of a thousand connections from one address 512 are taken; the next are told 503, the rest closed."""
        served = Served()
        flood = served.flood(1000, "192.0.2.7")
        told = [wire for _, wire in flood if b"503" in wire.value()]
        taken = [wire for _, wire in flood if not (wire.value() or wire.disconnected)]
        self.assertEqual((len(taken), len(told)), (512, 256))
        self.assertIn(b"Retry-After: 5\r\n", told[0].value())
        self.assertIn(b"from your address", told[0].value())
        self.assertEqual(served.counted.reasons, ["source"] * (1000 - 512))
        self.assertEqual(served.factory.edge.used, 512)
        served.clock.advance(LINGER_SECONDS)
        self.assertTrue(all(wire.disconnected for wire in told))

    def test_others_get_in(self) -> None:
        """Meanwhile everybody else gets in, and so does the source when one of its connections is gone."""
        served = Served(connections_per_source="3")
        flood = served.flood(400, "192.0.2.7")
        other, wire = join(served.factory, "192.0.2.8")
        other.dataReceived(ask())
        self.assertEqual(statuses(wire.value()), [200])
        hang_up(flood[-1][0])
        self.assertTrue(join(served.factory, "192.0.2.7")[1].disconnected)
        hang_up(flood[0][0])
        late, wire = join(served.factory, "192.0.2.7")
        late.dataReceived(ask())
        self.assertEqual(statuses(wire.value()), [200])

    def test_through_a_proxy(self) -> None:
        """A listed proxy has no such limit, for its connections are many people's; the one of all holds."""
        served = Served(PROXY, max_connections="600")
        flood = served.flood(700, "10.0.0.1")
        self.assertEqual(sum(not (wire.value() or wire.disconnected) for _, wire in flood), 600)
        self.assertEqual(set(served.counted.reasons), {"conn"})

    def test_slow_heads(self) -> None:
        """600 connections from one address that begin a request and never end it are gone after ten seconds."""
        served = Served()
        flood = served.flood(600, "192.0.2.7")
        for second in range(10):
            for protocol, wire in flood:
                if not (wire.write_closed or wire.disconnecting or wire.disconnected):
                    protocol.dataReceived(ask()[second : second + 1])
            self.assertEqual(served.factory.edge.used, 512)
            served.clock.advance(1)
        self.assertEqual(sum(b" 408 " in wire.value() for _, wire in flood), 512)
        served.clock.advance(LINGER_SECONDS)
        self.assertTrue(all(wire.disconnected for _, wire in flood))
        for protocol, _ in flood:
            hang_up(protocol)
        self.assertEqual(served.factory.edge.used, 0)
        self.assertEqual(served.clock.getDelayedCalls(), [])

    def test_limits_change(self) -> None:
        """The limits of connections change at once and close nothing."""
        served = Served(connections_per_source="2", max_connections="3")
        served.flood(2, "192.0.2.7")
        served.set(connections_per_source="1", max_connections="3")
        join(served.factory, "192.0.2.8")
        served.set(connections_per_source="9", max_connections="4")
        served.flood(2, "192.0.2.7")
        self.assertEqual(served.counted.reasons, ["conn"])
        self.assertEqual(served.factory.edge.used, 4)

    def test_work(self) -> None:
        """So does the limit of requests in work, KB 318158's C{MaxOutstandingInboundMsgs}."""
        answers = Answers()
        served = Served(inbound_queue="2")
        served.factory.answer = answers
        protocol, wire = join(served.factory)
        protocol.dataReceived(ask(b"/a") + ask(b"/b") + ask(b"/c"))
        self.assertEqual(answers.targets, [b"/a", b"/b"])
        served.set(inbound_queue="3")
        protocol.dataReceived(ask(b"/d"))
        self.assertEqual(answers.targets, [b"/a", b"/b", b"/d"])
        for answer in answers.pending:
            answer.callback(Reply(200))
        self.assertEqual(statuses(wire.value()), [200, 200, 503, 200])
        self.assertEqual(served.counted.reasons, ["queue"])

    def test_pipelining_through_a_proxy(self) -> None:
        """A connection that sends thousands of calls at once has sixteen in work, be it a proxy's or not."""
        answers = Answers()
        served = Served(PROXY)
        served.factory.answer = answers
        for host in ("10.0.0.1", "192.0.2.7"):
            answers.calls.clear()
            protocol, wire = join(served.factory, host)
            protocol.dataReceived(ask(b"/a", CALLER) * 5000)
            self.assertEqual(len(answers.calls), Limits().pipelined)
            self.assertFalse(wire.reading)
            self.assertLess(len(protocol._waiting), 1000)
        self.assertEqual(served.factory.admission.in_work, 2 * Limits().pipelined)
