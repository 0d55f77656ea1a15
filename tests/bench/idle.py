"""What a router's idle connections take: C{python -m tests.bench.idle --connections 20000}.

Each connection is made, has one request answered, which refers it to its home, and then rests, as those of
clients do all day.  Measured is the memory of the router's process; what the kernel keeps for the sockets is not
in that.
"""

from __future__ import annotations

import argparse
import socket
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import IPv4Address

from tests.bench.farm import HOST, bench_farm, resident_bytes
from tests.bench.load import sign_in
from tests.bench.scale import table
from tests.bench.storm import allow_descriptors
from tests.support.processes import scratch

#: So many connections come from one address, fewer than a router takes by default.
FROM_ONE_ADDRESS = 100
#: So many are made, used and closed before, or what is made once for all would be counted too.
WARM_UP = 100
USERS = 20
#: What a process has open besides.
SPARE = 100


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured.

    @ivar open: connections that were still open at the end.
    @ivar kilobytes_each: of the memory that was added, for each connection.
    """

    connections: int
    open: int
    before_mb: float
    after_mb: float
    kilobytes_each: float


def measure(connections: int) -> Figures:
    """Have a router hold so many connections."""
    allow_descriptors(connections + SPARE)
    with scratch() as folder, bench_farm(folder, routers=("router1",)) as farm, ExitStack() as stack:
        farm.policy("max-connections", str(connections + WARM_UP))
        farm.add_users(USERS)
        farm.start("home1")
        router = farm.start("router1")
        for number in range(WARM_UP):
            _connect(router.port, number).close()
        before = resident_bytes(router.pid)
        sockets = [stack.enter_context(_connect(router.port, number)) for number in range(connections)]
        after = resident_bytes(router.pid)
        for sock in sockets:
            sock.setblocking(False)
        return Figures(
            connections=connections,
            open=sum(_is_open(sock) for sock in sockets),
            before_mb=round(before / 1e6, 1),
            after_mb=round(after / 1e6, 1),
            kilobytes_each=round((after - before) / connections / 1e3, 2),
        )


def _connect(port: int, number: int) -> socket.socket:
    """A connection with one request behind it, from an address that it shares with few."""
    source = str(IPv4Address("127.1.0.1") + number // FROM_ONE_ADDRESS)
    sock = socket.create_connection((HOST, port), timeout=30, source_address=(source, 0))
    sock.sendall(sign_in(number % USERS))
    answer = b""
    while b"\r\n\r\n" not in answer:
        piece = sock.recv(4096)
        if not piece:
            raise RuntimeError(f"connection {number} was closed by the router: {answer!r}")
        answer += piece
    if not answer.startswith(b"HTTP/1.1 302 "):
        raise RuntimeError(f"connection {number} was answered {answer!r}")
    return sock


def _is_open(sock: socket.socket) -> bool:
    """Has the router not closed it?"""
    try:
        return bool(sock.recv(1))
    except BlockingIOError:
        return True
    except OSError:
        return False


def main() -> int:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.idle", description=__doc__)
    parser.add_argument("--connections", type=int, default=20_000)
    figures = measure(parser.parse_args().connections)
    print(table(figures))
    return 0 if figures.open == figures.connections else 1


if __name__ == "__main__":
    sys.exit(main())
