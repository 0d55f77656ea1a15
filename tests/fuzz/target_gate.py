"""The gate of a home: whatever credentials come in whatever order, only a password opens it.

An input is a conversation: one C{Authorization} after the other, on one connection.  Some of them are
abbreviated, so that what is damaged lies under the base 64 and not above it, and one stands for somebody who
knows the password and answers the last challenge as he should.
"""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from dataclasses import replace
from struct import pack

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from rvpfarm.auth.challenge import Digest, Gate, Identity, Scheme
from rvpfarm.auth.connections import Connections
from rvpfarm.auth.digest import Nonces
from rvpfarm.auth.handshakes import Negotiate, Ntlm
from rvpfarm.auth.logins import make_verifiers
from rvpfarm.auth.negotiate import BadTicket, Ticket
from rvpfarm.auth.ntlm import SIGNATURE, nt_hash
from rvpfarm.auth.throttle import Throttle
from rvpfarm.directory.model import Domain
from rvpfarm.directory.names import names_of
from rvpfarm.protocol.address import parse_target
from rvpfarm.protocol.calls import Busy, Call, Refusal, Unproven
from tests.auth.test_digest import CURL, MIRANDA
from tests.fuzz import target_negotiate, target_ntlm
from tests.support.directory import FakeDirectory, make_account, make_farm

#: Between two credentials.
NEXT = b"|;|"
#: What an abbreviated one begins with: NTLM or Negotiate, and the octets of its token.
NTLM, NEGOTIATE = b"N:", b"G:"
#: The right answer to the last challenge.
RIGHT = b"RIGHT"
#: No credentials at all.
NOTHING = b"-"
#: A conversation has no more parts.
MOST = 12

#: Another one than that of the targets whose seeds are used here.
PASSWORD = "Green-Drum-52"
PETRA = "http://im.fabrik.example/instmsg/aliases/petra"
FABRIK = Domain("im.fabrik.example", ("fabrik.example",), ("imsrv",), "FABRIK")
FARM = make_farm([FABRIK], schemes="negotiate ntlm digest-md5 digest-sha-256")
NAMES = names_of(FARM)
TARGET = parse_target(b"/instmsg/aliases/petra", b"im.fabrik.example", NAMES)
DIRECTORY = FakeDirectory(
    FARM,
    [
        replace(
            make_account(f"im.fabrik.example/instmsg/aliases/{alias}", "home-1", enabled=alias != "olga"),
            verifiers=make_verifiers(alias, FABRIK, PASSWORD, nt=alias != "tomasz"),
        )
        for alias in ("petra", "tomasz", "olga")
    ],
)
REMEMBERED = dict(DIRECTORY.remembered)

TOKENS = (
    *(
        NEXT,
        NTLM,
        NEGOTIATE,
        RIGHT,
        NOTHING,
        NEXT + RIGHT + NEXT + NOTHING,
        b"NTLM ",
        b"Negotiate ",
        b"Digest ",
        b"Basic ",
    ),
    *(
        b"TlRMTVNTUAABAAAA",
        b"TlRMTVNTUAADAAAA",
        b"=",
        b"==",
        b"YII",
        b"petra",
        b"tomasz",
        b"olga",
        b"\xff",
        b"-",
    ),
    *target_ntlm.TOKENS[:12],
    *target_negotiate.TOKENS[:12],
)


class _NoTickets:
    """Takes no ticket for right."""

    def accept(self, token: bytes) -> Deferred[Ticket]:
        """Refuse it."""
        return fail(BadTicket())


def seeds() -> list[bytes]:
    """Conversations of clients, some of which lead somewhere."""
    greeting, *_, plain = (seed for seed in target_ntlm.seeds() if seed.startswith(SIGNATURE))
    blobs = [NTLM + seed for seed in target_ntlm.seeds()]
    wrapped = [NEGOTIATE + seed for seed in target_negotiate.seeds()]
    talks = [(NTLM + greeting, RIGHT, NOTHING), (NEGOTIATE + greeting, RIGHT, NOTHING, NTLM + plain, NOTHING)]
    talks += [(NTLM + greeting, blob, RIGHT, NOTHING) for blob in blobs]
    talks += [(token, wrapped[3], NOTHING) for token in wrapped]
    talks += [(MIRANDA, CURL, NOTHING), (b"NTLM " + b64encode(greeting), RIGHT, b"Basic cGV0cmE6eA==")]
    return [NEXT.join(talk) for talk in talks]


