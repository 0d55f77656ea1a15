"""The PROXY protocol: the first octets of a connection say for whom a proxy opened it.

HAProxy's C{proxy-protocol.txt}, sections 2.1 (version 1, a line of text) and 2.2 (version 2, binary).  There
is no guessing whether a preamble is there: a listener either demands one or takes none for what it is (2).
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

#: The longest line of version 1, its CR LF included (2.1).
LINE_LIMIT = 107

#: The octets of version 2 before the addresses (2.2).
FIXED_SIZE = 16

#: The most octets of version 2 after those; addresses take 36 of them, the rest is for TLVs (2.2).
BLOCK_LIMIT = 4096

#: No preamble is longer.
PREAMBLE_LIMIT = FIXED_SIZE + BLOCK_LIMIT

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"

_WORD = b"PROXY "
_UNKNOWN = b"UNKNOWN"

_LOCAL, _PROXY = 0, 1
_UNSPEC, _INET, _INET6, _UNIX = range(4)
_STREAM, _DGRAM = 1, 2

_CRC32C = 0x03
_CRC_SIZE = 4


class BadPreamble(Exception):
    """What arrived is no preamble, or none that is taken here; the connection is to be closed (2)."""


@dataclass(frozen=True, slots=True)
class Announced:
    """The caller for whom a proxy opened the connection.

    @ivar host: the address in its usual spelling, an IPv4 address never as IPv6.
    """

    host: str
    port: int


class PreambleReader:
    """Reads the preamble of one connection, in whatever pieces it arrives.

    @ivar done: it is complete; nothing more is taken.
    @ivar announced: the caller; C{None} when the proxy speaks for itself (C{LOCAL}, as for health checks) or
        does not know for whom (C{UNKNOWN}, C{UNSPEC}): the connection's own address counts then.
    """

    __slots__ = ("_buffer", "announced", "done")

    def __init__(self) -> None:
        self.done = False
        self.announced: Announced | None = None
        self._buffer = bytearray()

    @property
    def begun(self) -> bool:
        """Has anything of it arrived?"""
        return self.done or bool(self._buffer)

    def feed(self, data: bytes) -> int:
        """Take what belongs to the preamble.

        @return: how many octets of C{data} that were; the rest belongs to whatever comes next.
        @raise BadPreamble: there is no preamble, or none that is taken here.
        """
        if self.done:
            return 0
        buffer = self._buffer
        before = len(buffer)
        buffer += data[: PREAMBLE_LIMIT - before]
        if not buffer:
            return 0
        text = buffer.startswith(b"P")
        size = _line_size(buffer) if text else _block_size(buffer)
        if not size:
            return len(buffer) - before
        whole = bytes(buffer[:size])
        self.announced = _parse_line(whole) if text else _parse_block(whole)
        self.done = True
        buffer.clear()
        return size - before


def _line_size(buffer: bytearray) -> int:
    """How long the line of version 1 is, its CR LF included; 0 while it goes on."""
    if not _WORD.startswith(buffer[: len(_WORD)]):
        raise BadPreamble("it begins with neither version of the PROXY protocol")
    end = buffer.find(b"\r", 0, LINE_LIMIT)
    feed = buffer.find(b"\n", 0, LINE_LIMIT)
    if feed >= 0 and not 0 <= end < feed:
        raise BadPreamble("the line ends in a LF without a CR")
    if end < 0 or end + 1 == LINE_LIMIT:
        if len(buffer) >= LINE_LIMIT:
            raise BadPreamble(f"the line is longer than {LINE_LIMIT} octets")
        return 0
    if len(buffer) == end + 1:
        return 0
    if feed != end + 1:
        raise BadPreamble("the line has a CR without a LF")
    return end + 2


def _parse_line(line: bytes) -> Announced | None:
    """The caller that a whole line of version 1 announces."""
    words = line[len(_WORD) : -2].split(b" ")
    if words[0] == _UNKNOWN:
        return None  # whatever follows is to be ignored
    if words[0] not in (b"TCP4", b"TCP6"):
        raise BadPreamble("the line is neither of TCP4 nor of TCP6")
    if len(words) != 5:
        raise BadPreamble("the line is not two addresses and two ports, one space before each")
    make = IPv4Address if words[0] == b"TCP4" else IPv6Address
    try:
        host, _ = (make(word.decode("ascii")) for word in words[1:3])
        port, _ = (_port(word) for word in words[3:])
    except ValueError:
        raise BadPreamble(f"the line has what is no address or port of {words[0].decode()}") from None
    return _announce(host, port)


def _port(word: bytes) -> int:
    """
    @raise ValueError: it is no port in its one spelling.
    """
    number = int(word) if word.isdigit() and len(word) <= 5 else -1
    if not 0 <= number <= 65535 or b"%d" % number != word:
        raise ValueError(word)
    return number


def _block_size(buffer: bytearray) -> int:
    """How long the whole preamble of version 2 is; 0 while its beginning does not say or it goes on."""
    if not SIGNATURE.startswith(buffer[: len(SIGNATURE)]):
        raise BadPreamble("it begins with neither version of the PROXY protocol")
    if len(buffer) <= len(SIGNATURE):
        return 0
    version, command = divmod(buffer[len(SIGNATURE)], 16)
    if version != 2 or command not in (_LOCAL, _PROXY):
        raise BadPreamble(f"version {version} and command {command} are not known")
    if len(buffer) < FIXED_SIZE:
        return 0
    length = int.from_bytes(buffer[FIXED_SIZE - 2 : FIXED_SIZE], "big")
    if length > BLOCK_LIMIT:
        raise BadPreamble(f"its addresses and TLVs are longer than {BLOCK_LIMIT} octets")
    size = FIXED_SIZE + length
    return size if len(buffer) >= size else 0


def _parse_block(block: bytes) -> Announced | None:
    """The caller that a whole preamble of version 2 announces."""
    if block[len(SIGNATURE)] & 15 == _LOCAL:
        return None  # the rest is to be skipped, whatever it is
    family, transport = divmod(block[len(SIGNATURE) + 1], 16)
    if family > _UNIX or transport > _DGRAM:
        raise BadPreamble(f"address family {family} with transport {transport} is not known")
    if family == _UNSPEC or transport not in (_STREAM, _DGRAM):
        return None
    if family == _UNIX:
        raise BadPreamble("it announces a UNIX socket, which has no address to call back")
    if transport == _DGRAM:
        raise BadPreamble("it announces datagrams on a connection")
    size = 4 if family == _INET else 16
    ports = FIXED_SIZE + 2 * size
    if len(block) < ports + 4:
        raise BadPreamble("it ends before its addresses do")
    _check_tlvs(block, ports + 4)
    source = block[FIXED_SIZE : FIXED_SIZE + size]
    host = IPv4Address(source) if family == _INET else IPv6Address(source)
    return _announce(host, int.from_bytes(block[ports : ports + 2], "big"))


def _announce(host: IPv4Address | IPv6Address, port: int) -> Announced:
    if isinstance(host, IPv6Address):
        if host.scope_id is not None:
            raise BadPreamble("its address has a zone, which means nothing on another machine")
        if host.ipv4_mapped is not None:
            host = host.ipv4_mapped
    return Announced(str(host), port)


def _check_tlvs(block: bytes, at: int) -> None:
    """Judge what follows the addresses, of which only the checksum means something here (2.2.3).

    @param at: where it begins.
    @raise BadPreamble: it ends in the middle of a value, or the checksum is wrong.
    """
    summed = -1
    while at < len(block):
        start = at + 3
        end = start + int.from_bytes(block[at + 1 : start], "big")
        if start > len(block) or end > len(block):
            raise BadPreamble("it ends in the middle of a TLV")
        if block[at] == _CRC32C:
            if summed >= 0 or end - start != _CRC_SIZE:
                raise BadPreamble("its checksum has a wrong size, or there are two")
            summed = start
        at = end
    if summed >= 0:
        bare = block[:summed] + bytes(_CRC_SIZE) + block[summed + _CRC_SIZE :]
        if crc32c(bare) != int.from_bytes(block[summed : summed + _CRC_SIZE], "big"):
            raise BadPreamble("its checksum is wrong")


def _crc_of(octet: int) -> int:
    for _ in range(8):
        octet = octet >> 1 ^ (0x82F63B78 if octet & 1 else 0)
    return octet


_CRC_TABLE = tuple(map(_crc_of, range(256)))


def crc32c(data: bytes) -> int:
    """The checksum of RFC 4960, appendix B."""
    crc = 0xFFFFFFFF
    for octet in data:
        crc = crc >> 8 ^ _CRC_TABLE[crc & 255 ^ octet]
    return crc ^ 0xFFFFFFFF
