"""String endpoints on the loop's own transports: C{fast:tcp:8080}, C{fast:ssl:443:privateKey=...}.

The plugin file loads this module before a reactor is chosen, so it imports nothing that would choose one
and leaves everything heavy until an endpoint is really made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import (
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpointStringParser,
)
from twisted.plugin import IPlugin
from zope.interface import implementer

if TYPE_CHECKING:
    from rvpfarm.web.fast import FastClientEndpoint, FastServerEndpoint

_KINDS = ("tcp", "ssl")


class _Words:
    """The arguments of one endpoint description, taken by name until none is left."""

    def __init__(self, args: tuple[str, ...], kwargs: dict[str, str], positional: tuple[str, ...]) -> None:
        """
        @param positional: the names of the arguments after the kind that may stand without a name.
        """
        if not args or args[0].lower() not in _KINDS:
            raise ValueError("an endpoint on the loop's own transports is fast:tcp:... or fast:ssl:...")
        self.kind = args[0].lower()
        self._left = dict(kwargs)
        free = [name for name in positional if name not in kwargs]
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

    def finish(self) -> None:
        """
        @raise ValueError: an argument is left that nobody knows.
        """
        if self._left:
            raise ValueError(f"fast:{self.kind}: unknown argument {', '.join(sorted(self._left))}")


@implementer(IPlugin, IStreamServerEndpointStringParser)
class FastServerParser:
    """Reads C{fast:tcp:PORT} and C{fast:ssl:PORT:privateKey=FILE:certKey=FILE}.

    Both take C{interface=ADDRESS}, C{backlog=N}, C{reusePort=1} (several processes on one address) and
    C{proxyProtocol=1} (behind a load balancer: each connection comes from a network listed as
    C{trusted-proxy} and begins with the preamble of the PROXY protocol, before TLS).
    """

    prefix = "fast"

    # Any: zope names no reactor that has all that an endpoint needs, and says no more of the words
    def parseStreamServer(self, reactor: Any, *args: Any, **kwargs: Any) -> FastServerEndpoint:
        """The endpoint that a description names."""
        from rvpfarm.web import fast, tls

        words = _Words(args, kwargs, ("port",))
        port = words.number("port")
        interface = words.text("interface", "")
        backlog = words.number("backlog", "1024")
        reuse = words.number("reusePort", "0", most=1) == 1
        proxied = words.number("proxyProtocol", "0", most=1) == 1
        secure = None
        if words.kind == "ssl":
            private = words.text("privateKey", "server.pem")
            secure = tls.ServerTLS(private, words.text("certKey", private))
        words.finish()
        return fast.FastServerEndpoint(
            reactor,
            port,
            interface=interface,
            backlog=backlog,
            reuse_port=reuse,
            tls=secure,
            proxied=proxied,
        )


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

        words = _Words(args, kwargs, ("host", "port"))
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
