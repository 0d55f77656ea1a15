"""States that come and go: watchers hear what matters, and are not stormed (product D15)."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.home.delivery import BURST, PACE_SECONDS, SLICE
from rvpfarm.home.keeper import GRACE_SECONDS
from rvpfarm.home.records import DropView
from rvpfarm.home.server import TELL_SECONDS
from rvpfarm.protocol.calls import Unreachable
from tests.support.homes import DOMAIN, PETRA, TOMASZ, LocalHome
from tests.support.hypothesis import MODEST

PORT = 4000


class FlapCase(SynchronousTestCase):
    """Tomasz, signed in, watches petra."""

    def setUp(self) -> None:
        """His client answers at once."""
        self.at = self.start()

    def start(self) -> LocalHome:
        """Such a home."""
        at = LocalHome()
        self.addCleanup(at.stop)
        at.login("/t", TOMASZ, f"http://192.0.2.78:{PORT}")
        at.outgoing.answers[PORT] = 200
        at.watch("/p", TOMASZ)
        return at

    def told(self, at: LocalHome | None = None) -> list[str]:
        """The states that tomasz was told since last asked."""
        wires = [sent.wire.decode() for sent in (at or self.at).outgoing.take() if sent.port == PORT]
        return [wire.partition("<r:state><r:")[2].partition("/>")[0] for wire in wires]

    def counted(self, name: str, **labels: str) -> float:
        """A counter of the home."""
        found = self.at.metrics.registry.get_sample_value(name, {"role": "home", "node": "hs1", **labels})
        return found or 0.0


class PaceTests(FlapCase):
    """A state that changes all the time is told now and then, and the last one always."""

    def test_by_hand(self) -> None:
        """What somebody changes by hand is told at once, each time."""
        for state in ("online", "busy", "away", "offline"):
            self.at.state(state)
            self.assertEqual(self.told(), [state])
            self.at.clock.advance(PACE_SECONDS)

    def test_storm(self) -> None:
        """Of a hundred changes within a second a handful is told, the last one among them."""
        for number in range(100):
            self.at.state(("busy", "online")[number % 2])
            self.at.clock.advance(0.01)
        self.at.clock.pump([0.1] * 20)
        told = self.told()
        self.assertLessEqual(len(told), BURST + 2)
        self.assertEqual(told[-1], "online")
        self.assertGreaterEqual(self.counted("rvp_presence_spared_total"), 90.0)

    def test_storm_that_goes_on(self) -> None:
        """One change in a second is told, however long it goes on."""
        for number in range(600):
            self.at.state(("busy", "online")[number % 2])
            self.at.clock.advance(0.1)
        self.assertLessEqual(len(self.told()), BURST + 60 / PACE_SECONDS + 1)

    def test_back_to_what_is_known(self) -> None:
        """A state that came back to what everybody was told is not told again."""
        for number in range(BURST):
            self.at.state(("busy", "online")[number % 2])
        self.assertEqual(self.told()[-1], "online")
        for state in ("busy", "away", "online"):
            self.at.state(state)
        self.at.clock.pump([0.5] * 10)
        self.assertEqual(self.told(), [])

    def test_whoever_comes_meanwhile(self) -> None:
        """A watcher who comes while news is kept back is right in the end, whatever he was answered."""
        for number in range(BURST):
            self.at.state(("busy", "online")[number % 2])
        self.at.state("away")
        self.at.login("/t", TOMASZ, "http://192.0.2.79:4001")
        answer = self.at.watch("/p", TOMASZ)
        self.assertIn("<r:away/>", answer.body)
        number = answer.header(b"Subscription-Id")
        self.at.state("online")
        self.at.outgoing.take()
        self.at.clock.pump([0.5] * 10)
        sent = [one for one in self.at.outgoing.take() if one.port == 4001]
        self.assertEqual([one.call.headers[b"subscription-id"] for one in sent], [number])
        self.assertIn(b"<r:online/>", sent[0].wire)

    def test_each_node_for_itself(self) -> None:
        """One who flaps keeps back nobody else's news."""
        self.at.login("/p", PETRA, "http://192.0.2.77:3155")
        self.at.outgoing.answers[3155] = 200
        self.at.watch("/t", PETRA)
        for number in range(20):
            self.at.state(("busy", "online")[number % 2])
        self.at.outgoing.take()
        self.at.state("busy", path="/t", who=TOMASZ, peer="192.0.2.78")
        (sent,) = self.at.outgoing.take()
        self.assertEqual(sent.port, 3155)

    def test_other_properties(self) -> None:
        """What is no state is told at once."""
        for number in range(20):
            self.at.state(("busy", "online")[number % 2])
        self.at.outgoing.take()
        self.at.ask("PROPPATCH", "/p", _MOBILE, who=PETRA)
        (sent,) = self.at.outgoing.take()
        self.assertIn(b"<r:mobile-state>1</r:mobile-state>", sent.wire)

    def test_leaving_for_good(self) -> None:
        """A user who is disabled in the middle of it is seen offline at once."""
        for number in range(BURST + 3):
            self.at.state(("busy", "online")[number % 2])
        self.told()
        self.at.directory.remove(f"{DOMAIN}/instmsg/aliases/petra")
        self.assertEqual(self.told(), ["offline"])
        self.at.clock.pump([0.5] * 10)
        self.assertEqual(self.told(), [])

    def test_invisible(self) -> None:
        """The owner hears of the change that nobody else can see, and only the owner."""
        self.at.login("/p", PETRA, "http://192.0.2.77:3155")
        self.at.outgoing.answers[3155] = 200
        self.at.watch("/p", PETRA)
        self.at.state("online")
        for number in range(21):
            self.at.state(("invisible", "online")[number % 2])
        self.at.clock.pump([0.5] * 10)
        last = {}
        for sent in self.at.outgoing.take():
            last[sent.port] = sent.wire.decode().partition("<r:state><r:")[2].partition("/>")[0]
        self.assertEqual(last, {3155: "invisible", PORT: "offline"})

    def test_stop(self) -> None:
        """A home that stops leaves no timer behind."""
        for number in range(20):
            self.at.state(("busy", "online")[number % 2])
        self.at.stop()
        self.assertEqual(self.at.clock.getDelayedCalls(), [])

    def test_stop_tells_the_last(self) -> None:
        """What was put off is told before the home stops: after a restart nobody would tell it."""
        for number in range(21):
            self.at.state(("busy", "away")[number % 2])
        self.assertEqual(self.told()[-1], "away")
        self.at.stop()
        self.assertEqual(self.told(), ["busy"])

    def test_stop_waits(self) -> None:
        """A home that stops lets what is under way arrive, and what waits behind it."""
        self.at.login("/t", TOMASZ, "http://192.0.2.79:4001")
        for state in ("busy", "away"):
            self.at.state(state)
        stopped = self.at.home.stopService()
        self.at.clock.pump([0.1] * 10)
        self.assertNoResult(stopped)
        for _ in range(2):
            for sent in self.at.outgoing.take():
                if sent.port == 4001:
                    sent.reply()
        self.at.clock.pump([0.1])
        self.successResultOf(stopped)

    def test_stop_does_not_wait_for_ever(self) -> None:
        """A client that does not answer holds up the end of a home for a moment only."""
        self.at.login("/t", TOMASZ, "http://192.0.2.79:4001")
        self.at.state("busy")
        stopped = self.at.home.stopService()
        self.at.clock.pump([0.1] * int(TELL_SECONDS * 10 - 1))
        self.assertNoResult(stopped)
        self.at.clock.pump([0.1] * 3)
        self.successResultOf(stopped)
        self.assertEqual(self.at.clock.getDelayedCalls(), [])

    def test_memory(self) -> None:
        """A node that has been quiet is not remembered."""
        self.at.state("busy")
        self.assertEqual(len(self.at.home.herald._pace), 1)
        self.at.clock.pump([1.0] * 5)
        self.assertEqual(len(self.at.home.herald._pace), 0)

    @MODEST
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(("online", "busy", "away", "idle", "invisible", "offline")),
                st.sampled_from((0.0, 0.05, 0.4, 1.0, 3.0)),
            ),
            max_size=40,
        )
    )
    def test_right_in_the_end(self, changes: list[tuple[str, float]]) -> None:
        """Whatever comes when: never the same twice in a row, never too many, and the last is the truth."""
        at = LocalHome()
        at.login("/t", TOMASZ, f"http://192.0.2.78:{PORT}")
        at.outgoing.answers[PORT] = 200
        at.watch("/p", TOMASZ)
        took = 0.0
        for state, pause in changes:
            at.state(state)
            at.clock.advance(pause)
            took += pause
        at.clock.pump([0.5] * 6)
        told = self.told(at)
        seen = at.home.keeper.get(f"{DOMAIN}/instmsg/aliases/petra")
        assert seen is not None
        self.assertEqual((["offline", *told])[-1], seen.state_for("somebody"))
        self.assertTrue(all(one != other for one, other in pairwise(told)), told)
        self.assertLessEqual(len(told), BURST + took / PACE_SECONDS + 1)
        at.stop()


