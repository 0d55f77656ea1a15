"""Values to bytes: requests and responses as every known client can read them (protocol notes 2.1).

Lines end in CR LF, nothing is folded, chunked or compressed, and C{Content-Length} is always there.  What
would let one part of a message pose as another is never written: it is a C{ValueError}.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from rvpfarm.protocol.calls import METHODS, REASONS, Relayed, Reply
from rvpfarm.web.fields import HOST, PLAIN, SPELLINGS, TOKEN, VISIBLE

_OWN = frozenset({b"host", b"content-length", b"transfer-encoding", b"rvp-notifications-version"})
_OWN_OF_REPLIES = _OWN | {b"connection"}
_METHODS = frozenset(METHODS)


# Answers that say nothing but their status, of which there are few.
_plain_replies: dict[tuple[int, bytes, bytes], bytes] = {}


def render_reply(
    reply: Reply | Relayed, *, version: bytes = b"0.2", close: bool = False, keep_alive: bool = False
) -> bytes:
    """The bytes of an answer.

    @param version: what C{RVP-Notifications-Version} says; a relayed answer says it already.
    @param close: the connection ends after this answer, whether or not the answer itself wants that.
    @param keep_alive: say that the connection stays open, to a caller of HTTP/1.0 who asked for it;
        without effect on an answer that closes.
    @raise ValueError: a part of the answer would break its framing.
    """
    connection = b""
    if close or reply.close:
        connection = b"Connection: close\r\n"
    elif keep_alive:
        connection = b"Connection: Keep-Alive\r\n"
    if isinstance(reply, Relayed):
        return _insert(reply.wire, connection) if connection else reply.wire
    plain = (reply.status, version, connection)
    if not (reply.headers or reply.body or reply.reason):
        ready = _plain_replies.get(plain)
        if ready is None:
            ready = _plain_replies[plain] = _render_reply(reply, version, connection)
        return ready
    return _render_reply(reply, version, connection)


def _render_reply(reply: Reply, version: bytes, connection: bytes) -> bytes:
    """The bytes of an answer of our own; C{connection} is a line or nothing."""
    status = reply.status
    if not 100 <= status <= 599:
        raise ValueError(f"no status: {status}")
    reason = reply.reason or REASONS.get(status, b"")
    lines = [b"HTTP/1.1 %d %s\r\nRVP-Notifications-Version: %s\r\n" % (status, reason, version)]
    for name, value in reply.headers:
        _check_name(name, _OWN_OF_REPLIES)
        lines.append(b"%s: %s\r\n" % (name, value))
    lines.append(b"%sContent-Length: %d\r\n\r\n" % (connection, len(reply.body)))
    head = b"".join(lines)
    _check_lines(head, len(reply.headers) + (5 if connection else 4))
    return head + reply.body


def render_request(
    method: bytes,
    target: bytes,
    host: bytes,
    headers: Iterable[tuple[bytes, bytes]] = (),
    body: bytes = b"",
) -> bytes:
    """The bytes of a request: L{render_head} and the body."""
    return render_head(method, target, host, headers, body) + body


def render_head(
    method: bytes,
    target: bytes,
    host: bytes,
    headers: Iterable[tuple[bytes, bytes]] = (),
    body: bytes = b"",
) -> bytes:
    """The head of a request; the same body can then follow many heads.

    @param target: a path, or an absolute URL.
    @param host: host and, if it is not 80, port of whom it is sent to.
    @param headers: further fields, in the order in which they are to be sent.
    @param body: counted, not copied.
    @raise ValueError: a part of the head would break its framing.
    """
    return render_opening(method, target, host) + render_fields(headers, len(body))


def render_opening(method: bytes, target: bytes, host: bytes) -> bytes:
    """What every head with this request line and C{Host} begins with; L{render_fields} goes on.

    @raise ValueError: as of L{render_head}.
    """
    if method not in _METHODS and (not method or method.translate(None, TOKEN)):
        raise ValueError(f"no method: {method!r}")
    if not target or target.translate(None, VISIBLE):
        raise ValueError(f"no request target: {target!r}")
    if not host or host.translate(None, HOST):
        raise ValueError(f"no host: {host!r}")
    opening = b"%s %s HTTP/1.1\r\nHost: %s\r\nRVP-Notifications-Version: 0.2\r\n" % (method, target, host)
    _check_lines(opening, 3)
    return opening


def render_fields(headers: Iterable[tuple[bytes, bytes]], size: int) -> bytes:
    """The rest of a head, after L{render_opening}: the fields of a request with a body of C{size} octets.

    @raise ValueError: as of L{render_head}.
    """
    lines = []
    for name, value in headers:
        _check_name(name, _OWN)
        lines.append(b"%s: %s\r\n" % (name, value))
    count = len(lines) + 2
    lines.append(b"Content-Length: %d\r\n\r\n" % size)
    fields = b"".join(lines)
    _check_lines(fields, count)
    return fields


@lru_cache(maxsize=8192)
def render_field(name: bytes, value: str) -> bytes:
    """The line of one field, for whoever puts a head together that it has put together before.

    @raise ValueError: as of L{render_head}.
    """
    return render_fields(((name, value.encode()),), 0).partition(b"\r\n")[0] + b"\r\n"


def _check_name(name: bytes, own: frozenset[bytes]) -> None:
    lower = SPELLINGS.get(name)
    if lower is None:
        if not name or name.translate(None, TOKEN):
            raise ValueError(f"no field name: {name!r}")
        lower = name.lower()
    if lower in own:
        raise ValueError(f"the writer sets {name!r} itself")


def _check_lines(head: bytes, count: int) -> None:
    """Refuse a head that holds other control characters than the ends of its C{count} lines."""
    if len(head.translate(None, PLAIN)) != 2 * count:
        raise ValueError("a control character in a header field")


def _insert(wire: bytes, connection: bytes) -> bytes:
    """Put a line after the status line."""
    end = wire.find(b"\r\n") + 2
    if end < 2:
        raise ValueError("a relayed answer without a status line")
    return wire[:end] + connection + wire[end:]
