"""From a domain to the machines that serve it: SRV, then A and AAAA (protocol notes 1.5)."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, FirstError, TimeoutError, gatherResults
from twisted.internet.interfaces import IAddress, IHostResolution, IResolutionReceiver
from twisted.names import dns
from twisted.names.client import Resolver
from twisted.names.common import ResolverBase
from twisted.names.error import (
    AuthoritativeDomainError,
    DNSNameError,
    DNSQueryTimeoutError,
    DomainError,
    ResolverError,
)
from zope.interface import implementer

from rvpfarm.protocol.calls import Unreachable

#: The port of RVP when no SRV record names another.
DEFAULT_PORT = 80

#: How long each round of questions to the DNS servers may take, in seconds.
_ROUNDS = (1, 2, 3)

#: One look-up, with all its repetitions and further servers.
_LOOKUP_SECONDS = 12.0

#: Aliases of aliases that are followed.
_MOST_ALIASES = 4

#: The system's DNS servers beyond the third are not asked, as everybody else does.
_MOST_SERVERS = 3

_RESOLV_CONF = Path("/etc/resolv.conf")


class NotLocated(Unreachable):
    """The DNS does not say where a domain is served, or says that it is not."""


@dataclass(frozen=True, slots=True)
class Located:
    """Where an IM domain is served.

    @ivar im_domain: the host of its logical URLs.
    @ivar host: the name whose addresses these are.
    @ivar port: where to connect; a logical URL never carries it.
    @ivar addresses: IP addresses, the first to be tried first.
    """

    im_domain: str
    host: str
    port: int
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Offer:
    """One SRV record (RFC 2782)."""

    priority: int
    weight: int
    port: int
    target: str


def in_order(offers: Iterable[Offer], choose: Callable[[int], int]) -> list[Offer]:
    """C{offers} in the order in which RFC 2782 has them tried: by priority, then by chance and weight.

    @param choose: a number from 0 up to and including its argument.
    """
    ordered: list[Offer] = []
    # Those of weight 0 stand first, so that they have a small chance.
    left = sorted(offers, key=lambda offer: (offer.priority, offer.weight))
    while left:
        same = [offer for offer in left if offer.priority == left[0].priority]
        mark, passed = choose(sum(offer.weight for offer in same)), 0
        for offer in same:
            passed += offer.weight
            if passed >= mark:
                break
        left.remove(offer)
        ordered.append(offer)
    return ordered


def split_host_port(text: str, default_port: int) -> tuple[str, int]:
    """The two parts of C{host:port}, C{[v6]:port}, or a host alone.

    @raise ValueError: it is none of these.
    """
    host, colon, port = text.strip().rpartition(":")
    if not colon or port.endswith("]") or (":" in host and not host.startswith("[")):
        host, port = text.strip(), str(default_port)  # an IPv6 address without port may be bare
    host = host.removeprefix("[").removesuffix("]")
    if not host or any(c in host for c in " /@?#") or not (port.isascii() and port.isdigit()):
        raise ValueError(f"{text!r} is not host:port")
    if not 0 < int(port) < 65536:
        raise ValueError(f"{text!r}: there is no port {port}")
    return host.lower(), int(port)


def is_address(host: str) -> bool:
    """Is C{host} an IP address and not a name?"""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def is_local(host: str) -> bool:
    """Is C{host} a name that always means this machine (RFC 6761 section 6.3)?"""
    return host == "localhost" or host.endswith(".localhost")


def system_servers(conf: Path = _RESOLV_CONF) -> list[tuple[str, int]]:
    """The DNS servers that this machine is set up to use."""
    try:
        lines = conf.read_text("ascii", "replace").splitlines()
    except OSError:
        return []
    words = [line.split() for line in lines]
    named = [word[1] for word in words if len(word) > 1 and word[0] == "nameserver"]
    return [(name, dns.PORT) for name in named if is_address(name)][:_MOST_SERVERS]


@implementer(IResolutionReceiver)
class _Gathered:
    """Collects what the system's own resolver finds."""

    def __init__(self, done: Deferred[list[str]]) -> None:
        self._done = done
        self._found: list[str] = []

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """Nothing to do yet."""

    def addressResolved(self, address: IAddress) -> None:
        """One more address."""
        if isinstance(address, (IPv4Address, IPv6Address)) and address.host not in self._found:
            self._found.append(address.host)

    def resolutionComplete(self) -> None:
        """That was all."""
        if not self._done.called:
            self._done.callback(self._found)


