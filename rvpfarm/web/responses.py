"""Bytes to responses: what call-backs, homes and the servers of other organisations answer.

More tolerant than the reader of requests, for real clients answer with LF, without a length, and without
a single RVP header (protocol notes 2.1, rules 10 and 11).  Whatever is unusual is read, but the
connection is then not used again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from rvpfarm.protocol.calls import Refusal
from rvpfarm.web.chunks import ChunkedBody
from rvpfarm.web.fields import SPELLINGS, field_name, head_end, is_strict, split_lines

_STATUS_LINE = re.compile(rb"HTTP/1\.([0-9]) +([1-5][0-9][0-9])(?: .*)?")
_LENGTH = re.compile(rb"([0-9]{1,18})(?:[ \t]*,[ \t]*\1)*")
_CHALLENGE = b"www-authenticate"

#: How many answers without a body are known by heart, and how long each may be.
_KNOWN, _KNOWN_LENGTH = 1000, 300


# Made once per delivery on the hot path, like Call and Reply: frozen it would cost four times as much.
@dataclass(slots=True)
class Response:
    """One answer, whole.

    @ivar headers: field values by lower-cased name, repeated ones joined with C{", "}; without
        C{WWW-Authenticate}.
    @ivar challenges: the values of the C{WWW-Authenticate} lines, one each.
    @ivar reusable: the connection may carry another request.
    """

    status: int
    headers: Mapping[bytes, bytes]
    challenges: tuple[bytes, ...] = ()
    body: bytes = b""
    reusable: bool = False


# A client acknowledges every notification with the same octets: nobody may change what these mean.
_answers: dict[bytes, Response] = {}

#: The answer that is all of these octets, if it was read before and has no body; C{None} for any other.
usual_answer: Callable[[bytes], Response | None] = _answers.get


class ResponseReader:
    """Turns what one connection brings into L{Response}s; one is expected at a time.

    Interim responses (1xx but 101) are skipped.
    """

    __slots__ = (
        "_body_limit",
        "_buffer",
        "_chunks",
        "_head_limit",
        "_length",
        "_response",
        "_searched",
        "_until_close",
    )

    def __init__(
        self, *, body_limit: int = 1 << 20, head_limit: int = 16384, until_close: bool = False
    ) -> None:
        """
        @param until_close: wait for a body whose length is not announced until the connection ends; a
            sender of NOTIFY must not (protocol notes 2.1, rule 10).
        """
        self._body_limit = body_limit
        self._head_limit = head_limit
        self._until_close = until_close
        self._buffer = bytearray()
        self._searched = 0  # the head does not end before this offset
        self._response: Response | None = None  # its head is complete, its body is not
        self._length: int | None = 0  # of that body; None when it was not announced
        self._chunks: ChunkedBody | None = None

    def feed(self, data: bytes) -> Response | None:
        """Take what arrived.

        @return: the response, as soon as it is complete; octets that follow it are thrown away.
        @raise ValueError: this is no HTTP, or it is larger than allowed; the connection is of no use.
        """
        fresh = not self._buffer and self._response is None
        if fresh:
            known = usual_answer(data)
            if known is not None:
                return known
        self._buffer += data
        while self._response is None:
            response = self._take_head()
            if response is None:
                return None
            if response.status >= 200 or response.status == 101:
                self._frame(response)
        whole = self._take_body()
        if fresh and whole is not None and whole.reusable and not whole.body and len(data) <= _KNOWN_LENGTH:
            if len(_answers) >= _KNOWN:
                _answers.clear()
            headers = MappingProxyType(dict(whole.headers))
            _answers[data] = Response(whole.status, headers, whole.challenges, b"", True)
        return whole

    def eof(self) -> Response | None:
        """The connection ended: the response, if what has arrived of it says all that it was to say.

        A body that was announced and is not complete makes it C{None}; a head without its empty line
        does not.
        """
        response, body = self._response, bytes(self._buffer)
        if response is not None:
            if self._length is not None or self._chunks is not None:
                return None
            response.body, response.reusable = body, False
            return response
        lines, newline, _ = body.rpartition(b"\n")
        if not newline:
            return None
        try:
            response = _parse(split_lines(lines + b"\n\n"))
        except (ValueError, Refusal):
            return None
        announced = response.headers.get(b"content-length", b"0").strip(b"0")
        if response.status < 200 or announced or b"transfer-encoding" in response.headers:
            return None
        response.reusable = False
        return response

    def _take_head(self) -> Response | None:
        buffer = self._buffer
        lines: list[bytes] | None = None
        end = buffer.find(b"\r\n\r\n", self._searched, self._head_limit) + 4
        if end >= 4:
            head = bytes(buffer[:end])
            lines = head[:-4].split(b"\r\n")
            if not is_strict(head, lines):
                lines = None
        if lines is None:
            end = head_end(buffer, self._searched, self._head_limit)
            if end < 0:
                if len(buffer) >= self._head_limit:
                    raise ValueError("the head of a response is too long")
                self._searched = max(0, len(buffer) - 3)
                return None
        try:
            response = _parse(lines if lines is not None else split_lines(bytes(buffer[:end])))
        except Refusal as refusal:
            raise ValueError(refusal.text) from None
        del buffer[:end]
        self._searched = 0
        return response

    def _frame(self, response: Response) -> None:
        """Decide where the body ends (RFC 9112 6.3)."""
        headers = response.headers
        self._response = response
        self._length = self._chunks = None
        if response.status in (101, 204, 304):
            self._length = 0
        elif b"transfer-encoding" in headers:
            if headers[b"transfer-encoding"].lower() != b"chunked":
                raise ValueError("a response in an unknown transfer coding")
            self._chunks = ChunkedBody(self._body_limit)
        elif b"content-length" in headers:
            self._length = _parse_length(headers[b"content-length"])
            if self._length > self._body_limit:
                raise ValueError("the body of a response is too long")

    def _take_body(self) -> Response | None:
        response, buffer = self._response, self._buffer
        if response is None:
            return None
        if self._chunks is not None:
            try:
                used = self._chunks.take(buffer, 0)
            except Refusal as refusal:
                raise ValueError(refusal.text) from None
            del buffer[:used]
            if not self._chunks.done:
                return None
            response.body = bytes(self._chunks.body)
        elif self._length is not None:
            if len(buffer) < self._length:
                return None
            if self._length:
                response.body = bytes(buffer[: self._length])
                del buffer[: self._length]
        else:
            if len(buffer) > self._body_limit:
                raise ValueError("the body of a response is too long")
            if self._until_close:
                return None
            response.body, response.reusable = bytes(buffer), False
            buffer.clear()
        if buffer:  # nobody asked for more
            response.reusable = False
            buffer.clear()
        self._response = self._chunks = None
        return response


def _parse(lines: list[bytes]) -> Response:
    """What the lines of a head say; C{reusable} as far as the head decides it.

    @raise ValueError: they are no head of a response.
    @raise Refusal: a field is malformed.
    """
    match = _STATUS_LINE.fullmatch(lines[0])
    if match is None:
        raise ValueError("a response without a status line")
    headers: dict[bytes, bytes] = {}
    challenges: list[bytes] = []
    folded = False
    name = b""
    for line in lines[1:]:
        if name and line[:1] in (b" ", b"\t"):
            folded = True
            if name == _CHALLENGE:
                challenges[-1] = (challenges[-1] + b" " + line.strip()).strip()
            else:
                headers[name] = (headers[name] + b" " + line.strip()).strip()
            continue
        spelled, colon, value = line.partition(b":")
        if not colon:
            raise ValueError("a response with a header line without a colon")
        name = SPELLINGS.get(spelled) or field_name(spelled)
        if name == _CHALLENGE:
            challenges.append(value.strip())
        elif name in headers:
            headers[name] += b", " + value.strip()
        else:
            headers[name] = value.strip()
    kept = not folded and _is_kept(headers, minor=int(match[1]))
    return Response(int(match[2]), headers, tuple(challenges), b"", kept)


def _parse_length(text: bytes) -> int:
    """One length, perhaps said several times over."""
    match = _LENGTH.fullmatch(text)
    if match is None:
        raise ValueError("a response with a strange Content-Length")
    return int(match[1])


def _is_kept(headers: dict[bytes, bytes], *, minor: int) -> bool:
    """Whether the sender means to keep the connection, and its framing is beyond doubt."""
    length = headers.get(b"content-length")
    if length is not None and (b"transfer-encoding" in headers or not length.isdigit()):
        return False
    connection = headers.get(b"connection")
    if connection is None:
        return minor >= 1
    wishes = [wish.strip() for wish in connection.lower().split(b",")]
    return b"close" not in wishes and (minor >= 1 or b"keep-alive" in wishes)
