"""Bytes to requests: a strict, resumable reader that knows no transport.

The usual head (CR LF throughout, a C{Content-Length}) is found and split by the C code of C{bytes};
everything else takes a slower way or is refused.  What is accepted has one meaning only: wherever two
readers of HTTP could disagree about where a request ends, or about what a field says, the request is
refused and the connection with it (RFC 9112 11.2).  The single exception is asked for by real clients:
lines of a head may end in a bare LF (protocol notes 2.1).

Responses are read by L{rvpfarm.web.responses}, the chunked coding by L{rvpfarm.web.chunks}.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TypeVar

from rvpfarm.protocol.calls import (
    METHODS,
    Call,
    HeadTooLarge,
    Limits,
    Refusal,
    TargetTooLong,
    TooLarge,
    WrongVersion,
)
from rvpfarm.protocol.streams import BodyStream
from rvpfarm.web.chunks import ChunkedBody
from rvpfarm.web.fields import (
    HOST,
    PLAIN,
    SINGLE,
    SPELLINGS,
    TOKEN,
    VISIBLE,
    broken,
    field_name,
    head_end,
    is_strict,
    split_lines,
)

_LINE_END = b"\r\n"

#: How many empty lines may stand before a request line (RFC 9112 2.2 asks for one at least).
_EMPTY_LINES = 2

#: More digits than any length needs; too few to overflow anything.
_LENGTH_DIGITS = 18

#: So many different lines of heads are kept with what they say, if they are no longer than this.
KEPT, KEPT_LENGTH = 10_000, 200

_Said = TypeVar("_Said")
_METHODS = frozenset(METHODS)
_MINORS = {b"HTTP/1.1": 1, b"HTTP/1.0": 0}
_DEFAULTS = Limits()


class Stage(Enum):
    """How far the request has come that is arriving; each stage has a deadline of its own."""

    IDLE = "between requests"
    HEAD = "in the head"
    BODY = "in the body"


class RequestReader:
    """Turns what one connection brings into L{Call}s, in order, each when it is whole.

    A call with a long body may be handed over before its body has come, which then goes into its C{stream}.

    @ivar refusal: why the stream cannot be read further, once that is so.  It is to be answered after
        the calls that came before it; whatever follows is thrown away.
    @ivar idle: nothing has begun to arrive, and nothing is refused.
    @ivar wants_continue: the caller waits for C{100 Continue} before it sends the body.  Whoever sends
        that clears it.
    """

    __slots__ = (
        "_buffer",
        "_call",
        "_chunks",
        "_empty_lines",
        "_length",
        "_limits",
        "_loose",
        "_searched",
        "_whole",
        "idle",
        "refusal",
        "wants_continue",
    )

    def __init__(self, limits: Limits, stream_over: int | None = None) -> None:
        """
        @param limits: the sizes a request may have.
        @param stream_over: bodies longer than this are handed over while they arrive, when so much of them
            has come; none if C{None}.
        """
        self.refusal: Refusal | None = None
        self.idle = True
        self.wants_continue = False
        self._limits = limits
        self._whole = limits.body if stream_over is None else min(limits.body, stream_over)
        self._buffer = bytearray()  # arrived and not used yet; it begins where the head or body does
        self._searched = 0  # the head does not end before this offset of the buffer
        self._loose = False  # this caller ends its lines in LF
        self._empty_lines = 0
        self._call: Call | None = None  # its head is complete, its body is not
        self._length = 0  # of that body
        self._chunks: ChunkedBody | None = None  # or, instead, the body itself

    @property
    def stage(self) -> Stage:
        """How far the request has come that is arriving."""
        if self._call is not None:
            return Stage.BODY
        return Stage.HEAD if self._buffer else Stage.IDLE

    def eof(self) -> bool:
        """The connection ended: whether it did so cleanly, between requests."""
        return self.refusal is None and self.stage is Stage.IDLE

    def feed(self, data: bytes) -> list[Call]:
        """Take what arrived.  Never raises: a broken stream sets L{refusal}.

        @return: the calls that are complete now, or whose bodies will follow, without C{peer} and
            C{connection}.
        """
        if self.idle:
            call = self._take_whole(data)
            if call is not None:
                return [call]
        calls: list[Call] = []
        if self.refusal is None:
            try:
                self._read(data, calls)
            except Refusal as refusal:
                self._stop(refusal)
            self.idle = not self._buffer and self._call is None and self.refusal is None
        return calls

    def _take_whole(self, data: bytes) -> Call | None:
        """The call that C{data} is, if it is one, all of it and no more, as is usual.

        What is unusual in any way is left to L{_read}, which then knows what it is or refuses it.
        """
        limits = self._limits
        end = data.find(b"\r\n\r\n", 0, limits.head)
        if end < 0 or self._loose:
            return None
        lines = data[:end].split(b"\r\n")
        try:
            method, target, minor = known_openings[lines.pop(0)]
            headers = dict(map(known_fields.__getitem__, lines))
        except Refusal:
            return None
        end += 4
        if (
            headers.get(b"content-length", b"0") != b"%d" % (len(data) - end)
            or len(data) - end > self._whole
            or b"transfer-encoding" in headers
            or b"expect" in headers
            or not (headers.get(b"host") or not minor)
            or not len(headers) == len(lines) <= limits.fields
            or not len(target) <= limits.target
        ):
            return None
        self._empty_lines = 0
        return Call(method, target, headers, data[end:], minor, data[:end])

    def _stop(self, refusal: Refusal) -> None:
        self.refusal = refusal.with_traceback(None)  # whose frames would keep the data
        self.wants_continue = False
        self._buffer = bytearray()
        self._call = self._chunks = None

    def _read(self, data: bytes, calls: list[Call]) -> None:
        buffer = self._buffer
        source: bytes | bytearray = data
        if buffer:
            buffer += data
            source = buffer
        at, size = 0, len(source)
        while at < size:
            call = self._call
            if call is None:
                if source[at] in _LINE_END:
                    used = self._skip_empty_line(source, at)
                    if not used:
                        break
                    at += used
                    continue
                call = self._take_head(source, at, size)
                if call is None:
                    break
                at += len(call.head)
                self._frame(call)
            if self._chunks is None and call.stream is None:
                end = at + self._length
                if end > size:
                    if size - at > self._whole:
                        at = self._hand_over(call, source, at, calls)
                    break
                if end > at:
                    call.body = bytes(source[at:end])
                    at = end
            else:
                at = self._take_slowly(call, source, at, calls)
                if self._chunks is not None or self._length:
                    break
            self._call = None
            self.wants_continue = False
            if call.stream is None:
                calls.append(call)
            else:
                call.stream.finish()
        if source is buffer:
            del buffer[:at]
        elif at < size:
            buffer += data[at:]

    def _skip_empty_line(self, source: bytes | bytearray, at: int) -> int:
        """The length of the empty line at C{at}; 0 when only its CR is there yet."""
        if source.startswith(b"\n", at):
            used = 1
        elif source.startswith(b"\r\n", at):
            used = 2
        elif len(source) - at == 1:
            return 0
        else:
            raise broken("a bare CR before the request line")
        self._empty_lines += 1
        if self._empty_lines > _EMPTY_LINES:
            raise broken("empty lines before the request line")
        return used

    def _take_head(self, source: bytes | bytearray, at: int, size: int) -> Call | None:
        """The request whose head begins at C{at}, without its body; C{None} when the head goes on."""
        stop = at + self._limits.head
        start = at + self._searched
        end = -1 if self._loose else source.find(b"\r\n\r\n", start, stop)
        if end >= 0:
            head = bytes(source[at : end + 4])
            lines = head[:-4].split(b"\r\n")
            if is_strict(head, lines):
                self._searched = self._empty_lines = 0
                return _make_call(head, lines, self._limits)
        end = head_end(source, start, stop)
        if end < 0:
            if size - at >= self._limits.head:
                raise _too_large(bytes(source[at:stop]), self._limits)
            self._searched = max(0, size - at - 3)  # the end may have begun to arrive
            return None
        self._searched = self._empty_lines = 0
        self._loose = True
        head = bytes(source[at:end])
        return _make_call(head, split_lines(head), self._limits)

    def _hand_over(self, call: Call, source: bytes | bytearray, at: int, calls: list[Call]) -> int:
        """Hand over a call whose body is long and goes on.

        @return: as L{_take_slowly}.
        """
        call.stream = BodyStream(self._length)
        calls.append(call)
        return self._take_slowly(call, source, at, calls)

    def _take_slowly(self, call: Call, source: bytes | bytearray, at: int, calls: list[Call]) -> int:
        """Take what has come of a body that is in chunks or is handed over while it arrives.

        @return: the offset of what was not used; if no length and no chunks are left, that was all.
        """
        chunks = self._chunks
        if chunks is None:
            assert call.stream is not None
            piece = bytes(source[at : at + self._length])
            self._length -= len(piece)
            call.stream.feed(piece)
            return at + len(piece)
        at = chunks.take(source, at)
        if call.stream is None and len(chunks.body) > self._whole:
            call.stream = BodyStream(None)
            calls.append(call)
        if call.stream is not None:
            call.stream.feed(chunks.drain())
        if chunks.done:
            if call.stream is None:
                call.body = bytes(chunks.body)
            self._chunks, self._length = None, 0
        return at

    def _frame(self, call: Call) -> None:
        """Decide where the body of C{call} ends, from its head alone (RFC 9112 6.3).

        @raise BadRequest: the head does not say it in one way only.
        @raise TooLarge: the body is over the limit.
        """
        headers = call.headers
        length = headers.get(b"content-length")
        if b"transfer-encoding" in headers:
            if length is not None:
                raise broken("both Content-Length and Transfer-Encoding")
            _check_chunked(call)
            self._chunks = ChunkedBody(self._limits.body)
        else:
            self._length = 0 if length is None else _parse_length(length)
            if not self._length:
                return
            if self._length > self._limits.body:
                raise TooLarge("the body is longer than allowed here", close=True)
        self._call = call
        if call.minor and b"expect" in headers:
            expected = headers[b"expect"].lower().split(b",")
            self.wants_continue = b"100-continue" in [item.strip() for item in expected]


def parse_head(head: bytes, limits: Limits = _DEFAULTS) -> Call:
    """The request that a whole head describes, for whoever receives its body by other means.

    The fields that frame a body are read like all others and decide nothing.

    @param head: as in L{Call.head}: from the request line to the empty line and including it.
    @raise Refusal: as L{RequestReader} would refuse it.
    """
    if len(head) > limits.head:
        raise _too_large(head[: limits.head], limits)
    if head.endswith(b"\r\n\r\n"):
        lines = head[:-4].split(b"\r\n")
        if is_strict(head, lines):
            return _make_call(head, lines, limits)
    if not head.endswith((b"\n\n", b"\n\r\n")):
        raise broken("the head does not end in an empty line")
    return _make_call(head, split_lines(head), limits)


def _make_call(head: bytes, lines: list[bytes], limits: Limits) -> Call:
    """Judge the lines of a head; they hold no control characters but tabs."""
    if len(lines) - 1 > limits.fields:
        raise HeadTooLarge("more header fields than allowed here", close=True)
    method, target, minor = known_openings[lines[0]]
    if len(target) > limits.target:
        raise TargetTooLong("the request target is longer than allowed here", close=True)
    del lines[0]
    headers = dict(map(known_fields.__getitem__, lines))
    if len(headers) != len(lines):
        headers = _join(lines)
    if minor and not headers.get(b"host") and (target[:1] == b"/" or target == b"*"):
        raise broken("HTTP/1.1 without Host")
    return Call(method, target, headers, b"", minor, head)


def _read_opening(line: bytes) -> tuple[bytes, bytes, int]:
    """The method, the target and the minor version of a request line."""
    _check_plain(line)
    try:
        method, target, version = line.split(b" ")
    except ValueError:
        raise broken("the request line is not a method, a target and a version") from None
    minor = _MINORS.get(version)
    if minor is None:
        raise _strange_version(version)
    if method not in _METHODS and (not method or method.translate(None, TOKEN)):
        raise broken("the method has an impossible name")
    if not target or target.translate(None, VISIBLE):
        raise broken("the request target is no URL")
    if not target.startswith(b"/") and target != b"*":
        scheme, _, rest = target.partition(b"://")
        if scheme.lower() not in (b"http", b"https") or rest[:1] in (b"", b"/", b"?", b"#"):
            raise broken("the request target is neither a path nor an http URL")
    return method, target, minor


def _read_field(line: bytes) -> tuple[bytes, bytes]:
    """The lower-cased name of a field, and its value."""
    _check_plain(line)
    spelled, colon, value = line.partition(b":")
    name = SPELLINGS.get(spelled) or field_name(spelled)
    if not colon:
        raise broken("a header line without a colon")
    value = value.strip()  # only spaces and tabs are left to strip
    if name == b"host" and value.translate(None, HOST):
        raise broken("Host is no host name")
    return name, value


def _check_plain(line: bytes) -> None:
    if line.translate(None, PLAIN):
        raise broken("a control character in the head")


def _join(lines: list[bytes]) -> dict[bytes, bytes]:
    """The fields of a head in which a name occurs twice."""
    headers: dict[bytes, bytes] = {}
    for name, value in map(known_fields.__getitem__, lines):
        if name not in headers:
            headers[name] = value
        elif name in SINGLE:
            raise broken("a header field that may occur once occurs twice")
        else:
            headers[name] += b", " + value
    return headers


class _Lines(dict[bytes, _Said]):
    """What lines of heads say.  Callers write the same ones again and again: the first time they are read.

    Only what was read and found good is kept, by all of its octets, and nothing that proves who somebody is.
    """

    __slots__ = ("_read",)

    def __init__(self, read: Callable[[bytes], _Said]) -> None:
        self._read = read

    def __missing__(self, line: bytes) -> _Said:
        said = self._read(line)
        if len(line) <= KEPT_LENGTH and line[:13].lower() != b"authorization":
            if len(self) >= KEPT:
                self.clear()
            self[line] = said
        return said


#: What request lines say.
known_openings = _Lines(_read_opening)
#: What lines that are fields say.
known_fields = _Lines(_read_field)


def _parse_length(text: bytes) -> int:
    if not text.isdigit() or len(text) > _LENGTH_DIGITS:
        raise broken("Content-Length is not a number")
    return int(text)


def _check_chunked(call: Call) -> None:
    """No client of ours sends chunks; who does must write them as every reader of HTTP understands them."""
    if call.headers[b"transfer-encoding"].lower() != b"chunked":
        raise broken("a transfer coding other than chunked")
    if not call.minor:
        raise broken("Transfer-Encoding in HTTP/1.0")
    if call.head.count(b"\n") != call.head.count(b"\r\n"):
        raise broken("Transfer-Encoding in a head with lines that do not end in CR LF")


def _strange_version(version: bytes) -> Refusal:
    if version.startswith(b"HTTP/"):
        return WrongVersion("neither HTTP/1.0 nor HTTP/1.1", close=True)
    return broken("the request line does not end in a version")


def _too_large(start: bytes, limits: Limits) -> Refusal:
    """Why a head that does not end inside its limit is refused: for its target, or for all of it."""
    line, newline, _ = start.partition(b"\n")
    target = line.split(b" ")[1:2]
    if not newline or (target and len(target[0]) > limits.target):
        return TargetTooLong("the request target is longer than allowed here", close=True)
    return HeadTooLarge("the head is longer than allowed here", close=True)
