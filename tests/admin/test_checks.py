"""Names, addresses and passwords: what is accepted, what follows, and which sentence refuses the rest."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.admin.checks import (
    Naming,
    Refused,
    check_address,
    check_alias,
    check_host,
    check_netbios,
    check_password,
    check_place,
    check_port,
    check_server_name,
    check_text,
    derive,
    enumerate_names,
    im_address,
    parse_range,
)
from rvpfarm.directory.model import Domain

FABRIK = Domain("im.fabrik.example", ("fabrik.example", "fabrik.test"), ("omnent",))
ORCHARD = Domain("im.orchard.example")
BOTH = {FABRIK.name: FABRIK, ORCHARD.name: ORCHARD}


class PlaceTests(SynchronousTestCase):
    """An address and a port."""

    def test_kept(self) -> None:
        """IPv4, IPv6 and names, each in one spelling."""
        for text, place in (
            ("", ""),
            (" 192.0.2.11:09464 ", "192.0.2.11:9464"),
            ("[2001:DB8:0::11]:9464", "[2001:db8::11]:9464"),
            ("HS1.Fabrik.Example.:1", "hs1.fabrik.example:1"),
            ("localhost:65535", "localhost:65535"),
        ):
            self.assertEqual(check_place(text, "--metrics"), place)

    def test_refused(self) -> None:
        """Anything else is refused, with the option and an example."""
        for text in (
            "9464",
            ":9464",
            "192.0.2.11",
            "192.0.2.11:",
            "192.0.2.11:0",
            "192.0.2.11:65536",
            "192.0.2.11:9x",
            "2001:db8::11:9464",
            "[192.0.2.11]:9464",
            "0.0.0.0:9464",
            "[::]:9464",
            "a b:1",
        ):
            problem = self.assertRaises(Refused, check_place, text, "--metrics")
            self.assertIn("--metrics ADDRESS:PORT", str(problem), text)


class HostTests(SynchronousTestCase):
    """Servers and domains have fully qualified names (KB 319758)."""

    def test_kept(self) -> None:
        """A good name is lowered and loses its final dot."""
        self.assertEqual(check_host(" HS1.Fabrik.Example. ", "no"), "hs1.fabrik.example")

    def test_single_label(self) -> None:
        """One label is refused with the remedy, where it is not asked for."""
        problem = self.assertRaises(Refused, check_host, "HS1", "give --host such and such")
        self.assertEqual(str(problem), '"HS1" is not a fully qualified name; give --host such and such')
        self.assertEqual(check_host("HS1", "no", single=True), "hs1")

    def test_ip_address(self) -> None:
        """An address is no name."""
        for text in ("192.0.2.1", "::1", "[::1]"):
            self.assertIn("is an IP address", str(self.assertRaises(Refused, check_host, text, "no")))

    def test_bad_names(self) -> None:
        """What DNS does not allow is refused."""
        too_long = ".".join(["a" * 63] * 4)
        for text in (
            "a..b",
            "-a.example",
            "a-.example",
            "a_b.example",
            "a b.example",
            "",
            ".",
            "a." + "b" * 64,
            too_long,
        ):
            self.assertIn("is not a DNS name", str(self.assertRaises(Refused, check_host, text, "no")))

    def test_number_as_top_level(self) -> None:
        """A name that could be taken for an address is refused."""
        self.assertRaises(Refused, check_host, "hs1.256", "no")

    def test_server_name(self) -> None:
        """A server's short name is one label, lower case."""
        self.assertEqual(check_server_name("HS1"), "hs1")
        for text in ("", "hs 1", "hs1.fabrik", "-hs", "h" * 64):
            self.assertRaises(Refused, check_server_name, text)

    def test_netbios(self) -> None:
        """A NetBIOS name is at most 15 characters, upper case, and may be missing."""
        self.assertEqual((check_netbios("fabrik"), check_netbios("")), ("FABRIK", ""))
        for text in ("a" * 16, "a\\b", "a b"):
            self.assertRaises(Refused, check_netbios, text)

    def test_port(self) -> None:
        """A port is a port."""
        self.assertEqual(check_port(8080, "--port"), 8080)
        for port in (0, -1, 65536):
            self.assertIn("--link-port", str(self.assertRaises(Refused, check_port, port, "--link-port")))

    def test_address(self) -> None:
        """An address is written in its shortest form; one that reaches nobody is refused."""
        self.assertEqual(check_address("2001:DB8::0001"), "2001:db8::1")
        self.assertEqual(check_address(""), "")
        for text in ("0.0.0.0", "224.0.0.1", "::", "hs1", "192.0.2.256"):
            self.assertRaises(Refused, check_address, text)

    def test_range(self) -> None:
        """A range is a network, two addresses, or one."""
        self.assertEqual(parse_range("192.0.2.7/24"), ("192.0.2.0", "192.0.2.255"))
        self.assertEqual(parse_range("192.0.2.1 - 192.0.2.9"), ("192.0.2.1", "192.0.2.9"))
        self.assertEqual(parse_range("2001:db8::1"), ("2001:db8::1", "2001:db8::1"))
        for text in ("", "192.0.2.9-192.0.2.1", "192.0.2.1-::1", "192.0.2.0/33", "inside"):
            self.assertRaises(Refused, parse_range, text)


