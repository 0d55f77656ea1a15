"""The audit trail: found again by whoever asks, and proof against whoever can write into the database."""

from __future__ import annotations

import json
import os
import pwd

from click.testing import CliRunner
from sqlalchemy import Connection, create_engine, delete, select, update

from rvpfarm.admin.actors import default_actor
from rvpfarm.admin.command import rvpfarm
from rvpfarm.directory import tables
from tests.admin.test_command import CommandCase

AUDIT = tables.audit.c


class AuditCase(CommandCase):
    """A farm with some changes behind it, and a hand in its database."""

    def setUp(self) -> None:
        """Make them."""
        super().setUp()
        self.make_farm()
        self.run_it("user", "enable", "petra@fabrik.example", "--no-password")
        self.run_it("user", "disable", "petra@fabrik.example", "--yes")

    def state(self, *words: str, status: int = 0) -> dict[str, object]:
        """What C{audit verify --json} says."""
        args = ("audit", "verify", *words, "--json")
        if status:
            result = self.run_quietly(*args)
            self.assertEqual(result[0], status)
            found: dict[str, object] = json.loads(result[1])
        else:
            found = json.loads(self.run_it(*args).stdout)
        return found

    def run_quietly(self, *args: str) -> tuple[int, str]:
        """The status and the output of a command that prints although it fails."""
        result = CliRunner().invoke(rvpfarm, args, env={"RVPFARM_DIRECTORY": self.url})
        return result.exit_code, result.stdout

    def tamper(self, *statements: object) -> None:
        """Do this to the database, past the program."""
        engine = create_engine(self.url)
        self.addCleanup(engine.dispose)
        with engine.begin() as connection:
            self.do(connection, statements)

    def do(self, connection: Connection, statements: tuple[object, ...]) -> None:
        """One after the other."""
        for one in statements:
            connection.execute(one)  # type: ignore[call-overload]  # a statement of whatever kind

    def last(self, number: int) -> tuple[int, str]:
        """The number and hash of the row before the last C{number} rows."""
        engine = create_engine(self.url)
        self.addCleanup(engine.dispose)
        with engine.connect() as connection:
            rows = connection.execute(select(AUDIT.seq, AUDIT.hash).order_by(AUDIT.seq)).all()
        return rows[-1 - number].seq, rows[-1 - number].hash


class VerifyTests(AuditCase):
    """C{rvpfarm audit verify} finds whatever was done to the trail."""

    def test_whole(self) -> None:
        """An untouched trail is whole, and its head is known again after more changes."""
        head = str(self.state()["head"])
        self.run_it("domain", "add", "im.mill.example")
        state = self.state("--expect", head.upper())
        self.assertEqual((state["whole"], state["expected"]), (True, True))
        self.assertNotEqual(state["head"], head)
        self.assertIn(str(state["head"]), self.run_it("audit", "verify").stdout)

    def test_changed(self) -> None:
        """Any column of any row."""
        for column, value in (
            (AUDIT.actor, "nobody"),
            (AUDIT.at, 1.0),
            (AUDIT.action, "user show"),
            (AUDIT.subject, "x"),
            (AUDIT.before, "{}"),
            (AUDIT.after, '{"x":1}'),
        ):
            seq = self.last(0)[0]
            engine = create_engine(self.url)
            self.addCleanup(engine.dispose)
            with engine.connect() as connection:
                old = connection.execute(select(column).where(AUDIT.seq == seq)).scalar_one()
            if old == value:
                continue
            self.tamper(update(tables.audit).where(AUDIT.seq == seq).values({column: value}))
            self.assertEqual(self.state(status=1)["broken"], seq, column)
            self.tamper(update(tables.audit).where(AUDIT.seq == seq).values({column: old}))
        self.assertTrue(self.state()["whole"])

    def test_taken_out(self) -> None:
        """A row in the middle, or the last one alone."""
        self.tamper(delete(tables.audit).where(AUDIT.seq == 3))
        self.assertEqual(self.state(status=1)["broken"], 3)

    def test_end_cut_off(self) -> None:
        """The newest rows: by what remembers them, and when that was changed too, by a hash kept elsewhere."""
        head = str(self.state()["head"])
        seq, kept = self.last(2)
        self.tamper(delete(tables.audit).where(AUDIT.seq > seq))
        self.assertEqual(self.state(status=1)["broken"], seq + 1)
        self.tamper(update(tables.ledger).values(audit_seq=seq, audit_hash=kept))
        self.assertTrue(self.state()["whole"])
        state = self.state("--expect", head, status=1)
        self.assertEqual((state["whole"], state["expected"]), (False, False))
        self.assertIn("rows were removed", self.run_it("audit", "verify", "--expect", head, status=1).stderr)

    def test_reordered(self) -> None:
        """Two rows in each other's place."""
        self.tamper(
            update(tables.audit).where(AUDIT.seq == 2).values(seq=1000),
            update(tables.audit).where(AUDIT.seq == 3).values(seq=2),
            update(tables.audit).where(AUDIT.seq == 1000).values(seq=3),
        )
        self.assertEqual(self.state(status=1)["broken"], 2)


class ListTests(AuditCase):
    """C{rvpfarm audit list} finds rows again."""

    def rows(self, *words: str) -> list[dict[str, str]]:
        """What it lists."""
        found: list[dict[str, str]] = json.loads(self.run_it("audit", "list", *words, "--json").stdout)
        return found

    def test_filters(self) -> None:
        """By what it was done to, by whom, what, and since when; all of them together."""
        self.assertEqual(
            [one["action"] for one in self.rows("--subject", "petra@fabrik.example")],
            ["user enable", "user disable"],
        )
        self.assertEqual({one["action"] for one in self.rows("--action", "home")}, {"home create"})
        self.assertEqual(len(self.rows("--action", "home create", "--limit", "1")), 1)
        self.assertEqual(self.rows("--action", "hom"), [])
        self.assertEqual(self.rows("--actor", "nobody at all"), [])
        self.assertEqual(self.rows("--since", "2999-01-01"), [])
        found = self.rows("--since", "2001-01-01", "--actor", default_actor(), "--action", "user disable")
        self.assertEqual([one["subject"] for one in found], ["petra@fabrik.example"])
        self.run_it("audit", "list", "--since", "yesterday", status=2)

    def test_actor(self) -> None:
        """Who did it is said by the operating system, not by the environment."""
        self.run_it("domain", "add", "im.mill.example", LOGNAME="somebody", USER="somebody")
        self.assertEqual(self.rows("--limit", "1")[0]["actor"], pwd.getpwuid(os.getuid()).pw_name)
