"""C{python -m tests.simulation --seed 7}, or C{--runs 500}: see C{docs/simulation.md}."""

from __future__ import annotations

import argparse
import sys
import time

from tests.simulation.schedule import draw
from tests.simulation.world import play


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("python -m tests.simulation")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--runs", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.seed is not None:
        report = play(draw(options.seed))
        print("\n".join(report.trace))
        print(report.digest, report.counts)
        return 1 if report.broken else 0
    bad = 0
    for seed in range(options.first, options.first + options.runs):
        t = time.time()
        report = play(draw(seed))
        print(
            seed, f"{time.time() - t:.2f}", report.digest, *[b.splitlines()[0][:200] for b in report.broken]
        )
        bad += bool(report.broken)
    print(bad, "bad")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
