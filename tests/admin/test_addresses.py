"""Which form an IM address has: decided by rule, by DNS, and anew."""

from __future__ import annotations

import json
from dataclasses import replace

from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.admin import handlers
from rvpfarm.admin.addresses import (
    IM,
    MAIL,
    Decision,
    Offer,
    Question,
    decide,
    hosts_of,
    plan_readdress,
    question_about,
    question_of,
    readdress_user,
    users_to_readdress,
)
from rvpfarm.admin.checks import Refused
from rvpfarm.admin.command import rvpfarm
from rvpfarm.admin.nodes import create_node
from rvpfarm.directory.model import Account, Domain, Farm, Home, Router
from tests.admin.test_command import CommandCase
from tests.admin.test_handlers import HandlerCase
from tests.support.directory import make_account, make_farm
from tests.support.dnsserver import DnsServer

FABRIK = Domain("im.fabrik.example", ("fabrik.example", "fabrik.test"), ("omnent",))
ORCHARD = Domain("im.orchard.example", ("orchard.example",))
HS1 = Home("1", "hs1", "hs1.fabrik.example", 80, 8081)
R1 = Router("9", "r1", "r1.fabrik.example", 80, "192.0.2.1")
FARM = make_farm([FABRIK, ORCHARD], [HS1], [R1])
RECORD = "_rvp._tcp.fabrik.example"
PASSWORD = "Blue-Kite-41"


class DecideTests(SynchronousTestCase):
    """The form follows from the rule and from what the DNS said, and from nothing else (product F20)."""

    def question(self, rule: str = "srv", mail_domain: str = "fabrik.example", farm: Farm = FARM) -> Question:
        """About somebody of im.fabrik.example."""
        return Question(farm, FABRIK, mail_domain, rule, "the policy address-form")

    def decide(self, *targets: str, farm: Farm = FARM) -> Decision:
        """What SRV records with these targets come to."""
        return decide(self.question(farm=farm), [Offer(0, 0, 80, target) for target in targets])

    def test_leads_here(self) -> None:
        """A record that leads to the IM domain, an alias of it or a router of it gives the mail form."""
        for target in ("im.fabrik.example", "omnent", "r1.fabrik.example"):
            found = self.decide(target)
            self.assertEqual((found.form, found.warning), (MAIL, ""), target)
            self.assertEqual(found.said, f"{RECORD}: 0 0 80 {target}.")

    def test_none(self) -> None:
        """Without a record it is the IM form, as in the original."""
        found = self.decide()
        self.assertEqual((found.form, found.warning), (IM, ""))
        self.assertEqual(found.why, f"there is no SRV record {RECORD}")

    def test_leads_elsewhere(self) -> None:
        """A record that leads elsewhere, or also elsewhere, is no help, and a mistake (D02)."""
        for targets in (
            ["im.elsewhere.example"],
            ["im.fabrik.example", "im.elsewhere.example"],
            ["hs1.fabrik.example"],
            ["im.orchard.example"],
            [""],
        ):
            found = self.decide(*targets)
            self.assertEqual(found.form, IM, targets)
            self.assertIn("(D02)", found.warning)
        self.assertIn("leads to nowhere", self.decide("").warning)

    def test_homes_stand_in(self) -> None:
        """Where there is no router, a record may lead to a home."""
        self.assertEqual(self.decide("hs1.fabrik.example", farm=replace(FARM, routers={})).form, MAIL)

    def test_router_of_another_domain(self) -> None:
        """A router whose name stands for another IM domain of the farm does not answer for this one (D23)."""
        other = Router("8", "r2", "r2.orchard.example", 80)
        farm = replace(FARM, routers={"9": R1, "8": other})
        self.assertEqual(hosts_of(farm, FABRIK), {"im.fabrik.example", "omnent", "r1.fabrik.example"})
        self.assertEqual(hosts_of(farm, ORCHARD), {"im.orchard.example", "r2.orchard.example"})

    def test_by_rule(self) -> None:
        """The rules mail and im need no DNS."""
        for rule in (MAIL, IM):
            question = self.question(rule)
            self.assertFalse(question.needs_dns)
            self.assertEqual(decide(question), Decision(rule, f"the policy address-form is {rule}"))

    def test_nothing_to_decide(self) -> None:
        """Where there is only one form, nobody is asked."""
        for question, form, words in (
            (self.question(mail_domain="partner.example"), IM, "does not serve the mail domain"),
            (self.question(mail_domain=""), IM, "serves no mail domain"),
            (replace(self.question(mail_domain=""), typed=True), IM, "an IM address was given"),
            (
                Question(FARM, Domain("x.example", ("x.example",)), "x.example", "srv", ""),
                MAIL,
                "is the mail domain, too",
            ),
        ):
            self.assertFalse(question.needs_dns, words)
            self.assertEqual(decide(question).form, form)
            self.assertIn(words, decide(question).why)
        self.assertTrue(self.question().needs_dns)


