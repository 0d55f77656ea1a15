"""Who is signed in at this home, for administrators: to look at, and to end (core)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from heapq import nsmallest
from itertools import zip_longest

from rvpfarm.home.keeper import Keeper
from rvpfarm.home.node import Node, Outcome, Subscription
from rvpfarm.home.presence import View
from rvpfarm.home.records import Change, DropSubscription, DropView
from rvpfarm.home.subscribing import Arrival
from rvpfarm.protocol.calls import BadRequest, Precondition, Reply
from rvpfarm.protocol.control import Session, Watcher

#: How many listings are kept at once, and for how long; the oldest gives way to a new one.
MOST_LISTINGS, LISTING_SECONDS = 8, 120.0

#: How it is with a call-back, in a word, and how much waits for it.
Condition = Callable[[str], tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Place:
    """One signed-in place: its login, its view, or both."""

    login: Subscription | None
    view: View | None


def places_of(node: Node) -> Iterator[Place]:
    """The places where C{node} is signed in.

    A login and a view belong together when they come from the same address; of several there, the first
    login with the first view, and so on, for no client says more.
    """
    logins: dict[str, list[Subscription]] = {}
    views: dict[str, list[View]] = {}
    for login in node.logins.values():
        logins.setdefault(login.subscriber.peer, []).append(login)
    for view in node.views:
        views.setdefault(view.address, []).append(view)
    for address in dict.fromkeys((*logins, *views)):
        for pair in zip_longest(logins.get(address, ()), views.get(address, ())):
            yield Place(*pair)


class Listings:
    """Everybody who is signed in, page by page.

    Who is in at the beginning is noted once, since to look for the next page among all would take long each
    time.  So whoever is in from beginning to end is listed exactly once; who comes meanwhile is not.
    """

    def __init__(self) -> None:
        self._kept: dict[int, tuple[float, list[str]]] = {}
        self._last = 0

    def page(self, keeper: Keeper, after: str, limit: int, now: float) -> tuple[list[Node], str]:
        """The next nodes at which somebody is signed in.

        @param after: what the page before said comes next; empty for the first page.
        @return: the nodes, and what comes next; empty if nothing does.
        @raise Precondition: the listing was begun too long ago, or before the last start.
        """
        number, position = self._place(after) if after else (self._begin(keeper, now), 0)
        if number not in self._kept:
            raise Precondition("the listing took too long, or the home was restarted meanwhile; ask again")
        keys = self._kept[number][1]
        found = (keeper.get(key) for key in keys[position : position + limit])
        nodes = [node for node in found if node is not None and _is_in(node)]
        position += limit
        if position < len(keys):
            return nodes, f"{number}/{position}"
        del self._kept[number]
        return nodes, ""

    def _begin(self, keeper: Keeper, now: float) -> int:
        old = [number for number, (begun, _) in self._kept.items() if now - begun > LISTING_SECONDS]
        for number in old or list(self._kept)[: max(0, len(self._kept) - MOST_LISTINGS + 1)]:
            del self._kept[number]
        self._last += 1
        self._kept[self._last] = (now, [node.key for node in keeper if _is_in(node)])
        return self._last

    def _place(self, after: str) -> tuple[int, int]:
        number, _, position = after.partition("/")
        if not (number.isascii() and number.isdigit() and position.isascii() and position.isdigit()):
            raise BadRequest("there is no such page")
        return int(number[:18]), int(position[:18])


def _is_in(node: Node) -> bool:
    """Is somebody signed in here?"""
    return bool(node.logins or len(node.views))


def sessions_of(
    node: Node, arrivals: dict[int, Arrival], condition: Condition, now: float
) -> Iterator[Session]:
    """The places where C{node} is signed in, for the administrator."""
    for place in places_of(node):
        login, view = place.login, place.view
        arrival = None if login is None else arrivals.get(login.id)
        line, waiting = ("", 0) if login is None else condition(login.call_back)
        yield Session(
            user=node.key,
            address="" if node.account is None else node.account.address,
            state="" if view is None else view.state,
            view=None if view is None else view.id,
            login=None if login is None else login.id,
            call_back="" if login is None else login.call_back,
            peer=login.subscriber.peer if login is not None else view.address if view is not None else "",
            agent="" if arrival is None else arrival.agent,
            since=None if arrival is None else arrival.since,
            login_seconds=None if login is None else max(0, int(login.until - now)),
            view_seconds=None if view is None else max(0, int(view.until - now)),
            line=line,
            waiting=waiting,
        )


def watchers_of(node: Node, after: int, limit: int, now: float) -> tuple[list[Watcher], int]:
    """Who watches C{node}, by id.

    @param after: the last id of the page before; 0 for the first page.
    @return: the watchers, and the last id if there may be more, else 0.
    """
    numbers = nsmallest(limit, (number for number in node.watchers if number > after))
    found = [_watcher(node.watchers[number], now) for number in numbers]
    return found, numbers[-1] if len(numbers) == limit else 0


def _watcher(held: Subscription, now: float) -> Watcher:
    return Watcher(held.id, held.url, held.call_back, max(0, int(held.until - now)), held.sees)


def chosen(node: Node, view: int | None) -> list[Place]:
    """The places to end: that of the view of this id, or all."""
    return [
        place
        for place in places_of(node)
        if view is None or (place.view is not None and place.view.id == view)
    ]


def end(node: Node, places: Iterable[Place], keeper: Keeper) -> Outcome:
    """End these places of C{node} at once: nothing more is told there, and watchers hear what is left."""
    before = node.views.effective
    changes: list[Change] = []
    ended: list[tuple[Subscription, float]] = []
    shut: list[tuple[View, float]] = []
    for place in places:
        if place.login is not None:
            ended.append((place.login, place.login.until))
            keeper.books.remove(node, place.login)
            changes.append(DropSubscription(place.login.id))
        if place.view is not None:
            shut.append((place.view, place.view.until))
            node.views.end(place.view)
            keeper.keeping.views.drop(place.view)
            changes.append(DropView(node.key, place.view.id))

    def undo() -> None:
        for login, until in ended:
            keeper.books.enter(node, login, until)
        for view, until in shut:
            node.views.restore(view)
            keeper.keeping.views.grant(view, until)

    return Outcome(Reply(200), changes, news=node.state_news(before), undo=undo)
