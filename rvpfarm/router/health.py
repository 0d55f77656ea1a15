"""Which homes answer: told by calls that could not reach them, and by probes that ask nothing else (core).

A home that cannot be reached is not asked by every caller in turn.  Two sources are heard:

  - Calls.  After some in a row that never reached the home nobody asks it for a moment, then one call at a
    time tries: the L{Circuit}, which is quick and forgets quickly.
  - Probes.  After C{fall} failed ones in a row the home is down and no call goes there; after C{rise} good
    ones it is up again.  The thresholds differ, as in HAProxy: down is believed late, up not at once.

A home that comes and goes is believed ever later: each change adds to a penalty that halves every minute
(after the route flap damping of RFC 2439), and the more of it there is, the more good probes it takes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from math import ceil, exp2

from rvpfarm.directory.model import Farm

#: Homes that are shown to operators, at most.
SHOWN_LIMIT = 1000


class State(Enum):
    """What is believed of a home."""

    UNKNOWN = "unknown"
    UP = "up"
    DOWN = "down"
    LEAVING = "leaving"


class Outcome(Enum):
    """What came of a probe.  C{OWN}: it could not be made, which tells nothing about the home."""

    ANSWERED = "answered"
    UNREACHABLE = "unreachable"
    SLOW = "slow"
    OWN = "own"


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When a home is believed to be down, and when to be up.

    @ivar fall: failed probes in a row that mean down.
    @ivar rise: good probes in a row that mean up again; for the first time one is enough.
    @ivar most_rise: what C{rise} grows to at most for a home that comes and goes.
    @ivar half_life_seconds: in such a time the penalty for coming and going halves.
    @ivar bearable: up to this penalty a home is not said to be flapping; each begun point above doubles
        C{rise}.  One outage makes two points, less what has decayed.
    @ivar most_penalty: bounds how long a home is distrusted: it is bearable again after
        C{half_life_seconds * log2(most_penalty / bearable)}, 95 s, of staying as it is.
    @ivar failures: calls in a row that did not reach the home, which open its circuit.
    @ivar open_seconds: how long nobody asks then.
    @ivar most_leaving_seconds: longest time for which a home is believed that it is coming back.
    @ivar overdue_seconds: when no probe came for so long after its time, calls find out by themselves.
    """

    fall: int = 3
    rise: int = 2
    most_rise: int = 16
    half_life_seconds: float = 60.0
    bearable: float = 2.0
    most_penalty: float = 6.0
    failures: int = 5
    open_seconds: float = 2.0
    most_leaving_seconds: float = 60.0
    overdue_seconds: float = 15.0


class Circuit:
    """Whether it is worth asking one home.  It owns no clock.

    After some failures in a row nobody asks for a while; then one call at a time tries whether the home
    is back.
    """

    __slots__ = ("_failures", "_open_seconds", "_row", "_until")

    def __init__(self, failures: int = 5, open_seconds: float = 2.0) -> None:
        """
        @param failures: so many in a row open the circuit.
        @param open_seconds: how long nobody asks.
        """
        self._failures = failures
        self._open_seconds = open_seconds
        self._row = 0
        self._until = 0.0

    @property
    def healthy(self) -> bool:
        """Whether the last call did not fail."""
        return self._row == 0

    @property
    def open(self) -> bool:
        """Whether no more than one call at a time is let through."""
        return self._row >= self._failures

    def allow(self, now: float) -> bool:
        """Whether the home may be asked; a true answer is meant for one call."""
        if self._row < self._failures:
            return True
        if now < self._until:
            return False
        # this call tries it; if nothing is heard of it, another may after the same time
        self._until = now + self._open_seconds
        return True

    def succeeded(self) -> None:
        """The home has answered."""
        self._row = 0

    def failed(self, now: float) -> None:
        """The home could not be reached."""
        self._row += 1
        if self._row >= self._failures:
            self._until = now + self._open_seconds

    def seconds_left(self, now: float) -> float:
        """How long until it is worth asking again."""
        return max(0.0, self._until - now) if self._row >= self._failures else 0.0


