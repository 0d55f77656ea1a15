"""Tests of L{rvpfarm.protocol.address}."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.protocol.address import (
    Names,
    asked_host,
    is_ip,
    key_to_url,
    parse_call_back,
    parse_location,
    parse_principal,
    parse_target,
    site_of,
)
from rvpfarm.protocol.calls import BadRequest, NotFound
from tests.support.hypothesis import MODEST

IM = "im.fabrik.example"
NAMES = Names({IM: IM, "omnent": IM, "im.two.example": "im.two.example"}, {"hs1.fabrik.example": IM})
PETRA = f"{IM}/instmsg/aliases/petra"

NAME = st.text("abcXYZ019-_.~!$'+", min_size=1, max_size=12).filter(lambda name: name not in (".", ".."))


def escaped(draw: st.DrawFn, name: str) -> str:
    """C{name} with some of its characters percent-escaped, in either letter case."""
    pieces = []
    for character in name:
        style = draw(st.sampled_from(("%s", "%%%02x", "%%%02X")))
        pieces.append(style % (character if style == "%s" else ord(character)))
    return "".join(pieces)


@st.composite
def spellings(draw: st.DrawFn, name: str) -> str:
    """One of the many URLs of the user C{name} of L{IM}."""
    name = escaped(draw, name)
    host = draw(st.sampled_from((IM, IM.upper(), "omnent", "OmnEnt", "hs1.fabrik.example", IM + ".")))
    port = draw(st.sampled_from(("", ":80", ":", ":8080")))
    users = draw(st.sampled_from(("/instmsg/aliases/", "/INSTMSG/Aliases/", "/instmsg/%61liases/")))
    slash = draw(st.sampled_from(("", "/")))
    scheme = draw(st.sampled_from(("http", "HTTP")))
    path = users + name + slash
    if draw(st.booleans()):
        path = f"/instmsg/{draw(st.sampled_from(('local', 'LOCAL')))}/{host}{path}"
        host = draw(st.sampled_from(("hs1.fabrik.example", "hs9.elsewhere.example:8000", "192.0.2.1")))
    space = draw(st.sampled_from(("", " ", "\r\n\t")))
    return f"{space}{scheme}://{host}{port if ':' not in host else ''}{path}{space}"


class ParseTargetTests(SynchronousTestCase):
    """A request names a node by path and host, in several ways."""

    def test_logical_path(self) -> None:
        """The path with the IM domain as C{Host} is the usual way."""
        target = parse_target(b"/instmsg/aliases/petra", IM.encode(), NAMES)
        self.assertEqual(target.key, PETRA)
        self.assertEqual((target.domain, target.path), (IM, "/instmsg/aliases/petra"))
        self.assertEqual((target.physical, target.host), (False, IM))

    def test_letter_case(self) -> None:
        """Upper case in the path or the host is the same node (vector 10)."""
        target = parse_target(b"/INSTMSG/Aliases/PETRA", b"IM.Fabrik.Example", NAMES)
        self.assertEqual(target.key, PETRA)

    def test_server_as_host(self) -> None:
        """A home's own name as C{Host} means its default domain, with or without a port (vector 60)."""
        for host in (b"hs1.fabrik.example", b"HS1.fabrik.example:8080", b"omnent", b"im.fabrik.example:80"):
            self.assertEqual(parse_target(b"/instmsg/aliases/petra", host, NAMES).key, PETRA)

    def test_physical(self) -> None:
        """The physical path says the domain itself, whatever the C{Host}."""
        path = b"/instmsg/local/im.fabrik.example/instmsg/aliases/Petra/"
        for host in (b"hs9.elsewhere.example:81", None):
            target = parse_target(path, host, NAMES)
            self.assertEqual((target.key, target.physical), (PETRA, True))
        self.assertEqual(parse_target(path, b"hs9.elsewhere.example:81", NAMES).host, "hs9.elsewhere.example")

    def test_absolute(self) -> None:
        """The host of an absolute target counts, not the C{Host} (vector 11)."""
        target = parse_target(b"http://im.fabrik.example:80/instmsg/aliases/petra", b"hs9.invalid", NAMES)
        self.assertEqual((target.key, target.host), (PETRA, IM))

    def test_short_path(self) -> None:
        """C{/aliases/name}, which the administrators' logs show, is understood."""
        self.assertEqual(parse_target(b"/aliases/petra", IM.encode(), NAMES).key, PETRA)

    def test_other_trees(self) -> None:
        """Nodes need not be users."""
        self.assertEqual(parse_target(b"/groups/Shipping", IM.encode(), NAMES).key, f"{IM}/groups/shipping")

    def test_unknown_domain(self) -> None:
        """A domain that is not served here is 404 (vector 47)."""
        for target, host in (
            (b"/instmsg/aliases/petra", b"im.elsewhere.example"),
            (b"http://im.elsewhere.example/instmsg/aliases/petra", IM.encode()),
            (b"/instmsg/local/im.elsewhere.example/instmsg/aliases/petra", IM.encode()),
        ):
            self.assertRaises(NotFound, parse_target, target, host, NAMES)

    def test_no_node(self) -> None:
        """Nothing lives at the root or right below it."""
        for target in (b"/", b"/petra", b"http://im.fabrik.example"):
            self.assertRaises(NotFound, parse_target, target, IM.encode(), NAMES)

    def test_malformed(self) -> None:
        """What is no path of a node is 400."""
        for target in (
            b"*",
            b"",
            b"instmsg/aliases/petra",
            b"ftp://im.fabrik.example/instmsg/aliases/petra",
            b"http:///instmsg/aliases/petra",
            b"/instmsg/aliases/pe%2Ftra",
            b"/instmsg/aliases/pe%2ftra",
            b"/instmsg/aliases/pe%0Atra",
            b"/instmsg/aliases/pe%tra",
            b"/instmsg/aliases/pe%7",
            b"/instmsg/aliases/petra?x=1",
            b"/instmsg/aliases/petra#x",
            b"/instmsg/aliases/../petra",
            b"/instmsg/aliases/%2e%2E/petra",
            b"/instmsg//aliases/petra",
            b"/instmsg/aliases/petra//",
            b"/instmsg/aliases/p\xc3\xa9tra",
            b"/instmsg/aliases/<petra>",
            b"/instmsg/local/im.fabrik.example",
            b"/instmsg/local/im.fabrik.example/instmsg/local/im.fabrik.example/a/b",
            b"/instmsg/local/im fabrik/instmsg/aliases/petra",
        ):
            self.assertRaises(BadRequest, parse_target, target, IM.encode(), NAMES)

    def test_bad_host(self) -> None:
        """A host that is none is 400, and so is none at all."""
        for host in (
            None,
            b"",
            b"a b",
            b"a..b",
            b"im.fabrik.example:x",
            b"im.fabrik.example:0",
            b"x@y",
            b"\xff",
        ):
            self.assertRaises(BadRequest, parse_target, b"/instmsg/aliases/petra", host, NAMES)

    @MODEST
    @given(st.binary(max_size=60), st.none() | st.binary(max_size=30))
    def test_anything(self, target: bytes, host: bytes | None) -> None:
        """Whatever arrives, the answer is a node of a domain served here, 400 or 404."""
        for start in (b"", b"/", b"/instmsg/local/im.fabrik.example/"):
            try:
                found = parse_target(start + target, host, NAMES)
            except (BadRequest, NotFound):
                continue
            self.assertIn(found.domain, NAMES.domains)


