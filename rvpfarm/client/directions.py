"""From an address that a person typed to the node and the machines to ask about it."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from rvpfarm.client.names import Address, Place, key_of, logical_url, parse_address
from rvpfarm.discovery.lookup import DEFAULT_PORT, Located, Locator, NotLocated, is_local, split_host_port

#: How long what was looked up is believed, and how much of it.
_FRESH_SECONDS = 300.0
_MOST_KNOWN = 1000


class Directions:
    """Knows the way to the server of every address.

    One's own domain may be reached by a server that was named by hand; all others are looked up.
    """

    def __init__(self, locator: Locator, clock: IReactorTime, *, server: str | None = None) -> None:
        """
        @param server: C{host:port} of the server for one's own domain.
        @raise ValueError: C{server} is not C{host:port}.
        """
        self._locator = locator
        self._clock = clock
        self._server = None if server is None else split_host_port(server, DEFAULT_PORT)
        self._known: dict[str, tuple[float, Located]] = {}
        self._own: Located | None = None

    async def own_place(self, text: str) -> Place:
        """The place of whoever uses this.

        @raise ValueError: C{text} is no address.
        @raise NotLocated: its server cannot be found.
        """
        address = parse_address(text)
        located = await self._located(address)
        if self._server is not None:
            host, port = self._server
            addresses = await self._locator.addresses(host)
            if not addresses:
                raise NotLocated(f"the server {host} has no address")
            located = Located(located.im_domain, host, port, addresses)
        self._own = located
        return _place(address, located)

    async def place(self, text: str) -> Place:
        """The place of somebody.

        @raise ValueError: C{text} is no address.
        @raise NotLocated: its server cannot be found.
        """
        address = parse_address(text)
        located = await self._located(address)
        if self._own is not None and located.im_domain == self._own.im_domain:
            located = self._own
        return _place(address, located)

    async def _located(self, address: Address) -> Located:
        """Where the address's domain is served, as far as the DNS says."""
        domain = address.domain
        known = self._known.get(domain)
        if known is not None and known[0] > self._clock.seconds():
            return known[1]
        located = await self._look_up(address)
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[domain] = (self._clock.seconds() + _FRESH_SECONDS, located)
        return located

    async def _look_up(self, address: Address) -> Located:
        domain = address.domain
        if self._server is not None and self._own is None and address.url:
            return Located(domain, domain, DEFAULT_PORT, (domain,))  # all that the DNS could add is known
        try:
            located = await self._locator.locate(domain)
        except NotLocated:
            if self._server is None or self._own is not None:
                raise
            # With a server named by hand only the name of the IM domain is missing.
            guess = f"im.{domain}" if is_local(domain) and not domain.startswith("im.") else domain
            return Located(guess, domain, DEFAULT_PORT, (domain,))
        if address.url and located.im_domain != domain:
            # A URL names the IM domain itself; an SRV record of that name may not rename it.
            return Located(domain, located.host, located.port, located.addresses)
        return located


def _place(address: Address, located: Located) -> Place:
    """The node of C{address} on the servers of C{located}."""
    url = address.url or logical_url(address.alias, located.im_domain)
    path = url.removeprefix("http://").partition("/")[2]
    return Place(
        address.text, key_of(url), url, located.im_domain, f"/{path}", located.port, located.addresses
    )
