"""The metrics of a process as it shows them, for rules to ask (core)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

#: So many samples of one page are read, at most: whoever shows it may not be one of ours.
SAMPLES_LIMIT = 20_000

_SAMPLE = re.compile(r"(rvp_[a-z0-9_]+)(?:\{(.*)\})? (\S+)\Z")
_LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Figure:
    """One sample."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Figures:
    """All samples, by the name of their metric."""

    samples: Mapping[str, tuple[Figure, ...]] = field(default_factory=dict)

    def of(self, name: str, **labels: str) -> Iterator[Figure]:
        """The samples of a metric that have these labels."""
        for figure in self.samples.get(f"rvp_{name}", ()):
            if all(figure.labels.get(key) == value for key, value in labels.items()):
                yield figure

    def total(self, name: str, **labels: str) -> float:
        """Their sum; 0 without any."""
        return sum(figure.value for figure in self.of(name, **labels))

    def known(self, name: str) -> bool:
        """Is there such a metric at all?"""
        return f"rvp_{name}" in self.samples


def read_figures(text: str) -> Figures:
    """The figures of a page C{/metrics}; lines that make no sense are passed over."""
    found: dict[str, list[Figure]] = {}
    for count, line in enumerate(text.splitlines()):
        match = _SAMPLE.match(line)
        if match is None or count > SAMPLES_LIMIT:
            continue
        try:
            value = float(match[3])
        except ValueError:
            continue
        if not math.isnan(value):
            labels = dict(_LABEL.findall(match[2] or ""))
            found.setdefault(match[1], []).append(Figure(labels, value))
    return Figures({name: tuple(samples) for name, samples in found.items()})
