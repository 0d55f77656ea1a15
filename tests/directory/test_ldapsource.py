"""Who exists and who may: local records and the entries of a real LDAP directory together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.admin import handlers
from rvpfarm.auth.keys import FarmKey
from rvpfarm.directory.ldappeople import People
from rvpfarm.directory.ldapsettings import BIND, LINK, LOGIN, LdapSettings
from rvpfarm.directory.ldapsource import LdapSource, reader_password
from rvpfarm.directory.model import Account, DirectoryUnavailable
from rvpfarm.directory.store import Store
from tests.support.slapd import BASE, OPENLDAP, Slapd, missing
from tests.support.store import make_farm_store, make_folder
from tests.support.trees import (
    CHATTERS,
    PASSWORDS,
    openldap_tree,
    person,
    person_dn,
    put_settings,
    servers_for,
    settings_for,
    shared_slapd,
)

PETRA = "im.fabrik.example/instmsg/aliases/petra"
MARTA = "im.fabrik.example/instmsg/aliases/marta"
TOMASZ = "im.fabrik.example/instmsg/aliases/tomasz"


class SourceCase(SynchronousTestCase):
    """A farm of two homes, whose users are in LDAP."""

    def setUp(self) -> None:
        """The farm, without any user."""
        if missing():
            self.skipTest(missing())
        self.folder = make_folder(self)
        self.store = make_farm_store(self, self.folder)
        self.key = FarmKey.load(self.folder / "farm.key")
        self.now = 0.0
        self.slapd = self.make_slapd()

    def make_slapd(self) -> Slapd:
        """The server."""
        return shared_slapd("openldap")

    def source(self, settings: LdapSettings, *, pins: bool = True) -> LdapSource:
        """What a daemon asks, once the farm goes by C{settings}."""
        put_settings(self.store, settings, self.key)
        store = Store(f"sqlite:///{self.folder / 'directory.sqlite'}", self.key if pins else None)
        made = LdapSource(store, self.key, pins=pins, now=lambda: self.now, spawn=lambda work: work())
        self.addCleanup(made.close)
        made.farm()
        return made

    def local(self, key: str) -> Account | None:
        """The local record."""
        with self.store.read() as reading:
            return reading.account(key)

    def found(self, source: LdapSource, key: str) -> Account:
        """The account, which there must be."""
        account = source.account(key)
        assert account is not None
        return account


class EnabledTests(SourceCase):
    """Who is enabled, and by whom."""

    def test_nobody_by_himself(self) -> None:
        """Being in LDAP enables nobody unless it is said that it does."""
        self.assertIs(self.source(settings_for(self.slapd)).account(PETRA), None)

    def test_by_hand(self) -> None:
        """Who was enabled by hand has the names that LDAP says, on the home that was chosen."""
        settings = settings_for(self.slapd)
        source = self.source(settings)
        servers = servers_for(settings)
        self.addCleanup(servers.close)
        people = People(settings, servers)
        entry = people.by_key(PETRA, source.farm())
        assert entry is not None
        handlers.enable_user(self.store, "petra@fabrik.example", "hs2", link=entry.unique_id)
        account = self.found(source, PETRA)
        self.assertTrue(account.enabled)
        self.assertEqual(account.display_name, "Petra Novak")
        self.assertEqual(source.farm().homes[account.home].name, "hs2")
        self.assertEqual([one.scheme for one in account.verifiers], [BIND])

    def test_own_name(self) -> None:
        """A display name that was given here stays."""
        source = self.source(replace(settings_for(self.slapd), automatic=True))
        self.found(source, PETRA)
        with self.store.change("test", "user rename", "petra") as writing:
            account = writing.account(PETRA)
            assert account is not None
            writing.update_account(replace(account, display_name="Boss"))
        self.assertEqual(self.found(source, PETRA).display_name, "Boss")

    def test_at_first_sight(self) -> None:
        """Where that is wished, members of a group are enabled when first asked for, and stay on their home."""
        source = self.source(
            replace(settings_for(self.slapd), automatic=True, groups=(CHATTERS,), membership="member")
        )
        self.assertIs(source.account(MARTA), None, "no member")
        account = self.found(source, PETRA)
        self.assertEqual(account.address, "petra@fabrik.example")
        local = self.local(PETRA)
        assert local is not None
        self.assertEqual(local.home, account.home)
        handlers.create_home(self.store, "hs3", "hs3.fabrik.example")
        source.farm()
        self.assertEqual(self.found(source, PETRA).home, account.home)

    def test_router_writes_nothing(self) -> None:
        """A router chooses the home that the home itself will choose, and leaves the writing to it."""
        settings = replace(settings_for(self.slapd), automatic=True)
        routed = self.found(self.source(settings, pins=False), PETRA)
        self.assertIs(self.local(PETRA), None)
        self.assertEqual(routed.verifiers, ())
        self.assertEqual(self.found(self.source(settings), PETRA).home, routed.home)

    def test_disabled_here(self) -> None:
        """Local disabled always wins, with and without the LDAP directory."""
        source = self.source(replace(settings_for(self.slapd), automatic=True))
        self.assertTrue(self.found(source, PETRA).enabled)
        handlers.disable_user(self.store, "petra@fabrik.example")
        self.assertFalse(self.found(source, PETRA).enabled)

    def test_groups(self) -> None:
        """Members are told by the entry of their group, be it by DNs or by the names in a posixGroup."""
        posix = f"cn=posix,ou=groups,{BASE}"
        for membership, group in (("member", CHATTERS), ("posix", posix)):
            settings = replace(settings_for(self.slapd), groups=(group,), membership=membership)
            servers = servers_for(settings)
            self.addCleanup(servers.close)
            people = People(settings, servers)
            farm = handlers.farm_of(self.store)
            for key, expected in ((PETRA, True), (TOMASZ, True), (MARTA, False)):
                someone = people.by_key(key, farm)
                assert someone is not None
                self.assertEqual(people.may(someone), expected, (membership, key))

    def test_local_user(self) -> None:
        """A user with no entry has nothing to do with LDAP."""
        handlers.enable_user(self.store, "robot@fabrik.example", "hs1")
        source = self.source(settings_for(self.slapd))
        key = "im.fabrik.example/instmsg/aliases/robot"
        self.assertTrue(self.found(source, key).enabled)

    def test_filters_are_escaped(self) -> None:
        """A name that looks like a filter finds nobody but who is called that."""
        source = self.source(replace(settings_for(self.slapd), automatic=True))
        for name in ("*", "p*", "petra)(uid=*", "a%00b", "%2a", "petra\\", "(|(uid=*))", "ä*"):
            self.assertIs(source.account(f"im.fabrik.example/instmsg/aliases/{name}"), None, name)


class LivelyTests(SourceCase):
    """The tree changes, and so does what is known of it."""

    def make_slapd(self) -> Slapd:
        """A server of this test's own."""
        slapd = Slapd(make_folder(self), OPENLDAP, [*openldap_tree(), person("lena")])
        self.addCleanup(slapd.stop)
        return slapd

    def changed(self, source: LdapSource) -> tuple[str, ...]:
        """Who is told to have changed, once it is time to look."""
        self.now += 301.0
        position = source.position()
        source.changes_since(position, "")
        return source.changes_since(position, "").keys

    def test_changes_are_noticed(self) -> None:
        """A new name, a lost membership and an entry that is gone are told within the time that was set."""
        settings = replace(settings_for(self.slapd), automatic=True, groups=(CHATTERS,), membership="member")
        source = self.source(settings)
        self.found(source, PETRA)
        self.found(source, TOMASZ)
        self.assertEqual(self.changed(source), ())
        self.slapd.replace(person_dn("petra"), {"displayName": "Petra Stein"})
        self.assertEqual(self.changed(source), (PETRA,))
        self.assertEqual(self.found(source, PETRA).display_name, "Petra Stein")
        self.slapd.modify(
            f"dn: {CHATTERS}\nchangetype: modify\ndelete: member\nmember: {person_dn('tomasz')}\n"
        )
        self.assertEqual(self.changed(source), (TOMASZ,))
        self.assertFalse(self.found(source, TOMASZ).enabled)
        self.slapd.remove(person_dn("petra"))
        self.assertEqual(self.changed(source), (PETRA,))
        self.assertFalse(self.found(source, PETRA).enabled)

    def test_name_of_another(self) -> None:
        """Whoever gets the name of somebody who left is not that one."""
        source = self.source(replace(settings_for(self.slapd), automatic=True))
        account = self.found(source, PETRA)
        self.slapd.remove(person_dn("petra"))
        self.slapd.add(person("petra", name="Another Petra", password="Other-Pass-1"))
        self.assertFalse(self.found(source, PETRA).enabled)
        self.assertFalse(source.prove(account, "Other-Pass-1"))

    def test_overlay(self) -> None:
        """A server that writes memberships into its entries is asked for them there."""
        group = f"cn=readers,ou=groups,{BASE}"
        self.slapd.modify(
            f"dn: {group}\nobjectClass: groupOfNames\ncn: readers\nmember: {person_dn('lena')}\n", "-a"
        )
        source = self.source(replace(settings_for(self.slapd), automatic=True, groups=(group,)))
        self.assertTrue(self.found(source, "im.fabrik.example/instmsg/aliases/lena").enabled)
        self.assertIs(source.account(PETRA), None)

    def test_down(self) -> None:
        """Without a server nobody becomes unknown, and no password is wrong."""
        source = self.source(replace(settings_for(self.slapd), automatic=True))
        account = self.found(source, PETRA)
        self.assertTrue(source.prove(account, PASSWORDS["petra"]))
        self.assertFalse(source.prove(account, "wrong"))
        self.assertFalse(source.prove(account, ""))
        self.slapd.stop()
        self.assertRaises(DirectoryUnavailable, source.account, PETRA)
        self.assertRaises(DirectoryUnavailable, source.account, MARTA)
        self.assertRaises(DirectoryUnavailable, source.prove, account, PASSWORDS["petra"])

    def test_nobody_is_not_believed_when_down(self) -> None:
        """Who was nobody is asked for again once the servers are known to be down."""
        source = self.source(replace(settings_for(self.slapd), automatic=True))
        nobody = "im.fabrik.example/instmsg/aliases/nobody"
        self.assertIs(source.account(nobody), None)
        self.assertEqual((self.changed(source), source.up), ((), True))
        self.assertIs(source.account(nobody), None)
        self.slapd.stop()
        self.assertIn(nobody, self.changed(source))
        self.assertIs(source.up, False)

    def test_settings_come_and_go(self) -> None:
        """Other settings count at once, and make everything known worth asking for again."""
        source = self.source(settings_for(self.slapd))
        self.assertIs(source.account(PETRA), None)
        put_settings(self.store, replace(settings_for(self.slapd), automatic=True), self.key)
        source.farm()
        self.assertTrue(source.changes_since(source.position(), "").gap)
        self.found(source, PETRA)
        with self.store.change("test", "ldap unset", "ldap") as writing:
            writing.set_policy("", "ldap", None)
        source.farm()
        self.assertEqual(self.found(source, PETRA).display_name, "petra")

    def test_damaged_settings(self) -> None:
        """Settings that cannot be read make nobody unknown."""
        with self.store.change("test", "ldap set", "ldap") as writing:
            writing.set_policy("", "ldap", '{"servers": 5}')
        store = Store(f"sqlite:///{self.folder / 'directory.sqlite'}", self.key)
        source = LdapSource(store, self.key, spawn=lambda work: work())
        self.addCleanup(source.close)
        source.farm()
        self.assertRaises(DirectoryUnavailable, source.account, PETRA)

    def test_other_key(self) -> None:
        """A reader's password sealed with another farm key is not taken for anything."""
        sealed = put_settings(self.store, settings_for(self.slapd), self.key)
        other = FarmKey.create(Path(make_folder(self)) / "other.key")
        self.assertRaises(DirectoryUnavailable, reader_password, sealed, other)
        self.assertRaises(DirectoryUnavailable, reader_password, sealed, None)


