"""Tests of L{rvpfarm.auth.digest}."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.auth.digest import (
    DigestAnswer,
    Nonces,
    Verdict,
    find_verifier,
    ha1,
    ha2,
    parse_authorization,
    response,
    verify,
)
from rvpfarm.directory.model import Verifier
from rvpfarm.protocol.calls import BadRequest

REALM = "im.fabrik.example"
PASSWORD = "Blue-Kite-41"
HASH = "f47725ec122827c47509edb01abc5deb"

#: The answer of the test vector in protocol notes 9.4, for the user C{FABRIK/petra}.
VECTOR = DigestAnswer(
    username="FABRIK/petra",
    realm=REALM,
    nonce="6f2c41d0aa9be7355d10c2e84b7f9012",
    uri="/instmsg/aliases/petra",
    cnonce="0123456789abcdef0123456789abcdef",
    nc=1,
    count="00000001",
    response="0e5e2a4c0e8b29cb11137dcf13b885c2",
    algorithm="MD5",
)

#: As Miranda writes it: C{algorithm}, C{qop} and C{nc} in quotes.
MIRANDA = (
    b'Digest username="FABRIK/petra",realm="im.fabrik.example",nonce="6f2c41d0aa9be7355d10c2e84b7f9012",'
    b'uri="/instmsg/aliases/petra",cnonce="0123456789abcdef0123456789abcdef",nc="00000001",'
    b'algorithm="MD5",qop="auth",response="0e5e2a4c0e8b29cb11137dcf13b885c2"'
)

#: As curl 7.88 writes it for the same nonce: bare C{nc} and C{qop}, C{algorithm} only when it was named.
CURL = (
    b'Digest username="FABRIK\\\\petra", realm="im.fabrik.example", '
    b'nonce="6f2c41d0aa9be7355d10c2e84b7f9012", uri="/instmsg/aliases/petra", '
    b'cnonce="ZmQwNzc1NjhhMWFiZTI0ZDVkNjQ3ZGMxNTQwN2I1Nzg=", nc=00000001, qop=auth, '
    b'response="0e5e2a4c0e8b29cb11137dcf13b885c2"'
)


class VectorTests(SynchronousTestCase):
    """The hashes are those of the protocol notes, section 9.4."""

    def test_ha1(self) -> None:
        """The hash of user, realm and password, with the slash that Miranda writes."""
        self.assertEqual(ha1("MD5", "FABRIK/petra", REALM, PASSWORD), HASH)

    def test_ha2(self) -> None:
        """The hash of method and path."""
        expected = "0dbdf4f9efaf127e897f0592a07cba6e"
        self.assertEqual(ha2("MD5", b"SUBSCRIBE", "/instmsg/aliases/petra"), expected)

    def test_response(self) -> None:
        """The response of both forms of the name."""
        self.assertEqual(response(VECTOR, b"SUBSCRIBE", HASH), "0e5e2a4c0e8b29cb11137dcf13b885c2")
        bare = ha1("MD5", "petra", REALM, PASSWORD)
        self.assertEqual(response(VECTOR, b"SUBSCRIBE", bare), "c20052136ae82cdc2c09f96cdcc0cc72")

    def test_sha_256(self) -> None:
        """The example of RFC 7616, section 3.9.1."""
        secret = ha1("SHA-256", "Mufasa", "http-auth@example.org", "Circle of Life")
        answer = DigestAnswer(
            username="Mufasa",
            realm="http-auth@example.org",
            nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
            uri="/dir/index.html",
            cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
            nc=1,
            count="00000001",
            response="753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
            algorithm="SHA-256",
        )
        self.assertEqual(response(answer, b"GET", secret), answer.response)


class ParseTests(SynchronousTestCase):
    """Answers are read as real clients write them, and nothing else is."""

    def test_miranda(self) -> None:
        """Quoted C{algorithm}, C{qop} and C{nc} are understood."""
        self.assertEqual(parse_authorization(MIRANDA), VECTOR)

    def test_curl(self) -> None:
        """Bare C{nc} and C{qop}, no C{algorithm}, and an escaped backslash are understood."""
        expected = replace(
            VECTOR, username="FABRIK\\petra", cnonce="ZmQwNzc1NjhhMWFiZTI0ZDVkNjQ3ZGMxNTQwN2I1Nzg="
        )
        self.assertEqual(parse_authorization(CURL), expected)

    def test_single_backslash(self) -> None:
        """A backslash that a client did not escape stays one."""
        value = CURL.replace(b"\\\\", b"\\")
        self.assertEqual(parse_authorization(value).username, "FABRIK\\petra")

    def test_quote_in_name(self) -> None:
        """An escaped quote is part of the name."""
        value = CURL.replace(b"FABRIK\\\\petra", b'pe\\"tra')
        self.assertEqual(parse_authorization(value).username, 'pe"tra')

    def test_sha_256(self) -> None:
        """The algorithm may be SHA-256, in any letter case, with a response of its length."""
        value = CURL.replace(b"0e5e2a4c0e8b29cb11137dcf13b885c2", b"AB" * 32) + b", algorithm=sha-256"
        answer = parse_authorization(value)
        self.assertEqual((answer.algorithm, answer.response), ("SHA-256", "ab" * 32))

    def test_tolerated(self) -> None:
        """Letter case of names, further attributes, white space and empty list elements do not matter."""
        value = MIRANDA.replace(b"Digest ", b"dIGEST  ").replace(b"realm=", b'opaque="x", , REALM = ')
        self.assertEqual(parse_authorization(value), VECTOR)

    def test_refused(self) -> None:
        """What is not an answer to one of our challenges is refused."""
        for value in [
            b"",
            b"Digest",
            b"Basic cGV0cmE6eA==",
            b"Digest x",
            b'Digest username="petra',
            MIRANDA.replace(b"Digest ", b"Digest,"),
            MIRANDA.replace(b"username=", b"user="),
            MIRANDA.replace(b'realm="im.fabrik.example",', b""),
            MIRANDA.replace(b'cnonce="0123456789abcdef0123456789abcdef",', b""),
            MIRANDA.replace(b'nc="00000001",', b""),
            MIRANDA.replace(b',qop="auth"', b""),
            MIRANDA.replace(b'"auth"', b'"auth-int"'),
            MIRANDA.replace(b'"MD5"', b'"MD5-sess"'),
            MIRANDA.replace(b'"MD5"', b'"SHA-256"'),
            MIRANDA.replace(b'"00000001"', b'"00000000"'),
            MIRANDA.replace(b'"00000001"', b'"1"'),
            MIRANDA.replace(b'"00000001"', b'"0000000x"'),
            MIRANDA.replace(b'"00000001"', b'"+0000001"'),
            MIRANDA.replace(b"0e5e2a4c", b"0e5e2a4"),
            MIRANDA.replace(b"0e5e2a4c", b"0e5e2a4z"),
            MIRANDA + b', username="ingrid"',
            MIRANDA.replace(b"petra", b"p\xff"),
            MIRANDA + b', x="' + b"y" * 5000 + b'"',
        ]:
            self.assertRaises(BadRequest, parse_authorization, value)

    @given(st.binary(max_size=200))
    @settings(max_examples=200)
    def test_anything(self, garbage: bytes) -> None:
        """Whatever arrives is read or refused."""
        for value in (b"Digest " + garbage, MIRANDA + garbage):
            with contextlib.suppress(BadRequest):
                parse_authorization(value)


class VerifyTests(SynchronousTestCase):
    """Credentials are right only for the name, realm, algorithm, method and path that were hashed."""

    verifier = Verifier("digest-md5", "FABRIK/petra", REALM, HASH)

    def test_right(self) -> None:
        """The answer of the test vector fits."""
        self.assertTrue(verify(VECTOR, b"SUBSCRIBE", [self.verifier]))

    def test_wrong(self) -> None:
        """Anything else that was hashed does not fit."""
        for answer in [
            replace(VECTOR, response="0" * 32),
            replace(VECTOR, nonce="6f2c41d0aa9be7355d10c2e84b7f9013"),
            replace(VECTOR, uri="/instmsg/aliases/ingrid"),
            replace(VECTOR, cnonce="0"),
            replace(VECTOR, count="00000002"),
            replace(VECTOR, username="petra"),
            replace(VECTOR, realm="im.orchard.example"),
            replace(VECTOR, algorithm="SHA-256"),
        ]:
            self.assertFalse(verify(answer, b"SUBSCRIBE", [self.verifier]))
        self.assertFalse(verify(VECTOR, b"NOTIFY", [self.verifier]))

    def test_no_verifier(self) -> None:
        """Nobody fits no verifier, not even with the hash that stands in for one."""
        answer = replace(VECTOR, response=response(VECTOR, b"SUBSCRIBE", "0" * 32))
        self.assertFalse(verify(answer, b"SUBSCRIBE", []))

    def test_find(self) -> None:
        """The verifier is found by scheme, name and realm together."""
        others = [
            replace(self.verifier, scheme="digest-sha-256"),
            replace(self.verifier, username="fabrik/petra"),
            replace(self.verifier, realm="im.orchard.example"),
        ]
        self.assertIsNone(find_verifier(VECTOR, others))
        self.assertIs(find_verifier(VECTOR, [*others, self.verifier]), self.verifier)


class NoncesTests(SynchronousTestCase):
    """A nonce is good everywhere in the farm for a while, and each of its counts once."""

    def setUp(self) -> None:
        """Nonces of a farm, and one of them."""
        self.nonces = Nonces(b"k" * 32)
        self.nonce = self.nonces.issue(1000.0, b"12345678")

    def judge(self, nc: int, now: float = 1000.0) -> Verdict:
        """The verdict on a count of the nonce."""
        return self.nonces.judge(self.nonce, nc, now)

    def test_text(self) -> None:
        """It has neither comma nor quote, and another one every time."""
        self.assertRegex(self.nonce, "^[0-9a-f]{60}$")
        self.assertNotEqual(self.nonce, self.nonces.issue(1000.0, b"12345679"))
        self.assertNotEqual(self.nonce, self.nonces.issue(1000.001, b"12345678"))

    def test_once(self) -> None:
        """A count is fresh once."""
        self.assertEqual(self.judge(1), Verdict.FRESH)
        self.assertEqual(self.judge(1), Verdict.REPLAYED)
        self.assertEqual(self.judge(2), Verdict.FRESH)

    def test_farm_wide(self) -> None:
        """A member that did not issue it accepts it just the same."""
        self.assertEqual(Nonces(b"k" * 32).judge(self.nonce, 1, 1010.0), Verdict.FRESH)

    def test_other_farm(self) -> None:
        """A nonce of another farm is not one of ours."""
        self.assertEqual(Nonces(b"x" * 32).judge(self.nonce, 1, 1000.0), Verdict.FORGED)

    def test_forged(self) -> None:
        """No part of it can be changed."""
        for at in range(len(self.nonce)):
            changed = "1" if self.nonce[at] != "1" else "2"
            nonce = self.nonce[:at] + changed + self.nonce[at + 1 :]
            self.assertEqual(self.nonces.judge(nonce, 1, 1000.0), Verdict.FORGED)
        for nonce in ("", "6f2c41d0aa9be7355d10c2e84b7f9012", "\u00e9" * 60, self.nonce + "0", "z" * 60):
            self.assertEqual(self.nonces.judge(nonce, 1, 1000.0), Verdict.FORGED)
        self.assertEqual(self.nonces.judge(self.nonce.upper(), 1, 1000.0), Verdict.FORGED)

    def test_lifetime(self) -> None:
        """It is stale after its time, and when it comes from a clock far ahead."""
        self.assertEqual(self.judge(1, 1300.0), Verdict.FRESH)
        self.assertEqual(self.judge(2, 1300.001), Verdict.STALE)
        self.assertEqual(self.judge(3, 995.0), Verdict.FRESH)
        self.assertEqual(self.judge(4, 994.9), Verdict.STALE)

    def test_out_of_order(self) -> None:
        """Counts may arrive in any order within a window of 64."""
        for nc in (64, 3, 1, 2, 63):
            self.assertEqual(self.judge(nc), Verdict.FRESH)
        for nc in (1, 2, 3, 63, 64):
            self.assertEqual(self.judge(nc), Verdict.REPLAYED)
        self.assertEqual(self.judge(65), Verdict.FRESH)
        self.assertEqual(self.judge(4), Verdict.FRESH)
        self.assertEqual(self.judge(1), Verdict.REPLAYED)
        self.assertEqual(self.judge(0xFFFFFFFF), Verdict.FRESH)
        self.assertEqual(self.judge(66), Verdict.REPLAYED)

    @given(st.lists(st.integers(1, 150), max_size=120))
    @settings(max_examples=100)
    def test_never_twice(self, counts: list[int]) -> None:
        """Whatever the order, no count is fresh twice, and every new highest one is fresh."""
        nonces = Nonces(b"k" * 32)
        fresh: set[int] = set()
        for nc in counts:
            highest = max(fresh, default=0)
            if nonces.judge(self.nonce, nc, 1000.0) is Verdict.FRESH:
                self.assertNotIn(nc, fresh)
                fresh.add(nc)
            else:
                self.assertTrue(nc in fresh or nc <= highest - 64)

    def test_bounded(self) -> None:
        """The oldest is forgotten when memory is full, and is stale from then on, not fresh again."""
        nonces = Nonces(b"k" * 32, remembered=10)
        issued = [nonces.issue(1000.0 + number, b"12345678") for number in range(15)]
        for nonce in issued:
            self.assertEqual(nonces.judge(nonce, 1, 1020.0), Verdict.FRESH)
        self.assertEqual(len(nonces), 10)
        for nonce in issued[:5]:
            self.assertEqual(nonces.judge(nonce, 1, 1020.0), Verdict.STALE)
            self.assertEqual(nonces.judge(nonce, 2, 1020.0), Verdict.STALE)
        for nonce in issued[5:]:
            self.assertEqual(nonces.judge(nonce, 1, 1020.0), Verdict.REPLAYED)
            self.assertEqual(nonces.judge(nonce, 2, 1020.0), Verdict.FRESH)

    def test_unused_and_old(self) -> None:
        """A nonce that was issued before a forgotten one is stale, since its use may be forgotten too."""
        nonces = Nonces(b"k" * 32, remembered=1)
        first, second, third = (nonces.issue(1000.0 + number, b"12345678") for number in range(3))
        self.assertEqual(nonces.judge(second, 1, 1005.0), Verdict.FRESH)
        self.assertEqual(nonces.judge(third, 1, 1005.0), Verdict.FRESH)
        self.assertEqual(nonces.judge(first, 1, 1005.0), Verdict.STALE)

    def test_memory_empties(self) -> None:
        """What is too old to matter is not kept."""
        self.judge(1)
        later = self.nonces.issue(2000.0, b"12345678")
        self.assertEqual(self.nonces.judge(later, 1, 2000.0), Verdict.FRESH)
        self.assertEqual(len(self.nonces), 1)

    def test_clock_set_back(self) -> None:
        """A nonce that was forgotten for its age is not fresh again when the clock is set back."""
        self.judge(1)
        later = self.nonces.issue(2000.0, b"12345678")
        self.nonces.judge(later, 1, 2000.0)
        self.assertEqual(self.judge(1, 1001.0), Verdict.STALE)

    def test_since(self) -> None:
        """A process that was started anew does not accept what its forerunner may have accepted."""
        nonces = Nonces(b"k" * 32, since=1000.5)
        self.assertEqual(nonces.judge(self.nonce, 1, 1001.0), Verdict.STALE)
        self.assertEqual(nonces.judge(nonces.issue(1000.5, b"12345678"), 1, 1001.0), Verdict.FRESH)
