"""Kerberos tickets, accepted by GSSAPI in threads of its own: the extra C{rvpfarm[kerberos]}.

GSSAPI reads files and may wait for locks, so it never runs in the reactor's thread.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, TimeoutError
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from rvpfarm.auth.negotiate import BadTicket, Ticket
from rvpfarm.protocol.calls import Busy

#: Tickets that are looked at, or wait to be, at any one time.
TICKETS_LIMIT = 256
#: Threads that look at them.
THREADS = 4
#: How long a caller waits for that.
ACCEPT_SECONDS = 10.0

_KERBEROS = "1.2.840.113554.1.2.2"


class BadKeytab(Exception):
    """No ticket can be accepted with the keytab; the text says why."""


class GssTicket:
    """A ticket that GSSAPI accepted; see L{Ticket}."""

    signs = True

    def __init__(self, gssapi: Any, context: Any, reply: bytes) -> None:  # Any: there may be no gssapi
        """
        @param gssapi: the module.
        @param context: its security context, established.
        """
        self._gssapi, self._context = gssapi, context
        self.principal = str(context.initiator_name).rstrip("\0")
        self.reply = reply

    def sign(self, data: bytes) -> bytes:
        """Our code over C{data}."""
        signature: bytes = self._context.get_signature(data)
        return signature

    def verify(self, data: bytes, code: bytes) -> bool:
        """Is C{code} the client's over C{data}?"""
        try:
            self._context.verify_signature(data, code)
        except self._gssapi.exceptions.GSSError:
            return False
        return True


class Keytab(Service):
    """Accepts the tickets for every service whose key is in one keytab.

    The file is read anew for each ticket, so that keys may be replaced while we run.
    """

    _log = Logger()

    def __init__(self, path: Path, reactor: Any) -> None:
        """
        @param reactor: with timers and C{callFromThread} (C{Any}: no one interface has both).
        @raise BadKeytab: the keytab cannot be used, or there is no GSSAPI.
        """
        try:
            self._gssapi = import_module("gssapi")
        except ImportError:
            raise BadKeytab("Kerberos needs rvpfarm[kerberos] to be installed") from None
        self._path, self._reactor = path, reactor
        self._mechanism = self._gssapi.OID.from_int_seq(_KERBEROS)
        self._threads = ThreadPool(0, THREADS, "kerberos")
        self._waiting = 0
        if not path.is_file():
            raise BadKeytab("there is no such file")
        try:
            self._credentials()
        except self._gssapi.exceptions.GSSError as problem:
            raise BadKeytab(_sentence(problem)) from problem

    def startService(self) -> None:
        """Be ready."""
        super().startService()
        self._threads.start()

    def stopService(self) -> None:
        """Finish what was begun."""
        super().stopService()
        self._threads.stop()

    def accept(self, token: bytes) -> Deferred[Ticket]:
        """Accept a token of Kerberos; see L{rvpfarm.auth.handshakes.Tickets.accept}.

        @raise Busy: too many wait already.
        """
        if self._waiting >= TICKETS_LIMIT:
            raise Busy("too many tickets wait to be looked at")
        self._waiting += 1
        accepted: Deferred[Ticket] = Deferred()

        def settle(success: bool, result: Ticket | Failure) -> None:
            self._waiting -= 1
            if not accepted.called:
                accepted.callback(result)

        def done(success: bool, result: Ticket | Failure) -> None:
            self._reactor.callFromThread(settle, success, result)

        self._threads.callInThreadWithCallback(done, self._accept, token)
        accepted.addTimeout(ACCEPT_SECONDS, self._reactor)
        return accepted.addErrback(_too_slow)

    def _accept(self, token: bytes) -> Ticket:
        """Accept a token; runs in a thread.

        @raise BadTicket: it proves nothing.
        """
        try:
            context = self._gssapi.SecurityContext(creds=self._credentials(), usage="accept")
            reply = context.step(token) or b""
            if not context.complete:
                raise BadTicket("there is more to come, which Kerberos does not have over HTTP")
            return GssTicket(self._gssapi, context, reply)
        except self._gssapi.exceptions.GSSError as problem:
            self._log.debug("a ticket was refused: {why}", why=_sentence(problem))
            raise BadTicket(_sentence(problem)) from None

    def _credentials(self) -> Any:  # there may be no gssapi
        """What GSSAPI accepts with."""
        store = {"keytab": f"FILE:{self._path}"}
        return self._gssapi.Credentials(usage="accept", mechs=[self._mechanism], store=store)


def _too_slow(failure: Failure) -> Failure:
    """
    @raise Busy: the threads did not come to it in time.
    """
    if failure.check(TimeoutError):
        raise Busy("the ticket could not be looked at in time")
    return failure


def _sentence(problem: Exception) -> str:
    """What GSSAPI says, on one line."""
    return " ".join(str(problem).split())
