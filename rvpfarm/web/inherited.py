"""Listening sockets that somebody else has opened: systemd, or the process that started this one.

Whoever opened such a socket keeps it.  So this process only ever works with copies of the descriptor, and
what the kernel has queued is still there for the next process when this one is gone.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from zope.interface import implementer

from rvpfarm.web.fast import FastPort, loop_of

if TYPE_CHECKING:
    from rvpfarm.web.tls import ServerTLS

#: The kinds of addresses that are served, as C{systemd:} endpoints name them.
DOMAINS = {"INET": socket.AF_INET, "INET6": socket.AF_INET6}


def from_systemd(*, index: int | None = None, name: str | None = None) -> list[int]:
    """The descriptors that systemd handed down (C{sd_listen_fds}) under C{name}, or from C{index} on.

    @raise ValueError: there is none.
    """
    # Twisted reads the variables as soon as it is imported and takes them out of the environment: what it has
    # read is kept here alone.  The names stay in the environment.
    from twisted.internet.endpoints import _SystemdParser

    found = _SystemdParser._sddaemon.inheritedDescriptors()
    if index is not None:
        if index >= len(found):
            raise ValueError(f"{_so_many(len(found))} handed down by systemd, so there is no index={index}")
        return found[index:]
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    named = [fd for fd, each in zip(found, names, strict=False) if each == name]
    if not named:
        known = ", ".join(sorted(set(names[: len(found)]) - {""}))
        raise ValueError(
            f"{_so_many(len(found))} handed down by systemd"
            + (f", and named {known}" if known else "")
            + f"; none is named {name}"
        )
    return named


def _so_many(count: int) -> str:
    return "no socket was" if count == 0 else "one socket was" if count == 1 else f"{count} sockets were"


def adopt(fd: int, domain: str = "") -> socket.socket:
    """A listening socket over a copy of the descriptor C{fd}, which itself stays open but reaches no child.

    @param domain: a key of L{DOMAINS} that it must be of, or empty for either.
    @raise ValueError: it cannot be listened on.
    """
    try:
        os.set_inheritable(fd, False)
        copy = os.dup(fd)
        try:
            sock = socket.socket(fileno=copy)
        except OSError:
            os.close(copy)
            raise
    except OSError as problem:
        raise ValueError(f"descriptor {fd}: {(problem.strerror or str(problem)).lower()}") from None
    wanted = [DOMAINS[domain]] if domain else list(DOMAINS.values())
    wrong = ""
    if sock.family not in wanted or sock.type != socket.SOCK_STREAM:
        wrong = f"is no TCP socket of domain {domain or ' or '.join(DOMAINS)}"
    elif not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        wrong = "does not listen"
    if wrong:
        sock.close()
        raise ValueError(f"descriptor {fd} {wrong}")
    sock.setblocking(False)
    return sock


@implementer(IStreamServerEndpoint)
class FastInheritedEndpoint:
    """Listens on a socket that was handed down, with the loop's own transports.

    @ivar tls: the key and the certificate, if it speaks TLS.
    @ivar proxied: see L{rvpfarm.web.fast.FastServerEndpoint}.
    """

    # Any: zope names no reactor that has all that an endpoint needs
    def __init__(
        self,
        reactor: Any,
        descriptors: Sequence[int],
        *,
        domain: str = "",
        backlog: int = 1024,
        tls: ServerTLS | None = None,
        proxied: bool = False,
    ) -> None:
        """
        @param descriptors: the first is listened on; the others are for L{reserve}.
        @param domain: what they must be of; see L{adopt}.
        @raise ValueError: the first cannot be listened on.
        """
        self._reactor, self._descriptors, self._domain = reactor, tuple(descriptors), domain
        self._backlog, self.tls, self.proxied = backlog, tls, proxied
        adopt(self._descriptors[0], domain).close()

    def reserve(self, count: int) -> list[socket.socket]:
        """The first C{count} sockets, for processes that share the connections.

        @raise ValueError: there are fewer, or one cannot be listened on.
        """
        if len(self._descriptors) < count:
            raise ValueError(
                f"{count} sockets are needed and {_so_many(len(self._descriptors))} handed down; "
                "a socket unit with ReusePort=yes makes one for each ListenStream= line"
            )
        return [adopt(fd, self._domain) for fd in self._descriptors[:count]]

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Listen; connections are accepted once the loop runs.

        @return: fires at once with the port.
        """
        sock = adopt(self._descriptors[0], self._domain)
        loop = loop_of(self._reactor)
        if loop is None:
            return self._without_loop(sock, protocolFactory)
        port = FastPort(
            loop, sock, protocolFactory, backlog=self._backlog, tls=self.tls, proxied=self.proxied
        )
        port.startListening()
        return succeed(port)

    def _without_loop(self, sock: socket.socket, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        from twisted.internet.endpoints import AdoptedStreamServerEndpoint
        from twisted.protocols.tls import TLSMemoryBIOFactory

        if self.proxied:
            where = sock.getsockname()
            sock.close()
            problem = OSError("proxyProtocol needs the asyncio reactor")
            return fail(CannotListenError(where[0], where[1], problem))
        if self.tls is not None:
            factory = TLSMemoryBIOFactory(self.tls.options(), False, factory)
        family = socket.AddressFamily(sock.family)
        # it closes what it is given, having made a copy of its own
        endpoint = AdoptedStreamServerEndpoint(self._reactor, sock.detach(), family)
        listening: Deferred[IListeningPort] = endpoint.listen(factory)
        return listening
