"""C{rvpfarm home rename} and C{rvpfarm router rename}."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from rvpfarm.admin import renaming
from rvpfarm.admin.renaming import Renaming
from rvpfarm.admin.server_verbs import router
from rvpfarm.admin.state_verbs import home
from rvpfarm.admin.verbs import Farm, dry_run_option, pass_farm

__all__ = ["home", "router"]

_HOST = click.option("--host", metavar="FQDN", help="The new fully qualified name.  [default: it stays]")


@home.command("rename")
@click.argument("old")
@click.argument("new")
@_HOST
@dry_run_option
@pass_farm
def home_rename(farm: Farm, old: str, new: str, host: str | None, dry_run: bool) -> None:
    """Call the home OLD, from now on, NEW, and give it another host name.

    Users and state stay.  The former host goes on leading here for 4 hours: the home answers to it, refers
    clients that can follow, and the DNS plan has both.  Renaming it back takes it back.
    """
    _tell("home", renaming.rename_home(farm.store, old, new, host, dry_run=dry_run), dry_run)


@router.command("rename")
@click.argument("old")
@click.argument("new")
@_HOST
@dry_run_option
@pass_farm
def router_rename(farm: Farm, old: str, new: str, host: str | None, dry_run: bool) -> None:
    """Call the router OLD, from now on, NEW, and give it another host name.

    The former host goes on leading here for 4 hours, and the DNS plan has both.
    """
    _tell("router", renaming.rename_router(farm.store, old, new, host, dry_run=dry_run), dry_run)


def _tell(noun: str, done: Renaming, dry_run: bool) -> None:
    before, after = done.before, done.after
    verb = "would be" if dry_run else "is now"
    click.echo(
        f"{noun.capitalize()} {before.name} ({before.host}) {verb} {after.name} ({after.host})"
        f"{'; nothing was changed' if dry_run else ''}."
    )
    if dry_run:
        return
    if done.until:
        when = datetime.fromtimestamp(done.until, UTC)
        click.echo(
            f"{before.host} goes on leading there until {when:%Y-%m-%d %H:%M} UTC; publish both with "
            '"rvpfarm dns publish", or as "rvpfarm dns plan" says.'
        )
    if after.name != before.name:
        click.echo(f"What runs goes on; its next start needs --name {after.name}.")
    click.echo(f'Back: "rvpfarm {noun} rename {after.name} {before.name} --host {before.host}".')
