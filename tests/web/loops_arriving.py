"""Connections on their way in, over real sockets; run on each kind of loop by C{test_arriving}."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import globalLogPublisher

from rvpfarm.directory.model import Network
from rvpfarm.protocol.calls import IN_CLEAR, Call, Limits, Reply
from rvpfarm.web.arriving import Arrivals
from rvpfarm.web.server import CallFactory
from rvpfarm.web.tls import ServerTLS
from tests.support.connections import ask, statuses
from tests.support.directory import FakeDirectory, make_farm
from tests.support.folders import folder
from tests.support.tls import write_certificate
from tests.web.test_fast import LOOPBACK, FastTestCase
from tests.web.test_preamble import block
from tests.web.test_server import Counted

#: Where the proxies of these tests are; everything else on loopback is not listed.
PROXY, STRANGER = "127.0.0.31", "127.0.0.32"

LINE = b"PROXY TCP4 198.51.100.7 192.0.2.1 56324 80\r\n"


class Talk:
    """One connection of a client that blocks, for a thread of its own."""

    def __init__(self, port: int, source: str) -> None:
        self._socket = socket.create_connection((LOOPBACK, port), 20, source_address=(source, 0))
        self._secure: ssl.SSLObject | None = None

    def send(self, data: bytes) -> None:
        """Send it in clear."""
        self._socket.sendall(data)

    def wrap(self, certificate: str, before: bytes = b"") -> None:
        """Shake hands.

        @param before: is sent in one piece with the first octets of the handshake.
        """
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context(cafile=certificate)
        secure = context.wrap_bio(self._in, self._out, server_hostname="im.fabrik.example")
        while True:
            try:
                secure.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._socket.sendall(before + self._out.read())
                before = b""
                self._in.write(self._socket.recv(65536))
        self._socket.sendall(self._out.read())
        self._secure = secure

    def ask(self, data: bytes = b"") -> bytes:
        """Send a request, if one is given, and read until the connection is closed."""
        found = b""
        if self._secure is None:
            self._socket.sendall(data)
            while part := self._receive():
                found += part
            return found
        self._secure.write(data)
        self._socket.sendall(self._out.read())
        while True:
            try:
                part = self._secure.read(65536)
                if not part:
                    return found
                found += part
            except ssl.SSLWantReadError:
                more = self._receive()
                if not more:
                    return found
                self._in.write(more)

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(65536)
        except ConnectionError:
            return b""

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


class ArrivingTestCase(FastTestCase):
    """A listener that follows a directory.

    @ivar calls: what was asked.
    @ivar logged: warnings.
    """

    def setUp(self) -> None:
        """Nobody has come yet."""
        self.calls: list[Call] = []
        self.logged: list[str] = []
        self.counted = Counted()
        self.key, self.certificate = write_certificate(folder(self))
        globalLogPublisher.addObserver(self._note)
        self.addCleanup(globalLogPublisher.removeObserver, self._note)

    def _note(self, event: dict[str, Any]) -> None:
        if event["log_level"].name == "warn":
            self.logged.append(event["log_format"].format(**event))

    def serve(
        self, *, limits: Limits | None = None, secure: bool = False, proxied: bool = True, **policies: str
    ) -> int:
        """Listen; the port."""

        def answer(call: Call) -> Reply:
            self.calls.append(call)
            return Reply(200, body=call.peer.encode(), close=call.target == b"/last")

        networks = [Network("trusted-proxy", PROXY, PROXY)]
        self.directory = FakeDirectory(make_farm(networks=networks, **policies))
        self.factory = CallFactory(answer, clock=reactor, limits=limits or Limits(), metrics=self.counted)
        self.factory.follow(self.directory)
        tls = ServerTLS(self.key, self.certificate) if secure else None
        self.port = self.listen(self.factory, tls=tls, proxied=proxied)
        self.addCleanup(self.factory.drain, 1)
        self.arrivals: Arrivals = self.port._arrivals  # type: ignore[attr-defined]
        return int(self.port.getHost().port)

    def talk(self, port: int, what: Callable[[Talk], Any], source: str = PROXY) -> Deferred[Any]:
        """Have C{what} done by a client, in a thread."""

        def run() -> Any:
            talk = Talk(port, source)
            try:
                return what(talk)
            finally:
                talk.close()

        return deferToThread(run)

    async def silent(self, port: int, count: int, source: str) -> list[Any]:
        """So many connections that say nothing, once they have been accepted."""
        before = self.arrivals.under_way
        peers = [await self.connect(port, bind_address=source) for _ in range(count)]
        await self.until(lambda: self.arrivals.under_way == before + count)
        return peers

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait for the loop to come round to it."""
        while not true():
            await deferLater(reactor, 0.005)


