"""Tests of L{rvpfarm.auth.ntlm}."""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import replace
from struct import pack

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.auth.ntlm import (
    ANSWER_LIMIT,
    EXTENDED,
    GREETING_LIMIT,
    KEY_EXCHANGE,
    NTLM,
    OEM,
    SIGNATURE,
    TARGET_INFO,
    UNICODE,
    VERSION,
    Answer,
    Challenge,
    Handshake,
    is_intact,
    issue,
    judge,
    nt_hash,
    parse_answer,
    parse_greeting,
    render_challenge,
    respond,
)
from rvpfarm.protocol.calls import BadRequest
from tests.support import ntlm
from tests.support.hypothesis import MODEST
from tests.support.ntlm import NtlmClient

PASSWORD = "Blue-Kite-41"
NONCE = bytes.fromhex("0123456789abcdef")

#: The messages of protocol notes 9.3.
TYPE1 = b64decode("TlRMTVNTUAABAAAAB7IAAAUABQAgAAAABgAGACUAAABwZXRyYUZBQlJJSw==")
TYPE2 = b64decode("TlRMTVNTUAACAAAADAAMADAAAAAFggAAASNFZ4mrze8AAAAAAAAAAAAAAAA8AAAARgBBAEIAUgBJAEsA")
TYPE3 = b64decode(
    "TlRMTVNTUAADAAAAGAAYAEAAAAAYABgAWAAAAAwADABwAAAACgAKAHwAAAAKAAoAhgAAAAAAAABQAAAABYIAAAmVUThRAEUMkfn5"
    "Hlhmp4XJ+XxgMhAQHXGvBUZu3WdcXLjF3pzrf3VjCRw4IhcrPEYAQQBCAFIASQBLAHAAZQB0AHIAYQBwAGUAdAByAGEA"
)


def greet(greeting: bytes, nonce: bytes = NONCE) -> Handshake:
    """The challenge of a server of FABRIK to a type 1."""
    return issue(greeting, nonce, target="FABRIK", dns_name="im.fabrik.example", now=1000.0)


def make_answer(
    nt: bytes = bytes(24),
    *,
    lm: bytes = bytes(24),
    domain: str = "FABRIK",
    user: str = "petra",
    key: bytes = b"",
    flags: int = UNICODE | NTLM,
    extra: bytes = bytes(24),
) -> bytes:
    """A type 3.

    @param extra: stands between the head and the fields: version and code.
    """
    encoding = "utf-16-le" if flags & UNICODE else "latin-1"
    buffers, payload, at = b"", b"", 64 + len(extra)
    for value in (lm, nt, domain.encode(encoding), user.encode(encoding), b"", key):
        buffers += pack("<HHI", len(value), len(value), at + len(payload))
        payload += value
    return SIGNATURE + pack("<I", 3) + buffers + pack("<I", flags) + extra + payload


def make_response(*pairs: tuple[int, bytes]) -> bytes:
    """An NTLMv2 response with a wrong proof, and these pairs."""
    info = b"".join(pack("<HH", number, len(value)) + value for number, value in pairs)
    return bytes(16) + b"\1\1" + bytes(26) + info


