"""What the lines of an HTTP head are made of: characters, field names, and where a head ends.

RFC 9110 5 and RFC 9112 2 to 5, read strictly; the one liberty taken is that a line may end in a bare LF
(protocol notes 2.1).  Shared by the readers and the writer, so that nothing is written here that would
be refused there.
"""

from __future__ import annotations

from rvpfarm.protocol.calls import BadRequest

_ALPHANUMERIC = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

#: What may stand inside a line: visible ASCII, space, tab and the octets above ASCII; no other control.
PLAIN = bytes([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)])

#: Visible ASCII: what a request target is made of.
VISIBLE = bytes(range(0x21, 0x7F))

#: What methods and field names are made of (RFC 9110 5.6.2).
TOKEN = _ALPHANUMERIC + b"!#$%&'*+-.^_`|~"

#: What a C{Host} is made of: names, addresses, a port.  No comma, no slash, no C{@}.
HOST = _ALPHANUMERIC + b"-._~%:[]"

#: Fields of which a request has one at most; a second one is refused, never joined to the first.
SINGLE = frozenset(
    {
        b"authorization",
        b"call-back",
        b"content-length",
        b"content-type",
        b"depth",
        b"host",
        b"notification-type",
        b"rvp-ack-type",
        b"rvp-from-principal",
        b"rvp-hop-count",
        b"rvp-notifications-version",
        b"subscription-id",
        b"subscription-lifetime",
        b"transfer-encoding",
    }
)

_USUAL = (
    b"Accept",
    b"Accept-Encoding",
    b"Accept-Language",
    b"Allow",
    b"Authorization",
    b"Cache-Control",
    b"Call-Back",
    b"Connection",
    b"Content-Length",
    b"Content-Type",
    b"Date",
    b"Depth",
    b"Expect",
    b"Forwarded",
    b"Host",
    b"Keep-Alive",
    b"Location",
    b"Notification-Type",
    b"Pragma",
    b"RVP-Ack-Type",
    b"RVP-Farm",
    b"RVP-From-Principal",
    b"RVP-Hop-Count",
    b"RVP-Notifications-Version",
    b"Retry-After",
    b"Server",
    b"Subscription-Id",
    b"Subscription-Lifetime",
    b"TE",
    b"Transfer-Encoding",
    b"User-Agent",
    b"Via",
    b"WWW-Authenticate",
    b"X-Forwarded-For",
)

#: Lower-cased names by their usual spellings: one look-up instead of a check and a conversion.
SPELLINGS: dict[bytes, bytes] = {form: name.lower() for name in _USUAL for form in (name, name.lower())}


def broken(text: str) -> BadRequest:
    """A refusal after which nothing that the connection carries can be trusted to be a request."""
    return BadRequest(text, close=True)


def field_name(spelled: bytes) -> bytes:
    """The lower-cased name of a field, from what stands before its colon.

    @raise BadRequest: it is empty or no token; a line that continues the one before, or a space before
        the colon, shows up here too.
    """
    name = SPELLINGS.get(spelled)
    if name is not None:
        return name
    if not spelled:
        raise broken("a header field has no name")
    if spelled.translate(None, TOKEN):
        if spelled[:1] in (b" ", b"\t"):
            raise broken("a header field is folded over several lines")
        if spelled[-1:] in (b" ", b"\t"):
            raise broken("white space stands before the colon of a header field")
        raise broken("a header field has an impossible name")
    return spelled.lower()


def is_strict(head: bytes, lines: list[bytes]) -> bool:
    """Whether C{head} holds no control characters but the CR LF after each line and the empty one.

    @param head: ends in CR LF CR LF.
    @param lines: the head without that end, split at CR LF.
    """
    return len(head.translate(None, PLAIN)) == 2 * len(lines) + 2


def head_end(source: bytes | bytearray, start: int, stop: int) -> int:
    """Where the head ends: the offset after the first empty line, or -1.  Lines end in LF or CR LF.

    @param start: not inside the first line end after it.
    @param stop: the whole head lies before it.
    """
    line_end = source.find(b"\n", start, stop)
    while line_end >= 0:
        after = line_end + 1
        if source.startswith(b"\n", after, stop):
            return after + 1
        if source.startswith(b"\r\n", after, stop):
            return after + 2
        line_end = source.find(b"\n", after, stop)
    return -1


def split_lines(head: bytes) -> list[bytes]:
    """The lines of a head that ends in an empty line, whichever way each of them ends.

    @raise BadRequest: a line holds a CR, a NUL or another control character.
    """
    lines = [line[:-1] if line.endswith(b"\r") else line for line in head.split(b"\n")[:-2]]
    for line in lines:
        strange = line.translate(None, PLAIN)
        if strange:
            raise broken("a bare CR in the head" if b"\r" in strange else "a control character in the head")
    return lines
