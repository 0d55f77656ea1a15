"""A call on its way over a farm link, as long as it has no reply."""

from __future__ import annotations

from typing import Protocol

from twisted.internet.defer import Deferred

from rvpfarm.protocol.calls import Call, Relayed


class Owner(Protocol):
    """Who made the call, and is told of its end."""

    def cancelled(self, pending: Pending) -> None:
        """Nobody waits for C{pending} any longer."""


class Pending:
    """One call that waits for its reply.

    @ivar frame: kept to be sent again over a new connection.
    @ivar until: when its caller stops waiting.
    @ivar hold: when it stops waiting for a home that is away.
    @ivar tries: how often a connection broke over it.
    @ivar incarnation: the one of the home that it was last sent to.
    """

    __slots__ = ("call", "deferred", "frame", "hold", "id", "incarnation", "owner", "tries", "until")

    def __init__(self, owner: Owner, id: int, call: Call, frame: bytes, until: float) -> None:
        self.owner, self.id, self.call, self.frame, self.until = owner, id, call, frame, until
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
