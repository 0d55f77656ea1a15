"""Tests of C{rvpfarm.discovery.nameserver}, over real sockets on the loopback."""

from __future__ import annotations

import socket
import struct
from typing import Any

import dns.edns
import dns.message
import dns.opcode
import dns.query
import dns.rcode
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.internet.threads import deferToThread
from twisted.names import dns as names
from twisted.names.client import Resolver
from twisted.names.error import DNSNameError, DNSQueryRefusedError
from twisted.trial.unittest import SynchronousTestCase, TestCase

from rvpfarm.directory.model import Router
from rvpfarm.discovery.nameserver import NameServer
from tests.support.farms import DEMO, FarmDirectory

ZONE = "farm.localhost"
reactor: Any = global_reactor


def many_routers(count: int) -> dict[str, Router]:
    """So many that their addresses do not fit into a small datagram."""
    return {
        f"r{n}": Router(f"r{n}", f"r{n:03}", f"r{n}.elsewhere.example", 8080, f"127.0.1.{n}")
        for n in range(1, count + 1)
    }


class NameServerTests(TestCase):
    """The farm's zone is served to any resolver, over UDP and TCP."""

    timeout = 20

    def setUp(self) -> None:
        """A name server on a port that is free, and Twisted's own client for it."""
        self.directory = FarmDirectory()
        self.server = NameServer(reactor, self.directory, ZONE, port=0)
        self.server.privilegedStartService()
        self.server.startService()
        self.addCleanup(self.server.stopService)
        self.resolver = Resolver(servers=[("127.0.0.1", self.server.port)], timeout=(2,), reactor=reactor)

    async def ask(self, query: dns.message.Message, *, tcp: bool = False) -> dns.message.Message:
        """C{query}, put by dnspython from a thread."""
        ask = dns.query.tcp if tcp else dns.query.udp
        return await deferToThread(ask, query, "127.0.0.1", timeout=5, port=self.server.port)

    async def test_service_by_twisted(self) -> None:
        """Twisted's client gets the SRV record with the addresses of its target."""
        answers, _, additional = await self.resolver.lookupService("_rvp._tcp.farm.localhost")
        self.assertEqual(answers[0].payload, names.Record_SRV(0, 0, 8080, "im.farm.localhost", 60))
        self.assertEqual({r.payload.dottedQuad() for r in additional}, {"127.0.0.1", "127.0.0.2"})

    async def test_rotating_addresses_by_twisted(self) -> None:
        """Each look-up names the next router first."""
        first = []
        for _ in range(4):
            answers, _, _ = await self.resolver.lookupAddress("im.farm.localhost")
            self.assertTrue(all(header.isAuthoritative() for header in answers))
            first.append(answers[0].payload.dottedQuad())
        self.assertEqual(first, ["127.0.0.1", "127.0.0.2"] * 2)

    async def test_unknown_name_by_twisted(self) -> None:
        """A name that is not there does not exist."""
        await self.assertFailure(Deferred.fromCoroutine(self._lookup("nobody.farm.localhost")), DNSNameError)

    async def test_outside_by_twisted(self) -> None:
        """A name outside the zone is refused: this is no open resolver."""
        await self.assertFailure(Deferred.fromCoroutine(self._lookup("example.com")), DNSQueryRefusedError)

    async def _lookup(self, name: str) -> object:
        return await self.resolver.lookupAddress(name)

    async def test_udp_and_tcp_by_dnspython(self) -> None:
        """An independent client reads the same over both transports."""
        for tcp in (False, True):
            query = dns.message.make_query("home2.farm.localhost", "A")
            reply = await self.ask(query, tcp=tcp)
            self.assertEqual(reply.rcode(), dns.rcode.NOERROR)
            self.assertTrue(reply.flags & dns.flags.AA)
            self.assertEqual([rr.to_text() for rr in reply.answer[0]], ["127.0.0.12"])

    async def test_start_of_authority_by_dnspython(self) -> None:
        """The SOA can be asked for, and comes along when there is no data or no name."""
        soa = await self.ask(dns.message.make_query(ZONE, "SOA"))
        self.assertEqual(soa.answer[0][0].serial, DEMO.generation + 1)
        for name, code in (
            ("im.farm.localhost", dns.rcode.NOERROR),
            ("nobody.farm.localhost", dns.rcode.NXDOMAIN),
        ):
            reply = await self.ask(dns.message.make_query(name, "AAAA"))
            self.assertEqual(reply.rcode(), code)
            self.assertEqual(reply.answer, [])
            self.assertEqual(reply.authority[0].name.to_text(), "farm.localhost.")

    async def test_follows_the_directory(self) -> None:
        """A router that was added is in the next answer."""
        self.directory.change(routers=many_routers(3))
        reply = await self.ask(dns.message.make_query("im.farm.localhost", "A"))
        self.assertEqual({rr.to_text() for rr in reply.answer[0]}, {"127.0.1.1", "127.0.1.2", "127.0.1.3"})

    async def test_large_answer(self) -> None:
        """An answer too large for a datagram says so, and comes whole over TCP or with EDNS."""
        self.directory.change(routers=many_routers(60))
        query = dns.message.make_query("im.farm.localhost", "A", use_edns=False)
        reply = await self.ask(query)
        self.assertTrue(reply.flags & dns.flags.TC)
        self.assertEqual(len((await self.ask(query, tcp=True)).answer[0]), 60)
        extended = dns.message.make_query("im.farm.localhost", "A", use_edns=0, payload=4096)
        self.assertEqual(len((await self.ask(extended)).answer[0]), 60)
        answers, _, _ = await self.resolver.lookupAddress("im.farm.localhost")
        self.assertEqual(len(answers), 60)
        for connection in tuple(self.resolver.connections):
            connection.transport.abortConnection()

    async def test_additional_gives_way(self) -> None:
        """Addresses that nobody asked for are left out when they do not fit, without truncation."""
        self.directory.change(routers=many_routers(60))
        query = dns.message.make_query("_rvp._tcp.farm.localhost", "SRV", use_edns=False)
        reply = await self.ask(query)
        self.assertFalse(reply.flags & dns.flags.TC)
        self.assertEqual((len(reply.answer), len(reply.additional)), (1, 0))

    async def test_unknown_edns_version(self) -> None:
        """A later version of EDNS is answered with "bad version" (RFC 6891)."""
        reply = await self.ask(dns.message.make_query("im.farm.localhost", "A", use_edns=1))
        self.assertEqual(reply.rcode(), dns.rcode.BADVERS)

    async def test_what_is_not_served(self) -> None:
        """Other classes and zone transfers are refused, other operations are not implemented."""
        chaos = dns.message.make_query("version.bind", "TXT", "CH")
        self.assertEqual((await self.ask(chaos)).rcode(), dns.rcode.REFUSED)
        transfer = dns.message.make_query(ZONE, "SOA")
        transfer.question[0].rdtype = dns.rdatatype.AXFR
        self.assertEqual((await self.ask(transfer, tcp=True)).rcode(), dns.rcode.REFUSED)
        notice = dns.message.make_query(ZONE, "SOA")
        notice.set_opcode(dns.opcode.NOTIFY)
        self.assertEqual((await self.ask(notice)).rcode(), dns.rcode.NOTIMP)

    async def test_starts_again(self) -> None:
        """Stopped, it frees its port; started again, it answers."""
        await self.server.stopService()
        self.server.startService()
        reply = await self.ask(dns.message.make_query(ZONE, "NS"))
        self.assertEqual([rr.to_text() for rr in reply.answer[0]], ["ns.farm.localhost."])

    async def test_connections_end_with_it(self) -> None:
        """An open connection does not outlive the service."""
        link = socket.create_connection(("127.0.0.1", self.server.port))
        self.addCleanup(link.close)
        query = dns.message.make_query(ZONE, "NS").to_wire()
        link.sendall(struct.pack("!H", len(query)) + query)
        self.assertTrue(await deferToThread(link.recv, 4096))
        await self.server.stopService()
        try:
            rest = await deferToThread(link.recv, 4096)
        except ConnectionResetError:
            rest = b""
        self.assertEqual(rest, b"")

    def test_busy_port(self) -> None:
        """A port that is taken is one clear sentence, and leaves nothing behind."""
        second = NameServer(reactor, self.directory, ZONE, port=self.server.port)
        error = self.assertRaises(SystemExit, second.startService)
        self.assertEqual(
            str(error),
            f"rvp-dns: cannot listen on 127.0.0.1:{self.server.port}: address already in use (--listen)",
        )