class PreambleTests(ArrivingTestCase):
    """A listener for proxies takes those that are listed and say for whom they connect."""

    async def test_announced(self) -> None:
        """The announced caller is the peer of every call; what follows the preamble is not lost."""
        port = self.serve()
        for preamble, peer in (
            (LINE, "198.51.100.7"),
            (b"PROXY TCP6 2001:db8::7 ::1 56324 80\r\n", "2001:db8::7"),
            (block("198.51.100.8"), "198.51.100.8"),
            (block("::ffff:198.51.100.9"), "198.51.100.9"),
        ):
            found = await self.talk(
                port, lambda talk, first=preamble: talk.ask(first + ask(b"/a") + ask(b"/last"))
            )
            self.assertEqual(statuses(found), [200, 200])
            self.assertEqual([call.peer for call in self.calls], [peer, peer])
            self.assertEqual(self.factory.withheld | IN_CLEAR, self.calls[0].withheld)
            self.calls.clear()
        self.assertEqual((self.counted.reasons, self.logged), ([], []))

    async def test_octet_by_octet(self) -> None:
        """However slowly a preamble comes within its time, it is one."""
        port = self.serve()

        def slowly(talk: Talk) -> bytes:
            for octet in LINE:
                talk.send(bytes([octet]))
                time.sleep(0.002)
            return talk.ask(ask(b"/last"))

        self.assertEqual(statuses(await self.talk(port, slowly)), [200])
        self.assertEqual(self.calls[0].peer, "198.51.100.7")

    async def test_for_itself(self) -> None:
        """A proxy that connects for itself is itself the peer, and believed about nobody else."""
        port = self.serve()
        request = ask(b"/last", b"X-Forwarded-For: 198.51.100.7")
        for preamble in (b"PROXY UNKNOWN\r\n", block("192.0.2.1", command=0)):
            await self.talk(port, lambda talk, first=preamble: talk.ask(first + request))
            self.assertEqual(self.calls.pop().peer, PROXY)

    async def test_proxy_behind_a_proxy(self) -> None:
        """When the announced peer is a listed proxy too, that one says by the header who calls."""
        port = self.serve()
        first = b"PROXY TCP4 %b 192.0.2.1 56324 80\r\n" % PROXY.encode()
        await self.talk(port, lambda talk: talk.ask(first + ask(b"/last", b"X-Forwarded-For: 198.51.100.7")))
        self.assertEqual(self.calls[0].peer, "198.51.100.7")
        self.assertNotEqual(self.calls[0].withheld, self.factory.withheld)

    async def test_not_listed(self) -> None:
        """Anybody else is closed at once, whatever is said; counted each time, and logged once."""
        port = self.serve()
        for _ in range(3):
            self.assertEqual(await self.talk(port, lambda talk: talk.ask(LINE + ask()), STRANGER), b"")
        self.assertEqual((self.calls, self.counted.reasons), ([], ["proxy"] * 3))
        self.assertEqual(len(self.logged), 1)
        self.assertIn(f'"rvpfarm network add trusted-proxy {STRANGER}" lists it', self.logged[0])
        self.assertEqual(self.factory.edge.used, 0)

    async def test_listed_meanwhile(self) -> None:
        """A proxy may connect from when it is listed, without a restart."""
        port = self.serve()
        self.directory.set_farm(make_farm(networks=[Network("trusted-proxy", STRANGER, STRANGER)]))
        found = await self.talk(port, lambda talk: talk.ask(LINE + ask(b"/last")), STRANGER)
        self.assertEqual(statuses(found), [200])
        self.assertEqual(await self.talk(port, lambda talk: talk.ask(LINE + ask())), b"")

    async def test_no_preamble(self) -> None:
        """A listed proxy that sends none, or a wrong one, gets no answer that could be taken for one."""
        port = self.serve()
        for data in (ask(), b"\x16\x03\x01\x02\x00\x01", b"PROXY TCP4 x\r\n" + ask(), b"PROXY UNK\n" + ask()):
            self.assertEqual(await self.talk(port, lambda talk, first=data: talk.ask(first)), b"")
        self.assertEqual((self.calls, self.counted.reasons), ([], ["proxy"] * 4))
        self.assertEqual(len(self.logged), 1)
        self.assertEqual((self.factory.edge.used, self.arrivals.under_way), (0, 0))

    async def test_too_slow(self) -> None:
        """A preamble that is not there in time will not be waited for."""
        port = self.serve()
        self.arrivals.preamble_seconds = 0.1
        for data in (b"", LINE[:20]):
            self.assertEqual(await self.talk(port, lambda talk, first=data: talk.ask(first)), b"")
        self.assertEqual(self.counted.reasons, ["proxy"] * 2)
        self.assertIn("in time", self.logged[0])
        self.assertEqual((self.factory.edge.used, self.arrivals.under_way), (0, 0))

    async def test_only_looking(self) -> None:
        """A balancer that connects to see whether somebody listens is no trouble; one that stops midway is."""
        port = self.serve()
        await self.talk(port, lambda talk: None)
        await self.talk(port, lambda talk: talk.send(LINE[:20]))
        await self.until(lambda: bool(self.counted.reasons))
        self.assertEqual(self.counted.reasons, ["proxy"])
        self.assertEqual((self.factory.edge.used, self.arrivals.under_way), (0, 0))

    async def test_nobody_listed(self) -> None:
        """Whoever demands preambles and has listed nobody is told that nobody can connect."""
        self.directory = FakeDirectory(make_farm())
        self.factory = CallFactory(lambda call: Reply(200), clock=reactor, limits=Limits())
        self.listen(self.factory, proxied=True)
        await self.until(lambda: bool(self.logged))
        self.assertIn("no proxy is listed", self.logged[0])

    async def test_limits_hold(self) -> None:
        """Behind a preamble a head, a body and a rest have the times that they have anywhere."""
        limits = Limits(head_seconds=0.5, body_seconds=0.5, idle_seconds=0.5)
        port = self.serve(limits=limits)
        body = ask(b"/a", b"Content-Length: 9") + b"x"
        for data, found in ((b"", []), (ask()[:9], [408]), (body, [408]), (ask() + ask()[:9], [200, 408])):
            answer = await self.talk(port, lambda talk, more=data: talk.ask(LINE + more))
            self.assertEqual(statuses(answer), found)


