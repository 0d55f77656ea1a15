"""Passwords of users out of LDAP, checked in threads of their own."""

from __future__ import annotations

from typing import Any, Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred, TimeoutError
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from rvpfarm.directory.asking import Threads
from rvpfarm.directory.model import Account, DirectoryUnavailable

#: Passwords that are checked, or wait to be, at any one time.
PASSWORDS_LIMIT = 256
#: Threads that check them.
THREADS = 4
#: How long a caller waits for that.
PROVE_SECONDS = 15.0


class Proving(Protocol):
    """What knows passwords, and takes its time: L{rvpfarm.directory.ldapsource.LdapSource}."""

    def prove(self, account: Account, password: str) -> bool:
        """Is this the password of C{account}?

        @raise DirectoryUnavailable: that cannot be told now.
        """


class LdapProver(Service):
    """Asks the LDAP directory whether a password is right; see L{rvpfarm.auth.basic.Prover}."""

    _log = Logger()

    def __init__(self, source: Proving, reactor: Any, *, threads: Threads | None = None) -> None:
        """
        @param reactor: with timers and C{callFromThread} (C{Any}: no one interface has both).
        @param threads: where the source is asked; left out, a few of its own.
        """
        self._source, self._reactor = source, reactor
        self._threads: Threads = threads or ThreadPool(0, THREADS, "passwords")
        self._waiting = 0

    def startService(self) -> None:
        """Be ready."""
        super().startService()
        self._threads.start()

    def stopService(self) -> None:
        """Finish what was begun."""
        super().stopService()
        self._threads.stop()

    def prove(self, account: Account, password: str) -> Deferred[bool]:
        """Is this the password of C{account}?

        It fails with L{DirectoryUnavailable} when no server says so in time, or too many wait already.
        """
        proved: Deferred[bool] = Deferred()
        if self._waiting >= PASSWORDS_LIMIT:
            proved.errback(DirectoryUnavailable("too many passwords wait to be checked"))
            return proved
        self._waiting += 1

        def settle(result: bool | Failure) -> None:
            self._waiting -= 1
            if not proved.called:
                proved.callback(result)

        def done(success: bool, result: bool | Failure) -> None:
            self._reactor.callFromThread(settle, result)

        self._threads.callInThreadWithCallback(done, self._source.prove, account, password)
        proved.addTimeout(PROVE_SECONDS, self._reactor)
        return proved.addErrback(_too_slow)


def _too_slow(failure: Failure) -> Failure:
    """
    @raise DirectoryUnavailable: the threads did not come to it in time.
    """
    if failure.check(TimeoutError):
        raise DirectoryUnavailable("the password could not be checked in time")
    return failure
