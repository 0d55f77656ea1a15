"""Preambles of the PROXY protocol: the same caller and the same end however they are cut, never more kept."""

from __future__ import annotations

from ipaddress import ip_address
from random import Random

from rvpfarm.web.preamble import (
    BLOCK_LIMIT,
    FIXED_SIZE,
    LINE_LIMIT,
    PREAMBLE_LIMIT,
    SIGNATURE,
    BadPreamble,
    PreambleReader,
    crc32c,
)
from tests.fuzz.cuts import pieces
from tests.web.test_preamble import BAD, GOOD, tlv

LONGEST = PREAMBLE_LIMIT + 100

TOKENS = (
    *(
        b"PROXY ",
        b"TCP4 ",
        b"TCP6 ",
        b"UNKNOWN",
        b"192.0.2.7 ",
        b"2001:db8::7 ",
        b"::ffff:192.0.2.7 ",
        b"65535",
    ),
    *(b"\r\n", b"\n", b"\r", b" ", b"0", b"\x00", b"%eth0", b"65536", b"-1", b"\xff" * 16),
    *(
        SIGNATURE,
        b"\x20",
        b"\x21",
        b"\x11",
        b"\x12",
        b"\x21\x21\x00\x24",
        b"\x21\x11\x00\x0c",
        b"\x31",
        b"\x00\x00",
    ),
    *(tlv(3, bytes(4)), tlv(4, b""), tlv(4, b"x" * 200), tlv(0x20, bytes(5)), b"\xff\xff", bytes(300)),
)


def seeds() -> list[bytes]:
    """What is taken, what is refused, and a request after it."""
    rest = b"PROPFIND / HTTP/1.1\r\n"
    return [preamble + rest for preamble in (*GOOD, *BAD)] + [
        SIGNATURE + b"\x21\x11\x10\x00" + bytes(BLOCK_LIMIT)
    ]


def fix_length(data: bytes, random: Random) -> bytes:
    """Have version 2 say how long it is, so that what is in it is looked at."""
    if not data.startswith(SIGNATURE) or len(data) < FIXED_SIZE:
        return data
    length = min(len(data) - FIXED_SIZE, random.choice((12, 36, BLOCK_LIMIT, len(data))))
    return data[: FIXED_SIZE - 2] + length.to_bytes(2, "big") + data[FIXED_SIZE:]


def fix_checksum(data: bytes, random: Random) -> bytes:
    """Have a checksum right."""
    at = data.find(b"\x03\x00\x04")
    end = FIXED_SIZE + int.from_bytes(data[FIXED_SIZE - 2 : FIXED_SIZE], "big")
    if not data.startswith(SIGNATURE) or not FIXED_SIZE <= at <= end - 7 or end > len(data):
        return data
    bare = data[: at + 3] + bytes(4) + data[at + 7 : end]
    return bare[: at + 3] + crc32c(bare).to_bytes(4, "big") + bare[at + 7 :] + data[end:]


STEPS = (fix_length, fix_checksum)


def fuzz_one(data: bytes) -> None:
    """Read C{data}, in one piece and in several."""
    whole = _read([data])
    assert _read(pieces(data)) == whole, "the cuts make a difference"
    if whole is None:
        return
    done, host, port, left = whole
    taken = data[: len(data) - len(left)]
    assert len(taken) <= PREAMBLE_LIMIT
    if not done:
        assert not left
        return
    assert host is None or (str(ip_address(host)) == host and "." in host) != (":" in host)
    assert 0 <= port <= 65535
    if taken.startswith(b"P"):
        assert len(taken) <= LINE_LIMIT
        assert taken.endswith(b"\r\n")
        assert taken.count(b"\r") == taken.count(b"\n") == 1
    else:
        assert len(taken) == FIXED_SIZE + int.from_bytes(taken[FIXED_SIZE - 2 : FIXED_SIZE], "big")


def _read(parts: list[bytes]) -> tuple[bool, str | None, int, bytes] | None:
    """Whether it is complete, whom it announces, and what follows; C{None} when it is refused."""
    reader, left = PreambleReader(), b""
    for part in parts:
        try:
            used = reader.feed(part)
        except BadPreamble as problem:
            assert str(problem)
            return None
        assert 0 <= used <= len(part)
        assert used == len(part) or reader.done
        left += part[used:]
    announced = reader.announced
    assert announced is None or reader.done
    return reader.done, announced and announced.host, announced.port if announced else 0, left
