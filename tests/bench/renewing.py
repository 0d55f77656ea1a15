"""Clients that renew what they hold, at a given rate: each call is challenged, answered and measured.

A client that calls every 20 minutes finds its last nonce too old, so every renewal here is two calls, as it
is in life: one without credentials, which is challenged, and one with Digest.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from tests.bench.farm import DOMAIN, PASSWORD

#: How many connections the calls share.
CONNECTIONS = 64

_STATE = (
    "<?xml version=\"1.0\"?><d:propertyupdate xmlns:d='DAV:' xmlns:r='http://schemas.microsoft.com/rvp/'><d:set>"
    "<d:prop><r:state><r:leased-value><r:value><r:online/></r:value><r:default-value><r:offline/>"
    "</r:default-value><d:timeout>1200</d:timeout></r:leased-value></r:state></d:prop></d:set>"
    "</d:propertyupdate>"
)


@dataclass(frozen=True, slots=True)
class Asking:
    """One call of one user.

    @ivar at: whose node is called.
    @ivar subscription: the id that it renews; 0 for something else.
    """

    user: int
    method: str
    at: int
    fields: str = ""
    body: str = ""
    subscription: int = 0


@dataclass(frozen=True, slots=True)
class Answered:
    """How a call ended.

    @ivar status: 0 when the connection broke.
    @ivar seconds: from when it was due to its last answer.
    """

    asking: Asking
    status: int
    seconds: float
    head: str = ""
    body: str = ""


def signing_in(user: int) -> Asking:
    """C{user} sets his state once more."""
    return Asking(user, "PROPPATCH", user, "Content-Type: text/xml\r\n", _STATE)


def renewing(user: int, at: int, subscription: int) -> Asking:
    """C{user} renews his subscription to C{at}."""
    fields = f"Subscription-Id: {subscription}\r\nSubscription-Lifetime: 14400\r\n"
    return Asking(user, "SUBSCRIBE", at, fields, subscription=subscription)


def watching(user: int, at: int) -> Asking:
    """C{user} subscribes to C{at}."""
    fields = (
        "Notification-Type: update/propchange\r\nSubscription-Lifetime: 14400\r\n"
        f"Call-Back: http://{DOMAIN}/instmsg/aliases/u{user}\r\n"
    )
    return Asking(user, "SUBSCRIBE", at, fields)


def listing(user: int) -> Asking:
    """C{user} asks who is subscribed to his own node."""
    return Asking(user, "SUBSCRIPTIONS", user)


class _Connection:
    """One connection, over which one call after the other is made."""

    def __init__(self, host: str, port: int) -> None:
        self._place = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, asking: Asking) -> tuple[int, str, str]:
        """Make a call with what proves who makes it."""
        status, head, body = await self._exchange(asking, "")
        if status == 401:
            status, head, body = await self._exchange(asking, _proof(asking, head))
        return status, head, body

    async def _exchange(self, asking: Asking, proof: str) -> tuple[int, str, str]:
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._place)
        reader, writer = self._streams
        writer.write(
            f"{asking.method} /instmsg/aliases/u{asking.at} HTTP/1.1\r\nHost: {DOMAIN}\r\n"
            "RVP-Notifications-Version: 0.2\r\n"
            f"RVP-From-Principal: http://{DOMAIN}/instmsg/aliases/u{asking.user}\r\n"
            f"{asking.fields}{proof}Content-Length: {len(asking.body)}\r\n\r\n{asking.body}".encode()
        )
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        size = re.search(r"\ncontent-length: *(\d+)", head, re.I)
        body = await reader.readexactly(int(size[1])) if size else b""
        return int(head.split(" ", 2)[1]), head, body.decode()

    def close(self) -> None:
        """No more calls."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def _proof(asking: Asking, challenge: str) -> str:
    """The C{Authorization} line that answers the SHA-256 challenge (RFC 7616)."""
    line = next(line for line in challenge.splitlines() if "SHA-256" in line)
    realm, nonce = (re.findall(rf'{name}="([^"]*)"', line)[0] for name in ("realm", "nonce"))
    user, uri = f"u{asking.user}", f"/instmsg/aliases/u{asking.at}"

    def h(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()

    ha1, ha2 = h(f"{user}:{realm}:{PASSWORD}"), h(f"{asking.method}:{uri}")
    response = h(f"{ha1}:{nonce}:00000001:0a4f113b:auth:{ha2}")
    return (
        f'Authorization: Digest username="{user}", realm="{realm}", nonce="{nonce}", uri="{uri}", '
        f'algorithm=SHA-256, qop=auth, nc=00000001, cnonce="0a4f113b", response="{response}"\r\n'
    )


@dataclass
class Clients:
    """Whoever calls one home.

    @ivar answered: every call that had an end, in the order of the ends.
    @ivar late: calls that found no connection free when they were due, and waited.
    """

    host: str
    port: int
    answered: list[Answered] = field(default_factory=list)
    late: int = 0

    async def work(self, calls: Iterator[Asking], rate: float, seconds: float) -> None:
        """Make C{rate} calls each second for so long, whatever becomes of them."""
        free: asyncio.Queue[_Connection] = asyncio.Queue()
        for _ in range(CONNECTIONS):
            free.put_nowait(_Connection(self.host, self.port))
        began = time.monotonic()
        under_way: set[asyncio.Task[None]] = set()
        for number, asking in enumerate(calls):
            due = began + number / rate
            if due > began + seconds:
                break
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            self.late += free.empty()
            connection = await free.get()
            task = asyncio.create_task(self._call(connection, asking, due, free))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        await asyncio.gather(*under_way)
        while not free.empty():
            free.get_nowait().close()

    async def all(self, calls: list[Asking]) -> list[Answered]:
        """Make C{calls} one after the other."""
        connection = _Connection(self.host, self.port)
        answered = [await self._ask(connection, asking, time.monotonic()) for asking in calls]
        connection.close()
        return answered

    async def _call(
        self, connection: _Connection, asking: Asking, due: float, free: asyncio.Queue[_Connection]
    ) -> None:
        self.answered.append(await self._ask(connection, asking, due))
        free.put_nowait(connection)

    async def _ask(self, connection: _Connection, asking: Asking, due: float) -> Answered:
        with suppress(OSError, asyncio.IncompleteReadError):
            status, head, body = await connection.ask(asking)
            return Answered(asking, status, time.monotonic() - due, head, body)
        connection.close()
        return Answered(asking, 0, time.monotonic() - due)
