"""A few hundred inputs for every target, and what the drivers of the long runs promise."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.fuzz import target_gate, target_ntlm
from tests.fuzz.__main__ import main
from tests.fuzz.cuts import pieces
from tests.fuzz.driver import BLOCKS, GROWTH, Report, share
from tests.fuzz.findings import FINDINGS, save, shrink
from tests.fuzz.gauge import Gauge, Outcome, read_outcome, resident
from tests.fuzz.mutation import Mutator
from tests.fuzz.registry import NAMES, Target, load
from tests.fuzz.trees import damage_tree
from tests.fuzz.worker import Hang, Job, run_random, within
from tests.support import printed
from tests.support.processes import scratch

#: Inputs of our own engine, and of hypothesis, for every target.
INPUTS, EXAMPLES = 400, 50


def target_of(fuzz_one: object, *seeds: bytes) -> Target:
    """A target that is none of the registry's."""
    assert callable(fuzz_one)
    return Target("made-up", fuzz_one, seeds, (b"x",), 64, ())


def job_in(findings: Path, *, runs: int = 500, input_seconds: int = 10) -> Job:
    """A job of the random engine."""
    return Job("made-up", "random", runs, 1, 0.0, input_seconds, findings)


class TargetTests(SynchronousTestCase):
    """What every target promises holds for its seeds, for damaged ones, and for what hypothesis thinks of."""

    def test_seeds(self) -> None:
        """Valid inputs, and famous invalid ones, break no promise; every target has some."""
        for name in NAMES:
            target = load(name)
            self.assertGreater(len(target.seeds), 5, name)
            self.assertGreater(len(target.tokens), 10, name)
            for seed in (b"", *target.seeds):
                target.fuzz_one(seed)

    def test_damaged(self) -> None:
        """Nor do a few hundred damaged ones."""
        for name in NAMES:
            target = load(name)
            mutator = Mutator(target, 77)
            for _ in range(INPUTS):
                target.fuzz_one(mutator.make())

    def test_imagined(self) -> None:
        """Nor does what hypothesis makes of seeds, tokens and octets; it makes a small one of what does."""
        for name in NAMES:
            target = load(name)
            some = st.one_of(st.sampled_from(target.tokens), st.binary(max_size=8))
            joined = st.lists(some, max_size=12).map(b"".join)
            edits = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 30), some), max_size=4)

            inputs = st.one_of(joined, st.builds(edited, st.sampled_from(target.seeds), edits))
            settings(max_examples=EXAMPLES, deadline=None, database=None)(given(inputs)(target.fuzz_one))()

    def test_gate(self) -> None:
        """The right answer opens the gate of its target, and it stays open; or that target would prove nothing."""
        talk = target_gate.Talk()
        parts = (target_gate.NTLM + target_ntlm.seeds()[0], target_gate.RIGHT, target_gate.NOTHING)
        self.assertEqual([talk.go_on(part) for part in parts], [False, True, True])

    def test_unknown(self) -> None:
        """There is no target that is not in the list."""
        self.assertRaises(KeyError, load, "registry")


