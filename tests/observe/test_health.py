"""Tests of L{rvpfarm.observe.health}."""

from __future__ import annotations

import socket
from http.client import HTTPConnection

from prometheus_client import CollectorRegistry, Counter
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.observe.health import HealthServer


class HealthServerTests(SynchronousTestCase):
    """Metrics and health can be had without the reactor's help, and cannot harm the daemon."""

    def setUp(self) -> None:
        """A server on a port of its own, on a clock that nobody but us moves."""
        self.clock = Clock()
        self.registry = CollectorRegistry()
        Counter("rvp_things", "Things", registry=self.registry).inc()
        self.reasons: list[str] = []
        self.server = self.make(0)
        self.server.startService()
        self.addCleanup(self.stop)

    def make(self, port: int) -> HealthServer:
        """A server."""
        return HealthServer(
            "127.0.0.1", port, self.registry, clock=self.clock, ready=lambda: tuple(self.reasons)
        )

    def stop(self) -> None:
        """End the server, once."""
        if self.server.running:
            self.server.stopService()

    def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        """Status and body of a page."""
        connection = HTTPConnection("127.0.0.1", self.server.port, timeout=5)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def test_metrics(self) -> None:
        """The registry is served in Prometheus' text format."""
        status, body = self.get("/metrics")
        self.assertEqual(status, 200)
        self.assertIn("rvp_things_total 1.0", body)

    def test_ready(self) -> None:
        """It is ready when nothing speaks against it, and otherwise says what does."""
        self.assertEqual(self.get("/readyz"), (200, "ready\n"))
        self.reasons += ["the directory is unknown", "not listening"]
        self.assertEqual(self.get("/readyz"), (503, "the directory is unknown\nnot listening\n"))

    def test_alive(self) -> None:
        """It is alive as long as the loop runs."""
        self.assertEqual(self.get("/healthz"), (200, "alive\n"))
        self.clock.rightNow += 31
        self.assertEqual(self.get("/healthz")[0], 503)
        self.clock.advance(0)
        self.assertEqual(self.get("/healthz")[0], 200)

    def test_other_pages(self) -> None:
        """Anything else is not found; HEAD has no body; other methods are not understood."""
        self.assertEqual(self.get("/")[0], 404)
        self.assertEqual(self.get("/metrics", "HEAD"), (200, ""))
        self.assertEqual(self.get("/metrics", "POST")[0], 501)

    def test_status(self) -> None:
        """The daemon's own account of itself is served where there is one."""
        self.assertEqual(self.get("/status")[0], 404)
        self.server.stopService()
        self.server = HealthServer(
            "", 0, self.registry, clock=self.clock, ready=lambda: (), status=lambda: b'{"role": "dns"}\n'
        )
        self.server.settle("127.0.0.1", 0)
        self.server.startService()
        self.assertEqual(self.get("/status"), (200, '{"role": "dns"}\n'))
        self.assertIn("/status", self.get("/")[1])

    def test_nowhere(self) -> None:
        """Where nobody said where to listen, nobody listens, and nothing is wrong."""
        server = HealthServer("", 0, self.registry, clock=self.clock)
        server.startService()
        self.assertEqual(server.port, 0)
        server.stopService()

    def test_page_that_fails(self) -> None:
        """A fault in what is asked is logged, answered with 500, and harms nothing else."""

        def broken() -> tuple[str, ...]:
            raise ZeroDivisionError

        self.server.stopService()
        self.server = HealthServer("127.0.0.1", 0, self.registry, clock=self.clock, ready=broken)
        self.server.startService()
        self.assertEqual(self.get("/readyz")[0], 500)
        self.assertEqual(self.get("/metrics")[0], 200)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_idle_callers_are_bounded(self) -> None:
        """Callers that hold their connections open do not keep others out for good, nor the server up."""
        idle = [socket.create_connection(("127.0.0.1", self.server.port), timeout=5) for _ in range(16)]
        late = socket.create_connection(("127.0.0.1", self.server.port), timeout=5)
        self.assertEqual(late.recv(1), b"")
        for connection in (*idle, late):
            connection.close()
        self.server.stopService()

    def test_busy_port_is_tried_again(self) -> None:
        """A busy port costs the metrics for a while, never the daemon."""
        second = self.make(self.server.port)
        second.startService()
        self.addCleanup(second.stopService)
        self.assertEqual(second.port, 0)
        wanted = self.server.port
        self.server.stopService()
        self.clock.advance(5)
        self.assertEqual(second.port, wanted)

    def test_stop(self) -> None:
        """Stopped, it listens no longer and leaves no timer."""
        port = self.server.port
        self.server.stopService()
        self.assertRaises(ConnectionRefusedError, socket.create_connection, ("127.0.0.1", port))
        self.assertEqual(self.clock.getDelayedCalls(), [])
