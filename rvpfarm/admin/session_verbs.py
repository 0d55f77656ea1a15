"""C{rvpfarm session list|kill}: who is signed in, and ending it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime

import click

from rvpfarm.admin import sessions
from rvpfarm.admin.sessions import ANSWER_SECONDS, SessionView
from rvpfarm.admin.tables import show_json, show_table
from rvpfarm.admin.verbs import Farm, Noun, dry_run_option, json_option, pass_farm

#: How long each home has.
timeout_option = click.option(
    "--timeout",
    default=ANSWER_SECONDS,
    show_default=True,
    type=click.FloatRange(0.1, 600),
    metavar="SECONDS",
    help="How long each home has for its whole answer.",
)


@click.group(cls=Noun)
def session() -> None:
    """Sessions: where users are signed in."""


@session.command("list")
@click.option("--user", metavar="ADDRESS", help="Only this user.")
@click.option("--home", metavar="NAME", help="Only at this home.")
@timeout_option
@json_option
@click.pass_context
@pass_farm
def session_list(
    farm: Farm, context: click.Context, user: str | None, home: str | None, timeout: float, as_json: bool
) -> None:
    """List who is signed in and where, asked of all running homes at once.

    Exit status: 0 all homes answered, 1 one did not, so that its sessions are missing.

    With --json: an object with sessions and silent.  sessions is an array of objects with address, home
    (name), state (what the place shows; empty when it has shown nothing), view (its number, or null), login
    (the number of its subscription; null when it cannot be told anything), call_back, peer (the address it
    called from), agent (what the client calls itself), since (seconds since 1970; null when the home has
    restarted since), login_seconds and view_seconds (how long each is still held, or null), line (how it is
    with the call-back: "ok", "waiting", "retrying" or "dead") and waiting (how much waits for it).  silent is
    an array of objects with home and reason.
    """
    found = sessions.list_sessions(farm.store, user, home, seconds=timeout)
    if as_json:
        show_json(
            {
                "sessions": [session_record(view) for view in found.sessions],
                "silent": [{"home": name, "reason": why} for name, why in sorted(found.silent.items())],
            }
        )
    else:
        show_sessions(found.sessions)
    tell_silence(context, found.silent)


@session.command("kill")
@click.argument("user")
@click.option("--view", type=click.IntRange(1), metavar="NUMBER", help="Only the session of this view.")
@timeout_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@dry_run_option
@pass_farm
def session_kill(farm: Farm, user: str, view: int | None, timeout: float, yes: bool, dry_run: bool) -> None:
    """End the sessions of USER at once: nothing more is told there, and watchers see USER go.

    The client may sign in again; "rvpfarm user disable" keeps somebody out.
    """
    if dry_run or not yes:
        planned = sessions.kill_sessions(farm.store, user, view, dry_run=True, seconds=timeout)
        show_sessions(planned.sessions)
        if dry_run:
            click.echo(
                f"Would end {_count(planned.sessions)} of {planned.account.address}; nothing was changed."
            )
            return
        click.confirm(f"End {_count(planned.sessions)} of {planned.account.address}?", abort=True)
    done = sessions.kill_sessions(farm.store, user, view, seconds=timeout)
    click.echo(f"Ended {_count(done.sessions)} of {done.account.address} at home {done.home.name}.")


def show_sessions(views: Sequence[SessionView]) -> None:
    """The sessions for people."""
    rows = [
        (
            view.address,
            view.home,
            "" if view.session.view is None else str(view.session.view),
            view.session.state or "no state",
            _call_back(view),
            _when(view.session.since),
            _left(view),
            view.session.agent,
        )
        for view in views
    ]
    titles = ("user", "home", "view", "state", "told at", "since", "lease left", "client")
    show_table(titles, rows, "Nobody is signed in.")


def session_record(view: SessionView) -> dict[str, object]:
    """One session for C{--json}."""
    record = asdict(view.session)
    del record["user"]
    return {**record, "address": view.address, "home": view.home}


def tell_silence(context: click.Context, silent: Mapping[str, str]) -> None:
    """Say which homes did not answer, and end with status 1 if there are any."""
    for name, why in sorted(silent.items()):
        click.echo(f"rvpfarm: home {name} did not answer: {why}", err=True)
    if silent:
        context.exit(1)


def _call_back(view: SessionView) -> str:
    """Where the place is told, and how it is with that."""
    one = view.session
    if one.login is None:
        return "nowhere: it is not logged in"
    if one.line == "ok":
        return one.call_back
    return f"{one.call_back} ({one.line}, {one.waiting} waiting)"


def _when(since: float | None) -> str:
    if since is None:
        return "before the home's start"
    return datetime.fromtimestamp(since, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _left(view: SessionView) -> str:
    """How long login and state are held."""
    one = view.session
    spans = [
        f"{name} {seconds // 60} min" if seconds >= 120 else f"{name} {seconds} s"
        for name, seconds in (("login", one.login_seconds), ("state", one.view_seconds))
        if seconds is not None
    ]
    return ", ".join(spans)


def _count(views: Sequence[SessionView]) -> str:
    return f"{len(views)} session{'' if len(views) == 1 else 's'}"
