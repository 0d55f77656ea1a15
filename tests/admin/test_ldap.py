"""C{rvpfarm ldap}: settings, every step of finding somebody, and what Exchange had."""

from __future__ import annotations

import json
from ipaddress import IPv4Address

from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.admin import handlers
from rvpfarm.admin.command import rvpfarm
from rvpfarm.admin.exchange import decode_range
from rvpfarm.admin.ldap import ldap_users
from tests.admin.test_command import CommandCase
from tests.support.slapd import BASE, READER, READER_PASSWORD, Slapd, missing
from tests.support.trees import CHATTERS, EXCHANGE, PASSWORDS, person_dn, shared_slapd, span


class RangeTests(SynchronousTestCase):
    """Exchange's ranges are numbers of 64 bits."""

    def test_known(self) -> None:
        """Also where the sign is set, and whichever address stands in front."""
        self.assertEqual(decode_range(0x0A000000_0AFFFFFF), ("10.0.0.0", "10.255.255.255"))
        self.assertEqual(decode_range(int(span("192.0.2.0", "192.0.2.9"))), ("192.0.2.0", "192.0.2.9"))
        self.assertLess(int(span("192.0.2.0", "192.0.2.9")), 0)
        self.assertEqual(decode_range(0x0AFFFFFF_0A000000), ("10.0.0.0", "10.255.255.255"))

    @given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
    def test_any(self, one: int, other: int) -> None:
        """Every range comes back."""
        first, last = sorted((one, other))
        made = span(str(IPv4Address(first)), str(IPv4Address(last)))
        self.assertEqual(decode_range(int(made)), (str(IPv4Address(first)), str(IPv4Address(last))))


class LdapCase(CommandCase):
    """A farm, and a real server."""

    style, profile = "openldap", "openldap"

    def setUp(self) -> None:
        """The farm goes by the server."""
        super().setUp()
        if missing():
            self.skipTest(missing())
        self.slapd: Slapd = shared_slapd(self.style)
        self.make_farm()

    def set_up(self, *more: str) -> str:
        """Have users come from it."""
        return self.run_it(
            *("ldap", "set", "--profile", self.profile, "--server", self.slapd.url, "--base", BASE),
            *("--bind-dn", READER, "--password-stdin", "--ca-file", self.slapd.certificate, *more),
            stdin=f"{READER_PASSWORD}\n",
        ).stdout

    def steps(self, user: str, status: int = 0) -> dict[str, tuple[bool, str]]:
        """What C{ldap test} says, by step."""
        arguments = ("ldap", "test", user, "--json")
        if status:  # it says so on standard output all the same
            done = CliRunner().invoke(rvpfarm, arguments, env={"RVPFARM_DIRECTORY": self.url})
            self.assertEqual(done.exit_code, status, done.output)
            out = done.stdout
        else:
            out = self.run_it(*arguments).stdout
        return {step["step"]: (step["ok"], step["text"]) for step in json.loads(out)}


class SettingsTests(LdapCase):
    """C{ldap set}, C{show} and C{unset}."""

    def test_set_and_show(self) -> None:
        """What is given changes, the rest stays, and the password is never shown nor kept in clear."""
        self.assertIn("Users come from LDAP now", self.set_up())
        self.run_it("ldap", "set", "--group", CHATTERS, "--membership", "member")
        shown = json.loads(self.run_it("ldap", "show", "--json").stdout)
        self.assertEqual(shown["groups"], [CHATTERS])
        self.assertEqual(shown["servers"], [self.slapd.url])
        self.assertIs(shown["password"], True)
        self.assertNotIn("sealed", shown)
        self.run_it("ldap", "set", "--group", "")
        self.assertEqual(json.loads(self.run_it("ldap", "show", "--json").stdout)["groups"], [])
        text = self.run_it("ldap", "show").stdout
        for file in self.folder.glob("directory.sqlite*"):
            self.assertNotIn(READER_PASSWORD.encode(), file.read_bytes())
        self.assertNotIn(READER_PASSWORD, text + self.run_it("audit", "list", "--json").stdout)

    def test_refused(self) -> None:
        """Settings that are of no use are refused in a sentence, and nothing changes."""
        self.run_it("ldap", "set", "--base", BASE, status=2)
        refused = self.run_it(
            *("ldap", "set", "--profile", "openldap", "--server", "ldap://ldap.fabrik.example"),
            *("--base", BASE, "--no-starttls"),
            status=1,
        )
        self.assertIn("would carry passwords in clear", refused.stderr)
        self.assertEqual(self.run_it("ldap", "show", "--json").stdout.strip(), "null")

    def test_dry_run(self) -> None:
        """It only says that it would do."""
        self.set_up("--dry-run")
        self.assertEqual(self.run_it("ldap", "show", "--json").stdout.strip(), "null")

    def test_unset(self) -> None:
        """Gone, with a question first; again is refused."""
        self.set_up()
        self.run_it("ldap", "unset", "--dry-run")
        self.run_it("ldap", "unset", "--yes")
        self.assertIn("do not come from LDAP", self.run_it("ldap", "show").stdout)
        self.run_it("ldap", "unset", "--yes", status=1)
        self.run_it("ldap", "test", "petra", status=1)


