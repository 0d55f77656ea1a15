"""Tests of L{rvpfarm.protocol.mime}."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.protocol.mime import parse_mime, render_text, render_typing
from tests.support.hypothesis import MODEST

SESSION = "{3B0C7F52-91D4-4E6A-8C17-5A2E90D4B7F1}"


class RenderTests(SynchronousTestCase):
    """Clients write what the old ones write (7.1 to 7.3)."""

    def test_text(self) -> None:
        """A message is the printed one; its lines end in CR LF, and the last does not end."""
        self.assertEqual(
            render_text("Coffee\nat ten?", SESSION),
            b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=UTF-8\r\n"
            b"X-MMS-IM-Format: FN=MS%20Shell%20Dlg; EF=; CO=0; CS=0; PF=0\r\n"
            b"Session-Id: {3B0C7F52-91D4-4E6A-8C17-5A2E90D4B7F1}\r\n\r\nCoffee\r\nat ten?",
        )

    def test_typing(self) -> None:
        """A typing notice says who types, and has an empty body."""
        mime = parse_mime(render_typing("petra@fabrik.example", SESSION).decode())
        self.assertEqual(mime.content_type, "text/x-msmsgscontrol")
        self.assertEqual(mime.headers["typinguser"], "petra@fabrik.example")
        self.assertEqual((mime.session, mime.body.strip()), (SESSION, ""))

    def test_one_line(self) -> None:
        """Nobody smuggles in a header."""
        self.assertRaises(ValueError, render_text, "x", "{}\r\nTypingUser: x")
        self.assertRaises(ValueError, render_typing, "a\nb", SESSION)

    @MODEST
    @given(st.text(st.characters(exclude_categories=("Cs", "Cc"))))
    def test_there_and_back(self, text: str) -> None:
        """A text that was written is read as it was."""
        self.assertEqual(parse_mime(render_text(text, SESSION).decode()).body, text)


class ParseMimeTests(SynchronousTestCase):
    """Whatever other clients write is read."""

    def test_tolerance(self) -> None:
        """Letter case, line ends, folding, empty lines first and lines that are no headers do not matter."""
        mime = parse_mime(
            "\n\r\nMIME-version 1.0\nCONTENT-TYPE : Text/Plain; charset=UTF-8\r\nsession-id: {ab}\n"
            "X-Long: a\n b\nX-Long: c\n\nline\n\nline"
        )
        self.assertEqual(mime.content_type, "text/plain")
        self.assertEqual(mime.session, "{AB}")
        self.assertEqual(mime.headers["x-long"], "a b")
        self.assertEqual(mime.body, "line\n\nline")

    def test_nothing(self) -> None:
        """An empty entity has neither headers nor body."""
        mime = parse_mime("")
        self.assertEqual((mime.headers, mime.body, mime.content_type, mime.session), ({}, "", "", ""))
