"""C{python -m tests.fuzz --target reader --runs 1000000 --engine atheris --seed 1}."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.fuzz.driver import has_atheris, run_jobs, share
from tests.fuzz.findings import FINDINGS, save, shrink
from tests.fuzz.registry import NAMES, load
from tests.fuzz.worker import Job, work


def main(arguments: list[str]) -> int:
    """Do what the command line asks for.

    @return: the exit status: 1 when a promise was broken.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.input is not None and len(options.target or ()) != 1:
        parser.error("--input needs exactly one --target")
    if options.list:
        print("\n".join(NAMES))
        return 0
    if options.input is not None:
        return _try_again(options.target[0], options.input, options.findings)
    engine = options.engine
    if engine == "auto":
        engine = "atheris" if has_atheris() else "random"
    jobs = [
        Job(
            name, engine, options.runs, options.seed, options.seconds, options.input_seconds, options.findings
        )
        for name in options.target or NAMES
    ]
    if options.worker is not None:
        return work(jobs[0], options.worker)
    if options.total_seconds:
        jobs = share(jobs, options.total_seconds, options.jobs)
    failed = False
    for report in run_jobs(jobs, options.jobs):
        print(report, flush=True)
        if report.problem:
            failed = True
            print(f"{report.output}\nthe input: {report.outcome.finding or 'none kept'}", flush=True)
    return 1 if failed else 0


def _try_again(name: str, path: Path, findings: Path) -> int:
    """Try one input that is in a file; if it fails, keep a smaller one that fails in the same way."""
    target, data = load(name), path.read_bytes()
    smaller = shrink(target.fuzz_one, data)
    if smaller != data:
        print(f"the same with {len(smaller)} octets: {save(findings, name, smaller)}")
    print(repr(smaller), flush=True)
    target.fuzz_one(smaller)
    print("nothing is wrong with it")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m tests.fuzz", description="Fuzz what strangers can reach.")
    parser.add_argument("--target", action="append", choices=NAMES, help="which; all unless told")
    parser.add_argument("--runs", type=int, default=1_000_000, help="inputs for each target")
    parser.add_argument("--engine", choices=("auto", "atheris", "random"), default="auto")
    parser.add_argument("--seed", type=int, default=1, help="decides every input of the random engine")
    parser.add_argument("--seconds", type=float, default=0.0, help="at most so long for each target")
    parser.add_argument("--total-seconds", type=float, default=0.0, help="share so long among the targets")
    parser.add_argument("--input-seconds", type=int, default=10, help="how long one input may take")
    parser.add_argument("--jobs", type=int, default=1, help="how many targets at once")
    parser.add_argument("--findings", type=Path, default=FINDINGS, help="where failing inputs are kept")
    parser.add_argument("--input", type=Path, help="try the input in this file again, and make it smaller")
    parser.add_argument("--list", action="store_true", help="list the targets")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
