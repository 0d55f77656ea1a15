"""Requests: every octet has one meaning, however the stream is cut, and nothing follows a refusal."""

from __future__ import annotations

import re

from rvpfarm.protocol.calls import METHODS, Call, Limits
from rvpfarm.router.routing import with_hops
from rvpfarm.web.chunks import SIZE_LINE_LIMIT, TRAILERS_LIMIT
from rvpfarm.web.fields import SINGLE
from rvpfarm.web.reader import RequestReader, Stage, parse_head
from tests.fuzz.cuts import pieces
from tests.support import printed
from tests.web.test_reader import CHUNKED, LOGIN, NOTIFY
from tests.web.test_smuggling import CHUNKS, FIELDS, HEADS, HIDDEN

#: Small enough that every one of them is met.
LIMITS = Limits(target=64, head=600, fields=12, body=200)

#: What C{with_hops} adds at most.
_HOPS = len(b"\r\nRVP-Hop-Count: 7")

_REFUSALS = frozenset({400, 413, 414, 431, 505})
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})(?:[ \t]*;[^\r\n]*)?\r\n")
_TRAILERS = re.compile(rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n]*\r\n)*\r\n")
_LINE = re.compile(rb"[^\r\n]*\r?\n")

TOKENS = (
    *METHODS,
    *(name.title() + b": " for name in sorted(SINGLE)),
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"\r\n\r\n",
        b"\n\n",
        b": ",
        b" :",
        b"\r\n ",
        b"\n\t",
        b" ",
        b"\t",
        b"\x0b",
        b"\x00",
    ),
    *(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b" HTTP/2.0", b"HTTP/1.", b"GET / HTTP/1.1\r\n", b"http://", b"*"),
    *(b"Host: a\r\n", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n"),
    *(
        b"Expect: 100-continue\r\n",
        b"Connection: close\r\n",
        b"chunked",
        b"identity",
        b", ",
        b"RVP-Hop-Count: 3",
    ),
    *(b"0\r\n\r\n", b"5\r\nabcde\r\n", b"0\r\nX: y\r\n\r\n", b";a=b", b"0x", b"+5", b"ffffffff", b"x" * 70),
    HIDDEN,
)


def seeds() -> list[bytes]:
    """Requests as clients send them, and all the ways of smuggling that the tests know."""
    valid = [LOGIN, NOTIFY, LOGIN + NOTIFY, NOTIFY.replace(b"\r\n", b"\n") + LOGIN]
    valid.append(NOTIFY.replace(b"Content-Type", b"Expect: 100-continue\r\nContent-Type"))
    valid.append(CHUNKED + b"5;a=b\r\nabcde\r\n0\r\nX: y\r\n\r\n" + NOTIFY)
    valid.append(CHUNKED + b"10\r\n0123456789abcdef\r\n" * 14 + b"0\r\n\r\n")
    valid.append(NOTIFY.replace(b"Length: 11", b"Length: 201") + b"x" * 200)
    valid.append(b"NOTIFY /%s HTTP/1.1\r\nHost: a\r\n\r\n" % (b"x" * LIMITS.target))
    valid.append(LOGIN[:-2] + b"X: y\r\nx: z\r\n" * 3 + b"\r\n")
    valid.append(LOGIN[:-2] + b"X: %s\r\n\r\n" % (b"y" * LIMITS.head))
    valid.append(CHUNKED + b"1;%s\r\na\r\n" % (b"x" * 300))
    valid.append(LOGIN.replace(b"Host", b"RVP-HOP-Count: 12\r\nHost").replace(b"\r\n", b"\n"))
    valid += [
        b"PROPFIND /a HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        for body in (printed.PROPFIND, printed.PROPFIND_ALL)
    ]
    smuggled = [
        b"NOTIFY /a HTTP/1.1\r\nHost: a\r\n%s\r\n0\r\n\r\n%s" % (line, HIDDEN) for line in FIELDS.values()
    ]
    smuggled += [head + HIDDEN for head in HEADS.values()]
    chunked = b"NOTIFY /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    return valid + smuggled + [chunked + body + HIDDEN for body in CHUNKS.values()]


def fuzz_one(data: bytes) -> None:
    """Read C{data} as what a connection brings, in one piece and in several."""
    whole = _read([data])
    assert _read(pieces(data)) == whole, "the cuts make a difference"
    assert _read_early([data]) == _read_early(pieces(data)) == whole, "handing bodies over does"