class UsersTests(LdapCase):
    """What an import asks for."""

    def test_listed(self) -> None:
        """Everybody whom the settings find and a further filter lets through."""
        store = handlers.open_store(self.url, self.folder / "farm.key")
        self.addCleanup(store.close)
        self.assertRaises(handlers.Refused, list, ldap_users(store))
        self.set_up()
        self.assertEqual({one.alias for one in ldap_users(store)}, set(PASSWORDS))
        self.assertEqual([one.mail for one in ldap_users(store, "(uid=petra)")], ["petra@fabrik.example"])


class StepsTests(LdapCase):
    """C{ldap test} tells every step."""

    def test_enabled_by_hand(self) -> None:
        """Before C{user enable} the last step says what to do; after it, who it is."""
        self.set_up()
        before = self.steps("petra@fabrik.example", status=1)
        self.assertEqual(before["entry"], (True, person_dn("petra")))
        self.assertIn("StartTLS; ", before["TLS"][1])
        self.assertIn("uid=petra", before["search"][1])
        self.assertIn("rvpfarm user enable petra@fabrik.example", before["account"][1])
        out = self.run_it("user", "enable", "petra@fabrik.example", "--home", "hs2").stdout
        self.assertIn(f"LDAP knows the user as {person_dn('petra')}", out)
        self.run_it("policy", "set", "schemes", "basic digest-sha-256")
        after = self.steps("petra")
        self.assertIn("petra@fabrik.example on home hs2", after["account"][1])
        self.assertIn("basic (the LDAP password, over TLS only)", after["proof"][1])
        shown = json.loads(self.run_it("user", "show", "petra@fabrik.example", "--json").stdout)
        self.assertEqual((shown["works"], shown["remedy"]), (["basic"], []))
        self.run_it("user", "passwd", "petra@fabrik.example", "--password-stdin", stdin="Own-Word-77\n")
        self.assertIn("digest-sha-256 (a password set here)", self.steps("petra")["proof"][1])

    def test_group(self) -> None:
        """No member is told so, with the filter that was asked."""
        self.set_up("--group", CHATTERS, "--membership", "member", "--automatic")
        self.assertFalse(self.steps("marta", status=1)["group"][0])
        self.assertIn("made at first sight", self.steps("petra", status=1)["account"][1])

    def test_nobody(self) -> None:
        """There is no such entry."""
        self.set_up()
        self.assertFalse(self.steps("nobody", status=1)["entry"][0])

    def test_disabled(self) -> None:
        """Somebody who was never seen can be disabled before he comes."""
        self.set_up("--automatic")
        self.run_it("user", "disable", "petra@fabrik.example", "--yes")
        self.assertIn("always wins", self.steps("petra", status=1)["local"][1])

    def test_wrong_authority(self) -> None:
        """A server that cannot prove who it is does not answer, and why is told."""
        self.set_up("--ca-file", "/etc/ssl/certs/ca-certificates.crt")
        self.assertFalse(self.steps("petra", status=1)["server"][0])

    def test_text(self) -> None:
        """For people it is a table; a password is never in it."""
        self.set_up("--automatic")
        self.run_it("policy", "set", "schemes", "basic")
        out = self.run_it("ldap", "test", "petra").stdout
        self.assertIn("bind", out)
        self.assertNotIn(PASSWORDS["petra"], out)


class ExchangeTests(LdapCase):
    """C{ldap import-settings} and C{ldap faults}."""

    style, profile = "windows", "exchange"

    def test_plan(self) -> None:
        """Servers that are not here and ranges become commands, the rest remarks; nothing is changed."""
        self.set_up("--config-base", EXCHANGE)
        out = self.run_it("ldap", "import-settings").stdout
        self.assertIn('# virtual server "HS1" is the home hs1.fabrik.example, which is here already', out)
        self.assertIn("rvpfarm network add inside 10.0.0.0-10.255.255.255", out)
        self.assertIn("rvpfarm network add inside 192.168.0.0-192.168.255.255", out)
        self.assertIn("by the proxy proxy.fabrik.example:8080", out)
        plan = json.loads(self.run_it("ldap", "import-settings", "--json").stdout)
        self.assertIn("rvpfarm network add inside 10.0.0.0-10.255.255.255", [one["command"] for one in plan])

    def test_faults(self) -> None:
        """Records that Exchange left half filled are listed, with what they lack."""
        self.set_up("--config-base", EXCHANGE)
        found = json.loads(self.run_it("ldap", "faults", "--json").stdout)
        self.assertEqual({one["dn"].partition(",")[0] for one in found}, {"cn=half", "cn=lost"}, found)

    def test_settings_are_one_record(self) -> None:
        """The profile of Exchange enables whom Exchange enabled, without anything more."""
        self.set_up("--config-base", EXCHANGE)
        self.run_it("policy", "set", "schemes", "basic")
        self.assertIn("on home hs2", self.steps("tomasz@fabrik.example")["account"][1])
