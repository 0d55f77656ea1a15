"""What every daemon is built around: its metrics and health, the directory, and a parent to die with."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry
from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.usage import UsageError

from rvpfarm.auth.keys import FarmKey
from rvpfarm.directory.cache import CachedDirectory
from rvpfarm.directory.model import Directory, DirectoryUnavailable, Home, Router
from rvpfarm.directory.snapshot import BadSnapshot
from rvpfarm.directory.spans import spell_span
from rvpfarm.directory.sql import SqlSource
from rvpfarm.directory.standby import Recalled, SnapshotFile, Standby
from rvpfarm.directory.store import Store
from rvpfarm.observe.health import HealthServer
from rvpfarm.observe.metrics import LagProbe, Metrics
from rvpfarm.observe.status import Status
from rvpfarm.tap.settings import DaemonOptions, HostPort, StopAtEof, parse_host_port
from rvpfarm.web.fast import FastClientEndpoint
from rvpfarm.web.server import CallFactory

_Member = TypeVar("_Member", Home, Router)

#: From so many accounts on a snapshot is worth being kept out of the garbage collector's way.
_MANY = 10_000

_log = Logger()


class Daemon(MultiService):
    """The services of a daemon: started in the order in which they were added, stopped in the reverse order.

    Each is stopped when those that need it have stopped: listeners finish their calls while everything
    behind them still works.
    """

    _log = Logger()

    def stopService(self) -> Deferred[None]:
        """Stop one after the other; fires when all have stopped."""
        self.running = False
        return Deferred.fromCoroutine(self._stop_children())

    async def _stop_children(self) -> None:
        for service in reversed(list(self)):
            try:
                await maybeDeferred(service.stopService)
            except Exception:  # or those behind it would run on, and the process with them
                self._log.failure("{service} did not stop as it should", service=service)


class OnStart(Service):
    """Does something when the daemon starts, in its turn among the other services."""

    def __init__(self, start: Callable[[], None]) -> None:
        self._start = start

    def startService(self) -> None:
        """Do it."""
        super().startService()
        self._start()


class OnStop(Service):
    """Does something when the daemon stops, and lets it wait for the end of that."""

    def __init__(self, stop: Callable[[], Deferred[None]]) -> None:
        self._stop = stop

    def stopService(self) -> Deferred[None]:
        """Do it."""
        super().stopService()
        return self._stop()


def connector(reactor: Any) -> Callable[[str, int], FastClientEndpoint]:
    """What makes an endpoint of a host and a port.

    @param reactor: the daemon's (C{Any}: no one interface has names, sockets and timers).
    """
    return lambda host, port: FastClientEndpoint(reactor, host, port)


def record_of(members: Mapping[str, _Member], name: str, noun: str) -> _Member:
    """The directory's record of the server C{name}, which this process is to be.

    @param noun: C{"router"} or C{"home"}.
    @raise SystemExit: there is none of that name; the sentence says what to do.
    """
    for member in members.values():
        if member.name == name:
            return member
    known = ", ".join(sorted(member.name for member in members.values())) or "none yet"
    raise SystemExit(
        f'rvp-{noun}: the directory has no {noun} "{name}" (it has {known}); '
        f'make it with "rvpfarm {noun} create", or name another with --name'
    )


def attend(
    top: MultiService,
    options: DaemonOptions,
    reactor: Any,
    status: Status,
    *,
    recorded: Callable[[], str] = str,
) -> Metrics:
    """Give a daemon its metrics, its health and status pages, and an end with its parent.

    Called before anything else is added to C{top}, so that health is served before and after everything.
    The metrics are under the process's name, or the first of several; see L{Metrics.beside}.

    @param reactor: the daemon's (C{Any}: no one interface has readers, timers and C{stop}).
    @param recorded: where the directory says that this daemon shows its metrics, as C{ADDRESS:PORT}, or
        nothing; asked at the start, for when no option says where.
    """
    registry = CollectorRegistry()
    metrics = Metrics(registry, role=status.role, node=options["name"])
    StopAtEof(reactor).setServiceParent(top)
    LagProbe(reactor, metrics).setServiceParent(top)
    server = HealthServer("", 0, registry, clock=reactor, ready=status.ready, status=status.render)

    def settle() -> None:
        """Find out where to listen."""
        place = metrics_place(options, recorded())
        if place is not None:
            server.settle(place.host, place.port)

    OnStart(settle).setServiceParent(top)
    server.setServiceParent(top)
    return metrics


def heed(listeners: Sequence[CallFactory], directory: Directory, metrics: Metrics) -> None:
    """Have listeners keep to the limits and proxies that the directory names, and show how full they are."""
    for calls in listeners:
        calls.follow(directory)
    metrics.gauge("queue_depth", lambda: listeners[0].admission.in_work, queue="inbound")
    metrics.gauge("connections", lambda: sum(calls.edge.used for calls in listeners))
    metrics.gauge("connections_limit", lambda: sum(calls.edge.limit for calls in listeners))


def metrics_place(options: DaemonOptions, recorded: str) -> HostPort | None:
    """Where to show metrics: as the option says, else as the directory does; C{None} for nowhere."""
    place: HostPort | None = options["metrics"]
    if place is None and recorded:
        try:
            return parse_host_port(recorded, "metrics")
        except UsageError:  # somebody wrote it past our checks: no reason not to serve
            Daemon._log.warn("no metrics: the directory says they are at {place}", place=recorded)
    return place


def load_key(options: DaemonOptions) -> FarmKey:
    """The farm key.

    @raise SystemExit: it cannot be read, or others may read it.
    """
    try:
        return FarmKey.load(Path(options["key-file"]))
    except (OSError, ValueError) as problem:
        raise SystemExit(f"rvpfarm: {problem}") from problem


def open_directory(
    options: DaemonOptions,
    reactor: Any,
    *,
    metrics: Metrics,
    key: FarmKey | None,
    snapshots: FarmKey | None = None,
) -> tuple[CachedDirectory, Standby | None]:
    """The directory, with the farm already known, and what keeps a snapshot of it: services for the caller.

    While it cannot be asked, the last snapshot of it stands in.  Every connection that this took is closed
    again: twistd may fork before services are started.

    @param reactor: the daemon's (C{Any}: no one interface has threads and timers).
    @param key: opens credentials; C{None} where nobody has to prove anything.
    @param snapshots: seals a snapshot at C{options["snapshot"]}; C{None} where none is kept.
    @return: the first to start, and the last: stopped first, it writes while calls are still answered.
    @raise SystemExit: the directory cannot be used, and no snapshot either, in one sentence.
    """
    shelf, found, refusal = None, None, ""
    verifiers = key is not None
    if snapshots is not None and options["snapshot"] is not None:
        shelf = SnapshotFile(Path(options["snapshot"]), snapshots.snapshot)
    try:
        store = Store(options["directory"], key)
        directory = CachedDirectory(SqlSource(store), reactor, metrics=metrics)
        if shelf is not None:
            found, refusal = _recall(shelf, directory, verifiers=verifiers)
        directory.load()
        store.close()
    except DirectoryUnavailable as problem:
        raise SystemExit(f"rvpfarm: {problem}{refusal and f'; {refusal}'}") from problem
    if refusal:
        _log.warn("{refusal}; it is made anew", refusal=refusal)
    if shelf is None:
        return directory, None
    standby = Standby(directory, shelf, reactor, verifiers=verifiers, metrics=metrics)
    if found is not None:
        standby.recalled(found)
    return directory, standby


def _recall(
    shelf: SnapshotFile, directory: CachedDirectory, *, verifiers: bool
) -> tuple[Recalled | None, str]:
    """Tell C{directory} what the last snapshot of it says; or why it is not to be used."""
    # what is made here lasts: looking for circles in it again and again takes longer than all the rest
    gc.disable()
    try:
        found = shelf.read(time.time(), verifiers=verifiers)
        if found is None:
            return None, ""
        directory.recall(found.snapshot, found.age_seconds)
        if len(found.snapshot.accounts) > _MANY:
            gc.freeze()
    except BadSnapshot as problem:
        return None, str(problem)
    finally:
        gc.enable()
    _log.info(
        "the snapshot {path} is {age} old; accounts taken up from it: {count}",
        count=len(found.snapshot.accounts),
        path=str(shelf.path),
        age=spell_span(found.age_seconds),
    )
    return found, ""
