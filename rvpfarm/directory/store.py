"""The directory in an SQL database: SQLite for one machine, PostgreSQL for many.

Everything here waits for the disk or the network; it is called from threads and commands, never from
the reactor.  Several processes may use one database at once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, exc, inspect, make_url, select, text, update

from rvpfarm.directory import postgresql, schema, sealing, sqlite, tables
from rvpfarm.directory.bulk import Bulk
from rvpfarm.directory.hosts import Host, is_shared, this_host
from rvpfarm.directory.reading import KEY_CHECK, Reading, Sealer, StoreProblem
from rvpfarm.directory.writing import Writing

# what SQLAlchemy raises when the database itself fails us, not our statement
_OUTSIDE = (exc.OperationalError, exc.InterfaceError, exc.InternalError, exc.TimeoutError)

# so often a transaction is begun again that another one, or a lost connection, came in the way of
_TRIES = 5

# for so long, where there are several servers, one is waited for that takes changes
_FAIL_OVER_SECONDS, _PAUSE_SECONDS = 10.0, 0.25


class Store:
    """One directory.  Nothing is opened before it is needed, and everything is checked before it is used.

    @ivar sealer: the farm key, or C{None} where secrets are neither read nor made.
    @ivar where: the database's address without its password, for people.
    @ivar path: the database file, if it is one.
    @ivar servers: those of PostgreSQL, if it is there.
    """

    def __init__(
        self,
        url: str,
        key: Sealer | None = None,
        *,
        now: Callable[[], float] = time.time,
        busy_seconds: float = 10.0,
        changes_kept: int = 100_000,
        host: Host | None = None,
    ) -> None:
        """
        @param url: C{sqlite:///...} or C{postgresql://...}.
        @param key: the farm key; without it accounts come without verifiers.
        @param now: the time, for what is recorded.
        @param busy_seconds: how long a writer waits for another one.
        @param changes_kept: how much of the feed of changes is kept; a cache that was away for longer
            starts afresh.
        @param host: the machine that this is, for a file that belongs to one; left out, it is found out.
        @raise StoreProblem: the address cannot be used.
        """
        self.sealer = key
        self._now, self._busy_seconds = now, busy_seconds
        self._changes_kept = changes_kept
        self._host = host or this_host()
        self._replicas: Engine | None = None
        self.servers: postgresql.Servers | None = None
        self.path: Path | None = None
        if postgresql.is_postgresql(url):
            self.servers = servers = postgresql.parse_servers(url)
            self.where = servers.public
            self._engine = postgresql.make_engine(servers)
            if servers.replicas:
                self._replicas = postgresql.make_engine(servers, postgresql.REPLICA)
        else:
            parsed = _parse_url(url)
            self.where = parsed.render_as_string(hide_password=True)
            self.path = Path(str(parsed.database))
            self._engine = sqlite.make_engine(parsed, busy_seconds)
        self._checked = False
        self._served = False
        self._rehearsing = False
        self._within: Collection[str] | None = None

    @property
    def exists(self) -> bool:
        """Is there a database at all?  It may still lack its tables."""
        return self.path is None or self.path.exists()

    def close(self) -> None:
        """Give every connection back."""
        self._engine.dispose()
        if self._replicas is not None:
            self._replicas.dispose()

    def revision(self) -> str | None:
        """The revision of the tables; C{None} when there are none.

        @raise StoreProblem: the database cannot be read.
        """
        if not self.exists:
            return None
        with self._connection(write=False) as connection:
            return schema.revision_of(connection)

    def is_bound(self) -> bool:
        """Are there secrets here that were sealed with some farm key?

        @raise StoreProblem: the database cannot be read.
        """
        if not self.exists:
            return False
        with self._connection(write=False) as connection:
            if not inspect(connection).has_table(tables.ledger.name):
                return False
            return connection.execute(select(tables.ledger.c.key_check)).scalar_one_or_none() is not None

    def upgrade(self, *, claim: bool = False) -> str | None:
        """Make the tables, or bring them to the revision that this program needs.

        @param claim: though they belong to another machine.
        @return: the revision they had before.
        @raise StoreProblem: it cannot be done, or they are newer than this program.
        """
        self._make_file()
        with self._connection(write=True, ledger=False) as connection:
            schema.lock(connection)
            before = schema.revision_of(connection)
            if before is not None and before not in schema.known_revisions():
                raise StoreProblem(f"the directory {self.where} {schema.mismatch(before)}; upgrade rvpfarm")
            schema.upgrade(connection)
            if not claim:
                self._check_host(connection)
        return before

    def settle_host(self, actor: str, *, claim: bool) -> Host | None:
        """Record that a directory in a file belongs to this machine, if it belongs to none.

        @param actor: who does so.
        @param claim: take it over from the one that it belonged to.
        @return: the machine it was taken from, if so.
        @raise StoreProblem: it belongs to another one, and is not to be claimed.
        """
        if self.path is None:
            return None
        with self._connection(write=True) as connection:
            if not claim:
                self._check_host(connection)
            before = _host_of(connection)
            other = self._host.is_other(before, shared=is_shared(self.path))
            fresh = not (before.id or before.boot)
            if not (other or fresh or claim):
                return None
            row = {"host_id": self._host.id, "host_boot": self._host.boot, "host_name": self._host.name}
            if other:
                writing = self._writing(connection, actor, "init", "directory")
                writing.note("host", before.name, self._host.name)
                writing.finish()
            connection.execute(update(tables.ledger).values(**row))
        return before if other else None

    def check(self) -> None:
        """Make sure that this program, its farm key, its machine and the directory belong together.

        @raise StoreProblem: they do not, or there is no directory.
        """
        remedy = f'run "rvpfarm --directory {self.where} init"'
        if not self.exists:
            # made anew it would be an empty one, in which nobody has an account
            advice = "put back the one that was there" if self._served else remedy
            raise StoreProblem(f"there is no directory at {self.path}; {advice}")
        with self._connection(write=False) as connection:
            revision = schema.revision_of(connection)
            problem = schema.mismatch(revision)
            if problem:
                newer = revision is not None and revision not in schema.known_revisions()
                raise StoreProblem(
                    f"the directory {self.where} {problem}; {'upgrade rvpfarm' if newer else remedy}"
                )
            self._check_key(connection)
            self._check_host(connection)
        self._checked = self._served = True

    def limited(self, *, rehearsing: bool = False, within: Collection[str] | None = None) -> Store:
        """The same directory, for whoever is not to do everything with it; only this one is to be closed.

        @param rehearsing: changes are made and taken back at once, so that nothing of them stays.
        @param within: the only IM domains whose accounts may change; nothing farm-wide may.
        """
        store = copy(self)
        store._rehearsing, store._within = rehearsing, within
        return store

    @contextmanager
    def read(self) -> Iterator[Reading]:
        """One transaction that only reads.

        @raise StoreProblem: the database cannot be used.
        """
        if not self._checked:
            self.check()
        with self._connection(write=False) as connection:
            yield Reading(connection, self.sealer)

    @contextmanager
    def read_replica(self) -> Iterator[Reading]:
        """One transaction that only reads, at a server that follows the others and may be behind.

        @raise StoreProblem: there is none, or it cannot be used.
        """
        if self._replicas is None:
            raise StoreProblem(f"the directory {self.where} has no replicas that may be read")
        with self._connection(write=False, replica=True) as connection:
            yield Reading(connection, self.sealer)

    @contextmanager
    def change(self, actor: str, action: str, subject: str) -> Iterator[Writing]:
        """One change: all of it happens, with its audit row, or none of it.

        @param actor: who makes it.
        @param action: noun and verb.
        @param subject: what it is made to.
        @raise StoreProblem: the database cannot be used.
        @raise OutOfBounds: it goes beyond what this store is L{limited} to.
        """
        if not self._checked:
            self.check()
        with self._connection(write=True) as connection:
            writing = self._writing(connection, actor, action, subject)
            yield writing
            if self._within is not None:
                writing.check_within(self._within)
            writing.finish()
            if self._rehearsing:
                connection.rollback()

    @contextmanager
    def change_many(self, actor: str, action: str) -> Iterator[Bulk]:
        """Many accounts put together: all of them, each with its audit row, or none.

        @param actor: who puts them.
        @param action: noun and verb.
        @raise StoreProblem: the database cannot be used.
        """
        if not self._checked:
            self.check()
        with self._connection(write=True) as connection:
            bulk = Bulk(
                connection,
                self.sealer,
                actor=actor,
                action=action,
                now=self._now(),
                changes_kept=self._changes_kept,
            )
            yield bulk
            bulk.finish()

    def count_sealed(self) -> Mapping[bytes, int]:
        """How many credentials there are, by the octets that tell which key they are sealed with."""
        with self._connection(write=False) as connection:
            return sealing.count_sealed(connection)

    def check_prefix(self) -> bytes:
        """The same octets of what the farm key is checked by; empty if there is nothing."""
        with self._connection(write=False) as connection:
            return sealing.check_prefix(connection)

    def seal_anew(self, prefix: bytes, after: str) -> tuple[int, str | None]:
        """Seal the credentials of some accounts with the key that is used now; see L{sealing.seal_anew}."""
        if self.sealer is None:
            raise StoreProblem("secrets cannot be sealed without the farm key; give --key-file")
        with self._connection(write=True) as connection:
            return sealing.seal_anew(connection, self.sealer, prefix, after)

    def seal_check(self, actor: str, mark: str) -> None:
        """Let the directory be known by the key that is used now.

        @param actor: who has everything sealed with it.
        @param mark: tells it from others.
        """
        with self.change(actor, "key rotate", "farm key") as writing:
            writing.seal_check(mark)

    def _writing(self, connection: Connection, actor: str, action: str, subject: str) -> Writing:
        return Writing(
            connection,
            self.sealer,
            actor=actor,
            action=action,
            subject=subject,
            now=self._now(),
            changes_kept=self._changes_kept,
        )

    @contextmanager
    def _connection(self, *, write: bool, replica: bool = False, ledger: bool = True) -> Iterator[Connection]:
        """One transaction.

        @param replica: at a server that follows the others.
        @param ledger: a writer has to wait for the other ones.
        """
        try:
            connection = self._begin(write=write, replica=replica, ledger=ledger)
            try:
                yield connection
                connection.commit()
            finally:
                connection.close()
        except _OUTSIDE as problem:
            self._checked = (
                self._checked and replica
            )  # what comes back may be another one, such as an older copy
            raise self._outage(problem) from problem
        except exc.DatabaseError as problem:
            if self.servers is not None and postgresql.is_forbidden(problem):
                raise StoreProblem(
                    f"the database does not let this user do that: {_reason(problem)}; give --directory the "
                    "user of an administrator, or grant what docs/directory.md names"
                ) from problem
            if type(problem) is not exc.DatabaseError:
                raise  # a statement of ours that the database refused: a bug, not an outage
            raise self._outage(problem) from problem

    def _begin(self, *, write: bool, replica: bool, ledger: bool) -> Connection:
        """A connection whose transaction has begun; until then nothing is lost by trying again."""
        engine = self._replicas if replica and self._replicas is not None else self._engine
        several = self.servers is not None and len(self.servers.places) > 1
        tries, end = 1, time.monotonic() + _FAIL_OVER_SECONDS
        while True:
            try:
                connection = engine.connect()
                try:
                    self._set_up(connection, write=write, ledger=ledger)
                except BaseException:
                    connection.close()
                    raise
                return connection
            except _OUTSIDE as problem:
                passing = self.servers is not None and postgresql.is_passing(problem)
                waiting = several and write and time.monotonic() < end
                if replica or not (waiting or (passing and tries < _TRIES)):
                    raise
                tries += 1
                time.sleep(_PAUSE_SECONDS if waiting and not passing else 0)

    def _set_up(self, connection: Connection, *, write: bool, ledger: bool) -> None:
        """Begin the transaction; a writer then has the directory to itself."""
        if self.servers is None:
            connection.execution_options(rvpfarm_write=write)
            connection.begin()
            return
        # a reader sees one state; a writer sees what the one before it has done, and never conflicts
        connection.execution_options(
            isolation_level="READ COMMITTED" if write else "REPEATABLE READ", postgresql_readonly=not write
        )
        connection.begin()
        if write and ledger:
            connection.execute(text(postgresql.lock_timeout(self._busy_seconds)))
            connection.execute(select(tables.ledger.c.id).with_for_update())
        elif not write:
            connection.execute(text("SELECT 1"))  # begins it, while it can be begun again

    def _outage(self, problem: Exception) -> StoreProblem:
        """What says that the database cannot be used."""
        outage = StoreProblem(f"the directory {self.where} cannot be used: {_reason(problem)}")
        outage.passing = self.servers is not None and postgresql.is_passing(problem)
        return outage

    def _check_host(self, connection: Connection) -> None:
        """
        @raise StoreProblem: a directory in a file belongs to another machine.
        """
        if self.path is None:
            return
        owner = _host_of(connection)
        if self._host.is_other(owner, shared=is_shared(self.path)):
            raise StoreProblem(
                f"the directory {self.path} belongs to the machine {owner.name}, and this is "
                f"{self._host.name}: several machines need a directory in PostgreSQL (give --directory "
                "postgresql://...); if the file was moved here for good, run "
                f'"rvpfarm --directory {self.where} init --claim"'
            )

    def _check_key(self, connection: Connection) -> None:
        if self.sealer is None:
            return
        check = connection.execute(select(tables.ledger.c.key_check)).scalar_one()
        if check is None:
            return
        try:
            self.sealer.open(check, KEY_CHECK)
        except ValueError:
            raise StoreProblem(
                f"the directory {self.where} was made with another farm key; "
                "give --key-file the key file that the rest of the farm uses"
            ) from None

    def _make_file(self) -> None:
        """An empty database file that only its owner may read."""
        if self.path is None or self.path.exists():
            return
        try:
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        except OSError as problem:
            raise StoreProblem(
                f"cannot make the directory {self.path}: {problem.strerror}; give --directory a path in a "
                "folder that exists and may be written"
            ) from problem


def database_path(url: str) -> Path | None:
    """The file of an SQLite database; C{None} for any other.

    @raise StoreProblem: the address cannot be used.
    """
    if postgresql.is_postgresql(url):
        return None
    return Path(str(_parse_url(url).database))


def public_form(url: str) -> str:
    """A directory's URL as anybody may see it: without its password and its options.

    @raise StoreProblem: it is none.
    """
    if postgresql.is_postgresql(url):
        return postgresql.parse_servers(url).public
    return _parse_url(url).render_as_string(hide_password=True)


def _parse_url(url: str) -> URL:
    """The address of a directory in SQLite.

    @raise StoreProblem: it is none.
    """
    advice = "give --directory sqlite:////var/lib/rvpfarm/directory.sqlite or postgresql://host/database"
    try:
        parsed = make_url(url)
    except (exc.ArgumentError, ValueError):
        # the text may hold a password
        raise StoreProblem(f"the directory's address cannot be read; {advice}") from None
    if parsed.get_backend_name() == "postgresql":
        raise StoreProblem(f"the directory's address names an unknown driver: {parsed.drivername}; {advice}")
    if parsed.get_backend_name() != "sqlite":
        raise StoreProblem(f'a directory cannot be kept in "{parsed.get_backend_name()}"; {advice}')
    if parsed.database in (None, "", ":memory:") or parsed.query or parsed.drivername != "sqlite":
        raise StoreProblem(f"a directory in SQLite is a file that every process of the farm opens; {advice}")
    return parsed


def _host_of(connection: Connection) -> Host:
    """The machine that the directory belongs to."""
    ledger = tables.ledger.c
    row = connection.execute(select(ledger.host_id, ledger.host_boot, ledger.host_name)).one()
    return Host(row.host_id, row.host_boot, row.host_name)


def _reason(problem: Exception) -> str:
    """What the database said, on one line."""
    told = getattr(problem, "orig", None) or problem
    return " ".join(str(told).split())
