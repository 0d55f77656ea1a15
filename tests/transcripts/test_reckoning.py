"""Tests of L{tests.support.reckoning} by the vectors that protocol notes 9.3 and 9.4 print."""

from __future__ import annotations

from base64 import b64decode

from twisted.trial.unittest import SynchronousTestCase

from tests.support.reckoning import digest_response, net_rvp_type3

TYPE2 = "TlRMTVNTUAACAAAADAAMADAAAAAFggAAASNFZ4mrze8AAAAAAAAAAAAAAAA8AAAARgBBAEIAUgBJAEsA"
TYPE3 = (
    "TlRMTVNTUAADAAAAGAAYAEAAAAAYABgAWAAAAAwADABwAAAACgAKAHwAAAAKAAoAhgAAAAAAAABQAAAABYIAAAmVUThRAEUMkfn5Hlhmp4XJ"
    "+XxgMhAQHXGvBUZu3WdcXLjF3pzrf3VjCRw4IhcrPEYAQQBCAFIASQBLAHAAZQB0AHIAYQBwAGUAdAByAGEA"
)


class ReckoningTests(SynchronousTestCase):
    """The figures are those of the notes."""

    def test_digest(self) -> None:
        """With the user name as Miranda writes it, and bare."""
        for user, response in (
            ("FABRIK/petra", "0e5e2a4c0e8b29cb11137dcf13b885c2"),
            ("petra", "c20052136ae82cdc2c09f96cdcc0cc72"),
        ):
            found = digest_response(
                user,
                "im.fabrik.example",
                "Blue-Kite-41",
                "SUBSCRIBE",
                "/instmsg/aliases/petra",
                "6f2c41d0aa9be7355d10c2e84b7f9012",
                "00000001",
                "0123456789abcdef0123456789abcdef",
            )
            self.assertEqual(found, response, user)

    def test_ntlm(self) -> None:
        """The type 3 is that of Net::RVP, octet for octet, with both responses in it."""
        found = net_rvp_type3(TYPE2, "petra", "Blue-Kite-41")
        self.assertEqual(found, TYPE3)
        for response in (
            "71af05466edd675c5cb8c5de9ceb7f7563091c3822172b3c",
            "099551385100450c91f9f91e5866a785c9f97c603210101d",
        ):
            self.assertIn(bytes.fromhex(response), b64decode(found))
