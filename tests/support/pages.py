"""Pages of C{docs/} as sessions that a test plays: the commands of their fenced blocks, in order, in one folder."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import BIN, processes, run, wait_for

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


@dataclass(frozen=True, slots=True)
class Step:
    """Some commands, and what the page says of them in C{#>} lines right below.

    @ivar status: the exit status of the last one.
    @ivar phrases: each is a part of what they print.
    """

    commands: str
    status: int
    phrases: tuple[str, ...]


def blocks(page: Path, *languages: str) -> list[tuple[str, str]]:
    """The fenced blocks in these languages, in order: the language and the text of each."""
    pattern = rf"^```({'|'.join(languages)})\n(.*?)^```$"
    return re.findall(pattern, page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def steps(text: str) -> list[Step]:
    """The steps of a block; C{#> exit status N} tells a status that is not 0."""
    found = []
    for part in re.findall(r"((?:(?!#>).*\n)+)((?:#>.*\n)*)", text):
        phrases = [line.removeprefix("#>").strip() for line in part[1].splitlines()]
        statuses = [int(line.split()[-1]) for line in phrases if line.startswith("exit status ")]
        said = tuple(line for line in phrases if not line.startswith("exit status "))
        found.append(Step(part[0], *(statuses or [0]), said))
    return found


class Player:
    """Plays commands with bash in one folder, with an SQLite directory there.

    @ivar environment: of the commands.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._bash = shutil.which("bash") or "bash"
        self.environment = {
            "PATH": f"{BIN}:{os.environ['PATH']}:/usr/sbin",
            "RVPFARM_DIRECTORY": f"sqlite:///{folder / 'directory.sqlite'}",
        }

    def play(self, step: Step, places: Mapping[str, str] | None = None) -> None:
        """Run the commands of a step, and compare what they do with what the page says.

        @param places: what stands for what in commands and phrases, such as a port for one that is free here.
        @raise AssertionError: it is another exit status, or a phrase is not printed.
        """
        out = self._folder / "out"
        # output into files: a daemon that a command starts would hold a pipe open
        done = run(
            self._bash,
            "-euc",
            f"cd '{self._folder}'\nexec >out 2>&1\nset -o pipefail\n{_put(step.commands, places)}",
            **self.environment,
        )
        printed = out.read_text("utf-8")
        told = f"{step.commands}\n{printed}"
        if done.status != step.status:
            raise AssertionError(f"exit status {done.status} and not {step.status}: {told}")
        for phrase in step.phrases:
            if _put(phrase, places) not in printed:
                raise AssertionError(f"not printed: {phrase}\n{told}")

    def end(self) -> None:
        """See every process end that has a pid file in the folder, whether or not the page came to that."""
        for pid_file in self._folder.glob("*.pid"):
            with suppress(FileNotFoundError, ProcessLookupError):
                pid = int(pid_file.read_text())
                os.kill(pid, signal.SIGTERM)
                wait_for("the end of a process", lambda pid=pid: not _runs(pid))


def _runs(pid: int) -> bool:
    """Is that a process, and not only one whose end nobody has asked for?"""
    return any(found == pid and line for found, _parent, line in processes())


def _put(text: str, places: Mapping[str, str] | None) -> str:
    """C{text} with everything that stands for something else replaced, in one pass."""
    if not places:
        return text
    return re.sub("|".join(map(re.escape, places)), lambda found: places[found[0]], text)
