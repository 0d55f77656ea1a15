"""What may never grow too large in a member, and what must be gone when everybody has left."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rvpfarm.home import courier
from rvpfarm.link import client, ledger
from rvpfarm.web import outgoing
from tests.simulation.members import HomeMember, Member

if TYPE_CHECKING:
    from tests.simulation.world import World

# The insides of members are looked at here, and nowhere else: a queue that is too long shows by nothing else.


def check_bounds(world: World) -> Iterator[str]:
    """Each queue, count and table of each member that is larger than it may be, or is miscounted."""
    for home in world.homes.values():
        if home.running:
            yield from _check_home(home)
            yield from _check_links(home)
    for router in world.routers.values():
        if router.running:
            yield from _check_links(router)
            yield from _check_admission(router, router.calls.admission.in_work, 0)


def _check_home(home: HomeMember) -> Iterator[str]:
    lines = home.home.courier._lines.values()
    for line in lines:
        if len(line.queue) > courier.QUEUE:
            yield f"{home.name} has {len(line.queue)} letters waiting for {line.destination.name}"
    queued = sum(len(line.queue) for line in lines)
    if queued != home.home.courier.queued:
        yield f"{home.name} has {queued} letters waiting, and counts {home.home.courier.queued}"
    for destination in home.outgoing._destinations.values():
        if len(destination.queue) > outgoing.DESTINATION_QUEUE:
            yield f"{home.name} has {len(destination.queue)} calls waiting for {destination.name}"
        if not 0 <= destination.active <= outgoing.DESTINATION_CONNECTIONS:
            yield f"{home.name} has {destination.active} connections to {destination.name}"
    if not 0 <= home.journal.depth <= 10000:
        yield f"{home.name} has {home.journal.depth} changes on the way to its disk"
    for origin in home.taken._ledgers.values():
        if len(origin) > ledger.WORKS_LIMIT:
            yield f"{home.name} remembers {len(origin)} calls of {origin.caller}"
    yield from _check_admission(home, home.admission.in_work, home.taken.in_work)


def _check_admission(member: Member, in_work: int, taken: int) -> Iterator[str]:
    """What is in work is what connections wait for: nothing is counted for ever."""
    turns = [turn for one in member.calls.connections for turn in one._turns if turn.answer is not None]
    if in_work != len(turns) + taken:
        yield f"{member.name} counts {in_work} calls in work, and there are {len(turns)} and {taken}"


def _check_links(member: Member) -> Iterator[str]:
    for home, link in member.links._links.values():
        if link.in_flight > client.CALLS_LIMIT:
            yield f"{member.name} has {link.in_flight} calls on the way to {home.name}"
        size = sum(pending.weight for pending in link._pending.values())
        if size != link._roll.weight:
            yield f"{member.name} has {size} octets on the way to {home.name}, and counts {link._roll.weight}"


def leftovers(world: World) -> Iterator[str]:
    """Everybody has left, and every lease is over: what is kept all the same, except what is kept on purpose."""
    for home in world.homes.values():
        if len(home.home.keeper):
            yield f"{home.name} still keeps {list(home.home.keeper._nodes)}"
        waiting = [line for line in home.home.courier._lines.values() if not line.dead]
        if waiting or home.home.courier.queued:
            yield f"{home.name} still has letters for {[line.destination.name for line in waiting]}"
        if home.outgoing.connected or home.outgoing.waiting:
            yield f"{home.name} still has {home.outgoing.connected} connections to call-backs"
        for origin in home.taken._ledgers.values():
            if len(origin):
                yield f"{home.name} still remembers {len(origin)} calls of {origin.caller}"
        saved, now = home.disk.read(), world.timeline.now
        for row in (*saved.subscriptions, *saved.views):
            if row.until > now:  # what the full disk kept is forgotten at the next start
                yield f"{home.name} still has {row} on its disk"
        if home.home.herald.waiting or home.journal.depth:
            yield f"{home.name} still has work"
    for member in world.members():
        if not member.running:
            yield f"{member.name} does not run"
            continue
        if member.links.in_flight:
            yield f"{member.name} still has {member.links.in_flight} calls on their way"
        if member.calls.connections:
            yield f"{member.name} still has {len(member.calls.connections)} connections of clients"
        unknown = [str(call) for call in member.process.getDelayedCalls() if not is_periodic(call)]
        if unknown:
            yield f"{member.name} would still call {unknown}"


#: What a member that has nothing to do is called for, again and again.
PERIODIC = (
    "LoopingCall<1.0>(Home._sweep",  # leases are swept
    "Feed._tick",  # the feed of changes is read
    "LinkFactory._sweep",  # forgotten replies are dropped
    "HomeConnection._ping",  # the other end of a link is asked for a sign of life
)


def is_periodic(call: object) -> bool:
    """Is that a call that there always is?"""
    return is_errand(call) or any(name in str(call) for name in PERIODIC)


def is_errand(call: object) -> bool:
    """Does it stand for a thread that asks the directory?  Nobody waits for that in the end."""
    return any(
        name in str(call) for name in ("Errands.", "Feed._look.", "Feed._tick.", "CachedDirectory._ask.")
    )
