"""Asks DNS servers many questions at once, and carries updates: for commands, never for a daemon."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from rvpfarm.admin.checks import Refused
from rvpfarm.admin.doctor.dnsview import Outcome, Question, Said, Source, spell
from rvpfarm.discovery.update import RecordSet
from rvpfarm.discovery.zone import plain_name

if TYPE_CHECKING:
    from dns.message import Message
    from dns.update import UpdateMessage

#: Questions that are under way at once.
_AT_ONCE = 16
#: DNS servers of one zone that are asked, and resolvers of this machine.
_MOST_SERVERS = 6

NO_RESOLVER = "this machine has no DNS server; give --dns ADDRESS:PORT"


def ask_all(asked: Iterable[tuple[Source, Question]], seconds: float) -> list[Said]:
    """The answers, in order; a server that does not answer in time is silent."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(lambda one: ask_one(one[0], one[1], seconds), asked))


def ask_one(source: Source, question: Question, seconds: float) -> Said:
    """One answer."""
    import dns.exception
    import dns.rcode

    try:
        reply = _ask(source, question, seconds)
    except dns.exception.Timeout:
        return Said(source, question, Outcome.SILENT, why="no answer in time")
    except (dns.exception.DNSException, OSError) as problem:
        return Said(source, question, Outcome.SILENT, why=str(problem) or type(problem).__name__)
    code = reply.rcode()
    if code not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return Said(source, question, Outcome.SILENT, why=f"it answers {dns.rcode.to_text(code)}")
    found, ttl = _data(reply, question)
    if not found:
        return Said(source, question, Outcome.NONE)
    return Said(source, question, Outcome.FOUND, frozenset(found), ttl)


def own_resolvers() -> list[Source]:
    """The DNS servers that this machine is set up with; none if there are none."""
    import dns.resolver

    try:
        resolver = dns.resolver.Resolver()
    except (dns.exception.DNSException, OSError):
        return []
    found = [str(server) for server in resolver.nameservers if isinstance(server, str)]
    return [Source(False, address) for address in found[:_MOST_SERVERS]]


def zone_of(name: str, source: Source, seconds: float) -> tuple[str, str]:
    """The zone that C{name} is in by what C{source} says, and its primary server's name.

    @raise Refused: it does not say.
    """
    import dns.exception
    import dns.rdatatype

    try:
        reply = _ask(source, Question(name, "SOA"), seconds)
    except (dns.exception.DNSException, OSError) as problem:
        raise Refused(
            f"{source} does not say in which zone {name} is ({str(problem) or type(problem).__name__}); give "
            "--server ADDRESS:PORT of the server that keeps the zone"
        ) from problem
    for rrset in (*reply.answer, *reply.authority):
        if rrset.rdtype == dns.rdatatype.SOA:
            return plain_name(rrset.name.to_text()), plain_name(rrset[0].mname.to_text())
    raise Refused(
        f"{source} keeps no zone in which {name} could be (it answers {_code(reply)}); give --server "
        "ADDRESS:PORT of the server that does"
    )


def authorities(names: Iterable[str], resolver: Source, seconds: float) -> dict[str, list[Source]]:
    """The authoritative servers of each name, found as everybody finds them; none where that fails."""
    zones: dict[str, list[Source]] = {}
    found: dict[str, list[Source]] = {}
    for name in names:
        try:
            zone, _ = zone_of(name, resolver, seconds)
        except Refused:
            found[name] = []
            continue
        if zone not in zones:
            zones[zone] = _servers_of(zone, resolver, seconds)
        found[name] = zones[zone]
    return found


def address_of(host: str, resolver: Source, seconds: float) -> str:
    """An address of C{host}; empty when there is none."""
    for kind in ("A", "AAAA"):
        said = ask_one(resolver, Question(host, kind), seconds)
        if said.data:
            return min(said.data)
    return ""


