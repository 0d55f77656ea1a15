"""What is measured: rows of contenders that do the same work in turn, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from shutil import rmtree
from statistics import median
from tempfile import mkdtemp

from tests.bench.peers import Missing
from tests.bench.serving import Servers

#: How long each works, uncounted, before the first round.
WARM_SECONDS = 2.0
#: What is ours is called so in every row.
OURS = "rvpfarm"


@dataclass(frozen=True)
class Sample:
    """What one contender did in one round.

    @ivar ops: operations that ended well.
    @ivar cpu_seconds: what its serving processes used meanwhile.
    @ivar failures: operations that did not end well.
    @ivar late: operations that were left out since the one before was still under way.
    """

    ops: int
    seconds: float
    cpu_seconds: float
    p50_us: float
    p99_us: float
    failures: int = 0
    late: int = 0

    @property
    def rate(self) -> float:
        """Operations per second."""
        return self.ops / self.seconds

    @property
    def cpu_per_thousand(self) -> float:
        """Milliseconds of CPU for a thousand operations, which is microseconds for one."""
        return self.cpu_seconds / self.ops * 1e6


@dataclass(frozen=True)
class Spread:
    """The middle of some figures, and how far they lie apart."""

    median: float
    low: float
    high: float


def spread(figures: Sequence[float]) -> Spread:
    """The median, the least and the most of C{figures}."""
    return Spread(median(figures), min(figures), max(figures))


@dataclass(frozen=True)
class Target:
    """How much better than a peer a row is to be.

    @ivar must: the least ratio of CPU for an operation, theirs by ours.
    @ivar aim: the one that is hoped for, if it differs.
    """

    must: float | None = None
    aim: float | None = None


@dataclass(frozen=True)
class Contender:
    """One who does the work of a row.

    @ivar run: do it for so many seconds.
    """

    name: str
    run: Callable[[float], Sample]


@dataclass
class Lineup:
    """Who takes part in a row.

    @ivar absent: what each who cannot take part lacks, by name.
    """

    contenders: list[Contender] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, make: Callable[[], Callable[[float], Sample]]) -> None:
        """Have C{name} take part, or note what it lacks."""
        try:
            self.contenders.append(Contender(name, make()))
        except Missing as missing:
            self.absent[name] = str(missing)


@dataclass(frozen=True)
class Scale:
    """How large everything is.

    @ivar users: whom requests at the edge are spread over.
    @ivar connections: of row 1 and its like; C{many} of row 2.
    @ivar senders: who send messages.
    @ivar owners: who change state, C{changes} times a second in all, each watched by C{watchers}.
    @ivar messages: that are sent per second where latency is compared.
    @ivar turns: how often each works, warming up included.
    """

    users: int = 2000
    connections: int = 64
    many: int = 1000
    senders: int = 64
    owners: int = 12
    watchers: int = 200
    changes: float = 10.0
    messages: float = 250.0
    turns: int = 4


#: A setting at which everything is over soon and no figure means anything.
TINY = Scale(users=20, connections=4, many=16, senders=4, owners=3, watchers=5, changes=2.0, messages=50.0)


@dataclass(frozen=True)
class Row:
    """One comparison.

    @ivar unit: what one operation is.
    @ivar line_up: starts whoever takes part; all end with the stack.
    @ivar targets: by the name of the contender.
    @ivar added: the latency beyond this contender's is told, rather than a ratio of CPU.
    """

    number: int
    title: str
    unit: str
    line_up: Callable[[Servers, Scale, ExitStack], Lineup]
    targets: dict[str, Target]
    added: str = ""


@dataclass
class Outcome:
    """What came of a row.

    @ivar samples: by the name of the contender, one for each round.
    @ivar problem: why it was given up, if it was; C{broken} if not for a package that is not installed.
    """

    row: Row
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    problem: str = ""
    broken: bool = False

    def ratios(self, name: str) -> Spread | None:
        """How much less CPU than C{name} we used for an operation: by rounds, in which both saw the same
        machine.

        @return: C{None} if one of the two did not take part.
        """
        pairs = zip(self.samples.get(OURS, []), self.samples.get(name, []), strict=False)
        # so short a round that the clock of /proc, which counts in hundredths, saw none of it, says nothing
        found = [
            theirs.cpu_per_thousand / ours.cpu_per_thousand
            for ours, theirs in pairs
            if ours.cpu_seconds and theirs.cpu_seconds
        ]
        return spread(found) if found else None

    def added_us(self) -> Spread | None:
        """The median latency beyond that of the contender that is compared with, by rounds."""
        pairs = list(zip(self.samples.get(OURS, []), self.samples.get(self.row.added, []), strict=False))
        return spread([ours.p50_us - theirs.p50_us for ours, theirs in pairs]) if pairs else None

    @property
    def failures(self) -> int:
        """Operations that did not end well, of all contenders together."""
        return sum(sample.failures for samples in self.samples.values() for sample in samples)


def rounds_of(lineup: Lineup, rounds: int, seconds: float) -> Iterator[tuple[str, Sample]]:
    """Let all work in turn, again and again, so that what the machine does besides meets all alike."""
    for _ in range(rounds):
        for contender in lineup.contenders:
            yield contender.name, contender.run(seconds)


def measure(
    row: Row,
    scale: Scale,
    *,
    rounds: int,
    seconds: float,
    said: Callable[[str], None],
) -> Outcome:
    """Start the servers of a row, measure, and end them.

    @param said: told what is going on.
    """
    outcome = Outcome(row)
    with ExitStack() as stack:
        folder = stack.enter_context(_folder())
        servers = Servers(stack, folder)
        said(f"{row.number}. {row.title}: starting")
        try:
            lineup = row.line_up(servers, replace(scale, turns=rounds + 1), stack)
            outcome.absent = lineup.absent
            outcome.samples = {contender.name: [] for contender in lineup.contenders}
            for contender in lineup.contenders:
                # on a busy machine a thousand connections may take all of it; if more is wrong, round 1 says so
                with suppress(RuntimeError):
                    contender.run(min(WARM_SECONDS, seconds))
            for name, sample in rounds_of(lineup, rounds, seconds):
                outcome.samples[name].append(sample)
                said(
                    f"{row.number}. {name}: {sample.rate:.0f} {row.unit}s/s, "
                    f"{sample.cpu_per_thousand:.1f} us of CPU for one"
                )
        except Missing as missing:
            outcome.problem = str(missing)
        except (RuntimeError, OSError) as problem:
            outcome.problem, outcome.broken = f"given up: {problem}", True
    return outcome


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder that servers under other users may enter, gone afterwards."""
    path = Path(mkdtemp(prefix="rvpfarm-bench-"))
    try:
        path.chmod(0o711)
        yield path
    finally:
        rmtree(path, ignore_errors=True)
