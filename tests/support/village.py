"""Routers and homes as real as can be in one process: their bytes go over a network that the test pumps.

Each process has a directory of its own, so that they can be made to disagree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock

from rvpfarm.auth.challenge import Digest
from rvpfarm.auth.connections import Connections
from rvpfarm.auth.digest import Nonces
from rvpfarm.auth.handshakes import Ntlm
from rvpfarm.auth.keys import FarmKey
from rvpfarm.auth.throttle import Throttle
from rvpfarm.directory.model import Account, Farm
from rvpfarm.directory.model import Home as HomeRecord
from rvpfarm.directory.model import Router as RouterRecord
from rvpfarm.link.links import Links
from rvpfarm.observe.metrics import Metrics
from rvpfarm.protocol.calls import Call, Limits
from rvpfarm.router.forwarder import Answered, Router, Take
from rvpfarm.tap.hosting import Hosted, Reception, Shared, listeners_of
from rvpfarm.web.admission import Admission
from rvpfarm.web.responses import Response, ResponseReader
from rvpfarm.web.server import CallFactory
from tests.support.directory import FakeDirectory
from tests.support.homes import FakeJournal, FakeOutgoing
from tests.support.network import Network

KEY = FarmKey(b"k" * 32)

#: A client that follows every referral, and never gives up: Miranda does not.
FOLLOWER = "msmsgs/5.1.0.639"

#: How long an answer may take, in seconds: more than any member waits for another.
PATIENCE_SECONDS = 60

#: When the test gives up in its place: long after anything orderly has ended.
GIVES_UP = 25


class Process:
    """One process of a farm.

    @ivar took: the calls that it took, over links too, in order: who took it, and the call.
    @ivar outgoing: what its homes sent to call-backs.
    @ivar homes: by name.
    """

    def __init__(self, village: Village, name: str, names: Sequence[str] = ()) -> None:
        """
        @param name: what it is called on farm links.
        @param names: of its homes; none for a router.
        """
        self.directory = FakeDirectory(village.farm, village.accounts)
        self.took: list[tuple[str, Call]] = []
        self.outgoing = FakeOutgoing()
        self.homes: dict[str, Hosted] = {}
        self.registry = CollectorRegistry()
        self._village, self._network, self._clock = village, village.network, village.clock
        self._sisters: dict[str, Take] = {}
        self._connections = Connections()
        records = [home for name in names for home in village.farm.homes.values() if home.name == name]
        self.links = Links(self._clock, self._network.endpoint, key=KEY.link, name=name, chance=lambda: 1.0)
        self.router = Router(
            self.directory,
            self.links,
            clock=self._clock,
            own_home=records[0].id if len(records) == 1 else None,
            sisters=self._sisters,
        )
        self._house(records)

    def metric(self, name: str, **labels: str) -> float | None:
        """What one of its homes has counted."""
        return self.registry.get_sample_value(name, {"role": "home", **labels})

    def watched(self, name: str, answer: object) -> object:
        """C{answer}, with its calls noted."""

        def note(call: Call, *more: object) -> Answered:
            self.took.append((name, call))
            return answer(call, *more)  # type: ignore[operator, no-any-return]

        return note

    def listen(self, place: tuple[str, int], answer: object, metrics: object) -> None:
        """Take the calls of callers at C{place}."""
        calls = CallFactory(
            answer,  # type: ignore[arg-type]
            clock=self._clock,
            limits=Limits(),
            metrics=metrics,  # type: ignore[arg-type]
            name=str(place),
            on_gone=self._gone,
        )
        self._network.listen(*place, calls)

    def _house(self, records: Sequence[HomeRecord]) -> None:
        """Build its homes as C{rvp-home} does, and let them listen."""
        if not records:
            return
        nonces = Nonces(KEY.nonce)
        shared = Shared(
            reactor=self._clock,
            key=KEY,
            directory=self.directory,
            outgoing=self.outgoing,
            strangers=self.outgoing,
            router=self.router,
            nonces=nonces,
            connections=self._connections,
            schemes=(Ntlm(self._connections), Digest(nonces)),
            throttle=Throttle(),
            admission=Admission(1024),
        )
        metrics = Metrics(self.registry, role="home", node=records[0].name)
        for record in records:
            own = metrics if record is records[0] else metrics.beside(record.name)
            hosted = Hosted(record, FakeJournal(), own, shared)  # type: ignore[arg-type]
            hosted.answer = self.watched(record.name, hosted.answer)  # type: ignore[assignment]
            hosted.taken._answer = self.watched(record.name, hosted.home.answer)  # type: ignore[assignment]
            hosted.taken.incarnation = 1
            self.homes[record.name] = hosted
            if len(records) > 1:
                self._sisters[record.id] = self.watched(record.name, hosted.home.take)  # type: ignore[assignment]
            hosted.home.startService()
            self._network.listen(record.address or record.host, record.link_port, hosted.taken)
        for place, those in listeners_of(records).items():
            here = [self.homes[record.name] for record in those]
            where = (place.host or those[0].host, place.port)
            if len(here) == 1:
                self.listen(where, here[0].answer, here[0].metrics)
            else:
                reception = Reception(here)
                self.listen(where, reception.answer, reception)

    def _gone(self, connection: str) -> None:
        self._connections.forget(connection)
        self.router.gone(connection)


class Caller(Protocol):
    """A client's connection, on which one request follows the other.

    @ivar response: the answer, when there is one.
    """

    def __init__(self, village: Village) -> None:
        self._village = village
        self.response: Response | None = None
        self._reader = ResponseReader()

    def dataReceived(self, data: bytes) -> None:
        """Read on."""
        self.response = self._reader.feed(data) or self.response

    def ask(
        self,
        method: str,
        target: str,
        body: str = "",
        *,
        host: str,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Send one request, and wait for its answer as long as there may be one.

        @param headers: further ones.
        """
        lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", "RVP-Notifications-Version: 0.2"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        if method == "PROPFIND" and not body:
            body = "<d:propfind xmlns:d='DAV:'><d:prop><d:displayname/></d:prop></d:propfind>"
            lines.append("Depth: 0")
        if body:
            lines.append("Content-Type: text/xml")
        lines.append(f"Content-Length: {len(body)}")
        assert self.transport is not None, "nobody listens there"
        self._reader, self.response = ResponseReader(), None
        self.transport.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body.encode())
        self._village.network.pump()
        for _ in range(PATIENCE_SECONDS):
            if self.response is None:
                self._village.network.advance(1.0, pieces=2)
        assert self.response is not None, "there was no answer"
        return self.response

    def close(self) -> None:
        """Hang up."""
        assert self.transport is not None
        self.transport.loseConnection()
        self._village.network.pump()


