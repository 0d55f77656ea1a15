"""Protocol logs in words: every status and method that there is, and lines of every form."""

from __future__ import annotations

import ast
import json
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import rvpfarm
from rvpfarm.admin.checks import Refused
from rvpfarm.admin.explaining import ANSWERS, PURPOSES, STATUSES, LogReader, Seen, explain, parse_words
from rvpfarm.protocol import calls
from rvpfarm.protocol.calls import METHODS, REASONS, Refusal
from rvpfarm.protocol.control import METHOD
from tests.admin.test_command import CommandCase


def emitted() -> set[int]:
    """Every status that the code base answers with: what it calls C{Reply} with, and assigns to C{status}."""
    found = set()
    for path in Path(rvpfarm.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            value: ast.expr | None = None
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("Reply", "Propstat"):
                value = node.args[0] if node.args else None
            elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).split(".")[-1] == "status":
                value = node.value
            if isinstance(value, ast.Constant) and isinstance(value.value, int) and value.value >= 100:
                found.add(value.value)
    return found


class TableTests(SynchronousTestCase):
    """The table is complete, and says nothing twice."""

    def test_every_status(self) -> None:
        """Each status that a server of ours answers, or has words for, is explained."""
        kinds = [one for one in vars(calls).values() if isinstance(one, type) and issubclass(one, Refusal)]
        statuses = emitted() | {kind.status for kind in kinds} | set(REASONS)
        self.assertGreater(len(emitted()), 10)
        self.assertEqual(statuses - set(STATUSES), set())

    def test_every_method(self) -> None:
        """Each method that a node understands, or refuses by name, is explained."""
        self.assertEqual(
            {one.decode() for one in (*METHODS, METHOD, b"COPY", b"MOVE")} - set(PURPOSES), set()
        )

    def test_pairs_are_of_the_table(self) -> None:
        """What is said of a method with a status is of methods and statuses that there are."""
        self.assertEqual({method for method, _ in ANSWERS} - set(PURPOSES), set())
        self.assertEqual({status for _, status in ANSWERS} - set(STATUSES), set())

    def test_sentences(self) -> None:
        """Sentences are put a full stop behind by whoever shows them."""
        said = [*STATUSES.values(), *ANSWERS.values()]
        for text in (*(one.text for one in said), *(one.remedy for one in said), *PURPOSES.values()):
            self.assertFalse(text.endswith(".") or not text, text)

    def test_412(self) -> None:
        """The same status means another thing for another method."""
        texts = {explain(Seen(name, 412)).meaning for name in ("NOTIFY", "SUBSCRIBE", "PROPFIND", "")}
        self.assertEqual(len(texts), 4)


class LogReaderTests(SynchronousTestCase):
    """L{LogReader}"""

    def found(self, line: str) -> Seen | None:
        """What a line alone tells."""
        return LogReader().read(line)

    def test_words(self) -> None:
        """A line of an old protocol log: time, address, method, node, status."""
        self.assertEqual(
            self.found("08:31:07 192.0.2.77 NOTIFY /instmsg/aliases/petra 412"),
            Seen("NOTIFY", 412, "08:31:07", "192.0.2.77", "/instmsg/aliases/petra"),
        )

    def test_w3c(self) -> None:
        """The fields of a W3C log are what its own header says, whatever else looks like a status."""
        reader = LogReader()
        for line in ("#Software: x", "#Fields: time c-ip sc-bytes cs-method sc-status"):
            self.assertIsNone(reader.read(line))
        self.assertEqual(
            reader.read("08:31:07 192.0.2.77 404 SUBSCRIBE 207"),
            Seen("SUBSCRIBE", 207, "08:31:07", "192.0.2.77"),
        )

    def test_json(self) -> None:
        """A JSON line of a daemon, with fields or with words only."""
        fields = {"time": "2026-01-02T03:04:05Z", "method": "ACL", "status": 400, "peer": "192.0.2.1"}
        self.assertEqual(
            self.found(json.dumps(fields)), Seen("ACL", 400, "2026-01-02T03:04:05Z", "192.0.2.1")
        )
        self.assertEqual(self.found('{"text": "answered 503 to a NOTIFY"}'), Seen("NOTIFY", 503))

    def test_common(self) -> None:
        """The log of a proxy in front."""
        line = '192.0.2.7 - - [01/Jan/2026:10:00:00 +0000] "PROPPATCH /instmsg/aliases/ann HTTP/1.1" 401 0'
        seen = self.found(line)
        assert seen is not None
        self.assertEqual((seen.method, seen.status, seen.peer), ("PROPPATCH", 401, "192.0.2.7"))

    def test_nothing(self) -> None:
        """Lines that tell nothing of the kind."""
        for line in ("", "# 412", "all is well", "{broken 412", '{"a": 1}', "[1]"):
            self.assertIsNone(self.found(line), line)

    def test_refused(self) -> None:
        """What is no status or method is said to be none."""
        self.assertRaises(Refused, parse_words, ["hello"])
        with self.assertRaisesRegex(Refused, "no server of this farm answers 418"):
            explain(Seen("", 418))


class ExplainTests(CommandCase):
    """C{rvpfarm explain}, which needs no directory."""

    def test_shown(self) -> None:
        """In words, with what to do."""
        shown = self.run_it("explain", "NOTIFY", "412", RVPFARM_DIRECTORY=None).stdout
        self.assertIn("the recipient is not available", shown)
        self.assertIn("To do: ", shown)
        self.assertIn("It says: ", self.run_it("explain", "412").stdout)
        self.assertIn("no method and no status", self.run_it("explain", "hm", status=1).stderr)

    def test_stdin(self) -> None:
        """A whole log comes in by standard input."""
        log = "#Fields: cs-method sc-status\nNOTIFY 200\nUNSUBSCRIBE 412\n"
        found = json.loads(self.run_it("explain", "--json", stdin=log).stdout)
        self.assertEqual(
            [(one["method"], one["status"]) for one in found], [("NOTIFY", 200), ("UNSUBSCRIBE", 412)]
        )
        self.assertIn("There is no method", self.run_it("explain", stdin="\n").stdout)
