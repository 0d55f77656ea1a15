"""A whole farm under load loses a router, a home, its directory, a link and a disk, and is restarted in turn."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from unittest import TestCase

import pytest

from tests.farm.faultfarm import HOMES, KILL, ROUTERS, TERM, FaultFarm, Town, fill
from tests.support.processes import wait_for

#: Good answers that are waited for before and after each fault.
ANSWERS = int(os.environ.get("RVPFARM_FAULTS_ANSWERS", "150"))
#: What may come of a call while something is broken; anything else is a wrong answer.
ALLOWED = frozenset({"200", "207", "412", "503", "504", "no router"})


@pytest.mark.farm
@pytest.mark.slow
class FaultTests(TestCase):
    """Whatever breaks: no wrong answer, and nothing lost that was acknowledged."""

    def setUp(self) -> None:
        """Three routers, three homes, six people who call without a pause."""
        self.farm = FaultFarm()
        self.addCleanup(self.farm.close)
        self.town = Town(self.farm)
        self.addCleanup(self.town.close)
        self.table: list[tuple[str, int, dict[str, int]]] = []
        self.town.await_more(ANSWERS)

    def during(self, what: str, fault: Callable[[], None], *, broken: bool) -> Counter[str]:
        """Have something happen under load.

        @param broken: connections of those who were being served may break over it.
        @return: the calls that were not answered 2xx, by outcome.
        """
        before = self.town.outcomes()
        fault()
        self.town.await_more(ANSWERS)
        now = self.town.outcomes()
        now.subtract(before)
        failed = Counter[str]()
        for (_, outcome), count in now.items():
            if count and outcome[:1] != "2":
                failed[outcome] += count
        self.table.append((what, now.total(), dict(failed)))
        wrong = {outcome for outcome in failed if outcome[0].islower() or outcome.isdigit()} - ALLOWED
        self.assertEqual(wrong, set(), (what, failed))
        if not broken:
            self.assertEqual({outcome for outcome in failed if not outcome.isdigit()}, set(), (what, failed))
        self.assertEqual(self.town.subscriptions_lost(), [], what)
        return failed

    def test_everything(self) -> None:
        """One fault after the other; the table of what came of each is printed."""
        during = self.during
        self.assertEqual(during("nothing", lambda: None, broken=False), {})
        during("kill -9 of a router", lambda: self.replace(ROUTERS[0], KILL), broken=True)
        during("kill -9 of a home", lambda: self.replace(HOMES[0], KILL), broken=False)
        self.assertEqual(during("the directory is away", self.lose_directory, broken=False), {})
        if self.farm.net.apart:
            during("the link of a home is cut", lambda: self.cut(HOMES[1]), broken=False)
        if self.farm.small:
            during("the disk of a home is full", self.fill_disk, broken=False)
        for name in (*ROUTERS, *HOMES):
            what = f"planned restart of {name}"
            failed = during(what, lambda name=name: self.replace(name, TERM), broken=False)
            self.assertEqual(failed, {}, (what, self.town.refused()))
        self.town.close()
        self.show()
        self.assertEqual(self.town.messages_lost(), [])
        self.assertEqual(self.town.states_lost(), {})

    def replace(self, name: str, how: int) -> None:
        """End a member and start it anew."""
        self.farm.end(name, how)
        self.farm.start(name)
        self.farm.await_ready(name)

    def lose_directory(self) -> None:
        """The file is moved away, and comes back."""
        away = Path(f"{self.farm.directory}.away")
        self.farm.directory.rename(away)
        self.town.await_more(ANSWERS)
        wait_for("503 for somebody unknown", lambda: self.town.statuses_of("nobody") == {503})
        away.rename(self.farm.directory)
        wait_for("404 for somebody unknown", lambda: self.town.statuses_of("nobody") == {404})

    def cut(self, name: str) -> None:
        """Nothing gets through to a home until its users are told so, and then all does."""
        self.farm.net.cut(name)
        try:
            user = f"u{HOMES.index(name)}"
            wait_for("an orderly failure", lambda: self.town.statuses_of(user) <= {503, 504})
        finally:
            self.farm.net.mend(name)
        wait_for("the home's return", lambda: self.town.statuses_of(user) == {207})

    def fill_disk(self) -> None:
        """A home that cannot write says so to who needs that, and serves all others."""
        filler = fill(self.farm.state / self.farm.small)
        other = f"u{HOMES.index(self.farm.small)}"
        wait_for("503 for what must be kept", lambda: self.town.subscribe_anew("u0", other) == 503)
        self.town.await_more(ANSWERS)
        filler.unlink()
        wait_for("room", lambda: self.town.subscribe_anew("u0", other) // 100 == 2)

    def show(self) -> None:
        """Print the table, and keep it where C{RVPFARM_FAULTS_TABLE} says."""
        lines = [f"| {'fault':<28} | calls | not answered 2xx |", "| --- | --- | --- |"]
        for what, calls, failed in self.table:
            kinds = ", ".join(f"{outcome}: {count}" for outcome, count in sorted(failed.items())) or "none"
            lines.append(f"| {what:<28} | {calls:5} | {kinds} |")
        text = "\n".join(lines)
        print(text)
        if where := os.environ.get("RVPFARM_FAULTS_TABLE"):
            Path(where).write_text(text + "\n", "utf-8")
