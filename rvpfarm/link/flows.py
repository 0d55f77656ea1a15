"""What is sent in parts: a little of each at a time, and of each only as much as the other end lets come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from rvpfarm.link.parts import PART_SIZE, render_part


class Source(Protocol):
    """Octets that are to be sent; L{rvpfarm.protocol.streams.BodyStream} is one."""

    @property
    def waiting(self) -> int:
        """How many can be taken now."""

    @property
    def complete(self) -> bool:
        """Whether those are the last."""

    def take(self, most: int) -> bytes:
        """Up to C{most} of them."""


class Whole:
    """A source that has everything at hand."""

    __slots__ = ("_at", "_data")
    complete = True

    def __init__(self, data: bytes, at: int = 0) -> None:
        """
        @param at: where to begin.
        """
        self._data, self._at = data, at

    @property
    def waiting(self) -> int:
        """How many octets are left."""
        return len(self._data) - self._at

    def take(self, most: int) -> bytes:
        """Up to C{most} of them."""
        data = self._data[self._at : self._at + most]
        self._at += len(data)
        return data


class _Flow:
    """One body or reply on its way."""

    __slots__ = ("credit", "source")

    def __init__(self, source: Source) -> None:
        self.source = source
        self.credit = 0

    @property
    def ready(self) -> bool:
        """Whether something can be sent, be it only that nothing follows."""
        waiting = self.source.waiting
        return (self.credit > 0 and waiting > 0) or (self.source.complete and not waiting)


class Flows:
    """All that travels in parts over one connection, in one direction.

    @ivar ready: what can be sent now, in the order in which its turn comes.
    """

    __slots__ = ("_ended", "_flows", "ready")

    def __init__(self, ended: Callable[[int], None] | None = None) -> None:
        """
        @param ended: told the id of what has been sent to its end.
        """
        self._ended = ended
        self._flows: dict[int, _Flow] = {}
        self.ready: dict[int, _Flow] = {}

    def __len__(self) -> int:
        return len(self._flows)

    def ids(self) -> tuple[int, ...]:
        """Of all that is not at its end."""
        return tuple(self._flows)

    def __contains__(self, id: int) -> bool:
        return id in self._flows

    def open(self, id: int, source: Source) -> None:
        """Send what comes from C{source}, when the other end lets it come."""
        self._flows[id] = _Flow(source)

    def grant(self, id: int, octets: int) -> bool:
        """The other end takes so many octets more.

        @return: whether there is anything of that id to send; it may have come to its end meanwhile.
        """
        flow = self._flows.get(id)
        if flow is None:
            return False
        flow.credit += octets
        self.wake(id)
        return True

    def wake(self, id: int) -> None:
        """There may be more to send."""
        flow = self._flows.get(id)
        if flow is not None and flow.ready:
            self.ready.setdefault(id, flow)

    def close(self, id: int) -> None:
        """Send no more of it."""
        self._flows.pop(id, None)
        self.ready.pop(id, None)

    def clear(self) -> None:
        """Send no more of anything."""
        self._flows.clear()
        self.ready.clear()

    def next(self, most: int) -> bytes:
        """Frames of about C{most} octets: one part of each that is ready, and again from the first."""
        frames: list[bytes] = []
        while self.ready and most > 0:
            id = next(iter(self.ready))
            flow = self.ready.pop(id)
            source = flow.source
            data = source.take(min(PART_SIZE, flow.credit))
            flow.credit -= len(data)
            most -= len(data)
            last = source.complete and not source.waiting
            if data or last:
                frames.append(render_part(id, data, last))
            if last:
                self.close(id)
                if self._ended is not None:
                    self._ended(id)
            elif id in self._flows and flow.ready:  # to take from it may have ended it
                self.ready[id] = flow
        return b"".join(frames)