def edited(data: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    """C{data} with some pieces replaced: where, how long, and by what."""
    for at, length, new in edits:
        data = data[:at] + new + data[at + length :]
    return data


class EngineTests(SynchronousTestCase):
    """The engine of our own finds what atheris would, a little later."""

    def setUp(self) -> None:
        """A place for findings."""
        place = scratch()
        self.place = place.__enter__()
        self.addCleanup(place.__exit__, None, None, None)
        self.status = self.place / "status"

    def run_target(self, target: Target, job: Job) -> Outcome:
        """What is left of a run in this process, which says nothing meanwhile."""
        with redirect_stderr(io.StringIO()):
            well = run_random(job, target, Gauge(self.status, job.runs, job.seconds))
        outcome = read_outcome(self.status)
        self.assertEqual(well, outcome.finished)
        return outcome

    def test_all_went_well(self) -> None:
        """As many inputs are tried as were asked for, the seeds first."""
        seen: list[bytes] = []
        outcome = self.run_target(target_of(seen.append, b"one", b"two"), job_in(self.place))
        self.assertEqual((outcome.runs, len(seen), seen[:2]), (500, 500, [b"one", b"two"]))
        self.assertEqual((outcome.trouble, outcome.finding), ("", ""))

    def test_the_same_again(self) -> None:
        """The same seed makes the same inputs; another makes others; none is too long."""
        target = load("notifications")
        one, two, other = (Mutator(target, seed) for seed in (5, 5, 6))
        made = [one.make() for _ in range(200)]
        self.assertEqual(made, [two.make() for _ in range(200)])
        self.assertNotEqual(made, [other.make() for _ in range(200)])
        self.assertLessEqual(max(map(len, made)), target.longest)

    def test_broken_promise(self) -> None:
        """The input that fails is kept, the failure is told, and nothing is tried after it."""

        def fails(data: bytes) -> None:
            assert b"xx" not in data, "two of them"

        outcome = self.run_target(target_of(fails, b"abc"), job_in(self.place, runs=100000))
        self.assertTrue(outcome.trouble.startswith("AssertionError: two of them"), outcome.trouble)
        self.assertIn(b"xx", Path(outcome.finding).read_bytes())

    def test_hang(self) -> None:
        """An input that never ends is stopped, and kept like any other."""

        def hangs(data: bytes) -> None:
            while data == b"for ever":
                pass

        self.assertRaises(Hang, within(0.01, hangs), b"for ever")
        within(10, hangs)(b"abc")
        outcome = self.run_target(target_of(within(0.01, hangs), b"for ever"), job_in(self.place))
        self.assertTrue(outcome.trouble.startswith("Hang"), outcome.trouble)
        self.assertEqual(Path(outcome.finding).read_bytes(), b"for ever")

    def test_leak(self) -> None:
        """What is left behind by every input is seen at the end."""
        kept: list[object] = []
        job = job_in(self.place, runs=3000)
        outcome = self.run_target(target_of(lambda data: kept.append([data]), b"abc"), job)
        self.assertGreater(outcome.blocks, 2000)
        kept.clear()
        outcome = self.run_target(target_of(lambda data: None, b"abc"), job)
        self.assertLess(outcome.blocks, 2000)

    def test_smaller(self) -> None:
        """A finding is made as small as it can be, and stays the same finding."""

        def fails(data: bytes) -> None:
            assert not (b"<" in data and b">" in data[data.index(b"<") :])

        self.assertEqual(shrink(fails, b"abc<def" * 9 + b">ghi"), b"<>")
        self.assertEqual(shrink(fails, b"fine"), b"fine")

    def test_trees(self) -> None:
        """Damage to a tree makes many others, and never fails, whatever it is given."""
        random = Random(3)
        made = {damage_tree(printed.MESSAGE, random) for _ in range(300)}
        self.assertGreater(len(made), 100)
        for data in (b"", b"text", b"<a", b"<a></b>", b"<a/>", b"<![CDATA[<a>]]>", b"</a><a>"):
            for _ in range(20):
                damage_tree(data, random)

    @settings(max_examples=50, deadline=None, database=None)
    @given(st.binary(max_size=700))
    def test_cuts(self, data: bytes) -> None:
        """The pieces of a stream are the stream, the same ones every time."""
        self.assertEqual(b"".join(pieces(data)), data)
        self.assertEqual(pieces(data), pieces(data))


class DriverTests(SynchronousTestCase):
    """The command runs workers, and says in one line for each what came of it."""

    def outcome(self, **changes: object) -> str:
        """What is said to be wrong with an outcome."""
        values = {"runs": 10, "seconds": 2.0, "warm": 1, "peak": 1, "finished": True, **changes}
        return Report(job_in(FINDINGS), Outcome(**values), "").problem  # type: ignore[arg-type]

    def test_problems(self) -> None:
        """Failures, silence, growth and leaks are problems; nothing else is."""
        self.assertEqual(self.outcome(), "")
        self.assertEqual(self.outcome(trouble="Hang: x", finished=False), "Hang: x")
        self.assertIn("without a word", self.outcome(finished=False))
        self.assertIn("memory", self.outcome(peak=GROWTH["random"] + 2))
        self.assertIn("objects", self.outcome(blocks=BLOCKS + 1))

    def test_worker(self) -> None:
        """A worker runs in a process of its own, and its outcome is told."""
        said = io.StringIO()
        with scratch() as place, redirect_stdout(said):
            status = main(
                [
                    *("--target", "headers", "--target", "mime", "--engine", "random", "--runs", "500"),
                    *("--findings", str(place), "--jobs", "2"),
                ]
            )
        lines = said.getvalue().splitlines()
        self.assertEqual((status, [line.split()[0] for line in lines]), (0, ["headers", "mime"]))
        for line in lines:
            self.assertIn("500 inputs", line)
            self.assertTrue(line.endswith(": ok"), line)

    def test_shared_time(self) -> None:
        """A time for all is divided among them."""
        shared = share([job_in(FINDINGS)] * 10, 20.0, 2)
        self.assertEqual([job.seconds for job in shared], [4.0] * 10)

    def test_again(self) -> None:
        """An input in a file is tried again; one that fails fails here too, but smaller."""
        with scratch() as place, redirect_stdout(io.StringIO()) as said:
            path = save(place, "xml", printed.ACL)
            self.assertEqual(main(["--target", "xml", "--input", str(path), "--findings", str(place)]), 0)
            self.assertIn("nothing is wrong", said.getvalue())

    def test_list(self) -> None:
        """All targets are listed, and every module that looks like one is."""
        with redirect_stdout(io.StringIO()) as said:
            self.assertEqual(main(["--list"]), 0)
        self.assertEqual(tuple(said.getvalue().split()), NAMES)
        modules = {path.stem for path in Path(__file__).parent.glob("target_*.py")}
        self.assertEqual(modules, {f"target_{name}" for name in NAMES})

    def test_memory(self) -> None:
        """The memory of a process can be told here."""
        self.assertGreater(resident(), 1 << 20)
