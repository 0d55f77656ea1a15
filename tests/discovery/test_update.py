"""What has to change in a zone, and the message that changes it."""

from __future__ import annotations

from collections.abc import Iterable

import dns.rcode
import dns.update
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.directory.model import Domain, Farm, Home, Router
from rvpfarm.discovery.update import (
    Change,
    Key,
    RecordSet,
    change_lines,
    differences,
    in_zone,
    make_update,
    managed_sets,
    parse_key,
    shared_names,
)
from rvpfarm.discovery.zone import Address
from tests.support.directory import make_farm

KEY = Key("farm", "hmac-sha256", "cmlnaHQgcmlnaHQgcmlnaHQgcmlnaHQ=")


def the_farm(*routers: Router) -> Farm:
    """A farm of these routers and a home."""
    home = Home("1", "hs1", "hs1.fabrik.example", 80, 8081, "192.0.2.11")
    return make_farm([Domain("im.fabrik.example", ("fabrik.example",))], [home], routers)


R1 = Router("r1", "r1", "r1.fabrik.example", 80, "192.0.2.1")
R2 = Router("r2", "r2", "r2.fabrik.example", 80, "192.0.2.2")


class KeyTests(SynchronousTestCase):
    """Keys are read as BIND writes them."""

    def test_written_by_bind(self) -> None:
        """What tsig-keygen prints is read, with comments, quotes or without."""
        text = '# mine\nkey "Farm" {\n\talgorithm hmac-sha512; // strong\n\tsecret "c2VjcmV0";\n};\n'
        self.assertEqual(parse_key(text), Key("farm", "hmac-sha512", "c2VjcmV0"))
        self.assertEqual(parse_key("key a.b. { secret c2VjcmV0; };"), Key("a.b", "hmac-sha256", "c2VjcmV0"))

    def test_no_key(self) -> None:
        """What is no key, or a weak one, is refused."""
        for text, why in (
            ("", "it has no key"),
            ('key "a" { algorithm hmac-md5; secret "c2VjcmV0"; };', "hmac-md5 is none of"),
            ('key "a" { algorithm hmac-sha256; secret "!"; };', "no base64"),
            ('key "a" { algorithm hmac-sha256; };', "no base64"),
        ):
            with self.subTest(text), self.assertRaisesRegex(ValueError, why):
                parse_key(text)


class DifferencesTests(SynchronousTestCase):
    """The record sets of the plan become what the plan says; nothing else is looked at."""

    def lines(self, farm: Farm, present: Iterable[RecordSet]) -> list[str]:
        """What would change."""
        there = {(one.name, one.type): one for one in present}
        return list(change_lines(differences(managed_sets(farm), there, shared_names(farm))))

    def test_as_it_should_be(self) -> None:
        """When everything is there, nothing changes."""
        farm = the_farm(R1, R2)
        wanted = list(differences(managed_sets(farm), {}))
        there = [change.after for change in wanted if change.after is not None]
        self.assertEqual(self.lines(farm, there), [])

    def test_ttl(self) -> None:
        """A record with another time to live is published anew."""
        there = RecordSet("hs1.fabrik.example", "A", 3600, ("192.0.2.11",))
        lines = self.lines(the_farm(R1), [there])
        self.assertIn("- hs1.fabrik.example. 3600 IN A 192.0.2.11", lines)
        self.assertIn("+ hs1.fabrik.example. 60 IN A 192.0.2.11", lines)

    def test_other_family(self) -> None:
        """An IPv6 address that nobody has is taken away."""
        lines = self.lines(the_farm(R1), [RecordSet("im.fabrik.example", "AAAA", 60, ("2001:db8::9",))])
        self.assertIn("- im.fabrik.example. 60 IN AAAA 2001:db8::9", lines)

    def test_unknown_address(self) -> None:
        """Where an address is not in the directory, somebody gave the name one by hand: it stays."""
        by_hand = RecordSet("im.fabrik.example", "A", 60, ("192.0.2.2",))
        own = RecordSet("r2.fabrik.example", "A", 60, ("192.0.2.2",))
        lines = self.lines(the_farm(R1, Router("r2", "r2", "r2.fabrik.example", 80)), [by_hand, own])
        self.assertFalse([line for line in lines if line.startswith("-")])
        self.assertIn("+ im.fabrik.example. 60 IN A 192.0.2.1", lines)

    def test_no_router(self) -> None:
        """A farm whose last router drains keeps its SRV records: to take them away helps nobody."""
        drained = Router("r1", "r1", "r1.fabrik.example", 80, "192.0.2.1", "draining")
        self.assertNotIn(("_rvp._tcp.fabrik.example", "SRV"), managed_sets(the_farm(drained)))

    def test_zones(self) -> None:
        """A change goes to the zone that it is in, and not to the one above."""
        changes = [
            Change(None, RecordSet(name, "A", 60, ("192.0.2.1",))) for name in ("a.x.example", "b.example")
        ]
        self.assertEqual(in_zone(changes, "example", ["x.example"]), changes[1:])
        self.assertEqual(in_zone(changes, "x.example"), changes[:1])


class MessageTests(SynchronousTestCase):
    """One message makes all changes, if the sets are as they were seen."""

    def test_message(self) -> None:
        """It is signed, and names what has to be there before each change."""
        before = RecordSet("im.fabrik.example", "A", 60, ("192.0.2.1", "192.0.2.9"))
        wanted = {
            ("im.fabrik.example", "A"): (Address("im.fabrik.example", 60, "192.0.2.1"),),
            ("hs1.fabrik.example", "A"): (Address("hs1.fabrik.example", 60, "192.0.2.11"),),
        }
        changes = list(differences(wanted, {("im.fabrik.example", "A"): before}))
        message = make_update("fabrik.example", changes, KEY)
        keyring = {dns.name.from_text("farm."): message.keyring}
        read = dns.message.from_wire(message.to_wire(), keyring=keyring)
        assert isinstance(read, dns.update.UpdateMessage)
        self.assertTrue(read.had_tsig)
        self.assertEqual(read.zone[0].name.to_text(), "fabrik.example.")
        required = sorted(rrset.to_text() for rrset in read.prerequisite)
        self.assertEqual(
            required,
            [
                "hs1.fabrik.example. NONE A",
                "im.fabrik.example. 0 IN A 192.0.2.1",
                "im.fabrik.example. 0 IN A 192.0.2.9",
            ],
        )
        done = [rrset.to_text() for rrset in read.update]
        self.assertIn("im.fabrik.example. ANY A", done)
        self.assertIn("im.fabrik.example. 60 IN A 192.0.2.1", done)
        self.assertIn("hs1.fabrik.example. 60 IN A 192.0.2.11", done)
