"""A change in PostgreSQL is heard of when it is made; what cannot be heard is caught up with."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from rvpfarm.admin import handlers
from rvpfarm.directory.cache import CachedDirectory
from rvpfarm.directory.feed import Feed
from rvpfarm.directory.listening import Ear
from rvpfarm.directory.model import Farm
from rvpfarm.directory.reading import Changes
from rvpfarm.directory.sql import SqlSource
from tests.support.postgres import OnPostgresql, shared_cluster
from tests.support.processes import PATIENCE_SECONDS, wait_for
from tests.support.store import beside, make_farm_store, make_store
from tests.support.threads import ManualThreads, ThreadClock

#: Who waits for a notification in PostgreSQL's list of connections.
LISTENING = "query LIKE 'LISTEN%'"


class EarTests(OnPostgresql, SynchronousTestCase):
    """L{Ear} tells whenever something may have changed."""

    def setUp(self) -> None:
        """An ear that is connected."""
        self.store = make_farm_store(self)
        assert self.store.servers is not None
        self.name = self.store.servers.options["dbname"]
        self.ear = Ear(self.store.servers)
        self.told = threading.Semaphore(0)
        self.addCleanup(self._stop)
        self.ear.start(self.told.release)
        self._is_told()

    def _stop(self) -> None:
        """An ear that stops is gone soon: nobody listens any more."""
        self.ear.stop()
        wait_for("the end of listening", lambda: not self._listening())

    def _listening(self) -> int:
        where = f"datname = '{self.name}' AND {LISTENING}"
        ((count,),) = shared_cluster().run(f"SELECT count(*) FROM pg_stat_activity WHERE {where}")  # noqa: S608
        assert isinstance(count, int)
        return count

    def _is_told(self) -> None:
        self.assertTrue(self.told.acquire(timeout=PATIENCE_SECONDS))

    def test_change(self) -> None:
        """It tells of changes of every kind, once they are made, and of nothing that came to nothing."""
        handlers.enable_user(self.store, "petra@fabrik.example", actor="test")
        self._is_told()
        handlers.set_policy(self.store, "referral", "never", actor="test")
        self._is_told()
        handlers.set_policy(self.store, "referral", "never", actor="test")
        self.assertFalse(self.told.acquire(blocking=False))

    def test_lost(self) -> None:
        """A lost connection is made again, and then it tells, for there may have been something."""
        shared_cluster().end_connections(self.name, LISTENING)
        self._is_told()
        handlers.enable_user(self.store, "petra@fabrik.example", actor="test")
        self._is_told()


class HeardTests(OnPostgresql, TestCase):
    """A daemon's directory does not wait for its next look."""

    timeout = 60

    def test_seen_at_once(self) -> None:
        """With looks an hour apart, a change and one made while nobody could hear are both seen soon."""
        store = make_farm_store(self)
        source = SqlSource(beside(self, store))
        directory = CachedDirectory(source, reactor, poll_seconds=3600, ear=source.ear())
        told: list[Deferred[str | None]] = [Deferred(), Deferred()]
        waiting = iter(told)
        directory.startService()
        directory.watch(lambda key: next(waiting).callback(key))
        self.addCleanup(directory.stopService)

        async def changes() -> None:
            handlers.set_policy(store, "referral", "never", actor="test")
            await told[0]
            self.assertEqual(directory.farm().policy("referral"), "never")
            assert store.servers is not None
            shared_cluster().end_connections(store.servers.options["dbname"], LISTENING)
            handlers.set_policy(store, "referral", "always", actor="test")
            await told[1]
            self.assertEqual(directory.farm().policy("referral"), "always")

        return Deferred.fromCoroutine(changes())


class HastenTests(SynchronousTestCase):
    """Whoever hears of a change in the middle of a look looks again."""

    def test_look_that_began_before(self) -> None:
        """What was committed after a look began is seen without waiting for the next one."""
        store = make_store(self)
        clock, threads = ThreadClock(), ManualThreads()
        seen: list[Changes] = []

        def apply(changes: Changes, farm: Farm | None) -> None:
            seen.append(changes)

        feed = Feed(SqlSource(store), clock, threads, apply, lambda: None, poll_seconds=9, answer_seconds=9)
        feed.load()
        feed.start()
        self.addCleanup(feed.stop)
        feed.hasten()
        clock.advance(0)
        run_late(threads, lambda: handlers.set_policy(store, "referral", "never", actor="test"), feed.hasten)
        self.assertFalse(seen[-1].farm)
        threads.run()
        self.assertTrue(seen[-1].farm)


def run_late(threads: ManualThreads, *after: Callable[[], Any]) -> None:
    """Let what waits be done, and then, before its result arrives, do something more."""
    ((on_result, work),) = threads._waiting
    threads._waiting.clear()
    result = work()
    for each in after:
        each()
    assert on_result is not None
    on_result(True, result)
