"""A call on its way over a farm link, as long as it has no reply."""

from __future__ import annotations

from typing import ClassVar, Protocol

from twisted.internet.defer import Deferred

from rvpfarm.link.flows import Source, Whole
from rvpfarm.link.frames import render_ask, render_call
from rvpfarm.link.parts import WINDOW_SIZE, render_open
from rvpfarm.protocol.calls import Call, Relayed


class Owner(Protocol):
    """Who made the call, and is told of its end."""

    def cancelled(self, pending: Pending) -> None:
        """Nobody waits for C{pending} any longer."""


class Pending:
    """One call that waits for its reply.

    @ivar frame: kept to be sent again over a new connection.
    @ivar weight: how many octets it counts for.
    @ivar until: when its caller stops waiting.
    @ivar hold: when it stops waiting for a home that is away.
    @ivar tries: how often a connection broke over it when all of it had been sent.
    @ivar incarnation: the one of the home that it was last sent to.
    """

    __slots__ = (
        "call",
        "deferred",
        "frame",
        "hold",
        "id",
        "incarnation",
        "owner",
        "tries",
        "until",
        "weight",
    )

    #: Whether the home has all of it when its frame has been sent.
    whole: ClassVar[bool] = True

    def __init__(self, owner: Owner, id: int, call: Call, frame: bytes, until: float) -> None:
        self.owner = owner
        self.id = id
        self.call = call
        self.frame = frame
        self.until = until
        self.weight = len(frame)
        self.tries = self.incarnation = 0
        self.hold = 0.0
        self.deferred: Deferred[Relayed] = Deferred(self._cancel)

    def _cancel(self, deferred: Deferred[Relayed]) -> None:
        self.owner.cancelled(self)

    @property
    def repeatable(self) -> bool:
        """Whether doing it twice is no worse than doing it once."""
        call = self.call
        if call.method == b"SUBSCRIBE":
            return b"subscription-id" in call.headers
        return call.method != b"NOTIFY"


class Upload(Pending):
    """A call whose body is sent in parts, after its frame and when the home asks for them.

    @ivar sent: all of the body has been sent, over this connection or, if it is not at hand any more, over
        another.
    @ivar breaks: how often a connection broke in the middle of it.
    @ivar seconds: how long its caller waits for a reply when all has been sent.
    """

    __slots__ = ("breaks", "seconds", "sent")

    def __init__(self, owner: Owner, id: int, call: Call, until: float, seconds: float) -> None:
        stream = call.stream
        size = len(call.body) if stream is None else stream.size
        super().__init__(owner, id, call, render_open(id, call, size), until)
        self.weight += len(call.body) if stream is None else WINDOW_SIZE
        self.seconds = seconds
        self.sent = False
        self.breaks = 0

    @property
    def whole(self) -> bool:  # type: ignore[override]  # here it changes
        """Whether the home has all of it."""
        return self.sent

    @property
    def at_hand(self) -> bool:
        """Whether all of the body can be sent, perhaps once more."""
        return self.call.stream is None or not self.call.stream.taken

    def source(self) -> Source:
        """The body from its beginning, or what is left of it."""
        return self.call.stream or Whole(self.call.body)

    def rewind(self) -> None:
        """Make it ready for a new connection: to be sent again or, if that cannot be, to be asked for."""
        if self.at_hand:
            size = len(self.call.body) if self.call.stream is None else self.call.stream.size
            self.sent, self.frame = False, render_open(self.id, self.call, size)
        else:
            self.frame = render_ask(self.id)

    def for_old_home(self) -> bool:
        """Make it ready for a home that knows nothing of parts.

        @return: whether it can be sent now.
        """
        if self.call.stream is not None:
            return False
        self.sent, self.frame = True, render_call(self.id, self.call)
        return True
