"""The call-back listener: where a person's home server brings what there is to hear."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort

from rvpfarm.client.notices import Notice, parse_notice
from rvpfarm.protocol.calls import Call, Failed, Limits, NotFound, NotSupported, Reply, Unreachable
from rvpfarm.protocol.headers import check_method
from rvpfarm.web.server import CallFactory

#: How long calls in work may take when listening ends.
_DRAIN_SECONDS = 1.0

#: One person's home server and its router: few connections, and bodies as large as servers relay.
_LIMITS = Limits(connections=64, in_work=64)


def local_address(towards: str) -> str:
    """The address of this machine that a connection to C{towards} would come from.

    Nothing is sent: a datagram socket is only told its peer.

    @raise Unreachable: there is no way to C{towards}.
    """
    family = socket.AF_INET6 if ":" in towards else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((towards, 9))
        except OSError as error:
            raise Unreachable(f"there is no way to {towards}: {error.strerror}") from None
        return str(probe.getsockname()[0])


class Listener:
    """Listens for NOTIFY from one's home server and nothing else.

    Clients have to believe any sender (protocol notes 9.5), so the path of the call-back is a secret
    between the client and its home: what comes by another path is refused.
    """

    def __init__(self, reactor: Any, heard: Callable[[Notice], bool], *, token: str) -> None:
        """
        @param reactor: listens and tells the time; no single interface says both.
        @param heard: told of each notice; false when its conversation is over.
        @param token: an unpredictable word for the path.
        """
        self._reactor = reactor
        self._heard = heard
        self._path = f"/{token}".encode("ascii")
        self._factory = CallFactory(self._answer, clock=reactor, limits=_LIMITS, name="call-back")
        self._port: IListeningPort | None = None
        self._interface = ""

    def listen(self, interface: str, port: int = 0) -> None:
        """Be reachable at an address of this machine; without effect when that is so already.

        @param port: 0 for any.
        @raise Unreachable: that cannot be.
        """
        if self._port is not None and self._interface == interface:
            return
        if self._port is not None:
            maybeDeferred(self._port.stopListening)
            self._port = None
        try:
            self._port = self._reactor.listenTCP(port, self._factory, interface=interface)
        except CannotListenError as error:
            raise Unreachable(
                f"cannot listen for messages on {interface} port {port}: {error.socketError}"
            ) from None
        self._interface = interface

    def url(self, host: str = "") -> str:
        """The call-back URL.

        @param host: the name or address under which the home server reaches us, if it is another one.
        """
        assert self._port is not None
        here = self._port.getHost()
        assert isinstance(here, (IPv4Address, IPv6Address))
        host = host or self._interface
        shown = f"[{host}]" if ":" in host else host
        return f"http://{shown}:{here.port}{self._path.decode()}"

    def stop(self) -> Deferred[Any]:
        """Stop listening; fires when all is closed."""
        port, self._port = self._port, None
        if port is None:
            return DeferredList([])
        return DeferredList(
            [maybeDeferred(port.stopListening), self._factory.drain(_DRAIN_SECONDS)], consumeErrors=True
        )

    def _answer(self, call: Call) -> Reply:
        """Take one call.

        @raise NotFound: by another path than ours.
        @raise NotSupported: anything but NOTIFY.
        @raise Failed: its conversation is over (RVP 8).
        """
        check_method(call.method)
        if call.target != self._path:
            raise NotFound()
        if call.method != b"NOTIFY":
            raise NotSupported()
        notice = parse_notice(call.body)
        if notice is not None and not self._heard(notice):
            raise Failed("the user has left the conversation")
        return Reply(200)
