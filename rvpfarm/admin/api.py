"""The admin API without its sockets: what arrived goes in, the answer comes out.

It waits for the directory and is therefore called in threads.
"""

from __future__ import annotations

import json
import pwd
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote_to_bytes

from twisted.logger import Logger

from rvpfarm.admin import schemas
from rvpfarm.admin.administrators import find_by_token
from rvpfarm.admin.catalogue import OPERATIONS
from rvpfarm.admin.checks import Forbidden, Missing, Refused, Taken
from rvpfarm.admin.openapi import JSON, PAGE_MOST, PAGE_USUAL, PREFIX, PROBLEM, TITLES, make_document
from rvpfarm.admin.operations import BadArgument, Caller, Effect, Operation, perform
from rvpfarm.directory.administrators import USER
from rvpfarm.directory.model import DirectoryUnavailable
from rvpfarm.directory.store import Store

#: After so many seconds it is worth asking again when the directory is away.
RETRY_SECONDS = 5

_FIELDS_LIMIT = 1000
_NUMBER = re.compile("[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Ask:
    """A request.

    @ivar path: as it came, still escaped, without the query.
    @ivar query: what follows the question mark, still escaped.
    @ivar kind: its media type, without parameters; empty when it says none.
    @ivar authorization: what the header of that name says; C{None} without one.
    @ivar peer: the number of the OS user at the other end of a Unix socket; C{None} for any other.
    """

    method: str
    path: str
    query: str = ""
    kind: str = ""
    body: bytes = b""
    authorization: str | None = None
    peer: int | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A response.

    @ivar headers: besides those of the body.
    """

    status: int
    body: bytes
    kind: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


class _Declined(Exception):
    """The request is answered with a problem."""

    def __init__(self, status: int, sentence: str, name: str = "", **headers: str) -> None:
        """
        @param name: the parameter that is wrong, if it is one.
        """
        super().__init__(sentence)
        self.answer = problem(status, sentence, name, headers)


class Api:
    """Answers requests."""

    _log = Logger()

    def __init__(self, store: Store, *, now: Callable[[], float], owner: Callable[[], int | None]) -> None:
        """
        @param now: the time, for tokens that are good until some time.
        @param owner: says which OS user owns the Unix socket: an administrator, as root is.
        """
        self._store, self._now, self._owner = store, now, owner
        self._document = json.dumps(make_document()).encode()
        self._routes = [(one.path.strip("/").split("/"), one) for one in OPERATIONS.values()]

    def answer(self, ask: Ask) -> Answer:
        """The answer to a request, whatever happens."""
        try:
            return self._answer(ask)
        except _Declined as declined:
            return declined.answer
        except DirectoryUnavailable as why:
            return problem(503, str(why), headers={"Retry-After": str(RETRY_SECONDS)})
        except Exception:
            self._log.failure("{method} {path} failed", method=ask.method, path=ask.path)
            return problem(500, "This is a bug of rvpfarm; its log has the details.")

    def _answer(self, ask: Ask) -> Answer:
        """
        @raise _Declined: it is answered with a problem.
        """
        parts = _segments(ask.path)
        if [f"/{one}" for one in parts[:1]] != [PREFIX]:
            raise _Declined(404, f"Nothing is here; every path begins with {PREFIX}/.")
        if parts[1:] == ["openapi.json"]:
            _check_method(ask.method, ["GET"])
            return Answer(200, self._document)
        operation, places = self._find(ask.method, parts[1:])
        caller = self._authenticate(ask)
        return self._perform(operation, caller, ask, places)

    def _find(self, method: str, parts: list[str]) -> tuple[Operation, dict[str, str]]:
        """The operation at a path, and what the path says.

        @raise _Declined: there is none.
        """
        fits = [(one, places) for route, one in self._routes if (places := _match(route, parts)) is not None]
        if not fits:
            raise _Declined(404, f"Nothing is here; {PREFIX}/openapi.json tells what there is.")
        _check_method(method, sorted({one.method for one, _ in fits}))
        wanted = "GET" if method == "HEAD" else method
        return next((one, places) for one, places in fits if one.method == wanted)

    def _authenticate(self, ask: Ask) -> Caller:
        """Who asks.

        @raise _Declined: nobody knows.
        """
        if ask.authorization is not None:
            scheme, _, token = ask.authorization.strip().partition(" ")
            known = (
                find_by_token(self._store, token.strip(), self._now()) if scheme.lower() == "bearer" else None
            )
            if known is None:
                raise _Declined(
                    401,
                    'This is no valid token; "rvpfarm admin token create" makes one.',
                    **{"WWW-Authenticate": 'Bearer error="invalid_token"'},
                )
            one, made = known
            domains = frozenset(one.domains) if one.role == USER else None
            return Caller(f"token:{one.name}/{made.label}", domains)
        if ask.peer is not None and ask.peer in (0, self._owner()):
            return Caller(f"unix:{_user_name(ask.peer)}")
        raise _Declined(
            401,
            "Who are you? Send a token (Authorization: Bearer ...), or come through the Unix socket as root "
            "or its owner.",
            **{"WWW-Authenticate": "Bearer"},
        )

    def _perform(self, operation: Operation, caller: Caller, ask: Ask, places: Mapping[str, str]) -> Answer:
        """
        @raise _Declined: it is answered with a problem.
        """
        try:
            query = _values(ask.query)
            rehearsing = operation.effect is not Effect.READS and _flag(query, "dry_run")
            page = _Page(operation, query)
            given = _arguments(operation, ask, places, query)
            page.ask(given)
            result = perform(self._store, operation, caller, given, rehearsing=rehearsing)
        except BadArgument as why:
            raise _Declined(400, _sentence(str(why)), why.field) from why
        except Refused as why:
            status = _status_of(why, places)
            told, name = operation.in_words_of(str(why))
            raise _Declined(status, _sentence(told), name) from why
        shown = {"result": schemas.render(result)}
        if operation.lists:
            shown["result"], shown["next"] = page.cut(shown["result"])
        if operation.effect is not Effect.READS:
            shown["dry_run"] = rehearsing
        status = 201 if operation.creates and not rehearsing else 200
        return Answer(status, json.dumps(shown, ensure_ascii=False).encode())


class _Page:
    """Which part of a list is wanted."""

    def __init__(self, operation: Operation, query: dict[str, list[str]]) -> None:
        """
        @param query: what speaks of parts is taken out of it.
        @raise BadArgument: it makes no sense.
        """
        self._operation = operation
        self._limit, self._after = PAGE_USUAL, ""
        if not operation.lists:
            return
        limit = schemas.from_query(int, query.pop("limit", [str(PAGE_USUAL)]))
        if not isinstance(limit, int) or not 0 < limit <= PAGE_MOST:
            raise BadArgument(f"limit is no whole number from 1 to {PAGE_MOST}", "limit")
        self._limit = limit
        after = query.pop("after", None)
        if after is not None:
            fits = not schemas.objection(str, after[0]) if operation.pages else _NUMBER.fullmatch(after[0])
            if len(after) > 1 or not fits:
                raise BadArgument("after is not what a former answer had as next", "after")
            self._after = after[0]

    def ask(self, given: dict[str, object]) -> None:
        """Have the handler return the part, and one more to see whether there is more."""
        if self._operation.pages:
            given["after"], given["limit"] = self._after, self._limit + 1

    def cut(self, rows: list[Any]) -> tuple[list[Any], str | None]:  # Any: rows are of every shape
        """The part, and where the next one begins; C{None} at the end."""
        if self._operation.pages:
            more = len(rows) > self._limit
            return rows[: self._limit], rows[self._limit - 1]["address"] if more else None
        begin = int(self._after or "0")
        end = begin + self._limit
        return rows[begin:end], str(end) if end < len(rows) else None


def problem(status: int, sentence: str, name: str = "", headers: Mapping[str, str] | None = None) -> Answer:
    """An answer that says what is wrong (RFC 9457).

    @param name: the parameter that is wrong, if it is one.
    """
    told = {"title": TITLES[status], "status": status, "detail": sentence}
    if name:
        told["field"] = name
    return Answer(status, json.dumps(told, ensure_ascii=False).encode(), PROBLEM, headers or {})


def _segments(path: str) -> list[str]:
    """The parts of a path.

    @raise _Declined: they are no text.
    """
    try:
        parts = [unquote_to_bytes(one).decode() for one in path.split("/")[1:]]
    except UnicodeDecodeError:
        raise _Declined(400, "The path is no text in UTF-8.") from None
    return parts


def _match(route: list[str], parts: list[str]) -> dict[str, str] | None:
    """What the places of C{route} have in a path; C{None} when it is another path."""
    if len(route) != len(parts):
        return None
    places = {}
    for here, part in zip(route, parts, strict=True):
        if here.startswith("{"):
            if not part:
                return None
            places[here[1:-1]] = part
        elif here != part:
            return None
    return places


def _check_method(method: str, known: list[str]) -> None:
    """
    @raise _Declined: it is none of these.
    """
    allowed = [*known, "HEAD"] if "GET" in known else known
    if method not in allowed:
        names = ", ".join(allowed)
        raise _Declined(405, f"{method} is not for this path; it takes {names}.", Allow=names)


def _values(query: str) -> dict[str, list[str]]:
    """The values of each name in a query.

    @raise _Declined: it has too many, or is no text.
    """
    try:
        return parse_qs(query, keep_blank_values=True, max_num_fields=_FIELDS_LIMIT, errors="strict")
    except ValueError:
        raise _Declined(400, f"The query is no text in UTF-8 of at most {_FIELDS_LIMIT} values.") from None


def _flag(query: dict[str, list[str]], name: str) -> bool:
    """A value of the query that is true or false, taken out of it.

    @raise BadArgument: it is neither.
    """
    value = schemas.from_query(bool, query.pop(name, ["false"]))
    if not isinstance(value, bool):
        raise BadArgument(f"{name} is neither true nor false", name)
    return value


def _arguments(
    operation: Operation, ask: Ask, places: Mapping[str, str], query: Mapping[str, list[str]]
) -> dict[str, object]:
    """What the request gives to the handler.

    @raise BadArgument: something is in the wrong place.
    @raise _Declined: the body cannot be read.
    """
    given: dict[str, object] = {}
    for name, texts in query.items():
        one = operation.parameters.get(name)
        if one is not None and one.where != "query":
            raise BadArgument(f"{name} belongs into the {one.where}", name)
        given[name] = texts if one is None else schemas.from_query(one.kind, texts)
    for name, value in _read_body(ask).items():
        one = operation.parameters.get(name)
        if one is not None and one.where != "body":
            raise BadArgument(f"{name} belongs into the {one.where}", name)
        given[name] = value
    for name, text in places.items():
        given[name] = schemas.from_query(operation.parameters[name].kind, [text])
    return given


def _read_body(ask: Ask) -> dict[str, object]:
    """The object in the body; empty without a body.

    @raise _Declined: it is none.
    """
    if not ask.body:
        return {}
    if ask.method in ("GET", "HEAD", "DELETE"):
        raise _Declined(400, f"{ask.method} takes no body here; give parameters in the query.")
    if ask.kind != JSON:
        raise _Declined(415, f"The body is not declared as {JSON}.")
    try:
        found = json.loads(ask.body, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise _Declined(400, "The body is no JSON, or has a name twice in one object.") from None
    if not isinstance(found, dict):
        raise _Declined(400, "The body is no object of JSON.")
    return found


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object of JSON.

    @raise ValueError: it has a name twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice")
    return found


def _refuse_constant(text: str) -> object:
    """
    @raise ValueError: always: this is no JSON.
    """
    raise ValueError(text)


def _status_of(why: Refused, places: Mapping[str, str]) -> int:
    """The status that fits a refusal."""
    if isinstance(why, Forbidden):
        return 403
    if isinstance(why, Missing) and why.name in places.values():
        return 404
    return 409 if isinstance(why, Taken) else 422


def _sentence(text: str) -> str:
    """What stands after a colon on the command line, as a sentence of its own."""
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '?')) else '.'}"


def _user_name(number: int) -> str:
    """The name of an OS user, or its number where it has no name."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"uid {number}"
