"""A home of many: what is held in millions, what lapses together, what is taken up after a restart."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.home.keeper import SLICE
from rvpfarm.home.records import (
    DropNode,
    DropSubscription,
    PutSubscription,
    RenewSubscription,
    Saved,
    SavedSubscription,
    SavedView,
    Subscriber,
)
from rvpfarm.home.subscribing import REMEMBERED, Books, SubscriptionIds, callee_of
from rvpfarm.protocol.address import Names
from rvpfarm.protocol.headers import Kind
from tests.support.homes import DOMAIN, PETRA, TOMASZ, LocalHome

PETRA_KEY, TOMASZ_KEY = (f"{DOMAIN}/instmsg/aliases/{name}" for name in ("petra", "tomasz"))
NOW = 1_000_000.0


class ManyCase(SynchronousTestCase):
    """A home and what it had written down."""

    def start(self, saved: Saved | None = None) -> LocalHome:
        """A home that takes up C{saved}."""
        at = LocalHome(saved=saved, now=NOW)
        self.addCleanup(at.stop)
        return at


class MassLapseTests(ManyCase):
    """What ends together is let go in slices, so that other calls are answered in between."""

    def test_slices(self) -> None:
        """Each turn of the loop drops one slice, and all are gone within the second."""
        who = Subscriber("", "", "http://192.0.2.9:4000/", "192.0.2.9", "none")
        count = 3 * SLICE + 10
        rows = tuple(
            SavedSubscription(number, PETRA_KEY, Kind.PROPERTY, who, NOW + 0.5)
            for number in range(1, count + 1)
        )
        at = self.start(Saved(subscriptions=rows))
        watchers = at.home.keeper.books.watchers
        left: list[int] = []

        def look() -> None:  # as another call in the same loop would
            left.append(len(watchers))
            if left[-1]:
                at.clock.callLater(0, look)

        at.clock.callLater(1, look)
        at.clock.advance(1)
        self.assertEqual(left, [count - SLICE, count - 2 * SLICE, count - 3 * SLICE, 0])
        dropped = [change for change in at.journal.written if isinstance(change, DropSubscription)]
        self.assertEqual(len(dropped), count)
        self.assertIsNone(at.home.keeper.get(PETRA_KEY))

    def test_stops_in_the_middle(self) -> None:
        """A home that stops leaves no call behind."""
        who = Subscriber("", "", "http://192.0.2.9:4000/", "192.0.2.9", "none")
        rows = tuple(
            SavedSubscription(number, PETRA_KEY, Kind.PROPERTY, who, NOW + 0.5)
            for number in range(1, 5 * SLICE)
        )
        at = self.start(Saved(subscriptions=rows))
        at.clock.advance(1)
        at.home.stopService()
        self.assertEqual(at.clock.getDelayedCalls(), [])
        at.home.startService()


class SharedTests(ManyCase):
    """What the subscriptions of one client have in common is kept once."""

    def test_at_run_time(self) -> None:
        """A contact list shares its subscriber; other clients have theirs."""
        at = self.start()
        at.watch("/p", TOMASZ)
        at.watch("/t", TOMASZ)
        at.watch("/t", TOMASZ, peer="192.0.2.99")
        at.watch("/t", PETRA)
        keeper = at.home.keeper
        nodes = [keeper.get(PETRA_KEY), keeper.get(TOMASZ_KEY)]
        held = [each.subscriber for node in nodes if node is not None for each in node.watchers.values()]
        self.assertEqual(len(held), 4)
        self.assertIs(held[0], held[1])
        self.assertEqual(len({id(subscriber) for subscriber in held}), 3)

    def test_after_a_restart(self) -> None:
        """Equal rows are one subscriber again, and know whom to notify."""
        rows = tuple(
            SavedSubscription(
                number,
                PETRA_KEY,
                Kind.PROPERTY,
                Subscriber(TOMASZ_KEY, TOMASZ, TOMASZ, "x", "none"),
                NOW + 99,
            )
            for number in (1, 2)
        )
        node = self.start(Saved(subscriptions=rows)).home.keeper.get(PETRA_KEY)
        assert node is not None
        first, second = node.watchers.values()
        self.assertIs(first.subscriber, second.subscriber)
        self.assertEqual(first.callee, TOMASZ_KEY)

    def test_bounded(self) -> None:
        """Not more are remembered than there is room for."""
        books = Books(SubscriptionIds(None), lambda rule: None)
        for number in range(REMEMBERED + 10):
            books.shared(Subscriber(str(number), "", "", "", ""))
        self.assertLessEqual(len(books._subscribers), REMEMBERED)

    def test_callee(self) -> None:
        """Whom a call-back names follows from the farm's names as they are now."""
        names = Names({DOMAIN: DOMAIN, "fabrik.example": DOMAIN}, {"192.0.2.10": DOMAIN})

        def callee(call_back: str, url: str = PETRA) -> str:
            return callee_of(Subscriber(PETRA_KEY, url, call_back, "", ""), names)

        self.assertEqual(callee(PETRA), PETRA_KEY)
        self.assertEqual(callee(TOMASZ), TOMASZ_KEY)
        self.assertEqual(callee("http://192.0.2.77:3155/"), "")
        self.assertEqual(callee("http://192.0.2.77/instmsg/aliases/petra"), "")
        self.assertEqual(callee("http://192.0.2.10/instmsg/aliases/petra"), PETRA_KEY)
        self.assertEqual(callee("http://[2001:db8::7]:3155/"), "")
        self.assertEqual(callee("http://pc7.fabrik.example:3155/listen"), "")