class PrintedTests(SynchronousTestCase):
    """The vector of protocol notes 9.3, all three messages."""

    def test_greeting(self) -> None:
        """The type 1 is read."""
        self.assertEqual(parse_greeting(TYPE1), 0xB207)

    def test_challenge(self) -> None:
        """The type 2 is what this server answers to that type 1, octet by octet."""
        self.assertEqual(greet(TYPE1).challenge, TYPE2)
        self.assertEqual(render_challenge(Challenge(0x8205, NONCE, "FABRIK")), TYPE2)

    def test_answer(self) -> None:
        """The type 3 is read."""
        answer = parse_answer(TYPE3)
        self.assertEqual((answer.user, answer.domain, answer.flags), ("petra", "FABRIK", 0x8205))
        self.assertEqual(answer.nt.hex(), "71af05466edd675c5cb8c5de9ceb7f7563091c3822172b3c")
        self.assertEqual(answer.lm.hex(), "099551385100450c91f9f91e5866a785c9f97c603210101d")
        self.assertEqual((answer.key, answer.has_mic), (b"", False))

    def test_judged(self) -> None:
        """It proves the password, and no other."""
        handshake, answer = greet(TYPE1), parse_answer(TYPE3)
        self.assertEqual(respond(nt_hash(PASSWORD), NONCE), answer.nt)
        session = judge(handshake, answer, nt_hash(PASSWORD))
        assert session is not None
        self.assertTrue(is_intact(handshake, answer, session))
        self.assertFalse(session.signs)
        self.assertIsNone(judge(handshake, answer, nt_hash("blue-kite-41")))
        self.assertIsNone(judge(greet(TYPE1, b"12345678"), answer, nt_hash(PASSWORD)))

    def test_lm_never_counts(self) -> None:
        """A wrong LM response does no harm, and a right one alone no good."""
        handshake, answer = greet(TYPE1), parse_answer(TYPE3)
        self.assertIsNotNone(judge(handshake, replace(answer, lm=b"\1" * 24), nt_hash(PASSWORD)))
        self.assertIsNotNone(judge(handshake, replace(answer, lm=b""), nt_hash(PASSWORD)))
        for nt in (b"", bytes(24), answer.lm):
            self.assertIsNone(judge(handshake, replace(answer, nt=nt), nt_hash(PASSWORD)))


class PublishedTests(SynchronousTestCase):
    """The worked examples of MS-NLMP 4.2: user C{User}, domain C{Domain}, password C{Password}."""

    known = nt_hash("Password")
    handshake = Handshake(b"", b"", NONCE)

    def answer(self, flags: int, lm: str, nt: str, key: str = "") -> Answer:
        """What the client of the example answers."""
        hexed = bytes.fromhex
        return Answer(b"", flags, hexed(lm), hexed(nt), "Domain", "User", hexed(key), False)

    def test_hash(self) -> None:
        """4.2.2.1.2."""
        self.assertEqual(self.known.hex(), "a4f49c406510bdcab6824ee7c30fd852")

    def test_v1(self) -> None:
        """4.2.2.2: the response, the session key, and the one that the client made."""
        nt = "67c43011f30298a2ad35ece64f16331c44bdbed927841f94"
        plain = judge(self.handshake, self.answer(NTLM, "", nt), self.known)
        assert plain is not None
        self.assertEqual(plain.key.hex(), "d87262b0cde4b1cb7499becccdf10784")
        sent = self.answer(NTLM | KEY_EXCHANGE, "", nt, "518822b1b3f350c8958682ecbb3e3cb7")
        made = judge(self.handshake, sent, self.known)
        assert made is not None
        self.assertEqual(made.key, b"U" * 16)

    def test_extended(self) -> None:
        """4.2.3: extended session security."""
        lm, nt = "aa" * 8 + "00" * 16, "7537f803ae367128ca458204bde7caf81e97ed2683267232"
        session = judge(self.handshake, self.answer(NTLM | EXTENDED, lm, nt), self.known)
        assert session is not None
        self.assertEqual(session.key.hex(), "eb93429a8bd952f8b89c55b87f475edc")

    def test_v2(self) -> None:
        """4.2.4: NTLMv2."""
        info = "02000c0044006f006d00610069006e0001000c005300650072007600650072000000000000000000"
        blob = "0101" + "00" * 14 + "aa" * 8 + "00" * 4 + info
        nt = "68cd0ab851e51c96aabc927bebef6a1c" + blob
        session = judge(self.handshake, self.answer(NTLM | EXTENDED, "00" * 24, nt), self.known)
        assert session is not None
        self.assertEqual(session.key.hex(), "8de40ccadbc14a82f15cb0ad0de95ca3")


