"""Metrics whose labels come and go with what they tell of: worked out anew at each scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from twisted.logger import Logger

#: Samples of one metric, at most; the rest is left out.
SAMPLES_LIMIT = 5000


@dataclass(frozen=True, slots=True)
class Series:
    """One metric.

    @ivar name: without C{rvp_}, and without C{_total}.
    @ivar labels: besides those that all metrics of the process share.
    @ivar counter: it only ever grows, and is shown with C{_total}.
    """

    name: str
    text: str
    labels: tuple[str, ...]
    counter: bool = False


@dataclass(frozen=True, slots=True)
class Sample:
    """One figure.

    @ivar name: of its L{Series}.
    @ivar labels: the values of its labels, in their order.
    """

    name: str
    labels: tuple[str, ...]
    value: float


class SeriesCollector(Collector):
    """Shows what its readings say when it is asked, so that what is gone is shown no longer."""

    _log = Logger()

    def __init__(self, common: Sequence[str], series: Sequence[Series]) -> None:
        """
        @param common: names of the labels that all metrics of the process share.
        """
        self._common, self._series = tuple(common), series
        self._readings: list[tuple[tuple[str, ...], Callable[[], Iterable[Sample]]]] = []
        self._complained = False

    def add(self, common: Sequence[str], read: Callable[[], Iterable[Sample]]) -> None:
        """Show what C{read} says as well.

        @param common: the values of the labels that are shared.
        @param read: called in the thread that serves, so it must only look.
        """
        self._readings.append((tuple(common), read))

    def describe(self) -> Iterable[Metric]:
        """The metrics without their figures."""
        return [self._family(series) for series in self._series]

    def collect(self) -> Iterable[Metric]:
        """The metrics; without figures when they cannot be read, which is logged once."""
        families = {series.name: self._family(series) for series in self._series}
        for common, read in self._readings:
            try:
                for sample in read():
                    family = families[sample.name]
                    if len(family.samples) < SAMPLES_LIMIT:
                        family.add_metric((*common, *sample.labels), sample.value)
            except Exception:  # or one broken reading would hide every other metric
                if not self._complained:
                    self._complained = True
                    self._log.failure("{names} cannot be read", names=", ".join(families))
        return families.values()

    def _family(self, series: Series) -> GaugeMetricFamily | CounterMetricFamily:
        kind = CounterMetricFamily if series.counter else GaugeMetricFamily
        return kind(f"rvp_{series.name}", series.text, labels=(*self._common, *series.labels))
