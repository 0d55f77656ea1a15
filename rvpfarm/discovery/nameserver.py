"""A DNS server for the farm's own zone, over UDP and TCP, that follows the directory."""

from __future__ import annotations

import os
import struct
from typing import Any

from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort, IReactorTime, ITCPTransport
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger
from twisted.names import dns
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure

from rvpfarm.directory.model import Directory, Farm
from rvpfarm.discovery import zone as core

#: The largest answer over UDP without EDNS (RFC 1035), and the most that we send with it (RFC 9715).
_PLAIN_UDP = 512
_MOST_UDP = 1232

#: What the two octets of length in front of a message over TCP can say.
_MOST_TCP = 65535

#: EDNS rides in a pseudo-record (RFC 6891); its "bad version" code does not fit the header.
_OPT = 41
_BAD_VERSION_TTL = 1 << 24

_CODES = {
    core.Outcome.FOUND: dns.OK,
    core.Outcome.NO_DATA: dns.OK,
    core.Outcome.NO_NAME: dns.ENAME,
    core.Outcome.REFUSED: dns.EREFUSED,
}

#: Ports tried for one that is free for UDP and TCP alike, when any will do.
_TRIES = 20


def _header(record: core.Record) -> dns.RRHeader:
    """C{record} as Twisted's DNS code writes it."""
    payload: Any  # the records of twisted.names have no common type that says what an RRHeader takes
    if isinstance(record, core.Service):
        payload = dns.Record_SRV(record.priority, record.weight, record.port, record.target, record.ttl)
    elif isinstance(record, core.Server):
        payload = dns.Record_NS(record.host, record.ttl)
    elif isinstance(record, core.Start):
        payload = dns.Record_SOA(
            record.primary,
            record.contact,
            record.serial,
            record.refresh,
            record.retry,
            record.expire,
            record.minimum,
            record.ttl,
        )
    elif record.type == "AAAA":
        payload = dns.Record_AAAA(record.data, record.ttl)
    else:
        payload = dns.Record_A(record.data, record.ttl)
    return dns.RRHeader(record.name, payload.TYPE, dns.IN, record.ttl, payload, auth=True)


def _extension(query: dns.Message) -> dns.RRHeader | None:
    """The EDNS pseudo-record of a query, when there is one."""
    return next((header for header in query.additional if header.type == _OPT), None)


def _reply_to(query: dns.Message, code: int) -> dns.Message:
    """An empty answer to C{query}, which tells that EDNS is known when the query used it."""
    reply = dns.Message(query.id, answer=1, opCode=query.opCode, recDes=query.recDes, rCode=code, maxSize=0)
    reply.queries = query.queries[:1]
    extension = _extension(query)
    if extension is not None:
        blank: Any = dns.UnknownRecord(b"", 0)
        reply.additional = [dns.RRHeader(b"", _OPT, _MOST_UDP, 0, blank)]
        if extension.ttl >> 16 & 0xFF:
            reply.rCode, reply.additional[0].ttl = dns.OK, _BAD_VERSION_TTL
    return reply


def _fit(reply: dns.Message, room: int) -> None:
    """Make C{reply} fit into C{room}: without the addresses that nobody asked for, else truncated."""
    if len(reply.toStr()) <= room:
        return
    reply.additional = [header for header in reply.additional if header.type == _OPT]
    if len(reply.toStr()) > room:
        reply.answers, reply.authority, reply.trunc = [], [], 1


