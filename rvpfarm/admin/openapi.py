"""The OpenAPI document of the admin API, made of the table of operations."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from rvpfarm.admin import schemas
from rvpfarm.admin.catalogue import OPERATIONS
from rvpfarm.admin.operations import Effect, Operation, Parameter, Scope

#: What every path begins with.
PREFIX = "/v1"

#: The media types of what is sent, and of what is wrong (RFC 9457).
JSON, PROBLEM = "application/json", "application/problem+json"

#: So many rows of a list are shown when nobody says, and at most.
PAGE_USUAL, PAGE_MOST = 100, 1000

#: What each status means here.
TITLES = {
    400: "The request is malformed",
    401: "Nobody knows who asks",
    403: "Whoever asks may not do this",
    404: "There is no such thing",
    405: "The path takes other methods",
    409: "It contradicts what is there",
    413: "The body is too large",
    415: "The body is no JSON",
    422: "It cannot be done",
    500: "The server failed",
    503: "The directory or the server is busy or away",
}

_SCOPES = {
    Scope.FARM: "For administrators of the farm.",
    Scope.ALL: "For every administrator.",
    Scope.DOMAIN: "For administrators of the farm, and of the users of the IM domain.",
    Scope.USER: "For administrators of the farm, and of the users of the user's IM domain.",
    Scope.LISTED: "For every administrator; one of users is shown his own IM domains.",
}

# Any, below: what stands in the document is of every shape.
_Part = dict[str, Any]


def make_document() -> _Part:
    """The whole document."""
    components: schemas.Components = {}
    paths: dict[str, _Part] = {}
    for one in OPERATIONS.values():
        paths.setdefault(PREFIX + one.path, {})[one.method.lower()] = _operation(one, components)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "rvpfarm",
            "version": version("rvpfarm"),
            "summary": "Administer a farm of RVP presence and messaging servers.",
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "responses": {f"P{status}": _problem(title) for status, title in TITLES.items()},
            "schemas": {**schemas.named(components), "Refusal": _REFUSAL},
        },
    }


_REFUSAL: _Part = {
    "type": "object",
    "description": "What is wrong, in a sentence with the remedy; field is the parameter, if it is one.",
    "properties": {
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "field": {"type": "string"},
    },
    "required": ["title", "status", "detail"],
    "additionalProperties": False,
}


def _problem(title: str) -> _Part:
    """A response that says what is wrong."""
    return {
        "description": title,
        "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Refusal"}}},
    }


def _operation(one: Operation, components: schemas.Components) -> _Part:
    """One method of one path."""
    words = [schemas.summary(one.handler), _SCOPES[one.scope]]
    if one.effect is Effect.DESTROYS:
        words.append("It takes away what nobody can bring back by the opposite.")
    changes = one.effect is not Effect.READS
    parameters = [
        _parameter(each) for each in one.parameters.values() if each.where != "body" and not _pages(one, each)
    ]
    if changes:
        parameters.append(
            _query("dry_run", {"type": "boolean"}, "Find out what would come of it, and change nothing.")
        )
    if one.lists:
        limit = {"type": "integer", "minimum": 1, "maximum": PAGE_MOST, "default": PAGE_USUAL}
        after = {"type": "string", "maxLength": schemas.TEXT_LIMIT, "pattern": schemas.LINE}
        if not one.pages:
            after = {"type": "string", "pattern": "^[0-9]{1,9}$"}
        parameters.append(_query("limit", limit, "At most so many."))
        parameters.append(_query("after", after, "What the answer before had as next."))
    statuses = [400, 401, 403, 404, 405, 409, 413, 422, 500, 503]
    made: _Part = {
        "operationId": one.name,
        "tags": [one.name.partition(".")[0]],
        "summary": words[0],
        "description": " ".join(words),
        "parameters": parameters,
        "responses": {"200": _response(one, components)},
    }
    if one.creates:
        made["responses"]["201"] = _response(one, components)
    body = [each for each in one.parameters.values() if each.where == "body"]
    if body:
        made["requestBody"] = _body(body)
        statuses.append(415)
    for status in statuses:
        made["responses"][str(status)] = {"$ref": f"#/components/responses/P{status}"}
    return made


def _pages(operation: Operation, parameter: Parameter) -> bool:
    """Does the parameter say which part of a list is wanted?"""
    return operation.pages and parameter.name in ("after", "limit")


def _parameter(one: Parameter) -> _Part:
    """A parameter of the path or the query."""
    schema = schemas.taken(schemas.optional(one.kind)[0], one.most)
    if one.where == "query":
        return {**_query(one.name, _with_default(schema, one), one.doc), "required": one.needed}
    if schema["type"] == "string":
        schema["minLength"] = 1
    return {"name": one.name, "in": "path", "required": True, "description": one.doc, "schema": schema}


def _query(name: str, schema: _Part, doc: str) -> _Part:
    """A parameter of the query."""
    return {"name": name, "in": "query", "description": doc, "schema": schema}


def _body(parameters: list[Parameter]) -> _Part:
    """What is sent."""
    properties = {
        one.name: {**_with_default(schemas.taken(one.kind), one), "description": one.doc}
        for one in parameters
    }
    needed = [one.name for one in parameters if one.needed]
    schema: _Part = {"type": "object", "properties": properties, "additionalProperties": False}
    if needed:
        schema["required"] = needed
    return {"required": bool(needed), "content": {JSON: {"schema": schema}}}


def _with_default(schema: _Part, one: Parameter) -> _Part:
    """The schema, with what counts when nothing is given."""
    if one.needed or one.default is None:
        return schema
    return {**schema, "default": schemas.render(one.default)}


def _response(one: Operation, components: schemas.Components) -> _Part:
    """What comes back when all went well."""
    properties: _Part = {"result": schemas.returned(one.returns, components)}
    if one.lists:
        properties["next"] = {"type": ["string", "null"], "description": "Give it as after for what follows."}
    if one.effect is not Effect.READS:
        properties["dry_run"] = {"type": "boolean", "description": "Nothing was changed."}
    return {
        "description": "Done",
        "content": {
            JSON: {
                "schema": {
                    "type": "object",
                    "properties": properties,
                    "required": list(properties),
                    "additionalProperties": False,
                }
            }
        },
    }
