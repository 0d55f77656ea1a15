"""What a call costs a router without its sockets: C{python -m tests.bench.edge_parts}.

The whole way of a call is real, from the bytes that a caller sends to the bytes for its home and back again:
limits, admission, directory, health and metrics included; only the sockets are not there, nor the work of the
home.  For finding what to make faster: the least of many rounds tells, on a busy machine too.
"""

from __future__ import annotations

import cProfile
import gc
import pstats
import sys
from collections.abc import Callable
from itertools import cycle
from struct import Struct
from time import process_time, time
from typing import Any

from prometheus_client import CollectorRegistry

from rvpfarm.directory.cache import CachedDirectory
from rvpfarm.directory.model import Domain
from rvpfarm.directory.model import Home as HomeRecord
from rvpfarm.link.kinds import Kind
from rvpfarm.link.links import LinkFactory, Links
from rvpfarm.link.parts import WHOLE_LIMIT
from rvpfarm.observe.metrics import Metrics
from rvpfarm.protocol.calls import Limits, Reply
from rvpfarm.router.forwarder import Router
from rvpfarm.router.health import Health
from rvpfarm.web.server import CallFactory
from tests.bench import load
from tests.bench.parts import Socket
from tests.support.directory import FakeDirectory, make_account, make_farm

USERS, CONNECTIONS, ROUNDS = 2000, 64, 400
ANSWER = b"HTTP/1.1 200 Successful\r\nRVP-Notifications-Version: 0.2\r\nContent-Length: 0\r\n\r\n"

_START = Struct("!IB")
_REPLY = Struct("!IBQB")
_ID = Struct("!Q")


class Loop:
    """The time, timers that nobody waits for, and what is to run at the end of the turn."""

    seconds = staticmethod(time)

    def __init__(self) -> None:
        self._soon: list[Callable[[], None]] = []
        self._asyncioEventloop = self

    def call_soon(self, function: Callable[[], None]) -> None:
        """Run C{function} at the end of the turn."""
        self._soon.append(function)

    def end_turn(self) -> None:
        """The turn is over."""
        soon, self._soon = self._soon, []
        for function in soon:
            function()

    def callLater(self, delay: float, function: Callable[..., object], *args: object) -> Any:
        """Any: what is needed of a delayed call."""
        return self

    def cancel(self) -> None:
        """Nothing is to happen anyway."""

    def active(self) -> bool:
        """Never."""
        return False


class Wire:
    """Joins a caller of calls to a home: as an endpoint, and as the two ends of what it connects."""

    def __init__(self, home: LinkFactory) -> None:
        self._home = home
        self.near: Any = None
        self.sent: Socket = Socket()

    def connect(self, factory: Any) -> Any:
        """A connection that has been proved, to an end that is silent from now on."""
        from twisted.internet.defer import succeed

        near, far = factory.buildProtocol(None), self._home.buildProtocol(None)
        there, back = Socket(), Socket()
        near.makeConnection(there)
        far.makeConnection(back)
        for _ in range(4):
            while there.got:
                far.dataReceived(there.got.pop(0))
            _loop.end_turn()
            while back.got:
                near.dataReceived(back.got.pop(0))
        self.near, self.sent = near, there
        return succeed(near)

    def answers(self) -> bytes:
        """What the home says to all that it was sent."""
        replies = []
        for data in self.sent.got:
            at = 0
            while at < len(data):
                size, kind = _START.unpack_from(data, at)
                if kind == Kind.CALL:
                    (id,) = _ID.unpack_from(data, at + 5)
                    replies.append(_REPLY.pack(10 + len(ANSWER), Kind.REPLY, id, 0) + ANSWER)
                at += 4 + size
        self.sent.got.clear()
        return b"".join(replies)


_loop = Loop()


