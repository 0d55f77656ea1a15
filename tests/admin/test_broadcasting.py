"""One message to many: how many are on their way, and what each comes to."""

from __future__ import annotations

from collections.abc import Iterator

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.admin.broadcasting import TEXT_LIMIT, WINDOW, Recipient, check_message, deliver_at, message_call
from rvpfarm.admin.checks import Refused
from rvpfarm.directory.model import Home
from rvpfarm.protocol.calls import Call
from rvpfarm.protocol.notifications import parse_notification
from rvpfarm.web.reader import parse_head
from tests.support.directory import make_account

DOMAIN = "im.fabrik.example"
SENDER = make_account(f"{DOMAIN}/instmsg/aliases/news", Home("h1", "hs1", "hs1.fabrik.example", 80, 8081))


class FakeLine:
    """Answers each call with the next status, the last of them to all others; 0 is no answer.

    @ivar most: how many were on their way at once.
    """

    def __init__(self, *statuses: int) -> None:
        self._statuses = list(statuses)
        self._waiting: list[tuple[int, int]] = []
        self.calls: list[Call] = []
        self.most = 0

    def extend(self) -> None:
        """There is time."""

    def begin(self, call: Call) -> int:
        """Note the call."""
        self.calls.append(call)
        status = self._statuses.pop(0) if len(self._statuses) > 1 else self._statuses[0]
        self._waiting.append((len(self.calls), status))
        self.most = max(self.most, len(self._waiting))
        return len(self.calls)

    def answers(self, seconds: float) -> Iterator[tuple[int, int]]:
        """Those that have one."""
        waiting, self._waiting = self._waiting, []
        for id, status in waiting:
            if status:
                yield id, status
            else:
                self._waiting.append((id, status))


def people(count: int) -> list[Recipient]:
    """So many users."""
    return [Recipient(f"{DOMAIN}/instmsg/aliases/user{number}", f"user{number}") for number in range(count)]


class DeliverTests(SynchronousTestCase):
    """L{deliver_at}"""

    def test_what_each_comes_to(self) -> None:
        """Delivered, refused, gone, unknown and not done at all are five different things."""
        line = FakeLine(200, 403, 500, 412, 504, 503)
        tally = deliver_at(line, "Hello", SENDER, people(6), 1e6)
        self.assertEqual(tally.record(), {"delivered": 1, "refused": 2, "gone": 1, "unknown": 1, "failed": 1})

    def test_bounded(self) -> None:
        """However many they are, and however fast, only so many are on their way."""
        line = FakeLine(200)
        self.assertEqual(deliver_at(line, "Hello", SENDER, people(500), 1e6).delivered, 500)
        self.assertEqual(line.most, WINDOW)
        self.assertEqual(len({call.head for call in line.calls}), 500)

    def test_silence(self) -> None:
        """Of a home that answers nothing, those under way are unknown, and the rest was not done."""
        tally = deliver_at(FakeLine(0), "Hello", SENDER, people(WINDOW + 3), 1e6, patience=0.05)
        self.assertEqual((tally.unknown, tally.failed), (WINDOW, 3))


class MessageTests(SynchronousTestCase):
    """L{message_call} and L{check_message}"""

    def test_call(self) -> None:
        """It is a NOTIFY as a client sends it, in the sender's name, for which the farm vouches."""
        call = message_call(SENDER, people(1)[0], "Down at <5> & back ☕\nAt six.")
        self.assertTrue(call.vouched)
        read = parse_head(call.head)
        self.assertEqual(read.target, b"/instmsg/aliases/user0")
        self.assertEqual(read.headers[b"rvp-ack-type"], b"DeepOr")
        notification = parse_notification(call.body)
        self.assertEqual((notification.kind, notification.sender), ("message", SENDER.url))
        self.assertIn("Down at <5> & back ☕", notification.mime)

    def test_texts(self) -> None:
        """Nothing, too much, and what a terminal would obey are no messages."""
        check_message("Two\nlines ☕")
        for text in (" \n", "x" * (TEXT_LIMIT + 1), "\x1b[2J"):
            self.assertRaises(Refused, check_message, text)
