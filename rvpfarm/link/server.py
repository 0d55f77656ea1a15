"""The home's end of farm links: who may call, each call executed once, replies in any order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from os import urandom
from typing import TYPE_CHECKING, Protocol, TypeAlias, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from rvpfarm.link.arrivals import STORE_LIMIT, Store
from rvpfarm.link.callerconnection import CallerConnection
from rvpfarm.link.frames import CALL_SLACK, CallFrame, from_caller, render_answer, render_returned
from rvpfarm.link.kinds import EDITION, BadFrame
from rvpfarm.link.ledger import Known, Ledger, Work
from rvpfarm.link.meeting import Hello
from rvpfarm.link.parts import Open
from rvpfarm.protocol.calls import Busy, Call, Failed, Limits, Refusal, Relayed, Reply, TimedOut
from rvpfarm.web.fast import soon_on
from rvpfarm.web.reader import parse_head
from rvpfarm.web.writer import render_reply

if TYPE_CHECKING:
    from rvpfarm.observe.metrics import Metrics

Answer: TypeAlias = Callable[[Call], Reply | Relayed | Deferred[Reply | Relayed]]

#: A caller asks for a sign of life every 15 seconds: silence for so long means that it is gone.
SILENCE_SECONDS = 60.0
#: How long calls are worth holding for a home that stops, which is for most of them while it is replaced.
HOLD_SECONDS = 15
#: How long calls in work are waited for when the home stops; with the start of the next incarnation it must
#: fit into the time for which calls are held.
DRAIN_SECONDS = 8.0
#: How long callers may take to hang up after they were told the end of what they had in work here.
LAST_SECONDS = 1.0
#: How often forgotten replies and silent callers are looked for.
SWEEP_SECONDS = 10.0
#: Connections that have not proved themselves yet, at any one time.
STRANGERS_LIMIT = 64
#: Processes whose calls are remembered, at any one time.
ORIGINS_LIMIT = 1024
#: Addresses whose refusal has been logged.
LOGGED_LIMIT = 1000


class Room(Protocol):
    """How much work the process may take on; L{rvpfarm.web.server.Admission} is one.

    @ivar limit: as many calls as this.
    @ivar in_work: are in work now.
    """

    limit: int
    in_work: int


class LinkFactory(Factory):
    """Takes the calls of farm members that know the farm key, and answers each exactly once.

    Calls are told apart by the caller's origin and their id, also when they are sent again over a new
    connection: a call in work is not begun again, and one that is answered gets the reply it had.

    @ivar draining: no new call is begun.
    @ivar in_work: how many calls are being worked on.
    @ivar store: room for the bodies of long calls that are arriving.
    @ivar body_limit: the longest body.
    """

    noisy = False
    _log = Logger()

    def __init__(
        self,
        answer: Answer,
        *,
        key: bytes,
        name: str,
        incarnation: int,
        clock: IReactorTime,
        limits: Limits,
        metrics: Metrics | None = None,
        admission: Room | None = None,
        on_gone: Callable[[str], None] | None = None,
        nonce: Callable[[int], bytes] = urandom,
        edition: int = EDITION,
        accepted: Sequence[bytes] = (),
    ) -> None:
        """
        @param answer: what executes a call.
        @param key: the farm key's part for links.
        @param name: the id of this home.
        @param incarnation: counts the starts of this home.
        @param admission: shared with the other listeners of this process, if it has any.
        @param on_gone: told the name of a connection to a caller that is closed, if it proved itself here.
        @param nonce: makes so many unpredictable octets.
        @param edition: the latest of the protocol that is to be spoken.
        @param accepted: further keys by which a caller may prove itself, while one replaces another.
        """
        self.edition = edition
        self.accepted: Sequence[bytes] = (key, *(other for other in accepted if other != key))
        self.key, self.name, self.incarnation, self.nonce = key, name, incarnation, nonce
        self.clock = clock
        self._answer, self._metrics, self._admission = answer, metrics, admission
        self._on_gone = on_gone
        self.soon = soon_on(clock)
        self.allowed: Sequence[Mapping[int, int]] = [
            from_caller(limits, number) for number in range(edition + 1)
        ]
        # a router has added to the hop count, or put it there
        self._limits = replace(limits, head=limits.head + CALL_SLACK, fields=limits.fields + 1)
        self.store, self.body_limit = Store(max(STORE_LIMIT, limits.body)), limits.body
        self.draining = self._gave_up = False
        self.in_work = 0
        self._connections: set[CallerConnection] = set()
        self._ledgers: dict[int, Ledger] = {}
        self._logged: set[str] = set()
        self._sweeping: IDelayedCall | None = None
        self._drained: Deferred[None] | None = None
        self._patience: IDelayedCall | None = None

    @property
    def callers(self) -> int:
        """How many farm members are connected."""
        return sum(ledger.line is not None for ledger in list(self._ledgers.values()))

    def buildProtocol(self, addr: IAddress | None) -> CallerConnection | None:
        """A connection to somebody who has yet to prove who they are."""
        if self.draining:
            return None
        strangers = sum(connection.ledger is None for connection in self._connections)
        if strangers >= STRANGERS_LIMIT:
            self._log.warn("{count} farm links wait to be proved: one more was closed", count=strangers)
            return None
        connection = CallerConnection(self)
        connection.factory = self
        return connection

    def drain(self, seconds: float = DRAIN_SECONDS, *, hold_seconds: int = HOLD_SECONDS) -> Deferred[None]:
        """Begin no further call, finish those in work, then be left by every caller.

        Callers are told at once.  Those that understand it have handed back to them what they send
        nevertheless, and hang up when they wait for nothing more, so that no call gets lost; others are
        refused with 503, and disconnected when nothing is in work.

        @param seconds: what is not answered by then is cancelled.
        @param hold_seconds: how long callers are to hold their calls for the next incarnation; 0 if there
            will be none.
        """
        assert not self.draining, "a link factory is drained once"
        self.draining = True
        drained = self._drained = Deferred()
        self._patience = self.clock.callLater(seconds, self._give_up)
        for connection in tuple(self._connections):
            connection.leave(hold_seconds)
        self._finished()
        return drained

    def cut_off(self) -> None:
        """While draining: wait for nothing more."""
        self._give_up()

    # what the connections tell

    def connected(self, connection: CallerConnection) -> None:
        """Somebody connected."""
        self._connections.add(connection)
        if self._sweeping is None:
            self._sweeping = self.clock.callLater(SWEEP_SECONDS, self._sweep)

    def refused(self, connection: CallerConnection, why: str) -> None:
        """Somebody did not prove who they are, or does not speak the protocol: logged once per address."""
        if connection.peer not in self._logged and len(self._logged) < LOGGED_LIMIT:
            self._logged.add(connection.peer)
            self._log.warn(
                "a farm link from {peer} was closed: {why} (said once per address)",
                peer=connection.peer,
                why=why,
            )

    def admit(self, connection: CallerConnection, hello: Hello) -> Ledger:
        """A caller has proved who it is: the connection takes the place of an earlier one of its origin.

        @raise BadFrame: it cannot be admitted.
        """
        ledger = self._ledgers.get(hello.origin)
        if ledger is None:
            if len(self._ledgers) >= ORIGINS_LIMIT:
                raise BadFrame("the calls of too many farm members are remembered")
            ledger = self._ledgers[hello.origin] = Ledger(hello.caller)
        elif ledger.caller != hello.caller:
            raise BadFrame(f"its origin belongs to {ledger.caller}")
        earlier, ledger.line = ledger.line, connection
        if earlier is not None:
            # what is still unread of it must not be executed after the caller has moved on
            earlier.abandon()
        self._log.info("{caller} is linked from {peer}", caller=hello.caller, peer=connection.peer)
        self._logged.discard(connection.peer)
        return ledger

    def take(self, ledger: Ledger, frame: CallFrame) -> bytes | None:
        """A call arrived: begin it, unless it was begun already.

        @return: the frame to send at once, if there is one.
        """
        known = ledger.known(frame.id)
        if known is Known.IN_WORK:
            return None
        if known is Known.ANSWERED:
            return ledger.reply(frame.id)
        room = self._admission
        if self.draining or known is Known.TOO_MANY or (room is not None and room.in_work >= room.limit):
            return self._turn_away(ledger, frame.id)
        return self.begin(ledger, frame)

    def announced(self, ledger: Ledger, frame: Open) -> bytes | None:
        """A long call is to come: see whether it is worth coming.

        @return: the frame to send instead of taking it, empty if there is none; C{None} to take it.
        """
        known = ledger.known(frame.id)
        if known is Known.IN_WORK:
            return b""
        if known is Known.ANSWERED:
            return ledger.reply(frame.id)
        room = self._admission
        if self.draining or known is Known.TOO_MANY or (room is not None and room.in_work >= room.limit):
            return self._turn_away(ledger, frame.id)
        return None

    def asked(self, ledger: Ledger, id: int) -> bytes:
        """The caller wants to know what became of the call C{id}.

        @return: the frame to send at once, empty if there is none.
        """
        known = ledger.known(id)
        if known is Known.IN_WORK:
            return b""
        return ledger.reply(id) if known is Known.ANSWERED else render_returned(id)

    def refusal(self, id: int, refusal: Refusal) -> bytes:
        """The frame that refuses the call C{id}, of which nothing is remembered."""
        return self._frame(id, refusal.reply(), b"0.2")

    def _turn_away(self, ledger: Ledger, id: int) -> bytes:
        """The frame that says that there is no room; nothing is remembered: sent again, it is a new call."""
        if self._metrics is not None:
            self._metrics.rejected("drain" if self.draining else "queue")
        if self.draining and ledger.line is not None and ledger.line.edition:
            return render_returned(id)
        return self.refusal(id, Busy("too much is in work at this home"))

    def acknowledged(self, ledger: Ledger, ids: Iterable[int]) -> None:
        """The caller has the replies to these calls: forget them."""
        for id in ids:
            ledger.forget(id)

    def cancelled(self, ledger: Ledger, id: int) -> None:
        """Nobody waits for the call C{id} any longer: stop it if that can be done."""
        work = ledger.forget(id)
        if work is not None and work.deferred is not None:
            work.deferred.cancel()

    def gone(self, connection: str) -> None:
        """The connection of that name to a caller is closed."""
        if self._on_gone is not None:
            self._on_gone(connection)

    def disconnected(self, connection: CallerConnection) -> None:
        """The connection is gone; what its caller had in work goes on."""
        self._connections.discard(connection)
        if connection.ledger is not None and connection.ledger.line is connection:
            connection.ledger.line = None
        if not self._connections and not self._ledgers and self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        self._finished()

    # calls

    def begin(self, ledger: Ledger, frame: CallFrame) -> bytes | None:
        """Execute a call; exceptions end here, where the work began.

        @return: the frame of the reply if it is there already.
        """
        id, version = frame.id, b"0.2"
        work = ledger.begin(id)
        reply: Reply | Relayed
        try:
            call = parse_head(frame.head, self._limits)
            call.body, call.peer, call.connection = frame.body, frame.peer, frame.connection
            call.via, call.vouched, call.withheld = ledger.caller, frame.vouched, frame.withheld
            if call.headers.get(b"rvp-notifications-version") == b"1.0":
                version = b"1.0"
            result = self._answer(call)
            if isinstance(result, Deferred):
                self._await(result, ledger, id, work, version)
                return None
            reply = result
        except Refusal as refusal:
            reply = refusal.reply()
        except Exception:
            self._log.failure("a call over the farm link failed")
            reply = Failed().reply()
        answer = self._frame(id, reply, version)
        ledger.answer(id, work, answer, self.clock.seconds())
        return answer

    def _await(
        self, result: Deferred[Reply | Relayed], ledger: Ledger, id: int, work: Work, version: bytes
    ) -> None:
        work.deferred = result
        self.in_work += 1
        room = self._admission
        if room is not None:
            room.in_work += 1

        def answered(reply: Reply | Relayed) -> None:
            self.in_work -= 1
            if room is not None:
                room.in_work -= 1
            answer = self._frame(id, reply, version)
            if ledger.answer(id, work, answer, self.clock.seconds()) and ledger.line is not None:
                ledger.line.send(answer)
            if self.draining:
                self._finished()

        def failed(failure: Failure) -> None:
            answered(self._reply_to(failure))

        result.addCallbacks(answered, failed)

    def _reply_to(self, failure: Failure) -> Reply:
        """The answer to a call whose work ended in C{failure}."""
        if failure.check(Refusal):
            return cast(Refusal, failure.value).reply()
        if not failure.check(CancelledError):
            self._log.failure("a call over the farm link failed", failure)
        elif self._gave_up:
            return TimedOut("the home stops, and could not wait for the end of it").reply()
        return Failed().reply()

    def _frame(self, id: int, reply: Reply | Relayed, version: bytes) -> bytes:
        try:
            if isinstance(reply, Relayed):
                wire = reply.wire
            else:
                wire = render_reply(_without_close(reply), version=version)
            return render_answer(id, wire, reply.close)
        except ValueError:
            self._log.failure("the reply to a call over the farm link cannot be sent")
            return render_answer(id, render_reply(Failed().reply(), version=version), reply.close)

    # the end of things

    def _finished(self) -> None:
        """Something came to its end; perhaps it was the last thing that L{drain} waits for."""
        if self._drained is None or (self.in_work and self._patience is not None):
            return
        for connection in tuple(self._connections):
            if not connection.edition:
                connection.close()
        if not self._connections and self._drained is not None:
            drained, self._drained = self._drained, None
            for timer in (self._sweeping, self._patience):
                if timer is not None and timer.active():
                    timer.cancel()
            self._sweeping = self._patience = None
            self._ledgers.clear()
            drained.callback(None)

    def _give_up(self) -> None:
        """What was to be finished has not been: cancel it, and see that the callers go."""
        self._gave_up = True
        for ledger in tuple(self._ledgers.values()):
            for work in ledger.in_work():
                if work.deferred is not None:
                    work.deferred.cancel()
        for connection in tuple(self._connections):
            connection.give_up()
        self._patience = self.clock.callLater(LAST_SECONDS, self._cut_off)
        self._finished()

    def _cut_off(self) -> None:
        """Nobody is waited for any longer."""
        self._patience = None
        for connection in tuple(self._connections):
            connection.abandon()
        self._finished()

    def _sweep(self) -> None:
        now = self.clock.seconds()
        self._sweeping = None
        for connection in tuple(self._connections):
            if now - connection.heard >= SILENCE_SECONDS:
                connection.abandon()
            else:
                connection.sweep(now)
        for origin, ledger in tuple(self._ledgers.items()):
            lost = ledger.sweep(now)
            if lost:
                self._log.warn(
                    "{count} replies were not fetched by {caller}", count=lost, caller=ledger.caller
                )
            if not len(ledger) and ledger.line is None:
                del self._ledgers[origin]
        if self._connections or self._ledgers:
            self._sweeping = self.clock.callLater(SWEEP_SECONDS, self._sweep)


def _without_close(reply: Reply) -> Reply:
    """The reply as it is relayed: C{Connection} is the business of whoever holds the caller's connection."""
    if not reply.close:
        return reply
    return Reply(reply.status, reply.headers, reply.body, reply.reason)
