"""Tests of L{rvpfarm.tap.home}."""

from __future__ import annotations

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.admin import handlers
from rvpfarm.observe.health import HealthServer
from rvpfarm.tap.home import Options, makeService
from tests.support.processes import scratch


class ReadinessTests(SynchronousTestCase):
    """When work may be sent to a home."""

    def test_not_before_its_state(self) -> None:
        """A home that listens already but still takes up its state is not ready: that may take seconds."""
        with scratch() as folder:
            directory, key_file = f"sqlite:///{folder}/directory.sqlite", folder / "farm.key"
            store, _ = handlers.prepare(directory, key_file)
            handlers.init(store)
            handlers.add_domain(store, "im.fabrik.example", ["fabrik.example"])
            handlers.create_home(store, "hs1", "hs1.fabrik.example", 8080, 8081, "127.0.0.1")
            store.close()
            options = Options()
            options.parseOptions(
                [
                    *("--directory", directory, "--key-file", str(key_file), "--name", "hs1"),
                    *("--state-dir", str(folder / "state"), "--metrics", "127.0.0.1:9"),
                    *("--listen", "tcp:8080:interface=127.0.0.1", "--link", "tcp:8081:interface=127.0.0.1"),
                ]
            )
            reactor = MemoryReactorClock()
            service = makeService(options, reactor)
            service.privilegedStartService()
            (health,) = (each for each in service if isinstance(each, HealthServer))  # type: ignore[attr-defined]
            self.assertEqual(len(reactor.tcpServers), 2)
            status, _type, body = health._pages.page("/readyz", "")
            self.assertEqual((status, body), (503, b"its state is not taken up\n"))
