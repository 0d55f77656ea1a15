"""What a client program does on the network: it calls with Digest credentials, and it is called back.

Nothing here knows what calls mean; L{tests.simulation.people} does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from rvpfarm.protocol.calls import Call, Limits
from rvpfarm.web.reader import RequestReader
from rvpfarm.web.responses import Response, ResponseReader
from tests.simulation.internet import End, Host, Internet
from tests.simulation.timeline import Process
from tests.support.reckoning import digest_response

#: How long a client waits for a connection, and for an answer (librvp's 30 s).
CONNECT_SECONDS, ANSWER_SECONDS = 5.0, 30.0
#: A connection that rested for so long is not used again.
REST_SECONDS = 60.0
#: The first leg, one whose nonce has grown stale, and one more for a home that restarts in between.
MOST_LEGS = 4


def sleep(process: Process, seconds: float) -> Deferred[None]:
    """Fires after C{seconds}, if C{process} lives then."""
    done: Deferred[None] = Deferred()
    process.callLater(seconds, done.callback, None)
    return done


@dataclass(frozen=True, slots=True)
class Answer:
    """How a call ended.

    @ivar status: 0 when there was no answer.
    @ivar sent: something of the request was sent, so that it may have been executed.
    @ivar begun: when the client began.
    @ivar ended: when it had the answer, or gave up.
    @ivar router: the address that it called last.
    """

    status: int
    sent: bool
    begun: float
    ended: float
    router: str
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""


class _Connection(Protocol):
    """One connection to a router: one call at a time."""

    transport: Any

    def __init__(self) -> None:
        self._reader = ResponseReader()
        self._waiting: Deferred[Response | None] | None = None
        self.rested = 0.0
        self.lost = False

    def ask(self, wire: bytes) -> Deferred[Response | None]:
        """Send a request; fires with the answer, or with C{None} when there will be none."""
        self._waiting = Deferred()
        self.transport.write(wire)
        return self._waiting

    def dataReceived(self, data: bytes) -> None:
        """Read the answer."""
        response = self._reader.feed(data)
        if response is not None:
            self._settle(response)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """There will be no answer."""
        self.lost = True
        self._settle(None)

    def give_up(self) -> None:
        """Wait no longer."""
        self.transport.abortConnection()
        self._settle(None)

    def _settle(self, response: Response | None) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(response)


class _Connecting(Factory):
    noisy = False
    protocol = _Connection


class Phone:
    """Calls the farm on behalf of one user, by one router or another."""

    def __init__(
        self, internet: Internet, process: Process, host: Host, routers: Sequence[str], random: Random
    ) -> None:
        """
        @param routers: the addresses behind the name of the IM domain, of which clients try one after the
            other.
        """
        self._process, self._routers, self._random = process, list(routers), random
        self._connect = internet.endpoints(process, host)
        self._kept: dict[str, _Connection] = {}
        self._nonce = ""
        self._count = 0
        self.user = self.password = self.realm = ""

    async def ask(
        self,
        method: str,
        path: str,
        headers: Sequence[str],
        body: bytes = b"",
        *,
        again: bool = True,
        patience: float = ANSWER_SECONDS,
    ) -> Answer:
        """Make a call.

        @param headers: lines without their ends; those of the framing are added.
        @param again: try the next router also when the call may have been executed.
        @param patience: hang up when there is no answer in so many seconds.
        """
        begun, sent, router = self._process.seconds(), False, ""
        first = self._random.randrange(len(self._routers))
        for router in self._routers[first:] + self._routers[:first]:
            if sent and not again:
                break
            response, more = await self._ask_router(router, patience, method, path, headers, body)
            sent = sent or more
            if response is not None:
                return Answer(
                    response.status,
                    True,
                    begun,
                    self._process.seconds(),
                    router,
                    response.headers,
                    response.body,
                )
        return Answer(0, sent, begun, self._process.seconds(), router)

    async def _ask_router(
        self, router: str, patience: float, method: str, path: str, headers: Sequence[str], body: bytes
    ) -> tuple[Response | None, bool]:
        """The answer of one router, and whether anything was sent."""
        response: Response | None = None
        for _ in range(MOST_LEGS):
            connection = await self._connection(router)
            if connection is None:
                return None, False
            wire = self._render(method, path, headers, body)
            response = await self._answer(connection, wire, patience)
            if response is None:
                return None, True
            self._rest(router, connection, response)
            if response.status != 401:
                break
            self._take_challenge(response)
        return response, True

    async def _connection(self, router: str) -> _Connection | None:
        kept = self._kept.pop(router, None)
        if kept is not None and not kept.lost:
            if self._process.seconds() - kept.rested < REST_SECONDS:
                return kept
            kept.transport.loseConnection()
        attempt: Deferred[Any] = self._connect(router, 80).connect(_Connecting())
        late = self._process.callLater(CONNECT_SECONDS, attempt.cancel)
        try:
            made: _Connection = await attempt
        except Exception:
            return None
        finally:
            if late.active():
                late.cancel()
        return made

    async def _answer(self, connection: _Connection, wire: bytes, patience: float) -> Response | None:
        if connection.lost:
            return None
        answer = connection.ask(wire)
        late = self._process.callLater(patience, connection.give_up)
        response = await answer
        if late.active():
            late.cancel()
        return response

    def _rest(self, router: str, connection: _Connection, response: Response) -> None:
        """Keep the connection for the next leg, and sometimes for the next call."""
        keep = response.reusable and (response.status == 401 or self._random.random() < 0.5)
        if keep and router not in self._kept:
            connection.rested = self._process.seconds()
            self._kept[router] = connection
        else:
            connection.transport.loseConnection()

    def hang_up(self) -> None:
        """Close what rests."""
        kept, self._kept = self._kept, {}
        for connection in kept.values():
            if not connection.lost:
                connection.transport.loseConnection()

    def _take_challenge(self, response: Response) -> None:
        for line in response.challenges:
            found = re.search(rb'^Digest .*nonce="([0-9a-f]+)"', line)
            if found is not None and b"SHA-256" not in line:
                self._nonce, self._count = found[1].decode(), 0

    def _render(self, method: str, path: str, headers: Sequence[str], body: bytes) -> bytes:
        lines = [
            f"{method} {path} HTTP/1.1",
            f"Host: {self.realm}",
            "RVP-Notifications-Version: 0.2",
            *headers,
        ]
        if self._nonce:
            self._count += 1
            count, cnonce = f"{self._count:08x}", f"{self._random.getrandbits(32):08x}"
            response = digest_response(
                self.user, self.realm, self.password, method, path, self._nonce, count, cnonce
            )
            lines.append(
                f'Authorization: Digest username="{self.user}", realm="{self.realm}", nonce="{self._nonce}", '
                f'uri="{path}", qop=auth, nc={count}, cnonce="{cnonce}", response="{response}"'
            )
        if body:
            lines.append("Content-Type: text/xml")
        lines.append(f"Content-Length: {len(body)}")
        return "\r\n".join([*lines, "", ""]).encode() + body


class Ear(Factory):
    """A client's listener, at which its home calls back.

    @ivar mood: how it treats its caller: C{"well"}, C{"refuses"}, C{"silent"}, C{"breaks"} or C{"slow"}.
    """

    noisy = False

    def __init__(
        self,
        process: Process,
        heard: Callable[[Call, End], None],
        answered: Callable[[Call, End, int], None],
        *,
        closes: bool,
        slow_seconds: float = 3.0,
    ) -> None:
        """
        @param heard: told each call as it arrives, and the end that it came by.
        @param answered: told each call once its answer is written, and the status.
        @param closes: closes after each answer, as Miranda does.
        """
        self.process, self.heard, self.answered = process, heard, answered
        self.closes, self.slow_seconds = closes, slow_seconds
        self.mood = "well"
        self.attending: list[_Attending] = []

    def buildProtocol(self, addr: Any) -> _Attending:
        """One connection of a home."""
        return _Attending(self)


class _Attending(Protocol):
    transport: Any

    def __init__(self, ear: Ear) -> None:
        self._ear = ear
        self._reader = RequestReader(Limits())
        self.busy = False

    def connectionMade(self) -> None:
        """Somebody calls."""
        self._ear.attending.append(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """He hung up."""
        self._ear.attending.remove(self)

    def dataReceived(self, data: bytes) -> None:
        """Hear what he says."""
        for call in self._reader.feed(data):
            self.busy = True
            mood = self._ear.mood
            self._ear.heard(call, self.transport)
            if mood == "breaks":
                self.transport.abortConnection()
            elif mood == "slow":
                self._ear.process.callLater(self._ear.slow_seconds, self._answer, call, 200)
            elif mood != "silent":
                self._answer(call, 403 if mood == "refuses" else 200)

    def _answer(self, call: Call, status: int) -> None:
        if not self.transport.connected or self.transport.disconnecting:
            return
        self.busy = False
        closing = "Connection: close\r\n" if self._ear.closes else ""
        self.transport.write(
            f"HTTP/1.1 {status} Heard\r\nRVP-Notifications-Version: 0.2\r\n{closing}Content-Length: 0\r\n\r\n".encode()
        )
        self._ear.answered(call, self.transport, status)
        if self._ear.closes:
            self.transport.loseConnection()
