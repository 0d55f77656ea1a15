"""Measures a directory with half a million accounts, in SQLite and in PostgreSQL.

    python -m tests.bench.accounts --count 500000 --json build/accounts.json

For each database: the rate of a bulk import without passwords and, for fewer accounts, with them; look-ups
as a daemon makes them, cold at the database and warm from its cache; the memory of a full cache; how long
a start takes with and without a snapshot; how long a snapshot takes.  PostgreSQL is one of our own, on
loopback in a temporary folder, with its usual safety (fsync).
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rvpfarm.admin import handlers
from rvpfarm.admin.bulk import Wanted, enable_many
from rvpfarm.auth.keys import FarmKey
from rvpfarm.directory.cache import CachedDirectory
from rvpfarm.directory.sql import SqlSource
from rvpfarm.directory.standby import SnapshotFile
from rvpfarm.directory.store import Store
from tests.support.postgres import cluster, programs
from tests.support.processes import scratch
from tests.support.threads import ManualThreads, ThreadClock

#: The domain that all are of.
_DOMAIN = "im.fabrik.example"


def wanted(first: int, count: int, password: str | None = None) -> Iterator[Wanted]:
    """That many users, numbered from C{first}."""
    for number in range(first, first + count):
        yield Wanted(f"user{number}@fabrik.example", display_name=f"User {number}", password=password)


def key_of(number: int) -> str:
    """The key of the user of that number."""
    return f"{_DOMAIN}/instmsg/aliases/user{number}"


def quantile(samples: list[float], part: float) -> float:
    """The value that so large a part of the samples is not above."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def timed(work: Callable[[], object]) -> float:
    """How many seconds C{work} takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def resident_mb() -> float:
    """The memory of this process now, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def spread(keys: list[str], look_up: Callable[[str], object]) -> dict[str, float]:
    """Look each up once; the latencies in microseconds."""
    samples = [timed(lambda key=key: look_up(key)) * 1e6 for key in keys]  # type: ignore[misc]
    return {"p50_us": round(quantile(samples, 0.5), 1), "p99_us": round(quantile(samples, 0.99), 1)}


def measure(url: str, folder: Path, count: int, with_password: int, cached: int, say: Any) -> dict[str, Any]:
    """Everything about one database.

    @param count: accounts without a password.
    @param with_password: accounts with one, besides.
    @param cached: how many a cache remembers.
    @param say: told each figure as it comes (C{Any}: C{print}).
    """
    figures: dict[str, Any] = {"accounts": count, "accounts_with_password": with_password}

    def note(name: str, value: object) -> None:
        figures[name] = value
        say(f"  {name}: {value}", flush=True)

    key = FarmKey.create(folder / "farm.key")
    store = Store(url, key)
    handlers.init(store, actor="bench")
    handlers.add_domain(store, _DOMAIN, ["fabrik.example"], [], "FABRIK", actor="bench")
    for name in ("hs1", "hs2"):
        handlers.create_home(store, name, f"{name}.fabrik.example", actor="bench")

    def load(rows: Iterator[Wanted]) -> None:
        for _ in enable_many(store, rows, actor="bench"):
            pass

    note("import_per_second", round(count / timed(lambda: load(wanted(0, count)))))
    if with_password:
        rate = with_password / timed(lambda: load(wanted(count, with_password, "Blue-Kite-41")))
        note("import_with_password_per_second", round(rate))
    chosen = random.Random(1)  # the same each time
    source = SqlSource(store)
    source.position()
    plain = [key_of(chosen.randrange(count)) for _ in range(5000)]
    proven = [key_of(count + chosen.randrange(with_password)) for _ in range(2000)] if with_password else []
    note("cold_look_up", spread(plain, source.account))
    if proven:
        note("cold_look_up_with_verifiers", spread(proven, source.account))
    note("cold_look_up_of_nobody", spread([key_of(-n - 1) for n in range(2000)], source.account))

    clock, threads = ThreadClock(), ManualThreads()
    directory = CachedDirectory(source, clock, size=cached, threads=threads)
    note("start_seconds", round(timed(directory.load), 3))
    directory.startService()
    gc.collect()
    before = resident_mb()
    for number in range(min(cached, count)):
        directory.find(key_of(number))
        threads.run()
    gc.collect()
    note("cache_accounts", min(cached, count))
    note("cache_mb", round(resident_mb() - before, 1))
    warm = [key_of(chosen.randrange(min(cached, count))) for _ in range(20000)]
    note("warm_look_up", spread(warm, directory.peek))

    shelf = SnapshotFile(folder / "snapshot", key.snapshot)

    def keep() -> None:
        draft, page = shelf.begin(directory.head(time.time(), verifiers=True)), 0
        while page is not None:
            some, page = directory.accounts(page, 100)  # type: ignore[assignment]
            draft.add(some)
        note("snapshot_mb", round(draft.finish() / 1e6, 1))

    note("snapshot_write_seconds", round(timed(keep), 2))
    again = CachedDirectory(source, ThreadClock(), size=cached, threads=ManualThreads())

    def recall() -> None:
        found = shelf.read(time.time(), verifiers=True)
        assert found is not None
        again.recall(found.snapshot, found.age_seconds)
        again.load()

    note("start_with_snapshot_seconds", round(timed(recall), 2))
    directory.stopService()
    note("audit_check_seconds", round(timed(lambda: handlers.check_audit(store)), 1))
    store.close()
    return figures


def main() -> None:
    """Measure, and print or write what was measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--count", type=int, default=500_000, help="accounts without a password")
    parser.add_argument("--with-password", type=int, default=20_000, help="accounts with one, besides")
    parser.add_argument("--cached", type=int, default=200_000, help="how many a daemon remembers")
    parser.add_argument("--only", choices=("sqlite", "postgresql"), help="one database")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    given = parser.parse_args()
    results: dict[str, Any] = {}
    with ExitStack() as stack:
        for name in ("sqlite", "postgresql"):
            if given.only not in (None, name) or (name == "postgresql" and programs() is None):
                continue
            folder = stack.enter_context(scratch())
            url = f"sqlite:///{folder / 'directory.sqlite'}"
            if name == "postgresql":
                safe = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
                server = stack.enter_context(cluster(**safe))
                server.run("CREATE DATABASE rvpfarm")
                url = server.url("rvpfarm")
            print(name, flush=True)
            results[name] = measure(url, folder, given.count, given.with_password, given.cached, print)
    if given.json is not None:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
