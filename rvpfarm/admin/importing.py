"""Enabling the users of a file, or of anything else that lists people."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rvpfarm.admin.addresses import Decision, Question, question_for
from rvpfarm.admin.bulk import BATCH, NEW, PRESENT, REFUSED, RETURNED, Outcome, Wanted, enable_many
from rvpfarm.admin.checks import Refused
from rvpfarm.admin.passwords import verifiers_for
from rvpfarm.admin.people import Person
from rvpfarm.admin.users import account_meant, generate_password
from rvpfarm.directory.model import Account, Farm
from rvpfarm.directory.store import Store

#: Decides the form of an address; it may ask the DNS.
Decide = Callable[[Question], Decision]


@dataclass(frozen=True, slots=True)
class Defaults:
    """What counts for whoever the file says nothing else of.

    @ivar home: name of the home; C{None} for the emptiest at the time.
    @ivar domain: IM domain; C{None} for what follows from the address.
    @ivar rule: goes before the policy C{address-form}.
    """

    home: str | None = None
    domain: str | None = None
    rule: str | None = None


@dataclass(frozen=True, slots=True)
class Complaint:
    """A row that was not done.

    @ivar differs: it is somebody who is enabled already, otherwise than the row says.
    """

    line: int
    address: str
    sentence: str
    differs: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """What has come of the import so far.

    @ivar read: lines that were read.
    @ivar enabled: new users; C{returned} those who were disabled, C{present} those who were enabled already,
        just so.
    @ivar complaints: of this step only.
    @ivar without: new users who have no password yet.
    """

    read: int
    enabled: int
    returned: int
    present: int
    complaints: tuple[Complaint, ...]
    without: int


class Passwords:
    """A file of new passwords that only its owner may read, and that never lacks one that counts.

    What is about to be given is in a file beside it before any of it counts; after an interruption those are
    looked at first.
    """

    def __init__(self, path: Path) -> None:
        """
        @raise Refused: it cannot be written, or others may read it.
        """
        self._path, self._aside = path, path.with_name(f"{path.name}.pending")
        self._given: dict[int, tuple[str, str]] = {}
        try:
            self._append(path, [])
            if path.stat().st_mode & 0o077:
                raise Refused(f"others may read {path}; run chmod 600 {path}, or give --passwords a new file")
        except OSError as problem:
            raise Refused(
                f"cannot write {path}: {problem.strerror}; give --passwords another path"
            ) from problem

    def take_up(self, store: Store) -> int:
        """After an interruption: keep those passwords that had come to count; returns how many."""
        if not self._aside.exists():
            return 0
        kept = []
        with store.read() as reading:
            farm = reading.farm()
            for line in self._aside.read_text("utf-8").splitlines():
                address, _, password = line.rpartition("\t")
                account = account_meant(reading, farm, address)
                if account is not None and account.enabled and _counts(farm, account, password):
                    kept.append(f"{account.address}\t{password}")
        self._append(self._path, kept)
        self._aside.unlink()
        return len(kept)

    def give(self, line: int, address: str, password: str) -> None:
        """The password that whoever stands in that line is about to be given."""
        self._given[line] = (address, password)

    def before(self) -> None:
        """A batch is about to be written to the directory."""
        self._aside.unlink(missing_ok=True)
        if self._given:
            self._append(self._aside, [f"{address}\t{word}" for address, word in self._given.values()])

    def after(self, outcomes: Iterable[Outcome]) -> None:
        """It is there now."""
        lines = [
            f"{one.account.address}\t{self._given[one.wanted.number][1]}"
            for one in outcomes
            if one.account is not None and one.what in (NEW, RETURNED) and one.wanted.number in self._given
        ]
        self._append(self._path, lines)
        self._given.clear()
        self._aside.unlink(missing_ok=True)

    def _append(self, path: Path, lines: list[str]) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
            file.flush()
            os.fsync(descriptor)


class Report:
    """A CSV file of the rows that were not done: line, address and why."""

    def __init__(self, path: Path) -> None:
        """
        @raise Refused: it cannot be written.
        """
        try:
            self._file = path.open("w", encoding="utf-8", newline="")
        except OSError as problem:
            raise Refused(f"cannot write {path}: {problem.strerror}; give --report another path") from problem
        self._rows = csv.writer(self._file)
        self._rows.writerow(("line", "address", "why"))

    def add(self, complaints: Iterable[Complaint]) -> None:
        """Note these."""
        self._rows.writerows((one.line, one.address, one.sentence) for one in complaints)
        self._file.flush()

    def close(self) -> None:
        """It is complete."""
        self._file.close()


def import_people(
    store: Store,
    people: Iterable[Person],
    decide: Decide,
    defaults: Defaults = Defaults(),
    *,
    generate: bool = False,
    passwords: Passwords | None = None,
    batch: int = BATCH,
    dry_run: bool = False,
    actor: str | None = None,
) -> Iterator[Step]:
    """Enable C{people}, batch by batch; run again after an interruption it goes on where it was.

    Who is enabled already stays as he is, password and all.

    @param decide: decides the form of each new address.
    @param generate: make a password up for whoever is given none.
    @param passwords: notes those that were made up.
    @raise Refused: the form of addresses cannot be decided.
    @raise DirectoryUnavailable: the directory cannot be used; what was told before counts.
    """
    with store.read() as reading:
        farm = reading.farm()
    rows = _Rows(people, farm, decide, defaults, batch, generate, passwords)
    enabled = returned = present = without = 0
    for done in enable_many(store, rows, batch=batch, actor=actor, dry_run=dry_run):
        complaints = rows.take_complaints()
        for one in done.outcomes:
            complaint = _complaint(farm, one)
            if complaint is not None:
                complaints.append(complaint)
            enabled += one.what == NEW
            returned += one.what == RETURNED
            present += one.what == PRESENT and complaint is None
            without += one.what == NEW and one.wanted.password is None
        if passwords is not None and not dry_run:
            passwords.after(done.outcomes)
        complaints.sort(key=lambda complaint: complaint.line)
        yield Step(rows.read, enabled, returned, present, tuple(complaints), without)
    yield Step(rows.read, enabled, returned, present, tuple(rows.take_complaints()), without)


class _Rows:
    """The rows for L{enable_many}, made as they are needed."""

    def __init__(
        self,
        people: Iterable[Person],
        farm: Farm,
        decide: Decide,
        defaults: Defaults,
        batch: int,
        generate: bool,
        passwords: Passwords | None,
    ) -> None:
        self._people, self._farm, self._decide, self._defaults = people, farm, decide, defaults
        self._batch, self._generate, self._passwords = batch, generate, passwords
        self._complaints: list[Complaint] = []
        self.read = 0

    def take_complaints(self) -> list[Complaint]:
        """What could not even be tried since last asked."""
        complaints, self._complaints = self._complaints, []
        return complaints

    def __iter__(self) -> Iterator[Wanted]:
        count = 0
        for person in self._people:
            self.read = person.line
            wanted = self._wanted(person)
            if wanted is None:
                continue
            count += 1
            if count % self._batch == 0 and self._passwords is not None:
                self._passwords.before()
            yield wanted
        if self._passwords is not None:
            self._passwords.before()

    def _wanted(self, person: Person) -> Wanted | None:
        domain = person.domain or self._defaults.domain
        try:
            if person.problem:
                raise Refused(person.problem)
            question = question_for(self._farm, person.address, domain, self._defaults.rule)
            least = int(self._farm.policy("password-length", question.domain.name))
        except Refused as problem:
            self._complaints.append(Complaint(person.line, person.address, str(problem)))
            return None
        form = self._decide(question).form  # what is refused here concerns them all
        password = person.password or None
        if password is None and self._generate:
            password = generate_password(least)
            if self._passwords is not None:
                self._passwords.give(person.line, person.address, password)
        return Wanted(
            address=person.address,
            home=person.home or self._defaults.home,
            domain=domain,
            display_name=person.display_name or None,
            password=password,
            email=person.email or None,
            form=form,
            number=person.line,
            link=person.link,
        )


def _complaint(farm: Farm, one: Outcome) -> Complaint | None:
    """What is to be said of a row, if anything."""
    wanted = one.wanted
    if one.what == REFUSED:
        return Complaint(wanted.number, wanted.address, one.reason)
    if one.what != PRESENT or one.account is None:
        return None
    account, home = one.account, farm.homes[one.account.home].name
    pairs = (
        ("home", wanted.home and wanted.home.strip().lower(), home),
        ("display name", wanted.display_name, account.display_name),
        ("mail address", wanted.email, account.email),
    )
    other = [f"{what} {held}" for what, given, held in pairs if given and given != held]
    if not other:
        return None
    sentence = f"{account.address} is enabled already with the {' and the '.join(other)}, and stays so"
    return Complaint(wanted.number, wanted.address, sentence, differs=True)


def _counts(farm: Farm, account: Account, password: str) -> bool:
    """Is this the password of C{account}?"""
    held = {(one.scheme, one.username, one.secret) for one in account.verifiers}
    return any(
        (one.scheme, one.username, one.secret) in held for one in verifiers_for(farm, account, {}, password)
    )
