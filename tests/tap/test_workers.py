"""Tests of L{rvpfarm.tap.workers}."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.tap.settings import HostPort
from rvpfarm.tap.workers import NOTICES_FD, READY_SECONDS, SEAT, Seat, Worker, Workers


class FakeChildren(Service):
    """Children that do what the test says.

    @ivar added: how each was added, by name; those that were taken off are not among them.
    @ivar removed: the names of those that were told to go, in order.
    @ivar sent: signals, and to whom.
    """

    def __init__(self, failing: Callable[[str, str], None], ended: Callable[[str], None]) -> None:
        self.failing, self.ended = failing, ended
        self.added: dict[str, dict[str, Any]] = {}
        self.removed: list[str] = []
        self.sent: list[tuple[str, str | None]] = []
        self.leaving: dict[str, Deferred[None]] = {}

    def add(self, name: str, **how: Any) -> None:
        """One more."""
        assert name not in self.added
        self.added[name] = how

    def remove(self, name: str) -> Deferred[None]:
        """One less, when it has gone."""
        self.removed.append(name)
        self.leaving[name] = gone = Deferred()
        return gone

    def leave(self, name: str) -> None:
        """It is gone."""
        del self.added[name]
        self.ended(name)
        self.leaving.pop(name).callback(None)

    def send(self, signal_name: str, name: str | None = None) -> None:
        """A signal."""
        self.sent.append((signal_name, name))

    def stopService(self) -> Deferred[None]:
        """At once."""
        super().stopService()
        return succeed(None)

    def say(self, name: str, text: str, fd: int = NOTICES_FD) -> None:
        """A child writes something."""
        self.added[name]["heard"](fd, text.encode())

    def end(self, name: str) -> None:
        """A child dies, and is started again at once."""
        self.ended(name)


class WorkersCase(SynchronousTestCase):
    """Two workers, one socket each."""

    watchdog_seconds = 0.0

    def setUp(self) -> None:
        """Started, and not ready yet."""
        self.clock = Clock()
        self.sockets = [socket.socket() for _ in range(2)]
        for sock in self.sockets:
            self.addCleanup(sock.close)
        self.given_up: list[tuple[str, Sequence[str]]] = []
        self.made: list[FakeChildren] = []
        self.workers = Workers(
            self.clock,
            self.make_children,
            2,
            lambda: self.sockets,
            self.launch,
            lambda *why: self.given_up.append(why),
            watchdog_seconds=self.watchdog_seconds,
        )
        (self.children,) = self.made
        self.assertEqual(self.workers.missing(), ["not started"])
        self.workers.privilegedStartService()
        self.workers.startService()
        self.addCleanup(self.finish)

    def finish(self) -> None:
        """Stop; the sockets are let go of."""
        if self.workers.running:
            self.successResultOf(self.workers.stopService())
        self.assertEqual([sock.fileno() for sock in self.sockets], [-1, -1])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def make_children(
        self, failing: Callable[[str, str], None], ended: Callable[[str], None]
    ) -> FakeChildren:
        """The children."""
        self.made.append(FakeChildren(failing, ended))
        return self.made[-1]

    def launch(self, worker: Worker, fd: int) -> dict[str, Any]:
        """How to run one: only its socket is of interest here."""
        return {"fd": fd}

    def be_ready(self, *names: str) -> None:
        """These are ready now."""
        for name in names:
            self.children.say(name, "READY=1\nSTATUS=ready\n")


class SeatTests(SynchronousTestCase):
    """A worker knows which of how many it is, and where it shows itself."""

    def test_said(self) -> None:
        """What the supervisor says is what the worker reads; without a word it is alone."""
        seat = Seat(2, 4)
        self.assertEqual(Seat.of({SEAT: str(seat)}), seat)
        for environment in ({}, {SEAT: ""}, {SEAT: "x/y"}):
            self.assertEqual(Seat.of(environment), Seat(0, 1))

    def test_place(self) -> None:
        """Each worker has the port that many after the first's; where there is no such port it has none."""
        seat = Seat(2, 4)
        self.assertEqual(seat.place(HostPort("::1", 9464)), HostPort("::1", 9466))
        self.assertIsNone(seat.place(HostPort("::1", 65534)))
        self.assertIsNone(seat.place(None))


