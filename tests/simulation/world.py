"""A farm, its people and everything that happens to them in one run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from twisted.logger import LogLevel, formatEvent, globalLogPublisher

from rvpfarm.auth.digest import ha1
from rvpfarm.directory.model import Domain, Network, Verifier
from rvpfarm.directory.model import Home as HomeRecord
from rvpfarm.directory.model import Router as RouterRecord
from tests.simulation.bounds import check_bounds, is_errand, leftovers
from tests.simulation.calling import Answer
from tests.simulation.internet import Internet
from tests.simulation.members import HomeMember, Member, RouterMember, Site
from tests.simulation.oracle import Oracle
from tests.simulation.people import (
    DOMAIN,
    STATES,
    SUBSCRIPTION_SECONDS,
    Person,
    Place,
    Surroundings,
)
from tests.simulation.schedule import BEGIN_SECONDS, SPAN_SECONDS, Plan, Step
from tests.simulation.timeline import Process, Stuck, Timeline
from tests.simulation.truth import Truth
from tests.support.directory import make_account, make_farm

NAMES = ("petra", "tomasz", "marta", "olga", "ingrid", "jan", "ewa", "piotr")
ACKS = ("DeepOr", "DeepOr", "SingleHop", "DeepAnd")
MOODS = ("refuses", "silent", "breaks", "slow")
#: After the last fault everything must be right within one lease.
SETTLE_SECONDS = SUBSCRIPTION_SECONDS + 60.0
#: When the last lease, kept reply and resting connection of those who left are gone.
EMPTY_SECONDS = SUBSCRIPTION_SECONDS + 200.0

_T = TypeVar("_T")


@dataclass(frozen=True)
class Report:
    """How a run ended.

    @ivar broken: the promises that were broken, in words; none is what is wanted.
    @ivar digest: of everything that happened: the same for the same plan.
    @ivar trace: what happened, in lines.
    @ivar counts: how often what was answered.
    """

    plan: Plan
    broken: tuple[str, ...]
    digest: str
    trace: tuple[str, ...]
    counts: dict[str, int]


def play(plan: Plan) -> Report:
    """Do everything that C{plan} says, and see whether the farm keeps what it promises."""
    world = World(plan)
    globalLogPublisher.addObserver(world.observe)
    try:
        world.run()
    finally:
        globalLogPublisher.removeObserver(world.observe)
        world.close()
    return Report(plan, tuple(world.oracle.broken), world.digest, tuple(world.trace), world.oracle.counts)


class World:
    """One run.

    @ivar trace: what happened.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.trace: list[str] = []
        self._hash = hashlib.blake2b(digest_size=16)
        self.timeline = Timeline()
        self._began = self.timeline.now
        self.fate = Process(self.timeline, "fate")
        self.internet = Internet(self.timeline, plan.seed, self._arrived, distance=plan.distance)
        homes = [
            HomeRecord(f"h{n}", f"hs{n}", f"hs{n}.fabrik.example", 80, 8081, f"10.0.1.{n}")
            for n in range(1, plan.homes + 1)
        ]
        routers = [
            RouterRecord(f"r{n}", f"r{n}", f"r{n}.fabrik.example", 80, f"10.0.0.{n}")
            for n in range(1, plan.routers + 1)
        ]
        farm = make_farm(
            [Domain(DOMAIN, ("fabrik.example",))],
            homes,
            routers,
            networks=[Network("call-back", "10.1.0.0", "10.1.255.255")],
            schemes="digest-md5",
        )
        self.people = [
            Person(NAMES[n], [NAMES[other] for other in contacts]) for n, contacts in enumerate(plan.contacts)
        ]
        accounts = [self._account(n, person, homes) for n, person in enumerate(self.people)]
        self.truth = Truth(farm, accounts)
        self.oracle = Oracle(lambda: self.timeline.now, lambda alias: self.truth.home_of(_key(alias)))
        site = Site(self.timeline, self.internet, self.truth, plan.seed, self.log)
        self.homes = {record.id: HomeMember(site, record) for record in homes}
        for home in self.homes.values():
            home.disk.slow = plan.disk
        self.routers = {record.id: RouterMember(site, record) for record in routers}
        around = Surroundings(
            self.timeline, self.internet, self.oracle, [one.address for one in routers], plan.seed, self.log
        )
        self.places: list[Place] = []
        for n, person in enumerate(self.people):
            for m in range(plan.places[n]):
                host = self.internet.host(f"10.1.{m}.{n + 1}")
                person.places.append(Place(around, person, host, closes=(n + m) % 3 == 0))
            self.places += person.places
        self._moods: dict[str, float] = {}

    def _account(self, number: int, person: Person, homes: Sequence[HomeRecord]) -> Any:
        account = make_account(_key(person.alias), homes[number % len(homes)])
        verifier = Verifier(
            "digest-md5", person.alias, DOMAIN, ha1("MD5", person.alias, DOMAIN, person.password)
        )
        return replace(account, verifiers=(verifier,))

    # what is noted

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return self.timeline.now - self._began

    @property
    def digest(self) -> str:
        """Of everything that happened so far."""
        return self._hash.hexdigest()

    def log(self, text: str) -> None:
        """Note something for whoever reads the trace."""
        line = f"{self.now:9.3f} {text}"
        self.trace.append(line)
        self._hash.update(line.encode())

    def _arrived(self, number: int, direction: str, data: bytes) -> None:
        self._hash.update(b"%r %d%b" % (self.timeline.now, number, direction.encode()))
        self._hash.update(data)

    def observe(self, event: dict[str, Any]) -> None:
        """A member logs something: a failure is a bug, the rest is for whoever reads the trace."""
        current = self.timeline.current
        who = "somebody" if current is None else current.name
        level = event.get("log_level")
        if event.get("log_failure") is not None:
            self.oracle.complain(f"{who} logs: {formatEvent(event)}\n{event['log_failure'].getTraceback()}")
        elif level is LogLevel.warn or level is LogLevel.info:
            self.log(f"{who} logs: {formatEvent(event)}")

    # the run

    def run(self) -> None:
        """From the first start to the last stop, or to the first promise that is broken."""
        try:
            for part in (self._begin, self._happen, self._settle, self._empty, self._end):
                part()
                if self.oracle.broken:
                    break
        except Stuck as problem:
            self.oracle.complain(str(problem))
        for text in self.oracle.broken:
            self.log(f"BROKEN: {text}")

    def _until(self, when: float) -> None:
        """Let time pass up to C{when}, looking at everything once a second."""
        end = self._began + when
        while self.timeline.now < end and not self.oracle.broken:
            step = min(end, self.timeline.now + 1.0)
            self.timeline.run(step, lambda: bool(self.oracle.broken))
            for text in check_bounds(self):
                self.oracle.complain(text)

    def _begin(self) -> None:
        """Everything is started, and everybody comes."""
        for member in self.members():
            member.start()
        for number, place in enumerate(self.places):
            self.fate.callLater(1.0 + number * 0.7, place.start)
        self._until(BEGIN_SECONDS)

    def _happen(self) -> None:
        """The steps of the plan; whatever lasts ends with them."""
        for step in self.plan.steps:
            self.fate.callLater(max(0.0, step.at - self.now), self._do, step)
        self._until(BEGIN_SECONDS + SPAN_SECONDS)

    def _settle(self) -> None:
        """Nothing goes wrong any more: after one lease everything is right."""
        start = max(self.now, self._last_end()) + SETTLE_SECONDS
        self._until(start)
        if self.oracle.broken:
            return
        if self.oracle.faults.active:
            self.oracle.complain(f"the run is over, and {self.oracle.faults.active} is not")
        self._check_views()
        self._check_deliveries()
        self._until(self.now + 60.0)
        self.oracle.check_once()

    def _last_end(self) -> float:
        return max((step.at + step.span for step in self.plan.steps), default=0.0) + 25.0

    def _check_views(self) -> None:
        """What everybody sees of everybody is how it is."""
        for place in self.places:
            if not place.on:
                continue
            for (node, kind), hold in place.holds.items():
                if hold.held is None:
                    self.oracle.complain(
                        f"{place.name} has no {kind} subscription to {node} after all that time"
                    )
                elif kind == "update/propchange":
                    state = self._state(node, place.user)
                    if place.seen.get(node) != state:
                        self.oracle.complain(
                            f"{place.name} sees {node} {place.seen.get(node)}, who is {state}"
                        )
        for person in self.people:
            wanted = person.state if any(place.on for place in person.places) else "offline"
            shown = self._state(person.alias, person.alias)
            if wanted != shown:
                self.oracle.complain(f"{person.alias} is {wanted}, and shown {shown}")

    def _state(self, alias: str, watcher: str) -> str:
        """The state of somebody at his home, as C{watcher} may see it."""
        node = self.homes[self.truth.home_of(_key(alias))].home.keeper.get(_key(alias))
        return "offline" if node is None else node.state_for(_key(watcher))

    def _check_deliveries(self) -> None:
        """Everybody who is there can write to everybody, and knows who is not."""
        delay = 0.0
        for place in self.places:
            if not place.on:
                continue
            self.fate.callLater(delay, lambda place=place: place.go(place.list_subscriptions()))
            for person in self.people:
                there = any(one.on for one in person.places)
                for ack in ("DeepOr", "DeepAnd", "SingleHop"):
                    self.fate.callLater(delay, self._write, place, person.alias, ack, 200 if there else 412)
                    delay += 0.05

    def _write(self, place: Place, recipient: str, ack: str, expected: int) -> None:
        place.go(_ignore(place.send(recipient, ack, expected=expected)))

    def _empty(self) -> None:
        """Everybody leaves, and in time nothing is left of them."""
        for number, place in enumerate(self.places):
            self.fate.callLater(number * 0.3, lambda place=place: place.go(place.leave()))
        self._until(self.now + EMPTY_SECONDS)
        if not self.oracle.broken:
            for text in leftovers(self):
                self.oracle.complain(text)

    def _end(self) -> None:
        """Every member is told to stop, and leaves nothing behind."""
        for member in self.members():
            member.stop()
        self._until(self.now + 60.0)
        if self.oracle.broken:
            return
        for member in self.members():
            if member.running:
                self.oracle.complain(f"{member.name} does not stop: {member.process.getDelayedCalls()}")
            for call in [call for call in member.leftover if not is_errand(call)]:
                self.oracle.complain(f"{member.name} stopped, and would still call {call}")
        for near, far in self.internet.connections():
            self.oracle.complain(f"a connection is left from {near.process.name} to {far.process.name}")

    def close(self) -> None:
        """Let go of what is not memory."""
        for home in self.homes.values():
            home.disk.close()

    def members(self) -> Iterator[Member]:
        """Homes and routers."""
        yield from self.homes.values()
        yield from self.routers.values()

    # the steps

    def _do(self, step: Step) -> None:
        self.log(f"-- {step.what}")
        self.oracle.count(step.what)
        getattr(self, "_do_" + step.what.replace(" ", "_").replace("-", "_"))(step)

    def _lasting(self, step: Step, name: str, mend: Callable[[], None], after: float = 0.0) -> None:
        """A fault has begun that lasts for the span of C{step}.

        @param after: for how long it is still felt when it is mended.
        """
        self.oracle.faults.begin(name)

        def end() -> None:
            mend()
            self.log(f"-- {name} is over")
            self.fate.callLater(after, self.oracle.faults.end, name)

        self.fate.callLater(step.span, end)

    def _momentary(self, name: str) -> None:
        """Something went wrong for a moment."""
        self.oracle.faults.begin(name)
        self.oracle.faults.end(name)

    def _place(self, step: Step) -> Place | None:
        return _pick([place for place in self.places if place.on], step.draws[0])

    def _person(self, step: Step) -> Person:
        return self.people[int(step.draws[1] * len(self.people))]

    def _do_message(self, step: Step) -> None:
        place, person = self._place(step), self._person(step)
        if place is not None:
            ack = ACKS[int(step.draws[2] * len(ACKS))]
            place.go(_ignore(place.send(person.alias, ack, troubled=lambda: self._troubled(person))))

    def _troubled(self, person: Person) -> bool:
        """Is, or was, one of his clients not itself?"""
        return any(place.name in self._moods for place in person.places)

    def _do_change(self, step: Step) -> None:
        place = self._place(step)
        if place is not None:
            states = STATES if len(place.person.places) > 1 else (*STATES, "idle", "invisible")
            place.person.change(states[int(step.draws[1] * len(states))])

    def _do_ask(self, step: Step) -> None:
        place = self._place(step)
        if place is not None:
            place.go(place.ask_state(self._person(step).alias))

    def _do_list(self, step: Step) -> None:
        place = self._place(step)
        if place is not None:
            place.go(place.list_subscriptions())

    def _do_watch(self, step: Step) -> None:
        """Watch somebody no longer, or again."""
        place = self._place(step)
        if place is None:
            return
        node, kind = self._person(step).alias, "update/propchange"
        if node == place.user:
            return
        hold = place.holds.pop((node, kind), None)
        if hold is None:
            place.hold(node, kind)
        else:
            place.go(hold.end())

    def _do_leave(self, step: Step) -> None:
        """Sign out, and sometimes come back."""
        place = self._place(step)
        if place is None:
            return
        place.go(place.leave())
        if step.draws[1] < 0.7:
            self.fate.callLater(40.0 + step.span, place.start)

    def _do_forge(self, step: Step) -> None:
        place, person = self._place(step), self._person(step)
        if place is not None and person is not place.person:
            victim = self.people[int(step.draws[2] * len(self.people))]
            if victim is not place.person:
                place.go(_ignore(place.send(person.alias, "DeepOr", forged=victim.alias)))

    def _do_hang_up(self, step: Step) -> None:
        """Write, and hang up before the answer."""
        place, person = self._place(step), self._person(step)
        if place is not None:
            place.go(_ignore(place.send(person.alias, "DeepOr", patience=step.draws[2] * 0.03)))

    def _do_nobody(self, step: Step) -> None:
        """Ask for somebody who does not exist."""
        place = self._place(step)
        if place is not None:
            place.go(self._ask_nobody(place, f"nobody{int(step.draws[1] * 1e9)}"))

    async def _ask_nobody(self, place: Place, name: str) -> None:
        down_before = "directory down" in self.oracle.faults.active
        headers = ["Depth: 0"]
        answer: Answer = await place.call("PROPFIND", name, headers, b"", allowed=(404,))
        if answer.status == 404 and down_before and "directory down" in self.oracle.faults.active:
            self.oracle.complain(f"{name} is said not to exist while nobody can know")

    # faults

    def _home(self, step: Step) -> HomeMember | None:
        return _pick([home for home in self.homes.values() if home.running], step.draws[0])

    def _router(self, step: Step) -> RouterMember | None:
        """One of several routers that run: the last is spared, as clients can do nothing without one."""
        running = [router for router in self.routers.values() if router.running]
        return _pick(running, step.draws[0])

    def _down(self, step: Step, member: Member, back: Callable[[], None] | None = None) -> None:
        """C{member} is down; somebody starts it again, and again if need be."""
        name = f"{member.name} down"
        self.oracle.faults.begin(name)

        def start() -> None:
            if back is not None:
                back()
            if member.running or member.start():
                self.oracle.faults.end(name)
            else:
                self.fate.callLater(2.0, start)

        self.fate.callLater(min(step.span, 40.0), start)

    def _kill(self, step: Step, member: Member | None) -> None:
        if member is not None:
            member.kill()
            self._down(step, member)

    def _do_kill_a_home(self, step: Step) -> None:
        self._kill(step, self._home(step))

    def _do_kill_a_router(self, step: Step) -> None:
        self._kill(step, self._router(step))

    def _do_power_off_a_home(self, step: Step) -> None:
        home = self._home(step)
        if home is not None:
            home.lose_power()
            self._down(step, home, lambda: self.internet.power(home.host))

    def _restart(self, step: Step, member: Member | None) -> None:
        if member is None or member.process.frozen:
            return
        name = f"{member.name} restarts"
        self.oracle.faults.begin(name)
        process = member.process

        def ended(result: Any) -> None:
            if member.process is process:
                self.fate.callLater(min(step.span, 5.0), start)

        def start() -> None:
            if member.running or member.start():
                self.oracle.faults.end(name)
            else:
                self.fate.callLater(2.0, start)

        def see() -> None:
            """Somebody else may have killed it meanwhile."""
            if process.alive:
                self.fate.callLater(1.0, see)
            else:
                start()

        member.stop()
        self.fate.callLater(0.5, see)

    def _do_restart_a_home(self, step: Step) -> None:
        self._restart(step, self._home(step))

    def _do_restart_a_router(self, step: Step) -> None:
        self._restart(step, self._router(step))

    def _freeze(self, step: Step, member: Member | None) -> None:
        if member is None or member.process.frozen:
            return
        process = member.process
        process.freeze()
        self._lasting(step, f"{member.name} frozen", lambda: self.internet.thaw(process))

    def _do_freeze_a_home(self, step: Step) -> None:
        self._freeze(step, self._home(step))

    def _do_freeze_a_router(self, step: Step) -> None:
        self._freeze(step, self._router(step))

    def _link(self, step: Step) -> tuple[str, str]:
        """The addresses of a home and of another member."""
        members = [member.host.address for member in self.members()]
        home = members[int(step.draws[0] * len(self.homes))]
        members.remove(home)
        return home, members[int(step.draws[1] * len(members))]

    def _do_break_a_link(self, step: Step) -> None:
        one, other = self._link(step)
        self.internet.break_between(one, other)
        self._momentary("broken link")

    def _do_cut_a_link(self, step: Step) -> None:
        one, other = self._link(step)
        self.internet.cut(one, other)
        self._lasting(step, f"{one} cut from {other}", lambda: self.internet.mend(one, other))

    def _do_cut_off_a_client(self, step: Step) -> None:
        """A home cannot reach a client, which can call the routers all the same."""
        place = self._place(step)
        if place is not None:
            home = self.homes[self.truth.home_of(_key(place.user))].host.address
            self.internet.cut(home, place.host.address)
            name = f"{place.name} cut off"
            self._lasting(step, name, lambda: self.internet.mend(home, place.host.address))

    def _do_slow_a_link(self, step: Step) -> None:
        one, other = self._link(step)
        self.internet.slow_down(one, other, 10.0 ** (1 + 2.5 * step.draws[2]))
        self._lasting(step, f"{one} slow to {other}", lambda: self.internet.speed_up(one, other))

    def _do_directory_down(self, step: Step) -> None:
        self.truth.down = True

        def up() -> None:
            if self.oracle.faults.count("directory down") == 1:
                self.truth.down = False

        self._lasting(step, "directory down", up)

    def _do_directory_slow(self, step: Step) -> None:
        self.truth.slow = 10.0 ** (3.5 * step.draws[0])

        def fast() -> None:
            self.truth.slow = 1.0

        self._lasting(step, "directory slow", fast, 0.01 * self.truth.slow)

    def _do_disk_full(self, step: Step) -> None:
        home = _pick(list(self.homes.values()), step.draws[0])
        if home is None or home.disk.full:
            return
        home.disk.full = True

        def room() -> None:
            home.disk.full = False

        self._lasting(step, f"disk of {home.name} full", room)

    def _do_disk_slow(self, step: Step) -> None:
        home = _pick(list(self.homes.values()), step.draws[0])
        if home is None or home.disk.slow > self.plan.disk:
            return
        home.disk.slow = 10.0 ** (1.5 + 2 * step.draws[1])

        def fast() -> None:
            home.disk.slow = self.plan.disk

        self._lasting(step, f"disk of {home.name} slow", fast)

    def _do_client_vanishes(self, step: Step) -> None:
        place = self._place(step)
        if place is None:
            return
        place.vanish()
        self._trouble(place, SUBSCRIPTION_SECONDS)  # so long his home calls where nobody is
        if step.draws[1] < 0.7:
            self.fate.callLater(step.span, place.start)

    def _do_client_sleeps(self, step: Step) -> None:
        """A lid is closed, and opened again."""
        place = self._place(step)
        if place is None or place.process.frozen:
            return
        process = place.process
        process.freeze()
        self._trouble(place, step.span)
        self._lasting(step, f"{place.name} sleeps", lambda: self.internet.thaw(process))

    def _do_client_stops_reading(self, step: Step) -> None:
        place = self._place(step)
        if place is None or place.host.deaf:
            return
        place.host.deaf = True
        self._trouble(place, step.span)
        self._lasting(step, f"{place.name} reads nothing", lambda: self.internet.listen_again(place.host))

    def _do_call_back_misbehaves(self, step: Step) -> None:
        place = self._place(step)
        if place is None or place.mood != "well":
            return
        place.set_mood(MOODS[int(step.draws[1] * len(MOODS))])
        self._trouble(place, step.span)
        self._lasting(step, f"{place.name} {place.mood}", lambda: place.set_mood("well"))

    def _trouble(self, place: Place, span: float) -> None:
        """Messages to C{place} may fail for that long, and a little longer for those that wait."""
        self._moods[place.name] = self._moods.get(place.name, 0) + 1

        def over() -> None:
            self._moods[place.name] -= 1
            if not self._moods[place.name]:
                del self._moods[place.name]

        self.fate.callLater(span + 60.0, over)

    def _do_move_a_user(self, step: Step) -> None:
        person = self._person(step)
        homes = [id for id in self.homes if id != self.truth.home_of(_key(person.alias))]
        if self.truth.down:
            return
        self.truth.move(_key(person.alias), homes[int(step.draws[2] * len(homes))])
        self.log(f"{person.alias} moves to {self.truth.home_of(_key(person.alias))}")
        self.oracle.moved(person.alias)
        self._momentary("move")


async def _ignore(doing: Any) -> None:
    """Nobody waits for the result."""
    await doing


def _pick(some: Sequence[_T], draw: float) -> _T | None:
    return some[int(draw * len(some))] if some else None


def _key(alias: str) -> str:
    return f"{DOMAIN}/instmsg/aliases/{alias}"