class Locator:
    """Finds the servers of domains, through one DNS server or as this machine is set up."""

    def __init__(
        self,
        reactor: Any,
        *,
        dns_server: str | None = None,
        resolver: ResolverBase | None = None,
        choose: Callable[[int], int] | None = None,
    ) -> None:
        """
        @param reactor: opens sockets, tells the time and resolves names; no single interface says all.
        @param dns_server: C{ip:port} of the DNS server to ask; otherwise those of the system, and its
            own resolver for addresses.
        @param resolver: asked in place of any server.
        @param choose: a random number from 0 up to and including its argument.
        @raise ValueError: C{dns_server} is no address.
        """
        self._reactor = reactor
        self._choose = choose or (lambda most: random.randint(0, most))
        self._configured = dns_server is not None or resolver is not None
        self._resolver: ResolverBase | None = resolver
        self._asked = "the DNS server"
        if resolver is None:
            self._resolver = self._new_resolver(dns_server)

    def _new_resolver(self, dns_server: str | None) -> ResolverBase | None:
        servers = system_servers()
        if dns_server is not None:
            host, port = split_host_port(dns_server, dns.PORT)
            if not is_address(host):
                raise ValueError(f"{dns_server!r}: a DNS server is named by its IP address")
            servers, self._asked = [(host, port)], f"the DNS server {dns_server}"
        if not servers:
            return None
        return Resolver(servers=servers, timeout=_ROUNDS, reactor=self._reactor)

    def close(self) -> None:
        """Break off connections to DNS servers, if any are left."""
        for connection in tuple(getattr(self._resolver, "connections", None) or ()):
            connection.transport.abortConnection()

    async def locate(self, domain: str) -> Located:
        """Where C{domain}, the part of an address after the C{@}, is served.

        @raise NotLocated: it has no server, or the DNS does not say.
        """
        domain = domain.lower().rstrip(".")
        if is_address(domain):
            return Located(domain, domain, DEFAULT_PORT, (domain,))
        if is_local(domain) and not self._configured:
            return self._local(domain)
        offers = await self._offers(domain)
        for offer in offers:
            addresses = await self.addresses(offer.target)
            if addresses:
                return Located(offer.target, offer.target, offer.port, addresses)
        if offers:
            raise NotLocated(f"{domain} names {offers[0].target} as its server, which has no address")
        # As a last step the name by which Exchange's administrators helped people to guess.
        for host in (domain,) if domain.startswith("im.") else (domain, f"im.{domain}"):
            addresses = await self.addresses(host)
            if addresses:
                return Located(host, host, DEFAULT_PORT, addresses)
        raise NotLocated(f"{domain} has no RVP server: no SRV record _rvp._tcp.{domain} and no address")

    async def addresses(self, host: str) -> tuple[str, ...]:
        """The IP addresses of C{host}, IPv4 first; empty when there are none.

        @raise NotLocated: the DNS does not say.
        """
        host = host.lower().rstrip(".")
        if is_address(host):
            return (host,)
        if not self._configured:
            return ("127.0.0.1",) if is_local(host) else await self._system_addresses(host)
        for _ in range(_MOST_ALIASES):
            found, alias = await self._asked_addresses(host)
            if found or alias is None:
                return found
            host = alias
        return ()

    def _local(self, domain: str) -> Located:
        """A name of this machine, with no DNS to ask: the IM domain follows the usual naming."""
        named = domain == "localhost" or domain.startswith("im.")
        host = domain if named else f"im.{domain}"
        return Located(host, host, DEFAULT_PORT, ("127.0.0.1",))

    async def _offers(self, domain: str) -> list[Offer]:
        """The SRV records of C{domain}, in the order in which to try them."""
        if self._resolver is None:
            return []
        name = f"_rvp._tcp.{domain}"
        headers = await self._ask(self._resolver.lookupService(name), name)
        offers = [
            Offer(
                header.payload.priority,
                header.payload.weight,
                header.payload.port,
                header.payload.target.name.decode("ascii").lower().rstrip("."),
            )
            for header in headers
            if header.type == dns.SRV
        ]
        if len(offers) == 1 and not offers[0].target:
            raise NotLocated(f"{domain} says that it has no RVP service")
        return in_order((offer for offer in offers if offer.target and offer.port), self._choose)

    async def _asked_addresses(self, host: str) -> tuple[tuple[str, ...], str | None]:
        """The addresses of C{host}, and the name it is an alias of."""
        assert self._resolver is not None
        asked = (self._resolver.lookupAddress(host), self._resolver.lookupIPV6Address(host))
        answers = [Deferred.fromCoroutine(self._ask(each, host)) for each in asked]
        try:
            four, six = await gatherResults(answers, consumeErrors=True)
        except FirstError as error:
            error.subFailure.raiseException()
        found = [header.payload.dottedQuad() for header in four if header.type == dns.A]
        found += [str(ip_address(header.payload.address)) for header in six if header.type == dns.AAAA]
        aliases = [header.payload.name.name.decode("ascii") for header in four if header.type == dns.CNAME]
        return tuple(dict.fromkeys(found)), aliases[-1] if aliases else None

    async def _ask(self, asked: Deferred[Any], name: str) -> Sequence[Any]:
        """The answers to one question; none when the name does not exist.

        The records of C{twisted.names} have no common type that says what they hold.
        """
        asked.addTimeout(_LOOKUP_SECONDS, self._reactor)
        try:
            sections: tuple[Sequence[Any], object, object] = await asked
        except (DNSNameError, AuthoritativeDomainError):
            return ()
        except (TimeoutError, DNSQueryTimeoutError):
            raise NotLocated(f"{self._asked} does not answer (asked for {name})") from None
        except (DomainError, ResolverError, OSError) as error:
            why = type(error).__name__.removeprefix("DNS").removeprefix("Query").removesuffix("Error").lower()
            raise NotLocated(f"{self._asked} could not say what {name} is ({why})") from None
        return sections[0]

    async def _system_addresses(self, host: str) -> tuple[str, ...]:
        """What this machine takes C{host} for: its hosts file, its DNS, whatever it is set up with."""
        done: Deferred[list[str]] = Deferred(lambda _: None)
        self._reactor.nameResolver.resolveHostName(_Gathered(done), host)
        done.addTimeout(_LOOKUP_SECONDS, self._reactor)
        try:
            found = await done
        except TimeoutError:
            raise NotLocated(f"looking up {host} takes too long") from None
        return tuple(sorted(found, key=lambda address: ":" in address))
