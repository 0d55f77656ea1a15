"""How reads are shown: a table for people, or JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rvpfarm.admin.users import UserView
from rvpfarm.directory.model import Account, Domain, Farm, Home, Router

# wider than anything: what is piped must not be wrapped or cut
_UNLIMITED = 10_000


def show_json(value: object) -> None:
    """Print C{value} as JSON; the keys of objects in their documented order."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def show_table(titles: Sequence[str], rows: Iterable[Sequence[str]], nothing: str) -> None:
    """Print a table as wide as the terminal, or as wide as it is when there is no terminal.

    @param nothing: said instead when there are no rows.
    """
    lines = list(rows)
    if not lines:
        click.echo(nothing)
        return
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for title in titles:
        table.add_column(title, overflow="fold")
    for line in lines:
        # Text, not str: brackets are no markup here
        table.add_row(*(Text(cell) for cell in line))
    terminal = sys.stdout.isatty()
    console = Console(file=sys.stdout, width=None if terminal else _UNLIMITED, highlight=False)
    with console.capture() as captured:
        console.print(table)
    for shown in captured.get().splitlines():
        click.echo(shown.rstrip())


def show_facts(facts: Mapping[str, str]) -> None:
    """Print names and values, one a line, the values below each other."""
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        click.echo(f"{name + ':':<{width + 2}}{value}".rstrip())


def domain_record(domain: Domain) -> dict[str, object]:
    """An IM domain for C{--json}."""
    return {
        "name": domain.name,
        "mail_domains": list(domain.mail_domains),
        "aliases": list(domain.aliases),
        "netbios": domain.netbios,
    }


def home_record(home: Home) -> dict[str, object]:
    """A home server for C{--json}."""
    return {
        "id": home.id,
        "name": home.name,
        "host": home.host,
        "port": home.port,
        "link_port": home.link_port,
        "address": home.address,
        "state": home.state,
        "metrics": home.metrics,
    }


def router_record(router: Router) -> dict[str, object]:
    """A router for C{--json}."""
    return {
        "id": router.id,
        "name": router.name,
        "host": router.host,
        "port": router.port,
        "address": router.address,
        "state": router.state,
        "metrics": router.metrics,
    }


def user_record(account: Account, farm: Farm) -> dict[str, object]:
    """A user for C{user list --json}."""
    home = farm.homes[account.home]
    return {
        "address": account.address,
        "display_name": account.display_name,
        "email": account.email,
        "domain": account.domain,
        "home": home.name,
        "enabled": account.enabled,
        "public_url": account.url,
        "home_url": account.physical_url(home),
    }


def view_record(view: UserView, farm: Farm) -> dict[str, object]:
    """A user for C{user show --json}."""
    return {
        **user_record(view.account, farm),
        "id": view.account.id,
        "key": view.account.key,
        "alias": view.account.alias,
        "schemes": list(view.schemes),
        "password_set": view.password.since,
        "works": list(view.password.works),
        "missing": list(view.password.missing),
        "forbidden": list(view.password.forbidden),
        "policies": dict(view.password.policies),
        "remedy": list(view.password.remedy),
    }
