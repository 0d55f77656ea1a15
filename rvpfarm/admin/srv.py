"""Asks the DNS for SRV records and waits for the answer: for commands, never for a daemon."""

from __future__ import annotations

from rvpfarm.admin.addresses import Offer
from rvpfarm.admin.checks import Refused, is_ip

#: How long the DNS may take.
SECONDS = 3.0

#: The port of DNS.
_PORT = 53


def parse_server(text: str) -> tuple[str, int]:
    """The parts of C{ADDRESS:PORT}, C{[v6]:PORT}, or of an address alone.

    @raise ValueError: it is none of these.
    """
    host, colon, port = text.strip().rpartition(":")
    if not colon or is_ip(text.strip()):
        host, port = text.strip(), str(_PORT)
    host = host.removeprefix("[").removesuffix("]")
    if not is_ip(host) or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"{text!r} is not ADDRESS:PORT, such as 127.0.0.1:53")
    return host, int(port)


def ask(record: str, server: tuple[str, int] | None = None, seconds: float = SECONDS) -> tuple[Offer, ...]:
    """The SRV records of the name C{record}, the first to be tried first; empty when there are none.

    @param server: the DNS server to ask; C{None} asks those that this machine is set up with.
    @raise Refused: the DNS cannot be asked, or does not say.
    """
    # late: they take long to load, and only a command that asks needs them
    import dns.exception
    import dns.resolver

    whom = "the DNS" if server is None else f"the DNS server {server[0]} port {server[1]}"
    try:
        resolver = dns.resolver.Resolver(configure=server is None)
        if server is not None:
            resolver.nameservers, resolver.port = [server[0]], server[1]
        answer = resolver.resolve(f"{record}.", "SRV", lifetime=seconds, search=False)
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        return ()
    except (dns.exception.DNSException, OSError) as problem:
        raise Refused(
            f"{whom} does not say whether there is an SRV record {record} ({_why(problem)}); give "
            "--address-form mail or im to decide without it, or --dns ADDRESS:PORT to ask another server"
        ) from problem
    offers = (
        Offer(one.priority, one.weight, one.port, one.target.to_text().rstrip(".").lower()) for one in answer
    )
    return tuple(sorted(offers, key=lambda offer: (offer.priority, -offer.weight, offer.target)))


def _why(problem: Exception) -> str:
    """What went wrong, in a few words."""
    import dns.resolver

    if isinstance(problem, dns.resolver.LifetimeTimeout):
        return "no answer in time"
    if isinstance(problem, dns.resolver.NoNameservers):
        return "every server failed or refused"
    if isinstance(problem, dns.resolver.NoResolverConfiguration):
        return "this machine has no DNS server"
    return str(problem) or type(problem).__name__
