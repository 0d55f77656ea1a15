"""Tests of L{rvpfarm.auth.throttle}, and of what L{rvpfarm.auth.challenge.Gate} makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.auth.challenge import Gate, Identity, Miss
from rvpfarm.auth.digest import Nonces
from rvpfarm.auth.logins import make_verifiers
from rvpfarm.auth.throttle import (
    FAMILIAR_SECONDS,
    FORGIVEN,
    ROOM,
    SCOPES,
    Buckets,
    Episodes,
    Throttle,
)
from rvpfarm.directory.names import names_of
from rvpfarm.protocol.address import parse_target
from rvpfarm.protocol.calls import Call, Unproven
from tests.auth.test_challenge import FABRIK, PETRA, account, answer_to
from tests.support.directory import FakeDirectory, make_account, make_farm
from tests.support.hypothesis import MODEST

KEY = "im.fabrik.example/instmsg/aliases/petra"
HOME, CAFE, STRANGER = "192.0.2.77", "192.0.2.99", "203.0.113.5"
ALLOWED = 10


class BucketTests(SynchronousTestCase):
    """Buckets leak, and are forgotten when they are empty or too many."""

    def test_leaks(self) -> None:
        """One unit in so many seconds, and never below nothing."""
        buckets = Buckets(10.0, most=5)
        for _ in range(3):
            buckets.add("a", 100.0)
        self.assertEqual([buckets.level("a", now) for now in (100.0, 105.0, 130.0, 500.0)], [3, 2.5, 0, 0])
        self.assertEqual(buckets.level("b", 100.0), 0)

    def test_room_and_wait(self) -> None:
        """There is room again after as long as L{Buckets.wait} said."""
        buckets = Buckets(10.0, most=5)
        for _ in range(3):
            self.assertTrue(buckets.has_room("a", 100.0, 3))
            buckets.add("a", 100.0)
        self.assertFalse(buckets.has_room("a", 100.0, 3))
        self.assertAlmostEqual(buckets.wait("a", 104.0, 3), 6.0)
        self.assertTrue(buckets.has_room("a", 110.0, 3))
        self.assertEqual(buckets.wait("a", 111.0, 3), 0.0)

    def test_clock_goes_back(self) -> None:
        """A clock that was set back fills nothing and forgives nothing."""
        buckets = Buckets(10.0, most=5)
        buckets.add("a", 100.0)
        self.assertEqual(buckets.level("a", 50.0), 1)

    def test_bounded(self) -> None:
        """At the limit the one that nobody touched for longest goes."""
        buckets = Buckets(10.0, most=3)
        for key in "abc":
            buckets.add(key, 100.0)
        buckets.add("a", 101.0)
        buckets.add("d", 102.0)
        self.assertEqual(len(buckets), 3)
        self.assertEqual([buckets.level(key, 102.0) > 0 for key in "abcd"], [True, False, True, True])

    def test_prune(self) -> None:
        """What is empty is forgotten."""
        buckets = Buckets(10.0, most=3)
        for now, key in ((100.0, "a"), (105.0, "b")):
            buckets.add(key, now)
        buckets.prune(112.0)
        self.assertEqual(len(buckets), 1)
        buckets.prune(115.0)
        self.assertEqual(len(buckets), 0)


class EpisodeTests(SynchronousTestCase):
    """The first of many things alike is told from the rest."""

    def test_once(self) -> None:
        """It begins anew only after a quiet time, counted from the last one."""
        episodes = Episodes(60.0)
        times = (0.0, 30.0, 80.0, 140.0, 201.0)
        self.assertEqual([episodes.begins("a", now) for now in times], [True, False, False, False, True])
        self.assertTrue(episodes.begins("b", 201.0))

    def test_bounded(self) -> None:
        """Its memory is."""
        episodes = Episodes(60.0, most=3)
        for number in range(10):
            episodes.begins(number, 0.0)
        self.assertEqual(len(episodes), 3)


class ThrottleTests(SynchronousTestCase):
    """Who guesses is held back, and nobody else for long."""

    def setUp(self) -> None:
        """An empty memory."""
        self.throttle = Throttle()

    def fail_from(self, addresses: Sequence[str], now: float = 0.0, key: str = KEY) -> int:
        """How many wrong passwords are looked at, one from each of C{addresses}, all at once."""
        looked_at = 0
        for address in addresses:
            if not self.throttle.holds(key, address, now, ALLOWED):
                looked_at += 1
                self.throttle.failed(key, address, now)
        return looked_at

    def test_one_account_from_one_address(self) -> None:
        """So many wrong passwords are looked at, then one in a while."""
        self.assertEqual(self.fail_from([STRANGER] * 100), ALLOWED)
        self.assertEqual(self.throttle.holds(KEY, STRANGER, 1.0, ALLOWED), "pair")
        self.assertEqual(self.fail_from([STRANGER] * 100, FORGIVEN["pair"]), 1)

    def test_a_day_of_guessing(self) -> None:
        """Somebody who tries all day gets no further than what is forgiven."""
        looked_at = sum(self.fail_from([STRANGER], now=now) for now in range(0, 86400, 5))
        self.assertLessEqual(looked_at, ALLOWED + 86400 / FORGIVEN["pair"])

    def test_many_accounts_from_one_address(self) -> None:
        """Guessing everybody's password from one machine is held back as a whole, real names or not."""
        for name in ("", *(f"user{number}" for number in range(200))):
            self.fail_from([STRANGER] * 3, key=name)
        self.assertEqual(self.throttle.holds("", STRANGER, 0.0, ALLOWED), "address")
        self.assertEqual(self.throttle.holds("fresh", STRANGER, 0.0, ALLOWED), "address")
        self.assertEqual(self.throttle.holds("fresh", HOME, 0.0, ALLOWED), "")

    def test_one_account_from_many_addresses(self) -> None:
        """Many machines together are slowed as well."""
        machines = [f"198.51.100.{number}" for number in range(250)]
        self.assertEqual(self.fail_from(machines), ALLOWED * ROOM["account"])
        self.assertEqual(self.throttle.holds(KEY, CAFE, 0.0, ALLOWED), "account")

    def test_the_owner_gets_in(self) -> None:
        """Where he signed in lately the owner gets in, whatever strangers do; elsewhere a little later."""
        self.throttle.proved(KEY, HOME, 0.0)
        day = 86400.0
        for _ in range(10):
            self.fail_from([f"198.51.100.{number}" for number in range(250)], day)
        self.assertEqual(self.throttle.holds(KEY, HOME, day, ALLOWED), "")
        self.assertEqual(self.throttle.holds(KEY, CAFE, day, ALLOWED), "account")
        self.assertEqual(self.throttle.holds(KEY, CAFE, day + FORGIVEN["account"], ALLOWED), "")
        late = FAMILIAR_SECONDS + 1
        self.fail_from([f"198.51.100.{number}" for number in range(250)], late)
        self.assertEqual(self.throttle.holds(KEY, HOME, late, ALLOWED), "account")

    def test_colleagues_behind_one_address(self) -> None:
        """One who fails again and again keeps out nobody who signs in from that address."""
        self.throttle.proved("tomasz", HOME, 0.0)
        for number in range(200):
            self.fail_from([HOME] * 20, key=f"user{number}")
        self.assertEqual(self.throttle.holds("tomasz", HOME, 0.0, ALLOWED), "")
        self.assertEqual(self.throttle.holds("new", HOME, 0.0, ALLOWED), "address")

    def test_own_mistakes(self) -> None:
        """The owner's own wrong passwords count where he is, and against nobody else's address."""
        self.throttle.proved(KEY, HOME, 0.0)
        self.assertEqual(self.fail_from([HOME] * 100), ALLOWED)
        self.assertEqual(self.throttle.holds(KEY, CAFE, 0.0, ALLOWED), "")

    def test_one_customer_of_a_provider(self) -> None:
        """All addresses of an IPv6 network count as one."""
        self.assertEqual(self.fail_from([f"2001:db8::{number:x}" for number in range(100)]), ALLOWED)

    def test_off(self) -> None:
        """With nothing allowed for, nobody is held back."""
        self.fail_from([STRANGER] * 100)
        self.assertEqual(self.throttle.holds(KEY, STRANGER, 0.0, 0), "")

    def test_bounded(self) -> None:
        """Made-up names and endless addresses fill the memory up to its limit and no further."""
        throttle = Throttle(most=50)
        for number in range(2000):
            address = f"10.{number % 7}.{number // 250}.{number % 250}"
            throttle.failed(f"user{number}", address, 0.0)
            throttle.failed("", address, 0.0)
            throttle.proved(f"user{number}", address, 0.0)
        self.assertLessEqual(len(throttle), 4 * 50)

    def test_names_of_nobody_push_nothing_out(self) -> None:
        """Whoever tries names that do not exist cannot have his guesses at a real one forgotten."""
        throttle = Throttle(most=50)
        for _ in range(ALLOWED):
            throttle.failed(KEY, STRANGER, 0.0)
        for _ in range(1000):
            throttle.failed("", STRANGER, 0.0)
        self.assertEqual(throttle.holds(KEY, STRANGER, 0.0, ALLOWED), "pair")


