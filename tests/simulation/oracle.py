"""What the farm has promised, and every promise that it breaks.

Clients report what they asked, what they were answered and what they heard; the oracle knows nothing else of
the farm.  A broken promise is noted and ends the run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.simulation.calling import Answer
from tests.simulation.internet import End

#: A lease may be shown so much longer than it lasts (protocol notes 5.2).
LEASE_SLACK_SECONDS = 5.0
#: The farm has so long to find itself again after the end of a fault, before nothing may fail any more.
CALM_SECONDS = 15.0
#: A call that nobody was answered may still be executed so long after it was made.
LATE_SECONDS = 60.0
#: For so long a move may not be known everywhere, even with the directory down meanwhile.
MOVING_SECONDS = 180.0


@dataclass(slots=True)
class Sent:
    """One message, and what became of it.

    @ivar answered: at which call-backs an answer was given: the place, the end, how much had been written
        there with it, and the status.
    """

    number: int
    sender: str
    recipient: str
    ack: str
    forged: bool = False
    status: int | None = None
    answered: list[tuple[str, End, int, int]] = field(default_factory=list)


@dataclass(slots=True)
class Held:
    """One subscription, as its creator was told.

    @ivar until: it was promised up to then, at least.
    @ivar state: C{"held"}; C{"ending"} once its end was asked for; C{"ended"} when that was granted; C{"void"}
        when its node was moved away from the home that knew it.
    @ivar ended: when the end was granted.
    """

    home: str
    id: int
    node: str
    creator: str
    until: float
    since: float
    state: str = "held"
    ended: float = 0.0


class Faults:
    """What is wrong at present, and since when nothing is."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._active: dict[str, int] = {}
        self._quiet_since = seconds()

    def begin(self, name: str) -> None:
        """Something goes wrong."""
        self._active[name] = self._active.get(name, 0) + 1

    def end(self, name: str) -> None:
        """It is mended."""
        left = self._active.pop(name) - 1
        if left:
            self._active[name] = left
        if not self._active:
            self._quiet_since = self._seconds()

    def count(self, name: str) -> int:
        """How often that is wrong at present."""
        return self._active.get(name, 0)

    @property
    def active(self) -> list[str]:
        """What is wrong."""
        return sorted(self._active)

    def calm_since(self, when: float) -> bool:
        """Was everything in order from some time before C{when} until now?"""
        return not self._active and when >= self._quiet_since + CALM_SECONDS


