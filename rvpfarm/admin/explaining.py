"""What a method, a status or a line of a protocol log says, in words, and what to do about it (core).

One table: what a method is for, what a status says in general, and what it says as the answer to a method.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from rvpfarm.admin.checks import Refused, enumerate_names
from rvpfarm.protocol.calls import METHODS, REASONS

NOTHING = "nothing: that is as it should be"


@dataclass(frozen=True, slots=True)
class Meaning:
    """What something means.

    @ivar text: a sentence.
    @ivar remedy: what to do, if anything.
    """

    text: str
    remedy: str = NOTHING


@dataclass(frozen=True, slots=True)
class Seen:
    """A method, a status, or both, as found in a log.

    @ivar method: upper case; empty if there was none.
    @ivar status: 0 if there was none.
    @ivar peer: the caller's address, if the line tells it; C{when} and C{node} likewise.
    """

    method: str
    status: int
    when: str = ""
    peer: str = ""
    node: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What was seen, in words.

    @ivar purpose: what the method is for; empty without one.
    @ivar meaning: what the status says; C{None} without one.
    """

    seen: Seen
    purpose: str
    meaning: Meaning | None


PURPOSES: Mapping[str, str] = MappingProxyType(
    {
        "SUBSCRIBE": "logs a client in, begins to watch somebody, or renews either",
        "UNSUBSCRIBE": "ends a login or stops watching; a burst of them is a client being closed, one for "
        "each contact",
        "SUBSCRIPTIONS": "lists who watches a user, such as when somebody opens that list in the client",
        "NOTIFY": "carries an instant message, a typing notice or a change of state",
        "PROPFIND": "asks for a user's state or name",
        "PROPPATCH": "sets a user's own state or another property",
        "ACL": "reads or replaces the list of who may contact a user",
        "COPY": "is known from WebDAV, and no part of RVP",
        "MOVE": "is known from WebDAV, and no part of RVP",
        "CONTROL": "is an administrator's question to a running home, over the farm link only",
        "GET": "is a web browser's, a scanner's or a load balancer's, and no part of RVP",
        "HEAD": "is a web browser's, a scanner's or a load balancer's, and no part of RVP",
        "POST": "is a web client's, and no part of RVP",
        "PUT": "is a web client's, and no part of RVP",
        "DELETE": "is a web client's, and no part of RVP",
        "OPTIONS": "asks which methods there are, and is no part of RVP",
        "LOCK": "is known from WebDAV, and no part of RVP",
        "UNLOCK": "is known from WebDAV, and no part of RVP",
    }
)

STATUSES: Mapping[int, Meaning] = MappingProxyType(
    {
        101: Meaning("the connection goes on in another protocol"),
        200: Meaning("it was done"),
        207: Meaning(
            "it was done, and the body tells for each property how",
            "nothing, unless the client complains: then look at the statuses inside the body",
        ),
        302: Meaning(
            "the caller was referred to the server that owns the user",
            'nothing; a caller who cannot reach that server should not be referred: "rvpfarm network test '
            'ADDRESS" says how it is seen',
        ),
        400: Meaning(
            "the request is malformed: a header or the body is not what RVP wants",
            "find out which program sent it; the sentence in the answer's body says what is wrong",
        ),
        401: Meaning(
            "the caller was asked to prove who it is, or its password was wrong",
            "nothing if the same caller is answered otherwise right after: signing in takes several steps; "
            'else "rvpfarm user show ADDRESS" says by which schemes the user can sign in',
        ),
        403: Meaning(
            "the caller is known, or need not be, and may not do this: an access list, a policy or a network "
            "rule says so",
            '"rvpfarm user acl ADDRESS" shows the access list; "rvpfarm policy list" if federation is open',
        ),
        404: Meaning(
            "there is no such user or node here, or it is disabled",
            '"rvpfarm user list" shows whom there is; a user who was never enabled, or is addressed by the '
            "mail domain without an SRV record, ends here",
        ),
        405: Meaning("the method is known, and nodes do not take it", "find out which program sent it"),
        408: Meaning(
            "the request did not arrive in time", "look for a line that loses packets, or a client that hangs"
        ),
        409: Meaning(
            "the value of a property cannot be taken",
            "find out which program sent it; states are those of RVP",
        ),
        412: Meaning(
            "something that the request takes for granted is not so",
            "see what the method says: it depends on it",
        ),
        413: Meaning("the body is larger than the limit", "shorten the message or the list"),
        414: Meaning("the address is longer than the limit", "find out which program sent it"),
        415: Meaning("the body is not XML by its Content-Type", "find out which program sent it"),
        424: Meaning(
            "this property was all right, but another one of the same request was not, so none was set",
            "look for the other one in the same body",
        ),
        431: Meaning(
            "the headers are larger than the limit",
            "find out which program sent it; a proxy that adds headers without end does this",
        ),
        500: Meaning(
            "the server failed, or the call went round in a circle",
            "look for a traceback in the log of that process at that time; everything 500 is a fault of the "
            "server",
        ),
        501: Meaning(
            "RVP has no such method", "nothing: browsers, scanners and load balancers ask such things"
        ),
        502: Meaning(
            "another server gave an answer that makes no sense, or none",
            '"rvpfarm status" shows which server is ill; a proxy in front may have said it, too',
        ),
        503: Meaning(
            "there is too much to do just now, or the home that owns the user cannot be reached; the client "
            "tries again",
            '"rvpfarm status" shows which home is down; if all are well, look at the policies inbound-queue '
            "and max-connections",
        ),
        504: Meaning(
            "what was to be waited for did not come in time",
            "look at the client it was for, and at the line to it",
        ),
        505: Meaning("it is neither HTTP/1.0 nor HTTP/1.1", "find out which program sent it"),
    }
)