class MalformedTests(SynchronousTestCase):
    """What is no query does no harm."""

    def start(self) -> tuple[MemoryReactorClock, NameServer]:
        """A name server without sockets."""
        memory = MemoryReactorClock()
        memory.listenUDP = lambda port, protocol, interface="", maxPacketSize=8192: protocol
        server = NameServer(memory, FarmDirectory(), ZONE, port=53)
        server.startService()
        return memory, server

    @settings(max_examples=150, deadline=None)
    @given(st.binary(max_size=80), st.booleans())
    def test_any_bytes(self, data: bytes, as_query: bool) -> None:
        """No datagram raises, and whatever is sent in answer is an answer."""
        if as_query:  # a believable header in front
            data = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01" + data
        _, server = self.start()
        protocol = server._ports[1]
        sent: list[bytes] = []

        class Transport:
            """Keeps what was sent."""

            def write(self, data: bytes, address: object) -> None:
                """One datagram."""
                sent.append(data)

        protocol.startProtocol()
        protocol.transport = Transport()
        protocol.datagramReceived(data, ("127.0.0.1", 9))
        self.assertTrue(all(reply[2] & 0x80 for reply in sent))

    def connected(self) -> tuple[MemoryReactorClock, Any, StringTransport]:
        """One TCP connection to it."""
        memory, _ = self.start()
        factory = memory.tcpServers[0][1]
        protocol, transport = factory.buildProtocol(None), StringTransport()
        protocol.makeConnection(transport)
        return memory, protocol, transport

    def test_no_answer_to_an_answer(self) -> None:
        """Answers are not answered, or two servers could be made to talk for ever."""
        _, protocol, transport = self.connected()
        reply = dns.message.make_response(dns.message.make_query(ZONE, "NS")).to_wire()
        protocol.dataReceived(struct.pack("!H", len(reply)) + reply)
        self.assertEqual(transport.value(), b"")

    def test_idle_connection(self) -> None:
        """A connection that asks nothing is closed."""
        memory, protocol, transport = self.connected()
        memory.advance(11)
        self.assertTrue(transport.disconnecting)
        protocol.connectionLost(None)

    def test_announced_too_much(self) -> None:
        """A message longer than any query ends the connection."""
        _, protocol, transport = self.connected()
        protocol.dataReceived(b"\xff\xff")
        self.assertTrue(transport.disconnected or transport.disconnecting)

    def test_too_many_connections(self) -> None:
        """Above the limit a newcomer is turned away."""
        memory, _ = self.start()
        factory = memory.tcpServers[0][1]
        transports = [StringTransport() for _ in range(factory.MOST + 1)]
        protocols = [factory.buildProtocol(None) for _ in transports]
        for protocol, transport in zip(protocols, transports, strict=True):
            protocol.makeConnection(transport)
        aborted = [t.disconnected or t.disconnecting for t in transports]
        self.assertEqual((aborted[-1], any(aborted[:-1])), (True, False))
