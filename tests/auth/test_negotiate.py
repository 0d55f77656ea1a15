"""Tests of L{rvpfarm.auth.negotiate}."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.auth.negotiate import (
    KERBEROS,
    KERBEROS_OF_WINDOWS,
    MECHANISMS_LIMIT,
    NTLM,
    SPNEGO,
    TOKEN_LIMIT,
    Bare,
    Negotiation,
    Offer,
    Response,
    State,
    Tampered,
    choose,
    parse_token,
    render_response,
)
from rvpfarm.protocol.calls import BadRequest
from tests.support.hypothesis import MODEST


def element(tag: int, *parts: bytes) -> bytes:
    """One element of DER."""
    value = b"".join(parts)
    size = len(value)
    if size < 0x80:
        return bytes((tag, size)) + value
    octets = (size.bit_length() + 7) // 8
    return bytes((tag, 0x80 + octets)) + size.to_bytes(octets, "big") + value


def make_list(*mechanisms: bytes) -> bytes:
    """The list of an offer."""
    return element(0x30, *(element(0x06, mechanism) for mechanism in mechanisms))


def make_offer(*fields: bytes, mechanism: bytes = SPNEGO) -> bytes:
    """The first token of a client, of fields with their numbers."""
    return element(0x60, element(0x06, mechanism), element(0xA0, element(0x30, *fields)))


def make_response(*fields: bytes) -> bytes:
    """A later token of a client."""
    return element(0xA1, element(0x30, *fields))


def listed(*mechanisms: bytes) -> bytes:
    """The field of an offer that lists mechanisms."""
    return element(0xA0, make_list(*mechanisms))


def octets(number: int, value: bytes) -> bytes:
    """A field that holds octets."""
    return element(0xA0 + number, element(0x04, value))


@dataclass(frozen=True)
class FakeSession:
    """A session whose codes can be read."""

    signs: bool = True

    def sign(self, data: bytes) -> bytes:
        """Our code."""
        return b"ours:" + data

    def verify(self, data: bytes, code: bytes) -> bool:
        """The client's."""
        return code == b"theirs:" + data


class ParseTests(SynchronousTestCase):
    """Tokens are DER to the letter, or refused."""

    def test_offer(self) -> None:
        """The list, as it was encoded too, and the optimistic token."""
        flags = element(0xA1, element(0x03, b"\1\6"))
        data = make_offer(listed(KERBEROS, NTLM), flags, octets(2, b"token"), octets(3, b"mic"))
        offer = parse_token(data)
        self.assertEqual(offer, Offer((KERBEROS, NTLM), make_list(KERBEROS, NTLM), b"token"))
        self.assertEqual(parse_token(make_offer(listed(NTLM))), Offer((NTLM,), make_list(NTLM)))

    def test_response(self) -> None:
        """Token and code, either of which may be missing."""
        state, mechanism = element(0xA0, element(0x0A, b"\1")), element(0xA1, element(0x06, NTLM))
        self.assertEqual(parse_token(make_response(state, mechanism)), Response())
        both = make_response(state, octets(2, b"token"), octets(3, b"mic"))
        self.assertEqual(parse_token(both), Response(b"token", b"mic"))
        self.assertEqual(parse_token(make_response(octets(3, b"mic"))), Response(b"", b"mic"))

    def test_token_in_both_places(self) -> None:
        """What an old Windows puts into the place of the code, though it is none, is no code."""
        twice = make_response(octets(2, b"token"), octets(3, b"token"))
        self.assertEqual(parse_token(twice), Response(b"token"))

    def test_bare(self) -> None:
        """Kerberos without SPNEGO is handed on whole."""
        for mechanism in (KERBEROS, KERBEROS_OF_WINDOWS):
            data = element(0x60, element(0x06, mechanism), b"\1\0ticket")
            self.assertEqual(parse_token(data), Bare(data))

    def test_long(self) -> None:
        """Lengths of one, two and three octets."""
        for size in (100, 200, 5000):
            offer = parse_token(make_offer(listed(NTLM), octets(2, b"x" * size)))
            assert isinstance(offer, Offer)
            self.assertEqual(len(offer.token), size)

    def test_refused(self) -> None:
        """Whatever is not of that form."""
        good = make_offer(listed(NTLM))
        wrong = {
            "nothing": b"",
            "cut off": good[:-1],
            "followed": good + b"\0",
            "too long": make_offer(listed(NTLM), octets(2, bytes(TOKEN_LIMIT))),
            "another tag": b"\x61" + good[1:],
            "another mechanism": make_offer(listed(NTLM), mechanism=b"\x2a\x03"),
            "no list": make_offer(octets(2, b"token")),
            "empty": element(0x60, element(0x06, SPNEGO)),
            "more than one": element(0x60, element(0x06, SPNEGO), element(0xA0, element(0x30)), b"\5\0"),
            "no identifiers": make_offer(element(0xA0, element(0x30, element(0x04, NTLM)))),
            "many": make_offer(listed(*(b"\x2a\x03",) * (MECHANISMS_LIMIT + 1))),
            "out of order": make_response(octets(3, b"mic"), octets(2, b"token")),
            "repeated": make_response(octets(2, b"token"), octets(2, b"token")),
            "unknown field": make_response(octets(4, b"token")),
            "no octets": make_response(element(0xA2, element(0x0C, b"token"))),
            "indefinite": b"\xa1\x80" + make_response(octets(2, b"t"))[2:] + b"\0\0",
            "not the shortest": b"\xa1\x81" + make_response(octets(2, b"t"))[1:],
            "padded": b"\xa1\x82\0" + make_response(octets(2, b"t"))[1:],
            "four octets": b"\xa1\x84\0\0\0" + make_response(octets(2, b"t"))[1:],
            "long tag": b"\xbf\x21\0",
        }
        for name, data in wrong.items():
            with self.subTest(name):
                self.assertRaises(BadRequest, parse_token, data)

    @MODEST
    @given(st.binary(max_size=200))
    def test_anything(self, data: bytes) -> None:
        """Whatever arrives is read or refused."""
        self.read(data)
        self.read(element(0x60, element(0x06, SPNEGO), element(0xA0, data)))
        self.read(make_response(data))

    @MODEST
    @given(st.data())
    def test_mutated(self, data: st.DataObject) -> None:
        """So is a good token with a few octets changed."""
        good = make_offer(listed(KERBEROS, NTLM), octets(2, b"x" * 150))
        changed = bytearray(good)
        for _ in range(data.draw(st.integers(1, 4))):
            changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
        self.read(bytes(changed))

    def read(self, data: bytes) -> None:
        """Read C{data} as a token."""
        try:
            token = parse_token(data)
        except BadRequest:
            return
        self.assertIsInstance(token, Offer | Response | Bare)


