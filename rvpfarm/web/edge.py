"""What a listener is told of those who connect: how many it takes, and whom it believes about others.

It decides and counts; the connections themselves are elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address, ip_network

from rvpfarm.directory.model import Farm
from rvpfarm.directory.ranges import Ranges
from rvpfarm.protocol.address import site_of
from rvpfarm.protocol.calls import Limits
from rvpfarm.protocol.forwarded import read_caller

#: Addresses of networks of somebody's own; Python's C{is_private} has those of examples, too.
_PRIVATE = tuple(map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")))

#: Addresses that are remembered to have been complained of.
TOLD_LIMIT = 1000

#: Values of the header that are remembered with what they say, so that they are not read anew for each call;
#: longer ones are read each time.
_CALLERS_LIMIT, _CALLER_SIZE = 4096, 100


class Edge:
    """Who is at the edge of the farm: counts connections by where they come from.

    A connection counts from when it is taken off the socket, so that whoever is slow with a TLS handshake
    or with the preamble of a proxy has no more of them than others.

    @ivar limit: so many connections are taken.
    @ivar per_source: so many of one IPv4 address or IPv6 network; listed proxies are exempt.
    @ivar trusted: the proxies that are listed: their word counts about who calls.
    @ivar used: connections that are open or on their way in.
    """

    __slots__ = (
        "_callers",
        "_header",
        "_inside",
        "_name",
        "_sources",
        "_told",
        "limit",
        "per_source",
        "trusted",
        "used",
    )

    def __init__(self, limits: Limits | None = None) -> None:
        """
        @param limits: what holds until L{update} says otherwise.
        """
        chosen = limits or Limits()
        self.limit, self.per_source = chosen.connections, chosen.per_source
        self.trusted = Ranges()
        self.used = 0
        self._header, self._name = "x-forwarded-for", b"x-forwarded-for"
        self._callers: dict[bytes, str] = {}
        self._inside = Ranges()
        self._sources: dict[str, int] = {}
        self._told: set[str] = set()

    def update(self, farm: Farm) -> bool:
        """Keep to what C{farm} says from now on; what is open stays open.

        @return: whether other proxies are listed than before.
        """
        self.limit = farm.number("max-connections")
        self.per_source = farm.number("connections-per-source")
        self._header = farm.policy("forwarded-header")
        self._name = b"" if self._header == "none" else self._header.encode()
        self._callers.clear()
        self._inside = Ranges("inside", farm.networks)
        trusted = Ranges("trusted-proxy", farm.networks)
        if trusted == self.trusted:
            return False
        self.trusted = trusted
        self._told.clear()
        return True

    # how many

    def source_of(self, peer: str) -> str:
        """Where a connection from C{peer} is counted; empty when it is not counted by where it is from."""
        return "" if peer in self.trusted else site_of(peer)

    def enter(self, source: str) -> str:
        """One more connection from C{source}, if there is room.

        @return: why there is none: C{"conn"} (too many in all) or C{"source"} (from there); else empty.
        """
        if self.used >= self.limit:
            return "conn"
        if source:
            count = self._sources.get(source, 0)
            if count >= self.per_source:
                return "source"
            self._sources[source] = count + 1
        self.used += 1
        return ""

    def leave(self, source: str) -> None:
        """A connection that L{enter} counted is gone."""
        self.used -= 1
        self._uncount(source)

    def move(self, source: str, peer: str) -> str:
        """The proxies that are listed have changed: count a connection from C{peer} anew, and keep it.

        @param source: where it has been counted.
        @return: where it is counted now.
        """
        self._uncount(source)
        source = self.source_of(peer)
        if source:
            self._sources[source] = self._sources.get(source, 0) + 1
        return source

    @property
    def private(self) -> int:
        """How many connections come from private addresses that do not count as inside; from any thread."""
        if not self._inside.given:
            return 0
        sources = list(self._sources.items())
        return sum(count for source, count in sources if _is_private(source) and source not in self._inside)

    def _uncount(self, source: str) -> None:
        if source:
            left = self._sources[source] - 1
            if left:
                self._sources[source] = left
            else:
                del self._sources[source]

    # whom to believe

    def caller(self, proxy: str, headers: Mapping[bytes, bytes]) -> str:
        """The address of the caller for whom a listed proxy passes a request on.

        @param proxy: its address.
        @return: empty when the proxy does not say.
        @raise BadRequest: what it says is malformed.
        """
        value = headers.get(self._name, b"")
        found = self._callers.get(value)
        if found is None:
            found = read_caller(self._header, proxy, headers, self.trusted)
            if 0 < len(value) <= _CALLER_SIZE:
                if len(self._callers) >= _CALLERS_LIMIT:
                    self._callers.clear()
                self._callers[value] = found
        return found

    def is_news(self, peer: str) -> bool:
        """Whether C{peer} has not been complained of yet: it is worth one line in the log."""
        if peer in self._told or len(self._told) >= TOLD_LIMIT:
            return False
        self._told.add(peer)
        return True


def _is_private(source: str) -> bool:
    """Is it in a private network (RFC 1918, RFC 4193)?  An IPv6 network is written as its first address."""
    try:
        address = ip_address(source.partition("/")[0])
    except ValueError:
        return False
    return any(address in network for network in _PRIVATE)
