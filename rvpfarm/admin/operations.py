"""One table of what can be done with a farm, for every door: the HTTP API, its document, and C{rvpfarm api}.

An operation names its handler; what it takes, what that means and what comes back stand in the handler's
signature and docstring, and nowhere else.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any, get_origin, get_type_hints

from rvpfarm.admin import schemas
from rvpfarm.admin.checks import Forbidden, Refused, domain_named, enumerate_names, whom
from rvpfarm.admin.users import account_meant
from rvpfarm.directory.model import Farm
from rvpfarm.directory.reading import OutOfBounds, Reading
from rvpfarm.directory.store import Store

_PLACE = re.compile(r"\{(\w+)\}")

#: Not for callers to give: who asks, what time it is, whom to ask and for how long.
_OURS = frozenset({"store", "actor", "dry_run", "now", "seconds", "dns"})

#: How the command line calls what some parameters mean, where it differs, for the sentences of refusals.
_OPTIONS = {"yes": "force", "newest": "newest"}


class Effect(Enum):
    """What an operation does to the farm."""

    READS = "reads"
    CHANGES = "changes"
    DESTROYS = "destroys"


class Scope(Enum):
    """Which administrators may do it (product F51): those of the farm always, those of users as it says.

    @cvar FARM: no others.
    @cvar ALL: all of them, whatever it is done to.
    @cvar DOMAIN: to IM domains of theirs; one who has only one need not name it.
    @cvar USER: to users of IM domains of theirs.
    @cvar LISTED: all of them, and they are shown IM domains of theirs alone.
    """

    FARM = "farm"
    ALL = "all"
    DOMAIN = "domain"
    USER = "user"
    LISTED = "listed"


class BadArgument(Refused):
    """An argument is missing, unknown, or of another type."""

    def __init__(self, sentence: str, field: str) -> None:
        """
        @param field: the name of the parameter.
        """
        super().__init__(sentence)
        self.field = field


@dataclass(frozen=True, slots=True)
class Caller:
    """Who has an operation done.

    @ivar actor: as the audit trail has it.
    @ivar domains: the only IM domains whose users it may be done to; C{None} for an administrator of all.
    """

    actor: str
    domains: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Parameter:
    """Something that an operation takes.

    @ivar kind: its type.
    @ivar needed: it has to be given.
    @ivar default: what counts when it is not.
    @ivar where: C{"path"}, C{"query"} or C{"body"} of the HTTP request.
    """

    name: str
    kind: Any  # a type as a value is of every shape
    needed: bool
    default: object
    where: str
    doc: str

    @property
    def most(self) -> int:
        """The longest list, if it is one."""
        return schemas.LIST_LIMIT if self.where == "body" else schemas.QUERY_LIMIT


@dataclass(frozen=True)
class Operation:
    """Something that can be done.

    @ivar name: noun and verb, with dots between.
    @ivar handler: what does it: a function of a L{Store}.
    @ivar route: the HTTP method and the path below C{/v1}; what stands in braces are parameters.
    @ivar of: the parameter that L{scope} looks at, where it is not C{domain} or C{address}.
    @ivar verb: what the command line calls it, where that is not the name.
    """

    name: str
    handler: Callable[..., Any]
    route: str
    effect: Effect
    scope: Scope = Scope.FARM
    of: str = ""
    verb: str = ""

    @property
    def method(self) -> str:
        """The HTTP method."""
        return self.route.partition(" ")[0]

    @property
    def path(self) -> str:
        """The path below C{/v1}."""
        return self.route.partition(" ")[2]

    @property
    def command(self) -> str:
        """The noun and verb of the command line."""
        return self.verb or self.name.replace(".", " ")

    @property
    def subject(self) -> str:
        """The parameter that L{scope} looks at."""
        return self.of or ("domain" if self.scope is Scope.DOMAIN else "address")

    @property
    def creates(self) -> bool:
        """Is something there afterwards that was not before?"""
        return self.method == "POST" and not self.path.endswith(tuple("/" + verb for verb in _VERBS))

    @cached_property
    def parameters(self) -> Mapping[str, Parameter]:
        """What it takes, by name."""
        hints, told = get_type_hints(self.handler), schemas.described(self.handler)
        in_path = set(_PLACE.findall(self.path))
        rest = "body" if self.method in ("POST", "PUT", "PATCH") else "query"
        return {
            name: Parameter(
                name,
                hints[name],
                one.default is one.empty,
                None if one.default is one.empty else one.default,
                "path" if name in in_path else rest,
                told.get(name, "") or _USUAL.get(name, ""),
            )
            for name, one in inspect.signature(self.handler).parameters.items()
            if name not in _OURS
        }

    @cached_property
    def returns(self) -> Any:  # a type as a value is of every shape
        """The type of what comes back."""
        return get_type_hints(self.handler)["return"]

    @property
    def lists(self) -> bool:
        """Does it return a list, which is shown in parts?"""
        origin = get_origin(self.returns)
        return (
            isinstance(origin, type)
            and origin is not tuple
            and schemas.returned(self.returns, {}).get("type") == "array"
        )

    @property
    def pages(self) -> bool:
        """Does the handler itself show a part of the list?"""
        return {"after", "limit"} <= self.parameters.keys()

    def takes(self, name: str) -> bool:
        """Has the handler a parameter of that name?"""
        return name in inspect.signature(self.handler).parameters

    def accept(self, given: Mapping[str, object]) -> dict[str, object]:
        """The arguments, if they are what the handler takes.

        @raise BadArgument: one is not.
        """
        found: dict[str, object] = {}
        for name in given:
            if name not in self.parameters:
                known = enumerate_names(self.parameters)
                raise BadArgument(f'{self.name} has no parameter "{name}"; it has {known}', name)
        for name, one in self.parameters.items():
            if one.needed and name not in given:
                raise BadArgument(f"{name} is missing: {one.doc or 'it has to be given'}", name)
            if name in given:
                found[name] = schemas.settle(one.kind, given[name])
                why = schemas.objection(one.kind, found[name], one.most)
                if why:
                    raise BadArgument(f"{name} {why}", name)
        return found

    def in_words_of(self, sentence: str) -> tuple[str, str]:
        """A refusal in words of the API, and the parameter that it advises to change, if it does.

        Sentences are written for the command line, where parameters are options.
        """
        found: list[str] = []

        def parameter(match: re.Match[str]) -> str:
            name = match[1].replace("-", "_")
            name = _OPTIONS.get(name, name)
            meant = next((one for one in (name, f"{name}s") if one in self.parameters), "")
            if not meant:
                return match[0]
            found.append(meant)
            return meant

        told = re.sub(r"--([a-z][a-z-]*[a-z])", parameter, sentence)
        return told, found[0] if found else ""


#: The last words of paths that are something to do, and not a collection to add to.
_VERBS = ("drain", "resume", "disable", "readdress", "rename")

#: What parameters mean everywhere, for handlers whose docstring need not say.
_USUAL: Mapping[str, str] = {
    "address": "The mail address or the IM address of the user.",
    "addresses": "A range of addresses, such as 192.0.2.0/24.",
    "domain": "The IM domain.",
    "email": "The mail address.",
    "display_name": "What others see.",
    "force": "Also where it would be refused for safety.",
    "home": "The name of the home server.",
    "host": "A host name.",
    "kind": "What it counts as.",
    "link_port": "Where farm members reach it.",
    "mail_domain": "The mail domain.",
    "metrics": "ADDRESS:PORT where it shows its metrics, health and status.",
    "name": "What it is called.",
    "new": "What it is to be called.",
    "password": "The new password.",
    "path": "The path, such as /groups/shipping.",
    "port": "Where clients reach it.",
    "value": "The value.",
}


def perform(
    store: Store,
    operation: Operation,
    caller: Caller,
    given: Mapping[str, object],
    *,
    rehearsing: bool = False,
) -> Any:  # what handlers return is of every shape
    """Do it, as whoever asks may have it done.

    @param given: the arguments by name; what is left out has its default.
    @param rehearsing: find out what would come of it, and change nothing.
    @raise BadArgument: an argument is missing or of another type.
    @raise Forbidden: the caller may not have this done.
    @raise Refused: it cannot be done.
    """
    values = operation.accept(given)
    if caller.domains is not None:
        values = _permit(store, operation, caller.domains, values)
    if operation.takes("actor"):
        values["actor"] = caller.actor
    if rehearsing and operation.takes("dry_run"):
        values["dry_run"] = True
    # not even a mistake in the above lets anybody change more
    place = store.limited(rehearsing=rehearsing, within=caller.domains)
    try:
        result = operation.handler(place, **values)
    except OutOfBounds as problem:
        raise Forbidden(_bounds(caller.domains or ())) from problem
    if operation.scope is Scope.LISTED and caller.domains is not None:
        return [one for one in result if one.name in caller.domains]
    return result


def _permit(
    store: Store, operation: Operation, domains: frozenset[str], values: dict[str, object]
) -> dict[str, object]:
    """The arguments, as an administrator of the users of C{domains} may give them.

    @raise Forbidden: he may not.
    """
    if operation.scope is Scope.FARM:
        raise Forbidden(f"{operation.name} is for administrators of the farm only")
    if operation.scope not in (Scope.DOMAIN, Scope.USER):
        return values
    with store.read() as reading:
        farm = reading.farm()
        name = values.get("domain")
        if isinstance(name, str) and _domain(farm, name) not in domains:
            raise Forbidden(_bounds(domains))
        if operation.scope is Scope.USER:
            if values.get(operation.subject) is None:
                raise Forbidden(f"{_bounds(domains)}; name one of them as {operation.subject}")
            address = str(values[operation.subject])
            if _domain_of_user(reading, farm, address, name) not in domains:
                raise Forbidden(f"{_bounds(domains)}, and {address} is none of them")
        elif name is None:
            if len(domains) > 1:
                raise Forbidden(f"{_bounds(domains)}; name one of them as domain")
            values["domain"] = min(domains)
    return values


def _domain(farm: Farm, name: str) -> str:
    """The IM domain of that name; empty when there is none."""
    try:
        return domain_named(farm.domains, name).name
    except Refused:
        return ""


def _domain_of_user(reading: Reading, farm: Farm, address: str, domain: object) -> str:
    """The IM domain of the user that C{address} means, who need not exist; empty when that is not clear."""
    named = domain if isinstance(domain, str) else None
    if "@" not in address and named is None:
        return ""
    try:
        account = account_meant(reading, farm, address, named)
        return account.domain if account is not None else whom(address, farm.domains, named).domain.name
    except Refused:
        return ""


def _bounds(domains: frozenset[str] | tuple[()]) -> str:
    """What an administrator of users may do."""
    return f"you administer users of {enumerate_names(domains)} only"
