"""Renewals: spread over time, counted, and never by a lease that ends before its client thinks."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.home.subscribing import LONGEST, announced, granted
from tests.support.homes import PETRA, TOMASZ, Asked, LocalHome
from tests.support.hypothesis import MODEST


class AnnouncedTests(SynchronousTestCase):
    """How long a subscription is said to be granted."""

    @MODEST
    @given(st.integers(1, 10**9), st.integers(1, 2147483647), st.integers(0, 50))
    def test_bounds(self, asked: int, number: int, percent: int) -> None:
        """Never more than is held, never less by more than the policy says, nor below an hour of four."""
        seconds = announced(asked, number, percent)
        self.assertLessEqual(seconds, granted(asked))
        self.assertGreaterEqual(seconds, granted(asked) * (100 - percent) / 100)
        if asked < LONGEST:
            self.assertEqual(seconds, granted(asked))
        else:
            self.assertGreaterEqual(seconds, 3600)
            self.assertGreater(seconds, 30)

    def test_off(self) -> None:
        """Without jitter everybody is told the same."""
        self.assertEqual({announced(LONGEST, number, 0) for number in range(1, 200)}, {LONGEST})

    def test_spread(self) -> None:
        """A contact list, whose subscriptions are numbered one after the other, is spread evenly."""
        for first in (1, 1000, 123456):
            told = sorted(announced(LONGEST, number, 5) for number in range(first, first + 100))
            gaps = [later - earlier for earlier, later in pairwise(told)]
            self.assertLess(max(gaps), 3 * 720 / 100)
            self.assertEqual((told[0] < 13710, told[-1] > 14370), (True, True))


class RenewalTests(SynchronousTestCase):
    """What a home answers and holds."""

    def start(self, **policies: str) -> LocalHome:
        """A home with those policies."""
        at = LocalHome(**policies)  # type: ignore[arg-type]
        self.addCleanup(at.stop)
        return at

    def refresh(self, at: LocalHome, asked: Asked, who: str, lifetime: str = "14400") -> Asked:
        """Renew a subscription to petra's node."""
        number = asked.header(b"Subscription-Id").decode()
        return at.ask("SUBSCRIBE", "/p", who=who, Subscription_Id=number, Subscription_Lifetime=lifetime)

    def lifetime(self, asked: Asked) -> int:
        """What a client is told."""
        return int(asked.header(b"Subscription-Lifetime"))

    def test_logins_are_exact(self) -> None:
        """A new login is granted what was asked for, to the second (vectors 1 and 4)."""
        at = self.start(**{"renewal-jitter": "50"})
        told = {self.lifetime(at.login(lifetime=asked)) for asked in ("14400", "999999") for _ in range(5)}
        self.assertEqual(told, {14400})

    def test_others_are_spread(self) -> None:
        """New watchers and all renewals are told a little less, each another time."""
        at = self.start()
        login = at.login()
        told = [self.lifetime(self.refresh(at, login, PETRA))]
        for _ in range(20):
            watch = at.watch("/p", TOMASZ)
            told += [self.lifetime(watch), self.lifetime(self.refresh(at, watch, TOMASZ))]
        self.assertGreaterEqual(min(told), 14400 * 0.95)
        self.assertLessEqual(max(told), 14400)
        self.assertGreaterEqual(len(set(told)), 20)

    def test_policy_of_the_domain(self) -> None:
        """Switched off, everything is exact."""
        at = self.start(**{"renewal-jitter": "0"})
        watch = at.watch("/p", TOMASZ)
        self.assertEqual([self.lifetime(watch), self.lifetime(self.refresh(at, watch, TOMASZ))], [14400] * 2)

    def test_what_was_asked_is_held(self) -> None:
        """A client that does not look at the answer finds its subscription at the end of what it asked for."""
        at = self.start(**{"renewal-jitter": "50"})
        watches = [at.watch("/p", TOMASZ) for _ in range(5)]
        self.assertLess(min(map(self.lifetime, watches)), 9000)
        at.clock.advance(14400 - 300)
        self.assertEqual({self.refresh(at, watch, TOMASZ).status for watch in watches}, {200})

    def test_short_requests_are_exact(self) -> None:
        """Who asks for less than there is gets what was asked for."""
        at = self.start()
        watch = at.watch("/p", TOMASZ, lifetime="14000")
        refreshed = self.refresh(at, watch, TOMASZ, "3600")
        self.assertEqual([self.lifetime(watch), self.lifetime(refreshed)], [14000, 3600])

    def test_counted(self) -> None:
        """Renewals of logins, watchers and states are counted; first ones and ends are not."""
        at = self.start()
        login, watch = at.login(), at.watch("/p", TOMASZ)
        for state in ("online", "online", "busy", "offline", "offline"):
            at.state(state)
        self.refresh(at, login, PETRA)
        for _ in range(3):
            self.refresh(at, watch, TOMASZ)
        self.refresh(at, watch, PETRA)
        counted = {
            kind: at.metrics.registry.get_sample_value(
                "rvp_lease_renewed_total", {"role": "home", "node": "hs1", "kind": kind}
            )
            for kind in ("login", "property", "presence")
        }
        self.assertEqual(counted, {"login": 1.0, "property": 3.0, "presence": 2.0})
