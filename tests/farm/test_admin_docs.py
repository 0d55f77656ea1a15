"""Every example of C{docs/admin-api.md} works as it stands there."""

from __future__ import annotations

import os
import re
import shutil
import signal
from contextlib import chdir, suppress
from pathlib import Path
from unittest import TestCase

import pytest

from tests.support.processes import BIN, run, wait_for
from tests.support.store import make_folder

PAGE = Path(__file__).parents[2] / "docs" / "admin-api.md"


def blocks() -> list[tuple[str, str]]:
    """The examples in order: the language and the text of each."""
    return re.findall(r"^```(sh|python)\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.farm
class PageTests(TestCase):
    """The page is one session in an empty folder."""

    def test_examples(self) -> None:
        """No command of it fails, and no assertion."""
        bash = shutil.which("bash")
        if bash is None or shutil.which("curl") is None:
            self.skipTest("the page needs bash and curl")
        folder = make_folder(self)  # type: ignore[arg-type]  # any test case has addCleanup
        self.addCleanup(self.end, folder / "admin.pid")
        environment = {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "RVPFARM_DIRECTORY": f"sqlite:///{folder / 'directory.sqlite'}",
        }
        names: dict[str, object] = {}
        found = blocks()
        self.assertGreater(len(found), 10)
        for language, text in found:
            if language == "python":
                with chdir(folder):
                    old = os.environ.get("RVPFARM_DIRECTORY")
                    os.environ["RVPFARM_DIRECTORY"] = environment["RVPFARM_DIRECTORY"]
                    try:
                        exec(compile(text, str(PAGE), "exec"), names)  # noqa: S102 (our own page)
                    finally:
                        os.environ.pop("RVPFARM_DIRECTORY")
                        if old is not None:
                            os.environ["RVPFARM_DIRECTORY"] = old
                continue
            # output into files: a daemon that a command starts would hold a pipe open
            done = run(
                bash, "-euc", f"cd '{folder}'\nexec >>out 2>&1\nset -o pipefail\n{text}", **environment
            )
            self.assertEqual(done.status, 0, f"{text}\n{(folder / 'out').read_text()}")

    def end(self, pid_file: Path) -> None:
        """See the daemon that the page starts end, whether or not the page came to that."""
        with suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int(pid_file.read_text()), signal.SIGTERM)
        wait_for("the daemon's end", lambda: not pid_file.exists())
