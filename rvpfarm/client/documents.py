"""What a client writes into its requests and reads from their answers (protocol notes 3)."""

from __future__ import annotations

from dataclasses import dataclass, field

from rvpfarm.protocol.calls import BadRequest
from rvpfarm.protocol.xml import DAV, RVP, STATE, Element, QName, parse_xml, render_document
from rvpfarm.web.responses import Response

_PROPFIND_STATE = "<d:prop><r:state/></d:prop>"


@dataclass(frozen=True, slots=True)
class Properties:
    """Properties of a node, as an answer or a notification tells them.

    @ivar state: the name of the presence; C{None} when it was not told.
    @ivar view: the view that a change of state was made in.
    @ivar seconds: how long a leased state was granted.
    @ivar texts: the text of every other property, by its local name.
    """

    state: str | None = None
    view: int | None = None
    seconds: int | None = None
    texts: dict[str, str] = field(default_factory=dict)


def render_state_question() -> bytes:
    """The body of a PROPFIND that asks for the presence."""
    return render_document("d:propfind", _PROPFIND_STATE)


def render_state_change(state: str, seconds: int, view: int | None) -> bytes:
    """The body of a PROPPATCH that sets the presence C{state} for C{seconds} seconds, then offline.

    @param view: the view that is changed; C{None} the first time.
    """
    lease = (
        f"<r:leased-value><r:value><r:{state}/></r:value><r:default-value><r:offline/></r:default-value>"
        f"<d:timeout>{seconds}</d:timeout></r:leased-value>"
    )
    named = "" if view is None else f"<r:view-id>{view}</r:view-id>"
    return render_document(
        "d:propertyupdate", f"<d:set><d:prop><r:state>{lease}{named}</r:state></d:prop></d:set>"
    )


def read_properties(props: Element) -> Properties:
    """What a C{d:prop} element says."""
    state = view = seconds = None
    texts: dict[str, str] = {}
    for prop in props.children:
        if prop.name == STATE:
            state, seconds = _read_state(prop)
            view = _number(prop.only("view-id", RVP))
        else:
            texts[prop.name.local] = prop.trimmed
    return Properties(state, view, seconds, texts)


def _read_state(prop: Element) -> tuple[str | None, int | None]:
    """The presence inside C{r:state}, plain or leased, and the length of the lease."""
    lease = prop.only("leased-value", RVP)
    value = prop if lease is None else lease.only("value", RVP)
    names = [] if value is None else [c.name.local for c in value.children if c.name.local != "view-id"]
    seconds = None if lease is None else _number(lease.only("timeout", DAV, RVP))
    return (names[0] if names else None), seconds


def _number(element: Element | None) -> int | None:
    text = "" if element is None else element.trimmed
    return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else None


def parse_multistatus(body: bytes) -> tuple[int, Properties]:
    """The first status of a C{d:multistatus} that is not 200, or 200; and the properties that were told.

    @raise BadRequest: it is none.
    """
    root = parse_xml(body)
    if root.name != QName(DAV, "multistatus"):
        raise BadRequest("the answer is not a multistatus")
    worst, told = 200, Properties()
    for response in root.every("response", DAV):
        for propstat in response.every("propstat", DAV):
            status = _status(propstat)
            props = propstat.only("prop", DAV)
            if status != 200:
                worst = status if worst == 200 else worst
            elif props is not None:
                told = read_properties(props)
    return worst, told


def _status(propstat: Element) -> int:
    """The code in a C{d:status}."""
    status = propstat.only("status", DAV)
    words = status.trimmed.split() if status is not None else []
    if len(words) < 2 or not (words[1].isascii() and words[1].isdigit()):
        raise BadRequest("the answer has a propstat without a status")
    return int(words[1])


def read_subscription(response: Response) -> tuple[bytes, float]:
    """The id and the length in seconds of the subscription that was granted or refreshed.

    @raise BadRequest: the answer does not say.
    """
    id = response.headers.get(b"subscription-id", b"")
    seconds = response.headers.get(b"subscription-lifetime", b"")
    if not id.isdigit() or not seconds.isdigit() or not 0 < len(seconds) < 12 or not int(seconds):
        raise BadRequest("the answer names no subscription, or not how long it lasts")
    return id, float(seconds)
