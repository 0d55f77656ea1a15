"""What handlers take and return, in JSON: values made from types, and JSON Schema that says so."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import reduce
from inspect import getmembers
from operator import or_
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from rvpfarm.directory.model import Farm, Verifier

# Any, here and below: a type as a value, and a schema or value in JSON, are of every shape.
Schema = dict[str, Any]

#: Schemas by the classes that they are of.
Components = dict[type[Any], Schema]

#: The longest text and the greatest number that are taken, and the most texts in a list; in a query fewer.
TEXT_LIMIT, NUMBER_LIMIT, LIST_LIMIT, QUERY_LIMIT = 500, 2**31 - 1, 1000, 20

#: One line of text.
LINE = r"^[^\x00-\x1f\x7f]*$"

_LINE = re.compile(LINE.replace("$", r"\Z"))
_DECIMAL = re.compile(r"[0-9]{1,20}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?")
_MARKUP = re.compile(r"[A-Z]\{([^{}]*)\}")
_FIELD = re.compile(r"^@(?:param|ivar) (\w+): ", re.MULTILINE)

# what was found out of classes, of which there are a few dozen
_shown: dict[type[Any], Mapping[str, Any]] = {}

#: Never shown: what passwords are checked by, and the whole farm where only a part of it is meant.
_HIDDEN = (Farm, Verifier)


def plain(text: str) -> str:
    """Epytext as plain text on one line."""
    words = " ".join(text.split())
    while (bare := _MARKUP.sub(r"\1", words)) != words:
        words = bare
    return words


def summary(thing: object) -> str:
    """The first paragraph of a docstring."""
    return plain((inspect.getdoc(thing) or "").partition("\n\n")[0])


def described(thing: object) -> Mapping[str, str]:
    """What the docstring of a function or class says of each parameter or field."""
    text = inspect.getdoc(thing) or ""
    found = {}
    for match in _FIELD.finditer(text):
        rest = text[match.end() :]
        found[match[1]] = plain(re.split(r"\n(?=@|\n)", rest, maxsplit=1)[0])
    return found


def optional(kind: Any) -> tuple[Any, bool]:
    """A type without C{None}, and whether it had it."""
    parts = get_args(kind)
    if get_origin(kind) not in (Union, UnionType) or NoneType not in parts:
        return kind, False
    return reduce(or_, (one for one in parts if one is not NoneType)), True


# what is taken


def taken(kind: Any, most: int = LIST_LIMIT) -> Schema:
    """The schema of what a parameter takes.

    @param most: the longest list.
    """
    bare, none = optional(kind)
    schema = _taken(bare)
    if "maxItems" in schema:
        schema["maxItems"] = most
    if none:
        schema["type"] = [schema["type"], "null"]
    return schema


def _taken(kind: Any) -> Schema:
    """The schema without C{None}."""
    if kind is bool:
        return {"type": "boolean"}
    if kind is int:
        return {"type": "integer", "minimum": 0, "maximum": NUMBER_LIMIT}
    if kind is float:
        return {"type": "number", "minimum": 0, "maximum": 1e12}
    if kind is str:
        return {"type": "string", "maxLength": TEXT_LIMIT, "pattern": LINE}
    if _is_list(kind):
        return {"type": "array", "items": _taken(get_args(kind)[0]), "maxItems": LIST_LIMIT}
    raise TypeError(f"no parameter of an operation can be {kind}")


def settle(kind: Any, value: object) -> object:
    """The value as C{kind}, where JSON has several forms of it: 80.0 is a whole number there."""
    whole = optional(kind)[0] is int and isinstance(value, float) and value.is_integer()
    return int(value) if whole and isinstance(value, float) else value


def objection(kind: Any, value: object, most: int = LIST_LIMIT) -> str:
    """Why C{value} is none that a parameter of type C{kind} takes; empty when it is one.

    @param most: the longest list.
    """
    bare, none = optional(kind)
    if value is None:
        return "" if none else "is null"
    if bare is bool:
        return "" if isinstance(value, bool) else "is neither true nor false"
    if bare is int:
        whole = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= NUMBER_LIMIT
        return "" if whole else f"is no whole number from 0 to {NUMBER_LIMIT}"
    if bare is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1e12
        return "" if fits else "is no number from 0 to 1000000000000"
    if bare is str:
        return _objection_to_text(value)
    if not isinstance(value, list) or len(value) > most:
        return f"is no list of at most {most}"
    return next((found for one in value if (found := objection(get_args(bare)[0], one))), "")


def _objection_to_text(value: object) -> str:
    """Why it is no line of text."""
    if not isinstance(value, str):
        return "is no text"
    if len(value) > TEXT_LIMIT:
        return f"is longer than {TEXT_LIMIT} characters"
    if not _LINE.match(value):
        return "has control characters"
    return "has halves of characters" if any("\ud800" <= one <= "\udfff" for one in value) else ""


def from_query(kind: Any, texts: list[str]) -> object:
    """What the values of a query parameter, or a part of a path, mean as C{kind}.

    What cannot be understood stays as it is, for L{objection} to object to.
    """
    bare, _ = optional(kind)
    if _is_list(bare):
        return list(texts)
    if len(texts) != 1:
        return texts
    text = texts[0]
    if bare is bool:
        return {"true": True, "false": False}.get(text, text)
    if bare is int and re.fullmatch(r"[0-9]{1,12}", text, re.ASCII):
        return int(text)
    if bare is float and _DECIMAL.fullmatch(text):
        return float(text)
    return text


def to_query(value: object) -> object:
    """A value as L{from_query} reads it; of a list, each."""
    if isinstance(value, list | tuple):
        return [to_query(one) for one in value]
    return str(value).lower() if isinstance(value, bool) else str(value)


# what is returned


def returned(kind: Any, components: Components) -> Schema:
    """The schema of what a handler returns.

    @param components: the schemas of classes, which this adds to.
    """
    bare, none = optional(kind)
    schema = _returned(bare, components)
    return {"anyOf": [schema, {"type": "null"}]} if none else schema


def _returned(kind: Any, components: Components) -> Schema:
    """The schema without C{None}."""
    simple = {bool: "boolean", int: "integer", float: "number", str: "string", NoneType: "null"}
    if kind in simple:
        return {"type": simple[kind]}
    if kind is object:
        return {}
    arguments = get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        return {"anyOf": [returned(one, components) for one in arguments]}
    if _is_list(kind):
        return {"type": "array", "items": returned(arguments[0], components)}
    if get_origin(kind) is tuple:
        parts = [returned(one, components) for one in arguments]
        return {"type": "array", "prefixItems": parts, "minItems": len(parts), "maxItems": len(parts)}
    if _is_mapping(kind):
        return {"type": "object", "additionalProperties": returned(arguments[1], components)}
    if not is_dataclass(kind) or not isinstance(kind, type):
        raise TypeError(f"no operation can return {kind}")
    if kind not in components:
        components[kind] = {}  # first, for what contains itself
        components[kind] = _object(kind, components)
    return {"$ref": f"#/components/schemas/{kind.__name__}"}


def named(components: Components) -> dict[str, Schema]:
    """The schemas by the names that references have.

    @raise TypeError: two classes have one name.
    """
    found = {kind.__name__: schema for kind, schema in components.items()}
    if len(found) < len(components):
        raise TypeError("two classes that operations return have one name; call one of them otherwise")
    return found


def _object(kind: type[Any], components: Components) -> Schema:
    """The schema of a dataclass."""
    told = described(kind)
    properties = {}
    for name, one in shown(kind).items():
        properties[name] = returned(one, components)
        if name in told and "$ref" not in properties[name]:
            properties[name]["description"] = told[name]
    return {
        "type": "object",
        "description": summary(kind),
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def shown(kind: type[Any]) -> Mapping[str, Any]:
    """What is shown of a dataclass, by name, with types: its fields, and what it says of itself besides."""
    found = _shown.get(kind)
    if found is None:
        found = _shown[kind] = _look(kind)
    return found


def _look(kind: type[Any]) -> Mapping[str, Any]:
    """The same, found out."""
    hints = get_type_hints(kind)
    names = {one.name: hints[one.name] for one in fields(kind)}
    for name, member in getmembers(kind, lambda one: isinstance(one, property)):
        if not name.startswith("_"):
            names[name] = get_type_hints(member.fget)["return"]
    return {name: one for name, one in names.items() if not _is_hidden(one)}


def render(value: object) -> Any:
    """A value that a handler returned, for JSON."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(name): render(one) for name, one in value.items()}
    if is_dataclass(value):
        kind: type[Any] = type(value)
        return {name: render(getattr(value, name)) for name in shown(kind)}
    if isinstance(value, Iterable):
        return [render(one) for one in value]
    raise TypeError(f"{type(value)} has no form in JSON")


def _is_hidden(kind: Any) -> bool:
    """Is it, or does it consist of, what is never shown?"""
    return kind in _HIDDEN or any(_is_hidden(one) for one in get_args(kind))


def _is_list(kind: Any) -> bool:
    """Is it a list of any length of one thing?"""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is tuple:
        return len(arguments) == 2 and arguments[1] is Ellipsis
    return isinstance(origin, type) and issubclass(origin, Iterable) and not issubclass(origin, Mapping)


def _is_mapping(kind: Any) -> bool:
    origin = get_origin(kind)
    return isinstance(origin, type) and issubclass(origin, Mapping)
