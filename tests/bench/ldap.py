"""How long it takes to find somebody in a real slapd, with and without the cache, and to list everybody.

C{python -m tests.bench.ldap [PEOPLE]}; it needs slapd, and takes some ten seconds for 20,000 people.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rvpfarm.admin import handlers
from rvpfarm.auth.keys import FarmKey
from rvpfarm.directory.cache import CachedDirectory
from rvpfarm.directory.ldappeople import ldap_entries
from rvpfarm.directory.ldapsource import LdapSource
from rvpfarm.directory.store import Store
from tests.support.processes import scratch
from tests.support.slapd import OPENLDAP, READER_PASSWORD, Slapd, missing, trunk
from tests.support.threads import ManualThreads, ThreadClock
from tests.support.trees import person, put_settings, servers_for, settings_for

_ROUNDS = 2000


def measure(name: str, work: Callable[[int], object], rounds: int = _ROUNDS) -> None:
    """Print how long C{work} takes, half of the time and 99 times of a hundred, and what CPU it costs."""
    spans = []
    cpu = time.process_time()
    for number in range(rounds):
        begun = time.perf_counter()
        work(number)
        spans.append(time.perf_counter() - begun)
    cpu = (time.process_time() - cpu) / rounds
    spans.sort()
    p50, p99 = spans[rounds // 2] * 1e3, spans[rounds * 99 // 100] * 1e3
    print(f"{name:34} p50 {p50:7.3f} ms   p99 {p99:7.3f} ms   CPU {cpu * 1e3:6.3f} ms")


def bench(folder: Path, people: int) -> None:
    """Measure with that many C{people}."""
    tree = [*trunk(), *(person(f"u{number}") for number in range(people))]
    (folder / "slapd").mkdir()
    slapd = Slapd(folder / "slapd", OPENLDAP, tree)
    try:
        store, _ = handlers.prepare(f"sqlite:///{folder / 'directory.sqlite'}", folder / "farm.key")
        handlers.init(store)
        handlers.add_domain(store, "im.fabrik.example", ["fabrik.example"])
        handlers.create_home(store, "hs1", "hs1.fabrik.example")
        key = FarmKey.load(folder / "farm.key")
        settings = put_settings(store, replace(settings_for(slapd), automatic=True), key)
        servers = servers_for(settings)
        measure("slapd alone", lambda at: servers.search(f"(uid=u{at % people})", ["uid", "mail"]))
        password = "Pass-u1-1"
        measure("a password", lambda at: servers.prove(f"uid=u{at},ou=people,dc=fabrik,dc=example", password))
        servers.close()
        source = LdapSource(Store(store.where), key, pins=False)
        source.farm()
        keys = [f"im.fabrik.example/instmsg/aliases/u{number}" for number in range(people)]
        measure("database and slapd", lambda at: source.account(keys[at % people]))
        directory = CachedDirectory(source, ThreadClock(), threads=ManualThreads())
        directory.load()
        for at in range(_ROUNDS):
            directory._remember(keys[at % people], source.account(keys[at % people]))
        measure("the cache", lambda at: directory.peek(keys[at % people]))
        begun = time.perf_counter()
        found = sum(1 for _ in ldap_entries(settings, password=READER_PASSWORD))
        print(f"everybody: {found} in {time.perf_counter() - begun:.2f} s, page by page")
        source.close()
        store.close()
    finally:
        slapd.stop()


if __name__ == "__main__":
    if missing():
        raise SystemExit(missing())
    with scratch() as where:
        bench(where, int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
