"""NOTIFY as it arrives (protocol notes 3.6, 6): may it pass, to which call-backs, with which body."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

from rvpfarm.home.courier import Priority
from rvpfarm.home.node import Node, Visit
from rvpfarm.protocol.address import Principal, parse_principal
from rvpfarm.protocol.calls import BadRequest, Forbidden, Unproven
from rvpfarm.protocol.headers import Ack, check_content_type, parse_subscription_id
from rvpfarm.protocol.notifications import Notification, parse_notification, relay_body

#: What marks a typing notice or the opening of a conversation (protocol notes 7.3).
_CONTROL = "text/x-msmsgscontrol"
#: What is in every property notification that tells a state.
_STATE = b"state>"

# To find a member of an enumeration by its name costs a method call each time.
_PRESENCE, _MESSAGE = Priority.PRESENCE, Priority.MESSAGE
_DEEP_OR, _SINGLE_HOP = Ack.DEEP_OR, Ack.SINGLE_HOP


# Made once per message: a frozen dataclass costs four times as much.
@dataclass(slots=True)
class Relay:
    """A NOTIFY that passes.

    @ivar call_backs: the distinct URLs of the places that are to have it.
    @ivar ack: what the sender wants to know before it is answered.
    @ivar hops: the hop count to send, the received one plus one (1.6).
    @ivar sender: C{RVP-From-Principal} to send; empty for an anonymous one.
    @ivar key: a newer notification of the same subscription replaces this one while it waits.
    @ivar number: the C{Subscription-Id} it came with, passed on.
    @ivar about: key of the node whose state it tells, if it tells one.
    """

    call_backs: tuple[str, ...]
    ack: Ack
    hops: int
    sender: str
    body: bytes
    priority: Priority
    key: Hashable
    number: int | None
    about: str = ""


def notify(node: Node, visit: Visit, name_of: Callable[[Principal], str]) -> Relay:
    """Judge a NOTIFY for this node.

    @param name_of: the display name of a principal, for clients that need one (6.4).
    @raise Forbidden: the sender may not send here, or is not who the body says.
    """
    call, identity = visit.call, visit.identity
    headers, caller = call.headers, identity.principal
    may_send = node.allows("send-to", identity, visit.farm)
    if not may_send and (caller is None or not _may_be_property(visit)):
        node.refuse("send-to", visit)
    check_content_type(headers)
    notification = parse_notification(call.body)
    is_property = notification.kind == "property"
    sender = _sender(notification, visit)
    if is_property:
        _check_property_sender(node, visit, sender)
    elif not may_send:
        node.refuse("send-to", visit)
    envelope = visit.envelope
    ack = envelope.ack
    if ack is None:
        ack = _DEEP_OR if notification.kind == "message" else _SINGLE_HOP
    number = parse_subscription_id(headers) or None  # 0 is nobody's, and an old client's "not logged in"
    return Relay(
        node.live_call_backs(),
        ack,
        envelope.hops + 1,
        caller.url if caller else "",
        _body(node, visit, notification, sender, name_of),
        _PRESENCE if is_property else _priority(notification),
        (caller.key if caller else "", number) if number is not None else None,
        number,
        sender.key if sender and is_property and _STATE in call.body else "",
    )


def _may_be_property(visit: Visit) -> bool:
    """Does the body look like a property notification; settled by parsing it."""
    return b"propnotification" in visit.call.body


def _sender(notification: Notification, visit: Visit) -> Principal | None:
    """Whom the body names as its sender.

    @raise Unproven: it names somebody, and the caller is nobody yet.
    @raise Forbidden: it names somebody else than the caller (design invariant 1).
    """
    if notification.sender is None:
        return visit.identity.principal
    try:
        named = parse_principal(notification.sender, visit.names)
    except BadRequest as problem:
        raise BadRequest("notification-from is not a principal") from problem
    caller = visit.identity.principal
    if notification.kind == "property":
        return named
    if caller is None:
        raise Unproven()
    if named.key != caller.key:
        raise Forbidden("notification-from is not the one who sends")
    return named


def _check_property_sender(node: Node, visit: Visit, about: Principal | None) -> None:
    """A property notification passes unless its sender is denied, and speaks of its own (13.20).

    @raise Forbidden: neither a server of the domain it speaks of, nor the principal itself; or denied.
    """
    caller = visit.identity.principal
    assert about is not None
    if caller is None:
        raise Unproven()
    own = about.key == caller.key or (caller.is_server and about.key.partition("/")[0] == caller.key)
    if not own:
        raise Forbidden("a property notification may only speak of its sender's own")
    for ace in node.acl(visit.farm).aces:
        if ace.principal in (caller.key, about.key) and not ace.deny.isdisjoint(("send-to", "all")):
            raise Forbidden("the access list of this node denies it")


def _priority(notification: Notification) -> Priority:
    """Of what is no property notification: what is given up first when a queue is full."""
    text = notification.text
    if _CONTROL not in text[: text.find("\r\n\r\n")]:  # where most of them end, and none ends later
        return _MESSAGE
    headers = notification.mime.partition("\n\n")[0]
    return Priority.TYPING if _CONTROL in headers else _MESSAGE


def _body(
    node: Node,
    visit: Visit,
    notification: Notification,
    sender: Principal | None,
    name_of: Callable[[Principal], str],
) -> bytes:
    """The body to relay: the sender's own bytes wherever every client can take them (6.4)."""
    account = node.account
    assert account is not None
    return relay_body(
        notification,
        visit.call.body,
        sender=sender.url if sender else "",
        sender_name=name_of(sender) if sender and notification.sender_description is None else "",
        recipient=account.url,
        recipient_name=account.display_name,
    )
