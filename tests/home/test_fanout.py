"""When a NOTIFY counts as acknowledged: the table of protocol notes 6.3."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.home.fanout import Acknowledgement, Outcome, Spread
from rvpfarm.protocol.headers import Ack

OK, REFUSED, DEAD, SLOW = Outcome.DELIVERED, Outcome.REFUSED, Outcome.DEAD, Outcome.SLOW


def status(ack: Ack, *outcomes: Outcome) -> int:
    """What the sender is told when the deliveries end so."""
    waiting = Acknowledgement(ack, len(outcomes))
    for outcome in outcomes:
        waiting.add(outcome)
    assert waiting.settled
    verdict = waiting.verdict()
    return verdict.status if verdict else 200


class AcknowledgementTests(SynchronousTestCase):
    """Each row of the table."""

    def test_table(self) -> None:
        """Every situation answers as the table says, for each acknowledgement type."""
        rows = [
            ((), 412, 412, 412),
            ((OK,), 200, 200, 200),
            ((OK, OK), 200, 200, 200),
            ((OK, REFUSED), 200, 200, 500),
            ((DEAD, OK), 200, 200, 500),
            ((OK, SLOW), 200, 200, 504),
            ((REFUSED,), 200, 500, 500),
            ((REFUSED, SLOW), 200, 500, 500),
            ((REFUSED, DEAD), 200, 500, 500),
            ((SLOW,), 200, 504, 504),
            ((SLOW, DEAD), 200, 504, 504),
            ((DEAD,), 200, 412, 412),
            ((DEAD, DEAD), 200, 412, 412),
        ]
        for outcomes, single, deep_or, deep_and in rows:
            with self.subTest(outcomes):
                found = tuple(status(ack, *outcomes) for ack in (Ack.SINGLE_HOP, Ack.DEEP_OR, Ack.DEEP_AND))
                self.assertEqual(found, (single, deep_or, deep_and))

    def test_first_success_settles_deep_or(self) -> None:
        """DeepOr does not wait for the others once one place has it, and they change nothing."""
        waiting = Acknowledgement(Ack.DEEP_OR, 3)
        self.assertFalse(waiting.add(REFUSED))
        self.assertTrue(waiting.add(OK))
        self.assertFalse(waiting.add(REFUSED))
        self.assertIsNone(waiting.verdict())

    def test_single_hop_never_waits(self) -> None:
        """SingleHop is settled before anything was tried."""
        self.assertTrue(Acknowledgement(Ack.SINGLE_HOP, 2).settled)

    def test_time_runs_out(self) -> None:
        """Whoever has not answered in time is slow."""
        waiting = Acknowledgement(Ack.DEEP_AND, 2)
        waiting.add(OK)
        waiting.expire()
        verdict = waiting.verdict()
        assert verdict is not None
        self.assertEqual(verdict.status, 504)


class SpreadTests(SynchronousTestCase):
    """The figures of one change on its way to its watchers."""

    def test_reports_the_last_acknowledgement(self) -> None:
        """Told once, when everything has its outcome: the size, and the time to the last acknowledgement."""
        clock, seen = Clock(), list[tuple[int, float]]()
        spread = Spread(10.0, lambda size, seconds: seen.append((size, seconds)), clock.seconds)
        for _ in range(3):
            spread.sent()
        clock.advance(10.5)
        spread.settled(OK)
        spread.complete()
        clock.advance(0.5)
        spread.settled(REFUSED)
        self.assertEqual(seen, [])
        clock.advance(4)
        spread.settled(DEAD)
        self.assertEqual(seen, [(3, 1.0)])

    def test_nobody_to_tell(self) -> None:
        """A change that reached nobody reports nothing."""
        seen: list[tuple[int, float]] = []
        Spread(10.0, lambda size, seconds: seen.append((size, seconds)), Clock().seconds).complete()
        self.assertEqual(seen, [])
