"""Tests of L{tests.support.transcript}: what a transcript may say."""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from tests.support.transcript import (
    ANSWER,
    CALL_BACK,
    REQUEST,
    Actor,
    BadTranscript,
    Message,
    Reckon,
    Scene,
    Transcript,
    Understood,
    fill,
    parse_transcript,
    pattern_of,
)

SETTINGS = """\
# What it is about.
profile: S
schemes: ntlm digest-md5
users: petra, tomasz

petra: miranda, LF
desk: plain, CRLF, at 127.0.0.2
"""


def parse(text: str, settings: str = SETTINGS) -> Transcript:
    """A transcript that goes on with C{text}."""
    return parse_transcript(settings + text, "some.rvp")


class SettingsTests(SynchronousTestCase):
    """What stands before the first scene."""

    def test_read(self) -> None:
        """The profile, the schemes, the users, and who takes part with which client."""
        transcript = parse("")
        self.assertEqual((transcript.profile, transcript.schemes), ("S", "ntlm digest-md5"))
        self.assertEqual(transcript.users, ("petra", "tomasz"))
        self.assertEqual(
            transcript.cast,
            {"petra": Actor("petra", "miranda", "\n"), "desk": Actor("desk", "plain", "\r\n", "127.0.0.2")},
        )

    def test_refused(self) -> None:
        """What is missing or cannot be is named, with its line."""
        for settings, why in (
            ("profile: O\nusers: petra\n", "it must say profile and users"),
            ("profile: X\n", "some.rvp:1: profile cannot be 'X'"),
            ("users:\n", "users cannot be ''"),
            ("petra: miranda\n", "petra must be a client, and LF or CRLF"),
            ("petra: miranda, LF, at 192.0.2.1\n", "petra must be on loopback"),
        ):
            with self.subTest(settings):
                with self.assertRaises(BadTranscript) as caught:
                    parse("", settings)
                self.assertIn(why, str(caught.exception))


class StepTests(SynchronousTestCase):
    """What happens in a transcript, step by step."""

    def test_scenes(self) -> None:
        """Who is on stage, over which connection; who goes."""
        for text, scene in (
            ("[petra, new connection]", Scene(8, "petra", "new connection")),
            ("[petra, new connection a, by NTLM]", Scene(8, "petra", "new connection", "a", "NTLM")),
            ("[petra, connection a]", Scene(8, "petra", "connection", "a")),
            ("[desk, same connection]", Scene(8, "desk", "same connection")),
            ("[desk, call-back]", Scene(8, "desk", "call-back")),
            ("[petra hangs up]", Scene(8, "petra", "hangs up")),
            ("[petra only connects]", Scene(8, "petra", "only connects")),
            ("[petra stops listening]", Scene(8, "petra", "stops listening")),
            ("[the server hangs up on desk]", Scene(8, "desk", "the server hangs up")),
        ):
            self.assertEqual(parse(text).steps, [scene], text)

    def test_messages(self) -> None:
        """Lines with the same mark are one message; body lines end only where a line end is written out."""
        transcript = parse(
            ">> NOTIFY / HTTP/1.1\n>> Content-Length: @\n>>\n>> <a>\n>> <b>\\r\\n\n>>  x\\\\n</b>\n"
            "<< HTTP/1.1 200 Successful\n<<\n\n** NOTIFY / HTTP/1.1\n**\n"
        )
        self.assertEqual(
            transcript.steps,
            [
                Message(8, REQUEST, ("NOTIFY / HTTP/1.1", "Content-Length: @"), "<a><b>\r\n x\\n</b>"),
                Message(14, ANSWER, ("HTTP/1.1 200 Successful",), ""),
                Message(17, CALL_BACK, ("NOTIFY / HTTP/1.1",), ""),
            ],
        )

    def test_understanding_and_reckoning(self) -> None:
        """What a client makes of something, and what it works out."""
        steps = parse(
            '~~ logged in\n~~ and more\n! proof = ntlm-type3 ${challenge}\n! "abc" = digest a b\n'
        ).steps
        self.assertEqual(
            steps,
            [
                Understood(8, ("logged in", "and more")),
                Reckon(10, "proof", "", ("ntlm-type3", "${challenge}")),
                Reckon(11, "", "abc", ("digest", "a", "b")),
            ],
        )

    def test_titles(self) -> None:
        """A complaint names the part of the transcript."""
        transcript = parse("## Login\n[petra hangs up]\n## Logout\n[petra hangs up]\n")
        self.assertEqual([transcript.part(line) for line in (1, 9, 11)], ["", "Login", "Logout"])
        self.assertEqual(transcript.where(11), "some.rvp:11 (Logout)")

    def test_refused(self) -> None:
        """What nobody can play is refused with its line and a reason."""
        for text, why in (
            ("[petra, connection]", "some.rvp:8: there is no such scene"),
            ("[petra, new connection", "there is no such scene"),
            ("[tomasz, call-back]", "nobody is called tomasz"),
            (">> GET / HTTP/1.1\n", "the head has no end: a line that says only >>"),
            ("<<\n", "it has no head"),
            ("<<HTTP\n<<\n", "a space is missing after <<"),
            (">> GET / HTTP/1.1\n>>\n>> a\\tb\n", "a backslash in a body"),
            ("<< HTTP/1.1 200 OK\n<< Id: ${id:text}\n<<\n", "nothing is known of ${id:text}"),
            ("! proof ntlm-type3\n", "it must be ! name = words"),
            ("[petra hangs up]\nwhat\n", "some.rvp:9: what is 'what'?"),
        ):
            with self.subTest(text):
                with self.assertRaises(BadTranscript) as caught:
                    parse(text)
                self.assertIn(why, str(caught.exception))


class PlaceTests(SynchronousTestCase):
    """Values in a transcript."""

    def matched(self, text: str, arrived: str, **values: str) -> dict[str, str] | None:
        """The values that are found out when C{arrived} comes where C{text} is written."""
        pattern, groups = pattern_of(text, values)
        found = re.fullmatch(pattern, arrived)
        return None if found is None else {name: found[group] for group, name in groups.items()}

    def test_filled_in(self) -> None:
        """What is said has every value in its place."""
        self.assertEqual(
            fill("Call-Back: http://${petra}/", {"petra": "127.0.0.1:9"}), "Call-Back: http://127.0.0.1:9/"
        )
        self.assertRaises(KeyError, fill, "${tomasz}", {})

    def test_found_out(self) -> None:
        """A named wildcard is found out once and the same from then on; a nameless one is forgotten."""
        self.assertEqual(self.matched("Id: ${id:number}", "Id: 17"), {"id": "17"})
        self.assertEqual(self.matched("Id: ${id:number}", "Id: 17", id="17"), {})
        self.assertIsNone(self.matched("Id: ${id:number}", "Id: 18", id="17"))
        self.assertEqual(self.matched("${n:hex} ${n:hex}", "0a 0a"), {"n": "0a"})
        self.assertIsNone(self.matched("${n:hex} ${n:hex}", "0a 0b"))
        self.assertEqual(self.matched("${:number} ${:base64}", "5 TlRM+/=="), {})

    def test_kinds(self) -> None:
        """A wildcard stands for its own kind only, and the rest is literal."""
        self.assertIsNone(self.matched("${:number}", "0"))
        self.assertIsNone(self.matched("${:hex}", "0A"))
        self.assertIsNone(self.matched("a.c${length}", "abc12"))
        self.assertEqual(self.matched("a.c${length}", "a.c12"), {})
        self.assertRaises(KeyError, pattern_of, "${id}", {})
