"""What the DNS says of the farm's names, whoever was asked, and what should be asked (core)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import ip_address

from rvpfarm.directory.model import Farm, Home, Router
from rvpfarm.discovery.zone import Record, active, plain_name, published


class Outcome(Enum):
    """What came of a question."""

    FOUND = "found"
    NONE = "none"
    SILENT = "silent"


@dataclass(frozen=True, slots=True, order=True)
class Question:
    """What is asked.

    @ivar name: lower case, without the final dot.
    @ivar type: C{"A"}, C{"AAAA"} or C{"SRV"}.
    """

    name: str
    type: str


@dataclass(frozen=True, slots=True, order=True)
class Source:
    """A DNS server.

    @ivar authoritative: it holds the zone; else it only passes on what others say.
    """

    authoritative: bool
    address: str
    port: int = 53

    def __str__(self) -> str:
        """For people."""
        kind = "the authoritative server" if self.authoritative else "the resolver"
        return f"{kind} {self.address}" + ("" if self.port == 53 else f" port {self.port}")


@dataclass(frozen=True, slots=True)
class Said:
    """An answer.

    @ivar data: what the records say, in the spelling of L{spell}.
    @ivar ttl: for how many seconds it may still be remembered.
    @ivar why: it is silent.
    """

    source: Source
    question: Question
    outcome: Outcome
    data: frozenset[str] = frozenset()
    ttl: int = 0
    why: str = ""


@dataclass(frozen=True, slots=True)
class DnsView:
    """All answers."""

    said: tuple[Said, ...] = ()
    _by_question: dict[Question, list[Said]] = field(default_factory=dict, init=False, compare=False)

    def __post_init__(self) -> None:
        """Put the answers in order."""
        for one in self.said:
            self._by_question.setdefault(one.question, []).append(one)

    def of(self, name: str, kind: str) -> list[Said]:
        """What everybody said of one question."""
        return self._by_question.get(Question(name, kind), [])

    def truth(self, name: str, kind: str) -> Said | None:
        """The best answer: an authoritative one, else a resolver's; C{None} if nobody answered."""
        answers = [one for one in self.of(name, kind) if one.outcome is not Outcome.SILENT]
        return max(answers, key=lambda one: one.source.authoritative, default=None)

    def addresses(self, name: str) -> frozenset[str] | None:
        """The IP addresses of a name by the best answers; C{None} if nobody answered."""
        if is_ip(name):
            return frozenset({name})
        found = [one for kind in ("A", "AAAA") if (one := self.truth(name, kind)) is not None]
        return frozenset().union(*(one.data for one in found)) if found else None

    def questions(self) -> Iterator[tuple[Question, list[Said]]]:
        """Everything that was asked, in order."""
        for question in sorted(self._by_question):
            yield question, self._by_question[question]


def questions_about(farm: Farm) -> list[Question]:
    """Everything that the doctor wants to know of the DNS."""
    wanted: dict[Question, None] = {}
    for domain in farm.domains.values():
        for mail in map(plain_name, (*domain.mail_domains, domain.name)):
            wanted[Question(f"_rvp._tcp.{mail}", "SRV")] = None
    for host in hosts_of(farm):
        if not is_ip(host):
            wanted |= {Question(host, "A"): None, Question(host, "AAAA"): None}
    return list(wanted)


def hosts_of(farm: Farm) -> list[str]:
    """Every full host name of the farm: of domains, and of the servers that are active."""
    names = [name for domain in farm.domains.values() for name in (domain.name, *domain.aliases)]
    servers: list[Home | Router] = [*active(farm.routers.values()), *farm.homes.values()]
    names += [host for server in servers for host in (server.host, *server.former_hosts)]
    return list(dict.fromkeys(name for name in map(plain_name, names) if "." in name))


def domain_hosts(farm: Farm) -> list[tuple[str, str]]:
    """Each full host name that means an IM domain, with that domain."""
    return [
        (plain_name(host), domain.name)
        for domain in farm.domains.values()
        for host in dict.fromkeys((domain.name, *domain.aliases))
        if "." in host
    ]


def planned(farm: Farm) -> dict[Question, list[Record]]:
    """The records that the farm wants to be published, by what they answer."""
    found: dict[Question, list[Record]] = {}
    for record in published(farm):
        found.setdefault(Question(record.name, record.type), []).append(record)
    return found


def data_of(records: Iterable[Record]) -> frozenset[str]:
    """What C{records} say, in the spelling of L{spell}."""
    return frozenset(spell(record.type, record.data) for record in records)


def spell(kind: str, text: str) -> str:
    """The one spelling of what a record says: lower case, and an address in its shortest form."""
    return str(ip_address(text)) if kind in ("A", "AAAA") else " ".join(text.lower().split())


def srv_parts(data: str) -> tuple[str, int]:
    """The target, without a final dot, and the port of an SRV record."""
    _priority, _weight, port, target = data.split()
    return target.rstrip("."), int(port)


def is_ip(text: str) -> bool:
    """Is it an address rather than a name?"""
    try:
        ip_address(text.strip("[]"))
    except ValueError:
        return False
    return True
