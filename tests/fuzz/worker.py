"""One target in a process of its own, driven by one of the two engines until it fails or is through."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from types import FrameType

from tests.fuzz.findings import save
from tests.fuzz.gauge import Gauge
from tests.fuzz.mutation import Mutator
from tests.fuzz.registry import Target, load

#: How many seconds of processor time one input may take, several readings and all the checks included.
SLOW = 0.2


class Hang(BaseException):
    """An input takes too long.  No C{Exception}, which a target might take for a refusal."""


@dataclass(frozen=True, slots=True)
class Job:
    """What one worker is to do.

    @ivar engine: C{"atheris"} or C{"random"}.
    @ivar seconds: for how long at most; 0 for no limit.
    @ivar input_seconds: how long one input may take.
    @ivar findings: where a failing input is kept.
    """

    target: str
    engine: str
    runs: int
    seed: int
    seconds: float
    input_seconds: int
    findings: Path


def within(seconds: float, fuzz_one: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """C{fuzz_one}, which now raises L{Hang} when it takes longer than this."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise Hang(f"longer than {seconds} s")

    def bounded(data: bytes) -> None:
        before = signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            fuzz_one(data)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    return bounded


def attempt(target: Target, data: bytes, gauge: Gauge, findings: Path) -> bool:
    """Try one input; whether it went well.  If it did not, it is kept and told."""
    before = time.process_time()
    try:
        target.fuzz_one(data)
        took = time.process_time() - before
        gauge.outcome.slowest = max(gauge.outcome.slowest, took)
        if took > SLOW:
            raise Hang(f"{took:.2f} s, more than {SLOW}")
    except (Exception, Hang) as wrong:
        traceback.print_exc()
        gauge.stop(f"{type(wrong).__name__}: {wrong}"[:500], save(findings, target.name, data))
        return False
    return True


def run_random(job: Job, target: Target, gauge: Gauge) -> bool:
    """Drive the target with our own engine; whether all went well."""
    target = replace(target, fuzz_one=within(job.input_seconds, target.fuzz_one))
    mutator = Mutator(target, job.seed)
    waiting = list(reversed(target.seeds))
    gauge.start()
    while True:
        if not attempt(target, waiting.pop() if waiting else mutator.make(), gauge, job.findings):
            return False
        if gauge.enough():
            gauge.finish()
            return True


def run_atheris(job: Job, gauge: Gauge, scratch: Path) -> None:
    """Drive the target with atheris, in this process, which ends with it."""
    import atheris  # type: ignore[import-untyped]  # it has no types

    with atheris.instrument_imports(include=["rvpfarm"]):
        target = load(job.target)
    corpus = scratch / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number:04}").write_bytes(seed)
    dictionary = scratch / "tokens"
    dictionary.write_text("".join(f'"{_quoted(token)}"\n' for token in target.tokens if token))
    job.findings.mkdir(parents=True, exist_ok=True)

    def test_one(data: bytes) -> None:
        if not attempt(target, data, gauge, job.findings):
            _leave(1)
        if gauge.enough():
            gauge.finish()
            _leave(0)

    def mutate(data: bytes, longest: int, seed: int) -> bytes:
        random = Random(seed)
        if target.steps and random.random() < 0.5:
            return random.choice(target.steps)(data, random)[:longest]
        return bytes(atheris.Mutate(data, longest))

    options = (
        f"-seed={job.seed + 1}",  # 0 would mean any
        f"-max_len={target.longest}",
        f"-timeout={job.input_seconds}",
        f"-artifact_prefix={job.findings}/{target.name}-",
        f"-dict={dictionary}",
        "-rss_limit_mb=2048",
        "-reload=0",
        str(corpus),
    )
    gauge.start()
    atheris.Setup([sys.argv[0], *options], test_one, custom_mutator=mutate if target.steps else None)
    atheris.Fuzz()


def work(job: Job, status: Path) -> int:
    """Do C{job}, keeping the L{Outcome<tests.fuzz.gauge.Outcome>} in C{status}; the exit status."""
    gauge = Gauge(status, job.runs, job.seconds)
    if job.engine == "atheris":
        run_atheris(job, gauge, status.parent)
        return 1  # it does not return
    return 0 if run_random(job, load(job.target), gauge) else 1


def _leave(status: int) -> None:
    """End at once: libFuzzer has an end of its own, which knows nothing of ours."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _quoted(token: bytes) -> str:
    """C{token} as dictionaries of libFuzzer have it."""
    plain = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 -_.:;/<>=!?()[]{}+*,@#%&'"
    return "".join(chr(octet) if octet in plain else f"\\x{octet:02X}" for octet in token)
