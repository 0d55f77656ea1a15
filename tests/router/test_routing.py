"""Callers are referred only when they can follow, and never in circles."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.directory.model import Domain, Home, Network, Router
from rvpfarm.directory.names import names_of
from rvpfarm.protocol.address import parse_target
from rvpfarm.protocol.calls import Busy
from rvpfarm.router.routing import Forward, Redirect, choose_home, is_inside, referred_to, route, with_hops
from rvpfarm.web.reader import parse_head
from tests.support.directory import make_account, make_farm

DOMAIN = Domain("im.fabrik.example", aliases=("omnent",))
HS1 = Home("1", "hs1", "hs1.fabrik.example", 80, 8081)
HS2 = Home("2", "hs2", "hs2.fabrik.example", 8080, 8081)
INSIDE = (Network("inside", "10.0.0.0", "10.255.255.255"), Network("inside", "fd00::", "fd00::ffff"))
PETRA = make_account("im.fabrik.example/instmsg/aliases/Petra", HS2)
WINDOWS = b"msmsgs/5.1.0.639"


class RouteTests(SynchronousTestCase):
    """The policy, the caller's address and its program decide (protocol notes 10.2)."""

    def decide(self, home: Home = HS2, **more: Any) -> Redirect | Forward:
        """The decision about a caller who is inside and can follow, except as said."""
        farm = make_farm(
            [DOMAIN], [HS1, home], more.pop("routers", ()), networks=more.pop("networks", INSIDE)
        )
        asked = {"peer": "10.1.2.3", "user_agent": WINDOWS, "asked": "im.fabrik.example", **more}
        return route(make_account(PETRA.key, home), home, farm, **asked)

    def test_followers_inside(self) -> None:
        """Windows Messenger inside is referred to the physical URL; everybody else is forwarded."""
        url = "http://hs2.fabrik.example:8080/instmsg/local/im.fabrik.example/instmsg/aliases/petra"
        self.assertEqual(self.decide(), Redirect(url))
        for user_agent in (b"libwww-perl/6", b"", b"Mozilla msmsgs/5"):
            self.assertEqual(self.decide(user_agent=user_agent), Forward(HS2))
        self.assertEqual(self.decide(peer="192.0.2.1"), Forward(HS2))

    def test_directory_spelling(self) -> None:
        """The URL keeps the letter case of the directory, and port 80 is not written (10.1)."""
        home = Home("2", "hs2", "hs2.fabrik.example", 80, 8081)
        decision = route(
            PETRA, home, make_farm([DOMAIN], [home]), peer="::1", user_agent=WINDOWS, asked="omnent"
        )
        self.assertEqual(
            decision,
            Redirect("http://hs2.fabrik.example/instmsg/local/im.fabrik.example/instmsg/aliases/Petra"),
        )

    def test_policies(self) -> None:
        """The policy may refer everybody, or nobody."""
        self.assertIsInstance(self.decide(policy="always", user_agent=b"", peer="192.0.2.1"), Redirect)
        self.assertEqual(self.decide(policy="never"), Forward(HS2))

    def test_policy_of_the_domain(self) -> None:
        """Without being told, the domain's own policy decides."""
        domain = Domain(DOMAIN.name, policies={"referral": "never"})
        decision = route(
            PETRA,
            HS2,
            make_farm([domain], [HS2], referral="always"),
            peer="10.1.2.3",
            user_agent=WINDOWS,
            asked=DOMAIN.name,
        )
        self.assertEqual(decision, Forward(HS2))

    def test_never_in_circles(self) -> None:
        """A referral that would lead to a router again is not made (notes 1.6), whatever the policy."""
        for home in (
            Home("2", "hs2", "im.fabrik.example", 80, 8081),
            Home("2", "hs2", "omnent", 80, 8081),
            Home("2", "hs2", "r1.fabrik.example", 80, 8081),
        ):
            routers = [Router("9", "r1", "r1.fabrik.example", 80)]
            self.assertEqual(self.decide(home, policy="always", routers=routers), Forward(home))
        self.assertEqual(self.decide(policy="always", asked="HS2.fabrik.example"), Forward(HS2))


class ReferredToTests(SynchronousTestCase):
    """A home's own referral is followed to another home of the farm, and nowhere else (notes 10.3)."""

    PATH = "/instmsg/local/im.fabrik.example/instmsg/aliases/petra"

    def where(self, url: str, *, homes: tuple[Home, ...] = (HS1, HS2), **more: Any) -> Home | None:
        """Where the referral of the first home leads."""
        farm = make_farm([DOMAIN], homes, [Router("9", "r1", "r1.fabrik.example", 80, "192.0.2.9")])
        target = parse_target(b"/instmsg/aliases/petra", b"im.fabrik.example", names_of(farm))
        return referred_to(url.encode(), target, HS1, farm)

    def test_another_home(self) -> None:
        """The physical URL of the node at another home is that home, if the port is right too."""
        self.assertEqual(self.where(f"http://hs2.fabrik.example:8080{self.PATH}"), HS2)
        self.assertEqual(self.where(f"http://HS2.fabrik.example:8080{self.PATH.upper()}"), HS2)

    def test_out_of_the_farm(self) -> None:
        """A referral to a server that is none of ours is the home's to give: it is for the caller."""
        for url in (
            f"http://im.orchard.example{self.PATH}",
            "http://im.orchard.example/instmsg/aliases/petra?moved=1",
            "http://192.0.2.200:8080/",
        ):
            self.assertIsNone(self.where(url), url)

    def test_in_circles(self) -> None:
        """One to the home itself, to a router, to another node or to nowhere is followed by nobody."""
        for url in (
            f"http://hs1.fabrik.example{self.PATH}",
            f"http://hs2.fabrik.example{self.PATH}",  # on a port where no home is
            "http://hs2.fabrik.example:8080/instmsg/local/im.fabrik.example/instmsg/aliases/tomasz",
            "http://hs2.fabrik.example:8080/instmsg/aliases/petra",
            "http://im.fabrik.example/instmsg/aliases/petra",
            f"http://im.fabrik.example{self.PATH}",
            f"http://im.fabrik.example:8080{self.PATH}",
            f"http://omnent{self.PATH}",
            f"http://r1.fabrik.example{self.PATH}",
            f"http://192.0.2.9{self.PATH}",
            f"https://hs2.fabrik.example:8080{self.PATH}",
            self.PATH,
            "",
            "http://hs2.fabrik.example:8080/\N{SNOWMAN}",
        ):
            with self.subTest(url=url):
                self.assertRaises(Busy, self.where, url)

    def test_home_recorded_at_a_router(self) -> None:
        """Nor is one to a home whose URL is a router's, by a mistake in the directory."""
        wrong = Home("2", "hs2", "r1.fabrik.example", 80, 8081)
        self.assertRaises(Busy, self.where, f"http://r1.fabrik.example{self.PATH}", homes=(HS1, wrong))


