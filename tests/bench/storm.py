"""Everybody comes back to one home within a minute: C{python -m tests.bench.storm --users 10000 --contacts 30}.

The home has lost its state, which is the worst that its restart can be: each user signs in with Digest on a
connection of his own, says that he is online and subscribes to each of his contacts; then he lets go of the
connection, as clients do that have nothing to say.  Those who are back are told of each who comes.  Whoever is answered 503 comes again when C{Retry-After} says so, and some
time later.  Measured is when the last one is back, and whether anything but such a 503 went wrong.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass

from tests.bench.farm import HOST, bench_farm, cpu_seconds, resident_bytes
from tests.bench.load import PATIENCE_SECONDS, built
from tests.bench.scale import lags_of, quantile, table
from tests.bench.serving import Servers, end, free_range
from tests.support.processes import scratch

#: How much longer than the time in which all begin to come back it may take until all are.
SPARE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured.

    @ivar back: users who have done all that they came for.
    @ivar last_back_seconds: when the last of them had, from when the first one came.
    @ivar calls: those that were answered well.
    @ivar refused: answers 503 with C{Retry-After}.
    @ivar failed: whatever else was not answered well.
    @ivar told: notifications that arrived meanwhile.
    @ivar lag_p99_ms: how late the loop ran its timers; taken from a histogram, so up to the next bucket.
    @ivar answer_p50_ms: of one call, those that were refused left out.
    """

    users: int
    contacts: int
    back: int
    last_back_seconds: float
    calls: int
    refused: int
    failed: int
    told: int
    cpu_seconds: float
    lag_p99_ms: float
    answer_p50_ms: float
    answer_p99_ms: float
    resident_mb: float


def measure(users: int, contacts: int, window: float) -> Figures:
    """Have so many users come back to a home.

    @param window: they begin to do so within so many seconds, evenly.
    """
    allow_descriptors(2 * users)  # who is on his way has a connection, and who is back a call-back
    with ExitStack() as stack:
        folder = stack.enter_context(scratch())
        farm = stack.enter_context(bench_farm(folder))
        farm.add_users(users)
        program = built(Servers(stack, folder), "rvp")
        home = farm.start("home1")
        arguments = [
            *(str(program), "storm", "--target", home.place, "--count", str(users)),
            *("--contacts", str(contacts), "--window", str(window)),
            *("--seconds", str(window + 2 * SPARE_SECONDS), "--sink", f"{HOST}:{free_range(1)}"),
        ]
        before, lags = cpu_seconds(home.pid), lags_of(home)
        process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        stack.callback(end, process)
        # the program says that it is ready, is told to go, and says what it has seen
        said, _ = process.communicate("GO\n", timeout=window + 2 * SPARE_SECONDS + PATIENCE_SECONDS)
        seen = json.loads(said.splitlines()[-1])
        lags = {bound: number - lags[bound] for bound, number in lags_of(home).items()}
        return Figures(
            users=users,
            contacts=contacts,
            back=seen["back"],
            last_back_seconds=seen["last_back"],
            calls=seen["ops"],
            refused=seen["refusals"],
            failed=seen["failures"],
            told=seen["told"],
            cpu_seconds=round(cpu_seconds(home.pid) - before, 2),
            lag_p99_ms=quantile(lags, 0.99),
            answer_p50_ms=seen["p50_us"] / 1000,
            answer_p99_ms=seen["p99_us"] / 1000,
            resident_mb=round(resident_bytes(home.pid) / 1e6, 1),
        )


def allow_descriptors(count: int) -> None:
    """Let this process, and what it starts from now on, have so many files open at once.

    @raise SystemExit: the system forbids that.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), max(hard, count)))
    except (ValueError, OSError):
        raise SystemExit(
            f"{count} files must be open at once and {hard} are allowed; raise it with ulimit -n"
        ) from None


def main() -> int:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.storm", description=__doc__)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--contacts", type=int, default=30)
    parser.add_argument("--window", type=float, default=60.0, help="seconds in which all begin to come back")
    chosen = parser.parse_args()
    figures = measure(chosen.users, chosen.contacts, chosen.window)
    print(table(figures))
    everybody = figures.back == figures.users
    in_time = figures.last_back_seconds <= chosen.window + SPARE_SECONDS
    return 0 if everybody and in_time and not figures.failed else 1


if __name__ == "__main__":
    sys.exit(main())
