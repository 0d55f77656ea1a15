"""The table that people read, and the JSON that says the same."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from tests.bench import peers
from tests.bench.rows import OURS, Outcome, Sample, Spread, Target, spread

COLUMNS = ("per second", "CPU, us", "p50, ms", "p99, ms", "ratio", "must / aim")

#: What is said below every table.
CAVEAT = (
    "CPU is what the serving processes used, by /proc, for one operation (microseconds, the same as "
    "milliseconds for 1,000); ratio is the peer's CPU by ours in the same round: above 1 we need less. Every "
    "figure is the median of the rounds, with the least and the most. Servers, load and whatever else the "
    "machine does share its cores, so that operations per second and latencies under full load say little of "
    "other machines; ratios of CPU say more, but caches and clocks shared with strangers move them by a tenth."
)


def versions() -> dict[str, str]:
    """Of everything that the figures depend on."""
    return {
        "rvpfarm": version("rvpfarm"),
        "Python": platform.python_version(),
        "Twisted": version("Twisted"),
        "uvloop": version("uvloop"),
        **peers.versions(),
        "kernel": platform.release(),
    }


def machine() -> str:
    """What this machine is and how busy it was, in one line."""
    names = {
        line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")
    }
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    return f"{len(os.sched_getaffinity(0))} cores of {', '.join(sorted(names)) or 'some CPU'}; load {load}"


def table_of(outcome: Outcome) -> Table:
    """One row of the comparison: a line for each who took part, or could not."""
    row = outcome.row
    table = Table(title=f"{row.number}. {row.title}", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1))
    table.add_column(f"per {row.unit}", min_width=20)
    for name, width in zip(COLUMNS, (23, 19, 20, 22, 16, 11), strict=True):
        table.add_column(name, justify="right", min_width=width)
    table.add_column("")
    for name, samples in outcome.samples.items():
        if samples:
            table.add_row(name, *_figures(outcome, name, samples))
    lacks = [f"{name}: {lack}" for name, lack in outcome.absent.items()]
    table.caption = escape("\n".join([*lacks, *([outcome.problem] if outcome.problem else [])]))
    table.caption_justify = "left"
    added = outcome.added_us() if row.added else None
    if added:
        table.add_row("the router adds", "", "", _shown(added, 1e-3, 2))
    return table


def markdown_of(report: Mapping[str, Any]) -> str:
    """The same from a report, for a document; C{Any}: it is JSON."""
    rounds, seconds = report["settings"]["rounds"], report["settings"]["seconds"]
    lines = [
        f"{report['when'][:10]}, {report['machine']}; {rounds} rounds of {seconds:g} s. "
        + "; ".join(f"{name} {version}" for name, version in report["versions"].items())
        + ".",
        "",
        f"| | {' | '.join(COLUMNS)} |",
        "| --- | " + " | ".join(["---:"] * len(COLUMNS)) + " |",
    ]
    for row in report["rows"]:
        lines.append(f"| **{row['number']}. {row['title']}** {row['problem']} |" + " |" * len(COLUMNS))
        for name, each in row["contenders"].items():
            if not each["cpu_us"]:
                continue
            cells = [
                _shown(Spread(**each[key]), factor, digits)
                for key, factor, digits in (
                    ("per_second", 1, 0),
                    ("cpu_us", 1, 1),
                    ("p50_us", 1e-3, 2),
                    ("p99_us", 1e-3, 2),
                )
            ]
            target = Target(each["must"], each["aim"])
            cells += [_shown(Spread(**each["ratio"]), 1, 2), _wanted(target)] if each["ratio"] else ["", ""]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines += [f"| {name}: {lack} |" + " |" * len(COLUMNS) for name, lack in row["absent"].items()]
        if row["added_us"]:
            lines.append(f"| the router adds | | | {_shown(Spread(**row['added_us']), 1e-3, 2)} | | | |")
    return "\n".join(lines) + "\n"


def verdict(target: Target | None, ratio: Spread | None) -> str:
    """Whether a ratio is what it must be, in a word or two."""
    if target is None or ratio is None:
        return ""
    if target.must is not None and ratio.median < target.must:
        return "missed"
    if target.aim is None:
        return "met"
    if ratio.median >= target.aim:
        return "aim met"
    return "met" if target.must is not None else "aim missed"


def _figures(outcome: Outcome, name: str, samples: Sequence[Sample]) -> list[str]:
    """The cells of one contender."""
    ratio = None if name == OURS or outcome.row.added else outcome.ratios(name)
    target = outcome.row.targets.get(name)
    notes = [verdict(target, ratio)]
    for word, count in (
        ("failed", sum(sample.failures for sample in samples)),
        ("left out, as the one before was under way", sum(sample.late for sample in samples)),
    ):
        if count:
            notes.append(f"{count} {word}")
    return [
        _shown(spread([sample.rate for sample in samples]), 1, 0),
        _shown(spread([sample.cpu_per_thousand for sample in samples]), 1, 1),
        _shown(spread([sample.p50_us for sample in samples]), 1e-3, 2),
        _shown(spread([sample.p99_us for sample in samples]), 1e-3, 2),
        _shown(ratio, 1, 2) if ratio else "",
        _wanted(target) if ratio else "",
        "; ".join(note for note in notes if note),
    ]


def _wanted(target: Target | None) -> str:
    if target is None or target == Target():
        return ""
    return " / ".join("-" if value is None else f"{value:.2f}" for value in (target.must, target.aim))


def _shown(figures: Spread, factor: float, digits: int) -> str:
    """A median, and the least and the most if they differ."""
    middle, low, high = (
        f"{value * factor:,.{digits}f}" for value in (figures.median, figures.low, figures.high)
    )
    return middle if low == high else f"{middle} ({low}-{high})"


def report_of(outcomes: Sequence[Outcome], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that was measured, for programs; C{Any}: it becomes JSON."""
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "settings": dict(settings),
        "rows": [_row(outcome) for outcome in outcomes],
    }


def _row(outcome: Outcome) -> dict[str, Any]:
    row = outcome.row
    contenders = {}
    for name, samples in outcome.samples.items():
        ratio = None if name == OURS or row.added else outcome.ratios(name)
        target = row.targets.get(name, Target())
        contenders[name] = {
            "samples": [asdict(sample) for sample in samples],
            "per_second": _spread([sample.rate for sample in samples]),
            "cpu_us": _spread([sample.cpu_per_thousand for sample in samples]),
            "p50_us": _spread([sample.p50_us for sample in samples]),
            "p99_us": _spread([sample.p99_us for sample in samples]),
            "ratio": asdict(ratio) if ratio else None,
            "must": target.must,
            "aim": target.aim,
        }
    added = outcome.added_us() if row.added else None
    return {
        "number": row.number,
        "title": row.title,
        "unit": row.unit,
        "contenders": contenders,
        "absent": outcome.absent,
        "problem": outcome.problem,
        "added_us": asdict(added) if added else None,
    }


def _spread(figures: Sequence[float]) -> dict[str, float] | None:
    return asdict(spread(figures)) if figures else None


def _lines(path: str) -> list[str]:
    try:
        with open(path) as file:
            return file.readlines()
    except OSError:
        return []
