"""What is kept of passwords, by policy: who can sign in by what, and what to do about the rest."""

from __future__ import annotations

import json
import re

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.admin import handlers
from rvpfarm.admin.handlers import Refused
from rvpfarm.admin.passwords import PasswordState
from rvpfarm.directory.model import Account
from tests.admin.test_command import CommandCase
from tests.support.store import make_farm_store

DIGEST = ("digest-md5", "digest-sha-256")
OFFERED = ("ntlm", *DIGEST)
PASSWORD = "Blue-Kite-41"


class PolicyCase(SynchronousTestCase):
    """A directory with three users who have passwords."""

    def setUp(self) -> None:
        """Two domains; petra and tomasz in one, ingrid in the other."""
        self.store = make_farm_store(self)
        handlers.add_domain(self.store, "im.orchard.example", ["orchard.example"], actor="test")
        for address in ("petra@fabrik.example", "tomasz@fabrik.example", "ingrid@orchard.example"):
            handlers.enable_user(self.store, address, password=PASSWORD, actor="test")

    def kept(self, address: str) -> tuple[str, ...]:
        """The schemes of the verifiers of a user."""
        return handlers.show_user(self.store, address).schemes

    def state(self, address: str) -> PasswordState:
        """What a user's password is good for."""
        return handlers.show_user(self.store, address).password

    def account(self, name: str) -> Account:
        """A user of im.fabrik.example with its verifiers."""
        with self.store.read() as reading:
            found = reading.account(f"im.fabrik.example/instmsg/aliases/{name}")
        assert found is not None
        return found


class ForbidTests(PolicyCase):
    """Forbidding takes effect at once."""

    def test_farm_wide(self) -> None:
        """What is kept already goes, everybody's, and nothing else."""
        change = handlers.change_policy(self.store, "digest-verifiers", "forbidden")
        self.assertEqual((change.value, change.dropped), ("forbidden", 3))
        for name in ("petra", "tomasz", "ingrid"):
            self.assertEqual(self.kept(name), ("nt",))
        self.assertEqual({one.scheme for one in self.account("petra").verifiers}, {"nt"})
        self.assertEqual(handlers.change_policy(self.store, "nt-hashes", "forbidden").dropped, 3)
        self.assertEqual(self.account("petra").verifiers, ())

    def test_one_domain(self) -> None:
        """A policy of one domain is about its users only."""
        change = handlers.change_policy(self.store, "nt-hashes", "forbidden", "im.orchard.example")
        self.assertEqual(change.dropped, 1)
        self.assertEqual((self.kept("ingrid"), self.kept("petra")), (DIGEST, (*DIGEST, "nt")))

    def test_domain_goes_before_farm(self) -> None:
        """A domain that has a setting of its own does not follow the farm's; without it, it does at once."""
        handlers.set_policy(self.store, "nt-hashes", "allowed", "im.orchard.example")
        self.assertEqual(handlers.change_policy(self.store, "nt-hashes", "forbidden").dropped, 2)
        self.assertIn("nt", self.kept("ingrid"))
        change = handlers.change_policy(self.store, "nt-hashes", None, "im.orchard.example")
        self.assertEqual((change.value, change.dropped), ("forbidden", 1))
        self.assertNotIn("nt", self.kept("ingrid"))

    def test_new_passwords(self) -> None:
        """A password set while they are forbidden makes none."""
        handlers.set_policy(self.store, "digest-verifiers", "forbidden")
        handlers.set_password(self.store, "petra", "Green-Kite-42")
        self.assertEqual(self.kept("petra"), ("nt",))

    def test_allowed_again(self) -> None:
        """Allowing makes nothing of nothing: each password has to be set anew."""
        handlers.set_policy(self.store, "digest-verifiers", "forbidden")
        self.assertEqual(handlers.change_policy(self.store, "digest-verifiers", "allowed").dropped, 0)
        self.assertEqual(self.kept("petra"), ("nt",))
        handlers.set_password(self.store, "petra", "Green-Kite-42")
        self.assertEqual(self.kept("petra"), (*DIGEST, "nt"))

    def test_disabled_users_too(self) -> None:
        """Somebody who is disabled does not come back with what is forbidden."""
        handlers.disable_user(self.store, "petra")
        self.assertEqual(handlers.change_policy(self.store, "nt-hashes", "forbidden").dropped, 3)
        handlers.enable_user(self.store, "petra")
        self.assertEqual(self.kept("petra"), DIGEST)

    def test_dry_run(self) -> None:
        """It tells how many would lose something, and changes nothing."""
        before = len(handlers.list_audit(self.store))
        change = handlers.change_policy(self.store, "nt-hashes", "forbidden", dry_run=True)
        self.assertEqual((change.value, change.dropped), ("forbidden", 3))
        self.assertIn("nt", self.kept("petra"))
        self.assertEqual(handlers.farm_of(self.store).policy("nt-hashes"), "allowed")
        self.assertEqual(len(handlers.list_audit(self.store)), before)

    def test_audit_and_caches(self) -> None:
        """One audit row says what went; whoever remembers those accounts is told to look again."""
        with self.store.read() as reading:
            position = reading.position()
        handlers.set_policy(self.store, "nt-hashes", "forbidden", "im.fabrik.example", actor="ann")
        row = handlers.list_audit(self.store)[-1]
        self.assertEqual((row.actor, row.action, row.subject), ("ann", "policy set", "nt-hashes"))
        self.assertEqual(json.loads(row.after)["dropped"], {"schemes": ["nt"], "accounts": 2})
        with self.store.read() as reading:
            changes = reading.changes_since(position)
        self.assertTrue(changes.farm)
        self.assertEqual(
            set(changes.keys), {f"im.fabrik.example/instmsg/aliases/{name}" for name in ("petra", "tomasz")}
        )
        self.assertIs(handlers.check_audit(self.store), None)


