"""Sign-ins as people and administrators meet them: policies, missing verifiers, guesses, through a router."""

from __future__ import annotations

from pathlib import Path

from tests.farm.test_demo import FarmTestCase
from tests.support.processes import BIN, Ran, run, wait_for


class SignInTests(FarmTestCase):
    """What the administrator sets counts at the home within seconds."""

    def rvpfarm(self, *words: str, stdin: str = "") -> str:
        """Run the administrator's command on the farm's directory."""
        ran = run(
            BIN / "rvpfarm",
            *words,
            stdin=stdin,
            RVPFARM_DIRECTORY=f"sqlite:///{self.farm.state / 'directory.sqlite'}",
            RVPFARM_KEY_FILE=str(self.farm.state / "farm.key"),
        )
        self.assertEqual(ran.status, 0, ran.err)
        return ran.out

    def enable(self, name: str, *options: str) -> None:
        """A new user of home1."""
        self.rvpfarm(
            *("user", "enable", f"{name}@farm.localhost", "--home", "home1", *options),
            stdin=f"{self.farm.password}\n",
        )

    def entries(self, user: str, *options: str) -> Ran:
        """Have C{user} read the access list of the own node, through the first router."""
        return self.curl("ACL", user, user=user, options=options)

    def logged(self, text: str) -> int:
        """How many lines of the homes' logs have C{text} in them."""
        lines = [line for path in self.logs() for line in path.read_text().splitlines()]
        return sum(text in line for line in lines)

    def logs(self) -> list[Path]:
        """The log files of the farm."""
        return sorted(self.farm.state.rglob("*.log*"))

    def failures(self, cause: str) -> float:
        """How many sign-ins failed of C{cause} at home1."""
        page = run("curl", "-s", f"http://{self.farm.metrics[2]}/metrics").out
        lines = [line for line in page.splitlines() if f'cause="{cause}"' in line]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def test_policy(self) -> None:
        """Forbidding shuts Digest at once; allowing again takes a new password, as C{user show} says."""
        self.enable("erin", "--password-stdin")
        self.assertEqual(self.status(self.entries("erin")), 200)
        self.rvpfarm("user", "policy", "erin", "digest-verifiers", "forbidden")
        wait_for("Digest being shut", lambda: self.status(self.entries("erin")) == 401)
        self.assertGreaterEqual(self.failures("no-verifier"), 1)
        self.assertEqual(self.logged("erin@farm.localhost cannot sign in by digest"), 1)
        self.assertEqual(self.logged(self.farm.password), 0)
        self.rvpfarm("user", "policy", "erin", "digest-verifiers", "default")
        self.assertIn("rvpfarm user passwd erin@farm.localhost", self.rvpfarm("user", "show", "erin"))
        self.assertIn("erin@farm.localhost", self.rvpfarm("user", "list", "--missing-verifiers"))
        self.rvpfarm("user", "passwd", "erin", "--password-stdin", stdin=f"{self.farm.password}\n")
        wait_for("the new password", lambda: self.status(self.entries("erin")) == 200)
        self.assertNotIn("erin", self.rvpfarm("user", "list", "--missing-verifiers"))

    def test_guesses(self) -> None:
        """Who guesses from one address is held back there; the owner gets in from his own."""
        self.enable("frank", "--password-stdin")
        at_home, elsewhere = ("--interface", "127.0.0.5"), ("--interface", "127.0.0.6")
        wait_for("frank", lambda: self.status(self.entries("frank", *at_home)) == 200)
        wrong = ("--digest", "--user", "frank:guess", *elsewhere)
        for _ in range(11):
            self.assertEqual(self.status(self.curl("ACL", "frank", options=wrong)), 401)
        self.assertEqual(self.status(self.entries("frank", *elsewhere)), 401)
        self.assertEqual(self.status(self.entries("frank", *at_home)), 200)
        self.assertGreaterEqual(self.failures("throttled"), 1)
        self.assertEqual(self.logged("sign-ins of frank@farm.localhost from 127.0.0.6 are held back"), 1)
