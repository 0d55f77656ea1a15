"""One message to everybody who is online, through their homes (product F101)."""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Protocol
from urllib.parse import quote

from rvpfarm.admin.actors import default_actor
from rvpfarm.admin.checks import Refused, domain_named
from rvpfarm.admin.doors import Door, homes_of, link_key, visit_all
from rvpfarm.admin.sessions import ANSWER_SECONDS, ask_sessions
from rvpfarm.admin.users import account_meant
from rvpfarm.directory.model import Account, Farm, Home
from rvpfarm.directory.reading import Reading
from rvpfarm.directory.store import Store
from rvpfarm.protocol.calls import Call
from rvpfarm.protocol.mime import render_text
from rvpfarm.protocol.notifications import render_message

#: The longest text, in characters; clients of old show some hundred.
TEXT_LIMIT = 2000
#: Messages on their way at each home, and how many are begun in a second.
WINDOW, RATE = 32, 50.0
#: How long a message may take: a home answers within 20 seconds.
MESSAGE_SECONDS = 30.0

#: What the status of an answer comes to; every other one means that it was not done.
_OUTCOMES: Mapping[int, str] = {200: "delivered", 403: "refused", 500: "refused", 412: "gone", 504: "unknown"}


@dataclass(frozen=True, slots=True)
class Recipient:
    """Somebody who is online.

    @ivar key: of the node; C{name} is what to call it.
    """

    key: str
    name: str


@dataclass(frozen=True, slots=True)
class Audience:
    """Who would get a message.

    @ivar sender: in whose name it is.
    @ivar recipients: by the name of the home.
    @ivar silent: why other homes did not answer, by name: nobody there gets anything.
    """

    sender: Account
    homes: Mapping[str, Home]
    recipients: Mapping[str, Sequence[Recipient]]
    silent: Mapping[str, str]

    @property
    def size(self) -> int:
        """How many they are."""
        return sum(len(some) for some in self.recipients.values())


@dataclass(slots=True)
class Tally:
    """What became of a message.

    @ivar delivered: a client has taken it.
    @ivar refused: the access list or the client did not let it in.
    @ivar gone: nobody could be reached there any more.
    @ivar unknown: it was sent, and nobody said what became of it.
    @ivar failed: the home did not take it on.
    """

    delivered: int = 0
    refused: int = 0
    gone: int = 0
    unknown: int = 0
    failed: int = 0

    def add(self, outcome: str) -> None:
        """One more."""
        setattr(self, outcome, getattr(self, outcome) + 1)

    def record(self) -> dict[str, int]:
        """For programs, and for the audit trail."""
        return {one.name: getattr(self, one.name) for one in fields(self)}


def find_audience(
    store: Store,
    sender: str | None = None,
    domain: str | None = None,
    home: str | None = None,
    states: Collection[str] = (),
    *,
    seconds: float = ANSWER_SECONDS,
    actor: str | None = None,
) -> Audience:
    """Who is online now and would get a message.

    @param sender: the IM address of the user in whose name it is; left out, the policy C{announce-from} says.
    @param domain: only users of this IM domain.
    @param home: only users of the home of this name.
    @param states: only who shows one of these somewhere; all who are logged in if there are none.
    @raise Refused: nobody says in whose name, or there is no such user, domain or home.
    """
    key = link_key(store)
    with store.read() as reading:
        farm = reading.farm()
        chosen = None if domain is None else domain_named(farm.domains, domain).name
        account = _sender(reading, farm, sender, chosen)
    homes = homes_of(farm, home)

    def ask(door: Door) -> list[Recipient]:
        """Who is online at one home."""
        found: dict[str, Recipient] = {}
        for session in ask_sessions(door):
            there = session.login is not None and (not states or session.state in states)
            if there and chosen in (None, session.user.partition("/")[0]) and session.user != account.key:
                name = session.address or session.user.rpartition("/")[2]
                found.setdefault(session.user, Recipient(session.user, name))
        return list(found.values())

    told, silent = visit_all(homes, key, seconds, ask, actor)
    return Audience(account, {one.name: one for one in homes}, told, silent)


def broadcast(
    store: Store, text: str, audience: Audience, *, rate: float = RATE, actor: str | None = None
) -> Tally:
    """Deliver C{text} to C{audience}, and count what became of it.

    @param rate: how many messages each home is given in a second.
    @raise Refused: the text is empty or too long.
    """
    check_message(text)
    key, actor, tally = link_key(store), actor or default_actor(), Tally()
    homes = {name: audience.homes[name] for name, some in audience.recipients.items() if some}

    def deliver(door: Door) -> Tally:
        """Deliver it at one home."""
        return deliver_at(door, text, audience.sender, audience.recipients[door.home.name], rate)

    seconds = max(
        (len(some) / rate + 2 * MESSAGE_SECONDS for some in audience.recipients.values()), default=1.0
    )
    try:
        told, silent = visit_all(homes.values(), key, seconds, deliver, actor)
        for one in told.values():
            for outcome, count in one.record().items():
                setattr(tally, outcome, getattr(tally, outcome) + count)
        for name in silent:
            tally.unknown += len(audience.recipients[name])
    finally:
        with store.change(actor, "broadcast", audience.sender.address) as writing:
            writing.note("message", "", {"recipients": audience.size, **tally.record()})
    return tally


