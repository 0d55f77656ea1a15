"""The headers of RVP: one function for each that says what it means, or refuses it (RVP 6).

All of them take the header fields as a L{rvpfarm.protocol.calls.Call} has them: by lower-cased name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from rvpfarm.protocol.calls import METHODS, BadRequest, NotAllowed, NotSupported, Precondition, Unsupported

#: A NOTIFY that has already made more hops than this goes no further (protocol notes 1.6).
HOP_LIMIT = 8

_METHODS = frozenset(METHODS)
_ALLOW = ((b"Allow", b", ".join(METHODS)),)
_VERSION = re.compile(rb"[0-9]{1,9}(?:\.[0-9]{1,9})?")
_HEXADECIMAL = re.compile(rb"[0-9A-Fa-f]+")
_HUGE = 10**12


class Ack(Enum):
    """Who must have a message before its sender is told so (RVP 6.1).

    @ivar word: how it is written.
    """

    SINGLE_HOP = "SingleHop"
    DEEP_OR = "DeepOr"
    DEEP_AND = "DeepAnd"

    def __init__(self, word: str) -> None:
        self.word = word  # C{value} is a method call


class Kind(Enum):
    """What a subscription is for: a login, or the properties of somebody."""

    LOGIN = "pragma/notify"
    PROPERTY = "update/propchange"


_Word = TypeVar("_Word", Ack, Kind)

_ACKS = {ack.value.lower().encode(): ack for ack in Ack}
_KINDS = {kind.value.encode(): kind for kind in Kind}


@dataclass(frozen=True, slots=True)
class Envelope:
    """How a call travels, whatever is in it.

    @ivar hops: as L{parse_hops}.
    @ivar ack: as L{parse_ack}.
    """

    hops: int
    ack: Ack | None


# Callers write the same few values in every call; so many of so many octets are kept with what they say.
_ENVELOPES, _ENVELOPE_LENGTH = 1000, 64
_envelopes: dict[tuple[bytes | None, ...], Envelope] = {}


def check_method(method: bytes) -> None:
    """Let the methods of RVP pass (protocol notes 3.8).

    @raise NotAllowed: COPY and MOVE.
    @raise NotSupported: everything else.
    """
    if method in _METHODS:
        return
    if method in (b"COPY", b"MOVE"):
        raise NotAllowed("RVP nodes are neither copied nor moved", headers=_ALLOW)
    raise NotSupported("RVP has no such method")


def parse_version(headers: Mapping[bytes, bytes]) -> bytes:
    """The value of C{RVP-Notifications-Version} to answer with.

    @raise BadRequest: it is not a number.
    """
    value = headers.get(b"rvp-notifications-version", b"0.2")
    if value == b"0.2" or value == b"1.0":
        return value
    if not _VERSION.fullmatch(value.strip()):
        raise BadRequest("RVP-Notifications-Version is not a number")
    return b"1.0" if value.strip() == b"1.0" else b"0.2"


def parse_hops(headers: Mapping[bytes, bytes]) -> int:
    """How many hops the call has made, this one included.

    @raise BadRequest: it is not a positive number.
    """
    value = headers.get(b"rvp-hop-count")
    if value is None or value == b"1":
        return 1
    hops = _decimal(value)
    if not hops:
        raise BadRequest("RVP-Hop-Count is not a positive number")
    return hops


def parse_ack(headers: Mapping[bytes, bytes]) -> Ack | None:
    """Which acknowledgement is asked for; C{None} when that is left to the body.

    @raise BadRequest: there is no such acknowledgement.
    """
    return _word(headers, b"rvp-ack-type", _ACKS)


def parse_envelope(headers: Mapping[bytes, bytes]) -> Envelope:
    """How the call travels.

    @raise BadRequest: C{RVP-Notifications-Version}, C{RVP-Hop-Count} or C{RVP-Ack-Type} is malformed.
    """
    written = (
        headers.get(b"rvp-notifications-version"),
        headers.get(b"rvp-hop-count"),
        headers.get(b"rvp-ack-type"),
    )
    envelope = _envelopes.get(written)
    if envelope is None:
        parse_version(headers)
        envelope = Envelope(parse_hops(headers), parse_ack(headers))
        if sum(len(value or b"") for value in written) <= _ENVELOPE_LENGTH:
            if len(_envelopes) >= _ENVELOPES:
                _envelopes.clear()
            _envelopes[written] = envelope
    return envelope


def parse_kind(headers: Mapping[bytes, bytes], *, required: bool) -> Kind | None:
    """Which kind of subscription is meant; C{None} when none is named.

    @param required: it must be named.
    @raise BadRequest: there is no such kind, or it is missing though required.
    """
    kind = _word(headers, b"notification-type", _KINDS)
    if kind is None and required:
        raise BadRequest("Notification-Type is missing")
    return kind


def parse_subscription_id(headers: Mapping[bytes, bytes]) -> int | None:
    """Which subscription is meant; C{None} when none is named.

    Any number is taken, however large, and a hexadecimal one (which a draft prints) as 0: what nobody has
    is answered 412, not 400.

    @raise BadRequest: it is not a number.
    """
    value = headers.get(b"subscription-id")
    if value is None:
        return None
    number = _decimal(value)
    if number is not None:
        return number
    if _HEXADECIMAL.fullmatch(value.strip()):
        return 0
    raise BadRequest("Subscription-Id is not a number")


def parse_lifetime(headers: Mapping[bytes, bytes]) -> int:
    """For how many seconds a subscription is wanted.

    @raise BadRequest: missing (nobody may subscribe for ever), zero, or not a number.
    """
    value = headers.get(b"subscription-lifetime")
    if value is None:
        raise BadRequest("Subscription-Lifetime is missing")
    seconds = _decimal(value)
    if not seconds:
        raise BadRequest("Subscription-Lifetime is not a positive number")
    return seconds


def check_depth(headers: Mapping[bytes, bytes]) -> None:
    """Let C{Depth: 0} pass.

    @raise Precondition: it is anything else, or missing.
    """
    if headers.get(b"depth", b"").strip() != b"0":
        raise Precondition("Depth is not 0")


def check_content_type(headers: Mapping[bytes, bytes]) -> None:
    """Let XML pass, and what does not say what it is.

    @raise Unsupported: it says that it is something else.
    """
    value = headers.get(b"content-type")
    if value is None or value == b"text/xml":
        return
    media = value.partition(b";")[0].strip().lower()
    if media not in (b"", b"text/xml", b"application/xml"):
        raise Unsupported("the body is not text/xml")


def _decimal(value: bytes) -> int | None:
    """The decimal number C{value}, huge ones cut down; C{None} if it is none."""
    value = value.strip()
    if not value.isdigit():
        return None
    return int(value) if len(value) < 13 else min(int(value.lstrip(b"0")[:13] or b"0"), _HUGE)


def _word(headers: Mapping[bytes, bytes], name: bytes, words: Mapping[bytes, _Word]) -> _Word | None:
    """Which of C{words} the header C{name} says, in whatever letter case; C{None} if it is missing.

    @raise BadRequest: it says something else.
    """
    value = headers.get(name)
    if value is None:
        return None
    word = words.get(value.strip().lower())
    if word is None:
        raise BadRequest(f"{name.decode()} is none of those that RVP has")
    return word
