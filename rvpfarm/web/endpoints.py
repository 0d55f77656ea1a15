"""String endpoints on the loop's own transports: C{fast:tcp:80}, C{fast:ssl:443:privateKey=...} and so on.

The plugin file loads this module before a reactor is chosen, so it imports nothing that would choose one
and leaves everything heavy until an endpoint is really made.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import (
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpointStringParser,
)
from twisted.plugin import IPlugin
from zope.interface import implementer

if TYPE_CHECKING:
    from rvpfarm.web.fast import FastClientEndpoint, FastServerEndpoint
    from rvpfarm.web.inherited import FastInheritedEndpoint
    from rvpfarm.web.tls import ServerTLS

#: A part of a description between two colons; a backslash takes the meaning from whatever follows it.
_PIECE = re.compile(r"(?:[^:\\]|\\.)+")

#: What a server's description may be about, with the arguments that may stand without a name.
_SERVERS = {"tcp": ("port",), "ssl": ("port",), "fd": ("descriptor",), "systemd": ("domain", "index", "name")}

#: The same for clients.
_CLIENTS = {"tcp": ("host", "port"), "ssl": ("host", "port")}

#: The arguments of servers that say which socket, as opposed to what is done with it.
_WHICH_SOCKET = {"port", "interface", "reusePort", "descriptor", "domain", "index", "name"}


class _Words:
    """The arguments of one endpoint description, taken by name until none is left."""

    def __init__(
        self, args: tuple[str, ...], kwargs: dict[str, str], kinds: Mapping[str, tuple[str, ...]]
    ) -> None:
        """
        @param kinds: what the description may be about, each with the names of the arguments that may stand
            without a name.
        """
        if not args or args[0].lower() not in kinds:
            known = " or ".join(f"fast:{kind}:..." for kind in kinds)
            raise ValueError(f"an endpoint on the loop's own transports is {known}")
        self.kind = args[0].lower()
        self._left = dict(kwargs)
        free = [name for name in kinds[self.kind] if name not in kwargs]
        if len(args) - 1 > len(free):
            raise ValueError(f"fast:{self.kind}: too many arguments: {':'.join(args[1:])}")
        self._left.update(zip(free, args[1:], strict=False))

    def text(self, name: str, default: str | None = None) -> str:
        """The argument C{name}.

        @raise ValueError: it is missing and there is no default.
        """
        value = self._left.pop(name, default)
        if value is None:
            raise ValueError(f"fast:{self.kind}: {name} is missing")
        return value

    def number(self, name: str, default: str | None = None, *, most: int = 65535) -> int:
        """The argument C{name} as a number from 0 to C{most}.

        @raise ValueError: it is no such number.
        """
        value = self.text(name, default)
        if not (value.isascii() and value.isdigit() and int(value) <= most):
            raise ValueError(f"fast:{self.kind}: {name} is a number from 0 to {most}, not {value!r}")
        return int(value)

    def has(self, name: str) -> bool:
        """Is the argument C{name} there, and not taken yet?"""
        return name in self._left

    def finish(self) -> None:
        """
        @raise ValueError: an argument is left that nobody knows.
        """
        if self._left:
            raise ValueError(f"fast:{self.kind}: unknown argument {', '.join(sorted(self._left))}")


def on_descriptor(description: str, fd: int) -> str:
    """The server endpoint C{description}, but on a socket that is handed down as C{fd}: all else stays.

    @param description: of a C{fast:} endpoint.
    """
    prefix, kind, *words = _PIECE.findall(description)
    left = len(_SERVERS[kind.lower()])
    kept = []
    for word in words:
        name, equals, _ = word.partition("=")
        if equals and name in _WHICH_SOCKET:
            continue
        if not equals and left > 0:
            left -= 1
            continue
        kept.append(word)
    return ":".join([prefix, "fd", str(fd), *kept])


@implementer(IPlugin, IStreamServerEndpointStringParser)
class FastServerParser:
    """Reads the descriptions of servers.

    C{fast:tcp:PORT} and C{fast:ssl:PORT:privateKey=FILE:certKey=FILE} take C{interface=ADDRESS} and
    C{reusePort=1} (several processes on one address).  C{fast:systemd:index=N} and C{fast:systemd:name=NAME}
    are sockets that systemd opened, C{fast:fd:N} is one that this process was started with; they speak TLS if
    C{privateKey} is given.  All take C{backlog=N} and C{proxyProtocol=1} (behind a load balancer: each
    connection comes from a network listed as C{trusted-proxy} and begins with the preamble of the PROXY
    protocol, before TLS).
    """

    prefix = "fast"

    # Any: zope names no reactor that has all that an endpoint needs, and says no more of the words
    def parseStreamServer(
        self, reactor: Any, *args: Any, **kwargs: Any
    ) -> FastServerEndpoint | FastInheritedEndpoint:
        """The endpoint that a description names."""
        words = _Words(args, kwargs, _SERVERS)
        how = {
            "backlog": words.number("backlog", "1024"),
            "tls": _server_tls(words),
            "proxied": words.number("proxyProtocol", "0", most=1) == 1,
        }
        if words.kind in ("tcp", "ssl"):
            return _own(reactor, words, how)
        return _inherited(reactor, words, how)


def _server_tls(words: _Words) -> ServerTLS | None:
    """The key and the certificate, where TLS is asked for."""
    from rvpfarm.web.tls import ServerTLS

    if words.kind == "tcp" or (words.kind != "ssl" and not words.has("privateKey")):
        return None
    private = words.text("privateKey", "server.pem")
    return ServerTLS(private, words.text("certKey", private))


def _own(reactor: Any, words: _Words, how: dict[str, Any]) -> FastServerEndpoint:
    """On a socket of our own (C{Any}: as the parsers have it, and arguments are of all kinds)."""
    from rvpfarm.web.fast import FastServerEndpoint

    port = words.number("port")
    interface = words.text("interface", "")
    reuse = words.number("reusePort", "0", most=1) == 1
    words.finish()
    return FastServerEndpoint(reactor, port, interface=interface, reuse_port=reuse, **how)


def _inherited(reactor: Any, words: _Words, how: dict[str, Any]) -> FastInheritedEndpoint:
    """On a socket that was handed down (C{Any}: as in L{_own}).

    @raise ValueError: there is none, or it cannot be listened on.
    """
    from rvpfarm.web.inherited import DOMAINS, FastInheritedEndpoint, from_systemd

    if words.kind == "fd":
        number, domain = words.number("descriptor"), ""
        words.finish()
        descriptors = [number]
    else:
        domain = words.text("domain", "")
        if domain and domain not in DOMAINS:
            raise ValueError(f"fast:systemd: domain is {' or '.join(DOMAINS)}, not {domain!r}")
        if words.has("index") == words.has("name"):
            raise ValueError("fast:systemd: say which socket with index=N or with name=NAME")
        if words.has("index"):
            index, name = words.number("index"), None
        else:
            index, name = None, words.text("name")
        words.finish()
        descriptors = from_systemd(index=index, name=name)
    return FastInheritedEndpoint(reactor, descriptors, domain=domain, **how)


@implementer(IPlugin, IStreamClientEndpointStringParserWithReactor)
class FastClientParser:
    """Reads C{fast:tcp:HOST:PORT} and C{fast:ssl:HOST:PORT}.

    Both take C{timeout=SECONDS} and C{bindAddress=ADDRESS}; C{ssl} takes C{hostname=NAME} (the name that the
    certificate must bear, when it is not HOST) and C{trustRoots=FILE} (certificates to trust, PEM).
    """

    prefix = "fast"

    # Any: zope names no reactor that has all that an endpoint needs, and says no more of the words
    def parseStreamClient(self, reactor: Any, *args: Any, **kwargs: Any) -> FastClientEndpoint:
        """The endpoint that a description names."""
        from rvpfarm.web import fast, tls

        words = _Words(args, kwargs, _CLIENTS)
        host = words.text("host")
        port = words.number("port")
        timeout = words.number("timeout", "30", most=86400)
        bind = words.text("bindAddress", "")
        secure = None
        if words.kind == "ssl":
            secure = tls.ClientTLS(words.text("hostname", host), words.text("trustRoots", ""))
        words.finish()
        return fast.FastClientEndpoint(
            reactor, host, port, timeout_seconds=timeout, bind_address=bind, tls=secure
        )
