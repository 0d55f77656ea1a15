"""C{rvpfarm router show|set|drain|resume|remove} and C{rvpfarm home show|set}: one server at a time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from rvpfarm.admin import handlers, servers
from rvpfarm.admin.farm_verbs import home, router
from rvpfarm.admin.tables import home_record, router_record, show_facts, show_json
from rvpfarm.admin.verbs import Failed, Farm, dry_run_option, json_option, pass_farm
from rvpfarm.directory.model import Farm as Settings
from rvpfarm.directory.model import Home, Router
from rvpfarm.discovery.zone import TTL, edge

__all__ = ["home", "router"]


_METRICS = click.option(
    "--metrics",
    metavar="ADDRESS:PORT",
    help='Where it shows metrics, health and status; "" for nowhere.',
)
_ADDRESS = click.option("--address", metavar="IP", help='Its IP address; "" to have it looked up.')


# Any: what click's decorators take and give back
def _fixed(noun: str, *options: str) -> Callable[[Any], Any]:
    """Options that are understood only to say why they cannot be had."""

    def refuse(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
        """Say so.

        @raise Failed: always, when it is given.
        """
        if value is not None:
            raise Failed(context.command_path, servers.FIXED[f"{noun} {parameter.opts[0]}"])

    def add(command: Any) -> Any:
        """With these options."""
        for name in options:
            command = click.option(
                name, callback=refuse, expose_value=False, hidden=True, help="Cannot change."
            )(command)
        return command

    return add


@router.command("show")
@click.argument("name")
@json_option
@pass_farm
def router_show(farm: Farm, name: str, as_json: bool) -> None:
    """Show the router NAME, and whether clients are led to it.

    With --json: an object with id, name, host, port, address (empty when it is looked up), state (active or
    draining), metrics (ADDRESS:PORT, or empty) and published (whether "rvpfarm dns plan" leads clients
    there).
    """
    settings = handlers.farm_of(farm.store)
    found = servers.server_named(settings.routers, name, "router")
    published = _is_published(settings, found)
    if as_json:
        show_json({**router_record(found), "published": published})
        return
    show_facts({**_facts(found), "Led to": "yes" if published else "no: the DNS plan leaves it out"})


@router.command("drain")
@click.argument("name")
@click.option("--yes", "force", is_flag=True, help="Also the last router that is active.")
@dry_run_option
@pass_farm
def router_drain(farm: Farm, name: str, force: bool, dry_run: bool) -> None:
    """Let the router NAME get nothing new, so that it can be stopped.

    It goes on answering, but is not ready any more for whoever asks it, and the DNS plan leaves it out.
    """
    done = servers.drain_router(farm.store, name, force=force, dry_run=dry_run)
    if dry_run:
        click.echo(f"Router {done.router.name} would drain, {_left(done.left)}; nothing was changed.")
        return
    click.echo(f"Router {done.router.name} drains; {_left(done.left)}.")
    when = datetime.now(UTC) + timedelta(seconds=TTL)
    click.echo(
        f"Clients may know its address for {TTL} seconds after the DNS has left it out: where rvp-dns serves "
        f"the zone, it may be stopped at {when:%H:%M:%S} UTC; elsewhere {TTL} seconds after "
        '"rvpfarm dns plan" is published.'
    )


@router.command("resume")
@click.argument("name")
@dry_run_option
@pass_farm
def router_resume(farm: Farm, name: str, dry_run: bool) -> None:
    """Let the router NAME, which drained, get work again."""
    done = servers.resume_router(farm.store, name, dry_run=dry_run)
    if dry_run:
        click.echo(f"Router {done.router.name} would be active again; nothing was changed.")
        return
    click.echo(f'Router {done.router.name} is active again; "rvpfarm dns plan" has its records.')


@router.command("remove")
@click.argument("name")
@click.option("--yes", "force", is_flag=True, help="Also one that is active, and the last one.")
@dry_run_option
@pass_farm
def router_remove(farm: Farm, name: str, force: bool, dry_run: bool) -> None:
    """Remove the router NAME from the directory; one that is active has to be drained first."""
    done = servers.remove_router(farm.store, name, force=force, dry_run=dry_run)
    if dry_run:
        click.echo(f"Router {done.router.name} would be removed, {_left(done.left)}; nothing was changed.")
        return
    click.echo(f"Removed router {done.router.name}; {_left(done.left)}.")
    click.echo('Stop its process, and take what "rvpfarm dns plan" has no longer out of the DNS.')


@home.command("show")
@click.argument("name")
@json_option
@pass_farm
def home_show(farm: Farm, name: str, as_json: bool) -> None:
    """Show the home NAME, and how many users, groups and devices live there.

    With --json: an object with id, name, host, port, link_port, address (empty when it is looked up), state
    (active or draining), metrics (ADDRESS:PORT, or empty) and accounts (how many).
    """
    with farm.store.read() as reading:
        found = servers.server_named(reading.farm().homes, name, "home")
        accounts = sum(1 for _ in reading.accounts(home=found.id))
    if as_json:
        show_json({**home_record(found), "accounts": accounts})
        return
    show_facts({**_facts(found), "Link port": str(found.link_port), "Accounts": str(accounts)})


@home.command("set")
@click.argument("name")
@_METRICS
@_ADDRESS
@_fixed("home", "--host", "--port", "--link-port")
@pass_farm
def home_set(farm: Farm, name: str, metrics: str | None, address: str | None) -> None:
    """Change where the home NAME is, or where it shows its metrics.

    Farm members follow by themselves; the home itself listens there from its next start, unless its options
    say otherwise.
    """
    _need_one(metrics, address)
    _tell("home", servers.change_home(farm.store, name, metrics=metrics, address=address))


@router.command("set")
@click.argument("name")
@_METRICS
@_ADDRESS
@_fixed("router", "--host", "--port")
@pass_farm
def router_set(farm: Farm, name: str, metrics: str | None, address: str | None) -> None:
    """Change where the router NAME is, or where it shows its metrics.

    The router listens there from its next start, unless its options say otherwise; DNS has to follow a new
    address.
    """
    _need_one(metrics, address)
    _tell("router", servers.change_router(farm.store, name, metrics=metrics, address=address))


def _need_one(metrics: str | None, address: str | None) -> None:
    """Something is to change.

    @raise click.UsageError: nothing is.
    """
    if metrics is None and address is None:
        raise click.UsageError("give --metrics or --address.")


def _tell(noun: str, server: Home | Router) -> None:
    """Say how it is now."""
    address = server.address or f"whatever {server.host} resolves to"
    click.echo(f"{noun.capitalize()} {server.name} is at {address}; metrics: {server.metrics or 'nowhere'}.")


def _facts(server: Home | Router) -> dict[str, str]:
    """What is known of any server."""
    return {
        "Name": server.name,
        "Host": server.host,
        "Port": str(server.port),
        "Address": server.address or "looked up by the host",
        "State": server.state,
        "Metrics": server.metrics or "nobody said where",
    }


def _is_published(farm: Settings, found: Router) -> bool:
    """Does the DNS plan lead clients to this router?"""
    return any(machine.id == found.id for machine in edge(farm))


def _left(count: int) -> str:
    """How many routers are active afterwards."""
    if not count:
        return "no router is active then: nobody finds the farm by DNS"
    return f"{count} other{'' if count == 1 else 's'} {'is' if count == 1 else 'are'} active"
