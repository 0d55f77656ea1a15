"""C{rvpfarm ldap}: users that come from LDAP."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, replace

import click

from rvpfarm.admin.checks import Refused
from rvpfarm.admin.exchange import plan_import
from rvpfarm.admin.ldap import half_filled, ldap_of, set_ldap, test_user, unset_ldap
from rvpfarm.admin.tables import show_facts, show_json, show_table
from rvpfarm.admin.verbs import Farm, Noun, Verb, dry_run_option, json_option, pass_farm
from rvpfarm.directory.ldapsettings import MEMBERSHIPS, PROFILES, BadSettings, LdapSettings, begin


@click.group(cls=Noun)
def ldap() -> None:
    """Users out of OpenLDAP or Active Directory; everything else stays in the farm's own directory."""


@ldap.command("set")
@click.option("--profile", type=click.Choice(tuple(PROFILES)), help="What kind of directory it is.")
@click.option(
    "--server",
    "servers",
    multiple=True,
    metavar="URL",
    help="Where to ask: ldaps://HOST or ldap://HOST; several.",
)
@click.option("--base", metavar="DN", help="Below which users are.")
@click.option("--bind-dn", metavar="DN", help="Who reads; empty for nobody.")
@click.option("--password-stdin", "from_stdin", is_flag=True, help="Read its password from standard input.")
@click.option("--starttls/--no-starttls", default=None, help="Encrypt ldap://; off for loopback only.")
@click.option("--ca-file", metavar="PATH", help="Who certifies the servers.  [default: the system's]")
@click.option("--filter", "person_filter", metavar="FILTER", help="What every user's entry has to meet.")
@click.option("--alias", metavar="ATTRIBUTE", help="The name in the IM address.")
@click.option("--login", "logins", multiple=True, metavar="ATTRIBUTE", help="Further login names; several.")
@click.option("--mail", metavar="ATTRIBUTE", help="The mail address.")
@click.option("--display-name", metavar="ATTRIBUTE", help="What others see.")
@click.option("--id", "unique_id", metavar="ATTRIBUTE", help="What never changes of an entry.")
@click.option(
    "--group",
    "groups",
    multiple=True,
    metavar="DN",
    help="Only its members; several, or empty.",
)
@click.option("--membership", type=click.Choice(MEMBERSHIPS), help="How a member is told.")
@click.option("--automatic/--no-automatic", default=None, help="Enable whoever may use it at first sight.")
@click.option("--domain", metavar="NAME", help="The IM domain of whom the mail address does not tell it.")
@click.option("--config-base", metavar="DN", help="Below which Exchange keeps its settings.")
@click.option("--deadline", "deadline_seconds", type=click.FloatRange(0.5, 60), help="Seconds a question.")
@click.option(
    "--refresh",
    "refresh_seconds",
    type=click.FloatRange(5, 86400),
    help="Seconds until asked anew.",
)
@dry_run_option
@pass_farm
def ldap_set(
    farm: Farm,
    /,
    profile: str | None,
    servers: tuple[str, ...],
    from_stdin: bool,
    dry_run: bool,
    **given: object,
) -> None:
    """Have users come from LDAP, or change how; what is not given stays.

    Every process of the farm goes by it within seconds.  Users who have a local record that is tied to no
    entry are not affected.
    """
    known = ldap_of(farm.store)
    if profile is None and known is None:
        raise click.UsageError(f"what kind of directory is it? Give --profile, one of {', '.join(PROFILES)}.")
    settings = known
    if settings is None or (profile is not None and profile != settings.profile):
        try:
            settings = begin(profile or "", servers or (known.servers if known else ()))
        except BadSettings as problem:
            raise Refused(str(problem)) from None
    changes: dict[str, object] = {name: value for name, value in given.items() if value not in (None, ())}
    if servers:
        changes["servers"] = servers
    if changes.get("groups") == ("",):
        changes["groups"] = ()
    # the options are called as the fields are, and are of their types
    settings = replace(settings, **changes)  # type: ignore[arg-type]
    password = sys.stdin.readline().rstrip("\r\n") if from_stdin else None
    made = set_ldap(farm.store, settings, password, dry_run=dry_run)
    if dry_run:
        click.echo("These settings could be used; nothing was changed.")
    else:
        click.echo('Users come from LDAP now; "rvpfarm ldap test USER" shows how one is found.')
    show_facts(_facts(made))