class OwnPolicyTests(PolicyCase):
    """A user may have a setting that goes before those of the domain and the farm."""

    def test_allowed(self) -> None:
        """Whoever is allowed by name keeps what everybody else loses."""
        self.assertEqual(
            handlers.change_user_policy(self.store, "petra", "digest-verifiers", "allowed", actor="t"), ()
        )
        self.assertEqual(handlers.change_policy(self.store, "digest-verifiers", "forbidden").dropped, 2)
        self.assertEqual((self.kept("petra"), self.kept("tomasz")), ((*DIGEST, "nt"), ("nt",)))
        handlers.set_password(self.store, "petra", "Green-Kite-42")
        self.assertIn("digest-md5", self.kept("petra"))
        self.assertEqual(self.state("petra").policies, {"digest-verifiers": "allowed"})

    def test_forbidden(self) -> None:
        """Whoever is forbidden by name loses it at once, and has it back after a new password."""
        dropped = handlers.change_user_policy(self.store, "petra", "digest-verifiers", "forbidden")
        self.assertEqual(dropped, DIGEST)
        self.assertEqual((self.kept("petra"), self.kept("tomasz")), (("nt",), (*DIGEST, "nt")))
        handlers.change_user_policy(self.store, "petra", "digest-verifiers", "default")
        self.assertEqual((self.kept("petra"), self.state("petra").policies), (("nt",), {}))
        handlers.set_password(self.store, "petra", "Green-Kite-42")
        self.assertEqual(self.kept("petra"), (*DIGEST, "nt"))

    def test_back_to_a_forbidding_default(self) -> None:
        """Taking the exception back drops what only the exception allowed."""
        handlers.change_user_policy(self.store, "petra", "nt-hashes", "allowed")
        handlers.set_policy(self.store, "nt-hashes", "forbidden")
        self.assertEqual(handlers.change_user_policy(self.store, "petra", "nt-hashes", "default"), ("nt",))
        self.assertEqual(self.kept("petra"), DIGEST)

    def test_dry_run(self) -> None:
        """It tells what would be lost, and changes nothing."""
        dropped = handlers.change_user_policy(self.store, "petra", "nt-hashes", "forbidden", dry_run=True)
        self.assertEqual(dropped, ("nt",))
        self.assertEqual((self.kept("petra"), self.state("petra").policies), ((*DIGEST, "nt"), {}))

    def test_audited(self) -> None:
        """The row is the user's."""
        handlers.change_user_policy(self.store, "petra", "nt-hashes", "forbidden", actor="ann")
        row = handlers.list_audit(self.store, "petra@fabrik.example")[-1]
        self.assertEqual((row.actor, row.action), ("ann", "user policy"))
        self.assertEqual(json.loads(row.after)["dropped"], {"schemes": ["nt"], "accounts": 1})

    def test_refused(self) -> None:
        """Other policies, other values and other users are refused."""
        change = handlers.change_user_policy
        for words, arguments in (
            ("no policy", ("petra", "federation", "open")),
            ("no value", ("petra", "nt-hashes", "maybe")),
            ("no user", ("nobody", "nt-hashes", "allowed")),
        ):
            self.assertIn(words, str(self.assertRaises(Refused, change, self.store, *arguments)))


