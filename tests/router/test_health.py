"""A home that cannot be reached is left alone; what comes and goes is believed late."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.directory.model import Home
from rvpfarm.router.health import Circuit, Health, Outcome, Standing, State, Thresholds
from tests.support.directory import make_farm

GOOD, BAD, SLOW, OWN = Outcome.ANSWERED, Outcome.UNREACHABLE, Outcome.SLOW, Outcome.OWN


class CircuitTests(SynchronousTestCase):
    """The circuit opens after failures in a row and closes with the first success."""

    def test_few_failures(self) -> None:
        """Failures with a success among them leave the home in use."""
        circuit = Circuit(failures=3)
        for _ in range(5):
            circuit.failed(0)
            circuit.failed(0)
            self.assertFalse(circuit.healthy)
            self.assertTrue(circuit.allow(0))
            circuit.succeeded()
            self.assertTrue(circuit.healthy)

    def test_opens_and_tries(self) -> None:
        """After failures in a row nobody asks for a while, and then one call at a time."""
        circuit = Circuit(failures=3, open_seconds=2)
        for _ in range(3):
            circuit.failed(10)
        self.assertEqual(circuit.seconds_left(10.5), 1.5)
        self.assertFalse(circuit.allow(11.9))
        self.assertTrue(circuit.allow(12))
        self.assertFalse(circuit.allow(12.1))
        circuit.failed(12.5)
        self.assertFalse(circuit.allow(14.4))
        self.assertTrue(circuit.allow(14.5))
        circuit.succeeded()
        self.assertTrue(circuit.allow(14.5))
        self.assertEqual(circuit.seconds_left(14.5), 0)

    def test_lost_try(self) -> None:
        """When nothing is heard of the call that tried, another may try later."""
        circuit = Circuit(failures=1, open_seconds=2)
        circuit.failed(0)
        self.assertTrue(circuit.allow(2))
        self.assertFalse(circuit.allow(3.9))
        self.assertTrue(circuit.allow(4))


class ProbedTests(SynchronousTestCase):
    """Down is believed after some failed probes in a row, up after some good ones."""

    def setUp(self) -> None:
        """A home of which nothing is known."""
        self.standing = Standing(Thresholds(), 0)

    def probe(self, *outcomes: Outcome, at: float = 0) -> State:
        """What is believed after these, five seconds apart."""
        for number, outcome in enumerate(outcomes):
            self.standing.probed(outcome, at + 5 * number)
        return self.standing.state(at + 5 * len(outcomes))

    def test_first_verdict(self) -> None:
        """Nothing is known at first, calls go there; one answer is enough to begin with."""
        self.assertIs(self.standing.state(0), State.UNKNOWN)
        self.assertTrue(self.standing.allow(0))
        self.assertIs(self.standing.probed(GOOD, 1), State.UP)
        self.assertTrue(self.standing.clear)

    def test_fall(self) -> None:
        """Three failures in a row mean down, whatever the failure; fewer, or with a success between, do not."""
        self.assertIs(self.probe(GOOD, BAD, BAD, GOOD, BAD, SLOW), State.UP)
        self.assertFalse(self.standing.clear)
        self.assertIs(self.standing.probed(BAD, 40), State.DOWN)
        self.assertEqual(self.standing.since(50), 40)

    def test_never_there(self) -> None:
        """A home that was never there is down like any other, and up with its first answer."""
        self.assertIs(self.probe(BAD, BAD, BAD), State.DOWN)
        self.assertIs(self.standing.probed(GOOD, 20), State.UP)

    def test_rise(self) -> None:
        """A home that was down is up after two good probes in a row."""
        self.probe(GOOD, BAD, BAD, BAD)
        self.assertIs(self.probe(GOOD, BAD, GOOD, at=300), State.DOWN)
        self.assertTrue(self.standing.rising)
        self.assertIs(self.standing.probed(GOOD, 320), State.UP)
        self.assertTrue(self.standing.clear)

    def test_calls_while_down(self) -> None:
        """No call is let through to a home that is down, and callers hear when the next probe is."""
        self.probe(GOOD, BAD, BAD, BAD)
        self.standing.probe_at = 22
        self.assertFalse(self.standing.allow(20))
        self.assertEqual(self.standing.seconds_left(20), 2)

    def test_probes_that_end(self) -> None:
        """If nobody probes any more, calls find out by themselves: no verdict stands for ever."""
        self.probe(GOOD, BAD, BAD, BAD)
        self.standing.probe_at = 20
        self.assertFalse(self.standing.allow(34.9))
        self.assertTrue(self.standing.allow(35))

    def test_late_answers(self) -> None:
        """Answers to calls made before do not bring back a home that is down; only probes do."""
        self.probe(GOOD, BAD, BAD, BAD)
        self.standing.answered(21)
        self.assertIs(self.standing.state(21), State.DOWN)

    def test_answers_count(self) -> None:
        """A home that answers calls is not down because probes fail: any answer proves that it is there."""
        self.probe(GOOD, BAD, BAD)
        self.standing.answered(14)
        self.assertIs(self.probe(BAD, BAD, at=15), State.UP)

    def test_own_trouble(self) -> None:
        """A probe that we could not make tells nothing."""
        self.assertIs(self.probe(GOOD, BAD, BAD, OWN, OWN, OWN), State.UP)
        self.assertEqual(self.standing.probes, {GOOD: 1, BAD: 2, SLOW: 0, OWN: 3})

    def test_circuit(self) -> None:
        """Calls open the circuit quicker than probes say down, and a good probe closes it."""
        self.probe(GOOD)
        for _ in range(5):
            self.standing.unreached(6)
        self.assertIs(self.standing.state(6), State.UP)
        self.assertTrue(self.standing.open)
        self.assertFalse(self.standing.allow(7))
        self.assertEqual(self.standing.seconds_left(7), 1)
        self.standing.probed(GOOD, 7)
        self.assertTrue(self.standing.clear and self.standing.allow(7))

    def test_counted(self) -> None:
        """Each change of mind is counted."""
        self.probe(GOOD, BAD, BAD, BAD, GOOD, GOOD)
        self.assertEqual(self.standing.transitions, {State.UP: 2, State.DOWN: 1, State.LEAVING: 0})


class FlappingTests(SynchronousTestCase):
    """A home that comes and goes is believed ever later, within bounds."""

    def setUp(self) -> None:
        """A home that is up."""
        self.standing = Standing(Thresholds(), 0)
        self.standing.probed(GOOD, 0)
        self.now = 0.0

    def fall(self) -> None:
        """Three failed probes."""
        for _ in range(3):
            self.now += 5
            self.standing.probed(BAD, self.now)
        self.assertIs(self.standing.state(self.now), State.DOWN)

    def rise(self) -> int:
        """How many good probes it takes."""
        for number in range(1, 100):
            self.now += 5
            if self.standing.probed(GOOD, self.now) is State.UP:
                return number
        raise AssertionError("it never came back")

    def outage(self) -> int:
        """It goes and comes back."""
        self.fall()
        return self.rise()

    def test_one_outage(self) -> None:
        """One outage is no flapping."""
        self.assertEqual(self.outage(), 2)
        self.assertFalse(self.standing.is_flapping(self.now))

    def test_again_and_again(self) -> None:
        """Outage after outage it takes longer, to a maximum; the penalty is bounded too."""
        taken = [self.outage() for _ in range(30)]
        self.assertEqual(taken[:4], [2, 4, 4, 6])
        self.assertLessEqual(max(taken), 16)
        self.assertLessEqual(self.standing.penalty(self.now), 6)
        self.assertTrue(self.standing.is_flapping(self.now))

    def test_thresholds(self) -> None:
        """The threshold doubles with each point of penalty above what is bearable, to its maximum."""
        for penalty, rise in ((1.9, 2), (2.0, 2), (2.1, 4), (3.1, 8), (4.1, 16), (6.0, 16)):
            self.standing._penalty, self.standing._penalised = penalty, 0
            self.assertEqual(self.standing.rise(0), rise)

    def test_forgiven(self) -> None:
        """The penalty halves in a minute: a home that stays is soon believed as any other."""
        for _ in range(10):
            self.outage()
        self.standing._penalty, self.standing._penalised = 6.0, self.now
        self.assertEqual(self.standing.penalty(self.now + 60), 3)
        self.assertTrue(self.standing.is_flapping(self.now + 94))
        self.assertFalse(self.standing.is_flapping(self.now + 96))
        self.now += 600
        self.assertEqual(self.outage(), 2)


class LeavingTests(SynchronousTestCase):
    """A home that says it is being started anew is not held to be down for that."""

    def setUp(self) -> None:
        """A home that is up, and leaves for thirty seconds."""
        self.health = Health()
        self.standing = self.health.of("id", 0)
        self.standing.probed(GOOD, 0)
        self.health.leaving("id", 10, 30)

    def test_nothing_counts(self) -> None:
        """Neither probes nor calls that fail are held against it, and calls may go there."""
        for now in (11, 16, 21, 26):
            self.standing.probed(BAD, now)
            self.standing.unreached(now)
        self.assertIs(self.standing.state(39.9), State.LEAVING)
        self.assertTrue(self.standing.allow(39.9))
        self.assertEqual(self.standing.since(39.9), 10)
        self.assertFalse(self.standing.open)

    def test_back(self) -> None:
        """It is back when it answers after it did not; while it still answers it is not gone yet."""
        self.assertIsNone(self.standing.probed(GOOD, 11))
        self.assertIs(self.standing.state(11), State.LEAVING)
        self.standing.probed(BAD, 16)
        self.assertIs(self.standing.probed(GOOD, 21), State.UP)
        self.assertTrue(self.standing.clear)
        self.assertEqual((self.standing.penalty(21), self.standing.since(22)), (0, 21))
        self.assertEqual(self.standing.transitions, {State.UP: 2, State.DOWN: 0, State.LEAVING: 1})

    def test_told_that_it_is_back(self) -> None:
        """Whoever knows may say that it is back."""
        self.health.returned("id", 12)
        self.assertIs(self.standing.state(12), State.UP)
        self.health.returned("id", 12)
        self.assertEqual(self.standing.transitions[State.UP], 2)

    def test_not_back(self) -> None:
        """After its time it counts again: three failed probes later it is down."""
        for now in (16, 21, 36, 41, 46):
            self.standing.probed(BAD, now)
        self.assertIs(self.standing.state(46), State.UP)
        self.standing.probed(BAD, 51)
        self.assertIs(self.standing.state(51), State.DOWN)

    def test_stayed(self) -> None:
        """If it never left, all is as before when its time is over."""
        self.standing.probed(GOOD, 41)
        self.assertTrue(self.standing.clear)

    def test_bounded(self) -> None:
        """It cannot be leaving for longer than a minute, nor put off the end by saying it again."""
        self.health.leaving("id", 30, 30)
        self.assertIs(self.standing.state(40), State.UP)
        self.health.leaving("id", 40, 1e9)
        self.assertIs(self.standing.state(99.9), State.LEAVING)
        self.assertIs(self.standing.state(100), State.UP)

    def test_down_already(self) -> None:
        """A home that is down does not become anything better by leaving."""
        for now in (50, 55, 60):
            self.standing.probed(BAD, now)
        self.health.leaving("id", 61, 30)
        self.assertIs(self.standing.state(61), State.DOWN)
        self.standing.probe_at = 70
        self.assertFalse(self.standing.allow(62))


class HealthTests(SynchronousTestCase):
    """All homes of a farm together."""

    def test_gone_homes(self) -> None:
        """Of a home that the farm has no more nothing is kept."""
        health = Health()
        health.of("a", 0).probed(GOOD, 0)
        health.of("b", 0)
        health.retain({"b": None})
        self.assertEqual(set(health.standings), {"b"})
        self.assertIs(health.of("a", 0).state(0), State.UNKNOWN)

    def test_seen(self) -> None:
        """Operators see every home of the farm but the own, by name."""
        health = Health()
        for id in ("1", "2", "9"):
            health.of(id, 0).probed(GOOD, 5)
        farm = make_farm(
            homes=[Home(f"{n}", f"hs{9 - n}", f"hs{n}.fabrik.example", 80, 81) for n in range(4)]
        )
        seen = health.seen(farm, 7.5, but="2")
        self.assertEqual([home.name for home in seen], ["hs6", "hs8", "hs9"])
        self.assertEqual([home.state for home in seen], [State.UNKNOWN, State.UP, State.UNKNOWN])
        self.assertEqual(seen[1].since_seconds, 2.5)