@dataclass(frozen=True)
class Try:
    """One attempt of a random schedule."""

    pause: float
    account: str
    address: str
    right: bool


TRIES = st.lists(
    st.builds(
        Try,
        st.sampled_from((0.0, 0.1, 1.0, 7.0, 45.0, 400.0, 40 * 86400.0)),
        st.sampled_from(("", "petra", "tomasz")),
        st.sampled_from((HOME, CAFE, STRANGER)),
        st.booleans(),
    ),
    max_size=120,
)


class Model:
    """The same by the definition: every failure is kept for ever, and all of them are gone through."""

    def __init__(self) -> None:
        self._failures: dict[tuple[str, ...], list[float]] = {}
        self._proved: dict[tuple[str, str], float] = {}

    def level(self, key: tuple[str, ...], now: float) -> float:
        """What is left of all the failures."""
        level, last = 0.0, 0.0
        for at in self._failures.get(key, ()):
            level = max(0.0, level - (at - last) / FORGIVEN[key[0]]) + 1
            last = at
        return max(0.0, level - (now - last) / FORGIVEN[key[0]])

    def familiar(self, one: Try, now: float) -> bool:
        """Did the account sign in from there lately?"""
        since = self._proved.get((one.account, one.address))
        return since is not None and now - since <= FAMILIAR_SECONDS

    def counts(self, one: Try, now: float) -> dict[str, tuple[str, ...]]:
        """What a failure of C{one} is counted under, by scope."""
        counted: dict[str, tuple[str, ...]] = {"address": ("address", one.address)}
        if one.account:
            counted["pair"] = ("pair", one.account, one.address)
            if not self.familiar(one, now):
                counted["account"] = ("account", one.account)
        return counted

    def holds(self, one: Try, now: float, allowed: int) -> str:
        """The scope that holds C{one} back."""
        counted = self.counts(one, now)
        if one.account and self.familiar(one, now):
            del counted["address"]
        for scope in SCOPES:
            if scope in counted and self.level(counted[scope], now) + 1 > allowed * ROOM[scope]:
                return scope
        return ""

    def settle(self, one: Try, now: float) -> None:
        """The credentials of C{one} were looked at."""
        if one.right and one.account:
            self._proved[one.account, one.address] = now
        elif not one.right:
            for key in self.counts(one, now).values():
                self._failures.setdefault(key, []).append(now)