class ParsePrincipalTests(SynchronousTestCase):
    """Everybody is known by one key, however the URL is written (protocol notes 1.4)."""

    def test_logical(self) -> None:
        """The name keeps its letters, and the key does not."""
        principal = parse_principal(" HTTP://IM.fabrik.example:80/Instmsg/Aliases/Petra/ ", NAMES)
        self.assertEqual(principal.key, PETRA)
        self.assertEqual(principal.url, "http://im.fabrik.example/instmsg/aliases/Petra")
        self.assertFalse(principal.is_server)

    def test_foreign(self) -> None:
        """Strangers keep a port that is not 80; ours lose any."""
        for url, key in (
            (
                "http://im.orchard.example:80/instmsg/aliases/ingrid",
                "im.orchard.example/instmsg/aliases/ingrid",
            ),
            (
                "http://im.orchard.example:99/instmsg/aliases/ingrid",
                "im.orchard.example:99/instmsg/aliases/ingrid",
            ),
            ("http://im.fabrik.example:99/instmsg/aliases/petra", PETRA),
            ("http://omnent/instmsg/aliases/petra", PETRA),
            ("http://hs1.fabrik.example/instmsg/aliases/petra", PETRA),
        ):
            self.assertEqual(parse_principal(url, NAMES).key, key)

    def test_physical(self) -> None:
        """A physical URL, also a stranger's, is rewritten to the logical one inside."""
        principal = parse_principal(
            "http://hs.orchard.example/instmsg/local/im.orchard.example:99/instmsg/aliases/Ingrid", NAMES
        )
        self.assertEqual(principal.url, "http://im.orchard.example:99/instmsg/aliases/Ingrid")
        self.assertEqual(principal.key, "im.orchard.example:99/instmsg/aliases/ingrid")

    def test_server(self) -> None:
        """A bare host name is a server."""
        for text, key in (
            ("im.orchard.example", "im.orchard.example"),
            ("IM.Orchard.Example/", "im.orchard.example"),
            ("im.orchard.example:99", "im.orchard.example:99"),
            ("omnent", IM),
            ("im.fabrik.example:99", IM),
        ):
            principal = parse_principal(text, NAMES)
            self.assertEqual((principal.key, principal.url, principal.is_server), (key, key, True))

    def test_refused(self) -> None:
        """What cannot be a principal is 400."""
        for text in (
            "",
            "/instmsg/aliases/petra",
            "petra@fabrik.example",
            "http://",
            "http://im.fabrik.example",
            "http://im.fabrik.example/petra",
            "https://im.fabrik.example/instmsg/aliases/petra",
            "http://im.fabrik.example/instmsg/aliases/a%2Fb",
            "http://im.fabrik.example/instmsg/aliases/a b",
            "http://petra@im.fabrik.example/instmsg/aliases/petra",
            "http://im.fabrik.example/instmsg/aliases/" + "a" * 3000,
            "http://[::1/instmsg/aliases/petra",
            "http://[1::2::3]/instmsg/aliases/petra",
            "http://127.1/instmsg/aliases/petra",
        ):
            self.assertRaises(BadRequest, parse_principal, text, NAMES)

    @MODEST
    @given(NAME, st.data())
    def test_every_spelling_is_one(self, name: str, data: st.DataObject) -> None:
        """Case, escapes, port, slash, alias host and physical form all lead to one key."""
        expected = f"{IM}/instmsg/aliases/{name.lower()}"
        spelling = data.draw(spellings(name))
        principal = parse_principal(spelling, NAMES)
        self.assertEqual(principal.key, expected)
        self.assertEqual(principal.url, f"http://{IM}/instmsg/aliases/{name}")

    @MODEST
    @given(NAME, st.data())
    def test_normalising_twice(self, name: str, data: st.DataObject) -> None:
        """What was normalised stays as it is, and so equality is an equivalence."""
        once = parse_principal(data.draw(spellings(name)), NAMES)
        self.assertEqual(parse_principal(once.url, NAMES), once)
        self.assertEqual(parse_principal(key_to_url(once.key), NAMES).key, once.key)

    @MODEST
    @given(st.text(max_size=30))
    def test_anything(self, text: str) -> None:
        """Any text is a principal whose key means itself, or is 400."""
        for start in ("", "http://", "http://h/", "http://h/instmsg/local/", "http://h/instmsg/aliases/"):
            try:
                principal = parse_principal(start + text, NAMES)
            except BadRequest:
                continue
            self.assertEqual(parse_principal(key_to_url(principal.key), NAMES).key, principal.key)
            self.assertEqual(principal.is_server, "/" not in principal.key)

    @MODEST
    @given(NAME, NAME)
    def test_hidden_slash(self, left: str, right: str) -> None:
        """An escaped slash never makes a path."""
        for slash in ("%2F", "%2f"):
            url = f"http://{IM}/instmsg/aliases/{left}{slash}{right}"
            self.assertRaises(BadRequest, parse_principal, url, NAMES)
            target = f"/instmsg/aliases/{left}{slash}{right}".encode()
            self.assertRaises(BadRequest, parse_target, target, IM.encode(), NAMES)


