"""C{rvpfarm user readdress}: IM addresses decided anew."""

from __future__ import annotations

from collections.abc import Sequence

import click

from rvpfarm.admin import addresses
from rvpfarm.admin.addresses import RULES, Decision, Readdressed
from rvpfarm.admin.checks import Refused
from rvpfarm.admin.forms import Asker, dns_option, warn
from rvpfarm.admin.tables import show_table
from rvpfarm.admin.user_verbs import user
from rvpfarm.admin.verbs import Farm, pass_farm
from rvpfarm.directory.model import Account

__all__ = ["user"]

#: What is true of everybody who is readdressed.
_STAYS = (
    "Public URLs, homes, sign-in names and passwords stay; messages to the old form still arrive, and nobody "
    "else can get it."
)


@user.command()
@click.argument("who", nargs=-1, metavar="[ADDRESS]...")
@click.option("--all", "everybody", is_flag=True, help="All users of the farm, instead of ADDRESS.")
@click.option("--domain", metavar="NAME", help="All users of this IM domain, instead of ADDRESS.")
@click.option(
    "--form",
    "rule",
    type=click.Choice(RULES),
    help="The mail address (mail), NAME@IM-DOMAIN (im), or as the DNS says (srv).  [default: the policy "
    "address-form]",
)
@dns_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
@pass_farm
def readdress(
    farm: Farm,
    who: tuple[str, ...],
    everybody: bool,
    domain: str | None,
    rule: str | None,
    server: tuple[str, int] | None,
    yes: bool,
    dry_run: bool,
) -> None:
    """Decide the IM addresses of users anew, such as after their mail domain got its SRV record.

    Each ADDRESS is a mail address, an IM address or a name.  What a user must do to go on signing in is
    shown.  A user whose new address somebody else has keeps the old one, and the exit status is 1.
    """
    if bool(who) + everybody + (domain is not None) != 1:
        raise click.UsageError("give one of ADDRESS, --all and --domain.")
    decided = _decide(farm, who, domain, rule, server)
    forms = [(account, decision.form) for account, decision in decided]
    planned = addresses.plan_readdress(farm.store, forms)
    _show(planned, [decision.why for _, decision in decided])
    due = [
        (account, decision)
        for one, (account, decision) in zip(planned, decided, strict=True)
        if one.changes and not one.conflict
    ]
    if not (dry_run or yes) and due:
        click.confirm(f"Give {_users(len(due))} another address?", abort=True)
    if dry_run or not due:
        click.echo(f"{_users(len(due))} would get another address; nothing was changed.")
    else:
        done = [
            addresses.readdress_user(farm.store, account.address, decision.form) for account, decision in due
        ]
        planned = [one for one in planned if one.conflict] + done
        click.echo(f"{_users(len([one for one in done if not one.conflict]))} got another address.")
        click.echo(_STAYS)
    conflicts = [one.conflict for one in planned if one.conflict]
    if conflicts:
        raise Refused(
            f"{_users(len(conflicts))} kept the old address, since {'; '.join(conflicts[:3])}; "
            "readdress the holder first"
        )


def _decide(
    farm: Farm, who: tuple[str, ...], domain: str | None, rule: str | None, server: tuple[str, int] | None
) -> list[tuple[Account, Decision]]:
    """Each user, and the form that the address has to have; warnings are said once each."""
    asker = Asker(server)
    found = [
        (account, asker.decide(question))
        for account, question in addresses.users_to_readdress(farm.store, who, domain, rule)
    ]
    for decision in dict.fromkeys(decision for _, decision in found):
        warn(decision)
    return found


def _show(results: Sequence[Readdressed], reasons: Sequence[str]) -> None:
    """Who gets which address, why, and what has to be done then; nothing about those who keep theirs."""
    rows = [
        (
            one.before.address,
            one.address,
            reason,
            f"not possible: {one.conflict}" if one.conflict else one.remedy or "nothing",
        )
        for one, reason in zip(results, reasons, strict=True)
        if one.changes
    ]
    if rows:
        show_table(("IM address", "new address", "because", "to do"), rows, "")


def _users(count: int) -> str:
    """So many users, in words."""
    return f"{count} user{'' if count == 1 else 's'}"
