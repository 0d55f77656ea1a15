"""Only a trusted proxy is believed about who calls, and only as far as trust reaches."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.directory.callers import Caller, believed_header, caller_of
from rvpfarm.directory.model import Network
from tests.support.directory import make_farm

PROXIES = [Network("trusted-proxy", "10.0.0.1", "10.0.0.9"), Network("trusted-proxy", "fd00::1", "fd00::1")]
PLAIN = make_farm(networks=PROXIES)
STANDARD = make_farm(networks=PROXIES, forwarded_header="forwarded")


class CallerTests(SynchronousTestCase):
    """The address that counts is the last one named that is no trusted proxy's."""

    def test_strangers_are_not_believed(self) -> None:
        """Whoever is no trusted proxy is the caller, whatever he says."""
        for peer in ("192.0.2.1", "10.0.0.10", "petra", ""):
            self.assertEqual(caller_of(peer, "10.1.1.1", PLAIN), Caller(peer, False, False))

    def test_believed(self) -> None:
        """A trusted proxy names the caller; with a port, in brackets, as IPv6."""
        for value, expected in (
            ("192.0.2.7", "192.0.2.7"),
            (" 192.0.2.7:4711 ", "192.0.2.7"),
            ("2001:db8::7", "2001:db8::7"),
            ("[2001:db8::7]:4711", "2001:db8::7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("203.0.113.1, 192.0.2.7", "192.0.2.7"),
            ("203.0.113.1, 192.0.2.7, 10.0.0.2, fd00::1", "192.0.2.7"),
        ):
            self.assertEqual(caller_of("10.0.0.1", value, PLAIN), Caller(expected, True, True), value)

    def test_nothing_said(self) -> None:
        """Without a header, or with one that names nobody, the call is the proxy's own."""
        for value in (None, "", "unknown", "_hidden", ","):
            self.assertEqual(caller_of("10.0.0.1", value, PLAIN), Caller("10.0.0.1", True, False), value)

    def test_hearsay(self) -> None:
        """What stands before something unreadable, or before a stranger, does not count."""
        self.assertEqual(caller_of("10.0.0.1", "192.0.2.7, unknown", PLAIN).address, "10.0.0.1")
        self.assertEqual(caller_of("10.0.0.1", "192.0.2.7, unknown, 10.0.0.2", PLAIN).address, "10.0.0.2")

    def test_standard_header(self) -> None:
        """The policy may have RFC 7239 believed instead, or nothing."""
        value = 'for=203.0.113.1, proto=http; For="[2001:db8::7]:4711" ;by=10.0.0.1'
        self.assertEqual(caller_of("10.0.0.1", value, STANDARD).address, "2001:db8::7")
        self.assertEqual(caller_of("10.0.0.1", "192.0.2.7", STANDARD).address, "10.0.0.1")
        self.assertEqual(believed_header(PLAIN), "x-forwarded-for")
        deaf = make_farm(networks=PROXIES, forwarded_header="none")
        self.assertEqual(caller_of("10.0.0.1", "192.0.2.7", deaf), Caller("10.0.0.1", True, False))

    @given(st.text(alphabet='0129.:[],;= "forFOR%x', max_size=40), st.sampled_from([PLAIN, STANDARD]))
    @settings(max_examples=200, deadline=None)
    def test_anything(self, value: str, farm: object) -> None:
        """No header makes it stumble, and the answer is always an address."""
        caller = caller_of("10.0.0.1", value, farm)  # type: ignore[arg-type]
        self.assertEqual(caller.believed, caller.address != "10.0.0.1")
        self.assertTrue(caller.proxy)