class WrittenTests(ManyCase):
    """What is written down costs no more than it has to."""

    def test_renewal(self) -> None:
        """A renewal writes its new end and nothing else."""
        at = self.start()
        number = at.watch("/p", TOMASZ).header(b"Subscription-Id").decode()
        at.journal.written.clear()
        at.clock.advance(100)
        at.ask("SUBSCRIBE", "/p", who=TOMASZ, Subscription_Id=number, Subscription_Lifetime="14400")
        self.assertEqual(at.journal.written, [RenewSubscription(int(number), NOW + 100 + 14400)])

    def test_node_that_leaves(self) -> None:
        """The subscriptions of a node that leaves are dropped by their numbers."""
        at = self.start()
        at.login("/p", PETRA)
        at.watch("/p", TOMASZ)
        put = [change.row.id for change in at.journal.written if isinstance(change, PutSubscription)]
        at.journal.written.clear()
        node = at.home.keeper.get(PETRA_KEY)
        assert node is not None
        changes, _news = at.home.keeper.retire(node)
        self.assertEqual(changes, [*map(DropSubscription, put), DropNode(PETRA_KEY)])


class DamageTests(ManyCase):
    """State that turned out to be damaged half way is as if it had never been."""

    def test_forget(self) -> None:
        """Nothing is kept of it: no node, no lease, no number."""
        who = Subscriber(PETRA_KEY, PETRA, "http://192.0.2.77:3155/", "192.0.2.77", "none")
        at = self.start(
            Saved(
                subscriptions=(SavedSubscription(7, PETRA_KEY, Kind.LOGIN, who, NOW + 9),),
                views=(SavedView(PETRA_KEY, 1, "online", "offline", NOW + 9, 1200.0, "192.0.2.77", 1),),
                meta={"subscription-ids": "5001"},
            )
        )
        keeper = at.home.keeper
        self.assertEqual((len(keeper), len(keeper.books.logins), len(keeper.keeping.views)), (1, 1, 1))
        keeper.forget()
        self.assertEqual((len(keeper), len(keeper.books.logins), len(keeper.keeping.views)), (0, 0, 0))
        self.assertEqual((keeper.books.online, keeper.books.ids.issue()[0]), (0, 1))
        at.clock.advance(60)
        self.assertEqual(at.journal.written, [])
