"""What daemons count for the doctor: programs, private callers, proxied sign-ins, settings, clocks and disks."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.admin.status import read_page
from rvpfarm.directory.model import Network, Router
from rvpfarm.home.courier import RETRY_SECONDS, Courier, Done, Letter, Priority
from rvpfarm.observe.metrics import Metrics, program_of
from rvpfarm.observe.status import Status
from rvpfarm.protocol.calls import Unreachable
from rvpfarm.tap.overview import mark_of, show_disk
from rvpfarm.web.edge import Edge
from tests.support.directory import make_farm


class _Gone:
    """A call-back that cannot be reached."""

    name, host, is_client = "http://192.0.2.7:1025/", "192.0.2.7", True

    def send(self, head: bytes, body: bytes, done: Done) -> None:
        """Fail."""
        done(Unreachable("nobody there"))


class CountingTests(SynchronousTestCase):
    """Figures are right, and bounded whatever strangers send."""

    def test_programs(self) -> None:
        """Programs are told apart by name and version, and nothing else of what they say is shown."""
        for said, label in (
            (b"msmsgs/4.6.0.84", "msmsgs/4.6"),
            (b"Miranda", "miranda"),
            (b"RVP/1.2 (somebody@secret.example)", "rvp/1.2"),
            (b"", "none"),
            (b"\xff\xfe", "other"),
            (b"x" * 500, "x" * 24),
        ):
            self.assertEqual(program_of(said), label)

    def test_many_programs(self) -> None:
        """However many names strangers think of, there are some 64 of them."""
        registry = CollectorRegistry()
        metrics = Metrics(registry, role="home", node="hs1")
        for number in range(5000):
            metrics.user_agent(b"program%d/1" % number)
        labels = {
            sample.labels["agent"]
            for metric in registry.collect()
            for sample in metric.samples
            if sample.name == "rvp_user_agents_total"
        }
        self.assertLessEqual(len(labels), 65)
        self.assertIn("other", labels)

    def test_private(self) -> None:
        """Private callers that do not count as inside are told, where there is an inside at all."""
        edge = Edge()
        for peer in ("10.1.1.1", "10.1.1.1", "192.168.3.4", "198.51.100.7", "127.0.0.1"):
            edge.enter(edge.source_of(peer))
        self.assertEqual(edge.private, 0)
        edge.update(make_farm(networks=[Network("inside", "10.0.0.0", "10.255.255.255")]))
        self.assertEqual(edge.private, 1)
        edge.update(make_farm(networks=[Network("inside", "172.16.0.0", "172.31.255.255")]))
        self.assertEqual(edge.private, 3)

    def test_deaf(self) -> None:
        """A call-back is failing while it is tried again, and deaf when it is given up."""
        clock = Clock()
        courier = Courier(clock, lambda destination, node: None)
        courier.post(_Gone(), Letter(b"", b"", Priority.PRESENCE, "ann", key="state"))
        self.assertEqual((courier.failing, courier.deaf), (1, 0))
        clock.pump([seconds + 1 for seconds in RETRY_SECONDS])
        self.assertEqual((courier.failing, courier.deaf), (0, 1))
        courier.revive("192.0.2.7")
        self.assertEqual((courier.failing, courier.deaf), (0, 0))

    def test_settings(self) -> None:
        """Two processes with the same settings show the same mark, whatever order they read them in."""
        networks = [Network("inside", "10.0.0.0", "10.0.0.9"), Network("inside", "192.0.2.0", "192.0.2.9")]
        one = make_farm(networks=networks, referral="never", schemes="ntlm")
        other = make_farm(networks=reversed(networks), generation=7, schemes="ntlm", referral="never")
        self.assertEqual(mark_of(one), mark_of(other))
        changed = make_farm(routers=[Router("r", "r", "r.example", 80)], networks=networks)
        self.assertNotEqual(mark_of(one), mark_of(changed))

    def test_page(self) -> None:
        """The page tells the time of day and the room for the state."""
        status = Status(role="home", name="hs1", ready=tuple, now=lambda: 1234.5)
        show_disk(status, Path("/"))
        status.show("config", lambda: "abc")
        page = read_page(status.render())
        self.assertEqual((page.time, page.config), (1234.5, "abc"))
        assert page.disk_free is not None
        assert page.disk_total is not None
        self.assertLess(0, page.disk_free)
        self.assertLessEqual(page.disk_free, page.disk_total)
