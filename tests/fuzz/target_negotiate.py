"""SPNEGO tokens: DER or a 400, and what is chosen was offered."""

from __future__ import annotations

from dataclasses import dataclass

from rvpfarm.auth.negotiate import (
    KERBEROS,
    KERBEROS_OF_WINDOWS,
    MECHANISMS_LIMIT,
    NTLM,
    SPNEGO,
    TOKEN_LIMIT,
    Bare,
    Offer,
    Response,
    State,
    Tampered,
    choose,
    parse_token,
    render_response,
)
from rvpfarm.protocol.calls import BadRequest
from tests.fuzz import target_ntlm

LONGEST = 3000

TOKENS = (
    *(b"\x06%c%s" % (len(oid), oid) for oid in (SPNEGO, NTLM, KERBEROS, KERBEROS_OF_WINDOWS)),
    *(
        b"\x60\x81",
        b"\x60\x82\x01",
        b"\x30\x80",
        b"\x30\x84\0\0\0\1",
        b"\x30\0",
        b"\x04\0",
        b"\x0a\x01\0",
        b"\x0a\x01\3",
    ),
    *(
        b"\xa0\x03",
        b"\xa1\x05",
        b"\xa2\x07",
        b"\xa3\x12",
        b"\xa4\0",
        b"\x1f\x81",
        b"\x7f",
        b"\x80",
        b"\x81\x7f",
        b"\x82\0\xff",
    ),
    *(b"NTLMSSP\0", b"\xff\xff\xff\xff", b"\x05", b"\x06\0", b"\x06\x01\x2a"),
)


@dataclass(frozen=True, slots=True)
class _Seal:
    """A session that signs, or does not, and takes one code for right."""

    signs: bool
    right: bytes

    def sign(self, data: bytes) -> bytes:
        """Our code."""
        return b"ours" + data[:4]

    def verify(self, data: bytes, code: bytes) -> bool:
        """Is it the right one?"""
        return code == self.right


def seeds() -> list[bytes]:
    """Offers and responses of clients, around NTLM and Kerberos."""
    greeting, answer = target_ntlm.seeds()[0], target_ntlm.seeds()[3]
    return [
        _offer((NTLM,), greeting),
        _offer((KERBEROS_OF_WINDOWS, KERBEROS, NTLM), b"kerberos"),
        _offer((NTLM, KERBEROS), b""),
        _element(0xA1, _element(0x30, _element(0xA2, _element(4, answer)))),
        _element(
            0xA1, _element(0x30, _element(0xA2, _element(4, b"t")) + _element(0xA3, _element(4, b"m" * 16)))
        ),
        render_response(State.INCOMPLETE, NTLM, greeting, b"mic"),
        _element(0x60, _element(6, KERBEROS) + b"\1\0" + b"ticket"),
        greeting,
    ]


def fuzz_one(data: bytes) -> None:
    """Read C{data} as a token, and go on with the negotiation as far as it leads."""
    try:
        token = parse_token(data)
    except BadRequest:
        return
    assert len(data) <= TOKEN_LIMIT
    if isinstance(token, Bare):
        assert token.token == data
    elif isinstance(token, Response):
        _check_response(token, data)
    else:
        _check_offer(token, data)


def _check_response(response: Response, data: bytes) -> None:
    assert response.token in data
    assert response.mic in data
    again = parse_token(render_response(State.INCOMPLETE, NTLM, response.token, response.mic))
    assert again == response


def _check_offer(offer: Offer, data: bytes) -> None:
    assert offer.listed in data
    assert offer.token in data
    assert len(offer.mechanisms) <= MECHANISMS_LIMIT
    written = _offer(offer.mechanisms, offer.token)
    assert parse_token(written) == offer
    for have in ((NTLM,), (KERBEROS, KERBEROS_OF_WINDOWS), ()):
        negotiation = choose(offer, have)
        if negotiation is None:
            assert not set(offer.mechanisms) & set(have)
            continue
        assert negotiation.mechanism in have
        assert negotiation.favourite == (offer.mechanisms[0] == negotiation.mechanism)
    _check_negotiation(offer)


def _check_negotiation(offer: Offer) -> None:
    """It ends well only with the right code, or where none is needed."""
    for seal in (_Seal(True, b"right"), _Seal(False, b"right")):
        for mic in (b"", b"wrong", b"right"):
            negotiation = choose(offer, (NTLM,))
            if negotiation is None:
                return
            parse_token(negotiation.ask(b"challenge"))
            needless = (
                negotiation.favourite and not seal.signs
            )  # no code can be looked at, and none is needed
            try:
                answer, over = negotiation.conclude(seal, mic)
            except Tampered:
                assert mic == b"wrong" or not (seal.signs or negotiation.favourite)
                assert not needless
                continue
            parse_token(answer)
            assert needless or (seal.signs and mic != b"wrong"), "a wrong code counts"
            assert over == (negotiation.favourite or mic == b"right")


def _offer(mechanisms: tuple[bytes, ...], token: bytes) -> bytes:
    listed = _element(0x30, b"".join(_element(6, mechanism) for mechanism in mechanisms))
    fields = _element(0xA0, listed)
    if token:
        fields += _element(0xA2, _element(4, token))
    return _element(0x60, _element(6, SPNEGO) + _element(0xA0, _element(0x30, fields)))


def _element(tag: int, value: bytes) -> bytes:
    size = len(value)
    if size < 0x80:
        return bytes((tag, size)) + value
    octets = (size.bit_length() + 7) // 8
    return bytes((tag, 0x80 + octets)) + size.to_bytes(octets, "big") + value
