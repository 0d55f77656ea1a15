"""Only a trusted proxy is believed about who calls, and only as far as trust reaches."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.directory.callers import Caller, caller_of
from rvpfarm.directory.model import Farm, Network
from tests.support.directory import make_farm

PROXIES = [Network("trusted-proxy", "10.0.0.1", "10.0.0.9"), Network("trusted-proxy", "fd00::1", "fd00::1")]
PLAIN = make_farm(networks=PROXIES)
STANDARD = make_farm(networks=PROXIES, forwarded_header="forwarded")
UNKNOWN = Caller("", proxy=True)
MALFORMED = Caller("", proxy=True, malformed=True)


class CallerTests(SynchronousTestCase):
    """The address that counts is the last one named that is no trusted proxy's."""

    def test_strangers_are_not_believed(self) -> None:
        """Whoever is no trusted proxy is the caller, whatever he says."""
        for peer in ("192.0.2.1", "10.0.0.10", "petra", ""):
            self.assertEqual(caller_of(peer, "10.1.1.1", PLAIN), Caller(peer))

    def test_believed(self) -> None:
        """A trusted proxy names the caller; with a port, in brackets, as IPv6."""
        for value, expected in (
            ("192.0.2.7", "192.0.2.7"),
            (" 192.0.2.7:4711 ", "192.0.2.7"),
            ("2001:DB8::7", "2001:db8::7"),
            ("[2001:db8::7]:4711", "2001:db8::7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("203.0.113.1, 192.0.2.7", "192.0.2.7"),
            ("<script>, 192.0.2.7, 10.0.0.2, fd00::1", "192.0.2.7"),
            ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ):
            found = caller_of("10.0.0.1", value, PLAIN)
            self.assertEqual(found, Caller(expected, proxy=True, believed=True), value)

    def test_unknown(self) -> None:
        """A proxy that does not tell makes the caller unknown, whatever stands further left."""
        for value in (
            None,
            "",
            "unknown",
            "UNKNOWN:80",
            "_hidden",
            "192.0.2.1, unknown",
            "192.0.2.1, _x, 10.0.0.2",
        ):
            self.assertEqual(caller_of("10.0.0.1", value, PLAIN), UNKNOWN, value)

    def test_malformed(self) -> None:
        """What a proxy wrote must be an address."""
        for value in (
            "localhost",
            "192.0.2.256",
            "192.0.2.7:x",
            "[2001:db8::7]x",
            "fe80::1%eth0",
            "192.0.2.7 x",
        ):
            self.assertEqual(caller_of("10.0.0.1", value, PLAIN), MALFORMED, value)

    def test_standard_header(self) -> None:
        """The policy may have RFC 7239 believed instead, or nothing."""
        for value, expected in (
            ('for=203.0.113.1, proto=http; For="[2001:db8::7]:4711" ;by=10.0.0.1', "2001:db8::7"),
            ('host="for=1.1.1.1, for=2.2.2.2"; for=192.0.2.43', "192.0.2.43"),
            ("for=192.0.2.43;by=x, for=10.0.0.2", "192.0.2.43"),
        ):
            found = caller_of("10.0.0.1", value, STANDARD)
            self.assertEqual(found, Caller(expected, proxy=True, believed=True), value)
        for value in ("", "for=unknown", "for=192.0.2.43, proto=https", "for=192.0.2.43,"):
            self.assertEqual(caller_of("10.0.0.1", value, STANDARD), UNKNOWN, value)
        self.assertEqual(caller_of("10.0.0.1", 'for=", for=192.0.2.43', STANDARD), MALFORMED)
        deaf = make_farm(networks=PROXIES, forwarded_header="none")
        self.assertEqual(caller_of("10.0.0.1", "192.0.2.7", deaf), Caller("10.0.0.1", proxy=True))

    @given(st.text(alphabet='0129.:[],;= "forFOR%x\\', max_size=40), st.sampled_from([PLAIN, STANDARD]))
    @settings(max_examples=300, deadline=None)
    def test_anything(self, value: str, farm: Farm) -> None:
        """No header makes it stumble."""
        caller = caller_of("10.0.0.1", value, farm)
        self.assertTrue(caller.proxy)
        self.assertEqual(caller.believed, bool(caller.address))
