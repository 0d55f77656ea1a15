"""The rules about names and the DNS: D01, D02, D16, D20 to D23 and D32 (core)."""

from __future__ import annotations

from collections.abc import Iterator

from rvpfarm.admin.checks import enumerate_names
from rvpfarm.admin.doctor.dnsview import (
    DnsView,
    Outcome,
    Said,
    data_of,
    domain_hosts,
    hosts_of,
    is_ip,
    planned,
    srv_parts,
)
from rvpfarm.admin.doctor.evidence import Evidence
from rvpfarm.admin.doctor.findings import Finding, error, info, warning
from rvpfarm.directory.model import Home, Router
from rvpfarm.discovery.zone import Address, Record, active, edge, plain_name, record_text

#: The port at which old clients look, whatever the SRV record says.
USUAL_PORT = 80


def full_names(evidence: Evidence) -> Iterator[Finding]:
    """D01: every server has a full name that resolves."""
    farm, view = evidence.farm, evidence.dns
    servers: list[Home | Router] = [*active(farm.routers.values()), *farm.homes.values()]
    for server in servers:
        noun = noun_of(server)
        host = plain_name(server.host)
        if "." not in host or is_ip(host):
            full = f"{server.name}.{_suffix(evidence)}"
            yield error(
                "D01",
                f"{host}, the host of {noun} {server.name}, is no full DNS name",
                f"rvpfarm {noun} rename {server.name} {server.name} --host {full}",
            )
        elif view is not None and view.addresses(host) == frozenset():
            if server.address:
                remedy = f"publish: {_line(host, server.address)}"
            else:
                remedy = f"rvpfarm {noun} set {server.name} --address IP, then publish an address of {host}"
            yield error("D01", f"{host}, the host of {noun} {server.name}, has no address in the DNS", remedy)


def service_records(evidence: Evidence) -> Iterator[Finding]:
    """D02: the SRV record of each mail domain leads to the name that the routers answer to."""
    view = evidence.dns
    if not edge(evidence.farm):
        what = "no router is active" if evidence.farm.routers else "there is neither a router nor a home"
        for domain in evidence.farm.domains:
            remedy = "rvpfarm router create r1 --host r1." + domain.partition(".")[2]
            yield error("D02", f"no SRV record can lead to {domain}: {what}", remedy)
        return
    if view is None:
        return
    for question, wanted in planned(evidence.farm).items():
        said = view.truth(question.name, "SRV") if question.type == "SRV" else None
        if said is None or said.data == data_of(wanted):
            continue
        remedy = f"publish: {record_text(wanted[0])}"
        if said.outcome is Outcome.NONE:
            yield error("D02", f"there is no SRV record {question.name}", remedy)
            continue
        leads = enumerate_names(sorted(_leads(data) for data in said.data))
        should = enumerate_names(sorted(_leads(data) for data in data_of(wanted)))
        yield error("D02", f"the SRV record {question.name} leads to {leads}, not to {should}", remedy)


def odd_addresses(evidence: Evidence) -> Iterator[Finding]:
    """D16: whose IM address is not the mail address, though it could be."""
    for domain, addresses in evidence.accounts.odd.items():
        record = evidence.farm.domains.get(domain)
        mail = record.mail_domains[0] if record is not None and record.mail_domains else ""
        said = None if evidence.dns is None else evidence.dns.truth(f"_rvp._tcp.{mail}", "SRV")
        if said is None or domain not in {srv_parts(data)[0] for data in said.data}:
            continue
        yield info(
            "D16",
            f"{addresses.count} users have addresses at {domain} and not at {mail}, whose SRV record was not "
            f"there when they were enabled: {addresses.words}",
            f"rvpfarm user readdress --domain {domain} --dry-run",
        )


def stale_answers(evidence: Evidence) -> Iterator[Finding]:
    """D20: all DNS servers say the same."""
    if evidence.dns is None:
        return
    silent: dict[str, list[Said]] = {}
    for question, answers in evidence.dns.questions():
        for one in answers:
            if one.outcome is Outcome.SILENT:
                silent.setdefault(str(one.source), []).append(one)
        spoke = [one for one in answers if one.outcome is not Outcome.SILENT]
        masters = [one for one in spoke if one.source.authoritative]
        for other in masters[1:]:
            if other.data != masters[0].data:
                yield warning(
                    "D20",
                    f"{other.source} says {_words(other)} for {question.name} {question.type}, and "
                    f"{masters[0].source} says {_words(masters[0])}",
                    f"rndc retransfer ZONE at {other.source.address}, or raise the serial number of the zone",
                )
        for other in spoke:
            if masters and not other.source.authoritative and other.data != masters[0].data:
                left = f", for {other.ttl} seconds more" if other.data else ""
                yield warning(
                    "D20",
                    f"{other.source} still says {_words(other)} for {question.name} {question.type}{left}; "
                    f"{masters[0].source} says {_words(masters[0])}",
                    f"wait, or: rndc flushname {question.name}",
                )
    for source, missed in silent.items():
        yield warning(
            "D20",
            f"{source} does not answer for {enumerate_names({one.question.name for one in missed})}: "
            f"{missed[0].why}",
            f"dig @{missed[0].source.address} -p {missed[0].source.port} {missed[0].question.name} "
            f"{missed[0].question.type}, and mend that server",
        )


