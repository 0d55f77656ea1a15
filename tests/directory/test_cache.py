"""The cache: bounded, one question per key, invalidated, and serving on when the directory is down."""

from __future__ import annotations

import threading
from dataclasses import replace

from prometheus_client import CollectorRegistry
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase, TestCase

from rvpfarm.admin import handlers
from rvpfarm.directory.cache import CachedDirectory
from rvpfarm.directory.model import Account, DirectoryUnavailable, Farm
from rvpfarm.directory.reading import Changes
from rvpfarm.directory.snapshot import Head, Kept, Snapshot
from rvpfarm.directory.sql import SqlSource
from rvpfarm.observe.metrics import Metrics
from tests.support.directory import make_account, make_farm
from tests.support.store import make_farm_store
from tests.support.threads import ManualThreads, ThreadClock

PETRA = make_account("im.fabrik.example/instmsg/aliases/petra", "hs1")
TOMASZ = make_account("im.fabrik.example/instmsg/aliases/tomasz", "hs1")
NOBODY = "im.fabrik.example/instmsg/aliases/nobody"


class ScriptedSource:
    """A source whose answers a test writes down, and which notes what it was asked.

    @ivar looked: the positions from which its changes were read; C{marks} those that came with them.
    @ivar problem: raised instead of any answer.
    """

    def __init__(self, *accounts: Account) -> None:
        self.accounts = {account.key: account for account in accounts}
        self.feed: list[Changes] = []
        self.settings = make_farm()
        self.asked: list[str] = []
        self.looked: list[int] = []
        self.marks: list[str] = []
        self.problem: Exception | None = None
        self.closed = False

    def position(self) -> int:
        """Where the feed begins."""
        self._fail()
        return 10

    def farm(self) -> Farm:
        """The settings."""
        self._fail()
        return self.settings

    def account(self, key: str) -> Account | None:
        """The account of C{key}."""
        self.asked.append(key)
        self._fail()
        return self.accounts.get(key)

    def changes_since(self, position: int, mark: str) -> Changes:
        """The next of the feed, or nothing new."""
        self.looked.append(position)
        self.marks.append(mark)
        self._fail()
        return self.feed.pop(0) if self.feed else Changes(position)

    def close(self) -> None:
        """Nothing more will be asked."""
        self.closed = True

    def _fail(self) -> None:
        if self.problem is not None:
            raise self.problem


class CacheCase(SynchronousTestCase):
    """A cache over a scripted source, with threads and time in the test's hands."""

    size = 200_000
    questions = 2_000

    def setUp(self) -> None:
        """Start the cache."""
        self.source = ScriptedSource(PETRA, TOMASZ)
        self.clock, self.threads = ThreadClock(), ManualThreads()
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry, role="router", node="r1")
        self.cache = CachedDirectory(
            self.source,
            self.clock,
            size=self.size,
            questions=self.questions,
            metrics=self.metrics,
            threads=self.threads,
        )
        self.cache.startService()
        self.addCleanup(self.cache.stopService)
        self.told: list[str | None] = []
        self.cache.watch(self.told.append)

    def find(self, key: str) -> Account | None:
        """Ask, let the source answer, and return what it said."""
        found = self.cache.find(key)
        self.threads.run()
        return self.successResultOf(found)

    def poll(self, *feed: Changes) -> None:
        """The next look at the feed of changes shows this."""
        self.source.feed.extend(feed)
        self.clock.advance(1.0)
        self.threads.run()

    def reads(self, result: str, cache: str) -> float:
        """How many look-ups ended so."""
        labels = {"role": "router", "node": "r1", "result": result, "cache": cache}
        return self.registry.get_sample_value("rvp_directory_reads_total", labels) or 0.0