class IsInsideTests(SynchronousTestCase):
    """An address is inside when a range says so."""

    def test_ranges(self) -> None:
        """The ends of a range belong to it, and an IPv4 address is the same when written as IPv6."""
        for peer in ("10.0.0.0", "10.255.255.255", "::ffff:10.1.1.1", "fd00::1"):
            self.assertTrue(is_inside(peer, INSIDE), peer)
        for peer in ("11.0.0.0", "9.255.255.255", "fd00::1:0", "::1", "", "petra"):
            self.assertFalse(is_inside(peer, INSIDE), peer)

    def test_no_ranges(self) -> None:
        """Where nothing is said to be inside, everybody is; other kinds of ranges do not count."""
        self.assertTrue(is_inside("192.0.2.1", ()))
        self.assertFalse(is_inside("", ()))  # behind a proxy that does not say who calls
        self.assertTrue(is_inside("192.0.2.1", [Network("call-back", "10.0.0.0", "10.0.0.1")]))

    def test_bad_range(self) -> None:
        """A range that is none contains nobody."""
        self.assertFalse(is_inside("10.0.0.1", [Network("inside", "10.0.0.0", "everywhere")]))


class ChooseHomeTests(SynchronousTestCase):
    """A home answers for names that do not exist."""

    def test_always_the_same(self) -> None:
        """The order of the homes makes no difference, and each gets its share."""
        homes = [Home(str(n), f"hs{n}", f"hs{n}.fabrik.example", 80, 8081) for n in range(4)]
        chosen = [choose_home(f"im.fabrik.example/u/{n}", homes) for n in range(200)]
        self.assertEqual(chosen, [choose_home(f"im.fabrik.example/u/{n}", homes[::-1]) for n in range(200)])
        self.assertEqual({home for home in chosen if home}, set(homes))

    def test_a_home_goes(self) -> None:
        """When a home goes, only the names that it answered for move."""
        homes = [Home(str(n), f"hs{n}", f"hs{n}.fabrik.example", 80, 8081) for n in range(4)]
        for n in range(100):
            before = choose_home(f"k/{n}", homes)
            if before is not homes[3]:
                self.assertIs(choose_home(f"k/{n}", homes[:3]), before)

    def test_no_homes(self) -> None:
        """Without homes there is none."""
        self.assertIsNone(choose_home("k", []))


class WithHopsTests(SynchronousTestCase):
    """The hop count is changed, and not one octet besides."""

    def test_replaced(self) -> None:
        """The value is replaced however the name is spelled and the lines end."""
        for name in (b"RVP-Hop-Count", b"rvp-hop-count", b"Rvp-HOP-count"):
            for end in (b"\r\n", b"\n"):
                head = end.join([b"NOTIFY /p HTTP/1.1", b"A: RVP-Hop-Count: 3", b"%b: 7", b"B: c", b"", b""])
                before, after = head % name, head.replace(b"%b: 7", b"RVP-Hop-Count: 8")
                self.assertEqual(with_hops(before, 8), after)

    def test_inserted(self) -> None:
        """Where there was none it follows the request line, with the same end of line."""
        for end in (b"\r\n", b"\n"):
            self.assertEqual(
                with_hops(end.join([b"NOTIFY /p HTTP/1.1", b"Host: h", b"", b""]), 2),
                end.join([b"NOTIFY /p HTTP/1.1", b"RVP-Hop-Count: 2", b"Host: h", b"", b""]),
            )

    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(st.tuples(st.sampled_from([b"A", b"Hop-Count", b"X-RVP-Hop-Count"]), st.integers(0, 99))),
        st.none() | st.tuples(st.sampled_from([b"rvp-hop-count", b"RVP-Hop-Count"]), st.integers(0, 99)),
        st.integers(1, 9),
        st.randoms(use_true_random=False),
    )
    def test_read_again(self, fields: list[tuple[bytes, int]], own: Any, hops: int, random: Any) -> None:
        """The strict reader reads the new count, and every other field as before."""
        lines = [b"%b: %d" % field for field in fields]
        if own is not None:
            lines.insert(random.randint(0, len(lines)), b"%b:%d" % own)
        lines = [b"NOTIFY /p HTTP/1.1", b"Host: h", *lines, b"", b""]
        head = b"".join(line + random.choice((b"\r\n", b"\n")) for line in lines[:-1])
        before, after = parse_head(head).headers, parse_head(with_hops(head, hops)).headers
        self.assertEqual(after, {**before, b"rvp-hop-count": b"%d" % hops})