class QuestionTests(HandlerCase):
    """What has to be known before somebody's address is."""

    def ask(self, text: str, domain: str | None = None, rule: str | None = None) -> Question | None:
        """The question about C{text}."""
        with self.store.read() as reading:
            return question_about(reading, text, domain, rule)

    def test_mail_domain(self) -> None:
        """It is about the mail domain that was typed, or the primary one."""
        for text, mail_domain in (
            ("petra@fabrik.example", "fabrik.example"),
            ("petra", "fabrik.example"),
            ("petra@im.fabrik.example", ""),
        ):
            question = self.ask(text)
            assert question is not None
            self.assertEqual((question.mail_domain, question.typed), (mail_domain, not mail_domain))

    def test_rule(self) -> None:
        """An option goes before the domain's policy, that before the farm's, and that before the default."""
        for setting, domain, expected in (
            (None, None, "srv"),
            ("im", None, "im"),
            ("mail", "im.fabrik.example", "mail"),
        ):
            if setting is not None:
                handlers.set_policy(self.store, "address-form", setting, domain)
            question = self.ask("petra")
            assert question is not None
            self.assertEqual((question.rule, question.by), (expected, "the policy address-form"))
        question = self.ask("petra", rule="srv")
        assert question is not None
        self.assertEqual((question.rule, question.by), ("srv", "--address-form"))
        self.refused("one of srv, mail, im", handlers.set_policy, "address-form", "both")

    def test_existing(self) -> None:
        """Whoever has an address already keeps it when enabled again."""
        handlers.enable_user(self.store, "petra@fabrik.example", form=IM)
        handlers.disable_user(self.store, "petra")
        self.assertIs(self.ask("petra"), None)
        back = handlers.enable_user(self.store, "petra", form=MAIL)
        self.assertEqual(back.address, "petra@im.fabrik.example")

    def test_of_users(self) -> None:
        """The mail domain of a user is that of the mail address, the IM address, or the primary one."""
        for email, address, mail_domain in (
            ("p@fabrik.test", "petra@fabrik.example", "fabrik.test"),
            ("p@elsewhere.example", "petra@FABRIK.test", "fabrik.test"),
            ("", "petra@im.fabrik.example", "fabrik.example"),
        ):
            account = replace(
                make_account("im.fabrik.example/instmsg/aliases/petra", HS1), email=email, address=address
            )
            self.assertEqual(question_of(FARM, account).mail_domain, mail_domain)

    def test_form_given(self) -> None:
        """Handlers are told the form, and take the mail form where they are not."""
        self.assertEqual(handlers.plan_user(self.store, "petra").account.address, "petra@fabrik.example")
        self.assertEqual(
            handlers.plan_user(self.store, "petra@fabrik.example", form=IM).account.address,
            "petra@im.fabrik.example",
        )
        petra = handlers.enable_user(self.store, "petra@fabrik.example", form=IM)
        self.assertEqual((petra.address, petra.email), ("petra@im.fabrik.example", "petra@fabrik.example"))