class ParseCallBackTests(SynchronousTestCase):
    """A call-back is somebody's listener, or somebody."""

    def test_listener(self) -> None:
        """A listener has a host, a port and a path, and is the same however it is written."""
        call_back = parse_call_back("http://192.0.2.77:3155", NAMES)
        self.assertEqual(call_back, parse_call_back(" HTTP://192.0.2.77:3155/ ", NAMES))
        self.assertEqual(call_back.url, "http://192.0.2.77:3155/")
        self.assertEqual((call_back.host, call_back.port, call_back.path), ("192.0.2.77", 3155, "/"))
        self.assertIsNone(call_back.principal)

    def test_path(self) -> None:
        """The path of a listener is its own affair."""
        call_back = parse_call_back("http://Desk.Example:80/Hook?x=%41", NAMES)
        self.assertEqual((call_back.url, call_back.port), ("http://desk.example/Hook?x=%41", 80))
        self.assertIsNone(call_back.principal)

    def test_ipv6(self) -> None:
        """An IPv6 host has brackets in the URL only; one that hides IPv4 is shown as that."""
        call_back = parse_call_back("http://[2001:DB8:0::1]:3155/", NAMES)
        self.assertEqual((call_back.url, call_back.host), ("http://[2001:db8::1]:3155/", "2001:db8::1"))
        self.assertEqual(parse_call_back("http://[::ffff:192.0.2.7]:9/", NAMES).host, "192.0.2.7")

    def test_principal(self) -> None:
        """A logical URL is a principal, ours or not, with the port of its server."""
        for url, key, host, port in (
            ("http://im.fabrik.example/instmsg/aliases/Petra/", PETRA, IM, 80),
            ("http://im.fabrik.example:8080/groups/shipping", f"{IM}/groups/shipping", IM, 80),
            ("http://hs1.fabrik.example/instmsg/local/omnent/instmsg/aliases/petra", PETRA, IM, 80),
            ("http://im.orchard.example/groups/x", "im.orchard.example/groups/x", "im.orchard.example", 80),
            (
                "http://im.orchard.example:99/instmsg/aliases/ingrid",
                "im.orchard.example:99/instmsg/aliases/ingrid",
                "im.orchard.example",
                99,
            ),
        ):
            call_back = parse_call_back(url, NAMES)
            self.assertEqual((call_back.principal, call_back.host, call_back.port), (key, host, port))
            self.assertEqual(call_back.url, f"http://{host}{'' if port == 80 else ':99'}{call_back.path}")

    def test_no_principal(self) -> None:
        """An address, or a port where nothing says RVP, is a listener."""
        for url in (
            "http://192.0.2.77/instmsg/aliases/petra",
            "http://desk.example:3155/some/where",
            "http://desk.example/",
        ):
            self.assertIsNone(parse_call_back(url, NAMES).principal)

    def test_refused(self) -> None:
        """What is no C{http} URL is 400; so are numbers that only resolvers take for addresses."""
        for text in (
            "",
            "192.0.2.77:3155",
            "https://192.0.2.77:3155",
            "http://",
            "http://:3155",
            "http://192.0.2.77:0",
            "http://192.0.2.77:70000",
            "http://192.0.2.77:3155x",
            "http://u:p@192.0.2.77/",
            "http://192.0.2.77/a b",
            "http://192.0.2.77/a\r\nX: y",
            "http://192.0.2.77/#x",
            "http://192.0.2.77/%",
            "http://[fe80::1%25eth0]/",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0177.0.0.1/",
            "http://192.0.2.256/",
        ):
            self.assertRaises(BadRequest, parse_call_back, text, NAMES)

    @MODEST
    @given(st.text(max_size=40))
    def test_anything(self, text: str) -> None:
        """Any text is a call-back that normalises to itself, or is 400; it never breaks a header."""
        for start in ("", "http://", "http://desk.example:99/", "http://im.fabrik.example/instmsg/"):
            try:
                call_back = parse_call_back(start + text, NAMES)
            except BadRequest:
                continue
            self.assertEqual(parse_call_back(call_back.url, NAMES), call_back)
            self.assertTrue(call_back.url.isascii() and call_back.url.isprintable())


