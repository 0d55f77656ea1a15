"""One accepted connection: the strict reader in, a L{Call} out, the reply back in order.

This is the one place where a L{Refusal} becomes an answer and where anything else that is raised becomes a
log entry and a 500.  What a peer can make a connection hold is bounded on every side: requests in work, bytes
read ahead, answers not fetched, and the time each of these may take.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer, ISSLTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from rvpfarm.protocol.address import unmapped
from rvpfarm.protocol.calls import (
    CONNECTION_BOUND,
    IN_CLEAR,
    Busy,
    Call,
    Failed,
    Refusal,
    Relayed,
    Reply,
    TooSlow,
    Unreachable,
)
from rvpfarm.protocol.streams import BodyStream, Rest, Streamed
from rvpfarm.web.admission import Admission
from rvpfarm.web.deadline import Deadline
from rvpfarm.web.reader import RequestReader, Stage
from rvpfarm.web.writer import render_reply

if TYPE_CHECKING:
    from rvpfarm.web.server import CallFactory

#: A peer that lets a full write buffer stand so long without fetching any of it is cut off.
STALL_SECONDS = 30.0

#: So long a refused peer has to read its refusal before the connection goes.
LINGER_SECONDS = 5.0

#: This many octets are looked at together, so that one read cannot make many calls wait in memory.
_SLICE = 16384

#: More than this is not thrown away for a peer that was told to stop sending.
_DISCARDED = 1 << 20

#: So many connections beyond the limit are told so at a time; the rest is closed without a word.
_TURNED_AWAY = 256

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

#: What a peer is told that is turned away.
_FULL = {
    "conn": "too many connections",
    "source": "too many connections from your address",
    "drain": "this server is about to stop",
}


class _Turn:
    """A request whose answer is not written yet, in its place among the others of the connection."""

    __slots__ = ("answer", "call", "close", "room", "started", "wire")

    def __init__(self, call: Call | None, started: float, room: Admission) -> None:
        self.call = call
        self.started = started
        self.room = room  # among what it is counted while it is in work
        self.answer: Deferred[Reply | Relayed] | Rest | None = None  # what is still to come of it
        self.wire: bytes | None = None
        self.close = False


@implementer(IPushProducer)
class CallProtocol(Protocol):
    """One connection.

    It produces answers, so C{pauseProducing} and its like are told by the transport that the peer does not
    fetch them: then nothing more is read, until it does or until L{STALL_SECONDS} are over.

    A peer that closes its sending side has hung up: what is in work for it is cancelled.
    """

    _log = Logger()
    factory: CallFactory
    transport: Any  # no one interface has all that both kinds of transports can do

    def __init__(self, factory: CallFactory) -> None:
        self.factory = factory
        self._answer = factory.answer
        self._withheld = factory.withheld
        self._forwards = False  # a proxy's that is believed: each call has a caller of its own
        self._source: str | None = None  # where it is counted
        self._reader = RequestReader(factory.limits, factory.stream_over)
        self._stage = Stage.IDLE
        self._turns: list[_Turn] = []  # begun, in the order of their answers
        self._waiting: list[Call] = []  # read, not begun
        self._body: BodyStream | None = (
            None  # of the call that was begun last, if that comes while it is read
        )
        self._unread = bytearray()  # arrived, not read
        self._busy = False  # a method further down the stack goes on with whatever waits
        self._stalled = False  # the peer does not fetch its answers
        self._deaf = False  # reading is paused
        self._last = False  # the answer that ends the connection is among the turns
        self._closing = False  # that answer is written, or the connection is lost
        self._rest: Rest | None = None  # of the answer that is being written in parts
        self._discarded = 0
        self._deadline = Deadline(factory.clock, self._overdue)  # of what the peer is to do next
        self._expect = self._deadline.move

    # what the transport tells

    def connectionMade(self) -> None:
        """Take the connection up, or tell the peer that there are too many."""
        factory = self.factory
        self._peer = unmapped(getattr(self.transport.getPeer(), "host", ""))
        self._name = factory.name_connection()
        source = factory.edge.source_of(self._peer)
        refused = "drain" if factory.refusing else factory.edge.enter(source)
        if refused:
            self._turn_away(refused)
            return
        self._source = source
        factory.connections.add(self)
        self._judge()
        self.transport.registerProducer(self, True)
        self._expect(factory.seconds() + factory.limits.idle_seconds)

    def dataReceived(self, data: bytes) -> None:
        """Read C{data} and begin the calls that are complete with it."""
        if self._last or self._closing:
            self._discard(len(data))
            return
        if self._busy or self._waiting or self._unread or len(data) > _SLICE:
            self._unread += data
        else:
            calls = self._reader.feed(data)
            if len(calls) == 1 and not self._turns and not self._stalled:
                self._busy = True
                self._begin(calls[0])
                self._busy = False
            else:
                self._waiting.extend(calls)
            self._watch_stage(progress=bool(calls))
        self._go_on()

    def pauseProducing(self) -> None:
        """The peer does not fetch its answers."""
        if not self._stalled:
            self._stalled = True
            if self._rest is not None:
                self._rest.pause()
            self._expect(self.factory.seconds() + STALL_SECONDS)
            self._regulate()

    def resumeProducing(self) -> None:
        """The peer fetches its answers again."""
        self._stalled = False
        if not self._closing:
            self._expect_input()
            if self._rest is not None:
                self._rest.resume()
            self._go_on()

    def stopProducing(self) -> None:
        """The transport is closing; C{connectionLost} will follow."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The peer hung up, or the connection was closed here: nobody waits for what is in work."""
        self._closing = True
        self._deadline.stop()
        self._drop()
        factory = self.factory
        if self._source is not None:
            factory.edge.leave(self._source)
            self._source = None
        factory.forget(self)
        if factory.on_gone is not None:
            factory.on_gone(self._name)

    # whom it speaks for

    def _judge(self) -> None:
        """Decide whether this is the connection of a proxy that is believed about its callers.

        Such a one may carry the calls of many, so nothing that is proved on it counts for the next call
        (design invariant 7), be there a header or not.
        """
        factory = self.factory
        own = getattr(self.transport, "unannounced", False)  # of a proxy that is asked for a preamble
        self._forwards = not own and self._peer in factory.edge.trusted
        if self._forwards:
            self._answer = self._answer_forwarded
            self._withheld = factory.withheld | CONNECTION_BOUND
        else:
            self._answer = factory.answer
            self._withheld = factory.withheld
        if not (getattr(self.transport, "secure", False) or ISSLTransport.providedBy(self.transport)):
            self._withheld |= IN_CLEAR  # what a proxy says of its own callers' connections counts for nothing

    def judge_anew(self) -> None:
        """Other proxies are listed now.

        A connection that is seen otherwise than before gets a new name: what was proved on it is void.
        """
        factory = self.factory
        if self._source is not None:
            self._source = factory.edge.move(self._source, self._peer)
        before = self._forwards
        self._judge()
        if self._forwards is not before:
            name, self._name = self._name, factory.name_connection()
            if factory.on_gone is not None:
                factory.on_gone(name)

    def _answer_forwarded(self, call: Call) -> Reply | Relayed | Deferred[Reply | Relayed]:
        """Have a call answered that a proxy passes on.

        @raise BadRequest: the proxy does not say for whom in a way that can be read.
        """
        factory = self.factory
        call.peer = factory.edge.caller(self._peer, call.headers)
        return factory.answer(call)

    # from calls to answers

    def _go_on(self) -> None:
        """Do what can be done now: begin what waits, answer what is refused, say what may be sent."""
        if self._busy or self._closing:
            return
        if self._waiting or self._unread:
            self._busy = True
            self._pump()
            self._busy = False
            if self._last:  # what was sent after the last request is not asked of anybody
                self._discarded += 1
                self._waiting.clear()
                self._unread.clear()
        if not (self._waiting or self._unread or self._last or self._closing):
            reader = self._reader
            if reader.refusal is not None:
                self._refuse(reader.refusal)
            elif reader.wants_continue and not self._turns:
                reader.wants_continue = False
                self.transport.write(_CONTINUE)
                self._expect(self.factory.seconds() + self.factory.limits.body_seconds)
        self._regulate()

    @property
    def _streaming(self) -> bool:
        """Whether the last of the turns is that of a call whose body is still arriving."""
        return self._body is not None and not self._body.complete

    def _pump(self) -> None:
        limit = self.factory.limits.pipelined
        while not (self._stalled or self._last or self._closing or len(self._turns) >= limit):
            if self._body is not None and self._body.full:
                return
            if self._waiting:
                self._begin(self._waiting.pop(0))
            elif self._unread:
                piece = bytes(self._unread[:_SLICE])
                del self._unread[:_SLICE]
                calls = self._reader.feed(piece)
                if self._reader.refusal is not None:
                    self._discarded += len(self._unread)
                    self._unread.clear()
                self._waiting.extend(calls)
                self._watch_stage(progress=bool(calls))
            else:
                return

    def _begin(self, call: Call) -> None:
        factory = self.factory
        call.peer = self._peer
        call.connection = self._name
        call.withheld = self._withheld
        admission = factory.admission
        if call.stream is not None:
            admission = factory.long
            self._body = call.stream
            call.stream.drained = self._go_on
        turn = _Turn(call, factory.seconds(), admission)
        if (call.minor == 0 or b"connection" in call.headers) and _is_last(call):
            turn.close = self._last = True
        if admission.in_work >= admission.limit:
            factory.reject("queue")
            self._complete(turn, Busy("too many requests in work").reply())
        else:
            admission.in_work += 1
            try:
                answer = self._answer(call)
            except Exception:  # Refusals among them: this is where they become answers
                admission.in_work -= 1
                self._complete(turn, self._excuse(Failure(), call))
            else:
                if isinstance(answer, Deferred):
                    self._turns.append(turn)
                    turn.answer = answer
                    answer.addBoth(self._answered, turn)
                    return
                admission.in_work -= 1
                self._complete(turn, answer)
        if self._turns:
            self._turns.append(turn)
        else:
            self._write(turn)

    def _answered(self, result: Reply | Relayed | Failure, turn: _Turn) -> None:
        turn.room.in_work -= 1
        call = turn.call
        if call is None:  # refused before all of it had come
            return
        if isinstance(result, Failure):
            if self._closing and result.check(CancelledError, Refusal, Unreachable):
                return
            result = self._excuse(result, call)
        if self._closing:
            if isinstance(result, Streamed):
                result.rest.cancel()
            return
        self._complete(turn, result)
        self._flush()
        self._go_on()

    def _excuse(self, failure: Failure, call: Call) -> Reply:
        """What the peer is told instead of an answer."""
        problem = failure.value
        if isinstance(problem, Refusal):
            self._log.debug(
                "{method} refused with {status}: {text}",
                method=call.method,
                status=problem.status,
                text=problem.text,
            )
            return problem.reply()
        self._log.failure("{method} from {peer} failed", failure, method=call.method, peer=call.peer)
        return Failed().reply()

    def _complete(self, turn: _Turn, reply: Reply | Relayed) -> None:
        """Make bytes of the answer, for when its turn has come."""
        call, turn.call, turn.answer = turn.call, None, None
        factory = self.factory
        version, method, keep = b"0.2", b"", False
        if call is not None:
            method = call.method
            keep = call.minor == 0
            if call.headers.get(b"rvp-notifications-version") == b"1.0":
                version = b"1.0"
            if call.stream is not None and not call.stream.complete:
                call.stream.close()
                turn.close = self._last = True
        close = turn.close or (factory.draining and self._says_goodbye(turn))
        try:
            wire = render_reply(reply, version=version, close=close, keep_alive=keep)
            status = reply.status
            turn.close = close or reply.close
            if reply.__class__ is Streamed:
                turn.answer = reply.rest
        except Exception:  # an answer that cannot be written is a bug like any other
            self._log.failure("the answer to {method} cannot be written", method=method)
            wire, status, turn.close = render_reply(Failed().reply(), version=version, close=True), 500, True
            if isinstance(reply, Streamed):
                reply.rest.cancel()
        if method == b"HEAD":
            wire = wire[: wire.index(b"\r\n\r\n") + 4]
            if turn.answer is not None:
                turn.answer.cancel()
                turn.answer = None
        turn.wire = wire
        if factory.metrics is not None:
            factory.metrics.request(method, status, factory.seconds() - turn.started)

    def _says_goodbye(self, turn: _Turn) -> bool:
        """While draining: does this answer the last that has arrived?  Then the connection ends with it."""
        if self._waiting or self._unread or self._reader.stage is not Stage.IDLE:
            return False
        if turn in self._turns and turn is not self._turns[-1]:
            return False
        self._last = True
        return True

    def _flush(self) -> None:
        """Write the answers whose turn has come."""
        turns = self._turns
        while turns and turns[0].wire is not None:
            if turns[0].answer is not None:
                self._write_begin(turns[0], cast(Rest, turns[0].answer))
                return
            self._write(turns.pop(0))
        if not (turns or self._closing or self._stalled) and self._stage is Stage.IDLE:
            self._expect_input()

    def _write(self, turn: _Turn) -> None:
        assert turn.wire is not None
        self.transport.write(turn.wire)
        if turn.close:
            self._end()

    def _write_begin(self, turn: _Turn, rest: Rest) -> None:
        """Write the beginning of an answer, and let the rest come as fast as the peer fetches it."""
        wire, turn.wire = turn.wire, None
        assert wire is not None
        self._rest = rest
        self.transport.write(wire)
        if self._stalled:
            rest.pause()
        rest.start(self._write_part, lambda complete: self._rest_over(turn, complete))

    def _write_part(self, data: bytes) -> None:
        self.transport.write(data)

    def _rest_over(self, turn: _Turn, complete: bool) -> None:
        """An answer has been written to its end, or will never be: then it ends with the connection."""
        self._rest = None
        if not complete:
            self._log.debug("the answer to {peer} broke off", peer=self._peer)
            self.abort()
            return
        self._turns.remove(turn)
        if turn.close:
            self._end()
        else:
            self._flush()
            self._go_on()

    def _refuse(self, refusal: Refusal) -> None:
        """Answer what cannot be read further, after everything before it, and read no more."""
        self._last = True
        self._log.debug(
            "{peer} refused with {status}: {text}",
            peer=self._peer,
            status=refusal.status,
            text=refusal.text,
        )
        self._discarded += 1  # whatever it was, the peer may be sending more of it
        if self._streaming:
            self._refuse_body(refusal)
        else:
            turn = _Turn(None, self.factory.seconds(), self.factory.admission)
            turn.close = True
            self._complete(turn, refusal.reply())
            self._turns.append(turn)
        self._flush()

    def _refuse_body(self, refusal: Refusal) -> None:
        """The call that was begun last will never be whole: it is refused, and its work given up."""
        turn = self._turns[-1]
        answer = turn.answer
        self._complete(turn, refusal.reply())
        if answer is not None:
            answer.cancel()

    # the end

    def _turn_away(self, reason: str) -> None:
        factory = self.factory
        factory.reject(reason)
        if len(factory.turned_away) >= _TURNED_AWAY:
            self.abort()
            return
        factory.turned_away.add(self)
        self._discarded += 1  # a request is on its way
        self.transport.write(render_reply(Busy(_FULL[reason], close=True).reply(), close=True))
        self._end()

    def _end(self) -> None:
        """Close, so that the peer can read what was written last even if it is still sending."""
        self._last = self._closing = True
        sending = self._discarded or self._waiting or self._unread or self._reader.stage is not Stage.IDLE
        self._drop()
        transport = self.transport
        self._expect(self.factory.seconds() + (STALL_SECONDS if self._stalled else LINGER_SECONDS))
        if self in self.factory.connections:
            transport.unregisterProducer()
        if self._deaf:
            self._deaf = False
            transport.resumeProducing()
        close_writing = getattr(transport, "loseWriteConnection", None)
        if sending and close_writing is not None and not ISSLTransport.providedBy(transport):
            close_writing()
        else:
            transport.loseConnection()

    def _drop(self) -> None:
        """Nobody will get the answers that are still to come."""
        self._waiting.clear()
        self._unread.clear()
        turns = self._turns[:]
        self._turns.clear()
        for turn in turns:
            if turn.answer is not None:
                turn.answer.cancel()

    def _discard(self, size: int) -> None:
        self._discarded += size
        if self._discarded <= _DISCARDED:
            return
        if self._closing:
            self.abort()
        else:
            self._regulate()

    def drain(self) -> None:
        """Close now if nothing is in work or arriving, else after the answer."""
        if self._closing or self._waiting or self._unread or self._stage is not Stage.IDLE:
            return
        if not self._turns:
            self._end()
        elif self._turns[-1].wire is not None:  # rendered before, and waits for those ahead of it
            self._turns[-1].close = self._last = True

    def abort(self) -> None:
        """Close now, whatever is in work."""
        self.transport.abortConnection()

    # reading and deadlines

    def _regulate(self) -> None:
        """Read as long as there is room for what may come."""
        if self._closing:
            return
        deaf = bool(
            self._stalled
            or self._waiting
            or self._unread
            or (self._body is not None and self._body.full)
            or self._discarded > _DISCARDED
            or len(self._turns) >= self.factory.limits.pipelined
        )
        if deaf is not self._deaf:
            self._deaf = deaf
            if deaf:
                self.transport.pauseProducing()
            else:
                self.transport.resumeProducing()
            if not self._stalled:
                self._expect_input()

    def _watch_stage(self, *, progress: bool) -> None:
        """A deadline runs from the moment a stage began; further bytes of the same stage do not move it.

        @param progress: a request is complete, so that the stage is that of another one.
        """
        stage = self._reader.stage
        if progress or stage is not self._stage:
            self._stage = stage
            if not (self._stalled or self._closing):
                self._expect_input()

    def _expect_input(self) -> None:
        """Start the clock for whatever the peer is to send next; nothing is, while nothing is read."""
        limits, stage = self.factory.limits, self._reader.stage
        if self._deaf or self._last or self._reader.wants_continue:
            self._expect(inf)
        elif stage is Stage.HEAD:
            self._expect(self.factory.seconds() + limits.head_seconds)
        elif stage is Stage.BODY:
            self._expect(self.factory.seconds() + limits.body_seconds)
        elif self._turns:
            self._expect(inf)
        else:
            self._expect(self.factory.seconds() + limits.idle_seconds)

    def _overdue(self) -> None:
        if self._closing or self._stalled:
            self._log.debug("{peer} does not fetch its answers", peer=self._peer)
            self.abort()
        elif self._stage is Stage.IDLE:
            self._end()
        else:
            self._refuse(TooSlow(f"the request stopped {self._stage.value}", close=True))


def _is_last(call: Call) -> bool:
    """Does the caller want the connection to end after the answer?"""
    options = [option.strip() for option in call.headers.get(b"connection", b"").lower().split(b",")]
    return b"close" in options or (call.minor == 0 and b"keep-alive" not in options)
