"""Tests of L{rvpfarm.home.garbage}."""

from __future__ import annotations

import gc

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.home.garbage import LONGEST_SECONDS, MANY, THRESHOLDS, GarbageWatch, lasting
from rvpfarm.home.node import Node, Subscription
from rvpfarm.home.presence import View
from rvpfarm.home.records import Subscriber
from rvpfarm.protocol.headers import Kind


class LastingTests(SynchronousTestCase):
    """What a home takes up when it starts is not looked at by the collector."""

    def setUp(self) -> None:
        """Leave the collector as it was."""
        self.addCleanup(gc.unfreeze)
        self.frozen = gc.get_freeze_count()

    def test_much(self) -> None:
        """A great deal is frozen, and the collector works on."""
        with lasting():
            self.assertFalse(gc.isenabled())
            kept = [[number] for number in range(MANY + 1000)]
        self.assertTrue(gc.isenabled())
        self.assertGreater(gc.get_freeze_count() - self.frozen, len(kept))

    def test_little(self) -> None:
        """A little is left to the collector."""
        with lasting():
            kept = [[number] for number in range(10)]
        self.assertEqual((gc.get_freeze_count(), len(kept)), (self.frozen, 10))

    def test_fault(self) -> None:
        """The collector works on when it all went wrong."""

        def fail() -> None:
            with lasting():
                raise ValueError("not my day")

        self.assertRaises(ValueError, fail)
        self.assertTrue(gc.isenabled())

    def test_no_circles(self) -> None:
        """What may be frozen needs no collector to go: a node, its subscriptions and its views."""
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        for number in range(100):
            node = Node("im.fabrik.example/instmsg/aliases/petra")
            who = Subscriber("a", "b", "c", "d", "e")
            node.watchers[number] = Subscription(number, node.key, Kind.PROPERTY, who)
            node.logins[number] = Subscription(number, node.key, Kind.LOGIN, who)
            node.views.restore(View(node.key, number, "online", "offline", 60.0, "192.0.2.1", 1))
        del node
        self.assertEqual(gc.collect(), 0)


class GarbageWatchTests(SynchronousTestCase):
    """A search that takes long is the last to look at what it looked at."""

    def setUp(self) -> None:
        """A watch that counts what it would freeze."""
        self.clock = Clock()
        self.frozen = 0
        self.watch = GarbageWatch(self.clock.seconds, self.freeze)

    def freeze(self) -> None:
        """Count."""
        self.frozen += 1

    def search(self, generation: int, seconds: float) -> None:
        """The collector looks for garbage for so long."""
        self.watch.searched("start", {"generation": generation})
        self.clock.advance(seconds)
        self.watch.searched("stop", {"generation": generation})

    def test_long(self) -> None:
        """What was found in use is frozen, each time."""
        self.search(2, LONGEST_SECONDS * 2)
        self.search(2, LONGEST_SECONDS * 2)
        self.assertEqual(self.frozen, 2)

    def test_short(self) -> None:
        """A short search changes nothing, nor does one of young objects."""
        self.search(2, LONGEST_SECONDS / 2)
        self.search(1, LONGEST_SECONDS * 2)
        self.assertEqual(self.frozen, 0)

    def test_is_told_by_the_collector(self) -> None:
        """While it runs, and not afterwards; and so long searches are fewer."""
        before = gc.get_threshold()
        self.watch.startService()
        self.assertIn(self.watch.searched, gc.callbacks)
        self.assertEqual(gc.get_threshold(), THRESHOLDS)
        self.watch.stopService()
        self.assertNotIn(self.watch.searched, gc.callbacks)
        self.assertEqual(gc.get_threshold(), before)
