"""C{twistd rvp-router}: the edge of the farm; keeps nothing, so any number may run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.application.service import IService

from rvpfarm.link.links import Links
from rvpfarm.link.parts import WHOLE_LIMIT
from rvpfarm.protocol.calls import Limits
from rvpfarm.router.forwarder import Router
from rvpfarm.tap.daemon import Daemon, OnStop, attend, connector, load_key, open_directory, record_of
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
        return () if listening.listening else ("not listening",)

    metrics = attend(top, options, reactor, role="router", ready=missing)
    directory = open_directory(options, reactor, metrics=metrics, key=None)
    record = record_of(directory.farm().routers, options, "router")
    directory.setServiceParent(top)
    links = Links(
        reactor,
        connector(reactor),
        key=load_key(options).link,
        name=options["name"],
        metrics=metrics,
        piecewise=True,
    )
    OnStop(links.stop).setServiceParent(top)
    metrics.gauge("outbound_connections", lambda: links.connected, peer="server")
    metrics.gauge("queue_depth", lambda: links.held, queue="held")
    router = Router(directory, links, clock=reactor, metrics=metrics)
    calls = CallFactory(
        router.answer,
        clock=reactor,
        limits=Limits(),
        metrics=metrics,
        name=options["name"],
        on_gone=router.gone,
        withheld=options["schemes"],
        stream_over=WHOLE_LIMIT,
    )
    listening = ListeningService(
        reactor,
        options["listen"] or default_listen(record.address, record.port),
        calls,
        who="rvp-router",
        option="--listen",
    )
    listening.setServiceParent(top)
    return top
