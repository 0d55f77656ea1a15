"""C{twistd rvp-router --workers N}: one process that keeps N routers running on one address.

It stays on Twisted's own reactor, on which child processes work well.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from twisted.application.service import IService
from twisted.internet.error import CannotListenError
from twisted.python.reflect import fullyQualifiedName
from twisted.python.usage import UsageError

from rvpfarm.tap.daemon import Daemon, hear_signals, load_key, open_directory
from rvpfarm.tap.notify import FROM_SUPERVISOR, NOTIFY_FD, Notices, Notifier, watchdog_seconds
from rvpfarm.tap.records import find_record
from rvpfarm.tap.settings import PATIENCE_SECONDS, STOP_AT_EOF, RouterOptions, StopAtEof, default_listen
from rvpfarm.tap.signals import leave_with_failure
from rvpfarm.tap.workers import NOTICES_FD, SEAT, SOCKET_FD, Seat, Worker, Workers
from rvpfarm.web.endpoints import on_descriptor
from rvpfarm.web.listening import CannotServe, describe_refusal, parse_endpoint
from rvpfarm.web.server import DRAIN_SECONDS

#: More workers than this are a slip of the finger.
WORKERS_LIMIT = 256

_WHO = "rvp-router"


def parse_workers(text: str | None) -> int:
    """The value of C{--workers}; one when it is not given.

    @raise UsageError: it is no such number.
    """
    if text is None:
        return 1
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= WORKERS_LIMIT):
        raise UsageError(f"--workers: {text!r} is not a number from 1 to {WORKERS_LIMIT}")
    return int(text)


def worker_environment(ours: Mapping[str, str], seat: Seat, watchdog_seconds: float) -> dict[str, str]:
    """The environment of a worker: ours, but for what is meant for its supervisor alone."""
    alone = FROM_SUPERVISOR | {"RVPFARM_WORKERS", "RVPFARM_LISTEN"}
    kept = {name: value for name, value in ours.items() if name not in alone}
    kept |= {STOP_AT_EOF: "1", NOTIFY_FD: str(NOTICES_FD), SEAT: str(seat)}
    if watchdog_seconds:
        kept["WATCHDOG_USEC"] = str(int(watchdog_seconds * 1e6))
    return kept


def log_arguments(twistd: Mapping[str, Any], name: str) -> list[str]:
    """How a worker's twistd is to log, given the options of its supervisor's.

    @param twistd: C{Any}: its values are of all kinds.
    """
    if twistd.get("logger"):
        return ["--logger", fullyQualifiedName(twistd["logger"])]  # twistd has looked it up by then
    if twistd.get("syslog"):
        return ["--syslog", "--prefix", f"{twistd['prefix']}-{name}"]
    file = twistd.get("logfile")
    if file == "-" or not (file or not twistd.get("nodaemon")):
        return []
    path = Path(file or "twistd.log").absolute()  # two processes cannot write to one that is rotated
    return ["--logfile", str(path.with_name(f"{path.stem}-{name}{path.suffix}"))]


def make_supervisor(
    options: RouterOptions, reactor: Any, environment: Mapping[str, str] = os.environ
) -> IService:
    """Build the supervisor of several routers.

    @param reactor: Twisted's own (C{Any}: no one interface has processes, timers and C{stop}).
    """
    # it brings the reactor
    from rvpfarm.tap.children import Children, twistd_arguments

    # Each worker does the same for itself, but this way there is one complaint.
    key = load_key(options)
    directory, _ = open_directory(options, reactor, metrics=None, key=None, snapshots=key, keep=False)
    record = find_record(directory.farm(), options)
    listen = options["listen"] or default_listen(record.address, record.port)
    endpoint = parse_endpoint(reactor, listen, who=_WHO, option="--listen")
    if not hasattr(endpoint, "reserve"):
        raise CannotServe(f"{_WHO}: --listen {listen}: --workers needs fast:tcp, fast:ssl or fast:systemd")
    twistd: Mapping[str, Any] = options.parent or {}
    here = str(Path.cwd())
    watchdog = watchdog_seconds(environment, os.getpid())

    def reserve() -> Sequence[socket.socket]:
        """Take the address."""
        try:
            sockets: Sequence[socket.socket] = endpoint.reserve(options["workers"])
        except CannotListenError as problem:
            raise CannotServe(describe_refusal(_WHO, "--listen", problem)) from problem
        except ValueError as problem:
            raise CannotServe(f"{_WHO}: --listen {listen}: {problem}") from problem
        return sockets

    def launch(worker: Worker, fd: int) -> Mapping[str, Any]:
        """How to run a worker on the socket C{fd}."""
        arguments = [*options.given, "--workers", "1", "--listen", on_descriptor(listen, SOCKET_FD)]
        log = log_arguments(twistd, worker.name)
        return {
            "arguments": twistd_arguments("rvp-router", *arguments, log=log),
            "environment": worker_environment(environment, Seat(worker.number, options["workers"]), watchdog),
            "descriptors": {
                0: "w",
                1: "r" if "--logfile" in log else 1,
                2: "r",
                SOCKET_FD: fd,
                NOTICES_FD: "r",
            },
            "directory": here,
        }

    def give_up(why: str, said: Sequence[str]) -> None:
        """It makes no sense to go on."""
        if sys.__stderr__ is not None:
            print("\n  ".join([f"{_WHO}: {why}", *said]), file=sys.__stderr__, flush=True)
        leave_with_failure()
        reactor.stop()

    top = Daemon(reactor)
    kill_seconds = options["drain-delay"] + DRAIN_SECONDS + PATIENCE_SECONDS
    workers = Workers(
        reactor,
        lambda failing, ended: Children(reactor, None, failing, ended=ended, kill_seconds=kill_seconds),
        options["workers"],
        reserve,
        launch,
        give_up,
        watchdog_seconds=watchdog,
    )

    def reasons() -> Sequence[str]:
        """Why no work should be sent here."""
        return ("draining",) if top.draining else workers.missing()

    notices = Notices(reactor, Notifier(environment), ready=reasons, environment=environment)
    for service in (
        hear_signals(top, reactor, notices, lambda outcome: None),
        StopAtEof(reactor, patience_seconds=kill_seconds + PATIENCE_SECONDS),
        notices,
        workers,
    ):
        service.setServiceParent(top)
    top.on_drain(notices.stopping)
    return top
