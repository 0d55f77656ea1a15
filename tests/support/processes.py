"""Real processes for the tests that need them: a demo farm, curl, and a call-back that listens.

Everything here blocks, so it is for tests that drive processes from outside, never for a reactor.
"""

from __future__ import annotations

import atexit
import os
import random
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

#: How long anything may take before the test fails: generous, since machines are shared.
PATIENCE_SECONDS = 60.0

BIN = Path(sys.executable).parent


def _lasting_ports() -> range:
    """The ports that the system gives to no connection of its own choice."""
    try:
        low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        low = 32768
    return range(10_000, max(low, 20_000))


def free_ports(count: int, host: str = "127.0.0.1", *, neighbours: bool = False) -> list[int]:
    """That many ports which nobody has, and which nobody gets who asks for any port.

    A daemon that a test starts anew has to find its port free; a load that opens a connection for each request
    uses up all ports of the other kind, and takes it.

    @param neighbours: they follow each other.
    """
    ports: dict[int, socket.socket] = {}
    try:
        for _ in range(10_000):
            if len(ports) == count:
                return list(ports)
            following = neighbours and ports
            port = max(ports) + 1 if following else random.choice(_lasting_ports())
            trial = socket.socket()
            try:
                trial.bind((host, port))
            except OSError:
                trial.close()
                if following:
                    _close(ports)
            else:
                ports[port] = trial
        raise AssertionError(f"there are no {count} free ports")
    finally:
        _close(ports)


def _close(ports: dict[int, socket.socket]) -> None:
    """Give them back."""
    for each in ports.values():
        each.close()
    ports.clear()


