"""Bodies and answers that are passed on while they arrive, with little of them held at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from rvpfarm.protocol.calls import Relayed

#: Whoever fills a body stops when so much of it waits, and goes on when no more than the other does.
HIGH_WATER, LOW_WATER = 65536, 16384


def _nobody() -> None:
    """What is told when nobody has asked to be told."""


class BodyStream:
    """The body of a call that is still arriving: filled by who reads it, emptied by who carries it on.

    @ivar size: how long it will be, or C{None} if that is not known before its end.
    @ivar complete: all of it has arrived, though perhaps not all of it is taken.
    @ivar taken: how much of it has been taken.
    @ivar arrived: told when there is more to take, or when it is complete.
    @ivar drained: told when there is room again after it had been L{full}.
    """

    __slots__ = ("_closed", "_full", "_held", "arrived", "complete", "drained", "size", "taken")

    def __init__(self, size: int | None) -> None:
        self.size = size
        self.taken = 0
        self.complete = self._closed = self._full = False
        self.arrived = self.drained = _nobody
        self._held = bytearray()

    @property
    def waiting(self) -> int:
        """How many octets can be taken now."""
        return len(self._held)

    @property
    def full(self) -> bool:
        """Whether it is to be filled no further for now."""
        return self._full and not self.complete

    def feed(self, data: bytes) -> None:
        """More of it has arrived."""
        if data and not self._closed:
            self._held += data
            self._full = self._full or len(self._held) >= HIGH_WATER
            self.arrived()

    def finish(self) -> None:
        """All of it has arrived."""
        self.complete = True
        self.arrived()

    def take(self, most: int) -> bytes:
        """Up to C{most} octets of what waits."""
        data = bytes(self._held[:most])
        del self._held[:most]
        self.taken += len(data)
        if self._full and len(self._held) <= LOW_WATER:
            self._full = False
            self.drained()
        return data

    def close(self) -> None:
        """Nobody wants the rest: what arrives from now on is thrown away."""
        self._closed, self._full = True, False
        self._held.clear()
        self.arrived = self.drained = _nobody


class Rest(Protocol):
    """What is still to come of an answer."""

    def start(self, write: Callable[[bytes], None], over: Callable[[bool], None]) -> None:
        """Let it come.

        @param write: told each piece.
        @param over: told once that it has ended: whether all of it has come.
        """

    def pause(self) -> None:
        """Let no more come for now; what is on its way already is not held up."""

    def resume(self) -> None:
        """Go on after L{pause}."""

    def cancel(self) -> None:
        """Nobody wants it any more; nobody is told anything of it from now on."""


class Streamed(Relayed):
    """An answer of which C{wire} is only the beginning, with all of the head.

    @ivar rest: what follows; it comes when it is started, and must be cancelled if it is not wanted.
    """

    __slots__ = ("rest",)

    def __init__(self, wire: bytes, close: bool, rest: Rest) -> None:
        super().__init__(wire, close)
        self.rest = rest
