"""What a long run costs: inputs, seconds, memory; and how it ended."""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")

#: Seconds between two looks at the memory.
_INTERVAL = 0.5

#: How many inputs pass without a look at the time.
_STRIDE = 64


@dataclass(slots=True)
class Outcome:
    """How a run went, or how far it has come.

    @ivar seconds: since the first input.
    @ivar slowest: how many seconds of processor time the slowest input took.
    @ivar warm: the octets of resident memory once everything had been used for the first time.
    @ivar peak: the most since then.
    @ivar blocks: how many more objects of Python's there were at the end than then.
    @ivar finding: the file with the input that broke a promise; empty when none did.
    @ivar trouble: what went wrong; empty when nothing did.
    @ivar finished: all inputs were tried, or the time was up.
    """

    runs: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    warm: int = 0
    peak: int = 0
    blocks: int = 0
    finding: str = ""
    trouble: str = ""
    finished: bool = False

    @property
    def growth(self) -> int:
        """By how many octets the resident memory grew after it was warm."""
        return max(0, self.peak - self.warm)

    def write(self, path: Path) -> None:
        """Leave it where another process looks for it."""
        beside = path.with_suffix(".new")
        beside.write_text(json.dumps(asdict(self)))
        beside.replace(path)


def read_outcome(path: Path) -> Outcome:
    """What L{Outcome.write} left; an empty one if nothing is there yet."""
    try:
        return Outcome(**json.loads(path.read_text()))
    except FileNotFoundError:
        return Outcome()


def resident() -> int:
    """How many octets of memory this process occupies; 0 where the system does not tell."""
    try:
        with Path("/proc/self/statm").open() as statm:
            return int(statm.read().split()[1]) * _PAGE
    except OSError:
        return 0


def highest() -> int:
    """The most octets of memory that this process ever occupied."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Gauge:
    """Told of every input; says when it is enough."""

    def __init__(self, status: Path, runs: int, seconds: float) -> None:
        """
        @param status: where the L{Outcome} is kept up to date.
        @param runs: how many inputs there are to be.
        @param seconds: but not for longer than this; 0 means for as long as it takes.
        """
        self.outcome = Outcome()
        self._status = status
        self._runs = runs
        self._seconds = seconds
        self._warm_runs = min(max(runs // 10, 200), 50000)
        self._warm_blocks = 0
        self._warm_highest = 0
        self._started = self._looked = time.monotonic()

    def start(self) -> None:
        """Now comes the first input."""
        self._started = self._looked = time.monotonic()
        self.outcome.write(self._status)

    def enough(self) -> bool:
        """One more input was tried: was it the last?"""
        outcome = self.outcome
        outcome.runs += 1
        if outcome.runs % _STRIDE and outcome.runs < self._runs:
            return False
        now = time.monotonic()
        outcome.seconds = now - self._started
        over = outcome.runs >= self._runs or bool(self._seconds and outcome.seconds >= self._seconds)
        warm = not outcome.warm and outcome.runs >= self._warm_runs
        if over or warm or now - self._looked >= _INTERVAL:
            self._looked = now
            self._look()
        return over

    def finish(self) -> None:
        """It is over: measure for the last time."""
        if self.outcome.warm:
            self.outcome.blocks = _blocks() - self._warm_blocks
        self.outcome.finished = True
        self.outcome.write(self._status)

    def stop(self, trouble: str, finding: Path | None) -> None:
        """It ended because of C{trouble}."""
        self.outcome.seconds = time.monotonic() - self._started
        self.outcome.trouble = trouble
        self.outcome.finding = "" if finding is None else str(finding)
        self.outcome.write(self._status)

    def _look(self) -> None:
        outcome = self.outcome
        if outcome.warm:
            top = highest()  # also of what was given back long ago
            outcome.peak = max(outcome.peak, resident(), top if top > self._warm_highest else 0)
        elif outcome.runs >= self._warm_runs or (self._seconds and outcome.seconds >= self._seconds / 4):
            self._warm_blocks = _blocks()
            outcome.warm = outcome.peak = resident()
            self._warm_highest = highest()
        outcome.write(self._status)


def _blocks() -> int:
    """How many blocks of memory the objects of this process occupy, garbage not counted."""
    gc.collect()
    return sys.getallocatedblocks()