class NamesTests(SynchronousTestCase):
    """A farm knows its own names."""

    def test_domain_of(self) -> None:
        """Ports, letter case and the final dot do not matter; strangers are nobody."""
        for host in (IM, "IM.FABRIK.EXAMPLE:8080", "omnent", "hs1.fabrik.example:80", "im.fabrik.example."):
            self.assertEqual(NAMES.domain_of(host), IM)
        for host in ("im.orchard.example", "", "[::1]", "[::1]:80", "fabrik.example"):
            self.assertIsNone(NAMES.domain_of(host))

    def test_key_to_url(self) -> None:
        """A node's key becomes its URL, a server's is its name."""
        self.assertEqual(key_to_url(PETRA), f"http://{PETRA}")
        self.assertEqual(key_to_url(IM), IM)

    def test_is_ip(self) -> None:
        """Addresses are told from names."""
        self.assertTrue(all(map(is_ip, ("192.0.2.1", "::1", "[::1]"))))
        self.assertFalse(any(map(is_ip, ("im.fabrik.example", "localhost", "1.2.3", ""))))


class SiteTests(SynchronousTestCase):
    """What is counted as one address."""

    def test_sites(self) -> None:
        """An IPv4 address however it is written, the network of an IPv6 one, and anything else as it is."""
        for text, site in (
            ("192.0.2.77", "192.0.2.77"),
            ("::ffff:192.0.2.77", "192.0.2.77"),
            ("2001:db8:1:2:3:4:5:6", "20010db800010002/64"),
            ("[2001:db8:1:2::9]", "20010db800010002/64"),
            ("fe80::1%eth0", "fe80000000000000/64"),
            ("", ""),
            ("not:an:address", "not:an:address"),
        ):
            self.assertEqual(site_of(text), site)


