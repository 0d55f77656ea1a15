"""C{rvpfarm user welcome}, and the sheet of whoever has just been given a password."""

from __future__ import annotations

from pathlib import Path

import click

from rvpfarm.admin import handlers
from rvpfarm.admin.checks import Refused
from rvpfarm.admin.import_verbs import user
from rvpfarm.admin.verbs import Farm, pass_farm
from rvpfarm.admin.welcome import render_html, render_text, sheet_of
from rvpfarm.admin.welcoming import write_sheets

__all__ = ["user"]


@user.command("welcome")
@click.argument("addresses", nargs=-1, required=True, metavar="ADDRESS...")
@click.option("--html", "as_html", is_flag=True, help="As a page to print, instead of text.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write it there; HTML if it ends in .html.  [default: standard output]",
)
@pass_farm
def user_welcome(farm: Farm, addresses: tuple[str, ...], as_html: bool, out: Path | None) -> None:
    """Print a sheet for each user ADDRESS: what to type where, for each client.

    A password is on it only when it is made in the same command: "rvpfarm user enable --welcome FILE" and
    "rvpfarm user passwd --welcome FILE".
    """
    settings = handlers.farm_of(farm.store)
    views = [handlers.show_user(farm.store, address) for address in addresses]
    disabled = [view.account.address for view in views if not view.account.enabled]
    if disabled:
        raise Refused(f'{disabled[0]} is disabled; "rvpfarm user enable {disabled[0]}" comes first')
    sheets = [sheet_of(settings, view.account) for view in views]
    if out is None:
        click.echo(render_html(sheets) if as_html else render_text(sheets), nl=False)
        return
    write_sheets(out, sheets, as_html=as_html)
    click.echo(f"Wrote {len(sheets)} sheet{'' if len(sheets) == 1 else 's'} to {out}.")
