"""The farm's map as DNS records: what a zone of the farm says, and what it answers."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, TypeVar

from rvpfarm.directory.model import Domain, Farm, Home, Router

if TYPE_CHECKING:
    from dns.rdata import Rdata

_Machine = TypeVar("_Machine", bound=Router | Home)

#: How long a record may be remembered, in seconds: a router that is taken away is gone after a minute.
TTL = 60

#: Serial numbers are 32 bits wide (RFC 1982), and 0 is best avoided.
_SERIALS = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Record:
    """One resource record.

    @ivar name: the owner's name: lower case, without a final dot.
    @ivar ttl: how long it may be remembered, in seconds.
    """

    name: str
    ttl: int

    @property
    def type(self) -> str:
        """The mnemonic of the record's type, such as C{"SRV"}."""
        raise NotImplementedError

    @property
    def data(self) -> str:
        """What the record says, in the presentation form of RFC 1035."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Address(Record):
    """An A or AAAA record."""

    address: str

    @property
    def type(self) -> str:
        """A for IPv4, AAAA for IPv6."""
        return "AAAA" if ":" in self.address else "A"

    @property
    def data(self) -> str:
        """The address itself."""
        return self.address


@dataclass(frozen=True, slots=True)
class Service(Record):
    """An SRV record (RFC 2782).

    @ivar target: for C{_rvp._tcp} it B{is} the IM domain (protocol notes 1.5).
    """

    target: str
    port: int
    priority: int = 0
    weight: int = 0

    @property
    def type(self) -> str:
        """Always SRV."""
        return "SRV"

    @property
    def data(self) -> str:
        """Priority, weight, port and target."""
        return f"{self.priority} {self.weight} {self.port} {self.target}."


@dataclass(frozen=True, slots=True)
class Server(Record):
    """An NS record: who answers for the zone."""

    host: str

    @property
    def type(self) -> str:
        """Always NS."""
        return "NS"

    @property
    def data(self) -> str:
        """The host."""
        return f"{self.host}."


@dataclass(frozen=True, slots=True)
class Start(Record):
    """The SOA record of the zone.

    @ivar primary: the name server that knows first.
    @ivar contact: the mailbox of whoever looks after the zone, written as a name.
    @ivar minimum: how long "there is none" may be remembered, in seconds (RFC 2308).
    """

    primary: str
    contact: str
    serial: int
    refresh: int = 3600
    retry: int = 600
    expire: int = 604800
    minimum: int = 10

    @property
    def type(self) -> str:
        """Always SOA."""
        return "SOA"

    @property
    def data(self) -> str:
        """Its seven fields."""
        times = f"{self.refresh} {self.retry} {self.expire} {self.minimum}"
        return f"{self.primary}. {self.contact}. {self.serial} {times}"


def plain_name(name: str) -> str:
    """C{name} as it is compared here: lower case, without the final dot."""
    return name.lower().rstrip(".")


def inside(name: str, zone: str) -> bool:
    """Is C{name} the zone's own name or below it?"""
    return name == zone or name.endswith(f".{zone}")


def records(farm: Farm, zone: str, *, server_address: str = "", ttl: int = TTL) -> tuple[Record, ...]:
    """Everything that the farm publishes in C{zone}, the SOA record first.

    @param server_address: the address of the name server itself, when it is known.
    """
    zone = plain_name(zone)
    primary = f"ns.{zone}"
    serial = farm.generation % _SERIALS + 1
    found: list[Record] = [
        Start(zone, ttl, primary=primary, contact=f"hostmaster.{zone}", serial=serial),
        Server(zone, ttl, host=primary),
    ]
    if server_address:
        found.append(Address(primary, ttl, address=server_address))
    own = primary if server_address else ""
    found.extend(one for one in published(farm, ttl=ttl) if inside(one.name, zone) and one.name != own)
    return tuple(found)


def published(farm: Farm, domain: str | None = None, *, ttl: int = TTL) -> tuple[Record, ...]:
    """Everything that the farm publishes, in whatever zone.

    Each IM domain has one SRV record per mail domain (and one for itself, so that C{user@im-domain}
    works on any port), whose target is the IM domain, and one address record per router.  A router that
    drains is left out; a home is not, for its users are still there.

    @param domain: only this IM domain, and the machines.
    """
    machines = edge(farm)
    taken = {host for each in farm.domains.values() for host in _hosts(each)}
    found: list[Record] = []
    for each in farm.domains.values():
        if domain in (None, each.name):
            found.extend(_domain_records(each, machines, ttl))
    found.extend(
        Address(host, ttl, address=machine.address)
        for machine in (*_by_name(active(farm.routers.values())), *_by_name(farm.homes.values()))
        for host in map(plain_name, (machine.host, *machine.former_hosts))
        if machine.address and host not in taken
    )
    # Two routers may share a host or an address: a record set has no duplicates.
    return tuple(dict.fromkeys(found))


def active(machines: Iterable[_Machine]) -> list[_Machine]:
    """Those that do not drain."""
    return [machine for machine in machines if machine.state == "active"]


def edge(farm: Farm) -> list[Router | Home]:
    """The machines that an IM domain resolves to: its routers, or in a farm without any its homes.

    Clients take one port, that of the SRV record, for all addresses: only machines with the port that
    most of them have are shown.
    """
    everything = _by_name(farm.routers.values()) or _by_name(farm.homes.values())
    machines = active(everything)
    if not machines:
        return []
    ports = Counter(machine.port for machine in machines)
    port = min(ports, key=lambda port: (-ports[port], port))
    return [machine for machine in machines if machine.port == port]