class LifeTests(WorkersCase):
    """Workers run, are heard, and stop."""

    def test_sockets(self) -> None:
        """Each worker has a socket of its own."""
        fds = [self.children.added[f"worker{number}"]["fd"] for number in range(2)]
        self.assertEqual(fds, [sock.fileno() for sock in self.sockets])

    def test_ready(self) -> None:
        """Until all are ready it is known who is not, and why."""
        self.assertEqual(self.workers.missing(), ["worker0: it is not up", "worker1: it is not up"])
        self.children.say("worker0", "STATUS=not liste")
        self.children.say("worker0", "ning\n")
        self.be_ready("worker1")
        self.assertEqual(self.workers.missing(), ["worker0: not listening"])
        self.be_ready("worker0")
        self.assertEqual(self.workers.missing(), [])
        self.children.end("worker1")
        self.assertEqual(self.workers.missing(), ["worker1: it is not up"])

    def test_signals(self) -> None:
        """What the supervisor is told, the workers are told."""
        self.workers.reload()
        self.workers.hurry()
        self.assertEqual(self.children.sent, [("HUP", None), ("TERM", None)])

    def test_never_comes_up(self) -> None:
        """A worker that keeps ending before all were ready ends it all, with its last words."""
        self.children.say("worker0", "rvpfarm: There is no farm", 2)
        self.children.say("worker0", " key\n\n", 2)
        self.children.failing("worker0", "exit status 1")
        self.assertEqual(
            self.given_up, [("worker0 keeps ending (exit status 1)", ("rvpfarm: There is no farm key",))]
        )

    def test_keeps_ending_later(self) -> None:
        """After that it is no reason to end the others."""
        self.be_ready("worker0", "worker1")
        self.children.failing("worker0", "exit status 1")
        self.assertEqual(self.given_up, [])

    def test_endless_words(self) -> None:
        """However much a worker writes, little of it is kept."""
        for _ in range(100):
            self.children.say("worker0", "x" * 100_000, 2)
        for _ in range(100):
            self.children.say("worker0", "\n" + "y" * 100_000, 2)
        self.children.failing("worker0", "exit status 1")
        self.assertLess(sum(len(line) for line in self.given_up[0][1]), 60_000)


class RollTests(WorkersCase):
    """Workers are replaced one by one."""

    def setUp(self) -> None:
        """All ready."""
        super().setUp()
        self.be_ready("worker0", "worker1")

    def test_one_after_the_other(self) -> None:
        """A worker goes when its successor on the same socket is ready, and the next follows when it is gone."""
        first = self.children.added["worker0"]["fd"]
        self.workers.roll()
        self.assertEqual(self.children.added["worker0b"]["fd"], first)
        self.assertEqual(self.children.removed, [])
        self.be_ready("worker0b")
        self.assertEqual(self.children.removed, ["worker0"])
        self.assertNotIn("worker1b", self.children.added)
        self.children.leave("worker0")
        self.be_ready("worker1b")
        self.children.leave("worker1")
        self.assertEqual(set(self.children.added), {"worker0b", "worker1b"})
        self.assertEqual(self.workers.missing(), [])

    def roll(self, *successors: str) -> None:
        """All goes well."""
        for name in successors:
            self.be_ready(name)
            self.children.leave(self.children.removed[-1])

    def test_again(self) -> None:
        """It can be done any number of times with two names for each worker."""
        self.workers.roll()
        self.roll("worker0b", "worker1b")
        self.workers.roll()
        self.roll("worker0", "worker1")
        self.assertEqual(set(self.children.added), {"worker0", "worker1"})

    def test_asked_for_meanwhile(self) -> None:
        """Who asks for it while it goes on means those that are replaced already as well."""
        self.workers.roll()
        self.roll("worker0b")
        self.workers.roll()
        self.roll("worker1b", "worker0", "worker1")
        self.assertEqual(set(self.children.added), {"worker0", "worker1"})

    def test_successor_ends(self) -> None:
        """A successor that ends is not tried for long: the worker stays, and so do the others."""
        self.workers.roll()
        self.children.end("worker0b")
        self.assertEqual(self.children.removed, ["worker0b"])
        self.children.leave("worker0b")
        self.assertEqual((set(self.children.added), self.workers.missing()), ({"worker0", "worker1"}, []))
        self.workers.roll()
        self.roll("worker0b", "worker1b")

    def test_successor_is_slow(self) -> None:
        """Nor is one that does not become ready in time."""
        self.workers.roll()
        self.clock.advance(READY_SECONDS)
        self.assertEqual(self.children.removed, ["worker0b"])
        self.be_ready("worker0b")  # too late
        self.children.leave("worker0b")
        self.assertEqual(set(self.children.added), {"worker0", "worker1"})

    def test_stopped_meanwhile(self) -> None:
        """Stopping does not wait for it."""
        self.workers.roll()
        self.successResultOf(self.workers.stopService())
        self.be_ready("worker0b")
        self.assertEqual(self.children.removed, [])


class WatchTests(WorkersCase):
    """A worker whose loop stands still is killed."""

    watchdog_seconds = 10.0

    def test_silent(self) -> None:
        """One that was ready and says nothing for too long is; one that says that it lives is not."""
        self.be_ready("worker0")
        for _ in range(6):
            self.clock.advance(2.5)
            self.children.say("worker0", "WATCHDOG=1\n")
        self.assertEqual(self.children.sent, [])
        self.clock.pump([2.5] * 5)
        self.assertEqual(self.children.sent, [("KILL", "worker0")])
