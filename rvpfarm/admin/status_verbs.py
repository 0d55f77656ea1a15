"""C{rvpfarm status}: how the whole farm is, asked of every server at once."""

from __future__ import annotations

import click

from rvpfarm.admin.status import HomeReport, Page, Report, Server
from rvpfarm.admin.survey import survey
from rvpfarm.admin.tables import show_json, show_table
from rvpfarm.admin.verbs import Farm, Verb, json_option, pass_farm

_NONE = "There is no home or router yet."


@click.command(cls=Verb)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "--timeout",
    default=2.0,
    show_default=True,
    type=click.FloatRange(0.1, 60),
    metavar="SECONDS",
    help="How long each process has for its answer.",
)
@click.option("--role", type=click.Choice(("router", "home")), help="Ask only servers of this role.")
@json_option
@click.pass_context
@pass_farm
def status(
    farm: Farm,
    context: click.Context,
    names: tuple[str, ...],
    timeout: float,
    role: str | None,
    as_json: bool,
) -> None:
    """Show how the servers of the farm are, all of them or those called NAME.

    Each is asked where the directory says that it shows its metrics. Exit status: 0 all is well, 1 something
    is not, or cannot be found out.

    With --json: an object with well (boolean), problems (array of sentences), versions (array), servers and
    homes. servers is an array of objects with role, name, worker (a number from 0), state ("ready",
    "draining", "not ready", "no answer" or "unknown place"), reason, place, version, pid, started (seconds
    since 1970), uptime_seconds, connections, in_work, homes_up and homes_known (of a router), users_online
    (of a home) and staleness_seconds (of what it knows of the directory); what is not known is null. homes is
    an array of objects with name, disagree (boolean) and seen: an array of objects with router, state ("up",
    "down", "leaving" or "unknown"), circuit ("open" or "closed"), flapping and since_seconds.
    """
    report = survey(farm.store, names, role, timeout)
    if as_json:
        show_json(_record(report))
    else:
        _show(report)
    if report.problems:
        context.exit(1)


def _show(report: Report) -> None:
    """For people."""
    titles = ("server", "role", "state", "version", "up for", "connections", "in work", "homes up", "users")
    rows = [_row(server) for server in report.servers]
    show_table((*titles, "directory"), rows, _NONE)
    if report.homes:
        click.echo()
        show_table(("home", "as routers see it"), [(home.name, home.words) for home in report.homes], "")
    click.echo()
    if not report.problems:
        click.echo("All is well." if report.servers else "Nobody was asked.")
    for problem in report.problems:
        click.echo(f"Not well: {problem}.")


def _row(server: Server) -> tuple[str, ...]:
    """One process in the table."""
    page = server.page
    if page is None:
        return (server.title, server.role, server.words, *[""] * 7)
    up, known = _homes_up(page)
    return (
        server.title,
        server.role,
        server.words,
        page.version,
        _span(page.uptime_seconds),
        _figure(page.connections),
        _figure(page.in_work),
        f"{up} of {known}" if server.role == "router" else "",
        _figure(page.users_online),
        "" if page.staleness_seconds is None else f"{_span(page.staleness_seconds)} old",
    )


def _homes_up(page: Page) -> tuple[int, int]:
    """How many homes a router takes to be there, and how many it knows."""
    return sum(view.state in ("up", "leaving") for view in page.homes.values()), len(page.homes)


def _figure(number: int | None) -> str:
    return "" if number is None else str(number)


def _span(seconds: float | None) -> str:
    """A span of time in its two largest units."""
    if seconds is None:
        return ""
    left = max(0, int(seconds))
    if left < 60:
        return f"{left} s"
    words = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        number, left = divmod(left, size)
        if number:
            words.append(f"{number} {unit}")
    return " ".join(words[:2])


def _record(report: Report) -> dict[str, object]:
    """For programs."""
    return {
        "well": not report.problems,
        "problems": list(report.problems),
        "versions": list(report.versions),
        "servers": [_server_record(server) for server in report.servers],
        "homes": [_home_record(home) for home in report.homes],
    }


def _server_record(server: Server) -> dict[str, object]:
    page = server.page
    up, known = (None, None) if page is None or server.role != "router" else _homes_up(page)
    return {
        "role": server.role,
        "name": server.name,
        "worker": server.worker,
        "state": server.state,
        "reason": server.reason,
        "place": server.place,
        "version": page and page.version,
        "pid": page and page.pid,
        "started": page and page.started,
        "uptime_seconds": page and page.uptime_seconds,
        "connections": page and page.connections,
        "in_work": page and page.in_work,
        "homes_up": up,
        "homes_known": known,
        "users_online": page and page.users_online,
        "staleness_seconds": page and page.staleness_seconds,
    }


def _home_record(home: HomeReport) -> dict[str, object]:
    return {
        "name": home.name,
        "disagree": home.disagree,
        "seen": [
            {
                "router": router,
                "state": view.state,
                "circuit": "open" if view.open else "closed",
                "flapping": view.flapping,
                "since_seconds": view.since_seconds,
            }
            for router, view in home.views.items()
        ],
    }
