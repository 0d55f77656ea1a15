"""Both ends of the wire for tests that must see every byte: a raw client, scripted call-backs, a tiny DNS.

Everything here blocks and uses plain sockets, so that nothing of the code under test helps it along.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum

import dns.flags
import dns.message
import dns.rdatatype
import dns.rrset

from tests.support.processes import PATIENCE_SECONDS


@dataclass(frozen=True)
class Message:
    """A request or an answer as it arrived.

    @ivar line: its first line.
    @ivar fields: name and value of each header, in their order and letter case.
    @ivar raw: everything, body included.
    """

    line: str
    fields: tuple[tuple[str, str], ...]
    body: bytes
    raw: bytes

    @property
    def status(self) -> int:
        """Of an answer: its status, where Miranda looks for it."""
        return int(self.line[9:12])

    def every(self, name: str) -> list[str]:
        """The values of all headers of that name, in whatever letter case."""
        return [value for known, value in self.fields if known.lower() == name.lower()]

    def header(self, name: str) -> str:
        """The value of a header that must be there once.

        @raise AssertionError: it is not.
        """
        values = self.every(name)
        assert len(values) == 1, f"{name}: {values} in {self.raw!r}"
        return values[0]

    def has(self, text: str) -> bool:
        """Does the body contain C{text}."""
        return text.encode() in self.body


class Reader:
    """Reads messages off a socket, and trusts nothing but C{Content-Length}."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._data = b""

    def read(self, *, bodiless: bool = False) -> Message | None:
        """The next message; C{None} when the other side closed instead.

        @param bodiless: its length is that of a body which it does not have.
        @raise AssertionError: it closed in the middle, or the message has several lengths.
        """
        while b"\n\r\n" not in self._data and b"\n\n" not in self._data:
            if not self._more():
                assert not self._data, f"closed in the middle of {self._data!r}"
                return None
        ends = [(self._data.find(mark), len(mark)) for mark in (b"\r\n\r\n", b"\n\n") if mark in self._data]
        at, size = min(ends)
        head = self._data[:at].decode("latin-1")
        line, *rest = head.replace("\r\n", "\n").split("\n")
        pairs = [field.partition(":") for field in rest]
        fields = tuple((name, value.strip()) for name, _, value in pairs)
        lengths = [int(value) for name, value in fields if name.lower() == "content-length"]
        assert len(lengths) <= 1, f"several lengths: {head}"
        end = at + size + (0 if bodiless or not lengths else lengths[0])
        while len(self._data) < end:
            assert self._more(), f"closed in the middle of {self._data!r}"
        raw, self._data = self._data[:end], self._data[end:]
        return Message(line, fields, raw[at + size :], raw)

    def _more(self) -> bool:
        try:
            part = self._connection.recv(65536)
        except ConnectionError:
            part = b""
        self._data += part
        return bool(part)


class Wire:
    """One connection of a client that sends exactly what it is told to."""

    def __init__(self, host: str, port: int, *, source: str = "") -> None:
        """
        @param source: the address to call from.
        """
        self._socket = socket.create_connection(
            (host, port), PATIENCE_SECONDS, source_address=(source, 0) if source else None
        )
        self._reader = Reader(self._socket)

    def send(self, data: bytes) -> None:
        """Send C{data} as it is; a server that has already refused the rest of it may have closed."""
        with suppress(ConnectionError):
            self._socket.sendall(data)

    def read(self, *, bodiless: bool = False) -> Message:
        """The next answer.

        @param bodiless: it answers a HEAD.
        @raise AssertionError: there is none.
        """
        message = self._reader.read(bodiless=bodiless)
        assert message is not None, "closed without an answer"
        return message

    def ask(self, data: bytes) -> Message:
        """Send a request and read its answer."""
        self.send(data)
        return self.read()

    def at_end(self) -> bool:
        """Wait for what comes next: is it the end of the connection?"""
        return self._reader.read() is None

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


class Manner(Enum):
    """How a call-back treats its callers when it does not answer with a status."""

    #: reads the request and never answers
    SILENT = "silent"
    #: accepts the connection (or rather, the kernel does) and never reads
    HALF_OPEN = "half-open"
    #: reads the request and cuts the connection
    BREAKS = "breaks"


@dataclass
class Listener:
    """A call-back: a listener on loopback that notes what it is told and answers as its script says.

    @ivar script: a status, or a L{Manner}; may be changed at any time.
    @ivar headers: lines that its answers have besides the usual ones, each with its end.
    @ivar heard: requests in the order they came.
    """

    script: int | Manner = 200
    host: str = "127.0.0.1"
    port: int = 0
    headers: bytes = b""
    heard: list[Message] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._arrived = threading.Condition()
        self._listener = socket.create_server((self.host, self.port), backlog=128)
        self._connections: set[socket.socket] = set()
        self.port = self._listener.getsockname()[1]
        self.url = f"http://{self.host}:{self.port}"
        if self.script is not Manner.HALF_OPEN:
            threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop listening, and drop every connection."""
        if self._listener.fileno() != -1:
            with suppress(OSError):  # a thread in accept() keeps it open until it is shut down
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        for connection in tuple(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def wait(self, count: int = 1, seconds: float = PATIENCE_SECONDS) -> list[Message]:
        """The first C{count} requests, once there are as many.

        @raise AssertionError: there are not.
        """
        with self._arrived:
            if not self._arrived.wait_for(lambda: len(self.heard) >= count, seconds):
                raise AssertionError(f"heard {len(self.heard)} of {count}: {self.heard}")
            return self.heard[:count]

    def states(self, count: int) -> list[str]:
        """What the first C{count} requests, all property notifications, say that a state is."""
        return [state_in(message.body) for message in self.wait(count)]

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        reader = Reader(connection)
        with connection, suppress(OSError, AssertionError):
            while (request := reader.read()) is not None:
                with self._arrived:
                    self.heard.append(request)
                    self._arrived.notify_all()
                if self.script is Manner.BREAKS:
                    # no goodbye: the connection is reset
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    break
                if isinstance(self.script, int):
                    connection.sendall(
                        b"HTTP/1.1 %d Told\r\nRVP-Notifications-Version: 0.2\r\n%bContent-Length: 0\r\n\r\n"
                        % (self.script, self.headers)
                    )
        self._connections.discard(connection)


def state_in(body: bytes) -> str:
    """The plain presence in a body.

    @raise AssertionError: there is not exactly one.
    """
    parts = body.decode().split("<r:state><r:")
    assert len(parts) == 2, body
    name, closing, _ = parts[1].partition("/></r:state>")
    assert closing, body
    return name


class NameServer:
    """A DNS server over UDP that knows the addresses of a few hosts.

    @ivar where: C{host:port}.
    """

    def __init__(self, addresses: Mapping[str, str], host: str = "127.0.0.1") -> None:
        """
        @param addresses: IPv4 address by host name.
        """
        self._addresses = dict(addresses)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((host, 0))
        self.where = f"{host}:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop, without a datagram in hand."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self._socket.getsockname())
        self._thread.join(PATIENCE_SECONDS)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            data, caller = self._socket.recvfrom(4096)
            if not data:
                return
            query = dns.message.from_wire(data)
            answer = dns.message.make_response(query)
            answer.flags |= dns.flags.AA
            question = query.question[0]
            address = self._addresses.get(question.name.to_text(omit_final_dot=True).lower())
            if address is not None and question.rdtype == dns.rdatatype.A:
                answer.answer.append(dns.rrset.from_text(question.name, 60, "IN", "A", address))
            self._socket.sendto(answer.to_wire(), caller)
