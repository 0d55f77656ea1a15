"""Persons and their client programs: they sign in, watch each other, renew, write to each other, and go."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Sequence
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock

from rvpfarm.protocol.calls import Call
from tests.simulation.calling import ANSWER_SECONDS, Answer, Ear, Phone, sleep
from tests.simulation.internet import End, Host, Internet
from tests.simulation.oracle import Held, Oracle, Sent
from tests.simulation.timeline import Process, Timeline
from tests.support.homes import leased, message

DOMAIN = "im.fabrik.example"
PORT = 3155
#: What clients ask for: the shortest subscriptions there are, and a presence lease that runs out sooner.
SUBSCRIPTION_SECONDS, PRESENCE_SECONDS = 300, 120
#: At which share of a lease it is renewed, at the earliest and the latest.
RENEWAL = (0.55, 0.8)
#: How long a client waits before it tries again what failed.
PAUSE_SECONDS = (1.0, 4.0)
#: What a person may say of himself.
STATES = ("online", "busy", "away", "on-phone", "at-lunch", "back-soon")

_STATE = re.compile(rb"<r:state><r:([a-z-]+)/></r:state>")
_FROM = re.compile(
    rb"<r:notification-from><r:contact><d:href>http://[^/]*/instmsg/aliases/([a-z0-9]+)</d:href>"
)
_ENTRY = re.compile(rb"<r:subscription-id>(\d+)</r:subscription-id>.*?<d:timeout>(\d+)</d:timeout>")
_NUMBER = re.compile(rb"message#(\d+)#")


def path_of(alias: str) -> str:
    """The path of a user's node."""
    return f"/instmsg/aliases/{alias}"


def url_of(alias: str) -> str:
    """The logical URL of a user."""
    return f"http://{DOMAIN}{path_of(alias)}"


class Surroundings:
    """What all persons share.

    @ivar log: told what they do, for the trace.
    """

    def __init__(
        self,
        timeline: Timeline,
        internet: Internet,
        oracle: Oracle,
        routers: Sequence[str],
        seed: int,
        log: Callable[[str], None],
    ) -> None:
        self.timeline, self.internet, self.oracle = timeline, internet, oracle
        self.routers, self.seed, self.log = list(routers), seed, log


class Person:
    """Somebody with an account.

    @ivar places: his client programs, one on each of his machines.
    @ivar contacts: the aliases of those he watches.
    @ivar state: how he is, as all his programs say that are not signing out.
    """

    def __init__(self, alias: str, contacts: Sequence[str]) -> None:
        self.alias = alias
        self.password = f"secret of {alias}"
        self.contacts = list(contacts)
        self.state = "online"
        self.places: list[Place] = []

    def change(self, state: str) -> None:
        """He does something else, and every program of his says so."""
        self.state = state
        for place in self.places:
            if place.on:
                place.go(place.change())


