"""C{rvpfarm home reset}: a home begins with a new state."""

from __future__ import annotations

from pathlib import Path

import click

from rvpfarm.admin.server_verbs import home
from rvpfarm.admin.states import reset_home
from rvpfarm.admin.verbs import Farm, dry_run_option, pass_farm

__all__ = ["home"]


@home.command("reset")
@click.argument("name")
@click.option(
    "--state-dir",
    required=True,
    envvar="RVPFARM_STATE_DIR",
    show_envvar=True,
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="As the daemon has it.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@dry_run_option
@pass_farm
def home_reset(farm: Farm, name: str, state_dir: Path, yes: bool, dry_run: bool) -> None:
    """Move the state of the home NAME aside, on its machine and while it does not run.

    At its next start it has no subscriptions, access lists or properties: clients log in and watch again as
    they renew, within four hours at most; access lists that users set are lost.  A state that is damaged is
    moved aside by the home itself when it starts.
    """
    planned = reset_home(farm.store, name, state_dir, dry_run=True)
    for old, new in planned.moved:
        click.echo(f"{old} -> {new.name}")
    if dry_run:
        click.echo(f"Would move {planned.octets} octets aside; nothing was changed.")
        return
    if not yes:
        click.confirm(f"Let home {planned.home.name} begin with a new state?", abort=True)
    done = reset_home(farm.store, name, state_dir)
    click.echo(f"Home {done.home.name} begins with a new state at its next start; the old one is beside it.")
