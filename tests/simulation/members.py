"""The routers and homes of a simulated farm: the services that C{rvpfarm.tap} builds, on a process of their own.

What differs is what they stand on: L{Process} for a reactor, L{Internet} for sockets, L{StepJournal} for
SQLite's thread, L{Errands} for the directory's, and a seed wherever a daemon asks the system for randomness.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.application.service import Service
from twisted.internet.defer import Deferred

from rvpfarm.auth.challenge import Gate
from rvpfarm.auth.digest import Nonces
from rvpfarm.auth.throttle import Throttle
from rvpfarm.directory.cache import CachedDirectory
from rvpfarm.directory.model import Home as HomeRecord
from rvpfarm.directory.model import Router as RouterRecord
from rvpfarm.home.server import Home
from rvpfarm.link.links import LinkFactory, Links
from rvpfarm.observe.metrics import Metrics
from rvpfarm.protocol.calls import Limits
from rvpfarm.router.forwarder import Router
from rvpfarm.tap.daemon import Daemon, OnStart, OnStop
from rvpfarm.web.admission import Admission
from rvpfarm.web.outgoing import Outgoing
from rvpfarm.web.server import CallFactory
from tests.simulation.disk import StepJournal
from tests.simulation.internet import Host, Internet
from tests.simulation.timeline import Process, Timeline
from tests.simulation.truth import Errands, Truth
from tests.support.disk import Disk

#: What all members know of each other.
LINK_KEY, NONCE_KEY = b"link" * 8, b"nonce" * 6


class Site:
    """What all members stand on.

    @ivar log: told what happens to members, for the trace.
    """

    def __init__(
        self, timeline: Timeline, internet: Internet, truth: Truth, seed: int, log: Callable[[str], None]
    ) -> None:
        self.timeline, self.internet, self.truth, self.seed, self.log = timeline, internet, truth, seed, log


class Listening(Service):
    """Takes connections while it runs, as C{rvpfarm.web.listening.ListeningService} does."""

    def __init__(self, member: Member, port: int, factory: Any) -> None:
        self._member, self._port, self._factory = member, port, factory

    def startService(self) -> None:
        """Take connections."""
        super().startService()
        member = self._member
        member.site.internet.listen(member.process, member.host, self._port, self._factory)

    def stopService(self) -> Deferred[None]:
        """Take no more, and finish what is in work."""
        super().stopService()
        self._member.site.internet.close(self._member.host, self._port)
        drained: Deferred[None] = self._factory.drain()
        return drained


class Member:
    """One server of the farm, over all its starts.

    @ivar process: the one that runs, or ran last.
    @ivar starts: how often it was started.
    """

    def __init__(self, site: Site, record: HomeRecord | RouterRecord) -> None:
        self.site, self.record = site, record
        self.name = record.name
        self.host: Host = site.internet.host(record.address)
        self.starts = 0
        self.process = Process(site.timeline, self.name)
        self.process.kill()
        self._top: Daemon | None = None
        self.calls: CallFactory
        self.links: Links
        self.directory: CachedDirectory

    @property
    def running(self) -> bool:
        """Is there a process?"""
        return self.process.alive

    def start(self) -> bool:
        """Start a process.

        @return: false when it ended at once, for it needs the directory to start.
        """
        assert not self.running, f"{self.name} runs already"
        self.starts += 1
        self.process = Process(self.site.timeline, f"{self.name}/{self.starts}")
        self._top = Daemon(self.process)
        try:
            self._build(self._top)
            self._top.startService()
        except SystemExit as problem:
            self.process.kill()
            self.site.log(f"{self.name} does not start: {problem}")
            return False
        self.site.log(f"{self.name} starts")
        return True

    def kill(self) -> None:
        """C{kill -9}."""
        if self.running:
            self.process.kill()
            self._die()
            self.site.internet.crash(self.process)
            self.site.log(f"{self.name} is killed")

    def lose_power(self) -> None:
        """The machine goes off."""
        self.process.kill()
        self._die()
        self.site.internet.lose_power(self.host)
        self.site.log(f"{self.name} loses power")

    def stop(self) -> None:
        """Stop it as SIGTERM does; told again while it stops, it is in a hurry."""
        assert self._top is not None
        self.site.log(f"{self.name} is told to stop")
        if self._top.draining:
            self._top.told_again()
            return
        process = self.process

        def ended(result: None) -> None:
            if process.alive:
                self.leftover = process.getDelayedCalls()
                process.kill()
                self.site.internet.crash(process)
                self.site.log(f"{self.name} has stopped")

        self._top.stopService().addCallback(ended)

    #: What a process that stopped would still have been called for.
    leftover: list[Any] = []

    def random(self, what: str) -> Random:
        """Chance for one purpose of this start."""
        return Random(f"{self.site.seed} {self.name} {self.starts} {what}")

    def _directory(self, top: Daemon, metrics: Metrics) -> CachedDirectory:
        directory = CachedDirectory(
            self.site.truth,
            self.process,
            metrics=metrics,
            threads=Errands(self.site.truth, self.process, self.random("directory")),
        )
        directory.setServiceParent(top)
        return directory

    def _links(self, top: Daemon, metrics: Metrics) -> Links:
        random = self.random("links")
        links = Links(
            self.process,
            self.site.internet.endpoints(self.process, self.host),
            key=LINK_KEY,
            name=self.name,
            metrics=metrics,
            chance=random.random,
            nonce=random.randbytes,
        )
        OnStop(links.stop).setServiceParent(top)
        return links

    def _build(self, top: Daemon) -> None:
        raise NotImplementedError

    def _die(self) -> None:
        """What dies with the process."""


class RouterMember(Member):
    """A router, as C{rvpfarm.tap.router} builds it."""

    router: Router

    def _build(self, top: Daemon) -> None:
        metrics = Metrics(CollectorRegistry(), role="router", node=self.name)
        self.directory = self._directory(top, metrics)
        self.links = self._links(top, metrics)
        self.router = Router(self.directory, self.links, clock=self.process, metrics=metrics)
        self.calls = CallFactory(
            self.router.answer,
            clock=self.process,
            limits=Limits(),
            metrics=metrics,
            name=self.name,
            on_gone=self.router.gone,
            nonce=self.random("connections").randbytes,
        )
        Listening(self, self.record.port, self.calls).setServiceParent(top)


class HomeMember(Member):
    """A home, as C{rvpfarm.tap.home} builds it; its disk outlives it."""

    record: HomeRecord
    home: Home
    journal: StepJournal
    outgoing: Outgoing
    taken: LinkFactory
    admission: Admission

    def __init__(self, site: Site, record: HomeRecord) -> None:
        super().__init__(site, record)
        self.disk = Disk()

    def _build(self, top: Daemon) -> None:
        process, record = self.process, self.record
        metrics = Metrics(CollectorRegistry(), role="home", node=self.name)
        self.directory = self._directory(top, metrics)
        self.journal = StepJournal(self.disk, process, self.random("disk"))
        self.journal.setServiceParent(top)
        connect = self.site.internet.endpoints(process, self.host)
        self.outgoing = Outgoing(process, connect, metrics=metrics)
        self.outgoing.setServiceParent(top)
        self.links = self._links(top, metrics)
        router = Router(self.directory, self.links, clock=process, metrics=metrics, own_home=record.id)
        self.home = Home(
            record.id,
            directory=self.directory,
            gate=Gate(Nonces(NONCE_KEY, since=process.seconds()), throttle=Throttle()),
            journal=self.journal,  # type: ignore[arg-type]  # one that keeps its contract
            outgoing=self.outgoing,
            elsewhere=router.answer,
            clock=process,
            metrics=metrics,
            random=self.random("home").randbytes,
        )
        self.home.setServiceParent(top)
        self.admission = Admission(Limits().in_work)
        self.calls = CallFactory(
            self.home.answer,
            clock=process,
            limits=Limits(),
            admission=self.admission,
            metrics=metrics,
            name=self.name,
            on_gone=router.gone,
            nonce=self.random("connections").randbytes,
        )
        self.taken = LinkFactory(
            self.home.answer,
            key=LINK_KEY,
            name=record.id,
            incarnation=0,
            clock=process,
            limits=Limits(),
            metrics=metrics,
            admission=self.admission,
            nonce=self.random("taken").randbytes,
        )

        def number_start() -> None:
            self.taken.incarnation = self.journal.incarnation

        OnStart(number_start).setServiceParent(top)
        Listening(self, record.port, self.calls).setServiceParent(top)
        Listening(self, record.link_port, self.taken).setServiceParent(top)

    def _die(self) -> None:
        self.journal.die()
