"""The bodies of PROPFIND and PROPPATCH, and their answers (RVP 5.3, 5.4; protocol notes 3.4, 3.5)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from rvpfarm.protocol.calls import REASONS, BadRequest
from rvpfarm.protocol.xml import (
    DAV,
    RVP,
    SPACE,
    STATE,
    TEXTS,
    Element,
    QName,
    escape,
    parse_xml,
    render_document,
    render_inner,
    render_tags,
)

#: Every presence there is, by the name of its element (protocol notes 5.1).
STATES = frozenset(
    ("online", "offline", "away", "busy", "back-soon", "on-phone", "at-lunch", "idle", "invisible")
)
#: Those that say something of one view only and never of the whole principal.
VIEW_LOCAL = frozenset(("offline", "idle"))

DISPLAY_NAME = QName(DAV, "displayname")
EMAIL = QName(RVP, "email")
MOBILE_STATE = QName(RVP, "mobile-state")
MOBILE_DESCRIPTION = QName(RVP, "mobile-description")

#: What a number that cannot be is taken for: a view that nobody has.
_NOBODY = 0


class FindKind(Enum):
    """What a PROPFIND wants to know."""

    NAMED = "prop"
    ALL = "allprop"
    NAMES = "propname"


@dataclass(frozen=True, slots=True)
class Propfind:
    """What a PROPFIND asks for.

    @ivar names: each once, in the order asked; empty unless C{kind} is L{FindKind.NAMED}.
    """

    kind: FindKind
    names: tuple[QName, ...] = ()


@dataclass(frozen=True, slots=True)
class Lease:
    """A value that is held for some time only (RVP 5.4.1).

    Values are presence names for C{r:state}, and XML for every other property.

    @ivar default: what comes after it; C{None} when that was not said.
    @ivar timeout: for how many seconds; C{None} when that was not said.
    """

    value: str
    default: str | None
    timeout: int | None


@dataclass(frozen=True, slots=True)
class Change:
    """One property to be set or removed.

    @ivar value: a presence name for C{r:state}, else the content as XML that may stand in any document of
        ours; empty when it is removed.  Of a leased property, the value held.
    @ivar view: the view that is meant; 0 when it was given as something that is not a number.
    @ivar problem: nothing can be done with the value (409).
    """

    action: Literal["set", "remove"]
    name: QName
    value: str = ""
    lease: Lease | None = None
    view: int | None = None
    problem: bool = False


@dataclass(frozen=True, slots=True)
class Propstat:
    """The properties that one status is true of.

    @ivar props: each as XML, such as C{"<r:state><r:online/></r:state>"}.
    """

    status: int
    props: tuple[str, ...]


def parse_propfind(body: bytes) -> Propfind:
    """Read the body of a PROPFIND.

    @raise BadRequest: it is none, or asks for nothing.
    """
    root = parse_xml(body)
    if root.name != QName(DAV, "propfind"):
        raise BadRequest("the body is not a propfind")
    wanted = [
        (kind, child) for child in root.children for kind in FindKind if child.name == QName(DAV, kind.value)
    ]
    if len(wanted) != 1:
        raise BadRequest("a propfind has exactly one of prop, allprop and propname")
    kind, child = wanted[0]
    if kind is not FindKind.NAMED:
        return Propfind(kind)
    names = tuple(dict.fromkeys(prop.name for prop in child.children))
    if not names:
        raise BadRequest("the propfind names no property")
    return Propfind(kind, names)


def parse_propertyupdate(body: bytes) -> tuple[Change, ...]:
    """Read the body of a PROPPATCH: what is to change, in order.

    @raise BadRequest: it is none, or changes nothing.
    """
    root = parse_xml(body)
    if root.name.namespace != DAV or root.name.local not in ("propertyupdate", "propupdate"):
        raise BadRequest("the body is not a propertyupdate")
    changes = tuple(read_changes(root))
    if not changes:
        raise BadRequest("the propertyupdate changes nothing")
    return changes


def read_changes(update: Element) -> list[Change]:
    """The changes inside a C{d:propertyupdate} element."""
    changes = []
    for step in update.children:
        if step.name == QName(DAV, "set"):
            changes += [read_change("set", prop) for prop in _props(step)]
        elif step.name == QName(DAV, "remove"):
            changes += [read_change("remove", prop) for prop in _props(step)]
    return changes


def read_change(action: Literal["set", "remove"], prop: Element) -> Change:
    """What becomes of the property C{prop}."""
    name = prop.name
    view = _view(prop) if name == STATE else None
    if action == "remove":
        return Change("remove", name, view=view, problem=not name.namespace)
    leased = prop.every("leased-value", RVP)
    if not leased:
        value = _value(name, prop)
        return Change("set", name, value or "", view=view, problem=value is None or not name.namespace)
    lease = _lease(name, leased[0]) if len(leased) == 1 and name.namespace else None
    if lease is None:
        return Change("set", name, view=view, problem=True)
    return Change("set", name, lease.value, lease, view)


def render_multistatus(href: str, propstats: Sequence[Propstat]) -> bytes:
    """The body of a 207 for the node C{href}; what succeeded comes first."""
    inner = "".join(
        f"<d:propstat><d:prop>{''.join(propstat.props)}</d:prop>"
        f"<d:status>HTTP/1.1 {propstat.status} {REASONS[propstat.status].decode()}</d:status></d:propstat>"
        for propstat in sorted(propstats, key=lambda propstat: propstat.status != 200)
    )
    return render_document(
        "d:multistatus", f"<d:response><d:href>{escape(href)}</d:href>{inner}</d:response>"
    )


def render_state(name: str) -> str:
    """The presence C{name} in its plain form."""
    return f"<r:state><r:{name}/></r:state>"


def render_leased_state(value: str, default: str, timeout: int, view: int) -> str:
    """A presence as the answer to its PROPPATCH says it: the lease and the view."""
    return (
        f"<r:state>{_leased(f'<r:{value}/>', f'<r:{default}/>', timeout)}"
        f"<r:view-id>{view}</r:view-id></r:state>"
    )


def render_leased_prop(name: QName, value: str, default: str, timeout: int) -> str:
    """A leased property other than the presence; its values are XML."""
    return render_prop(name, _leased(value, default, timeout))


def render_text_prop(prefixed_name: str, text: str) -> str:
    """A property that holds C{text}."""
    return f"<{prefixed_name}>{escape(text)}</{prefixed_name}>"


def render_empty(name: QName) -> str:
    """The property C{name} without its value."""
    return render_prop(name, "")


def render_prop(name: QName, inner_xml: str) -> str:
    """The property C{name} around XML that may stand in any document of ours."""
    opening, closing = render_tags(name)
    if not inner_xml and name not in TEXTS:
        return f"{opening[:-1]}/>"
    return f"{opening}{inner_xml}{closing}"


def _props(step: Element) -> Iterable[Element]:
    """The properties inside C{d:set} or C{d:remove}."""
    return [prop for group in step.every("prop", DAV) for prop in group.children]


def _leased(value: str, default: str, timeout: int) -> str:
    """The lease of a value; both values are XML."""
    return (
        f"<r:leased-value><r:value>{value}</r:value><r:default-value>{default}</r:default-value>"
        f"<d:timeout>{timeout}</d:timeout></r:leased-value>"
    )


def _lease(name: QName, leased: Element) -> Lease | None:
    """The lease in C{r:leased-value}, or C{None} if it cannot be had."""
    values, defaults = leased.every("value", RVP), leased.every("default-value", RVP)
    timeouts = leased.every("timeout", DAV, RVP)
    if len(values) != 1 or len(defaults) > 1 or len(timeouts) > 1:
        return None
    value = _value(name, values[0])
    default = _value(name, defaults[0]) if defaults else None
    timeout = _number(timeouts[0]) if timeouts else None
    if value is None or (defaults and default is None) or (timeouts and timeout is None):
        return None
    return Lease(value, default, timeout)


def _value(name: QName, holder: Element) -> str | None:
    """The value of the property C{name} inside C{holder}; C{None} if it cannot be had."""
    if name == STATE:
        states = [c for c in holder.children if c.name.local != "view-id"]
        if len(states) != 1 or states[0].name.namespace != RVP or states[0].name.local not in STATES:
            return None
        return states[0].name.local
    if name == MOBILE_STATE:
        return holder.trimmed if holder.trimmed in ("0", "1") else None
    if name in TEXTS:
        return escape(holder.trimmed)
    if holder.every("leased-value", RVP):  # inside a lease: told as it is, it would be taken for one
        return None
    return render_inner(holder).strip(SPACE)


def _view(prop: Element) -> int | None:
    """The view that a presence is meant for."""
    named = prop.every("view-id", RVP, DAV)
    if not named:
        return None
    return _number(named[0]) or _NOBODY


def _number(element: Element) -> int | None:
    """The decimal number in C{element}, cut down to ten digits; C{None} if there is none."""
    text = element.trimmed
    if not (text.isascii() and text.isdigit()):
        return None
    return int(digits) if len(digits := text.lstrip("0") or "0") < 11 else 9999999999
