"""C{rvpfarm home|router|policy|audit}: what is farm-wide."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from rvpfarm.admin import handlers
from rvpfarm.admin.checks import Refused, domain_named, enumerate_names
from rvpfarm.admin.listing import list_changes, verify_audit
from rvpfarm.admin.passwords import ALLOWED, KEEPING
from rvpfarm.admin.schemas import render
from rvpfarm.admin.tables import (
    home_record,
    router_record,
    show_json,
    show_table,
)
from rvpfarm.admin.verbs import Farm, Noun, json_option, pass_farm
from rvpfarm.directory.model import POLICIES

_PORT = click.IntRange(1, 65535)
_WHEN = click.DateTime(("%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S"))
_METRICS = click.option(
    "--metrics",
    default="",
    metavar="ADDRESS:PORT",
    help='Where it shows metrics, health and status, for "rvpfarm status" and for itself.',
)


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
    rows = [(one.name, one.host, str(one.port), one.state, one.address) for one in routers]
    show_table(("router", "host", "port", "state", "address"), rows, "There is no router yet.")


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
def audit() -> None:
    """Who changed what in the directory."""


@audit.command("list")
@click.option("--subject", metavar="NAME", help="Only what happened to this address, domain or server.")
@click.option("--actor", metavar="NAME", help="Only what this one did, as the list has it.")
@click.option(
    "--action", metavar="TEXT", help='Only this, such as "user enable", or all of a noun, such as user.'
)
@click.option("--since", metavar="WHEN", type=_WHEN, help="Only from this day, or day and time, in UTC.")
@click.option(
    "--limit",
    "--newest",
    "newest",
    default=50,
    show_default=True,
    type=click.IntRange(1),
    metavar="N",
    help="At most so many, the newest.",
)
@json_option
@pass_farm
def audit_list(
    farm: Farm,
    subject: str | None,
    actor: str | None,
    action: str | None,
    since: datetime | None,
    newest: int,
    as_json: bool,
) -> None:
    """List changes, the oldest first.

    With --json: an array of objects with seq, at (seconds since 1970), actor, action, subject, before and
    after (objects) and hash.
    """
    moment = None if since is None else since.replace(tzinfo=UTC).timestamp()
    rows = list_changes(farm.store, subject, by=actor, action=action, since=moment, newest=newest)
    if as_json:
        show_json(render(rows))
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
    show_table(("number", "time (UTC)", "who", "did", "to"), shown, "Nothing was changed.")


@audit.command("verify")
@click.option(
    "--expect", metavar="HASH", help="What it printed at some time before, which was kept elsewhere."
)
@json_option
@click.pass_context
@pass_farm
def audit_verify(farm: Farm, context: click.Context, expect: str | None, as_json: bool) -> None:
    """Check that nobody changed, removed, inserted or reordered a row of the audit trail.

    It prints the hash of the newest row.  Keep that where no administrator of this farm can change it: with
    --expect it tells later whether the newest rows were removed together with what remembers them.

    With --json: an object with whole, broken (the number of the first row that does not follow, or null),
    rows (how many there are), head (the hash) and expected (true or false, or null without --expect); the
    exit status is 1 unless it is whole.
    """
    state = verify_audit(farm.store, expect)
    if as_json:
        show_json(render(state))
        if not state.whole:
            context.exit(1)
        return
    if state.broken is not None:
        raise Refused(
            f"row {state.broken} does not follow from the rows before it; the trail is to be trusted up to "
            f"row {state.broken - 1} only, so compare the later ones with a backup"
        )
    if state.expected is False:
        raise Refused(
            "no row has the expected hash: rows were removed, or this is the trail of another directory; "
            "compare it with a backup"
        )
    click.echo("The audit trail is whole.")
    click.echo(f"Rows: {state.rows}; the hash of the newest is {state.head}")
