"""How the network may cut a stream: decided by the stream itself, so that a finding is nothing but its octets."""

from __future__ import annotations

from random import Random
from zlib import crc32

#: One stream in so many arrives octet by octet, which takes the longest to try.
_SINGLE = 8


def pieces(data: bytes) -> list[bytes]:
    """C{data} as it might arrive: in a few pieces, or octet by octet."""
    fate = crc32(data)
    if fate % _SINGLE == 0:
        return [data[at : at + 1] for at in range(len(data))]
    random = Random(fate)
    largest = random.choice((2, 7, 40, 300))
    parts, at = [], 0
    while at < len(data):
        size = random.randint(1, largest)
        parts.append(data[at : at + size])
        at += size
    return parts
