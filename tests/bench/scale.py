"""One home with a great many users: C{python -m tests.bench.scale --users 100000 --contacts 30}.

A home is given a journal in which everybody is online and watches his contacts, as after a restart in the
middle of the day.  Measured is how soon it serves, what memory it takes, how late its loop runs while leases
are renewed at their natural rate, and what is left of that after C{kill -9}.  C{--users 1000,10000,100000}
measures one after the other and prints a JSON list, for a curve.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import count, islice
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from rvpfarm.home.journal import Journal
from rvpfarm.home.records import (
    Change,
    PutMeta,
    PutSubscription,
    PutView,
    SavedSubscription,
    SavedView,
    Subscriber,
)
from rvpfarm.home.subscribing import IDS_META
from rvpfarm.protocol.headers import Kind
from rvpfarm.tap.hosting import STATE_FILE
from tests.bench.farm import (
    DOMAIN,
    HOST,
    BenchFarm,
    Process,
    bench_farm,
    cpu_seconds,
    resident_bytes,
    starved_seconds,
)
from tests.bench.renewing import Answered, Asking, Clients, listing, renewing, signing_in, watching
from tests.support.processes import scratch

#: How long a subscription and a view last (product 2.5).
SUBSCRIPTION_SECONDS, VIEW_SECONDS = 14400.0, 1200.0
#: Nothing runs out for so long after the journal was written, however slow the machine is.
SPARE_SECONDS = 1800.0
#: The fewest calls a second, so that a small home has something to do.
LEAST_RATE = 20.0
#: How long a home may take to start.
START_SECONDS = 300.0
#: How many of the calls that were answered before C{kill -9} are looked into afterwards.
SAMPLE = 200


@dataclass(frozen=True, slots=True)
class Population:
    """Users u0, u1, ... who are all online and watch C{contacts} others each.

    @ivar now: when this is so.
    """

    users: int
    contacts: int
    now: float

    @property
    def subscriptions(self) -> int:
        """How many there are, logins included."""
        return self.users * (self.contacts + 1)

    def contact(self, user: int, number: int) -> int:
        """Whom C{user} watches."""
        return (user + 37 * number) % self.users

    def number(self, user: int, contact: int) -> int:
        """The id of a subscription; C{contact} 0 is the login."""
        return 1 + user * (self.contacts + 1) + contact

    def changes(self) -> Iterator[Change]:
        """What the home has written down; who comes first by number has to renew first."""
        yield PutMeta(IDS_META, str(self.subscriptions + 1))
        for user in range(self.users):
            yield from self._changes_of(user)

    def _changes_of(self, user: int) -> Iterator[Change]:
        me = _key(user)
        url, peer = f"http://{me}", f"10.{user >> 16}.{user >> 8 & 255}.{user & 255}"
        first = self.now + SPARE_SECONDS
        until = first + (SUBSCRIPTION_SECONDS - SPARE_SECONDS) * user / self.users
        login = Subscriber(me, url, f"http://{peer}:4000/", peer, "digest")
        watcher = Subscriber(me, url, url, peer, "digest")
        yield PutSubscription(SavedSubscription(self.number(user, 0), me, Kind.LOGIN, login, until))
        for contact in range(1, self.contacts + 1):
            node = _key(self.contact(user, contact))
            number = self.number(user, contact)
            yield PutSubscription(SavedSubscription(number, node, Kind.PROPERTY, watcher, until))
        ends = first + VIEW_SECONDS * user / self.users
        yield PutView(SavedView(me, user + 1, "online", "offline", ends, VIEW_SECONDS, HOST, 1))

    @property
    def rate(self) -> float:
        """Renewals a second."""
        return max(LEAST_RATE, self.users / VIEW_SECONDS + self.subscriptions / SUBSCRIPTION_SECONDS)

    def calls(self) -> Iterator[Asking]:
        """Renewals in the order in which they are due, and a new subscription now and then."""
        views = self.users / VIEW_SECONDS
        share = views / (views + self.subscriptions / SUBSCRIPTION_SECONDS)
        users, subscriptions = count(), count()
        for turn in count(1):
            if turn % 100 == 0:
                user = turn // 100 % self.users
                yield watching(user, self.contact(user, self.contacts + 1))
            elif int(turn * share) != int((turn - 1) * share):
                yield signing_in(next(users) % self.users)
            else:
                user, contact = divmod(next(subscriptions) % self.subscriptions, self.contacts + 1)
                at = self.contact(user, contact)
                yield renewing(user, at, self.number(user, contact))

    def callers(self, seconds: float) -> int:
        """So many of the first users call within that time, or are called by those."""
        return min(self.users, int(self.rate * seconds) + 37 * (self.contacts + 1) + 100)


def _key(user: int) -> str:
    return f"{DOMAIN}/instmsg/aliases/u{user}"


class _Reactor:
    """What a journal needs of a reactor, for somebody who waits for each answer."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], object]] = SimpleQueue()

    def seconds(self) -> float:
        """Wall time."""
        return time.time()

    def callFromThread(self, callable: Callable[..., Any], *args: object, **kwargs: object) -> None:
        """Call with the next L{turn}."""
        self._calls.put(lambda: callable(*args, **kwargs))

    def turn(self) -> None:
        """Wait for a call, and make it."""
        self._calls.get(timeout=60)()


