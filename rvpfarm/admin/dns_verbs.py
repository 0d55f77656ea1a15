"""C{rvpfarm dns}: what the DNS has to say so that clients find the farm."""

from __future__ import annotations

import click

from rvpfarm.admin import handlers
from rvpfarm.admin.dnsplan import DnsPlan, plan_dns, zone_lines
from rvpfarm.admin.tables import show_json, show_table
from rvpfarm.admin.verbs import Farm, Noun, pass_farm
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