class _Answers:
    """What both transports ask: from a query to its answer.

    It reads the farm anew whenever the directory has another one, so an answer is never older than
    what the directory itself has seen.
    """

    _log = Logger()

    def __init__(self, directory: Directory, zone: str, server_address: str) -> None:
        self._directory = directory
        self._name = core.plain_name(zone)
        self._server_address = server_address
        self._farm: Farm | None = None
        self._zone = core.Zone(self._name, core.records(Farm(), self._name))

    def _current(self) -> core.Zone:
        """The zone of the farm as it is now."""
        farm = self._directory.farm()
        if farm is not self._farm:
            found = core.records(farm, self._name, server_address=self._server_address)
            self._farm, self._zone = farm, core.Zone(self._name, found)
            self._log.info("zone {zone} has {count} records", zone=self._name, count=len(self._zone))
        return self._zone

    def reply(self, query: dns.Message) -> dns.Message:
        """The answer to C{query}."""
        if query.opCode != dns.OP_QUERY:
            return _reply_to(query, dns.ENOTIMP)
        if len(query.queries) != 1:
            return _reply_to(query, dns.EFORMAT)
        extension, question = _extension(query), query.queries[0]
        if extension is not None and extension.ttl >> 16 & 0xFF:
            return _reply_to(query, dns.OK)
        kind = dns.QUERY_TYPES.get(question.type) or dns.EXT_QUERIES.get(question.type, "")
        if question.cls not in (dns.IN, dns.ANY) or kind in ("AXFR", "IXFR"):
            return _reply_to(query, dns.EREFUSED)
        kind = "ANY" if question.type == dns.ALL_RECORDS else kind
        try:
            name = question.name.name.decode("ascii")
        except UnicodeDecodeError:  # a name of other octets is legal, and not one of ours
            name = question.name.name.decode("latin-1")
        answer = self._current().answer(name, kind)
        reply = _reply_to(query, _CODES[answer.outcome])
        reply.auth = answer.outcome is not core.Outcome.REFUSED
        reply.answers = [_header(record) for record in answer.answers]
        reply.authority = [_header(record) for record in answer.authority]
        reply.additional = [_header(record) for record in answer.additional] + reply.additional
        # Resolvers vary the case of what they ask and want it back (draft-vixie-dnsext-dns0x20).
        for header in reply.answers:
            if core.plain_name(name) == header.name.name.decode("ascii"):
                header.name = question.name
        return reply


class _Datagrams(dns.DNSDatagramProtocol):
    """The UDP side: one datagram, one answer."""

    _log = Logger()

    def __init__(self, answers: _Answers, reactor: Any) -> None:
        super().__init__(self, reactor)
        self._answers = answers

    def datagramReceived(self, data: bytes, addr: Any) -> None:
        """Answer a query; what is none is dropped, as an answer to it could be sent to anybody."""
        try:
            super().datagramReceived(data, addr)
        except (struct.error, IndexError, UnicodeError, OverflowError):
            self._log.debug("malformed datagram from {peer}", peer=addr[0])

    def messageReceived(self, message: dns.Message, _protocol: object, address: tuple[str, int]) -> None:
        """A whole message has arrived."""
        if message.answer:
            return
        reply = self._answers.reply(message)
        extension = _extension(message)
        room = _PLAIN_UDP if extension is None else min(max(extension.cls, _PLAIN_UDP), _MOST_UDP)
        _fit(reply, room)
        self.writeMessage(reply, address)


class _Stream(dns.DNSProtocol, TimeoutMixin):
    """One TCP connection: queries in, answers out, closed when it has been idle."""

    #: A query is small; a peer that announces more is no resolver.
    MAX_LENGTH = 4096
    #: How long a connection may rest (RFC 7766 section 6.2.3).
    IDLE_SECONDS = 10

    # The reactor's and the tests' TCP transports alike; ITransport lacks abortConnection.
    transport: ITCPTransport

    def __init__(self, factory: _Streams, reactor: IReactorTime) -> None:
        super().__init__(self, reactor)
        self._streams = factory
        self._clock = reactor

    def callLater(self, period: float, func: Any, *args: Any) -> Any:
        """Both ancestors wait by this."""
        return self._clock.callLater(period, func, *args)

    def connectionMade(self) -> None:
        """Refuse a connection too many; else wait for a query."""
        self.liveMessages = {}
        if not self._streams.admit(self):
            self.transport.abortConnection()
            return
        self.setTimeout(self.IDLE_SECONDS)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]  # Twisted's has no types
        """The connection is gone."""
        self.setTimeout(None)
        self._streams.forget(self)

    def stringReceived(self, data: bytes) -> None:
        """A message has arrived; what is malformed ends the connection."""
        self.resetTimeout()
        try:
            super().stringReceived(data)
        except (struct.error, IndexError, UnicodeError, OverflowError):
            self.transport.abortConnection()

    def lengthLimitExceeded(self, length: int) -> None:
        """The peer announced more than any query needs."""
        self.transport.abortConnection()

    def messageReceived(self, message: dns.Message, _protocol: object) -> None:
        """A whole message has arrived."""
        if message.answer:
            return
        reply = self._streams.answers.reply(message)
        _fit(reply, _MOST_TCP)
        self.writeMessage(reply)


