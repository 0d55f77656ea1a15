"""Shows in C{docs} what was measured: C{python -m tests.bench.plots REPORT.json [--scale SCALE.json]}.

It draws C{performance-*.svg} and puts the table into C{performance.md}.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import click

from tests.bench.table import markdown_of

#: What is drawn of a scale report, if it has it: the field, its factor, what stands above.
CURVES = (
    ("rss_bytes", 1e-6, "memory, MB"),
    ("start_seconds", 1.0, "start, s"),
    ("lag_p99_seconds", 1e3, "lag of the loop, p99, ms"),
)
BEGIN, END = "<!-- the table of make bench-plots -->", "<!-- its end -->"
LABELS, WIDE, LINE = 330, 420, 26
STYLE = "text { font: 13px sans-serif; fill: #222 } .small { font-size: 11px; fill: #555 }"


@click.command()
@click.argument("report", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--scale", type=click.Path(dir_okay=False, path_type=Path), help="Of tests.bench.scale, if there."
)
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=Path("docs"), show_default=True
)
def main(report: Path, scale: Path | None, out: Path) -> None:
    """Draw the ratios of a report, and how a home grows if that was measured; renew the table."""
    drawn = {"performance-ratios.svg": ratios_of(json.loads(report.read_text()))}
    if scale is not None and scale.exists():
        drawn["performance-scale.svg"] = curves_of(json.loads(scale.read_text()))
    document = out / "performance.md"
    if document.exists():
        drawn[document.name] = with_table(document.read_text(), json.loads(report.read_text()))
    for name, text in drawn.items():
        (out / name).write_text(text)
        click.echo(out / name)


def with_table(document: str, report: Mapping[str, Any]) -> str:
    """The document with the report's table between the two marks; C{Any}: it is JSON.

    @raise ValueError: it has no such marks.
    """
    before, rest = document.split(f"{BEGIN}\n")
    after = rest.split(f"{END}\n")[1]
    return f"{before}{BEGIN}\n{markdown_of(report)}{END}\n{after}"


def ratios_of(report: Mapping[str, Any]) -> str:
    """A bar for each peer of each row: its CPU for an operation by ours, with the least and the most of the
    rounds, and a mark where it must be.

    @param report: as C{tests.bench --json} writes it; C{Any}: it is JSON.
    """
    bars = [
        (f"{row['number']}. {name}", each["ratio"], each["must"], each["aim"])
        for row in report["rows"]
        for name, each in row["contenders"].items()
        if each["ratio"]
    ]
    most = max([1.0, *(max(ratio["high"], must or 0, aim or 0) for _, ratio, must, aim in bars)])

    def x(value: float) -> float:
        return LABELS + value / most * WIDE

    shapes = []
    for place, (label, ratio, must, aim) in enumerate(bars):
        y = 40 + place * LINE
        middle = y + LINE / 2 - 3
        shapes += [
            _text(8, y + 15, label),
            f'<rect x="{LABELS}" y="{y}" width="{x(ratio["median"]) - LABELS:.1f}" height="{LINE - 7}" fill="#4477aa"/>',
            _line(x(ratio["low"]), middle, x(ratio["high"]), middle, "#222"),
            _text(x(max(ratio["high"], must or 0, aim or 0)) + 6, y + 15, f"{ratio['median']:.2f}"),
        ]
        shapes += [
            _line(x(value), y - 2, x(value), y + LINE - 5, colour)
            for value, colour in ((must, "#cc3311"), (aim, "#228833"))
            if value is not None
        ]
    bottom = 40 + len(bars) * LINE
    shapes.append(_line(x(1), 32, x(1), bottom, "#999"))
    shapes.append(_text(8, 20, "CPU of a peer for one operation, by ours: longer is better; 1 is the same"))
    shapes.append(
        _text(
            8,
            bottom + 18,
            f"red: must be; green: aim. {report['when'][:10]}, {report['machine']}",
            small=True,
        )
    )
    return _svg(LABELS + WIDE + 60, bottom + 30, shapes)


def curves_of(points: Sequence[Mapping[str, float]]) -> str:
    """How a home grows with its users, a small plot for each figure.

    @param points: of C{tests.bench.scale}.
    """
    shapes = []
    ordered = sorted(points, key=lambda point: point["users"])
    users = max(point["users"] for point in ordered)
    left = 20
    for name, factor, title in CURVES:
        known = [(point["users"], point[name] * factor) for point in ordered if point.get(name) is not None]
        if not known:
            continue
        most = max(value for _, value in known) or 1.0
        marks = [(left + 200 * each / users, 190 - 150 * value / most) for each, value in known]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in marks)
        shapes += [
            _text(left, 24, title),
            _line(left, 190, left + 200, 190, "#999"),
            f'<polyline points="{path}" fill="none" stroke="#4477aa" stroke-width="2"/>',
            *(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="#4477aa"/>' for x, y in marks),
            _text(left + 130, 186 - 150, f"{most:,.3g}", small=True),
            _text(left + 120, 206, f"{users:,.0f} users", small=True),
        ]
        left += 250
    return _svg(left, 220, shapes)


def _svg(width: float, height: float, shapes: Sequence[str]) -> str:
    inside = "\n".join(shapes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}">\n'
        f'<style>{STYLE}</style>\n<rect width="100%" height="100%" fill="white"/>\n{inside}\n</svg>\n'
    )


def _text(x: float, y: float, words: str, *, small: bool = False) -> str:
    kind = ' class="small"' if small else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{kind}>{escape(words)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="2"/>'
    )


if __name__ == "__main__":
    main()
