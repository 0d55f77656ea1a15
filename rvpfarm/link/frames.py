"""The farm link on paper: how calls and replies are framed, and how two members prove each other.

A frame is a four-octet length of what follows, a one-octet kind, and the payload of that kind, all
numbers big-endian.  A connection starts with a handshake of four frames, one at a time:

  1. C{HELLO}, caller to home: magic, the caller's origin, its nonce, both names.
  2. C{CHALLENGE}, home to caller: the home's nonce.
  3. C{PROOF}, caller to home: L{Meeting.caller_proof<rvpfarm.link.meeting.Meeting.caller_proof>}.
  4. C{WELCOME}, home to caller: the home's incarnation and edition, and
     L{Meeting.home_proof<rvpfarm.link.meeting.Meeting.home_proof>}.

After it the caller sends C{CALL}, C{ANSWERED}, C{CANCEL}, C{GONE} and C{PING}; the home sends C{REPLY} and
C{PONG}.  Nothing else is understood, in either direction: an unexpected kind or size is refused from
the first five octets, before the rest of the frame is kept.

Frames that were added later belong to an I{edition} of the protocol.  A home shows its own in C{WELCOME};
a caller that knows one answers with C{EDITION}, which the home returns, and only then is either sent what
belongs to the lower of the two.  So members of different ages work together, whichever is replaced first:

  - 0: as above; all that an old home shows, and all that an old caller has heard of.
  - 1: the home announces that it is about to stop with C{LEAVING}, and hands back with C{RETURNED} what
    reaches it after that.  It is the caller that closes, when it waits for nothing more: so no call is on
    its way into a connection that is being closed.  Long calls and replies travel in parts
    (L{rvpfarm.link.parts}), so that C{CALL} and C{REPLY} are never long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from struct import Struct, error, unpack_from
from types import MappingProxyType
from typing import TypeAlias

from rvpfarm.link.kinds import EDITION, NUMBER_SIZE, START, BadFrame, Kind, parse_number, render_number
from rvpfarm.link.meeting import (
    HELLO_SIZE,
    NAME_LIMIT,
    NONCE_SIZE,
    PROOF_SIZE,
    WELCOME_SIZE,
    Challenge,
    Edition,
    Hello,
    Proof,
    Welcome,
    parse_challenge,
    parse_hello,
    parse_proof,
    parse_welcome,
    render_name,
)
from rvpfarm.link.parts import (
    BEGIN_OVERHEAD,
    OPEN_OVERHEAD,
    PART_OVERHEAD,
    PART_SIZE,
    WHOLE_LIMIT,
    WINDOW_TOTAL,
    Ask,
    Begin,
    Open,
    Part,
    Window,
    parse_begin,
    parse_open,
    parse_part,
    parse_window,
)
from rvpfarm.protocol.calls import Call, Limits, Relayed

#: What a home's reply may measure: far more than any list that a node can hold.
REPLY_LIMIT = 4 * 1024 * 1024
#: How many ids one C{ANSWERED} carries at most.
ANSWERED_LIMIT = 4096
#: What a frame may be longer than the head and the body of the call in it: a router adds to the hop
#: count, and the frame names the caller's address and connection.
CALL_SLACK = 1024
#: What the frame of a reply measures beside the reply, its length included.
REPLY_OVERHEAD = 14

_VOUCHED = 1
_CLOSE = 1


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


class ReplyFrame(Relayed):
    """The answer to the call C{id}, ready to be passed on."""

    __slots__ = ("id",)

    def __init__(self, id: int, close: bool, wire: bytes) -> None:
        self.id, self.close, self.wire = id, close, wire


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
class Leaving:
    """The home is about to stop: it begins nothing more, and answers what it has.

    @ivar seconds: for so long calls are worth holding for its next incarnation.
    """

    seconds: int


@dataclass(frozen=True, slots=True)
class Returned:
    """The home hands back the call C{id}: nothing was done, and nothing is remembered of it."""

    id: int


@dataclass(frozen=True, slots=True)
class Ping:
    """Is anybody there?"""

    token: int


@dataclass(frozen=True, slots=True)
class Pong:
    """Yes: the answer to the L{Ping} of that token."""

    token: int


Greeting: TypeAlias = Hello | Challenge | Proof | Welcome | Edition
Streamed: TypeAlias = Open | Part | Window | Begin | Ask
Frame: TypeAlias = (
    CallFrame | ReplyFrame | Answered | Cancel | Gone | Leaving | Returned | Ping | Pong | Streamed | Greeting
)


_CALL = Struct("!IBQBBBI")
_CALL_REST = Struct("!QBBBI")
_REPLY = Struct("!IBQB")
_REPLY_REST = Struct("!QB")
_CALL_KIND = int(Kind.CALL)
_REPLY_KIND = int(Kind.REPLY)


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


def reply_of(frame: bytes) -> tuple[int, bool]:
    """The id of the reply in a frame that L{render_answer} made, and whether it closes."""
    _, _, id, flags = _REPLY.unpack_from(frame)
    return id, flags & _CLOSE == _CLOSE


def render_answered(ids: Iterable[int]) -> bytes:
    """The frames that acknowledge the replies to C{ids}."""
    left, pieces = list(ids), []
    while left:
        some, left = left[:ANSWERED_LIMIT], left[ANSWERED_LIMIT:]
        pieces.append(START.pack(1 + 8 * len(some), Kind.ANSWERED))
        pieces.append(Struct(f"!{len(some)}Q").pack(*some))
    return b"".join(pieces)


def render_cancel(id: int) -> bytes:
    """The frame of a L{Cancel}."""
    return render_number(Kind.CANCEL, id)


def render_gone(connection: str) -> bytes:
    """The frame of a L{Gone}."""
    name = render_name(connection)
    return START.pack(1 + len(name), Kind.GONE) + name


def render_ask(id: int) -> bytes:
    """The frame of an L{Ask}."""
    return render_number(Kind.ASK, id)


def render_leaving(seconds: int) -> bytes:
    """The frame of a L{Leaving}."""
    return render_number(Kind.LEAVING, seconds)


def render_returned(id: int) -> bytes:
    """The frame of a L{Returned}."""
    return render_number(Kind.RETURNED, id)


def render_ping(token: int) -> bytes:
    """The frame of a L{Ping}."""
    return render_number(Kind.PING, token)


def render_pong(token: int) -> bytes:
    """The frame of a L{Pong}."""
    return render_number(Kind.PONG, token)


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


def _parse_gone(data: bytes, at: int, stop: int) -> Gone:
    size = stop - at - 1
    if size < 1 or data[at] != size:
        raise BadFrame("a closed connection without a name")
    return Gone(data[at + 1 : stop].decode())


_PARSERS: Mapping[int, Callable[[bytes, int, int], Frame]] = MappingProxyType(
    {
        Kind.HELLO: parse_hello,
        Kind.CHALLENGE: parse_challenge,
        Kind.PROOF: parse_proof,
        Kind.WELCOME: parse_welcome,
        Kind.CALL: _parse_call,
        Kind.REPLY: _parse_reply,
        Kind.ANSWERED: _parse_answered,
        Kind.CANCEL: lambda data, at, stop: Cancel(parse_number(data, at, stop)),
        Kind.GONE: _parse_gone,
        Kind.EDITION: lambda data, at, stop: Edition(parse_number(data, at, stop)),
        Kind.OPEN: parse_open,
        Kind.PART: parse_part,
        Kind.WINDOW: parse_window,
        Kind.BEGIN: parse_begin,
        Kind.ASK: lambda data, at, stop: Ask(parse_number(data, at, stop)),
        Kind.LEAVING: lambda data, at, stop: Leaving(parse_number(data, at, stop)),
        Kind.RETURNED: lambda data, at, stop: Returned(parse_number(data, at, stop)),
        Kind.PING: lambda data, at, stop: Ping(parse_number(data, at, stop)),
        Kind.PONG: lambda data, at, stop: Pong(parse_number(data, at, stop)),
    }
)

#: What is read at each stage: the largest size of every kind that may come, kind octet included.
HELLO_ONLY: Mapping[int, int] = MappingProxyType({int(Kind.HELLO): HELLO_SIZE})
CHALLENGE_ONLY: Mapping[int, int] = MappingProxyType({int(Kind.CHALLENGE): 1 + NONCE_SIZE})
PROOF_ONLY: Mapping[int, int] = MappingProxyType({int(Kind.PROOF): 1 + PROOF_SIZE})
WELCOME_ONLY: Mapping[int, int] = MappingProxyType({int(Kind.WELCOME): WELCOME_SIZE})


def from_home(edition: int = EDITION) -> Mapping[int, int]:
    """What a caller reads once both are proved.

    @param edition: the one that both speak.
    """
    if not edition:
        return {int(Kind.REPLY): REPLY_LIMIT, int(Kind.PONG): NUMBER_SIZE}
    return {
        int(Kind.REPLY): WHOLE_LIMIT + REPLY_OVERHEAD,
        int(Kind.BEGIN): BEGIN_OVERHEAD + PART_SIZE,
        int(Kind.PART): PART_OVERHEAD + PART_SIZE,
        int(Kind.WINDOW): WINDOW_TOTAL,
        int(Kind.LEAVING): NUMBER_SIZE,
        int(Kind.RETURNED): NUMBER_SIZE,
        int(Kind.PONG): NUMBER_SIZE,
    }


def from_caller(limits: Limits, edition: int = EDITION) -> Mapping[int, int]:
    """What a home reads once the caller is proved.

    @param edition: the one that both speak.
    """
    call = limits.head + limits.body
    frames = {
        int(Kind.CALL): (min(call, WHOLE_LIMIT) if edition else call) + CALL_SLACK,
        int(Kind.ANSWERED): 1 + 8 * ANSWERED_LIMIT,
        int(Kind.CANCEL): NUMBER_SIZE,
        int(Kind.GONE): 2 + NAME_LIMIT,
        int(Kind.PING): NUMBER_SIZE,
    }
    if edition:
        frames |= {
            int(Kind.OPEN): OPEN_OVERHEAD + limits.head + CALL_SLACK,
            int(Kind.PART): PART_OVERHEAD + PART_SIZE,
            int(Kind.WINDOW): WINDOW_TOTAL,
            int(Kind.ASK): NUMBER_SIZE,
        }
    return frames


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
        replies = self.allowed.get(_REPLY_KIND, 0)
        try:
            while end - at >= 5:
                if data[at + 4] == _REPLY_KIND and end - at >= REPLY_OVERHEAD:  # what comes most
                    size, _, id, flags = _REPLY.unpack_from(data, at)
                    stop = at + 4 + size
                    if REPLY_OVERHEAD - 4 <= size <= replies and stop <= end:
                        frames.append(
                            ReplyFrame(id, flags & _CLOSE == _CLOSE, data[at + REPLY_OVERHEAD : stop])
                        )
                        at = stop
                        continue
                size, kind = START.unpack_from(data, at)
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
        self._needed = 4 + START.unpack_from(rest)[0] if len(rest) >= 5 else 5
