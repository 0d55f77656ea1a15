"""Further names of an IM domain, and mail domains that it serves, come and go."""

from __future__ import annotations

import json

from rvpfarm.admin import handlers
from rvpfarm.admin.addresses import readdress_user
from tests.admin.test_command import CommandCase
from tests.admin.test_handlers import HandlerCase

FABRIK = "im.fabrik.example"


class AliasTests(HandlerCase):
    """C{domain alias add|remove}"""

    def aliases(self) -> tuple[str, ...]:
        """The aliases of the domain."""
        return handlers.farm_of(self.store).domains[FABRIK].aliases

    def test_add_and_remove(self) -> None:
        """A name comes and goes, each time with one row of the audit trail."""
        done = handlers.add_alias(self.store, "IM.Fabrik.Example.", "Old.Fabrik.Example", actor="ann")
        self.assertEqual(
            (done.name, done.domain.aliases), ("old.fabrik.example", ("omnent", "old.fabrik.example"))
        )
        self.assertEqual(self.aliases(), ("old.fabrik.example", "omnent"))
        row = handlers.list_audit(self.store)[-1]
        self.assertEqual((row.actor, row.action, row.subject), ("ann", "domain alias add", FABRIK))
        self.assertEqual(
            json.loads(row.after)[f"domain {FABRIK}"]["aliases"], ["omnent", "old.fabrik.example"]
        )
        handlers.remove_alias(self.store, FABRIK, "OMNENT")
        self.assertEqual(self.aliases(), ("old.fabrik.example",))
        self.assertEqual(handlers.list_audit(self.store)[-1].action, "domain alias remove")
        self.assertEqual(handlers.farm_of(self.store).domains[FABRIK].netbios, "FABRIK")

    def test_dry_run(self) -> None:
        """A rehearsal changes nothing."""
        before = handlers.list_audit(self.store)
        handlers.add_alias(self.store, FABRIK, "old", dry_run=True)
        handlers.remove_alias(self.store, FABRIK, "omnent", dry_run=True)
        self.assertEqual((self.aliases(), handlers.list_audit(self.store)), (("omnent",), before))

    def test_refused(self) -> None:
        """The checks are those of C{domain add}."""
        handlers.add_domain(self.store, "im.orchard.example", ["orchard.example"])
        add = handlers.add_alias
        self.refused("there is no IM domain", add, "im.elsewhere.example", "old")
        self.refused("means im.fabrik.example already", add, FABRIK, "omnent")
        self.refused("means im.fabrik.example already", add, FABRIK, FABRIK)
        self.refused("belongs to the IM domain im.orchard.example", add, FABRIK, "orchard.example")
        self.refused("is the host of home hs1", add, FABRIK, "hs1.fabrik.example")
        self.refused("is an IP address", add, FABRIK, "192.0.2.1")
        self.refused("has no alias", handlers.remove_alias, FABRIK, "old")
        self.refused("has no alias", handlers.remove_alias, FABRIK, FABRIK)


