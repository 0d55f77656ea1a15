"""What one acknowledged delivery costs a home without its sockets: C{python -m tests.bench.parts}.

The whole way of a NOTIFY is real, from the bytes that arrive to the bytes that leave, Digest, access list,
metrics and call-back included; only the sockets are not there.  For finding what to make faster.
"""

from __future__ import annotations

import cProfile
import pstats
import sys
from collections.abc import Callable
from dataclasses import replace
from os import urandom
from time import process_time, time
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed

from rvpfarm.auth.challenge import Digest, Gate
from rvpfarm.auth.connections import Connections
from rvpfarm.auth.digest import Nonces, _hash, ha1
from rvpfarm.auth.handshakes import Negotiate, Ntlm
from rvpfarm.auth.logins import make_verifiers
from rvpfarm.auth.throttle import Throttle
from rvpfarm.directory.model import Domain
from rvpfarm.directory.model import Home as HomeRecord
from rvpfarm.home.server import Home
from rvpfarm.observe.metrics import Metrics
from rvpfarm.protocol.calls import Limits
from rvpfarm.web.outgoing import Outgoing
from rvpfarm.web.server import CallFactory
from tests.support.directory import FakeDirectory, make_account, make_farm
from tests.support.homes import FakeJournal

DOMAIN = "im.bench.localhost"
PASSWORD = "bench-bench-1"
ANSWER = b"HTTP/1.1 200 Successful\r\nRVP-Notifications-Version: 0.2\r\nContent-Length: 0\r\n\r\n"


class Reactor:
    """The time, and timers that nobody waits for."""

    def seconds(self) -> float:
        """Now."""
        return time()

    def callLater(self, delay: float, function: Callable[..., object], *args: object) -> Any:
        """Any: what is needed of a delayed call."""
        return _Timer()


class _Timer:
    __slots__ = ()

    def cancel(self) -> None:
        """Nothing is to happen anyway."""

    def active(self) -> bool:
        """Never."""
        return False


