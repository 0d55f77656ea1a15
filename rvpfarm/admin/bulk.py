"""Enabling many users, such as those of a file: in batches, with a report of every one of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice

from rvpfarm.admin.actors import default_actor
from rvpfarm.admin.checks import Refused
from rvpfarm.admin.passwords import verifiers_for
from rvpfarm.admin.users import Plan, Rehearsed, account_meant, plan_for
from rvpfarm.directory.bulk import Bulk
from rvpfarm.directory.ldapsettings import LINK
from rvpfarm.directory.model import Account, Farm
from rvpfarm.directory.store import Store

#: So many rows are one transaction, during which nobody else can change the directory.
BATCH = 500

#: What can become of a row: a new account, a disabled one that is back, one that was enabled already and
#: stays exactly as it was, or nothing.
NEW, RETURNED, PRESENT, REFUSED = "new", "returned", "present", "refused"


@dataclass(frozen=True, slots=True)
class Wanted:
    """One user who is to be enabled; each field means what it means to L{rvpfarm.admin.users.enable_user}.

    @ivar link: what never changes of the entry that the user has in the LDAP directory.
    @ivar number: where it was read, such as the line of the file; only for the report.
    """

    address: str
    home: str | None = None
    domain: str | None = None
    display_name: str | None = None
    password: str | None = None
    email: str | None = None
    form: str = "mail"
    number: int = 0
    link: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one row.

    @ivar what: L{NEW}, L{RETURNED}, L{PRESENT} or L{REFUSED}.
    @ivar account: as it is from now on, without verifiers; C{None} for a row that was refused.
    @ivar reason: one sentence with the remedy, for a row that was refused; else empty.
    """

    wanted: Wanted
    what: str
    account: Account | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that have been dealt with for good.

    @ivar outcomes: one for each row, in the order of the rows.
    @ivar seen: how many rows have been dealt with since the beginning.
    """

    outcomes: tuple[Outcome, ...]
    seen: int

    @property
    def refused(self) -> tuple[Outcome, ...]:
        """Those that were refused."""
        return tuple(one for one in self.outcomes if one.what == REFUSED)


def enable_many(
    store: Store,
    rows: Iterable[Wanted],
    *,
    batch: int = BATCH,
    actor: str | None = None,
    dry_run: bool = False,
) -> Iterator[Batch]:
    """Enable users, batch by batch; each is in the directory when its L{Batch} is yielded.

    One row that is refused stops no other.  A user who is enabled already is left alone, password and all,
    so what was interrupted can be run again from the beginning.  Each user has an audit row
    C{user enable} of his own, and is in the feed of changes, as if enabled alone.

    Nothing happens before the first batch is asked for; whoever stops asking has what was yielded, no more.

    @param rows: read as they are needed, C{batch} at a time.
    @param batch: so many rows are one transaction.
    @param dry_run: only find out what would become of each row; nothing is changed.
    @raise DirectoryUnavailable: the directory cannot be used, or there is a password and no farm key; the
        batch that was on its way is not in it, the ones before are.
    """
    rest, state, seen = iter(rows), _Known(), 0
    who = actor or default_actor()
    while some := list(islice(rest, batch)):
        outcomes: list[Outcome] = []
        with suppress(Rehearsed), store.change_many(who, "user enable") as bulk:
            state.begin(bulk, some)
            outcomes = [_enable(bulk, state, one) for one in some]
            if dry_run:
                raise Rehearsed
        seen += len(some)
        yield Batch(tuple(outcomes), seen)


def _enable(bulk: Bulk, state: _Known, wanted: Wanted) -> Outcome:
    """Put one user among those that are written together."""
    try:
        old = account_meant(state, state.farm, wanted.address, wanted.domain)
        if old is not None and old.enabled and old.key not in state.made:
            return Outcome(wanted, PRESENT, old)
        plan = None if old is not None and old.enabled else _plan(state, wanted)
        if plan is None or plan.account.key in state.made:
            raise Refused(f'"{wanted.address}" is in the list twice; the first of them counts')
        account, verifiers = plan.account, None
        if wanted.password is not None:
            own = {} if old is None else bulk.kept(old.id).policies
            verifiers = verifiers_for(state.farm, account, own, wanted.password)
    except Refused as problem:
        return Outcome(wanted, REFUSED, reason=str(problem))
    if old is None:
        bulk.add(account, verifiers)
    else:
        bulk.put(old, account, verifiers)
    if wanted.link:
        bulk.link(account, LINK, wanted.link)
    state.note(account, old)
    return Outcome(wanted, RETURNED if plan.returning else NEW, account)


def _plan(state: _Known | _Asked, wanted: Wanted) -> Plan:
    return plan_for(
        state,
        state.farm,
        wanted.address,
        wanted.home,
        wanted.domain,
        wanted.display_name,
        wanted.email,
        wanted.form,
    )


@dataclass(slots=True)
class _Asked:
    """Knows nobody, and notes who is asked for."""

    farm: Farm
    loads: Mapping[str, int]
    keys: set[str] = field(default_factory=set)
    addresses: set[str] = field(default_factory=set)

    def account(self, key: str) -> Account | None:
        """Nobody."""
        self.keys.add(key)
        return None

    def account_by_address(self, address: str) -> Account | None:
        """Nobody."""
        self.addresses.add(address.lower())
        return None

    def home_loads(self) -> Mapping[str, int]:
        """Those that are known."""
        return self.loads


@dataclass(slots=True)
class _Known:
    """What has to be known of the directory for one batch, read at once; and what came of those before.

    @ivar made: the keys of all who were enabled since the beginning.
    """

    farm: Farm = field(default_factory=Farm)
    made: set[str] = field(default_factory=set)
    loads: dict[str, int] = field(default_factory=dict)
    by_key: dict[str, Account] = field(default_factory=dict)
    by_address: dict[str, Account] = field(default_factory=dict)

    def begin(self, bulk: Bulk, some: Iterable[Wanted]) -> None:
        """Read what the rows of a batch will ask for."""
        farm = bulk.farm()
        if farm.generation != self.farm.generation or not self.loads:
            self.loads = dict(bulk.home_loads())  # counts every account, so not for each batch
        self.farm = farm
        asked = _Asked(farm, self.loads)
        for wanted in some:
            with suppress(Refused):  # it is refused again when its turn comes
                _plan(asked, wanted)
        self.by_key.clear()
        self.by_address.clear()
        for account in bulk.accounts_among(asked.keys, asked.addresses):
            self._hold(account)

    def note(self, account: Account, old: Account | None) -> None:
        """C{account} was enabled."""
        self.made.add(account.key)
        self._hold(account)
        if old is not None and old.home in self.loads:
            self.loads[old.home] -= 1
        if account.home in self.loads:
            self.loads[account.home] += 1

    def account(self, key: str) -> Account | None:
        """The account of the node C{key}."""
        return self.by_key.get(key)

    def account_by_address(self, address: str) -> Account | None:
        """The account with that IM address."""
        return self.by_address.get(address.lower())

    def home_loads(self) -> Mapping[str, int]:
        """How many accounts each home has, that takes new ones."""
        return self.loads

    def _hold(self, account: Account) -> None:
        self.by_key[account.key] = self.by_address[account.address.lower()] = account
