"""C{twistd rvp-dns}: DNS for the farm's own zone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.application.service import IService
from twisted.python.usage import UsageError

from rvpfarm.discovery.nameserver import NameServer
from rvpfarm.observe.status import Status
from rvpfarm.tap.daemon import Daemon, attend, open_directory
from rvpfarm.tap.overview import show_directory
from rvpfarm.tap.settings import DaemonOptions, parse_host_port


class Options(DaemonOptions):
    """Options of C{rvp-dns}."""

    longdesc = "Answers SRV and address queries for one zone from the farm's directory."

    optParameters = [
        ["zone", "z", None, "the zone to answer for, as farm.localhost ($RVPFARM_ZONE)"],
        ["listen", "l", None, "ADDRESS:PORT, for UDP and TCP; default 127.0.0.1:53 ($RVPFARM_LISTEN)"],
    ]
    environment = {**DaemonOptions.environment, "zone": "RVPFARM_ZONE", "listen": "RVPFARM_LISTEN"}
    needed = ("directory", "zone")

    def postOptions(self) -> None:
        """Complete and check.

        @raise UsageError: a needed option is missing, or an address is malformed.
        """
        super().postOptions()
        self["name"] = self["name"] or "dns"
        self["listen"] = parse_host_port(self["listen"] or "127.0.0.1:53", "listen")
        if self["zone"].strip(".") == "":
            raise UsageError("--zone: the root is not ours")


def makeService(options: Options, reactor: Any = None) -> IService:
    """Build the name server; nothing listens until it is started.

    @param reactor: the installed one if C{None} (C{Any}: no one interface has all that is needed of it).
    """
    if reactor is None:
        from twisted.internet import reactor
    top = Daemon(reactor)

    def missing() -> Sequence[str]:
        """What is not running yet."""
        return () if server.running else ("the name server has not started",)

    status = Status(role="dns", name=options["name"], ready=missing, draining=lambda: top.draining)
    metrics = attend(top, options, reactor, status)
    directory, _ = open_directory(options, reactor, metrics=metrics, key=None)
    directory.setServiceParent(top)
    show_directory(status, directory, options["directory"])
    place = options["listen"]
    server = NameServer(reactor, directory, options["zone"], interface=place.host, port=place.port)
    server.setServiceParent(top)
    return top
