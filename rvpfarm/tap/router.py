"""C{twistd rvp-router}: the edge of the farm; has no state, so any number may run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from twisted.application.service import IService
from twisted.python.usage import UsageError

from rvpfarm.link.links import Links
from rvpfarm.link.parts import WHOLE_LIMIT
from rvpfarm.observe.status import Status
from rvpfarm.protocol.calls import Limits
from rvpfarm.router.forwarder import Router
from rvpfarm.router.garbage import GarbagePace
from rvpfarm.router.health import Health
from rvpfarm.router.probing import Prober
from rvpfarm.tap.daemon import (
    Daemon,
    OnStop,
    attend,
    connector,
    heed,
    load_key,
    open_directory,
    show_certificate,
)
from rvpfarm.tap.overview import Homes, show_directory, show_work
from rvpfarm.tap.records import find_record, own_record
from rvpfarm.tap.settings import RouterOptions, default_listen
from rvpfarm.tap.supervisor import make_supervisor, parse_workers
from rvpfarm.tap.workers import Seat
from rvpfarm.web.listening import ListeningService
from rvpfarm.web.server import CallFactory


class Options(RouterOptions):
    """Options of C{rvp-router}."""

    longdesc = "Finds the home of whom a request is for, and forwards the request or refers the caller."

    optParameters = [
        [
            "workers",
            "w",
            None,
            "processes that share the address, one for each core, say; SIGUSR2 replaces them one by one; "
            "default 1 ($RVPFARM_WORKERS)",
        ],
    ]
    environment = {**RouterOptions.environment, "workers": "RVPFARM_WORKERS"}

    def choose_reactor(self) -> None:
        """Have a router run on the loop, but the supervisor of several where child processes work well."""
        self["workers"] = parse_workers(self["workers"])
        if self["workers"] == 1:
            super().choose_reactor()

    def postOptions(self) -> None:
        """Complete and check.

        @raise UsageError: an option is malformed, or a needed one missing.
        """
        super().postOptions()
        first, count = self["metrics"], self["workers"]
        if first is not None and first.port + count > 65536:
            raise UsageError(f"--metrics: {count} ports from {first.port} on are more than there are")


def makeService(options: Options, reactor: Any = None) -> IService:
    """Build the router; nothing listens until it is started.

    @param reactor: the installed one if C{None} (C{Any}: no one interface has all that is needed of it).
    """
    if reactor is None:
        from twisted.internet import reactor
    if options["workers"] > 1:
        return make_supervisor(options, reactor)
    top = Daemon(reactor, delay_seconds=options["drain-delay"])

    def missing() -> Sequence[str]:
        """What is not running yet, or why no work should come here just now."""
        if not listening.listening:
            return ("not listening",)
        none_up = homes.missing()
        return (*directory.missing(), *((none_up,) if none_up else ()))

    def draining() -> bool:
        """Whether work should go elsewhere, because this process stops or the directory says so."""
        return top.draining or own_record(directory.farm(), options["name"]).state == "draining"

    status = Status(role="router", name=options["name"], ready=missing, draining=draining)
    seat = Seat.of(os.environ)
    metrics = attend(
        top,
        options,
        reactor,
        status,
        recorded=lambda: record.metrics,
        started=lambda: listening.listening,
        seat=seat,
    )
    key = load_key(options)
    directory, standby = open_directory(
        options, reactor, metrics=metrics, key=None, snapshots=key, keep=seat.number == 0
    )
    record = find_record(directory.farm(), options)
    directory.setServiceParent(top)
    health = Health()
    links = Links(
        reactor,
        connector(reactor),
        key=key.link,
        name=options["name"],
        metrics=metrics,
        piecewise=True,
        watch=health,
    )
    OnStop(links.stop).setServiceParent(top)
    metrics.gauge("outbound_connections", lambda: links.connected, peer="server")
    metrics.gauge("queue_depth", lambda: links.held, queue="held")
    homes = Homes(health, directory, reactor)
    router = Router(directory, links, clock=reactor, metrics=metrics, health=health)
    GarbagePace().setServiceParent(top)
    Prober(directory, links, health, clock=reactor, metrics=metrics).setServiceParent(top)
    calls = CallFactory(
        router.answer,
        clock=reactor,
        limits=Limits(),
        metrics=metrics,
        name=options["name"],
        on_gone=router.gone,
        withheld=options["schemes"],
        grace_seconds=options["drain-grace"],
        stream_over=WHOLE_LIMIT,
    )
    heed([calls], directory, metrics)
    show_work(status, lambda: len(calls.connections), lambda: calls.admission.in_work)
    show_directory(status, directory, options["directory"])
    homes.show(metrics, status)
    listening = ListeningService(
        reactor,
        options["listen"] or default_listen(record.address, record.port),
        calls,
        who="rvp-router",
        option="--listen",
    )
    show_certificate(metrics, listening)
    listening.setServiceParent(top)
    if standby is not None:
        standby.setServiceParent(top)
    return top
