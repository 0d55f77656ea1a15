"""How a farm link begins: the frames with which two members introduce and prove themselves to each other.

Both know the farm key, and neither says it; see L{rvpfarm.link.frames} for the order of things.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from hashlib import sha256

from rvpfarm.link.kinds import NUMBER, START, BadFrame, Kind, render_number

#: Octets of a handshake nonce.
NONCE_SIZE = 32
#: Octets of a proof (HMAC-SHA256).
PROOF_SIZE = 32
#: Longest name of a farm member, in octets.
NAME_LIMIT = 255
#: Largest size of a L{Hello} and of a L{Welcome}, kind octets included.
HELLO_SIZE, WELCOME_SIZE = 1 + 5 + 8 + NONCE_SIZE + 2 * (1 + NAME_LIMIT), 1 + 8 + PROOF_SIZE

_MAGIC = b"RVPL\x01"
_EDITION_SHIFT = 56


@dataclass(frozen=True, slots=True)
class Hello:
    """The caller introduces itself.

    @ivar origin: names the caller's process; the ids of its calls are unique within it.
    @ivar caller: the caller's name.
    @ivar home: the id of the home that the caller means to reach.
    """

    origin: int
    nonce: bytes
    caller: str
    home: str


@dataclass(frozen=True, slots=True)
class Challenge:
    """The home asks the caller to prove itself."""

    nonce: bytes


@dataclass(frozen=True, slots=True)
class Proof:
    """The caller proves itself."""

    proof: bytes


@dataclass(frozen=True, slots=True)
class Welcome:
    """The home proves itself and takes calls from now on.

    @ivar incarnation: counts the starts of the home; what an earlier one had in work is lost.
    @ivar edition: the latest that the home knows.
    """

    incarnation: int
    edition: int
    proof: bytes

    @property
    def standing(self) -> int:
        """Both numbers in one, as they are sent and proved; to old callers it is the incarnation."""
        return standing(self.incarnation, self.edition)


@dataclass(frozen=True, slots=True)
class Edition:
    """The latest edition that the sender knows."""

    number: int


@dataclass(frozen=True, slots=True)
class Meeting:
    """Everything that a proof is bound to: who met whom, in which roles, and when.

    A proof fits no other role, pair of names or pair of nonces, so that neither a recorded nor a
    reflected one is worth anything.
    """

    caller: str
    home: str
    origin: int
    caller_nonce: bytes
    home_nonce: bytes

    def caller_proof(self, key: bytes) -> bytes:
        """What shows the home that the caller knows the farm key."""
        return self._proof(key, b"rvpfarm link 1: caller\0", b"")

    def home_proof(self, key: bytes, standing: int) -> bytes:
        """What shows the caller that the home knows the farm key and is in this incarnation.

        @param standing: as L{Welcome.standing}.
        """
        return self._proof(key, b"rvpfarm link 1: home\0", NUMBER.pack(standing))

    def _proof(self, key: bytes, role: bytes, more: bytes) -> bytes:
        said = b"".join(
            (
                role,
                NUMBER.pack(self.origin),
                self.caller_nonce,
                self.home_nonce,
                render_name(self.caller),
                render_name(self.home),
                more,
            )
        )
        return hmac.digest(key, said, sha256)


def is_proof(given: bytes, wanted: bytes) -> bool:
    """Whether two proofs are equal, in a time that does not tell where they differ."""
    return hmac.compare_digest(given, wanted)


def render_name(name: str) -> bytes:
    """The name of a farm member or of a connection, behind its length.

    @raise ValueError: it is empty, or over L{NAME_LIMIT}.
    """
    encoded = name.encode()
    if not 0 < len(encoded) <= NAME_LIMIT:
        raise ValueError(f"a name of {len(encoded)} octets cannot be sent over a farm link")
    return b"%c%b" % (len(encoded), encoded)


def render_hello(hello: Hello) -> bytes:
    """The frame of C{hello}."""
    names = render_name(hello.caller) + render_name(hello.home)
    rest = b"".join((_MAGIC, NUMBER.pack(hello.origin), hello.nonce, names))
    return START.pack(1 + len(rest), Kind.HELLO) + rest


def render_challenge(nonce: bytes) -> bytes:
    """The frame of a L{Challenge}."""
    return START.pack(1 + len(nonce), Kind.CHALLENGE) + nonce


def render_proof(proof: bytes) -> bytes:
    """The frame of a L{Proof}."""
    return START.pack(1 + len(proof), Kind.PROOF) + proof


def standing(incarnation: int, edition: int) -> int:
    """As L{Welcome.standing}."""
    return edition << _EDITION_SHIFT | incarnation


def render_welcome(standing: int, proof: bytes) -> bytes:
    """The frame of a L{Welcome}.

    @param standing: as L{Welcome.standing}.
    """
    return START.pack(9 + len(proof), Kind.WELCOME) + NUMBER.pack(standing) + proof


def render_edition(number: int) -> bytes:
    """The frame of an L{Edition}."""
    return render_number(Kind.EDITION, number)


def parse_hello(data: bytes, at: int, stop: int) -> Hello:
    """The L{Hello} in a frame.

    @raise BadFrame: it is malformed.
    """
    if data[at : at + len(_MAGIC)] != _MAGIC:
        raise BadFrame("the other end does not speak version 1 of the farm link")
    at += len(_MAGIC)
    (origin,) = NUMBER.unpack_from(data, at)
    nonce = data[at + 8 : at + 8 + NONCE_SIZE]
    caller, at = _parse_name(data, at + 8 + NONCE_SIZE, stop)
    home, at = _parse_name(data, at, stop)
    if at != stop:
        raise BadFrame("something follows the names of a hello")
    return Hello(origin, nonce, caller, home)


def _parse_name(data: bytes, at: int, stop: int) -> tuple[str, int]:
    if at >= stop or not data[at] or at + 1 + data[at] > stop:
        raise BadFrame("a hello without two names")
    end = at + 1 + data[at]
    return data[at + 1 : end].decode(), end


def parse_challenge(data: bytes, at: int, stop: int) -> Challenge:
    """The L{Challenge} in a frame.

    @raise BadFrame: it is malformed.
    """
    if stop - at != NONCE_SIZE:
        raise BadFrame("a challenge of the wrong size")
    return Challenge(data[at:stop])


def parse_proof(data: bytes, at: int, stop: int) -> Proof:
    """The L{Proof} in a frame.

    @raise BadFrame: it is malformed.
    """
    if stop - at != PROOF_SIZE:
        raise BadFrame("a proof of the wrong size")
    return Proof(data[at:stop])


def parse_welcome(data: bytes, at: int, stop: int) -> Welcome:
    """The L{Welcome} in a frame.

    @raise BadFrame: it is malformed.
    """
    if stop - at != 8 + PROOF_SIZE:
        raise BadFrame("a welcome of the wrong size")
    (number,) = NUMBER.unpack_from(data, at)
    edition = number >> _EDITION_SHIFT
    return Welcome(number - (edition << _EDITION_SHIFT), edition, data[at + 8 : stop])