class SecureTests(ArrivingTestCase):
    """With TLS the preamble comes first, in clear."""

    async def test_preamble_first(self) -> None:
        """It may come alone, or in one piece with the beginning of the handshake."""
        port = self.serve(secure=True)

        def alone(talk: Talk) -> bytes:
            talk.send(LINE)
            time.sleep(0.05)
            talk.wrap(self.certificate)
            return talk.ask(ask(b"/last"))

        def together(talk: Talk) -> bytes:
            talk.wrap(self.certificate, LINE)
            return talk.ask(ask(b"/a") + ask(b"/last"))

        self.assertEqual(statuses(await self.talk(port, alone)), [200])
        self.assertEqual(statuses(await self.talk(port, together)), [200, 200])
        self.assertEqual({call.peer for call in self.calls}, {"198.51.100.7"})

    async def test_no_preamble(self) -> None:
        """A handshake without it, and a request in clear after it, come to nothing."""
        port = self.serve(secure=True)

        def bare(talk: Talk) -> str:
            try:
                talk.wrap(self.certificate)
            except (ssl.SSLError, OSError):
                return "closed"
            return "in"

        self.assertEqual(await self.talk(port, bare), "closed")
        answer = await self.talk(port, lambda talk: talk.ask(LINE + ask()))
        self.assertNotIn(b"HTTP", answer)
        self.assertEqual((self.calls, self.counted.reasons), ([], ["proxy"]))
        await self.until(lambda: self.factory.edge.used == 0)

    async def test_large(self) -> None:
        """Much data passes in both directions once the preamble is behind."""
        port = self.serve(secure=True)

        def much(talk: Talk) -> bytes:
            talk.wrap(self.certificate, LINE)
            return talk.ask(ask(b"/a", method=b"NOTIFY", body=b"x" * 200_000) * 5 + ask(b"/last"))

        self.assertEqual(statuses(await self.talk(port, much)), [200] * 6)
        self.assertEqual({len(call.body) for call in self.calls[:5]}, {200_000})


