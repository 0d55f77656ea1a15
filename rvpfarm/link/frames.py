"""The farm link on paper: how calls and replies are framed, and how two members prove each other.

A frame is a four-octet length of what follows, a one-octet kind, and the payload of that kind, all
numbers big-endian.  A connection starts with a handshake of four frames, one at a time:

  1. C{HELLO}, caller to home: magic, the caller's origin, its nonce, both names.
  2. C{CHALLENGE}, home to caller: the home's nonce.
  3. C{PROOF}, caller to home: L{Meeting.caller_proof}.
  4. C{WELCOME}, home to caller: the home's incarnation, and L{Meeting.home_proof}.

After it the caller sends C{CALL}, C{ANSWERED}, C{CANCEL}, C{GONE} and C{PING}; the home sends C{REPLY} and
C{PONG}.  Nothing else is understood, in either direction: an unexpected kind or size is refused from
the first five octets, before the rest of the frame is kept.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from struct import Struct, error, unpack_from
from types import MappingProxyType
from typing import TypeAlias

from rvpfarm.protocol.calls import Call, Limits

#: Octets of a handshake nonce.
NONCE_SIZE = 32
#: Octets of a proof (HMAC-SHA256).
PROOF_SIZE = 32
#: Longest name of a farm member, in octets.
NAME_LIMIT = 255
#: What a home's reply may measure: far more than any list that a node can hold.
REPLY_LIMIT = 4 * 1024 * 1024
#: How many ids one C{ANSWERED} carries at most.
ANSWERED_LIMIT = 4096
#: What a frame may be longer than the head and the body of the call in it: a router adds to the hop
#: count, and the frame names the caller's address and connection.
CALL_SLACK = 1024

_MAGIC = b"RVPL\x01"
_VOUCHED = 1
_CLOSE = 1


class Kind(IntEnum):
    """What a frame is."""

    HELLO = 1
    CHALLENGE = 2
    PROOF = 3
    WELCOME = 4
    CALL = 16
    REPLY = 17
    ANSWERED = 18
    CANCEL = 19
    PING = 20
    PONG = 21
    GONE = 22


class BadFrame(Exception):
    """The other end does not speak this protocol; the connection is of no further use."""


@dataclass(frozen=True, slots=True)
class Hello:
    """The caller introduces itself.

    @ivar origin: names the caller's process; the ids of its calls are unique within it.
    @ivar caller: the caller's name.
    @ivar home: the id of the home that the caller means to reach.
    """

    origin: int
    nonce: bytes
    caller: str
    home: str


@dataclass(frozen=True, slots=True)
class Challenge:
    """The home asks the caller to prove itself."""

    nonce: bytes


@dataclass(frozen=True, slots=True)
class Proof:
    """The caller proves itself."""

    proof: bytes


@dataclass(frozen=True, slots=True)
class Welcome:
    """The home proves itself and takes calls from now on.

    @ivar incarnation: counts the starts of the home; what an earlier one had in work is lost.
    """

    incarnation: int
    proof: bytes


# CallFrame and ReplyFrame are made once per call: a frozen dataclass costs four times as much.
@dataclass(slots=True, eq=False)
class CallFrame:
    """A call to be executed once.

    @ivar id: unique within the origin, also over a reconnection.
    @ivar vouched: see L{Call.vouched}.
    @ivar withheld: see L{Call.withheld}.
    @ivar peer: see L{Call.peer}.
    @ivar connection: see L{Call.connection}.
    """

    id: int
    vouched: bool
    withheld: int
    peer: str
    connection: str
    head: bytes
    body: bytes


@dataclass(slots=True, eq=False)
class ReplyFrame:
    """The answer to the call C{id}; see L{rvpfarm.protocol.calls.Relayed}."""

    id: int
    close: bool
    wire: bytes


@dataclass(frozen=True, slots=True)
class Answered:
    """The replies to these calls have arrived: the home may forget them."""

    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Cancel:
    """Nobody waits for the call C{id} any longer."""

    id: int


@dataclass(frozen=True, slots=True)
class Gone:
    """A connection on which somebody proved himself is closed: what it proved holds no longer.

    @ivar connection: see L{Call.connection}.
    """

    connection: str


@dataclass(frozen=True, slots=True)
class Ping:
    """Is anybody there?"""

    token: int


@dataclass(frozen=True, slots=True)
class Pong:
    """Yes: the answer to the L{Ping} of that token."""

    token: int


Frame: TypeAlias = (
    CallFrame | ReplyFrame | Answered | Cancel | Gone | Ping | Pong | Hello | Challenge | Proof | Welcome
)


@dataclass(frozen=True, slots=True)
class Meeting:
    """Everything that a proof is bound to: who met whom, in which roles, and when.

    A proof fits no other role, pair of names or pair of nonces, so that neither a recorded nor a
    reflected one is worth anything.
    """

    caller: str
    home: str
    origin: int
    caller_nonce: bytes
    home_nonce: bytes

    def caller_proof(self, key: bytes) -> bytes:
        """What shows the home that the caller knows the farm key."""
        return self._proof(key, b"rvpfarm link 1: caller\0", b"")

    def home_proof(self, key: bytes, incarnation: int) -> bytes:
        """What shows the caller that the home knows the farm key and is in this incarnation."""
        return self._proof(key, b"rvpfarm link 1: home\0", _ID.pack(incarnation))

    def _proof(self, key: bytes, role: bytes, more: bytes) -> bytes:
        said = b"".join(
            (
                role,
                _ID.pack(self.origin),
                self.caller_nonce,
                self.home_nonce,
                _name(self.caller),
                _name(self.home),
                more,
            )
        )
        return hmac.digest(key, said, sha256)


def is_proof(given: bytes, wanted: bytes) -> bool:
    """Whether two proofs are equal, in a time that does not tell where they differ."""
    return hmac.compare_digest(given, wanted)


_START = Struct("!IB")
_ID = Struct("!Q")
_CALL = Struct("!IBQBBBI")
_CALL_REST = Struct("!QBBBI")
_REPLY = Struct("!IBQB")
_REPLY_REST = Struct("!QB")
_TOKEN = Struct("!IBQ")
_WELCOME = Struct("!IBQ")
_CALL_KIND = int(Kind.CALL)
_REPLY_KIND = int(Kind.REPLY)


def _name(name: str) -> bytes:
    encoded = name.encode()
    if not 0 < len(encoded) <= NAME_LIMIT:
        raise ValueError(f"a name of {len(encoded)} octets cannot be sent over a farm link")
    return b"%c%b" % (len(encoded), encoded)


def render_hello(hello: Hello) -> bytes:
    """The frame of C{hello}."""
    rest = b"".join((_MAGIC, _ID.pack(hello.origin), hello.nonce, _name(hello.caller), _name(hello.home)))
    return _START.pack(1 + len(rest), Kind.HELLO) + rest


def render_challenge(nonce: bytes) -> bytes:
    """The frame of a L{Challenge}."""
    return _START.pack(1 + len(nonce), Kind.CHALLENGE) + nonce


def render_proof(proof: bytes) -> bytes:
    """The frame of a L{Proof}."""
    return _START.pack(1 + len(proof), Kind.PROOF) + proof


def render_welcome(incarnation: int, proof: bytes) -> bytes:
    """The frame of a L{Welcome}."""
    return _WELCOME.pack(9 + len(proof), Kind.WELCOME, incarnation) + proof


def render_call(id: int, call: Call) -> bytes:
    """The frame that carries C{call}: its head as received, its body, and who made it."""
    peer, connection, head, body = call.peer.encode(), call.connection.encode(), call.head, call.body
    size = 16 + len(peer) + len(connection) + len(head) + len(body)
    flags = call.withheld << 1 | _VOUCHED if call.vouched else call.withheld << 1
    start = _CALL.pack(size, _CALL_KIND, id, flags, len(peer), len(connection), len(head))
    return b"".join((start, peer, connection, head, body))


def render_answer(id: int, wire: bytes, close: bool) -> bytes:
    """The frame of a L{ReplyFrame}.

    @raise ValueError: it is over L{REPLY_LIMIT}.
    """
    size = len(wire) + 10
    if size > REPLY_LIMIT:
        raise ValueError(f"a reply of {len(wire)} octets is too large for a farm link")
    return _REPLY.pack(size, _REPLY_KIND, id, 1 if close else 0) + wire


def render_answered(ids: Iterable[int]) -> bytes:
    """The frames that acknowledge the replies to C{ids}."""
    left, pieces = list(ids), []
    while left:
        some, left = left[:ANSWERED_LIMIT], left[ANSWERED_LIMIT:]
        pieces.append(_START.pack(1 + 8 * len(some), Kind.ANSWERED))
        pieces.append(Struct(f"!{len(some)}Q").pack(*some))
    return b"".join(pieces)


def render_cancel(id: int) -> bytes:
    """The frame of a L{Cancel}."""
    return _TOKEN.pack(9, Kind.CANCEL, id)


def render_gone(connection: str) -> bytes:
    """The frame of a L{Gone}."""
    name = _name(connection)
    return _START.pack(1 + len(name), Kind.GONE) + name


def render_ping(token: int) -> bytes:
    """The frame of a L{Ping}."""
    return _TOKEN.pack(9, Kind.PING, token)


def render_pong(token: int) -> bytes:
    """The frame of a L{Pong}."""
    return _TOKEN.pack(9, Kind.PONG, token)


def _parse_hello(data: bytes, at: int, stop: int) -> Hello:
    if data[at : at + len(_MAGIC)] != _MAGIC:
        raise BadFrame("the other end does not speak version 1 of the farm link")
    at += len(_MAGIC)
    (origin,) = _ID.unpack_from(data, at)
    nonce = data[at + 8 : at + 8 + NONCE_SIZE]
    caller, at = _parse_name(data, at + 8 + NONCE_SIZE, stop)
    home, at = _parse_name(data, at, stop)
    if at != stop:
        raise BadFrame("something follows the names of a hello")
    return Hello(origin, nonce, caller, home)


def _parse_name(data: bytes, at: int, stop: int) -> tuple[str, int]:
    if at >= stop or not data[at] or at + 1 + data[at] > stop:
        raise BadFrame("a hello without two names")
    end = at + 1 + data[at]
    return data[at + 1 : end].decode(), end


def _parse_challenge(data: bytes, at: int, stop: int) -> Challenge:
    if stop - at != NONCE_SIZE:
        raise BadFrame("a challenge of the wrong size")
    return Challenge(data[at:stop])


def _parse_proof(data: bytes, at: int, stop: int) -> Proof:
    if stop - at != PROOF_SIZE:
        raise BadFrame("a proof of the wrong size")
    return Proof(data[at:stop])


def _parse_welcome(data: bytes, at: int, stop: int) -> Welcome:
    if stop - at != 8 + PROOF_SIZE:
        raise BadFrame("a welcome of the wrong size")
    return Welcome(_ID.unpack_from(data, at)[0], data[at + 8 : stop])


def _parse_call(data: bytes, at: int, stop: int) -> CallFrame:
    id, flags, peer, connection, head = _CALL_REST.unpack_from(data, at)
    peer += at + 15
    connection += peer
    head += connection
    if head > stop:
        raise BadFrame("the parts of a call are longer than its frame")
    return CallFrame(
        id,
        flags & _VOUCHED == _VOUCHED,
        flags >> 1,
        data[at + 15 : peer].decode(),
        data[peer:connection].decode(),
        data[connection:head],
        data[head:stop],
    )


def _parse_reply(data: bytes, at: int, stop: int) -> ReplyFrame:
    id, flags = _REPLY_REST.unpack_from(data, at)
    if at + 9 > stop:
        raise BadFrame("a reply of the wrong size")
    return ReplyFrame(id, flags & _CLOSE == _CLOSE, data[at + 9 : stop])


def _parse_answered(data: bytes, at: int, stop: int) -> Answered:
    count, odd = divmod(stop - at, 8)
    if odd:
        raise BadFrame("an acknowledgement of the wrong size")
    return Answered(unpack_from(f"!{count}Q", data, at))


def _parse_token(data: bytes, at: int, stop: int) -> int:
    if stop - at != 8:
        raise BadFrame("a control frame of the wrong size")
    token: int = _ID.unpack_from(data, at)[0]
    return token


def _parse_gone(data: bytes, at: int, stop: int) -> Gone:
    size = stop - at - 1
    if size < 1 or data[at] != size:
        raise BadFrame("a closed connection without a name")
    return Gone(data[at + 1 : stop].decode())


_PARSERS: Mapping[int, Callable[[bytes, int, int], Frame]] = MappingProxyType(
    {
        Kind.HELLO: _parse_hello,
        Kind.CHALLENGE: _parse_challenge,
        Kind.PROOF: _parse_proof,
        Kind.WELCOME: _parse_welcome,
        Kind.CALL: _parse_call,
        Kind.REPLY: _parse_reply,
        Kind.ANSWERED: _parse_answered,
        Kind.CANCEL: lambda data, at, stop: Cancel(_parse_token(data, at, stop)),
        Kind.GONE: _parse_gone,
        Kind.PING: lambda data, at, stop: Ping(_parse_token(data, at, stop)),
        Kind.PONG: lambda data, at, stop: Pong(_parse_token(data, at, stop)),
    }
)

#: What is read at each stage: the largest size of every kind that may come, kind octet included.
HELLO_ONLY: Mapping[int, int] = MappingProxyType(
    {int(Kind.HELLO): 1 + len(_MAGIC) + 8 + NONCE_SIZE + 2 * (1 + NAME_LIMIT)}
)
CHALLENGE_ONLY: Mapping[int, int] = MappingProxyType({int(Kind.CHALLENGE): 1 + NONCE_SIZE})
PROOF_ONLY: Mapping[int, int] = MappingProxyType({int(Kind.PROOF): 1 + PROOF_SIZE})
WELCOME_ONLY: Mapping[int, int] = MappingProxyType({int(Kind.WELCOME): 9 + PROOF_SIZE})
FROM_HOME: Mapping[int, int] = MappingProxyType({int(Kind.REPLY): REPLY_LIMIT, int(Kind.PONG): 9})


def from_caller(limits: Limits) -> Mapping[int, int]:
    """What a home reads once the caller is proved."""
    return {
        int(Kind.CALL): limits.head + limits.body + CALL_SLACK,
        int(Kind.ANSWERED): 1 + 8 * ANSWERED_LIMIT,
        int(Kind.CANCEL): 9,
        int(Kind.GONE): 2 + NAME_LIMIT,
        int(Kind.PING): 9,
    }


class FrameReader:
    """Cuts what arrives into frames, and keeps no more than one that is allowed and incomplete.

    @ivar allowed: the largest size of every kind that may come now; replaced as the handshake advances.
    """

    __slots__ = ("_held", "_needed", "allowed")

    def __init__(self, allowed: Mapping[int, int]) -> None:
        """
        @param allowed: such as L{HELLO_ONLY}.
        """
        self.allowed = allowed
        self._held = bytearray()
        self._needed = 5

    @property
    def buffered(self) -> int:
        """How many octets of an incomplete frame are held."""
        return len(self._held)

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that C{data} completes, in order.

        @raise BadFrame: something else than an allowed frame arrived; nothing may be fed any more.
        """
        held = self._held
        if held:
            held += data
            if len(held) < self._needed:
                return []
            data = bytes(held)
            held.clear()
        frames: list[Frame] = []
        at, end = 0, len(data)
        try:
            while end - at >= 5:
                size, kind = _START.unpack_from(data, at)
                if not 0 < size <= self.allowed.get(kind, 0):
                    raise BadFrame(f"a frame of kind {kind} and {size} octets was not expected")
                stop = at + 4 + size
                if stop > end:
                    break
                frames.append(_PARSERS[kind](data, at + 5, stop))
                at = stop
        except (error, UnicodeDecodeError) as wrong:
            raise BadFrame("a frame is shorter than it says, or its text is not UTF-8") from wrong
        if at < end:
            self._hold(data[at:])
        return frames

    def _hold(self, rest: bytes) -> None:
        """Keep the beginning of a frame; when its size is known, wait for all of it."""
        self._held += rest
        self._needed = 4 + _START.unpack_from(rest)[0] if len(rest) >= 5 else 5