def fuzz_one(data: bytes) -> None:
    """Hold the conversation C{data} with a gate."""
    DIRECTORY.asked.clear()  # it forgets nothing by itself
    DIRECTORY.remembered = dict(REMEMBERED)
    talk = Talk()
    for part in data.split(NEXT)[:MOST]:
        talk.go_on(part)


class Talk:
    """One conversation.

    @ivar opened: the right answer was given.
    """

    def __init__(self) -> None:
        self.opened = False
        self._challenge = b""
        self._connections = Connections()
        nonces = Nonces(b"k" * 32)
        schemes: list[Scheme] = [
            Negotiate(self._connections, _NoTickets()),
            Ntlm(self._connections),
            Digest(nonces),
        ]
        self._gate = Gate(nonces, schemes=schemes, throttle=Throttle())

    def go_on(self, part: bytes) -> bool:
        """Make the next call; whether it was let in."""
        fields = {b"rvp-from-principal": PETRA.encode()}
        if part == RIGHT and self._challenge:
            fields[b"authorization"] = b"NTLM " + b64encode(_right(self._challenge))
            self.opened = True
        elif part.startswith((NTLM, NEGOTIATE)):
            scheme = b"NTLM " if part.startswith(NTLM) else b"Negotiate "
            fields[b"authorization"] = scheme + b64encode(part[2:])
        elif part != NOTHING:
            fields[b"authorization"] = part.translate(None, b"\r\n\0").strip()
        came = self._call(Call(b"PROPFIND", b"/", fields, peer="192.0.2.1", connection="r1/1"))
        if isinstance(came, Identity):
            assert self.opened, "somebody without the password got in"
            assert came.proof == "ntlm"
            assert came.principal is not None
            assert came.principal.url == PETRA
        else:
            self._refused(came)
        assert len(self._connections) <= 1
        return isinstance(came, Identity)

    def _call(self, call: Call) -> Identity | Refusal:
        """Who makes it, or why it is refused."""
        try:
            found = self._gate.identify(
                call, TARGET, FARM, NAMES, DIRECTORY, 1000.0, lambda size: b"12345678"
            )
        except Refusal as refusal:
            return refusal
        if isinstance(found, Identity):
            return found
        found.addErrback(_refusal)
        results: list[Identity | Refusal] = []
        found.addCallback(results.append)
        (result,) = results  # nothing here takes time
        return result

    def _refused(self, refusal: Refusal) -> None:
        """It must be one of those that the gate names, and lead on."""
        assert refusal.status in (400, 401, 403, 503), refusal.status
        assert refusal.status != 503 or isinstance(refusal, Busy)
        lines = [line for name, line in refusal.headers if name == b"WWW-Authenticate"]
        assert bool(lines) == isinstance(refusal, Unproven)
        assert not any(b"\r" in line or b"\n" in line for line in lines)
        for line in lines:
            scheme, _, token = line.partition(b" ")
            if scheme == b"NTLM" and token:
                self._challenge = b64decode(token)


def _refusal(failure: Failure) -> Refusal:
    """The refusal that came later; anything else is raised, and was not expected."""
    failure.trap(Refusal)
    refusal = failure.value
    assert isinstance(refusal, Refusal)
    return refusal


def _right(challenge: bytes) -> bytes:
    """The answer to an NTLM challenge of petra, who knows the password."""
    nonce, blob = challenge[24:32], b"\1\1" + bytes(30)
    user = "petra".encode("utf-16-le")
    secret = hmac.digest(nt_hash(PASSWORD), "PETRA".encode("utf-16-le"), "md5")
    nt = hmac.digest(secret, nonce + blob, "md5") + blob
    fields, payload = b"", b""
    for value in (b"", nt, b"", user, b"", b""):
        fields += pack("<HHI", len(value), len(value), 64 + len(payload))
        payload += value
    return SIGNATURE + pack("<I", 3) + fields + pack("<I", 1) + payload