class Hold:
    """One subscription that a place wants to have, for as long as it wants it.

    @ivar held: what the farm has granted of it.
    """

    def __init__(self, place: Place, node: str, kind: str) -> None:
        self._place, self.node, self.kind = place, node, kind
        self.wanted = True
        self.held: Held | None = None

    async def run(self) -> None:
        """Subscribe, and renew again and again."""
        place = self._place
        while self.wanted:
            done = await (self._subscribe() if self.held is None else self._renew(self.held))
            if done:
                await sleep(place.process, place.random.uniform(*RENEWAL) * SUBSCRIPTION_SECONDS)
            else:
                await sleep(place.process, place.random.uniform(*PAUSE_SECONDS))

    async def end(self) -> None:
        """Want it no longer, and say so."""
        self.wanted = False
        held, oracle = self.held, self._place.oracle
        if held is None:
            return
        self._place.over.add((self.node, held.id))
        oracle.ending(held)
        headers = [f"Subscription-Id: {held.id}"]
        allowed = (200, 412) if held.state == "ending" else (200, 403, 412)  # another home has other ids
        answer = await self._place.call("UNSUBSCRIBE", self.node, headers, allowed=allowed)
        if answer.status == 200:
            oracle.ended(held, answer)

    async def _subscribe(self) -> bool:
        place = self._place
        target = f"http://{place.host.address}:{PORT}" if self.kind == "pragma/notify" else url_of(place.user)
        headers = [
            f"Notification-Type: {self.kind}",
            f"Call-Back: {target}",
            f"Subscription-Lifetime: {SUBSCRIPTION_SECONDS}",
        ]
        noticed = place.notices.get(self.node, 0)
        answer = await place.call("SUBSCRIBE", self.node, headers, allowed=(200, 207))
        if answer.status not in (200, 207):
            return False
        id, lifetime = int(answer.headers[b"subscription-id"]), int(answer.headers[b"subscription-lifetime"])
        self.held = place.oracle.subscribed(place.user, self.node, id, lifetime, answer)
        place.over.discard((self.node, id))
        if self.kind == "pragma/notify":
            place.signed_in()
        else:
            place.shown(self.node, answer)
            if place.notices.get(self.node, 0) == noticed:  # else what was heard meanwhile is newer
                place.sees(self.node, answer.body, f"subscribing, {id}")
        return True

    async def _renew(self, held: Held) -> bool:
        place = self._place
        headers = [f"Subscription-Id: {held.id}", f"Subscription-Lifetime: {SUBSCRIPTION_SECONDS}"]
        allowed = (200, 412) if held.state == "held" else (200, 403, 412)  # another home has other ids
        answer = await place.call("SUBSCRIBE", self.node, headers, allowed=allowed)
        if answer.status == 200:
            place.oracle.renewed(held, int(answer.headers[b"subscription-lifetime"]), answer)
        elif answer.status in (403, 412):
            place.oracle.unknown(held, answer)
            place.over.add((self.node, held.id))
            self.held = None
        return answer.status == 200


