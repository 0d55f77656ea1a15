"""A long reply on its way from a home: as much of it is let come as its reader takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from rvpfarm.link.kinds import BadFrame
from rvpfarm.link.parts import WINDOW_SIZE, Begin, Part


class Link(Protocol):
    """The link that it comes over."""

    def let_come(self, download: Download, octets: int) -> None:
        """Have the home send so many octets more."""

    def abandoned(self, download: Download) -> None:
        """Nobody wants the rest of it."""


def _nowhere(data: bytes) -> None:
    """What nobody wants goes nowhere."""


def _nobody(complete: bool) -> None:
    """Nobody is told."""


class Download:
    """The rest of a reply after its beginning; see L{rvpfarm.protocol.streams.Rest}.

    @ivar size: of all of the reply.
    @ivar until: when it is given up, if nothing more of what was let come has come by then.
    """

    __slots__ = (
        "_broken",
        "_coming",
        "_left",
        "_over",
        "_owed",
        "_paused",
        "_started",
        "_write",
        "id",
        "link",
        "size",
        "until",
    )

    def __init__(self, link: Link, begin: Begin) -> None:
        self.link, self.id, self.size = link, begin.id, begin.size
        self.until = 0.0
        self._left = begin.size - len(begin.wire)  # neither here nor on its way
        self._coming = 0  # let come, and not here
        self._owed = WINDOW_SIZE  # room for more
        self._started = self._paused = self._broken = False
        self._write: Callable[[bytes], None] = _nowhere
        self._over: Callable[[bool], None] = _nobody

    @property
    def coming(self) -> bool:
        """Whether anything was let come that is not here."""
        return self._coming > 0

    def start(self, write: Callable[[bytes], None], over: Callable[[bool], None]) -> None:
        """Let it come."""
        if self._broken:
            over(False)
            return
        self._write, self._over, self._started = write, over, True
        self._let_come()

    def pause(self) -> None:
        """Let no more come for now."""
        self._paused = True

    def resume(self) -> None:
        """Go on."""
        self._paused = False
        self._let_come()

    def cancel(self) -> None:
        """Nobody wants it any more."""
        self._write, self._over = _nowhere, _nobody
        self.link.abandoned(self)

    def take(self, part: Part) -> bool:
        """A part has come.

        @return: whether it was the last.
        @raise BadFrame: it was not let come, or the end is not where it should be.
        """
        size = len(part.data)
        if size > self._coming or part.last is not (size == self._coming + self._left):
            raise BadFrame("a part of a reply that was not to come")
        self._coming -= size
        self._owed += size
        self._write(part.data)
        if not part.last:
            self._let_come()
        return part.last

    def over(self, *, complete: bool) -> None:
        """It has ended: tell the reader, now or when it begins to read."""
        self._broken = not complete
        over, self._write, self._over = self._over, _nowhere, _nobody
        over(complete)

    def _let_come(self) -> None:
        """Let more come, but not every few octets."""
        if not self._started or self._paused or self._broken:
            return
        octets = min(self._owed, self._left)
        if octets and octets >= min(WINDOW_SIZE // 2, self._left):
            self._owed -= octets
            self._left -= octets
            self._coming += octets
            self.link.let_come(self, octets)
