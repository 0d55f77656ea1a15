"""PROPFIND and PROPPATCH (protocol notes 3.4, 3.5): what a node says of itself.

The state is made of views (see L{rvpfarm.home.presence}); the name and the e-mail address come from the
directory; everything else is what the owner has set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rvpfarm.home.leases import LAPSED, LeaseBook
from rvpfarm.home.node import News, Node, Outcome, Property, Visit
from rvpfarm.home.presence import OFFLINE, View
from rvpfarm.home.records import (
    Change as Record,
)
from rvpfarm.home.records import (
    DropProperty,
    DropView,
    PutProperty,
    PutView,
    SavedProperty,
    SavedView,
)
from rvpfarm.home.returning import Ends
from rvpfarm.protocol.calls import Busy, Reply
from rvpfarm.protocol.headers import check_content_type, check_depth
from rvpfarm.protocol.properties import (
    DISPLAY_NAME,
    EMAIL,
    MOBILE_DESCRIPTION,
    MOBILE_STATE,
    Change,
    FindKind,
    Propstat,
    parse_propertyupdate,
    parse_propfind,
    render_empty,
    render_leased_prop,
    render_leased_state,
    render_multistatus,
    render_prop,
    render_state,
    render_text_prop,
)
from rvpfarm.protocol.xml import STATE, QName

#: Kept as text, present on every node, and what they are when nobody has set them.
TEXT_PROPERTIES = {MOBILE_STATE: "0", MOBILE_DESCRIPTION: ""}
FROM_DIRECTORY = frozenset({DISPLAY_NAME, EMAIL})

#: Seconds of a lease that names none, and the bounds of those that do (protocol notes 3.5).
DEFAULT_LEASE, SHORTEST_LEASE, LONGEST_LEASE = 1200, 60, 14400
#: What one node may keep (protocol notes 1.2).
MOST_PROPERTIES, LARGEST_PROPERTY = 64, 8192
#: The most places that may contribute to one state.
MOST_VIEWS = 32

#: What everybody is told who may read, in the order old clients know.
_LISTED = (DISPLAY_NAME, EMAIL, MOBILE_STATE, MOBILE_DESCRIPTION)

_XML = ((b"Content-Type", b"text/xml"),)


def render(node: Node, name: QName, principal: str) -> str | None:
    """The property C{name} as C{principal} sees it, serialised; C{None} when there is none."""
    account = node.account
    assert account is not None
    if name == STATE:
        return render_state(node.state_for(principal))
    if name == DISPLAY_NAME:
        return render_text_prop("d:displayname", account.display_name)
    if name == EMAIL:
        return render_text_prop("r:email", account.email)
    kept = node.properties.get(name)
    if name in TEXT_PROPERTIES:
        return render_text_prop(f"r:{name.local}", kept.value if kept else TEXT_PROPERTIES[name])
    return render_prop(name, kept.value) if kept else None


def readable(node: Node, principal: str, *, reads: bool, lists: bool, sees: bool = True) -> tuple[str, ...]:
    """Everything that C{principal} may see, serialised, in the order old clients know.

    @param reads: may read properties other than the state.
    @param lists: may be told which further properties there are.
    @param sees: may see the state.
    """
    shown = [render_state(node.state_for(principal))] if sees else []
    if reads:
        names: tuple[QName, ...] = _LISTED
        if lists and node.properties:
            names += tuple(name for name in node.properties if name not in TEXT_PROPERTIES)
        shown += [text for name in names if (text := render(node, name, principal)) is not None]
    return tuple(shown)


def propfind(node: Node, visit: Visit) -> Outcome:
    """Read properties.

    @raise Forbidden: nothing that was asked for may be read.
    """
    check_depth(visit.call.headers)
    check_content_type(visit.call.headers)
    wanted = parse_propfind(visit.call.body)
    reads = node.allows("read", visit.identity, visit.farm)
    sees = node.allows("presence", visit.identity, visit.farm)
    if not (reads or sees):
        node.refuse("read", visit)
    principal = visit.identity.principal.key if visit.identity.principal else ""
    if wanted.kind is FindKind.NAMED:
        found = _find_named(node, principal, wanted.names, reads=reads, sees=sees)
        if all(part.status == 403 for part in found):
            node.refuse("read" if sees else "presence", visit)
    else:
        node.demand("list", visit)
        if wanted.kind is FindKind.ALL:
            found = [Propstat(200, readable(node, principal, reads=reads, lists=True, sees=sees))]
        else:
            names = [STATE, DISPLAY_NAME, EMAIL, *TEXT_PROPERTIES]
            names += [name for name in node.properties if name not in TEXT_PROPERTIES]
            found = [Propstat(200, tuple(render_empty(name) for name in names))]
    assert node.account is not None
    return Outcome(Reply(207, _XML, render_multistatus(node.account.url, found)))


def _find_named(
    node: Node, principal: str, names: Sequence[QName], *, reads: bool, sees: bool
) -> list[Propstat]:
    """Sort what was asked for by name into found, forbidden and unknown."""
    found: list[str] = []
    forbidden: list[str] = []
    unknown: list[str] = []
    for name in names:
        if not (sees if name == STATE else reads):
            forbidden.append(render_empty(name))
        elif (text := render(node, name, principal)) is not None:
            found.append(text)
        else:
            unknown.append(render_empty(name))
    parts = ((200, found), (403, forbidden), (404, unknown))
    return [Propstat(status, tuple(props)) for status, props in parts if props]


@dataclass(frozen=True, slots=True)
class Keeping:
    """What the properties of all nodes share.

    @ivar new_id: makes an id for a view: positive, unpredictable enough not to collide after a restart.
    @ivar renewed: told the kind when a lease is renewed in time.
    @ivar ends: whose presence ran out of late; C{late} is told when one of them comes back at once.
    """

    views: LeaseBook[View]
    properties: LeaseBook[Property]
    new_id: Callable[[], int]
    renewed: Callable[[str], None] = lambda kind: None
    late: Callable[[], None] = lambda: None
    ends: Ends = field(default_factory=Ends)


def proppatch(node: Node, visit: Visit, keeping: Keeping) -> Outcome:
    """Write properties: all of them or none (RFC 2518, 8.2)."""
    node.demand("write", visit)
    check_content_type(visit.call.headers)
    changes = parse_propertyupdate(visit.call.body)
    assert node.account is not None
    problems = {index: status for index, change in enumerate(changes) if (status := _problem(node, change))}
    if problems:
        found = _failed(changes, problems)
        return Outcome(Reply(207, _XML, render_multistatus(node.account.url, found)))
    patch = _Patch(node, visit, keeping)
    for change in changes:
        patch.apply(change)
    return patch.outcome()


def _problem(node: Node, change: Change) -> int:
    """The status that forbids C{change}, or 0."""
    if change.name in FROM_DIRECTORY:
        return 403
    if change.problem:
        return 409
    if change.name == STATE or change.action == "remove":
        return 0
    value = change.lease.value if change.lease else change.value
    if len(value.encode()) > LARGEST_PROPERTY:
        return 409
    dead = sum(1 for name in node.properties if name not in TEXT_PROPERTIES)
    is_new = change.name not in node.properties and change.name not in TEXT_PROPERTIES
    return 409 if is_new and dead >= MOST_PROPERTIES else 0


def _failed(changes: Sequence[Change], problems: dict[int, int]) -> list[Propstat]:
    """Why nothing was changed: 403 and 409 for the causes, 424 for the rest."""
    by_status: dict[int, list[str]] = {}
    for index, change in enumerate(changes):
        by_status.setdefault(problems.get(index, 424), []).append(render_empty(change.name))
    return [Propstat(status, tuple(dict.fromkeys(props))) for status, props in sorted(by_status.items())]


class _Patch:
    """One PROPPATCH under way: what it has done, what is to be kept, answered and told."""

    def __init__(self, node: Node, visit: Visit, keeping: Keeping) -> None:
        self._node, self._visit, self._keeping = node, visit, keeping
        self._before = node.views.effective
        self._answers: dict[QName, str] = {}
        self._records: list[Record] = []
        self._changed: dict[QName, str] = {}
        self._undo: list[Callable[[], None]] = []

    def apply(self, change: Change) -> None:
        """Carry out one change that is known to be acceptable."""
        if change.name == STATE:
            self._set_state(change)
        elif change.action == "remove":
            self._remove(change.name)
        else:
            self._set_property(change)

    def outcome(self) -> Outcome:
        """The answer to it all.  A state alone need not be on disk: its lease would heal it."""
        node = self._node
        assert node.account is not None
        body = render_multistatus(node.account.url, [Propstat(200, tuple(self._answers.values()))])
        news: list[News] = node.state_news(self._before)
        news += node.property_news(tuple(self._changed.values()))
        durable = any(isinstance(record, PutProperty | DropProperty) for record in self._records)
        reply = Reply(207, _XML, body)
        return Outcome(reply, self._records, durable=durable, news=news, undo=self._take_back)

    def _take_back(self) -> None:
        for undo in reversed(self._undo):
            undo()

    def _set_state(self, change: Change) -> None:
        """A view says something new (5.3); a plain state is a lease like any other (13.16)."""
        node, keeping = self._node, self._keeping
        view = node.views.find(change.view, self._visit.call.peer)
        if change.action == "remove":
            if view is not None:
                node.views.end(view)
                keeping.views.drop(view)
                self._records.append(DropView(node.key, view.id))
            self._answers[STATE] = render_text_prop("r:state", "")
            return
        if view is None:
            if len(node.views) >= MOST_VIEWS:
                raise Busy("this principal is signed in at as many places as it may be")
            view = View(node.key, keeping.new_id(), OFFLINE, OFFLINE, 0, self._visit.call.peer, 0)
            if keeping.ends.returned(node.key, view.address, self._visit.now):
                keeping.late()
        lease = change.lease
        state = lease.value if lease else change.value
        default = (lease.default if lease else None) or OFFLINE
        seconds = clamped(lease.timeout if lease else None)
        followers = node.views.set(view, state, default, seconds)
        if state == OFFLINE:
            keeping.views.drop(view)
            self._records.append(DropView(node.key, view.id))
        else:
            if view.until != LAPSED:
                keeping.renewed("presence")
            keeping.views.grant(view, self._visit.now + seconds)
            self._records += [PutView(saved_view(each)) for each in (view, *followers)]
        self._answers[STATE] = render_leased_state(state, default, seconds, view.id)

    def _set_property(self, change: Change) -> None:
        """Keep a property, for ever or for the time of a lease."""
        node, name = self._node, change.name
        old = node.properties.get(name)
        if change.lease is None:
            kept = Property(node.key, name, change.value)
            answer = _answer(name)
        else:
            current = old.value if old else TEXT_PROPERTIES.get(name)
            default = change.lease.default if change.lease.default is not None else current
            seconds = clamped(change.lease.timeout)
            kept = Property(node.key, name, change.lease.value, default)
            self._keeping.properties.grant(kept, self._visit.now + seconds)
            answer = render_leased_prop(name, change.lease.value, default or "", seconds)
        self._replace(name, kept)
        self._records.append(PutProperty(saved_property(kept)))
        self._answers[name] = answer

    def _remove(self, name: QName) -> None:
        """Remove a property; one that is not there is no error (RFC 2518)."""
        if name in self._node.properties:
            self._replace(name, None)
            self._records.append(DropProperty(self._node.key, name.namespace, name.local))
        self._answers[name] = _answer(name)

    def _replace(self, name: QName, new: Property | None) -> None:
        node, keeping = self._node, self._keeping
        old = node.properties.pop(name, None)
        until = old.until if old else LAPSED
        if old is not None:
            keeping.properties.drop(old)
        if new is not None:
            node.properties[name] = new

        def undo() -> None:
            node.properties.pop(name, None)
            if new is not None:
                keeping.properties.drop(new)
            if old is not None:
                node.properties[name] = old
                if until != LAPSED:
                    keeping.properties.grant(old, until)

        self._undo.append(undo)
        text = render(node, name, node.key)
        self._changed[name] = text if text is not None else render_empty(name)


def _answer(name: QName) -> str:
    """How an answer names a property without its value."""
    return render_text_prop(f"r:{name.local}", "") if name in TEXT_PROPERTIES else render_empty(name)


def clamped(asked: int | None) -> int:
    """The granted length of a lease of C{asked} seconds."""
    return DEFAULT_LEASE if asked is None else max(SHORTEST_LEASE, min(LONGEST_LEASE, asked))


def lapse_property(node: Node, kept: Property) -> tuple[list[Record], list[News]]:
    """The lease on a property ran out: it reverts, and readers hear of it."""
    if kept.default is None:
        node.properties.pop(kept.name, None)
        record: Record = DropProperty(node.key, kept.name.namespace, kept.name.local)
    else:
        kept.value, kept.default = kept.default, None
        record = PutProperty(saved_property(kept))
    text = render(node, kept.name, node.key) or render_empty(kept.name)
    return [record], node.property_news((text,))


def lapse_view(node: Node, view: View, keeping: Keeping, now: float) -> tuple[list[Record], list[News]]:
    """The lease of a view ran out: it shows its default or ends, and watchers hear of it."""
    before = node.views.effective
    if node.views.lapse(view):
        keeping.views.grant(view, now + view.seconds)
        record: Record = PutView(saved_view(view))
    else:
        record = DropView(node.key, view.id)
        keeping.ends.ended(node.key, view.address, now)
    return [record], node.state_news(before)


def saved_view(view: View) -> SavedView:
    """The row that the journal keeps of C{view}."""
    return SavedView(
        node=view.node,
        id=view.id,
        state=view.state,
        default=view.default,
        until=view.until,
        seconds=view.seconds,
        address=view.address,
        order=view.order,
    )


def saved_property(kept: Property) -> SavedProperty:
    """The row that the journal keeps of C{kept}."""
    return SavedProperty(
        node=kept.node,
        namespace=kept.name.namespace,
        local=kept.name.local,
        value=kept.value,
        default=kept.default,
        until=kept.until,
    )
