"""C{rvpfarm dns}: what the DNS has to say so that clients find the farm."""

from __future__ import annotations

from pathlib import Path

import click

from rvpfarm.admin import handlers, publishing
from rvpfarm.admin.checks import Refused
from rvpfarm.admin.dnsplan import DnsPlan, plan_dns, zone_lines
from rvpfarm.admin.doctor import gather, table
from rvpfarm.admin.doctor.evidence import Accounts, Evidence
from rvpfarm.admin.doctor_shows import findings_record, show_findings
from rvpfarm.admin.forms import DNS_SERVER
from rvpfarm.admin.tables import show_json, show_table
from rvpfarm.admin.verbs import Farm, Noun, dry_run_option, json_option, pass_farm
from rvpfarm.discovery.update import change_lines
from rvpfarm.discovery.zone import TTL


@click.group(cls=Noun)
def dns() -> None:
    """The DNS records by which clients find the farm."""


@dns.command("plan")
@click.option("--domain", metavar="NAME", help="Only this IM domain, and the servers.")
@click.option(
    "--format",
    "shape",
    type=click.Choice(("zone", "table", "json")),
    default="zone",
    show_default=True,
    help="As lines for a zone file, a table, or JSON for programs.",
)
@pass_farm
def plan(farm: Farm, domain: str | None, shape: str) -> None:
    """Show the exact records to publish, whoever keeps the zones; rvp-dns serves the same.

    Draining routers are left out.  What is left out, and what is probably wrong, is said in comments of the
    zone format, else on standard error.

    With --format json: an object with ttl (seconds), records (array of objects with zone, which is a guess,
    name, ttl, type and data), left_out (array of objects with what and why) and warnings (array of objects
    with rule and text).
    """
    made = plan_dns(handlers.farm_of(farm.store), domain)
    if shape == "zone":
        for line in zone_lines(made):
            click.echo(line)
        return
    if shape == "json":
        show_json(_record(made))
    else:
        rows = [
            (record.name, str(record.ttl), record.type, record.data)
            for found in made.zones.values()
            for record in found
        ]
        show_table(("name", "TTL", "type", "data"), rows, "There is nothing to publish yet.")
    for one in made.left_out:
        click.echo(f"rvpfarm: left out: {one.what}: {one.why}", err=True)
    for problem in made.problems:
        click.echo(f"rvpfarm: warning: {problem.text} ({problem.rule})", err=True)


#: The rules that look at the DNS.
DNS_RULES = ("D01", "D02", "D16", "D20", "D21", "D22", "D23", "D32")

_SECONDS = click.option(
    "--timeout",
    "seconds",
    default=3.0,
    show_default=True,
    type=click.FloatRange(0.1, 60),
    metavar="SECONDS",
    help="How long each DNS server and router has to answer.",
)


@dns.command("check")
@click.option(
    "--authoritative",
    multiple=True,
    type=DNS_SERVER,
    metavar="ADDRESS:PORT",
    help="A server that holds the zones; several may be given.  [default: found by NS records]",
)
@click.option(
    "--dns",
    "resolvers",
    multiple=True,
    type=DNS_SERVER,
    metavar="ADDRESS:PORT",
    help="A resolver as clients use it; several may be given.  [default: those of this machine]",
)
@click.option(
    "--probe/--no-probe", default=True, help="Ask the routers, too, whether they serve the domains."
)
@_SECONDS
@json_option
@pass_farm
@click.pass_context
def check(
    context: click.Context,
    farm: Farm,
    authoritative: tuple[tuple[str, int], ...],
    resolvers: tuple[tuple[str, int], ...],
    probe: bool,
    seconds: float,
    as_json: bool,
) -> None:
    """Compare what DNS servers say with the directory; the exit status is 1 if anything is wrong.

    With --json: as "rvpfarm doctor --json".
    """
    settings = handlers.farm_of(farm.store)
    view = gather.look_at_dns(
        settings,
        gather.servers_of(authoritative, authoritative=True),
        gather.servers_of(resolvers, authoritative=False),
        seconds,
    )
    if not view.said:
        raise Refused("there is no DNS server to ask; give --dns or --authoritative ADDRESS:PORT")
    probes = gather.look_at_routers(settings, view, seconds) if probe else ()
    accounts = gather.look_at_accounts(farm.store) if settings.domains else Accounts()
    rules = table.chosen(DNS_RULES)
    evidence = Evidence(settings, accounts, dns=view, probes=probes, now=gather.now())
    found = table.examine(evidence, rules)
    if as_json:
        show_json(findings_record(found, rules, ()))
    else:
        asked = len({one.source for one in view.said})
        show_findings(found, f"{asked} DNS servers agree with the directory.")
    if found:
        context.exit(1)


@dns.command("publish")
@click.option(
    "--key-file",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="RVPFARM_TSIG_KEY_FILE",
    show_envvar=True,
    metavar="PATH",
    help="The key that signs the updates, as tsig-keygen writes it.",
)
@click.option(
    "--server",
    type=DNS_SERVER,
    metavar="ADDRESS:PORT",
    help="The server that keeps the zones.  [default: the primary by each zone's SOA record]",
)
@click.option("--zone", "zones", multiple=True, metavar="NAME", help="Only this zone; several may be given.")
@click.option(
    "--dns", "resolver", type=DNS_SERVER, metavar="ADDRESS:PORT", help="The resolver to ask for that."
)
@_SECONDS
@dry_run_option
@pass_farm
def publish(
    farm: Farm,
    key_file: Path | None,
    server: tuple[str, int] | None,
    zones: tuple[str, ...],
    resolver: tuple[str, int] | None,
    seconds: float,
    dry_run: bool,
) -> None:
    """Put the records of "rvpfarm dns plan" into the zones, by signed dynamic updates (RFC 2136).

    Only record sets of the plan are touched, and the names of routers that drain; each zone is changed as a
    whole or not at all, and not if somebody changes the same records meanwhile.  Doing it again changes
    nothing.
    """
    if key_file is None and not dry_run:
        raise click.UsageError("what signs the updates? Give --key-file, or --dry-run to see the difference.")
    key = None if key_file is None else publishing.load_key(key_file)
    plans = publishing.plan_updates(handlers.farm_of(farm.store), server, resolver, seconds, zones)
    for made in plans:
        if not made.changes:
            click.echo(f"Zone {made.zone} at {made.server}: nothing to change.")
            continue
        if not dry_run:
            publishing.publish(made, key, seconds)
        verb = "would change" if dry_run else "changed"
        count = len(made.changes)
        sets = f"{count} record set{'' if count == 1 else 's'}"
        click.echo(f"Zone {made.zone} at {made.server}: {verb} {sets}.")
        for line in change_lines(made.changes):
            click.echo(line)


def _record(made: DnsPlan) -> dict[str, object]:
    """The plan for C{--format json}."""
    return {
        "ttl": TTL,
        "records": [
            {
                "zone": zone,
                "name": record.name,
                "ttl": record.ttl,
                "type": record.type,
                "data": record.data,
            }
            for zone, found in made.zones.items()
            for record in found
        ],
        "left_out": [{"what": one.what, "why": one.why} for one in made.left_out],
        "warnings": [{"rule": one.rule, "text": one.text} for one in made.problems],
    }
