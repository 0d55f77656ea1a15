"""C{rvpfarm policy pack}: settings of clients, as files for Windows."""

from __future__ import annotations

from pathlib import Path

import click

from rvpfarm.admin import handlers
from rvpfarm.admin.checks import Refused, domain_named
from rvpfarm.admin.farm_verbs import policy
from rvpfarm.admin.policypack import choose, render_adml, render_admx, render_reg
from rvpfarm.admin.verbs import Farm, pass_farm

__all__ = ["policy"]


@policy.command("pack")
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="The folder to write to; it is made if need be.",
)
@click.option("--domain", metavar="NAME", help="Whose NetBIOS name is set.  [default: the only one there is]")
@click.option(
    "--set", "texts", multiple=True, metavar="NAME=VALUE", help="Another value; NAME= leaves it out."
)
@pass_farm
def policy_pack(farm: Farm, out: Path, domain: str | None, texts: tuple[str, ...]) -> None:
    """Write settings of Windows Messenger and the Exchange client: a registry file, and a template.

    messenger.reg sets them on one machine; rvpfarm.admx and en-US/rvpfarm.adml go to PolicyDefinitions, for
    the editor of group policies.  Set are, unless --set says otherwise: no ads (DisableCrossPromo=1), no
    upgrade notices (DisableUpdates=1), this service only (ExchangeConn=2; 1 for first, 0 for both) and the
    NetBIOS name (DefaultNTLMDomain).  There are also IMWarning (a text above conversations), DisableVideo=1,
    PreventAutoRun=1 and PropertyTimeout (the lease of presence, in seconds).
    """
    domains = handlers.farm_of(farm.store).domains
    if domain is not None:
        netbios = domain_named(domains, domain).netbios
    else:
        netbios = next(iter(domains.values())).netbios if len(domains) == 1 else ""
    chosen = choose(texts, netbios)
    files = {
        "messenger.reg": render_reg(chosen),
        "rvpfarm.admx": render_admx(),
        "en-US/rvpfarm.adml": render_adml(),
    }
    try:
        for name, content in files.items():
            path = out / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    except OSError as problem:
        raise Refused(f"cannot write to {out}: {problem.strerror}; give --out another folder") from problem
    for choice in chosen:
        click.echo(f"{choice.setting.name}={choice.value}: {choice.setting.title}")
    click.echo(f"Wrote {', '.join(files)} to {out}.")