class DescribeTests(PolicyCase):
    """What is said of a password, and who is listed (product D18)."""

    def test_whole(self) -> None:
        """With a new password everything works, and it is known since when it stands."""
        state = self.state("petra")
        self.assertEqual((state.works, state.missing, state.remedy), (OFFERED, (), ()))
        self.assertIsNot(state.since, None)
        self.assertEqual(handlers.list_lacking(self.store), [])

    def test_missing(self) -> None:
        """After allowing again, the command is the one that sets the password."""
        handlers.set_policy(self.store, "digest-verifiers", "forbidden", "im.fabrik.example")
        forbidden = self.state("petra")
        self.assertEqual((forbidden.works, forbidden.forbidden, forbidden.remedy), (("ntlm",), DIGEST, ()))
        self.assertEqual(handlers.list_lacking(self.store), [])
        handlers.set_policy(self.store, "digest-verifiers", None, "im.fabrik.example")
        missing = self.state("petra")
        self.assertEqual((missing.works, missing.missing), (("ntlm",), DIGEST))
        self.assertEqual(missing.remedy, ("rvpfarm user passwd petra@fabrik.example",))
        listed = [view.account.alias for view in handlers.list_lacking(self.store)]
        self.assertEqual(listed, ["petra", "tomasz"])
        self.assertEqual(handlers.list_lacking(self.store, "im.orchard.example"), [])
        handlers.set_password(self.store, "tomasz", "Green-Kite-42")
        self.assertEqual([view.account.alias for view in handlers.list_lacking(self.store)], ["petra"])

    def test_nothing_works(self) -> None:
        """Whoever cannot sign in at all needs a policy first, then a password."""
        handlers.set_policy(self.store, "schemes", "digest-md5")
        handlers.set_policy(self.store, "digest-verifiers", "forbidden")
        state = self.state("petra")
        self.assertEqual((state.works, state.missing, state.forbidden), ((), (), ("digest-md5",)))
        for command in state.remedy:
            self.assertTrue(command.startswith("rvpfarm user "))
        self.assertEqual(len(state.remedy), 2)
        self.assertEqual(len(handlers.list_lacking(self.store)), 3)
        handlers.change_user_policy(self.store, "petra", "digest-verifiers", "allowed")
        handlers.set_password(self.store, "petra", "Green-Kite-42")
        self.assertEqual(self.state("petra").works, ("digest-md5",))

    def test_no_password(self) -> None:
        """Somebody without a password lacks everything; somebody disabled is not asked for one."""
        handlers.enable_user(self.store, "ann@fabrik.example")
        state = self.state("ann")
        self.assertEqual((state.since, state.works, state.missing), (None, (), OFFERED))
        self.assertEqual([view.account.alias for view in handlers.list_lacking(self.store)], ["ann"])
        handlers.disable_user(self.store, "ann")
        self.assertEqual(handlers.list_lacking(self.store), [])

    def test_negotiate(self) -> None:
        """Negotiate works by the hash that NTLM takes, and lacks nothing without: there is Kerberos."""
        handlers.set_policy(self.store, "schemes", "negotiate digest-md5")
        self.assertEqual(self.state("petra").works, ("negotiate", "digest-md5"))
        handlers.set_policy(self.store, "nt-hashes", "forbidden")
        state = self.state("petra")
        self.assertEqual((state.works, state.missing, state.remedy), (("digest-md5",), (), ()))


