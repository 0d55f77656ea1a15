"""Tests of C{rvpfarm.client.signin}."""

from __future__ import annotations

import hashlib
import re

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.client.signin import Challenge, SignIn, choose, parse_challenge

NONCE = "6f2c41d0aa9be7355d10c2e84b7f9012"
MD5 = b'Digest qop="auth", realm="im.fabrik.example", nonce="6f2c41d0aa9be7355d10c2e84b7f9012"'
SHA = MD5 + b", algorithm=SHA-256"
PATH = "/instmsg/aliases/petra"


def field(header: bytes | None, name: str) -> str:
    """The value of one part of an C{Authorization}."""
    match = re.search(rf'[ ,]{name}="?([^",]*)', (header or b"").decode())
    assert match is not None, name
    return match[1]


def signin(username: str = "petra", cnonce: str = "0123456789abcdef0123456789abcdef") -> SignIn:
    """Somebody with the password of the protocol notes."""
    return SignIn(lambda realm: username, "Blue-Kite-41", lambda: cnonce)


class ParseChallengeTests(SynchronousTestCase):
    """A challenge line is read, or known to be of no use."""

    def test_ours(self) -> None:
        """The line of protocol notes 9.1."""
        self.assertEqual(
            parse_challenge(MD5), Challenge("im.fabrik.example", NONCE, "MD5", False, None, False)
        )

    def test_everything(self) -> None:
        """Quotes, escapes, stale, opaque, an algorithm in quotes, several ways of protection."""
        line = (
            b'digest Realm="a \\"b\\", c" , nonce=n1,qop="auth-int, auth",opaque="x=",'
            b'algorithm="sha-256",stale=TRUE'
        )
        self.assertEqual(parse_challenge(line), Challenge('a "b", c', "n1", "SHA-256", True, "x=", True))

    def test_no_use(self) -> None:
        """Other schemes, algorithms and ways, and lines that are broken."""
        for line in (
            b"NTLM",
            b"Negotiate",
            b'Digest realm="r", nonce="n"',
            b'Digest realm="r", nonce="n", qop="auth-int"',
            b'Digest realm="r", nonce="n", qop="auth", algorithm=MD5-sess',
            b'Digest realm="r", qop="auth"',
            b'Digest realm="r, nonce="n", qop="auth"',
            b"Digest",
            b"",
            b"\xff",
        ):
            self.assertIsNone(parse_challenge(line), line)

    def test_strongest(self) -> None:
        """SHA-256 is preferred, in whatever order the lines come."""
        for lines in ((MD5, SHA), (b"NTLM", SHA, MD5)):
            chosen = choose(lines)
            self.assertEqual(chosen and chosen.algorithm, "SHA-256")
        self.assertIsNone(choose([b"NTLM"]))


class SignInTests(SynchronousTestCase):
    """Requests are signed once a server has challenged us."""

    def adopt(self, who: SignIn, line: bytes) -> None:
        """Take a challenge."""
        challenge = parse_challenge(line)
        assert challenge is not None
        who.adopt("im", challenge)

    def test_vectors(self) -> None:
        """The test vectors of protocol notes 9.4."""
        for username, expected in (
            ("petra", "c20052136ae82cdc2c09f96cdcc0cc72"),
            ("FABRIK/petra", "0e5e2a4c0e8b29cb11137dcf13b885c2"),
        ):
            who = signin(username)
            self.adopt(who, MD5)
            header = who.authorization("im", "SUBSCRIBE", PATH)
            self.assertEqual(field(header, "response"), expected)
            self.assertEqual(field(header, "nc"), "00000001")
            self.assertEqual(field(header, "uri"), PATH)
            self.assertNotIn(b"algorithm", header or b"")

    def test_sha_256(self) -> None:
        """The same with SHA-256, computed here step by step (RFC 7616 3.4.1)."""

        def digest(text: str) -> str:
            return hashlib.sha256(text.encode()).hexdigest()

        who = signin(cnonce="c")
        self.adopt(who, SHA)
        a1, a2 = digest("petra:im.fabrik.example:Blue-Kite-41"), digest(f"NOTIFY:{PATH}")
        header = who.authorization("im", "NOTIFY", PATH)
        self.assertEqual(field(header, "response"), digest(f"{a1}:{NONCE}:00000001:c:auth:{a2}"))
        self.assertEqual(field(header, "algorithm"), "SHA-256")

    def test_counts(self) -> None:
        """A nonce is used again with a rising count; a new one begins at one."""
        who = signin()
        self.adopt(who, MD5)
        counts = [field(who.authorization("im", "ACL", "/"), "nc") for _ in range(2)]
        self.adopt(who, SHA)
        counts.append(field(who.authorization("im", "ACL", "/"), "nc"))
        self.assertEqual(counts, ["00000001", "00000002", "00000001"])

    def test_unchallenged(self) -> None:
        """To a server that has not asked nothing is proved."""
        who = signin()
        self.adopt(who, MD5)
        self.assertIsNone(who.authorization("im.elsewhere.example", "ACL", "/"))

    def test_bounded(self) -> None:
        """Only so many servers are kept in mind."""
        who, challenge = signin(), parse_challenge(MD5)
        assert challenge is not None
        for number in range(65):
            who.adopt(f"im{number}", challenge)
        self.assertIsNone(who.authorization("im0", "ACL", "/"))
        self.assertIsNotNone(who.authorization("im64", "ACL", "/"))

    def test_quoting(self) -> None:
        """A backslash in a name does not break the header."""
        who = signin('FABRIK\\pe"tra')
        self.adopt(who, MD5)
        self.assertIn(b'username="FABRIK\\\\pe\\"tra",', who.authorization("im", "ACL", "/") or b"")
