"""Long calls and long answers through a router: whole at both ends, and never whole in between."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.directory.model import Domain, Home
from rvpfarm.link.links import LinkFactory, Links
from rvpfarm.link.parts import WHOLE_LIMIT
from rvpfarm.protocol.calls import Call, Limits, Reply
from rvpfarm.router.forwarder import MOVED_HEADER, MOVED_STATUS, Router
from rvpfarm.web.server import CallFactory
from tests.support.connections import ask, read_all
from tests.support.directory import FakeDirectory, make_account, make_farm
from tests.support.network import Network, Pipe

KEY = b"k" * 32
HS1 = Home("id-1", "hs1", "hs1.fabrik.example", 80, 8081)
HS2 = Home("id-2", "hs2", "hs2.fabrik.example", 80, 8081)
PETRA = "im.fabrik.example/instmsg/aliases/petra"
WHERE = ("im.fabrik.example", 80)
LIMITS = Limits(body=8 << 20)
LONG = b"".join(b"%07d\n" % number for number in range(400_000))
#: What a router may hold of one call or one answer: what waits to be taken, what waits in a transport, and
#: what one read brings.
MOST = 65536 + 16384 + 65536 + 32768 + 65536


class Client(Protocol):
    """Somebody who calls.

    @ivar got: everything that came.
    @ivar ended: the connection is over.
    """

    def __init__(self) -> None:
        self.got = bytearray()
        self.ended = False

    def dataReceived(self, data: bytes) -> None:
        """Keep it."""
        self.got += data

    def connectionLost(self, reason: Any = None) -> None:
        """Note it."""
        self.ended = True

    def buildProtocol(self, address: object) -> Client:
        """This is its own factory."""
        return self


class StreamingTests(SynchronousTestCase):
    """A client, a router, and two homes."""

    def setUp(self) -> None:
        """Everything listens."""
        self.clock = Clock()
        self.network = Network(self.clock)
        farm = make_farm([Domain("im.fabrik.example")], [HS1, HS2])
        self.directory = FakeDirectory(farm, [make_account(PETRA, HS2)])
        self.seen: list[tuple[str, bytes]] = []
        self.say: Any = lambda name, call: Reply(200, body=b"%d" % len(call.body))
        self.factories = {home.name: self.start(home) for home in (HS1, HS2)}
        links = Links(
            self.clock,
            self.network.endpoint,
            key=KEY,
            name="router-1",
            limits=LIMITS,
            chance=lambda: 1.0,
            piecewise=True,
        )
        router = Router(self.directory, links, clock=self.clock)
        self.calls = CallFactory(
            router.answer, clock=self.clock, limits=LIMITS, name="r1", stream_over=WHOLE_LIMIT
        )
        self.network.listen(*WHERE, self.calls)

    def start(self, home: Home, incarnation: int = 1) -> LinkFactory:
        """A home takes calls from now on."""

        def answer(call: Call) -> Any:
            self.seen.append((home.name, call.body))
            return self.say(home.name, call)

        factory = LinkFactory(
            answer, key=KEY, name=home.id, incarnation=incarnation, clock=self.clock, limits=LIMITS
        )
        self.network.listen(home.host, home.link_port, factory)
        return factory

    def connect(self) -> tuple[Client, Pipe]:
        """Somebody connects to the router."""
        client = Client()
        self.network.connect(WHERE, client)
        return client, self.network.pipes[-1]

    @property
    def link(self) -> Pipe:
        """The router's end of its link to the second home."""
        return next(pipe for pipe in self.network.pipes if pipe.getPeer().port == HS2.link_port)

    def held(self) -> int:
        """How many octets of bodies the router holds."""
        total = 0
        for connection in self.calls.connections:
            total += len(connection._unread)
            if connection._body is not None:
                total += connection._body.waiting
        return total + sum(
            len(pipe.waiting) for pipe in self.network.pipes if pipe.getPeer().port == HS2.link_port
        )

    def move(self, **sizes: int) -> None:
        """Let some octets through on every way."""
        self.network.step(upstream=True, size=sizes.get("up", 65536))
        self.network.step(upstream=False, size=sizes.get("down", 65536))

    def test_long_call(self) -> None:
        """It arrives whole, and little of it is held on the way, however slow the home is."""
        client, pipe = self.connect()
        pipe.write(ask(b"/instmsg/aliases/petra", method=b"ACL", body=LONG))
        most = 0
        for turn in range(4000):
            if turn == 8:
                self.link.other.reading = False
            if turn == 200:
                self.link.other.reading = True
            self.move(up=16384 if turn % 3 else 65536)
            most = max(most, self.held())
            if self.seen:
                break
        self.network.pump()
        self.assertEqual(self.seen, [("hs2", LONG)])
        self.assertEqual([response.body for response in read_all(bytes(client.got))], [b"%d" % len(LONG)])
        self.assertLess(most, MOST)
        self.assertLess(most, len(LONG) // 8)

    def test_long_answer(self) -> None:
        """It arrives whole, and little of it is held on the way, however slow the client is."""
        self.say = lambda name, call: Reply(207, body=LONG)
        client, pipe = self.connect()
        pipe.write(ask(b"/instmsg/aliases/petra"))
        most = 0
        for turn in range(4000):
            if turn == 8:
                pipe.reading = False
            if turn == 200:
                pipe.reading = True
            self.move(down=16384 if turn % 3 else 65536)
            most = max(most, len(pipe.other.waiting))
            if len(client.got) > len(LONG):
                break
        head, _, body = bytes(client.got).partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 207 "))
        self.assertEqual(body, LONG)
        self.assertLess(most, 3 * 65536)

    def test_others_are_not_delayed(self) -> None:
        """A client that neither sends nor reads to the end delays no other on the same link."""
        self.say = lambda name, call: Reply(207, body=LONG if call.method == b"PROPFIND" else b"ok")
        _, sender = self.connect()
        sender.write(ask(b"/instmsg/aliases/petra", method=b"ACL", body=LONG)[:300_000])
        _, reader = self.connect()
        reader.write(ask(b"/instmsg/aliases/petra"))
        for _ in range(20):
            self.move()
        reader.reading = False
        for _ in range(20):
            self.move()
        client, pipe = self.connect()
        for number in range(5):
            pipe.write(ask(b"/instmsg/aliases/petra", method=b"NOTIFY"))
            turns = 0
            while len(read_all(bytes(client.got))) <= number:
                self.move()
                turns += 1
            self.assertLessEqual(turns, 4)

    def test_home_lost_in_the_middle(self) -> None:
        """When the link breaks in the middle of a call nothing was done: 503, to be tried again."""
        client, pipe = self.connect()
        pipe.write(ask(b"/instmsg/aliases/petra", method=b"NOTIFY", body=LONG)[:1_000_000])
        for _ in range(8):
            self.move()
        self.link.abortConnection()
        self.network.advance(1)
        (response,) = read_all(bytes(client.got))
        self.assertEqual((response.status, b"retry-after" in response.headers), (503, True))
        self.assertEqual(self.seen, [])

    def test_home_lost_in_an_answer(self) -> None:
        """When it breaks in the middle of an answer the client's connection ends; it is not answered twice."""
        self.say = lambda name, call: Reply(207, body=LONG)
        client, pipe = self.connect()
        pipe.write(ask(b"/instmsg/aliases/petra"))
        for _ in range(8):
            self.move()
        self.link.abortConnection()
        self.network.advance(3)
        self.assertTrue(client.ended)
        self.assertEqual((bytes(client.got).count(b"HTTP/1.1 "), len(self.seen)), (1, 1))

    def test_hung_up(self) -> None:
        """A client that hangs up in the middle has nothing done, and nothing kept for him."""
        _, pipe = self.connect()
        pipe.write(ask(b"/instmsg/aliases/petra", method=b"NOTIFY", body=LONG)[:1_000_000])
        for _ in range(8):
            self.move()
        self.assertGreater(self.factories["hs2"].store.held, 0)
        pipe.abortConnection()
        self.network.pump()
        self.assertEqual((self.seen, self.factories["hs2"].store.held), ([], 0))

    def test_moved(self) -> None:
        """A call whose node has moved cannot be carried elsewhere without its body: 503, and next time it can."""
        self.say = lambda name, call: (
            Reply(200)
            if name == "hs1"
            else Reply(MOVED_STATUS, (MOVED_HEADER,), reason=b"Misdirected Request")
        )
        self.directory.move(PETRA, HS1, silently=True)
        for status in (503, 200):
            client, pipe = self.connect()
            pipe.write(ask(b"/instmsg/aliases/petra", method=b"ACL", body=LONG))
            for _ in range(500):
                self.move()
            self.assertEqual([response.status for response in read_all(bytes(client.got))], [status])

    def test_refused_at_once(self) -> None:
        """What the router itself refuses it refuses before the body has come."""
        client, pipe = self.connect()
        pipe.write(ask(b"/instmsg/aliases/petra", method=b"MOVE", body=LONG))
        for _ in range(100):
            self.move()
        self.assertEqual([response.status for response in read_all(bytes(client.got))], [405])
        self.assertEqual(self.seen, [])

    def test_replaced_home(self) -> None:
        """A long call for a home that is being replaced waits, with little of it held, and is done."""
        client, pipe = self.connect()
        pipe.write(ask(b"/instmsg/aliases/petra", method=b"NOTIFY", body=b"short"))
        self.network.pump()
        self.network.listen(HS2.host, HS2.link_port, None)
        drained: Deferred[None] = self.factories["hs2"].drain()
        self.network.pump()
        self.successResultOf(drained)
        pipe.write(ask(b"/instmsg/aliases/petra", method=b"NOTIFY", body=LONG))
        for _ in range(50):
            self.move()
            self.clock.advance(0.1)
        self.assertLess(self.held(), MOST)
        self.start(HS2, incarnation=2)
        self.network.advance(0.3)
        for _ in range(500):
            self.move()
        self.assertEqual([response.status for response in read_all(bytes(client.got))], [200, 200])
        self.assertEqual(self.seen[1:], [("hs2", LONG)])
