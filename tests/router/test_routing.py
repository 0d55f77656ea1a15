"""Who answers for names that nobody has, and how a hop is counted."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.directory.model import Home
from rvpfarm.router.routing import choose_home, with_hops
from rvpfarm.web.reader import parse_head


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
