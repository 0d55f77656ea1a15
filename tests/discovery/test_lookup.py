"""Tests of C{rvpfarm.discovery.lookup}."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.names import dns
from twisted.names.common import ResolverBase
from twisted.names.error import DNSNameError, DNSServerError
from twisted.trial.unittest import SynchronousTestCase, TestCase

from rvpfarm.discovery.lookup import (
    Located,
    Locator,
    NotLocated,
    Offer,
    in_order,
    split_host_port,
    system_servers,
)
from rvpfarm.discovery.nameserver import NameServer
from tests.support.farms import FarmDirectory


class BookResolver(ResolverBase):
    """A resolver that reads from a book; what is not in it does not exist."""

    def __init__(self, book: dict[tuple[str, int], list[Any]]) -> None:
        super().__init__()
        self.book = book
        self.asked: list[str] = []

    def _lookup(self, name: bytes | str, cls: int, type: int, timeout: object) -> Deferred[Any]:
        """One question."""
        text = name.decode() if isinstance(name, bytes) else name
        self.asked.append(text)
        found = self.book.get((text, type))
        if found is None:
            return fail(DNSNameError(dns.Message()))
        headers = [dns.RRHeader(text, payload.TYPE, dns.IN, 60, payload) for payload in found]
        return succeed((headers, [], []))


def service(target: str, *, port: int = 80, priority: int = 0, weight: int = 0) -> dns.Record_SRV:
    """One SRV record."""
    return dns.Record_SRV(priority, weight, port, target)


class OrderTests(SynchronousTestCase):
    """SRV records are tried in the order of RFC 2782."""

    def test_priority_first(self) -> None:
        """A lower priority value comes first, whatever the weights."""
        a, b = Offer(10, 60, 80, "a"), Offer(0, 1, 80, "b")
        self.assertEqual(in_order([a, b], lambda most: 0), [b, a])

    def test_weight_by_chance(self) -> None:
        """Within a priority the weight decides which number chooses whom."""
        light, heavy = Offer(0, 1, 80, "light"), Offer(0, 3, 80, "heavy")
        self.assertEqual(in_order([heavy, light], lambda most: 1)[0], light)
        self.assertEqual(in_order([heavy, light], lambda most: most)[0], heavy)

    def test_no_weights(self) -> None:
        """Records without weight are all kept."""
        offers = [Offer(0, 0, 80, name) for name in "abc"]
        self.assertCountEqual(in_order(offers, lambda most: most), offers)


class HostPortTests(SynchronousTestCase):
    """A machine as people name it."""

    def test_forms(self) -> None:
        """With and without port, name or address."""
        for text, expected in (
            ("im.Farm.localhost:8080", ("im.farm.localhost", 8080)),
            ("127.0.0.1", ("127.0.0.1", 53)),
            ("[::1]:5300", ("::1", 5300)),
            ("::1", ("::1", 53)),
            ("[::1]", ("::1", 53)),
        ):
            self.assertEqual(split_host_port(text, 53), expected)

    def test_nonsense(self) -> None:
        """Anything else is refused."""
        for text in ("", ":80", "a:b", "a:0", "a:65536", "http://a/", "a b", "a:+5"):
            self.assertRaises(ValueError, split_host_port, text, 53)


class LocatorTests(SynchronousTestCase):
    """From a mail domain to the addresses of its routers."""

    def locate(self, domain: str, book: dict[tuple[str, int], list[Any]]) -> Located:
        """What is found of C{domain} when the DNS says C{book}."""
        locator = Locator(Clock(), resolver=BookResolver(book), choose=lambda most: 0)
        found: Located = self.successResultOf(Deferred.fromCoroutine(locator.locate(domain)))
        return found

    def test_target_names_the_domain(self) -> None:
        """The target of the SRV record is the IM domain, its port where to connect."""
        book = {
            ("_rvp._tcp.fabrik.example", dns.SRV): [service("IM.fabrik.example", port=8080)],
            ("im.fabrik.example", dns.A): [dns.Record_A("192.0.2.1"), dns.Record_A("192.0.2.2")],
            ("im.fabrik.example", dns.AAAA): [dns.Record_AAAA("2001:db8::1")],
        }
        self.assertEqual(
            self.locate("Fabrik.example.", book),
            Located(
                "im.fabrik.example", "im.fabrik.example", 8080, ("192.0.2.1", "192.0.2.2", "2001:db8::1")
            ),
        )

    def test_next_record(self) -> None:
        """A target without an address gives way to the next record."""
        book = {
            ("_rvp._tcp.fabrik.example", dns.SRV): [
                service("gone.example"),
                service("im.example", priority=1),
            ],
            ("im.example", dns.A): [dns.Record_A("192.0.2.1")],
        }
        self.assertEqual(self.locate("fabrik.example", book).im_domain, "im.example")

    def test_domain_itself(self) -> None:
        """Without SRV the domain itself is the IM domain, on port 80."""
        book = {("fabrik.example", dns.A): [dns.Record_A("192.0.2.9")]}
        self.assertEqual(
            self.locate("fabrik.example", book),
            Located("fabrik.example", "fabrik.example", 80, ("192.0.2.9",)),
        )

    def test_guess(self) -> None:
        """As a last step the usual name is tried."""
        book = {("im.fabrik.example", dns.A): [dns.Record_A("192.0.2.9")]}
        self.assertEqual(self.locate("fabrik.example", book).im_domain, "im.fabrik.example")

    def test_alias(self) -> None:
        """A host that is an alias is followed."""
        book = {
            ("fabrik.example", dns.A): [dns.Record_CNAME("host.example")],
            ("host.example", dns.A): [dns.Record_A("192.0.2.9")],
        }
        self.assertEqual(self.locate("fabrik.example", book).addresses, ("192.0.2.9",))

    def test_endless_aliases(self) -> None:
        """Aliases in a circle end."""
        book = {
            ("im.a.example", dns.A): [dns.Record_CNAME("im.b.example")],
            ("im.b.example", dns.A): [dns.Record_CNAME("im.a.example")],
        }
        locator = Locator(Clock(), resolver=BookResolver(book))
        self.failureResultOf(Deferred.fromCoroutine(locator.locate("im.a.example")), NotLocated)

    def test_address(self) -> None:
        """An IP address needs no look-up."""
        self.assertEqual(self.locate("192.0.2.7", {}).addresses, ("192.0.2.7",))

    def why(self, resolver: ResolverBase, domain: str = "fabrik.example") -> str:
        """Why C{domain} was not found."""
        locator = Locator(Clock(), resolver=resolver)
        failure = self.failureResultOf(Deferred.fromCoroutine(locator.locate(domain)), NotLocated)
        return str(failure.value)

    def test_nothing_there(self) -> None:
        """A domain without a server says what was looked for."""
        self.assertIn("no SRV record _rvp._tcp.fabrik.example", self.why(BookResolver({})))

    def test_no_service(self) -> None:
        """A single target of "." means that there is decidedly no service."""
        book = {("_rvp._tcp.fabrik.example", dns.SRV): [service("")]}
        self.assertIn("says that it has no RVP service", self.why(BookResolver(book)))

    def test_server_trouble(self) -> None:
        """A DNS failure is no "there is none"."""

        class Broken(ResolverBase):
            """A resolver that always fails."""

            def _lookup(self, name: bytes, cls: int, type: int, timeout: object) -> Deferred[Any]:
                return fail(DNSServerError(dns.Message()))

        self.assertIn("could not say what _rvp._tcp.fabrik.example is (server)", self.why(Broken()))

    def test_deadline(self) -> None:
        """A resolver that never answers is given up, and asked no further."""

        class Silent(ResolverBase):
            """A resolver that never answers."""

            def _lookup(self, name: bytes, cls: int, type: int, timeout: object) -> Deferred[Any]:
                return Deferred()

        clock = Clock()
        located = Deferred.fromCoroutine(Locator(clock, resolver=Silent()).locate("fabrik.example"))
        clock.advance(13)
        self.assertIn("does not answer", str(self.failureResultOf(located, NotLocated).value))

    def test_localhost(self) -> None:
        """Names of this machine need no DNS, and follow the usual naming."""
        locator = Locator(Clock())
        found = self.successResultOf(Deferred.fromCoroutine(locator.locate("farm.localhost")))
        self.assertEqual(found, Located("im.farm.localhost", "im.farm.localhost", 80, ("127.0.0.1",)))

    def test_bad_server(self) -> None:
        """A DNS server that is no address is refused."""
        self.assertRaises(ValueError, Locator, Clock(), dns_server="ns.example:53")

    def test_system_servers(self) -> None:
        """The machine's own servers are read, at most three and only addresses."""
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        conf = Path(folder.name, "resolv.conf")
        conf.write_text("# x\nnameserver 192.0.2.1\nsearch a b\nnameserver x\n" + "nameserver ::1\n" * 4)
        self.assertEqual(system_servers(conf), [("192.0.2.1", 53), ("::1", 53), ("::1", 53)])
        self.assertEqual(system_servers(conf.with_name("missing")), [])


class OverSocketsTests(TestCase):
    """The look-up against a real name server."""

    timeout = 20

    async def test_demo(self) -> None:
        """The demo's mail domain leads to both routers, starting with another one each time."""
        reactor: Any = global_reactor
        server = NameServer(reactor, FarmDirectory(), "farm.localhost", port=0)
        server.startService()
        self.addCleanup(server.stopService)
        locator = Locator(reactor, dns_server=f"127.0.0.1:{server.port}")
        self.addCleanup(locator.close)
        first, second = [await locator.locate("farm.localhost") for _ in range(2)]
        self.assertEqual((first.im_domain, first.port), ("im.farm.localhost", 8080))
        self.assertEqual(first.addresses, ("127.0.0.1", "127.0.0.2"))
        self.assertEqual(second.addresses, ("127.0.0.2", "127.0.0.1"))

    async def test_system_names(self) -> None:
        """Without a DNS server of its own the system's resolver is asked for addresses."""
        locator = Locator(global_reactor)
        self.assertEqual(await locator.addresses("127.0.0.9"), ("127.0.0.9",))
        self.assertEqual(await locator._system_addresses("127.0.0.1"), ("127.0.0.1",))
