"""How findings are shown, to people and to programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import click

from rvpfarm.admin.doctor.findings import Finding, Severity
from rvpfarm.admin.doctor.table import RULES, Rule

_COLOURS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.INFO: "cyan"}


def show_findings(found: Sequence[Finding], well: str) -> None:
    """Print every finding: what is wrong, why it matters, and what mends it.

    @param well: said when there is none.
    """
    for number, finding in enumerate(found):
        if number:
            click.echo()
        word = click.style(finding.severity.word, fg=_COLOURS[finding.severity])
        click.echo(f"{finding.rule} {word}: {finding.what}.")
        click.echo(f"    why:    {RULES[finding.rule].why}")
        click.echo(f"    remedy: {finding.remedy}")
    if not found:
        click.echo(well)
        return
    counts = {severity: sum(one.severity is severity for one in found) for severity in reversed(Severity)}
    told = [
        f"{count} {severity.word}{'' if count == 1 or severity is Severity.INFO else 's'}"
        for severity, count in counts.items()
        if count
    ]
    click.echo()
    click.echo(f"Found {', '.join(told)}.")


def findings_record(
    found: Iterable[Finding], rules: Iterable[Rule], skipped: Iterable[str]
) -> dict[str, object]:
    """The same for C{--json}."""
    findings = [
        {
            "rule": one.rule,
            "severity": one.severity.word,
            "what": one.what,
            "why": RULES[one.rule].why,
            "remedy": one.remedy,
        }
        for one in found
    ]
    return {
        "well": not findings,
        "rules": [rule.id for rule in rules],
        "findings": findings,
        "skipped": list(skipped),
    }
