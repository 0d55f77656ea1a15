"""C{rvpfarm domain|home|router|policy|audit}: what is farm-wide."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import click

from rvpfarm.admin import handlers
from rvpfarm.admin.checks import Refused, domain_named, enumerate_names
from rvpfarm.admin.passwords import ALLOWED, KEEPING
from rvpfarm.admin.tables import (
    domain_record,
    home_record,
    router_record,
    show_json,
    show_table,
)
from rvpfarm.admin.verbs import Farm, Noun, json_option, pass_farm
from rvpfarm.directory.model import POLICIES

_PORT = click.IntRange(1, 65535)
_METRICS = click.option(
    "--metrics",
    default="",
    metavar="ADDRESS:PORT",
    help='Where it shows metrics, health and status, for "rvpfarm status" and for itself.',
)


@click.group(cls=Noun)
def domain() -> None:
    """IM domains: the DNS names that stand in people's URLs."""


@domain.command("add")
@click.argument("name")
@click.option(
    "--mail-domain",
    "mail_domains",
    multiple=True,
    metavar="NAME",
    help="A mail domain it serves, so that IM addresses equal mail addresses; the primary one first.",
)
@click.option(
    "--alias", "aliases", multiple=True, metavar="HOST", help="A further host name that means this domain."
)
@click.option(
    "--netbios", default="", metavar="NAME", help="What old clients put before the backslash at login."
)
@pass_farm
def domain_add(
    farm: Farm, name: str, mail_domains: tuple[str, ...], aliases: tuple[str, ...], netbios: str
) -> None:
    """Add the IM domain NAME, such as im.example.com."""
    made = handlers.add_domain(farm.store, name, mail_domains, aliases, netbios)
    click.echo(f"Added the IM domain {made.name}.")
    if made.mail_domains:
        click.echo(f"Users are addressed as NAME@{made.mail_domains[0]}.")
    else:
        click.echo(f"Users are addressed as NAME@{made.name}; no mail domain was given (--mail-domain).")


@domain.command("list")
@json_option
@pass_farm
def domain_list(farm: Farm, as_json: bool) -> None:
    """List the IM domains, by name.

    With --json: an array of objects with name, mail_domains (array, the primary one first), aliases (array)
    and netbios.
    """
    domains = handlers.farm_of(farm.store).domains.values()
    if as_json:
        show_json([domain_record(one) for one in domains])
        return
    rows = [(one.name, " ".join(one.mail_domains), " ".join(one.aliases), one.netbios) for one in domains]
    show_table(("IM domain", "mail domains", "aliases", "NetBIOS"), rows, "There is no IM domain yet.")


@click.group(cls=Noun)
def home() -> None:
    """Home servers: each owns some of the users."""


@home.command("create")
@click.argument("name")
@click.option(
    "--host", metavar="FQDN", help="The fully qualified name that clients resolve.  [default: NAME]"
)
@click.option("--port", default=80, show_default=True, type=_PORT, help="Where clients reach it.")
@click.option("--link-port", default=8081, show_default=True, type=_PORT, help="Where farm members reach it.")
@click.option("--address", default="", metavar="IP", help="Its IP address, if it is not to be looked up.")
@_METRICS
@pass_farm
def home_create(
    farm: Farm, name: str, host: str | None, port: int, link_port: int, address: str, metrics: str
) -> None:
    """Enter the home server NAME, such as hs1, into the directory.

    Start it with "twistd rvp-home --name NAME" on its machine.  Several homes may have one address and port,
    each with a --host and a --link-port of its own; one process then runs them all.
    """
    made = handlers.create_home(farm.store, name, host, port, link_port, address, metrics=metrics)
    where = f" at {made.address}" if made.address else ""
    click.echo(
        f"Created home {made.name}: clients reach it as {made.host} port {made.port}, "
        f"farm members on port {made.link_port}{where}."
    )
    others = handlers.homes_beside(handlers.farm_of(farm.store), made)
    if others:
        names = " ".join(f"--name {one.name}" for one in (*others, made))
        click.echo(
            f"It has the address and port of {enumerate_names(one.name for one in others)}: "
            f'run them in one process, "twistd rvp-home {names}".'
        )