def _by_name(machines: Iterable[Router | Home]) -> list[Router | Home]:
    """Routers or homes in an order that does not depend on where they come from."""
    return sorted(machines, key=lambda machine: (machine.name, machine.id))


def _hosts(domain: Domain) -> tuple[str, ...]:
    """The host names that mean C{domain}."""
    return tuple(dict.fromkeys(map(plain_name, (domain.name, *domain.aliases))))


def _domain_records(domain: Domain, machines: Sequence[Router | Home], ttl: int) -> Iterator[Record]:
    """The records of one IM domain, whose calls C{machines} take."""
    if not machines:
        return
    target = plain_name(domain.name)
    for mail in dict.fromkeys(map(plain_name, (*domain.mail_domains, domain.name))):
        yield Service(f"_rvp._tcp.{mail}", ttl, target=target, port=machines[0].port)
    for host in _hosts(domain):
        for machine in machines:
            if machine.address:
                yield Address(host, ttl, address=machine.address)


def record_text(record: Record) -> str:
    """One line of a master file (RFC 1035 section 5), with the whole name.

    @raise dns.exception.DNSException: a name or an address is none.
    """
    import dns.name

    return f"{dns.name.from_text(record.name)} {record.ttl} IN {record.type} {_rdata(record).to_text()}"


def _rdata(record: Record) -> Rdata:
    """What the record says, as dnspython has it; which takes long to load, and only master files need it."""
    import dns.rdata
    import dns.rdataclass
    import dns.rdatatype

    if isinstance(record, Address):
        ip_address(record.address)
    kind = dns.rdatatype.from_text(record.type)
    return dns.rdata.from_text(dns.rdataclass.IN, kind, record.data)


def zone_text(found: Iterable[Record]) -> str:
    """A master file (RFC 1035 section 5) of C{found}, whose first record is the SOA.

    @raise dns.exception.DNSException: a name or an address is none.
    """
    import dns.name
    import dns.zone

    held = tuple(found)
    zone = dns.zone.Zone(dns.name.from_text(held[0].name), relativize=False)
    for record in held:
        rdata = _rdata(record)
        place = zone.find_rdataset(dns.name.from_text(record.name), rdata.rdtype, create=True)
        place.add(rdata, record.ttl)
    zone.check_origin()
    return zone.to_text(sorted=True, relativize=False, want_origin=True)


class Outcome(enum.Enum):
    """What a zone makes of a question."""

    FOUND = "found"
    NO_DATA = "no data"
    NO_NAME = "no name"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Answer:
    """What to tell whoever asked.

    @ivar authority: the SOA record with "there is none", so that it can be remembered (RFC 2308).
    @ivar additional: the addresses of what the answers name.
    """

    outcome: Outcome
    answers: tuple[Record, ...] = ()
    authority: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()


class Zone:
    """Answers questions from a set of records.

    Several addresses of one name come in a rotating order, so that clients that take the first one
    spread over all of them.
    """

    def __init__(self, name: str, found: Iterable[Record]) -> None:
        """
        @param found: the records of the zone, with one SOA among them.
        """
        self.name = plain_name(name)
        self._sets: dict[str, dict[str, tuple[Record, ...]]] = {}
        self._turns: dict[tuple[str, str, bool], int] = {}
        for record in found:
            at = self._sets.setdefault(record.name, {})
            at[record.type] = (*at.get(record.type, ()), record)
        self._start = self._sets[self.name]["SOA"]
        for name in tuple(self._sets):
            self._add_parents(name)

    def _add_parents(self, name: str) -> None:
        """A name exists when there is anything below it (RFC 8020): C{_tcp.example} has no data, but is."""
        while name != self.name:
            name = name.partition(".")[2]
            self._sets.setdefault(name, {})

    def __len__(self) -> int:
        """How many records it has."""
        return sum(len(held) for at in self._sets.values() for held in at.values())

    def answer(self, name: str, kind: str) -> Answer:
        """What the zone says of C{name}.

        @param kind: the mnemonic of the type that is asked for; C{"ANY"} for everything there is.
        """
        name = plain_name(name)
        if not inside(name, self.name):
            return Answer(Outcome.REFUSED)
        at = self._sets.get(name)
        if at is None:
            return Answer(Outcome.NO_NAME, authority=self._start)
        answers = tuple(
            record for held in at if kind in (held, "ANY") for record in self._next_order(name, held)
        )
        if not answers:
            return Answer(Outcome.NO_DATA, authority=self._start)
        return Answer(Outcome.FOUND, answers, additional=self._addresses_of(answers))

    def _next_order(self, name: str, kind: str, *, asked: bool = True) -> tuple[Record, ...]:
        """The records of one set; of addresses each time another one is the first.

        Each set has turns of its own, one for when it is asked for and one for when it only comes
        along: clients ask for SRV and A, or for A and AAAA, in a fixed order, and a common turn would
        show them the same address first for ever.
        """
        held = self._sets[name][kind]
        if len(held) < 2 or kind not in ("A", "AAAA"):
            return held
        turn = self._turns.get((name, kind, asked), 0) % len(held)
        self._turns[(name, kind, asked)] = turn + 1
        return held[turn:] + held[:turn]

    def _addresses_of(self, answers: Iterable[Record]) -> tuple[Record, ...]:
        """The addresses of the hosts that C{answers} name, as far as this zone knows them."""
        hosts = dict.fromkeys(
            record.target if isinstance(record, Service) else record.host
            for record in answers
            if isinstance(record, (Service, Server))
        )
        return tuple(
            record
            for host in hosts
            for kind in ("A", "AAAA")
            if kind in self._sets.get(host, {})
            for record in self._next_order(host, kind, asked=False)
        )