ANSWERS: Mapping[tuple[str, int], Meaning] = MappingProxyType(
    {
        ("SUBSCRIBE", 200): Meaning("a client logged in, or a login or a watch was renewed"),
        ("SUBSCRIBE", 207): Meaning("somebody began to watch a user, and was told the present state"),
        ("SUBSCRIBE", 403): Meaning(
            "the access list does not let the caller watch or log in, or the call-back is where none may be",
            '"rvpfarm user acl ADDRESS" shows the list; a call-back that is not at the caller\'s own address '
            'needs "rvpfarm network add call-back"',
        ),
        ("SUBSCRIBE", 412): Meaning(
            "the subscription that was to be renewed has run out or was ended; the client begins anew",
            "nothing; if it happens again and again, the client renews too late",
        ),
        ("SUBSCRIBE", 503): Meaning(
            "the user is logged in or watched as often as may be, or there is too much to do just now",
            '"rvpfarm session list --user ADDRESS" shows where the user is logged in',
        ),
        ("UNSUBSCRIBE", 200): Meaning("the login or watch is over"),
        ("UNSUBSCRIBE", 412): Meaning("the subscription was over already"),
        ("SUBSCRIPTIONS", 200): Meaning("the user looked at who watches"),
        ("NOTIFY", 200): Meaning("the message or the change of state was delivered, as far as was asked for"),
        ("NOTIFY", 403): Meaning(
            "the recipient's access list does not let the sender write, or the body names another sender",
            '"rvpfarm user acl ADDRESS" shows the list',
        ),
        ("NOTIFY", 412): Meaning(
            "the recipient is not available: not logged in, or nowhere to be reached",
            '"rvpfarm session list --user ADDRESS" shows whether and where the user is logged in',
        ),
        ("NOTIFY", 500): Meaning(
            "the recipient's client has left that conversation, or refused the message; or a server failed",
            "nothing, unless the log of that process has a traceback at that time",
        ),
        ("NOTIFY", 504): Meaning(
            "the recipient's client did not acknowledge the message in time; it may have it all the same",
            "look at that client and the line to it",
        ),
        ("PROPFIND", 207): Meaning("the state or name was told"),
        ("PROPFIND", 412): Meaning(
            "the Depth header asks for more than the node itself", "find out which program sent it"
        ),
        ("PROPPATCH", 207): Meaning("the state or property was set, or the body says why not"),
        ("ACL", 200): Meaning("the access list was read or replaced"),
        ("ACL", 400): Meaning(
            "the list makes no sense; the usual reason is an entry without its credentials element",
            "find out which program sent it",
        ),
    }
)

_HAS_CAPITALS = re.compile(r"[A-Z]{3,20}\Z")
_ADDRESS = re.compile(r"(?:\d{1,3}\.){3}\d{1,3}\Z|[0-9a-fA-F:]*:[0-9a-fA-F:.]+\Z")
_STATUS = re.compile(r"[1-5]\d\d\Z")
_TIME = re.compile(r"\d\d:\d\d:\d\d")

