"""C{python -m tests.simulation --seed 7}, or C{--runs 500}: see C{docs/simulation.md}."""

from __future__ import annotations

import argparse
import sys
import time

from tests.simulation.schedule import draw
from tests.simulation.world import play


def main(arguments: list[str]) -> int:
    """Play one seed and print all of it, or play many and print a line for each."""
    parser = argparse.ArgumentParser("python -m tests.simulation")
    parser.add_argument("--seed", type=int, help="play this one, and print what happens")
    parser.add_argument("--runs", type=int, default=100, help="how many to play")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    options = parser.parse_args(arguments)
    if options.seed is not None:
        report = play(draw(options.seed))
        print(*report.trace, report.digest, report.counts, sep="\n")
        return 1 if report.broken else 0
    failed = []
    for seed in range(options.first, options.first + options.runs):
        began = time.monotonic()
        report = play(draw(seed))
        print(f"{seed:6} {report.digest} {time.monotonic() - began:5.2f} s", *report.broken, flush=True)
        if report.broken:
            failed.append(seed)
    print(f"{options.runs} runs, {len(failed)} of them broke a promise:", *failed or ["none"])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
