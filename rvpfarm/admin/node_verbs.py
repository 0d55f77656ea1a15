"""C{rvpfarm node ...}: groups and devices."""

from __future__ import annotations

import click

from rvpfarm.admin import nodes
from rvpfarm.admin.tables import show_json, show_table
from rvpfarm.admin.verbs import Farm, Noun, json_option, pass_farm


@click.group(cls=Noun)
def node() -> None:
    """Groups and devices: nodes that are no people, at any path."""


@node.command("create")
@click.argument("path")
@click.option("--owner", required=True, metavar="ADDRESS", help="The user who may do everything with it.")
@click.option(
    "--kind", type=click.Choice(nodes.KINDS), default="group", show_default=True, help="What it is."
)
@click.option("--domain", metavar="NAME", help="Its IM domain.  [default: the only one there is]")
@click.option("--home", metavar="NAME", help="Its home.  [default: the one with the fewest accounts]")
@click.option("--display-name", metavar="TEXT", help="What people read.  [default: the last part of PATH]")
@pass_farm
def node_create(
    farm: Farm,
    path: str,
    owner: str,
    kind: str,
    domain: str | None,
    home: str | None,
    display_name: str | None,
) -> None:
    """Create a group or a device at PATH, such as /groups/shipping.

    Whoever its access list lets receive-from subscribes a call-back to it; its owner sets that list.
    """
    made = nodes.create_node(
        farm.store, path, owner, kind=kind, domain=domain, home=home, display_name=display_name
    )
    click.echo(f"Created the {made.kind} {made.url}, which belongs to http://{made.owner}.")


@node.command("list")
@click.option("--domain", metavar="NAME", help="Only those of this IM domain.")
@click.option("--home", metavar="NAME", help="Only those on this home.")
@json_option
@pass_farm
def node_list(farm: Farm, domain: str | None, home: str | None, as_json: bool) -> None:
    """List the groups and devices, by URL.

    With --json: an array of objects with url, kind, display_name, owner (a URL) and home (its id).
    """
    found = nodes.list_nodes(farm.store, domain, home)
    if as_json:
        show_json(
            [
                {
                    "url": one.url,
                    "kind": one.kind,
                    "display_name": one.display_name,
                    "owner": f"http://{one.owner}",
                    "home": one.home,
                }
                for one in found
            ]
        )
        return
    rows = [(one.url, one.kind, one.display_name, f"http://{one.owner}") for one in found]
    show_table(("URL", "kind", "name", "owner"), rows, "There is no group or device yet.")


@node.command("remove")
@click.argument("path")
@click.option("--domain", metavar="NAME", help="Its IM domain.  [default: the only one there is]")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
@pass_farm
def node_remove(farm: Farm, path: str, domain: str | None, yes: bool, dry_run: bool) -> None:
    """Remove the group or device at PATH; its subscriptions end."""
    meant = nodes.find_node(farm.store, path, domain)
    if dry_run:
        click.echo(f"Would remove the {meant.kind} {meant.url}.")
        return
    if not yes:
        click.confirm(f"Remove the {meant.kind} {meant.url} and end its subscriptions?", abort=True)
    gone = nodes.remove_node(farm.store, path, domain=domain)
    click.echo(f"Removed the {gone.kind} {gone.url}.")
