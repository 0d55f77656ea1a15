"""NTLM as its acceptor sees it: the three messages, and what an answer proves.

Nothing here knows connections or directories.  A client greets (type 1), is challenged (type 2, L{issue})
and answers (type 3, L{parse_answer}); L{judge} says whether the answer shows that its sender knows a
password, whose NT hash is all that is known of it here.  NTLMv1, NTLMv1 with extended session security and
NTLMv2 are understood, the LM response never counts.  Section numbers are those of MS-NLMP.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import md5
from struct import Struct, pack, unpack_from

from Crypto.Cipher import ARC4, DES
from Crypto.Hash import MD4

from rvpfarm.protocol.calls import BadRequest

#: What every message begins with.
SIGNATURE = b"NTLMSSP\0"

# flags that are negotiated (2.2.2.5)
UNICODE = 0x00000001
OEM = 0x00000002
REQUEST_TARGET = 0x00000004
SIGN = 0x00000010
SEAL = 0x00000020
NTLM = 0x00000200
ALWAYS_SIGN = 0x00008000
TARGET_IS_DOMAIN = 0x00010000
EXTENDED = 0x00080000
TARGET_INFO = 0x00800000
VERSION = 0x02000000
STRONG = 0x20000000
KEY_EXCHANGE = 0x40000000
MEDIUM = 0x80000000

#: What is granted to a client that asks for it.  Nothing is signed or sealed but a list of mechanisms.
_GRANTED = REQUEST_TARGET | SIGN | SEAL | ALWAYS_SIGN | EXTENDED | VERSION | STRONG | KEY_EXCHANGE | MEDIUM
#: What is sent to a client that asks for a version: 6.1, with the one revision of NTLM that there is.
_VERSION = bytes((6, 1, 0, 0, 0, 0, 0, 15))

#: Longest type 1, which is kept until the answer comes, and longest type 3.
GREETING_LIMIT, ANSWER_LIMIT = 1024, 16384
#: Longest name in a type 3, in octets.
_NAME_LIMIT = 1024
#: Most pairs of target information that are looked at.
_PAIRS_LIMIT = 64

_CHALLENGE_SIZE = 48
_ANSWER_SIZE = 64
_MIC_AT, _MIC_SIZE = 72, 16
_PLAIN_SIZE = 24  # of an NTLMv1 response
_PROOF_SIZE = 16
_BLOB_SIZE = 28  # of what precedes the pairs of an NTLMv2 response

# identifiers of the pairs of target information (2.2.2.1)
_END, _COMPUTER, _DOMAIN, _DNS_COMPUTER, _DNS_DOMAIN, _FLAGS, _TIME = 0, 1, 2, 3, 4, 6, 7
_HAS_MIC = 0x2

_FIELD = Struct("<HHI")
#: Where the buffers of a type 3 stand: LM, NT, domain, user, workstation, session key.
_FIELDS = (12, 20, 28, 36, 44, 52)
_PAIR = Struct("<HH")

#: From 1601, where the time of Windows begins, to 1970, in seconds.
_EPOCH_SECONDS = 11644473600

#: The hash that somebody unknown is compared with, so that he costs what others cost.
NOBODY = bytes(16)


@dataclass(frozen=True, slots=True)
class Challenge:
    """A type 2.

    @ivar nonce: eight unpredictable octets.
    @ivar target: names the server, or its domain, to the client.
    @ivar info: pairs of target information; may be empty.
    """

    flags: int
    nonce: bytes
    target: str
    info: bytes = b""


@dataclass(frozen=True, slots=True)
class Handshake:
    """A challenge that was issued, with all that its answer is judged against.

    @ivar greeting: the type 1 as received.
    @ivar challenge: the type 2 as sent.
    """

    greeting: bytes
    challenge: bytes
    nonce: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """A type 3.

    @ivar message: all of it, as received.
    @ivar key: the session key that the client made, encrypted; empty if it made none.
    @ivar has_mic: the message says that a code of its own protects it; to be believed only once the response
        proved right.
    """

    message: bytes
    flags: int
    lm: bytes
    nt: bytes
    domain: str
    user: str
    key: bytes
    has_mic: bool


@dataclass(frozen=True, slots=True)
class Session:
    """What both ends know once the client has proved itself.

    @ivar flags: what was negotiated.
    @ivar key: the exported session key.
    """

    flags: int
    key: bytes

    def sign(self, data: bytes) -> bytes:
        """The code by which the client knows that C{data} comes from us."""
        return self._code(data, b"server-to-client")

    def verify(self, data: bytes, code: bytes) -> bool:
        """Does C{data} come from the client?"""
        return hmac.compare_digest(self._code(data, b"client-to-server"), code)

    @property
    def signs(self) -> bool:
        """Can this session sign at all?"""
        return bool(self.flags & EXTENDED)

    def _code(self, data: bytes, way: bytes) -> bytes:
        """The first code of its direction, with extended session security (3.4.4.2)."""
        number = bytes(4)
        key = _md5(self.key + b"session key to %b signing key magic constant\0" % way)
        code = _hmac(key, number + data)[:8]
        if self.flags & KEY_EXCHANGE:
            part = self.key if self.flags & STRONG else self.key[: 7 if self.flags & MEDIUM else 5]
            sealing = _md5(part + b"session key to %b sealing key magic constant\0" % way)
            code = ARC4.new(sealing).encrypt(code)
        return b"\1\0\0\0" + code + number


def nt_hash(password: str) -> bytes:
    """What a server keeps in place of a password (3.3.1)."""
    return MD4.new(password.encode("utf-16-le", "surrogatepass")).digest()  # noqa: S303 (NTLM is made of it)


def message_type(data: bytes) -> int:
    """Which of the messages C{data} is.

    @raise BadRequest: it is none.
    """
    if len(data) < 16 or data[:8] != SIGNATURE:
        raise BadRequest("the NTLM message is malformed")
    return int.from_bytes(data[8:12], "little")


def parse_greeting(data: bytes) -> int:
    """The flags of a type 1; nothing else in it matters (protocol notes 9.3).

    @raise BadRequest: it is not one.
    """
    if message_type(data) != 1 or len(data) > GREETING_LIMIT:
        raise BadRequest("the NTLM message is not a type 1")
    return int.from_bytes(data[12:16], "little")


def issue(greeting: bytes, nonce: bytes, *, target: str, dns_name: str, now: float) -> Handshake:
    """Answer a type 1 with a challenge.

    Target information, which NTLMv2 needs, goes only to clients that know extended session security:
    those that do not are of a time when there was none.

    @param nonce: eight unpredictable octets.
    @param target: the NetBIOS name of the domain.
    @param dns_name: the DNS name of the domain.
    @raise BadRequest: C{greeting} is no type 1.
    """
    asked = parse_greeting(greeting)
    flags = NTLM | (asked & _GRANTED) | (UNICODE if asked & UNICODE else OEM)
    info = b""
    if asked & EXTENDED:
        flags |= TARGET_INFO | TARGET_IS_DOMAIN
        info = render_info(target, dns_name, now)
    return Handshake(greeting, render_challenge(Challenge(flags, nonce, target, info)), nonce)


def render_info(target: str, dns_name: str, now: float) -> bytes:
    """Target information: with the time in it, clients protect their answer by a code (3.1.5.1.2)."""
    name, dns = target.encode("utf-16-le"), dns_name.encode("utf-16-le")
    ticks = pack("<Q", int((now + _EPOCH_SECONDS) * 10_000_000))
    pairs = (
        (_DOMAIN, name),
        (_COMPUTER, name),
        (_DNS_DOMAIN, dns),
        (_DNS_COMPUTER, dns),
        (_TIME, ticks),
        (_END, b""),
    )
    return b"".join(_PAIR.pack(number, len(value)) + value for number, value in pairs)


def render_challenge(challenge: Challenge) -> bytes:
    """The type 2 (2.2.1.2)."""
    encoding = "utf-16-le" if challenge.flags & UNICODE else "ascii"
    name, info = challenge.target.encode(encoding, "replace"), challenge.info
    version = _VERSION if challenge.flags & VERSION else b""
    start = _CHALLENGE_SIZE + len(version)
    return b"".join(
        (
            SIGNATURE,
            pack("<I", 2),
            _FIELD.pack(len(name), len(name), start),
            pack("<I", challenge.flags),
            challenge.nonce,
            bytes(8),
            _FIELD.pack(len(info), len(info), start + len(name)),
            version,
            name,
            info,
        )
    )


def parse_answer(data: bytes) -> Answer:
    """Read a type 3 (2.2.1.3).

    @raise BadRequest: it is not one.
    """
    if message_type(data) != 3 or not _ANSWER_SIZE <= len(data) <= ANSWER_LIMIT:
        raise BadRequest("the NTLM message is not a type 3")
    flags = int.from_bytes(data[60:64], "little")
    encoding = "utf-16-le" if flags & UNICODE else "latin-1"
    lm, nt, domain, user, _, key = (_field(data, at) for at in _FIELDS)
    if max(len(domain), len(user)) > _NAME_LIMIT:
        raise BadRequest("a name in the NTLM message is too long")
    try:
        names = domain.decode(encoding), user.decode(encoding)
    except UnicodeDecodeError:
        raise BadRequest("a name in the NTLM message is not text") from None
    has_mic = len(nt) > _PLAIN_SIZE and _says_mic(nt)
    if has_mic and len(data) < _MIC_AT + _MIC_SIZE:
        raise BadRequest("the NTLM message lacks the code that it speaks of")
    return Answer(data, flags, lm, nt, *names, key, has_mic)


def judge(handshake: Handshake, answer: Answer, known: bytes) -> Session | None:
    """What C{answer} proves of somebody of whom the NT hash C{known} is known.

    @return: C{None} if it does not show that its sender knows the password.
    """
    nonce, nt = handshake.nonce, answer.nt
    if len(nt) > _PLAIN_SIZE:
        secret = _hmac(known, (_upper(answer.user) + answer.domain).encode("utf-16-le"))
        if not hmac.compare_digest(_hmac(secret, nonce + nt[_PROOF_SIZE:]), nt[:_PROOF_SIZE]):
            return None
        base = _hmac(secret, nt[:_PROOF_SIZE])
    else:
        extended = len(answer.lm) == _PLAIN_SIZE and answer.lm.endswith(bytes(16))
        extended = extended and bool(answer.flags & EXTENDED)
        asked = _md5(nonce + answer.lm[:8])[:8] if extended else nonce
        if not hmac.compare_digest(respond(known, asked), nt):
            return None
        base = MD4.new(known).digest()  # noqa: S303 (NTLM is made of it)
        if extended:
            base = _hmac(base, nonce + answer.lm[:8])
    if answer.flags & KEY_EXCHANGE and len(answer.key) == 16:
        base = ARC4.new(base).decrypt(answer.key)
    return Session(answer.flags, base)


def is_intact(handshake: Handshake, answer: Answer, session: Session) -> bool:
    """Are all three messages what their senders sent, if the client protects them (3.2.5.1.2)?"""
    if not answer.has_mic:
        return True
    message, end = answer.message, _MIC_AT + _MIC_SIZE
    blanked = message[:_MIC_AT] + bytes(_MIC_SIZE) + message[end:]
    expected = _hmac(session.key, handshake.greeting + handshake.challenge + blanked)
    return hmac.compare_digest(expected, message[_MIC_AT:end])


def respond(known: bytes, nonce: bytes) -> bytes:
    """The NTLMv1 response to C{nonce} of whoever has the NT hash C{known} (3.3.1)."""
    padded = known + bytes(5)
    return b"".join(
        DES.new(_spread(padded[at : at + 7]), DES.MODE_ECB).encrypt(nonce)  # noqa: S304 (NTLMv1 is made of it)
        for at in (0, 7, 14)
    )


def _field(data: bytes, at: int) -> bytes:
    """What the security buffer at C{at} points to.

    @raise BadRequest: it points elsewhere than behind the head and within the message.
    """
    size, _, start = _FIELD.unpack_from(data, at)
    if not size:
        return b""
    if start < _ANSWER_SIZE or start + size > len(data):
        raise BadRequest("the NTLM message points outside of itself")
    return data[start : start + size]


def _says_mic(nt: bytes) -> bool:
    """Does an NTLMv2 response say that the message carries a code?

    @raise BadRequest: it is malformed.
    """
    if len(nt) < _PROOF_SIZE + _BLOB_SIZE or nt[_PROOF_SIZE : _PROOF_SIZE + 2] != b"\1\1":
        raise BadRequest("the NTLM response is malformed")
    for number, value in _pairs(nt[_PROOF_SIZE + _BLOB_SIZE :]):
        if number == _FLAGS and len(value) == 4:
            return bool(int.from_bytes(value, "little") & _HAS_MIC)
    return False


def _pairs(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The pairs of target information, up to the last.

    @raise BadRequest: one is longer than what is there, or there are too many.
    """
    at = 0
    for _ in range(_PAIRS_LIMIT):
        if len(data) - at < _PAIR.size:
            return
        number, size = unpack_from("<HH", data, at)
        at += _PAIR.size
        if number == _END:
            return
        if at + size > len(data):
            raise BadRequest("the target information of the NTLM response is malformed")
        yield number, data[at : at + size]
        at += size
    raise BadRequest("the target information of the NTLM response has too many parts")


def _upper(name: str) -> str:
    """The name in upper case as Windows has it: each letter is one letter still."""
    return "".join(upper if len(upper := letter.upper()) == 1 else letter for letter in name)


def _spread(seven: bytes) -> bytes:
    """The DES key of 56 bits: seven of them to an octet, the lowest bit is left."""
    bits = int.from_bytes(seven, "big")
    return bytes((bits >> shift & 0x7F) << 1 for shift in range(49, -1, -7))


def _hmac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "md5")


def _md5(data: bytes) -> bytes:
    return md5(data, usedforsecurity=False).digest()
