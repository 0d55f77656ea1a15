"""Tests of C{rvpfarm.client.names}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.client.names import Address, key_of, logical_url, parse_address, shown


class AddressTests(SynchronousTestCase):
    """An address as people type it."""

    def test_mail_form(self) -> None:
        """A name and a domain; the domain's case does not matter."""
        self.assertEqual(
            parse_address(" Bob@Farm.LocalHost "), Address("Bob@Farm.LocalHost", "Bob", "farm.localhost")
        )

    def test_url(self) -> None:
        """A logical URL names the IM domain itself; a physical one is made logical."""
        url = "http://im.farm.localhost/instmsg/aliases/bob"
        self.assertEqual(parse_address(url), Address(url, "bob", "im.farm.localhost", url))
        group = parse_address("http://im.farm.localhost/groups/shipping")
        self.assertEqual((group.alias, group.url), ("shipping", "http://im.farm.localhost/groups/shipping"))

    def test_nonsense(self) -> None:
        """What is no address is refused with a sentence."""
        for text in (
            "",
            "bob",
            "@d",
            "a@",
            "a b@d",
            "a@b c",
            "a@b..c",
            "a@d:80",
            "a/b@d",
            "ftp://a/b/c",
            "http://a",
            "http://u@h/a/b",
        ):
            self.assertRaises(ValueError, parse_address, text)

    def test_round_trip(self) -> None:
        """From alias to URL and back, whatever is in the name."""
        url = logical_url("zoë.o'neil", "im.farm.localhost")
        self.assertEqual(url, "http://im.farm.localhost/instmsg/aliases/zo%C3%AB.o'neil")
        self.assertEqual(shown(url), "zoë.o'neil@im.farm.localhost")
        self.assertEqual(shown("im.farm.localhost"), "im.farm.localhost")

    def test_keys(self) -> None:
        """Different spellings of one URL are the same person."""
        self.assertEqual(
            key_of("http://IM.farm.localhost:80/INSTMSG/Aliases/%42ob/"),
            "im.farm.localhost/instmsg/aliases/bob",
        )