@ldap.command("show")
@json_option
@pass_farm
def ldap_show(farm: Farm, as_json: bool) -> None:
    """Show the settings; never the password.

    With --json: an object with the fields of the settings and password (true when there is one), or null.
    """
    settings = ldap_of(farm.store)
    if as_json:
        show_json(None if settings is None else _record(settings))
        return
    if settings is None:
        click.echo('Users do not come from LDAP; "rvpfarm ldap set" makes them.')
        return
    show_facts(_facts(settings))


@ldap.command("unset")
@click.option("--yes", is_flag=True, help="Do not ask.")
@dry_run_option
@pass_farm
def ldap_unset(farm: Farm, yes: bool, dry_run: bool) -> None:
    """Have users not come from LDAP any longer; those with local records stay, with what is kept for them."""
    if dry_run:
        click.echo("Users would not come from LDAP any longer; nothing was changed.")
        return
    if not yes:
        click.confirm("Have users not come from LDAP any longer?", abort=True)
    unset_ldap(farm.store)
    click.echo("Users do not come from LDAP any longer.")


@ldap.command("test", cls=Verb)
@click.argument("user")
@json_option
@pass_farm
def ldap_test(farm: Farm, user: str, as_json: bool) -> None:
    """Find USER as the servers of the farm do, and show every step.

    With --json: an array of objects with step, ok and text.  Exit status 1 when the user cannot use it.
    """
    steps = list(test_user(farm.store, user))
    if as_json:
        show_json([{"step": one.name, "ok": one.good, "text": one.text} for one in steps])
    else:
        rows = [(one.name, "ok" if one.good else "NO", one.text) for one in steps]
        show_table(("step", "", "what came of it"), rows, "Nothing was done.")
    if not steps[-1].good:
        sys.exit(1)


@ldap.command("faults")
@json_option
@pass_farm
def ldap_faults(farm: Farm, as_json: bool) -> None:
    """List the records that Exchange left half filled, or that do not fit the farm (D05).

    With --json: an array of objects with dn and fault.
    """
    found = half_filled(farm.store)
    if as_json:
        show_json([{"dn": one.dn, "fault": one.sentence} for one in found])
        return
    rows = [(one.dn, one.sentence) for one in found]
    show_table(("entry", "what is wrong"), rows, "Every record can be served.")


@ldap.command("import-settings")
@click.option("--config-base", default="", metavar="DN", help="Below which Exchange keeps its settings.")
@json_option
@pass_farm
def ldap_import(farm: Farm, config_base: str, as_json: bool) -> None:
    """Print the commands that give this farm Exchange's servers and networks; nothing is changed.

    With --json: an array of objects with command (may be empty) and why.
    """
    plan = plan_import(farm.store, config_base)
    if as_json:
        show_json([asdict(line) for line in plan])
        return
    for line in plan:
        click.echo(f"{line.command}  # {line.why}" if line.command else f"# {line.why}")
    if not plan:
        click.echo("# Exchange has no instant messaging settings there; give --config-base another DN.")


def _record(settings: LdapSettings) -> Mapping[str, object]:
    """Settings for C{--json}, with everything but the sealed password."""
    record = asdict(settings)
    record["password"] = bool(record.pop("sealed"))
    return record


def _facts(settings: LdapSettings) -> dict[str, str]:
    """Settings for people."""
    facts = {}
    for name, value in _record(settings).items():
        if isinstance(value, tuple):
            shown = "; ".join(value)
        elif isinstance(value, bool):
            shown = "yes" if value else "no"
        else:
            shown = f"{value:g}" if isinstance(value, float) else str(value)
        facts[name.replace("_", " ").capitalize()] = shown or "none"
    return facts