class ModelTests(SynchronousTestCase):
    """Whatever the schedule, the throttle decides as its definition says."""

    @MODEST
    @given(TRIES, st.integers(1, 4))
    def test_as_defined(self, tries: list[Try], allowed: int) -> None:
        """It holds back exactly whom the model holds back, for the same reason."""
        throttle, model, now = Throttle(), Model(), 1000.0
        for one in tries:
            now += one.pause
            held = throttle.holds(one.account, one.address, now, allowed)
            self.assertEqual(held, model.holds(one, now, allowed))
            if not held:
                model.settle(one, now)
                if one.right and one.account:
                    throttle.proved(one.account, one.address, now)
                elif not one.right:
                    throttle.failed(one.account, one.address, now)

    @MODEST
    @given(TRIES)
    def test_never_locked_out_by_strangers(self, tries: list[Try]) -> None:
        """Where the owner has just signed in, nothing that is tried elsewhere holds him back."""
        throttle, now = Throttle(), 1000.0
        for one in tries:
            now += one.pause
            throttle.proved("petra", HOME, now)
            if one.address != HOME and not throttle.holds(one.account, one.address, now, 1):
                throttle.failed(one.account, one.address, now)
            self.assertEqual(throttle.holds("petra", HOME, now, 1), "")


class GateTests(SynchronousTestCase):
    """A gate with a throttle looks at the credentials of those who are held back no more."""

    def setUp(self) -> None:
        """A farm where petra has a password, and nopass has none."""
        self.set_farm()
        nopass = make_account("im.fabrik.example/instmsg/aliases/nopass", "home-1")
        self.directory = FakeDirectory(self.farm, [account("petra"), account("tomasz"), nopass])
        self.failures: list[tuple[str, str]] = []
        self.misses: list[Miss] = []
        self.throttle = Throttle()
        self.gate = Gate(
            Nonces(b"k" * 32),
            on_failure=lambda *failure: self.failures.append(failure),
            on_miss=self.misses.append,
            throttle=self.throttle,
        )
        self.now = 1000.0
        self.issued = 0

    def set_farm(self, **policies: str) -> None:
        """Set farm-wide policies."""
        self.farm = make_farm([FABRIK], schemes="digest-md5", **policies)

    def identify(self, credentials: bytes | None, peer: str) -> Identity | Deferred[Identity]:
        """Who makes a call with C{credentials}?"""
        headers = {b"host": b"im.fabrik.example", b"rvp-from-principal": PETRA.encode()}
        if credentials is not None:
            headers[b"authorization"] = credentials
        names = names_of(self.farm)
        call = Call(b"PROPFIND", b"/instmsg/aliases/petra", headers, peer=peer)
        node = parse_target(call.target, b"im.fabrik.example", names)
        self.issued += 1
        random8 = self.issued.to_bytes(8, "big")
        return self.gate.identify(
            call, node, self.farm, names, self.directory, self.now, lambda size: random8
        )

    def challenged(self, credentials: bytes | None = None, peer: str = STRANGER) -> bytes:
        """The one challenge that C{credentials} are answered with."""
        found = maybeDeferred(self.identify, credentials, peer)
        ((_, line),) = self.failureResultOf(found, Unproven).value.headers
        return bytes(line)

    def guess(self, times: int, peer: str = STRANGER, user: str = "petra") -> None:
        """Send wrong passwords."""
        for number in range(times):
            self.challenged(answer_to(self.challenged(peer=peer), user, password=f"guess-{number}"), peer)

    def sign_in(self, peer: str) -> Identity:
        """Send the right password."""
        credentials = answer_to(self.challenged(peer=peer), "petra")
        return self.successResultOf(maybeDeferred(self.identify, credentials, peer))

    def test_brute_force(self) -> None:
        """The right password does not help any more after too many wrong ones, until time has passed."""
        self.guess(ALLOWED)
        right = answer_to(self.challenged(), "petra")
        self.failures.clear()
        self.challenged(right)
        self.assertEqual(self.failures, [("digest", "throttled")])
        (miss,) = self.misses
        self.assertEqual((miss.cause, miss.scope, miss.peer), ("throttled", "pair", STRANGER))
        assert miss.account is not None
        self.assertEqual(miss.account.key, KEY)
        self.now += FORGIVEN["pair"] + 1
        self.assertEqual(self.sign_in(STRANGER).proof, "digest")

    def test_answer_tells_nothing(self) -> None:
        """Held back, a caller is answered exactly as for a wrong password."""
        wrong = self.challenged(answer_to(self.challenged(), "petra", password="wrong-password"))
        self.guess(ALLOWED)
        held = self.challenged(answer_to(self.challenged(), "petra"))
        start, mark, _ = wrong.partition(b'nonce="')
        self.assertTrue(held.startswith(start + mark))
        self.assertEqual((len(held), b"stale" in held), (len(wrong), False))

    def test_owner_at_home(self) -> None:
        """From where he signed in before, the owner gets in while many machines guess."""
        self.sign_in(HOME)
        for number in range(60):
            self.guess(5, peer=f"198.51.100.{number}")
        self.assertEqual({miss.scope for miss in self.misses}, {"account"})
        self.assertEqual(self.sign_in(HOME).proof, "digest")
        self.challenged(answer_to(self.challenged(peer=CAFE), "petra"), CAFE)
        self.now += FORGIVEN["account"] + 1
        self.assertEqual(self.sign_in(CAFE).proof, "digest")

    def test_restart(self) -> None:
        """Where an account was signed in before a restart is told the gate."""
        self.gate.recall(KEY, HOME, self.now)
        for number in range(60):
            self.guess(5, peer=f"198.51.100.{number}")
        self.assertEqual(self.sign_in(HOME).proof, "digest")
        Gate(Nonces(b"k" * 32)).recall(KEY, HOME, self.now)

    def test_what_does_not_count(self) -> None:
        """First legs, stale and replayed nonces, and accounts without verifiers are no guesses."""
        used = answer_to(self.challenged(peer=HOME), "petra")
        self.identify(used, HOME)
        for _ in range(100):
            self.challenged(peer=HOME)
            self.challenged(used, HOME)
        old = answer_to(self.challenged(peer=HOME), "petra")
        self.now += 1000
        for _ in range(100):
            self.challenged(old, HOME)
            self.challenged(answer_to(self.challenged(peer=HOME), "nopass"), HOME)
        self.assertEqual({cause for _, cause in self.failures}, {"replayed", "stale-nonce", "no-verifier"})
        self.assertEqual(self.sign_in(HOME).proof, "digest")
        self.assertEqual({miss.cause for miss in self.misses}, {"no-verifier"})

    def test_names_of_nobody(self) -> None:
        """Trying names counts against the address, and holds it back for all names."""
        self.guess(ALLOWED * ROOM["address"], user="ghost")
        self.misses.clear()
        self.challenged(answer_to(self.challenged(), "ghost"))
        self.challenged(answer_to(self.challenged(), "petra"))
        self.assertEqual([miss.scope for miss in self.misses], ["address", "address"])
        self.assertIs(self.misses[0].account, None)

    def test_policy(self) -> None:
        """How many are allowed is a policy; C{0} allows any number."""
        self.set_farm(failed_logins="2")
        self.guess(2)
        self.assertEqual(self.misses, [])
        self.challenged(answer_to(self.challenged(), "petra"))
        self.assertEqual(len(self.misses), 1)
        self.set_farm(failed_logins="0")
        self.guess(300)
        self.assertEqual(self.sign_in(STRANGER).proof, "digest")

    def test_lost_password_of_a_disabled_user(self) -> None:
        """The right password of somebody disabled is no guess."""
        disabled = replace(account("olga", enabled=False), verifiers=make_verifiers("olga", FABRIK, "x"))
        self.directory.put(disabled)
        for _ in range(50):
            self.challenged(answer_to(self.challenged(), "olga", password="x"))
        self.assertEqual({cause for _, cause in self.failures}, {"disabled"})
