"""The caller's end of a farm link: many calls in flight to one home, over one connection at a time."""

from __future__ import annotations

import errno
from collections.abc import Callable
from os import urandom
from random import random
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IProtocol,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from rvpfarm.link.frames import (
    ReplyFrame,
    render_answered,
    render_call,
    render_cancel,
    render_gone,
    render_ping,
)
from rvpfarm.link.homeconnection import HomeConnection
from rvpfarm.link.probes import Probes
from rvpfarm.protocol.calls import Busy, Call, Limits, Relayed, Slow, TooLarge, Unreachable, Untried
from rvpfarm.web.fast import soon_on

if TYPE_CHECKING:
    from rvpfarm.observe.metrics import Metrics

#: From the attempt to connect to the end of the handshake; so long also do calls wait for a broken link.
CONNECT_SECONDS = 5.0
#: Calls without a reply, at any one time.
CALLS_LIMIT = 4096
#: Octets of calls without a reply, at any one time.
BYTES_LIMIT = 32 * 1024 * 1024
#: Times that a call is sent, at most.
TRIES_LIMIT = 2
#: The first and the longest pause before the next attempt to connect.
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 2.0
#: A connection that lasted so long was a good one: after it the pauses begin anew.
GOOD_SECONDS = 10.0
#: Deadlines are looked at no more often than this.
GRAIN_SECONDS = 0.05
#: Replies are acknowledged in passing, or when so many, or so many octets of them, have come.
ACKNOWLEDGE_COUNT, ACKNOWLEDGE_BYTES = 256, 262144
#: Why connecting fails when this process, or its machine, has nothing left to connect with.
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})


class _Pending:
    """One call that waits for its reply.

    @ivar frame: kept to be sent again over a new connection.
    @ivar until: when its caller stops waiting.
    @ivar tries: how often a connection broke over it.
    @ivar incarnation: the one of the home that it was last sent to.
    """

    __slots__ = ("call", "client", "deferred", "frame", "id", "incarnation", "tries", "until")

    def __init__(self, client: LinkClient, id: int, call: Call, frame: bytes, until: float) -> None:
        self.client, self.id, self.call, self.frame, self.until = client, id, call, frame, until
        self.tries = self.incarnation = 0
        self.deferred: Deferred[Relayed] = Deferred(self._cancel)

    def _cancel(self, deferred: Deferred[Relayed]) -> None:
        self.client.cancelled(self)

    @property
    def repeatable(self) -> bool:
        """Whether doing it twice is no worse than doing it once."""
        call = self.call
        if call.method == b"SUBSCRIBE":
            return b"subscription-id" in call.headers
        return call.method != b"NOTIFY"


