"""One connection of a caller to this home: it proves both ends, then carries frames, many to a write."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, cast

from twisted.internet.interfaces import IConsumer, IDelayedCall, IPushProducer, IReactorTime, ITCPTransport
from twisted.internet.protocol import Protocol as Connection
from twisted.python.failure import Failure
from zope.interface import implementer

from rvpfarm.link.arrivals import Arrivals, Store
from rvpfarm.link.flows import Flows, Whole
from rvpfarm.link.frames import (
    HELLO_ONLY,
    PROOF_ONLY,
    REPLY_OVERHEAD,
    Answered,
    CallFrame,
    Cancel,
    FrameReader,
    Gone,
    Ping,
    render_leaving,
    render_pong,
    render_returned,
    reply_of,
)
from rvpfarm.link.kinds import NUMBER_SIZE, BadFrame, Kind
from rvpfarm.link.ledger import Known, Ledger
from rvpfarm.link.meeting import (
    NONCE_SIZE,
    Edition,
    Hello,
    Meeting,
    Proof,
    is_proof,
    render_challenge,
    render_edition,
    render_welcome,
    standing,
)
from rvpfarm.link.parts import PART_SIZE, WHOLE_LIMIT, Ask, Open, Part, Window, render_begin
from rvpfarm.protocol.calls import Refusal

#: From the connection to the end of the handshake.
HANDSHAKE_SECONDS = 5.0
#: How long a caller may take to read the last of what was written to it.
CLOSE_SECONDS = 2.0
#: The frame of a reply that is not too long to travel in one.
LONGEST_REPLY = WHOLE_LIMIT + REPLY_OVERHEAD
#: So much is written beyond what the transport likes to hold before the caller is not read any more.
BEYOND_LIMIT = 16384
#: So much of what travels in parts is written at a time, before what came meanwhile gets its turn.
TURN_SIZE = 32768


class Answers(Protocol):
    """Whose connection it is and who is told of it; L{rvpfarm.link.server.LinkFactory} is one.

    @ivar accepted: the farm key's part for links, and those of others while one replaces another.
    @ivar name: the id of this home.
    @ivar incarnation: counts the starts of this home.
    @ivar edition: the latest of the protocol that is to be spoken.
    @ivar allowed: what a proved caller may send, by the edition that both speak.
    @ivar draining: no new call is begun.
    @ivar store: room for the bodies of long calls.
    @ivar body_limit: the longest of them.
    @ivar nonce: makes so many unpredictable octets.
    @ivar soon: runs a function at the end of the loop's turn.
    """

    accepted: Sequence[bytes]
    name: str
    incarnation: int
    edition: int
    clock: IReactorTime
    allowed: Sequence[Mapping[int, int]]
    draining: bool
    store: Store
    body_limit: int
    nonce: Callable[[int], bytes]
    soon: Callable[[Callable[[], None]], object]

    def connected(self, connection: CallerConnection) -> None:
        """Somebody connected."""

    def refused(self, connection: CallerConnection, why: str) -> None:
        """Somebody did not prove who they are, or does not speak the protocol."""

    def admit(self, connection: CallerConnection, hello: Hello) -> Ledger:
        """A caller has proved who it is.

        @raise BadFrame: it cannot be admitted.
        """

    def take(self, ledger: Ledger, frame: CallFrame) -> bytes | None:
        """A call arrived.

        @return: the frame to send at once, if there is one.
        """

    def announced(self, ledger: Ledger, frame: Open) -> bytes | None:
        """A long call is to come.

        @return: the frame to send instead of taking it, empty if there is none; C{None} to take it.
        """

    def begin(self, ledger: Ledger, frame: CallFrame) -> bytes | None:
        """All of a long call has come: execute it.

        @return: as L{take}.
        """

    def asked(self, ledger: Ledger, id: int) -> bytes:
        """The caller has sent all of the call C{id} before, and wants to know what became of it.

        @return: the frame to send at once, empty if there is none.
        """

    def refusal(self, id: int, refusal: Refusal) -> bytes:
        """The frame that refuses the call C{id}, of which nothing is remembered."""

    def acknowledged(self, ledger: Ledger, ids: Iterable[int]) -> None:
        """The caller has the replies to these calls."""

    def cancelled(self, ledger: Ledger, id: int) -> None:
        """Nobody waits for the call C{id} any longer."""

    def gone(self, connection: str) -> None:
        """A connection to a caller is closed."""

    def disconnected(self, connection: CallerConnection) -> None:
        """The connection is gone."""


@implementer(IPushProducer)
class CallerConnection(Connection):
    """A caller's connection.

    @ivar ledger: the caller's, once it is proved.
    @ivar edition: the one that both ends speak; 0 until the caller has told that it knows one.
    @ivar heard: when anything last arrived.
    @ivar peer: the address of the other end.
    """

    def __init__(self, home: Answers) -> None:
        """
        @param home: is told what happens.
        """
        self._home = home
        self._reader = FrameReader(HELLO_ONLY)
        self._hello: Hello | None = None
        self._meeting: Meeting | None = None
        self._outbox: list[bytes] = []
        self._arrivals = Arrivals(home.store, home.body_limit)
        self._flows = Flows()
        self._flushing = False
        self._reading = False
        self._paused = self._deaf = False
        self._beyond = 0  # written since it was paused
        self._gone = False
        self._timer: IDelayedCall | None = None
        self.ledger: Ledger | None = None
        self.edition = 0
        self.heard = 0.0
        self.peer = ""

    def connectionMade(self) -> None:
        transport = cast(ITCPTransport, self.transport)
        self.peer = getattr(transport.getPeer(), "host", "")
        self.heard = self._home.clock.seconds()
        self._home.connected(self)
        self._timer = self._home.clock.callLater(HANDSHAKE_SECONDS, self._too_late)
        cast(IConsumer, transport).registerProducer(self, True)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self._leave()
        self._home.disconnected(self)

    def dataReceived(self, data: bytes) -> None:
        if self._gone:
            return
        self.heard = self._home.clock.seconds()
        self._reading = True
        try:
            for frame in self._reader.feed(data):
                if isinstance(frame, CallFrame):
                    self._call(frame)
                else:
                    self._other(frame)
                if self._gone:
                    return
        except BadFrame as wrong:
            self._home.refused(self, str(wrong))
            self.abandon()
        finally:
            self._reading = False
        if not self._flushing:
            self._flush()

    def send(self, frame: bytes) -> None:
        """Send C{frame} together with all others of this turn of the loop; a long reply in parts."""
        if self._gone:
            return  # the ledger keeps it
        if len(frame) > LONGEST_REPLY and self.edition:
            frame = self._send_beginning(frame)
        self._outbox.append(frame)
        self._flush_soon()

    def leave(self, seconds: int) -> None:
        """Tell the caller, if it understands that, that calls are worth holding for so long."""
        if self.edition:
            self.send(render_leaving(seconds))

    def sweep(self, now: float) -> None:
        """Look after what travels in parts: what does not move, or is known no more, is given up."""
        for id, refusal in self._arrivals.idle(now):
            self.send(self._home.refusal(id, refusal))
        for id in self._flows.ids():
            if self.ledger is None or self.ledger.known(id) is not Known.ANSWERED:
                self._flows.close(id)

    def give_up(self) -> None:
        """Hand back the calls that are not here to their end."""
        for id in self._arrivals.clear():
            self.send(render_returned(id))

    def close(self) -> None:
        """Send what is there, then close; a caller that is slow to take it is not waited for long."""
        if not self._gone:
            self._flush()
            self._leave()
            cast(IConsumer, self.transport).unregisterProducer()
            cast(ITCPTransport, self.transport).loseConnection()
            self._timer = self._home.clock.callLater(CLOSE_SECONDS, self._abort)

    def abandon(self) -> None:
        """Close at once; what still arrives is not read."""
        if not self._gone:
            self._leave()
            cast(IConsumer, self.transport).unregisterProducer()
            self._abort()
        elif self._timer is not None:
            self._cancel_timer()
            self._abort()

    # the transport: a caller that does not read its replies is not read either

    def pauseProducing(self) -> None:
        """Too much is waiting to be sent; if it is parts, what is short is still taken and answered."""
        self._paused = True
        self._beyond = 0

    def resumeProducing(self) -> None:
        """It has been sent."""
        self._paused = False
        if not self._gone:
            if self._deaf:
                self._deaf = False
                cast(IPushProducer, self.transport).resumeProducing()
            if self._flows.ready:
                self._flush_soon()

    def stopProducing(self) -> None:
        """The transport is closing; C{connectionLost} follows."""

    def _call(self, frame: CallFrame) -> None:
        assert self.ledger is not None
        reply = self._home.take(self.ledger, frame)
        if reply is not None:
            if len(reply) > LONGEST_REPLY and self.edition:
                reply = self._send_beginning(reply)
            self._outbox.append(reply)

    def _other(self, frame: object) -> None:
        """Act on a frame that is no call; the reader lets in only what may come now."""
        if isinstance(frame, Hello):
            self._greet(frame)
        elif isinstance(frame, Proof):
            self._admit(frame)
        elif isinstance(frame, Edition):
            self._agree(frame)
        elif isinstance(frame, Ping):
            self.send(render_pong(frame.token))
        elif isinstance(frame, Gone):
            self._home.gone(frame.connection)
        elif isinstance(frame, Answered | Cancel | Open | Part | Window | Ask):
            assert self.ledger is not None
            self._about_a_call(self.ledger, frame)

    def _about_a_call(self, ledger: Ledger, frame: Answered | Cancel | Open | Part | Window | Ask) -> None:
        """Act on what concerns a call and is none."""
        home = self._home
        if isinstance(frame, Answered):
            for id in frame.ids if self._flows else ():
                self._flows.close(id)
            home.acknowledged(ledger, frame.ids)
        elif isinstance(frame, Cancel):
            self._arrivals.close(frame.id)
            self._flows.close(frame.id)
            home.cancelled(ledger, frame.id)
        elif isinstance(frame, Window):
            self._flows.grant(frame.id, frame.octets)
        elif isinstance(frame, Ask):
            self._send_any(home.asked(ledger, frame.id))
        else:
            try:
                self._arrive(ledger, frame)
            except Refusal as refusal:
                self._arrivals.close(frame.id)
                self.send(home.refusal(frame.id, refusal))

    # what travels in parts

    def _arrive(self, ledger: Ledger, frame: Open | Part) -> None:
        """Take a long call, or a part of one.

        @raise Refusal: it is not to be had.
        """
        home, now = self._home, self.heard
        if isinstance(frame, Open):
            instead = home.announced(ledger, frame)
            self._send_any(self._arrivals.open(frame, now) if instead is None else instead)
            return
        come = self._arrivals.part(frame, now)
        if isinstance(come, bytes):
            self._send_any(come)
            return
        call, body = come
        whole = CallFrame(call.id, call.vouched, call.withheld, call.peer, call.connection, call.head, body)
        self._send_any(home.begin(ledger, whole) or b"")

    def _send_any(self, frame: bytes) -> None:
        """Send C{frame}, if it is one."""
        if frame:
            self.send(frame)

    def _send_beginning(self, frame: bytes) -> bytes:
        """The beginning of a long reply; the rest follows as the caller lets it come."""
        id, close = reply_of(frame)
        first = frame[REPLY_OVERHEAD : REPLY_OVERHEAD + PART_SIZE]
        self._flows.open(id, Whole(frame, REPLY_OVERHEAD + PART_SIZE))
        return render_begin(id, close, len(frame) - REPLY_OVERHEAD, first)

    def _greet(self, hello: Hello) -> None:
        home = self._home
        if hello.home != home.name:
            raise BadFrame("it is meant for another home; is its address in the directory right?")
        if home.draining:
            self.close()
            return
        nonce = home.nonce(NONCE_SIZE)
        self._hello = hello
        self._meeting = Meeting(hello.caller, hello.home, hello.origin, hello.nonce, nonce)
        self._reader.allowed = PROOF_ONLY
        self.send(render_challenge(nonce))

    def _admit(self, proof: Proof) -> None:
        home, meeting, hello = self._home, self._meeting, self._hello
        assert meeting is not None
        assert hello is not None
        keys = [key for key in home.accepted if is_proof(proof.proof, meeting.caller_proof(key))]
        if not keys:
            raise BadFrame("it does not know the farm key; do all members share one key file?")
        if home.draining:  # it has sent no call yet, and need not send one in vain
            self.close()
            return
        self.ledger = home.admit(self, hello)
        self._reader.allowed = home.allowed[0]
        if home.edition:
            self._reader.allowed = {**self._reader.allowed, int(Kind.EDITION): NUMBER_SIZE}
        self._cancel_timer()
        number = standing(home.incarnation, home.edition)
        self.send(render_welcome(number, meeting.home_proof(keys[0], number)))

    def _agree(self, edition: Edition) -> None:
        """The caller knows this edition, and sends its first call when it has heard ours."""
        home = self._home
        if self.edition or not edition.number:
            raise BadFrame("it tells its edition out of turn")
        if home.draining:
            self.close()
            return
        self.edition = min(edition.number, home.edition)
        self._reader.allowed = home.allowed[self.edition]
        self.send(render_edition(home.edition))

    def _too_late(self) -> None:
        self._timer = None
        self._home.refused(self, "nothing was proved in time")
        self.abandon()

    def _flush_soon(self) -> None:
        if not self._flushing and not self._reading:
            self._flushing = True
            self._home.soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if self._gone:
            return
        if self._outbox:
            outbox, self._outbox = self._outbox, []
            data = outbox[0] if len(outbox) == 1 else b"".join(outbox)
            cast(ITCPTransport, self.transport).write(data)
            if self._paused:
                self._hear_no_more(len(data))
        if self._flows.ready and not self._paused:
            cast(ITCPTransport, self.transport).write(self._flows.next(TURN_SIZE))
            if self._flows.ready:
                self._flush_soon()

    def _hear_no_more(self, octets: int) -> None:
        """So much more was written though too much waits: soon that must have an end."""
        self._beyond += octets
        if self._beyond > BEYOND_LIMIT and not self._deaf:
            self._deaf = True
            cast(IPushProducer, self.transport).pauseProducing()

    def _leave(self) -> None:
        self._gone = True
        self._outbox.clear()
        self._arrivals.clear()
        self._flows.clear()
        self._cancel_timer()

    def _abort(self) -> None:
        self._timer = None
        cast(ITCPTransport, self.transport).abortConnection()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