class FindTests(CacheCase):
    """Asking is done once, in a thread, and never for ever."""

    def test_once(self) -> None:
        """A second question for the same key joins the first, and a later one is answered from memory."""
        first, second = self.cache.find(PETRA.key), self.cache.find(PETRA.key)
        self.assertNoResult(first)
        self.threads.run()
        self.assertEqual(self.successResultOf(first), PETRA)
        self.assertEqual(self.successResultOf(second), PETRA)
        self.assertEqual(self.successResultOf(self.cache.find(PETRA.key)), PETRA)
        self.assertEqual(self.source.asked, [PETRA.key])
        self.assertEqual((self.reads("found", "miss"), self.reads("found", "hit")), (2, 1))

    def test_nobody_for_a_while(self) -> None:
        """That there is nobody is believed for ten seconds."""
        self.assertIs(self.find(NOBODY), None)
        self.assertIs(self.cache.peek(NOBODY), False)
        self.clock.advance(10)
        self.assertIs(self.cache.peek(NOBODY), None)
        self.find(NOBODY)
        self.assertEqual(self.source.asked, [NOBODY, NOBODY])

    def test_hung_up(self) -> None:
        """A caller who hangs up does not disturb the others, even while they are being answered."""
        gone, stays = self.cache.find(PETRA.key), self.cache.find(PETRA.key)
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        also_gone = self.cache.find(PETRA.key)
        stays.addCallback(lambda _: also_gone.cancel())
        self.threads.run()
        self.assertTrue(stays.called)
        self.failureResultOf(also_gone, CancelledError)

    def test_too_slow(self) -> None:
        """Nobody waits longer than five seconds; the late answer is remembered all the same."""
        found = self.cache.find(PETRA.key)
        self.clock.advance(5)
        self.failureResultOf(found, DirectoryUnavailable)
        self.threads.run()
        self.assertEqual(self.cache.peek(PETRA.key), PETRA)

    def test_change_overtakes_answer(self) -> None:
        """An answer from before a change is passed on but not remembered, and nobody joins it any more."""
        old = self.cache.find(PETRA.key)
        self.cache.forget(PETRA.key)
        new = self.cache.find(PETRA.key)
        self.threads.run()
        self.assertEqual(self.successResultOf(old), PETRA)
        self.assertEqual(self.successResultOf(new), PETRA)
        self.assertEqual(self.source.asked, [PETRA.key, PETRA.key])

        late = self.cache.find(TOMASZ.key)
        self.cache.forget(TOMASZ.key)
        self.threads.run()
        self.assertEqual(self.successResultOf(late), TOMASZ)
        self.assertIs(self.cache.peek(TOMASZ.key), None)

    def test_bug_is_logged(self) -> None:
        """A failure that is no outage is logged once and reads as "cannot be asked"."""
        self.source.problem = ZeroDivisionError("a bug")
        found = self.cache.find(PETRA.key)
        self.threads.run()
        self.failureResultOf(found, DirectoryUnavailable)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_stopped(self) -> None:
        """Whoever waits when the service stops is told; the source is closed."""
        waiting = self.cache.find(PETRA.key)
        self.cache.forget(PETRA.key)
        self.cache.stopService()
        self.failureResultOf(waiting, DirectoryUnavailable)
        self.failureResultOf(self.cache.find(PETRA.key), DirectoryUnavailable)
        self.assertTrue(self.source.closed)
        self.assertFalse(self.threads.running)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class SmallCacheTests(CacheCase):
    """The cache is bounded in what it remembers and in what it asks at once."""

    size = 2
    questions = 2

    def test_least_recently_used_goes(self) -> None:
        """Of three the one that was not used for longest is gone."""
        self.find(PETRA.key)
        self.find(TOMASZ.key)
        self.cache.peek(PETRA.key)
        self.find(NOBODY)
        self.assertIs(self.cache.peek(TOMASZ.key), None)
        self.assertEqual(self.cache.peek(PETRA.key), PETRA)

    def test_nobodies_make_room(self) -> None:
        """Names that nobody has drive out nobody once they have to be asked for again anyway."""
        self.find(PETRA.key)
        for count in range(5):
            self.find(f"im.fabrik.example/instmsg/aliases/u{count}")
            self.clock.advance(10)
            self.threads.run()
        self.assertEqual(self.cache.peek(PETRA.key), PETRA)

    def test_too_many_questions(self) -> None:
        """Over the limit the newcomer is told at once, unless something is remembered."""
        self.find(PETRA.key)
        self.cache.forget(PETRA.key)
        asked = [self.cache.find(f"im.fabrik.example/instmsg/aliases/u{count}") for count in range(2)]
        self.failureResultOf(self.cache.find(TOMASZ.key), DirectoryUnavailable)
        self.assertEqual(self.successResultOf(self.cache.find(PETRA.key)), PETRA)
        self.threads.run()
        self.assertEqual([self.successResultOf(one) for one in asked], [None, None])


