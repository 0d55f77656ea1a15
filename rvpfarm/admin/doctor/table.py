"""Every rule: its id, what it is about, why it matters, and the check (core).

The ids D01 to D34 are those of the known faults of the original (product notes, section 5); E01 to E05 are
further troubles of any farm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from rvpfarm.admin.checks import Refused
from rvpfarm.admin.doctor import naming, recorded, running
from rvpfarm.admin.doctor.evidence import Evidence
from rvpfarm.admin.doctor.findings import Finding

#: What a rule may have to look at.
DIRECTORY, DNS, PROCESSES, JOURNEY, ROUTERS = "directory", "dns", "processes", "end-to-end", "routers"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    @ivar title: what should be so.
    @ivar why: it matters.
    @ivar needs: what it looks at besides the directory; without any of these it finds nothing.
    """

    id: str
    title: str
    why: str
    needs: tuple[str, ...]
    checks: tuple[Callable[[Evidence], Iterator[Finding]], ...]


def _rule(
    id: str, title: str, why: str, needs: Sequence[str], *checks: Callable[[Evidence], Iterator[Finding]]
) -> Rule:
    return Rule(id, title, why, tuple(needs), checks)


_ALL = (
    _rule(
        "D01",
        "Every server has a full DNS name that resolves",
        "clients are sent to homes by name, and one they cannot resolve looks like a wrong password",
        [DIRECTORY, DNS],
        naming.full_names,
    ),
    _rule(
        "D02",
        "SRV records lead to the name that the routers answer to",
        "its target is the IM domain: clients find no permission for the address with another one",
        [DIRECTORY, DNS],
        naming.service_records,
    ),
    _rule(
        "D03",
        "Every server runs, and shows its status and metrics",
        "what does not run serves nobody, and what shows nothing fails unseen",
        [PROCESSES],
        running.not_running,
    ),
    _rule(
        "D04",
        "A user without any rights can log in at every home",
        "administrators may get in where nobody else can, and then the farm looks well to them",
        [JOURNEY],
        recorded.journey("D04"),
    ),
    _rule(
        "D05",
        "Every account is whole",
        "a user whose record lacks a part cannot log in, while all others can",
        [DIRECTORY],
        recorded.half_filled,
    ),
    _rule(
        "D06",
        "SUBSCRIBE works at every home, and requests are not answered 500",
        "clients answer a failing server by asking for the password over and over",
        [PROCESSES, JOURNEY],
        running.answers_500,
        recorded.journey("D06"),
    ),
    _rule(
        "D07",
        "Every process can ask the directory",
        "it serves on from what it remembers, but no new user and no new password gets there",
        [PROCESSES],
        running.directory_away,
    ),
    _rule(
        "D08",
        "Work that comes in is not turned away",
        "a log-in or a renewal that is answered 503 logs people off in bursts",
        [PROCESSES],
        running.overloaded,
    ),
    _rule(
        "D09",
        "No partner is out of reach",
        "calls for it fail, and its share of queues grows",
        [PROCESSES],
        running.dead_targets,
    ),
    _rule(
        "D10",
        "Presence and messages cross from every home to every other",
        "homes that cannot reach each other show contacts a wrong state without any error",
        [JOURNEY],
        recorded.journey("D10"),
    ),
    _rule(
        "D11",
        "Who is signed in can be called back",
        "a user behind NAT can send and never receives; the partner is told that it could not be delivered",
        [PROCESSES, JOURNEY],
        running.deaf_sessions,
        recorded.journey("D11"),
    ),
    _rule(
        "D12",
        "No firewall stands between homes and clients",
        "homes call clients at ports from 1024 on; where that is blocked, nobody sees a change",
        [PROCESSES],
        running.deaf_networks,
    ),
    _rule(
        "D14",
        "Who looks online is there",
        "a client that crashed looks online until its call-back has failed for good",
        [PROCESSES],
        running.crashed_clients,
    ),
    _rule(
        "D15",
        "Presence is renewed in time",
        "a renewal after the end shows the user as gone and back at every lease",
        [PROCESSES],
        running.flickering,
    ),
    _rule(
        "D16",
        "IM addresses are the mail addresses",
        "windows show an odd address such as ann@im.example.com, by design, when SRV came after the user",
        [DIRECTORY, DNS],
        naming.odd_addresses,
    ),
    _rule(
        "D17",
        "Nobody tries NTLM through a web proxy",
        "NTLM proves a connection, and a proxy's connections are not the client's",
        [PROCESSES],
        running.ntlm_through_proxies,
    ),
    _rule(
        "D18",
        "There is something to check every user's password by",
        "a scheme that was turned on later needs each password once more",
        [DIRECTORY],
        recorded.without_verifiers,
    ),
    _rule(
        "D19",
        "All processes run one version with the same settings",
        "a mixture misbehaves now and then, depending on who answers",
        [PROCESSES],
        running.mixed_farm,
    ),
    _rule(
        "D20",
        "All DNS servers say the same",
        "a farm works for some callers only, as long as caches or secondaries lag behind",
        [DNS],
        naming.stale_answers,
    ),
    _rule(
        "D21",
        "IM domains have the addresses of all working routers and no others",
        "a missing one gets no work; a dead one gets a share of all clients",
        [DNS, PROCESSES],
        naming.router_addresses,
    ),
    _rule(
        "D22",
        "A home's name leads to one machine",
        "round robin on a home's name sends half of the messages to a machine that does not know the user",
        [DIRECTORY, DNS],
        naming.single_homes,
    ),
    _rule(
        "D23",
        "Every domain is served by the router that it leads to",
        "a router asked for a domain it does not serve says that the user does not exist",
        [DNS, ROUTERS],
        naming.served_domains,
    ),
    _rule(
        "D24",
        "Inside ranges and proxies make sense together",
        "outsiders who count as inside are referred to homes that they cannot reach",
        [DIRECTORY],
        recorded.wide_ranges,
    ),
    _rule(
        "D25",
        "Callers from private networks count as inside",
        "all their traffic goes through the routers instead of straight to the homes",
        [PROCESSES],
        running.insiders_forwarded,
    ),
    _rule(
        "D29",
        "There is room for more connections",
        "at the limit new clients are refused, at a round number of users",
        [PROCESSES],
        running.nearly_full,
    ),
    _rule(
        "D30",
        "Clients are those that the farm is tested with",
        "a public service once replaced its users' clients by builds that no longer knew this service",
        [PROCESSES],
        running.unknown_programs,
    ),
    _rule(
        "D32",
        "Nobody has to know a port",
        "some clients fail with URLs that carry one, or ignore the port of SRV records",
        [DIRECTORY],
        naming.usual_ports,
    ),
    _rule(
        "D33",
        "Subscriptions of crashed clients do not pile up",
        "each of them is told every change until its lease ends",
        [PROCESSES],
        running.piled_up,
    ),
    _rule(
        "D34",
        "Callers from outside are offered more than NTLM",
        "NTLM does not cross HTTP proxies, so that users at home or on the way cannot log in",
        [DIRECTORY],
        recorded.only_ntlm,
    ),
    _rule(
        "E01",
        "No certificate is about to expire",
        "from that moment on nobody connects by TLS",
        [PROCESSES],
        recorded.certificates,
    ),
    _rule(
        "E02",
        "All clocks agree",
        "nonces, tickets, certificates and leases are judged by them",
        [PROCESSES],
        recorded.clocks,
    ),
    _rule(
        "E03",
        "There is room for the state of homes",
        "a home that cannot write answers 503 to what it would have to remember",
        [PROCESSES],
        recorded.disks,
    ),
    _rule(
        "E04",
        "Every router reaches every home over the farm link",
        "calls for that home are answered 503 by that router",
        [PROCESSES],
        recorded.unreachable_homes,
    ),
    _rule(
        "E05",
        "Every router takes log-ins, and their answers are on time",
        "clients pick any address of the domain, and those that pick this one fail",
        [JOURNEY],
        recorded.journey("E05"),
    ),
    _rule(
        "E06",
        "An LDAP server lets the reader in",
        "users out of LDAP who are not remembered cannot log in, and nobody new of them can be reached",
        [JOURNEY],
        recorded.journey("E06"),
    ),
)

