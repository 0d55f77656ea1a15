"""Reaching a directory in PostgreSQL: one server or several, of which one takes changes at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, quote, urlencode

from sqlalchemy import Engine, create_engine

from rvpfarm.directory.reading import StoreProblem

if TYPE_CHECKING:
    import psycopg

_Result = TypeVar("_Result")

#: Where changes are announced (LISTEN, NOTIFY).
CHANNEL = "rvpfarm"

#: What the address of a directory in PostgreSQL may begin with.
SCHEMES = ("postgresql", "postgresql+psycopg", "postgres")

# how long a server may take to let somebody in: alone, or when there are others to go to
_CONNECT_SECONDS, _CONNECT_ONE_OF_MANY_SECONDS = 5, 3

# for so long a server that did not let us in is tried after the others
_SHUN_SECONDS = 30.0

# a server that says nothing at all for so long is given up; writers wait less for each other
_SILENCE_SECONDS = 15.0

# libpq: a machine that has gone without a word is noticed within some ten seconds, not when TCP gives up
_NOTICE_LOSS: Mapping[str, str] = {
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}

_INSTALL = 'run "python -m pip install rvpfarm[postgresql]"'
_ADVICE = "give --directory postgresql://USER@HOST/DATABASE, or several as HOST:PORT,HOST:PORT"

# what a connection to a server has to be good for, as libpq calls it
PRIMARY, REPLICA = "read-write", "standby"


@dataclass(frozen=True, slots=True)
class Place:
    """One server; an empty host is the socket where libpq looks for one."""

    host: str
    port: str

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else quote(self.host, safe="")
        return f"{host}:{self.port}" if self.port else host


@dataclass(frozen=True, slots=True)
class Servers:
    """What the address of a directory in PostgreSQL says.

    @ivar places: of the servers: one takes changes, the others follow it.
    @ivar options: what libpq is told besides; may have a password.
    @ivar replicas: daemons look accounts up at servers that follow.
    """

    places: tuple[Place, ...]
    options: Mapping[str, str]
    replicas: bool = False

    @property
    def public(self) -> str:
        """The address without its password and options."""
        user = quote(self.options.get("user", ""), safe="")
        places = ",".join(map(str, self.places))
        return f"postgresql://{user}{'@' if user else ''}{places}/{quote(self.options.get('dbname', ''))}"


def is_postgresql(url: str) -> bool:
    """Is this the address of a directory in PostgreSQL?"""
    return url.partition("://")[0] in SCHEMES


def parse_servers(url: str) -> Servers:
    """What C{url} says, which is one as libpq reads it, and may have C{reads=replicas} besides.

    @raise StoreProblem: it cannot be used, or the driver is missing.
    """
    try:
        from psycopg import ProgrammingError
        from psycopg.conninfo import conninfo_to_dict
    except ImportError as problem:
        raise StoreProblem(
            f"the driver of a directory in PostgreSQL is not installed; {_INSTALL}"
        ) from problem
    _, _, rest = url.partition("://")
    address, _, query = rest.partition("?")
    asked = parse_qsl(query, keep_blank_values=True)
    reads = [value for name, value in asked if name == "reads"]
    if any(value not in ("primary", "replicas") for value in reads):
        raise StoreProblem(
            "the directory's address may say reads=primary or reads=replicas, and nothing else"
        )
    others = urlencode([(name, value) for name, value in asked if name != "reads"], quote_via=quote)
    try:
        said = conninfo_to_dict(f"postgresql://{address}{'?' if others else ''}{others}")
    except ProgrammingError:
        # its text may hold a password
        raise StoreProblem(f"the directory's address cannot be read; {_ADVICE}") from None
    options = {name: str(value) for name, value in said.items() if value is not None}
    wanted = options.pop("target_session_attrs", PRIMARY)
    if wanted not in (PRIMARY, "primary"):
        raise StoreProblem(
            f"target_session_attrs={wanted} in the directory's address would let changes go to a server that "
            "takes none; leave it out, and say reads=replicas to have accounts looked up at replicas"
        )
    hosts = options.pop("host", "").split(",")
    ports = options.pop("port", "").split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    if len(ports) != len(hosts):
        raise StoreProblem(
            f"the directory's address has {len(hosts)} hosts and {len(ports)} ports; {_ADVICE}"
        )
    places = tuple(Place(host, port) for host, port in zip(hosts, ports, strict=True))
    return Servers(places, options, "replicas" in reads)


class Dialler:
    """Connects to whichever of the servers is good for something, beginning with the one that was so last."""

    def __init__(
        self, servers: Servers, target: str = PRIMARY, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """
        @param target: L{PRIMARY} or L{REPLICA}.
        @param clock: seconds that only go on.
        """
        self._servers, self._target, self._clock = servers, target, clock
        self._lock = Lock()
        self._shunned: dict[Place, float] = {}
        self._last: Place | None = None

    def connect(self, *, patient: bool = False) -> psycopg.Connection[Any]:
        """A connection to one of them.

        @param patient: it may say nothing for as long as it likes, as whoever listens has to bear.
        @raise psycopg.OperationalError: none lets us in that is good for it; which was why.
        """
        import psycopg

        reasons = []
        for place in self._order():
            try:
                connection = self._connect(place, patient=patient)
            except psycopg.OperationalError as problem:
                with self._lock:
                    self._shunned[place] = self._clock() + _SHUN_SECONDS
                reasons.append((place, " ".join(str(problem).split())))
            else:
                with self._lock:
                    self._shunned.pop(place, None)
                    self._last = place
                return connection
        if len(reasons) == 1:
            raise psycopg.OperationalError(reasons[0][1])
        what = "takes changes" if self._target == PRIMARY else "is a replica"
        told = "; ".join(f"{place}: {reason}" for place, reason in reasons)
        raise psycopg.OperationalError(f"no server {what} ({told})")

    def _order(self) -> list[Place]:
        """The last good one first, and last who did not let us in a short while ago."""
        with self._lock:
            now, last = self._clock(), self._last
            bad = {place for place, until in self._shunned.items() if until > now}
        return sorted(self._servers.places, key=lambda place: (place in bad, place != last))

    def _connect(self, place: Place, *, patient: bool) -> psycopg.Connection[Any]:
        import psycopg

        kind = psycopg.Connection if patient else _bounded_connection()
        seconds = _CONNECT_SECONDS if len(self._servers.places) == 1 else _CONNECT_ONE_OF_MANY_SECONDS
        how: dict[str, Any] = {"connect_timeout": str(seconds), **_NOTICE_LOSS, **self._servers.options}
        if place.host:
            how["host"] = place.host
        if place.port:
            how["port"] = place.port
        return kind.connect(target_session_attrs=self._target, **how)


def make_engine(servers: Servers, target: str = PRIMARY) -> Engine:
    """SQLAlchemy's engine over connections to the servers, which connects when first used."""
    dialler = Dialler(servers, target)
    return create_engine(
        "postgresql+psycopg://", creator=dialler.connect, pool_pre_ping=True, pool_timeout=_CONNECT_SECONDS
    )


