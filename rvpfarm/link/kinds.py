"""What frames there are, and how the smallest look: those that say one number."""

from __future__ import annotations

from enum import IntEnum
from struct import Struct

#: The latest edition of the protocol; see L{rvpfarm.link.frames}.
EDITION = 1


class Kind(IntEnum):
    """What a frame is."""

    HELLO = 1
    CHALLENGE = 2
    PROOF = 3
    WELCOME = 4
    CALL = 16
    REPLY = 17
    ANSWERED = 18
    CANCEL = 19
    PING = 20
    PONG = 21
    GONE = 22
    EDITION = 23
    LEAVING = 24
    RETURNED = 25
    OPEN = 26
    PART = 27
    WINDOW = 28
    BEGIN = 29
    ASK = 30


class BadFrame(Exception):
    """The other end does not speak this protocol; the connection is of no further use."""


#: The length of what follows and the kind: the beginning of every frame.
START = Struct("!IB")
#: A number of eight octets.
NUMBER = Struct("!Q")
#: Largest size of a frame that says one number, kind octet included.
NUMBER_SIZE = 9

_TOKEN = Struct("!IBQ")


def render_number(kind: Kind, number: int) -> bytes:
    """The frame of that kind which says C{number} and nothing else."""
    return _TOKEN.pack(NUMBER_SIZE, kind, number)


def parse_number(data: bytes, at: int, stop: int) -> int:
    """What such a frame says.

    @raise BadFrame: it is of another size.
    """
    if stop - at != 8:
        raise BadFrame("a control frame of the wrong size")
    number: int = NUMBER.unpack_from(data, at)[0]
    return number
