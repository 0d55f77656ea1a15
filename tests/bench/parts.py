"""What a home's work costs without its sockets: C{python -m tests.bench.parts}.

The whole way of a request is real, from the bytes that arrive to the bytes that leave, Digest, access list,
metrics and call-backs included; only the sockets and the disk are not there.  For finding what to make faster:
the least of many short spans of CPU time is told, which other work on the machine disturbs little.
"""

from __future__ import annotations

import cProfile
import pstats
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from os import urandom
from time import process_time, time
from typing import Any, TypeVar

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
from rvpfarm.protocol.calls import Limits, Reply
from rvpfarm.web.outgoing import Outgoing
from rvpfarm.web.server import CallFactory
from tests.support.directory import FakeDirectory, make_account, make_farm
from tests.support.homes import FakeJournal

DOMAIN = "im.bench.localhost"
PASSWORD = "bench-bench-1"
ANSWER = b"HTTP/1.1 200 Successful\r\nRVP-Notifications-Version: 0.2\r\nContent-Length: 0\r\n\r\n"


class Reactor:
    """The time, and timers that nobody waits for, but for what is to be done soon."""

    seconds = staticmethod(time)  # as the real one has it

    def __init__(self) -> None:
        self._soon: list[tuple[Callable[..., object], tuple[object, ...]]] = []

    def callLater(self, delay: float, function: Callable[..., object], *args: object) -> Any:
        """Any: what is needed of a delayed call."""
        if not delay:
            self._soon.append((function, args))
        return _Timer()

    def turn(self) -> bool:
        """Do what was to be done soon; whether there was anything."""
        soon, self._soon = self._soon, []
        for function, args in soon:
            function(*args)
        return bool(soon)


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


class Person:
    """Somebody with a connection to the home."""

    def __init__(self, box: Box, number: int) -> None:
        self.number = number
        self.protocol = box.factory.buildProtocol(None)
        self.socket = Socket()
        self.protocol.makeConnection(self.socket)
        self.caller = Caller(number, box.nonces.issue(time(), urandom(8)))

    def ask(self, request: bytes) -> None:
        """Send C{request}, which is answered at once and well."""
        self.protocol.dataReceived(request)
        assert self.socket.got.pop().startswith(b"HTTP/1.1 2"), request

    def sign_in(self) -> None:
        """Have notifications brought here."""
        fields = "Notification-Type: pragma/notify\r\nSubscription-Lifetime: 14400\r\n"
        call_back = f"Call-Back: http://127.0.0.1:{21000 + self.number}/\r\n"
        self.ask(self.caller.request("SUBSCRIBE", self.number, fields + call_back))

    def watch(self, whom: int) -> None:
        """Have changes of u<whom> told."""
        fields = "Notification-Type: update/propchange\r\nSubscription-Lifetime: 14400\r\n"
        call_back = f"Call-Back: http://{DOMAIN}/instmsg/aliases/u{self.number}\r\n"
        self.ask(self.caller.request("SUBSCRIBE", whom, fields + call_back))

    def message_to(self, whom: int) -> bytes:
        """A message that is to be acknowledged."""
        fields = "RVP-Ack-Type: DeepOr\r\nRVP-Hop-Count: 1\r\nContent-Type: text/xml\r\n"
        return self.caller.request("NOTIFY", whom, fields, message(self.number, whom))

    def change(self, state: str) -> bytes:
        """A change of presence."""
        body = (
            "<?xml version=\"1.0\"?><d:propertyupdate xmlns:d='DAV:' "
            "xmlns:r='http://schemas.microsoft.com/rvp/'><d:set><d:prop><r:state><r:leased-value><r:value>"
            f"<r:{state}/></r:value><r:default-value><r:offline/></r:default-value><d:timeout>1200</d:timeout>"
            "</r:leased-value></r:state></d:prop></d:set></d:propertyupdate>"
        ).encode()
        return self.caller.request("PROPPATCH", self.number, "Content-Type: text/xml\r\n", body)


class Box:
    """A home with everything but sockets and a disk."""

    def __init__(self, users: int) -> None:
        self.reactor = Reactor()
        reactor: Any = self.reactor
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

    def pump(self) -> int:
        """Let every call-back answer what it gets, until none gets anything; how many were answered."""
        count = 0
        while True:
            for socket in self.sockets:
                while socket.got:
                    socket.got.pop()
                    socket.protocol.dataReceived(socket.answer)
                    count += 1
            if not self.reactor.turn():
                return count


_Work = TypeVar("_Work")


def least(work: Callable[[_Work], None], items: Sequence[_Work], operations: int) -> float:
    """The microseconds of CPU that one operation took where it took least.

    @param operations: how many of them C{work} does with one of C{items}.
    """
    best = float("inf")
    for item in items:
        begun = process_time()
        work(item)
        best = min(best, process_time() - begun)
    return best / operations * 1e6


def deliveries(rounds: int = 120, pairs: int = 40, messages: int = 5) -> dict[str, float]:
    """A message to a call-back, acknowledged, and its sender answered; and the edge's part of that."""
    box = Box(2 * pairs)
    people = [Person(box, number) for number in range(2 * pairs)]
    for recipient in people[pairs:]:
        recipient.sign_in()

    def batch() -> list[list[tuple[Person, bytes]]]:
        return [
            [(sender, sender.message_to(sender.number + pairs)) for sender in people[:pairs]]
            for _ in range(messages)
        ]

    def deliver(work: list[list[tuple[Person, bytes]]]) -> None:
        for together in work:
            for sender, request in together:
                sender.protocol.dataReceived(request)
            box.pump()
            for sender, _ in together:
                assert sender.socket.got.pop().startswith(b"HTTP/1.1 200")

    def ask(work: list[list[tuple[Person, bytes]]]) -> None:
        for together in work:
            for sender, request in together:
                sender.protocol.dataReceived(request)
                sender.socket.got.clear()

    told = {"delivery": least(deliver, [batch() for _ in range(rounds)], pairs * messages)}
    answer = Reply(200)
    for person in people:
        person.protocol._answer = lambda call: answer
    told["of which the edge"] = least(ask, [batch() for _ in range(rounds)], pairs * messages)
    return told


def notifications(owners: int = 15, watchers: int = 200) -> dict[str, float]:
    """One of the notifications by which a change of presence is told to so many watchers."""
    box = Box(owners + watchers)
    people = [Person(box, number) for number in range(owners + watchers)]
    for person in people:
        person.sign_in()
    for owner in people[:owners]:
        owner.ask(owner.change("online"))
        for person in people[owners:]:
            person.watch(owner.number)
    box.pump()

    def tell(change: tuple[Person, bytes]) -> None:
        owner, request = change
        owner.ask(request)
        assert box.pump() == watchers

    # no more than are told without a pause
    changes = [
        (owner, owner.change(state)) for state in ("busy", "away", "idle") for owner in people[:owners]
    ]
    return {"notification": least(tell, changes, watchers)}


def main() -> None:
    """Measure, and with C{--profile} say where the time goes."""
    profile = cProfile.Profile() if "--profile" in sys.argv else None
    if profile:
        profile.enable()
    told = {**deliveries(), **notifications()}
    if profile:
        profile.disable()
        pstats.Stats(profile).sort_stats("tottime").print_stats(45)
    for name, microseconds in told.items():
        print(f"{name}: {microseconds:.1f} us")


if __name__ == "__main__":
    main()
