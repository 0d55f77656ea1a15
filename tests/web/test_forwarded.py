"""Who calls, by the word of the proxies that are believed: nobody else's word counts."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.directory.model import Network
from rvpfarm.directory.ranges import Ranges
from rvpfarm.protocol.calls import BadRequest
from rvpfarm.web.forwarded import PROXIES_LIMIT, read_forwarded, read_x_forwarded_for
from tests.support.hypothesis import MODEST

TRUSTED = Ranges(
    "trusted-proxy",
    [Network("trusted-proxy", "10.0.0.0", "10.0.0.255"), Network("trusted-proxy", "fd00::", "fd00::ff")],
)


class XForwardedForTests(SynchronousTestCase):
    """C{X-Forwarded-For} is read from the right, as far as proxies wrote it that are believed."""

    def test_callers(self) -> None:
        """The last address that is no trusted proxy's is the caller; what is left of it is not looked at."""
        for value, caller in (
            (b"198.51.100.7", "198.51.100.7"),
            (b" 198.51.100.7\t", "198.51.100.7"),
            (b"198.51.100.7:4711", "198.51.100.7"),
            (b"198.51.100.7:_p", "198.51.100.7"),
            (b"2001:DB8::0007", "2001:db8::7"),
            (b"[2001:db8::7]", "2001:db8::7"),
            (b"[2001:db8::7]:4711", "2001:db8::7"),
            (b"::ffff:198.51.100.7", "198.51.100.7"),
            (b"198.51.100.7, 10.0.0.9", "198.51.100.7"),
            (b"198.51.100.7, 10.0.0.9, [fd00::9]:80,10.0.0.8:80", "198.51.100.7"),
            (b"192.0.2.1, 198.51.100.7, 10.0.0.9", "198.51.100.7"),
            (b"10.0.0.1, 198.51.100.7", "198.51.100.7"),
            (b"<script>, 198.51.100.7", "198.51.100.7"),
            (b'", \xff\xfe, 198.51.100.7, 10.0.0.9', "198.51.100.7"),
            (b",,, 198.51.100.7", "198.51.100.7"),
            (b"10.0.0.7, 10.0.0.9", "10.0.0.7"),
        ):
            self.assertEqual(read_x_forwarded_for(value, TRUSTED), caller, value)

    def test_unknown(self) -> None:
        """A proxy that does not tell makes the caller unknown, whatever stands further left."""
        for value in (b"", b" ", b"unknown", b"UNKNOWN:80", b"_hidden", b"_a.b-c:_d", b"192.0.2.1, unknown"):
            self.assertEqual(read_x_forwarded_for(value, TRUSTED), "", value)
        for value in (b"192.0.2.1, _x, 10.0.0.9", b"192.0.2.1, , 10.0.0.9", b"192.0.2.1,"):
            self.assertEqual(read_x_forwarded_for(value, TRUSTED), "", value)

    def test_garbage(self) -> None:
        """What a believed proxy wrote must be an address."""
        for item in (
            b"localhost",
            b"198.51.100.256",
            b"198.51.100.07",
            b"198.51.100.7:",
            b"198.51.100.7:x",
            b"198.51.100.7:123456",
            b"198.51.100.7 x",
            b'"198.51.100.7"',
            b"[198.51.100.7]",
            b"[2001:db8::7",
            b"[2001:db8::7]80",
            b"[2001:db8::7]:",
            b"[]",
            b"2001:db8::7%eth0",
            b"2001:db8::7::",
            b"_",
            b"_a b",
            b"\xd9\xa1.1.1.1",
            b"for=198.51.100.7",
        ):
            with self.subTest(item):
                self.assertRaises(BadRequest, read_x_forwarded_for, item, TRUSTED)
                self.assertRaises(
                    BadRequest, read_x_forwarded_for, b"192.0.2.1, %b, 10.0.0.9" % item, TRUSTED
                )

    def test_long_way(self) -> None:
        """A request that came through more proxies than anybody has is refused, not walked to its end."""
        way = b"198.51.100.7" + b", 10.0.0.9" * (PROXIES_LIMIT - 1)
        self.assertEqual(read_x_forwarded_for(way, TRUSTED), "198.51.100.7")
        self.assertRaises(BadRequest, read_x_forwarded_for, way + b", 10.0.0.9", TRUSTED)
        self.assertEqual(read_x_forwarded_for(b"10.0.0.9, " * 1000 + b"192.0.2.1", TRUSTED), "192.0.2.1")

    @MODEST
    @given(st.text('0123456789.,:[]_ ax"\\;=\x80', max_size=60), st.ip_addresses(v=4), st.booleans())
    def test_forged(self, forged: str, caller: IPv4Address, again: bool) -> None:
        """Whatever a caller sends, the address that the first believed proxy saw is the caller's."""
        value = f"{forged}, {caller}{', 10.0.0.9' if again else ''}".encode("latin-1")
        if str(caller) not in TRUSTED:
            self.assertEqual(read_x_forwarded_for(value, TRUSTED), str(caller))


