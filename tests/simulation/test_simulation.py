"""The simulated farm keeps its promises, a failing seed replays exactly, and a farm that breaks a promise is found out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.home.records import Change
from tests.simulation.schedule import Plan, Step, draw
from tests.simulation.world import World, play

#: How many seeds are tried, from which one on; `make simulation` tries more.
RUNS = int(os.environ.get("RVPFARM_SIMULATION_RUNS", "24"))
FIRST = int(os.environ.get("RVPFARM_SIMULATION_FIRST", "0"))


class SimulationTests(SynchronousTestCase):
    """Whatever goes wrong, and whenever."""

    def test_promises(self) -> None:
        """No promise is broken in any run; a run that breaks one says how to have it again."""
        for seed in range(FIRST, FIRST + RUNS):
            with self.subTest(seed=seed):
                broken = play(draw(seed)).broken
                self.assertEqual(broken, (), f"python -m tests.simulation --seed {seed}")

    def test_replay(self) -> None:
        """A seed says everything: the second run is the first, octet by octet and moment by moment."""
        for seed in (3, 5):
            one, other = play(draw(seed)), play(draw(seed))
            self.assertEqual((one.digest, one.trace), (other.digest, other.trace))
            self.assertNotEqual(one.digest, play(draw(seed + 1)).digest)

    def test_everything_happens(self) -> None:
        """Runs are not empty: messages arrive, and are refused where they must be."""
        counts = play(draw(5)).counts
        self.assertTrue(counts["NOTIFY 200"] and counts["SUBSCRIBE 200"] + counts["SUBSCRIBE 207"], counts)


class BrokenFarmTests(SynchronousTestCase):
    """A farm with a fault of ours in it."""

    def plan(self, *steps: Step) -> Plan:
        """The farm and the people of a seed, and other things that happen."""
        return replace(draw(0), steps=steps, disk=1.0, distance=1.0)

    def broken(self, world: World) -> str:
        """What the oracle has to say of a run."""
        self.addCleanup(world.close)
        world.run()
        return "\n".join(world.oracle.broken)

    def test_quiet(self) -> None:
        """Nothing is found where nothing is wrong."""
        self.assertEqual(self.broken(World(self.plan(Step(30.0, "kill a home", (0.0, 0.0, 0.0), 2.0)))), "")

    def test_disk_that_forgets(self) -> None:
        """Subscriptions that were granted, and not kept, are missed when a home was killed."""
        world = World(self.plan(Step(30.0, "kill a home", (0.0, 0.0, 0.0), 2.0)))

        def forget(changes: Sequence[Change]) -> None:
            """Take everything, and keep nothing."""

        for home in world.homes.values():
            home.disk.commit = forget  # type: ignore[method-assign]
        self.assertIn("is gone", self.broken(world))

    def test_forged_sender(self) -> None:
        """A message that arrives with another sender than it was sent by is noticed."""
        world = World(self.plan())
        message = world.oracle.sending("petra", "tomasz", "DeepOr")
        world.oracle.heard_message("tomasz 1", "tomasz", message.number, "marta", "marta")
        self.assertIn("is from marta", "\n".join(world.oracle.broken))
        world.close()
