"""A connection of the admin API without a socket: what ends it."""

from __future__ import annotations

from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.admin.api import Answer, Ask
from rvpfarm.admin.site import IDLE_SECONDS, REQUEST_SECONDS, WORK_LIMIT, AdminSite


class AdminChannelTests(SynchronousTestCase):
    """Nobody holds a connection for ever."""

    def setUp(self) -> None:
        """A connection."""
        self.clock = MemoryReactorClock()
        self.asked: list[Ask] = []
        self.site = AdminSite(self.clock, self.answer)
        self.transport = StringTransport()
        self.channel = self.site.buildProtocol(None)
        self.channel.makeConnection(self.transport)

    def answer(self, ask: Ask) -> Answer:
        """Answer nothing."""
        self.asked.append(ask)
        return Answer(200, b"{}")

    def test_slow(self) -> None:
        """Who sends an octet now and then has no more time for a request than others."""
        self.channel.dataReceived(b"GET /v1/users HTTP/1.1\r\nHost: ")
        for _ in range(5):
            self.assertFalse(self.transport.disconnected)
            self.clock.advance(REQUEST_SECONDS / 5)
            self.channel.dataReceived(b"x")
        self.assertTrue(self.transport.disconnected)

    def test_idle(self) -> None:
        """Who sends nothing is let go after a while."""
        self.clock.advance(IDLE_SECONDS + 1)
        self.assertTrue(self.transport.disconnecting)

    def test_much_work(self) -> None:
        """With too much in work a request is told to come again, and nothing is done."""
        self.site.in_work = WORK_LIMIT
        self.channel.dataReceived(b"GET /v1/users HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertIn(b" 503 ", self.transport.value())
        self.assertIn(b"Retry-After: 1", self.transport.value())
        self.assertEqual(self.asked, [])
