"""One connection of a caller to this home: it proves both ends, then carries frames, many to a write."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, cast

from twisted.internet.interfaces import IConsumer, IDelayedCall, IPushProducer, IReactorTime, ITCPTransport
from twisted.internet.protocol import Protocol as Connection
from twisted.python.failure import Failure
from zope.interface import implementer

from rvpfarm.link.frames import (
    HELLO_ONLY,
    PROOF_ONLY,
    Answered,
    CallFrame,
    Cancel,
    FrameReader,
    Gone,
    Ping,
    render_leaving,
    render_pong,
)
from rvpfarm.link.kinds import BadFrame
from rvpfarm.link.ledger import Ledger
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

#: From the connection to the end of the handshake.
HANDSHAKE_SECONDS = 5.0
#: How long a caller may take to read the last of what was written to it.
CLOSE_SECONDS = 2.0


class Answers(Protocol):
    """Whose connection it is and who is told of it; L{rvpfarm.link.server.LinkFactory} is one.

    @ivar key: the farm key's part for links.
    @ivar name: the id of this home.
    @ivar incarnation: counts the starts of this home.
    @ivar edition: the latest of the protocol that is to be spoken.
    @ivar allowed: what a proved caller may send.
    @ivar draining: no new call is begun.
    @ivar nonce: makes so many unpredictable octets.
    @ivar soon: runs a function at the end of the loop's turn.
    """

    key: bytes
    name: str
    incarnation: int
    edition: int
    clock: IReactorTime
    allowed: Mapping[int, int]
    draining: bool
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
        self._flushing = False
        self._reading = False
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
        """Send C{frame} together with all others of this turn of the loop."""
        if self._gone:
            return  # the ledger keeps it
        self._outbox.append(frame)
        if not self._flushing and not self._reading:
            self._flushing = True
            self._home.soon(self._flush)

    def leave(self, seconds: int) -> None:
        """Tell the caller, if it understands that, that calls are worth holding for so long."""
        if self.edition:
            self.send(render_leaving(seconds))

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
        """Too much is waiting to be sent."""
        if not self._gone:
            cast(IPushProducer, self.transport).pauseProducing()

    def resumeProducing(self) -> None:
        """It has been sent."""
        if not self._gone:
            cast(IPushProducer, self.transport).resumeProducing()

    def stopProducing(self) -> None:
        """The transport is closing; C{connectionLost} follows."""

    def _call(self, frame: CallFrame) -> None:
        assert self.ledger is not None
        reply = self._home.take(self.ledger, frame)
        if reply is not None:
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
        elif isinstance(frame, Answered | Cancel):
            assert self.ledger is not None
            if isinstance(frame, Cancel):
                self._home.cancelled(self.ledger, frame.id)
            else:
                self._home.acknowledged(self.ledger, frame.ids)

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
        if not is_proof(proof.proof, meeting.caller_proof(home.key)):
            raise BadFrame("it does not know the farm key; do all members share one key file?")
        if home.draining:  # it has sent no call yet, and need not send one in vain
            self.close()
            return
        self.ledger = home.admit(self, hello)
        self._reader.allowed = home.allowed
        self._cancel_timer()
        number = standing(home.incarnation, home.edition)
        self.send(render_welcome(number, meeting.home_proof(home.key, number)))

    def _agree(self, edition: Edition) -> None:
        """The caller knows this edition, and sends its first call when it has heard ours."""
        home = self._home
        if self.edition or not home.edition or not edition.number:
            raise BadFrame("it tells its edition out of turn")
        if home.draining:
            self.close()
            return
        self.edition = min(edition.number, home.edition)
        self.send(render_edition(home.edition))

    def _too_late(self) -> None:
        self._timer = None
        self._home.refused(self, "nothing was proved in time")
        self.abandon()

    def _flush(self) -> None:
        self._flushing = False
        if self._outbox and not self._gone:
            outbox, self._outbox = self._outbox, []
            cast(ITCPTransport, self.transport).write(outbox[0] if len(outbox) == 1 else b"".join(outbox))

    def _leave(self) -> None:
        self._gone = True
        self._outbox.clear()
        self._cancel_timer()

    def _abort(self) -> None:
        self._timer = None
        cast(ITCPTransport, self.transport).abortConnection()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
