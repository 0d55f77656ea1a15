"""C{rvpfarm user acl|watchers}: who may contact a user, and who watches."""

from __future__ import annotations

from dataclasses import asdict

import click

from rvpfarm.admin import privacy
from rvpfarm.admin.address_verbs import user
from rvpfarm.admin.forms import dns_option
from rvpfarm.admin.privacy import MODES, PrivacyView
from rvpfarm.admin.session_verbs import timeout_option
from rvpfarm.admin.tables import show_json, show_table
from rvpfarm.admin.verbs import Farm, dry_run_option, json_option, pass_farm
from rvpfarm.protocol.control import privacy_record

__all__ = ["user"]

#: What each mode means, for people.
WORDS = {
    "open": "everybody may, but for those denied",
    "same-organisation": "every user of this farm may, but for those denied",
    "contacts-only": "only those allowed may",
    "custom": "a client has set something else for everybody",
}


@user.command("acl")
@click.argument("address")
@click.option("--mode", type=click.Choice(MODES), help="What holds for everybody who is not named.")
@click.option("--allow", multiple=True, metavar="WHO", help="Let WHO write and see presence.")
@click.option("--deny", multiple=True, metavar="WHO", help="Let WHO not write, nor see presence.")
@click.option("--remove", multiple=True, metavar="WHO", help="Name WHO no longer.")
@dns_option
@timeout_option
@dry_run_option
@json_option
@pass_farm
def user_acl(
    farm: Farm,
    address: str,
    mode: str | None,
    allow: tuple[str, ...],
    deny: tuple[str, ...],
    remove: tuple[str, ...],
    server: tuple[str, int] | None,
    timeout: float,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Show or change who may write to the user ADDRESS and see its presence.

    WHO is an address, a URL, or the name of a server, which does not mean its users; what is kept is the URL.
    A change holds at once: who may no longer watch sees ADDRESS go offline.  The user can change it, too.

    With --json: an object with address, home, before and after (alike when nothing was to be changed) and
    told (how many watchers heard of it at once).  before and after are objects with mode, own (whether the
    list was set for this user) and entries: an array of objects with url, effect ("allow", "deny" or
    "other"), grant and deny (arrays of rights).
    """
    changes = bool(mode or allow or deny or remove)
    view = privacy.change_privacy(
        farm.store,
        address,
        mode or "",
        allow,
        deny,
        remove,
        dry_run=dry_run or not changes,
        dns=server,
        seconds=timeout,
    )
    if as_json:
        show_json(
            {
                "address": view.account.address,
                "home": view.home.name,
                "before": privacy_record(view.before),
                "after": privacy_record(view.after),
                "told": view.told,
            }
        )
        return
    _show(view)
    if dry_run and changes:
        click.echo("So it would be; nothing was changed.")
    elif changes:
        click.echo(f"It holds from now on; {view.told} watchers heard at once what it means for them.")


def _show(view: PrivacyView) -> None:
    """The list for people."""
    after = view.after
    click.echo(f"Mode:  {after.mode}: {WORDS.get(after.mode, 'unknown')}{'' if after.own else ' (default)'}")
    rows = [
        (entry.effect, entry.url, " ".join(entry.grant) or "nothing", " ".join(entry.deny) or "nothing")
        for entry in after.entries
    ]
    show_table(("entry", "who", "granted", "denied"), rows, "Nobody is named.")


@user.command("watchers")
@click.argument("address")
@timeout_option
@json_option
@pass_farm
def user_watchers(farm: Farm, address: str, timeout: float, as_json: bool) -> None:
    """List who watches the user ADDRESS, and for how long each subscription is held.

    With --json: an array of objects with id, url (empty for an anonymous watcher), call_back, seconds (left)
    and sees (whether the access list lets it see presence).
    """
    found = privacy.list_watchers(farm.store, address, seconds=timeout)
    if as_json:
        show_json([asdict(watcher) for watcher in found.watchers])
        return
    rows = [
        (
            watcher.url or "somebody anonymous",
            watcher.call_back,
            str(watcher.seconds),
            "yes" if watcher.sees else "no: the access list does not let it",
        )
        for watcher in found.watchers
    ]
    show_table(("watcher", "told at", "seconds left", "sees presence"), rows, "Nobody watches.")
