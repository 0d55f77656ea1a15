"""How many connections there may be, from where, and whose word about callers counts."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.directory.model import Farm, Network
from rvpfarm.protocol.calls import BadRequest, Limits
from rvpfarm.web.edge import TOLD_LIMIT, Edge
from tests.support.directory import make_farm

PROXY = Network("trusted-proxy", "10.0.0.0", "10.0.0.255")


def farm(*networks: Network, **policies: str) -> Farm:
    """A farm of these networks and policies."""
    return make_farm(networks=networks, **policies)


class RoomTests(SynchronousTestCase):
    """There is room for so many in all, and for so many from one place."""

    def test_in_all(self) -> None:
        """One more than the limit finds no room, until another is gone."""
        edge = Edge(Limits(connections=2))
        self.assertEqual([edge.enter("a"), edge.enter("b"), edge.enter("c")], ["", "", "conn"])
        self.assertEqual(edge.used, 2)
        edge.leave("a")
        self.assertEqual(edge.enter("c"), "")

    def test_from_one_place(self) -> None:
        """An IPv4 address, or all of an IPv6 network, has so many; others are not concerned."""
        edge = Edge(Limits(per_source=2))
        for many in (("192.0.2.7",) * 3, ("2001:db8::1", "2001:db8::2", "2001:db8::ffff:3")):
            sources = [edge.source_of(peer) for peer in many]
            self.assertEqual([edge.enter(source) for source in sources], ["", "", "source"])
        self.assertEqual(edge.enter(edge.source_of("192.0.2.8")), "")
        self.assertEqual(edge.enter(edge.source_of("2001:db8:0:1::1")), "")
        edge.leave(edge.source_of("2001:db8::9"))
        self.assertEqual(edge.enter(edge.source_of("2001:db8::9")), "")

    def test_nothing_is_kept(self) -> None:
        """A place from which nobody is connected is forgotten."""
        edge = Edge()
        sources = [edge.source_of(f"192.0.2.{number}") for number in range(100)]
        for source in sources:
            edge.enter(source)
        for source in sources:
            edge.leave(source)
        self.assertEqual((edge.used, len(edge._sources)), (0, 0))

    def test_proxies_are_exempt(self) -> None:
        """A listed proxy has as many connections as there are in all: they are other people's."""
        edge = Edge()
        edge.update(farm(PROXY, max_connections="5", connections_per_source="1"))
        source = edge.source_of("10.0.0.1")
        self.assertEqual([edge.enter(source) for _ in range(6)], [""] * 5 + ["conn"])

    def test_live(self) -> None:
        """Limits change while connections are open: none is closed, and the next is judged by the new ones."""
        edge = Edge(Limits(connections=9, per_source=9))
        for _ in range(3):
            edge.enter("a")
        edge.update(farm(max_connections="9", connections_per_source="2"))
        self.assertEqual(edge.enter("a"), "source")
        edge.update(farm(max_connections="3"))
        self.assertEqual((edge.used, edge.limit, edge.enter("b")), (3, 3, "conn"))
        edge.update(farm())
        self.assertEqual((edge.limit, edge.per_source), (20000, 512))

    def test_defaults(self) -> None:
        """Without a directory the limits are the ones that a directory without policies sets."""
        edge, followed = Edge(), Edge()
        followed.update(farm())
        self.assertEqual((edge.limit, edge.per_source), (followed.limit, followed.per_source))

    def test_nonsense_in_the_tables(self) -> None:
        """A policy that is no number, whoever wrote it there, is as good as none."""
        edge = Edge()
        edge.update(farm(max_connections="many", connections_per_source="-1"))
        self.assertEqual((edge.limit, edge.per_source), (20000, 512))

    def test_counted_anew(self) -> None:
        """When other proxies are listed, connections count where they count now."""
        edge = Edge()
        edge.update(farm(connections_per_source="1"))
        source = edge.source_of("10.0.0.1")
        edge.enter(source)
        edge.update(farm(PROXY, connections_per_source="1"))
        source = edge.move(source, "10.0.0.1")
        self.assertEqual(source, "")
        self.assertEqual(edge.enter(edge.source_of("10.0.0.1")), "")
        edge.update(farm(connections_per_source="1"))
        source = edge.move(source, "10.0.0.1")
        self.assertEqual((edge.enter(source), edge.used), ("source", 2))


