"""Pages refer to each other and to files that are there."""

from __future__ import annotations

import re
from unittest import TestCase

from tests.support.pages import DOCS, ROOT


class LinkTests(TestCase):
    """Relative links of README.md and C{docs/}."""

    def test_targets(self) -> None:
        """Every link leads to a file, and every page that is named in code style is there."""
        for page in (ROOT / "README.md", *sorted(DOCS.glob("*.md"))):
            text = page.read_text("utf-8")
            linked = [page.parent / target for target in re.findall(r"\]\((?!\w+:|#)([^)#\s]+)[^)]*\)", text)]
            named = [ROOT / target for target in re.findall(r"\bdocs/[\w-]+\.md\b", text)]
            for target in (*linked, *named):
                with self.subTest(page=page.name, target=target.name):
                    self.assertTrue(target.exists(), f"{page.name} leads to {target}, which is not there")