class WindowsTests(SourceCase):
    """Active Directory's ways, and Exchange's."""

    def make_slapd(self) -> Slapd:
        """The server with the other tree."""
        return shared_slapd("windows")

    def test_active_directory(self) -> None:
        """Who is disabled there is disabled here; members are told by their own entry."""
        settings = settings_for(self.slapd, profile="active-directory")
        source = self.source(replace(settings, automatic=True, groups=(CHATTERS,), membership="memberof"))
        account = self.found(source, PETRA)
        self.assertEqual((account.email, account.display_name), ("petra@fabrik.example", "Petra Novak"))
        with self.store.read() as reading:
            self.assertRegex(
                reading.own_policy(account.id, LINK), r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
            )
        self.assertIs(source.account(MARTA), None, "disabled there")
        self.assertIs(source.account("im.fabrik.example/instmsg/aliases/lena"), None, "no member")
        self.assertTrue(source.prove(account, PASSWORDS["petra"]))

    def test_login_names(self) -> None:
        """Where addresses are made of something else, people still sign in by the names that they know."""
        settings = settings_for(self.slapd, profile="active-directory")
        source = self.source(
            replace(
                settings,
                automatic=True,
                alias="displayName",
                logins=("sAMAccountName",),
                person_filter="(sn=*)",
            )
        )
        key = "im.fabrik.example/instmsg/aliases/lotte"
        self.assertIs(source.account(key), None)
        account = self.found(source, f"{LOGIN}{key}")
        self.assertEqual(account.key, "im.fabrik.example/instmsg/aliases/charlotte.weber")
        self.assertIs(source.account(f"{LOGIN}im.fabrik.example/instmsg/aliases/nobody"), None)
        self.now += 301.0
        self.assertIn(f"{LOGIN}{key}", source.changes_since(source.position(), "").keys)

    def test_exchange(self) -> None:
        """Whom Exchange enabled is served as it says: address, URL, and the home by its host name."""
        source = self.source(settings_for(self.slapd, profile="exchange"))
        account = self.found(source, TOMASZ)
        self.assertEqual(account.address, "tomasz@fabrik.example")
        self.assertEqual(source.farm().homes[account.home].name, "hs2")
        self.assertIs(source.account(PETRA), None, "not enabled by Exchange")

    def test_half_filled(self) -> None:
        """Whom Exchange enabled by halves, or on a server that is not here, is reported and not served."""
        settings = settings_for(self.slapd, profile="exchange")
        source = self.source(settings)
        for alias in ("half", "lost"):
            self.assertIs(source.account(f"im.fabrik.example/instmsg/aliases/{alias}"), None)
        servers = servers_for(settings)
        self.addCleanup(servers.close)
        found = {
            fault.dn.partition(",")[0]: fault.sentence
            for fault in People(settings, servers).half_filled(source.farm())
        }
        self.assertEqual(set(found), {"cn=half", "cn=lost"})
        self.assertIn("it lacks msExchIMAddress", found["cn=half"])
        self.assertIn("does not exist", found["cn=lost"])