class Village:
    """A farm, and clients that call it.

    @ivar processes: by the names of their members, joined by hyphens.
    """

    def __init__(self, farm: Farm, accounts: Iterable[Account], seed: int = 0) -> None:
        self.farm, self.accounts = farm, tuple(accounts)
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.network = Network(self.clock, seed)
        self.processes: dict[str, Process] = {}

    def home(self, *names: str) -> Process:
        """Start a process of these homes."""
        return self._start("-".join(names), Process(self, names[0], names))

    def start_router(self, name: str) -> Process:
        """Start a router."""
        process = self._start(name, Process(self, name))
        (record,) = (router for router in self.farm.routers.values() if router.name == name)
        process.listen(_place(record), process.watched(name, process.router.answer), None)
        return process

    def stop(self) -> None:
        """Stop everything."""
        for process in self.processes.values():
            for hosted in process.homes.values():
                hosted.home.stopService()
            process.links.stop()
        self.network.cut()
        for call in self.clock.getDelayedCalls():
            call.cancel()

    def took(self, *names: str) -> list[str]:
        """Who took calls since last asked, sorted; of these members only if any are named."""
        found = []
        for process in self.processes.values():
            found += [name for name, _ in process.took if not names or name in names]
            process.took.clear()
        return sorted(found)

    def dial(self, place: tuple[str, int]) -> Caller:
        """A connection to whoever listens at C{place}."""
        caller = Caller(self)
        self.network.connect(place, Factory.forProtocol(lambda: caller))
        return caller

    def call(
        self,
        place: tuple[str, int],
        method: str = "PROPFIND",
        target: str = "/instmsg/aliases/petra",
        body: str = "",
        *,
        host: str = "im.fabrik.example",
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Send one request on a connection of its own."""
        caller = self.dial(place)
        response = caller.ask(method, target, body, host=host, headers=headers)
        caller.close()
        return response

    def follow(
        self,
        place: tuple[str, int],
        method: str = "PROPFIND",
        target: str = "/instmsg/aliases/petra",
        body: str = "",
        *,
        host: str = "im.fabrik.example",
        headers: Mapping[str, str] | None = None,
    ) -> tuple[Response, int]:
        """As L{call}, by a client that follows referrals without end.

        @return: the answer, and how many referrals led to it.
        """
        referrals = 0
        headers = {"User-Agent": FOLLOWER, **(headers or {})}
        while True:
            response = self.call(place, method, target, body, host=host, headers=headers)
            if response.status != 302 or referrals >= GIVES_UP:
                return response, referrals
            referrals += 1
            parts = urlsplit(response.headers[b"location"].decode())
            assert parts.hostname is not None
            host, target = parts.netloc, parts.path
            place = self.resolve(parts.hostname, parts.port or 80)

    def resolve(self, host: str, port: int) -> tuple[str, int]:
        """Where a host name leads, as DNS would say: a domain to the first router."""
        for member in (*self.farm.homes.values(), *self.farm.routers.values()):
            if member.host == host:
                return member.address or host, port
        return next(iter(_place(router) for router in self.farm.routers.values()))

    def _start(self, name: str, process: Process) -> Process:
        self.processes[name] = process
        return process


def _place(member: HomeRecord | RouterRecord) -> tuple[str, int]:
    """Where a member takes calls."""
    return member.address or member.host, member.port
