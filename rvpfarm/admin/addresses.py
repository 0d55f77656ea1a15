"""Which of its two forms an IM address has: that of the mail address, or the name at the IM domain.

The original decided it once, when a user was enabled: was there an SRV record of the mail domain at that
moment, the IM address was the mail address (product F20; KB 319758).  Whoever made the record too late kept
odd addresses for ever (D16).  Here the rule is a policy, what the DNS said is handed in as a value, and the
form can be decided anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from rvpfarm.admin.actors import default_actor
from rvpfarm.admin.checks import enumerate_names, im_address, whom
from rvpfarm.admin.passwords import KEEPING
from rvpfarm.admin.users import account_meant, accounts_of, existing_user
from rvpfarm.directory.model import Account, Domain, Farm
from rvpfarm.directory.names import names_of
from rvpfarm.directory.reading import Reading
from rvpfarm.directory.store import Store

#: How the form is decided: by asking the DNS, or always the same.
RULES = ("srv", "mail", "im")

#: The forms: the mail address, or the name at the IM domain.
MAIL, IM = "mail", "im"


@dataclass(frozen=True, slots=True)
class Offer:
    """One SRV record: where clients are led to.

    @ivar target: the host, lower case, without a final dot; empty for "there is no such service here".
    """

    priority: int
    weight: int
    port: int
    target: str

    def __str__(self) -> str:
        """As it stands in a zone."""
        return f"{self.priority} {self.weight} {self.port} {self.target}."


@dataclass(frozen=True, slots=True)
class Question:
    """What decides the form of somebody's IM address.

    @ivar typed: the form was given by typing an IM address.
    @ivar mail_domain: the user's mail domain, or empty.
    @ivar rule: one of L{RULES}.
    @ivar by: who says so: a policy or an option.
    """

    farm: Farm
    domain: Domain
    mail_domain: str
    rule: str
    by: str
    typed: bool = False

    @property
    def record(self) -> str:
        """The name of the SRV record that may decide."""
        return f"_rvp._tcp.{self.mail_domain}"

    @property
    def needs_dns(self) -> bool:
        """Does the DNS have to be asked?"""
        return self.rule == "srv" and self._open

    @property
    def _open(self) -> bool:
        """Could it have either form?"""
        return self.mail_domain in self.domain.mail_domains and self.mail_domain != self.domain.name


@dataclass(frozen=True, slots=True)
class Decision:
    """The form of an IM address, and why.

    @ivar form: L{MAIL} or L{IM}.
    @ivar why: what decided it, for a person.
    @ivar said: what the DNS said; empty when it was not asked.
    @ivar warning: what is probably wrong with the DNS; empty when nothing is.
    """

    form: str
    why: str
    said: str = ""
    warning: str = ""


@dataclass(frozen=True, slots=True)
class Readdressed:
    """What deciding the form of one user's address anew came to.

    @ivar before: as the user was.
    @ivar address: the IM address that the rule gives.
    @ivar conflict: why it cannot be given; empty when it can.
    @ivar remedy: a command without which the user cannot sign in by Digest with the new address; empty when
        nothing has to be done.
    """

    before: Account
    address: str
    conflict: str = ""
    remedy: str = ""

    @property
    def changes(self) -> bool:
        """Is the address another one than before?"""
        return self.address != self.before.address


def question_about(
    reading: Reading,
    text: str,
    domain: str | None = None,
    rule: str | None = None,
    option: str = "--address-form",
) -> Question | None:
    """What decides the form of the address of whoever C{text} means, who is to be enabled.

    @param domain: the IM domain, when it does not follow from C{text}.
    @param rule: one of L{RULES} to go before the policy C{address-form}.
    @return: C{None} when that user exists: its address does not change by being enabled again.
    @raise Refused: the name cannot be used, or the domain is unknown or unclear.
    """
    farm = reading.farm()
    if account_meant(reading, farm, text, domain) is not None:
        return None
    return question_for(farm, text, domain, rule)


def question_for(farm: Farm, text: str, domain: str | None = None, rule: str | None = None) -> Question:
    """The same for whoever is no user yet, or does not matter whether.

    @raise Refused: as L{question_about}.
    """
    meant = whom(text, farm.domains, domain)
    typed = not meant.mail_domain and "@" in text
    return _question(farm, meant.domain, meant.mail_domain, rule, "--address-form", typed)


def question_of(farm: Farm, account: Account, rule: str | None = None) -> Question:
    """What decides the form of the address that C{account} has already; see L{question_about}."""
    domain = farm.domains[account.domain]
    hosts = (account.email.rpartition("@")[2].lower(), account.address.rpartition("@")[2].lower())
    mail_domain = next((host for host in (*hosts, *domain.mail_domains) if host in domain.mail_domains), "")
    return _question(farm, domain, mail_domain, rule, "--form")


def decide(question: Question, offers: Sequence[Offer] = ()) -> Decision:
    """Which form it is (product F20).

    @param offers: the SRV records of L{Question.record}, if L{Question.needs_dns}.
    """
    domain, mail_domain = question.domain, question.mail_domain
    if question.typed:
        return Decision(IM, "an IM address was given")
    if not mail_domain:
        return Decision(IM, f"{domain.name} serves no mail domain")
    if mail_domain == domain.name:
        return Decision(MAIL, f"{domain.name} is the mail domain, too")
    if mail_domain not in domain.mail_domains:
        return Decision(IM, f"{domain.name} does not serve the mail domain {mail_domain}")
    if question.rule != "srv":
        return Decision(question.rule, f"{question.by} is {question.rule}")
    said = "; ".join(map(str, offers)) or "there is no such record"
    said = f"{question.record}: {said}"
    wrong = [offer for offer in offers if offer.target not in hosts_of(question.farm, domain)]
    if not offers:
        return Decision(IM, f"there is no SRV record {question.record}", said)
    if wrong:
        targets = enumerate_names({offer.target or "nowhere" for offer in wrong})
        warning = (
            f"the SRV record {question.record} leads to {targets}, which is no router of {domain.name} "
            '(D02); "rvpfarm dns plan" shows the right one'
        )
        return Decision(IM, f"the SRV record {question.record} leads elsewhere", said, warning)
    return Decision(MAIL, f"the SRV record {question.record} leads here", said)


def hosts_of(farm: Farm, domain: Domain) -> frozenset[str]:
    """The hosts that an SRV record may name so that C{domain} answers: its own and its routers' (D02, D23).

    A farm without routers is served by its homes.
    """
    names = names_of(farm)
    servers = farm.routers.values() or farm.homes.values()
    machines = {server.host for server in servers if names.domain_of(server.host) == domain.name}
    return frozenset({domain.name, *domain.aliases, *machines})


def users_to_readdress(
    store: Store, texts: Sequence[str], domain: str | None, rule: str | None
) -> list[tuple[Account, Question]]:
    """The users whose addresses are to be decided anew, each with what decides.

    @param texts: addresses; without any, all users of C{domain}, or of every domain.
    @param rule: one of L{RULES} to go before the policies.
    @raise Refused: there is no such user or domain.
    """
    with store.read() as reading:
        farm = reading.farm()
        if texts:
            found = {account.id: account for account in (existing_user(reading, one) for one in texts)}
            accounts = list(found.values())
        else:
            accounts = list(accounts_of(reading, domain, None))
        users = [account for account in accounts if account.kind == "user"]
        return [(account, question_of(farm, account, rule)) for account in users]


def plan_readdress(store: Store, forms: Iterable[tuple[Account, str]]) -> list[Readdressed]:
    """What L{readdress_user} would do for each of these accounts; nothing is changed.

    @param forms: accounts, each with L{MAIL} or L{IM}.
    """
    with store.read() as reading:
        farm = reading.farm()
        return [_readdressed(reading, farm, account, form) for account, form in forms]


def readdress_user(store: Store, address: str, form: str, *, actor: str | None = None) -> Readdressed:
    """Give a user the IM address that follows from C{form}, unless somebody else has it.

    Public URL, home, sign-in names and password stay as they are, and both forms lead to the same user.

    @param form: L{MAIL} or L{IM}.
    @raise Refused: there is no such user.
    """
    with store.change(actor or default_actor(), "user readdress", address) as writing:
        account = existing_user(writing, address)
        done = _readdressed(writing, writing.farm(), account, form)
        if done.changes and not done.conflict:
            writing.subject = done.address
            writing.update_account(replace(account, address=done.address))
    return done


def _readdressed(reading: Reading, farm: Farm, account: Account, form: str) -> Readdressed:
    """What giving C{account} the address of C{form} comes to."""
    question = question_of(farm, account)
    address = im_address(account.alias, question.mail_domain, question.domain, form)
    conflict = remedy = ""
    if address != account.address:
        holder = reading.account_by_address(address)
        if holder is not None and holder.id != account.id:
            conflict = f"{address} is taken by {holder.url}"
        elif _cannot_sign_in(reading, farm, account, address):
            remedy = f"rvpfarm user passwd {address}"
    return Readdressed(account, address, conflict, remedy)


def _question(
    farm: Farm, domain: Domain, mail_domain: str, rule: str | None, option: str, typed: bool = False
) -> Question:
    by = option if rule is not None else "the policy address-form"
    rule = rule or farm.policy("address-form", domain.name)
    return Question(farm, domain, mail_domain, rule, by, typed)


def _cannot_sign_in(reading: Reading, farm: Farm, account: Account, address: str) -> bool:
    """Is there a password, but nothing to check C{address} and that password by?

    Digest hashes the login name as it was typed: names that came to the domain after the password was set
    are not among those that were hashed.
    """
    schemes = KEEPING["digest-verifiers"]
    if not set(schemes) & set(farm.policy("schemes", account.domain).split()):
        return False
    known = reading.login_names(account.id, schemes)
    return bool(known) and address not in known
