"""One connection to a home: it proves both ends, then carries frames and watches that the home is alive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast

from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IDelayedCall,
    IPushProducer,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import Factory
from twisted.internet.protocol import Protocol as Connection
from twisted.python.failure import Failure
from zope.interface import implementer

from rvpfarm.link.frames import (
    CHALLENGE_ONLY,
    WELCOME_ONLY,
    FrameReader,
    Leaving,
    Pong,
    ReplyFrame,
    Returned,
    from_home,
)
from rvpfarm.link.kinds import NUMBER_SIZE, BadFrame, Kind
from rvpfarm.link.meeting import (
    NONCE_SIZE,
    Challenge,
    Edition,
    Hello,
    Meeting,
    Welcome,
    is_proof,
    render_edition,
    render_hello,
    render_proof,
)
from rvpfarm.link.parts import Begin, Part, Window

#: How often the home is asked for a sign of life.
PING_SECONDS = 15.0
#: So many unanswered signs of life mean that the home is gone.
MISSED_LIMIT = 2
#: How long a home may take to read the last of what was written to it.
CLOSE_SECONDS = 2.0


class Calls(Protocol):
    """Whose connection it is and who is told of it; L{rvpfarm.link.client.LinkClient} is one.

    @ivar key: the farm key's part for links.
    @ivar name: the own name.
    @ivar peer: the id that the home must have.
    @ivar origin: names this process.
    @ivar edition: the latest of the protocol that is to be spoken.
    @ivar nonce: makes so many unpredictable octets.
    """

    key: bytes
    name: str
    peer: str
    origin: int
    edition: int
    nonce: Callable[[int], bytes]
    clock: IReactorTime

    def opened(self, line: HomeConnection) -> None:
        """There is a connection; nothing is proved yet."""

    def welcomed(self, line: HomeConnection, incarnation: int) -> None:
        """The home has proved itself."""

    def replied(self, frame: ReplyFrame) -> None:
        """The home has answered a call."""

    def returned(self, line: HomeConnection, id: int) -> None:
        """The home hands a call back, of which nothing was done."""

    def part(self, frame: Part | Window | Begin) -> None:
        """Something that travels in parts.

        @raise BadFrame: it is not to come.
        """

    def leaving(self, seconds: int) -> None:
        """The home is about to stop, and calls are worth holding for so long."""

    def read(self) -> None:
        """All that arrived together has been looked at."""

    def resumed(self) -> None:
        """The transport takes more."""

    def ponged(self, token: int) -> None:
        """The home has given the sign of life of that token."""

    def ping(self, token: int) -> None:
        """It is time to ask the home for a sign of life."""

    def lost(self, line: HomeConnection, why: str) -> None:
        """The connection is gone."""


@implementer(IPushProducer)
class HomeConnection(Connection):
    """One connection to the home: first the handshake, then frames.

    @ivar paused: the home reads too slowly; nothing more is to be written.
    @ivar incarnation: the home's, once it is proved.
    @ivar edition: the one that both ends speak, once that is known.
    """

    def __init__(self, client: Calls, deadline: float) -> None:
        """
        @param deadline: when the handshake must have ended.
        """
        self._client = client
        self._reader = FrameReader(CHALLENGE_ONLY)
        self._until = deadline
        self._nonce = b""
        self._meeting: Meeting | None = None
        self._timer: IDelayedCall | None = None
        self._missed = 0
        self._heard = False
        self._gone = False
        self._why = ""
        self.paused = False
        self.incarnation = self.edition = 0

    def connectionMade(self) -> None:
        client = self._client
        cast(IConsumer, self.transport).registerProducer(self, True)
        self._timer = client.clock.callLater(max(self._until - client.clock.seconds(), 0), self._too_late)
        client.opened(self)
        if not self._gone:
            self._nonce = client.nonce(NONCE_SIZE)
            self.write(render_hello(Hello(client.origin, self._nonce, client.name, client.peer)))

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self._gone = True
        self._cancel_timer()
        why = self._why or reason.getErrorMessage()
        if not self._why and not self.incarnation:
            why += " (before it was proved: do both sides share one farm key, and is this the right address?)"
        self._client.lost(self, why)

    def dataReceived(self, data: bytes) -> None:
        if self._gone:
            return
        self._heard = True
        client = self._client
        try:
            for frame in self._reader.feed(data):
                if isinstance(frame, ReplyFrame):
                    client.replied(frame)
                else:
                    self._other(frame)
                if self._gone:
                    return
        except BadFrame as wrong:
            self._why = str(wrong)
            self.abandon()
            return
        client.read()

    def write(self, data: bytes) -> None:
        """Send C{data}."""
        cast(ITCPTransport, self.transport).write(data)

    def close(self) -> None:
        """Send what was written, then close; a home that is slow to take it is not waited for long."""
        if not self._gone:
            self._gone = True
            self._cancel_timer()
            cast(IConsumer, self.transport).unregisterProducer()
            cast(ITCPTransport, self.transport).loseConnection()
            self._timer = self._client.clock.callLater(CLOSE_SECONDS, self._abort)

    def abandon(self) -> None:
        """Close at once; what still arrives is not read."""
        if not self._gone:
            self._gone = True
            self._cancel_timer()
            cast(IConsumer, self.transport).unregisterProducer()
            self._abort()

    # the transport

    def pauseProducing(self) -> None:
        """The home reads too slowly."""
        self.paused = True

    def resumeProducing(self) -> None:
        """The home has caught up."""
        self.paused = False
        self._client.resumed()

    def stopProducing(self) -> None:
        """The transport is closing; C{connectionLost} follows."""

    def _other(self, frame: object) -> None:
        """Act on a frame that is no reply; the reader lets in only what may come now."""
        if isinstance(frame, Part | Window | Begin):
            self._client.part(frame)
        elif isinstance(frame, Returned):
            self._client.returned(self, frame.id)
        elif isinstance(frame, Leaving):
            self._client.leaving(frame.seconds)
        elif isinstance(frame, Challenge):
            self._prove(frame)
        elif isinstance(frame, Welcome):
            self._check(frame)
        elif isinstance(frame, Pong):
            self._client.ponged(frame.token)
        elif isinstance(frame, Edition):
            self._reader.allowed = from_home(self.edition)
            self._begin()

    # the handshake, and whether the home is alive

    def _prove(self, challenge: Challenge) -> None:
        client = self._client
        self._meeting = Meeting(client.name, client.peer, client.origin, self._nonce, challenge.nonce)
        self._reader.allowed = WELCOME_ONLY
        self.write(render_proof(self._meeting.caller_proof(client.key)))

    def _check(self, welcome: Welcome) -> None:
        """Believe the home; one that knows editions must hear ours before it gets a call."""
        client, meeting = self._client, self._meeting
        assert meeting is not None
        if not is_proof(welcome.proof, meeting.home_proof(client.key, welcome.standing)):
            raise BadFrame("it does not know the farm key; do all members share one key file?")
        self.incarnation = welcome.incarnation
        self.edition = min(welcome.edition, client.edition)
        self._reader.allowed = from_home(self.edition)
        if self.edition:
            # whatever follows its answer may come together with it
            self._reader.allowed = {**self._reader.allowed, int(Kind.EDITION): NUMBER_SIZE}
            self.write(render_edition(client.edition))
        else:
            self._begin()

    def _begin(self) -> None:
        """The handshake is over."""
        self._cancel_timer()
        self._timer = self._client.clock.callLater(PING_SECONDS, self._ping)
        self._client.welcomed(self, self.incarnation)

    def _too_late(self) -> None:
        self._timer = None
        self._why = "the handshake took too long"
        self.abandon()

    def _ping(self) -> None:
        self._timer = None
        self._missed = 0 if self._heard else self._missed + 1
        self._heard = False
        if self._missed >= MISSED_LIMIT:
            self._why = "it no longer answers"
            self.abandon()
            return
        self._timer = self._client.clock.callLater(PING_SECONDS, self._ping)
        self._client.ping(self._missed)

    def _abort(self) -> None:
        self._timer = None
        cast(ITCPTransport, self.transport).abortConnection()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class HomeFactory(Factory):
    """Makes the one connection of an attempt."""

    noisy = False

    def __init__(self, client: Calls, deadline: float) -> None:
        """
        @param deadline: when its handshake must have ended.
        """
        self._client, self._deadline = client, deadline

    def buildProtocol(self, addr: IAddress | None) -> HomeConnection:
        """The connection."""
        return HomeConnection(self._client, self._deadline)