class RuleTests(PolicyCase):
    """What a password has to be, and policies that are numbers."""

    def test_length(self) -> None:
        """The least length is a policy, of the farm or a domain; a generated password meets it."""
        handlers.set_policy(self.store, "password-length", "14", "im.fabrik.example")
        problem = self.assertRaises(Refused, handlers.set_password, self.store, "petra", PASSWORD)
        self.assertIn("at least 14 characters", str(problem))
        handlers.set_password(self.store, "ingrid", "Green-Kite-42")
        handlers.set_policy(self.store, "password-length", "64")
        for least in (0, 17, 18, 64):
            self.assertGreaterEqual(len(handlers.generate_password(least)), max(17, least))
        handlers.set_password(self.store, "ingrid", handlers.generate_password(64))

    def test_numbers(self) -> None:
        """A number has bounds and one spelling."""
        self.assertEqual(handlers.set_policy(self.store, "failed-logins", " 0020 "), "20")
        for value in ("3", "65", "-8", "eight", "", "8.5", "\u0668", "9" * 40):
            problem = self.assertRaises(Refused, handlers.set_policy, self.store, "password-length", value)
            self.assertIn("from 4 to 64", str(problem))

    def test_openness_needs_proof(self) -> None:
        """Nobody can be told from a stranger where nobody proves who he is."""
        for first, second in (
            (("authentication", "off"), ("default-acl", "same-organisation")),
            (("default-acl", "same-organisation"), ("authentication", "off")),
        ):
            handlers.set_policy(self.store, *first, "im.fabrik.example")
            problem = self.assertRaises(
                Refused, handlers.set_policy, self.store, *second, "im.fabrik.example"
            )
            self.assertIn("im.fabrik.example nobody can be told from a stranger", str(problem))
            handlers.set_policy(self.store, second[0], second[1], "im.orchard.example")
            handlers.set_policy(self.store, first[0], None, "im.fabrik.example")
            handlers.set_policy(self.store, second[0], None, "im.orchard.example")
        handlers.set_policy(self.store, "authentication", "off")
        self.assertEqual(handlers.set_policy(self.store, "default-acl", "contacts-only"), "contacts-only")


