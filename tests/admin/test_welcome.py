"""Welcome sheets: what a user is handed, as text and as a page that prints."""

from __future__ import annotations

import stat
from html.parser import HTMLParser

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.admin.welcome import Sheet, render_html, render_text
from tests.admin.test_command import CommandCase


def make_sheet(**fields: str) -> Sheet:
    """The sheet of petra."""
    usual = {
        "name": "Petra Novak",
        "address": "petra@fabrik.example",
        "login": "FABRIK\\petra",
        "alias": "petra",
        "netbios": "FABRIK",
        "domain": "im.fabrik.example",
        "url": "http://im.fabrik.example/instmsg/aliases/petra",
        "server": "im.fabrik.example",
    }
    return Sheet(**{**usual, **fields})


class SheetTests(SynchronousTestCase):
    """L{render_text} and L{render_html}"""

    def test_every_client(self) -> None:
        """Address, account and every client are on either."""
        for shown in (render_text([make_sheet()]), render_html([make_sheet()])):
            for word in (
                "petra@fabrik.example",
                "FABRIK\\petra",
                "Windows Messenger",
                "Miranda",
                "Pidgin",
                "rvp --as petra@fabrik.example login",
                "http://im.fabrik.example/instmsg/aliases/petra",
            ):
                self.assertIn(word, shown)
            self.assertNotIn("Keep this sheet to yourself", shown)

    def test_password(self) -> None:
        """A password is on it only if it was made just now; then the sheet says to keep it."""
        for shown in (render_text([make_sheet(password="k7-x")]), render_html([make_sheet(password="k7-x")])):
            self.assertIn("k7-x", shown)
            self.assertIn("Keep this sheet to yourself", shown)

    def test_lines(self) -> None:
        """Text fits a page of paper."""
        self.assertLessEqual(max(map(len, render_text([make_sheet()]).splitlines())), 78)

    def test_html_is_sound(self) -> None:
        """Whatever a name holds, it is text, and every element ends."""
        page = render_html([make_sheet(name='<b>"R&D"</b>'), make_sheet()])
        self.assertIn("&lt;b&gt;&quot;R&amp;D&quot;&lt;/b&gt;", page)
        open_elements: list[str] = []

        class Reader(HTMLParser):
            """Sees that elements end in order."""

            def handle_starttag(self, tag: str, attrs: object) -> None:
                """One begins."""
                if tag != "meta":
                    open_elements.append(tag)

            def handle_endtag(self, tag: str) -> None:
                """One ends."""
                assert open_elements.pop() == tag

        Reader().feed(page)
        self.assertEqual(open_elements, [])
        self.assertEqual(page.count("<article>"), 2)


class WelcomeTests(CommandCase):
    """C{rvpfarm user welcome}, C{user enable --welcome}, C{user passwd --welcome}"""

    def setUp(self) -> None:
        """A farm with petra."""
        super().setUp()
        self.make_farm()
        self.file = self.folder / "petra.html"
        self.run_it(
            *("user", "enable", "petra@fabrik.example", "--generate-password", "--welcome", str(self.file))
        )

    def test_enabled(self) -> None:
        """Who is enabled has a sheet with the password, for nobody else to read."""
        self.assertEqual(stat.S_IMODE(self.file.stat().st_mode), 0o600)
        self.assertIn("nobody can look it up again", self.file.read_text())

    def test_printed(self) -> None:
        """Any user's sheet can be printed, without a password; several at once."""
        self.run_it("user", "enable", "ann@fabrik.example", "--no-password")
        shown = self.run_it("user", "welcome", "petra", "ann").stdout
        self.assertEqual(shown.count("Instant messaging for"), 2)
        self.assertIn("as you were told", shown)
        self.assertIn("<!DOCTYPE html>", self.run_it("user", "welcome", "petra", "--html").stdout)
        out = self.folder / "sheets.txt"
        self.run_it("user", "welcome", "petra", "ann", "--out", str(out))
        self.assertEqual(out.read_text().count("\f"), 1)

    def test_new_password(self) -> None:
        """A new password is on the new sheet."""
        other = self.folder / "new.txt"
        shown = self.run_it("user", "passwd", "petra", "--generate-password", "--welcome", str(other)).stdout
        password = shown.partition("Password:")[2].split()[0]
        self.assertIn(password, other.read_text())

    def test_refused(self) -> None:
        """Nothing is changed if the sheet cannot be written; who is disabled gets none."""
        place = str(self.folder / "nowhere" / "x.html")
        self.run_it(
            "user", "enable", "bea@fabrik.example", "--generate-password", "--welcome", place, status=1
        )
        self.assertNotIn("bea", self.run_it("user", "list").stdout)
        self.run_it("user", "disable", "petra", "--yes")
        self.assertIn("is disabled", self.run_it("user", "welcome", "petra", status=1).stderr)
