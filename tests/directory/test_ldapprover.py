"""Passwords are checked in threads, of which there are few."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.directory.ldapprover import PASSWORDS_LIMIT, PROVE_SECONDS, LdapProver
from rvpfarm.directory.model import Account, DirectoryUnavailable
from tests.support.directory import make_account
from tests.support.threads import ManualThreads, ThreadClock

PETRA = make_account("im.fabrik.example/instmsg/aliases/petra", "home-1")


class FakeSource:
    """Knows one password."""

    down = False

    def prove(self, account: Account, password: str) -> bool:
        """See L{rvpfarm.directory.ldapsource.LdapSource.prove}."""
        if self.down:
            raise DirectoryUnavailable("no LDAP server answers")
        return password == "right"


class LdapProverTests(SynchronousTestCase):
    """An answer, or that there is none; never for ever."""

    def setUp(self) -> None:
        """Threads that run when the test says so."""
        self.source, self.clock, self.threads = FakeSource(), ThreadClock(), ManualThreads()
        self.prover = LdapProver(self.source, self.clock, threads=self.threads)
        self.prover.startService()
        self.addCleanup(self.prover.stopService)

    def ask(self, password: str = "right") -> Deferred[bool]:
        """Have a password checked."""
        return self.prover.prove(PETRA, password)

    def test_answers(self) -> None:
        """Right, wrong, and not to be told."""
        right, wrong = self.ask(), self.ask("wrong")
        self.assertNoResult(right)
        self.threads.run()
        self.assertEqual((self.successResultOf(right), self.successResultOf(wrong)), (True, False))
        self.source.down = True
        unknown = self.ask()
        self.threads.run()
        self.failureResultOf(unknown, DirectoryUnavailable)

    def test_too_slow(self) -> None:
        """Who waited long enough is told that it cannot be told; the late answer does no harm."""
        late = self.ask()
        self.clock.advance(PROVE_SECONDS)
        self.failureResultOf(late, DirectoryUnavailable)
        self.threads.run()

    def test_too_many(self) -> None:
        """There is an end to how many wait; when they have been answered, others may."""
        waiting = [self.ask() for _ in range(PASSWORDS_LIMIT)]
        self.failureResultOf(self.ask(), DirectoryUnavailable)
        self.threads.run()
        for one in waiting:
            self.assertIs(self.successResultOf(one), True)
        self.assertNoResult(self.ask())

    def test_gone(self) -> None:
        """Who hung up is not told."""
        gone = self.ask()
        gone.cancel()
        self.failureResultOf(gone)
        self.threads.run()
