"""Proving who we are: Digest (RFC 7616) with MD5 and SHA-256, as a client does it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

#: The strongest first.
_ALGORITHMS = {"SHA-256": hashlib.sha256, "MD5": hashlib.md5}

_PARAMETER = re.compile(
    r"""\s*([!#$%&'*+.^_`|~A-Za-z0-9-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))\s*(?:,|$)"""
)

#: Servers whose last challenge is kept.
_MOST_SERVERS = 64


@dataclass(frozen=True, slots=True)
class Challenge:
    """One Digest challenge that can be met.

    @ivar algorithm: C{"SHA-256"} or C{"MD5"}.
    @ivar named: the challenge named the algorithm, so that the answer has to.
    @ivar stale: the password was right, only the nonce is too old.
    """

    realm: str
    nonce: str
    algorithm: str
    named: bool
    opaque: str | None
    stale: bool


def parse_challenge(line: bytes) -> Challenge | None:
    """What one C{WWW-Authenticate} line offers; C{None} when it is nothing that can be met here."""
    scheme, _, rest = line.decode("utf-8", "replace").strip().partition(" ")
    if scheme.lower() != "digest":
        return None
    found: dict[str, str] = {}
    at = 0
    while at < len(rest):
        match = _PARAMETER.match(rest, at)
        if match is None:
            return None
        quoted, token = match[2], match[3]
        found[match[1].lower()] = token if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        at = match.end()
    algorithm = found.get("algorithm", "MD5").upper()
    ways = [way.strip().lower() for way in found.get("qop", "").split(",")]
    if algorithm not in _ALGORITHMS or "auth" not in ways or "nonce" not in found or "realm" not in found:
        return None
    return Challenge(
        found["realm"],
        found["nonce"],
        algorithm,
        "algorithm" in found,
        found.get("opaque"),
        found.get("stale", "").lower() == "true",
    )


def choose(lines: Iterable[bytes]) -> Challenge | None:
    """The strongest challenge among C{lines} that can be met."""
    offers = [challenge for challenge in map(parse_challenge, lines) if challenge is not None]
    order = list(_ALGORITHMS)
    return min(offers, key=lambda challenge: order.index(challenge.algorithm), default=None)


@dataclass(slots=True)
class _Held:
    """A challenge that is in use, and how often it was."""

    challenge: Challenge
    count: int = 0


class SignIn:
    """Signs the requests of one user.

    A nonce that a server has issued is used again for later requests, each with the next count, so
    that only the first request costs an extra round trip.
    """

    def __init__(self, usernames: Callable[[str], str], password: str, new_cnonce: Callable[[], str]) -> None:
        """
        @param usernames: the name by which the user signs in to a realm.
        @param new_cnonce: a fresh unpredictable word.
        """
        self._usernames = usernames
        self._password = password
        self._new_cnonce = new_cnonce
        self._held: dict[str, _Held] = {}

    def adopt(self, server: str, challenge: Challenge) -> None:
        """Meet C{challenge} in what is sent to C{server} from now on."""
        self._held.pop(server, None)
        while len(self._held) >= _MOST_SERVERS:
            del self._held[next(iter(self._held))]
        self._held[server] = _Held(challenge)

    def authorization(self, server: str, method: str, uri: str) -> bytes | None:
        """The C{Authorization} of one request; C{None} while C{server} has not challenged us.

        @param uri: the target of the request line, as it is sent.
        """
        held = self._held.get(server)
        if held is None:
            return None
        held.count += 1
        challenge = held.challenge
        username = self._usernames(challenge.realm)
        cnonce = self._new_cnonce()
        count = f"{held.count:08x}"
        a1 = _digest(challenge.algorithm, f"{username}:{challenge.realm}:{self._password}")
        a2 = _digest(challenge.algorithm, f"{method}:{uri}")
        response = _digest(challenge.algorithm, f"{a1}:{challenge.nonce}:{count}:{cnonce}:auth:{a2}")
        parts = [
            f"username={_quoted(username)}",
            f"realm={_quoted(challenge.realm)}",
            f"nonce={_quoted(challenge.nonce)}",
            f"uri={_quoted(uri)}",
            "qop=auth",
            f"nc={count}",
            f"cnonce={_quoted(cnonce)}",
            f"response={_quoted(response)}",
        ]
        if challenge.named:
            parts.append(f"algorithm={challenge.algorithm}")
        if challenge.opaque is not None:
            parts.append(f"opaque={_quoted(challenge.opaque)}")
        return b"Digest " + ", ".join(parts).encode()


def _digest(algorithm: str, text: str) -> str:
    return _ALGORITHMS[algorithm](text.encode(), usedforsecurity=False).hexdigest()


def _quoted(text: str) -> str:
    """C{text} as a quoted string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
