"""A farm that loses its directory: known people go on, nobody is told that he does not exist, and it heals."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

from tests.farm.test_demo import FarmTestCase
from tests.support.homes import leased
from tests.support.processes import BIN, DemoFarm, Ran, run, scratch, wait_for

USERS = ("alice", "bob", "carol")
#: Members that do not live through the outage, and where their metrics are.
KILLED = (("router1", 0), ("home2", 3))


class OutageTests(FarmTestCase):
    """The directory's file is taken away from two routers and two homes, and put back."""

    def setUp(self) -> None:
        """A farm of its own, where three people have been and a fourth has not; then two members restarted."""
        place = scratch()
        self.farm = DemoFarm(place.__enter__() / "demo")
        self.addCleanup(place.__exit__, None, None, None)
        self.farm.start()
        self.addCleanup(lambda: self.farm.running and self.farm.stop())
        self.doors = [*self.farm.routers, *(home.partition("/")[0] for home in self.farm.homes)]
        self.file = self.farm.state / "directory.sqlite"
        self.away = self.farm.state / "away.sqlite"
        self.listeners = {user: self.call_back() for user in USERS}
        self.enable("erin")
        for user, listener in self.listeners.items():
            for door in self.farm.routers:
                self.login(user, listener, at=door)
        for user in ("bob", "carol"):
            self.assertEqual(self.status(self.watch("alice", user)), 207)
        for sender in USERS:
            for recipient in USERS:
                self.assertEqual(self.status(self.send(sender, recipient, "before")), 200)
        # an orderly stop keeps a snapshot without delay
        for name, process in KILLED:
            self.restart(name, process, signal.SIGTERM)

    def rvpfarm(self, *words: str, stdin: str = "") -> Ran:
        """Run the administrator's command on the farm's directory."""
        return run(
            BIN / "rvpfarm",
            *words,
            stdin=stdin,
            RVPFARM_DIRECTORY=f"sqlite:///{self.file}",
            RVPFARM_KEY_FILE=str(self.farm.state / "farm.key"),
        )

    def enable(self, name: str) -> None:
        """A new user of home2."""
        words = ("user", "enable", f"{name}@farm.localhost", "--home", "home2", "--password-stdin")
        done = self.rvpfarm(*words, stdin=f"{self.farm.password}\n")
        self.assertEqual(done.status, 0, done.err)

    def up(self) -> list[float]:
        """For each process, whether it finds the directory up."""
        return [self.farm.metric(process, "rvp_directory_up") for process in range(4)]

    def sign_in(self, user: str, password: str, scheme: str = "--digest", at: str = "") -> Ran:
        """Read one's own access list."""
        return self.curl("ACL", user, at=at, options=(scheme, "-u", f"{user}:{password}"))

    def check_known(self, text: str) -> None:
        """Everybody who was known goes on as if nothing had happened, by every door."""
        password = self.farm.password
        for door in self.doors:
            self.assertEqual(self.status(self.send("alice", "bob", f"{text} by {door}", at=door)), 200)
            self.listeners["bob"].wait(containing=f"{text} by {door}")
            for scheme in ("--digest", "--ntlm"):
                self.assertEqual(self.status(self.sign_in("bob", password, scheme, door)), 200)
        self.assertEqual(self.status(self.sign_in("carol", "wrong")), 401)
        for state in ("busy", "on-phone"):
            self.assertEqual(self.status(self.curl("PROPPATCH", "alice", leased(state), user="alice")), 207)
            for user in ("bob", "carol"):
                self.listeners[user].wait(containing=f"<r:state><r:{state}/>")

    def check_unknown(self) -> None:
        """Nobody is told that somebody does not exist, or that his password is wrong."""
        for door in self.doors:
            for user in ("erin", "nobody"):
                for ran in (
                    self.curl("PROPFIND", user, at=door),
                    self.send("alice", user, "are you there?", at=door),
                    self.sign_in(user, self.farm.password, at=door),
                    self.curl("ACL", "bob", at=door, options=("--digest", "-u", f"{user}:x")),
                    self.curl("ACL", "bob", at=door, options=("--ntlm", "-u", f"{user}:x")),
                ):
                    self.assertEqual(self.status(ran), 503, ran.out)
                    self.assertRegex(ran.out, r"(?m)^Retry-After: \d+")

    def check_ready(self) -> None:
        """Every process says that it can be sent work."""
        for place in self.farm.metrics:
            self.assertEqual(run("curl", "-s", f"http://{place}/readyz").out, "ready\n")

    def restart(self, name: str, process: int, how: signal.Signals) -> None:
        """End one member, which is then started again, and wait until it is ready."""
        pid = self.farm.member(name)
        os.kill(pid, how)
        wait_for(f"{name}'s end", lambda: not Path(f"/proc/{pid}").exists())
        ready = f"http://{self.farm.metrics[process]}/readyz"
        wait_for(f"{name}'s return", lambda: run("curl", "-s", ready).out == "ready\n")

    def test_outage(self) -> None:
        """They go on, even killed and started again; and when it is back, so does everything else."""
        self.file.rename(self.away)
        wait_for("the outage", lambda: self.up() == [0, 0, 0, 0])
        self.check_ready()
        self.check_known("without a directory")
        self.check_unknown()
        for name, process in KILLED:
            self.restart(name, process, signal.SIGKILL)
            self.assertGreaterEqual(self.farm.metric(process, "rvp_snapshot_accounts"), len(USERS))
            self.assertGreater(self.farm.metric(process, "rvp_directory_staleness_seconds"), 1)
            self.check_known(f"after the end of {name}")
        self.check_unknown()
        self.assertFalse(self.file.exists())
        log = (self.farm.state / "log" / "home2.log").read_text()
        self.assertTrue(re.search(r"directory\.snapshot is \d+ \w+ old; accounts taken up from it: \d", log))

        self.away.rename(self.file)
        self.enable("frank")
        for user in ("frank", "erin"):
            for door in self.doors:
                found = lambda user=user, door=door: self.sign_in(user, self.farm.password, at=door)  # type: ignore[misc]  # noqa: E731
                wait_for(f"{user} at {door}", lambda found=found: self.status(found()) == 200)  # type: ignore[misc]
        self.assertEqual(self.up(), [1, 1, 1, 1])
        self.check_known("with a directory again")
        self.assertEqual(self.status(self.send("alice", "nobody", "are you there?")), 404)