class PeerTests(SynchronousTestCase):
    """Every kind of response that an independent client makes is judged as it should be."""

    def exchange(
        self, level: int, *, user: str = "petra", password: str = PASSWORD
    ) -> tuple[Handshake, Answer]:
        """A handshake with a client that knows C{password}."""
        client = NtlmClient(user, password, level=level)
        handshake = greet(b64decode(client.step()[5:]))
        answer = client.step("NTLM " + b64encode(handshake.challenge).decode())
        return handshake, parse_answer(b64decode(answer[5:]))

    def test_every_level(self) -> None:
        """NTLMv1, extended session security and NTLMv2; right and wrong passwords."""
        for level, size in ((ntlm.V1, 24), (1, 24), (ntlm.EXTENDED, 24), (ntlm.V2, 0), (4, 0), (5, 0)):
            with self.subTest(level=level):
                handshake, answer = self.exchange(level)
                self.assertEqual(len(answer.nt) if size else 0, size)
                session = judge(handshake, answer, nt_hash(PASSWORD))
                assert session is not None
                self.assertTrue(is_intact(handshake, answer, session))
                self.assertEqual(answer.has_mic, not size)
                self.assertIsNone(judge(handshake, answer, nt_hash("other")))

    def test_unusual_letters(self) -> None:
        """Names and passwords beyond ASCII; the name is in upper case in the hash, letter by letter."""
        for user, password in (("müller", "Grün-Käse-7"), ("ζωή", "pass😀word"), ("ĳs", "x" * 200)):
            with self.subTest(user=user):
                handshake, answer = self.exchange(ntlm.V2, user=user, password=password)
                self.assertEqual(answer.user, user)
                self.assertIsNotNone(judge(handshake, answer, nt_hash(password)))

    def test_tampered(self) -> None:
        """A message that was changed on its way does not have the code that the client gave it."""
        handshake, answer = self.exchange(ntlm.V2)
        session = judge(handshake, answer, nt_hash(PASSWORD))
        assert session is not None
        for changed in (
            replace(handshake, greeting=handshake.greeting + b"x"),
            replace(handshake, challenge=handshake.challenge[:-1] + b"x"),
        ):
            self.assertFalse(is_intact(changed, answer, session))
        message = bytearray(answer.message)
        message[60] ^= 0x10
        self.assertFalse(is_intact(handshake, parse_answer(bytes(message)), session))


class IssueTests(SynchronousTestCase):
    """What a client is offered depends on what it asks for."""

    def flags(self, asked: int) -> int:
        """The flags of the answer to a type 1 with these."""
        challenge = greet(SIGNATURE + pack("<II", 1, asked)).challenge
        return int.from_bytes(challenge[20:24], "little")

    def test_letters(self) -> None:
        """Unicode wherever the client has it."""
        self.assertEqual(self.flags(UNICODE | OEM) & (UNICODE | OEM), UNICODE)
        self.assertEqual(self.flags(OEM) & (UNICODE | OEM), OEM)
        self.assertEqual(self.flags(0) & (UNICODE | OEM), OEM)

    def test_names_in_oem_letters(self) -> None:
        """Without Unicode the target is one octet to a letter."""
        self.assertIn(b"FABRIK", greet(SIGNATURE + pack("<II", 1, OEM)).challenge)

    def test_information(self) -> None:
        """Target information goes to clients that know what to do with it."""
        self.assertFalse(self.flags(UNICODE) & TARGET_INFO)
        self.assertTrue(self.flags(UNICODE | EXTENDED) & TARGET_INFO)
        challenge = greet(SIGNATURE + pack("<II", 1, UNICODE | EXTENDED)).challenge
        self.assertIn("im.fabrik.example".encode("utf-16-le"), challenge)

    def test_nothing_unknown_is_granted(self) -> None:
        """A client that asks for everything gets what there is."""
        granted = self.flags(0xFFFFFFFF)
        self.assertEqual(granted, 0xE2898237 & ~OEM)
        self.assertTrue(granted & VERSION)

    def test_refused(self) -> None:
        """What is no type 1."""
        for data in (b"", SIGNATURE, SIGNATURE + pack("<I", 1), TYPE2, TYPE3, TYPE1 + bytes(GREETING_LIMIT)):
            self.assertRaises(BadRequest, greet, data)


