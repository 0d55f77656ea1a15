"""What happens in a run and when: drawn from one integer, and nothing but data."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that somebody does, or that goes wrong.

    @ivar at: when, in seconds from the beginning.
    @ivar what: one of L{OPERATIONS} or L{FAULTS}.
    @ivar draws: chance for whatever has to be chosen, each from 0 to 1.
    @ivar span: how long it lasts, in seconds, where that means something.
    """

    at: float
    what: str
    draws: tuple[float, float, float]
    span: float

    def __str__(self) -> str:
        return f"{self.at:7.2f} {self.what}"


@dataclass(frozen=True, slots=True)
class Plan:
    """A farm, the people at it, and what happens.

    @ivar contacts: for each person, whom he watches.
    @ivar places: for each person, how many machines he uses.
    @ivar distance: how many times as long as usual everything takes on the network.
    @ivar disk: how many times as long as usual a commit takes.
    """

    seed: int
    routers: int
    homes: int
    contacts: tuple[tuple[int, ...], ...]
    places: tuple[int, ...]
    distance: float
    disk: float
    steps: tuple[Step, ...]


#: When everybody is there; what is drawn happens from then on, for so long.
BEGIN_SECONDS, SPAN_SECONDS = 20.0, 200.0

#: What people do, and how often.
OPERATIONS = {
    "message": 40,
    "change": 20,
    "ask": 12,
    "list": 6,
    "watch": 8,
    "leave": 5,
    "forge": 3,
    "hang up": 4,
    "nobody": 4,
}

#: What goes wrong, and how often.  Each has a method of its own in L{tests.simulation.world.World}.
FAULTS = {
    "kill a home": 6,
    "kill a router": 4,
    "power off a home": 3,
    "restart a home": 4,
    "restart a router": 3,
    "freeze a home": 3,
    "freeze a router": 2,
    "break a link": 4,
    "cut a link": 4,
    "cut off a client": 4,
    "slow a link": 3,
    "directory down": 4,
    "directory slow": 2,
    "disk full": 3,
    "disk slow": 2,
    "client vanishes": 5,
    "client sleeps": 4,
    "client stops reading": 2,
    "call-back misbehaves": 6,
    "move a user": 3,
}


#: What people do more often when a fault is near: what can be lost by it.
BURST = {"message": 10, "change": 4, "watch": 8, "ask": 1, "list": 1, "hang up": 1}
#: Within so many seconds of a fault.
BURST_SECONDS = 0.25


def draw(seed: int) -> Plan:
    """The plan of C{seed}."""
    random = Random(f"plan {seed}")
    people = random.randint(4, 8)
    contacts = []
    for number in range(people):
        others = [other for other in range(people) if other != number]
        contacts.append(tuple(random.sample(others, random.randint(1, min(4, len(others))))))
    places = tuple(2 if random.random() < 0.25 else 1 for _ in range(people))
    steps = [_step(random, OPERATIONS, _some_time(random, 1.0)) for _ in range(random.randint(20, 90))]
    # from a run in which nothing goes wrong to one in which everything does
    for _ in range(random.choice((0, 1, 2, 3, 5, 8, 12))):
        steps += _trouble(random)
    steps.sort(key=lambda step: step.at)
    return Plan(
        seed,
        random.randint(2, 3),
        random.randint(2, 3),
        tuple(contacts),
        places,
        random.choice((1.0, 1.0, 4.0, 15.0)),
        random.choice((1.0, 1.0, 5.0, 20.0)),
        tuple(steps),
    )


def _trouble(random: Random) -> list[Step]:
    """A fault in the middle of everything, or one in a quiet moment; sometimes a second one on top of it."""
    at = _some_time(random, 0.85)
    steps = [_step(random, FAULTS, at)]
    if random.random() < 0.25:
        steps.append(_step(random, FAULTS, round(at + random.expovariate(2.0), 4)))
    if random.random() < 0.75:
        for _ in range(random.randint(4, 20)):
            near = at + random.uniform(-BURST_SECONDS, BURST_SECONDS / 2)
            steps.append(_step(random, BURST, round(near, 4)))
    return steps


def _some_time(random: Random, share: float) -> float:
    return round(BEGIN_SECONDS + 1 + random.random() * SPAN_SECONDS * share, 3)


def _step(random: Random, kinds: dict[str, int], at: float) -> Step:
    (what,) = random.choices(list(kinds), list(kinds.values()))
    span = round(min(0.3 * 1.6 ** random.randint(0, 12) * random.uniform(0.7, 1.3), 130.0), 3)
    return Step(at, what, (random.random(), random.random(), random.random()), span)