class Oracle:
    """Keeps the books of a run.

    @ivar broken: the promises that were broken, in words.
    @ivar faults: what is wrong with the farm itself.
    """

    def __init__(self, seconds: Callable[[], float], home_of: Callable[[str], str]) -> None:
        """
        @param home_of: the id of the home of a user's node, by alias.
        """
        self._seconds, self._home_of = seconds, home_of
        self.faults = Faults(seconds)
        self.broken: list[str] = []
        self.messages: list[Sent] = []
        self.counts: dict[str, int] = {}
        self._held: dict[tuple[str, int], Held] = {}
        self._shown: dict[str, dict[int, float]] = {}
        self._moved: dict[str, float] = {}

    def complain(self, text: str) -> None:
        """A promise was broken."""
        self.broken.append(text)

    def count(self, what: str) -> None:
        """One more of these, for the summary."""
        self.counts[what] = self.counts.get(what, 0) + 1

    # status codes

    def judge(self, what: str, answer: Answer, allowed: Sequence[int], shaky: Sequence[int]) -> None:
        """Every answer is one that a client can expect.

        @param allowed: there may be at any time.
        @param shaky: there may be besides, as things stand.
        """
        status = answer.status
        self.count(f"{what.split()[0]} {status}")
        if status not in allowed and status not in shaky:
            why = "" if status not in (0, 503, 504) else " though nothing is wrong"
            self.complain(f"{what} was answered {status}{why}: {answer.body.decode()}")

    # messages

    def sending(self, sender: str, recipient: str, ack: str, *, forged: bool = False) -> Sent:
        """A message is about to be sent."""
        message = Sent(len(self.messages), sender, recipient, ack, forged)
        self.messages.append(message)
        return message

    def heard_message(self, place: str, user: str, number: int, from_principal: str, said: str) -> None:
        """A call-back was told a message.

        @param from_principal: the alias in C{RVP-From-Principal}.
        @param said: the alias that the body gives as the sender.
        """
        message = self.messages[number]
        if message.forged:
            self.complain(f"{place} was told the forged message {number}")
        elif not message.sender == from_principal == said:
            self.complain(
                f"{place} was told that message {number} of {message.sender} is from {from_principal} ({said})"
            )
        if message.recipient != user:
            self.complain(f"{place} was told message {number}, which is for {message.recipient}")

    def answered_message(self, place: str, number: int, end: End, status: int) -> None:
        """A call-back has answered a message."""
        self.messages[number].answered.append((place, end, end.written, status))

    def sent(self, message: Sent, answer: Answer) -> None:
        """The sender has his answer: it promises what he asked for."""
        message.status = answer.status
        accepted = [place for place, _, _, status in message.answered if status == 200]
        if answer.status != 200:
            return
        if message.forged:
            self.complain(f"message {message.number} was taken though it is forged")
        if message.ack in ("DeepOr", "DeepAnd") and not accepted:
            self.complain(
                f"message {message.number} to {message.recipient} was acknowledged, and nobody has it"
            )
        if message.ack == "DeepAnd" and any(status != 200 for _, _, _, status in message.answered):
            self.complain(f"message {message.number} was acknowledged for all, and not all took it")

    def check_once(self) -> None:
        """No call-back has acknowledged one message twice, as far as its home has heard."""
        for message in self.messages:
            places = [
                place for place, end, at, status in message.answered if status == 200 and end.taken >= at
            ]
            twice = {place for place in places if places.count(place) > 1}
            if twice:
                self.complain(f"message {message.number} was executed twice at {', '.join(sorted(twice))}")

    # subscriptions

    def subscribed(self, creator: str, node: str, id: int, lifetime: int, answer: Answer) -> Held:
        """A new subscription was granted."""
        home = self._home_of(node)
        held = Held(home, id, node, creator, answer.begun + lifetime, answer.ended)
        if answer.begun < self._moved.get(node, 0.0) + MOVING_SECONDS:
            held.state = "void"  # it may be the old home that has granted it
            return held
        if (home, id) in self._held:
            self.complain(f"{home} has given the id {id} twice")
        self._held[home, id] = held
        return held

    def renewed(self, held: Held, lifetime: int, answer: Answer) -> None:
        """A renewal was granted."""
        held.until = max(held.until, answer.begun + lifetime)

    def unknown(self, held: Held, answer: Answer) -> None:
        """Its home said that it does not know the subscription (412)."""
        if held.state == "held" and answer.ended < held.until:
            left = held.until - answer.ended
            self.complain(
                f"subscription {held.id} of {held.creator} to {held.node} is gone, {left:.1f} s before its end"
            )

    def ending(self, held: Held) -> None:
        """Its creator asks for its end."""
        if held.state == "held":
            held.state = "ending"

    def ended(self, held: Held, answer: Answer) -> None:
        """That was granted."""
        if held.state == "ending":
            held.state, held.ended = "ended", answer.ended

    def moved(self, node: str) -> None:
        """A node has another home, which knows nothing of its subscriptions."""
        self._moved[node] = self._seconds()
        for held in self._held.values():
            if held.node == node:
                held.state = "void"

    def listed(self, node: str, entries: dict[int, int], answer: Answer) -> None:
        """The owner of C{node} was told who subscribes to it.

        @param entries: the seconds left, by id.
        """
        home = self._home_of(node)
        for held in self._held.values():
            if held.node != node or held.home != home:
                continue
            if held.state == "held" and held.since < answer.begun and held.until > answer.ended:
                left = entries.get(held.id)
                if left is None:
                    self.complain(f"subscription {held.id} of {held.creator} to {node} is not listed")
                elif left + 2 < held.until - answer.ended:
                    self.complain(
                        f"subscription {held.id} to {node} has {left} s left, not {held.until - answer.ended:.1f}"
                    )
            elif held.state == "ended" and held.ended < answer.begun and held.id in entries:
                self.complain(f"subscription {held.id} of {held.creator} to {node} was ended, and is listed")

    # presence

    def setting(self, user: str, state: str, lease: int) -> int:
        """A client is about to say that its user is in C{state}.

        @return: for L{was_set}.
        """
        shown = self._shown.setdefault(user, {})
        token = len(shown)
        shown[token] = (
            self._seconds() + LATE_SECONDS + lease + LEASE_SLACK_SECONDS if state != "offline" else 0.0
        )
        return token

    def was_set(self, user: str, token: int, lease: int, answer: Answer) -> None:
        """It has its answer, so that nothing of the kind will happen later."""
        if answer.status == 207:
            self._shown[user][token] = min(
                self._shown[user][token], answer.ended + lease + LEASE_SLACK_SECONDS
            )

    def shown(self, user: str, state: str, answer: Answer) -> None:
        """Somebody asked, and was told that C{user} is in C{state}."""
        if state != "offline" and answer.begun > max(self._shown.get(user, {}).values(), default=0.0):
            self.complain(f"{user} is shown {state} longer than any lease of his lasts")
