"""Tests of L{rvpfarm.observe.metrics}."""

from __future__ import annotations

import math

from prometheus_client import CollectorRegistry, generate_latest
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.observe.metrics import LagProbe, Metrics


class MetricsTests(SynchronousTestCase):
    """What a daemon counts can be read under the documented names."""

    def setUp(self) -> None:
        """A registry of our own."""
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry, role="home", node="home1")

    def read(self, name: str, **labels: str) -> float | None:
        """One sample."""
        return self.registry.get_sample_value(name, {"role": "home", "node": "home1", **labels})

    def test_request(self) -> None:
        """A request counts by verb and code, and its time by verb."""
        self.metrics.request(b"NOTIFY", 200, 0.002)
        self.metrics.request(b"NOTIFY", 200, 0.004)
        self.metrics.request(b"NOTIFY", 412, 0.004)
        self.assertEqual(self.read("rvp_requests_total", verb="NOTIFY", code="200"), 2)
        self.assertEqual(self.read("rvp_requests_total", verb="NOTIFY", code="412"), 1)
        self.assertEqual(self.read("rvp_request_seconds_count", verb="NOTIFY"), 3)

    def test_labels_are_bounded_against_callers(self) -> None:
        """Whatever methods callers invent, there is one label for all of them."""
        for number in range(200):
            self.metrics.request(b"X%d" % number, 501, 0.0)
        self.assertEqual(self.read("rvp_requests_total", verb="OTHER", code="501"), 200)
        text = generate_latest(self.registry).decode()
        self.assertEqual(text.count("rvp_requests_total{"), 1)

    def test_labels_are_bounded_against_us(self) -> None:
        """A label value that was never meant to vary ends in C{other}, not in the memory of Prometheus."""
        for number in range(1000):
            self.metrics.call_back_blocked(f"rule {number}")
        text = generate_latest(self.registry).decode()
        self.assertLess(text.count("rvp_call_back_blocked_total{"), 100)
        self.assertGreater(self.read("rvp_call_back_blocked_total", rule="other") or 0, 900)

    def test_odd_codes(self) -> None:
        """A status nobody knows counts by its class; no answer at all is C{none}."""
        self.metrics.outbound(b"NOTIFY", 299, "client")
        self.metrics.outbound(b"NOTIFY", 0, "client")
        self.metrics.outbound(b"BREW", 1000, "server")
        for verb, code, peer in (
            ("NOTIFY", "2xx", "client"),
            ("NOTIFY", "none", "client"),
            ("OTHER", "other", "server"),
        ):
            self.assertEqual(
                self.read("rvp_outbound_requests_total", verb=verb, code=code, peer=peer), 1, code
            )

    def test_everything_else_is_counted(self) -> None:
        """Each thing that happens has its sample."""
        self.metrics.rejected("queue")
        self.metrics.route("proxy")
        self.metrics.message("DeepOr", "delivered", 0.02)
        self.metrics.notification("slow")
        self.metrics.fanout(17)
        self.metrics.fanout_done(0.3)
        self.metrics.lease_expired("view")
        self.metrics.lease_renewed("login")
        self.metrics.directory_read("found", "hit")
        self.metrics.directory_seconds(0.01)
        self.metrics.auth_failure("digest", "wrong")
        self.metrics.link_calls("answered")
        self.metrics.journal_commit(3, 0.004)
        self.metrics.lag(0.0)
        for name, labels in (
            ("rvp_rejected_total", {"reason": "queue"}),
            ("rvp_route_total", {"decision": "proxy"}),
            ("rvp_messages_total", {"ack": "DeepOr", "outcome": "delivered"}),
            ("rvp_delivery_seconds_count", {"ack": "DeepOr"}),
            ("rvp_notifications_total", {"outcome": "slow"}),
            ("rvp_fanout_size_count", {}),
            ("rvp_fanout_seconds_count", {}),
            ("rvp_lease_expired_total", {"kind": "view"}),
            ("rvp_lease_renewed_total", {"kind": "login"}),
            ("rvp_directory_reads_total", {"result": "found", "cache": "hit"}),
            ("rvp_directory_seconds_count", {}),
            ("rvp_auth_failures_total", {"method": "digest", "cause": "wrong"}),
            ("rvp_link_calls_total", {"outcome": "answered"}),
            ("rvp_journal_batch_size_count", {}),
            ("rvp_journal_commit_seconds_count", {}),
            ("rvp_reactor_lag_seconds_count", {}),
        ):
            self.assertEqual(self.read(name, **labels), 1, name)

    def test_known_outcomes_are_shown_before_they_happen(self) -> None:
        """A rate can be computed from the first event on."""
        self.assertEqual(self.read("rvp_notifications_total", outcome="dead"), 0)
        self.assertEqual(self.read("rvp_route_total", decision="redirect"), 0)

    def test_gauge_is_asked_at_each_scrape(self) -> None:
        """A gauge shows what its function says now, by its labels."""
        depth = {"inbound": 3.0, "outbound": 0.0}
        for queue in depth:
            self.metrics.gauge("queue_depth", lambda queue=queue: depth[queue], queue=queue)
        self.assertEqual(self.read("rvp_queue_depth", queue="inbound"), 3)
        depth["inbound"] = 4.0
        self.assertEqual(self.read("rvp_queue_depth", queue="inbound"), 4)
        self.assertEqual(self.read("rvp_queue_depth", queue="outbound"), 0)

    def test_broken_gauge_hides_nothing(self) -> None:
        """A gauge that fails shows as NaN and is logged once; the rest is served."""

        def broken() -> float:
            raise ZeroDivisionError

        self.metrics.gauge("users_online", broken)
        self.metrics.gauge("sessions", lambda: 7)
        for _scrape in range(2):
            self.assertIn(b"rvp_sessions", generate_latest(self.registry))
        self.assertTrue(math.isnan(self.read("rvp_users_online") or 0))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_version_and_process(self) -> None:
        """It tells what is running, and what Python knows of the process."""
        text = generate_latest(self.registry).decode()
        self.assertIn("rvp_info{", text)
        self.assertIn("python_gc_collections_total", text)
        self.assertNotIn("_created", text)


