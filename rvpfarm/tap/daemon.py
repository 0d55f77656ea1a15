"""What every daemon is built around: how it stops and reloads, its metrics and health, the directory."""

from __future__ import annotations

import gc
import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry
from twisted.application.service import IService, MultiService, Service
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.usage import UsageError

from rvpfarm.auth.keys import FarmKey
from rvpfarm.directory.cache import CachedDirectory
from rvpfarm.directory.ldapsource import LdapSource
from rvpfarm.directory.model import Directory, DirectoryUnavailable, Home, Router
from rvpfarm.directory.snapshot import BadSnapshot
from rvpfarm.directory.spans import spell_span
from rvpfarm.directory.standby import Recalled, SnapshotFile, Standby
from rvpfarm.directory.store import Store
from rvpfarm.observe.health import HealthServer
from rvpfarm.observe.metrics import LagProbe, Metrics
from rvpfarm.observe.status import Status
from rvpfarm.tap.notify import Notices, Notifier
from rvpfarm.tap.settings import PATIENCE_SECONDS, DaemonOptions, HostPort, StopAtEof, parse_host_port
from rvpfarm.tap.signals import Signals
from rvpfarm.tap.workers import ALONE, Seat
from rvpfarm.web.fast import FastClientEndpoint
from rvpfarm.web.listening import ListeningService
from rvpfarm.web.server import CallFactory

_Member = TypeVar("_Member", Home, Router)

#: From so many accounts on a snapshot is worth being kept out of the garbage collector's way.
_MANY = 10_000

_log = Logger()


#: Signals to stop that come so soon after the first are the same wish: a supervisor may tell a whole group of
#: processes, among them some that tell others.
AGAIN_SECONDS = 0.5


