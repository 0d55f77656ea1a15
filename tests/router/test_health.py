"""A home that cannot be reached is left alone for a while, then tried by one call."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.router.health import Circuit


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
