"""What a home remembers of the calls that came over farm links, so that none is executed twice."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from twisted.internet.defer import Deferred

from rvpfarm.protocol.calls import Relayed, Reply

#: Calls of one origin in work, or answered without the reply having been acknowledged.
WORKS_LIMIT = 8192
#: Octets of the replies of one origin that wait to be acknowledged.
BYTES_LIMIT = 32 * 1024 * 1024
#: How long a reply is kept for a caller whose link broke.
KEEP_SECONDS = 120.0


class Known(Enum):
    """What the ledger knows of a call that has just arrived."""

    NEW = "execute it"
    IN_WORK = "it is being executed already"
    ANSWERED = "it was executed: send its reply again"
    TOO_MANY = "refuse it: too much of this origin is in work or unacknowledged"


@dataclass(slots=True, eq=False)
class Work:
    """One call that was taken on.

    @ivar deferred: the answer that is being worked on, as long as it is.
    @ivar frame: the frame of its reply, once it is answered.
    @ivar until: when the reply is forgotten.
    """

    deferred: Deferred[Reply | Relayed] | None = None
    frame: bytes | None = None
    until: float = 0.0


class Line(Protocol):
    """A connection by which a caller can be told the replies.

    @ivar edition: the one that both ends speak.
    """

    edition: int

    def send(self, frame: bytes) -> None:
        """Send C{frame}."""

    def abandon(self) -> None:
        """Close at once; what still arrives is not read."""


class Ledger:
    """The calls of one origin, that is of one process of one caller, over all its connections.

    @ivar caller: whose process it is; nobody else may use its origin.
    @ivar line: the connection it has now, if it has one.
    """

    __slots__ = ("_bytes", "_works", "caller", "line")

    def __init__(self, caller: str) -> None:
        """
        @param caller: the name of the farm member.
        """
        self.caller = caller
        self.line: Line | None = None
        self._works: dict[int, Work] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._works)

    def known(self, id: int) -> Known:
        """What to do about the call C{id}."""
        work = self._works.get(id)
        if work is not None:
            return Known.IN_WORK if work.frame is None else Known.ANSWERED
        if len(self._works) >= WORKS_LIMIT or self._bytes >= BYTES_LIMIT:
            return Known.TOO_MANY
        return Known.NEW

    def begin(self, id: int) -> Work:
        """Take on the call C{id}."""
        work = self._works[id] = Work()
        return work

    def answer(self, id: int, work: Work, frame: bytes, now: float) -> bool:
        """Keep the reply to the call C{id} until it is acknowledged.

        @return: whether anybody still wants it.
        """
        if self._works.get(id) is not work:
            return False
        work.deferred = None
        work.frame = frame
        work.until = now + KEEP_SECONDS
        self._bytes += len(frame)
        return True

    def reply(self, id: int) -> bytes:
        """The frame of the reply to the call C{id}, which is L{Known.ANSWERED}."""
        frame = self._works[id].frame
        assert frame is not None
        return frame

    def forget(self, id: int) -> Work | None:
        """Drop the call C{id}, which is acknowledged, or which nobody waits for.

        @return: what was known of it.
        """
        work = self._works.pop(id, None)
        if work is not None and work.frame is not None:
            self._bytes -= len(work.frame)
        return work

    def sweep(self, now: float) -> int:
        """Drop the replies that nobody fetched in time.

        @return: how many they were.
        """
        old = [id for id, work in self._works.items() if work.frame is not None and work.until <= now]
        for id in old:
            self.forget(id)
        return len(old)

    def in_work(self) -> list[Work]:
        """The calls that are not answered yet."""
        return [work for work in self._works.values() if work.frame is None]