class Daemon(MultiService):
    """The services of a daemon: started in the order in which they were added, stopped in the reverse order.

    Each is stopped when those that need it have stopped: listeners finish their calls while everything
    behind them still works.

    Besides starting and stopping, a service may C{reload()} what it has read from elsewhere, which raises
    C{ValueError} with a sentence if that is of no use, and C{hurry()}, which ends its waiting when it stops.

    @ivar draining: it stops, or is about to.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime | None = None, *, delay_seconds: float = 0.0) -> None:
        """
        @param clock: only needed for the next.
        @param delay_seconds: for so long everything is still served when the daemon is told to stop, so that
            whoever sends work here can learn that it should not.
        """
        super().__init__()
        self._clock, self._delay_seconds = clock, delay_seconds
        self._delay: Deferred[None] | None = None
        self._told: list[Callable[[], object]] = []
        self._began = -math.inf
        self._hurried = False
        self.draining = False

    def on_drain(self, told: Callable[[], object]) -> None:
        """Call C{told} when the daemon begins to stop."""
        self._told.append(told)

    def stopService(self) -> Deferred[None]:
        """Wait for the delay, then stop one after the other; fires when all have stopped."""
        self.running = False
        self.draining = True
        self._began = -math.inf if self._clock is None else self._clock.seconds()
        for told in self._told:
            told()
        return Deferred.fromCoroutine(self._stop_children())

    async def _stop_children(self) -> None:
        if self._delay_seconds and self._clock is not None and not self._hurried:
            self._delay = deferLater(self._clock, self._delay_seconds)
            with suppress(CancelledError):
                await self._delay
        for service in reversed(list(self)):
            try:
                await maybeDeferred(service.stopService)
            except Exception:  # or those behind it would run on, and the process with them
                self._log.failure("{service} did not stop as it should", service=service)

    def told_again(self) -> None:
        """A further signal to stop came while the daemon stops: whoever sent it is out of patience."""
        if self._clock is None or self._clock.seconds() - self._began >= AGAIN_SECONDS:
            self.hurry()

    def hurry(self) -> None:
        """Stop without waiting for anything, now or later."""
        if not self._hurried:
            self._hurried = True
            self._log.info("told to stop again: what is in work is cut off")
            if self._delay is not None:
                self._delay.cancel()
            for service in self._everything(self):
                hurry = getattr(service, "hurry", None)
                if hurry is not None:
                    hurry()

    def reload(self) -> bool:
        """Have every service read again what it has read from elsewhere; did that go well?"""
        well = True
        for service in self._everything(self):
            reload = getattr(service, "reload", None)
            if reload is None:
                continue
            try:
                reload()
            except ValueError as problem:
                self._log.error("not reloaded, what was there stays: {why}", why=str(problem))
                well = False
            except Exception:  # or those behind it would not be reloaded
                self._log.failure("{service} did not reload as it should", service=service)
                well = False
        if well:
            self._log.info("reloaded: certificates are those of the files, settings those of the directory")
        return well

    def roll(self) -> None:
        """Have the workers replaced one by one, where there are any."""
        rolls = [service.roll for service in self._everything(self) if hasattr(service, "roll")]
        for roll in rolls:
            roll()
        if not rolls:
            self._log.warn("SIGUSR2 replaces the workers of --workers one by one, and there are none here")

    def _everything(self, parent: MultiService) -> Iterator[IService]:
        for service in parent:
            yield service
            if isinstance(service, MultiService):
                yield from self._everything(service)


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
    top: Daemon,
    options: DaemonOptions,
    reactor: Any,
    status: Status,
    *,
    recorded: Callable[[], str] = str,
    started: Callable[[], bool] | None = None,
    seat: Seat = ALONE,
    environment: Mapping[str, str] = os.environ,
) -> Metrics:
    """Give a daemon its metrics, its health and status pages, ears for signals, and an end with its parent.

    Called before anything else is added to C{top}, so that health is served before and after everything.
    The metrics are under the process's name, or the first of several; see L{Metrics.beside}.

    @param reactor: the daemon's (C{Any}: no one interface has readers, timers and C{stop}).
    @param recorded: where the directory says that this daemon shows its metrics, as C{ADDRESS:PORT}, or
        nothing; asked at the start, for when no option says where.
    @param started: whether all of it runs, for whoever has to wait for that; left out, when it is ready.
    @param seat: which worker of how many this is.
    @param environment: where it stands who wants notices.
    """
    registry = CollectorRegistry()
    metrics = Metrics(registry, role=status.role, node=options["name"])
    server = HealthServer("", 0, registry, clock=reactor, ready=status.ready, status=status.render)

    def settle() -> None:
        """Find out where to listen."""
        place = seat.place(metrics_place(options, recorded()))
        if place is not None:
            server.settle(place.host, place.port)

    notices = Notices(
        reactor,
        Notifier(environment),
        ready=status.ready,
        started=started,
        alive=server.alive,
        environment=environment,
    )
    patience = PATIENCE_SECONDS + (options.get("drain-delay") or 0.0)
    for service in (
        hear_signals(top, reactor, notices, metrics.reloaded),
        StopAtEof(reactor, patience_seconds=patience),
        LagProbe(reactor, metrics),
        OnStart(settle),
        server,
        notices,
    ):
        service.setServiceParent(top)
    top.on_drain(notices.stopping)
    if seat.count > 1:
        status.show_fields(lambda: {"workers": seat.count, "worker": seat.number})
    return metrics


def hear_signals(top: Daemon, reactor: Any, notices: Notices, reloaded: Callable[[str], None]) -> Signals:
    """What hears signals: C{SIGHUP} reloads, C{SIGUSR2} rolls, a second C{SIGTERM} or C{SIGINT} hurries.

    @param reactor: C{Any}: as in L{attend}.
    @param reloaded: told what came of each reload, C{"done"} or C{"failed"}.
    """

    def reload() -> None:
        """Read again what can be, unless it will not be needed."""
        if not top.draining:
            notices.reloading()
            reloaded("done" if top.reload() else "failed")
            notices.reloaded()

    signals = Signals(reactor, {signal.SIGHUP: reload, signal.SIGUSR2: top.roll})
    for number in (signal.SIGTERM, signal.SIGINT):
        top.on_drain(partial(signals.take, number, top.told_again))
    return signals


def show_certificate(metrics: Metrics, listening: ListeningService) -> None:
    """Show when the certificate of a listener expires, if it has one."""
    if listening.certificate_expires is not None:
        metrics.gauge(
            "certificate_expires_timestamp_seconds",
            lambda: listening.certificate_expires or math.nan,
            listener=listening.option.strip("-"),
        )


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
    metrics: Metrics | None,
    key: FarmKey | None,
    snapshots: FarmKey | None = None,
    keep: bool = True,
) -> tuple[CachedDirectory, Standby | None]:
    """The directory, with the farm already known, and what keeps a snapshot of it: services for the caller.

    While it cannot be asked, the last snapshot of it stands in.  Every connection that this took is closed
    again: twistd may fork before services are started.

    @param reactor: the daemon's (C{Any}: no one interface has threads and timers).
    @param key: opens credentials; C{None} where nobody has to prove anything.
    @param snapshots: opens and seals a snapshot at C{options["snapshot"]}; C{None} where there is none.
    @param keep: keep one; else it is only read.
    @return: the first to start, and the last: stopped first, it writes while calls are still answered.
    @raise SystemExit: the directory cannot be used, and no snapshot either, in one sentence.
    """
    shelf, found, refusal = None, None, ""
    verifiers = key is not None
    if snapshots is not None and options["snapshot"] is not None:
        shelf = SnapshotFile(Path(options["snapshot"]), snapshots.snapshot)
    try:
        store = Store(options["directory"], key)
        source = LdapSource(store, key or snapshots, pins=key is not None)
        directory = CachedDirectory(source, reactor, metrics=metrics)
        if metrics is not None:
            metrics.gauge("ldap_up", lambda: math.nan if source.up is None else source.up)
        if shelf is not None:
            found, refusal = _recall(shelf, directory, verifiers=verifiers)
        directory.load()
        store.close()
    except DirectoryUnavailable as problem:
        raise SystemExit(f"rvpfarm: {problem}{refusal and f'; {refusal}'}") from problem
    if refusal:
        _log.warn("{refusal}; it is made anew", refusal=refusal)
    if shelf is None or not keep:
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
