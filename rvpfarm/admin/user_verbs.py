"""C{rvpfarm user}: who may use instant messaging."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import click

from rvpfarm.admin import handlers
from rvpfarm.admin.addresses import IM, MAIL, Decision, question_about
from rvpfarm.admin.forms import Asker, dns_option, form_option, warn
from rvpfarm.admin.ldap import ensure_local, find_person
from rvpfarm.admin.passwords import ALLOWED, FORBIDDEN, KEEPING, PasswordState
from rvpfarm.admin.tables import show_facts, show_json, show_table, user_record, view_record
from rvpfarm.admin.verbs import Farm, Noun, json_option, pass_farm
from rvpfarm.directory.model import Account, Home

_stdin_option = click.option(
    "--password-stdin", "from_stdin", is_flag=True, help="Read the password from standard input, one line."
)
_generate_option = click.option(
    "--generate-password", "generate", is_flag=True, help="Make a password up and print it once."
)


@click.group(cls=Noun)
def user() -> None:
    """Users: enabled, they may log in and be reached."""


@user.command()
@click.argument("address")
@click.option("--home", metavar="NAME", help="The home that will own the user.  [default: the emptiest]")
@click.option("--domain", metavar="NAME", help="The IM domain.  [default: the one that serves ADDRESS]")
@click.option("--display-name", metavar="TEXT", help="What others see.  [default: the name in ADDRESS]")
@click.option("--email", metavar="ADDRESS", help="The mail address, where it is not ADDRESS.")
@form_option
@dns_option
@_stdin_option
@_generate_option
@click.option("--no-password", "without", is_flag=True, help="Set no password now.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
@pass_farm
def enable(
    farm: Farm,
    address: str,
    home: str | None,
    domain: str | None,
    display_name: str | None,
    email: str | None,
    rule: str | None,
    server: tuple[str, int] | None,
    from_stdin: bool,
    generate: bool,
    without: bool,
    dry_run: bool,
) -> None:
    """Enable the user ADDRESS, a mail address or an IM address.

    The IM address is the mail address when the DNS has the mail domain's SRV record now and it leads here,
    else NAME@IM-DOMAIN; the policy address-form, or --address-form, may decide it without the DNS.

    A disabled user comes back with the home, names and password of before, unless they are given anew.
    """
    if from_stdin + generate + without > 1:
        raise click.UsageError("give only one of --password-stdin, --generate-password and --no-password.")
    person = find_person(farm.store, address, domain)
    decision = _decide_form(farm, address, domain, rule, server)
    form = MAIL if decision is None else decision.form
    plan = handlers.plan_user(farm.store, address, home, domain, display_name, email=email, form=form)
    if dry_run:
        click.echo(f"Would enable {plan.account.address} on home {plan.home.name}; nothing was changed.")
        _show_names(plan.account, plan.home, decision)
        return
    password = None
    if from_stdin or generate or not (without or plan.returning or person):
        password = _new_password(
            from_stdin,
            generate,
            "--password-stdin, --generate-password or --no-password",
            _least(farm, plan.account),
        )
    account = handlers.enable_user(
        farm.store,
        address,
        plan.home.name,
        domain,
        display_name,
        password,
        email=email,
        form=form,
        link="" if person is None else person.unique_id,
    )
    click.echo(f"Enabled {account.address} on home {plan.home.name}.")
    _show_names(account, plan.home)
    if decision is not None and decision.form == IM and decision.said:
        click.echo(
            f'Not the mail address: {decision.why}; once it is right, "rvpfarm user readdress" makes it so.'
        )
    if generate and password is not None:
        click.echo(f"Password:    {password}  (not shown again)")
    elif person is not None:
        click.echo(f"LDAP knows the user as {person.dn}, and checks the password.")
    elif password is None and not plan.returning:
        click.echo(f'No password is set; "rvpfarm user passwd {account.address}" sets one.')


@user.command()
@click.argument("address")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
@pass_farm
def disable(farm: Farm, address: str, yes: bool, dry_run: bool) -> None:
    """Disable the user ADDRESS: no more logins, no more messages; the address stays reserved."""
    ensure_local(farm.store, address)
    view = handlers.show_user(farm.store, address)
    account = view.account
    if dry_run and account.enabled:
        click.echo(f"Would disable {account.address} on home {view.home.name}; nothing was changed.")
        return
    if account.enabled and not yes:
        click.confirm(f"Disable {account.address} ({account.display_name})?", abort=True)
    handlers.disable_user(farm.store, address)
    click.echo(f"Disabled {account.address}; the address stays reserved.")


@user.command()
@click.argument("address")
@_stdin_option
@_generate_option
@pass_farm
def passwd(farm: Farm, address: str, from_stdin: bool, generate: bool) -> None:
    """Set a new password for the user ADDRESS; without an option it is asked for."""
    if from_stdin and generate:
        raise click.UsageError("give only one of --password-stdin and --generate-password.")
    ensure_local(farm.store, address)
    view = handlers.show_user(farm.store, address)
    least = _least(farm, view.account)
    password = _new_password(from_stdin, generate, "--password-stdin or --generate-password", least)
    account = handlers.set_password(farm.store, address, password)
    click.echo(f"Set the password of {account.address}.")
    state = handlers.show_user(farm.store, account.address).password
    if state.forbidden:
        schemes = ", ".join(state.forbidden)
        click.echo(f"It does not do for {schemes}: a policy forbids to keep what they take.")
    if generate:
        click.echo(f"Password:    {password}  (not shown again)")


@user.command("policy")
@click.argument("address")
@click.argument("name", type=click.Choice(tuple(KEEPING)))
@click.argument("value", type=click.Choice((ALLOWED, FORBIDDEN, "default")))
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
@pass_farm
def policy(farm: Farm, address: str, name: str, value: str, dry_run: bool) -> None:
    """Set the policy NAME to VALUE for the user ADDRESS only; default is what counts for the domain.

    Forbidding deletes at once what is kept; allowing has no effect until the password is set anew.
    """
    dropped = handlers.change_user_policy(farm.store, address, name, value, dry_run=dry_run)
    view = handlers.show_user(farm.store, address)
    account = view.account.address
    if dry_run:
        loss = f" would lose what {', '.join(dropped)} takes" if dropped else " would lose nothing"
        click.echo(f"{account}{loss}; nothing was changed.")
        return
    click.echo(f"Policy {name} of {account} is now {value}.")
    if dropped:
        click.echo(f"Deleted what the password was checked by for {', '.join(dropped)}.")
    for command in view.password.remedy:
        click.echo(f"To do: {command}")


@user.command()
@click.argument("address")
@json_option
@pass_farm
def show(farm: Farm, address: str, as_json: bool) -> None:
    """Show the user ADDRESS: names, home, by which schemes it can sign in, and what to do about the others.

    With --json: an object with address, display_name, email, domain, home (name), enabled, public_url,
    home_url, id, key, alias, schemes (array: what verifiers are kept), password_set (seconds since 1970, or
    null), works, missing, forbidden (arrays of offered schemes), policies (object) and remedy (array of
    commands).
    """
    view = handlers.show_user(farm.store, address)
    account = view.account
    if as_json:
        show_json(view_record(view, handlers.farm_of(farm.store)))
        return
    show_facts(
        {
            "IM address": account.address,
            "Public URL": account.url,
            "Home URL": view.home_url,
            "Display name": account.display_name,
            "Mail address": account.email or "none",
            "Home": view.home.name,
            "Enabled": "yes" if account.enabled else "no",
            **_password_facts(view.password),
        }
    )


def _password_facts(state: PasswordState) -> dict[str, str]:
    """What C{user show} says of a password."""
    facts = {"Password": _since(state), "Signs in by": ", ".join(state.works) or "nothing"}
    if state.missing:
        facts["Not by"] = f"{', '.join(state.missing)}: the password was not set since they are offered"
    if state.forbidden:
        facts["Never by"] = f"{', '.join(state.forbidden)}: a policy forbids to keep what they take"
    if state.policies:
        facts["Own policies"] = ", ".join(f"{name} {value}" for name, value in state.policies.items())
    if state.remedy:
        facts["To do"] = "; then ".join(state.remedy)
    return facts


def _since(state: PasswordState) -> str:
    """When a password was set, in words."""
    if state.since is None:
        return "set, nobody knows when" if state.kept else "none"
    when = datetime.fromtimestamp(state.since, UTC).strftime("set %Y-%m-%d %H:%M:%S UTC")
    return when if state.kept else f"{when}, but nothing of it is kept"


@user.command("list")
@click.option("--domain", metavar="NAME", help="Only users of this IM domain.")
@click.option("--home", metavar="NAME", help="Only users of this home.")
@click.option(
    "--missing-verifiers",
    "lacking",
    is_flag=True,
    help="Only enabled users who cannot sign in by all that is offered until their password is set anew.",
)
@json_option
@pass_farm
def list_(farm: Farm, domain: str | None, home: str | None, lacking: bool, as_json: bool) -> None:
    """List the users, by address.

    With --json: an array of objects with address, display_name, email, domain, home (name), enabled,
    public_url and home_url; with --missing-verifiers, as of "rvpfarm user show --json".
    """
    if lacking:
        _list_lacking(farm, domain, home, as_json)
        return
    users = handlers.list_users(farm.store, domain, home)
    settings = handlers.farm_of(farm.store)
    if as_json:
        show_json([user_record(one, settings) for one in users])
        return
    rows = [
        (
            one.address,
            one.display_name,
            settings.homes[one.home].name,
            "enabled" if one.enabled else "disabled",
        )
        for one in users
    ]
    show_table(("IM address", "display name", "home", "state"), rows, "There is no user yet.")


def _list_lacking(farm: Farm, domain: str | None, home: str | None, as_json: bool) -> None:
    """List who needs a new password, and what for."""
    views = handlers.list_lacking(farm.store, domain, home)
    if as_json:
        settings = handlers.farm_of(farm.store)
        show_json([view_record(view, settings) for view in views])
        return
    rows = [
        (
            view.account.address,
            ", ".join(view.password.works) or "nothing",
            ", ".join(view.password.missing or view.password.forbidden),
            "; then ".join(view.password.remedy),
        )
        for view in views
    ]
    nothing = "Every enabled user can sign in by all that is offered and allowed."
    show_table(("IM address", "signs in by", "not by", "to do"), rows, nothing)


def _least(farm: Farm, account: Account) -> int:
    """The fewest characters of a new password of C{account}."""
    return int(handlers.farm_of(farm.store).policy("password-length", account.domain))


def _decide_form(
    farm: Farm, address: str, domain: str | None, rule: str | None, server: tuple[str, int] | None
) -> Decision | None:
    """The form of the IM address of whoever is to be enabled; C{None} for who has an address already."""
    with farm.store.read() as reading:
        question = question_about(reading, address, domain, rule)
    if question is None:
        if rule is not None:
            click.echo(
                "rvpfarm: warning: --address-form changes no address that is there; "
                '"rvpfarm user readdress" does',
                err=True,
            )
        return None
    decision = Asker(server).decide(question)
    warn(decision)
    return decision


def _show_names(account: Account, home: Home, decision: Decision | None = None) -> None:
    """The three things that the original's wizard ended with, and where the first of them comes from."""
    facts = {
        "IM address": account.address,
        "Public URL": account.url,
        "Home URL": account.physical_url(home),
    }
    if decision is not None:
        facts["Form"] = f"{decision.form}: {decision.why}"
        facts["DNS said"] = decision.said or "nothing: it was not asked"
    show_facts(facts)


def _new_password(from_stdin: bool, generate: bool, options: str, least: int) -> str:
    """The password, from wherever it is to come."""
    if generate:
        return handlers.generate_password(least)
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise click.UsageError(f"there is no terminal to ask for the password; give {options}.")
    return str(click.prompt("Password", hide_input=True, confirmation_prompt=True))
