"""Several PostgreSQL servers: replicas that may be behind, and one that takes over; all of them real."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.admin import handlers
from rvpfarm.auth.keys import FarmKey
from rvpfarm.directory.postgresql import Dialler, Place, parse_servers
from rvpfarm.directory.reading import StoreProblem
from rvpfarm.directory.sql import SqlSource
from rvpfarm.directory.store import Store
from tests.support.postgres import Cluster, cluster, follower, programs
from tests.support.processes import BIN, Ran, run, wait_for
from tests.support.store import make_folder, store_at

PETRA = "im.fabrik.example/instmsg/aliases/petra"


class SeveralServersCase(SynchronousTestCase):
    """A primary and a server that follows it, with a directory on them."""

    def setUp(self) -> None:
        """The domain and two homes are on both."""
        if programs() is None:
            raise SkipTest("PostgreSQL is not installed (Debian: postgresql)")
        stack = ExitStack()
        self.addCleanup(stack.close)
        self.primary = stack.enter_context(cluster())
        self.folder = make_folder(self)
        self.key = FarmKey.create(self.folder / "farm.key")
        self.primary.run("CREATE DATABASE rvpfarm")
        self.follower: Cluster = stack.enter_context(follower(self.primary))
        self.store = self.open()
        handlers.init(self.store, actor="test")
        handlers.add_domain(self.store, "im.fabrik.example", ["fabrik.example"], actor="test")
        handlers.create_home(self.store, "hs1", "hs1.fabrik.example", actor="test")
        self.catch_up()

    def open(self, query: str = "") -> Store:
        """A store that knows of both servers."""
        return store_at(self, self.url(query), self.key)

    def url(self, query: str = "") -> str:
        """The address of both, the one that follows first."""
        return self.follower.url("rvpfarm", self.primary, query=query)

    def catch_up(self) -> None:
        """Let the follower have everything."""
        wait_for("the replica", lambda: self.follower.follows(self.primary))

    def rvpfarm(self, *words: str) -> Ran:
        """Run a command as an administrator does."""
        return run(
            *(BIN / "rvpfarm", "--directory", self.url(), "--key-file", self.folder / "farm.key", *words)
        )


class ReplicaTests(SeveralServersCase):
    """Accounts are looked up at a replica, unless it is behind."""

    def setUp(self) -> None:
        """A daemon's source that reads at replicas."""
        super().setUp()
        self.source = SqlSource(self.open("?reads=replicas"))

    def _read_at(self, server: Cluster) -> int:
        """How many connections of directories a server has."""
        where = "datname = 'rvpfarm'"
        ((count,),) = server.run(f"SELECT count(*) FROM pg_stat_activity WHERE {where}")  # noqa: S608
        assert isinstance(count, int)
        return count

    def test_reads_there(self) -> None:
        """An account is read at the replica when that is as far as what is known."""
        handlers.enable_user(self.store, "petra@fabrik.example", password="Blue-Kite-41", actor="test")
        self.source.changes_since(0, "")
        self.catch_up()
        found = self.source.account(PETRA)
        assert found is not None
        self.assertTrue(found.verifiers)
        self.assertEqual(self._read_at(self.follower), 1)

    def test_behind(self) -> None:
        """What was just made is seen though the replica does not have it: the primary is asked."""
        position = self.source.position()
        self.follower.run("SELECT pg_wal_replay_pause()")
        handlers.enable_user(self.store, "petra@fabrik.example", actor="test")
        changes = self.source.changes_since(position, "")
        self.assertEqual(changes.keys, (PETRA,))
        found = self.source.account(PETRA)
        assert found is not None
        self.assertEqual(found.alias, "petra")
        self.follower.run("SELECT pg_wal_replay_resume()")

    def test_no_replica(self) -> None:
        """Without a replica everything is asked of the primary."""
        handlers.enable_user(self.store, "petra@fabrik.example", actor="test")
        self.follower.stop(signal.SIGQUIT)
        self.assertIsNotNone(self.source.account(PETRA))


class FailOverTests(SeveralServersCase):
    """The server that takes changes is lost, and another one takes its place."""

    def test_promoted(self) -> None:
        """Sources and commands that had the first one go on with the second, and nothing is lost."""
        done = self.rvpfarm("user", "enable", "petra@fabrik.example", "--no-password")
        self.assertEqual(done.status, 0, done.err)
        source = SqlSource(self.open())
        before = source.changes_since(source.position(), "")
        self.assertIsNotNone(source.account(PETRA))
        self.catch_up()
        self.primary.stop(signal.SIGQUIT)
        problem = str(self.assertRaises(StoreProblem, source.account, PETRA))
        self.assertIn("no server takes changes", problem)
        refused = self.rvpfarm("user", "show", "petra@fabrik.example")
        self.assertEqual(refused.status, 1)
        self.assertIn("cannot be used", refused.err)
        self.assertNotIn("no user", refused.err)
        self.follower.promote()
        self.assertIsNotNone(source.account(PETRA))
        done = self.rvpfarm("user", "enable", "tomas@fabrik.example", "--no-password")
        self.assertEqual(done.status, 0, done.err)
        after = source.changes_since(before.position, before.mark)
        self.assertEqual((len(after.keys), after.gap), (1, False))
        self.assertIs(handlers.check_audit(self.store), None)

    def test_command_waits(self) -> None:
        """A change that comes while no server takes any waits a while for one, and is then made."""
        self.catch_up()
        self.primary.stop(signal.SIGQUIT)
        with ExitStack() as stack:
            stack.callback(self.follower.promote)
            self.assertRaises(StoreProblem, self.store.read().__enter__)
        handlers.enable_user(self.store, "petra@fabrik.example", actor="test")
        self.assertEqual(len(handlers.list_users(self.store)), 1)

    def test_silent(self) -> None:
        """A server that lets in nobody any more, and does not say so, costs seconds."""
        self.catch_up()
        self.follower.promote()
        os.kill(self.primary.pid, signal.SIGSTOP)
        dialler = Dialler(parse_servers(self.primary.url("rvpfarm", self.follower)))
        dialler.connect().close()
        self.assertEqual(dialler._order()[0], Place("127.0.0.1", str(self.follower.port)))
