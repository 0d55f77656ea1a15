"""A directory whose users are in LDAP keeps the promises of every directory."""

from __future__ import annotations

import uuid
from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.auth.keys import FarmKey
from rvpfarm.directory.cache import CachedDirectory
from rvpfarm.directory.ldappeople import People
from rvpfarm.directory.ldapsettings import LINK, LdapSettings
from rvpfarm.directory.ldapsource import LOOK_SECONDS, LdapSource
from rvpfarm.directory.model import Account, Directory
from rvpfarm.directory.store import Store
from tests.directory.contract import FABRIK, HS1, HS2, DirectoryContract
from tests.support.slapd import OPENLDAP, WINDOWS, Slapd, entry, missing, trunk
from tests.support.store import make_folder, open_store
from tests.support.threads import ManualThreads, ThreadClock
from tests.support.trees import person_dn, put_settings, servers_for, settings_for, user_dn


class CachedLdapTests(DirectoryContract, SynchronousTestCase):
    """L{CachedDirectory} over a tree in a real server, and local records tied to its entries."""

    settings: LdapSettings
    style, profile = OPENLDAP, "openldap"

    def entry(self, alias: str) -> str:
        """Somebody of whom the tree knows nothing but the name."""
        return entry(person_dn(alias), objectClass="inetOrgPerson", uid=alias, cn=alias, sn=alias)

    def make(self) -> Directory:
        """A cache over a new database and a new tree, where everybody may use instant messaging."""
        if missing():
            self.skipTest(missing())
        self.slapd = Slapd(make_folder(self), self.style, trunk())
        self.addCleanup(self.slapd.stop)
        folder = make_folder(self)
        self.store = open_store(self, folder)
        self.store.upgrade()
        with self.store.change("test", "farm make", "farm") as change:
            change.add_domain(FABRIK)
            change.add_home(HS1)
            change.add_home(HS2)
        key = FarmKey.load(folder / "farm.key")
        wanted = settings_for(self.slapd, profile=self.profile)
        self.settings = put_settings(self.store, replace(wanted, automatic=True), key)
        self.clock, self.threads = ThreadClock(), ManualThreads()
        source = LdapSource(
            Store(f"sqlite:///{folder / 'directory.sqlite'}"),
            key,
            now=self.clock.seconds,
            spawn=lambda work: work(),
        )
        directory = CachedDirectory(source, self.clock, threads=self.threads)
        directory.startService()
        self.addCleanup(directory.stopService)
        return directory

    def put(self, account: Account) -> None:
        """Somebody is entered in the tree, and then enabled, or moved."""
        with self.store.change("test", "user put", account.address) as change:
            if change.account(account.key) is not None:
                change.update_account(account)
                return
            self.slapd.add(self.entry(account.alias))
            servers = servers_for(self.settings)
            found = People(self.settings, servers).by_key(account.key, change.farm())
            servers.close()
            assert found is not None
            change.add_account(account)
            change.set_account_policy(account, LINK, found.unique_id)

    def set_policy(self, name: str, value: str) -> None:
        """Another process changes the database."""
        with self.store.change("test", "policy set", name) as change:
            change.set_policy("", name, value)

    def break_down(self) -> None:
        """The server is gone; the database is not."""
        self.slapd.stop()

    def settle(self) -> None:
        """What is asked is answered, then it is looked for changes and for the server."""
        for _ in range(int(LOOK_SECONDS) + 1):
            self.threads.run()
            self.clock.advance(1.0)
        self.threads.run()


class CachedWindowsTests(CachedLdapTests):
    """The same in the style of Active Directory."""

    style, profile = WINDOWS, "active-directory"

    def entry(self, alias: str) -> str:
        """See L{CachedLdapTests.entry}."""
        return entry(
            user_dn(alias),
            objectClass="user",
            objectCategory="person",
            cn=alias,
            sAMAccountName=alias,
            objectGUID=uuid.uuid5(uuid.NAMESPACE_DNS, alias).bytes_le,
        )
