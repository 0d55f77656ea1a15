"""A PostgreSQL of the tests' own: Debian's programs, a cluster in a temporary folder, loopback alone."""

from __future__ import annotations

import atexit
import itertools
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from unittest import SkipTest

import psycopg
from twisted.trial.unittest import SynchronousTestCase

from tests.support.processes import PATIENCE_SECONDS, free_ports, scratch, wait_for

#: Of whoever made a cluster; a test may see whether it shows anywhere.
PASSWORD = "open-sesame-41"

#: Who runs the server when the tests are run by root, which it refuses.
_RUNNER = "postgres"

#: How long a server has to end in its own way.
_END_SECONDS = 15.0

#: Fast rather than safe: nothing here outlives the tests.
_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "60",
    "shared_buffers": "64MB",
    "wal_level": "replica",
    "max_wal_senders": "4",
    "hot_standby": "on",
    "log_min_messages": "warning",
}


@lru_cache(maxsize=1)
def programs() -> Path | None:
    """Where the programs of PostgreSQL's server are, if they are installed."""
    on_path = shutil.which("initdb")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: path.parts[-3])
    choices = [*([Path(on_path).resolve()] if on_path else []), *found]
    return choices[-1].parent if choices else None


def _as_somebody() -> list[str]:
    """What a server's command begins with: it ends with us, and is not run by root."""
    runner = ["setpriv", "--pdeathsig", "KILL"]
    if os.getuid() == 0:
        runner += ["--reuid", _RUNNER, "--regid", _RUNNER, "--clear-groups"]
    return runner


class Cluster:
    """One server with its data.

    @ivar port: on C{127.0.0.1}; the same after a restart.
    """

    def __init__(self, folder: Path, settings: dict[str, str] | None = None) -> None:
        """
        @param folder: an existing one, for everything.
        """
        self._bin = programs()
        assert self._bin is not None
        self.folder, self._settings = folder, {**_SETTINGS, **(settings or {})}
        self.data = folder / "data"
        (self.port,) = free_ports(1)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def place(self) -> str:
        """Host and port, for an address of several."""
        return f"127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        """Was it started, and not stopped since."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """The server's first process."""
        assert self._process is not None
        return self._process.pid

    def make(self) -> None:
        """Make its data."""
        self._own(self.folder)
        password = self.folder / "password"
        password.write_text(f"{PASSWORD}\n")
        self._own(password)
        self._run(
            *("initdb", "--pgdata", self.data, "--username", "admin", "--pwfile", password),
            *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync"),
        )

    def copy(self, folder: Path) -> Cluster:
        """A server that follows this one, not started yet."""
        follower = Cluster(folder, self._settings)
        self._own(folder)
        source = f"host=127.0.0.1 port={self.port} user=admin password={PASSWORD}"
        self._run(
            *("pg_basebackup", "--dbname", source, "--pgdata", follower.data),
            *("--write-recovery-conf", "--checkpoint", "fast", "--no-sync"),
        )
        return follower

    def start(self) -> None:
        """Start it, and wait until it answers."""
        assert self._process is None and self._bin is not None
        settings = {
            **self._settings,
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.folder),
        }
        arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        log = (self.folder / "log").open("ab")
        with log:
            self._process = subprocess.Popen(
                [*_as_somebody(), str(self._bin / "postgres"), "-D", str(self.data), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                start_new_session=True,
            )
        wait_for("PostgreSQL", self._answers)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "log").read_text()
        try:
            self.run("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it, if it runs.

        @param how: C{SIGINT} in good order, C{SIGQUIT} at once; C{SIGKILL} is for the tests' end.
        """
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(how)
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            # its own children end when they miss it
            self._process.kill()
            self._process.wait(PATIENCE_SECONDS)
        self._process = None

    def promote(self) -> None:
        """Let a server that follows take changes from now on."""
        self._run("pg_ctl", "promote", "--pgdata", self.data, "--wait")

    def run(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run one statement as the administrator of the server."""
        how = {"host": "127.0.0.1", "port": str(self.port), "user": "admin", "password": PASSWORD}
        with psycopg.connect(dbname=database, connect_timeout="5", autocommit=True, **how) as connection:
            cursor = connection.execute(statement)  # type: ignore[call-overload]
            return cursor.fetchall() if cursor.description else []

    def end_connections(self, database: str, condition: str = "true") -> None:
        """Cut the connections to one database of which C{condition} is true."""
        self.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "  # noqa: S608 (our own words)
            f"WHERE datname = '{database}' AND {condition}"
        )

    def url(self, database: str, *others: Cluster, user: str = "admin", query: str = "") -> str:
        """The address of a directory here, and at others that follow."""
        places = ",".join(one.place for one in (self, *others))
        return f"postgresql://{user}:{PASSWORD}@{places}/{database}{query}"

    def follows(self, other: Cluster) -> bool:
        """Has it everything that C{other} has?"""
        ((there,),) = other.run("SELECT pg_current_wal_lsn()::text")
        ((here,),) = self.run(f"SELECT pg_last_wal_replay_lsn() >= '{there}'")
        return bool(here)

    def _own(self, path: Path) -> None:
        """Let who runs the server have C{path}."""
        if os.getuid() == 0:
            somebody = pwd.getpwnam(_RUNNER)
            os.chown(path, somebody.pw_uid, somebody.pw_gid)

    def _run(self, program: str, *arguments: str | Path) -> None:
        assert self._bin is not None
        command = [*_as_somebody(), str(self._bin / program), *map(str, arguments)]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            cwd=self.folder,
            check=False,
            env={**os.environ, "PGOPTIONS": ""},
        )
        assert done.returncode == 0, done.stderr + done.stdout


@contextmanager
def cluster(**settings: str) -> Iterator[Cluster]:
    """A server that runs, and is gone afterwards."""
    with scratch() as folder:
        made = Cluster(folder, settings)
        made.make()
        made.start()
        try:
            yield made
        finally:
            made.stop(signal.SIGQUIT)


@contextmanager
def follower(of: Cluster) -> Iterator[Cluster]:
    """A server that follows another one, and is gone afterwards."""
    with scratch() as folder:
        made = of.copy(folder)
        made.start()
        try:
            yield made
        finally:
            made.stop(signal.SIGQUIT)


_until_exit = ExitStack()
_shared: list[Cluster] = []
_numbers = itertools.count(1)
atexit.register(_until_exit.close)


def shared_cluster() -> Cluster:
    """A server that all tests of this run have together; it ends with them.

    @raise SkipTest: PostgreSQL is not installed.
    """
    if programs() is None:
        raise SkipTest("PostgreSQL is not installed (Debian: postgresql)")
    if not _shared:
        _shared.append(_until_exit.enter_context(cluster()))
    return _shared[0]


def make_database(test: SynchronousTestCase) -> tuple[Cluster, str]:
    """An empty database of a test's own on the shared server."""
    server, name = shared_cluster(), f"test{next(_numbers)}"
    server.run(f"CREATE DATABASE {name}")

    def drop() -> None:
        with suppress(psycopg.OperationalError):
            server.run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    test.addCleanup(drop)
    return server, name


class OnPostgresql:
    """Mixed into a test case before everything else, it has its directories in PostgreSQL."""

    def directory_url(self, folder: Path) -> str:
        """The address of the directory that belongs to C{folder}: a file of its own says which it is."""
        note = folder / "directory.url"
        if not note.exists():
            assert isinstance(self, SynchronousTestCase)
            server, name = make_database(self)
            note.write_text(server.url(name))
        return note.read_text()
