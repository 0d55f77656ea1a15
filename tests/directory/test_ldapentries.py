"""Filters and identifiers of LDAP, on paper."""

from __future__ import annotations

import uuid
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.directory.ldapentries import (
    Entry,
    Person,
    account_id,
    alias_filter,
    all_filter,
    choose_home,
    escape,
    key_of,
    person_of,
)
from rvpfarm.directory.ldapsettings import BadSettings, begin, check, parse, render
from rvpfarm.directory.model import DirectoryUnavailable, Domain, Home
from tests.support.directory import make_farm

FABRIK = Domain("im.fabrik.example", ("fabrik.example",))
WEBEREI = Domain("im.weberei.example", ("weberei.example",))
HOMES = [Home(f"id-{number}", f"hs{number}", f"hs{number}.fabrik.example", 80, 8081) for number in (1, 2, 3)]
SETTINGS = replace(begin("openldap", ("ldaps://ldap.fabrik.example",)), base="dc=fabrik,dc=example")


class FilterTests(SynchronousTestCase):
    """What somebody typed is a value in a filter and never part of it (RFC 4515)."""

    @given(st.text())
    def test_escape(self, text: str) -> None:
        """Nothing but ASCII letters, digits and escapes is left, and nothing is lost."""
        made = escape(text)
        self.assertRegex(made, r"\A([A-Za-z0-9]|\\[0-9a-f]{2})*\Z")
        octets = bytearray()
        while made:
            if made[0] == "\\":
                octets.append(int(made[1:3], 16))
                made = made[3:]
            else:
                octets += made[0].encode()
                made = made[1:]
        self.assertEqual(octets.decode("utf-8", "surrogatepass"), text)

    def test_in_chain(self) -> None:
        """Active Directory follows groups in groups by its own rule; a DN is escaped like everything else."""
        settings = replace(
            begin("active-directory", ("ldaps://dc1",)), base="dc=x", groups=("cn=a (b)*,dc=x",)
        )
        self.assertIn(
            r"(memberOf:1.2.840.113556.1.4.1941:=cn\3da\20\28b\29\2a\2cdc\3dx)", all_filter(settings)
        )

    def test_alias(self) -> None:
        """The name of a node is unquoted before it is escaped."""
        self.assertIn(r"(uid=\2a)", alias_filter(SETTINGS, "im.fabrik.example/instmsg/aliases/%2a"))


class PersonTests(SynchronousTestCase):
    """An entry is somebody."""

    def test_identifier(self) -> None:
        """The octets of Active Directory's identifiers are written as Windows writes them."""
        known = uuid.UUID("3f2504e0-4f89-11d3-9a0c-0305e82c3301")
        settings = begin("active-directory", ())
        entry = Entry("cn=x", {"objectguid": (known.bytes_le,), "useraccountcontrol": (b"514",)})
        person = person_of(settings, entry)
        self.assertEqual(person.unique_id, str(known))
        self.assertTrue(person.disabled)

    def test_domain(self) -> None:
        """The mail address says which IM domain; whose says nothing is of the one that the settings name."""
        farm = make_farm([FABRIK, WEBEREI], HOMES)
        petra = Person("uid=petra", "1", "Petra", "petra@weberei.example")
        self.assertEqual(key_of(SETTINGS, petra, farm), "im.weberei.example/instmsg/aliases/petra")
        nobody = replace(petra, mail="")
        self.assertIs(key_of(SETTINGS, nobody, farm), None)
        named = replace(SETTINGS, domain=FABRIK.name)
        self.assertEqual(key_of(named, nobody, farm), "im.fabrik.example/instmsg/aliases/petra")
        guest = replace(petra, mail="petra@elsewhere.example")
        self.assertIs(key_of(SETTINGS, guest, make_farm([FABRIK], HOMES)), None)

    def test_home(self) -> None:
        """The home of a newcomer is the same everywhere, spread over all, and none that drains."""
        farm = make_farm([FABRIK], HOMES)
        people = [account_id(Person("", str(number), "x")) for number in range(300)]
        chosen = [choose_home(farm, one) for one in people]
        self.assertEqual(chosen, [choose_home(make_farm([FABRIK], HOMES[::-1]), one) for one in people])
        for home in HOMES:
            self.assertGreater(chosen.count(home.id), 60)
        drained = make_farm([FABRIK], [HOMES[0], *(replace(home, state="draining") for home in HOMES[1:])])
        self.assertEqual({choose_home(drained, one) for one in people}, {"id-1"})
        self.assertIs(choose_home(make_farm([FABRIK]), "x"), None)


class SettingsTests(SynchronousTestCase):
    """Settings that would carry passwords in clear, or find nobody, are refused with a remedy."""

    def test_round_trip(self) -> None:
        """What was written is read."""
        self.assertEqual(parse(render(SETTINGS)), SETTINGS)

    def test_refused(self) -> None:
        """Each in one sentence."""
        for change, words in (
            ({"servers": ()}, "--server"),
            ({"servers": ("http://ldap",)}, "names no server"),
            ({"servers": ("ldap://ldap:99999",)}, "port"),
            ({"servers": ("ldap://ldap.fabrik.example",), "starttls": False}, "in clear"),
            ({"base": ""}, "--base"),
            ({"bind_dn": "cn=reader"}, "--password-stdin"),
            ({"alias": "uid)(x"}, "no attribute"),
            ({"person_filter": "(objectClass=*"}, "no filter"),
            ({"membership": "magic"}, "--membership"),
        ):
            settings = replace(SETTINGS, **change)  # type: ignore[arg-type]
            problem = self.assertRaises(BadSettings, check, settings)
            self.assertIn(words, str(problem))
        check(replace(SETTINGS, servers=("ldap://127.0.0.1:389",), starttls=False))
        self.assertRaises(BadSettings, begin, "lotus", ())

    def test_damaged(self) -> None:
        """A damaged record is a directory that cannot be asked, and no empty one."""
        for record in ("", "[]", '{"servers": 1}', '{"servers": ["ldaps://x"]}'):
            self.assertRaises(DirectoryUnavailable, parse, record)