def write_state(file: Path, population: Population, *, at_once: int = 100_000) -> None:
    """Write a journal in which C{population} is, with the journal's own code."""
    reactor = _Reactor()
    file.parent.mkdir(parents=True, exist_ok=True)
    journal = Journal(file, reactor, queue_limit=2 * at_once)
    journal.startService()
    changes = population.changes()
    while some := list(islice(changes, at_once)):
        journal.write(some, lambda failure: failure and failure.raiseException())
        while journal.depth:
            reactor.turn()
    stopped = journal.stopService()
    while not stopped.called:
        reactor.turn()


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured of one home.

    @ivar start_seconds: from starting the process to C{/readyz}; C{restart_seconds} the same after C{kill -9}.
    @ivar start_cpu_seconds: the CPU that took, which tells more where others are at work.
    @ivar lag_p99_ms: how late the loop ran its timers; taken from a histogram, so up to the next bucket.
    @ivar machine_lag_p99_ms: the same of a process that does nothing else, meanwhile on the same machine: on a
        busy one no loop can be better than that.
    @ivar answer_p50_ms: from when a renewal was due to its answer, the challenge included.
    @ivar cpu_percent: of one core.
    @ivar starved_percent: of the time the loop's thread could have run and had no core: others were at work.
    @ivar failed: calls that were not answered as they should be.
    @ivar lost: of C{sampled} calls that were answered before C{kill -9}, those not kept.
    """

    users: int
    subscriptions: int
    journal_mb: float
    start_seconds: float
    start_cpu_seconds: float
    resident_mb: float
    loaded_resident_mb: float
    rate: float
    calls: int
    lag_p50_ms: float
    lag_p99_ms: float
    machine_lag_p99_ms: float
    answer_p50_ms: float
    answer_p99_ms: float
    cpu_percent: float
    starved_percent: float
    failed: int
    restart_seconds: float
    sampled: int
    lost: int


def measure(
    users: int, contacts: int, seconds: float, say: Callable[[str], object] = lambda text: None
) -> Figures:
    """Measure one home with so many users for so long.

    @param say: told what goes on.
    """
    with scratch() as folder, bench_farm(folder) as farm:
        return _measure(farm, Population(users, contacts, time.time()), seconds, say)


def _measure(
    farm: BenchFarm, population: Population, seconds: float, say: Callable[[str], object]
) -> Figures:
    callers = population.callers(seconds)
    say(f"{population.users} users, of which {callers} will call")
    farm.add_users(callers)
    farm.add_users(population.users - callers, first=callers, passwords=False)
    file = farm.folder / "home1" / STATE_FILE
    population = Population(population.users, population.contacts, time.time())
    say(f"{population.subscriptions} subscriptions")
    write_state(file, population)
    size = file.stat().st_size / 1e6
    home, start_seconds = _start(farm)
    say(f"serves after {start_seconds:.1f} s")
    resident, start_cpu_seconds = resident_bytes(home.pid) / 1e6, cpu_seconds(home.pid)
    clients = Clients(HOST, home.port)
    cpu, starved = cpu_seconds(home.pid), starved_seconds(home.pid)
    began, before = time.monotonic(), lags_of(home)
    with _machine_lags() as machine:
        asyncio.run(clients.work(population.calls(), population.rate, seconds))
    lags = {bound: number - before[bound] for bound, number in lags_of(home).items()}
    percent = 100 / (time.monotonic() - began)
    cpu_percent = percent * (cpu_seconds(home.pid) - cpu)
    starved_percent = percent * (starved_seconds(home.pid) - starved)
    loaded = resident_bytes(home.pid) / 1e6
    took = sorted(answered.seconds for answered in clients.answered)
    failed = [answered for answered in clients.answered if answered.status not in (200, 207)]
    for answered in failed[:3]:
        say(f"failed: {answered}")
    say(f"{len(took)} calls; now killed under load")
    asyncio.run(_work_and_kill(clients, population, farm))
    home, restart_seconds = _start(farm)
    say(f"serves again after {restart_seconds:.1f} s")
    sampled, lost = asyncio.run(_look_into(clients))
    return Figures(
        users=population.users,
        subscriptions=population.subscriptions,
        journal_mb=round(size, 1),
        start_seconds=round(start_seconds, 2),
        start_cpu_seconds=round(start_cpu_seconds, 2),
        resident_mb=round(resident, 1),
        loaded_resident_mb=round(loaded, 1),
        rate=round(population.rate, 1),
        calls=len(took),
        lag_p50_ms=quantile(lags, 0.5),
        lag_p99_ms=quantile(lags, 0.99),
        machine_lag_p99_ms=round(1000 * machine[len(machine) * 99 // 100], 2),
        answer_p50_ms=round(1000 * took[len(took) // 2], 2),
        answer_p99_ms=round(1000 * took[len(took) * 99 // 100], 2),
        cpu_percent=round(cpu_percent, 1),
        starved_percent=round(starved_percent, 1),
        failed=len(failed),
        restart_seconds=round(restart_seconds, 2),
        sampled=sampled,
        lost=lost,
    )


def _start(farm: BenchFarm) -> tuple[Process, float]:
    began = time.monotonic()
    home = farm.start("home1", seconds=START_SECONDS)
    return home, time.monotonic() - began


@contextmanager
def _machine_lags() -> Iterator[list[float]]:
    """How late a process that only sleeps wakes up, sorted; known afterwards."""
    lags: list[float] = []
    with subprocess.Popen(
        [sys.executable, "-c", _SLEEPER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as sleeper:
        try:
            yield lags
        finally:
            lags += sorted(json.loads(sleeper.communicate("\n")[0]))


_SLEEPER = """
import json, select, sys, time
lags = [0.0]
while True:
    due = time.monotonic() + 0.05
    if select.select([sys.stdin], [], [], 0.05)[0]:
        break
    lags.append(max(0.0, time.monotonic() - due))
