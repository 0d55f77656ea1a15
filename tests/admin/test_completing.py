"""Tab completion: words of the command and names of the directory, soon or not at all."""

from __future__ import annotations

import shutil
from threading import Event

from click.shell_completion import BashComplete

from rvpfarm.admin.command import rvpfarm
from rvpfarm.admin.completing import NAMES_LIMIT, SHELLS, names_beginning
from tests.admin.test_command import CommandCase
from tests.support.processes import BIN, run


class CompletionTests(CommandCase):
    """What is offered after some words."""

    def offered(self, *words: str, directory: str | None = None) -> list[str]:
        """What the last of C{words} may become."""
        front = ["--directory", directory or self.url]
        found = BashComplete(rvpfarm, {}, "rvpfarm", "_RVPFARM_COMPLETE").get_completions(
            [*front, *words[:-1]], words[-1]
        )
        return [one.value for one in found]

    def test_words(self) -> None:
        """Nouns, verbs, options and choices."""
        self.assertEqual(self.offered("us"), ["user"])
        self.assertEqual(self.offered("user", "dis"), ["disable"])
        self.assertEqual(self.offered("user", "disable", "--dry"), ["--dry-run"])
        self.assertEqual(self.offered("network", "add", "in"), ["inside"])

    def test_names(self) -> None:
        """Names that the directory has, by what is meant; none where a new one is to be thought of."""
        self.make_farm()
        self.run_it("user", "enable", "petra@fabrik.example", "--no-password")
        self.run_it("admin", "add", "clerk", "--domain", "im.fabrik.example")
        self.assertEqual(self.offered("user", "show", "PET"), ["petra@fabrik.example"])
        self.assertEqual(self.offered("user", "list", "--home", ""), ["hs1", "hs2"])
        self.assertEqual(self.offered("home", "show", "hs2"), ["hs2"])
        self.assertEqual(self.offered("home", "create", "hs"), [])
        self.assertEqual(self.offered("router", "drain", ""), ["r1"])
        self.assertEqual(self.offered("status", ""), ["hs1", "hs2", "r1"])
        self.assertEqual(self.offered("domain", "alias", "add", "im"), ["im.fabrik.example"])
        self.assertEqual(self.offered("policy", "set", "address"), ["address-form"])
        self.assertEqual(self.offered("admin", "token", "create", ""), ["clerk"])

    def test_bounded(self) -> None:
        """Of many names only some are offered, and none of those who do not begin so."""
        many = [f"n{number}" for number in range(NAMES_LIMIT + 9)]
        self.run_it("init")
        found = names_beginning(self.url, None, lambda _reading, _begun: ["other", *many], "n")
        self.assertEqual(found, many[:NAMES_LIMIT])

    def test_silent(self) -> None:
        """A directory that is away, or slow, offers nothing and says nothing."""
        self.assertEqual(self.offered("user", "show", "", directory="sqlite:////nowhere/d.sqlite"), [])
        self.assertEqual(self.offered("user", "show", "", directory="nonsense"), [])
        self.run_it("init")

        end = Event()
        self.addCleanup(end.set)

        def hang(_reading: object, _begun: str) -> list[str]:
            end.wait()
            return ["late"]

        self.assertEqual(names_beginning(self.url, None, hang, ""), [])

    def test_bash(self) -> None:
        """A real bash completes with the printed script."""
        bash = shutil.which("bash")
        if bash is None:
            self.skipTest("there is no bash here")
        self.make_farm()
        self.run_it("user", "enable", "petra@fabrik.example", "--no-password")
        script = """
            eval "$(rvpfarm completion bash)"
            complete -p rvpfarm
            try() { COMP_WORDS=("$@"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMPREPLY=()
                    _rvpfarm_completion rvpfarm; echo "${COMPREPLY[@]}"; }
            try rvpfarm user dis
            try rvpfarm user show petra@fab
            case "$COMP_WORDBREAKS" in *@*) echo broken;; esac
        """
        path = f"{BIN}:/usr/bin:/bin"
        done = run(bash, "-c", script, RVPFARM_DIRECTORY=self.url, PATH=path)
        self.assertEqual(done.err, "")
        declared, *rest = done.out.splitlines()
        self.assertIn("_rvpfarm_completion rvpfarm", declared)
        self.assertEqual(rest, ["disable", "petra@fabrik.example"])

    def test_shells(self) -> None:
        """Each shell gets a script that speaks of it."""
        for shell in SHELLS:
            self.assertIn(f"{shell}_complete", self.run_it("completion", shell).stdout)
