"""Every example of C{docs/admin-api.md} works as it stands there."""

from __future__ import annotations

import os
import shutil
from contextlib import chdir
from unittest import TestCase

import pytest

from tests.support.pages import DOCS, Player, Step, blocks
from tests.support.store import make_folder

PAGE = DOCS / "admin-api.md"


@pytest.mark.farm
class PageTests(TestCase):
    """The page is one session in an empty folder."""

    def test_examples(self) -> None:
        """No command of it fails, and no assertion."""
        if shutil.which("bash") is None or shutil.which("curl") is None:
            self.skipTest("the page needs bash and curl")
        folder = make_folder(self)  # type: ignore[arg-type]  # any test case has addCleanup
        player = Player(folder)
        self.addCleanup(player.end)
        names: dict[str, object] = {}
        found = blocks(PAGE, "sh", "python")
        self.assertGreater(len(found), 10)
        for language, text in found:
            if language == "sh":
                player.play(Step(text, 0, ()))
                continue
            with chdir(folder):
                old = os.environ.get("RVPFARM_DIRECTORY")
                os.environ["RVPFARM_DIRECTORY"] = player.environment["RVPFARM_DIRECTORY"]
                try:
                    exec(compile(text, str(PAGE), "exec"), names)  # noqa: S102 (our own page)
                finally:
                    os.environ.pop("RVPFARM_DIRECTORY")
                    if old is not None:
                        os.environ["RVPFARM_DIRECTORY"] = old
