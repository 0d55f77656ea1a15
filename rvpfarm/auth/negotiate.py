"""SPNEGO as its acceptor sees it (RFC 4178): which mechanism a client and this farm both have.

A client lists mechanisms and often sends the first token of the one that it likes best; L{choose} begins a
L{Negotiation} with the first of them that we have.  Tokens are wrapped both ways until the mechanism is done
(L{Negotiation.ask}, L{Negotiation.conclude}).  When the client's favourite was not to be had, both ends prove
by a code over the list that nobody has changed it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol, TypeAlias

from rvpfarm.protocol.calls import BadRequest

# object identifiers as they stand in DER, without tag and length
SPNEGO = bytes.fromhex("2b0601050502")
NTLM = bytes.fromhex("2b06010401823702020a")
KERBEROS = bytes.fromhex("2a864886f712010202")
#: What Windows calls Kerberos, by a slip of an early version.
KERBEROS_OF_WINDOWS = bytes.fromhex("2a864882f712010202")

#: Largest token, in octets, and most mechanisms in a list.
TOKEN_LIMIT, MECHANISMS_LIMIT = 16384, 16

_OCTETS, _OID, _ENUMERATED, _SEQUENCE = 0x04, 0x06, 0x0A, 0x30
_CONTEXT, _INITIAL = 0xA0, 0x60


class State(IntEnum):
    """How far the acceptor has come (4.2.2)."""

    COMPLETED = 0
    INCOMPLETE = 1
    REJECTED = 2
    REQUEST_MIC = 3


@dataclass(frozen=True, slots=True)
class Offer:
    """The first token of a client.

    @ivar mechanisms: by falling preference.
    @ivar listed: the list of them as it was encoded, which is what codes are made over.
    @ivar token: the first token of the mechanism that is preferred; may be empty.
    """

    mechanisms: tuple[bytes, ...]
    listed: bytes
    token: bytes = b""


@dataclass(frozen=True, slots=True)
class Response:
    """A later token of a client.

    @ivar token: of the mechanism; may be empty.
    @ivar mic: the client's code over the list; may be empty.
    """

    token: bytes = b""
    mic: bytes = b""


@dataclass(frozen=True, slots=True)
class Bare:
    """A token of Kerberos that is not wrapped."""

    token: bytes


Token: TypeAlias = Offer | Response | Bare


class Session(Protocol):
    """What a mechanism has established."""

    @property
    def signs(self) -> bool:
        """Can it sign?"""

    def sign(self, data: bytes) -> bytes:
        """Our code over C{data}."""

    def verify(self, data: bytes, code: bytes) -> bool:
        """Is C{code} the client's over C{data}?"""


class Ticket(Session, Protocol):
    """A Kerberos ticket that was accepted.

    @ivar principal: whose it is, such as C{petra@FABRIK.EXAMPLE}.
    @ivar reply: what proves us to the client; may be empty.
    """

    principal: str
    reply: bytes


class BadTicket(Exception):
    """A Kerberos token that proves nothing."""


class Tampered(Exception):
    """The list of mechanisms is not what the client sent."""


class Negotiation:
    """One negotiation, from the offer to its end.

    @ivar mechanism: the chosen one.
    @ivar favourite: it is the one that the client prefers, so that the token in its offer is for it.
    """

    __slots__ = ("_listed", "_said", "favourite", "mechanism")

    def __init__(self, mechanism: bytes, listed: bytes, favourite: bool) -> None:
        """
        @param listed: see L{Offer}.
        """
        self.mechanism = mechanism
        self.favourite = favourite
        self._listed = listed
        self._said = False

    def ask(self, token: bytes = b"") -> bytes:
        """What to send while the mechanism is not done, with its next C{token} if it has one."""
        state = State.INCOMPLETE if self.favourite or self._said else State.REQUEST_MIC
        return render_response(state, self._mechanism_once(), token)

    def conclude(self, session: Session, mic: bytes, token: bytes = b"") -> tuple[bytes, bool]:
        """The mechanism is done.

        @param mic: the client's code over the list, if it has come.
        @param token: the last one of the mechanism, if there is one.
        @return: what to send, and whether that is the end; if it is not, the client's code is to come
            (L{confirm}).
        @raise Tampered: the code is wrong, or cannot come though it is needed.
        """
        if not session.signs:  # NTLM without extended session security: no code can be looked at
            if not self.favourite:
                raise Tampered
            mic = b""
        elif mic and not session.verify(self._listed, mic):
            raise Tampered
        over = bool(mic) or self.favourite
        code = session.sign(self._listed) if mic or not over else b""
        state = State.COMPLETED if over else State.INCOMPLETE
        return render_response(state, self._mechanism_once(), token, code), over

    def confirm(self, session: Session, mic: bytes) -> bytes:
        """The client's code has come, after our own.

        @return: what to send.
        @raise Tampered: it is wrong.
        """
        if not session.verify(self._listed, mic):
            raise Tampered
        return render_response(State.COMPLETED)

    def _mechanism_once(self) -> bytes:
        """The chosen mechanism, for the first answer."""
        said, self._said = self._said, True
        return b"" if said else self.mechanism