class AliasTests(SynchronousTestCase):
    """A user's name fits into a URL and into an address."""

    def test_kept(self) -> None:
        """What the URL grammar allows is kept as it is (protocol notes 1.3)."""
        for text in ("Petra", "p.novak", "a-b_c~d!e$f'g+h", "7"):
            self.assertEqual(check_alias(text), text)

    def test_refused(self) -> None:
        """What would need escaping, or reads as a path, is refused."""
        for text in (
            "",
            ".",
            "..",
            ".a",
            "a.",
            "a..b",
            "a b",
            "a/b",
            "a%2Fb",
            "a@b",
            "p\u00e9tra",
            "a\n",
            "x" * 65,
        ):
            self.assertRaises(Refused, check_alias, text)

    @given(st.text(max_size=70))
    @settings(max_examples=100, deadline=None)
    def test_accepted_means_safe(self, text: str) -> None:
        """Whatever is accepted stands in a path and in an address as it is, and is no step in a path."""
        try:
            alias = check_alias(text)
        except Refused:
            return
        self.assertTrue(alias.isascii() and alias.isprintable())
        self.assertFalse(set(alias) & set(' /\\?#%@:;,"<>[]'))
        self.assertNotIn(alias, ("", ".", ".."))

    def test_text(self) -> None:
        """Text for people is one line."""
        self.assertEqual(check_text(" Petra Nov\u00e1k ", "display name"), "Petra Nov\u00e1k")
        for text in ("a\nb", "x" * 257, "\x07"):
            self.assertIn("display name", str(self.assertRaises(Refused, check_text, text, "display name")))


class PasswordTests(SynchronousTestCase):
    """A password is worth keeping verifiers of."""

    def test_kept(self) -> None:
        """A long one is accepted as it is, spaces and all."""
        for text in ("Blue-Kite-41", " blue kite ", "p\u00e9trapass"):
            self.assertEqual(check_password(text, "petra"), text)

    def test_refused(self) -> None:
        """Too short, too long, with the user's name in it, or with control characters: refused."""
        for text, words in (
            ("1234567", "too short"),
            ("x" * 257, "one line"),
            ("a\tb\tc\td\te", "one line"),
            ("my-PETRA-41", "contains"),
        ):
            problem = str(self.assertRaises(Refused, check_password, text, "Petra"))
            self.assertIn(words, problem)
            self.assertNotIn(text, problem)

    def test_short_name(self) -> None:
        """A name of two letters may turn up in a password by chance."""
        self.assertEqual(check_password("alphabet", "al"), "alphabet")


class DerivationTests(SynchronousTestCase):
    """The IM address follows from the mail address and the domains, and from nothing else."""

    def test_served_mail_domain(self) -> None:
        """A user of a mail domain that the IM domain serves has the mail address as IM address."""
        self.assertEqual(im_address("petra", "fabrik.example", FABRIK), "petra@fabrik.example")
        self.assertEqual(
            derive("Petra@Fabrik.Test", BOTH),
            Naming("Petra", FABRIK.name, "Petra@fabrik.test", "Petra@fabrik.test"),
        )

    def test_other_mail_domain(self) -> None:
        """With another mail address the IM address names the IM domain; the mail address is kept."""
        self.assertEqual(im_address("ingrid", "orchard.example", ORCHARD), "ingrid@im.orchard.example")
        self.assertEqual(
            derive("ingrid@partner.example", BOTH, ORCHARD.name),
            Naming("ingrid", ORCHARD.name, "ingrid@im.orchard.example", "ingrid@partner.example"),
        )

    def test_served_elsewhere(self) -> None:
        """In another IM domain than the one that serves the mail domain, the IM domain is named."""
        self.assertEqual(
            derive("petra@fabrik.example", BOTH, ORCHARD.name).address, "petra@im.orchard.example"
        )

    def test_im_address_given(self) -> None:
        """An IM address, or one with a further host name of the domain, needs no mail address."""
        for text in ("petra@im.fabrik.example", "petra@OMNENT"):
            self.assertEqual(derive(text, BOTH), Naming("petra", FABRIK.name, "petra@im.fabrik.example", ""))

    def test_bare_name(self) -> None:
        """A bare name is enough where it is clear; it takes the primary mail domain."""
        self.assertEqual(derive("petra", {FABRIK.name: FABRIK}).address, "petra@fabrik.example")
        self.assertEqual(
            derive("ingrid", BOTH, "IM.Orchard.Example."),
            Naming("ingrid", ORCHARD.name, "ingrid@im.orchard.example", ""),
        )

    def test_refused(self) -> None:
        """An unknown, unclear or impossible domain is refused with what to give instead."""
        for text, domains, domain, words in (
            ("petra", {}, None, "rvpfarm domain add"),
            ("petra", BOTH, None, "im.fabrik.example, im.orchard.example"),
            ("petra@elsewhere.example", BOTH, None, "--mail-domain elsewhere.example"),
            ("petra", BOTH, "im.elsewhere.example", "there is no IM domain"),
            ("petra@a b", BOTH, ORCHARD.name, "is not a DNS name"),
            ("@fabrik.example", BOTH, None, "cannot be a user name"),
            ("a@b@fabrik.example", BOTH, None, "is not a DNS name"),
        ):
            self.assertIn(words, str(self.assertRaises(Refused, derive, text, domains, domain)))

    def test_key(self) -> None:
        """The node's key is lower case, the path is not."""
        naming = derive("Petra@fabrik.example", BOTH)
        self.assertEqual(naming.path, "/instmsg/aliases/Petra")
        self.assertEqual(naming.key, "im.fabrik.example/instmsg/aliases/petra")

    def test_not_too_many_names(self) -> None:
        """A sentence lists a dozen names, and how many there are besides."""
        self.assertEqual(enumerate_names([]), "none")
        self.assertEqual(enumerate_names("cab"), "a, b, c")
        self.assertTrue(enumerate_names(f"d{count:02}" for count in range(15)).endswith("d11 and 3 more"))
