"""Every home is asked again and again whether it is there, and calls follow what that shows."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectError

from rvpfarm.directory.model import Domain, Home
from rvpfarm.link.links import Links
from rvpfarm.observe.metrics import Metrics
from rvpfarm.protocol.calls import Busy, Call, Reply
from rvpfarm.router.forwarder import Router
from rvpfarm.router.health import Health, Outcome, State
from rvpfarm.router.probing import Prober
from tests.router.test_forwarder import HS1, HS2, KEY, RouterTestCase, make_call
from tests.support.directory import make_farm


class ProberTestCase(RouterTestCase):
    """A router that probes its two homes, with no chance in the times."""

    def setUp(self) -> None:
        """Everything is there; nothing was asked yet."""
        super().setUp()
        self.health, self.prober = self.make_prober()
        self.addCleanup(self.stop_prober)

    def make_prober(self, **more: Any) -> tuple[Health, Prober]:
        """A prober, and the router that follows it."""
        health = Health()
        self.links = Links(
            self.clock,
            self.network.endpoint,
            key=KEY,
            name="router-2",
            chance=lambda: 1.0,
            nonce=lambda size: b"n" * size,
        )
        self.router = Router(self.directory, self.links, clock=self.clock, health=health)
        return health, Prober(
            self.directory, self.links, health, clock=self.clock, chance=lambda: 0.5, **more
        )

    def stop_prober(self) -> None:
        """End it, once."""
        if self.prober.running:
            self.prober.stopService()

    def run_for(self, seconds: float) -> None:
        """Let time pass in steps of a quarter of a second."""
        self.network.advance(seconds, pieces=max(1, round(seconds * 4)))

    def state(self, home: Home) -> State:
        """What is believed of a home."""
        now = self.clock.seconds()
        return self.health.of(home.id, now).state(now)

    def probes(self, home: Home) -> dict[str, int]:
        """How the probes of a home ended."""
        counted = self.health.of(home.id, 0).probes
        return {outcome.value: count for outcome, count in counted.items() if count}


class ProbingTests(ProberTestCase):
    """Probes take the way that calls take."""

    def test_up(self) -> None:
        """Soon after the start every home that is there is up, and its link is open for the first call."""
        self.prober.startService()
        self.run_for(1)
        self.assertEqual((self.state(HS1), self.state(HS2)), (State.UP, State.UP))
        self.assertEqual((self.network.attempts, self.links.connected), (2, 2))
        self.ask()
        self.network.pump()
        self.assertEqual((self.network.attempts, len(self.seen["hs2"])), (2, 1))

    def test_every_five_seconds(self) -> None:
        """Over an open link a home is pinged every five seconds, and nothing else is sent."""
        self.prober.startService()
        self.run_for(60.5)
        self.assertEqual(self.probes(HS1), {"answered": 13})
        self.assertEqual(self.network.attempts, 2)
        self.assertEqual(self.seen["hs1"], [])

    def test_spread(self) -> None:
        """Chance moves the probes by a fifth in either direction, so that routers do not ask in step."""
        for chance, counts in ((0.0, (15, 16)), (1.0, (10, 11))):
            health, prober = self.make_prober()
            prober._chance = lambda chance=chance: chance  # type: ignore[misc]
            prober.startService()
            self.run_for(60.75)
            prober.stopService()
            self.assertIn(health.of(HS1.id, 0).probes[Outcome.ANSWERED], counts)

    def test_down_and_up(self) -> None:
        """A home that dies is down after three probes, and up again after two; callers hear when to retry."""
        self.prober.startService()
        self.run_for(1)
        self.stop(HS2)
        self.network.cut()
        self.run_for(10)
        self.assertIs(self.state(HS2), State.UP)
        self.run_for(8)
        self.assertIs(self.state(HS2), State.DOWN)
        attempts = self.network.attempts
        (refusal,) = self.ask()
        self.assertIsInstance(refusal, Busy)
        ((name, value),) = refusal.headers
        self.assertEqual(name, b"Retry-After")
        self.assertTrue(1 <= int(value) <= 5, value)
        self.assertEqual(self.network.attempts, attempts)
        self.assertIs(self.state(HS1), State.UP)
        self.start(HS2, incarnation=2)
        self.run_for(7.5)
        self.assertIs(self.state(HS2), State.UP)
        outcome = self.ask()
        self.network.pump()
        self.assertEqual(outcome[0].status, 200)

    def test_frozen(self) -> None:
        """A home whose link is open but which gives no sign of life is down as well."""
        self.prober.startService()
        self.run_for(1)
        for pipe in self.network.pipes:
            pipe.other.reading = False
        self.run_for(20)
        self.assertEqual((self.state(HS1), self.state(HS2)), (State.DOWN, State.DOWN))
        self.assertEqual(self.probes(HS1)["slow"], 3)

    def test_silent_network(self) -> None:
        """A home of which nothing at all is heard is down as well."""
        self.network.silent.add((HS2.host, HS2.link_port))
        self.prober.startService()
        self.run_for(16)
        self.assertEqual((self.state(HS1), self.state(HS2)), (State.UP, State.DOWN))

    def test_late_home(self) -> None:
        """A home that is started after the router is found at once, not only at the next round."""
        self.stop(HS2)
        self.prober.startService()
        self.run_for(8)
        self.assertIs(self.state(HS2), State.DOWN)
        self.start(HS2)
        self.run_for(1.5)
        self.assertIs(self.state(HS2), State.UP)

    def test_absent_home(self) -> None:
        """A home that is not there for long is asked no more often than any other."""
        self.stop(HS2)
        self.prober.startService()
        self.run_for(30)
        before = sum(self.probes(HS2).values())
        self.run_for(50)
        self.assertEqual(sum(self.probes(HS2).values()) - before, 10)

    def test_busy_home(self) -> None:
        """A home that answers calls with refusals of its own is there: a 5xx is an answer."""
        self.prober.startService()
        self.run_for(1)

        def refuse(name: str, call: Call) -> Reply:
            raise Busy("too much to do")

        self.say = refuse
        for _ in range(10):
            outcome = self.ask()
            self.network.pump()
            self.assertEqual(outcome[0].status, 503)
        self.assertTrue(self.health.of(HS2.id, 0).clear)

    def test_stopped(self) -> None:
        """Stopped, it asks nobody, waits for nobody and leaves no timer."""
        self.prober.startService()
        self.run_for(1)
        self.network.silent.update({(HS1.host, HS1.link_port), (HS2.host, HS2.link_port)})
        self.network.cut()
        self.run_for(5)
        self.prober.stopService()
        self.links.stop()
        self.network.pump()
        left = [str(call) for call in self.clock.getDelayedCalls()]
        self.assertEqual([call for call in left if "LinkFactory" not in call], [])

    def test_started_again(self) -> None:
        """Started again it goes on."""
        self.prober.startService()
        self.run_for(1)
        self.prober.stopService()
        self.prober.startService()
        self.run_for(10)
        self.assertEqual(self.probes(HS1), {"answered": 3})

    def test_homes_do_not_probe(self) -> None:
        """A home asks no others unless it is told to, and itself never."""
        _, prober = self.make_prober(own_home=HS1.id)
        prober.startService()
        self.run_for(10)
        self.assertEqual(self.network.attempts, 0)
        prober.stopService()
        health, prober = self.make_prober(own_home=HS1.id, probing=True)
        prober.startService()
        self.run_for(10)
        self.assertEqual(set(health.standings), {HS2.id})
        prober.stopService()

    def test_measured(self) -> None:
        """The time of each answer is measured."""
        metrics = Metrics(CollectorRegistry(), role="router", node="r2")
        _, prober = self.make_prober(metrics=metrics)
        prober.startService()
        self.run_for(6)
        prober.stopService()
        count = metrics.registry.get_sample_value("rvp_probe_seconds_count", {"role": "router", "node": "r2"})
        self.assertEqual(count, 4)


class FollowingTests(ProberTestCase):
    """The directory says which homes there are."""

    def test_new_and_gone(self) -> None:
        """New homes are asked, gone ones are not, and one that moves is asked where it is now."""
        domain = Domain("im.fabrik.example")
        self.directory.set_farm(make_farm([domain], [HS1]))
        self.prober.startService()
        self.run_for(1)
        self.assertEqual(set(self.health.standings), {HS1.id})
        self.directory.set_farm(make_farm([domain], [HS1, HS2]))
        self.run_for(1)
        self.assertIs(self.state(HS2), State.UP)
        self.directory.set_farm(make_farm([domain], [HS2]))
        self.run_for(10)
        self.assertEqual(set(self.health.standings), {HS2.id})
        self.assertEqual(self.links.connected, 1)

    def test_moved_while_asked(self) -> None:
        """That we close the link ourselves, since a home has a new address, is not held against it."""
        self.network.silent.add((HS2.host, HS2.link_port))
        self.prober.startService()
        self.network.advance(0.5)
        moved = Home(HS2.id, HS2.name, "hs9.fabrik.example", 80, 8081)
        self.start(moved)
        self.directory.set_farm(make_farm([Domain("im.fabrik.example")], [HS1, moved]))
        self.run_for(6)
        self.assertIs(self.state(moved), State.UP)
        self.assertEqual(self.probes(moved), {"own": 1, "answered": 2})


class OwnTroubleTests(ProberTestCase):
    """What goes wrong here is not held against a home."""

    def test_no_descriptors(self) -> None:
        """When this process can open no more connections it says nothing about the homes."""
        self.prober.startService()
        self.run_for(1)
        self.network.cut()
        self.network.connect = lambda where, factory: fail(  # type: ignore[method-assign]
            ConnectError(24, "too many open files")
        )
        self.run_for(30)
        self.assertIs(self.state(HS2), State.UP)
        self.assertEqual(set(self.probes(HS2)), {"answered", "own"})
        for _ in range(10):
            self.ask()
            self.run_for(3)
        self.assertFalse(self.health.of(HS2.id, 0).open)

    def test_full_queue(self) -> None:
        """A queue that is full here is no failure of the home."""
        self.say = lambda name, call: Deferred()
        waiting = [self.router.answer(make_call(b"PROPFIND")) for _ in range(4096)]
        for _ in range(6):
            (refusal,) = self.ask()
            self.assertIsInstance(refusal, Busy)
        self.assertTrue(self.health.of(HS2.id, 0).healthy)
        for each in waiting:
            assert isinstance(each, Deferred)
            each.addErrback(lambda failure: None)
            each.cancel()
        self.assertTrue(self.health.of(HS2.id, 0).healthy)

    def test_bug(self) -> None:
        """A fault of ours is logged and does not end the probes."""
        self.prober.startService()
        self.run_for(1)
        broken = self.health.of(HS1.id, 0)
        broken.probes.clear()
        self.run_for(5)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        broken.probes.update(dict.fromkeys(Outcome, 0))
        self.run_for(10)
        self.assertGreater(self.probes(HS1)["answered"], 0)


class FlappingHomeTests(ProberTestCase):
    """A home that comes and goes every few seconds."""

    def test_not_believed_at_once(self) -> None:
        """Seen to come back again and again it is believed later, and at last it is believed."""
        self.prober.startService()
        self.run_for(1)
        for number in range(4):
            self.stop(HS2)
            self.network.cut()
            self.run_for(18)
            self.assertIs(self.state(HS2), State.DOWN)
            self.start(HS2, incarnation=number + 2)
            self.run_for(8)
        self.assertIs(self.state(HS2), State.DOWN)
        standing, now = self.health.of(HS2.id, 0), self.clock.seconds()
        self.assertTrue(standing.is_flapping(now))
        self.assertGreaterEqual(standing.rise(now), 4)
        self.run_for(80)
        self.assertIs(self.state(HS2), State.UP)
        self.assertLess(sum(standing.transitions.values()), 9)


class LeavingHomeTests(ProberTestCase):
    """A home that says it is being started anew."""

    def test_planned(self) -> None:
        """It is not down while it is away, and up when it is back."""
        self.prober.startService()
        self.run_for(1)
        self.health.leaving(HS2.id, self.clock.seconds(), 30)
        self.stop(HS2)
        self.network.cut()
        self.run_for(20)
        self.assertIs(self.state(HS2), State.LEAVING)
        self.start(HS2, incarnation=2)
        self.run_for(6)
        self.assertIs(self.state(HS2), State.UP)
        self.assertEqual(self.health.of(HS2.id, 0).transitions[State.DOWN], 0)