class ReaddressTests(HandlerCase):
    """The form is decided anew, and nothing else about the user changes."""

    def setUp(self) -> None:
        """Petra, with the IM form and a password."""
        super().setUp()
        self.petra = handlers.enable_user(
            self.store, "Petra@fabrik.example", password=PASSWORD, form=IM, display_name="Petra Novak"
        )

    def account(self, text: str) -> Account:
        """The account meant by C{text}."""
        found = handlers.find_user(self.store, text)
        assert found is not None
        return found

    def test_address_only(self) -> None:
        """Only the address is another one; URL, key, home, mail address, name and password stay."""
        before = self.account("petra")
        done = readdress_user(self.store, "petra", MAIL, actor="ann")
        self.assertEqual((done.address, done.conflict, done.remedy), ("Petra@fabrik.example", "", ""))
        after = self.account("petra")
        self.assertEqual(after, replace(before, address="Petra@fabrik.example"))
        self.assertTrue(before.verifiers)
        row = handlers.list_audit(self.store)[-1]
        self.assertEqual((row.actor, row.action, row.subject), ("ann", "user readdress", after.address))
        self.assertEqual(json.loads(row.before)["account"]["address"], "Petra@im.fabrik.example")

    def test_both_forms_lead_there(self) -> None:
        """The old form goes on to mean the same user, for administrators and as a sign-in name."""
        readdress_user(self.store, "petra", MAIL)
        for text in ("petra@im.fabrik.example", "petra@fabrik.example", "PETRA"):
            self.assertEqual(self.account(text).id, self.petra.id)
        names = {one.username for one in self.account("petra").verifiers}
        self.assertLessEqual({"Petra", "petra", "Petra@im.fabrik.example", "Petra@fabrik.example"}, names)

    def test_old_form_is_not_free(self) -> None:
        """Nobody else can be given the old form."""
        readdress_user(self.store, "petra", MAIL)
        for text in ("petra@im.fabrik.example", "petra@fabrik.example"):
            self.refused("enabled already", handlers.enable_user, text)
        handlers.add_domain(self.store, "im.orchard.example")
        other = handlers.enable_user(self.store, "petra@im.fabrik.example", domain="im.orchard.example")
        self.assertEqual(other.address, "petra@im.orchard.example")

    def test_same_again(self) -> None:
        """Who has the right form already is left alone, without a trail."""
        before = handlers.list_audit(self.store)
        self.assertFalse(readdress_user(self.store, "petra", IM).changes)
        self.assertEqual(handlers.list_audit(self.store), before)

    def test_sign_in_name(self) -> None:
        """Of a mail domain that came after the password, Digest knows no sign-in name: that is reported."""
        handlers.set_policy(self.store, "schemes", "ntlm digest-sha-256")
        with self.store.change("test", "domain mail add", "x") as writing:
            domain = writing.farm().domains["im.fabrik.example"]
            writing.update_domain(replace(domain, mail_domains=("new.example", *domain.mail_domains)))
            account = writing.account(self.petra.key)
            assert account is not None
            writing.update_account(replace(account, email=""))
        (planned,) = plan_readdress(self.store, [(self.account("petra"), MAIL)])
        self.assertEqual(planned.address, "Petra@new.example")
        self.assertEqual(planned.remedy, "rvpfarm user passwd Petra@new.example")
        self.assertEqual(readdress_user(self.store, "petra", MAIL).remedy, planned.remedy)
        self.assertIn("Petra", {one.username for one in self.account("petra").verifiers})
        handlers.set_password(self.store, "petra", PASSWORD)
        readdress_user(self.store, "petra", IM)
        self.assertEqual(readdress_user(self.store, "petra", MAIL).remedy, "")

    def test_sign_in_without_digest(self) -> None:
        """Where Digest is not offered, or there is no password, nothing has to be done."""
        handlers.set_policy(self.store, "schemes", "ntlm")
        with self.store.change("test", "domain mail add", "x") as writing:
            domain = writing.farm().domains["im.fabrik.example"]
            writing.update_domain(replace(domain, mail_domains=("new.example",)))
        self.assertEqual(readdress_user(self.store, "petra", MAIL).remedy, "")
        handlers.set_policy(self.store, "schemes", None)
        ann = handlers.enable_user(self.store, "ann", form=IM)
        self.assertEqual(readdress_user(self.store, ann.address, MAIL).remedy, "")

    def test_taken(self) -> None:
        """An address that somebody else has is not given away, nor changed."""
        readdress_user(self.store, "petra", MAIL)
        handlers.add_domain(self.store, "im.orchard.example")
        with self.store.change("test", "domain mail move", "x") as writing:
            domains = writing.farm().domains
            writing.update_domain(replace(domains["im.fabrik.example"], mail_domains=()))
            writing.update_domain(replace(domains["im.orchard.example"], mail_domains=("fabrik.example",)))
        other = handlers.enable_user(self.store, "petra", domain="im.orchard.example", form=IM)
        (planned,) = plan_readdress(self.store, [(other, MAIL)])
        self.assertIn("petra@fabrik.example is taken by", planned.conflict)
        self.assertEqual(readdress_user(self.store, other.address, MAIL), planned)
        self.assertEqual(self.account(other.address).address, "petra@im.orchard.example")

    def test_who(self) -> None:
        """Users are chosen by name, by domain, or all; groups have no such address."""
        create_node(self.store, "/groups/shipping", "petra")
        handlers.enable_user(self.store, "ann")
        chosen = users_to_readdress(self.store, ["petra", "petra@im.fabrik.example"], None, None)
        self.assertEqual([account.alias for account, _ in chosen], ["Petra"])
        chosen = users_to_readdress(self.store, [], "im.fabrik.example", IM)
        self.assertEqual([(account.alias, one.rule) for account, one in chosen], [("ann", IM), ("Petra", IM)])
        self.assertEqual(len(users_to_readdress(self.store, [], None, None)), 2)
        self.refused("there is no user", users_to_readdress, ["nobody"], None, None)
        self.refused("there is no IM domain", users_to_readdress, [], "im.elsewhere.example", None)
        self.assertRaises(Refused, readdress_user, self.store, "nobody", MAIL)