class CallerTests(SynchronousTestCase):
    """Who calls through a proxy is in one header, and it is the directory that says in which."""

    HEADERS = {b"x-forwarded-for": b"198.51.100.7", b"forwarded": b"for=198.51.100.8"}

    def caller(self, policy: str | None, headers: dict[bytes, bytes] | None = None) -> str:
        """The caller of a request that came from 10.0.0.1."""
        edge = Edge()
        edge.update(farm(PROXY, **({} if policy is None else {"forwarded_header": policy})))
        return edge.caller("10.0.0.1", self.HEADERS if headers is None else headers)

    def test_policies(self) -> None:
        """One of the two headers is read, or neither; the other may be as forged as it likes."""
        self.assertEqual(self.caller(None), "198.51.100.7")
        self.assertEqual(self.caller("x-forwarded-for"), "198.51.100.7")
        self.assertEqual(self.caller("forwarded"), "198.51.100.8")
        self.assertEqual(self.caller("none"), "10.0.0.1")

    def test_missing(self) -> None:
        """A proxy that does not write the header does not say who calls, and it is not the proxy itself."""
        self.assertEqual(self.caller(None, {b"forwarded": b"for=198.51.100.8"}), "")
        self.assertEqual(self.caller("forwarded", {b"x-forwarded-for": b"198.51.100.7"}), "")

    def test_garbage(self) -> None:
        """What cannot be read is refused, and only where it is looked for."""
        garbage = {b"x-forwarded-for": b"?", b"forwarded": b"?"}
        for policy in ("x-forwarded-for", "forwarded"):
            self.assertRaises(BadRequest, self.caller, policy, garbage)
        self.assertEqual(self.caller("none", garbage), "10.0.0.1")

    def test_remembered(self) -> None:
        """What a value says is remembered until the directory changes, and not of endlessly many or long ones."""
        edge = Edge()
        edge.update(farm(PROXY))
        headers = {b"x-forwarded-for": b"192.0.2.7, 10.0.1.1"}
        for networks, caller in (
            ((PROXY,), "10.0.1.1"),
            ((PROXY, Network("trusted-proxy", "10.0.1.1", "10.0.1.1")), "192.0.2.7"),
        ):
            edge.update(farm(*networks))
            self.assertEqual([edge.caller("10.0.0.1", headers) for _ in range(2)], [caller] * 2)
        for number in range(10_000):
            edge.caller("10.0.0.1", {b"x-forwarded-for": b"192.0.2.7:%d" % number})
            edge.caller("10.0.0.1", {b"x-forwarded-for": b"%d, 192.0.2.7" % number + b"," * 200})
        self.assertLess(len(edge._callers), 5000)
        self.assertLess(max(map(len, edge._callers)), 101)


class ListedTests(SynchronousTestCase):
    """Whoever watches the edge learns when other proxies are listed."""

    def test_changes(self) -> None:
        """Another list is news; another limit, or the same list in other words, is not."""
        edge = Edge()
        self.assertFalse(edge.update(farm(max_connections="7")))
        self.assertTrue(edge.update(farm(PROXY)))
        halves = (
            Network("trusted-proxy", "10.0.0.0", "10.0.0.9"),
            Network("trusted-proxy", "10.0.0.10", "10.0.0.255"),
        )
        self.assertFalse(edge.update(farm(*halves)))
        self.assertFalse(edge.update(farm(PROXY, Network("inside", "10.0.0.0", "10.0.0.255"))))
        self.assertTrue(edge.update(farm()))

    def test_said_once(self) -> None:
        """Each address is worth one complaint, until other proxies are listed; there are not endlessly many."""
        edge = Edge()
        self.assertEqual([edge.is_news("192.0.2.7"), edge.is_news("192.0.2.7")], [True, False])
        self.assertTrue(edge.is_news("192.0.2.8"))
        edge.update(farm(PROXY))
        self.assertTrue(edge.is_news("192.0.2.7"))
        news = [edge.is_news(f"peer {number}") for number in range(2 * TOLD_LIMIT)]
        self.assertEqual(sum(news), TOLD_LIMIT - 1)