class CountingTests(ArrivingTestCase):
    """Who is on his way in counts: slowness is no way around a limit."""

    async def test_handshakes_count(self) -> None:
        """TLS connections that say nothing fill the room of their source, and of nobody else."""
        port = self.serve(secure=True, proxied=False, connections_per_source="3")
        await self.silent(port, 3, STRANGER)
        self.assertEqual(self.factory.edge.used, 3)

        def shake(talk: Talk) -> bytes:
            talk.wrap(self.certificate)
            return talk.ask(ask(b"/last"))

        self.assertEqual(statuses(await self.talk(port, shake, STRANGER)), [503])
        self.assertEqual(self.counted.reasons, ["source"])
        self.assertEqual(statuses(await self.talk(port, shake, "127.0.0.33")), [200])
        self.assertEqual(self.calls[0].peer, "127.0.0.33")

    async def test_handshakes_end(self) -> None:
        """They are cut off in time, and then there is room again."""
        port = self.serve(secure=True, proxied=False, connections_per_source="3")
        self.arrivals.handshake_seconds = 0.2
        peers = [await self.connect(port, bind_address=STRANGER) for _ in range(3)]
        for peer in peers:
            await peer.lost
        await self.until(lambda: self.factory.edge.used == 0)
        self.assertEqual(self.arrivals.under_way, 0)

    async def test_handshakes_in_all(self) -> None:
        """The limit of all connections holds for them too; the few more that come in are to be told so."""
        port = self.serve(secure=True, proxied=False, max_connections="5")
        peers = await self.silent(port, 5 + 64, STRANGER)
        self.assertEqual((self.factory.edge.used, self.arrivals.under_way), (5, 69))
        late = await self.connect(port, bind_address="127.0.0.33")
        await late.lost
        self.assertEqual(self.counted.reasons, ["conn"])
        for peer in peers:
            peer.transport.abortConnection()
        await self.until(lambda: self.arrivals.under_way == 0)
        self.assertEqual((self.factory.edge.used, self.arrivals.told), (0, 0))

    async def test_flood(self) -> None:
        """So many connections from one address hold no more places than it has, and 64 at the door."""
        port = self.serve(secure=True, proxied=False, connections_per_source="50")
        flood = [self.connect(port, bind_address=STRANGER) for _ in range(200)]
        await DeferredList(flood, fireOnOneErrback=True)
        await self.until(lambda: len(self.counted.reasons) == 200 - 50 - 64)
        self.assertEqual((self.factory.edge.used, self.arrivals.under_way), (50, 114))
        self.assertEqual(set(self.counted.reasons), {"source"})

    async def test_announced_sources(self) -> None:
        """Behind a listed proxy it is the announced caller who has so many connections."""
        port = self.serve(connections_per_source="2")
        held = [await self.connect(port, bind_address=PROXY) for _ in range(3)]
        for peer, source in zip(held, (b"7", b"7", b"8"), strict=True):
            peer.transport.write(LINE.replace(b".7 ", b"." + source + b" "))
        await self.until(lambda: len(self.factory.connections) == 3)
        answer = await self.talk(port, lambda talk: talk.ask(LINE + ask(b"/last")))
        self.assertEqual(statuses(answer), [503])
        self.assertIn(b"Retry-After", answer)
        self.assertEqual(self.counted.reasons, ["source"])
        other = await self.talk(port, lambda talk: talk.ask(LINE.replace(b".7 ", b".8 ") + ask(b"/last")))
        self.assertEqual(statuses(other), [200])

    async def test_preambles_count(self) -> None:
        """Connections that have yet to say for whom they are count in all."""
        port = self.serve(max_connections="2")
        await self.silent(port, 2, PROXY)
        answer = await self.talk(port, lambda talk: talk.ask(LINE + ask(b"/last")))
        self.assertEqual(statuses(answer), [503])
        self.assertEqual(self.counted.reasons, ["conn"])


