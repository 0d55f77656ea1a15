"""C{rvpfarm domain}: IM domains, the mail domains they serve, and their further names."""

from __future__ import annotations

import click

from rvpfarm.admin import handlers
from rvpfarm.admin.tables import domain_record, show_json, show_table
from rvpfarm.admin.verbs import Farm, Noun, dry_run_option, json_option, pass_farm, yes_option


@click.group(cls=Noun)
def domain() -> None:
    """IM domains: the DNS names that stand in people's URLs."""


@domain.command("add")
@click.argument("name")
@click.option(
    "--mail-domain",
    "mail_domains",
    multiple=True,
    metavar="NAME",
    help="A mail domain it serves, so that IM addresses equal mail addresses; the primary one first.",
)
@click.option(
    "--alias", "aliases", multiple=True, metavar="HOST", help="A further host name that means this domain."
)
@click.option(
    "--netbios", default="", metavar="NAME", help="What old clients put before the backslash at login."
)
@pass_farm
def domain_add(
    farm: Farm, name: str, mail_domains: tuple[str, ...], aliases: tuple[str, ...], netbios: str
) -> None:
    """Add the IM domain NAME, such as im.example.com."""
    made = handlers.add_domain(farm.store, name, mail_domains, aliases, netbios)
    click.echo(f"Added the IM domain {made.name}.")
    if made.mail_domains:
        mail = made.mail_domains[0]
        click.echo(
            f"Users are addressed as NAME@{mail} if the DNS has _rvp._tcp.{mail} when they are enabled "
            f'("rvpfarm dns plan"), else as NAME@{made.name}; the policy address-form may decide otherwise.'
        )
    else:
        click.echo(f"Users are addressed as NAME@{made.name}; no mail domain was given (--mail-domain).")


@domain.command("list")
@json_option
@pass_farm
def domain_list(farm: Farm, as_json: bool) -> None:
    """List the IM domains, by name.

    With --json: an array of objects with name, mail_domains (array, the primary one first), aliases (array)
    and netbios.
    """
    domains = handlers.farm_of(farm.store).domains.values()
    if as_json:
        show_json([domain_record(one) for one in domains])
        return
    rows = [(one.name, " ".join(one.mail_domains), " ".join(one.aliases), one.netbios) for one in domains]
    show_table(("IM domain", "mail domains", "aliases", "NetBIOS"), rows, "There is no IM domain yet.")


@domain.group("alias", cls=Noun)
def domain_alias() -> None:
    """Further host names that mean an IM domain."""


@domain_alias.command("add")
@click.argument("name", metavar="DOMAIN")
@click.argument("host")
@dry_run_option
@pass_farm
def alias_add(farm: Farm, name: str, host: str, dry_run: bool) -> None:
    """Let HOST mean the IM domain DOMAIN, too."""
    done = handlers.add_alias(farm.store, name, host, dry_run=dry_run)
    if dry_run:
        click.echo(f"{done.name} would mean {done.domain.name}, too; nothing was changed.")
        return
    click.echo(f"{done.name} means {done.domain.name}, too.")
    if "." in done.name:
        click.echo('"rvpfarm dns plan" shows the address records that it needs.')
    else:
        click.echo("It has no dot: clients find it by their own search list or hosts file only.")


@domain_alias.command("remove")
@click.argument("name", metavar="DOMAIN")
@click.argument("host")
@yes_option
@dry_run_option
@pass_farm
def alias_remove(farm: Farm, name: str, host: str, yes: bool, dry_run: bool) -> None:
    """Let HOST mean the IM domain DOMAIN no longer; who asks for it is answered 404 then."""
    if not (yes or dry_run):
        planned = handlers.remove_alias(farm.store, name, host, dry_run=True)
        click.confirm(f"Let {planned.name} mean {planned.domain.name} no longer?", abort=True)
    done = handlers.remove_alias(farm.store, name, host, dry_run=dry_run)
    if dry_run:
        click.echo(f"{done.name} would mean {done.domain.name} no longer; nothing was changed.")
        return
    click.echo(f"{done.name} means {done.domain.name} no longer; take its address records out of the DNS.")


@domain.group("mail", cls=Noun)
def domain_mail() -> None:
    """The mail domains that an IM domain serves."""


@domain_mail.command("add")
@click.argument("name", metavar="DOMAIN")
@click.argument("mail_domain", metavar="MAILDOMAIN")
@click.option("--primary", is_flag=True, help="Put it before the others: new users are addressed there.")
@dry_run_option
@pass_farm
def mail_add(farm: Farm, name: str, mail_domain: str, primary: bool, dry_run: bool) -> None:
    """Let the IM domain DOMAIN serve the mail domain MAILDOMAIN, too."""
    done = handlers.add_mail_domain(farm.store, name, mail_domain, primary=primary, dry_run=dry_run)
    served = ", ".join(done.domain.mail_domains)
    if dry_run:
        click.echo(f"{done.domain.name} would serve {served}; nothing was changed.")
    else:
        click.echo(f"{done.domain.name} serves {served}.")
        click.echo(f'"rvpfarm dns plan" shows the SRV record that {done.name} needs.')
    if done.users:
        click.echo(
            f"Digest knows NAME@{done.name} as sign-in name of whoever gets a new password from then on; "
            f"the {_users(done.users)} with one sign in as before."
        )


@domain_mail.command("remove")
@click.argument("name", metavar="DOMAIN")
@click.argument("mail_domain", metavar="MAILDOMAIN")
@click.option("--yes", "force", is_flag=True, help="Also when users are addressed there.")
@dry_run_option
@pass_farm
def mail_remove(farm: Farm, name: str, mail_domain: str, force: bool, dry_run: bool) -> None:
    """Let the IM domain DOMAIN serve the mail domain MAILDOMAIN no longer.

    Nobody signs in or is found by an address there any more, and another IM domain may serve it.
    """
    done = handlers.remove_mail_domain(farm.store, name, mail_domain, force=force, dry_run=dry_run)
    if dry_run:
        click.echo(f"{done.domain.name} would serve {done.name} no longer; nothing was changed.")
    else:
        click.echo(f"{done.domain.name} serves {done.name} no longer; take its SRV record out of the DNS.")
    if done.users:
        click.echo(f"Nobody {'would find' if dry_run else 'finds'} the {_users(done.users)} addressed there.")


def _users(count: int) -> str:
    """So many users, in words."""
    return f"{count} user{'' if count == 1 else 's'}"
