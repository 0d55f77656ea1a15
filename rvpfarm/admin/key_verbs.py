"""C{rvpfarm key}: the farm key, and putting another one in its place."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from rvpfarm.admin import keys
from rvpfarm.admin.handlers import open_store
from rvpfarm.admin.tables import show_json, show_table
from rvpfarm.admin.verbs import Farm, Noun, dry_run_option, json_option, pass_farm


@click.group(cls=Noun)
def key() -> None:
    """The farm key, which seals what passwords are checked by."""


def _file(farm: Farm) -> Path:
    """Where the key is.

    @raise click.UsageError: nobody said.
    """
    if farm.key_file is None:
        raise click.UsageError("where is the farm key? Give --key-file before the noun.")
    return farm.key_file


@key.command("show")
@json_option
@pass_farm
def key_show(farm: Farm, as_json: bool) -> None:
    """Show the keys of the key file, the one that is used first, and how many secrets are sealed with each.

    With --json: an object with keys (array of objects with fingerprint, role (used, next or former)
    and sealed), unmarked (secrets
    that do not say their key) and foreign (secrets of a key that the file does not have).
    """
    view = keys.show_keys(farm.store, _file(farm))
    if as_json:
        show_json(asdict(view))
        return
    rows = [(one.fingerprint, one.role, str(one.sealed)) for one in view.keys]
    show_table(("key", "is", "secrets sealed"), rows, "There is no key.")
    if view.unmarked:
        click.echo(f"{view.unmarked} secrets are of before keys were told apart.")
    if view.foreign:
        click.echo(f"{view.foreign} secrets are sealed with a key that is not in the file.")


@key.command("rotate")
@dry_run_option
@pass_farm
def key_rotate(farm: Farm, dry_run: bool) -> None:
    """Put another key in the place of the farm key, in two steps.

    The first time, make the new key: copy the key file to every machine and start all daemons anew.  The
    second time, use it, and seal everything with it; then copy and start anew again.  What was interrupted
    is run again.  "rvpfarm key retire" is the end of it.
    """
    path = _file(farm)
    view = keys.show_keys(farm.store, path)
    if len(view.keys) == 1:
        mark = keys.make_key(farm.store, path, dry_run=dry_run)
        if dry_run:
            click.echo("Would make a second key, accepted but not used; nothing was changed.")
            return
        click.echo(
            f"Made the key {mark}, which is accepted and not used yet. Copy {path} to every machine of the "
            'farm, start all daemons anew, and then run "rvpfarm key rotate" again.'
        )
        return
    if dry_run:
        used = "next" if any(one.role == "next" for one in view.keys) else "used"
        left = view.unmarked + sum(one.sealed for one in view.keys if one.role != used)
        click.echo(f"Would use the new key, and seal {left} secrets with it; nothing was changed.")
        return
    keys.use_key(path)
    store = open_store(farm.url, path)
    try:
        for step in keys.seal_all(store):
            click.echo(f"Sealed {step.done} of {step.total} secrets.", err=True)
    finally:
        store.close()
    click.echo(
        f"Everything is sealed with the new key. Copy {path} to every machine of the farm, start all daemons "
        'anew, and then run "rvpfarm key retire".'
    )


@key.command("retire")
@dry_run_option
@pass_farm
def key_retire(farm: Farm, dry_run: bool) -> None:
    """Drop the former farm key, once nothing is sealed with it any more.

    Then copy the key file to every machine once more, and start all daemons anew.
    """
    path = _file(farm)
    dropped = " ".join(keys.retire_keys(farm.store, path, dry_run=dry_run))
    if dry_run:
        click.echo(f"Would drop the key {dropped}; nothing was changed.")
        return
    click.echo(
        f"Dropped the key {dropped}. Copy {path} to every machine of the farm, start all daemons anew, and "
        "destroy older copies of the file."
    )