# What fields are called in the logs of various servers.
_METHOD_FIELDS = ("method", "verb", "cs-method", "request_method")
_STATUS_FIELDS = ("status", "sc-status", "code", "answer")
_PEER_FIELDS = ("peer", "c-ip", "client", "remote_addr")
_NODE_FIELDS = ("target", "cs-uri-stem", "path", "node", "uri", "url")
_TIME_FIELDS = ("time", "date-time", "when", "timestamp")


def explain(seen: Seen) -> Explanation:
    """What C{seen} means.

    @raise Refused: there is no such method or status.
    """
    purpose = PURPOSES.get(seen.method, "")
    if seen.method and not purpose:
        purpose = "is no method of RVP"
    meaning = ANSWERS.get((seen.method, seen.status)) or STATUSES.get(seen.status)
    if seen.status and meaning is None:
        raise Refused(
            f"no server of this farm answers {seen.status}; the statuses are "
            f"{', '.join(str(status) for status in sorted(STATUSES))}"
        )
    return Explanation(seen, purpose, meaning)


def reason_of(status: int) -> str:
    """The reason phrase that goes with a status."""
    return REASONS.get(status, b"").decode("ascii")


class LogReader:
    """Finds methods and statuses in lines of a log, whatever its form: JSON, W3C extended, or words."""

    def __init__(self) -> None:
        self._fields: tuple[str, ...] = ()

    def read(self, line: str) -> Seen | None:
        """What a line tells; C{None} for one that tells nothing of the kind.

        A C{#Fields:} line of a W3C log says what those after it mean.
        """
        text = line.strip()
        if text.startswith("#"):
            name, _, rest = text.partition(":")
            if name.lower() == "#fields":
                self._fields = tuple(rest.split())
            return None
        if text.startswith("{"):
            return _from_json(text)
        words = text.split()
        if self._fields and len(words) == len(self._fields):
            return _from_record(dict(zip(self._fields, words, strict=True)))
        return _from_words(words)


def parse_words(words: Sequence[str]) -> list[Seen]:
    """What the words of a command line mean: methods, statuses, or a line of a log.

    @raise Refused: nothing of the kind.
    """
    reader = LogReader()
    found = [seen for line in "\n".join([" ".join(words)]).splitlines() if (seen := reader.read(line))]
    if found:
        return found
    raise Refused(
        f'there is no method and no status in "{" ".join(words)[:80]}"; give one, such as 412 or "NOTIFY 412"'
        f"; the methods are {enumerate_names(method.decode() for method in METHODS)}"
    )


def _from_json(text: str) -> Seen | None:
    """What a line of JSON tells."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return _from_record(said) if isinstance(said, dict) else None


def _from_record(record: Mapping[str, object]) -> Seen | None:
    """What named fields tell."""
    method = _field(record, _METHOD_FIELDS).upper()
    status = _field(record, _STATUS_FIELDS)
    number = int(status) if _STATUS.match(status) else 0
    if not number and method not in PURPOSES:
        text = record.get("text")
        return _from_words(text.split()) if isinstance(text, str) else None
    return Seen(
        method,
        number,
        _field(record, _TIME_FIELDS),
        _field(record, _PEER_FIELDS),
        _field(record, _NODE_FIELDS),
    )


def _field(record: Mapping[str, object], names: Iterable[str]) -> str:
    """The first of these fields that there is."""
    for name in names:
        if isinstance(value := record.get(name), str | int | float):
            return str(value)
    return ""


def _from_words(words: Sequence[str]) -> Seen | None:
    """What words tell: the first that is a method, and the first after it that is a status."""
    bare = [word.strip("\"'[](),;") for word in words]
    place = next((at for at, word in enumerate(bare) if word.upper() in PURPOSES), None)
    if place is None and len(bare) > 1:
        place = next((at for at, word in enumerate(bare) if _HAS_CAPITALS.match(word)), None)
    method = "" if place is None else bare[place].upper()
    after = bare if place is None else bare[place + 1 :]
    status = next((int(word) for word in after if _STATUS.match(word)), 0)
    if place is not None and not status:  # such as "412 for a NOTIFY"
        status = next((int(word) for word in bare[:place] if _STATUS.match(word)), 0)
    if not status and method not in PURPOSES:
        return None
    return Seen(
        method,
        status,
        next((word for word in bare if _TIME.search(word)), ""),
        next((word for word in bare if _ADDRESS.match(word) and not _TIME.search(word)), ""),
        next((word for word in bare if word.startswith(("/", "http://"))), ""),
    )
