"""C{rvpfarm home set} and C{router set}: what can change about a server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from rvpfarm.admin import servers
from rvpfarm.admin.verbs import Failed, Farm, Verb, pass_farm
from rvpfarm.directory.model import Home, Router

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


@click.command("set", cls=Verb)
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


@click.command("set", cls=Verb)
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
