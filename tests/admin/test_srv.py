"""The DNS is asked for SRV records, and what it does not say is not made up."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.admin.addresses import Offer
from rvpfarm.admin.checks import Refused
from rvpfarm.admin.srv import ask, parse_server
from tests.support.dnsserver import DnsServer

RECORD = "_rvp._tcp.fabrik.example"


class AskTests(SynchronousTestCase):
    """There are records, there are none, or nobody can say."""

    def server(self, *records: str, rcode: str = "") -> DnsServer:
        """A server that has these records."""
        made = DnsServer({RECORD: records}, rcode)
        self.addCleanup(made.close)
        return made

    def test_records(self) -> None:
        """The records come in the order in which clients try them, names in lower case."""
        server = self.server(
            "10 0 80 r2.fabrik.example.", "0 5 8080 IM.Fabrik.Example.", "0 9 80 r1.fabrik.example."
        )
        self.assertEqual(
            ask(RECORD, ("127.0.0.1", server.port)),
            (
                Offer(0, 9, 80, "r1.fabrik.example"),
                Offer(0, 5, 8080, "im.fabrik.example"),
                Offer(10, 0, 80, "r2.fabrik.example"),
            ),
        )
        self.assertEqual(server.asked, [RECORD])
        self.assertEqual(str(Offer(0, 5, 8080, "im.fabrik.example")), "0 5 8080 im.fabrik.example.")

    def test_none(self) -> None:
        """No such name, and a name without such records, are both none."""
        server = self.server()
        for record in (RECORD, "_rvp._tcp.orchard.example"):
            self.assertEqual(ask(record, ("127.0.0.1", server.port)), ())

    def test_no_service(self) -> None:
        """A record with the root as target says that there is no such service (RFC 2782)."""
        server = self.server("0 0 0 .")
        (offer,) = ask(RECORD, ("127.0.0.1", server.port))
        self.assertEqual(offer.target, "")

    def test_cannot_be_asked(self) -> None:
        """A server that fails, refuses or is silent is not taken for "there is none"."""
        for rcode, words in (
            ("SERVFAIL", "every server failed or refused"),
            ("REFUSED", "every server failed or refused"),
            ("silence", "no answer in time"),
        ):
            server = self.server(rcode=rcode)
            problem = self.assertRaises(Refused, ask, RECORD, ("127.0.0.1", server.port), 0.3)
            self.assertIn(words, str(problem))
            self.assertIn(f"the DNS server 127.0.0.1 port {server.port}", str(problem))
            self.assertIn("--address-form mail or im", str(problem))

    def test_server_option(self) -> None:
        """A server is named by its address; the port may be left out."""
        for text, parts in (
            ("127.0.0.1:5300", ("127.0.0.1", 5300)),
            ("127.0.0.1", ("127.0.0.1", 53)),
            ("[::1]:5300", ("::1", 5300)),
            ("::1", ("::1", 53)),
            ("[::1]", ("::1", 53)),
        ):
            self.assertEqual(parse_server(text), parts)
        for text in ("", "ns.fabrik.example", "ns.fabrik.example:53", "127.0.0.1:0", "127.0.0.1:x", ":53"):
            self.assertRaises(ValueError, parse_server, text)
