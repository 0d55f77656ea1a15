"""The rows of the edge: a router against nginx and HAProxy, driven by wrk."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path

from rvpfarm.admin import handlers
from tests.bench import load, peers
from tests.bench.farm import DOMAIN, HOST, BenchFarm, bench_farm, make_account
from tests.bench.rows import OURS, Lineup, Row, Sample, Scale, Target
from tests.bench.serving import Served, Servers
from tests.support.processes import free_ports
from tests.support.tls import write_certificate

HOMES = ("home1", "home2")


def rows() -> list[Row]:
    """The rows of this kind."""
    proxies = ("nginx", "haproxy")
    return [
        Row(
            1,
            "router: forward a 1 KB NOTIFY, 64 connections",
            "request",
            _forwarding,
            dict.fromkeys(proxies, Target(1.0, 1.25)),
        ),
        Row(
            2,
            "router: forward a 1 KB NOTIFY, 1,000 connections",
            "request",
            partial(_forwarding, many=True),
            dict.fromkeys(proxies, Target(1.0, 1.4)),
        ),
        Row(3, "router: refer a client to its home", "request", _referring, {"nginx": Target(1.2, 1.5)}),
        Row(
            7,
            "router: forward a 1 KB NOTIFY over TLS, 64 connections",
            "request",
            partial(_forwarding, secure=True),
            {"nginx": Target(1 / 1.2, 1.0)},
        ),
    ]


def _forwarding(
    servers: Servers, scale: Scale, stack: ExitStack, *, many: bool = False, secure: bool = False
) -> Lineup:
    """A router with stub homes, and proxies before an nginx, that all pass on the same requests."""
    connections = scale.many if many else scale.connections
    requests = [load.notify(number) for number in range(scale.users)]
    path = load.write_requests(servers.folder / "requests", requests)
    tls = write_certificate(servers.folder / "tls", DOMAIN) if secure else None
    if tls:
        # a worker of nginx does not read it, but HAProxy and nginx as another user would like to
        Path(tls[0]).chmod(0o644)

    def driven(served: Served) -> Callable[[float], Sample]:
        status, _ = load.ask(served.place, requests[0], tls=secure)
        if status != 200:
            raise RuntimeError(f"{served.place} answers {status}, not 200")
        if secure and load.tls_version(served.place) != "TLSv1.3":
            raise RuntimeError(f"{served.place} speaks {load.tls_version(served.place)}, not TLSv1.3")
        return load.with_wrk(served, path, connections, tls=secure)

    @cache
    def backend() -> Served:
        return peers.nginx_backend(servers)

    def ours() -> Callable[[float], Sample]:
        farm = _farm(servers, scale, stack)
        farm.policy("referral", "never")
        return driven(_router(servers, farm, tls))

    lineup = Lineup()
    lineup.add(OURS, ours)
    lineup.add("nginx", lambda: driven(peers.nginx_proxy(servers, backend(), connections, tls)))
    if not secure:
        lineup.add("haproxy", lambda: driven(peers.haproxy(servers, backend())))
    return lineup


def _referring(servers: Servers, scale: Scale, stack: ExitStack) -> Lineup:
    """A router and an nginx that both know where each user lives."""
    requests = [load.sign_in(number) for number in range(scale.users)]
    path = load.write_requests(servers.folder / "requests", requests)
    farm = _farm(servers, scale, stack)
    farm.policy("referral", "auto")
    homes = list(handlers.farm_of(farm.store).homes.values())
    places = {}
    for number in range(scale.users):
        home = homes[number % len(homes)]
        account = make_account(number, home.id)
        places[account.path] = account.physical_url(home)

    def driven(served: Served) -> Callable[[float], Sample]:
        for number in (0, 1, scale.users - 1):
            answer = load.ask(served.place, requests[number])
            if answer != (302, places[f"/instmsg/aliases/u{number}"]):
                raise RuntimeError(f"{served.place} answers {answer}")
        return load.with_wrk(served, path, scale.connections)

    lineup = Lineup()
    lineup.add(OURS, lambda: driven(_router(servers, farm, None)))
    lineup.add("nginx", lambda: driven(peers.nginx_referrals(servers, places)))
    return lineup


def _farm(servers: Servers, scale: Scale, stack: ExitStack) -> BenchFarm:
    """A farm with its users, of which nothing runs yet."""
    farm = stack.enter_context(bench_farm(servers.folder, HOMES, ("router1",)))
    farm.policy("connections-per-source", "8192")
    farm.add_users(scale.users, passwords=False)
    return farm


def _router(servers: Servers, farm: BenchFarm, tls: tuple[str, str] | None) -> Served:
    """The router, before homes that answer everything at once and whose CPU does not count."""
    homes = list(handlers.farm_of(farm.store).homes.values())
    servers.start(
        "homes",
        [
            *(sys.executable, "-m", "tests.bench.stubs", str(farm.key_file)),
            *(f"{home.id}:{home.link_port}" for home in homes),
        ],
        ports=[home.link_port for home in homes],
        environment={"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    if tls is None:
        router = farm.start("router1")
        return Served(router.place, (router.pid,))
    port = free_ports(1)[0]
    router = farm.start(
        "router1", "--listen", f"fast:ssl:{port}:interface={HOST}:privateKey={tls[0]}:certKey={tls[1]}"
    )
    return Served(f"{HOST}:{port}", (router.pid,))
