"""Servers that are measured: started, waited for, asked for their CPU, and ended whatever happens."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.bench.farm import HOST, cpu_seconds
from tests.support.processes import PATIENCE_SECONDS

#: Ports below those from which the kernel takes the near ends of connections.
LOW_PORTS = range(10000, 32000)


@dataclass(frozen=True)
class Served:
    """Something that answers, and whose CPU is counted.

    @ivar place: C{HOST:PORT}.
    @ivar pids: its processes; theirs, which they started, are counted too.
    """

    place: str
    pids: tuple[int, ...]

    def cpu_seconds(self) -> float:
        """The CPU that all its processes have used until now, user and system together."""
        return sum(cpu_seconds(pid) for pid in family(self.pids))


class Servers:
    """Starts programs, and ends all of them, the last first, when its stack is left."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        """
        @param folder: keeps what they print, one file for each.
        """
        self._stack, self.folder = stack, folder

    def start(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        ports: Sequence[int],
        user: str | None = None,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        seconds: float = PATIENCE_SECONDS,
    ) -> int:
        """Start a program, and wait until it listens on C{ports} of loopback.

        @param user: it is to run as this user; needs root.
        @param folder: where it runs; that of all if not given.
        @return: its process id.
        @raise RuntimeError: it ended, or does not listen in time.
        """
        log = self.folder / f"{name}.log"
        with log.open("ab") as out:
            process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=folder or self.folder,
                env={**os.environ, **(environment or {})},
                **({"user": user, "group": user, "extra_groups": []} if user else {}),
            )
        self._stack.callback(end, process)
        until = time.monotonic() + seconds
        waiting = list(ports)
        while waiting:
            if process.poll() is not None:
                raise RuntimeError(f"{name} ended with {process.returncode}: {_tail(log)}")
            if time.monotonic() > until:
                raise RuntimeError(f"{name} does not listen after {seconds:.0f} s: {_tail(log)}")
            waiting = [port for port in waiting if not _listens(port)]
            time.sleep(0.02)
        return process.pid


def end(process: subprocess.Popen[bytes] | subprocess.Popen[str], seconds: float = 20.0) -> None:
    """End a process of ours: politely, then not."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def family(pids: Sequence[int]) -> list[int]:
    """C{pids} and the processes that they, and those, started and that still run."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                children.setdefault(int(parent), []).append(int(entry.name))
    found = list(pids)
    for pid in found:
        found += children.get(pid, [])
    return found


def free_range(count: int) -> int:
    """The first of so many ports in a row that nobody listens on, below those the kernel hands out.

    @raise RuntimeError: there are none.
    """
    start = LOW_PORTS.start
    while start + count < LOW_PORTS.stop:
        taken = next((port for port in range(start, start + count) if not _is_free(port)), None)
        if taken is None:
            return start
        start = taken + 1
    raise RuntimeError(f"there are no {count} free ports in a row below {LOW_PORTS.stop}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection((HOST, port), timeout=1):
        return True
    return False


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-1000:].strip() or "it printed nothing"
