"""The body of NOTIFY: messages, property notifications and whatever else people send (RVP 5.6).

A body that every client understands is relayed byte for byte; any other is written anew (protocol notes 6.4).
What nearly everybody sends is recognised as text, at a tenth of the cost of parsing it; whatever does not fit
the pattern exactly is parsed, and the two ways agree on what they both understand.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Literal

from rvpfarm.protocol.calls import BadRequest
from rvpfarm.protocol.fitness import message_fits, property_fits, raw_fits
from rvpfarm.protocol.properties import (
    STATES,
    Change,
    read_change,
    read_changes,
    render_empty,
    render_prop,
    render_state,
)
from rvpfarm.protocol.xml import (
    ACL,
    DAV,
    RVP,
    SPACE,
    STATE,
    CData,
    Element,
    QName,
    cdata,
    escape,
    opening,
    parse_document,
    parse_xml,
    render_document,
    render_element,
)

_OURS = {"d": DAV, "r": RVP, "a": ACL}
_PLACES = frozenset(("message", "propnotification"))


# Made once per message: a frozen dataclass costs four times as much.
@dataclass(slots=True)
class Notification:
    """What a NOTIFY says.

    @ivar sender: the text of C{d:href} in C{r:notification-from}; C{None} only for C{"raw"}.
    @ivar sender_description: the sender's display name; C{None} when there is none.
    @ivar recipients: the texts of C{d:href} in every C{r:notification-to}.
    @ivar fit: every client understands the body as it is.
    @ivar text: of a message, what is in C{r:mime-data}, its lines ended in whatever way; else empty.
    @ivar root: the parsed body, unless there was no need to parse it.
    """

    kind: Literal["message", "property", "raw"]
    sender: str | None
    sender_description: str | None
    recipients: tuple[str, ...]
    fit: bool
    text: str = ""
    root: Element | None = None

    @property
    def mime(self) -> str:
        """L{text} with every line ended by LF."""
        return _lines(self.text)


class PropertyNotice:
    """One change of properties, rendered once for all its watchers."""

    __slots__ = ("_after", "_before")

    def __init__(self, node_url: str, node_name: str, props: Sequence[str]) -> None:
        """
        @param node_url: the logical URL of the node that changed.
        @param node_name: its display name.
        @param props: each changed property as XML, a presence in its plain form.
        """
        update = f"<d:propertyupdate><d:set><d:prop>{''.join(props)}</d:prop></d:set></d:propertyupdate>"
        sender = _party("from", node_url, node_name)
        before, _, after = _party("to", "", "").partition(_BETWEEN)
        self._before = f"{opening('r:notification')}<r:propnotification>{sender}{before}".encode()
        self._after = f"{after}{update}</r:propnotification></r:notification>".encode()

    def body_for(self, recipient_url: str, recipient_name: str = "") -> bytes:
        """The body that tells one watcher."""
        return self.body_to(addressed_to(recipient_url, recipient_name))

    def body_to(self, recipient: bytes) -> bytes:
        """The body that tells one watcher.

        @param recipient: as L{addressed_to} has it, for whoever keeps that: the same people are told again
            and again.
        """
        return self._before + recipient + self._after


def addressed_to(url: str, name: str) -> bytes:
    """What tells one watcher's notification from another's."""
    return f"{escape(url)}{_BETWEEN}{escape(name)}".encode()


def parse_notification(body: bytes) -> Notification:
    """Read the body of a NOTIFY.

    @raise BadRequest: it is no notification, has no sender or several, or holds RVP's own elements where
        a client might take them for something else than we did.
    """
    return _recognise(body) or _parse(body)


def parse_changes(body: bytes) -> tuple[Change, ...]:
    """What a property notification says has changed.

    @raise BadRequest: it is none.
    """
    return tuple(_changes(_place(parse_xml(body), "propnotification")))


def relay_body(
    notification: Notification,
    body: bytes,
    *,
    sender: str,
    sender_name: str,
    recipient: str,
    recipient_name: str,
) -> bytes:
    """The body that goes to a call-back: the sender's own bytes whenever that can be.

    @param body: what C{notification} was parsed from.
    @param sender: the logical URL of whoever sent it.
    @param sender_name: the display name to insert if the sender gave none.
    @param recipient: the logical URL of the node, inserted if the sender named nobody.
    @param recipient_name: its display name.
    """
    if notification.fit and notification.sender in (sender, None):
        return body
    root = parse_xml(body) if notification.root is None else notification.root
    if notification.kind == "raw":
        return render_document("r:notification", "".join([render_element(c) for c in root.children]))
    parties = _party("from", sender, notification.sender_description or sender_name)
    if notification.recipients:
        place = _place(root, "message" if notification.kind == "message" else "propnotification")
        parties += "".join([_recipients(to) for to in place.every("notification-to", RVP)])
    else:
        parties += _party("to", recipient, recipient_name)
    if notification.kind == "message":
        return _render_message(parties, notification.mime.replace("\n", "\r\n"))
    inner = "".join([_render_change(change) for change in _changes(_place(root, "propnotification"))])
    return render_document(
        "r:notification",
        f"<r:propnotification>{parties}<d:propertyupdate>{inner}</d:propertyupdate></r:propnotification>",
    )


def render_message(
    sender_url: str, sender_name: str, recipient_url: str, recipient_name: str, mime: bytes
) -> bytes:
    """The body of a NOTIFY with a message.

    @param mime: the message itself, as C{rvpfarm.protocol.mime} renders it.
    """
    parties = _party("from", sender_url, sender_name) + _party("to", recipient_url, recipient_name)
    return _render_message(parties, mime.decode())


# What nearly everybody sends, as text.  Whatever these patterns match is well-formed XML.
_BETWEEN = "</d:href><r:description>"
_HREF = r"[^\s<>&]+"
_NAME = r"(?!\s)[^<>&\r\n\t]*(?<!\s)"
_TO = re.compile(
    rf"<r:notification-to><r:contact><d:href>({_HREF})</d:href><r:description>{_NAME}</r:description>"
    r"</r:contact></r:notification-to>"
)
_HEAD = re.compile(
    r'<\?xml version="1\.0"\?><r:notification( [^<>]*)><r:(message|propnotification)><r:notification-from>'
    rf"<r:contact><d:href>({_HREF})</d:href><r:description>({_NAME})</r:description></r:contact>"
    rf"</r:notification-from>((?:{_TO.pattern.replace('(', '(?:', 1)})+)"
    r"(<r:msgbody><r:mime-data><!\[CDATA\[|<d:propertyupdate>)"
)
_UPDATE = re.compile(
    rf"<d:set><d:prop>(?:<r:state><r:(?:{'|'.join(sorted(STATES))})/></r:state>"
    rf"|<d:displayname>{_NAME}</d:displayname>|<r:email>{_NAME}</r:email>"
    rf"|<r:mobile-state>[01]</r:mobile-state>|<r:mobile-description>{_NAME}</r:mobile-description>)+"
    r"</d:prop></d:set></d:propertyupdate></r:propnotification></r:notification>"
)
_END = b"]]></r:mime-data></r:msgbody></r:message></r:notification>"
_ROOTS = frozenset(
    "".join(f" xmlns:{prefix}={quote}{_OURS[prefix]}{quote}" for prefix in order)
    for quote in "'\""
    for prefixes in ("dra", "dr")
    for order in permutations(prefixes)
)
_CONTROLS = bytes({*range(32)} - {*b"\t\r\n"})
#: Where the text of a message begins; before it nothing of the usual form looks like this.
_QUOTE = b"<![CDATA["

# Of a message: whom it is from, and that one's display name, and whom it is to.
_Parties = tuple[str, str, tuple[str, ...]]

# Everything before the text is the same in each message of a conversation, so it is kept with what it means:
# so many openings of so many octets at most.
_OPENINGS, _OPENING_LENGTH = 4096, 1024
_openings: dict[bytes, _Parties] = {}


def _recognise(body: bytes) -> Notification | None:
    """The notification in C{body} if it has the usual form to the letter; else C{None}."""
    end = body.find(_QUOTE) + len(_QUOTE)
    if end < len(_QUOTE):
        return _recognise_property(body)
    opening = body[:end]
    parties = _openings.get(opening)
    if parties is None:
        parties = _recognise_opening(opening)
        if parties is None:
            return None
        if end <= _OPENING_LENGTH:
            if len(_openings) >= _OPENINGS:
                _openings.clear()
            _openings[opening] = parties
    text = _recognise_quoted(body[end:])
    return None if text is None else Notification("message", *parties, True, text)


def _recognise_opening(opening: bytes) -> _Parties | None:
    """Who tells whom, if C{opening} is all of a message before its text, in the usual form."""
    text = _usual_text(opening)
    head = None if text is None else _HEAD.fullmatch(text)
    if head is None or head[1] not in _ROOTS or head[2] != "message":
        return None
    return head[3], head[4], tuple(_TO.findall(head[5]))


def _recognise_quoted(rest: bytes) -> str | None:
    """The text of a message, if C{rest} is that and the usual end."""
    if not rest.endswith(_END):
        return None
    text = _usual_text(rest[: -len(_END)])
    if text is None or "]]>" not in text:
        return text
    sections = text.split("]]><![CDATA[")
    if any("]]>" in section for section in sections):
        return None
    return "".join(sections)


def _recognise_property(body: bytes) -> Notification | None:
    """The property notification in C{body}, if it has the usual form."""
    text = _usual_text(body)
    head = None if text is None else _HEAD.match(text)
    if text is None or head is None or head[1] not in _ROOTS or head[2] != "propnotification":
        return None
    if head[6] != "<d:propertyupdate>" or not _UPDATE.fullmatch(text, head.end()):
        return None
    return Notification("property", head[3], head[4], tuple(_TO.findall(head[5])), True)


def _usual_text(octets: bytes) -> str | None:
    """C{octets} as text, if XML may hold every character of it."""
    try:
        text = octets.decode()
    except UnicodeDecodeError:
        return None
    if len(octets.translate(None, _CONTROLS)) != len(octets):
        return None
    if not text.isascii() and ("\ufffe" in text or "\uffff" in text):
        return None
    return text


def _parse(body: bytes) -> Notification:
    """The notification in C{body}, whatever its form.

    @raise BadRequest: see L{parse_notification}.
    """
    document = parse_document(body)
    root = document.root
    if root.name.local != "notification" or root.name.namespace not in (RVP, DAV):
        raise BadRequest("the body is not a notification")
    children = root.children
    if not children:
        raise BadRequest("the notification is empty")
    inside = [element for element in root.walk() if element.name.local in _PLACES]
    inside = [element for element in inside if element.name.namespace == RVP]
    if len(inside) > 1 or (inside and inside[0] not in children):
        raise BadRequest("a notification has one message or propnotification, and has it on top")
    if not inside:
        return Notification("raw", None, None, (), raw_fits(root), root=root)
    place = inside[0]
    origin = place.only("notification-from", RVP)
    sender, description = _contact(origin) if origin is not None else (None, None)
    if not sender:
        raise BadRequest("the notification does not say whom it is from")
    recipients = tuple([href for to in place.every("notification-to", RVP) for href, _ in _contacts(to)])
    if place.name.local == "message":
        mime = _mime(_mime_data(place))
        return Notification("message", sender, description, recipients, message_fits(document), mime, root)
    if not place.every("propertyupdate", DAV) and not place.every("propstat", DAV):
        raise BadRequest("the propnotification tells no properties")
    return Notification("property", sender, description, recipients, property_fits(document), root=root)


def _place(root: Element, local: str) -> Element:
    """The one C{r:message} or C{r:propnotification} of a notification.

    @raise BadRequest: it is not there, or there are several.
    """
    place = root.only(local, RVP)
    if place is None:
        raise BadRequest(f"the notification has no {local}")
    return place


def _contact(party: Element) -> tuple[str | None, str | None]:
    """URL and display name of whom C{r:notification-from} names, each C{None} if not there.

    @raise BadRequest: it names several.
    """
    contact = party.only("contact", RVP)
    return (None, None) if contact is None else _named(contact)


def _contacts(party: Element) -> list[tuple[str, str | None]]:
    """URL and display name of each whom C{r:notification-to} names.

    There is one in a canonical document (4.2), but pidgin's librvp names everybody in a conversation of
    several in one C{r:notification-to}, and learns from it who takes part.
    """
    found = [_named(contact) for contact in party.every("contact", RVP)]
    return [(href, description) for href, description in found if href]


def _named(contact: Element) -> tuple[str | None, str | None]:
    """URL and display name in C{r:contact}, each C{None} if not there."""
    href, description = contact.only("href", DAV), contact.only("description", RVP)
    return (
        None if href is None else href.trimmed,
        None if description is None else description.trimmed,
    )


def _mime_data(message: Element) -> Element:
    """The C{r:mime-data} of a message.

    @raise BadRequest: there is none, or several.
    """
    holder = message.only("msgbody", RVP)
    data = None if holder is None else holder.only("mime-data", RVP)
    if data is None:
        raise BadRequest("the message has no mime-data")
    return data


def _mime(data: Element) -> str:
    """What C{r:mime-data} holds, lines ended by LF, without the white space around it.

    White space inside CDATA sections belongs to the message.  Of escaped text, white space at the end stays
    where the empty line after the headers, which may be all there is, would go with it.
    """
    pieces = [piece for piece in data.content if isinstance(piece, str)]
    quoted = [index for index, piece in enumerate(pieces) if isinstance(piece, CData)]
    if quoted:
        first, last = quoted[0], quoted[-1]
        text = "".join(pieces[:first]).lstrip(SPACE) + "".join(pieces[first : last + 1])
        text += "".join(pieces[last + 1 :]).rstrip(SPACE)
        return _lines(text)
    text = _lines("".join(pieces)).lstrip(SPACE)
    return text.rstrip(SPACE) if "\n\n" in text.rstrip(SPACE) else text


def _lines(text: str) -> str:
    """C{text} with every line ended by LF."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _changes(place: Element) -> list[Change]:
    """The changes inside C{r:propnotification}, also where they stand in C{d:propstat} (MIR accepts it)."""
    changes = []
    for child in place.children:
        if child.name == QName(DAV, "propertyupdate"):
            changes += read_changes(child)
        elif child.name == QName(DAV, "propstat"):
            changes += [read_change("set", p) for group in child.every("prop", DAV) for p in group.children]
    return changes