class VerbTests(CommandCase):
    """The same, as an administrator types it, with a DNS server to ask."""

    def setUp(self) -> None:
        """A farm that asks the DNS, which leads to it."""
        super().setUp()
        self.make_farm()
        self.run_it("policy", "set", "address-form", "--default")
        self.dns = DnsServer({RECORD: ["0 0 80 im.fabrik.example."]})
        self.addCleanup(self.dns.close)

    def asking(self, *args: str, status: int = 0) -> str:
        """Run a command that asks our server; what it says, warnings too."""
        return self.run_it(*args, status=status, RVPFARM_DNS=self.dns.address).output

    def addresses(self) -> list[str]:
        """The addresses that users have."""
        return [one["address"] for one in json.loads(self.run_it("user", "list", "--json").stdout)]

    def test_enable(self) -> None:
        """The SRV record decides at that moment; a dry run says what the DNS said."""
        told = self.asking("user", "enable", "petra@fabrik.example", "--dry-run")
        self.assertIn("IM address: petra@fabrik.example\n", told)
        self.assertIn(f"Form:       mail: the SRV record {RECORD} leads here\n", told)
        self.assertIn(f"DNS said:   {RECORD}: 0 0 80 im.fabrik.example.\n", told)
        self.asking("user", "enable", "petra@fabrik.example", "--no-password")
        self.dns.records.clear()
        told = self.asking("user", "enable", "ann@fabrik.example", "--no-password")
        self.assertIn("Not the mail address: there is no SRV record", told)
        self.assertEqual(self.addresses(), ["ann@im.fabrik.example", "petra@fabrik.example"])

    def test_server_by_option(self) -> None:
        """The server can be given by option; what is none is wrong usage."""
        self.run_it("user", "enable", "petra@fabrik.example", "--no-password", "--dns", self.dns.address)
        self.assertEqual(self.dns.asked, [RECORD])
        self.run_it("user", "enable", "ann@fabrik.example", "--no-password", "--dns", "ns.example", status=2)

    def test_leads_elsewhere(self) -> None:
        """A record that leads elsewhere gives the IM form, with a warning."""
        self.dns.records[RECORD] = ["0 0 80 im.elsewhere.example."]
        told = self.asking("user", "enable", "petra@fabrik.example", "--no-password")
        self.assertIn("rvpfarm: warning: the SRV record", told)
        self.assertEqual(self.addresses(), ["petra@im.fabrik.example"])

    def test_cannot_be_asked(self) -> None:
        """When the DNS does not answer nobody is enabled, and the sentence says how to go on."""
        self.dns.rcode = "SERVFAIL"
        told = self.asking("user", "enable", "petra@fabrik.example", "--no-password", status=1)
        self.assertIn("--address-form mail or im", told)
        self.assertEqual(self.addresses(), [])
        self.asking("user", "enable", "petra@fabrik.example", "--no-password", "--address-form", "mail")
        told = self.asking("user", "enable", "ann", "--dry-run", "--address-form", "im")
        self.assertIn("Form:       im: --address-form is im\n", told)
        self.assertIn("DNS said:   nothing: it was not asked\n", told)
        self.assertEqual(self.addresses(), ["petra@fabrik.example"])

    def test_returning(self) -> None:
        """Who comes back keeps the address without a question; a form that was asked for is said to be no use."""
        self.asking("user", "enable", "petra@fabrik.example", "--no-password")
        self.run_it("user", "disable", "petra", "--yes")
        self.dns.asked.clear()
        told = self.asking("user", "enable", "petra", "--address-form", "im")
        self.assertIn("--address-form changes no address", told)
        self.assertEqual((self.addresses(), self.dns.asked), (["petra@fabrik.example"], []))

    def test_readdress(self) -> None:
        """Once the record is there, addresses are made right; the DNS is asked once for all."""
        self.dns.records.clear()
        for name in ("ann", "petra"):
            self.asking("user", "enable", f"{name}@fabrik.example", "--no-password")
        self.dns.records[RECORD] = ["0 0 80 im.fabrik.example."]
        self.dns.asked.clear()
        told = self.asking("user", "readdress", "--all", "--dry-run")
        self.assertIn("petra@im.fabrik.example", told)
        self.assertIn("leads here", told)
        self.assertIn("2 users would get another address; nothing was changed.", told)
        self.assertEqual(self.dns.asked, [RECORD])
        self.assertEqual(self.addresses(), ["ann@im.fabrik.example", "petra@im.fabrik.example"])
        told = self.asking("user", "readdress", "petra", "--yes")
        self.assertIn("1 user got another address.", told)
        self.assertIn("messages to the old form still arrive", told)
        self.assertEqual(self.addresses(), ["ann@im.fabrik.example", "petra@fabrik.example"])
        self.asking("user", "readdress", "--domain", "im.fabrik.example", "--yes")
        self.assertEqual(self.addresses(), ["ann@fabrik.example", "petra@fabrik.example"])
        told = self.asking("user", "readdress", "--all")
        self.assertEqual(told, "0 users would get another address; nothing was changed.\n")

    def test_readdress_asks(self) -> None:
        """Unless told not to, it asks first."""
        self.asking("user", "enable", "petra@fabrik.example", "--no-password")
        words = ["--directory", self.url, "user", "readdress", "petra", "--form", "im"]
        refused = CliRunner().invoke(rvpfarm, words, input="n\n")
        self.assertEqual((refused.exit_code, self.addresses()), (1, ["petra@fabrik.example"]))
        agreed = CliRunner().invoke(rvpfarm, words, input="y\n")
        self.assertEqual((agreed.exit_code, self.addresses()), (0, ["petra@im.fabrik.example"]))

    def test_readdress_usage(self) -> None:
        """It is said who is meant, in one way."""
        self.run_it("user", "readdress", status=2)
        self.run_it("user", "readdress", "petra", "--all", status=2)
        self.run_it("user", "readdress", "--all", "--domain", "im.fabrik.example", status=2)
        self.assertIn("there is no user", self.run_it("user", "readdress", "nobody", status=1).stderr)