class ParseLocationTests(SynchronousTestCase):
    """A C{Location} says where a node is served: host, port, and which node."""

    def read(self, url: str) -> tuple[str, int, str]:
        """What is read of C{url}."""
        place = parse_location(url, NAMES)
        return place.host, place.port, place.key

    def test_physical(self) -> None:
        """The physical URL of notes 10.1, in whatever letter case, with a port unless that is 80."""
        path = "/instmsg/local/im.fabrik.example/instmsg/aliases/petra"
        for url, host, port in (
            (f"http://hs2.fabrik.example{path}", "hs2.fabrik.example", 80),
            (f"HTTP://HS2.fabrik.example:8080{path.upper()}/", "hs2.fabrik.example", 8080),
            (f"http://[2001:db8::2]:81{path.replace('im.fabrik.example', 'omnent')}", "2001:db8::2", 81),
        ):
            self.assertEqual(self.read(url), (host, port, PETRA))

    def test_other_paths(self) -> None:
        """Any other URL of a host is no physical one of a node served here, and is read all the same."""
        for path in (
            "",
            "/",
            "/instmsg/aliases/petra",
            "/instmsg/local/im.fabrik.example",
            "/instmsg/local/im.elsewhere.example/instmsg/aliases/petra",
            "/instmsg/local/hs1.fabrik.example/instmsg/aliases/petra",
            "/instmsg/local/im.fabrik.example/instmsg/local/im.fabrik.example/instmsg/aliases/petra",
            "/instmsg/local/im.fabrik.example/instmsg/aliases/../petra",
            "/instmsg/local/im.fabrik.example/instmsg/aliases/petra?x=1",
            "/instmsg/local/im.fabrik.example/instmsg/aliases/petra#x",
            "/instmsg/local/im.fabrik.example%2Finstmsg/aliases/petra",
            "/" + "x/" * 500,
        ):
            with self.subTest(path=path):
                self.assertEqual(
                    self.read(f"http://hs2.fabrik.example{path}"), ("hs2.fabrik.example", 80, "")
                )

    def test_none(self) -> None:
        """What is no absolute URL of a host is refused."""
        for url in (
            "",
            "/instmsg/local/im.fabrik.example/instmsg/aliases/petra",
            "//hs2.fabrik.example/x",
            "https://hs2.fabrik.example/x",
            "http:///x",
            "http://petra@hs2.fabrik.example/x",
            "http://hs2.fabrik.example:0/x",
            "http://hs2.fabrik.example:x/x",
            "http://127.1/x",
            " http://hs2.fabrik.example/x",
        ):
            with self.subTest(url=url):
                self.assertRaises(BadRequest, parse_location, url, NAMES)


