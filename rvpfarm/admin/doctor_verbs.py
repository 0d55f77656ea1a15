"""C{rvpfarm doctor}: what is wrong with the farm, and what mends it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from rvpfarm.admin import handlers
from rvpfarm.admin.checks import Refused
from rvpfarm.admin.doctor import gather, table
from rvpfarm.admin.doctor.dnsview import DnsView
from rvpfarm.admin.doctor.evidence import Evidence, Probe
from rvpfarm.admin.doctor.figures import Figures
from rvpfarm.admin.doctor.journey import Journey
from rvpfarm.admin.doctor_shows import findings_record, show_findings
from rvpfarm.admin.forms import DNS_SERVER
from rvpfarm.admin.status import Report
from rvpfarm.admin.tables import show_json, show_table
from rvpfarm.admin.verbs import Failed, Farm, Noun, json_option, pass_farm
from rvpfarm.directory.model import DirectoryUnavailable


class _Doctor(Noun):
    """Examines without a verb; and C{prepare}."""

    def invoke(self, ctx: click.Context) -> object:
        """Run it, and say refusals in one sentence as every verb does."""
        try:
            return super().invoke(ctx)
        except (Refused, DirectoryUnavailable) as problem:
            raise Failed(ctx.command_path, str(problem)) from problem


@click.group(cls=_Doctor, invoke_without_command=True)
@click.option(
    "--rule", "ids", multiple=True, metavar="ID", help="Only this rule, such as D05; several may be given."
)
@click.option("--list", "only_list", is_flag=True, help="List the rules, and examine nothing.")
@click.option(
    "--end-to-end",
    is_flag=True,
    help="Also walk through the farm as a client: log probe users in, and send from each home to each.",
)
@click.option(
    "--probe-file",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="RVPFARM_PROBE_FILE",
    show_envvar=True,
    metavar="PATH",
    help='The probe users, as "rvpfarm doctor prepare" wrote them.',
)
@click.option(
    "--authoritative",
    multiple=True,
    type=DNS_SERVER,
    metavar="ADDRESS:PORT",
    help="A server that holds the zones.",
)
@click.option(
    "--dns",
    "resolvers",
    multiple=True,
    type=DNS_SERVER,
    envvar="RVPFARM_DNS",
    show_envvar=True,
    metavar="ADDRESS:PORT",
    help="A resolver as clients use it.  [default: those of this machine]",
)
@click.option("--no-dns", is_flag=True, help="Ask no DNS server.")
@click.option(
    "--timeout",
    "seconds",
    default=3.0,
    show_default=True,
    type=click.FloatRange(0.1, 60),
    metavar="SECONDS",
    help="How long each process and DNS server has to answer.",
)
@json_option
@pass_farm
@click.pass_context
def doctor(
    context: click.Context,
    farm: Farm,
    ids: tuple[str, ...],
    only_list: bool,
    end_to_end: bool,
    probe_file: Path | None,
    authoritative: tuple[tuple[str, int], ...],
    resolvers: tuple[tuple[str, int], ...],
    no_dns: bool,
    seconds: float,
    as_json: bool,
) -> None:
    """Find what is wrong with the farm: the directory, the DNS, and what runs.  It changes nothing.

    Exit status: 0 nothing found, 1 something found, 2 wrong usage.

    With --json: an object with well, rules (array of ids that were examined), findings (array of objects with
    rule, severity, what, why and remedy) and skipped (array of sentences).
    """
    if context.invoked_subcommand is not None:
        return
    rules = table.chosen(ids)
    if only_list:
        _list(as_json)
        return
    needs = table.needs_of(rules)
    skipped: list[str] = []
    settings = handlers.farm_of(farm.store)
    view: DnsView | None = None
    report: Report | None = None
    figures: Mapping[str, Figures] = {}
    dumb: tuple[str, ...] = ()
    probes: tuple[Probe, ...] = ()
    accounts = gather.look_at_accounts(farm.store)
    if table.DNS in needs and not no_dns:
        masters = gather.servers_of(authoritative, authoritative=True)
        view = gather.look_at_dns(
            settings, masters, gather.servers_of(resolvers, authoritative=False), seconds
        )
        if not view.said:
            view = None
            skipped.append("the DNS: this machine has no DNS server; give --dns ADDRESS:PORT")
    elif table.DNS in needs:
        skipped.append("the DNS: --no-dns was given")
    if table.ROUTERS in needs:
        probes = gather.look_at_routers(settings, view, seconds)
    if table.PROCESSES in needs:
        report, figures, dumb = gather.look_at_processes(settings, seconds)
    journey: Journey | None = None
    if end_to_end:
        from rvpfarm.admin.doctor import travelling  # late: the client's library takes its time

        resolver = resolvers[0] if resolvers else None
        journey = travelling.travel(farm.store, settings, probe_file, resolver, seconds)
        skipped += journey.skipped
    elif table.JOURNEY in needs and ids:
        skipped.append("the journey through the farm: give --end-to-end")
    evidence = Evidence(settings, accounts, view, report, figures, dumb, probes, journey, gather.now())
    found = table.examine(evidence, rules)
    if as_json:
        show_json(findings_record(found, rules, skipped))
    else:
        for sentence in skipped:
            click.echo(f"rvpfarm: not examined: {sentence}", err=True)
        if journey is not None:
            _show_journey(journey)
        show_findings(found, f"Examined {len(rules)} rules: all is well.")
    if found:
        context.exit(1)


@doctor.command("prepare")
@click.option(
    "--probe-file",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="RVPFARM_PROBE_FILE",
    show_envvar=True,
    metavar="PATH",
    help="Where to write the probe users with their passwords, for nobody else to read.",
)
@click.option("--domain", metavar="NAME", help="The IM domain to make them in.  [default: the first]")
@pass_farm
def prepare(farm: Farm, probe_file: Path, domain: str | None) -> None:
    """Make a probe user without any rights on each home that has none, for --end-to-end."""
    from rvpfarm.admin.doctor import travelling

    made, kept = travelling.prepare(farm.store, probe_file, domain)
    click.echo(f"Made {made} probe users, kept {kept}; {probe_file} has their passwords.")


def _list(as_json: bool) -> None:
    rows = [
        *((rule.id, rule.title, ", ".join(rule.needs)) for rule in table.RULES.values()),
        *((id, f"does not apply: {why}", "") for id, why in table.NOT_APPLICABLE.items()),
    ]
    rows.sort()
    if as_json:
        show_json([{"rule": id, "title": title, "needs": needs} for id, title, needs in rows])
    else:
        show_table(("rule", "what", "looks at"), rows, "There are no rules.")


def _show_journey(journey: Journey) -> None:
    rows = [
        (step.rule, step.what, step.trouble or "well", f"{step.seconds * 1000:.0f} ms")
        for step in journey.steps
    ]
    show_table(("rule", "tried to", "outcome", "time"), rows, "Nothing could be tried.")
    click.echo()
