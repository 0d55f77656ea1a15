"""What administrators ask of a running home, and what it answers (core).

A control call is a call over the farm link like any other, of the method L{METHOD}, for which a farm member
vouches: whoever proves the farm key there is an administrator.  It names the operation as its target, and
question and answer are JSON objects.  What can be long is asked for page by page: an answer that has more to
follow says so in C{"next"}, which the next question gives as C{"after"}.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from rvpfarm.protocol.calls import BadRequest, Call, Reply

#: The method of control calls; clients have no use for it, and are told that RVP has no such method.
METHOD = b"CONTROL"
#: How many sessions or watchers one answer has at most.
PAGE = 250
#: How long a text in a question may be.
TEXT_LIMIT = 2048
#: How many names a question may list.
NAMES_LIMIT = 512

_JSON = ((b"Content-Type", b"application/json"),)


@dataclass(frozen=True, slots=True)
class Session:
    """One place where somebody is signed in: a login, a view, or both.

    @ivar user: key of the node.
    @ivar address: the IM address, if the home knows it at the moment.
    @ivar state: what the place shows; empty when it has shown nothing yet.
    @ivar view: id of the view; C{None} when it has none.
    @ivar login: id of the login subscription; C{None} when it has none, so that it cannot be told anything.
    @ivar call_back: where it is told.
    @ivar peer: the address it called from.
    @ivar agent: what the client calls itself; empty when it does not, or the home has restarted since.
    @ivar since: when it logged in; C{None} when the home has restarted since.
    @ivar login_seconds: how long the login is held; C{None} without one.
    @ivar view_seconds: how long the state is held; C{None} without a view.
    @ivar line: how it is with the call-back: C{"ok"}, C{"waiting"}, C{"retrying"} or C{"dead"}; empty
        without one.
    @ivar waiting: how many notifications wait for it.
    """

    user: str
    address: str = ""
    state: str = ""
    view: int | None = None
    login: int | None = None
    call_back: str = ""
    peer: str = ""
    agent: str = ""
    since: float | None = None
    login_seconds: int | None = None
    view_seconds: int | None = None
    line: str = ""
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class Watcher:
    """Who watches a node.

    @ivar id: of the subscription.
    @ivar url: logical URL of the watcher; empty for an anonymous one.
    @ivar call_back: where the watcher is told.
    @ivar seconds: how long the subscription is held.
    @ivar sees: the access list lets it see presence.
    """

    id: int
    url: str = ""
    call_back: str = ""
    seconds: int = 0
    sees: bool = True


@dataclass(frozen=True, slots=True)
class Entry:
    """One principal on an access list that is neither its owner nor everybody.

    @ivar url: logical URL or server-id.
    @ivar effect: C{"allow"} or C{"deny"} as administrators set them, or C{"other"}.
    @ivar grant: the rights granted; C{deny} likewise those denied.
    """

    url: str
    effect: str
    grant: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Privacy:
    """The access list of a node, as administrators see it.

    @ivar mode: what holds for everybody who is not named: one of L{rvpfarm.protocol.acls.OPENNESS}, or
        C{"custom"}.
    @ivar own: the list was set for this node; it is not the default one.
    """

    mode: str
    own: bool
    entries: tuple[Entry, ...] = ()


class Facts:
    """What a question, or an answer, says: checked as it is read."""

    def __init__(self, said: Mapping[str, object]) -> None:
        self._said = said

    def text(self, name: str) -> str:
        """A text; empty when there is none.

        @raise BadRequest: it is something else, or too long.
        """
        value = self._said.get(name)
        if value is None:
            return ""
        if not isinstance(value, str) or len(value) > TEXT_LIMIT:
            raise BadRequest(f"{name} is no text, or too long")
        return value

    def whole(self, name: str) -> int | None:
        """A whole number; C{None} when there is none.

        @raise BadRequest: it is something else.
        """
        value = self._said.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise BadRequest(f"{name} is no whole number")
        return value

    def number(self, name: str) -> float | None:
        """A number; C{None} when there is none.

        @raise BadRequest: it is something else.
        """
        value = self._said.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise BadRequest(f"{name} is no number")
        return float(value)

    def flag(self, name: str) -> bool:
        """Is it so?"""
        return self._said.get(name) is True

    def names(self, name: str) -> tuple[str, ...]:
        """A list of texts; empty when there is none.

        @raise BadRequest: it is something else, or too long.
        """
        value = self._said.get(name)
        if value is None:
            return ()
        if not isinstance(value, list) or len(value) > NAMES_LIMIT:
            raise BadRequest(f"{name} is no list, or too long")
        if not all(isinstance(each, str) and len(each) <= TEXT_LIMIT for each in value):
            raise BadRequest(f"{name} is no list of texts")
        return tuple(value)

    def records(self, name: str) -> tuple[Facts, ...]:
        """A list of objects; empty when there is none.

        @raise BadRequest: it is something else.
        """
        value = self._said.get(name)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            raise BadRequest(f"{name} is no list of objects")
        return tuple(Facts(each) for each in value)

    def record(self, name: str) -> Facts:
        """An object; an empty one when there is none.

        @raise BadRequest: it is something else.
        """
        value = self._said.get(name)
        if not isinstance(value, dict | None):
            raise BadRequest(f"{name} is no object")
        return Facts(value or {})


def render_question(operation: str, facts: Mapping[str, object]) -> Call:
    """The call that asks for C{operation}."""
    body = json.dumps(facts).encode()
    head = (
        b"%b /%b HTTP/1.1\r\nHost: home\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        % (
            METHOD,
            operation.encode("ascii"),
            len(body),
        )
    )
    return Call(METHOD, b"/" + operation.encode("ascii"), {}, body, head=head, vouched=True)


def parse_question(call: Call) -> tuple[str, Facts]:
    """The operation that C{call} asks for, and with what.

    @raise BadRequest: it is no JSON object.
    """
    return call.target.removeprefix(b"/").decode("ascii", "replace"), parse_facts(call.body)


def parse_facts(body: bytes) -> Facts:
    """What a question or an answer says.

    @raise BadRequest: it is no JSON object.
    """
    try:
        said = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        raise BadRequest("the body of a control call is not JSON") from None
    if not isinstance(said, dict):
        raise BadRequest("the body of a control call is not a JSON object")
    return Facts(said)


def render_answer(facts: Mapping[str, object]) -> Reply:
    """The reply that says C{facts}, which JSON can hold."""
    return Reply(200, _JSON, json.dumps(facts, separators=(",", ":")).encode())


def record_of(value: Session | Watcher) -> dict[str, object]:
    """A session or watcher for an answer."""
    return {name: getattr(value, name) for name in value.__slots__}


def read_session(facts: Facts) -> Session:
    """A session in an answer.

    @raise BadRequest: it is none.
    """
    return Session(
        user=facts.text("user"),
        address=facts.text("address"),
        state=facts.text("state"),
        view=facts.whole("view"),
        login=facts.whole("login"),
        call_back=facts.text("call_back"),
        peer=facts.text("peer"),
        agent=facts.text("agent"),
        since=facts.number("since"),
        login_seconds=facts.whole("login_seconds"),
        view_seconds=facts.whole("view_seconds"),
        line=facts.text("line"),
        waiting=facts.whole("waiting") or 0,
    )


def read_watcher(facts: Facts) -> Watcher:
    """A watcher in an answer.

    @raise BadRequest: it is none.
    """
    return Watcher(
        facts.whole("id") or 0,
        facts.text("url"),
        facts.text("call_back"),
        facts.whole("seconds") or 0,
        facts.flag("sees"),
    )


def privacy_record(privacy: Privacy) -> dict[str, object]:
    """An access list for an answer, for C{--json} and for the audit trail."""
    return {
        "mode": privacy.mode,
        "own": privacy.own,
        "entries": [
            {**asdict(entry), "grant": list(entry.grant), "deny": list(entry.deny)}
            for entry in privacy.entries
        ],
    }


def read_privacy(facts: Facts) -> Privacy:
    """An access list in an answer.

    @raise BadRequest: it is none.
    """
    entries = tuple(
        Entry(each.text("url"), each.text("effect"), each.names("grant"), each.names("deny"))
        for each in facts.records("entries")
    )
    return Privacy(facts.text("mode"), facts.flag("own"), entries)