class QueueTests(FlapCase):
    """News that waits for a watcher gives way to newer news of the same node."""

    def test_slow_call_back(self) -> None:
        """A client that answers slowly is sent the state it had first, and then the latest."""
        del self.at.outgoing.answers[PORT]
        for state in ("online", "busy", "away"):
            self.at.state(state)
        (first,) = self.at.outgoing.take()
        self.assertIn(b"<r:online/>", first.wire)
        first.reply()
        (second,) = self.at.outgoing.take()
        self.assertIn(b"<r:away/>", second.wire)
        self.assertEqual(self.counted("rvp_notifications_total", outcome="replaced"), 1.0)

    def test_dead_call_back(self) -> None:
        """So is one that is being tried again."""
        self.at.outgoing.answers[PORT] = Unreachable("connection refused")
        self.at.state("online")
        self.at.state("busy")
        self.at.outgoing.take()
        self.at.outgoing.answers[PORT] = 200
        self.at.clock.pump([1.0] * 5)
        self.assertEqual(self.told(), ["busy"])

    def test_long_fan_out(self) -> None:
        """Watchers whose turn has not come are told the latest only."""
        for _ in range(399):
            self.at.watch("/p", TOMASZ)
        del self.at.outgoing.answers[PORT]
        self.at.state("online")
        self.at.state("busy")
        self.assertEqual(self.at.home.herald.waiting, 800 - SLICE)
        self.at.clock.pump([0.0] * 10)
        while sent := self.at.outgoing.take():
            for one in sent:
                one.reply()
        delivered = self.counted("rvp_notifications_total", outcome="delivered")
        self.assertLess(delivered, 420.0 + SLICE)


