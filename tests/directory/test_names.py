"""Host names mean what the directory says, the same at every member of the farm."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.directory.model import Domain, Farm, Home, Router
from rvpfarm.directory.names import names_of
from tests.support.directory import make_farm

FABRIK = Domain("im.fabrik.example", aliases=("omnent", "IM.Alt.Example"))
OTHER = Domain("im.other.example")


class NamesOfTests(SynchronousTestCase):
    """Every host name of a farm stands for one IM domain."""

    def test_domains_and_aliases(self) -> None:
        """A domain and its aliases mean the domain (protocol notes 1.3)."""
        names = names_of(make_farm([FABRIK, OTHER]))
        self.assertEqual(
            {host: names.domain_of(host) for host in ("im.fabrik.example", "OMNENT", "im.alt.example:80")},
            {
                "im.fabrik.example": "im.fabrik.example",
                "OMNENT": "im.fabrik.example",
                "im.alt.example:80": "im.fabrik.example",
            },
        )
        self.assertIsNone(names.domain_of("im.elsewhere.example"))

    def test_servers(self) -> None:
        """A server stands for the domain that its name has most in common with."""
        farm = make_farm(
            [FABRIK, OTHER],
            [Home("1", "a", "hs1.other.example", 80, 8081), Home("2", "b", "HS2.fabrik.example", 80, 8081)],
            [Router("3", "c", "r1.fabrik.example", 80), Router("4", "d", "r2.third.example", 80)],
        )
        self.assertEqual(
            names_of(farm).servers,
            {
                "hs1.other.example": "im.other.example",
                "hs2.fabrik.example": "im.fabrik.example",
                "r1.fabrik.example": "im.fabrik.example",
                # nothing tells: the first, at every member of the farm
                "r2.third.example": "im.fabrik.example",
            },
        )

    def test_own_name_wins(self) -> None:
        """A domain's own name cannot be taken by another domain's alias."""
        thief = Domain("im.thief.example", aliases=("im.fabrik.example",))
        self.assertEqual(
            names_of(make_farm([FABRIK, thief])).domain_of("im.fabrik.example"), "im.fabrik.example"
        )

    def test_empty_farm(self) -> None:
        """Without domains no host means anything."""
        farm = make_farm([], [Home("1", "a", "hs1.fabrik.example", 80, 8081)])
        self.assertIsNone(names_of(farm).domain_of("hs1.fabrik.example"))

    def test_kept_for_the_same_farm(self) -> None:
        """Asked again about the same farm, it answers without working; about another one, anew."""
        farm: Farm = make_farm([FABRIK])
        names = names_of(farm)
        self.assertIs(names_of(farm), names)
        self.assertIsNone(names_of(make_farm([OTHER])).domain_of("im.fabrik.example"))
        self.assertEqual(names_of(farm).domain_of("omnent"), "im.fabrik.example")
