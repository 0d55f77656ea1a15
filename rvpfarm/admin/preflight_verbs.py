"""C{rvpfarm preflight}: is this machine fit for a server?"""

from __future__ import annotations

import socket
from pathlib import Path

import click

from rvpfarm.admin import handlers, preflight
from rvpfarm.admin.checks import Refused
from rvpfarm.admin.doctor import gather
from rvpfarm.admin.preflight import FAILED, OK, SKIPPED, Result
from rvpfarm.admin.tables import show_json, show_table
from rvpfarm.admin.verbs import Farm, Verb, json_option, pass_farm
from rvpfarm.directory.model import POLICIES, DirectoryUnavailable

_PORT = click.IntRange(1, 65535)


@click.command("preflight", cls=Verb)
@click.option(
    "--role",
    type=click.Choice(("router", "home")),
    default="router",
    show_default=True,
    help="What it shall be.",
)
@click.option(
    "--host", metavar="FQDN", help="The name that the server shall have.  [default: of this machine]"
)
@click.option("--address", default="", metavar="IP", help="Where it shall listen.  [default: everywhere]")
@click.option("--port", default=80, show_default=True, type=_PORT, help="For clients.")
@click.option("--link-port", default=8081, show_default=True, type=_PORT, help="For farm members; of a home.")
@click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("/var/lib/rvpfarm"),
    show_default=True,
    help="Where the state shall be; of a home.",
)
@click.option(
    "--timeout",
    "seconds",
    default=3.0,
    show_default=True,
    type=click.FloatRange(0.1, 60),
    help="For each process of the farm.",
)
@json_option
@pass_farm
@click.pass_context
def preflight_verb(
    context: click.Context,
    farm: Farm,
    role: str,
    host: str | None,
    address: str,
    port: int,
    link_port: int,
    state_dir: Path,
    seconds: float,
    as_json: bool,
) -> None:
    """Examine this machine before a server is installed on it; the exit status is 1 if it is not fit.

    Run it as the user that the server will be.  With --directory before the noun it also sees that the
    directory can be reached, and compares the clocks.

    With --json: an array of objects with name, state (ok, warning, failed or skipped), found and remedy.
    """
    directory, connections, skews = _look_at_directory(farm, seconds)
    results = [
        preflight.check_python(),
        preflight.check_modules(),
        preflight.check_port(address, port, "--port"),
        *([preflight.check_port(address, link_port, "--link-port")] if role == "home" else []),
        preflight.check_reuseport(),
        preflight.check_ipv6(),
        preflight.check_files(connections),
        preflight.check_clock(skews=skews),
        preflight.check_name(host or _own_name()),
        *([preflight.check_disk(state_dir), preflight.check_fsync(state_dir)] if role == "home" else []),
        directory,
        preflight.check_key(_key_file(farm)),
    ]
    if as_json:
        show_json(
            [
                {"name": one.name, "state": one.state, "found": one.found, "remedy": one.remedy}
                for one in results
            ]
        )
    else:
        rows = [(one.name, one.state, one.found, one.remedy) for one in results]
        show_table(("what", "state", "found", "remedy"), rows, "")
        bad = sum(one.state == FAILED for one in results)
        click.echo()
        click.echo(
            f"{bad} of {len(results)} would keep the server from working." if bad else "Fit for a server."
        )
    if any(one.state == FAILED for one in results):
        context.exit(1)


def _look_at_directory(farm: Farm, seconds: float) -> tuple[Result, int, list[float]]:
    """Whether the directory answers, the connections it allows, and by how much other clocks are ahead."""
    usual = int(POLICIES["max-connections"])
    try:
        settings = handlers.farm_of(farm.store)
    except click.UsageError:
        what = "nobody said where it is; give --directory before the noun"
        return Result("directory", SKIPPED, what), usual, []
    except (Refused, DirectoryUnavailable) as problem:
        remedy = "open the way to it, or: rvpfarm --directory URL init"
        return Result("directory", FAILED, str(problem), remedy), usual, []
    report, _, _ = gather.look_at_processes(settings, seconds)
    moment = gather.now()
    skews = [
        server.page.time - moment
        for server in report.servers
        if server.page is not None and server.page.time is not None
    ]
    found = f"it answers: {len(settings.homes)} homes, {len(settings.routers)} routers"
    return Result("directory", OK, found), settings.number("max-connections"), skews


def _key_file(farm: Farm) -> Path | None:
    try:
        return farm.key_file
    except click.UsageError:
        return None


def _own_name() -> str:
    return socket.getfqdn()
