"""Tests of L{rvpfarm.observe.logs}."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

from twisted.logger import Logger, LogLevel, LogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.observe import logs


class JsonLinesTests(SynchronousTestCase):
    """Events become lines that a machine can read."""

    def setUp(self) -> None:
        """A logger that writes to where standard output would be."""
        self.stream = io.StringIO()
        self.patch(sys, "stdout", self.stream)

    def log(self, level: str = "info", format: str = "", **fields: Any) -> list[dict[str, Any]]:
        """The lines that one event makes."""
        logger = Logger("rvpfarm.test", observer=LogPublisher(logs.json_lines()))
        logger.emit(LogLevel.levelWithName(level), format, **fields)
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]

    def test_line(self) -> None:
        """A line has time, level, system, text and the fields."""
        (line,) = self.log("warn", "lease {key} lapsed", key="im.x/instmsg/aliases/ann", seconds=1.5)
        self.assertRegex(line.pop("time"), r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
        self.assertEqual(
            line,
            {
                "level": "warn",
                "system": "rvpfarm.test",
                "text": "lease im.x/instmsg/aliases/ann lapsed",
                "key": "im.x/instmsg/aliases/ann",
                "seconds": 1.5,
            },
        )

    def test_secrets_are_kept(self) -> None:
        """Neither text nor fields ever show what is secret by its name."""
        (line,) = self.log(
            format="{password} {Authorization} {body}",
            password="hunter22",
            Authorization=b"Digest hunter22",
            body=b"hunter22",
            ntlm_blob="hunter22",
            new_password="hunter22",
        )
        self.assertNotIn("hunter22", json.dumps(line))
        self.assertEqual(line["text"], "*** *** ***")

    def test_levels(self) -> None:
        """Debug is written when it is asked for only."""
        self.assertEqual(self.log("debug", "detail"), [])
        self.patch(logs.os, "environ", {"RVPFARM_LOG_LEVEL": "debug"})
        self.assertEqual(len(self.log("debug", "detail")), 1)

    def test_failure(self) -> None:
        """A failure brings its traceback."""
        try:
            raise ZeroDivisionError("nothing")
        except ZeroDivisionError:
            failure = Failure()
        (line,) = self.log("critical", "it broke", log_failure=failure)
        self.assertIn("ZeroDivisionError: nothing", line["traceback"])

    def test_long_things_are_cut(self) -> None:
        """However much is logged, a line stays a line of bounded length."""
        (line,) = self.log(format="{text}", text="x" * 100_000, other=b"\x00\n" * 50_000)
        self.assertLess(len(json.dumps(line)), 10_000)
        self.assertEqual(self.stream.getvalue().count("\n"), 1)

    def test_what_cannot_be_shown(self) -> None:
        """A field that fails to show itself costs nothing but itself."""

        class Awkward:
            """Has no text."""

            def __str__(self) -> str:
                raise ZeroDivisionError

            __repr__ = __str__

        (line,) = self.log(format="something", thing=Awkward())
        self.assertEqual(line["thing"], "(unprintable)")

    def test_stream_that_cannot_be_written(self) -> None:
        """A log that cannot be written stops nothing."""
        self.stream.close()
        logger = Logger("rvpfarm.test", observer=LogPublisher(logs.Lines(self.stream, logs.render_json)))
        logger.warn("lost")


class QuietTests(SynchronousTestCase):
    """A person at a terminal sees what matters, as plain text."""

    def setUp(self) -> None:
        """A logger that writes to where standard error would be."""
        self.stream = io.StringIO()
        self.patch(sys, "stderr", self.stream)
        self.publisher = LogPublisher(logs.quiet())

    def test_warnings_only(self) -> None:
        """Warnings and worse are shown; what is usual is not."""
        logger = Logger("rvpfarm.test", observer=self.publisher)
        logger.info("usual")
        logger.warn("home {name} ended", name="home1")
        self.assertEqual(self.stream.getvalue(), "warn: home home1 ended\n")

    def test_what_was_printed(self) -> None:
        """What a program printed to standard error, as the sentence it leaves with, is shown as it is."""
        Logger("stderr", observer=self.publisher).error("{log_io}", log_io="cannot listen")
        self.assertEqual(self.stream.getvalue(), "cannot listen\n")

    def test_controls_are_shown_not_sent(self) -> None:
        """What a stranger sent does not steer the terminal."""
        Logger("rvpfarm.test", observer=self.publisher).warn("{agent}", agent="\x1b[2J")
        self.assertEqual(self.stream.getvalue(), "warn: \\x1b[2J\n")

    def test_failure(self) -> None:
        """A failure brings its traceback."""
        try:
            raise ZeroDivisionError("nothing")
        except ZeroDivisionError:
            Logger("rvpfarm.test", observer=self.publisher).failure("it broke")
        self.assertIn("critical: it broke\nTraceback", self.stream.getvalue())