class StoppingTests(ArrivingTestCase):
    """A listener that stops leaves nobody in the doorway."""

    async def test_stopped(self) -> None:
        """Who does not get in in time is cut off; who is in stays."""
        for secure in (False, True):
            port = self.serve(secure=secure)
            inside = await self.connect(port, bind_address=PROXY)
            if not secure:
                inside.transport.write(LINE)
                await self.until(lambda: len(self.factory.connections) == 1)
            outside = [await self.connect(port, bind_address=PROXY) for _ in range(2)]
            outside[0].transport.write(LINE)
            if not secure:
                outside[0].transport.write(LINE[:9])
            outside[1].transport.write(LINE[:9])
            await self.until(lambda: self.arrivals.under_way >= 1)
            await deferLater(reactor, 0.05)
            await self.port.stopListening()
            await outside[1].lost
            if secure:
                await outside[0].lost
            else:
                inside.transport.write(ask(b"/last"))
                await inside.lost
                self.assertEqual(statuses(bytes(inside.data)), [200])
            self.assertEqual(self.arrivals.under_way, 0)
            with socket.create_server((LOOPBACK, port)):
                pass

    async def test_who_waits_is_let_in(self) -> None:
        """Whoever the kernel had let in before listening stopped gets his answer, not a reset."""
        for secure in (False, True):
            port = self.serve(secure=secure)
            await self.silent(port, 1, PROXY)
            talks = [Talk(port, PROXY) for _ in range(20)]  # the loop does not turn meanwhile

            def converse(talk: Talk, secure: bool = secure) -> bytes:
                if secure:
                    talk.wrap(self.certificate, LINE)
                    return talk.ask(ask(b"/last"))
                return talk.ask(LINE + ask(b"/last"))

            conversing = [deferToThread(converse, talk) for talk in talks]
            await self.port.stopListening()
            for talk, said in zip(talks, conversing, strict=True):
                self.assertEqual(statuses(await said), [200])
                talk.close()
            self.assertEqual({call.peer for call in self.calls}, {"198.51.100.7"})
            self.assertEqual(self.arrivals.under_way, 0)

    async def test_draining(self) -> None:
        """Who was on his way in when the listener drained is told so."""
        port = self.serve()
        late = await self.connect(port, bind_address=PROXY)
        await self.until(lambda: self.arrivals.under_way == 1)
        done = self.factory.drain()
        late.transport.write(LINE + ask())
        await late.lost
        self.assertEqual(statuses(bytes(late.data)), [503])
        self.assertEqual(self.counted.reasons, ["drain"])
        await done

    def test_stopped_at_once(self) -> Deferred[None]:
        """Before the loop came round to accepting anybody, there is nobody to cut off."""
        self.serve()
        return self.port.stopListening() or succeed(None)
