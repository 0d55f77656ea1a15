"""Callers are referred only when they can follow, and never in circles."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.directory.model import Domain, Home, Network, Router
from rvpfarm.directory.referral import Forward, Redirect, route
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