class GraceTests(FlapCase):
    """A presence lease that is renewed a moment late never ended."""

    def test_late_renewal(self) -> None:
        """Nobody sees it, and the view is the same."""
        first = self.at.state("busy", timeout="60").body
        self.told()
        self.at.clock.pump([1.0] * 60 + [GRACE_SECONDS - 0.5])
        self.assertEqual(self.told(), [])
        second = self.at.state("busy", timeout="60").body
        self.assertEqual(first, second)
        self.at.clock.pump([1.0] * 60)
        self.assertEqual(self.told(), [])

    def test_too_late(self) -> None:
        """Who comes back just after the end is counted, and who comes back much later is not."""
        self.at.state("busy", timeout="60")
        self.at.clock.pump([1.0] * 70)
        self.at.state("busy", timeout="60")
        self.assertEqual(self.counted("rvp_lease_late_total"), 1)
        self.at.clock.pump([1.0] * 140)
        self.at.state("busy", timeout="60")
        self.assertEqual(self.counted("rvp_lease_late_total"), 1)

    def test_no_renewal(self) -> None:
        """Who does not come back is offline no later than 5 s after the end (protocol notes 5.2)."""
        self.at.state("busy", timeout="60")
        self.told()
        self.at.clock.pump([1.0] * 60)
        self.assertEqual(self.told(), [])
        self.at.clock.pump([1.0] * 4)
        self.assertEqual(self.told(), ["offline"])
        self.assertTrue(any(isinstance(change, DropView) for change in self.at.journal.written))
        self.assertEqual(self.counted("rvp_lease_expired_total", kind="presence"), 1.0)


_MOBILE = (
    "<?xml version=\"1.0\"?><d:propertyupdate xmlns:d='DAV:' xmlns:r='http://schemas.microsoft.com/rvp/'>"
    "<d:set><d:prop><r:mobile-state>1</r:mobile-state></d:prop></d:set></d:propertyupdate>"
)