def choose(offer: Offer, have: Collection[bytes]) -> Negotiation | None:
    """The first mechanism of C{offer} that is one of C{have}."""
    for index, mechanism in enumerate(offer.mechanisms):
        if mechanism in have:
            return Negotiation(mechanism, offer.listed, index == 0)
    return None


def parse_token(data: bytes) -> Token:
    """Read a token that a client sent.

    @raise BadRequest: it is not DER, or not SPNEGO.
    """
    if len(data) > TOKEN_LIMIT:
        raise BadRequest("the Negotiate token is too long")
    tag, value = _only(data)
    if tag == _CONTEXT + 1:
        return _parse_response(value)
    if tag != _INITIAL:
        raise BadRequest("the Negotiate token is none")
    parts = _elements(value)
    mechanism = _expect(next(parts, None), _OID)
    if mechanism in (KERBEROS, KERBEROS_OF_WINDOWS):
        return Bare(data)
    if mechanism != SPNEGO:
        raise BadRequest("the Negotiate token is of an unknown mechanism")
    offer = _expect(next(parts, None), _CONTEXT)
    if next(parts, None) is not None:
        raise BadRequest("something follows the offer in the Negotiate token")
    return _parse_offer(offer)


def render_response(state: State, mechanism: bytes = b"", token: bytes = b"", mic: bytes = b"") -> bytes:
    """A token of the acceptor (4.2.2); what is empty is left out."""
    fields = [_render(_CONTEXT, _render(_ENUMERATED, bytes((state,))))]
    for number, tag, value in ((1, _OID, mechanism), (2, _OCTETS, token), (3, _OCTETS, mic)):
        if value:
            fields.append(_render(_CONTEXT + number, _render(tag, value)))
    return _render(_CONTEXT + 1, _render(_SEQUENCE, b"".join(fields)))


def _parse_offer(data: bytes) -> Offer:
    """
    @raise BadRequest: it is not a C{NegTokenInit}.
    """
    fields = _fields(data)
    listed = fields.get(0)
    if listed is None:
        raise BadRequest("the Negotiate token offers no mechanism")
    mechanisms: list[bytes] = []
    for tag, value in _elements(_sole(listed, _SEQUENCE)):
        if tag != _OID or len(mechanisms) >= MECHANISMS_LIMIT:
            raise BadRequest("the Negotiate token lists something else than a few mechanisms")
        mechanisms.append(value)
    token = _sole(fields[2], _OCTETS) if 2 in fields else b""
    return Offer(tuple(mechanisms), listed, token)


def _parse_response(data: bytes) -> Response:
    """
    @raise BadRequest: it is not a C{NegTokenResp}.
    """
    fields = _fields(data)
    token, mic = (_sole(fields[number], _OCTETS) if number in fields else b"" for number in (2, 3))
    # the first Windows that had SPNEGO put the token into both places
    return Response(token, b"" if mic == token else mic)


def _fields(data: bytes) -> dict[int, bytes]:
    """The numbered fields of a sequence that is all of C{data}.

    @raise BadRequest: they are others than 0 to 3, or not in their order.
    """
    fields: dict[int, bytes] = {}
    last = -1
    for tag, value in _elements(_sole(data, _SEQUENCE)):
        number = tag - _CONTEXT
        if not last < number <= 3:
            raise BadRequest("the fields of the Negotiate token are out of order")
        fields[number] = value
        last = number
    return fields


# DER: definite lengths in their shortest form, tags of one octet, nothing left over


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The elements that C{data} consists of: tag and value of each.

    @raise BadRequest: it is not DER.
    """
    at, end = 0, len(data)
    while at < end:
        if end - at < 2 or data[at] & 0x1F == 0x1F:
            raise BadRequest("the Negotiate token is not DER")
        tag, size = data[at], data[at + 1]
        at += 2
        if size >= 0x80:
            octets = size - 0x80
            size = int.from_bytes(data[at : at + octets], "big")
            at += octets
            if not 1 <= octets <= 2 or size < (0x80 if octets == 1 else 0x100):
                raise BadRequest("the Negotiate token is not DER")
        if at + size > end:
            raise BadRequest("the Negotiate token is cut off")
        yield tag, data[at : at + size]
        at += size


def _only(data: bytes) -> tuple[int, bytes]:
    """The one element that is all of C{data}.

    @raise BadRequest: there is none, or more.
    """
    elements = _elements(data)
    first = next(elements, None)
    if first is None or next(elements, None) is not None:
        raise BadRequest("the Negotiate token is not one element")
    return first


def _sole(data: bytes, tag: int) -> bytes:
    """The value of the one element that is all of C{data}.

    @raise BadRequest: there is something else.
    """
    return _expect(_only(data), tag)


def _expect(element: tuple[int, bytes] | None, tag: int) -> bytes:
    """The value of an element of that tag.

    @raise BadRequest: it is another, or missing.
    """
    if element is None or element[0] != tag:
        raise BadRequest("the Negotiate token lacks what it must have")
    return element[1]


def _render(tag: int, value: bytes) -> bytes:
    """One element."""
    size = len(value)
    if size < 0x80:
        head = bytes((tag, size))
    elif size < 0x100:
        head = bytes((tag, 0x81, size))
    else:
        head = bytes((tag, 0x82)) + size.to_bytes(2, "big")
    return head + value