def wait_for(what: str, ready: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
    """Look again and again until C{ready()}, which another process decides.

    @raise AssertionError: it took too long.
    """
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not come about within {seconds} s")
        time.sleep(0.02)


@dataclass(frozen=True)
class Heard:
    """One request that a call-back received."""

    line: str
    headers: dict[str, str]
    body: bytes

    def has(self, text: str) -> bool:
        """Does the body contain C{text}."""
        return text.encode() in self.body


class CallBack:
    """A client's call-back: a plain HTTP listener in a thread that notes what it is told.

    @ivar status: what it answers.
    @ivar heard: requests in the order they came.
    """

    def __init__(self, status: int = 200, host: str = "127.0.0.1") -> None:
        self.status = status
        self.heard: list[Heard] = []
        self._arrived = threading.Condition()
        self._listener = socket.create_server((host, 0))
        self._connections: set[socket.socket] = set()
        self.port = self._listener.getsockname()[1]
        self.url = f"http://{host}:{self.port}/"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop listening, and drop every connection."""
        if self._listener.fileno() != -1:
            # A thread in accept() keeps the socket open until it is shut down.
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        for connection in tuple(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def wait(self, count: int = 1, *, containing: str = "", seconds: float = PATIENCE_SECONDS) -> list[Heard]:
        """The requests whose bodies contain C{containing}, once there are C{count} of them."""

        def found() -> list[Heard]:
            return [heard for heard in self.heard if heard.has(containing)]

        with self._arrived:
            if not self._arrived.wait_for(lambda: len(found()) >= count, seconds):
                raise AssertionError(
                    f"heard {len(found())} of {count} containing {containing!r}: {self.heard}"
                )
            return found()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            try:
                while self._serve_one(connection, stream):  # type: ignore[arg-type]
                    pass
            except (OSError, ValueError):
                pass
        self._connections.discard(connection)

    def _serve_one(self, connection: socket.socket, stream: Iterator[bytes]) -> bool:
        line = stream.readline().decode().strip()  # type: ignore[attr-defined]
        if not line:
            return False
        headers: dict[str, str] = {}
        while field_line := stream.readline().decode().strip():  # type: ignore[attr-defined]
            name, _, value = field_line.partition(":")
            headers[name.lower()] = value.strip()
        body = stream.read(int(headers.get("content-length", "0")))  # type: ignore[attr-defined]
        with self._arrived:
            self.heard.append(Heard(line, headers, body))
            self._arrived.notify_all()
        answer = f"HTTP/1.1 {self.status} Told\r\nRVP-Notifications-Version: 0.2\r\nContent-Length: 0\r\n\r\n"
        connection.sendall(answer.encode())
        return True


@dataclass
class Ran:
    """How a program ended."""

    status: int
    out: str
    err: str


def run(*command: str | Path, stdin: str = "", seconds: float = PATIENCE_SECONDS, **environment: str) -> Ran:
    """Run a program to its end."""
    done = subprocess.run(
        [str(part) for part in command],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=seconds,
        env={**os.environ, **environment},
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


@dataclass
class DemoFarm:
    """A farm of C{twistd rvp-farm}: two routers and two homes on free ports of this machine.

    @ivar routers: C{host:port} of each; likewise C{homes} and C{metrics} (routers first).
    """

    state: Path
    options: Sequence[str] = ()
    password: str = "correct horse"
    routers: list[str] = field(default_factory=list)
    homes: list[str] = field(default_factory=list)
    metrics: list[str] = field(default_factory=list)
    dns: str = ""
    out: str = ""
    _process: subprocess.Popen[str] | None = None

    def __post_init__(self) -> None:
        # One port for all: what is free on every address is free on each.
        port, link, dns = free_ports(3, "0.0.0.0")
        base = free_metrics_base(5)
        self.routers = [f"127.0.0.1:{port}", f"127.0.0.2:{port}"]
        self.homes = [f"127.0.0.11:{port}/{link}", f"127.0.0.12:{port}/{link}"]
        self.dns = f"127.0.0.1:{dns}"
        self.metrics = [f"127.0.0.1:{base + number}" for number in range(4)]

    def start(self) -> None:
        """Start it, and wait until it says that it is ready.

        @raise AssertionError: it ended instead, or took too long.
        """
        arguments = ["--state-dir", str(self.state), "--dns", self.dns, "--metrics", self.metrics[0]]
        for router in self.routers:
            arguments += ["--router", router]
        for home in self.homes:
            arguments += ["--home", home]
        self._process = subprocess.Popen(
            [
                # A shell that runs the tests in the background has them ignore SIGINT.
                *("env", "--default-signal=INT"),
                *(str(BIN / "twistd"), "--nodaemon", "--pidfile=", "--logger", "rvpfarm.observe.logs.quiet"),
                *("rvp-farm", *arguments, *self.options),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "RVPFARM_DEMO_PASSWORD": self.password},
            start_new_session=True,
        )
        self.out = self._read_until("Ctrl-C")

    def _read_until(self, text: str) -> str:
        assert self._process is not None and self._process.stdout is not None
        seen, end = "", time.monotonic() + PATIENCE_SECONDS
        fd = self._process.stdout.fileno()
        while text not in seen:
            if not select.select([fd], [], [], max(0.0, end - time.monotonic()))[0]:
                raise AssertionError(f"the farm was not ready in time: {seen}")
            part = os.read(fd, 65536).decode()
            if not part:
                raise AssertionError(f"the farm ended: {seen}")
            seen += part
        return seen

    def stop(self) -> int:
        """Press Ctrl-C and wait for the end."""
        assert self._process is not None
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGINT)
        status = self._process.wait(PATIENCE_SECONDS)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None
        return status

    @property
    def running(self) -> bool:
        """Was it started, and not stopped since."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """The process of C{rvp-farm} itself."""
        assert self._process is not None
        return self._process.pid

    def children(self) -> dict[int, str]:
        """The processes of the farm's members: their command lines by process id."""
        return {pid: line for pid, parent, line in processes() if parent == self.pid}

    def member(self, name: str) -> int:
        """The process id of one member, such as C{"home1"}."""
        for pid, line in self.children().items():
            if re.search(rf"(^|\s)(--name[= ]|-n )?{name}(\s|$)", line):
                return pid
        raise AssertionError(f"{name} does not run: {self.children()}")

    def metric(self, process: int, name: str) -> float:
        """The sum of all samples of one metric in one process."""
        page = run("curl", "-s", f"http://{self.metrics[process]}/metrics").out
        lines = [line for line in page.splitlines() if re.match(rf"{name}(\{{| )", line)]
        return sum(float(line.rpartition(" ")[2]) for line in lines)


_shared: dict[str, DemoFarm] = {}
_until_exit = ExitStack()
atexit.register(_until_exit.close)


def shared_farm(name: str) -> DemoFarm:
    """The farm of that name, running; stopped when the tests are over.

    Not a class fixture of unittest: trial knows none.
    """
    if name not in _shared:
        farm = DemoFarm(_until_exit.enter_context(scratch()) / "demo")
        farm.start()
        _until_exit.callback(farm.stop)
        _shared[name] = farm
    return _shared[name]


def free_metrics_base(count: int) -> int:
    """The first of C{count} neighbouring ports that nobody listens on."""
    return free_ports(count, neighbours=True)[0]


def processes() -> Iterator[tuple[int, int, str]]:
    """Every process: its id, its parent's id, its command line."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text()
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        yield int(entry.name), int(stat.rpartition(")")[2].split()[1]), line


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory that is gone afterwards."""
    where = Path(tempfile.mkdtemp(prefix="rvpfarm-test-"))
    try:
        yield where
    finally:
        shutil.rmtree(where, ignore_errors=True)
