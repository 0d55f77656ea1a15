"""Single daemons as an operator runs them: started with any options, signalled, watched, restarted.

A L{Site} is a directory with one user, a home that serves it, and whatever routers a test starts.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from http.client import HTTPException
from pathlib import Path

from rvpfarm.admin import handlers
from rvpfarm.directory.store import Store
from tests.support.processes import (
    BIN,
    PATIENCE_SECONDS,
    free_metrics_base,
    free_ports,
    processes,
    scratch,
    wait_for,
)

LOOPBACK = "127.0.0.1"
DOMAIN = "im.farm.localhost"
ALICE = f"http://{DOMAIN}/instmsg/aliases/alice"

#: Descriptors from here on are not among those that systemd hands down.
_OUT_OF_THE_WAY = 50

#: Becomes another program with sockets handed down as systemd does it: from descriptor 3 on, named.
_AS_SYSTEMD = """
import os, sys
count, names = int(sys.argv[1]), sys.argv[2]
for number in range(count):  # from where they are, which is further up, to where they belong
    os.dup2(int(sys.argv[3 + number]), 3 + number)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(count), LISTEN_FDNAMES=names)
os.execv(sys.argv[3 + count], sys.argv[3 + count:])
"""


def ask(close: bool = False) -> bytes:
    """A request that a home answers 200: a user's own list of subscriptions, on a trusted network.

    @param close: the connection is not needed any more.
    """
    lines = [
        "SUBSCRIPTIONS /instmsg/aliases/alice HTTP/1.1",
        f"Host: {DOMAIN}",
        "RVP-Notifications-Version: 0.2",
        f"RVP-From-Principal: {ALICE}",
        *(["Connection: close"] if close else []),
    ]
    return "\r\n".join([*lines, "", ""]).encode()


class Daemon:
    """One C{twistd} in the foreground.

    @ivar pid: of the process.
    """

    def __init__(
        self,
        log: Path,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        sockets: Sequence[tuple[str, socket.socket]] = (),
    ) -> None:
        """
        @param log: what it writes is appended there.
        @param arguments: the plugin and its options.
        @param sockets: handed down as systemd hands sockets down, with their names.
        """
        self._log = log
        command = [
            *(str(BIN / "twistd"), "--nodaemon", "--pidfile="),
            *("--logger", "rvpfarm.observe.logs.json_lines"),
            *arguments,
        ]
        descriptors = []
        for _, sock in sockets:
            descriptors.append(fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD, _OUT_OF_THE_WAY))
        if descriptors:
            names = ":".join(name for name, _ in sockets)
            moves = [str(len(descriptors)), names, *(str(fd) for fd in descriptors)]
            command = [sys.executable, "-c", _AS_SYSTEMD, *moves, *command]
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # it stops when this ends, however the tests may end
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=log.parent,
                pass_fds=descriptors,
                env={**os.environ, "RVPFARM_STOP_AT_EOF": "1", **(environment or {})},
                start_new_session=True,
            )
        for fd in descriptors:
            os.close(fd)
        self.pid = self._process.pid

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return self._log.read_text("utf-8", "replace")

    def texts(self) -> list[str]:
        """The texts of what it has logged so far, and lines that are no JSON as they are."""
        found = []
        for line in self.log.splitlines():
            try:
                found.append(str(json.loads(line)["text"]))
            except (ValueError, TypeError, KeyError):
                found.append(line)
        return found

    def await_text(self, pattern: str, count: int = 1) -> None:
        """Wait until it has logged what matches C{pattern}, so many times.

        @raise AssertionError: it does not.
        """

        def logged() -> bool:
            return sum(bool(re.search(pattern, text)) for text in self.texts()) >= count

        try:
            wait_for(pattern, logged)
        except AssertionError as problem:
            raise AssertionError(f"{problem}: {self.log}") from None

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def children(self) -> set[int]:
        """The ids of its child processes."""
        return {pid for pid, parent, _ in processes() if parent == self.pid}

    @property
    def running(self) -> bool:
        """Has it not ended?"""
        return self._process.poll() is None

    def wait(self) -> int:
        """Wait for its end.

        @return: its exit status, negative if a signal ended it.
        @raise AssertionError: it does not end.
        """
        try:
            status = self._process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end: {self.log}") from None
        assert self._process.stdin is not None
        self._process.stdin.close()
        return status

    def stop(self) -> int:
        """Have it stop as an administrator does, if it runs, and wait for that."""
        if self.running:
            self.send(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """End it at once."""
        with suppress(ProcessLookupError):
            self.send(signal.SIGKILL)
        self.wait()

    def end(self) -> None:
        """After a test: end it if it has not ended, one way or another."""
        try:
            self.stop()
        except AssertionError:
            self.kill()
            raise


def page(port: int, path: str) -> tuple[int, str]:
    """A page of a health server on loopback: status and text; status 0 while there is none."""
    try:
        with urllib.request.urlopen(f"http://{LOOPBACK}:{port}{path}", timeout=PATIENCE_SECONDS) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode()
    except (OSError, HTTPException):  # whoever knocks at a port that nobody has may be connected to himself
        return 0, ""


def await_ready(*ports: int) -> None:
    """Wait until the daemons that serve their health there say that they are ready."""
    for port in ports:
        wait_for(f"readiness at {port}", lambda port=port: page(port, "/readyz")[0] == 200)


def metric(port: int, name: str, **labels: str) -> float:
    """The sum of all samples of one metric that bear these labels."""
    total = 0.0
    for line in page(port, "/metrics")[1].splitlines():
        if re.match(rf"{name}(\{{| )", line) and all(
            f'{key}="{value}"' in line for key, value in labels.items()
        ):
            total += float(line.rpartition(" ")[2])
    return total


_sites: list[Site] = []


def shared_site() -> Site:
    """A site for all tests that leave it as it was; closed when the tests are over."""
    if not _sites:
        _sites.append(Site())
        atexit.register(_sites[0].close)
    return _sites[0]


class Site:
    """A directory with one user and a running home, and routers as tests want them.

    @ivar where: the directory of all its files.
    @ivar port: of the router on record.
    @ivar home_ports: of the home: for callers, and for farm members.
    @ivar metrics: the first of several neighbouring ports for the health of routers.
    """

    def __init__(self) -> None:
        self._open = ExitStack()
        self.where = self._open.enter_context(scratch())
        self.url = f"sqlite:///{self.where / 'directory.sqlite'}"
        home_port, link_port, self.port, self._home_metrics = free_ports(4)
        self.home_ports = home_port, link_port
        self.metrics = free_metrics_base(8)
        self._number = 0
        store, _ = handlers.prepare(self.url, self.where / "farm.key")
        handlers.init(store)
        self._fill(store, home_port, link_port)
        store.close()
        self.home = self.start_home()

    def _fill(self, store: Store, home_port: int, link_port: int) -> None:
        handlers.add_domain(store, DOMAIN, ["farm.localhost"])
        handlers.set_policy(store, "authentication", "off")
        handlers.create_home(store, "home1", "home1.farm.localhost", home_port, link_port, LOOPBACK)
        handlers.create_router(store, "router1", "im1.farm.localhost", self.port, LOOPBACK)
        handlers.enable_user(store, "alice@farm.localhost", "home1")

    def close(self) -> None:
        """Stop the home, and forget everything."""
        self.home.end()
        self._open.close()

    def options(self, name: str, metrics: int) -> list[str]:
        """The options that every daemon here has."""
        return ["--directory", self.url, "--name", name, "--metrics", f"{LOOPBACK}:{metrics}"]

    def start(self, plugin: str, name: str, metrics: int, *options: str, **how: object) -> Daemon:
        """Start a daemon; C{how} is for L{Daemon}."""
        self._number += 1
        log = self.where / f"{name}-{self._number}.log"
        return Daemon(log, plugin, *self.options(name, metrics), *options, **how)  # type: ignore[arg-type]

    def start_home(self, *options: str, **how: object) -> Daemon:
        """Start the home, and wait until it is ready."""
        state = str(self.where / "home1")
        home = self.start("rvp-home", "home1", self._home_metrics, "--state-dir", state, *options, **how)
        await_ready(self._home_metrics)
        return home

    def router(self, *options: str, **how: object) -> Daemon:
        """Start the router."""
        return self.start("rvp-router", "router1", self.metrics, *options, **how)