def _render_change(change: Change) -> str:
    """One step of C{d:propertyupdate}; a value that is none, such as an unknown presence, is left out."""
    if change.problem:
        return ""
    if change.action == "remove":
        return f"<d:remove><d:prop>{render_empty(change.name)}</d:prop></d:remove>"
    prop = render_state(change.value) if change.name == STATE else render_prop(change.name, change.value)
    return f"<d:set><d:prop>{prop}</d:prop></d:set>"


def _render_message(parties: str, mime: str) -> bytes:
    """The body with a message from and to C{parties}."""
    return render_document(
        "r:notification",
        f"<r:message>{parties}<r:msgbody><r:mime-data>{cdata(mime)}</r:mime-data></r:msgbody></r:message>",
    )


def _party(role: Literal["from", "to"], url: str, name: str) -> str:
    """The element that says whom a notification is from, or to."""
    return f"<r:notification-{role}>{_render_contact(url, name)}</r:notification-{role}>"


def _recipients(party: Element) -> str:
    """C{r:notification-to} as the sender gave it (protocol notes 13.10), but for who has no URL."""
    contacts = "".join([_render_contact(href, name or "") for href, name in _contacts(party)])
    return f"<r:notification-to>{contacts}</r:notification-to>" if contacts else ""


def _render_contact(url: str, name: str) -> str:
    """Somebody's URL and display name."""
    description = f"<r:description>{escape(name)}</r:description>"
    return f"<r:contact><d:href>{escape(url)}</d:href>{description}</r:contact>"