@dataclass(frozen=True, slots=True)
class Announced:
    """What was sent, or would be.

    @ivar recipients: how many they are.
    @ivar tally: what became of it; nothing yet where nothing was sent.
    @ivar silent: why other homes did not answer, by name: nobody there gets anything.
    """

    sender: Account
    recipients: int
    tally: Tally
    silent: Mapping[str, str]


def announce(
    store: Store,
    text: str,
    sender: str | None = None,
    domain: str | None = None,
    home: str | None = None,
    states: Iterable[str] = (),
    *,
    dry_run: bool = False,
    actor: str | None = None,
) -> Announced:
    """One message to everybody who is online now; it takes as long as the delivery does.

    @param text: the message.
    @param sender: the IM address of the user in whose name it is; left out, the policy C{announce-from} says.
    @param domain: only users of this IM domain.
    @param home: only users of the home of this name.
    @param states: only who shows one of these somewhere; all who are logged in if there are none.
    @param dry_run: only find out how many they are.
    @raise Refused: the message is none, nobody says in whose name, or there is no such user, domain or home.
    """
    check_message(text)
    audience = find_audience(store, sender, domain, home, frozenset(states), actor=actor)
    tally = Tally()
    if not dry_run and audience.size:
        tally = broadcast(store, text, audience, actor=actor)
    return Announced(audience.sender, audience.size, tally, audience.silent)


def check_message(text: str) -> None:
    """See that this can be an instant message.

    @raise Refused: it cannot.
    """
    if not text.strip():
        raise Refused("the message is empty; give the text to send")
    if len(text) > TEXT_LIMIT:
        raise Refused(f"the message has {len(text)} characters; shorten it to {TEXT_LIMIT}")
    if any(not each.isprintable() and each not in "\r\n\t" for each in text):
        raise Refused("the message has control characters; leave them out")


class Line(Protocol):
    """What carries messages to one home; L{Door} does."""

    def extend(self) -> None:
        """As much time as there was at the beginning."""

    def begin(self, call: Call) -> int:
        """Send a call; its answer has the id that is returned."""

    def answers(self, seconds: float) -> Iterator[tuple[int, int]]:
        """The ids and statuses of answers that come within C{seconds}."""


def deliver_at(
    line: Line,
    text: str,
    sender: Account,
    recipients: Sequence[Recipient],
    rate: float,
    patience: float = MESSAGE_SECONDS,
) -> Tally:
    """Deliver it at one home: L{WINDOW} on their way at most, and no faster than C{rate}.

    @param patience: for so long no answer comes at all before the rest is given up.
    """
    tally, under_way = Tally(), set[int]()
    begun = time.monotonic()
    waiting = list(recipients)
    count = 0
    heard = begun
    while waiting or under_way:
        due = begun + count / rate
        now = time.monotonic()
        if waiting and len(under_way) < WINDOW and now >= due:
            line.extend()
            under_way.add(line.begin(message_call(sender, waiting.pop(), text)))
            count += 1
            continue
        pause = due - now if waiting and len(under_way) < WINDOW else 1.0
        if not under_way:
            time.sleep(max(0.0, pause))
            continue
        for id, status in line.answers(max(0.001, min(pause, 1.0, patience))):
            heard = time.monotonic()
            if id in under_way:
                under_way.discard(id)
                tally.add(_OUTCOMES.get(status, "failed"))
        if time.monotonic() - max(heard, begun + count / rate) > patience:
            break
    tally.unknown += len(under_way)
    tally.failed += len(waiting)
    return tally


def message_call(sender: Account, recipient: Recipient, text: str) -> Call:
    """The NOTIFY that brings C{text} to C{recipient}, for which this member vouches."""
    session = f"{{{str(uuid.uuid4()).upper()}}}"
    body = render_message(
        sender.url,
        sender.display_name,
        f"http://{recipient.key}",
        recipient.name,
        render_text(text, session),
    )
    host, _, path = recipient.key.partition("/")
    lines: Iterable[str] = (
        f"NOTIFY /{quote(path, safe='/%~!$' + chr(39) + '+')} HTTP/1.1",
        f"Host: {host}",
        "RVP-Notifications-Version: 0.2",
        "RVP-Ack-Type: DeepOr",
        "RVP-Hop-Count: 1",
        f"RVP-From-Principal: {sender.url}",
        "Content-Type: text/xml",
        f"Content-Length: {len(body)}",
    )
    head = "".join(f"{line}\r\n" for line in lines) + "\r\n"
    return Call(b"NOTIFY", b"", {}, body, head=head.encode("ascii"), vouched=True)


def _sender(reading: Reading, farm: Farm, given: str | None, domain: str | None) -> Account:
    """In whose name it is.

    @raise Refused: nobody says, or there is no such user.
    """
    text = given or farm.policy("announce-from", domain)
    if not text:
        raise Refused(
            'nobody says in whose name; give --from ADDRESS, or "rvpfarm policy set announce-from ADDRESS"'
        )
    account = account_meant(reading, farm, text)
    if account is None:
        raise Refused(
            f'there is no user "{text}" to speak for; '
            f'"rvpfarm user enable {text} --no-password" makes one, whom nobody can log in as'
        )
    return account
