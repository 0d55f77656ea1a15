"""Tests of L{rvpfarm.auth.connections}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.auth.connections import (
    HANDSHAKE_SECONDS,
    IDLE_SECONDS,
    OPEN_SECONDS,
    Connections,
    Step,
)
from tests.support.directory import make_account

PETRA = make_account("im.fabrik.example/instmsg/aliases/petra", "home-1")


class ConnectionsTests(SynchronousTestCase):
    """What connections are in the middle of, and what they have proved, is remembered for a while."""

    def setUp(self) -> None:
        """Have room for three that have proved nothing, and for two others."""
        self.connections = Connections(open_limit=3, proved_limit=2)

    def prove(self, name: str, now: float = 0.0) -> None:
        """Let a connection prove to be petra's."""
        connection, _ = self.connections.begin(name, now)
        self.connections.bind(name, connection, connection.turn, self, PETRA)

    def expect(self, name: str, now: float = 0.0) -> Step:
        """Let a connection be in the middle of something."""
        connection, _ = self.connections.begin(name, now)
        step = Step(now)
        self.connections.expect(name, connection, step)
        return step

    def test_step(self) -> None:
        """It is good once, in time."""
        step = self.expect("one")
        self.assertIs(self.connections.begin("one", HANDSHAKE_SECONDS)[1], step)
        self.assertIsNone(self.connections.begin("one", HANDSHAKE_SECONDS)[1])
        self.expect("one")
        self.assertIsNone(self.connections.begin("one", HANDSHAKE_SECONDS + 1)[1])
        self.assertIsNone(self.connections.begin("two", 0.0)[1])

    def test_proved(self) -> None:
        """It holds for the connection and no other, until it is forgotten."""
        self.prove("one")
        self.assertIs(self.connections.use("one", 1.0), PETRA)
        self.assertIsNone(self.connections.use("two", 1.0))
        self.assertEqual((self.connections.proved, len(self.connections)), (1, 1))
        self.connections.forget("one")
        self.assertIsNone(self.connections.use("one", 1.0))
        self.connections.forget("one")

    def test_restarted(self) -> None:
        """A new handshake voids what was proved."""
        self.prove("one")
        self.expect("one", 1.0)
        self.assertIsNone(self.connections.use("one", 1.0))
        self.assertEqual((self.connections.proved, len(self.connections)), (0, 1))

    def test_outrun(self) -> None:
        """A proof that comes late, when another step has begun or the connection is gone, does not count."""
        connection, _ = self.connections.begin("one", 0.0)
        turn = connection.turn
        self.connections.begin("one", 0.0)
        self.connections.bind("one", connection, turn, self, PETRA)
        self.assertIsNone(self.connections.use("one", 0.0))
        turn = connection.turn
        self.connections.forget("one")
        self.connections.bind("one", connection, turn, self, PETRA)
        self.assertEqual(len(self.connections), 0)

    def test_idle(self) -> None:
        """What was proved is stale when no call was made for long; each call makes it last."""
        self.prove("one")
        self.assertIs(self.connections.use("one", IDLE_SECONDS), PETRA)
        self.assertIs(self.connections.use("one", 2 * IDLE_SECONDS), PETRA)
        self.assertIsNone(self.connections.use("one", 3 * IDLE_SECONDS + 1))
        self.assertEqual(len(self.connections), 0)

    def test_many_open(self) -> None:
        """The oldest make room; they do not push out those that have proved something."""
        self.prove("proved")
        steps = {name: self.expect(name) for name in ("one", "two", "three", "four")}
        self.assertEqual(len(self.connections), 4)
        self.assertIsNone(self.connections.begin("one", 0.0)[1])
        self.assertIs(self.connections.begin("four", 0.0)[1], steps["four"])
        self.assertIs(self.connections.use("proved", 0.0), PETRA)

    def test_many_proved(self) -> None:
        """The one that made no call for longest makes room."""
        for name in ("one", "two"):
            self.prove(name)
        self.connections.use("one", 1.0)
        self.prove("three", 2.0)
        self.assertIsNone(self.connections.held("two"))
        self.assertIsNotNone(self.connections.held("one"))
        self.assertEqual(self.connections.proved, 2)

    def test_old_ones_go(self) -> None:
        """Those that were not touched for long go when others come."""
        self.expect("one")
        self.expect("two", OPEN_SECONDS + 1)
        self.prove("three")
        self.prove("four", IDLE_SECONDS + 1)
        self.assertEqual((self.connections.proved, len(self.connections)), (1, 1))
