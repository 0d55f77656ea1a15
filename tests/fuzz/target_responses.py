"""Responses: one at a time, the same however it is cut, and nothing but a C{ValueError} for what is none."""

from __future__ import annotations

from rvpfarm.protocol.calls import Reply
from rvpfarm.web.chunks import SIZE_LINE_LIMIT, TRAILERS_LIMIT
from rvpfarm.web.responses import Response, ResponseReader
from rvpfarm.web.writer import render_reply
from tests.fuzz.cuts import pieces
from tests.support import printed
from tests.web.test_responses import MIR, NET, OURS
from tests.web.test_smuggling import CHUNKS, FIELDS

HEAD_LIMIT = 600
BODY_LIMIT = 200

_FRAMING = frozenset({b"content-length", b"transfer-encoding"})

#: Said of a body of unknown length when it is there at once.
_TOO_LONG = "the body of a response is too long"

TOKENS = (
    *(
        b"HTTP/1.1 200 Successful\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.0 207 ",
        b"HTTP/1.9 204",
        b" 304",
    ),
    *(
        b"101",
        b"HTTP/1.",
        b"\r\n",
        b"\n",
        b"\r",
        b"\r\n\r\n",
        b"\n\n",
        b"\n ",
        b"\r\n\t",
        b": ",
        b" :",
        b", ",
        b"\x00",
    ),
    *(
        b"Content-Length: 3\r\n",
        b"Content-Length: 3, 3\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"chunked",
        b"close",
    ),
    *(b"Connection: close\r\n", b"Connection: Keep-Alive\r\n", b"keep-alive", b"WWW-Authenticate: NTLM\r\n"),
    *(
        b'WWW-Authenticate: Digest realm="a", nonce="b"\r\n',
        b"3\r\nabc\r\n",
        b"0\r\n\r\n",
        b";x",
        b"abc",
        b"x" * 70,
    ),
)


def seeds() -> list[bytes]:
    """Answers of servers and clients, and bodies whose length is a matter of opinion."""
    body = printed.MULTISTATUS_NAME[:150]
    some = [OURS, MIR, NET, NET + b"abc", b"HTTP/1.1 100 Continue\r\n\r\n" + OURS]
    some.append(b"HTTP/1.0 207 Multi-Status\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    some.append(
        b'HTTP/1.1 401 No\nWWW-Authenticate: NTLM\nWWW-Authenticate: Digest realm="a",\n nonce="b"\n\n'
    )
    some += [
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (n, b"x" * n)
        for n in (BODY_LIMIT, BODY_LIMIT + 1)
    ]
    some += [
        b"HTTP/1.1 200 OK\r\nX: %s\r\n\r\n" % (b"y" * HEAD_LIMIT),
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 250,
    ]
    some += [b"HTTP/1.1 200 OK\r\n%s\r\n0\r\n\r\n" % line for line in FIELDS.values()]
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return some + [chunked + b"3\r\nabc\r\n0\r\n\r\n"] + [chunked + chunks for chunks in CHUNKS.values()]


def fuzz_one(data: bytes) -> None:
    """Read C{data} as what a server answers, until a body of unknown length ends or not."""
    parts = pieces(data)
    for until_close in (False, True):
        whole, cut = _read([data], until_close), _read(parts, until_close)
        if not isinstance(cut, Response):
            assert cut == whole, (cut, whole)
            continue
        framed = not _FRAMING.isdisjoint(cut.headers) or cut.status in (101, 204, 304)
        if isinstance(whole, Response):
            # octets that follow, or are a body of unknown length, come in time or too late
            assert (cut.status, cut.headers, cut.challenges) == (
                whole.status,
                whole.headers,
                whole.challenges,
            )
            assert cut.body == whole.body if framed or until_close else whole.body.startswith(cut.body)
            assert cut.reusable or not whole.reusable
        else:
            assert whole == _TOO_LONG, whole
            assert not framed and not until_close, cut


def _read(parts: list[bytes], until_close: bool) -> Response | str | None:
    """The response, C{None} if the stream has none, or why it is no such stream."""
    reader = ResponseReader(body_limit=BODY_LIMIT, head_limit=HEAD_LIMIT, until_close=until_close)
    for part in parts:
        try:
            response = reader.feed(part)
        except ValueError as refused:
            return str(refused)
        if response is not None:
            return _checked(response)
        _check_bounds(reader)
    ended = reader.eof()
    if ended is not None:
        assert not ended.reusable
        _checked(ended)
    return ended


def _check_bounds(reader: ResponseReader) -> None:
    """No more is kept than one response may measure."""
    kept, chunks = len(reader._buffer), reader._chunks
    if chunks is not None:
        assert len(chunks.body) <= BODY_LIMIT
        assert kept < max(SIZE_LINE_LIMIT, TRAILERS_LIMIT), kept
    else:
        assert kept <= (HEAD_LIMIT if reader._response is None else BODY_LIMIT), kept


def _checked(response: Response) -> Response:
    """The same response, if it is one that we could have to hand on."""
    assert 100 <= response.status <= 599
    assert response.status >= 200 or response.status == 101
    assert len(response.body) <= BODY_LIMIT
    assert b"www-authenticate" not in response.headers
    own = (b"content-length", b"transfer-encoding", b"connection", b"host", b"rvp-notifications-version")
    # a repeated field whose last value is empty ends in a comma and a space
    fields = [(name, value.strip()) for name, value in response.headers.items() if name not in own]
    fields += [(b"WWW-Authenticate", challenge) for challenge in response.challenges]
    wire = render_reply(Reply(response.status, tuple(fields), response.body, b"Yes"))
    again = ResponseReader(body_limit=BODY_LIMIT, head_limit=8 * HEAD_LIMIT).feed(wire)
    assert again is not None
    if response.status not in (101, 204, 304):
        assert (again.body, again.reusable) == (response.body, True)
    assert (again.status, again.challenges) == (response.status, response.challenges)
    assert {name: again.headers[name] for name, _ in fields if name != b"WWW-Authenticate"} == {
        name: value for name, value in fields if name != b"WWW-Authenticate"
    }
    return response