class Place:
    """One client program of one person.

    @ivar on: it runs.
    @ivar leaving: it is signing out.
    @ivar seen: the state of each contact, as its user sees it.
    @ivar notices: how many notifications of each contact it has had.
    @ivar over: the subscriptions that it has ended or lost, by node and id, whose last news it does not look at.
    """

    def __init__(self, around: Surroundings, person: Person, host: Host, *, closes: bool) -> None:
        """
        @param closes: its listener closes the connection after each answer.
        """
        self._around, self.person, self.host, self._closes = around, person, host, closes
        self.oracle = around.oracle
        self.user = person.alias
        self.name = f"{person.alias}@{host.address.removeprefix('10.')}"
        self.on = self.leaving = False
        self.seen: dict[str, str] = {}
        self.notices: dict[str, int] = {}
        self.over: set[tuple[str, int]] = set()
        self.holds: dict[tuple[str, str], Hold] = {}
        self.mood = "well"
        self._starts = 0
        self.process = Process(around.timeline, self.name)
        self.process.kill()
        self.random = Random(0)
        self._phone: Phone
        self._ear: Ear
        self._speaking = DeferredLock()

    # coming and going

    def start(self) -> None:
        """Start the program: it signs in."""
        if self.on:
            return
        self.on, self.leaving = True, False
        self._starts += 1
        self.process = Process(self._around.timeline, self.name)
        self.random = Random(f"{self._around.seed} {self.name} {self._starts}")
        self._phone = Phone(self._around.internet, self.process, self.host, self._around.routers, self.random)
        self._phone.user, self._phone.password, self._phone.realm = self.user, self.person.password, DOMAIN
        self._ear = Ear(self.process, self._heard, self._answered, closes=self._closes)
        self._ear.mood = self.mood
        self._around.internet.listen(self.process, self.host, PORT, self._ear)
        self.seen, self.notices, self.over, self.holds = {}, {}, set(), {}
        self._speaking = DeferredLock()
        self._around.log(f"{self.name} comes")
        self.hold(self.user, "pragma/notify")
        self.go(self._be_present())

    def signed_in(self) -> None:
        """The home knows the call-back from now on: subscribe to everybody, to see how they are.

        Subscriptions from before are ended: while a login was lost their news went nowhere.
        """
        watched = {node: hold for (node, kind), hold in self.holds.items() if kind == "update/propchange"}
        for hold in watched.values():
            self.go(hold.end())
        for contact in watched or self.person.contacts:
            self.hold(contact, "update/propchange")

    def hold(self, node: str, kind: str) -> None:
        """Subscribe to C{node} for as long as wanted."""
        hold = self.holds[node, kind] = Hold(self, node, kind)
        self.go(hold.run())

    def vanish(self) -> None:
        """The program dies; its machine says so to whoever calls."""
        if self.on:
            self.on = False
            self.process.kill()
            self._around.internet.crash(self.process)
            self._around.log(f"{self.name} vanishes")

    async def leave(self) -> None:
        """Sign out as clients do, then end."""
        if not self.on or self.leaving:
            return
        self._around.log(f"{self.name} signs out")
        self.leaving = True
        for hold in self.holds.values():
            hold.wanted = False
        await self.speak()
        for hold in list(self.holds.values()):
            await hold.end()
        self._phone.hang_up()
        await sleep(self.process, 1.0)
        if self.on:
            self.vanish()

    def go(self, doing: Coroutine[Any, Any, None]) -> None:
        """Do something besides everything else."""
        done = Deferred.fromCoroutine(doing)
        done.addErrback(lambda failure: self.oracle.complain(f"{self.name}: {failure.getTraceback()}"))

    def set_mood(self, mood: str) -> None:
        """Treat callers like that from now on."""
        self.mood = mood
        if self.on:
            self._ear.mood = mood

    # presence

    async def _be_present(self) -> None:
        """Say how the user is, and say it again before its lease is over."""
        while not self.leaving:
            if await self.speak():
                await sleep(self.process, self.random.uniform(*RENEWAL) * PRESENCE_SECONDS)
            else:
                await sleep(self.process, self.random.uniform(*PAUSE_SECONDS))

    async def speak(self) -> bool:
        """Say how the user is; what is said last is what was wanted last."""
        await self._speaking.acquire()
        state = "offline" if self.leaving else self.person.state
        token = self.oracle.setting(self.user, state, PRESENCE_SECONDS)
        body = leased(state, timeout=str(PRESENCE_SECONDS)).encode()
        answer = await self.call("PROPPATCH", self.user, [], body, allowed=(207,), note=state)
        self.oracle.was_set(self.user, token, PRESENCE_SECONDS, answer)
        self._speaking.release()
        return answer.status == 207

    async def change(self) -> None:
        """The user does something else."""
        if self.on and not self.leaving:
            await self.speak()

    async def ask_state(self, node: str) -> None:
        """Look how a contact is."""
        body = (
            b"<?xml version=\"1.0\"?><d:propfind xmlns:d='DAV:' xmlns:r='http://schemas.microsoft.com/rvp/'>"
            b"<d:prop><r:state/></d:prop></d:propfind>"
        )
        answer = await self.call("PROPFIND", node, ["Depth: 0"], body, allowed=(207,))
        if answer.status == 207:
            self.shown(node, answer)

    def shown(self, node: str, answer: Answer) -> None:
        """An answer says how C{node} is."""
        state = _STATE.search(answer.body)
        if state is None:
            self.oracle.complain(f"{self.name} was told no state of {node}: {answer.body.decode()}")
        else:
            self.oracle.shown(node, state[1].decode(), answer)

    def sees(self, node: str, body: bytes, how: str) -> None:
        """This is how C{node} is now, as far as the user knows.

        @param how: from where he knows it.
        """
        state = _STATE.search(body)
        if state is None:
            self.oracle.complain(f"{self.name} was told no state of {node}: {body.decode()}")
            return
        self.seen[node] = state[1].decode()
        self._around.log(f"{self.name} sees {node} {self.seen[node]} ({how})")

    # other calls

    async def list_subscriptions(self) -> None:
        """Ask who is subscribed to the own node."""
        answer = await self.call("SUBSCRIPTIONS", self.user, [], allowed=(200,))
        if answer.status == 200:
            entries = {int(id): int(left) for id, left in _ENTRY.findall(answer.body)}
            self.oracle.listed(self.user, entries, answer)

    async def send(
        self,
        recipient: str,
        ack: str,
        *,
        troubled: Callable[[], bool] = lambda: False,
        expected: int = 0,
        forged: str = "",
        patience: float = ANSWER_SECONDS,
    ) -> Sent:
        """Write to somebody.

        @param troubled: whether his client is not itself.
        @param expected: the only status there can be, as things stand.
        @param forged: whom to claim to be instead.
        """
        sent = self.oracle.sending(self.user, recipient, ack, forged=bool(forged))
        sender = url_of(forged or self.user)
        text = message(sender, url_of(recipient), f"message#{sent.number}#").encode()
        headers = [f"RVP-Ack-Type: {ack}", "RVP-Hop-Count: 1"]
        if forged and sent.number % 2:  # one in two lies in the body alone
            headers.append(f"RVP-From-Principal: {url_of(self.user)}")
        else:
            headers.append(f"RVP-From-Principal: {sender}")
        before = troubled()

        def ill() -> bool:
            return before or troubled() or patience < ANSWER_SECONDS

        def allowed() -> Sequence[int]:
            if forged or expected:
                return (403,) if forged else (expected,)
            # a place that nobody signed out of does not take what is for all
            return (200, 412, 500) if ill() or ack == "DeepAnd" else (200, 412)

        answer = await self.call(
            "NOTIFY",
            recipient,
            headers,
            text,
            allowed=allowed,
            troubled=ill,
            note=f"{ack} {sent.number}",
            again=False,
            patience=patience,
        )
        self.oracle.sent(sent, answer)
        return sent

    async def call(
        self,
        method: str,
        node: str,
        headers: Sequence[str],
        body: bytes = b"",
        *,
        allowed: Sequence[int] | Callable[[], Sequence[int]],
        troubled: Callable[[], bool] = lambda: False,
        shaky: Sequence[int] = (0, 503, 504),
        note: str = "",
        again: bool = True,
        patience: float = ANSWER_SECONDS,
    ) -> Answer:
        """Make a call, and see that its answer is one of those that there may be.

        @param allowed: there may be at any time; asked when there is an answer.
        @param shaky: there may be besides while something is wrong, or not for long right.
        @param troubled: whether somebody who takes part in the call is not himself.
        """
        if not any(line.startswith("RVP-From-Principal") for line in headers):
            headers = [*headers, f"RVP-From-Principal: {url_of(self.user)}"]
        answer = await self._phone.ask(method, path_of(node), headers, body, again=again, patience=patience)
        what = f"{method} {node} {note}".strip()
        took = answer.ended - answer.begun
        self._around.log(f"{self.name} {what} by {answer.router} -> {answer.status} ({took:.3f} s)")
        calm = not troubled() and self.oracle.faults.calm_since(answer.begun)
        may_be = allowed() if callable(allowed) else allowed
        self.oracle.judge(f"{method} of {self.name} to {node} {note}", answer, may_be, () if calm else shaky)
        return answer

    # being called

    def _heard(self, call: Call, end: End) -> None:
        """The home calls."""
        others = [one for one in self._ear.attending if one.busy and one.transport is not end]
        waiting = [one for one in others if one.transport.connected and one.transport.other.connected]
        if waiting and not any(one.transport.other.process is not end.other.process for one in waiting):
            self.oracle.complain(f"{self.name} is told two things at a time")
        sender = call.headers.get(b"rvp-from-principal", b"").decode()
        told = _FROM.search(call.body)
        if told is None:
            self.oracle.complain(f"{self.name} was told something from nobody: {call.body.decode()}")
            return
        about = told[1].decode()
        number = _NUMBER.search(call.body)
        if number is not None:
            self._around.log(f"{self.name} hears message {number[1].decode()} ({self.mood})")
            self.oracle.heard_message(self.name, self.user, int(number[1]), sender.rpartition("/")[2], about)
            return
        if sender != DOMAIN:
            self.oracle.complain(f"{self.name} was told how {about} is, by {sender}")
        id = int(call.headers[b"subscription-id"])
        if (about, id) in self.over:
            self._around.log(
                f"{self.name} does not look at news of {about} by subscription {id}, which is over"
            )
            return
        self.notices[about] = self.notices.get(about, 0) + 1
        self.sees(about, call.body, f"subscription {id}, {self.mood}")

    def _answered(self, call: Call, end: End, status: int) -> None:
        """The answer to what the home said is written."""
        number = _NUMBER.search(call.body)
        if number is not None:
            self.oracle.answered_message(self.name, int(number[1]), end, status)
