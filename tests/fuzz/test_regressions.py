"""What fuzzing found, so that it stays found: each input with the promise that it broke."""

from __future__ import annotations

import tracemalloc

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.auth.digest import Nonces, Verdict
from rvpfarm.protocol.address import Names, parse_call_back
from rvpfarm.protocol.properties import parse_propertyupdate
from rvpfarm.web.responses import ResponseReader
from tests.fuzz.registry import load

IM = "im.fabrik.example"
NAMES = Names({IM: IM}, {"hs1.fabrik.example": IM})

#: Inputs that broke a promise once, by target.
FOUND = {
    "address": (
        b"http://hs9.elsewhere.example:8000/instmsg/local/127.0.0.1/instmsg/aliases/petra",
        b"http://hs9.elsewhere.ex/instmsg/local/ample:8000/0nstmsg/local/im.fabrik.example/inss/pettmsg/alias",
    ),
    "bodies": (
        b"<d:propertyupdate xmlns:d='DAV:' xmlns:r='http://schemas.microsoft.com/rvp/'><d:set><d:prop><x xmlns='urn:x'>"
        b"<r:leased-value><r:value><r:leased-value/></r:value><r:default-value/></r:leased-value></x></d:prop></d:set>"
        b"</d:propertyupdate>",
    ),
    "responses": (b"HTTP/1.1 200 OK\r\nX:\r\n chunked\r\n\r\n",),
}


class FoundTests(SynchronousTestCase):
    """What was found once is not found again."""

    def test_found(self) -> None:
        """Every input that broke a promise keeps it now."""
        for name, inputs in FOUND.items():
            for data in inputs:
                load(name).fuzz_one(data)

    def test_address_in_a_physical_path(self) -> None:
        """An IP address inside a physical path makes no principal, whom no rule about addresses would see."""
        for host in ("127.0.0.1", "169.254.169.254", "192.0.2.1:8080"):
            url = f"http://hs9.elsewhere.example:8000/instmsg/local/{host}/instmsg/aliases/petra"
            found = parse_call_back(url, NAMES)
            self.assertEqual((found.principal, found.host, found.port), (None, "hs9.elsewhere.example", 8000))

    def test_listener_in_a_physical_path(self) -> None:
        """Nor does the URL of a listener: it would be one when it is read again, after a restart."""
        url = "http://hs9.elsewhere.example/instmsg/local/inside.example:8000/a/b"
        found = parse_call_back(url, NAMES)
        self.assertEqual((found.principal, found.host), (None, "hs9.elsewhere.example"))
        self.assertEqual(parse_call_back(found.url, NAMES), found)

    def test_principal_in_a_physical_path(self) -> None:
        """A principal inside one is still that principal."""
        for host in (IM, "hs1.fabrik.example:8080", "im.orchard.example"):
            url = f"http://hs9.elsewhere.example:8000/instmsg/local/{host}/instmsg/aliases/petra"
            found = parse_call_back(url, NAMES)
            domain = "im.orchard.example" if "orchard" in host else IM
            self.assertEqual(found.principal, f"{domain}/instmsg/aliases/petra")
            self.assertEqual(parse_call_back(found.url, NAMES), found)

    def test_lease_inside_a_lease(self) -> None:
        """A value that would be taken for a lease itself, once it is told without its own, cannot be had."""
        (change,) = parse_propertyupdate(FOUND["bodies"][0])
        self.assertTrue(change.problem)

    def test_count_far_behind(self) -> None:
        """A nonce count far behind the highest is a replay, for which nothing large is computed."""
        nonces = Nonces(b"key")
        nonce = nonces.issue(1000.0, b"12345678")
        self.assertIs(nonces.judge(nonce, 2**32 - 1, 1001.0), Verdict.FRESH)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        self.assertIs(nonces.judge(nonce, 1, 1001.0), Verdict.REPLAYED)
        self.assertLess(tracemalloc.get_traced_memory()[1], 1 << 20)
        self.assertIs(nonces.judge(nonce, 2**32 - 2, 1001.0), Verdict.FRESH)

    def test_folded_from_the_start(self) -> None:
        """A value that begins on the second line of its field begins without a space (RFC 9112 5.2)."""
        response = ResponseReader().feed(
            b'HTTP/1.1 401 No\r\nX:\r\n y\r\n \r\nWWW-Authenticate:\r\n Digest realm="a",\r\n nonce="b"\r\n'
            b"Content-Length:\r\n 2\r\n\r\nab"
        )
        assert response is not None
        self.assertEqual((response.headers[b"x"], response.body), (b"y", b"ab"))
        self.assertEqual(response.challenges, (b'Digest realm="a", nonce="b"',))
        self.assertFalse(response.reusable)