#: By id, in order.
RULES: Mapping[str, Rule] = {rule.id: rule for rule in _ALL}

#: Known faults that cannot befall this farm or that it cannot see, and why.
NOT_APPLICABLE: Mapping[str, str] = {
    "D13": "there is no polling mode: notifications are never parked for a client to fetch",
    "D26": "contacts are kept by the clients; a loss shows in rvp_subscriptions over time, not at one look",
    "D27": "programs that share a client's libraries are a matter of that client's machine",
    "D28": "each node has one writer, its home, so that two writers never meet",
    "D31": "client policies are set on clients' machines, where the farm does not look",
}


def chosen(ids: Iterable[str]) -> list[Rule]:
    """The rules of these ids; all without any.

    @raise Refused: there is no such rule, or it does not apply.
    """
    wanted = list(dict.fromkeys(id.strip().upper() for id in ids))
    for id in wanted:
        if id in NOT_APPLICABLE:
            raise Refused(f"rule {id} does not apply here: {NOT_APPLICABLE[id]}")
        if id not in RULES:
            raise Refused(f'there is no rule {id}; "rvpfarm doctor --list" shows them')
    return [rule for rule in RULES.values() if not wanted or rule.id in wanted]


def needs_of(rules: Iterable[Rule]) -> frozenset[str]:
    """Everything that these rules look at."""
    return frozenset(chain.from_iterable(rule.needs for rule in rules))


def examine(evidence: Evidence, rules: Iterable[Rule]) -> list[Finding]:
    """What these rules find, the worst first."""
    found = [finding for rule in rules for check in rule.checks for finding in check(evidence)]
    return sorted(dict.fromkeys(found), key=lambda finding: (-finding.severity, finding.rule))