class ChangesTests(CacheCase):
    """The feed of changes is read every second and believed."""

    def test_changed_account(self) -> None:
        """A changed account is told, and asked for again when it is next needed."""
        self.find(PETRA.key)
        self.source.accounts[PETRA.key] = moved = replace(PETRA, home="hs2")
        self.poll(Changes(11, (PETRA.key,)))
        self.assertEqual(self.told, [PETRA.key])
        self.assertIs(self.cache.peek(PETRA.key), None)
        self.assertEqual(self.find(PETRA.key), moved)
        self.poll()
        self.assertEqual(self.source.looked, [10, 11])

    def test_changed_farm(self) -> None:
        """A changed farm replaces the old one before it is told."""
        self.source.settings = make_farm(referral="never")
        seen: list[str] = []
        self.cache.watch(lambda key: seen.append(self.cache.farm().policy("referral")))
        self.poll(Changes(11, farm=True))
        self.assertEqual((self.told, seen), ([None], ["never"]))

    def test_changed_account_is_learned(self) -> None:
        """A remembered account that changed is asked for at once: it may be needed when nobody can be asked."""
        self.find(PETRA.key)
        self.source.accounts[PETRA.key] = disabled = replace(PETRA, enabled=False)
        self.poll(Changes(11, (PETRA.key, TOMASZ.key)))
        self.source.asked.clear()
        self.threads.run()
        self.assertEqual(self.source.asked, [PETRA.key])
        self.source.problem = DirectoryUnavailable("the disk is on fire")
        self.poll()
        self.assertEqual(self.successResultOf(self.cache.find(PETRA.key)), disabled)

    def test_more_at_once(self) -> None:
        """A long feed is read to its end without waiting a second for each piece."""
        self.poll(Changes(11, (PETRA.key,), more=True), Changes(12, (TOMASZ.key,)))
        self.clock.advance(0)
        self.threads.run()
        self.assertEqual(self.told, [PETRA.key, TOMASZ.key])

    def test_gap(self) -> None:
        """After a gap everything remembered counts as changed."""
        self.find(PETRA.key)
        self.find(NOBODY)
        waiting = self.cache.find(TOMASZ.key)
        self.source.feed.append(Changes(99, farm=True, gap=True))
        self.clock.advance(1.0)
        self.threads.run()
        self.assertEqual(self.successResultOf(waiting), TOMASZ)
        self.assertIs(self.cache.peek(PETRA.key), None)
        self.assertIs(self.cache.peek(NOBODY), None)
        self.assertEqual(set(self.told), {None, PETRA.key, NOBODY, TOMASZ.key})

    def test_gap_with_many(self) -> None:
        """After a gap the loop is not held up for long: of many accounts it is told in many turns."""
        many = [make_account(f"im.fabrik.example/instmsg/aliases/u{count}", "hs1") for count in range(1000)]
        self.source.accounts = {account.key: account for account in many}
        for account in many:
            self.cache.find(account.key)
        self.threads.run()
        self.poll(Changes(99, farm=True, gap=True))
        self.assertLess(len(self.told), 300)
        self.clock.pump([0] * 20)
        self.assertEqual(sorted(filter(None, self.told)), sorted(self.source.accounts))

    def test_gap_and_many_questions(self) -> None:
        """Who is told may ask: then the others are told when some answers have come."""
        for key in (PETRA.key, TOMASZ.key):
            self.find(key)
        self.source.feed.append(Changes(99, farm=True, gap=True))
        self.clock.advance(1)
        asked = [self.cache.find(f"im.fabrik.example/instmsg/aliases/u{count}") for count in range(1500)]
        self.threads.run()
        self.assertEqual([self.successResultOf(one) for one in asked], [None] * 1500)
        self.assertNotIn(PETRA.key, self.told)
        self.clock.advance(0.05)
        self.assertIn(PETRA.key, self.told)

    def test_failing_watcher(self) -> None:
        """A watcher that fails is logged, and the others are told."""
        self.cache.watch(lambda key: 1 // 0)
        self.cache.watch(self.told.append)
        self.poll(Changes(11, (PETRA.key,)))
        self.assertEqual(self.told, [PETRA.key, PETRA.key])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class OutageTests(CacheCase):
    """When the directory is down, the last good record serves on, however old."""

    def setUp(self) -> None:
        """Petra is remembered, then the directory goes down."""
        super().setUp()
        self.find(PETRA.key)
        self.source.problem = DirectoryUnavailable("the disk is on fire")

    def test_serves_on(self) -> None:
        """What was not called wrong needs no question at all."""
        self.poll()
        self.clock.advance(86_400)
        self.assertEqual(self.cache.peek(PETRA.key), PETRA)

    def test_serves_what_was_forgotten(self) -> None:
        """Even a record that was called wrong is better than none."""
        self.cache.forget(PETRA.key)
        self.assertEqual(self.find(PETRA.key), PETRA)
        self.assertEqual(self.reads("found", "stale"), 1)

    def test_unknown(self) -> None:
        """What was never known fails with the reason, and is not taken for nobody."""
        found = self.cache.find(TOMASZ.key)
        self.threads.run()
        self.assertIn("on fire", str(self.failureResultOf(found, DirectoryUnavailable).value))
        self.assertIs(self.cache.peek(TOMASZ.key), None)
        self.assertEqual(self.reads("failed", "miss"), 1)

    def test_nobody_before(self) -> None:
        """That there was nobody is not believed any more once the directory fails: he may have been made since."""
        self.source.problem = None
        self.find(NOBODY)
        self.assertIs(self.cache.peek(NOBODY), False)
        self.source.problem = DirectoryUnavailable("the disk is on fire")
        self.poll()
        self.assertIs(self.cache.peek(NOBODY), None)
        self.failureResultOf(self.cache.find(NOBODY), DirectoryUnavailable)
        self.source.problem = None
        self.poll()
        self.assertIs(self.cache.peek(NOBODY), False)

    def test_nobody_while_nothing_is_heard(self) -> None:
        """Nor is it believed for more than three seconds of a directory that says nothing at all."""
        self.source.problem = None
        self.find(NOBODY)
        self.clock.advance(3)
        self.assertIs(self.cache.peek(NOBODY), False)
        self.clock.advance(0.1)
        self.assertIs(self.cache.peek(NOBODY), None)

    def test_nobody_is_asked_in_vain(self) -> None:
        """While the directory is known to be down, it is asked for its changes only, and nobody waits for it."""
        self.cache.forget(PETRA.key)
        self.poll()
        self.source.asked.clear()
        self.assertEqual(self.successResultOf(self.cache.find(PETRA.key)), PETRA)
        self.failureResultOf(self.cache.find(TOMASZ.key), DirectoryUnavailable)
        self.threads.run()
        self.assertEqual(self.source.asked, [])
        self.source.problem = None
        self.poll()
        self.assertEqual(self.find(TOMASZ.key), TOMASZ)

    def test_silent(self) -> None:
        """A directory that does not answer its changes within five seconds is down until it does."""
        labels = {"role": "router", "node": "r1"}
        for _ in range(5):
            self.clock.advance(1)
        self.assertEqual(self.registry.get_sample_value("rvp_directory_up", labels), 1)
        waits = self.cache.find(TOMASZ.key)
        self.clock.advance(1)
        self.assertEqual(self.registry.get_sample_value("rvp_directory_up", labels), 0)
        found = self.failureResultOf(self.cache.find(TOMASZ.key), DirectoryUnavailable)
        self.assertIn("does not answer in time", str(found.value))
        self.assertNoResult(waits)
        self.source.problem = None
        self.threads.run()
        self.assertEqual(self.registry.get_sample_value("rvp_directory_up", labels), 1)
        self.assertEqual(self.successResultOf(waits), TOMASZ)

    def test_told_once(self) -> None:
        """An outage is one line in the log, and its end another."""
        with capturedLogs() as events:
            for _ in range(3):
                self.poll()
            self.source.problem = None
            self.poll()
            self.poll()
        lines = [formatEvent(event) for event in events]
        self.assertEqual(
            lines,
            [
                "the directory cannot be asked: the disk is on fire; "
                "what was known 1 second ago is served until it is 7 days old",
                "the directory answers again, after 4 seconds",
            ],
        )

    def test_other_farm_afterwards(self) -> None:
        """A farm that is another one after the outage is seen, though nobody says that it changed."""
        self.poll()
        self.source.problem = None
        self.source.settings = make_farm(referral="never")
        self.poll()
        self.assertEqual(self.cache.farm().policy("referral"), "never")
        self.assertEqual(self.told, [None])

    def test_staleness(self) -> None:
        """How old the knowledge is can be read, and starts again when the directory answers."""
        for _ in range(5):
            self.poll()
        self.assertEqual(self.cache.staleness_seconds, 5)
        labels = {"role": "router", "node": "r1"}
        self.assertEqual(self.registry.get_sample_value("rvp_directory_staleness_seconds", labels), 5)
        self.source.problem = None
        self.poll()
        self.assertEqual(self.cache.staleness_seconds, 0)
        self.assertEqual(self.registry.get_sample_value("rvp_directory_cache_size", labels), 1)

    def test_polls_on_after_a_bug(self) -> None:
        """A failure that is no outage is logged, and the next look happens all the same."""
        self.source.problem = ZeroDivisionError("a bug")
        self.poll()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.source.problem = None
        self.poll(Changes(11, (PETRA.key,)))
        self.assertEqual(self.told, [PETRA.key])


class LimitTests(CacheCase):
    """What is known is served for as long as the policy says, and not longer."""

    def setUp(self) -> None:
        """Petra is remembered, for a minute from the outage on."""
        super().setUp()
        self.source.settings = make_farm(directory_staleness="60")
        self.poll(Changes(11, farm=True))
        self.find(PETRA.key)
        self.source.problem = DirectoryUnavailable("the disk is on fire")
        self.poll()

    def test_too_old(self) -> None:
        """After that it is as if nothing were known, and readiness says why; one line is logged."""
        self.clock.advance(58)
        self.assertEqual(self.cache.peek(PETRA.key), PETRA)
        self.assertEqual(self.cache.missing(), ())
        with capturedLogs() as events:
            for _ in range(3):
                self.poll()
        self.assertEqual([event["log_level"].name for event in events], ["error"])
        self.assertIs(self.cache.peek(PETRA.key), None)
        self.failureResultOf(self.cache.find(PETRA.key), DirectoryUnavailable)
        self.assertEqual(self.cache.missing(), ("the directory has not answered for 62 seconds",))
        labels = {"role": "router", "node": "r1"}
        limit = self.registry.get_sample_value("rvp_directory_staleness_limit_seconds", labels)
        self.assertEqual(limit, 60)

    def test_back(self) -> None:
        """When the directory is back, it is asked again for everything, and all is well."""
        self.clock.advance(100)
        self.threads.run()
        self.source.problem = None
        self.source.asked.clear()
        self.poll()
        self.assertEqual(self.cache.missing(), ())
        self.assertEqual(self.find(PETRA.key), PETRA)
        self.assertEqual(self.source.asked, [PETRA.key])


class RecallTests(SynchronousTestCase):
    """A cache that begins with what an earlier one knew."""

    def setUp(self) -> None:
        """An earlier cache knew petra, and tomasz as he was before he changed."""
        self.source = ScriptedSource(PETRA, TOMASZ)
        self.clock, self.threads = ThreadClock(), ManualThreads()
        self.clock.advance(1000)
        self.told: list[str | None] = []
        head = Head(make_farm(referral="always"), 7, "mark", 0.0, True)
        self.snapshot = Snapshot(head, [Kept(PETRA, True), Kept(TOMASZ, False)])

    def start(self) -> CachedDirectory:
        """A cache that was told, and runs."""
        cache = CachedDirectory(self.source, self.clock, threads=self.threads)
        cache.recall(self.snapshot, 90.0)
        cache.load()
        cache.watch(self.told.append)
        cache.startService()
        self.addCleanup(cache.stopService)
        return cache

    def test_catches_up(self) -> None:
        """It reads what changed since, to the end, before it begins; the rest need not be asked for."""
        self.source.feed = [Changes(8, more=True), Changes(9, (PETRA.key,), mark="new")]
        cache = self.start()
        self.assertEqual((self.source.looked, self.source.marks), ([7, 8], ["mark", ""]))
        self.assertIs(cache.peek(PETRA.key), None)
        self.assertEqual(cache.farm(), self.source.settings)
        self.assertEqual(cache.staleness_seconds, 0)
        self.clock.advance(1)
        self.threads.run()
        self.assertEqual((self.source.looked[-1], self.source.marks[-1]), (9, "new"))

    def test_fresh(self) -> None:
        """What nobody called wrong is believed, and what was wrong then is asked for."""
        cache = self.start()
        self.assertEqual(cache.peek(PETRA.key), PETRA)
        self.assertIs(cache.peek(TOMASZ.key), None)

    def test_gap(self) -> None:
        """When it is not known what changed, everything is asked for."""
        self.source.feed = [Changes(9, farm=True, gap=True)]
        self.assertIs(self.start().peek(PETRA.key), None)

    def test_stands_in(self) -> None:
        """Without a directory everybody is served who was known, and nobody else is said not to exist."""
        self.source.problem = DirectoryUnavailable("the disk is on fire")
        cache = self.start()
        self.assertEqual(cache.farm().policy("referral"), "always")
        self.assertEqual(cache.peek(PETRA.key), PETRA)
        self.assertEqual(self.successResultOf(cache.find(TOMASZ.key)), TOMASZ)
        self.failureResultOf(cache.find(NOBODY), DirectoryUnavailable)
        self.assertEqual(cache.staleness_seconds, 90)
        self.assertEqual(self.source.asked, [])

    def test_returns(self) -> None:
        """When the directory comes, it goes on from where the other one was, and tells of it."""
        self.source.problem = DirectoryUnavailable("the disk is on fire")
        cache = self.start()
        self.source.problem, self.source.looked = None, []
        self.source.feed = [Changes(9, (PETRA.key,))]
        self.source.accounts[PETRA.key] = moved = replace(PETRA, home="hs2")
        self.clock.advance(1)
        self.threads.run()
        self.assertEqual(self.source.looked, [7])
        self.assertEqual(self.told, [None, PETRA.key])
        self.threads.run()
        self.assertEqual(cache.peek(PETRA.key), moved)
        self.assertEqual((cache.farm(), cache.staleness_seconds), (self.source.settings, 0))

    def test_too_old(self) -> None:
        """Its age before the start counts."""
        self.source.problem = DirectoryUnavailable("the disk is on fire")
        cache = self.start()
        self.clock.advance(604_800 - 90)
        self.assertEqual(cache.peek(PETRA.key), PETRA)
        self.clock.advance(1)
        self.assertIs(cache.peek(PETRA.key), None)
        self.assertIn("7 days", cache.missing()[0])


class StartTests(SynchronousTestCase):
    """A cache starts with the farm known, or not at all."""

    def test_no_directory(self) -> None:
        """A directory that cannot be used at the start is one sentence, and nothing is left behind."""
        source, clock = ScriptedSource(), ThreadClock()
        source.problem = DirectoryUnavailable("there is no directory")
        cache = CachedDirectory(source, clock, threads=ManualThreads())
        problem = self.assertRaises(SystemExit, cache.startService)
        self.assertEqual(str(problem), "rvpfarm: there is no directory")
        self.assertEqual(clock.getDelayedCalls(), [])
        self.assertFalse(cache.running)

    def test_loaded_before(self) -> None:
        """The farm can be loaded before the service starts, as a daemon needs it to know where to listen."""
        source = ScriptedSource()
        source.settings = make_farm(referral="never")
        cache = CachedDirectory(source, ThreadClock(), threads=ManualThreads())
        self.assertEqual(cache.farm(), Farm())
        cache.load()
        self.assertIs(cache.farm(), source.settings)


class RealThreadsTests(TestCase):
    """Over real threads and a database, nothing waits in the reactor."""

    timeout = 20

    def setUp(self) -> None:
        """A database with two users, cached."""
        self.store = make_farm_store(self)
        for alias in ("petra", "tomasz"):
            handlers.enable_user(self.store, f"{alias}@fabrik.example", actor="test")
        self.cache = CachedDirectory(SqlSource(self.store), reactor, poll_seconds=0.02)
        self.cache.startService()
        self.addCleanup(self.cache.stopService)

    async def test_find_many(self) -> None:
        """Many questions at once are all answered, in the reactor's thread."""
        keys = [PETRA.key, TOMASZ.key, NOBODY] * 20
        asked = [self.cache.find(key) for key in keys]
        found: list[Account | None] = await gatherResults(asked)
        self.assertEqual([one.key if one else NOBODY for one in found], keys)
        self.assertIs(threading.current_thread(), threading.main_thread())

    async def test_change_arrives(self) -> None:
        """What another process changes arrives by itself."""
        await self.cache.find(PETRA.key)
        told: Deferred[str | None] = Deferred()
        self.cache.watch(lambda key: None if told.called else told.callback(key))
        handlers.disable_user(self.store, "petra@fabrik.example", actor="test")
        self.assertEqual(await told, PETRA.key)
        account = await self.cache.find(PETRA.key)
        assert account is not None
        self.assertFalse(account.enabled)

    async def test_stop_in_the_middle(self) -> None:
        """Stopping while questions are under way leaves nothing behind."""
        waiting = self.cache.find(PETRA.key)
        self.cache.stopService()
        await self.assertFailure(waiting, DirectoryUnavailable)
        await deferLater(reactor, 0, lambda: None)