class Socket:
    """A transport whose other end answers at once, or only counts what it gets."""

    def __init__(self, answer: bytes = b"") -> None:
        self.protocol: Any = None
        self.answer = answer
        self.got: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Take C{data}."""
        self.got.append(data)

    def getPeer(self) -> IPv4Address:
        """A caller on this machine."""
        return IPv4Address("TCP", "127.0.0.1", 5)

    getHost = getPeer

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """It never pauses anybody."""

    def unregisterProducer(self) -> None:
        """It never pauses anybody."""

    def pauseProducing(self) -> None:
        """It reads for ever."""

    resumeProducing = loseConnection = abortConnection = pauseProducing


class Endpoint:
    """Connects to a call-back that answers 200."""

    def __init__(self, sockets: list[Socket]) -> None:
        self._sockets = sockets

    def connect(self, factory: Any) -> Deferred[Any]:
        """A connection."""
        socket = Socket(ANSWER)
        protocol = socket.protocol = factory.buildProtocol(None)
        self._sockets.append(socket)
        protocol.makeConnection(socket)
        return succeed(protocol)


def message(sender: int, recipient: int) -> bytes:
    """The body of a NOTIFY, of about one kilobyte with its head."""
    party = "<r:contact><d:href>http://%s/instmsg/aliases/u%d</d:href><r:description>u%d</r:description></r:contact>"
    return (
        "<?xml version=\"1.0\"?><r:notification xmlns:d='DAV:' xmlns:r='http://schemas.microsoft.com/rvp/' "
        "xmlns:a='http://schemas.microsoft.com/rvp/acl/'><r:message><r:notification-from>"
        + party % (DOMAIN, sender, sender)
        + "</r:notification-from><r:notification-to>"
        + party % (DOMAIN, recipient, recipient)
        + "</r:notification-to><r:msgbody><r:mime-data><![CDATA[MIME-Version: 1.0\r\n"
        "Content-Type: text/plain; charset=UTF-8\r\nSession-Id: {3B0C7F52-91D4-4E6A-8C17-5A2E90D4B7F1}\r\n\r\n"
        + "x" * 420
        + "]]></r:mime-data></r:msgbody></r:message></r:notification>"
    ).encode()


class Caller:
    """Signs requests with Digest as rvp.c does."""

    def __init__(self, number: int, nonce: str) -> None:
        self.number, self.nonce, self.used = number, nonce, 0
        self.ha1 = ha1("MD5", f"u{number}", DOMAIN, PASSWORD)

    def request(self, method: str, whose: int, fields: str, body: bytes = b"") -> bytes:
        """The bytes of one request."""
        self.used += 1
        target = f"/instmsg/aliases/u{whose}"
        ha2 = _hash("MD5", f"{method}:{target}")
        response = _hash("MD5", f"{self.ha1}:{self.nonce}:{self.used:08x}:0a4f113b:auth:{ha2}")
        return (
            f"{method} {target} HTTP/1.1\r\nHost: {DOMAIN}\r\nRVP-Notifications-Version: 0.2\r\n"
            f"RVP-From-Principal: http://{DOMAIN}/instmsg/aliases/u{self.number}\r\n{fields}"
            f'Authorization: Digest username="u{self.number}", realm="{DOMAIN}", nonce="{self.nonce}", '
            f'uri="{target}", qop=auth, nc={self.used:08x}, cnonce="0a4f113b", response="{response}"\r\n'
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode() + body


class Box:
    """A home with everything but sockets and a disk."""

    def __init__(self, users: int) -> None:
        reactor: Any = Reactor()
        self.metrics = Metrics(CollectorRegistry(), role="home", node="home1")
        domain = Domain(DOMAIN, ("bench.localhost",))
        home = HomeRecord("home-1", "home1", "home1.bench.localhost", 80, 8081)
        farm = make_farm((domain,), (home,))
        accounts = [
            replace(
                make_account(f"{DOMAIN}/instmsg/aliases/u{number}", home),
                verifiers=make_verifiers(f"u{number}", domain, PASSWORD),
            )
            for number in range(users)
        ]
        nonces, connections = Nonces(b"k" * 32, since=0.0), Connections()
        self.sockets: list[Socket] = []
        outgoing = Outgoing(reactor, lambda host, port: Endpoint(self.sockets), metrics=self.metrics)
        self.home = Home(
            home.id,
            directory=FakeDirectory(farm, accounts),
            gate=Gate(
                nonces,
                schemes=(Negotiate(connections, None), Ntlm(connections), Digest(nonces)),
                on_failure=self.metrics.auth_failure,
                throttle=Throttle(),
            ),
            journal=FakeJournal(),
            outgoing=outgoing,
            elsewhere=lambda call: None,
            clock=reactor,
            metrics=self.metrics,
            random=urandom,
        )
        self.factory = CallFactory(
            self.home.answer, clock=reactor, limits=Limits(), metrics=self.metrics, name="home1"
        )
        self.nonces = nonces

    def connect(self) -> Any:
        """A connection of a caller."""
        protocol = self.factory.buildProtocol(None)
        socket = Socket()
        protocol.makeConnection(socket)
        return protocol, socket

    def pump(self) -> None:
        """Let every call-back answer what it got."""
        for socket in self.sockets:
            while socket.got:
                socket.got.pop()
                socket.protocol.dataReceived(socket.answer)


def main() -> None:
    """Measure, and with C{--profile} say where the time goes."""
    count = 4000
    box = Box(40)
    pairs = []
    for number in range(20):
        protocol, socket = box.connect()
        caller = Caller(number + 20, box.nonces.issue(time(), urandom(8)))
        fields = "Notification-Type: pragma/notify\r\nSubscription-Lifetime: 14400\r\n"
        protocol.dataReceived(
            caller.request(
                "SUBSCRIBE", number + 20, f"{fields}Call-Back: http://127.0.0.1:{21000 + number}/\r\n"
            )
        )
        assert b" 200 " in socket.got[0], socket.got
        protocol, socket = box.connect()
        pairs.append((protocol, socket, Caller(number, box.nonces.issue(time(), urandom(8))), number + 20))
    requests = [
        [
            (
                protocol,
                socket,
                caller.request(
                    "NOTIFY",
                    to,
                    "RVP-Ack-Type: DeepOr\r\nRVP-Hop-Count: 1\r\nContent-Type: text/xml\r\n",
                    message(caller.number, to),
                ),
            )
            for protocol, socket, caller, to in pairs
        ]
        for _ in range(count // 20)
    ]
    profile = cProfile.Profile() if "--profile" in sys.argv else None
    if profile:
        profile.enable()
    spans = []
    for start in range(0, len(requests), 10):
        begun = process_time()
        for round_ in requests[start : start + 10]:
            for protocol, _, request in round_:
                protocol.dataReceived(request)
            box.pump()
            for _, socket, _ in round_:
                assert socket.got.pop().startswith(b"HTTP/1.1 200"), socket
        spans.append((process_time() - begun) / 200)
    best = min(spans)
    if profile:
        profile.disable()
        pstats.Stats(profile).sort_stats("tottime").print_stats(45)
    print(
        f"{best * 1e6:.1f} us at best, {sorted(spans)[len(spans) // 2] * 1e6:.1f} us at the median, for an acknowledged delivery ({len(requests[0][0][2])} octets)"
    )


if __name__ == "__main__":
    main()
