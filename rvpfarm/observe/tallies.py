"""Counters and histograms that cost next to nothing to count with, and are put into words at each scrape.

Everything is counted in the thread of the reactor, so nothing needs a lock; whoever scrapes only looks.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Any, Generic, TypeVar

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Count:
    """How often something happened.

    @ivar value: add to it.
    """

    __slots__ = ("value",)
    family = CounterMetricFamily

    def __init__(self, bounds: Sequence[float] = ()) -> None:
        """
        @param bounds: there are none.
        """
        self.value = 0

    def tell(self, family: Any, labels: Sequence[str]) -> None:
        """Say it in C{family} (Any: each kind of family takes other figures)."""
        family.add_metric(labels, float(self.value))


class Spans:
    """How much of something there was, each time it happened."""

    __slots__ = ("_bounds", "_counts", "_sum")
    family = HistogramMetricFamily

    def __init__(self, bounds: Sequence[float]) -> None:
        """
        @param bounds: the upper bounds of the buckets, the last of them infinite.
        """
        self._bounds = bounds
        self._counts = [0] * len(bounds)
        self._sum = 0.0

    def observe(self, amount: float) -> None:
        """It happened with this C{amount}."""
        self._counts[bisect_left(self._bounds, amount)] += 1
        self._sum += amount

    def tell(self, family: Any, labels: Sequence[str]) -> None:
        """Say it in C{family} (Any: each kind of family takes other figures)."""
        total, buckets = 0, []
        for bound, count in zip(self._bounds, self._counts[:], strict=True):
            total += count
            buckets.append((floatToGoString(bound), float(total)))
        family.add_metric(labels, buckets, self._sum)


_Child = TypeVar("_Child", Count, Spans)


class Tally(Collector, Generic[_Child]):
    """One metric: its children, by the values of their labels."""

    def __init__(
        self, kind: type[_Child], name: str, text: str, labels: Sequence[str], buckets: Sequence[float] = ()
    ) -> None:
        """
        @param kind: L{Count} or L{Spans}.
        @param name: without C{_total}.
        @param buckets: of L{Spans}: the upper bounds, without the infinite one.
        """
        self._kind: type[_Child] = kind
        self._name, self._text, self._labels = name, text, tuple(labels)
        self._bounds = (*map(float, buckets), math.inf)
        self._children: dict[tuple[str, ...], _Child] = {}

    def child(self, labels: tuple[str, ...]) -> _Child:
        """What is counted under the values C{labels}; shown as zero from now on."""
        found = self._children.get(labels)
        if found is None:
            found = self._children[labels] = self._kind(self._bounds)
        return found

    def describe(self) -> Iterable[Metric]:
        """The metric without its figures."""
        return [self._family()]

    def collect(self) -> Iterable[Metric]:
        """The metric."""
        family = self._family()
        for labels, child in list(self._children.items()):
            child.tell(family, labels)
        return [family]

    def _family(self) -> Metric:
        family: Metric = self._kind.family(self._name, self._text, labels=self._labels)
        return family