class _Streams(ServerFactory):
    """The TCP side: its connections and how many there may be."""

    noisy = False
    #: Connections open at once.
    MOST = 100

    def __init__(self, answers: _Answers, reactor: IReactorTime) -> None:
        self.answers = answers
        self._clock = reactor
        self._open: set[_Stream] = set()

    def buildProtocol(self, addr: IAddress | None) -> Any:  # twisted.names' protocols take any controller
        """A connection was accepted."""
        return _Stream(self, self._clock)

    def admit(self, stream: _Stream) -> bool:
        """Count C{stream}, unless there are too many."""
        if len(self._open) >= self.MOST:
            return False
        self._open.add(stream)
        return True

    def forget(self, stream: _Stream) -> None:
        """C{stream} is closed."""
        self._open.discard(stream)

    def close(self) -> None:
        """Break off every connection."""
        for stream in tuple(self._open):
            stream.transport.abortConnection()


class NameServer(Service):
    """Authoritative DNS for one zone of the farm: SRV and addresses of routers, addresses of homes."""

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        directory: Directory,
        zone: str,
        *,
        interface: str = "127.0.0.1",
        port: int = 5300,
    ) -> None:
        """
        @param reactor: listens for UDP and TCP and tells the time; no single interface says both.
        @param zone: the name of the zone, such as C{farm.localhost}.
        @param interface: the address to listen on.
        @param port: where to listen, for UDP and TCP alike; 0 takes one that is free for both.
        """
        self._reactor = reactor
        self._zone = core.plain_name(zone)
        self._interface = interface
        self._wanted = port
        known = "" if interface in ("", "0.0.0.0", "::") else interface  # noqa: S104
        self._answers = _Answers(directory, zone, known)
        self._streams = _Streams(self._answers, reactor)
        self._ports: list[IListeningPort] = []

    @property
    def port(self) -> int:
        """Where it listens, once it does."""
        here = self._ports[0].getHost() if self._ports else None
        return here.port if isinstance(here, (IPv4Address, IPv6Address)) else self._wanted

    def privilegedStartService(self) -> None:
        """Listen before privileges are given up: port 53 needs them."""
        super().privilegedStartService()
        self._listen()

    def startService(self) -> None:
        """Listen, unless that has happened.

        @raise SystemExit: the address is not to be had; in one sentence.
        """
        super().startService()
        self._listen()

    def stopService(self) -> Deferred[Any]:
        """Stop listening; fires when both sockets are closed."""
        super().stopService()
        ports, self._ports = self._ports, []
        self._streams.close()
        return DeferredList([maybeDeferred(port.stopListening) for port in ports])

    def _listen(self) -> None:
        if self._ports:
            return
        for tries in range(1, _TRIES + 1):
            try:
                self._ports = self._bind()
            except CannotListenError as error:
                if self._wanted == 0 and tries < _TRIES:
                    continue
                raise SystemExit(self._sentence(error)) from None
            break
        self._log.info(
            "answering for {zone} on {interface} port {port}",
            zone=self._zone,
            interface=self._interface,
            port=self.port,
        )

    def _bind(self) -> list[IListeningPort]:
        """Both sockets, on one port number."""
        stream = self._reactor.listenTCP(self._wanted, self._streams, interface=self._interface)
        try:
            datagrams = self._reactor.listenUDP(
                stream.getHost().port, _Datagrams(self._answers, self._reactor), interface=self._interface
            )
        except CannotListenError:
            stream.stopListening()
            raise
        return [stream, datagrams]

    def _sentence(self, error: CannotListenError) -> str:
        """What went wrong, for whoever started it."""
        cause = error.socketError
        number = getattr(cause, "errno", None)
        why = os.strerror(number).lower() if isinstance(number, int) else str(cause)
        return f"rvp-dns: cannot listen on {self._interface}:{self._wanted}: {why} (--listen)"
