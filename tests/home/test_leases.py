"""Leases: what is held until when."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.home.leases import LAPSED, LeaseBook


@dataclass(eq=False)
class Item:
    """Something that can be held."""

    name: str
    until: float = LAPSED


class LeaseBookTests(SynchronousTestCase):
    """A lease lapses once, when it is due and not before."""

    def test_lapses_once(self) -> None:
        """What nobody renews is swept at its time, and never again."""
        book, ann = LeaseBook[Item](), Item("ann")
        book.grant(ann, 12)
        self.assertEqual(book.sweep(11.9), [])
        self.assertEqual(book.sweep(12), [ann])
        self.assertEqual(book.sweep(99), [])

    def test_renewed(self) -> None:
        """A renewal moves the end."""
        book, ann = LeaseBook[Item](), Item("ann")
        book.grant(ann, 12)
        book.grant(ann, 20)
        self.assertEqual(book.sweep(19), [])
        self.assertEqual(book.sweep(20), [ann])

    def test_shortened(self) -> None:
        """A second grant may also end earlier, and the item lapses once all the same."""
        book, ann = LeaseBook[Item](), Item("ann")
        book.grant(ann, 20)
        book.grant(ann, 12)
        self.assertEqual(book.sweep(12), [ann])
        self.assertEqual(book.sweep(20), [])

    def test_dropped(self) -> None:
        """What was dropped does not lapse; granted again it does."""
        book, ann = LeaseBook[Item](), Item("ann")
        book.grant(ann, 12)
        book.drop(ann)
        self.assertEqual((book.sweep(13), len(book)), ([], 0))
        book.grant(ann, 20)
        self.assertEqual(book.sweep(20), [ann])

    def test_renewals_cost_nothing(self) -> None:
        """A thousand renewals leave one place in the queue, not a thousand."""
        book, ann = LeaseBook[Item](), Item("ann")
        for end in range(1, 1001):
            book.grant(ann, float(end))
        self.assertEqual(sum(map(len, book._due.values())), 1)

    def test_slices(self) -> None:
        """A mass lapse comes in slices."""
        book = LeaseBook[Item]()
        for number in range(10):
            book.grant(Item(str(number)), 5)
        self.assertEqual([len(book.sweep(6, most=4)) for _ in range(4)], [4, 4, 2, 0])

    def test_behind(self) -> None:
        """A book says whether a slice was enough."""
        book = LeaseBook[Item]()
        for number in range(10):
            book.grant(Item(str(number)), 5)
        said = []
        for _ in range(3):
            book.sweep(6, most=4)
            said.append(book.behind(6))
        self.assertEqual(said, [True, True, False])

    def test_not_behind_with_what_ends_soon(self) -> None:
        """What ends within this very second is no reason to look again at once."""
        book = LeaseBook[Item]()
        book.grant(Item("ann"), 5.9)
        self.assertEqual((book.sweep(5.5), book.behind(5.5), book.behind(6)), ([], False, True))

    def test_renewed_ones_come_in_slices(self) -> None:
        """Many that were granted together and renewed are put right slice by slice as well."""
        book = LeaseBook[Item]()
        items = [Item(str(number)) for number in range(10)]
        for item in items:
            book.grant(item, 5)
            book.grant(item, 9)
        self.assertEqual((book.sweep(6, most=4), book.behind(6)), ([], True))
        self.assertEqual((book.sweep(6, most=6), book.behind(6)), ([], False))
        self.assertEqual(book.sweep(9), items)

    def test_dropped_and_granted_again(self) -> None:
        """What is ended and taken back again and again does not fill the book for ever."""
        book, ann = LeaseBook[Item](), Item("ann")
        for round in range(100):
            book.grant(ann, 10.0 + round)
            book.drop(ann)
            book.grant(ann, 500.0)
        for now in range(499):
            book.sweep(float(now))
        book.grant(ann, 1000.0)
        book.sweep(501)
        self.assertEqual(sum(map(len, book._due.values())), 1)

    @settings(max_examples=100)
    @given(
        st.lists(
            st.tuples(
                st.integers(0, 3),
                st.sampled_from(["grant", "drop", "sweep"]),
                st.integers(1, 120).map(lambda quarters: quarters / 4),
            )
        )
    )
    def test_agrees_with_a_plain_list(self, steps: list[tuple[int, str, float]]) -> None:
        """Whatever is granted, dropped and swept, exactly the due ones lapse, and the count is right."""
        book, items = LeaseBook[Item](), [Item(str(number)) for number in range(4)]
        model: dict[str, float] = {}
        now = 0.0
        for index, step, seconds in steps:
            item = items[index]
            if step == "grant":
                book.grant(item, now + seconds)
                model[item.name] = now + seconds
            elif step == "drop":
                book.drop(item)
                model.pop(item.name, None)
            else:
                now += seconds
                due = {name for name, until in model.items() if until <= now}
                self.assertEqual({lapsed.name for lapsed in book.sweep(now)}, due)
                model = {name: until for name, until in model.items() if until > now}
            self.assertEqual(len(book), len(model))