def router_addresses(evidence: Evidence) -> Iterator[Finding]:
    """D21: each IM domain has the addresses of the routers that work, all of them and no others."""
    farm, view = evidence.farm, evidence.dns
    routers = {router.address: router for router in farm.routers.values() if router.address}
    shown = edge(farm)
    wanted = {machine.address for machine in shown if machine.address}
    whole = all(machine.address for machine in shown)
    for host, domain in domain_hosts(farm) if view is not None and shown else ():
        assert view is not None
        found = view.addresses(host)
        if found is None:
            continue
        for address in sorted(wanted - found):
            yield error(
                "D21",
                f"{host} lacks the address {address} of a router, so that nobody is led there",
                f"publish: {_line(host, address)}",
            )
        for address in sorted(found - wanted) if whole else ():
            router = routers.get(address)
            who = f"router {router.name}, which is not to be led to" if router else "no router of this farm"
            yield error(
                "D21",
                f"{host}, which means the IM domain {domain}, has the address {address} of {who}",
                f"take away: {_line(host, address)}",
            )
    for server in evidence.servers("router"):
        record = next((one for one in farm.routers.values() if one.name == server.name), None)
        if server.state == "no answer" and record is not None and record in shown:
            yield error(
                "D21",
                f"router {server.title} does not answer ({server.reason}), and the DNS leads clients there",
                f"start it, or: rvpfarm router drain {server.name}",
            )


def single_homes(evidence: Evidence) -> Iterator[Finding]:
    """D22: a home's name leads to one machine, which is no router."""
    farm, view = evidence.farm, evidence.dns
    taken = {plain_name(router.host): router for router in active(farm.routers.values())}
    hosts = dict(domain_hosts(farm))
    for home in farm.homes.values():
        host = plain_name(home.host)
        if host in taken or (host in hosts and farm.routers):
            other = f"router {taken[host].name}" if host in taken else f"the IM domain {hosts[host]}"
            yield error(
                "D22",
                f"{host} is the host of home {home.name} and of {other}",
                f"rvpfarm home rename {home.name} {home.name} --host {home.name}.{_suffix(evidence)}",
            )
        found = view.addresses(host) if view is not None else None
        if found is None:
            found = frozenset({home.address} - {""})
        several = {one for one in found if ":" not in one}, {one for one in found if ":" in one}
        for kind in several:
            if len(kind) > 1:
                keep = home.address if home.address in kind else min(kind)
                others = enumerate_names(
                    f"{host}. IN {'AAAA' if ':' in one else 'A'} {one}" for one in kind - {keep}
                )
                yield error(
                    "D22",
                    f"{host}, the host of home {home.name}, has the addresses {enumerate_names(kind)}",
                    f"take away: {others}",
                )
        if home.address and found and home.address not in found:
            yield error(
                "D22",
                f"{host}, the host of home {home.name}, leads to {enumerate_names(found)}, and the directory "
                f"says {home.address}",
                f"publish: {_line(host, home.address)}",
            )


def served_domains(evidence: Evidence) -> Iterator[Finding]:
    """D23: whoever is led to a router by a domain's records is served there."""
    for probe in evidence.probes:
        if not probe.served:
            yield error(
                "D23",
                f"{probe.domain} leads to {probe.place}, which does not serve it: {probe.why}",
                f"see who answers at {probe.place}: rvpfarm router list; and publish: rvpfarm dns plan "
                f"--domain {probe.domain}",
            )


def usual_ports(evidence: Evidence) -> Iterator[Finding]:
    """D32: nobody has to know a port."""
    farm = evidence.farm
    ports = {machine.port for machine in edge(farm)} - {USUAL_PORT}
    for port in sorted(ports):
        yield warning(
            "D32",
            f"the routers listen on port {port}; a client that ignores the port of SRV records asks port 80",
            "rvpfarm router create NAME --host HOST --port 80, then drain those on the other port",
        )
    for home in farm.homes.values():
        if home.port != USUAL_PORT:
            yield warning(
                "D32",
                f"the URLs of home {home.name} carry port {home.port}, with which some clients fail",
                f"rvpfarm home create NAME --host HOST --port 80, and move the users of {home.name} there",
            )


def noun_of(server: Home | Router) -> str:
    """What kind of server it is."""
    return "home" if isinstance(server, Home) else "router"


def unresolved(view: DnsView, evidence: Evidence) -> list[str]:
    """The names of which no DNS server says anything."""
    return [host for host in hosts_of(evidence.farm) if view.addresses(host) is None]


def _suffix(evidence: Evidence) -> str:
    """The domain that a server is probably in."""
    for domain in evidence.farm.domains.values():
        return domain.mail_domains[0] if domain.mail_domains else domain.name
    return "example.com"


def _line(host: str, address: str) -> str:
    record: Record = Address(host, 60, address=address)
    return record_text(record)


def _leads(data: str) -> str:
    target, port = srv_parts(data)
    return f"{target} port {port}"


def _words(said: Said) -> str:
    return enumerate_names(said.data) if said.data else "that there is none"
