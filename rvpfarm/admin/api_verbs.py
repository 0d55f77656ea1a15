"""C{rvpfarm api}: any operation by its name, here or through the admin API."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from rvpfarm.admin import schemas
from rvpfarm.admin.actors import default_actor
from rvpfarm.admin.calling import Remote
from rvpfarm.admin.catalogue import OPERATIONS
from rvpfarm.admin.checks import Missing
from rvpfarm.admin.operations import BadArgument, Caller, Effect, Operation, perform
from rvpfarm.admin.tables import show_json, show_table
from rvpfarm.admin.verbs import Farm, Verb, dry_run_option, json_option, pass_farm, yes_option

#: The value of an argument that is to be read from standard input.
STDIN = "@-"


@click.command(cls=Verb)
@click.argument("operation", required=False)
@click.argument("arguments", nargs=-1, metavar="[NAME=VALUE]...")
@yes_option
@dry_run_option
@json_option
@pass_farm
def api(
    farm: Farm, operation: str | None, arguments: tuple[str, ...], yes: bool, dry_run: bool, as_json: bool
) -> None:
    """Do the OPERATION, such as user.show address=petra@example.com, and print JSON; without one, list them.

    With --api before the noun it is done by the admin API there, else in the directory.  A list is a NAME
    given several times; NAME=@- reads the value from standard input, one line; help= lists what it takes.

    With --json and no OPERATION: an array of objects with name, effect, role and summary.
    """
    if operation is None:
        _list(as_json)
        return
    chosen = OPERATIONS.get(operation)
    if chosen is None:
        raise Missing(f'there is no operation "{operation}"; "rvpfarm api" lists them', operation)
    if arguments == ("help=",):
        rows = [(one.name, "needed" if one.needed else "", one.doc) for one in chosen.parameters.values()]
        show_table(("name", "", "meaning"), rows, "It takes nothing.")
        return
    given = chosen.accept(_parse(chosen, arguments))
    if chosen.effect is Effect.DESTROYS and not (yes or dry_run):
        click.confirm(f"Do {chosen.name} with {', '.join(arguments)}?", abort=True)
    if farm.api is None:
        found = perform(farm.store, chosen, Caller(default_actor()), given, rehearsing=dry_run)
        show_json(schemas.render(found))
    else:
        remote = Remote(farm.api, farm.token, farm.authority)
        show_json(_everything(remote, chosen, given, dry_run))


def _everything(remote: Remote, operation: Operation, given: dict[str, object], dry_run: bool) -> object:
    """What the API answers; all of a list, unless a part was asked for."""
    if not operation.lists or "limit" in given:
        return remote.call(operation, given, rehearsing=dry_run)["result"]
    return remote.collect(operation, given)


def _list(as_json: bool) -> None:
    """What can be done."""
    found = [
        {
            "name": one.name,
            "effect": one.effect.value,
            "role": one.scope.value,
            "summary": schemas.summary(one.handler),
        }
        for one in OPERATIONS.values()
    ]
    if as_json:
        show_json(found)
        return
    show_table(
        ("operation", "effect", "what it does"),
        [(one["name"], one["effect"], one["summary"]) for one in found],
        "",
    )


def _parse(operation: Operation, words: Sequence[str]) -> dict[str, object]:
    """The arguments by name.

    @raise BadArgument: one is not C{NAME=VALUE}.
    """
    texts: dict[str, list[str]] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise BadArgument(f'"{word}" is not NAME=VALUE', word)
        texts.setdefault(name, []).append(sys.stdin.readline().rstrip("\r\n") if text == STDIN else text)
    return {
        name: schemas.from_query(operation.parameters[name].kind, values)
        if name in operation.parameters
        else values
        for name, values in texts.items()
    }
