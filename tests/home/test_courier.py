"""The courier: order, bounds, retries and the dead."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.home.courier import QUEUE, Courier, Destination, Letter, Priority
from rvpfarm.home.fanout import Outcome
from rvpfarm.protocol.calls import Slow, Unreachable


class Listener:
    """A destination that answers when the test says so."""

    def __init__(self, name: str = "http://192.0.2.1:99/", *, is_client: bool = True) -> None:
        self.name, self.host, self.is_client = name, "192.0.2.1", is_client
        self.bodies: list[bytes] = []
        self.pending: list[Callable[[int | Unreachable], None]] = []

    def send(self, head: bytes, body: bytes, done: Callable[[int | Unreachable], None]) -> None:
        """Note the letter."""
        self.bodies.append(body)
        self.pending.append(done)

    def reply(self, result: int | Unreachable) -> None:
        """Answer the oldest letter."""
        self.pending.pop(0)(result)


class CourierTests(SynchronousTestCase):
    """Letters to one destination go in order, one at a time, and never without bound."""

    def setUp(self) -> None:
        """A courier that notes who died."""
        self.clock = Clock()
        self.dead: list[tuple[Destination, str]] = []
        self.courier = Courier(self.clock, lambda destination, node: self.dead.append((destination, node)))
        self.outcomes: list[Outcome] = []

    def post(
        self,
        where: Listener,
        body: bytes,
        priority: Priority = Priority.MESSAGE,
        key: int | None = None,
        about: str = "",
    ) -> None:
        """Send C{body}, noting its outcome."""
        letter = Letter(b"", body, priority, "node", done=self.outcomes.append, key=key, about=about)
        self.courier.post(where, letter)

    def test_one_at_a_time(self) -> None:
        """The second letter waits for the answer to the first."""
        where = Listener()
        self.post(where, b"1")
        self.post(where, b"2")
        self.assertEqual(where.bodies, [b"1"])
        where.reply(200)
        self.assertEqual((where.bodies, self.outcomes), ([b"1", b"2"], [Outcome.DELIVERED]))

    def test_a_slow_destination_delays_nobody_else(self) -> None:
        """Each destination has a queue of its own (design invariant 5)."""
        slow, quick = Listener("http://192.0.2.1:1/"), Listener("http://192.0.2.1:2/")
        self.post(slow, b"1")
        self.post(slow, b"2")
        self.post(quick, b"3")
        self.assertEqual(quick.bodies, [b"3"])

    def test_outcomes(self) -> None:
        """Delivered, refused, slow and dead are four different things."""
        where = Listener()
        for result in (200, 500, Slow("late"), Unreachable("closed")):
            self.post(where, b"x")
            where.reply(result)
        expected = [Outcome.DELIVERED, Outcome.REFUSED, Outcome.SLOW, Outcome.DEAD]
        self.assertEqual(self.outcomes, expected)

    def test_full_queue(self) -> None:
        """A message that finds 64 messages waiting is undeliverable, and costs none of them."""
        where = Listener()
        for number in range(QUEUE + 2):
            self.post(where, b"%d" % number)
        self.assertEqual((self.outcomes, self.courier.queued), ([Outcome.DEAD], QUEUE))

    def test_typing_gives_way_first_then_presence(self) -> None:
        """In a full queue typing notices make room first, presence next, messages never."""
        where = Listener()
        self.post(where, b"busy")
        self.post(where, b"typing", Priority.TYPING)
        self.post(where, b"presence", Priority.PRESENCE, key=1)
        for _ in range(QUEUE - 2):
            self.post(where, b"message")
        for _ in range(3):
            self.post(where, b"late")
        self.assertEqual(self.outcomes, [Outcome.DROPPED, Outcome.DROPPED, Outcome.DEAD])
        self.assertEqual(self.courier.queued, QUEUE)

    def test_newer_presence_replaces_older(self) -> None:
        """Of one subscription only the latest notification waits (protocol notes 6.5)."""
        where = Listener()
        for body in (b"0", b"1", b"2"):
            self.post(where, body, Priority.PRESENCE, key=7)
        self.post(where, b"other", Priority.PRESENCE, key=8)
        for _ in range(3):
            where.reply(200)
        self.assertEqual(where.bodies, [b"0", b"2", b"other"])

    def test_any_status_of_a_client_delivers_presence(self) -> None:
        """A client that answers a property notification with 500 has it all the same, and gets no retry."""
        where = Listener()
        self.post(where, b"1", Priority.PRESENCE, key=7)
        where.reply(500)
        self.clock.advance(200)
        self.assertEqual((where.bodies, self.dead), ([b"1"], []))

    def test_presence_is_retried_then_the_call_back_is_dead(self) -> None:
        """Four retries, 2, 10, 30 and 60 s apart; then it is skipped until its client calls."""
        where = Listener()
        self.post(where, b"1", Priority.PRESENCE, key=7)
        for delay in (2, 10, 30, 60):
            where.reply(Unreachable("refused"))
            self.clock.advance(delay - 0.5)
            self.assertEqual(where.pending, [])
            self.clock.advance(0.5)
        where.reply(Unreachable("refused"))
        self.assertEqual((len(where.bodies), self.dead), (5, [(where, "node")]))
        self.assertTrue(self.courier.is_dead(where.name))
        self.post(where, b"2")
        self.assertEqual(self.outcomes, [Outcome.DEAD, Outcome.DEAD])
        self.courier.revive("192.0.2.1")
        self.post(where, b"3")
        self.assertEqual(where.bodies[-1], b"3")

    def test_a_newer_notification_ends_the_retries_of_an_older(self) -> None:
        """What is obsolete is not tried again."""
        where = Listener()
        self.post(where, b"old", Priority.PRESENCE, key=7)
        where.reply(Unreachable("refused"))
        self.post(where, b"new", Priority.PRESENCE, key=7)
        where.reply(200)
        self.clock.advance(200)
        self.assertEqual(where.bodies, [b"old", b"new"])

    def test_newer_news_of_the_same_ends_retries(self) -> None:
        """What is to be tried again is obsolete once there is newer news of the same node, by whichever
        subscription: it would arrive last."""
        where = Listener()
        for key, about, body in ((7, "petra", b"old"), (8, "ingrid", b"hers")):
            self.post(where, body, Priority.PRESENCE, key=key, about=about)
            where.reply(Unreachable("down"))
        self.post(where, b"new", Priority.PRESENCE, key=9, about="petra")
        where.reply(200)
        self.clock.advance(2.0)
        where.reply(200)
        self.assertEqual(where.bodies, [b"old", b"hers", b"new", b"hers"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_retry_behind_newer_news(self) -> None:
        """What fails while newer news of the same node waits is not tried again."""
        where = Listener()
        self.post(where, b"old", Priority.PRESENCE, key=7, about="petra")
        self.post(where, b"new", Priority.PRESENCE, key=8, about="petra")
        where.reply(Slow("late"))
        where.reply(200)
        self.assertEqual((where.bodies, self.clock.getDelayedCalls()), ([b"old", b"new"], []))

    def test_retries_are_bounded(self) -> None:
        """However much a destination has missed, no more waits to be tried again than its queue holds."""
        where = Listener()
        for number in range(QUEUE * 2):
            self.post(where, b"%d" % number, Priority.PRESENCE, key=number)
            where.reply(Unreachable("down"))
        self.assertEqual(len(self.clock.getDelayedCalls()), QUEUE)
        for number in range(QUEUE):
            self.post(where, b"message %d" % number)
        self.clock.advance(2.0)
        self.assertEqual(self.courier.queued, QUEUE)

    def test_messages_are_not_retried(self) -> None:
        """The sender of a message is told at once; it decides what to do."""
        where = Listener()
        self.post(where, b"1")
        where.reply(Unreachable("refused"))
        self.clock.advance(200)
        self.assertEqual((where.bodies, self.courier.is_dead(where.name)), ([b"1"], False))

    def test_another_server_is_retried_on_5xx(self) -> None:
        """A server's 503 is no delivery (protocol notes 6.5); its 412 is the end of it."""
        where = Listener("farm:1", is_client=False)
        self.post(where, b"1", Priority.PRESENCE, key=7)
        where.reply(503)
        self.clock.advance(2)
        where.reply(412)
        self.clock.advance(200)
        self.assertEqual((len(where.bodies), self.dead), (2, []))

    def test_another_server_that_knows_nobody(self) -> None:
        """404 and 403 say that the subscription is to go (protocol notes 6.5)."""
        gone: list[str] = []
        for answer in (404, 403):
            where = Listener(f"farm:{answer}", is_client=False)
            letter = Letter(b"", b"", Priority.PRESENCE, "node", key=7, gone=lambda: gone.append("gone"))
            self.courier.post(where, letter)
            where.reply(answer)
        self.assertEqual(gone, ["gone", "gone"])

    def test_the_dead_are_forgotten_in_the_end(self) -> None:
        """A client that never comes back leaves nothing behind."""
        where = Listener()
        self.post(where, b"1", Priority.PRESENCE, key=7)
        for delay in (2, 10, 30, 60):
            where.reply(Unreachable("refused"))
            self.clock.advance(delay)
        where.reply(Unreachable("refused"))
        self.courier.prune(self.clock.seconds() + 1)
        self.assertEqual(
            (self.courier.is_dead(where.name), self.courier._dead, self.courier._lines), (False, {}, {})
        )

    def test_stop(self) -> None:
        """Stopping drops what waits and leaves no timer."""
        where, broken = Listener(), Listener("http://192.0.2.1:2/")
        self.post(where, b"1")
        self.post(where, b"2")
        self.post(broken, b"3", Priority.PRESENCE, key=1)
        broken.reply(Unreachable("refused"))
        self.courier.stop()
        self.assertEqual((self.outcomes, self.clock.getDelayedCalls()), ([Outcome.DEAD, Outcome.DROPPED], []))

    def test_answered_after_the_stop(self) -> None:
        """What was under way when it stopped is told its outcome, and nothing is sent or tried again then."""
        where = Listener()
        self.post(where, b"1", Priority.PRESENCE, key=1)
        self.post(where, b"2")
        self.courier.stop()
        where.reply(Unreachable("the link is closed"))
        self.post(where, b"3")
        self.assertEqual(where.bodies, [b"1"])
        self.assertEqual(self.outcomes, [Outcome.DROPPED, Outcome.DEAD, Outcome.DROPPED])
        self.assertEqual((self.courier.queued, self.clock.getDelayedCalls()), (0, []))