class ForwardedTests(SynchronousTestCase):
    """C{Forwarded} is read by RFC 7239, from the right as well."""

    def test_callers(self) -> None:
        """The examples of RFC 7239 4 and 7.1, and ways of writing that it allows."""
        for value, caller in (
            (b'For="[2001:db8:cafe::17]:4711"', "2001:db8:cafe::17"),
            (b"for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60"),
            (b"for=192.0.2.43, for=198.51.100.17", "198.51.100.17"),
            (b'for=192.0.2.43, for="[fd00::1]"', "192.0.2.43"),
            (b"for=192.0.2.43,for=10.0.0.9;by=10.0.0.8 , by=x;FOR=10.0.0.7", "192.0.2.43"),
            (b'for="192.0.2.43:80"', "192.0.2.43"),
            (b'for="192\\.0.2.4\\3:_port"', "192.0.2.43"),
            (b';;for=192.0.2.43;;secret="a,b;for=10.0.0.1\\"";', "192.0.2.43"),
            (b'host="for=1.1.1.1, for=2.2.2.2"; for=192.0.2.43', "192.0.2.43"),
            (b", ,for=192.0.2.43", "192.0.2.43"),
            (b'for="[::ffff:192.0.2.43]"', "192.0.2.43"),
        ):
            self.assertEqual(read_forwarded(value, TRUSTED), caller, value)

    def test_unknown(self) -> None:
        """C{unknown}, a name made up for an address, and an element that says nothing of it."""
        for value in (
            b"",
            b"for=unknown",
            b"for=_gazonk",
            b'for="_SEVKISEK:_x"',
            b"by=10.0.0.9;proto=http",
            b"for=192.0.2.43, proto=https",
            b"for=192.0.2.43, unknown=x, for=10.0.0.9",
            b"for=192.0.2.43,",
        ):
            self.assertEqual(read_forwarded(value, TRUSTED), "", value)

    def test_malformed(self) -> None:
        """All of it must be sound: a quote that a caller left open would hide what a proxy added."""
        for value in (
            b'for="',
            b'for=", for=192.0.2.43',
            b'x="\\", for=192.0.2.43',
            b'for="192.0.2.43" x',
            b"for=192.0.2.43 x",
            b"for =192.0.2.43",
            b"for= 192.0.2.43",
            b"for",
            b"=",
            b"for=",
            b'for=""',
            b"for=192.0.2.43:80",
            b"for=[2001:db8::1]",
            b'for="2001:db8::1"',
            b'for="[192.0.2.43]"',
            b"for=192.0.2.43;for=192.0.2.44",
            b"for=192.0.2.43;FOR=unknown",
            b"for=localhost",
            b"192.0.2.43",
            b"x=\x00",
            b"for=\xff, for=192.0.2.43",
        ):
            with self.subTest(value):
                self.assertRaises(BadRequest, read_forwarded, value, TRUSTED)

    @MODEST
    @given(st.text('for=";,\\ 10.29ab[]:_', max_size=60), st.ip_addresses(v=4), st.booleans())
    def test_forged(self, forged: str, caller: IPv4Address, again: bool) -> None:
        """Whatever a caller sends, it is refused, or the address that a believed proxy saw is the caller's."""
        if str(caller) in TRUSTED:
            return
        value = f"{forged}, for={caller}{', for=10.0.0.9' if again else ''}".encode()
        try:
            self.assertEqual(read_forwarded(value, TRUSTED), str(caller))
        except BadRequest:
            self.assertTrue(forged.strip(" ,;"))

    @MODEST
    @given(st.text('for=";,\\ 10.29ab[]:_', max_size=60), st.ip_addresses(v=6))
    def test_forged_before_quotes(self, forged: str, caller: IPv6Address) -> None:
        """Nor do the quotes that a proxy puts around an address end what a caller began."""
        value = f'{forged}, for="[{caller}]:4711";proto=http'.encode()
        if str(caller) in TRUSTED:
            return
        try:
            self.assertEqual(read_forwarded(value, TRUSTED), str(caller.ipv4_mapped or caller))
        except BadRequest:
            self.assertTrue(forged.strip(" ,;"))
