"""rvpfarm and its peers, interleaved on the same cores: C{python -m tests.bench}; see C{docs/performance.md}."""

from __future__ import annotations

import json
import resource
import signal
import sys
from pathlib import Path
from types import FrameType

import click
from rich.console import Console

from tests.bench import delivery, edge, table
from tests.bench.rows import TINY, Row, Scale, measure

ROWS: dict[int, Row] = {
    row.number: row for row in sorted([*edge.rows(), *delivery.rows()], key=lambda row: row.number)
}


@click.command()
@click.option(
    "--row",
    "chosen",
    type=click.IntRange(1, max(ROWS)),
    multiple=True,
    help="Only this row; may be given again.",
)
@click.option("--rounds", type=click.IntRange(1, 100), help="How often each takes its turn.  [default: 3]")
@click.option(
    "--seconds", type=click.FloatRange(0.2, 600), help="How long each works in a turn.  [default: 8]"
)
@click.option(
    "--json", "report", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures here."
)
@click.option("--quick", is_flag=True, help="So small that it only shows that everything runs.")
def main(
    chosen: tuple[int, ...], rounds: int | None, seconds: float | None, report: Path | None, quick: bool
) -> None:
    """Measure rvpfarm beside nginx, HAProxy, ejabberd and Prosody, in turn on the same cores."""
    rounds, seconds = rounds or (1 if quick else 3), seconds or (0.5 if quick else 8.0)
    scale = TINY if quick else Scale()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    signal.signal(signal.SIGTERM, _stop)
    shown = Console(width=None if sys.stdout.isatty() else 170)
    notes = Console(stderr=True, highlight=False)
    outcomes = []

    def say(line: str) -> None:
        """What is going on, for those who wait."""
        notes.print(line, style="dim")

    try:
        for number in sorted(set(chosen)) or ROWS:
            outcome = measure(ROWS[number], scale, rounds=rounds, seconds=seconds, said=say)
            outcomes.append(outcome)
    except KeyboardInterrupt:
        notes.print("interrupted: every server was ended")
    for outcome in outcomes:
        shown.print(table.table_of(outcome))
    shown.print("; ".join(f"{name} {version}" for name, version in table.versions().items()), highlight=False)
    shown.print(f"{table.machine()}; {rounds} rounds of {seconds:g} s. {table.CAVEAT}", highlight=False)
    if report is not None:
        settings = {"rounds": rounds, "seconds": seconds, "quick": quick}
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(json.dumps(table.report_of(outcomes, settings), indent=1) + "\n")
    if not outcomes or any(outcome.failures or outcome.broken for outcome in outcomes):
        sys.exit(1)


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