def sets_at(
    server: Source, places: Sequence[tuple[str, str]], seconds: float
) -> dict[tuple[str, str], RecordSet]:
    """The record sets that an authoritative server has of these names and types.

    @raise Refused: it does not answer for one.
    """
    found: dict[tuple[str, str], RecordSet] = {}
    for said in ask_all(((server, Question(*place)) for place in places), seconds):
        name, kind = said.question.name, said.question.type
        if said.outcome is Outcome.SILENT:
            raise Refused(f"{server} does not say what {name} {kind} is: {said.why}; nothing was changed")
        if said.data:
            found[name, kind] = RecordSet(name, kind, said.ttl, tuple(sorted(said.data)))
    return found


def carry(message: UpdateMessage, zone: str, server: Source, seconds: float) -> None:
    """Have C{server} make the changes of C{message}.

    @raise Refused: it does not, in a sentence with the remedy.
    """
    import dns.exception
    import dns.query
    import dns.rcode
    import dns.tsig

    try:
        reply = dns.query.tcp(message, server.address, port=server.port, timeout=seconds)
    except (dns.tsig.PeerBadKey, dns.tsig.PeerBadSignature) as problem:
        raise Refused(
            f"{server} does not know the key, or not with this secret; give --key-file the key that its "
            f"update-policy for {zone} names; nothing was changed"
        ) from problem
    except dns.tsig.PeerBadTime as problem:
        raise Refused(
            f"the clocks of {server} and this machine differ by minutes; set them; nothing was changed"
        ) from problem
    except (dns.exception.DNSException, OSError) as problem:
        why = str(problem) or type(problem).__name__
        raise Refused(
            f"{server} took the update of {zone} or not ({why}); --dry-run shows what is missing"
        ) from problem
    code = reply.rcode()
    if code == dns.rcode.NOERROR:
        return
    if code in (dns.rcode.NXRRSET, dns.rcode.YXRRSET, dns.rcode.NXDOMAIN, dns.rcode.YXDOMAIN):
        raise Refused(f"somebody changed the records of {zone} meanwhile; nothing was changed, run it again")
    advice = {
        dns.rcode.REFUSED: f"its update-policy for {zone} has to name the key of --key-file",
        dns.rcode.NOTAUTH: f"it does not keep {zone}, or does not know the key; give --server and --key-file",
    }.get(code, "see its log")
    raise Refused(
        f"{server} refuses the update of {zone} ({dns.rcode.to_text(code)}): {advice}; nothing was changed"
    )


def _ask(source: Source, question: Question, seconds: float) -> Message:
    import dns.flags
    import dns.message
    import dns.query

    query = dns.message.make_query(f"{question.name}.", question.type)
    if source.authoritative:
        query.flags &= ~dns.flags.RD
    reply, _ = dns.query.udp_with_fallback(query, source.address, port=source.port, timeout=seconds)
    return reply


def _data(reply: Message, question: Question) -> tuple[set[str], int]:
    """What the records of the wanted type say, and for how long."""
    import dns.rdatatype

    wanted = dns.rdatatype.from_text(question.type)
    sets = [rrset for rrset in reply.answer if rrset.rdtype == wanted]
    data = {spell(question.type, rdata.to_text()) for rrset in sets for rdata in rrset}
    return data, min((rrset.ttl for rrset in reply.answer), default=0)


def _servers_of(zone: str, resolver: Source, seconds: float) -> list[Source]:
    import dns.exception
    import dns.rdatatype

    try:
        reply = _ask(resolver, Question(zone, "NS"), seconds)
    except (dns.exception.DNSException, OSError):
        return []
    hosts = [
        plain_name(rdata.target.to_text())
        for rrset in reply.answer
        if rrset.rdtype == dns.rdatatype.NS
        for rdata in rrset
    ]
    addresses = (address_of(host, resolver, seconds) for host in sorted(hosts)[:_MOST_SERVERS])
    return [Source(True, address) for address in addresses if address]


def _code(reply: Message) -> str:
    import dns.rcode

    return dns.rcode.to_text(reply.rcode())


def system_resolves(host: str) -> list[str]:
    """The addresses that this machine finds for C{host}, by whatever it is set up with; none if none."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return sorted({str(one[4][0]) for one in found})
