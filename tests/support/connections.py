"""What a server's connection stands between in its tests: a transport that shows all, answers on request."""

from __future__ import annotations

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from rvpfarm.protocol.calls import Call, Limits, Relayed, Reply
from rvpfarm.web.responses import Response, ResponseReader
from rvpfarm.web.server import CallFactory, CallProtocol


class Wire(StringTransport):
    """A transport that also closes for writing alone.

    @ivar writes: every piece written.
    @ivar write_closed: it is closed for writing, and still read.
    """

    def __init__(self, host: str = "192.0.2.7") -> None:
        """
        @param host: of the peer.
        """
        super().__init__(peerAddress=IPv4Address("TCP", host, 50000))
        self.writes: list[bytes] = []
        self.write_closed = False

    def write(self, data: bytes) -> None:
        """Remember C{data}."""
        assert not (self.disconnecting or self.write_closed), "written after the end"
        self.writes.append(data)
        super().write(data)

    def loseWriteConnection(self) -> None:
        """Nothing more is written."""
        self.write_closed = True

    @property
    def reading(self) -> bool:
        """Is the peer read?"""
        return bool(self.producerState == "producing")


class Answers:
    """An answer function that notes each call and answers when the test says so.

    @ivar calls: as they came.
    @ivar pending: one for each call.
    @ivar cancelled: the targets of the calls whose callers hung up.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.pending: list[Deferred[Reply | Relayed]] = []
        self.cancelled: list[bytes] = []

    def __call__(self, call: Call) -> Deferred[Reply | Relayed]:
        """Take C{call}."""
        self.calls.append(call)
        answer: Deferred[Reply | Relayed] = Deferred(lambda _: self.cancelled.append(call.target))
        self.pending.append(answer)
        return answer

    @property
    def targets(self) -> list[bytes]:
        """What was asked for."""
        return [call.target for call in self.calls]


def connect(
    answer: object, clock: Clock | None = None, *, limits: Limits | None = None, **options: object
) -> tuple[CallProtocol, Wire]:
    """A connection of a server of its own."""
    factory = CallFactory(
        answer,  # type: ignore[arg-type]  # whatever the test wants to see answered
        clock=clock or Clock(),
        limits=limits or Limits(),
        name="r1",
        **options,  # type: ignore[arg-type]
    )
    return join(factory)


def join(factory: CallFactory, host: str = "192.0.2.7") -> tuple[CallProtocol, Wire]:
    """One more connection to C{factory}."""
    wire = Wire(host)
    protocol = factory.buildProtocol(wire.getPeer())
    protocol.makeConnection(wire)
    return protocol, wire


def hang_up(protocol: CallProtocol) -> None:
    """The peer of C{protocol} closes."""
    protocol.connectionLost(Failure(ConnectionDone()))


def ask(target: bytes = b"/a", *headers: bytes, method: bytes = b"PROPFIND", body: bytes = b"") -> bytes:
    """The bytes of a request."""
    lines = [method + b" " + target + b" HTTP/1.1", b"Host: im.fabrik.example", *headers]
    if body:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*lines, b"", b""]) + body


def read_all(data: bytes) -> list[Response]:
    """The responses that C{data} consists of, and nothing else."""
    found = []
    while data:
        end = data.index(b"\r\n\r\n") + 4
        response = ResponseReader().feed(data[:end])
        if response is None:
            reader = ResponseReader()
            length = next(
                int(line.split(b":")[1]) for line in data[:end].split(b"\r\n") if b"Content-Length" in line
            )
            end += length
            response = reader.feed(data[:end])
        assert response is not None, data
        found.append(response)
        data = data[end:]
    return found


def statuses(data: bytes) -> list[int]:
    """The status codes of the responses that C{data} consists of."""
    return [response.status for response in read_all(data)]
