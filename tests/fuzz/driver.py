"""Runs targets in processes of their own, a few at a time, and reports what came of it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from tests.fuzz.gauge import Outcome, read_outcome
from tests.fuzz.worker import Job

#: How much more memory than when it was warm a process may come to use.  libFuzzer keeps every input that
#: found something new, and what it knows about it.
GROWTH = {"random": 24 << 20, "atheris": 192 << 20}

#: How many more objects than when it was warm there may be at the end: caches of C{re}, lazy imports.
BLOCKS = 20000

#: How long a worker may be silent beyond the time that one input has; starting up takes some seconds.
_SILENCE = 60.0

_MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class Report:
    """What came of one job."""

    job: Job
    outcome: Outcome
    output: str

    @property
    def problem(self) -> str:
        """What is wrong; empty when nothing is."""
        outcome = self.outcome
        if outcome.trouble or not outcome.finished:
            return outcome.trouble or "the worker ended without a word"
        if outcome.growth > GROWTH[self.job.engine]:
            return f"memory grew by {outcome.growth / _MEBIBYTE:.0f} MiB"
        if outcome.blocks > BLOCKS:
            return f"{outcome.blocks} objects were left behind"
        return ""

    def __str__(self) -> str:
        """One line for a person."""
        job, outcome = self.job, self.outcome
        rate = outcome.runs / outcome.seconds if outcome.seconds else 0.0
        return (
            f"{job.target:14} {job.engine:7} seed {job.seed}: {outcome.runs:9,} inputs in {outcome.seconds:7.1f} s,"
            f" {rate:7,.0f}/s, slowest {1000 * outcome.slowest:4.0f} ms, {outcome.warm / _MEBIBYTE:4.0f} MiB +{outcome.growth / _MEBIBYTE:.1f},"
            f" {outcome.blocks:+,} objects: {self.problem or 'ok'}"
        )


def has_atheris() -> bool:
    """Can atheris be imported here?"""
    return importlib.util.find_spec("atheris") is not None


def run_job(job: Job) -> Report:
    """Do one job in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="rvpfarm-fuzz-") as name:
        scratch = Path(name)
        status, log = scratch / "status", scratch / "log"
        before = _kept(job)
        with log.open("wb") as output:
            worker = subprocess.Popen(_command(job, status), stdout=output, stderr=subprocess.STDOUT)
            try:
                silent = _wait(worker, status, job.input_seconds + _SILENCE)
            finally:
                worker.kill()
                worker.wait()
        outcome = read_outcome(status)
        if silent:
            outcome.trouble = f"a hang after {outcome.runs} inputs"
        elif not outcome.finished and not outcome.trouble:
            outcome.trouble = f"the worker ended with {worker.returncode}"
        if outcome.trouble and not outcome.finding:
            outcome.finding = ", ".join(sorted(_kept(job) - before))
        lines = log.read_text("utf-8", "replace").splitlines()
        told = [line for line in lines if not line.startswith(("#", "INFO:"))]  # libFuzzer counts aloud
        return Report(job, outcome, "\n".join(told[-60:]))


def run_jobs(jobs: Iterable[Job], at_once: int) -> Iterator[Report]:
    """Do all of C{jobs}, so many at once; reports come in the order of the jobs."""
    with ThreadPoolExecutor(at_once) as pool:
        yield from pool.map(run_job, jobs)


def share(jobs: list[Job], seconds: float, at_once: int) -> list[Job]:
    """The same jobs, so that all of them together take about C{seconds}."""
    each = seconds * min(at_once, len(jobs)) / len(jobs)
    return [replace(job, seconds=each) for job in jobs]


def _command(job: Job, status: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "tests.fuzz", "--target", job.target, "--engine", job.engine),
        *("--runs", str(job.runs), "--seed", str(job.seed), "--seconds", str(job.seconds)),
        *("--input-seconds", str(job.input_seconds), "--findings", str(job.findings)),
        *("--worker", str(status)),
    ]


def _wait(worker: subprocess.Popen[bytes], status: Path, patience: float) -> bool:
    """Wait until the worker ends; whether it was silent for too long instead."""
    heard, last = time.monotonic(), 0.0
    while True:
        try:
            worker.wait(0.2)
        except subprocess.TimeoutExpired:
            changed = status.stat().st_mtime if status.exists() else 0.0
            if changed != last:
                heard, last = time.monotonic(), changed
            elif time.monotonic() - heard > patience:
                return True
        else:
            return False


def _kept(job: Job) -> set[str]:
    """The files with findings of this target."""
    return {str(path) for path in job.findings.glob(f"{job.target}-*")}
