"""Digest credentials: what a client sends, whether they fit, and nonces that nobody has to store.

RFC 7616 with C{qop=auth} alone, MD5 (RFC 2617) and SHA-256, as clients of RVP really write it (protocol
notes 9.4).
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from rvpfarm.directory.model import Verifier
from rvpfarm.protocol.calls import BadRequest

Algorithm = Literal["MD5", "SHA-256"]

#: The verifier scheme of each algorithm.
SCHEMES: dict[Algorithm, str] = {"MD5": "digest-md5", "SHA-256": "digest-sha-256"}

_HEXADECIMALS = {"MD5": 32, "SHA-256": 64}
_ALGORITHMS: dict[str, Algorithm] = {"md5": "MD5", "sha-256": "SHA-256"}

_PART = re.compile(
    r"""[ \t]* ([A-Za-z0-9!#$%&'*+.^_`|~-]+) [ \t]*=[ \t]*
        (?: "((?:[^"\\] | \\.)*)" | ([^\s",;=]+) )
        [ \t]* (?:,|$)""",
    re.VERBOSE | re.DOTALL,
)
_EMPTY_PART = re.compile(r"[ \t]*,")
_ESCAPED = re.compile(r'\\(["\\])')
_HEX = re.compile(r"[0-9a-fA-F]+")
_LONGEST = 4096

#: What every answer to our challenges has, and in how many spellings clients are remembered to write it.
_NEEDED = frozenset(("username", "realm", "nonce", "uri", "response", "cnonce", "nc", "qop"))
_TEXTS = ("username", "realm", "nonce", "uri", "cnonce", "nc", "response")
_SPELLINGS_KEPT = 16

#: How many hashes of what is asked for are kept, and of how long a URI at most.
_KEPT, _KEPT_LENGTH = 8192, 256


# Made once per call: a frozen dataclass costs four times as much.
@dataclass(slots=True)
class DigestAnswer:
    """What a client answered to a challenge.

    @ivar username: exactly as it was hashed.
    @ivar nc: the nonce count.
    @ivar count: the nonce count as it was hashed.
    @ivar response: lower-case hexadecimal text.
    """

    username: str
    realm: str
    nonce: str
    uri: str
    cnonce: str
    nc: int
    count: str
    response: str
    algorithm: Algorithm


def parse_authorization(value: bytes) -> DigestAnswer:
    """Read the value of an C{Authorization} header whose scheme is Digest.

    C{algorithm}, C{qop} and C{nc} may be quoted or not, in any order; C{opaque} is not asked for.

    @raise BadRequest: it is not an answer to one of our challenges.
    """
    usual = _recognise(value)
    if usual is not None:
        return usual
    scheme, _, text = value.strip().partition(b" ")
    if scheme.lower() != b"digest" or len(value) > _LONGEST:
        raise BadRequest("the Digest credentials are malformed")
    try:
        parts = _parts(text.decode())
    except UnicodeDecodeError:
        raise BadRequest("the Digest credentials are not UTF-8") from None
    try:
        algorithm = _ALGORITHMS[parts.get("algorithm", "MD5").lower()]
        username, realm, nonce, uri = parts["username"], parts["realm"], parts["nonce"], parts["uri"]
        response, cnonce, count = parts["response"].lower(), parts["cnonce"], parts["nc"]
        if parts["qop"].lower() != "auth":
            raise BadRequest("the quality of protection must be auth")
    except KeyError as missing:
        raise BadRequest(f"the Digest credentials lack or misuse {missing.args[0]}") from None
    if len(count) != 8 or not _HEX.fullmatch(count) or int(count, 16) == 0:
        raise BadRequest("the nonce count is not eight hexadecimal digits")
    if len(response) != _HEXADECIMALS[algorithm] or not _HEX.fullmatch(response):
        raise BadRequest("the Digest response is not a hash")
    _learn(parts, value)
    return DigestAnswer(username, realm, nonce, uri, cnonce, int(count, 16), count, response, algorithm)


def ha1(algorithm: Algorithm, username: str, realm: str, password: str) -> str:
    """The hash that a server keeps in place of a password (RFC 7616 3.4.2)."""
    return _hash(algorithm, f"{username}:{realm}:{password}")


def ha2(algorithm: Algorithm, method: bytes, uri: str) -> str:
    """The hash of what is asked for (RFC 7616 3.4.3); the same is asked for again and again."""
    return (_ha2 if len(uri) <= _KEPT_LENGTH else _ha2.__wrapped__)(algorithm, method, uri)


@lru_cache(maxsize=_KEPT)
def _ha2(algorithm: Algorithm, method: bytes, uri: str) -> str:
    return _hash(algorithm, f"{method.decode('latin-1')}:{uri}")


def response(answer: DigestAnswer, method: bytes, secret: str) -> str:
    """The response that C{answer} ought to carry (RFC 7616 3.4.1).

    @param secret: the L{ha1} of the user.
    """
    hashed = ha2(answer.algorithm, method, answer.uri)
    return _hash(answer.algorithm, f"{secret}:{answer.nonce}:{answer.count}:{answer.cnonce}:auth:{hashed}")


def find_verifier(answer: DigestAnswer, verifiers: Sequence[Verifier]) -> Verifier | None:
    """The verifier that belongs to the name, realm and algorithm of C{answer}."""
    scheme = SCHEMES[answer.algorithm]
    for verifier in verifiers:
        if (
            verifier.username == answer.username
            and verifier.scheme == scheme
            and verifier.realm == answer.realm
        ):
            return verifier
    return None


def verify(answer: DigestAnswer, method: bytes, verifiers: Sequence[Verifier]) -> bool:
    """Do these credentials prove that their sender knows the password?"""
    return fits(answer, method, find_verifier(answer, verifiers))


def fits(answer: DigestAnswer, method: bytes, verifier: Verifier | None) -> bool:
    """The same, once it is known what they are to be compared with.

    It takes the same time whether there is a verifier or not.
    """
    secret = "0" * _HEXADECIMALS[answer.algorithm] if verifier is None else verifier.secret
    expected = response(answer, method, secret)
    return hmac.compare_digest(expected, answer.response) and verifier is not None


#: How far ahead the clock of another member may be, in milliseconds, before its nonces count as stale.
CLOCK_DIFFERENCE = 5000

#: How far behind the highest count of a nonce another may come in.
_WINDOW = 64


class Verdict(enum.Enum):
    """What a nonce and its count are worth."""

    FRESH = "fresh"
    STALE = "stale"
    FORGED = "forged"
    REPLAYED = "replayed"


@dataclass(slots=True)
class _Use:
    """How far the counts of one nonce have come.

    @ivar issued: when it was issued, in milliseconds.
    @ivar seen: bit C{n} is set when the count C{highest - n} was used.
    """

    issued: int
    highest: int
    seen: int


class Nonces:
    """Nonces that carry their own time and signature, so that any member of the farm can judge them.

    Only their use is remembered, and only here.  Each count of a nonce is good once; counts may arrive
    out of order within a window of 64.  When the memory is full the oldest nonce is forgotten, and
    everything issued before it counts as stale from then on.
    """

    def __init__(
        self,
        key: bytes,
        *,
        lifetime_seconds: float = 300.0,
        remembered: int = 100000,
        since: float = 0.0,
        accepted: Sequence[bytes] = (),
    ) -> None:
        """
        @param key: signs; the same throughout the farm.
        @param accepted: keys with which other members may sign still, or already.
        @param lifetime_seconds: how long a nonce may be used.
        @param remembered: most nonces whose use is remembered.
        @param since: nonces issued before are stale, for their use may have been forgotten: the time at
            which the process started.
        """
        self._keys = (key, *(other for other in accepted if other != key))
        self._lifetime = int(lifetime_seconds * 1000)
        self._remembered = remembered
        self._floor = int(since * 1000)
        self._uses: dict[str, _Use] = {}

    def __len__(self) -> int:
        """How many nonces are remembered."""
        return len(self._uses)

    def issue(self, now: float, random8: bytes) -> str:
        """A new nonce: hexadecimal text, since some clients split at commas and drop escapes."""
        stamp = b"%012x%s" % (int(now * 1000), random8.hex().encode())
        return (stamp + _sign(self._keys[0], stamp)).decode()

    def judge(self, nonce: str, nc: int, now: float) -> Verdict:
        """Use the count C{nc} of C{nonce}, if it may still be used.

        To be asked only once the credentials proved right, so that nobody else can use counts up or
        fill the memory.
        """
        use = self._uses.get(nonce)  # whose signature was looked at when it was used first
        issued = self._issued(nonce) if use is None else use.issued
        if issued is None:
            return Verdict.FORGED
        at = int(now * 1000)
        if not at - self._lifetime <= issued <= at + CLOCK_DIFFERENCE:
            return Verdict.STALE
        if use is None:
            if issued < self._floor:
                return Verdict.STALE
            self._uses[nonce] = _Use(issued, nc, 1)
            self._forget(at)
            return Verdict.FRESH
        return _count(use, nc)

    def _forget(self, at: int) -> None:
        """Drop what is too old to matter, and the oldest when there is too much."""
        while self._uses:
            oldest = next(iter(self._uses))
            issued = self._uses[oldest].issued
            if len(self._uses) <= self._remembered and issued >= at - self._lifetime:
                break
            del self._uses[oldest]
            self._floor = max(self._floor, issued + 1)

    def _issued(self, nonce: str) -> int | None:
        """When the farm issued C{nonce}, in milliseconds; C{None} if it did not."""
        stamp = nonce[:28].encode()
        if len(nonce) != 60:
            return None
        given = nonce[28:].encode()
        if not any(hmac.compare_digest(_sign(key, stamp), given) for key in self._keys):
            return None
        return int(stamp[:12], 16)


def _sign(key: bytes, stamp: bytes) -> bytes:
    """The signature of a time and its random part."""
    return hmac.digest(key, stamp, "sha256")[:16].hex().encode()


def _count(use: _Use, nc: int) -> Verdict:
    """Use the count C{nc} of a nonce that was used before."""
    ahead = nc - use.highest
    if ahead > 0:
        use.seen = 1 if ahead >= _WINDOW else (use.seen << ahead | 1) & ((1 << _WINDOW) - 1)
        use.highest = nc
        return Verdict.FRESH
    if -ahead >= _WINDOW:  # looked at first, for a shift by billions takes memory by the hundred megabytes
        return Verdict.REPLAYED
    bit = 1 << -ahead
    if use.seen & bit:
        return Verdict.REPLAYED
    use.seen |= bit
    return Verdict.FRESH


@dataclass(frozen=True, slots=True)
class _Spelling:
    """One order of pairs, as a pattern of what they look like when nothing in them is out of the ordinary.

    @ivar places: which groups of C{pattern} hold what a L{DigestAnswer} says as text, in its order.
    """

    pattern: re.Pattern[str]
    places: tuple[int, ...]


# A client writes its pairs in one order for ever.  These were met; a tenth of the cost of L{_parts}.
_spellings: list[_Spelling] = []


def _recognise(value: bytes) -> DigestAnswer | None:
    """What C{value} says if it is written like one that L{parse_authorization} has understood."""
    if len(value) > _LONGEST or not value.isascii():
        return None
    text = value.decode("ascii")
    if "\\" in text:  # escapes are rare; without them a quoted value goes on to the next quote
        return None
    for place, spelling in enumerate(_spellings):
        match = spelling.pattern.fullmatch(text)
        if match is None:
            continue
        if place:
            _spellings.insert(0, _spellings.pop(place))
        username, realm, nonce, uri, cnonce, count, response = match.group(*spelling.places)
        number = int(count, 16)
        if not number:
            return None
        return DigestAnswer(username, realm, nonce, uri, cnonce, number, count, response, "MD5")
    return None


def _learn(parts: dict[str, str], value: bytes) -> None:
    """Recognise the spelling of C{value} from now on; of MD5 alone, which is what clients have."""
    if not parts.keys() >= _NEEDED or parts.get("algorithm", "MD5") != "MD5" or not value.isascii():
        return
    text = value.decode("ascii")
    pattern = ["Digest "]
    for number, (name, content) in enumerate(parts.items()):
        quote = '"' if f'{name}="{content}"' in text else ""
        inside = _SHAPES.get(name, r'[^"]*' if quote else r'[^\s",;=]+')
        if name in ("qop", "algorithm"):
            inside = re.escape(content)
        named = f"(?P<{name}>{inside})" if name in _NEEDED else inside
        pattern.append(f"{', ?' if number else ''}{re.escape(name)}={quote}{named}{quote}")
    made = re.compile("".join(pattern), re.ASCII)
    if made.fullmatch(text):  # it is written as plainly as that
        places = tuple(made.groupindex[name] for name in _TEXTS)
        _spellings.insert(0, _Spelling(made, places))
        del _spellings[_SPELLINGS_KEPT:]


#: What is in the pairs whose form is known.
_SHAPES = {"nc": r"[0-9a-fA-F]{8}", "response": r"[0-9a-f]{32}"}


def _parts(text: str) -> dict[str, str]:
    """The C{name=value} pairs of a header, names in lower case.

    @raise BadRequest: it is no list of pairs, or one is repeated.
    """
    parts: dict[str, str] = {}
    at = 0
    while at < len(text):
        match = _PART.match(text, at)
        if match is None:
            match = _EMPTY_PART.match(text, at)
            if match is None:
                raise BadRequest("the Digest credentials are malformed")
            at = match.end()
            continue
        name = match[1].lower()
        if name in parts:
            raise BadRequest(f"the Digest credentials repeat {name}")
        # FABRIK\petra is sent with one backslash by some clients and with two by others
        parts[name] = match[3] if match[2] is None else _ESCAPED.sub(r"\1", match[2])
        at = match.end()
    return parts


def _hash(algorithm: Algorithm, text: str) -> str:
    """The hash of C{text} in lower-case hexadecimals."""
    octets = text.encode()
    if algorithm == "MD5":
        return hashlib.md5(octets, usedforsecurity=False).hexdigest()  # RFC 2617 has nothing else
    return hashlib.sha256(octets).hexdigest()
