"""The caller's end of a farm link: many calls in flight to one home, over one connection at a time."""

from __future__ import annotations

import errno
from collections.abc import Callable
from os import urandom
from random import random
from typing import TYPE_CHECKING, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.logger import Logger

from rvpfarm.link.dialler import Dialler
from rvpfarm.link.frames import (
    ReplyFrame,
    render_answered,
    render_call,
    render_cancel,
    render_gone,
    render_ping,
)
from rvpfarm.link.homeconnection import HomeConnection, HomeFactory
from rvpfarm.link.kinds import EDITION
from rvpfarm.link.outlook import HOLD_SECONDS, Outlook
from rvpfarm.link.parts import WHOLE_LIMIT, Begin, Part, Window
from rvpfarm.link.pending import Pending, Upload
from rvpfarm.link.probes import Probes
from rvpfarm.link.roll import Roll
from rvpfarm.link.transfers import Transfers
from rvpfarm.protocol.calls import Busy, Call, Limits, Relayed, TooLarge, Unreachable, Untried
from rvpfarm.web.fast import soon_on

if TYPE_CHECKING:
    from rvpfarm.observe.metrics import Metrics

#: Calls without a reply, at any one time.
CALLS_LIMIT = 4096
#: Octets of calls without a reply, at any one time.
BYTES_LIMIT = 32 * 1024 * 1024
#: Times that a call is sent, at most.
TRIES_LIMIT = 2
#: A connection that lasted so long was a good one: after it the pauses begin anew.
GOOD_SECONDS = 10.0
#: So much of what travels in parts is written at a time, before what came meanwhile gets its turn.
TURN_SIZE = 32768
#: Replies are acknowledged in passing, or when so many, or so many octets of them, have come.
ACKNOWLEDGE_COUNT, ACKNOWLEDGE_BYTES = 256, 262144
#: Why connecting fails when this process, or its machine, has nothing left to connect with.
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})


class Watch(Protocol):
    """Whoever judges homes; C{rvpfarm.router.health.Health} is one."""

    def leaving(self, home: str, now: float, seconds: float) -> None:
        """The home of that id is being replaced: it should be back within so many seconds."""

    def returned(self, home: str, now: float) -> None:
        """The home of that id takes calls."""


