"""C{twistd rvp-router}: the edge of the farm; has no state, so any number may run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.application.service import IService

from rvpfarm.link.links import Links
from rvpfarm.observe.status import Status
from rvpfarm.protocol.calls import Limits
from rvpfarm.router.forwarder import Router
from rvpfarm.router.health import Health
from rvpfarm.router.probing import Prober
from rvpfarm.tap.daemon import Daemon, OnStop, attend, connector, heed, load_key, open_directory, record_of
from rvpfarm.tap.overview import Homes, show_directory, show_work
from rvpfarm.tap.settings import RouterOptions, default_listen
from rvpfarm.web.listening import ListeningService
from rvpfarm.web.server import CallFactory


class Options(RouterOptions):
    """Options of C{rvp-router}."""

    longdesc = "Finds the home of whom a request is for, and forwards the request or refers the caller."


def makeService(options: Options, reactor: Any = None) -> IService:
    """Build the router; nothing listens until it is started.

    @param reactor: the installed one if C{None} (C{Any}: no one interface has all that is needed of it).
    """
    if reactor is None:
        from twisted.internet import reactor
    top = Daemon()

    def missing() -> Sequence[str]:
        """What is not running yet."""
        if not listening.listening:
            return ("not listening",)
        none_up = homes.missing()
        return (*directory.missing(), *((none_up,) if none_up else ()))

    status = Status(role="router", name=options["name"], ready=missing)
    metrics = attend(top, options, reactor, status, recorded=lambda: record.metrics)
    key = load_key(options)
    directory, standby = open_directory(options, reactor, metrics=metrics, key=None, snapshots=key)
    record = record_of(directory.farm().routers, options["name"], "router")
    directory.setServiceParent(top)
    links = Links(reactor, connector(reactor), key=key.link, name=options["name"], metrics=metrics)
    OnStop(links.stop).setServiceParent(top)
    metrics.gauge("outbound_connections", lambda: links.connected, peer="server")
    health = Health()
    homes = Homes(health, directory, reactor)
    router = Router(directory, links, clock=reactor, metrics=metrics, health=health)
    Prober(directory, links, health, clock=reactor, metrics=metrics).setServiceParent(top)
    calls = CallFactory(
        router.answer,
        clock=reactor,
        limits=Limits(),
        metrics=metrics,
        name=options["name"],
        on_gone=router.gone,
        withheld=options["schemes"],
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
    listening.setServiceParent(top)
    if standby is not None:
        standby.setServiceParent(top)
    return top
