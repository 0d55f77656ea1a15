"""The administrator's command: C{rvpfarm NOUN VERB}."""

from __future__ import annotations

import os
from pathlib import Path

import click

from rvpfarm.admin import handlers
from rvpfarm.admin.admin_verbs import admin
from rvpfarm.admin.api_verbs import api
from rvpfarm.admin.broadcast_verbs import broadcast_verb
from rvpfarm.admin.completing import complete_names, completion
from rvpfarm.admin.dns_verbs import dns
from rvpfarm.admin.doctor_verbs import doctor
from rvpfarm.admin.domain_verbs import domain
from rvpfarm.admin.explain_verbs import explain_verb
from rvpfarm.admin.farm_verbs import audit
from rvpfarm.admin.key_verbs import key
from rvpfarm.admin.ldap_verbs import ldap
from rvpfarm.admin.network_verbs import network
from rvpfarm.admin.node_verbs import node
from rvpfarm.admin.pack_verbs import policy
from rvpfarm.admin.preflight_verbs import preflight_verb
from rvpfarm.admin.renaming_verbs import home, router
from rvpfarm.admin.session_verbs import session
from rvpfarm.admin.status_verbs import status
from rvpfarm.admin.verbs import Farm, Noun, pass_farm
from rvpfarm.admin.welcome_verbs import user


@click.group(cls=Noun, name="rvpfarm", context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--directory",
    envvar="RVPFARM_DIRECTORY",
    show_envvar=True,
    metavar="URL",
    help="The shared directory: sqlite:///PATH (one machine) or postgresql://HOST/DATABASE.",
)
@click.option(
    "--key-file",
    envvar="RVPFARM_KEY_FILE",
    show_envvar=True,
    metavar="PATH",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The farm key, which seals what passwords are checked by.  [default: farm.key beside SQLite's file]",
)
@click.option(
    "--api",
    envvar="RVPFARM_API",
    show_envvar=True,
    metavar="URL",
    help='The admin API to go through, for "rvpfarm api": unix:PATH or https://HOST:PORT, with the token in '
    "RVPFARM_API_TOKEN.",
)
@click.option(
    "--api-ca",
    envvar="RVPFARM_API_CA",
    show_envvar=True,
    metavar="FILE",
    help="Certificates to trust for --api.  [default: those of the system]",
)
@click.version_option(package_name="rvpfarm", prog_name="rvpfarm")
@click.pass_context
def rvpfarm(
    context: click.Context, directory: str | None, key_file: Path | None, api: str | None, api_ca: str | None
) -> None:
    """Administer a farm of RVP presence and messaging servers.

    Exit status: 0 done, 1 refused or failed (one sentence on standard error says why), 2 wrong usage.
    """
    token = os.environ.get("RVPFARM_API_TOKEN")
    context.obj = Farm(directory, key_file, api=api, token=token, authority=api_ca)
    context.call_on_close(context.obj.close)


@rvpfarm.command()
@click.option("--claim", is_flag=True, help="Take over a directory in SQLite that was moved to this machine.")
@pass_farm
def init(farm: Farm, claim: bool) -> None:
    """Make the directory and the farm key, or bring an older directory up to date.

    Running it again does no harm.  A directory in SQLite belongs to one machine, and is refused on another
    one unless claimed there; nothing may run on the former one any more.
    """
    key_file = farm.key_file
    if key_file is None:
        raise click.UsageError("where is the farm key to be? Give --key-file before the noun.")
    store, new_key = handlers.prepare(farm.url, key_file)
    try:
        done = handlers.init(store, claim=claim)
    finally:
        store.close()
    if new_key:
        click.echo(f"Made the farm key {key_file}; every machine of the farm needs a copy, and nobody else.")
    if done.claimed:
        click.echo(f"The directory belonged to the machine {done.claimed}; it belongs to this one now.")
    if done.before is None:
        click.echo(f"Made the directory {store.where} (schema {done.revision}).")
    elif done.before != done.revision:
        click.echo(f"Brought the directory {store.where} from schema {done.before} to {done.revision}.")
    else:
        click.echo(f"The directory {store.where} is up to date (schema {done.revision}).")


for noun in (
    domain,
    home,
    router,
    user,
    node,
    session,
    policy,
    network,
    dns,
    ldap,
    key,
    audit,
    status,
    doctor,
    preflight_verb,
    broadcast_verb,
    explain_verb,
    admin,
    api,
    completion,
):
    rvpfarm.add_command(noun)
complete_names(rvpfarm)


def main() -> None:
    """The console script."""
    rvpfarm(prog_name="rvpfarm")
