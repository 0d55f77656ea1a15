"""The preamble of the PROXY protocol, as HAProxy's proxy-protocol.txt has it, and as an attacker would."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.web.preamble import (
    BLOCK_LIMIT,
    LINE_LIMIT,
    PREAMBLE_LIMIT,
    SIGNATURE,
    Announced,
    BadPreamble,
    PreambleReader,
    crc32c,
)
from tests.support.hypothesis import MODEST

REQUEST = b"PROPFIND / HTTP/1.1\r\n"


def block(source: str, destination: str = "", port: int = 56324, tlvs: bytes = b"", **octets: int) -> bytes:
    """A preamble of version 2, by the letter of section 2.2.

    @param octets: C{command}, C{version}, C{family}, C{transport} and C{length}, to have them wrong.
    """
    here = ip_address(source)
    there = ip_address(destination or source)
    addresses = here.packed + there.packed + struct.pack("!HH", port, 80)
    family = octets.get("family", 1 if here.version == 4 else 2)
    return (
        SIGNATURE
        + bytes([octets.get("version", 2) << 4 | octets.get("command", 1)])
        + bytes([family << 4 | octets.get("transport", 1)])
        + struct.pack("!H", octets.get("length", len(addresses) + len(tlvs)))
        + addresses
        + tlvs
    )


def tlv(kind: int, value: bytes) -> bytes:
    """A type, a length, a value."""
    return struct.pack("!BH", kind, len(value)) + value


def summed(whole: bytes) -> bytes:
    """C{whole}, whose last four octets are the place of the checksum over all of it."""
    assert whole.endswith(bytes(4))
    return whole[:-4] + struct.pack("!I", crc32c(whole))


#: Preambles that are to be taken, and whom they announce.
GOOD: dict[bytes, Announced | None] = {
    b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n": Announced("192.168.0.1", 56324),
    b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n": Announced("255.255.255.255", 65535),
    b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n": Announced("0.0.0.0", 0),
    b"PROXY TCP6 2001:DB8::0001 ::1 56324 443\r\n": Announced("2001:db8::1", 56324),
    b"PROXY TCP6 ::ffff:192.0.2.7 ::1 56324 443\r\n": Announced("192.0.2.7", 56324),
    b"PROXY TCP6 %b %b 65535 65535\r\n" % ((b"ffff:" * 8)[:-1], (b"ffff:" * 8)[:-1]): Announced(
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535
    ),
    b"PROXY UNKNOWN\r\n": None,
    b"PROXY UNKNOWN anything at all \x00\xff\r\n": None,
    b"PROXY UNKNOWN %b %b 65535 65535\r\n" % ((b"ffff:" * 8)[:-1], (b"ffff:" * 8)[:-1]): None,
    block("192.0.2.7"): Announced("192.0.2.7", 56324),
    block("2001:db8::1"): Announced("2001:db8::1", 56324),
    block("::ffff:192.0.2.7"): Announced("192.0.2.7", 56324),
    block("192.0.2.7", tlvs=tlv(1, b"http/1.1") + tlv(4, b"") + tlv(0xE0, b"x" * 300)): Announced(
        "192.0.2.7", 56324
    ),
    block("192.0.2.7", tlvs=tlv(4, bytes(BLOCK_LIMIT - 15))): Announced("192.0.2.7", 56324),
    summed(block("192.0.2.7", tlvs=tlv(2, b"im.fabrik.example") + tlv(3, bytes(4)))): Announced(
        "192.0.2.7", 56324
    ),
    SIGNATURE + b"\x20\x00\x00\x00": None,
    SIGNATURE + b"\x20\x11\x00\x03abc": None,  # LOCAL: whatever it is, it is skipped
    SIGNATURE + b"\x20\xff\x00\x00": None,
    block("192.0.2.7", family=0, transport=0): None,
    block("192.0.2.7", transport=0): None,
    SIGNATURE + b"\x21\x00\x00\x00": None,
}

#: What is refused, and a word of the reason.
BAD: dict[bytes, str] = {
    REQUEST: "neither version",
    b"\x16\x03\x01\x02\x00": "neither version",
    b"PRI * HTTP/2.0\r\n": "neither version",
    b"PROXYTCP4": "neither version",
    b"proxy TCP4": "neither version",
    b"\r\n\r\nPROPFIND": "neither version",
    b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2\n": "LF without a CR",
    b"PROXY UNKNOWN\n\r\n": "LF without a CR",
    b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2\rPROPFIND": "CR without a LF",
    b"PROXY UNKNOWN " + b"x" * LINE_LIMIT: "longer than 107",
    b"PROXY UNKNOWN " + b"x" * (LINE_LIMIT - 15) + b"\r\n": "longer than 107",
    b"PROXY \r\n": "neither of TCP4",
    b"PROXY UNKNOWNS\r\n": "neither of TCP4",
    b"PROXY UDP4 192.0.2.7 192.0.2.8 1 2\r\n": "neither of TCP4",
    b"PROXY TCP5 192.0.2.7 192.0.2.8 1 2\r\n": "neither of TCP4",
    b"PROXY TCP4\r\n": "two addresses",
    b"PROXY TCP4 192.0.2.7 192.0.2.8 1\r\n": "two addresses",
    b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2 3\r\n": "two addresses",
    b"PROXY  TCP4 192.0.2.7 192.0.2.8 1 2\r\n": "neither of TCP4",
    b"PROXY TCP4 192.0.2.7  192.0.2.8 1 2\r\n": "two addresses",
    b"PROXY TCP4\t192.0.2.7 192.0.2.8 1 2\r\n": "neither of TCP4",
    b"PROXY TCP4 192.0.2.07 192.0.2.8 1 2\r\n": "no address",
    b"PROXY TCP4 192.0.2 192.0.2.8 1 2\r\n": "no address",
    b"PROXY TCP4 192.0.2.256 192.0.2.8 1 2\r\n": "no address",
    b"PROXY TCP4 192.0.2.7 localhost 1 2\r\n": "no address",
    b"PROXY TCP4 \xd9\xa1.0.2.7 192.0.2.8 1 2\r\n": "no address",
    b"PROXY TCP4 ::1 ::1 1 2\r\n": "no address",
    b"PROXY TCP6 192.0.2.7 192.0.2.8 1 2\r\n": "no address",
    b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n": "zone",
    b"PROXY TCP4 192.0.2.7 192.0.2.8 65536 2\r\n": "no address or port",
    b"PROXY TCP4 192.0.2.7 192.0.2.8 01 2\r\n": "no address or port",
    b"PROXY TCP4 192.0.2.7 192.0.2.8 +1 2\r\n": "no address or port",
    b"PROXY TCP4 192.0.2.7 192.0.2.8 1 -2\r\n": "no address or port",
    b"PROXY TCP4 192.0.2.7 192.0.2.8 1 \r\n": "no address or port",
    block("192.0.2.7", version=1): "version 1",
    block("192.0.2.7", version=3): "version 3",
    block("192.0.2.7", command=2): "command 2",
    block("192.0.2.7", family=4): "family 4",
    block("192.0.2.7", transport=3): "transport 3",
    block("192.0.2.7", transport=2): "datagrams",
    block("2001:db8::1", transport=2): "datagrams",
    SIGNATURE + b"\x21\x31\x00\xd8" + bytes(216): "UNIX socket",
    SIGNATURE + b"\x21\x32\x00\xd8" + bytes(216): "UNIX socket",
    SIGNATURE + b"\x21\x11\x00\x0b" + bytes(11): "before its addresses",
    SIGNATURE + b"\x21\x21\x00\x23" + bytes(35): "before its addresses",
    SIGNATURE + b"\x21\x11" + struct.pack("!H", BLOCK_LIMIT + 1): "longer than 4096",
    SIGNATURE + b"\x20\x00\xff\xff": "longer than 4096",
    block("192.0.2.7", tlvs=b"\x04"): "middle of a TLV",
    block("192.0.2.7", tlvs=b"\x04\x00"): "middle of a TLV",
    block("192.0.2.7", tlvs=b"\x04\x00\x02a"): "middle of a TLV",
    block("192.0.2.7", tlvs=tlv(3, bytes(3))): "wrong size",
    block("192.0.2.7", tlvs=tlv(3, bytes(4))): "checksum is wrong",
    summed(block("192.0.2.7", tlvs=tlv(3, bytes(4)) + tlv(3, bytes(4)))): "there are two",
}


def read(*pieces: bytes) -> tuple[PreambleReader, bytes]:
    """What a reader makes of C{pieces}, and what it leaves of them."""
    reader, left = PreambleReader(), b""
    for piece in pieces:
        left += piece[reader.feed(piece) :]
    return reader, left


class PreambleTests(SynchronousTestCase):
    """A preamble is taken whole, to the octet, or not at all."""

    def test_good(self) -> None:
        """Each says for whom the connection is, and leaves what follows it."""
        for preamble, announced in GOOD.items():
            with self.subTest(preamble=preamble[:60]):
                reader, left = read(preamble + REQUEST)
                self.assertTrue(reader.done)
                self.assertEqual((reader.announced, left), (announced, REQUEST))

    def test_octet_by_octet(self) -> None:
        """The pieces in which it arrives make no difference, and nothing is taken beyond its end."""
        for preamble, announced in GOOD.items():
            reader = PreambleReader()
            self.assertFalse(reader.begun)
            for octet in preamble:
                self.assertFalse(reader.done, preamble[:60])
                self.assertEqual(reader.feed(bytes([octet])), 1)
                self.assertTrue(reader.begun)
            self.assertTrue(reader.done)
            self.assertEqual((reader.announced, reader.feed(REQUEST)), (announced, 0))

    def test_bad(self) -> None:
        """What is none is refused, in one piece and octet by octet, and goes on being refused."""
        for data, reason in BAD.items():
            with self.subTest(data=data[:60]):
                self.assertRegex(str(self.assertRaises(BadPreamble, read, data + REQUEST)), reason)
                self.assertRaises(BadPreamble, read, *(bytes([octet]) for octet in data + REQUEST))
                reader = PreambleReader()
                for _ in range(2):
                    self.assertRaises(BadPreamble, reader.feed, data)

    def test_refused_early(self) -> None:
        """The first octet that cannot be right is enough, so that nobody waits for more."""
        for data, at in ((b"PROPFIND", 4), (b"\r\n\r\n\x00\r\nQUIT\r", 12), (SIGNATURE + b"\x11", 13)):
            self.assertEqual(read(data[: at - 1])[1], b"")
            self.assertRaises(BadPreamble, read, data[:at])

    def test_bounded(self) -> None:
        """However much arrives before it is complete, no more is kept than the longest preamble has."""
        reader = PreambleReader()
        longest = block("192.0.2.7", tlvs=tlv(4, bytes(BLOCK_LIMIT - 15)))
        self.assertEqual(len(longest), PREAMBLE_LIMIT)
        self.assertEqual(reader.feed(longest[:-1]), PREAMBLE_LIMIT - 1)
        self.assertFalse(reader.done)
        self.assertEqual(reader.feed(longest[-1:] + bytes(1 << 20)), 1)
        self.assertTrue(reader.done)

    def test_checksum(self) -> None:
        """Any octet that was changed on the way is noticed when there is a checksum."""
        whole = summed(block("192.0.2.7", tlvs=tlv(2, b"im") + tlv(3, bytes(4))))
        self.assertTrue(read(whole)[0].done)
        for at in (16, 20, 24, 27, len(whole) - 9, len(whole) - 1):
            changed = bytearray(whole)
            changed[at] ^= 1
            self.assertRaises(BadPreamble, read, bytes(changed))

    def test_crc32c(self) -> None:
        """The check value of CRC-32C, and the first vector of RFC 3720 B.4."""
        self.assertEqual(crc32c(b"123456789"), 0xE3069283)
        self.assertEqual(crc32c(bytes(32)), 0x8A9136AA)

    @MODEST
    @given(st.ip_addresses(), st.ip_addresses(), st.integers(0, 65535), st.binary(max_size=40), st.data())
    def test_round_trip(
        self,
        source: IPv4Address | IPv6Address,
        destination: IPv4Address | IPv6Address,
        port: int,
        rest: bytes,
        data: st.DataObject,
    ) -> None:
        """Whatever addresses and ports there are, they come out as they went in, however it is cut."""
        if source.version != destination.version:
            destination = source
        line = f"PROXY TCP{source.version} {source} {destination} {port} 80\r\n".encode()
        expected = getattr(source, "ipv4_mapped", None) or source
        for preamble in (line, block(str(source), str(destination), port)):
            at = data.draw(st.integers(0, len(preamble)))
            reader, left = read(preamble[:at], preamble[at:] + rest)
            self.assertEqual(reader.announced, Announced(str(expected), port))
            self.assertEqual(left, rest)

    @MODEST
    @given(st.binary(max_size=200), st.lists(st.integers(1, 199), max_size=4))
    def test_any_octets(self, noise: bytes, cuts: list[int]) -> None:
        """Noise after a plausible beginning is refused, waited for or skipped, the same however it is cut."""
        for start in (b"", b"PROXY ", b"PROXY TCP4 ", b"PROXY UNKNOWN", SIGNATURE, SIGNATURE + b"\x21\x11"):
            whole = start + noise
            edges = [0, *sorted(cut for cut in cuts if cut < len(whole)), len(whole)]
            pieces = [whole[a:b] for a, b in pairwise(edges)]
            self.assertEqual(self.outcome(pieces), self.outcome([whole]))

    def outcome(self, pieces: list[bytes]) -> object:
        """What becomes of C{pieces}."""
        try:
            reader, left = read(*pieces)
        except BadPreamble:
            return "refused"
        return reader.done, reader.announced, left