class LinkClient:
    """Calls to one home.

    A call is executed once even if the connection breaks: it is sent again under the same id, which the
    home knows.  If the home has been started anew meanwhile it knows nothing, and only calls that may be
    executed twice are sent again.
    """

    _log = Logger()

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        *,
        key: bytes,
        name: str,
        peer: str,
        clock: IReactorTime,
        origin: int,
        metrics: Metrics | None = None,
        limits: Limits | None = None,
        chance: Callable[[], float] = random,
        nonce: Callable[[int], bytes] = urandom,
    ) -> None:
        """
        @param endpoint: where the home takes farm links.
        @param key: the farm key's part for links.
        @param name: the own name.
        @param peer: the id that the home must have.
        @param origin: names this process; unlike that of any other process, past or present.
        @param limits: what the home takes.
        @param chance: a number from 0 to 1, to spread the attempts of many to connect.
        @param nonce: makes so many unpredictable octets.
        """
        self.key, self.name, self.peer, self.origin, self.nonce = key, name, peer, origin, nonce
        self.clock = clock
        self._endpoint, self._metrics, self._chance = endpoint, metrics, chance
        limits = limits or Limits()
        self._call_limit = limits.head + limits.body
        self._soon = soon_on(clock)
        self._probes = Probes(clock, peer, self.ping)
        self._pending: dict[int, _Pending] = {}
        self._bytes = 0
        self._last_id = 0
        # frames to be sent: calls by id, so that one can be taken out again, and all others
        self._calls: dict[int, bytes] = {}
        self._others: list[bytes] = []
        self._seen: list[int] = []
        self._seen_bytes = 0
        self._flushing = False
        self._line: HomeConnection | None = None
        self._attempt: Deferred[IProtocol] | None = None
        self._pause: IDelayedCall | None = None
        self._patience: IDelayedCall | None = None
        self._expiry: IDelayedCall | None = None
        self._expiry_at = 0.0
        self._failures = 0
        self._complained = self._was_up = False
        self._up_since: float | None = None
        self._open: set[HomeConnection] = set()
        self._stopped: Deferred[None] | None = None

    @property
    def in_flight(self) -> int:
        """How many calls wait for their reply."""
        return len(self._pending)

    @property
    def connected(self) -> bool:
        """Whether the home has proved itself and takes calls."""
        return self._up_since is not None

    def call(self, call: Call, *, deadline_seconds: float = 25.0) -> Deferred[Relayed]:
        """Have the home execute C{call}.  Cancel the Deferred when its caller hung up.

        The Deferred fails with L{Slow} after the deadline, and with L{Unreachable} if the home cannot be
        reached, or was started anew while it had the call.

        @raise Busy: too many calls to this home wait already.
        @raise TooLarge: the home would not take it.
        @raise Unreachable: this client was stopped.
        """
        if len(self._pending) >= CALLS_LIMIT or self._bytes >= BYTES_LIMIT:
            self._count("busy")
            raise Busy("too many calls wait for this home")
        if len(call.head) + len(call.body) > self._call_limit:
            raise TooLarge("the call is larger than its home takes")
        if self._stopped is not None:
            raise Unreachable(f"the link to {self.peer} is closed")
        self._last_id = id = self._last_id + 1
        frame = render_call(id, call)
        until = self.clock.seconds() + deadline_seconds
        pending = self._pending[id] = _Pending(self, id, call, frame, until)
        self._bytes += len(frame)
        self._calls[id] = frame
        if self._expiry is None or until < self._expiry_at:
            self._expire_at(until)
        if self._up_since is None:
            self._want()
        elif not self._flushing:
            self._flushing = True
            self._soon(self._flush)
        return pending.deferred

    def probe(self, seconds: float) -> Deferred[None]:
        """Find out whether the home is there: by the connection if there is one, else by connecting.

        The Deferred fails with L{Slow} after so many seconds, and with L{Unreachable} if the home cannot be
        reached.

        @raise Untried: this client was stopped, or too many ask already.
        """
        if self._stopped is not None:
            raise Untried(f"the link to {self.peer} is closed")
        probe = self._probes.begin(seconds, connected=self.connected)
        if not self.connected:
            self._want()
        return probe

    def stop(self) -> Deferred[None]:
        """Give up every call, connect no more, and close the connection."""
        if self._stopped is None:
            self._stopped = Deferred()
            for pending in list(self._pending.values()):
                sent = self._was_sent(pending)
                kind = Unreachable if sent else Untried
                self._fail(pending, f"the link to {self.peer} is closed", maybe_done=sent, kind=kind)
            self._probes.failed(Untried(f"the link to {self.peer} is closed"))
            self._flush()
            for timer in (self._pause, self._expiry):
                if timer is not None:
                    timer.cancel()
            self._pause = self._expiry = None
            if self._attempt is not None:
                self._attempt.cancel()
            for line in tuple(self._open):
                line.close()
            self._check_stopped()
        done: Deferred[None] = Deferred()
        self._stopped.addBoth(lambda result: done.callback(None))
        return done

    # what callers do

    def gone(self, connection: str) -> None:
        """A connection on which somebody proved himself to this home is closed.

        A home that is not linked is not told: it forgets by itself, only later.
        """
        if self._up_since is not None:
            self._others.append(render_gone(connection))
            self._flush_soon()

    def cancelled(self, pending: _Pending) -> None:
        """The caller of C{pending} hung up."""
        if pending.id in self._pending:
            self._drop(pending)
            self._count("cancelled")

    # what the connection tells

    def opened(self, line: HomeConnection) -> None:
        """There is a connection; nothing is proved yet."""
        self._open.add(line)
        self._line = line
        if self._stopped is not None:
            line.abandon()

    def welcomed(self, line: HomeConnection, incarnation: int) -> None:
        """The home has proved itself: send what waits, and what it may have lost, again."""
        self._up_since = self.clock.seconds()
        self._was_up = True
        self._cancel_patience()
        self._log.info("linked to {home}", home=self.peer)
        self._complained = False
        for pending in list(self._pending.values()):
            if pending.tries and pending.incarnation != incarnation and not pending.repeatable:
                self._fail(pending, f"{self.peer} was started anew and may have done it", maybe_done=True)
        # in the order of the ids: what was sent before goes first
        self._calls = {id: pending.frame for id, pending in self._pending.items()}
        self._flush()
        self._probes.welcomed()

    def ponged(self, token: int) -> None:
        """The home has given a sign of life."""
        self._probes.ponged(token)

    def replied(self, frame: ReplyFrame) -> None:
        """The home has answered a call."""
        pending = self._pending.pop(frame.id, None)
        # a reply that nobody waits for is acknowledged too, or the home would keep it
        self._seen.append(frame.id)
        self._seen_bytes += len(frame.wire)
        if pending is not None:
            self._bytes -= len(pending.frame)
            if pending.tries:
                self._calls.pop(frame.id, None)
            self._count("answered")
            pending.deferred.callback(Relayed(frame.wire, frame.close))

    def read(self) -> None:
        """All that arrived together has been looked at."""
        if len(self._seen) >= ACKNOWLEDGE_COUNT or self._seen_bytes >= ACKNOWLEDGE_BYTES:
            self._flush_soon()

    def resumed(self) -> None:
        """The transport takes more."""
        self._flush()

    def ping(self, token: int) -> None:
        """Ask the home for a sign of life."""
        self._others.append(render_ping(token))
        self._flush()

    def lost(self, line: HomeConnection, why: str) -> None:
        """The connection is gone."""
        self._open.discard(line)
        if self._line is line:
            self._line = None
            now = self.clock.seconds()
            if self._up_since is None:
                self._not_connected(why)
            else:
                self._failures = 0 if now - self._up_since >= GOOD_SECONDS else self._failures + 1
                self._up_since = None
                self._broken(line, why)
        self._check_stopped()

    # calls

    def _drop(self, pending: _Pending) -> None:
        """Forget a call that has no reply, and tell the home if it has heard of it."""
        del self._pending[pending.id]
        self._bytes -= len(pending.frame)
        if self._calls.pop(pending.id, None) is None:
            self._others.append(render_cancel(pending.id))
            self._flush_soon()
        elif pending.tries:
            self._others.append(render_cancel(pending.id))

    def _fail(
        self, pending: _Pending, why: str, *, maybe_done: bool = False, kind: type[Unreachable] = Unreachable
    ) -> None:
        self._drop(pending)
        self._count("slow" if kind is Slow else "unreachable")
        pending.deferred.errback(kind(why, maybe_done=maybe_done))

    def _was_sent(self, pending: _Pending) -> bool:
        return pending.tries > 0 or pending.id not in self._calls

    def _expire_at(self, when: float) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        delay = max(when - self.clock.seconds(), GRAIN_SECONDS)
        self._expiry_at = when
        self._expiry = self.clock.callLater(delay, self._expire)

    def _expire(self) -> None:
        """Tell those who have waited long enough."""
        self._expiry = None
        now = self.clock.seconds()
        for pending in [pending for pending in self._pending.values() if pending.until <= now]:
            if pending.id in self._pending:
                sent = self._was_sent(pending)
                self._fail(pending, f"{self.peer} did not answer in time", maybe_done=sent, kind=Slow)
        if self._pending:
            self._expire_at(min(pending.until for pending in self._pending.values()))

    def _flush_soon(self) -> None:
        if not self._flushing and self._up_since is not None:
            self._flushing = True
            self._soon(self._flush)

    def _flush(self) -> None:
        """Write everything that waits, at once; what cannot be written now stays."""
        self._flushing = False
        line = self._line
        if line is None or self._up_since is None or line.paused:
            return
        if self._seen:
            self._others.append(render_answered(self._seen))
            self._seen, self._seen_bytes = [], 0
        if self._others:
            self._others.extend(self._calls.values())
            data = b"".join(self._others)
            self._others.clear()
        else:
            data = b"".join(self._calls.values())
        self._calls.clear()
        if data:
            line.write(data)

    def _count(self, outcome: str) -> None:
        if self._metrics is not None:
            self._metrics.link_calls(outcome)

    # the connection

    def _want(self) -> None:
        """Somebody wants the home: connect, unless that is under way or has just failed."""
        if self._line is None and self._attempt is None and self._pause is None:
            self._connect()

    def _connect(self) -> None:
        self._pause = None
        factory = _HomeFactory(self, self.clock.seconds() + CONNECT_SECONDS)
        attempt = self._attempt = self._endpoint.connect(factory)
        late = self.clock.callLater(CONNECT_SECONDS, attempt.cancel)

        def over(result: IProtocol | Failure) -> None:
            if late.active():
                late.cancel()
            self._attempt = None
            if self._line is None:  # never connected, or gone again before this was told
                why = result.getErrorMessage() if isinstance(result, Failure) else "closed at once"
                kind = Untried if _is_exhausted(result) else Unreachable
                self._not_connected(why or "connecting took too long", kind)
            self._check_stopped()

        attempt.addBoth(over)

    def _not_connected(self, why: str, kind: type[Unreachable] = Unreachable) -> None:
        """An attempt failed: whatever was never sent has waited long enough."""
        self._failures += 1
        if self._stopped is not None:
            return
        self._complain(why)
        for pending in list(self._pending.values()):
            if not pending.tries:
                self._fail(pending, f"{self.peer} cannot be reached", kind=kind)
        self._probes.failed(kind(f"{self.peer} cannot be reached: {why}"))
        # a home that was never reached is tried again when somebody wants it
        if self._pending or self._was_up:
            self._try_later()

    def _broken(self, line: HomeConnection, why: str) -> None:
        """The connection broke: what had been sent waits for the next one, if it was the first to break."""
        if self._stopped is not None:
            return
        self._complain(why)
        self._others.clear()
        for pending in list(self._pending.values()):
            if pending.id in self._calls:
                continue
            pending.tries += 1
            pending.incarnation = line.incarnation
            if pending.tries >= TRIES_LIMIT:
                self._fail(pending, f"the link to {self.peer} broke twice over it", maybe_done=True)
            else:
                self._calls[pending.id] = pending.frame
        if self._pending and self._patience is None:
            self._patience = self.clock.callLater(CONNECT_SECONDS, self._give_up)
        self._try_later()

    def _give_up(self) -> None:
        """A broken link did not come back in time."""
        self._patience = None
        for pending in list(self._pending.values()):
            self._fail(pending, f"{self.peer} cannot be reached any more", maybe_done=pending.tries > 0)

    def _try_later(self) -> None:
        if self._pause is None and self._attempt is None and self._line is None:
            pause = min(FIRST_PAUSE_SECONDS * 2.0 ** min(self._failures, 10), LONGEST_PAUSE_SECONDS)
            self._pause = self.clock.callLater(pause * (0.5 + 0.5 * self._chance()), self._connect)

    def _complain(self, why: str) -> None:
        """Say once per episode that the home cannot be reached."""
        if not self._complained:
            self._complained = True
            self._log.warn("no link to {home}: {why}", home=self.peer, why=why)

    def _cancel_patience(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _check_stopped(self) -> None:
        if self._stopped is not None and not self._open and self._attempt is None:
            self._cancel_patience()
            if not self._stopped.called:
                self._stopped.callback(None)


def _is_exhausted(result: IProtocol | Failure) -> bool:
    """Whether an attempt to connect failed for want of something of our own."""
    problem = getattr(result, "value", None)
    return getattr(problem, "osError", getattr(problem, "errno", None)) in _EXHAUSTED


class _HomeFactory(Factory):
    """Makes the one connection of an attempt."""

    noisy = False

    def __init__(self, client: LinkClient, deadline: float) -> None:
        self._client, self._deadline = client, deadline

    def buildProtocol(self, addr: IAddress | None) -> HomeConnection:
        return HomeConnection(self._client, self._deadline)
