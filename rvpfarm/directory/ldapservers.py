"""Asking LDAP servers: pooled connections, one server as long as it works, and an end to every question.

Everything here waits for the network; it is called from threads and commands, never from the reactor.  The
client library is the extra C{rvpfarm[ldap]}, and only this module knows it.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from threading import BoundedSemaphore, Lock
from typing import Any, TypeVar
from urllib.parse import urlsplit

from twisted.logger import Logger

from rvpfarm.directory.ldapentries import Entry
from rvpfarm.directory.ldapsettings import LdapSettings
from rvpfarm.directory.model import DirectoryUnavailable

_Answer = TypeVar("_Answer")

#: A server that failed is asked again after this time, or when there is no other.
REST_SECONDS = 15.0
#: A connection that was not used for so long is not trusted any more.
IDLE_SECONDS = 60.0
#: The most entries that are taken when one is looked for.
FEW = 50


@dataclass(slots=True, eq=False)
class _Connection:
    """One connection, signed in as the reader or as nobody yet.

    @ivar handle: the library's (C{Any}: there may be no library).
    @ivar used: when it was last used.
    """

    handle: Any
    server: int
    used: float


@dataclass(frozen=True, slots=True)
class Reached:
    """The server that answers, and how.

    @ivar failed: the servers before it, and why they do not answer.
    @ivar certificate: of the server, in DER; empty without TLS.
    """

    server: str
    failed: tuple[tuple[str, str], ...]
    certificate: bytes


class LdapServers:
    """The servers that hold one tree.

    The one that answered last is asked again; when it fails, the next one is, and then that is stayed with.
    """

    _log = Logger()

    def __init__(
        self, settings: LdapSettings, password: str, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        """
        @param password: of the reader.
        @raise DirectoryUnavailable: the client library is not installed.
        """
        try:
            self._ldap: Any = import_module("ldap")  # Any: there may be none
            self._controls: Any = import_module("ldap.controls.libldap")
        except ImportError:
            raise DirectoryUnavailable(
                "users come from LDAP, and its client is not installed; "
                'run "python -m pip install rvpfarm[ldap]"'
            ) from None
        self._settings, self._password, self._now = settings, password, now
        self._current = 0
        self._resting: dict[int, float] = {}
        self._idle: dict[bool, list[_Connection]] = {True: [], False: []}
        self._room = {kind: BoundedSemaphore(settings.connections) for kind in (True, False)}
        self._lock = Lock()
        self._certificate = b""
        self._troubled = False
        self._closed = False

    @property
    def current(self) -> str:
        """The server that is asked first."""
        return self._settings.servers[self._current]

    # questions

    def search(
        self, filter: str, attributes: Sequence[str], base: str = "", *, whole: bool = True, most: int = FEW
    ) -> list[Entry]:
        """The entries that meet C{filter}, and not more than C{most} of them.

        @param base: where; left out, where users are.
        @param whole: below it too, and not only that entry itself.
        @raise DirectoryUnavailable: no server says.
        """
        where = base or self._settings.base

        def ask(handle: Any, end: float) -> list[Entry]:
            scope = self._ldap.SCOPE_SUBTREE if whole else self._ldap.SCOPE_BASE
            left = self._left(end)
            try:
                number = handle.search_ext(
                    where, scope, filter, list(attributes), timeout=left, sizelimit=most
                )
                _, found, _, _ = handle.result3(number, timeout=left)
            except self._ldap.NO_SUCH_OBJECT:
                return []
            return _entries(found)

        return self._ask(ask)

    def ping(self) -> None:
        """See that a server answers.

        @raise DirectoryUnavailable: none does.
        """
        self.search("(objectClass=*)", ["1.1"], whole=False)

    def pages(self, filter: str, attributes: Sequence[str], base: str = "") -> Iterator[Entry]:
        """All entries that meet C{filter}, however many (RFC 2696); fetched page by page.

        @raise DirectoryUnavailable: no server says, or not any more.
        """
        control = self._controls.SimplePagedResultsControl(True, size=self._settings.page_size, cookie=b"")

        def ask(handle: Any, end: float) -> tuple[list[Entry], bytes]:
            left = self._left(end)
            number = handle.search_ext(
                base or self._settings.base,
                self._ldap.SCOPE_SUBTREE,
                filter,
                list(attributes),
                serverctrls=[control],
                timeout=left,
            )
            _, found, _, answered = handle.result3(number, timeout=left)
            cookie = b""
            for one in answered:
                if one.controlType == control.controlType:
                    cookie = one.cookie
            return _entries(found), cookie

        with self._kept() as connection:
            while True:
                try:
                    entries, cookie = ask(connection.handle, self._end())
                except self._ldap.LDAPError as problem:
                    raise self._trouble(connection.server, problem) from None
                yield from entries
                if not cookie:
                    return
                control.cookie = cookie

    def prove(self, dn: str, password: str) -> bool:
        """Is C{password} that of the entry C{dn}?

        @raise DirectoryUnavailable: no server says.
        """
        if not password or not dn or "\0" in password:
            return False  # to a server a name without a password is nobody, who is always welcome

        def ask(handle: Any, end: float) -> bool:
            try:
                number = handle.simple_bind(dn, password)
                handle.result3(number, timeout=self._left(end))
            except (
                self._ldap.INVALID_CREDENTIALS,
                self._ldap.INAPPROPRIATE_AUTH,
                self._ldap.NO_SUCH_OBJECT,
                self._ldap.INVALID_DN_SYNTAX,
            ):
                return False
            return True

        return self._ask(ask, reader=False)

    def reach(self) -> Reached:
        """Find a server that answers, and lets the reader in.

        @raise DirectoryUnavailable: none does.
        """
        failed: list[tuple[str, str]] = []
        connection = self._open(reader=True, failed=failed)
        self._give_back(connection, reader=True)
        return Reached(self._settings.servers[connection.server], tuple(failed), self._certificate)

    def close(self) -> None:
        """Hang up; what is on its way ends by itself."""
        self._closed = True
        self._forget_idle()

    def _forget_idle(self) -> None:
        """Hang up where nothing is asked just now."""
        with self._lock:
            for idle in self._idle.values():
                for connection in idle:
                    self._drop(connection)
                idle.clear()

    # connections

    def _ask(self, ask: Callable[[Any, float], _Answer], *, reader: bool = True) -> _Answer:
        """Have a question answered, by another server if the first one fails in the middle of it."""
        for attempt in (1, 2):
            connection = self._take(reader)
            try:
                answer = ask(connection.handle, self._end())
            except self._ldap.LDAPError as problem:
                self._room[reader].release()
                fresh = connection.used < 0
                self._drop(connection)
                self._forget_idle()  # what one connection of the pool suffered, the others have too
                trouble = self._trouble(connection.server, problem, rest=fresh)
                if attempt == 2:
                    raise trouble from None
            except BaseException:
                self._room[reader].release()
                self._drop(connection)
                raise
            else:
                self._room[reader].release()
                self._give_back(connection, reader)
                return answer
        raise AssertionError("the second attempt returns or raises")

    @contextmanager
    def _kept(self) -> Iterator[_Connection]:
        """A connection for a question of many steps; not one of the pool, which it would occupy for long."""
        connection = self._open(reader=True)
        try:
            yield connection
        finally:
            self._drop(connection)

    def _take(self, reader: bool) -> _Connection:
        """A connection that is free; the caller gives its place back."""
        if not self._room[reader].acquire(timeout=self._settings.deadline_seconds):
            raise DirectoryUnavailable("too many questions wait for the LDAP servers")
        try:
            since = self._now() - IDLE_SECONDS
            while True:
                with self._lock:
                    if not self._idle[reader]:
                        break
                    connection = self._idle[reader].pop()
                if connection.used >= since and connection.server == self._current:
                    return connection
                self._drop(connection)
            return self._open(reader)
        except BaseException:
            self._room[reader].release()
            raise

    def _give_back(self, connection: _Connection, reader: bool) -> None:
        connection.used = self._now()
        with self._lock:
            if not self._closed and len(self._idle[reader]) < self._settings.connections:
                self._idle[reader].append(connection)
                return
        self._drop(connection)

    def _drop(self, connection: _Connection) -> None:
        with suppress(self._ldap.LDAPError):
            connection.handle.unbind_ext_s()

    def _open(self, reader: bool, failed: list[tuple[str, str]] | None = None) -> _Connection:
        """A new connection to the server that is stayed with, or the next one that answers.

        @param failed: told which servers failed, and why.
        @raise DirectoryUnavailable: none answers.
        """
        servers, now = self._settings.servers, self._now()
        order = [(self._current + step) % len(servers) for step in range(len(servers))]
        waiting = [number for number in order if self._resting.get(number, now) <= now]
        if not waiting and failed is None:
            raise DirectoryUnavailable("no LDAP server answers")
        problems = [] if failed is None else failed
        for number in waiting if failed is None else order:
            try:
                handle = self._connect(servers[number], reader)
            except (self._ldap.LDAPError, OSError) as problem:
                problems.append((servers[number], _reason(problem)))
                self._resting[number] = self._now() + REST_SECONDS
                continue
            self._resting.pop(number, None)
            if number != self._current or self._troubled:
                self._log.info("the LDAP server {server} is asked from now on", server=servers[number])
            self._current, self._troubled = number, False
            return _Connection(handle, number, -1.0)
        said = "; ".join(f"{server}: {why}" for server, why in problems)
        if not self._troubled:
            self._troubled = True
            self._log.warn("no LDAP server answers: {said}", said=said)
        raise DirectoryUnavailable(f"no LDAP server answers ({said})")

    def _connect(self, server: str, reader: bool) -> Any:
        """The library's handle of a new connection, encrypted, and signed in if it is the reader's."""
        ldap, settings, end = self._ldap, self._settings, self._end()
        self._certificate = greet(server, settings)
        handle = ldap.initialize(server)
        try:
            handle.set_option(ldap.OPT_PROTOCOL_VERSION, 3)
            handle.set_option(ldap.OPT_REFERRALS, 0)
            handle.set_option(ldap.OPT_NETWORK_TIMEOUT, settings.deadline_seconds)
            handle.set_option(ldap.OPT_TIMEOUT, settings.deadline_seconds)
            for option, value in zip(_KEEPALIVE, (5, 3, 2), strict=True):
                handle.set_option(getattr(ldap, option), value)
            encrypted = settings.starttls and urlsplit(server).scheme == "ldap"
            if encrypted or urlsplit(server).scheme == "ldaps":
                authorities = settings.ca_file or ssl.get_default_verify_paths().cafile
                if authorities:
                    handle.set_option(ldap.OPT_X_TLS_CACERTFILE, authorities)
                handle.set_option(ldap.OPT_X_TLS_REQUIRE_CERT, ldap.OPT_X_TLS_DEMAND)
                handle.set_option(ldap.OPT_X_TLS_NEWCTX, 0)
            if encrypted:
                handle.start_tls_s()
            if reader:
                handle.result3(
                    handle.simple_bind(settings.bind_dn, self._password if settings.bind_dn else ""),
                    timeout=self._left(end),
                )
        except BaseException:
            with suppress(ldap.LDAPError):
                handle.unbind_ext_s()
            raise
        return handle

    # time and trouble

    def _end(self) -> float:
        return self._now() + self._settings.deadline_seconds

    def _left(self, end: float) -> float:
        """Seconds until C{end}; never none at all, which the library would take for ever."""
        return max(0.05, end - self._now())

    def _trouble(self, server: int, problem: Exception, *, rest: bool = True) -> DirectoryUnavailable:
        """A server failed in the middle of a question.

        @param rest: it is not to be asked for a while.
        """
        if rest and isinstance(
            problem,
            self._ldap.SERVER_DOWN | self._ldap.TIMEOUT | self._ldap.UNAVAILABLE | self._ldap.BUSY,
        ):
            self._resting[server] = self._now() + REST_SECONDS
        return DirectoryUnavailable(f"{self._settings.servers[server]}: {_reason(problem)}")


def greet(server: str, settings: LdapSettings) -> bytes:
    """Connect once and agree on encryption, and hang up again.

    The client library has no deadline for a handshake: a server that falls silent in the middle would hold
    its thread for good.  So a handshake of our own, which has one, comes before each connection.

    @return: the certificate of the server, in DER; empty without encryption.
    @raise OSError: it does not answer in time, or cannot prove who it is.
    """
    parts = urlsplit(server)
    is_tls = parts.scheme == "ldaps"
    host, port = parts.hostname or "", parts.port or (636 if is_tls else 389)
    with socket.create_connection((host, port), timeout=settings.deadline_seconds) as plain:
        if not is_tls and not settings.starttls:
            return b""
        if not is_tls:
            plain.sendall(_STARTTLS)
            if _STARTED not in plain.recv(4096):
                raise OSError("it does not know StartTLS")
        context = ssl.create_default_context(cafile=settings.ca_file or None)
        with context.wrap_socket(plain, server_hostname=host) as encrypted:
            return encrypted.getpeercert(binary_form=True) or b""


#: An extended request, and what stands in the answer if it was granted: resultCode 0, no DN, no text.
_STARTTLS = b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037"
_STARTED = b"\x0a\x01\x00"

#: The library's options for noticing that a server has gone without a word: after how many seconds of silence
#: it is asked, how often, and how many seconds apart.
_KEEPALIVE = ("OPT_X_KEEPALIVE_IDLE", "OPT_X_KEEPALIVE_PROBES", "OPT_X_KEEPALIVE_INTERVAL")


# The library's results have no types.
def _entries(found: Sequence[Any]) -> list[Entry]:
    """The entries of an answer; what refers to other servers is left out."""
    return [
        Entry(dn, {name.lower(): tuple(values) for name, values in attributes.items()})
        for dn, attributes, *_ in found
        if dn is not None
    ]


def _reason(problem: Exception) -> str:
    """What the library says, on one line."""
    if isinstance(problem, OSError):
        return " ".join((problem.strerror or str(problem) or "no connection").split())
    told = problem.args[0] if problem.args and isinstance(problem.args[0], dict) else {}
    parts = [str(told.get(name, "")).strip() for name in ("desc", "info")]
    return " ".join(": ".join(part for part in parts if part).split()) or type(problem).__name__
