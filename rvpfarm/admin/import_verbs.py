"""C{rvpfarm user import}: many users at once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rvpfarm.admin import handlers
from rvpfarm.admin.bulk import BATCH
from rvpfarm.admin.checks import domain_named, home_named
from rvpfarm.admin.forms import Asker, dns_option, form_option
from rvpfarm.admin.importing import Complaint, Defaults, Passwords, Report, Step, import_people
from rvpfarm.admin.people import People, read_people
from rvpfarm.admin.privacy_verbs import user
from rvpfarm.admin.tables import show_json
from rvpfarm.admin.verbs import Failed, Farm, dry_run_option, json_option, pass_farm

__all__ = ["user"]

#: So many complaints are shown; the report has them all.
SHOWN = 20

_PATH = click.Path(dir_okay=False, path_type=Path)


@user.command("import")
@click.argument("file", type=click.File("rb"), required=False)
@click.option(
    "--ldap-filter",
    "ldap_filter",
    metavar="FILTER",
    help="Instead of FILE, whoever meets it in the farm's LDAP directory, such as (department=Sales).",
)
@click.option(
    "--home", metavar="NAME", help="The home of whoever the file names none for.  [default: the emptiest]"
)
@click.option("--domain", metavar="NAME", help="The IM domain of whoever the file names none for.")
@form_option
@dns_option
@click.option(
    "--generate-password", "generate", is_flag=True, help="Make up a password for whoever has none."
)
@click.option("--passwords", type=_PATH, metavar="FILE", help="Where passwords that are made up are kept.")
@click.option(
    "--report", type=_PATH, metavar="FILE", help="A CSV file of the rows that were not done, and why."
)
@click.option(
    "--batch", default=BATCH, show_default=True, type=click.IntRange(1, 10_000), help="Users per transaction."
)
@dry_run_option
@json_option
@click.pass_context
@pass_farm
def user_import(
    farm: Farm,
    context: click.Context,
    file: BinaryIO | None,
    ldap_filter: str | None,
    home: str | None,
    domain: str | None,
    rule: str | None,
    server: tuple[str, int] | None,
    generate: bool,
    passwords: Path | None,
    report: Path | None,
    batch: int,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Enable the users of the CSV file FILE (- for standard input), or of an LDAP directory.

    The first line of FILE names the columns: address (needed; also mail), display_name (also name), home,
    domain, email and password; others are ignored.  Commas, semicolons and tabs separate; UTF-8 and UTF-16
    are read.

    Users who are enabled already stay as they are, so an import that was interrupted is simply run again.
    Exit status: 0 every row was done, 1 some were not, which are shown and in the report.

    With --json: an object with read, enabled, returned (who were disabled), present (enabled already, just
    so), without_password, unused (columns) and complaints: an array of objects with line, address, sentence
    and differs (whether it is somebody enabled already with something else).
    """
    if generate and passwords is None and not dry_run:
        raise click.UsageError("where are the passwords to be kept? Give --passwords FILE.")
    people = _people(farm, file, ldap_filter)
    settings = handlers.farm_of(farm.store)
    defaults = Defaults(
        None if home is None else home_named(settings, home).name,
        None if domain is None else domain_named(settings.domains, domain).name,
        rule,
    )
    kept = None if passwords is None or dry_run or not generate else Passwords(passwords)
    for name in people.unused:
        click.echo(f'rvpfarm: warning: the column "{name}" means nothing here and is ignored', err=True)
    with ExitStack() as stack:
        noted = None if report is None else Report(report)
        if noted is not None:
            stack.callback(noted.close)
        if kept is not None and (count := kept.take_up(farm.store)):
            click.echo(f"Took up {count} passwords of the import that was interrupted.", err=True)
        steps = import_people(
            farm.store,
            people.rows,
            Asker(server).decide,
            defaults,
            generate=generate,
            passwords=kept,
            batch=batch,
            dry_run=dry_run,
        )
        most = sys.maxsize if as_json else SHOWN
        last, complaints, count = _follow(_shown(people, steps), noted, most)
    if as_json:
        show_json(_record(last, complaints, people))
    else:
        _tell(last, complaints, count, dry_run=dry_run, report=report)
    if count:
        raise Failed(context.command_path, f"{count} rows were not done{_where(report)}")


def _people(farm: Farm, file: BinaryIO | None, ldap_filter: str | None) -> People:
    """Who is to be enabled.

    @raise click.UsageError: that is not clear.
    """
    if (file is None) == (ldap_filter is None):
        raise click.UsageError("give FILE or --ldap-filter.")
    if file is not None:
        return read_people(file.read())
    # late: its client is an extra, and takes long to load
    from rvpfarm.admin.ldapimport import people_in_ldap

    return People(people_in_ldap(farm.store, ldap_filter or ""), (), 0)


def _follow(steps: Iterable[Step], report: Report | None, most: int) -> tuple[Step, list[Complaint], int]:
    """See it through: the last step, the first complaints, and how many there are."""
    last = Step(0, 0, 0, 0, (), 0)
    first: list[Complaint] = []
    count = 0
    for step in steps:
        last = step
        count += len(step.complaints)
        first += step.complaints[: max(0, most - len(first))]
        if report is not None:
            report.add(step.complaints)
    return last, first, count


def _shown(people: People, steps: Iterable[Step]) -> Iterator[Step]:
    """The steps, with a bar on a terminal."""
    with _bar(people.lines) as advance:
        for step in steps:
            advance(step.read)
            yield step


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int], None]]:
    """What shows how far it is, if anybody looks."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    columns = (TextColumn("users"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("users", total=total or None)
        yield lambda done: progress.update(task, completed=done)


def _tell(last: Step, complaints: list[Complaint], count: int, *, dry_run: bool, report: Path | None) -> None:
    """What came of it, for people."""
    for one in complaints:
        click.echo(f"Line {one.line}: {one.address or 'nobody'}: {one.sentence}.")
    if count > len(complaints):
        click.echo(f"And {count - len(complaints)} more{_where(report) or '; --report FILE lists them all'}.")
    would = "would be " if dry_run else ""
    click.echo(
        f"{last.enabled} users {would}enabled, {last.returned} {would}enabled again, "
        f"{last.present} enabled already, {count} rows not done."
    )
    if dry_run:
        click.echo("Nothing was changed.")
    elif last.without:
        click.echo(
            f'{last.without} users have no password yet; "rvpfarm user list --missing-verifiers" shows them.'
        )


def _record(last: Step, complaints: list[Complaint], people: People) -> dict[str, object]:
    """What came of it, for programs."""
    return {
        "read": last.read,
        "enabled": last.enabled,
        "returned": last.returned,
        "present": last.present,
        "without_password": last.without,
        "unused": list(people.unused),
        "complaints": [
            {"line": one.line, "address": one.address, "sentence": one.sentence, "differs": one.differs}
            for one in complaints
        ],
    }


def _where(report: Path | None) -> str:
    return "" if report is None else f"; {report} has them"
