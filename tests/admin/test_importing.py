"""Users of a file: what spreadsheets write is read, what cannot be done is said, and it goes on where it was."""

from __future__ import annotations

import csv
import json
import stat
from itertools import islice

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.admin import handlers
from rvpfarm.admin.addresses import decide
from rvpfarm.admin.checks import Refused
from rvpfarm.admin.importing import Passwords, import_people
from rvpfarm.admin.people import Person, read_people
from rvpfarm.auth.keys import FarmKey
from rvpfarm.directory.ldapsettings import LINK
from rvpfarm.directory.store import Store
from tests.admin.test_command import CommandCase
from tests.support.slapd import missing
from tests.support.trees import put_settings, settings_for, shared_slapd


def rows(text: str | bytes) -> list[Person]:
    """The people in a file."""
    return list(read_people(text if isinstance(text, bytes) else text.encode()).rows)


class PeopleTests(SynchronousTestCase):
    """L{read_people}"""

    def test_plain(self) -> None:
        """One person for each line, with what it says of them and where it stands."""
        self.assertEqual(
            rows("address,display_name,home\npetra@fabrik.example,Petra Novak,hs1\n\nann@fabrik.example,,\n"),
            [
                Person(2, "petra@fabrik.example", "hs1", "", "Petra Novak"),
                Person(4, "ann@fabrik.example"),
            ],
        )

    def test_separators_and_marks(self) -> None:
        """Semicolons, tabs, a byte order mark, UTF-16, CRLF and Excel's own first line: the same people."""
        wanted = [("petra@fabrik.example", "Petra Nováková")]
        plain = "Mail;Display Name\r\npetra@fabrik.example;Petra Nováková\r\n"
        for data in (
            plain.encode(),
            b"\xef\xbb\xbf" + plain.encode(),
            plain.replace(";", "\t").encode("utf-16"),
            plain.replace(";", ",").encode(),
            ("sep=;\r\n" + plain).encode(),
        ):
            with self.subTest(data=data):
                self.assertEqual([(one.address, one.display_name) for one in rows(data)], wanted)
        self.assertEqual([one.line for one in rows("sep=;\r\n" + plain)], [3])

    def test_cells(self) -> None:
        """Blanks of all kinds are taken off, and so is the formula that keeps a number a text."""
        (one,) = rows('address;password\n\xa0 petra@fabrik.example ;"=""00417 green"""\n')
        self.assertEqual((one.address, one.password), ("petra@fabrik.example", "00417 green"))

    def test_lines_in_cells(self) -> None:
        """A cell of several lines is one cell, and what follows keeps the number of its line."""
        found = rows('address,note\na@x.example,"two\nlines"\nb@x.example,\n')
        self.assertEqual([one.line for one in found], [2, 4])

    def test_bad_rows(self) -> None:
        """A row that cannot be used says why, and the others are read."""
        found = rows('address,home\na@x.example,hs1,more\n,hs1\n"b@x.example" c,\nd@x.example,hs2\n')
        self.assertEqual([bool(one.problem) for one in found], [True, True, True, False])
        self.assertIn("more cells", found[0].problem)
        self.assertIn("no address", found[1].problem)

    def test_bad_files(self) -> None:
        """A file that is none of these is refused, with what to do."""
        for data, word in (
            (b"", "empty"),
            (b"who,where\n", "no column of addresses"),
            (b"address,mail\n", "several columns"),
            ("address\npetra@fabrik.example,Nov\xe1k\n".encode("latin-1"), "UTF-8"),
            (b"PK\x03\x04\0\0", "no text"),
        ):
            with self.subTest(word=word), self.assertRaisesRegex(Refused, word):
                rows(data)

    def test_unused(self) -> None:
        """Columns that mean nothing here are named, so that a misspelt one is noticed."""
        self.assertEqual(read_people(b"address,pasword\n").unused, ("pasword",))