class VerbTests(CommandCase):
    """The same, as an administrator types it."""

    def setUp(self) -> None:
        """A farm with petra, who has a password."""
        super().setUp()
        self.make_farm()
        self.run_it("user", "enable", "petra@fabrik.example", "--password-stdin", stdin=f"{PASSWORD}\n")

    def test_policy_set(self) -> None:
        """It says what a dry run would delete, what was deleted, and what allowing takes."""
        told = self.run_it("policy", "set", "nt-hashes", "forbidden", "--dry-run").stdout
        self.assertEqual(
            told,
            "Policy nt-hashes would be forbidden for the farm, and 1 user would lose what passwords are "
            "checked by; nothing was changed.\n",
        )
        told = self.run_it("policy", "set", "nt-hashes", "forbidden").stdout
        self.assertIn("Deleted what the passwords of 1 user were checked by.", told)
        told = self.run_it("policy", "set", "nt-hashes", "--default").stdout
        self.assertIn('"rvpfarm user list --missing-verifiers" shows', told)

    def test_show(self) -> None:
        """It says by what the user signs in, since when, and the exact command for the rest."""
        shown = self.run_it("user", "show", "petra").stdout
        self.assertRegex(shown, r"Password: +set \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC\n")
        self.assertRegex(shown, r"Signs in by: +ntlm, digest-md5, digest-sha-256\n")
        self.run_it("policy", "set", "nt-hashes", "forbidden")
        self.assertRegex(self.run_it("user", "show", "petra").stdout, r"Never by: +ntlm: a policy forbids")
        self.run_it("policy", "set", "nt-hashes", "allowed")
        shown = self.run_it("user", "show", "petra").stdout
        self.assertRegex(shown, r"Not by: +ntlm: the password was not set since")
        command = re.findall(r"To do: +rvpfarm (.*)\n", shown)
        self.assertEqual(command, ["user passwd petra@fabrik.example"])
        self.run_it(*command[0].split(), "--generate-password")
        self.assertNotIn("To do", self.run_it("user", "show", "petra").stdout)

    def test_show_without_password(self) -> None:
        """No password at all is said to be none."""
        self.run_it("user", "enable", "tomasz@fabrik.example", "--no-password")
        shown = self.run_it("user", "show", "tomasz").stdout
        self.assertRegex(shown, r"Password: +none\n")
        self.assertRegex(shown, r"Signs in by: +nothing\n")

    def test_list(self) -> None:
        """Who needs a new password is listed, with the command; JSON is as of one user."""
        nobody = self.run_it("user", "list", "--missing-verifiers").stdout
        self.assertEqual(nobody, "Every enabled user can sign in by all that is offered and allowed.\n")
        self.run_it("user", "policy", "petra", "nt-hashes", "forbidden")
        self.run_it("user", "policy", "petra", "nt-hashes", "default")
        told = self.run_it("user", "list", "--missing-verifiers").stdout
        self.assertIn("rvpfarm user passwd petra@fabrik.example", told)
        (listed,) = json.loads(self.run_it("user", "list", "--missing-verifiers", "--json").stdout)
        self.assertEqual(listed, json.loads(self.run_it("user", "show", "petra", "--json").stdout))
        self.assertEqual((listed["missing"], listed["works"]), (["ntlm"], list(DIGEST)))
        self.assertEqual(json.loads(self.run_it("user", "list", "--home", "hs2", "--json").stdout), [])

    def test_user_policy(self) -> None:
        """It says what was lost and what to do; a dry run only tells."""
        told = self.run_it("user", "policy", "petra", "digest-verifiers", "forbidden", "--dry-run").stdout
        self.assertIn("would lose what digest-md5, digest-sha-256 takes; nothing was changed", told)
        told = self.run_it("user", "policy", "petra", "digest-verifiers", "forbidden").stdout
        self.assertIn("Deleted what the password was checked by for digest-md5, digest-sha-256.", told)
        self.assertIn("Own policies", self.run_it("user", "show", "petra").stdout)
        told = self.run_it("user", "policy", "petra", "digest-verifiers", "default").stdout
        self.assertIn("To do: rvpfarm user passwd petra@fabrik.example", told)
        told = self.run_it("user", "policy", "petra", "digest-verifiers", "allowed", "--dry-run").stdout
        self.assertIn("would lose nothing", told)
        self.run_it("user", "policy", "petra", "colour", "allowed", status=2)

    def test_passwd(self) -> None:
        """It says for what the new password does not do, and follows the length of the policy."""
        self.run_it("policy", "set", "nt-hashes", "forbidden")
        self.run_it("policy", "set", "password-length", "30")
        told = self.run_it("user", "passwd", "petra", "--generate-password").stdout
        self.assertIn("It does not do for ntlm: a policy forbids", told)
        self.assertRegex(told, r"Password:    [\w-]{30,} ")
        listed = json.loads(self.run_it("policy", "list", "--json").stdout)
        (length,) = [one for one in listed if one["name"] == "password-length"]
        self.assertEqual((length["value"], length["choices"], length["range"]), ("30", [], [4, 64]))
        self.assertRegex(self.run_it("policy", "list").stdout, r"password-length +30 +8 +4 to 64")