class MailDomainTests(HandlerCase):
    """C{domain mail add|remove}"""

    def served(self) -> tuple[str, ...]:
        """The mail domains that the domain serves."""
        return handlers.farm_of(self.store).domains[FABRIK].mail_domains

    def test_add(self) -> None:
        """A mail domain is served from now on, the last or the primary one; one may be made primary later."""
        handlers.add_mail_domain(self.store, FABRIK, "Fabrik.Test")
        self.assertEqual(self.served(), ("fabrik.example", "fabrik.test"))
        handlers.add_mail_domain(self.store, FABRIK, "new.example", primary=True)
        self.assertEqual(self.served(), ("new.example", "fabrik.example", "fabrik.test"))
        handlers.add_mail_domain(self.store, FABRIK, "fabrik.test", primary=True)
        self.assertEqual(self.served(), ("fabrik.test", "new.example", "fabrik.example"))
        self.assertEqual(handlers.enable_user(self.store, "petra").address, "petra@fabrik.test")

    def test_own_name(self) -> None:
        """An IM domain may serve a mail domain of its own name."""
        handlers.add_mail_domain(self.store, FABRIK, FABRIK)
        self.assertIn(FABRIK, self.served())
        handlers.remove_mail_domain(self.store, FABRIK, FABRIK)
        self.assertNotIn(FABRIK, self.served())

    def test_passwords(self) -> None:
        """It is found out for how many users Digest does not know the new sign-in name."""
        handlers.enable_user(self.store, "petra", password="Blue-Kite-41")
        handlers.enable_user(self.store, "ann")
        self.assertEqual(handlers.add_mail_domain(self.store, FABRIK, "new.example", dry_run=True).users, 1)
        self.assertEqual(handlers.add_mail_domain(self.store, FABRIK, "new.example").users, 1)
        self.assertEqual(handlers.add_mail_domain(self.store, FABRIK, "new.example", primary=True).users, 0)

    def test_remove(self) -> None:
        """A mail domain where users are addressed is not given up by mistake."""
        handlers.enable_user(self.store, "petra@fabrik.example")
        handlers.enable_user(self.store, "ann@fabrik.example", form="im")
        remove = handlers.remove_mail_domain
        self.refused(
            "1 user of im.fabrik.example would be found at @fabrik.example", remove, FABRIK, "fabrik.example"
        )
        done = remove(self.store, FABRIK, "fabrik.example", force=True, dry_run=True)
        self.assertEqual((done.users, self.served()), (1, ("fabrik.example",)))
        remove(self.store, FABRIK, "fabrik.example", force=True)
        self.assertEqual(self.served(), ())

    def test_remove_after_readdressing(self) -> None:
        """What the refusal advises works."""
        handlers.enable_user(self.store, "petra@fabrik.example")
        readdress_user(self.store, "petra", "im")
        self.assertEqual(handlers.remove_mail_domain(self.store, FABRIK, "fabrik.example").users, 0)

    def test_refused(self) -> None:
        """The checks are those of C{domain add}."""
        handlers.add_domain(self.store, "im.orchard.example", ["orchard.example"])
        add = handlers.add_mail_domain
        self.refused('serves "fabrik.example" already', add, FABRIK, "fabrik.example")
        self.refused('serves "fabrik.example" already', add, FABRIK, "fabrik.example", primary=True)
        self.refused("belongs to the IM domain im.orchard.example", add, FABRIK, "orchard.example")
        self.refused("is not a fully qualified name", add, FABRIK, "fabrik")
        self.refused("does not serve", handlers.remove_mail_domain, FABRIK, "new.example")
        self.refused("there is no IM domain", add, "im.elsewhere.example", "new.example")


class VerbTests(CommandCase):
    """The same, as an administrator types it."""

    def setUp(self) -> None:
        """A small farm."""
        super().setUp()
        self.make_farm()

    def test_alias(self) -> None:
        """It says what it did and what the DNS needs then."""
        told = self.run_it("domain", "alias", "add", FABRIK, "old.fabrik.example", "--dry-run").stdout
        self.assertIn("would mean im.fabrik.example, too; nothing was changed", told)
        told = self.run_it("domain", "alias", "add", FABRIK, "old.fabrik.example").stdout
        self.assertIn("old.fabrik.example means im.fabrik.example, too.", told)
        self.assertIn("dns plan", told)
        self.assertIn("search list", self.run_it("domain", "alias", "add", FABRIK, "chat").stdout)
        told = self.run_it("domain", "alias", "remove", FABRIK, "chat", "--dry-run").stdout
        self.assertIn("nothing was changed", told)
        self.assertIn("no longer", self.run_it("domain", "alias", "remove", FABRIK, "chat", "--yes").stdout)
        refused = self.run_it("domain", "alias", "remove", FABRIK, "chat", "--yes", status=1).stderr
        self.assertTrue(refused.startswith("rvpfarm: domain alias remove: im.fabrik.example has no alias"))
        self.run_it("domain", "alias", "add", FABRIK, status=2)

    def test_mail(self) -> None:
        """It says what is served then, and what that means for passwords and users."""
        self.run_it("user", "enable", "petra@fabrik.example", "--generate-password")
        told = self.run_it("domain", "mail", "add", FABRIK, "new.example", "--primary", "--dry-run").stdout
        self.assertIn("would serve new.example, fabrik.example; nothing was changed", told)
        told = self.run_it("domain", "mail", "add", FABRIK, "new.example", "--primary").stdout
        self.assertIn("im.fabrik.example serves new.example, fabrik.example.", told)
        self.assertIn("the 1 user with one sign in as before", told)
        refused = self.run_it("domain", "mail", "remove", FABRIK, "fabrik.example", status=1).stderr
        self.assertIn("rvpfarm user readdress --domain im.fabrik.example --form im", refused)
        told = self.run_it("domain", "mail", "remove", FABRIK, "fabrik.example", "--yes", "--dry-run").stdout
        self.assertIn("Nobody would find the 1 user addressed there.", told)
        told = self.run_it("domain", "mail", "remove", FABRIK, "fabrik.example", "--yes").stdout
        self.assertIn("serves fabrik.example no longer", told)
