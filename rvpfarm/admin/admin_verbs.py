"""C{rvpfarm admin}: who may administer the farm through its API, and by which tokens."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from rvpfarm.admin import administrators
from rvpfarm.admin.schemas import render
from rvpfarm.admin.tables import show_facts, show_json, show_table
from rvpfarm.admin.verbs import Farm, Noun, dry_run_option, json_option, pass_farm, yes_option
from rvpfarm.directory.administrators import USER, Administrator


@click.group(cls=Noun)
def admin() -> None:
    """Administrators who come through the admin API, and their tokens.

    One of the farm may do everything, one of users what concerns the users of some IM domains.
    """


@admin.command("add")
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice(administrators.ROLES),
    default=USER,
    show_default=True,
    help="An administrator of the farm, or of users.",
)
@click.option(
    "--domain", "domains", multiple=True, metavar="NAME", help="An IM domain whose users are meant."
)
@pass_farm
def add(farm: Farm, name: str, role: str, domains: tuple[str, ...]) -> None:
    """Let NAME administer the farm, or users, once there is a token."""
    made = administrators.add_administrator(farm.store, name, role, domains)
    click.echo(
        f'{made.name} administers {_of(made)} now; "rvpfarm admin token create {made.name}" makes a token.'
    )


@admin.command("remove")
@click.argument("name")
@yes_option
@dry_run_option
@pass_farm
def remove(farm: Farm, name: str, yes: bool, dry_run: bool) -> None:
    """Let NAME administer no longer; the tokens of NAME are worth nothing at once."""
    store = farm.store.limited(rehearsing=dry_run)
    if not (yes or dry_run):
        click.confirm(f"Let {name} administer no longer?", abort=True)
    gone = administrators.remove_administrator(store, name)
    if dry_run:
        click.echo(f"{gone.name} would administer {_of(gone)} no longer; nothing was changed.")
    else:
        click.echo(f"{gone.name} administers {_of(gone)} no longer.")


@admin.command("list")
@json_option
@pass_farm
def list_all(farm: Farm, as_json: bool) -> None:
    """List the administrators, by name.

    With --json: an array of objects with name, role (farm or user), domains (array) and tokens (array of
    objects with id, label, created and until, both in seconds since 1970).
    """
    found = administrators.list_administrators(farm.store)
    if as_json:
        show_json(render(found))
        return
    rows = [(one.name, one.role, " ".join(one.domains), str(len(one.tokens))) for one in found]
    show_table(("administrator", "role", "IM domains", "tokens"), rows, "There is no administrator yet.")


@admin.group("token", cls=Noun)
def token() -> None:
    """What proves administrators: shown once, good until some day, and worth nothing once revoked."""


@token.command("create")
@click.argument("name")
@click.option("--label", default="", metavar="WORD", help="What it is for.  [default: its number]")
@click.option(
    "--days",
    default=administrators.USUAL_DAYS,
    show_default=True,
    type=click.IntRange(1, administrators.MOST_DAYS),
    metavar="N",
    help="For how long it is good.",
)
@pass_farm
def token_create(farm: Farm, name: str, label: str, days: int) -> None:
    """Make a token for the administrator NAME, and show it this once."""
    made = administrators.create_token(farm.store, name, label, days)
    show_facts(
        {
            "Administrator": made.administrator,
            "Number": made.token.id,
            "Label": made.token.label,
            "Good until": f"{_day(made.token.until)} UTC",
            "Token": f"{made.text}  (not shown again)",
        }
    )


@token.command("list")
@click.argument("name")
@json_option
@pass_farm
def token_list(farm: Farm, name: str, as_json: bool) -> None:
    """List the tokens of the administrator NAME, without what proves.

    With --json: an array of objects with id, label, created and until, both in seconds since 1970.
    """
    found = administrators.administrator_named(farm.store, name).tokens
    if as_json:
        show_json(render(found))
        return
    rows = [(one.id, one.label, _day(one.created), _day(one.until)) for one in found]
    show_table(("number", "label", "made", "good until"), rows, "There is no token.")


@token.command("revoke")
@click.argument("name")
@click.argument("which", metavar="TOKEN")
@yes_option
@dry_run_option
@pass_farm
def token_revoke(farm: Farm, name: str, which: str, yes: bool, dry_run: bool) -> None:
    """Let TOKEN, a number or a label, prove the administrator NAME no longer."""
    store = farm.store.limited(rehearsing=dry_run)
    if not (yes or dry_run):
        click.confirm(f"Revoke the token {which} of {name}?", abort=True)
    gone = administrators.revoke_token(store, name, which)
    if dry_run:
        click.echo(f"The token {gone.id} would be worth nothing; nothing was changed.")
    else:
        click.echo(f"The token {gone.id} is worth nothing from now on.")


def _of(one: Administrator) -> str:
    """What somebody administers."""
    return f"users of {', '.join(one.domains)}" if one.domains else "the farm"


def _day(when: float) -> str:
    """A time, for people."""
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%d %H:%M")
