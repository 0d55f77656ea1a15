"""Every directory keeps the same promises: the cached SQL one, and the fake that other tests use."""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.directory.cache import CachedDirectory
from rvpfarm.directory.model import Account, Directory
from rvpfarm.directory.sql import SqlSource
from tests.directory.contract import FABRIK, HS1, HS2, DirectoryContract
from tests.support.directory import FakeDirectory, make_farm
from tests.support.store import make_store
from tests.support.threads import ManualThreads, ThreadClock


class CachedSqlTests(DirectoryContract, SynchronousTestCase):
    """L{CachedDirectory} over a database."""

    def make(self) -> Directory:
        """A cache over a new database."""
        self.store = make_store(self)
        with self.store.change("test", "farm make", "farm") as change:
            change.add_domain(FABRIK)
            change.add_home(HS1)
            change.add_home(HS2)
        self.clock, self.threads = ThreadClock(), ManualThreads()
        directory = CachedDirectory(SqlSource(self.store), self.clock, threads=self.threads)
        directory.startService()
        self.addCleanup(directory.stopService)
        return directory

    def put(self, account: Account) -> None:
        """Another process changes the database."""
        with self.store.change("test", "user put", account.address) as change:
            if change.account(account.key) is None:
                change.add_account(account)
            else:
                change.update_account(account)

    def set_policy(self, name: str, value: str) -> None:
        """Another process changes the database."""
        with self.store.change("test", "policy set", name) as change:
            change.set_policy("", name, value)

    def break_down(self) -> None:
        """The database is gone."""
        self.store.close()
        assert self.store.path is not None
        for file in self.store.path.parent.glob("directory.sqlite*"):
            file.unlink()
        self.store.path.mkdir()

    def settle(self) -> None:
        """What is asked is answered, then the feed of changes is read once."""
        self.threads.run()
        self.clock.advance(1.0)
        self.threads.run()


class FakeDirectoryTests(DirectoryContract, SynchronousTestCase):
    """L{FakeDirectory}, which stands for the real one elsewhere."""

    def make(self) -> Directory:
        """A fake that knows nobody."""
        self.fake = FakeDirectory(make_farm([FABRIK], [HS1, HS2]), cold=True)
        return self.fake

    def put(self, account: Account) -> None:
        """The fake is told."""
        self.fake.put(account)

    def set_policy(self, name: str, value: str) -> None:
        """The fake is given another farm."""
        farm = self.fake.farm()
        self.fake.set_farm(replace(farm, policies={name: value}, generation=farm.generation + 1))

    def break_down(self) -> None:
        """The fake plays dead."""
        self.fake.unavailable = True

    def settle(self) -> None:
        """The fake is always settled."""
