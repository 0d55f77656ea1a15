"""The rules about what the directory says, and about a journey through the farm (core)."""

from __future__ import annotations

from collections.abc import Iterator

from rvpfarm.admin.doctor.evidence import Evidence
from rvpfarm.admin.doctor.findings import Finding, error, warning
from rvpfarm.admin.networks import warnings_about

#: Days before its end that a certificate should have been renewed, and those that leave no time.
_CERTIFICATE_DAYS, _LAST_DAYS = 21, 3
#: How far apart clocks may be: Kerberos allows 5 minutes, and leases are told in seconds.
_SKEW_SECONDS = 5.0
#: The least room for state: a share of the disk, and octets.
_ROOM_SHARE, _ROOM_BYTES = 0.1, 500_000_000


def half_filled(evidence: Evidence) -> Iterator[Finding]:
    """D05: every account is whole."""
    for trouble, accounts in sorted(evidence.accounts.broken.items()):
        first = accounts.names[0]
        yield error(
            "D05",
            f"{accounts.count} account{'' if accounts.count == 1 else 's'} {_many(trouble, accounts.count)}: "
            f"{accounts.words}",
            f"rvpfarm user show {first}; then rvpfarm user readdress {first}, or disable and enable the user",
        )


def without_verifiers(evidence: Evidence) -> Iterator[Finding]:
    """D18: whoever is enabled can prove who he is."""
    lacking = evidence.accounts.lacking
    if lacking.count:
        yield warning(
            "D18",
            f"{lacking.count} enabled users cannot sign in by every scheme offered, for nothing is kept "
            f"that their password could be checked by: {lacking.words}",
            f"rvpfarm user passwd {lacking.names[0]}; rvpfarm user list --missing-verifiers shows all",
        )


def wide_ranges(evidence: Evidence) -> Iterator[Finding]:
    """D24: inside ranges and proxies make sense together."""
    for text in warnings_about(evidence.farm):
        yield warning(
            "D24", text.removesuffix(" (D24)"), "rvpfarm network list, then rvpfarm network set inside RANGE"
        )


def only_ntlm(evidence: Evidence) -> Iterator[Finding]:
    """D34: who comes from outside is offered more than NTLM."""
    farm = evidence.farm
    if not any(network.kind == "inside" for network in farm.networks):
        return
    for domain in farm.domains:
        schemes = farm.policy("schemes", domain).split()
        offered = farm.policy("authentication", domain) != "off"
        if offered and not any(scheme.startswith(("digest", "basic")) for scheme in schemes):
            yield warning(
                "D34",
                f"{domain} has callers from outside and offers only {' and '.join(schemes)}, which does not "
                "pass through HTTP proxies",
                f'rvpfarm policy set schemes "{" ".join(schemes)} digest-sha-256" --domain {domain}',
            )


def certificates(evidence: Evidence) -> Iterator[Finding]:
    """E01: no certificate is about to expire."""
    for title, figures in evidence.figures.items():
        for figure in figures.of("certificate_expires_timestamp_seconds"):
            days = (figure.value - evidence.now) / 86400
            if days >= _CERTIFICATE_DAYS:
                continue
            when = f"expires in {days:.0f} days" if days > 0 else "has expired"
            listener = figure.labels.get("listener", "listen")
            tell = error if days < _LAST_DAYS else warning
            yield tell(
                "E01",
                f"the certificate that {title} shows at --{listener} {when}",
                f"put a new one into the same file, and: systemctl reload rvp-*@{title.partition('/')[0]}",
            )


def clocks(evidence: Evidence) -> Iterator[Finding]:
    """E02: all clocks agree."""
    for server in evidence.servers():
        said = server.page.time if server.page is not None else None
        if said is not None and abs(said - evidence.now) > _SKEW_SECONDS:
            off = said - evidence.now
            where = "ahead" if off > 0 else "behind"
            yield warning(
                "E02",
                f"the clock of {server.role} {server.title} is {abs(off):.0f} s {where}",
                f"chronyc makestep on the machine of {server.title}, and keep chronyd running",
            )


def disks(evidence: Evidence) -> Iterator[Finding]:
    """E03: there is room for the state."""
    for server in evidence.servers("home"):
        page = server.page
        if page is None or page.disk_free is None or not page.disk_total:
            continue
        if page.disk_free < min(_ROOM_BYTES, page.disk_total * _ROOM_SHARE):
            yield error(
                "E03",
                f"home {server.title} has {page.disk_free / 1e6:.0f} MB left where its state is",
                f"make room on the file system of its --state-dir: df -h at the machine of {server.title}",
            )


def unreachable_homes(evidence: Evidence) -> Iterator[Finding]:
    """E04: every router reaches every home over the farm link."""
    for home in evidence.report.homes if evidence.report is not None else ():
        down = sorted(router for router, view in home.views.items() if view.state == "down")
        if down:
            yield error(
                "E04",
                f"home {home.name} is not reached over the farm link by {', '.join(down)}",
                f"rvpfarm home show {home.name}: its link port has to be open to {', '.join(down)}, and all "
                "machines need the same farm key",
            )


def journey(rule: str):  # type: ignore[no-untyped-def]  # a rule's check, of the steps that are its business
    """The check of C{rule}, which nothing but a journey through the farm can tell."""

    def check(evidence: Evidence) -> Iterator[Finding]:
        """What of it went wrong."""
        for step in evidence.journey.steps if evidence.journey is not None else ():
            if step.rule == rule and step.trouble:
                yield error(rule, f"cannot {step.what}: {step.trouble}", step.remedy)

    return check


def _many(trouble: str, count: int) -> str:
    """A verb for several."""
    if count == 1:
        return trouble
    word, _, rest = trouble.partition(" ")
    return f"{ {'is': 'are', 'has': 'have'}[word] } {rest}"