class Standing:
    """What is believed of one home, and why.  It owns no clock.

    @ivar clear: nothing speaks against asking it, and there is nothing to note when it answers.
    @ivar probe_at: when the next probe is due.
    @ivar transitions: how often it came to be believed each of these.
    @ivar probes: how often a probe ended like this.
    """

    __slots__ = (
        "_circuit",
        "_failed",
        "_good",
        "_judged",
        "_leaving_since",
        "_leaving_until",
        "_left",
        "_penalised",
        "_penalty",
        "_since",
        "_thresholds",
        "_was_up",
        "clear",
        "probe_at",
        "probes",
        "transitions",
    )

    def __init__(self, thresholds: Thresholds, now: float) -> None:
        self._thresholds = thresholds
        self._circuit = Circuit(thresholds.failures, thresholds.open_seconds)
        self._judged = State.UNKNOWN
        self._since = now
        self._failed = self._good = 0
        self._was_up = False
        self._penalty, self._penalised = 0.0, now
        self._leaving_since = self._leaving_until = 0.0
        self._left = False
        self.clear = False
        self.probe_at = 0.0
        self.transitions = {State.UP: 0, State.DOWN: 0, State.LEAVING: 0}
        self.probes = dict.fromkeys(Outcome, 0)

    # whether to ask it

    def allow(self, now: float) -> bool:
        """Whether a call may go there; a true answer is meant for one call."""
        if self._judged is State.DOWN:
            if now < self.probe_at + self._thresholds.overdue_seconds:
                return False
        elif now < self._leaving_until:
            return True  # it will be back in a moment, and what it cannot take now is held
        return self._circuit.allow(now)

    def seconds_left(self, now: float) -> float:
        """How long until it is worth asking again: for a home that is down, until the next probe."""
        if self._judged is State.DOWN and now < self.probe_at:
            return self.probe_at - now
        return self._circuit.seconds_left(now)

    # what calls tell

    def answered(self, now: float) -> None:
        """The home has answered a call, in whatever way; told at least while it is not C{clear}."""
        self._circuit.succeeded()
        if self._leaves(now):
            return  # what it had in work; that it is back is for the next probe to say
        if self._judged is State.UNKNOWN:
            self._become(State.UP, now)
        if self._judged is State.UP:
            self._failed = 0
        self._settle()

    def unreached(self, now: float) -> None:
        """A call could not reach the home, through no fault of ours."""
        if not self._leaves(now):
            self._circuit.failed(now)
            self._settle()

    # what probes tell

    def probed(self, outcome: Outcome, now: float) -> State | None:
        """A probe has ended.

        @return: what is believed of the home from now on, if that is something else.
        """
        before = self._judged
        self.probes[outcome] += 1
        if outcome is Outcome.OWN:
            return None
        good = outcome is Outcome.ANSWERED
        if self._leaves(now):
            return self._probed_leaving(good, now)
        if good:
            self._succeed(now)
        else:
            self._fail(now)
        self._settle()
        return None if self._judged is before else self._judged

    def _succeed(self, now: float) -> None:
        self._failed = 0
        if self._judged is not State.UP:
            self._good += 1
            if self._good >= self.rise(now):
                self._become(State.UP, now)
        if self._judged is State.UP:
            self._circuit.succeeded()

    def _fail(self, now: float) -> None:
        self._good = 0
        if self._judged is not State.DOWN:
            self._failed += 1
            if self._failed >= self._thresholds.fall:
                self._become(State.DOWN, now)

    def _probed_leaving(self, good: bool, now: float) -> State | None:
        """It said that it would go: it is back when it answers after it did not."""
        if not good:
            self._left = True
        elif self._left:
            return self.returned(now)
        return None

    # what the home itself tells

    def leaving(self, now: float, seconds: float) -> None:
        """The home is being started anew and will be back: for so long nothing is held against it."""
        if self._judged is State.DOWN or self.is_leaving(now):
            return
        self._leaving_since = now
        self._leaving_until = now + min(max(seconds, 0.0), self._thresholds.most_leaving_seconds)
        self._left = False
        self._failed = 0
        self.transitions[State.LEAVING] += 1
        self._settle()

    def returned(self, now: float) -> State | None:
        """A home that had said it would go is there again.

        @return: L{State.UP}, unless it had not left or was gone for too long.
        """
        if not self.is_leaving(now):
            return None
        self._leaving_until = 0.0
        self._circuit.succeeded()
        self._judged, self._since, self._was_up = State.UP, now, True
        self.transitions[State.UP] += 1
        self._settle()
        return State.UP

    # looked at, also from other threads

    def state(self, now: float) -> State:
        """What is believed of the home."""
        return State.LEAVING if self.is_leaving(now) else self._judged

    def is_leaving(self, now: float) -> bool:
        """Whether it said that it goes for a moment, and that moment is not over."""
        return now < self._leaving_until and self._judged is not State.DOWN

    def since(self, now: float) -> float:
        """Since when that is believed."""
        return self._leaving_since if self.is_leaving(now) else self._since

    @property
    def healthy(self) -> bool:
        """Whether it is not down, and the last call did not fail to reach it."""
        return self._judged is not State.DOWN and self._circuit.healthy

    @property
    def open(self) -> bool:
        """Whether its circuit is."""
        return self._circuit.open

    @property
    def was_up(self) -> bool:
        """Whether it ever answered."""
        return self._was_up

    @property
    def rising(self) -> bool:
        """Whether it has begun to answer again and is not believed yet."""
        return self._judged is State.DOWN and self._good > 0

    def penalty(self, now: float) -> float:
        """How much it came and went of late."""
        age = max(0.0, now - self._penalised)
        return self._penalty * exp2(-age / self._thresholds.half_life_seconds)

    def is_flapping(self, now: float) -> bool:
        """Whether it came and went so much that it is believed later."""
        return self.penalty(now) > self._thresholds.bearable

    def rise(self, now: float) -> int:
        """How many good probes in a row it takes at present until it is up."""
        thresholds = self._thresholds
        if not self._was_up:
            return 1
        excess = self.penalty(now) - thresholds.bearable
        if excess <= 0:
            return thresholds.rise
        return min(thresholds.rise << ceil(excess), thresholds.most_rise)

    def _become(self, state: State, now: float) -> None:
        """Something else is believed from now on."""
        if self._judged is not State.UNKNOWN:
            self._penalty = min(self.penalty(now) + 1.0, self._thresholds.most_penalty)
            self._penalised = now
        self._judged, self._since = state, now
        self._was_up = self._was_up or state is State.UP
        self._failed = self._good = 0
        self.transitions[state] += 1

    def _leaves(self, now: float) -> bool:
        """Whether it is leaving; if it was and is not back in time, what it does counts again."""
        if self.is_leaving(now):
            return True
        self._leaving_until = 0.0
        return False

    def _settle(self) -> None:
        """Work out whether callers and answers have to ask and tell at all."""
        self.clear = (
            self._judged is State.UP
            and self._failed == 0
            and self._circuit.healthy
            and self._leaving_until == 0.0
        )