class BoundsTests(SynchronousTestCase):
    """A type 3 is read within its bounds, or refused."""

    def test_plain(self) -> None:
        """The messages that these tests make are good ones."""
        answer = parse_answer(make_answer(make_response((1, b"name"), (6, pack("<I", 2)), (0, b""))))
        self.assertTrue(answer.has_mic)
        self.assertEqual((answer.user, answer.domain), ("petra", "FABRIK"))
        latin = parse_answer(make_answer(flags=OEM, user="andr\xe9"))
        self.assertEqual(latin.user, "andr\xe9")

    def test_no_type_3(self) -> None:
        """Too short, too long, of another type."""
        whole = make_answer()
        for data in (b"", TYPE1, TYPE2, whole[:63], b"X" + whole[1:], whole + bytes(ANSWER_LIMIT)):
            self.assertRaises(BadRequest, parse_answer, data)

    def test_cut_off(self) -> None:
        """Wherever it is cut off, a buffer points outside."""
        for end in range(64, len(TYPE3)):
            self.assertRaises(BadRequest, parse_answer, TYPE3[:end])

    def test_points_into_its_head(self) -> None:
        """A buffer may not overlap the head."""
        for at in (12, 20, 28, 36, 44, 52):
            data = bytearray(TYPE3)
            data[at : at + 8] = pack("<HHI", 8, 8, 60)
            self.assertRaises(BadRequest, parse_answer, bytes(data))

    def test_names(self) -> None:
        """Half a letter, half a pair of surrogates, and a name that is no name."""
        for name in ("petra\ud800", "x" * 600):
            encoded = name.encode("utf-16-le", "surrogatepass")
            data = SIGNATURE + pack("<I", 3) + bytes(24)
            data += pack("<HHI", len(encoded), 0, 64) + bytes(16) + pack("<I", UNICODE) + encoded
            self.assertRaises(BadRequest, parse_answer, data)
        odd = SIGNATURE + pack("<I", 3) + bytes(24) + pack("<HHI", 3, 3, 64) + bytes(16)
        self.assertRaises(BadRequest, parse_answer, odd + pack("<I", UNICODE) + b"abc")

    def test_responses(self) -> None:
        """A response that is neither NTLMv1 nor a good NTLMv2."""
        endless = make_response(*((1, b"") for _ in range(100)))
        for nt in (bytes(25), bytes(60), make_response()[:43], make_response((1, b"ab"))[:-1], endless):
            self.assertRaises(BadRequest, parse_answer, make_answer(nt))

    def test_no_room_for_the_code(self) -> None:
        """A message that says it has a code is long enough for one."""
        nt = make_response((6, pack("<I", 2)))
        size = len(nt)
        data = SIGNATURE + pack("<I", 3) + pack("<HHI", 0, 0, 0) + pack("<HHI", size, size, 64)
        data += bytes(32) + pack("<I", UNICODE) + nt
        self.assertTrue(parse_answer(data).has_mic)
        self.assertRaises(BadRequest, parse_answer, data[:60])

    def test_short_responses(self) -> None:
        """Anything up to 24 octets is an NTLMv1 response, which is wrong unless it is right."""
        for size in range(25):
            answer = parse_answer(make_answer(b"\1" * size))
            self.assertIsNone(judge(greet(TYPE1), answer, nt_hash(PASSWORD)))

    @MODEST
    @given(st.binary(max_size=300))
    def test_anything(self, data: bytes) -> None:
        """Whatever arrives is read or refused."""
        self.read(data)
        self.read(SIGNATURE + data)
        self.read(SIGNATURE + pack("<I", 3) + data)

    @MODEST
    @given(
        st.sampled_from((TYPE1, TYPE3, make_answer(make_response((1, b"n"), (6, b"\2\0\0\0"))))), st.data()
    )
    def test_mutated(self, message: bytes, data: st.DataObject) -> None:
        """So is a good message with a few octets changed."""
        changed = bytearray(message)
        for _ in range(data.draw(st.integers(1, 4))):
            changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
        self.read(bytes(changed))

    def read(self, data: bytes) -> None:
        """Read C{data} as whatever it is."""
        for parse in (parse_greeting, greet, parse_answer):
            try:
                found = parse(data)
            except BadRequest:
                continue
            if isinstance(found, Answer):
                self.assertIsNone(judge(greet(TYPE1, b"no-nonce"), found, nt_hash(PASSWORD)))