print(json.dumps(lags))
"""


def lags_of(home: Process) -> dict[float, float]:
    """How many timers ran no later than each bound, since the home started."""
    with urllib.request.urlopen(f"http://{HOST}:{home.metrics}/metrics", timeout=30) as answer:
        page = answer.read().decode()
    found = re.findall(r'^rvp_reactor_lag_seconds_bucket\{.*?le="([^"]+)".*?\} (\S+)$', page, re.M)
    return {float(bound): float(number) for bound, number in found}


def quantile(cumulative: dict[float, float], part: float) -> float:
    """Milliseconds that so many did not exceed, evenly spread within a bucket."""
    bounds = sorted(cumulative)
    wanted = part * cumulative[bounds[-1]]
    below, seen = 0.0, 0.0
    for bound in bounds:
        if cumulative[bound] >= wanted and cumulative[bound] > seen:
            if bound == float("inf"):
                break
            share = (wanted - seen) / (cumulative[bound] - seen)
            return round(1000 * (below + (bound - below) * share), 2)
        below, seen = bound, cumulative[bound]
    return round(1000 * below, 2)


async def _work_and_kill(clients: Clients, population: Population, farm: BenchFarm) -> None:
    """Go on for two seconds and end the home in the middle of the work."""
    asyncio.get_running_loop().call_later(1.5, farm.kill, "home1")
    await clients.work(islice(population.calls(), len(clients.answered), None), population.rate, 2.0)


async def _look_into(clients: Clients) -> tuple[int, int]:
    """What the home still knows of what it has answered: the latest, the new ones, and some of the rest.

    @return: how many were looked into, and how many of these were lost.
    """
    kept = [answered for answered in clients.answered if answered.asking.method == "SUBSCRIBE"]
    kept = [answered for answered in kept if answered.status in (200, 207)]
    new = [answered for answered in kept if not answered.asking.subscription]
    chosen = [*new[-SAMPLE:], *kept[-SAMPLE:], *random.sample(kept, min(SAMPLE, len(kept)))]
    unique = {_number(answered): answered.asking for answered in chosen}
    # Those who are watched say until when; then the watchers renew.
    listed: dict[int, int] = {}
    for answered in await clients.all([listing(at) for at in sorted({each.at for each in unique.values()})]):
        found = re.findall(r"subscription-id>(\d+)<.*?timeout>(\d+)<", answered.body)
        listed.update((int(number), int(left)) for number, left in found)
    again = await clients.all([renewing(each.user, each.at, number) for number, each in unique.items()])
    lost = sum(
        answered.status != 200 or listed.get(number, 0) < SUBSCRIPTION_SECONDS - SPARE_SECONDS / 2
        for number, answered in zip(unique, again, strict=True)
    )
    return len(unique), lost


def _number(answered: Answered) -> int:
    """The id of the subscription that was made or renewed."""
    found = re.search(r"\nsubscription-id: *(\d+)", answered.head, re.I)
    return int(found[1]) if found else answered.asking.subscription


def table(figures: Any) -> str:  # Any: a dataclass of figures, of whichever measurement
    """What was measured, a line each."""
    return "\n".join(f"{name.replace('_', ' '):>20}  {value}" for name, value in asdict(figures).items())


def main(arguments: list[str] | None = None) -> int:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.scale", description=__doc__)
    parser.add_argument("--users", default="1000", help="how many, or several numbers with commas")
    parser.add_argument("--contacts", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=40.0, help="of renewals")
    chosen = parser.parse_args(arguments)
    numbers = [int(word) for word in chosen.users.split(",")]
    curve = []
    for users in numbers:
        figures = measure(
            users, chosen.contacts, chosen.seconds, lambda text: print(text, file=sys.stderr, flush=True)
        )
        curve.append(asdict(figures))
        print(table(figures), file=sys.stderr if len(numbers) > 1 else sys.stdout, flush=True)
    if len(numbers) > 1:
        print(json.dumps(curve, indent=1))
    return 0 if not any(each["lost"] for each in curve) else 1


if __name__ == "__main__":
    sys.exit(main())
