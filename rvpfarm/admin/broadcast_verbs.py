"""C{rvpfarm broadcast}: one message to everybody who is online."""

from __future__ import annotations

import click

from rvpfarm.admin.broadcasting import RATE, Audience, broadcast, check_message, find_audience
from rvpfarm.admin.session_verbs import tell_silence, timeout_option
from rvpfarm.admin.tables import show_json, show_table
from rvpfarm.admin.verbs import Farm, Verb, dry_run_option, json_option, pass_farm
from rvpfarm.protocol.properties import STATES


@click.command("broadcast", cls=Verb)
@click.argument("text")
@click.option(
    "--from", "sender", metavar="ADDRESS", help="In whose name.  [default: the policy announce-from]"
)
@click.option("--domain", metavar="NAME", help="Only to users of this IM domain.")
@click.option("--home", metavar="NAME", help="Only to users of this home.")
@click.option("--state", "states", metavar="STATE,...", help="Only to who shows one of these states.")
@click.option(
    "--rate",
    default=RATE,
    show_default=True,
    type=click.FloatRange(0.1, 1000),
    metavar="NUMBER",
    help="Messages a second, at each home.",
)
@timeout_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@dry_run_option
@json_option
@click.pass_context
@pass_farm
def broadcast_verb(
    farm: Farm,
    context: click.Context,
    text: str,
    sender: str | None,
    domain: str | None,
    home: str | None,
    states: str | None,
    rate: float,
    timeout: float,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Send TEXT to everybody who is online, such as before an outage.

    It goes through the homes like any message, so that who has denied the sender does not get it, and each
    is counted by what became of it.  Exit status: 0 all homes answered, 1 one did not.

    With --json: an object with sender, recipients, delivered (a client has taken it), refused (the user's
    access list or client did not), gone (nobody could be reached there any more), unknown (nobody said),
    failed (the home did not take it on) and silent: an array of objects with home and reason.  With
    --dry-run the counts are 0.
    """
    check_message(text)
    wanted = _states(states)
    audience = find_audience(farm.store, sender, domain, home, wanted, seconds=timeout)
    counts = dict.fromkeys(("delivered", "refused", "gone", "unknown", "failed"), 0)
    if not as_json:
        _show(audience)
    if not dry_run and audience.size:
        if not yes:
            click.confirm(
                f"Send it to {audience.size} users as {audience.sender.address}?", abort=True, err=as_json
            )
        counts = broadcast(farm.store, text, audience, rate=rate).record()
    if as_json:
        silent = [{"home": name, "reason": why} for name, why in sorted(audience.silent.items())]
        found = {"sender": audience.sender.address, "recipients": audience.size, **counts, "silent": silent}
        show_json(found)
    elif dry_run or not audience.size:
        click.echo(f"{audience.size} users would get it; nothing was sent.")
    else:
        click.echo(", ".join(f"{count} {word}" for word, count in counts.items()) + ".")
    tell_silence(context, audience.silent)


def _states(text: str | None) -> frozenset[str]:
    """The states in a list.

    @raise click.UsageError: one is none.
    """
    wanted = frozenset(word.strip().lower() for word in (text or "").split(",") if word.strip())
    unknown = wanted - STATES
    if unknown:
        known = ", ".join(sorted(STATES))
        raise click.UsageError(f"there is no state {', '.join(sorted(unknown))}; the states are {known}.")
    return wanted


def _show(audience: Audience) -> None:
    """Who would get it, home by home."""
    rows = [(name, str(len(some))) for name, some in sorted(audience.recipients.items())]
    show_table(("home", "users"), rows, "No home answered.")