@dataclass(frozen=True, slots=True)
class Seen:
    """One home as operators are shown it.

    @ivar open: no more than one call at a time is let through.
    @ivar since_seconds: how long that has been believed.
    @ivar flapping: it came and went so much that it is believed later.
    """

    name: str
    state: State
    open: bool
    since_seconds: float
    flapping: bool
    transitions: Mapping[State, int]
    probes: Mapping[Outcome, int]


class Health:
    """How the homes of a farm stand; of one that was never asked nothing is known."""

    def __init__(self, thresholds: Thresholds | None = None) -> None:
        self._thresholds = thresholds or Thresholds()
        #: By the id of the home; routers look here for each call.
        self.standings: dict[str, Standing] = {}

    def of(self, home: str, now: float) -> Standing:
        """How the home of that id stands."""
        standing = self.standings.get(home)
        if standing is None:
            standing = self.standings[home] = Standing(self._thresholds, now)
        return standing

    def retain(self, homes: Collection[str]) -> None:
        """The farm consists of these homes."""
        for id in [id for id in self.standings if id not in homes]:
            del self.standings[id]

    def leaving(self, home: str, now: float, seconds: float) -> None:
        """The home of that id says that it is being started anew: for so long nothing is held against it."""
        self.of(home, now).leaving(now, seconds)

    def returned(self, home: str, now: float) -> None:
        """The home of that id takes calls again after it said that it was leaving."""
        self.of(home, now).returned(now)

    def seen(self, farm: Farm, now: float, *, but: str | None = None) -> list[Seen]:
        """The homes of C{farm} by name, for operators; safe to call from any thread.

        @param but: the id of a home that is left out.
        """
        unknown = Standing(self._thresholds, now)
        homes = sorted(farm.homes.values(), key=lambda home: home.name)
        shown = [home for home in homes if home.id != but][:SHOWN_LIMIT]
        return [_seen(home.name, self.standings.get(home.id, unknown), now) for home in shown]


def _seen(name: str, standing: Standing, now: float) -> Seen:
    return Seen(
        name,
        standing.state(now),
        standing.open,
        max(0.0, now - standing.since(now)),
        standing.is_flapping(now),
        standing.transitions,
        standing.probes,
    )
