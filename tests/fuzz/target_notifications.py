"""NOTIFY bodies: the short way and the long way agree, and what is relayed says what was sent."""

from __future__ import annotations

from dataclasses import replace

from rvpfarm.protocol import notifications
from rvpfarm.protocol.calls import BadRequest
from rvpfarm.protocol.notifications import (
    Notification,
    PropertyNotice,
    parse_changes,
    parse_notification,
    relay_body,
    render_message,
)
from rvpfarm.protocol.xml import RVP, QName, parse_xml
from tests.fuzz import target_xml
from tests.fuzz.trees import damage_tree
from tests.protocol.test_notifications import parsed
from tests.support import printed

ANOTHER = "http://im.fabrik.example/instmsg/aliases/another"
RECIPIENT = "http://im.fabrik.example/instmsg/aliases/petra"

_PARTS = (
    *(b"r:notification", b"r:message", b"r:propnotification", b"r:notification-from", b"r:notification-to"),
    *(
        b"r:contact",
        b"d:href",
        b"r:description",
        b"r:msgbody",
        b"r:mime-data",
        b"d:propertyupdate",
        b"d:propstat",
    ),
    *(
        b"d:set",
        b"d:remove",
        b"d:prop",
        b"r:state",
        b"r:online",
        b"r:busy",
        b"r:email",
        b"r:mobile-state",
        b"x:message",
    ),
)

_TO = QName(RVP, "notification-to")

TOKENS = (
    *(token for token in target_xml.TOKENS if len(token) < 60),
    *(b"<%s>" % part for part in _PARTS),
    *(b"</%s>" % part for part in _PARTS),
    *(b"<%s/>" % part for part in _PARTS),
    *(
        b"]]]]><![CDATA[>",
        b"]]><![CDATA[",
        b"<![CDATA[",
        b"\r\n\r\n",
        b"\n\n",
        b"\r",
        b"\xc2\xa0",
        b"\xef\xbf\xbf",
    ),
    *(
        b"</d:href><r:description>",
        b"</r:contact></r:notification-to>",
        b" ",
        b"Session-Id: {1}\r\n",
        b"Tomasz",
    ),
)

STEPS = (damage_tree,)


def seeds() -> list[bytes]:
    """The printed bodies, and what senders write otherwise."""
    message, change = printed.MESSAGE, printed.PROPERTY
    twice = message[message.index(b"<r:notification-to>") : message.index(b"<r:msgbody>")]
    return [
        message,
        change,
        printed.RAW,
        message.replace(twice, twice * 2),
        message.replace(b"<![CDATA[", b"").replace(b"]]>", b""),
        message.replace(b"ten?", b"]]]]><![CDATA[>ten?"),
        message.replace(b"'", b'"').replace(b"<r:description>Petra Novak</r:description>", b""),
        message.replace(b"r:", b"R:").replace(b":r=", b":R="),
        message.replace(b"d:", b"").replace(b"xmlns:d", b"xmlns"),
        change.replace(
            b"<r:state><r:busy/></r:state>", b"<r:email>a@b</r:email><x:y xmlns:x='urn:x'><z/></x:y>"
        ),
        change.replace(b"d:propertyupdate>", b"d:propstat>").replace(b"d:set>", b"x>"),
        change.replace(b"d:set>", b"d:remove>"),
        printed.PROPPATCH,
    ]


def fuzz_one(data: bytes) -> None:
    """Read C{data} as what is to be delivered, and relay it."""
    short = notifications._recognise(data)
    if short is not None:
        assert replace(short, text=short.mime) == parsed(data), "the short way says something else"
    try:
        notification = parse_notification(data)
    except BadRequest:
        return
    _check(notification, data)
    own = notification.sender or ANOTHER
    for sender in (own, ANOTHER):
        _check_relayed(notification, data, sender)
    if notification.kind == "message":
        _check_rendered(notification)


def _check(notification: Notification, data: bytes) -> None:
    assert (notification.sender is None) == (notification.kind == "raw")
    assert notification.kind == "message" or not notification.mime
    assert "\r" not in notification.mime
    if notification.fit:
        assert _relayed(notification, data, notification.sender or ANOTHER) == data
    if notification.kind == "property":
        parse_changes(data)


def _relayed(notification: Notification, data: bytes, sender: str) -> bytes:
    return relay_body(
        notification,
        data,
        sender=sender,
        sender_name="Another",
        recipient=RECIPIENT,
        recipient_name="Petra Novak",
    )


def _check_relayed(notification: Notification, data: bytes, sender: str) -> None:
    """Whoever gets it sees that sender and no other, the same recipients, and the same message."""
    relayed = _relayed(notification, data, sender)
    try:
        arrived = parse_notification(relayed)
    except BadRequest as refused:
        assert _may_be_lost(notification, refused), refused.text
        parse_xml(relayed)
        return
    assert arrived.kind == notification.kind
    if arrived.kind == "raw":
        return
    assert arrived.sender == sender
    if relayed != data:
        assert arrived.recipients == (notification.recipients or (RECIPIENT,))
        assert arrived.sender_description == (notification.sender_description or "Another")
    if arrived.kind == "message":
        assert arrived.mime == notification.mime, "another message"
        places = [element for element in parse_xml(relayed).walk() if element.name == _TO]
        together = len(places) < len(arrived.recipients)  # as pidgin names several
        assert arrived.fit or together, "what we wrote is not fit"
    assert _relayed(arrived, relayed, sender) == relayed, "it is relayed differently again"


def _may_be_lost(notification: Notification, refused: BadRequest) -> bool:
    """Whether what is refused after it was written anew has nothing left to tell."""
    return notification.kind != "message" and "empty" in refused.text


def _check_rendered(notification: Notification) -> None:
    """A message that is written from its parts is the same message."""
    body = render_message(
        ANOTHER, notification.sender_description or "", RECIPIENT, "", notification.mime.encode()
    )
    again = parse_notification(body)
    assert (again.sender, again.recipients, again.mime) == (ANOTHER, (RECIPIENT,), notification.mime)
    notice = PropertyNotice(ANOTHER, notification.sender_description or "", ("<r:state><r:busy/></r:state>",))
    told = parse_notification(notice.body_for(RECIPIENT, notification.sender_description or ""))
    assert (told.kind, told.sender, told.recipients) == ("property", ANOTHER, (RECIPIENT,))