class LinkClient:
    """Calls to one home.

    A call is executed once even if the connection breaks: it is sent again under the same id, which the
    home knows.  If the home has been started anew meanwhile it knows nothing, and only calls that may be
    executed twice are sent again.

    A home that is about to stop says so.  Calls for it are then held here, together with those that it hands
    back, until its next incarnation greets: nothing was done about any of them.
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
        hold_seconds: float = HOLD_SECONDS,
        piecewise: bool = False,
        edition: int = EDITION,
        watch: Watch | None = None,
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
        @param hold_seconds: how long calls wait at most for a home that is being replaced.
        @param piecewise: long replies are handed over while they come, as
            L{Streamed<rvpfarm.protocol.streams.Streamed>}.
        @param edition: the latest of the protocol that is to be spoken.
        @param watch: told when the home says that it is being replaced, and when it is back.
        """
        self.key, self.name, self.peer, self.origin, self.nonce = key, name, peer, origin, nonce
        self.clock, self.edition = clock, edition
        self._watch = watch
        limits = limits or Limits()
        self._call_limit = limits.head + limits.body
        self._whole_limit = min(WHOLE_LIMIT, self._call_limit)
        self._soon = soon_on(clock)
        self._probes = Probes(clock, peer, self.ping)
        self._roll = roll = Roll(peer, clock, dropped=self._dropped, expire=self._expire, metrics=metrics)
        self._transfers = Transfers(self, roll, piecewise=piecewise)
        self._pending, self._calls, self._flows = roll.pending, roll.unsent, self._transfers.flows
        self._last_id = 0
        self._others: list[bytes] = []  # frames to be sent that are no calls
        self._seen: list[int] = []
        self._seen_bytes = 0
        self._flushing = False
        self._line: HomeConnection | None = None
        self._dialler = Dialler(
            endpoint,
            clock=clock,
            chance=chance,
            factory=lambda until: HomeFactory(self, until),
            over=self._attempted,
        )
        self._outlook = Outlook(hold_seconds)
        self._complained = self._leaving = False
        self._up_since: float | None = None
        self._open: set[HomeConnection] = set()
        self._stopped: Deferred[None] | None = None

    @property
    def in_flight(self) -> int:
        """How many calls wait for their reply."""
        return len(self._pending)

    @property
    def held(self) -> int:
        """How many of them wait for the home to come back."""
        return 0 if self.connected else len(self._calls)

    @property
    def connected(self) -> bool:
        """Whether the home has proved itself and takes calls."""
        return self._up_since is not None

    def call(self, call: Call, *, deadline_seconds: float = 25.0) -> Deferred[Relayed]:
        """Have the home execute C{call}.  Cancel the Deferred when its caller hung up.

        The Deferred fails with L{Slow} if the home has the call and does not answer it by the deadline, and
        with L{Unreachable} if the home cannot be reached, or was started anew while it had the call.

        @raise Busy: too many calls to this home wait already.
        @raise TooLarge: the home would not take it.
        @raise Unreachable: this client was stopped.
        """
        roll = self._roll
        if len(self._pending) >= CALLS_LIMIT or roll.weight >= BYTES_LIMIT:
            roll.count("busy")
            raise Busy("too many calls wait for this home")
        if self._stopped is not None:
            raise Unreachable(f"the link to {self.peer} is closed")
        until = self.clock.seconds() + deadline_seconds
        self._last_id = id = self._last_id + 1
        if len(call.head) + len(call.body) > self._whole_limit or call.stream is not None:
            return self._call_long(self._upload(id, call, until, deadline_seconds))
        pending = Pending(self, id, call, render_call(id, call), until)
        roll.add(pending)
        if self._up_since is None:
            self._wait(pending)
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
        if not self.connected and self._line is None:
            self._dialler.want()
        return probe

    def _upload(self, id: int, call: Call, until: float, seconds: float) -> Upload:
        """A call that travels in parts, if the home knows how."""
        stream = call.stream
        size = len(call.body) if stream is None else stream.size or 0
        if len(call.head) + size > self._call_limit:
            raise TooLarge("the call is larger than its home takes")
        if stream is not None and stream.taken:
            raise Busy("a part of the call has been sent elsewhere", retry_after_seconds=1)
        return Upload(self, id, call, until, seconds)

    def _call_long(self, upload: Upload) -> Deferred[Relayed]:
        self._roll.add(upload)
        if self._up_since is None or self._line is None:
            self._wait(upload)
        else:
            self._transfers.prepare(upload, self._line)
            self._flush_soon()
        return upload.deferred

    def stop(self) -> Deferred[None]:
        """Give up every call, connect no more, and close the connection."""
        if self._stopped is None:
            self._stopped = Deferred()
            for pending in list(self._pending.values()):
                sent = self._roll.was_sent(pending)
                kind = Unreachable if sent else Untried
                self._roll.fail(pending, f"the link to {self.peer} is closed", maybe_done=sent, kind=kind)
            self._probes.failed(Untried(f"the link to {self.peer} is closed"))
            self._transfers.broken()
            self._flush()
            self._roll.stop()
            self._dialler.stop()
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

    def cancelled(self, pending: Pending) -> None:
        """The caller of C{pending} hung up."""
        if pending.id in self._pending:
            self._roll.drop(pending)
            self._roll.count("cancelled")

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
        self._outlook.back()
        if self._watch is not None:
            self._watch.returned(self.peer, self._up_since)
        self._roll.back()
        self._log.info("linked to {home}", home=self.peer)
        self._complained = False
        for pending in list(self._pending.values()):
            if pending.tries and pending.incarnation != incarnation and not pending.repeatable:
                self._roll.fail(
                    pending, f"{self.peer} was started anew and may have done it", maybe_done=True
                )
        # in the order of the ids: what was sent before goes first
        self._calls.clear()
        self._calls.update({id: pending.frame for id, pending in self._pending.items()})
        for pending in list(self._pending.values()):
            if isinstance(pending, Upload):
                self._transfers.prepare(pending, line)
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
            self._roll.weight -= pending.weight
            if pending.tries:
                self._calls.pop(frame.id, None)
            if not pending.whole:
                self._flows.close(frame.id)
            self._roll.count("answered")
            pending.deferred.callback(frame)

    def leaving(self, seconds: int) -> None:
        """The home is about to stop: hold calls for so long, and hang up when it has answered the others."""
        if self._up_since is None:
            return
        self._up_since = None
        self._leaving = True
        now = self.clock.seconds()
        self._outlook.leaving(now, seconds)
        if self._watch is not None:
            self._watch.leaving(self.peer, now, seconds)
        self._log.info("{home} stops; calls are held for {seconds} s", home=self.peer, seconds=seconds)
        for id in self._calls:
            self._roll.hold(self._pending[id], self._outlook.hold(now))
        self._flush_soon()

    def returned(self, line: HomeConnection, id: int) -> None:
        """The home has done nothing about the call C{id} and will not: hold it for the next incarnation."""
        pending = self._pending.get(id)
        if pending is None or id in self._calls:
            return
        self._roll.count("returned")
        if pending.incarnation == line.incarnation:
            pending.tries = 0  # a link broke over it before, but it did not arrive then either
        self._transfers.drop(id)
        if isinstance(pending, Upload):
            if not pending.at_hand:
                self._roll.fail(
                    pending, f"{self.peer} did not get all of the call", maybe_done=pending.tries > 0
                )
                return
            pending.rewind()
        self._calls[id] = pending.frame
        if self._leaving:
            self._roll.hold(pending, self._outlook.hold(self.clock.seconds()))
        else:
            self._roll.fail(pending, f"{self.peer} did not take the call", maybe_done=pending.tries > 0)

    def read(self) -> None:
        """All that arrived together has been looked at."""
        if self._leaving or len(self._seen) >= ACKNOWLEDGE_COUNT or self._seen_bytes >= ACKNOWLEDGE_BYTES:
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
            if self._up_since is None and not self._leaving:
                self._not_connected(why, Unreachable)
            else:
                self._broken(line, why)
        self._check_stopped()

    def part(self, frame: Part | Window | Begin) -> None:
        """Something travels in parts."""
        if isinstance(frame, Part):
            self._transfers.part(frame)
        elif isinstance(frame, Window):
            self._transfers.window(frame)
        else:
            self._transfers.begin(frame)

    # what travels in parts

    def acknowledge(self, id: int, octets: int) -> None:
        """A reply of so many octets is here."""
        self._seen.append(id)
        self._seen_bytes += octets

    def forget(self, id: int) -> None:
        """Nobody waits for the rest of a reply."""
        self.send_soon(render_cancel(id))

    def send_soon(self, frame: bytes) -> None:
        """Send C{frame} with the next that is sent."""
        if self._leaving or self._up_since is not None:
            self._others.append(frame)
            self._flush_soon()

    def flush_soon(self) -> None:
        """Send what can be sent at the end of the turn."""
        self._flush_soon()

    # calls

    def _dropped(self, pending: Pending, unsent: bool) -> None:
        """A call is given up: tell the home, if it has heard of it."""
        self._transfers.drop(pending.id)
        if not unsent:
            self._others.append(render_cancel(pending.id))
            self._flush_soon()
        elif pending.tries:
            self._others.append(render_cancel(pending.id))

    def _expire(self, now: float) -> float:
        return self._transfers.expire(now)

    def _flush_soon(self) -> None:
        if not self._flushing and (self._leaving or self._up_since is not None):
            self._flushing = True
            self._soon(self._flush)

    def _flush(self) -> None:
        """Write everything that waits, at once; what cannot be written now stays."""
        self._flushing = False
        line = self._line
        if line is None or line.paused or (self._up_since is None and not self._leaving):
            return
        if self._seen:
            self._others.append(render_answered(self._seen))
            self._seen, self._seen_bytes = [], 0
        if self._leaving:
            data = b"".join(self._others)
            self._others.clear()
        elif self._others:
            self._others.extend(self._calls.values())
            data = b"".join(self._others)
            self._others.clear()
            self._calls.clear()
        else:
            data = b"".join(self._calls.values())
            self._calls.clear()
        if data:
            line.write(data)
        if self._flows.ready:
            self._send_parts(line)
        if self._leaving and len(self._calls) == len(self._pending) and not self._transfers.downloads:
            line.close()

    def _send_parts(self, line: HomeConnection) -> None:
        """Write a little of what travels in parts; the rest after what may come meanwhile."""
        if not line.paused:
            line.write(self._flows.next(TURN_SIZE))
        if self._flows.ready:
            self._flush_soon()

    # a home that is away

    def _wait(self, pending: Pending) -> None:
        """Have a new call wait for a home that takes none now, as long as that makes sense."""
        now = self.clock.seconds()
        until = self._outlook.hold(now)
        if self._leaving or until > now:
            self._roll.hold(pending, until)
        if self._line is None:
            self._dialler.want()

    # the connection

    def _attempted(self, why: str, number: int) -> None:
        """An attempt to connect has ended."""
        if self._line is None:  # never connected, or gone again before this was told
            self._not_connected(why, Untried if number in _EXHAUSTED else Unreachable)
        self._check_stopped()

    def _not_connected(self, why: str, kind: type[Unreachable]) -> None:
        """An attempt failed: what was never sent, and is not to be held, has waited long enough."""
        self._dialler.failures += 1
        if self._stopped is not None:
            return
        now = self.clock.seconds()
        if not self._outlook.replaced(now):
            self._complain(why)
        for pending in list(self._pending.values()):
            if not pending.tries and pending.hold <= now:
                self._roll.fail(pending, f"{self.peer} cannot be reached", kind=kind)
        self._probes.failed(kind(f"{self.peer} cannot be reached: {why}"))
        # a home that was never reached is tried again when somebody wants it
        if self._pending or self._outlook.was_linked:
            self._try_later()

    def _broken(self, line: HomeConnection, why: str) -> None:
        """The connection is over: what had been sent waits for the next one, if it was the first to break."""
        now, outlook = self.clock.seconds(), self._outlook
        planned, self._leaving = self._leaving, False
        good = planned or (self._up_since is not None and now - self._up_since >= GOOD_SECONDS)
        self._dialler.failures = 0 if good else self._dialler.failures + 1
        self._up_since = None
        if self._stopped is not None:
            return
        if not planned:
            outlook.lost(now)
            self._complain(why)
        self._others.clear()
        self._transfers.broken()
        for pending in list(self._pending.values()):
            if pending.id in self._calls:
                self._roll.hold(pending, outlook.hold(now))
                continue
            pending.incarnation = line.incarnation
            begun = pending.whole or pending.tries > 0
            if isinstance(pending, Upload) and not self._transfers.survives(pending):
                continue
            if not begun:
                self._calls[pending.id] = pending.frame
                self._roll.hold(pending, outlook.hold(now))
                continue
            pending.tries += 1
            if pending.tries >= TRIES_LIMIT:
                self._roll.fail(pending, f"the link to {self.peer} broke twice over it", maybe_done=True)
            else:
                self._calls[pending.id] = pending.frame
                self._roll.hold(pending, outlook.hold_sent(now))
        self._try_later()

    def _try_later(self) -> None:
        now = self.clock.seconds()
        if self._line is not None:
            return
        if self._outlook.replaced(now):
            self._dialler.soon()
        else:
            self._dialler.later(self._outlook.longest_pause(now))

    def _complain(self, why: str) -> None:
        """Say once per episode that the home cannot be reached."""
        if not self._complained:
            self._complained = True
            self._log.warn("no link to {home}: {why}", home=self.peer, why=why)

    def _check_stopped(self) -> None:
        stopped = self._stopped
        if stopped is not None and not (self._open or self._dialler.attempting or stopped.called):
            stopped.callback(None)