class Box:
    """A router with everything but sockets."""

    def __init__(self, **policies: str) -> None:
        loop: Any = _loop
        self.metrics = Metrics(CollectorRegistry(), role="router", node="router1")
        domain = Domain(load.DOMAIN, ("bench.localhost",))
        homes = [
            HomeRecord(f"home-{number}", f"home{number}", f"home{number}.bench.localhost", 80, 8080 + number)
            for number in (1, 2)
        ]
        farm = make_farm((domain,), homes, **policies)
        accounts = [
            make_account(f"{load.DOMAIN}/instmsg/aliases/u{number}", homes[number % 2])
            for number in range(USERS)
        ]
        directory: Any = CachedDirectory(FakeDirectory(farm, accounts), loop, metrics=self.metrics)  # type: ignore[arg-type]  # it is never asked
        directory._set_farm(farm)
        for account in accounts:
            directory._remember(account.key, account)
        self.wires = {
            home.link_port: Wire(
                LinkFactory(
                    lambda call: Reply(200),
                    key=b"k" * 32,
                    name=home.id,
                    incarnation=1,
                    clock=loop,
                    limits=Limits(),
                )
            )
            for home in homes
        }
        health = Health()
        links = Links(
            loop,
            lambda host, port: self.wires[port],  # type: ignore[arg-type,return-value]  # all that is asked of one
            key=b"k" * 32,
            name="router1",
            metrics=self.metrics,
            piecewise=True,
            watch=health,
        )
        router = Router(directory, links, clock=loop, metrics=self.metrics, health=health)
        self.factory = CallFactory(
            router.answer,
            clock=loop,
            limits=Limits(),
            metrics=self.metrics,
            name="router1",
            on_gone=router.gone,
            grace_seconds=5.0,
            stream_over=WHOLE_LIMIT,
        )
        self.callers = []
        for _ in range(CONNECTIONS):
            protocol, socket = self.factory.buildProtocol(None), Socket()
            protocol.makeConnection(socket)
            self.callers.append((protocol, socket))

    def answer(self) -> None:
        """Have the homes answer what came."""
        _loop.end_turn()
        for wire in self.wires.values():
            if wire.sent.got:
                wire.near.dataReceived(wire.answers())

    def turn(self, requests: Any) -> float:
        """Have each caller make one of C{requests}, and have all answered.

        @return: what that took the router, for one of them.
        """
        taken = -process_time()
        for protocol, _ in self.callers:
            protocol.dataReceived(next(requests))
        _loop.end_turn()
        taken += process_time()
        for wire in self.wires.values():
            if wire.sent.got:
                answers = wire.answers()
                taken -= process_time()
                wire.near.dataReceived(answers)
                taken += process_time()
        for _, socket in self.callers:
            socket.got.pop()
        return taken / len(self.callers)


def measure(name: str, box: Box, make: Callable[[int], bytes], status: bytes, profiled: bool) -> None:
    """Say what a call costs."""
    made = [make(number) for number in range(USERS)]
    requests = cycle(made)
    for protocol, _ in box.callers:  # the links are made
        protocol.dataReceived(made[0])
    box.answer()
    for _, socket in box.callers:
        assert socket.got.pop().startswith(b"HTTP/1.1 " + status), name
    gc.collect()
    gc.freeze()
    profile = cProfile.Profile() if profiled else None
    if profile:
        profile.enable()
    spans = sorted(box.turn(requests) for _ in range(ROUNDS))
    if profile:
        profile.disable()
        pstats.Stats(profile).sort_stats("tottime").print_stats(45)
    print(f"{name}: {spans[0] * 1e6:.2f} us at best, {spans[ROUNDS // 2] * 1e6:.2f} us at the median")


def main() -> None:
    """Measure, and with C{--profile} say where the time goes."""
    profiled = "--profile" in sys.argv
    measure("forward", Box(referral="never"), load.notify, b"200", profiled)
    measure("refer", Box(referral="always"), load.sign_in, b"302", profiled)


if __name__ == "__main__":
    main()
