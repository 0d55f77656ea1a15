"""One queue per destination: in order, one at a time, bounded, with retries where RVP wants them.

A slow or dead destination costs the others nothing (design invariant 5); what is dropped is dropped
in the order typing notices, presence, messages.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from rvpfarm.home.fanout import Outcome
from rvpfarm.protocol.calls import Slow, Unreachable
from rvpfarm.web.responses import Response

#: When a property notification is tried again, seconds after each failure (KB 318158: four retries).
RETRY_SECONDS = (2.0, 10.0, 30.0, 60.0)
#: How many letters wait for one destination (protocol notes 6.2).
QUEUE = 64


#: Told the status of an answer, or the answer, or what went wrong.
Done = Callable[["int | Response | Unreachable"], None]


class Priority(IntEnum):
    """What is given up first when a queue is full: the lowest."""

    TYPING = 0
    PRESENCE = 1
    MESSAGE = 2


class Hearing(Protocol):
    """What becomes of a piece of news."""

    @property
    def obsolete(self) -> bool:
        """Is it not worth telling any more?"""

    def arrived(self) -> None:
        """One destination has it."""


@dataclass(slots=True, eq=False)
class Letter:
    """One NOTIFY on its way to one destination, which tells it what became of it.

    @ivar head: request line and headers, rendered for the destination.
    @ivar key: a newer letter of the same key takes this one's place while it waits.
    @ivar node: key of the node on whose behalf it is sent.
    @ivar done: told once, what became of the first attempt.
    @ivar gone: told when the destination says that it will never take such a letter again (403, 404).
    @ivar hearing: told when the destination has it, at whichever attempt; asked before each but the first.
    @ivar about: key of the node whose state it tells; a newer letter about the same node makes it obsolete
        once it waits to be tried again, lest it arrive last.
    """

    head: bytes
    body: bytes
    priority: Priority
    node: str
    done: Callable[[Outcome], None] | None = None
    key: Hashable = None
    gone: Callable[[], None] | None = None
    hearing: Hearing | None = None
    about: str = ""
    attempt: int = 0
    _courier: Courier | None = None
    _line: _Line | None = None

    def sent_by(self, courier: Courier, line: _Line) -> Done:
        """It is on its way now: whom to tell how that ended."""
        self._courier, self._line = courier, line
        return self._answered

    def _answered(self, result: int | Response | Unreachable) -> None:
        courier, line = self._courier, self._line
        assert courier is not None
        assert line is not None
        self._courier = self._line = None
        courier.answered(line, self, result.status if isinstance(result, Response) else result)

    def supersedes(self, older: Letter) -> bool:
        """Is C{older}, to the same destination, not worth sending any more?"""
        if self.key is None:
            return False
        return self.key == older.key or (self.about != "" and self.about == older.about)


class Destination(Protocol):
    """Where letters go.

    @ivar name: the same for the same destination.
    @ivar host: the address behind it; what revives it when a client calls from there.
    @ivar is_client: a person's call-back, which may answer a property notification with any status
        (protocol notes 6.5); otherwise another server, whose status counts.
    """

    name: str
    host: str
    is_client: bool

    def send(self, head: bytes, body: bytes, done: Done) -> None:
        """Carry one letter; C{done} is called exactly once, with the answer or what went wrong."""


class Watch(Protocol):
    """What the courier reports to: counters of its letters."""

    def notification(self, outcome: str) -> None:
        """One property notification ended so, or was retried or replaced."""


# To find a member of an enumeration by its name costs a method call each time.
_PRESENCE, _MESSAGE = Priority.PRESENCE, Priority.MESSAGE
_DELIVERED = Outcome.DELIVERED

# Shared by all lines on which nothing waits, which are nearly all; never put into.
_NOTHING: deque[Letter] = deque(maxlen=0)
_NEVER: dict[Hashable, tuple[Letter, IDelayedCall]] = {}


class _Line:
    """The queue to one destination."""

    __slots__ = ("busy", "dead", "destination", "died", "queue", "retries")

    def __init__(self, destination: Destination) -> None:
        self.destination = destination
        self.queue: deque[Letter] = _NOTHING  # one of its own once anything has to wait
        self.busy = False
        self.dead = False
        self.died = 0.0
        # one of its own once anything is tried again
        self.retries: dict[Hashable, tuple[Letter, IDelayedCall]] = _NEVER


class Courier:
    """Delivers letters, each destination in order and one at a time.

    @ivar queued: how many letters wait; those to be tried again are not among them.
    @ivar under_way: how many are being carried.
    """

    _log = Logger()

    def __init__(
        self, clock: IReactorTime, died: Callable[[Destination, str], None], metrics: Watch | None = None
    ) -> None:
        """
        @param died: told when a client's call-back stayed unreachable over all retries, with the key
            of the node it was tried for.
        """
        self._clock = clock
        self._died = died
        self._metrics = metrics
        self._lines: dict[str, _Line] = {}
        self._dead: dict[str, set[str]] = {}
        self._stopped = False
        self.queued = self.under_way = 0
        self._buried: deque[_Line] = deque()  # the dead, and some that live again, longest first

    def post(self, destination: Destination, letter: Letter) -> None:
        """Deliver C{letter}, after those already waiting for C{destination}."""
        if self._stopped:
            self._tell(letter, Outcome.DROPPED)
            return
        name = destination.name
        line = self._lines.get(name)
        if line is None:
            line = self._lines[name] = _Line(destination)
            self._send(line, letter)
            return
        if line.dead:
            self._tell(letter, Outcome.DEAD)
            return
        if letter.key is not None:
            self._replace(line, letter)
        if len(line.queue) >= QUEUE and not self._make_room(line, letter):
            # The destination counts as dead for a message that finds no room (6.2).
            self._tell(letter, Outcome.DEAD if letter.priority is _MESSAGE else Outcome.DROPPED)
            return
        self._enqueue(line, letter)

    def is_dead(self, name: str) -> bool:
        """Is the destination of that name skipped until its client calls again."""
        line = self._lines.get(name)
        return line is not None and line.dead

    def revive(self, host: str) -> None:
        """A client called from C{host}: what is there may be reached again (6.5)."""
        for name in self._dead.pop(host, ()):
            self._lines.pop(name, None)

    def revive_one(self, name: str, host: str) -> None:
        """A client named this destination itself, so it is worth trying again."""
        if self.is_dead(name):
            del self._lines[name]
            self._dead[host].discard(name)
            if not self._dead[host]:
                del self._dead[host]

    def begin_anew(self, name: str) -> None:
        """Another client is at this destination, or the same after a new start: the news that the one before
        missed is old by now, and would be taken for new."""
        line = self._lines.get(name)
        if line is not None and line.retries:
            for _, retry in line.retries.values():
                retry.cancel()
                self._count(Outcome.DROPPED.value)
            line.retries.clear()
            if not line.busy:
                self._next(line)

    def prune(self, before: float) -> None:
        """Forget the dead that died before C{before}: their logins have run out by now."""
        while self._buried:
            line = self._buried[0]
            name = line.destination.name
            is_dead = self._lines.get(name) is line
            if is_dead and line.died >= before:
                break
            self._buried.popleft()
            if is_dead:
                self.revive_one(name, line.destination.host)

    def stop(self) -> None:
        """Give up everything that waits or is to be retried, and send nothing more."""
        self._stopped = True
        for line in self._lines.values():
            for _, call in line.retries.values():
                call.cancel()
            line.retries.clear()
            waiting, line.queue = line.queue, deque()
            for letter in waiting:
                self._tell(letter, Outcome.DROPPED)
        self._lines.clear()
        self._dead.clear()
        self._buried.clear()
        self.queued = 0

    def _replace(self, line: _Line, newer: Letter) -> None:
        """Drop what a newer notification of the same subscription, or about the same node, makes obsolete."""
        for key, (letter, retry) in list(line.retries.items()) if line.retries else ():
            if newer.supersedes(letter):
                del line.retries[key]
                retry.cancel()
                self._count("replaced")
        for waiting in line.queue:
            if waiting.key == newer.key:
                line.queue.remove(waiting)
                self.queued -= 1
                self._count("replaced")
                if waiting.done is not None:
                    waiting.done(Outcome.DROPPED)
                return

    def _make_room(self, line: _Line, letter: Letter) -> bool:
        """Give up the least important waiting letter if it matters less than C{letter}."""
        least = min(line.queue, key=lambda waiting: waiting.priority)
        if least.priority >= letter.priority:
            return False
        line.queue.remove(least)
        self.queued -= 1
        self._tell(least, Outcome.DROPPED)
        return True

    def _next(self, line: _Line) -> None:
        """Send the letter that has waited longest, or let the line rest."""
        if not line.queue:
            if not line.retries and not line.dead:
                self._lines.pop(line.destination.name, None)
            return
        letter = line.queue.popleft()
        self.queued -= 1
        self._send(line, letter)

    def _send(self, line: _Line, letter: Letter) -> None:
        """Send C{letter} now."""
        self.under_way += 1
        line.busy = True
        line.destination.send(letter.head, letter.body, letter.sent_by(self, line))

    def _enqueue(self, line: _Line, letter: Letter) -> None:
        """C{letter} waits for its turn, which may have come."""
        if line.queue is _NOTHING:
            line.queue = deque()
        line.queue.append(letter)
        self.queued += 1
        if not line.busy:
            self._next(line)

    def answered(self, line: _Line, letter: Letter, result: int | Unreachable) -> None:
        """The destination took the letter, refused it or failed."""
        self.under_way -= 1
        line.busy = False
        outcome = _judge(result)
        if letter.priority is _PRESENCE and not self._stopped:
            if outcome is not _DELIVERED:
                self._property_answered(line, letter, result, outcome)
            elif letter.hearing is not None:
                letter.hearing.arrived()
        self._tell(letter, outcome)
        if not line.busy:
            self._next(line)

    def _property_answered(
        self, line: _Line, letter: Letter, result: int | Unreachable, outcome: Outcome
    ) -> None:
        """What the answer to a property notification means (6.5)."""
        status = result if isinstance(result, int) else 0
        if letter.hearing is not None and (
            outcome is Outcome.DELIVERED or (line.destination.is_client and status)
        ):
            letter.hearing.arrived()
        if line.destination.is_client and status:
            return
        if status in (403, 404):
            if letter.gone is not None:
                letter.gone()
        elif (status == 0 or status >= 500) and not line.dead:
            self._retry(line, letter, outcome)

    def _retry(self, line: _Line, letter: Letter, outcome: Outcome) -> None:
        """Try again later, unless something newer is waiting or the retries are used up."""
        if any(waiting.supersedes(letter) for waiting in line.queue):
            return
        if letter.attempt < len(RETRY_SECONDS):
            earlier = line.retries.pop(letter.key, None)
            if earlier is not None:
                earlier[1].cancel()
            if len(line.retries) >= QUEUE:
                self._count(Outcome.DROPPED.value)
                return
            delay = RETRY_SECONDS[letter.attempt]
            letter.attempt += 1
            self._count("retried")
            if line.retries is _NEVER:
                line.retries = {}
            call = self._clock.callLater(delay, self._again, line, letter)
            line.retries[letter.key] = (letter, call)
        elif line.destination.is_client and outcome is Outcome.DEAD:
            self._bury(line, letter)

    def _again(self, line: _Line, letter: Letter) -> None:
        """The time to retry has come."""
        line.retries.pop(letter.key, None)
        obsolete = letter.hearing is not None and letter.hearing.obsolete
        if obsolete or (len(line.queue) >= QUEUE and not self._make_room(line, letter)):
            self._count(Outcome.DROPPED.value)
        else:
            self._enqueue(line, letter)
        if not line.busy:
            self._next(line)

    def _bury(self, line: _Line, letter: Letter) -> None:
        """The destination has been unreachable over all retries: skip it until its client calls."""
        destination = line.destination
        line.dead, line.died = True, self._clock.seconds()
        self._dead.setdefault(destination.host, set()).add(destination.name)
        self._buried.append(line)
        self._log.warn("call-back {name} is dead", name=destination.name)
        for _, retry in line.retries.values():
            retry.cancel()
        line.retries.clear()
        waiting, line.queue = line.queue, _NOTHING
        self.queued -= len(waiting)
        for other in waiting:
            self._tell(other, Outcome.DEAD)
        self._died(destination, letter.node)

    def _tell(self, letter: Letter, outcome: Outcome) -> None:
        """Say once what became of the letter."""
        if letter.priority is _PRESENCE:
            self._count(outcome.word)
        done, letter.done = letter.done, None
        if done is not None:
            done(outcome)

    def _count(self, outcome: str) -> None:
        if self._metrics is not None:
            self._metrics.notification(outcome)


def _judge(result: int | Unreachable) -> Outcome:
    """The outcome that an answer amounts to."""
    if isinstance(result, int):
        return _DELIVERED if 200 <= result < 300 else Outcome.REFUSED
    return Outcome.SLOW if isinstance(result, Slow) else Outcome.DEAD