class NegotiationTests(SynchronousTestCase):
    """What is chosen, and how both ends make sure that the list was not changed."""

    list = make_list(KERBEROS, NTLM)

    def begin(self, *have: bytes) -> Negotiation:
        """A negotiation with a client that likes Kerberos better than NTLM."""
        negotiation = choose(Offer((KERBEROS, NTLM), self.list), have)
        assert negotiation is not None
        return negotiation

    def test_choice(self) -> None:
        """The first of the client's that we have."""
        self.assertEqual(self.begin(NTLM, KERBEROS).mechanism, KERBEROS)
        self.assertTrue(self.begin(NTLM, KERBEROS).favourite)
        self.assertEqual(self.begin(NTLM).mechanism, NTLM)
        self.assertFalse(self.begin(NTLM).favourite)
        self.assertIsNone(choose(Offer((KERBEROS,), b""), (NTLM,)))
        self.assertIsNone(choose(Offer((), b""), (NTLM,)))

    def test_first_answer(self) -> None:
        """The mechanism is named once, and a code asked for where the favourite is not to be had."""
        negotiation = self.begin(NTLM)
        self.assertEqual(negotiation.ask(), render_response(State.REQUEST_MIC, NTLM))
        self.assertEqual(negotiation.ask(b"type 2"), render_response(State.INCOMPLETE, b"", b"type 2"))
        favourite = self.begin(KERBEROS)
        self.assertEqual(favourite.ask(b"t"), render_response(State.INCOMPLETE, KERBEROS, b"t"))

    def test_favourite_without_code(self) -> None:
        """It needs none."""
        answer, over = self.begin(KERBEROS).conclude(FakeSession(), b"", b"reply")
        self.assertEqual((answer, over), (render_response(State.COMPLETED, KERBEROS, b"reply"), True))

    def test_code_with_the_last_token(self) -> None:
        """The client's is checked and answered by ours."""
        for have in (NTLM, KERBEROS):
            negotiation = self.begin(have)
            negotiation.ask()
            answer, over = negotiation.conclude(FakeSession(), b"theirs:" + self.list)
            code = b"ours:" + self.list
            self.assertEqual((answer, over), (render_response(State.COMPLETED, mic=code), True))

    def test_code_after_ours(self) -> None:
        """Where our token is the last, ours comes first."""
        negotiation = choose(Offer((b"\x2a\x03", KERBEROS), self.list), (KERBEROS,))
        assert negotiation is not None
        negotiation.ask()
        answer, over = negotiation.conclude(FakeSession(), b"", b"reply")
        code = b"ours:" + self.list
        self.assertEqual((answer, over), (render_response(State.INCOMPLETE, b"", b"reply", code), False))
        self.assertRaises(Tampered, negotiation.confirm, FakeSession(), b"")
        last = negotiation.confirm(FakeSession(), b"theirs:" + self.list)
        self.assertEqual(last, render_response(State.COMPLETED))

    def test_wrong_code(self) -> None:
        """The list is not what the client sent."""
        for have in (NTLM, KERBEROS):
            self.assertRaises(Tampered, self.begin(have).conclude, FakeSession(), b"theirs:another list")

    def test_session_that_cannot_sign(self) -> None:
        """It will do for a favourite, and for nothing else."""
        mute = FakeSession(signs=False)
        for mic in (b"", b"something"):
            self.assertTrue(self.begin(KERBEROS).conclude(mute, mic)[1])
            self.assertRaises(Tampered, self.begin(NTLM).conclude, mute, mic)
