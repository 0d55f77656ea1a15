"""C{twistd rvp-home}: a home server; owns the nodes of its users."""

from __future__ import annotations

from collections.abc import Sequence
from os import urandom
from pathlib import Path
from typing import Any

from twisted.application.service import IService
from twisted.internet.defer import Deferred

from rvpfarm.auth.challenge import Digest, Gate, Scheme
from rvpfarm.auth.connections import Connections
from rvpfarm.auth.digest import Nonces
from rvpfarm.auth.handshakes import Negotiate, Ntlm
from rvpfarm.auth.kerberos import BadKeytab, Keytab
from rvpfarm.auth.throttle import Throttle
from rvpfarm.directory.model import Directory
from rvpfarm.discovery.lookup import Locator
from rvpfarm.discovery.strangers import Strangers
from rvpfarm.home.garbage import GarbageWatch
from rvpfarm.home.journal import Journal
from rvpfarm.home.reach import barred
from rvpfarm.home.server import Home
from rvpfarm.home.signins import SignIns
from rvpfarm.link.links import LinkFactory, Links
from rvpfarm.observe.metrics import Metrics
from rvpfarm.protocol.calls import Limits
from rvpfarm.router.forwarder import Router
from rvpfarm.tap.daemon import Daemon, OnStart, OnStop, attend, connector, load_key, open_directory, record_of
from rvpfarm.tap.settings import HomeOptions, default_listen
from rvpfarm.web.admission import Admission
from rvpfarm.web.listening import ListeningService
from rvpfarm.web.outgoing import Outgoing
from rvpfarm.web.responses import Response
from rvpfarm.web.server import CallFactory

#: The state of a home, in its state directory.
STATE_FILE = "home.sqlite"


class Options(HomeOptions):
    """Options of C{rvp-home}."""

    longdesc = "Keeps presence, subscriptions and access lists of its users, and delivers their messages."


def makeService(options: Options, reactor: Any = None) -> IService:
    """Build the home; nothing listens and no state is touched until it is started.

    Services start in the order in which they are added here: what others need comes first.

    @param reactor: the installed one if C{None} (C{Any}: no one interface has all that is needed of it).
    """
    if reactor is None:
        from twisted.internet import reactor
    top = Daemon()

    def missing() -> Sequence[str]:
        """What is not running yet."""
        if not home.running:  # the addresses are taken long before
            return ("its state is not taken up",)
        return () if calls_at.listening and links_at.listening else ("not listening",)

    name = options["name"]
    metrics = attend(top, options, reactor, role="home", ready=missing)
    key = load_key(options)
    directory = open_directory(options, reactor, metrics=metrics, key=key)
    record = record_of(directory.farm().homes, options, "home")
    directory.setServiceParent(top)
    journal = Journal(_state_file(options["state-dir"]), reactor, metrics=metrics)
    journal.setServiceParent(top)
    connect = connector(reactor)
    outgoing = Outgoing(reactor, connect, metrics=metrics)
    outgoing.setServiceParent(top)
    strangers = _strangers(options, reactor, directory, metrics, top)
    links = Links(reactor, connect, key=key.link, name=name, metrics=metrics)
    OnStop(links.stop).setServiceParent(top)
    router = Router(directory, links, clock=reactor, metrics=metrics, own_home=record.id)
    nonces, connections = Nonces(key.nonce, since=reactor.seconds()), Connections()
    metrics.gauge("authenticated_connections", lambda: connections.proved)
    home = Home(
        record.id,
        directory=directory,
        gate=Gate(
            nonces,
            schemes=_schemes(options, reactor, nonces, connections, top),
            on_failure=metrics.auth_failure,
            on_miss=SignIns(metrics).missed,
            throttle=Throttle(),
        ),
        journal=journal,
        outgoing=outgoing,
        elsewhere=router.answer,
        clock=reactor,
        metrics=metrics,
        random=urandom,
        strangers=strangers,
    )
    home.setServiceParent(top)
    GarbageWatch().setServiceParent(top)
    admission = Admission(Limits().in_work)
    metrics.gauge("queue_depth", lambda: admission.in_work, queue="inbound")
    metrics.gauge("outbound_connections", lambda: links.connected, peer="server")

    def gone(connection: str) -> None:
        """What a connection has proved ends with it, here and at the homes it was passed on to."""
        connections.forget(connection)
        router.gone(connection)

    calls = CallFactory(
        home.answer,
        clock=reactor,
        limits=Limits(),
        admission=admission,
        metrics=metrics,
        name=name,
        on_gone=gone,
        withheld=options["schemes"],
    )
    taken = LinkFactory(
        home.answer,
        key=key.link,
        name=record.id,
        incarnation=0,
        clock=reactor,
        limits=Limits(),
        metrics=metrics,
        admission=admission,
        on_gone=connections.forget,
    )

    def number_start() -> None:
        """Each start has a number, so that routers know what a new process cannot remember."""
        taken.incarnation = journal.incarnation

    OnStart(number_start).setServiceParent(top)
    calls_at = ListeningService(
        reactor,
        options["listen"] or default_listen(record.address, record.port),
        calls,
        who="rvp-home",
        option="--listen",
    )
    links_at = ListeningService(
        reactor,
        options["link"] or default_listen(record.address, record.link_port),
        taken,
        who="rvp-home",
        option="--link",
    )
    calls_at.setServiceParent(top)
    links_at.setServiceParent(top)
    return top


def _schemes(
    options: Options,
    reactor: Any,  # as in makeService
    nonces: Nonces,
    connections: Connections,
    top: Daemon,
) -> tuple[Scheme, ...]:
    """The ways to prove who one is; which of them are offered is for the policy C{schemes} to say.

    @raise SystemExit: the keytab cannot be used.
    """
    tickets: Keytab | None = None
    if options["keytab"] is not None:
        try:
            tickets = Keytab(Path(options["keytab"]), reactor)
        except BadKeytab as problem:
            raise SystemExit(f"rvp-home: --keytab {options['keytab']}: {problem}") from problem
        tickets.setServiceParent(top)
    return (Negotiate(connections, tickets), Ntlm(connections), Digest(nonces))


def _strangers(
    options: Options,
    reactor: Any,  # as in makeService
    directory: Directory,
    metrics: Metrics,
    top: Daemon,
) -> Strangers[Response]:
    """What calls the servers of other organisations; its services are added to C{top}."""
    dns = options["dns"]
    locator = Locator(reactor, dns_server=None if dns is None else str(dns))
    outgoing = Outgoing(reactor, connector(reactor), metrics=metrics, peer="server")
    strangers = Strangers(
        reactor,
        locator,
        outgoing,
        barred=lambda address, port: barred(address, port, directory.farm()),
        refused=metrics.call_back_blocked,
    )

    async def close() -> None:
        """Nobody asks the DNS any more."""
        locator.close()

    OnStop(lambda: Deferred.fromCoroutine(close())).setServiceParent(top)
    outgoing.setServiceParent(top)
    strangers.setServiceParent(top)
    return strangers


def _state_file(directory: str) -> Path:
    """The database of the home's state; its directory is made if need be, for nobody else to read.

    @raise SystemExit: it cannot be made.
    """
    where = Path(directory)
    try:
        where.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as problem:
        raise SystemExit(f"rvp-home: --state-dir {where}: {problem.strerror}") from problem
    return where / STATE_FILE
