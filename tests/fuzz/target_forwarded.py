"""Who calls, by a proxy's header: an address, nobody known, or a refusal; and never whom a caller names."""

from __future__ import annotations

from ipaddress import ip_address

from rvpfarm.protocol.calls import BadRequest
from rvpfarm.web.forwarded import read_forwarded, read_x_forwarded_for

LONGEST = 600

#: The proxies that are believed.
TRUSTED = frozenset({"10.0.0.1", "fd00::1"})

#: The address that a believed proxy saw.
SEEN = "198.51.100.7"

TOKENS = (
    *(
        b"for=",
        b"For=",
        b"by=",
        b"proto=http",
        b"host=",
        b";",
        b",",
        b", ",
        b'"',
        b"\\",
        b'\\"',
        b"=",
        b" ",
        b"\t",
    ),
    *(
        b"192.0.2.7",
        b"10.0.0.1",
        b'"[fd00::1]"',
        b"[fd00::1]:80",
        b"fd00::1",
        b"::ffff:192.0.2.7",
        b"fe80::1%eth0",
    ),
    *(
        b":80",
        b":_p",
        b"unknown",
        b"_hidden",
        b"[",
        b"]",
        b"256",
        b"01",
        b"\x80",
        b"\xff",
        b"10.0.0.1, " * 33,
    ),
    *(b'for="[2001:db8::7]:4711"', b"for=unknown", b"for=_x;by=_y"),
)


def seeds() -> list[bytes]:
    """Values of both headers."""
    return [
        b"192.0.2.7, 10.0.0.1",
        b"[2001:db8::7]:80, fd00::1",
        b"unknown, 10.0.0.1:80",
        b'for=192.0.2.7;proto=http;by="[fd00::1]", for=10.0.0.1',
        b'for="[2001:db8::7]:4711";host="a\\"b, c", for="10.0.0.1:_x"',
        b'for="',
        b"for=_hidden, for=unknown",
    ]


def fuzz_one(data: bytes) -> None:
    """Read C{data} as the value of both headers, alone and as what a caller sent before a proxy added to it."""
    value = bytes(octet for octet in data if octet >= 32 or octet == 9).strip(b" \t")
    for read, added in (
        (read_x_forwarded_for, SEEN.encode()),
        (read_forwarded, b"for=" + SEEN.encode()),
        (read_forwarded, b'for="%b:4711";by="[fd00::1]"' % SEEN.encode()),
    ):
        try:
            found = read(value, TRUSTED)
            assert not found or str(ip_address(found)) == found
        except BadRequest as refusal:
            assert refusal.text
        try:
            assert read(value + b", " + added, TRUSTED) == SEEN
            assert read(value + b", " + added + b", " + _proxy(added), TRUSTED) == SEEN
        except BadRequest:
            assert read is read_forwarded, "a caller's garbage is not looked at"


def _proxy(like: bytes) -> bytes:
    """What a second believed proxy adds, in the same header."""
    return b"for=10.0.0.1" if like.startswith(b"for=") else b"10.0.0.1"