class AskedHostTests(SynchronousTestCase):
    """The host that is asked is in the request target, or else in C{Host}."""

    def test_hosts(self) -> None:
        """In lower case, without port, final dot or white space; brackets belong to an IPv6 address."""
        for target, host, asked in (
            (b"/x", b"hs1.fabrik.example", "hs1.fabrik.example"),
            (b"/x", b" HS1.Fabrik.example.:8080 ", "hs1.fabrik.example"),
            (b"/x", b"[2001:db8::1]:81", "[2001:db8::1]"),
            (b"http://hs2.fabrik.example:8080/x", b"hs1.fabrik.example", "hs2.fabrik.example"),
            (b"HTTP://hs2.fabrik.example", b"hs1.fabrik.example", "hs2.fabrik.example"),
            (b"*", b"hs1.fabrik.example", "hs1.fabrik.example"),
            (b"hs2.fabrik.example:80", b"hs1.fabrik.example", "hs1.fabrik.example"),
        ):
            self.assertEqual(asked_host(target, host), asked)

    def test_none(self) -> None:
        """Where none is named, or what is named is none, it is empty: nobody is refused for it here."""
        for target, host in (
            (b"/x", None),
            (b"/x", b""),
            (b"/x", b"a b"),
            (b"/x", b"hs1:99999"),
            (b"/x", b"\xff"),
            (b"http:///x", b"hs1"),
        ):
            self.assertEqual(asked_host(target, host), "")


class KeptTests(SynchronousTestCase):
    """What callers write is kept with what it means, within bounds."""

    def test_call_backs(self) -> None:
        """However many call-backs there are, few are kept, and a long one is not."""
        names = Names({}, {})
        for number in range(2500):
            parse_call_back(f"http://192.0.2.1:4000/{number}", names)
        self.assertLessEqual(len(names.call_backs), 1000)
        long = f"http://192.0.2.1/{'x' * 300}"
        self.assertEqual(parse_call_back(long, names), parse_call_back(long, names))
        self.assertNotIn(long, names.call_backs)
