"""The tables of a home's journal: changes as SQL statements, rows as records."""

from __future__ import annotations

import gc
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from sys import intern
from typing import Any

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
    Saved,
    SavedAcl,
    SavedProperty,
    SavedSubscription,
    SavedView,
)

#: The layout below.  A database of another one is moved aside, as a damaged one is.
VERSION = 1

#: Marks the file as a journal: "RVPj".
APPLICATION = 0x5256506A

#: One statement per table.
SCHEMA = (
    """CREATE TABLE subscriptions (
    id INTEGER PRIMARY KEY, node TEXT NOT NULL, kind TEXT NOT NULL, principal TEXT NOT NULL,
    principal_url TEXT NOT NULL, call_back TEXT NOT NULL, until REAL NOT NULL, peer TEXT NOT NULL,
    proof TEXT NOT NULL)""",
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

_SUBSCRIPTION = ["id", "node", "kind", "principal", "principal_url", "call_back", "until", "peer", "proof"]
_VIEW = ["node", "id", "state", "default", "until", "seconds", "address", "order"]
_PROPERTY = ["node", "namespace", "local", "value", "default", "until"]


def _node_only(change: Any) -> tuple[str]:
    """The parameters of a statement about a whole node; C{Any}: several kinds of change have a C{node}."""
    return (change.node,)


#: For each kind of change its statements, and what takes their parameters from it.
_STATEMENTS: dict[type[Any], tuple[tuple[str, ...], Callable[[Any], Sequence[Any]]]] = {
    PutSubscription: (
        ("REPLACE INTO subscriptions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",),
        attrgetter(*(f"row.{name}" for name in _SUBSCRIPTION)),
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
            for table in ("subscriptions", "views", "acls", "properties")
        ),
        _node_only,
    ),
    PutMeta: (("REPLACE INTO meta VALUES (?, ?)",), attrgetter("key", "value")),
}


def runs(steps: Sequence[Change]) -> Iterator[tuple[tuple[str, ...], list[Sequence[Any]]]]:
    """Neighbouring changes of one kind together: their statements, and the parameters of each change."""
    kind: type[Any] | None = None
    rows: list[Sequence[Any]] = []
    for step in steps:
        if type(step) is not kind:
            if kind is not None:
                yield _STATEMENTS[kind][0], rows
            kind, rows = type(step), []
        rows.append(_STATEMENTS[kind][1](step))
    if kind is not None:
        yield _STATEMENTS[kind][0], rows


def read_rows(database: sqlite3.Connection) -> Saved:
    """Every row of every table; strings that repeat are kept once."""
    collecting = gc.isenabled()
    gc.disable()  # there is no garbage among the rows, and looking for it doubles the time
    try:
        return _read_rows(database)
    finally:
        if collecting:
            gc.enable()


def _read_rows(database: sqlite3.Connection) -> Saved:
    """The rows themselves."""
    subscriptions = tuple(
        SavedSubscription(
            number,
            intern(node),
            intern(kind),
            intern(principal),
            intern(url),
            intern(call_back),
            until,
            intern(peer),
            intern(proof),
        )
        for number, node, kind, principal, url, call_back, until, peer, proof in database.execute(
            "SELECT * FROM subscriptions ORDER BY id"
        )
    )
    views = tuple(
        SavedView(
            intern(node), number, intern(state), intern(default), until, seconds, intern(address), order
        )
        for node, number, state, default, until, seconds, address, order in database.execute(
            "SELECT * FROM views ORDER BY node, id"
        )
    )
    acls = tuple(SavedAcl(intern(node), xml) for node, xml in database.execute("SELECT * FROM acls"))
    properties = tuple(
        SavedProperty(intern(node), intern(namespace), intern(local), value, default, until)
        for node, namespace, local, value, default, until in database.execute("SELECT * FROM properties")
    )
    meta = {key: value for key, value in database.execute("SELECT * FROM meta") if not key.startswith("#")}
    return Saved(subscriptions, views, acls, properties, meta)