@home.command("list")
@json_option
@pass_farm
def home_list(farm: Farm, as_json: bool) -> None:
    """List the home servers, by name.

    With --json: an array of objects with id, name, host, port, link_port, address (empty when it is looked
    up), state and metrics (ADDRESS:PORT, or empty).
    """
    homes = handlers.farm_of(farm.store).homes.values()
    if as_json:
        show_json([home_record(one) for one in homes])
        return
    rows = [(one.name, one.host, str(one.port), str(one.link_port), one.address) for one in homes]
    show_table(("home", "host", "port", "link port", "address"), rows, "There is no home server yet.")


@click.group(cls=Noun)
def router() -> None:
    """Routers: any number, and any of them answers for everybody."""


@router.command("create")
@click.argument("name")
@click.option(
    "--host", metavar="FQDN", help="The fully qualified name that clients resolve.  [default: NAME]"
)
@click.option("--port", default=80, show_default=True, type=_PORT, help="Where clients reach it.")
@click.option(
    "--address", default="", metavar="IP", help="Its IP address; routers that share a host need one."
)
@_METRICS
@pass_farm
def router_create(farm: Farm, name: str, host: str | None, port: int, address: str, metrics: str) -> None:
    """Enter the router NAME, such as r1, into the directory.

    Start it with "twistd rvp-router --name NAME" on its machine.
    """
    made = handlers.create_router(farm.store, name, host, port, address, metrics=metrics)
    where = f" at {made.address}" if made.address else ""
    click.echo(f"Created router {made.name}: clients reach it as {made.host} port {made.port}{where}.")


@router.command("list")
@json_option
@pass_farm
def router_list(farm: Farm, as_json: bool) -> None:
    """List the routers, by name.

    With --json: an array of objects with id, name, host, port, address (empty when it is looked up), state
    and metrics (ADDRESS:PORT, or empty).
    """
    routers = handlers.farm_of(farm.store).routers.values()
    if as_json:
        show_json([router_record(one) for one in routers])
        return
    rows = [(one.name, one.host, str(one.port), one.address) for one in routers]
    show_table(("router", "host", "port", "address"), rows, "There is no router yet.")


@click.group(cls=Noun)
def policy() -> None:
    """Settings of the farm, or of one IM domain."""