def lock_timeout(seconds: float) -> str:
    """The statement after which a writer waits so long for another one, and no longer."""
    return f"SET LOCAL lock_timeout = {max(1, round(min(seconds, _SILENCE_SECONDS - 1) * 1000))}"


def is_passing(problem: Exception) -> bool:
    """Would it have gone well in another transaction: the connection was lost, or another one came between?

    @param problem: of SQLAlchemy's.
    """
    if getattr(problem, "connection_invalidated", False):
        return True
    # serialization failure (a replica says so too when what it was asked for goes), deadlock, and a server
    # that ends or begins
    return getattr(getattr(problem, "orig", None), "sqlstate", None) in ("40001", "40P01", "57P01", "57P03")


def is_forbidden(problem: Exception) -> bool:
    """Has the user of the database no right to what was asked?"""
    return getattr(getattr(problem, "orig", None), "sqlstate", None) == "42501"


def _bounded_connection() -> type[psycopg.Connection[Any]]:
    """The class of connections that give up a silent server; psycopg may not be there to be imported."""
    import psycopg
    from psycopg.abc import RV, PQGen

    class Bounded(psycopg.Connection[Any]):
        """A connection whose server says something now and then, or else is given up."""

        def wait(self, gen: PQGen[RV], *arguments: Any, **options: Any) -> RV:
            """Wait for what C{gen} needs, but not for ever."""
            return super().wait(_bounded(gen, self.close), *arguments, **options)

    return Bounded


# What psycopg's generators yield and are sent is for psycopg to say.
def _bounded(
    generator: Generator[Any, Any, _Result], give_up: Callable[[], None]
) -> Generator[Any, Any, _Result]:
    """C{generator}, until nothing came of it for L{_SILENCE_SECONDS}."""
    import psycopg

    end = time.monotonic() + _SILENCE_SECONDS
    try:
        wanted = next(generator)
        while True:
            ready = yield wanted
            now = time.monotonic()
            if ready:
                end = now + _SILENCE_SECONDS
            elif now > end:
                give_up()
                raise psycopg.OperationalError(f"the server said nothing for {_SILENCE_SECONDS:.0f} s")
            wanted = generator.send(ready)
    except StopIteration as done:
        result: _Result = done.value
        return result
