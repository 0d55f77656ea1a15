"""What a call-back brings, as values: messages, typing, presence (protocol notes 3.6 and 7)."""

from __future__ import annotations

from dataclasses import dataclass, field

from rvpfarm.client.names import key_of, shown
from rvpfarm.protocol.calls import BadRequest
from rvpfarm.protocol.mime import parse_mime
from rvpfarm.protocol.notifications import Notification, parse_changes, parse_notification
from rvpfarm.protocol.xml import STATE

#: The kinds of MIME entity that travel as messages.
PLAIN = "text/plain"
CONTROL = "text/x-msmsgscontrol"
LEAVING = "text/x-imleave"


@dataclass(frozen=True, slots=True)
class Message:
    """Somebody says something.

    @ivar sender: as people write it, C{bob@im.farm.localhost}.
    @ivar url: the sender's logical URL.
    @ivar name: the sender's display name.
    @ivar conversation: the Session-Id, which answers carry too; empty when there was none.
    @ivar kind: the media type, C{text/plain} of what people type.
    """

    sender: str
    url: str
    name: str
    text: str
    conversation: str = ""
    kind: str = PLAIN


@dataclass(frozen=True, slots=True)
class Typing:
    """Somebody is typing; it lapses after some ten seconds."""

    sender: str
    url: str
    conversation: str = ""


@dataclass(frozen=True, slots=True)
class Left:
    """Somebody has left a conversation."""

    sender: str
    url: str
    conversation: str = ""


@dataclass(frozen=True, slots=True)
class Presence:
    """Somebody's properties have changed.

    @ivar sender: whose, as people write it.
    @ivar state: the presence; C{None} when only other properties changed.
    @ivar texts: other properties that changed, by local name.
    """

    sender: str
    url: str
    state: str | None
    texts: dict[str, str] = field(default_factory=dict)


Notice = Message | Typing | Left | Presence


def parse_notice(body: bytes) -> Notice | None:
    """What the body of a NOTIFY says to a client; C{None} for what concerns programs only.

    @raise BadRequest: it is no notification, or a message that no client could show.
    """
    notification = parse_notification(body)
    if notification.kind == "raw" or notification.sender is None:
        return None
    url = notification.sender
    key_of(url)
    if notification.kind == "property":
        return _parse_presence(url, body)
    return _parse_message(url, notification)


def _parse_presence(url: str, body: bytes) -> Presence:
    state: str | None = None
    texts: dict[str, str] = {}
    for change in parse_changes(body):
        if change.name == STATE:
            state = change.value if change.action == "set" else "offline"
        else:
            texts[change.name.local] = change.value
    return Presence(shown(url), url, state, texts)


def _parse_message(url: str, notification: Notification) -> Notice | None:
    mime = parse_mime(notification.mime)
    kind, conversation = mime.content_type, mime.session
    if not kind:
        raise BadRequest("a message without a Content-Type")
    if kind == CONTROL:
        return Typing(shown(url), url, conversation) if "typinguser" in mime.headers else None
    if kind == LEAVING:
        return Left(shown(url), url, conversation)
    name = notification.sender_description or ""
    return Message(shown(url), url, name, mime.body, conversation, kind)