def _read(parts: list[bytes]) -> object:
    """What a reader makes of a stream, as far as its caller can see."""
    reader, calls = RequestReader(LIMITS), list[Call]()
    for part in parts:
        calls += reader.feed(part)
        _check_bounds(reader)
    stream = b"".join(parts)
    used = _account(stream, calls)
    refusal = reader.refusal
    if refusal is None:
        assert reader.eof() == (reader.stage is Stage.IDLE)
        assert not reader.eof() or not stream[used:].strip(b"\r\n"), "octets are gone"
    else:
        assert refusal.status in _REFUSALS, refusal.status
        assert refusal.close
        assert refusal.reply().close
        assert not reader.eof()
        assert not reader.wants_continue
        assert reader.feed(HIDDEN) == [], "something was read after a refusal"
        assert reader.refusal is refusal
    told = refusal and (refusal.status, refusal.text)
    return [_shown(call) for call in calls], told, reader.stage, reader.wants_continue, reader.eof()


def _read_early(parts: list[bytes]) -> object:
    """The same of a reader that hands over long bodies while they arrive; of its calls those that are whole."""
    reader, calls = RequestReader(LIMITS, 40), list[Call]()
    for part in parts:
        calls += reader.feed(part)
        assert reader._chunks is None or len(reader._chunks.body) <= 40 + SIZE_LINE_LIMIT
    streams = [call.stream for call in calls if call.stream is not None]
    assert all(stream.complete for stream in streams[:-1]), "one body was left for the next"
    for call in calls:
        if call.stream is not None and call.stream.complete:
            call.body, call.stream = call.stream.take(1 << 30), None
            assert len(call.body) > 40
    refusal = reader.refusal
    told = refusal and (refusal.status, refusal.text)
    shown = [_shown(call) for call in calls if call.stream is None]
    return shown, told, reader.stage, reader.wants_continue, reader.eof()


def _shown(call: Call) -> tuple[object, ...]:
    return call.method, call.target, call.headers, call.body, call.minor, call.head


def _check_bounds(reader: RequestReader) -> None:
    """No more is kept than one request may measure."""
    kept, chunks = len(reader._buffer), reader._chunks
    if chunks is not None:
        assert len(chunks.body) <= LIMITS.body
        assert kept < max(SIZE_LINE_LIMIT, TRAILERS_LIMIT), kept
    else:
        assert kept < (LIMITS.body if reader.stage is Stage.BODY else LIMITS.head), kept
    if reader.refusal is not None:
        assert kept == 0


def _account(stream: bytes, calls: list[Call]) -> int:
    """Check that C{calls} lie in C{stream} one after the other, each as its head says; where they end."""
    at = 0
    for call in calls:
        while stream.startswith((b"\r\n", b"\n"), at):
            at += 2 if stream.startswith(b"\r\n", at) else 1
        assert stream.startswith(call.head, at), "a head that is not there"
        at += len(call.head)
        _check_head(call)
        if b"transfer-encoding" in call.headers:
            body, at = _dechunk(stream, at)
        else:
            length = int(call.headers.get(b"content-length", b"0"))
            body, at = stream[at : at + length], at + length
        assert call.body == body, "a body that is not there"
        assert len(body) <= LIMITS.body
    assert at <= len(stream)
    return at


def _check_head(call: Call) -> None:
    """What a head says is said in one way only, also to who reads it again or hands it on."""
    lines = _LINE.findall(call.head)
    assert b"".join(lines) == call.head, "a bare CR"
    names = [line.partition(b":")[0].lower() for line in lines[1:-1]]
    assert set(names) == set(call.headers)
    assert all(names.count(name) == 1 for name in SINGLE & set(names))
    assert len(call.head) <= LIMITS.head
    assert len(call.target) <= LIMITS.target
    assert len(names) <= LIMITS.fields
    headers = call.headers
    if b"transfer-encoding" in headers:
        assert headers[b"transfer-encoding"].lower() == b"chunked"
        assert call.minor == 1
        assert call.head.count(b"\n") == call.head.count(b"\r\n")
        assert b"content-length" not in headers
    assert headers.get(b"content-length", b"0").isdigit()
    again = parse_head(call.head, LIMITS)
    again.body = call.body
    assert _shown(again) == _shown(call), "the head reads differently alone"
    _check_handed_on(call)


def _check_handed_on(call: Call) -> None:
    """A router changes the hop count and nothing else."""
    limits = Limits(target=LIMITS.target, head=LIMITS.head + _HOPS, fields=LIMITS.fields + 1)
    handed = parse_head(with_hops(call.head, 7), limits)
    assert (handed.method, handed.target, handed.minor) == (call.method, call.target, call.minor)
    assert handed.headers == {**call.headers, b"rvp-hop-count": b"7"}


def _dechunk(stream: bytes, at: int) -> tuple[bytes, int]:
    """The body whose chunks begin at C{at}, read in another way than ours; and where they end."""
    body = b""
    while True:
        match = _CHUNK.match(stream, at)
        assert match is not None, "no chunk where one was read"
        size, at = int(match[1], 16), match.end()
        if not size:
            break
        body += stream[at : at + size]
        assert stream.startswith(b"\r\n", at + size), "a chunk of another size was read"
        at += size + 2
    match = _TRAILERS.match(stream, at)
    assert match is not None, "no trailers where some were read"
    return body, match.end()
