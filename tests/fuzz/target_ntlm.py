"""NTLM messages: a 400, or a message that proves exactly what its response proves."""

from __future__ import annotations

import hmac
from dataclasses import replace
from struct import pack, unpack_from

from rvpfarm.auth.ntlm import (
    ANSWER_LIMIT,
    EXTENDED,
    GREETING_LIMIT,
    KEY_EXCHANGE,
    NOBODY,
    NTLM,
    SIGN,
    SIGNATURE,
    STRONG,
    TARGET_INFO,
    UNICODE,
    Answer,
    Handshake,
    Session,
    is_intact,
    issue,
    judge,
    message_type,
    nt_hash,
    parse_answer,
    parse_greeting,
    render_info,
    respond,
)
from rvpfarm.protocol.calls import BadRequest

_HASH = nt_hash("Blue-Kite-41")
_NONCE = b"12345678"
_FLAGS = UNICODE | NTLM | EXTENDED | SIGN | STRONG | KEY_EXCHANGE | TARGET_INFO
_GREETING = SIGNATURE + pack("<II", 1, _FLAGS) + bytes(24)

TOKENS = (
    *(
        SIGNATURE,
        SIGNATURE + b"\x01\0\0\0",
        SIGNATURE + b"\x02\0\0\0",
        SIGNATURE + b"\x03\0\0\0",
        b"\x01\x01\0\0",
    ),
    *(pack("<I", flags) for flags in (_FLAGS, UNICODE, NTLM, EXTENDED, 0, 0xFFFFFFFF)),
    *(pack("<HHI", size, size, at) for size in (0, 16, 24, 0xFFFF) for at in (0, 63, 64, 88, 0xFFFFFFF0)),
    *(pack("<HH", kind, size) for kind in range(11) for size in (0, 4, 8)),
    *(
        "petra".encode("utf-16-le"),
        b"FABRIK",
        b"\x00\xd8",
        b"\xdf\x00",
        "\u0131\u01c5".encode("utf-16-le"),
        b"\x00" * 16,
    ),
)
LONGEST = 3000


def seeds() -> list[bytes]:
    """The messages of a client: NTLMv2 with and without a code, NTLMv1, extended, and in OEM letters."""
    info = render_info("FABRIK", "im.fabrik.example", 1000.0)
    protected = info[:-4] + pack("<HHI", 6, 4, 2) + bytes(4)
    blob = b"\1\1" + bytes(6) + bytes(8) + b"abcdefgh" + bytes(4)
    handshake = _handshake(_GREETING)
    plain = respond(_HASH, handshake.nonce)
    return [
        _GREETING,
        _GREETING[:16],
        handshake.challenge,
        _answer(_FLAGS, bytes(24), bytes(16) + blob + info, "FABRIK", "petra", bytes(16)),
        _answer(_FLAGS, bytes(24), bytes(16) + blob + protected, "", "petra@fabrik.example", b"k" * 16),
        _answer(UNICODE | NTLM, plain, plain, "FABRIK", "petra", b""),
        _answer(NTLM, b"", plain, "FABRIK", "petra", b""),
        _answer(_FLAGS, b"clientno" + bytes(16), plain, "", "petra", b"k" * 16),
        _answer(_FLAGS, b"\0", b"", "", "", b""),
    ]


def fuzz_one(data: bytes) -> None:
    """Read C{data} as a greeting and as an answer."""
    handshake = _greet(data)
    try:
        answer = parse_answer(data)
    except BadRequest:
        return
    assert message_type(data) == 3
    assert len(data) <= ANSWER_LIMIT
    assert answer.message == data
    for field in (answer.lm, answer.nt, answer.key):
        assert field in data
    for known in (NOBODY, nt_hash("another")):
        assert judge(handshake, answer, known) is None, "somebody without the password got in"
    session = judge(handshake, _proved(handshake, answer), _HASH)
    assert session is not None, "somebody with the password did not get in"
    _check_session(handshake, answer, session)
    _check_again(answer)


def _handshake(greeting: bytes) -> Handshake:
    return issue(greeting, _NONCE, target="FABRIK", dns_name="im.fabrik.example", now=1000.0)


def _greet(data: bytes) -> Handshake:
    """The challenge to C{data}, if it is a greeting; else the one to a usual greeting."""
    try:
        asked = parse_greeting(data)
    except BadRequest:
        return _handshake(_GREETING)
    assert len(data) <= GREETING_LIMIT
    handshake = _handshake(data)
    challenge = handshake.challenge
    assert challenge.startswith(SIGNATURE + b"\x02\0\0\0")
    assert challenge[24:32] == _NONCE
    (granted,) = unpack_from("<I", challenge, 20)
    assert bool(granted & UNICODE) == bool(asked & UNICODE)
    assert bool(granted & TARGET_INFO) == bool(asked & EXTENDED)
    for at in (12, 40):
        size, room, start = unpack_from("<HHI", challenge, at)
        assert size == room
        assert 48 <= start <= start + size <= len(challenge)
    return handshake


def _proved(handshake: Handshake, answer: Answer) -> Answer:
    """The same answer of somebody who knows the password."""
    if len(answer.nt) > 24:
        name = (
            "".join(u if len(u := letter.upper()) == 1 else letter for letter in answer.user) + answer.domain
        )
        secret = hmac.digest(_HASH, name.encode("utf-16-le"), "md5")
        proof = hmac.digest(secret, handshake.nonce + answer.nt[16:], "md5")
        return replace(answer, nt=proof + answer.nt[16:])
    return replace(answer, nt=respond(_HASH, handshake.nonce), lm=b"")


def _check_session(handshake: Handshake, answer: Answer, session: Session) -> None:
    """A session can be used, whatever was negotiated, and a code is right or wrong, never a crash."""
    assert is_intact(handshake, answer, session) in (True, False)
    if not answer.has_mic:
        assert is_intact(handshake, answer, session)
    assert len(session.sign(b"list")) == 16
    assert not session.verify(b"list", b"")
    assert not session.verify(b"list", session.sign(b"list")), "a reflected code counts"


def _check_again(answer: Answer) -> None:
    """Written and read again, it says the same."""
    again = parse_answer(_answer(answer.flags, answer.lm, answer.nt, answer.domain, answer.user, answer.key))
    assert replace(again, message=answer.message) == answer


def _answer(flags: int, lm: bytes, nt: bytes, domain: str, user: str, key: bytes) -> bytes:
    """A type 3, its code (if there is room for one) left blank."""
    encoding = "utf-16-le" if flags & UNICODE else "latin-1"
    fields, payload, at = b"", b"", 88
    for value in (lm, nt, domain.encode(encoding), user.encode(encoding), b"", key):
        fields += pack("<HHI", len(value), len(value), at + len(payload))
        payload += value
    return SIGNATURE + pack("<I", 3) + fields + pack("<I", flags) + bytes(24) + payload