class ImportTests(CommandCase):
    """C{rvpfarm user import}"""

    def setUp(self) -> None:
        """A farm, and a file of four rows, of which one cannot be done."""
        super().setUp()
        self.make_farm()
        self.file = self.folder / "people.csv"
        self.write("petra,Petra Novak,hs1", "tomasz,Tomasz Lis,", "ann,Ann Berg,hs9", "bea,,")
        self.passwords, self.report = self.folder / "passwords.txt", self.folder / "report.csv"

    def write(self, *lines: str) -> None:
        """Fill the file."""
        people = [line.replace(",", "@fabrik.example,", 1) for line in lines]
        self.file.write_text("\n".join(["address,display_name,home", *people]) + "\n", "utf-8")

    def bring_in(self, *options: str, status: int = 0) -> dict[str, object]:
        """Import the file."""
        words = ("user", "import", str(self.file), "--report", str(self.report), "--json", *options)
        result = self.invoke(*words)
        self.assertEqual(result.exit_code, status, result.output)
        found: dict[str, object] = json.loads(result.stdout)
        return found

    def test_import(self) -> None:
        """Everybody who can be is enabled; who cannot is reported with the line and a sentence."""
        found = self.bring_in(status=1)
        self.assertEqual((found["enabled"], found["present"]), (3, 0))
        self.assertEqual(found["without_password"], 3)
        with self.report.open(newline="") as file:
            (row,) = csv.DictReader(file)
        self.assertEqual((row["line"], row["address"]), ("4", "ann@fabrik.example"))
        self.assertIn('there is no home "hs9"', row["why"])
        people = json.loads(self.run_it("user", "list", "--json").stdout)
        self.assertEqual({one["display_name"] for one in people}, {"Petra Novak", "Tomasz Lis", "bea"})

    def test_again(self) -> None:
        """A second time nothing changes: who is there is counted, who is there otherwise is reported."""
        self.bring_in(status=1)
        self.write("petra,Petra Novak,hs1", "tomasz,Tomasz Berg,", "zoe,,")
        found = self.bring_in(status=1)
        self.assertEqual((found["enabled"], found["present"]), (1, 1))
        ((complaint),) = found["complaints"]  # type: ignore[misc]
        self.assertTrue(complaint["differs"])
        self.assertIn("display name Tomasz Lis", complaint["sentence"])

    def test_rehearsed(self) -> None:
        """A rehearsal says the same and changes nothing."""
        found = self.bring_in("--dry-run", "--generate-password", status=1)
        self.assertEqual(found["enabled"], 3)
        self.assertEqual(json.loads(self.run_it("user", "list", "--json").stdout), [])
        self.assertFalse(self.passwords.exists())

    def test_passwords(self) -> None:
        """Passwords that are made up are in a file for its owner only, and are those that count."""
        self.write("petra,,", "bea,,")
        self.bring_in("--generate-password", "--passwords", str(self.passwords))
        self.assertEqual(stat.S_IMODE(self.passwords.stat().st_mode), 0o600)
        given = dict(line.split("\t") for line in self.passwords.read_text().splitlines())
        self.assertEqual(sorted(given), ["bea@fabrik.example", "petra@fabrik.example"])
        self.assertEqual([path.name for path in self.folder.glob("*.pending")], [])
        for person in json.loads(self.run_it("user", "list", "--json").stdout):
            shown = json.loads(self.run_it("user", "show", person["address"], "--json").stdout)
            self.assertEqual(shown["missing"], [])
        self.bring_in("--generate-password", "--passwords", str(self.passwords))
        self.assertEqual(len(self.passwords.read_text().splitlines()), 2)
        self.passwords.chmod(0o644)
        ran = self.invoke(
            *("user", "import", str(self.file), "--generate-password"), "--passwords", str(self.passwords)
        )
        self.assertIn("others may read", ran.stderr)

    def test_where_to_keep_them(self) -> None:
        """Passwords that nobody would learn are not made up."""
        self.assertEqual(self.invoke("user", "import", str(self.file), "--generate-password").exit_code, 2)

    def test_interrupted(self) -> None:
        """After an interruption at the worst moment no password is lost, and no batch is done twice."""
        people = [Person(number, f"user{number}@fabrik.example") for number in range(2, 8)]
        store = Store(self.url, FarmKey.load(self.folder / "farm.key"))
        self.addCleanup(store.close)

        class Interrupted(Passwords):
            """Dies between the transaction and the file of passwords."""

            def after(self, outcomes: object) -> None:
                """The machine stops here."""
                raise KeyboardInterrupt

        steps = import_people(
            store, people, decide, generate=True, passwords=Interrupted(self.passwords), batch=2
        )
        with self.assertRaises(KeyboardInterrupt):
            list(islice(steps, 1))
        self.assertEqual(self.passwords.read_text(), "")
        again = Passwords(self.passwords)
        self.assertEqual(again.take_up(store), 2)
        last = list(import_people(store, people, decide, generate=True, passwords=again, batch=2))[-1]
        self.assertEqual((last.enabled, last.present), (4, 2))
        given = [line.split("\t")[0] for line in self.passwords.read_text().splitlines()]
        self.assertEqual(sorted(given), sorted(one.address for one in people))
        self.assertEqual(len(handlers.list_users(store)), 6)

    def test_not_taken_up(self) -> None:
        """A password that was about to be given, and never came to count, is not kept."""
        store = Store(self.url, FarmKey.load(self.folder / "farm.key"))
        self.addCleanup(store.close)
        kept = Passwords(self.passwords)
        kept.give(2, "petra@fabrik.example", "never-given-42")
        kept.before()
        self.assertEqual(Passwords(self.passwords).take_up(store), 0)
        self.assertEqual(self.passwords.read_text(), "")


class LdapTests(CommandCase):
    """C{rvpfarm user import --ldap-filter}"""

    def setUp(self) -> None:
        """A farm, and a directory of people."""
        super().setUp()
        if missing():
            self.skipTest(missing())
        self.make_farm()

    def test_from_ldap(self) -> None:
        """Whoever meets the filter is enabled under the name in LDAP; a second time they are there already."""
        words = ("user", "import", "--ldap-filter", "(uid=*)", "--json")
        self.assertIn("no LDAP directory", self.run_it(*words, status=1).stderr)
        key = FarmKey.load(self.folder / "farm.key")
        store = Store(self.url, key)
        self.addCleanup(store.close)
        put_settings(store, settings_for(shared_slapd("openldap")), key)
        first = json.loads(self.invoke(*words).stdout)
        self.assertGreater(first["enabled"], 1)
        shown = json.loads(self.run_it("user", "show", "petra@fabrik.example", "--json").stdout)
        self.assertEqual((shown["alias"], shown["enabled"]), ("petra", True))
        with store.read() as reading:
            self.assertTrue(reading.own_policy(shown["id"], LINK), "not tied to the entry")
        again = json.loads(self.invoke(*words).stdout)
        self.assertEqual((again["enabled"], again["present"]), (0, first["enabled"]))
        self.assertEqual(len(again["complaints"]), len(first["complaints"]))
        bad = self.run_it("user", "import", "--ldap-filter", "((", status=1).stderr
        self.assertIn("filter", bad)

    def test_one_of_both(self) -> None:
        """A file and a filter at once, or neither, is wrong usage."""
        self.run_it("user", "import", status=2)
