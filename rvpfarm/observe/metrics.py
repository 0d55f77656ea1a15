"""What a daemon counts, under the names of the product notes (section 6.1), and how late its reactor is.

Labels come from closed sets: never a user, an address, a path or a foreign domain.  Children of labelled
metrics are looked up once and kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Generic, TypeVar

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from rvpfarm.observe.series import Sample, Series, SeriesCollector
from rvpfarm.observe.tallies import Count, Spans, Tally
from rvpfarm.protocol.calls import METHODS, REASONS

#: The methods that get a label of their own; any other is C{OTHER}.
VERBS = frozenset({*METHODS, b"OPTIONS"})

#: What each gauge tells, by its name without C{rvp_}.
GAUGES = {
    "users_online": "Users that somebody can see online",
    "sessions": "Signed-in views",
    "subscriptions": "Subscriptions held, by type",
    "queue_depth": "Work waiting, by queue",
    "outbound_connections": "Open connections to others, by kind of peer",
    "connections": "Connections from callers, those on their way in included",
    "connections_limit": "The most connections from callers that are taken",
    "in_work": "Requests in work",
    "authenticated_connections": "Connections that NTLM or Negotiate has proved, here",
    "directory_staleness_seconds": "How long ago the directory was last known to be current",
    "directory_cache_size": "Accounts remembered",
    "directory_staleness_limit_seconds": "For how long what is known of the directory is served without news",
    "directory_up": "Whether the directory answered when it was last asked (1) or not (0)",
    "ldap_up": "Whether an LDAP server answered when last asked (1) or not (0); NaN without LDAP",
    "snapshot_age_seconds": "How old what the directory's snapshot on disk says is",
    "snapshot_size_bytes": "Size of the directory's snapshot on disk",
    "snapshot_accounts": "Accounts in the directory's snapshot on disk",
    "certificate_expires_timestamp_seconds": "When the certificate shown at a listener expires",
}

_FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)

#: Most label values per metric that nobody declared; further ones are counted as C{other}.
_STRAYS = 64

_Child = TypeVar("_Child", Count, Spans)


class _Family(Generic[_Child]):
    """A labelled metric with its children at hand, by label value or tuple of label values."""

    __slots__ = ("_children", "_common", "_count", "_metric")

    def __init__(
        self,
        metric: Tally[_Child],
        common: tuple[str, ...],
        count: int,
        known: Iterable[tuple[str, ...]] = (),
    ) -> None:
        """
        @param common: values of the labels that all metrics of the process share.
        @param count: how many other labels there are.
        @param known: combinations that are shown from the start, as zero.
        """
        self._metric: Tally[_Child] = metric
        self._common = common
        self._count = count
        self._children: dict[tuple[str, ...], _Child] = {}
        for values in known:
            self.child(values)

    def child(self, values: tuple[str, ...]) -> _Child:
        """The child for C{values}; beyond the cap, the one named C{other}."""
        found = self._children.get(values)
        if found is None:
            if len(self._children) >= _STRAYS and self._count:
                values = ("other",) * self._count
            found = self._children[values] = self._metric.child((*self._common, *values))
        return found


def _code(status: int) -> str:
    """The label of a status code: a known one itself, otherwise its class, C{none} without an answer."""
    if status in REASONS:
        return str(status)
    if 100 <= status <= 599:
        return f"{status // 100}xx"
    return "other" if status else "none"


class Metrics:
    """Everything one daemon counts.  Made once, in C{tap}, and handed down.

    Where several homes share a process, each has its own by L{beside}, in one registry and under its own
    name.  What belongs to the process as a whole is counted by the first of them.
    """

    _log = Logger()

    def __init__(
        self, registry: CollectorRegistry, *, role: str, node: str, first: Metrics | None = None
    ) -> None:
        """
        @param registry: where the metrics are registered; tests bring their own.
        @param role: C{"router"}, C{"home"} or C{"dns"}.
        @param node: the name of this process within the farm.
        @param first: has registered everything already; see L{beside}.
        """
        self.registry = registry
        self._common = (role, node)
        self._outbounds: dict[tuple[bytes, int, str], Count] = {}
        # by name; Any: the collectors of several kinds
        self._collectors: dict[str, Any] = {} if first is None else first._collectors
        self._broken: set[str] = set()
        self._requests: dict[tuple[bytes, int], tuple[Count, Spans]] = {}
        self._series: dict[tuple[str, ...], SeriesCollector] = {} if first is None else first._series
        self._build()
        if first is None:
            self._lag = self._histogram(
                "reactor_lag_seconds", "How late the reactor ran a timer", buckets=_FAST
            )
            self._show_process(registry)
        else:
            self._lag = first._lag
        self._show_version()

    def beside(self, node: str) -> Metrics:
        """What another home of this process counts, under its name C{node}."""
        return Metrics(self.registry, role=self._common[0], node=node, first=self)

    def _build(self) -> None:
        """Register what is counted."""
        self._request_total = self._counter("requests", "Requests answered", ("verb", "code"))
        self._request_seconds = self._histogram(
            "request_seconds", "From the end of a request to its answer", ("verb",), buckets=_FAST
        )
        self._rejected = self._counter(
            "rejected",
            "Requests and connections turned away",
            ("reason",),
            [("queue",), ("conn",), ("source",), ("proxy",), ("drain",)],
        )
        self._route = self._counter(
            "route",
            "Routing decisions",
            ("decision",),
            [("redirect",), ("proxy",), ("local",), ("reject",)],
        )
        self._messages = self._counter(
            "messages", "Messages (NOTIFY) by what was asked and what came of it", ("ack", "outcome")
        )
        self._delivery = self._histogram(
            "delivery_seconds", "From accepting a message to its answer", ("ack",), buckets=_FAST
        )
        outcomes = ("delivered", "refused", "dead", "slow", "dropped", "replaced", "retried")
        self._notifications = self._counter(
            "notifications", "Call-backs by outcome", ("outcome",), [(outcome,) for outcome in outcomes]
        )
        self._fanout_size = self._histogram(
            "fanout_size", "Watchers told of one change of presence", buckets=_SIZES
        )
        self._fanout_seconds = self._histogram(
            "fanout_seconds",
            "From the accepted PROPPATCH to the last acknowledged call-back",
            buckets=_FAST,
        )
        self._expired = self._counter("lease_expired", "Leases that ran out", ("kind",))
        self._renewed = self._counter("lease_renewed", "Leases renewed in time", ("kind",))
        self._reads = self._counter("directory_reads", "Directory look-ups", ("result", "cache"))
        self._read_seconds = self._histogram(
            "directory_seconds", "Time the directory took to answer", buckets=_FAST
        )
        self._spared = self._counter(
            "presence_spared", "Changes of state that no watcher was told, since another came at once"
        )
        self._auth = self._counter("auth_failures", "Sign-ins that failed", ("method", "cause"))
        self._throttled = self._counter(
            "auth_throttled",
            "Sign-ins held back after too many failures",
            ("scope",),
            [("pair",), ("address",), ("account",)],
        )
        self._outbound = self._counter(
            "outbound_requests", "Requests made to others", ("verb", "code", "peer")
        )
        self._blocked = self._counter("call_back_blocked", "Call-backs refused by policy", ("rule",))
        self._link = self._counter("link_calls", "Calls over farm links", ("outcome",))
        self._probe_seconds = self._histogram(
            "probe_seconds", "From asking a home whether it is there to its answer", buckets=_FAST
        )
        self._reloads = self._counter(
            "reloads", "Times that files and settings were read again", ("outcome",), [("done",), ("failed",)]
        )
        self._commit_size = self._histogram("journal_batch_size", "Changes in one commit", buckets=_SIZES)
        self._commit_seconds = self._histogram("journal_commit_seconds", "Time of one commit", buckets=_FAST)
        self._snapshots = self._counter(
            "snapshot_writes", "Snapshots of the directory", ("outcome",), [("written",), ("failed",)]
        )

    def _show_process(self, registry: CollectorRegistry) -> None:
        """Add what is told of every Python process."""
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)

    def _show_version(self) -> None:
        """Add our version."""
        try:
            ours = version("rvpfarm")
        except PackageNotFoundError:
            ours = "unknown"
        info = self._gauge("info", "What is running", ("version",))
        info.labels(*self._common, ours).set(1)

    # Any: a collector's class, and the collectors themselves
    def _register(self, name: str, make: Callable[[str, tuple[str, ...]], Any], labels: Sequence[str]) -> Any:
        """The collector C{rvp_<name>}, registered unless that is done."""
        found = self._collectors.get(name)
        if found is None:
            found = self._collectors[name] = make(f"rvp_{name}", ("role", "node", *labels))
            self.registry.register(found)
        return found

    def _counter(
        self, name: str, text: str, labels: Sequence[str] = (), known: Iterable[tuple[str, ...]] = ()
    ) -> _Family[Count]:
        """Register C{rvp_<name>_total}."""
        metric = self._register(name, lambda name, labels: Tally(Count, name, text, labels), labels)
        return _Family(metric, self._common, len(labels), known or ([] if labels else [()]))

    def _histogram(
        self, name: str, text: str, labels: Sequence[str] = (), *, buckets: Sequence[float]
    ) -> _Family[Spans]:
        """Register the histogram C{rvp_<name>}."""
        metric = self._register(name, lambda name, labels: Tally(Spans, name, text, labels, buckets), labels)
        return _Family(metric, self._common, len(labels), [] if labels else [()])

    def _gauge(self, name: str, text: str, labels: Sequence[str]) -> Gauge:
        """Register the gauge C{rvp_<name>}."""
        gauge: Gauge = self._register(
            name, lambda name, labels: Gauge(name, text, labels, registry=None), labels
        )
        return gauge

    def request(self, verb: bytes, status: int, seconds: float) -> None:
        """A request was answered with C{status} after C{seconds}."""
        known = self._requests.get((verb, status))
        if known is None:
            name = verb.decode("ascii") if verb in VERBS else "OTHER"
            known = (
                self._request_total.child((name, _code(status))),
                self._request_seconds.child((name,)),
            )
            if verb in VERBS and status in REASONS:
                self._requests[verb, status] = known
        known[0].value += 1
        known[1].observe(seconds)

    def rejected(self, reason: str) -> None:
        """A request or a connection was turned away.

        @param reason: C{"queue"}, C{"conn"}, C{"source"}, C{"proxy"} or C{"drain"}.
        """
        self._rejected.child((reason,)).value += 1

    def route(self, decision: str) -> None:
        """A call was routed: C{"redirect"}, C{"proxy"}, C{"local"} or C{"reject"}."""
        self._route.child((decision,)).value += 1

    def message(self, ack: str, outcome: str, seconds: float) -> None:
        """A message asking for C{ack} was answered.

        @param outcome: such as C{"delivered"}, C{"accepted"}, C{"refused"}, C{"offline"}, C{"slow"}.
        """
        self._messages.child((ack, outcome)).value += 1
        self._delivery.child((ack,)).observe(seconds)

    def notification(self, outcome: str) -> None:
        """A call-back came to an end, or was dropped, replaced by a newer one, or is tried again."""
        self._notifications.child((outcome,)).value += 1

    def fanout(self, size: int) -> None:
        """A change of presence goes to C{size} watchers."""
        self._fanout_size.child(()).observe(size)

    def fanout_done(self, seconds: float) -> None:
        """The last of them acknowledged it, C{seconds} after the PROPPATCH was accepted."""
        self._fanout_seconds.child(()).observe(seconds)

    def lease_expired(self, kind: str) -> None:
        """A lease ran out: C{"login"}, C{"property"} (subscriptions) or C{"presence"}."""
        self._expired.child((kind,)).value += 1

    def lease_renewed(self, kind: str) -> None:
        """A lease was renewed; kinds as for L{lease_expired}."""
        self._renewed.child((kind,)).value += 1

    def directory_read(self, result: str, cache: str) -> None:
        """The directory was asked.

        @param result: C{"found"}, C{"none"} or C{"failed"}.
        @param cache: C{"hit"}, C{"miss"} or C{"stale"}.
        """
        self._reads.child((result, cache)).value += 1

    def directory_seconds(self, seconds: float) -> None:
        """A look-up that the cache could not answer took C{seconds}."""
        self._read_seconds.child(()).observe(seconds)

    def auth_failure(self, method: str, cause: str) -> None:
        """A sign-in failed; the first leg, which asks for the challenge, is none."""
        self._auth.child((method, cause)).value += 1

    def auth_throttled(self, scope: str) -> None:
        """Credentials were not looked at, for there were too many wrong ones.

        @param scope: of the same account and address (C{"pair"}), of the C{"address"} or of the C{"account"}.
        """
        self._throttled.child((scope,)).value += 1

    def presence_spared(self) -> None:
        """A state changed, and changed again before anybody was told."""
        self._spared.child(()).value += 1

    def outbound(self, verb: bytes, status: int, peer: str) -> None:
        """A request to another machine ended.

        @param status: the answer's, or 0 if there was none.
        @param peer: C{"client"} or C{"server"}.
        """
        known = self._outbounds.get((verb, status, peer))
        if known is None:
            name = verb.decode("ascii") if verb in VERBS else "OTHER"
            known = self._outbound.child((name, _code(status), peer))
            if verb in VERBS and (status in REASONS or not status):
                self._outbounds[verb, status, peer] = known
        known.value += 1

    def call_back_blocked(self, rule: str) -> None:
        """A call-back target was refused by C{rule}."""
        self._blocked.child((rule,)).value += 1

    def link_calls(self, outcome: str) -> None:
        """A call over a farm link ended."""
        self._link.child((outcome,)).value += 1

    def probe(self, seconds: float) -> None:
        """A home was asked whether it is there, and C{seconds} later that was known, or given up."""
        self._probe_seconds.child(()).observe(seconds)

    def journal_commit(self, size: int, seconds: float) -> None:
        """C{size} changes reached the disk together."""
        self._commit_size.child(()).observe(size)
        self._commit_seconds.child(()).observe(seconds)

    def snapshot_write(self, outcome: str) -> None:
        """A snapshot of the directory was C{"written"}, or that C{"failed"}."""
        self._snapshots.child((outcome,)).value += 1

    def reloaded(self, outcome: str) -> None:
        """Files and settings were read again: C{"done"}, or C{"failed"} for some of them."""
        self._reloads.child((outcome,)).value += 1

    def lag(self, seconds: float) -> None:
        """The reactor ran a timer C{seconds} late."""
        self._lag.child(()).observe(seconds)

    def gauge(self, name: str, function: Callable[[], float], **labels: str) -> None:
        """Show C{function()} as C{rvp_<name>}, asked at each scrape, in the scraping thread.

        A function that fails shows as NaN and is logged once: it must not hide the other metrics.
        The same name and labels given again replace the earlier function.
        """
        gauge = self._gauge(name, GAUGES.get(name, name.replace("_", " ")), sorted(labels))
        values = [labels[label] for label in sorted(labels)]
        gauge.labels(*self._common, *values).set_function(lambda: self._ask(name, function))

    def series(self, series: Sequence[Series], read: Callable[[], Iterable[Sample]]) -> None:
        """Show what C{read()} says, asked at each scrape, in the scraping thread.

        For labels that come and go: what it says no longer is shown no longer.
        """
        names = tuple(each.name for each in series)
        collector = self._series.get(names)
        if collector is None:
            collector = self._series[names] = SeriesCollector(("role", "node"), series)
            self.registry.register(collector)
        collector.add(self._common, read)

    def _ask(self, name: str, function: Callable[[], float]) -> float:
        """What C{function} says, or NaN."""
        try:
            return float(function())
        except Exception:  # or one broken gauge would hide every other metric
            if name not in self._broken:
                self._broken.add(name)
                self._log.failure("gauge {name} cannot be read", name=name)
            return math.nan


class LagProbe(Service):
    """Measures how late the reactor runs its timers."""

    def __init__(self, clock: IReactorTime, metrics: Metrics, *, interval_seconds: float = 0.5) -> None:
        self._clock = clock
        self._metrics = metrics
        self._interval = interval_seconds
        self._timer: IDelayedCall | None = None

    def startService(self) -> None:
        """Begin to measure."""
        super().startService()
        self._arm()

    def stopService(self) -> None:
        """End measuring."""
        super().stopService()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        """Set the next timer."""
        due = self._clock.seconds() + self._interval
        self._timer = self._clock.callLater(self._interval, self._measure, due)

    def _measure(self, due: float) -> None:
        """The timer for C{due} runs."""
        self._metrics.lag(max(0.0, self._clock.seconds() - due))
        self._arm()
