"""C{twistd rvp-home}: a home server, or several in one process; owns the nodes of its users."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from twisted.application.service import IService, MultiService
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.python.randbytes import secureRandom

from rvpfarm.auth.basic import Basic
from rvpfarm.auth.challenge import Digest, Scheme
from rvpfarm.auth.connections import Connections
from rvpfarm.auth.digest import Nonces
from rvpfarm.auth.handshakes import Negotiate, Ntlm
from rvpfarm.auth.kerberos import BadKeytab, Keytab
from rvpfarm.auth.keys import FarmKey
from rvpfarm.auth.throttle import Throttle
from rvpfarm.directory.cache import CachedDirectory
from rvpfarm.directory.ldapprover import LdapProver
from rvpfarm.directory.ldapsource import LdapSource
from rvpfarm.directory.model import Directory, Farm
from rvpfarm.directory.model import Home as Record
from rvpfarm.directory.reach import barred
from rvpfarm.discovery.lookup import Locator
from rvpfarm.discovery.strangers import Strangers
from rvpfarm.home.garbage import GarbageWatch
from rvpfarm.home.journal import Journal
from rvpfarm.link.links import Links
from rvpfarm.observe.metrics import Metrics
from rvpfarm.observe.status import Status
from rvpfarm.protocol.calls import Limits
from rvpfarm.router.forwarder import Router, Take
from rvpfarm.router.health import Health
from rvpfarm.router.probing import Prober
from rvpfarm.tap.daemon import (
    Daemon,
    OnStart,
    OnStop,
    attend,
    connector,
    heed,
    load_key,
    open_directory,
    record_of,
    show_certificate,
)
from rvpfarm.tap.hosting import (
    Hosted,
    Reception,
    Shared,
    all_draining,
    check_together,
    facts_of,
    listeners_of,
    state_files,
)
from rvpfarm.tap.overview import Homes, show_directory, show_work
from rvpfarm.tap.settings import HomeOptions, HostPort, default_listen
from rvpfarm.web.admission import Admission
from rvpfarm.web.listening import ListeningService
from rvpfarm.web.outgoing import Outgoing
from rvpfarm.web.responses import Response
from rvpfarm.web.server import CallFactory


class Options(HomeOptions):
    """Options of C{rvp-home}."""

    longdesc = "Keeps presence, subscriptions and access lists of its users, and delivers their messages."


def makeService(options: Options, reactor: Any = None) -> IService:
    """Build the home, or the homes; nothing listens and no state is touched until they are started.

    Services start in the order in which they are added here: what others need comes first.

    @param reactor: the installed one if C{None} (C{Any}: no one interface has all that is needed of it).
    """
    if reactor is None:
        from twisted.internet import reactor
    top = Daemon(reactor, delay_seconds=options["drain-delay"])
    listening: list[ListeningService] = []

    def started() -> bool:
        """Does it all run?  Listeners start last, though they are bound before anything starts."""
        return all(each.listening and each.running for each in listening)

    def missing() -> Sequence[str]:
        """What is not running yet, or why no work should come here just now."""
        return directory.missing() if started() else ("not listening",)

    def draining() -> bool:
        """Whether work should go elsewhere: this process stops, or the directory says so of all its homes."""
        return top.draining or all_draining(directory.farm(), records)

    status = Status(role="home", name=options["name"], ready=missing, draining=draining)
    metrics = attend(top, options, reactor, status, recorded=lambda: records[0].metrics, started=started)
    key = load_key(options)
    directory, standby = open_directory(options, reactor, metrics=metrics, key=key, snapshots=key)
    records = _records(directory.farm(), options)
    files = state_files(options["state-dir"], options["names"])
    directory.setServiceParent(top)
    figures = [metrics, *(metrics.beside(record.name) for record in records[1:])]
    journals = [Journal(path, reactor, metrics=own) for path, own in zip(files, figures, strict=True)]
    for journal in journals:
        journal.setServiceParent(top)
    sisters: dict[str, Take] = {}
    alone = records[0].id if len(records) == 1 else None
    shared = _share(options, reactor, directory, key, metrics, top, own_home=alone, sisters=sisters)
    homes = [
        Hosted(record, journal, own, shared)
        for record, journal, own in zip(records, journals, figures, strict=True)
    ]
    for hosted in homes:
        hosted.home.setServiceParent(top)
        OnStart(hosted.number_start).setServiceParent(top)
        if alone is None:
            sisters[hosted.record.id] = hosted.home.take
    GarbageWatch().setServiceParent(top)
    callers = list(_call_factories(options, homes, shared))
    listening.extend(_listeners(options, homes, callers, shared))
    heed([calls for _, calls in callers], directory, metrics)
    show_work(status, lambda: sum(calls.edge.used for _, calls in callers), lambda: shared.admission.in_work)
    show_directory(status, directory, options["directory"])
    status.show_fields(lambda: facts_of(homes))
    # Callers are dealt with first: farm members hold their calls while nobody is there for them.
    for option in ("--link", "--listen"):
        doors = MultiService()  # which stops all of them at once: none waits for the grace of another
        for each in listening:
            if each.option == option:
                show_certificate(metrics, each)
                each.setServiceParent(doors)
        doors.setServiceParent(top)
    if standby is not None:
        standby.setServiceParent(top)
    return top


def _share(
    options: Options,
    reactor: Any,  # as in makeService
    directory: CachedDirectory,
    key: FarmKey,
    metrics: Metrics,
    top: Daemon,
    *,
    own_home: str | None,
    sisters: Mapping[str, Take],
) -> Shared:
    """What all homes of this process use; its services are added to C{top}."""
    connect = connector(reactor)
    outgoing = Outgoing(reactor, connect, metrics=metrics)
    outgoing.setServiceParent(top)
    strangers = _strangers(options, reactor, directory, metrics, top)
    health = Health()
    links = Links(reactor, connect, key=key.link, name=options["name"], metrics=metrics, watch=health)
    OnStop(links.stop).setServiceParent(top)
    nonces, connections = Nonces(key.nonce, since=reactor.seconds()), Connections()
    admission = Admission(Limits().in_work)
    metrics.gauge("authenticated_connections", lambda: connections.proved)
    metrics.gauge("outbound_connections", lambda: links.connected, peer="server")
    metrics.gauge("queue_depth", lambda: links.held, queue="held")
    Homes(health, directory, reactor, own_home=own_home).show_breakers(metrics)
    # homes do not ask each other by themselves
    Prober(directory, links, health, clock=reactor, metrics=metrics, probing=False).setServiceParent(top)
    return Shared(
        reactor=reactor,
        key=key,
        directory=directory,
        outgoing=outgoing,
        strangers=strangers,
        router=Router(
            directory,
            links,
            clock=reactor,
            metrics=metrics,
            own_home=own_home,
            health=health,
            sisters=sisters,
        ),
        nonces=nonces,
        connections=connections,
        schemes=_schemes(options, reactor, nonces, connections, directory, top),
        throttle=Throttle(),
        admission=admission,
    )


def _call_factories(
    options: Options, homes: Sequence[Hosted], shared: Shared
) -> Iterator[tuple[HostPort, CallFactory]]:
    """What takes callers at each place, for all homes that are there."""

    def gone(connection: str) -> None:
        """What a connection has proved ends with it, here and at the homes it was passed on to."""
        shared.connections.forget(connection)
        shared.router.gone(connection)

    for place, records in listeners_of([hosted.record for hosted in homes]).items():
        here = [hosted for hosted in homes if hosted.record in records]
        # a home that has its listener to itself is asked without a detour
        reception = Reception(here) if len(here) > 1 else None
        calls = CallFactory(
            here[0].answer if reception is None else reception.answer,
            clock=shared.reactor,
            limits=Limits(),
            admission=shared.admission,
            metrics=reception or here[0].metrics,
            name=here[0].record.name,
            on_gone=gone,
            withheld=options["schemes"],
            grace_seconds=options["drain-grace"],
        )
        yield place, calls


def _listeners(
    options: Options,
    homes: Sequence[Hosted],
    callers: Sequence[tuple[HostPort, CallFactory]],
    shared: Shared,
) -> Iterator[ListeningService]:
    """What listens for callers, and for farm members."""

    def listen(place: HostPort, factory: Factory, option: str) -> ListeningService:
        where = options[option] or default_listen(place.host, place.port)
        return ListeningService(shared.reactor, where, factory, who="rvp-home", option=f"--{option}")

    for place, calls in callers:
        yield listen(place, calls, "listen")
    for hosted in homes:
        yield listen(HostPort(hosted.record.address, hosted.record.link_port), hosted.taken, "link")


def _records(farm: Farm, options: Options) -> list[Record]:
    """The directory's records of the homes that this process is to be.

    @raise SystemExit: one is unknown, or they cannot run together.
    """
    records = [record_of(farm.homes, name, "home") for name in options["names"]]
    check_together(records)
    places = ", ".join(str(place) for place in listeners_of(records))
    if options["listen"] is not None and "," in places:
        raise SystemExit(
            f"rvp-home: --listen is one place, and by the directory these homes listen at {places}; "
            "leave it out"
        )
    return records


def _schemes(
    options: Options,
    reactor: Any,  # as in makeService
    nonces: Nonces,
    connections: Connections,
    directory: CachedDirectory,
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
    prover: LdapProver | None = None
    if isinstance(directory.source, LdapSource):
        prover = LdapProver(directory.source, reactor)
        prover.setServiceParent(top)
    basic = Basic(secureRandom(32), prover)
    return (Negotiate(connections, tickets), Ntlm(connections), Digest(nonces), basic)


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
