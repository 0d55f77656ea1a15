"""Takes the chunked transfer coding off a body while its octets arrive (RFC 9112 7.1).

Stricter than the readers of heads: lines end in CR LF and nothing else, sizes are bare hexadecimal
digits, and what is allowed besides the data is small.
"""

from __future__ import annotations

import re
from enum import Enum

from rvpfarm.protocol.calls import HeadTooLarge, TooLarge
from rvpfarm.web.fields import PLAIN, broken, field_name

#: Longest line with a chunk's size, extensions and line end included.
SIZE_LINE_LIMIT = 256

#: Most octets of size lines that are not digits, in one body.
EXTENSIONS_LIMIT = 4096

#: Most octets of trailers.
TRAILERS_LIMIT = 4096

#: More digits than any chunk needs; too few to overflow anything.
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})((?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?)")

#: A trailer that would have framed or routed the request, had it come in the head.
_NEVER_TRAILERS = frozenset({b"content-length", b"transfer-encoding", b"host", b"connection", b"expect"})


class _Expecting(Enum):
    SIZE = 0
    DATA = 1
    DATA_END = 2
    TRAILER = 3
    NOTHING = 4


class ChunkedBody:
    """One body on its way: give it what arrived until it is L{done}.

    @ivar body: the data so far, as far as it was not taken out with L{drain}.
    @ivar done: the last chunk and the trailers have been seen.
    """

    __slots__ = ("_drained", "_expecting", "_extensions", "_left", "_limit", "_trailers", "body")

    def __init__(self, limit: int) -> None:
        """
        @param limit: longest body, decoded.
        """
        self.body = bytearray()
        self._limit = limit
        self._left = self._drained = 0
        self._extensions = 0
        self._trailers = 0
        self._expecting = _Expecting.SIZE

    @property
    def done(self) -> bool:
        """Whether the last chunk and the trailers have been seen."""
        return self._expecting is _Expecting.NOTHING

    def drain(self) -> bytes:
        """The data so far, which is not kept any longer."""
        data = bytes(self.body)
        self.body.clear()
        self._drained += len(data)
        return data

    def take(self, source: bytes | bytearray, at: int) -> int:
        """Use up what can be used of C{source} from C{at} on.

        @return: the offset of the first octet that was not used: the start of an incomplete line, or
            what follows the body.
        @raise BadRequest: the coding is broken.
        @raise TooLarge: the body is over the limit.
        @raise HeadTooLarge: the trailers are.
        """
        while True:
            was = at
            if self._expecting is _Expecting.SIZE:
                at = self._take_size(source, at)
            elif self._expecting is _Expecting.DATA:
                at = self._take_data(source, at)
            elif self._expecting is _Expecting.DATA_END:
                at = self._take_data_end(source, at)
            elif self._expecting is _Expecting.TRAILER:
                at = self._take_trailer(source, at)
            if at == was or self._expecting is _Expecting.NOTHING:
                return at

    def _take_size(self, source: bytes | bytearray, at: int) -> int:
        end = source.find(b"\n", at, at + SIZE_LINE_LIMIT)
        if end < 0:
            if len(source) - at >= SIZE_LINE_LIMIT:
                raise broken("the line with a chunk's size is too long")
            return at
        line = bytes(source[at : end + 1])
        match = _SIZE.fullmatch(line[:-2]) if line.endswith(b"\r\n") else None
        if match is None:
            raise broken("a chunk has no proper size")
        self._extensions += len(match[2])
        if self._extensions > EXTENSIONS_LIMIT:
            raise broken("the chunk extensions are too long")
        self._left = int(match[1], 16)
        if self._drained + len(self.body) + self._left > self._limit:
            raise TooLarge("the body is longer than allowed here", close=True)
        self._expecting = _Expecting.DATA if self._left else _Expecting.TRAILER
        return end + 1

    def _take_data(self, source: bytes | bytearray, at: int) -> int:
        part = source[at : at + self._left]
        self.body += part
        self._left -= len(part)
        if not self._left:
            self._expecting = _Expecting.DATA_END
        return at + len(part)

    def _take_data_end(self, source: bytes | bytearray, at: int) -> int:
        ending = source[at : at + 2]
        if ending == b"\r\n":
            self._expecting = _Expecting.SIZE
            return at + 2
        if ending in (b"", b"\r"):
            return at
        raise broken("a chunk is not as long as its size says")

    def _take_trailer(self, source: bytes | bytearray, at: int) -> int:
        room = TRAILERS_LIMIT - self._trailers
        end = source.find(b"\n", at, at + room)
        if end < 0:
            if len(source) - at >= room:
                raise HeadTooLarge("the trailers are longer than allowed here", close=True)
            return at
        line = bytes(source[at : end + 1])
        self._trailers += len(line)
        if line == b"\r\n":
            self._expecting = _Expecting.NOTHING
            return end + 1
        name, colon, value = line[:-2].partition(b":")
        if not line.endswith(b"\r\n") or not colon or value.translate(None, PLAIN):
            raise broken("a trailer is malformed")
        if field_name(name) in _NEVER_TRAILERS:
            raise broken("a trailer that belongs into the head")
        return end + 1
