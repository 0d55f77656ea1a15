"""The tables of a home's journal: changes as SQL statements, rows as records."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter, itemgetter
from sys import intern
from typing import Any, cast

from rvpfarm.home.records import (
    Change,
    DropAcl,
    DropNode,
    DropProperty,
    DropSubscription,
    DropView,
    PutAcl,
    PutMeta,
    PutProperty,
    PutSubscription,
    PutView,
    RenewSubscription,
    Saved,
    SavedAcl,
    SavedProperty,
    SavedSubscription,
    SavedView,
    Subscriber,
)
from rvpfarm.protocol.headers import Kind

#: The layout below.  A database of version 1 is converted when it is opened; one of any other version is
#: moved aside, as a damaged one is.
VERSION = 2

#: Marks the file as a journal: "RVPj".
APPLICATION = 0x5256506A

#: What all subscriptions of one client have in common is kept once, and not their kind but whether they are
#: logins: a subscription takes a third of the room that it would take as a whole row.
_SUBSCRIPTIONS = (
    """CREATE TABLE subscribers (
    id INTEGER PRIMARY KEY, uses INTEGER NOT NULL, principal TEXT NOT NULL, url TEXT NOT NULL,
    call_back TEXT NOT NULL, peer TEXT NOT NULL, proof TEXT NOT NULL)""",
    """CREATE TABLE subscriptions (
    id INTEGER PRIMARY KEY, node TEXT NOT NULL, is_login INTEGER NOT NULL, subscriber INTEGER NOT NULL,
    until REAL NOT NULL)""",
)

#: A subscriber goes with his last subscription.  One whose subscriptions are given to another is left to
#: L{Numbers}, since what follows in the same transaction may mean him again.
_TRIGGERS = (
    """CREATE TRIGGER subscribed AFTER INSERT ON subscriptions BEGIN
    UPDATE subscribers SET uses = uses + 1 WHERE id = new.subscriber;
    END""",
    """CREATE TRIGGER ended AFTER DELETE ON subscriptions BEGIN
    UPDATE subscribers SET uses = uses - 1 WHERE id = old.subscriber;
    DELETE FROM subscribers WHERE id = old.subscriber AND uses < 1;
    END""",
    """CREATE TRIGGER given AFTER UPDATE OF subscriber ON subscriptions WHEN old.subscriber <> new.subscriber
    BEGIN
    UPDATE subscribers SET uses = uses - 1 WHERE id = old.subscriber;
    UPDATE subscribers SET uses = uses + 1 WHERE id = new.subscriber;
    END""",
)

#: One statement per table, and the triggers.
SCHEMA = (
    *_SUBSCRIPTIONS,
    *_TRIGGERS,
    """CREATE TABLE views (
    node TEXT NOT NULL, id INTEGER NOT NULL, state TEXT NOT NULL, fallback TEXT NOT NULL,
    until REAL NOT NULL, seconds REAL NOT NULL, address TEXT NOT NULL, position INTEGER NOT NULL,
    PRIMARY KEY (node, id)) WITHOUT ROWID""",
    "CREATE TABLE acls (node TEXT PRIMARY KEY, xml BLOB NOT NULL) WITHOUT ROWID",
    """CREATE TABLE properties (
    node TEXT NOT NULL, namespace TEXT NOT NULL, local TEXT NOT NULL, value TEXT NOT NULL,
    "default" TEXT, until REAL NOT NULL,
    PRIMARY KEY (node, namespace, local)) WITHOUT ROWID""",
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
)

#: What makes version 2 of version 1, whose subscriptions were whole rows.
CONVERSION = (
    "ALTER TABLE subscriptions RENAME TO whole",
    *_SUBSCRIPTIONS,
    """INSERT INTO subscribers (uses, principal, url, call_back, peer, proof)
    SELECT count(*), principal, principal_url, call_back, peer, proof FROM whole GROUP BY 2, 3, 4, 5, 6""",
    "CREATE UNIQUE INDEX who ON subscribers (principal, url, call_back, peer, proof)",
    """INSERT INTO subscriptions SELECT whole.id, node, kind = 'pragma/notify', subscribers.id, until
    FROM whole JOIN subscribers ON whole.principal = subscribers.principal AND principal_url = url
    AND whole.call_back = subscribers.call_back AND whole.peer = subscribers.peer
    AND whole.proof = subscribers.proof ORDER BY whole.id""",
    "DROP INDEX who",
    "DROP TABLE whole",
    *_TRIGGERS,
)

#: How many rows are read at once.
PIECE = 5000
#: How many subscribers are remembered by what is said of them; see L{Numbers}.
REMEMBERED = 5000

_VIEW = ["node", "id", "state", "default", "until", "seconds", "address", "order"]
_PROPERTY = ["node", "namespace", "local", "value", "default", "until"]


def _node_only(change: Any) -> tuple[str]:
    """The parameters of a statement about a whole node; C{Any}: several kinds of change have a C{node}."""
    return (change.node,)


#: A subscriber that is there already, or no longer; and a subscription of his.
_SUBSCRIBER = "INSERT OR IGNORE INTO subscribers VALUES (?, 0, ?, ?, ?, ?, ?)"
_SUBSCRIPTION = """INSERT INTO subscriptions VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET
    node = excluded.node, is_login = excluded.is_login, subscriber = excluded.subscriber,
    until = excluded.until"""

#: For each other kind of change its statements, and what takes their parameters from it.
_STATEMENTS: dict[type[Any], tuple[tuple[str, ...], Callable[[Any], Sequence[Any]]]] = {
    RenewSubscription: (
        ("UPDATE subscriptions SET until = ? WHERE id = ?",),
        attrgetter("until", "id"),
    ),
    DropSubscription: (("DELETE FROM subscriptions WHERE id = ?",), lambda change: (change.id,)),
    PutView: (
        ("REPLACE INTO views VALUES (?, ?, ?, ?, ?, ?, ?, ?)",),
        attrgetter(*(f"row.{name}" for name in _VIEW)),
    ),
    DropView: (("DELETE FROM views WHERE node = ? AND id = ?",), attrgetter("node", "id")),
    PutAcl: (("REPLACE INTO acls VALUES (?, ?)",), attrgetter("row.node", "row.xml")),
    DropAcl: (("DELETE FROM acls WHERE node = ?",), _node_only),
    PutProperty: (
        ("REPLACE INTO properties VALUES (?, ?, ?, ?, ?, ?)",),
        attrgetter(*(f"row.{name}" for name in _PROPERTY)),
    ),
    DropProperty: (
        ("DELETE FROM properties WHERE node = ? AND namespace = ? AND local = ?",),
        attrgetter("node", "namespace", "local"),
    ),
    DropNode: (
        tuple(
            f"DELETE FROM {table} WHERE node = ?"  # noqa: S608 (the names stand here)
            for table in ("views", "acls", "properties")
        ),
        _node_only,
    ),
    PutMeta: (("REPLACE INTO meta VALUES (?, ?)",), attrgetter("key", "value")),
}


#: One statement, and the parameters of each time that it is executed.
Step = tuple[str, Sequence[Sequence[Any]]]  # Any: whatever SQLite takes


class Numbers:
    """The row of each subscriber.

    Those who subscribed lately are remembered.  Whoever subscribes to more later on gets another row, which
    costs nothing but its place.
    """

    def __init__(self, database: sqlite3.Connection) -> None:
        """Look what numbers are taken, and drop who has no subscription left."""
        database.execute("DELETE FROM subscribers WHERE uses < 1")
        (self._last,) = database.execute("SELECT coalesce(max(id), 0) FROM subscribers").fetchone()
        self._numbers: dict[Subscriber, int] = {}

    def number(self, subscriber: Subscriber) -> int:
        """The row of C{subscriber}, which is still to be written if it is not there."""
        number = self._numbers.get(subscriber)
        if number is None:
            if len(self._numbers) >= REMEMBERED:
                self._numbers.clear()
            self._last += 1
            number = self._numbers[subscriber] = self._last
        return number


def steps(changes: Sequence[Change], numbers: Numbers) -> Iterator[Step]:
    """What C{changes} are in SQL; neighbouring ones of one kind together."""
    for kind, alike in groupby(changes, type):
        if kind is PutSubscription:
            puts = cast("Iterator[PutSubscription]", alike)
            yield from _put_subscriptions([put.row for put in puts], numbers)
        else:
            statements, parameters = _STATEMENTS[kind]
            rows = [parameters(change) for change in alike]
            for statement in statements:
                yield statement, rows


def _put_subscriptions(rows: Sequence[SavedSubscription], numbers: Numbers) -> Iterator[Step]:
    """The subscribers first; they are written each time, or one who left since would be missing."""
    found = [numbers.number(row.subscriber) for row in rows]
    who = {number: row.subscriber for number, row in zip(found, rows, strict=True)}
    yield (
        _SUBSCRIBER,
        [(number, by.principal, by.url, by.call_back, by.peer, by.proof) for number, by in who.items()],
    )
    yield (
        _SUBSCRIPTION,
        [
            (row.id, row.node, row.kind is Kind.LOGIN, number, row.until)
            for number, row in zip(found, rows, strict=True)
        ],
    )


def pieces(database: sqlite3.Connection) -> Iterator[Saved]:
    """Every row of every table, a piece at a time.

    Strings that repeat are kept once, other than the nodes of subscriptions.

    @raise ValueError: the rows make no sense; so does C{TypeError}.
    """
    meta = {key: value for key, value in database.execute("SELECT * FROM meta") if not key.startswith("#")}
    yield Saved(meta=meta)
    yield from _subscriptions(database)
    for rows in _read(database, "SELECT * FROM views ORDER BY node, id"):
        yield Saved(
            views=tuple(
                SavedView(
                    intern(node),
                    number,
                    intern(state),
                    intern(default),
                    until,
                    length,
                    intern(address),
                    order,
                )
                for node, number, state, default, until, length, address, order in rows
            )
        )
    for rows in _read(database, "SELECT * FROM acls"):
        yield Saved(acls=tuple(SavedAcl(intern(node), xml) for node, xml in rows))
    for rows in _read(database, "SELECT * FROM properties"):
        yield Saved(
            properties=tuple(
                SavedProperty(intern(node), intern(namespace), intern(local), value, default, until)
                for node, namespace, local, value, default, until in rows
            )
        )


def _subscriptions(database: sqlite3.Connection) -> Iterator[Saved]:
    """The subscriptions, each with its subscriber."""
    subscribers: dict[int, Subscriber] = {}
    for rows in _read(database, "SELECT id, principal, url, call_back, peer, proof FROM subscribers"):
        subscribers.update((number, Subscriber(*map(intern, texts))) for number, *texts in rows)
    kinds = (Kind.PROPERTY, Kind.LOGIN)
    for rows in _read(database, "SELECT * FROM subscriptions ORDER BY id"):
        if set(map(type, map(_NODE, rows))) != {str}:  # L{intern} would say so too, but here it costs seconds
            raise ValueError("a subscription is to no node")
        try:
            kept = [
                SavedSubscription(number, node, kinds[is_login], subscribers[subscriber], until)
                for number, node, is_login, subscriber, until in rows
            ]
        except LookupError as problem:
            raise ValueError(f"a subscription is of no kind or nobody's: {problem}") from problem
        yield Saved(subscriptions=tuple(kept))


_NODE = itemgetter(1)


def _read(database: sqlite3.Connection, statement: str) -> Iterator[list[tuple[Any, ...]]]:
    """The rows of C{statement}, some at a time (C{Any}: whatever is in them)."""
    cursor = database.execute(statement)
    while rows := cursor.fetchmany(PIECE):
        yield rows
