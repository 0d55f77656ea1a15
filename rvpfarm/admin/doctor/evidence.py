"""What the rules look at: the directory, and DNS, processes and a journey through the farm (core)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from rvpfarm.admin.checks import serving
from rvpfarm.admin.doctor.dnsview import DnsView
from rvpfarm.admin.doctor.figures import Figures
from rvpfarm.admin.doctor.journey import Journey
from rvpfarm.admin.status import Report, Server
from rvpfarm.directory.model import Account, Farm

#: Names that are told of each kind of trouble.
_SHOWN = 5


@dataclass(slots=True)
class Sample:
    """Some of many, and how many there are."""

    count: int = 0
    names: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        """One more."""
        self.count += 1
        if len(self.names) < _SHOWN:
            self.names.append(name)

    @property
    def words(self) -> str:
        """For a sentence."""
        more = self.count - len(self.names)
        return ", ".join(self.names) + (f" and {more} more" if more else "")


@dataclass(slots=True)
class Accounts:
    """What an audit of all accounts found; it holds a few names, however many accounts there are.

    @ivar broken: by what is wrong.
    @ivar odd: whose address is at the IM domain though it has mail domains, by IM domain.
    @ivar lacking: who cannot sign in since nothing is kept that a password could be checked by.
    """

    broken: dict[str, Sample] = field(default_factory=dict)
    odd: dict[str, Sample] = field(default_factory=dict)
    lacking: Sample = field(default_factory=Sample)


@dataclass(frozen=True, slots=True)
class Probe:
    """Whether a router serves a domain that leads to it.

    @ivar place: which router was asked.
    """

    domain: str
    place: str
    served: bool
    why: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything; C{None} is what nobody looked at.

    @ivar figures: the metrics of each process that shows any, by the title it has in the report.
    @ivar dumb: titles of processes that show their status but no metrics.
    """

    farm: Farm
    accounts: Accounts = field(default_factory=Accounts)
    dns: DnsView | None = None
    report: Report | None = None
    figures: Mapping[str, Figures] = field(default_factory=dict)
    dumb: tuple[str, ...] = ()
    probes: tuple[Probe, ...] = ()
    journey: Journey | None = None
    now: float = 0.0

    def servers(self, role: str = "") -> list[Server]:
        """The processes in the report, of one role or of all."""
        if self.report is None:
            return []
        return [server for server in self.report.servers if role in ("", server.role)]


def audit(farm: Farm, accounts: Iterable[Account], lacking: Iterable[str] = ()) -> Accounts:
    """Look at every account once.

    @param lacking: the addresses of those that cannot sign in.
    """
    found, seen = Accounts(), set[int]()
    for account in accounts:
        for trouble in _troubles(farm, account):
            found.broken.setdefault(trouble, Sample()).add(account.address or account.key)
        # a number instead of the text: half a million of them have to fit
        mark = hash(account.address.lower())
        if account.address and mark in seen:
            found.broken.setdefault("has the address of another", Sample()).add(account.address)
        seen.add(mark)
        domain = farm.domains.get(account.domain)
        at = account.address.rpartition("@")[2].lower()
        if domain is not None and account.kind == "user" and domain.mail_domains and at == domain.name:
            found.odd.setdefault(domain.name, Sample()).add(account.address)
    for address in lacking:
        found.lacking.add(address)
    return found


def _troubles(farm: Farm, account: Account) -> Iterable[str]:
    """What a record lacks."""
    if account.domain not in farm.domains:
        yield f"is in the IM domain {account.domain}, which there is not"
    if account.home not in farm.homes:
        yield "is on a home that there is not"
    if not account.address:
        yield "has no address"
    elif account.kind == "user" and serving(account.address.rpartition("@")[2].lower(), farm.domains) is None:
        yield "has an address in a domain that is not served here"
    if account.key != f"{account.domain}{account.path}".lower():
        yield "has a key that does not follow from its domain and path"
