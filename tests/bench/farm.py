"""A farm to be measured: a directory with as many users as wanted, and one process for each server."""

from __future__ import annotations

import os
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rvpfarm.admin import handlers
from rvpfarm.admin.passwords import put_password
from rvpfarm.directory.model import Account
from rvpfarm.directory.store import Store
from tests.support.processes import BIN, PATIENCE_SECONDS, free_metrics_base, free_ports

DOMAIN = "im.bench.localhost"
MAIL_DOMAIN = "bench.localhost"
PASSWORD = "bench-bench-1"
HOST = "127.0.0.1"


@dataclass
class Process:
    """One running server.

    @ivar pid: whose CPU is counted.
    @ivar port: where it takes callers.
    @ivar link: where a home takes farm members.
    """

    name: str
    pid: int
    port: int
    metrics: int
    link: int = 0

    @property
    def place(self) -> str:
        """C{HOST:PORT} for callers."""
        return f"{HOST}:{self.port}"


class BenchFarm:
    """A directory and the servers started on it; all end with L{close}."""

    def __init__(self, folder: Path, homes: Sequence[str] = ("home1",), routers: Sequence[str] = ()) -> None:
        """
        @param folder: keeps everything.
        """
        self.folder = folder
        self.directory = f"sqlite:///{folder}/directory.sqlite"
        self.key_file = folder / "farm.key"
        self._stack = ExitStack()
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._store, _ = handlers.prepare(self.directory, self.key_file)
        handlers.init(self._store)
        handlers.add_domain(self._store, DOMAIN, [MAIL_DOMAIN])
        ports = iter(free_ports(2 * len(homes) + len(routers)))
        base = free_metrics_base(len(homes) + len(routers))
        self._metrics = {name: base + number for number, name in enumerate((*homes, *routers))}
        for name in homes:
            handlers.create_home(self._store, name, f"{name}.{MAIL_DOMAIN}", next(ports), next(ports), HOST)
        for name in routers:
            handlers.create_router(self._store, name, f"{name}.{MAIL_DOMAIN}", next(ports), HOST)

    @property
    def store(self) -> Store:
        """The directory, to be changed."""
        return self._store

    def policy(self, name: str, value: str) -> None:
        """Set a policy of the farm."""
        handlers.change_policy(self._store, name, value)

    def add_users(self, count: int, *, first: int = 0, batch: int = 5000, passwords: bool = True) -> None:
        """Users C{u<first>}, ... dealt to the homes in turn.

        @param passwords: they can sign in; what checks their password is the same for each name.
        """
        homes = [home.id for home in handlers.farm_of(self._store).homes.values()]
        for start in range(first, first + count, batch):
            with self._store.change("bench", "bench users", DOMAIN) as writing:
                farm = writing.farm()
                for number in range(start, min(start + batch, first + count)):
                    account = make_account(number, homes[number % len(homes)])
                    writing.add_account(account)
                    if passwords:
                        put_password(writing, farm, account, PASSWORD)

    def start(self, name: str, *options: str, seconds: float = PATIENCE_SECONDS) -> Process:
        """Start the server of that name and wait until it is ready.

        @param options: further options of its plugin.
        @param seconds: how long that may take.
        """
        farm = handlers.farm_of(self._store)
        home = next((one for one in farm.homes.values() if one.name == name), None)
        router = next((one for one in farm.routers.values() if one.name == name), None)
        record = home or router
        assert record is not None, name
        metrics = self._metrics[name]
        command = [
            *(str(BIN / "twistd"), "--nodaemon", "--pidfile=", "--logger", "rvpfarm.observe.logs.json_lines"),
            *("rvp-home" if home else "rvp-router", "--directory", self.directory, "--name", name),
            *("--key-file", str(self.key_file), "--metrics", f"{HOST}:{metrics}", *options),
        ]
        if home:
            command += ["--state-dir", str(self.folder / name)]
        log = self._stack.enter_context((self.folder / f"{name}.log").open("ab"))
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self._stack.callback(_end, process)
        self._running[name] = process
        wait_ready(metrics, process, self.folder / f"{name}.log", seconds)
        return Process(name, process.pid, record.port, metrics, home.link_port if home else 0)

    def kill(self, name: str) -> None:
        """End a server without a warning."""
        process = self._running.pop(name)
        process.kill()
        process.wait()

    def close(self) -> None:
        """End every server."""
        self._stack.close()
        self._store.close()


@contextmanager
def bench_farm(
    folder: Path, homes: Sequence[str] = ("home1",), routers: Sequence[str] = ()
) -> Iterator[BenchFarm]:
    """A L{BenchFarm} that is closed afterwards."""
    farm = BenchFarm(folder, homes, routers)
    try:
        yield farm
    finally:
        farm.close()


def wait_ready(
    metrics: int, process: subprocess.Popen[bytes], log: Path, seconds: float = PATIENCE_SECONDS
) -> None:
    """Wait until C{/readyz} says yes.

    @raise RuntimeError: the process ended, or it took too long.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"a server ended with {process.returncode}: {log.read_text()[-2000:]}")
        with (
            suppress(OSError),
            urllib.request.urlopen(f"http://{HOST}:{metrics}/readyz", timeout=5) as answer,
        ):
            if answer.status == 200:
                return
        time.sleep(0.02)
    raise RuntimeError(f"a server was not ready within {seconds} s: {log.read_text()[-2000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def make_account(number: int, home: str) -> Account:
    """The user C{u<number>} at the home of that id."""
    alias = f"u{number}"
    path = f"/instmsg/aliases/{alias}"
    return Account(
        id=str(uuid.uuid4()),
        key=f"{DOMAIN}{path}",
        kind="user",
        domain=DOMAIN,
        path=path,
        alias=alias,
        home=home,
        enabled=True,
        display_name=f"User {number}",
        email=f"{alias}@{MAIL_DOMAIN}",
        address=f"{alias}@{MAIL_DOMAIN}",
    )


def cpu_seconds(pid: int) -> float:
    """The CPU that a process has used, user and system together, its threads included."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def starved_seconds(pid: int) -> float:
    """How long the first thread of a process has waited for a core in all."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[1]) / 1e9


def resident_bytes(pid: int) -> int:
    """The memory of a process that is in RAM."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