@policy.command("set")
@click.argument("name")
@click.argument("value", required=False)
@click.option("--domain", metavar="NAME", help="Set it for this IM domain only.")
@click.option("--default", "back", is_flag=True, help="Take the setting back instead of giving a VALUE.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
@pass_farm
def policy_set(
    farm: Farm, name: str, value: str | None, domain: str | None, back: bool, dry_run: bool
) -> None:
    """Set the policy NAME to VALUE; "rvpfarm policy list" shows names and values.

    Forbidding digest-verifiers or nt-hashes deletes at once those that are kept, but of users whose own
    policy allows them; allowing them has no effect until each password is set anew.
    """
    if (value is None) != back:
        raise click.UsageError("give either a VALUE or --default.")
    done = handlers.change_policy(farm.store, name, value, domain, dry_run=dry_run)
    where = f"for {domain.lower()}" if domain else "for the farm"
    users = f"{done.dropped} user{'' if done.dropped == 1 else 's'}"
    if dry_run:
        loss = f", and {users} would lose what passwords are checked by" if done.dropped else ""
        click.echo(f"Policy {name} would be {done.value} {where}{loss}; nothing was changed.")
        return
    click.echo(f"Policy {name} is now {done.value} {where}.")
    if done.dropped:
        click.echo(f"Deleted what the passwords of {users} were checked by.")
    elif name in KEEPING and done.value == ALLOWED:
        click.echo('Whose password has to be set anew, "rvpfarm user list --missing-verifiers" shows.')


@policy.command("list")
@click.option("--domain", metavar="NAME", help="What counts for this IM domain.")
@json_option
@pass_farm
def policy_list(farm: Farm, domain: str | None, as_json: bool) -> None:
    """List every policy with the value that counts, by name.

    With --json: an array of objects with name, value, default, choices (array; empty for a number) and
    range (array of the least and the greatest number, else null).
    """
    settings = handlers.farm_of(farm.store)
    chosen = None if domain is None else domain_named(settings.domains, domain).name
    values = {name: settings.policy(name, chosen) for name in sorted(POLICIES)}
    if as_json:
        show_json(
            [
                {
                    "name": name,
                    "value": value,
                    "default": POLICIES[name],
                    "choices": list(handlers.CHOICES.get(name, ())),
                    "range": list(handlers.RANGES[name]) if name in handlers.RANGES else None,
                }
                for name, value in values.items()
            ]
        )
        return
    rows = [(name, value, POLICIES[name], _choices(name)) for name, value in values.items()]
    show_table(("policy", "value", "default", "choices"), rows, "There is no policy.")


def _choices(name: str) -> str:
    """What the policy C{name} may be, for the table."""
    if name in handlers.RANGES:
        least, most = handlers.RANGES[name]
        return f"{least} to {most}"
    return " ".join(handlers.CHOICES.get(name, ()))


@click.group(cls=Noun)
def network() -> None:
    """Ranges of addresses that count as inside, as trusted proxies, or as allowed for call-backs."""


_KIND = click.Choice(handlers.NETWORK_KINDS)


@network.command("add")
@click.argument("kind", type=_KIND)
@click.argument("addresses")
@pass_farm
def network_add(farm: Farm, kind: str, addresses: str) -> None:
    """Let the ADDRESSES, such as 192.0.2.0/24 or 192.0.2.1-192.0.2.9, count as KIND."""
    made = handlers.add_network(farm.store, kind, addresses)
    click.echo(f"Addresses from {made.first} to {made.last} count as {made.kind} now.")


@network.command("remove")
@click.argument("kind", type=_KIND)
@click.argument("addresses")
@pass_farm
def network_remove(farm: Farm, kind: str, addresses: str) -> None:
    """Let the ADDRESSES count as KIND no longer."""
    gone = handlers.remove_network(farm.store, kind, addresses)
    click.echo(f"Addresses from {gone.first} to {gone.last} count as {gone.kind} no longer.")


@network.command("list")
@json_option
@pass_farm
def network_list(farm: Farm, as_json: bool) -> None:
    """List the ranges of addresses, by kind.

    With --json: an array of objects with kind, first and last.
    """
    networks = handlers.farm_of(farm.store).networks
    if as_json:
        show_json([{"kind": one.kind, "first": one.first, "last": one.last} for one in networks])
        return
    rows = [(one.kind, one.first, one.last) for one in networks]
    show_table(("kind", "from", "to"), rows, "No range counts as anything yet.")


@click.group(cls=Noun)
def audit() -> None:
    """Who changed what in the directory."""


@audit.command("list")
@click.option("--subject", metavar="NAME", help="Only what happened to this address, domain or server.")
@click.option(
    "--newest", default=50, show_default=True, type=click.IntRange(1), metavar="N", help="At most so many."
)
@json_option
@pass_farm
def audit_list(farm: Farm, subject: str | None, newest: int, as_json: bool) -> None:
    """List changes, the oldest first.

    With --json: an array of objects with seq, at (seconds since 1970), actor, action, subject, before and
    after (objects) and hash.
    """
    rows = handlers.list_audit(farm.store, subject, newest)
    if as_json:
        show_json(
            [
                {
                    "seq": row.seq,
                    "at": row.at,
                    "actor": row.actor,
                    "action": row.action,
                    "subject": row.subject,
                    "before": json.loads(row.before),
                    "after": json.loads(row.after),
                    "hash": row.hash,
                }
                for row in rows
            ]
        )
        return
    shown = [
        (
            str(row.seq),
            datetime.fromtimestamp(row.at, UTC).strftime("%Y-%m-%d %H:%M:%S"),
            row.actor,
            row.action,
            row.subject,
        )
        for row in rows
    ]
    show_table(("number", "time (UTC)", "who", "did", "to"), shown, "Nothing was changed yet.")


@audit.command("check")
@pass_farm
def audit_check(farm: Farm) -> None:
    """Check that nobody changed, removed or inserted a row of the audit trail."""
    broken = handlers.check_audit(farm.store)
    if broken is not None:
        raise Refused(
            f"row {broken} does not follow from the rows before it; the trail is to be trusted up to row "
            f"{broken - 1} only, so compare the later ones with a backup"
        )
    click.echo("The audit trail is whole.")