class BesideTests(SynchronousTestCase):
    """Homes that share a process share its registry, and each counts under its own name."""

    def setUp(self) -> None:
        """Two homes in one process."""
        self.registry = CollectorRegistry()
        self.first = Metrics(self.registry, role="home", node="hs1")
        self.second = self.first.beside("hs2")

    def read(self, name: str, node: str, **labels: str) -> float | None:
        """One sample."""
        return self.registry.get_sample_value(name, {"role": "home", "node": node, **labels})

    def test_counters(self) -> None:
        """What one counts, the other does not."""
        self.first.request(b"NOTIFY", 200, 0.002)
        for _ in range(2):
            self.second.request(b"NOTIFY", 200, 0.002)
        self.second.journal_commit(3, 0.004)
        labels = {"verb": "NOTIFY", "code": "200"}
        self.assertEqual(self.read("rvp_requests_total", "hs1", **labels), 1)
        self.assertEqual(self.read("rvp_requests_total", "hs2", **labels), 2)
        self.assertEqual(self.read("rvp_journal_batch_size_sum", "hs1"), 0)
        self.assertEqual(self.read("rvp_journal_batch_size_sum", "hs2"), 3)

    def test_gauges(self) -> None:
        """A gauge of both is asked of each; one that the second has alone can be had too."""
        self.first.gauge("users_online", lambda: 7)
        self.second.gauge("users_online", lambda: 9)
        self.second.gauge("sessions", lambda: 4)
        self.assertEqual((self.read("rvp_users_online", "hs1"), self.read("rvp_users_online", "hs2")), (7, 9))
        self.assertEqual((self.read("rvp_sessions", "hs1"), self.read("rvp_sessions", "hs2")), (None, 4))

    def test_process(self) -> None:
        """What the process does as a whole is told once, under its first name; the version under each."""
        self.second.lag(0.25)
        self.assertEqual(self.read("rvp_reactor_lag_seconds_sum", "hs1"), 0.25)
        self.assertEqual(self.read("rvp_reactor_lag_seconds_sum", "hs2"), None)
        text = generate_latest(self.registry).decode()
        self.assertEqual(text.count("rvp_info{"), 2)


class LagProbeTests(SynchronousTestCase):
    """How late the reactor runs its timers is measured."""

    def test_lag(self) -> None:
        """A timer that runs late counts as late by so much."""
        registry, clock = CollectorRegistry(), Clock()
        metrics = Metrics(registry, role="router", node="r")
        probe = LagProbe(clock, metrics, interval_seconds=0.5)
        probe.startService()
        labels = {"role": "router", "node": "r"}
        clock.advance(0.5)
        self.assertEqual(registry.get_sample_value("rvp_reactor_lag_seconds_sum", labels), 0)
        clock.advance(0.75)
        self.assertEqual(registry.get_sample_value("rvp_reactor_lag_seconds_sum", labels), 0.25)
        probe.stopService()
        self.assertEqual(clock.getDelayedCalls(), [])
