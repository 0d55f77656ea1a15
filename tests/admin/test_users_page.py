"""The commands in docs/users.md are commands that there are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
from twisted.trial.unittest import SynchronousTestCase

import rvpfarm as package
from rvpfarm.admin.command import rvpfarm

PAGE = Path(package.__file__).parent.parent / "docs" / "users.md"


class PageTests(SynchronousTestCase):
    """Every command of the page is understood."""

    def test_commands(self) -> None:
        """Nouns, verbs and options are as the page has them."""
        blocks = re.findall(r"^```\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
        lines = [line for block in blocks for line in block.splitlines() if line.startswith("rvpfarm ")]
        self.assertGreater(len(lines), 20)
        for line in lines:
            with self.subTest(line=line):
                words = shlex.split(line.partition(" < ")[0])[1:]
                command: click.Command = rvpfarm
                while isinstance(command, click.Group):
                    command = command.commands[words.pop(0)]
                known = {name for parameter in command.params for name in parameter.opts}
                self.assertEqual({word for word in words if word.startswith("--")} - known, set())
