"""Frames of what travels in parts: calls and replies that are too long to stand in the way of others.

A call over L{WHOLE_LIMIT} is announced with C{OPEN}: its head, who makes it, and the size of its body if
that is known.  The home answers at once if it will not have it; else it lets the body come with C{WINDOW}, so
many octets at a time, and the caller sends it in C{PART}s, the last of which says so.  The call is executed
when all of it is there, and then is like any other.  A caller that has sent all of it and does not have it
any more when the link breaks asks with C{ASK}: the home answers it, or hands it back if it has never had all
of it.

A long reply begins with C{BEGIN}: its size, and the first of its octets, at least all of its head.  The rest
comes in C{PART}s too, and the windows are the caller's.

Either end may drop the matter at any time, the caller with C{CANCEL}, the home with another reply or with
C{RETURNED}; parts that are on their way then are thrown away.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

from rvpfarm.link.kinds import BadFrame, Kind
from rvpfarm.protocol.calls import Call

#: What travels in one frame: head and body of a call together, or a reply.
WHOLE_LIMIT = 65536
#: Most octets of a body or reply in one frame, if it travels in parts.
PART_SIZE = 16384
#: Most octets that may be on their way without having been asked for again.
WINDOW_SIZE = 65536

_UNKNOWN = 2**64 - 1
_FLAG = 1
_OPEN = Struct("!IBQBBBIQ")
_OPEN_REST = Struct("!QBBBIQ")
_PART = Struct("!IBQB")
_PART_REST = Struct("!QB")
_WINDOW = Struct("!IBQI")
_WINDOW_REST = Struct("!QI")
_BEGIN = Struct("!IBQBI")
_BEGIN_REST = Struct("!QBI")
#: What the frames measure beside what they carry, kind octets included.
OPEN_OVERHEAD, PART_OVERHEAD, WINDOW_TOTAL, BEGIN_OVERHEAD = 24, 10, 13, 14


@dataclass(slots=True, eq=False)
class Open:
    """A call whose body comes in parts; the other fields are those of L{rvpfarm.link.frames.CallFrame}.

    @ivar size: of the body, or C{None} if only its last part will tell.
    """

    id: int
    vouched: bool
    withheld: int
    peer: str
    connection: str
    head: bytes
    size: int | None


@dataclass(slots=True, eq=False)
class Part:
    """A piece of the body of the call C{id}, or of the reply to it.

    @ivar last: nothing follows.
    """

    id: int
    last: bool
    data: bytes


@dataclass(frozen=True, slots=True)
class Window:
    """So many more octets may be sent of what travels under that C{id}."""

    id: int
    octets: int


@dataclass(slots=True, eq=False)
class Begin:
    """The beginning of a long reply to the call C{id}.

    @ivar close: see L{rvpfarm.protocol.calls.Relayed}.
    @ivar size: of all of it.
    """

    id: int
    close: bool
    size: int
    wire: bytes


@dataclass(frozen=True, slots=True)
class Ask:
    """What became of the call C{id}, which was sent to its end?"""

    id: int


def render_open(id: int, call: Call, size: int | None) -> bytes:
    """The frame that announces C{call}.

    @param size: of its body, if that is known.
    """
    peer, connection, head = call.peer.encode(), call.connection.encode(), call.head
    length = OPEN_OVERHEAD + len(peer) + len(connection) + len(head)
    flags = call.withheld << 1 | (_FLAG if call.vouched else 0)
    sizes = (len(peer), len(connection), len(head), _UNKNOWN if size is None else size)
    return b"".join((_OPEN.pack(length, Kind.OPEN, id, flags, *sizes), peer, connection, head))


def parse_open(data: bytes, at: int, stop: int) -> Open:
    """The L{Open} in a frame.

    @raise BadFrame: it is malformed.
    """
    id, flags, peer, connection, head, size = _OPEN_REST.unpack_from(data, at)
    peer += at + OPEN_OVERHEAD - 1
    connection += peer
    head += connection
    if head != stop:
        raise BadFrame("an announced call of the wrong size")
    return Open(
        id,
        flags & _FLAG == _FLAG,
        flags >> 1,
        data[at + OPEN_OVERHEAD - 1 : peer].decode(),
        data[peer:connection].decode(),
        data[connection:head],
        None if size == _UNKNOWN else size,
    )


def render_part(id: int, data: bytes, last: bool) -> bytes:
    """The frame of a L{Part}."""
    return _PART.pack(PART_OVERHEAD + len(data), Kind.PART, id, last) + data


def parse_part(data: bytes, at: int, stop: int) -> Part:
    """The L{Part} in a frame.

    @raise BadFrame: it is malformed, or empty and not the last.
    """
    id, flags = _PART_REST.unpack_from(data, at)
    last = flags & _FLAG == _FLAG
    if at + 9 > stop or (at + 9 == stop and not last):
        raise BadFrame("a part with nothing in it")
    return Part(id, last, data[at + 9 : stop])


def render_window(id: int, octets: int) -> bytes:
    """The frame of a L{Window}."""
    return _WINDOW.pack(WINDOW_TOTAL, Kind.WINDOW, id, octets)


def parse_window(data: bytes, at: int, stop: int) -> Window:
    """The L{Window} in a frame.

    @raise BadFrame: it is malformed.
    """
    if stop - at != WINDOW_TOTAL - 1:
        raise BadFrame("a window of the wrong size")
    return Window(*_WINDOW_REST.unpack_from(data, at))


def render_begin(id: int, close: bool, size: int, wire: bytes) -> bytes:
    """The frame of a L{Begin}."""
    return _BEGIN.pack(BEGIN_OVERHEAD + len(wire), Kind.BEGIN, id, close, size) + wire


def parse_begin(data: bytes, at: int, stop: int) -> Begin:
    """The L{Begin} in a frame.

    @raise BadFrame: it is malformed.
    """
    id, flags, size = _BEGIN_REST.unpack_from(data, at)
    wire = data[at + BEGIN_OVERHEAD - 1 : stop]
    if len(wire) >= size:
        raise BadFrame("a long reply that begins with all of it")
    return Begin(id, flags & _FLAG == _FLAG, size, wire)
