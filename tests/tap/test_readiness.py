"""Tests of L{rvpfarm.tap.readiness}."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from rvpfarm.tap.readiness import Readiness, read_answer
from rvpfarm.tap.settings import HostPort

READY = b"HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nready\n"
DRAINING = b"HTTP/1.0 503 Service Unavailable\r\n\r\ndraining\n"
NOT_READY = b"HTTP/1.0 503 Service Unavailable\r\n\r\nnot listening\nno directory\n"


@implementer(IStreamClientEndpoint)
class FakeHealth:
    """The health page of one process: each connection gets the next of C{answers}."""

    def __init__(self) -> None:
        self.answers: list[bytes | None] = []
        self.asked: list[bytes] = []
        self.open: list[Any] = []

    def connect(self, factory: Any) -> Deferred[Any]:
        """Answer at once, refuse if there is nobody, or keep silent for C{None}."""
        if not self.answers:
            return fail(ConnectionRefusedError())
        answer = self.answers.pop(0)
        protocol = factory.buildProtocol(None)
        transport = StringTransportWithDisconnection()
        transport.protocol = protocol
        transport.abortConnection = transport.loseConnection
        protocol.makeConnection(transport)
        self.asked.append(transport.value())
        self.open.append(protocol)
        if answer is not None:
            protocol.dataReceived(answer)
            transport.loseConnection()
        return succeed(protocol)


class ReadinessTests(SynchronousTestCase):
    """A farm is announced when every process is ready, and not before."""

    def setUp(self) -> None:
        """Two processes."""
        self.clock = Clock()
        self.places = {"router1": HostPort("127.0.0.1", 9464), "home1": HostPort("127.0.0.1", 9465)}
        self.health = {place: FakeHealth() for place in self.places.values()}
        self.done: list[bool] = []
        self.readiness = Readiness(
            self.clock, self.health.__getitem__, self.places, lambda: self.done.append(True)
        )

    def answer(self, name: str, *answers: bytes | None) -> None:
        """What a process will say next."""
        self.health[self.places[name]].answers += answers

    def test_all_ready(self) -> None:
        """Once all have said so it is told, once, and nobody is asked again."""
        self.answer("router1", READY)
        self.readiness.startService()
        self.assertEqual(self.done, [])
        self.assertEqual(list(self.readiness.missing), ["home1"])
        self.answer("home1", NOT_READY, READY)
        self.clock.advance(0.2)
        self.assertEqual(self.readiness.missing, {"home1": "not listening; no directory"})
        self.clock.advance(0.2)
        self.assertEqual(self.done, [True])
        self.assertEqual(self.health[self.places["home1"]].asked[0], b"GET /readyz HTTP/1.0\r\n\r\n")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_silence(self) -> None:
        """A process that does not answer is asked again."""
        self.answer("router1", READY)
        self.answer("home1", None, READY)
        self.readiness.startService()
        self.clock.advance(3)
        self.assertEqual(self.readiness.missing, {"home1": "it does not answer"})
        self.clock.advance(0.2)
        self.assertEqual(self.done, [True])

    def test_too_much(self) -> None:
        """Whoever talks without end is no process of ours."""
        self.answer("router1", READY)
        self.answer("home1", b"x" * 20_000, READY)
        self.readiness.startService()
        self.clock.advance(0.2)
        self.assertEqual(self.done, [True])

    def test_stopped(self) -> None:
        """Stopped, it asks nobody and waits for nothing."""
        self.answer("home1", None)
        self.readiness.startService()
        self.readiness.stopService()
        self.clock.advance(60)
        self.assertEqual(self.done, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_lost_while_asked(self) -> None:
        """A process that dies while it is asked is asked again when it is back."""
        self.answer("router1", READY)
        self.answer("home1", None)
        self.readiness.startService()
        protocol: Protocol = self.health[self.places["home1"]].open[0]
        protocol.connectionLost(Failure(ConnectionRefusedError()))
        self.clock.advance(0.2)
        self.assertIn("no connection to 127.0.0.1:9465", self.readiness.missing["home1"])
        self.answer("home1", READY)
        self.clock.advance(0.2)
        self.assertEqual(self.done, [True])


class ReadAnswerTests(SynchronousTestCase):
    """What an answer says against readiness."""

    def test_answers(self) -> None:
        """200 says nothing against it; anything else does."""
        for data, reason in (
            (READY, ""),
            (NOT_READY, "not listening; no directory"),
            (DRAINING, ""),
            (b"HTTP/1.0 503 No\r\n\r\n", "it is not ready"),
            (b"", "it does not answer"),
            (b"HTTP/1.0 200 OK\r\n", "it does not answer"),
            (b"SSH-2.0-x\r\n\r\n", "it does not answer"),
        ):
            self.assertEqual(read_answer(data), reason)
