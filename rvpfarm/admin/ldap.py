"""What administrators do about users that come from LDAP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from rvpfarm.admin.actors import default_actor
from rvpfarm.admin.checks import ALIASES, Refused, domain_named, serving, split_address
from rvpfarm.directory.ldapentries import (
    Person,
    alias_filter,
    choose_home,
    key_of,
    login_filter,
    login_forms,
    member_filter,
    new_account,
)
from rvpfarm.directory.ldappeople import Fault, LdapEntry, People, ldap_entries
from rvpfarm.directory.ldapservers import LdapServers, Reached
from rvpfarm.directory.ldapsettings import (
    LINK,
    RECORD,
    BadSettings,
    LdapSettings,
    check,
    render,
    settings_of,
)
from rvpfarm.directory.ldapsource import pin, reader_password, seal_password
from rvpfarm.directory.model import Account, DirectoryUnavailable, Farm
from rvpfarm.directory.store import Store

_ABSENT = 'users do not come from LDAP here; "rvpfarm ldap set" makes them'


def ldap_of(store: Store) -> LdapSettings | None:
    """The settings; C{None} when users do not come from LDAP."""
    with store.read() as reading:
        return settings_of(reading.farm())


def set_ldap(
    store: Store,
    settings: LdapSettings,
    password: str | None = None,
    *,
    actor: str | None = None,
    dry_run: bool = False,
) -> LdapSettings:
    """Have users come from LDAP; every process of the farm goes by it within a second or so.

    @param password: of the reader; left out, it stays.
    @param dry_run: only check.
    @raise Refused: the settings cannot be used.
    """
    if password is not None:
        if store.sealer is None:
            raise Refused("a password cannot be kept without the farm key; give --key-file")
        settings = replace(settings, sealed=seal_password(password, store.sealer))
    try:
        check(settings)
    except BadSettings as problem:
        raise Refused(str(problem)) from None
    with store.read() as reading:
        if settings.domain:
            domain_named(reading.farm().domains, settings.domain)
    if not dry_run:
        with store.change(actor or default_actor(), "ldap set", RECORD) as writing:
            writing.set_policy("", RECORD, render(settings))
    return settings


def unset_ldap(store: Store, *, actor: str | None = None) -> None:
    """Users do not come from LDAP any longer; local records stay, and go by themselves.

    @raise Refused: they do not now.
    """
    with store.change(actor or default_actor(), "ldap unset", RECORD) as writing:
        if RECORD not in writing.farm().policies:
            raise Refused(_ABSENT)
        writing.set_policy("", RECORD, None)


@contextmanager
def asking(store: Store) -> Iterator[tuple[People, Farm]]:
    """Whom to ask for people, for as long as the block lasts.

    @raise Refused: users do not come from LDAP.
    @raise DirectoryUnavailable: the settings or the key are of no use.
    """
    with store.read() as reading:
        farm = reading.farm()
    settings = settings_of(farm)
    if settings is None:
        raise Refused(_ABSENT)
    servers = LdapServers(settings, reader_password(settings, store.sealer))
    try:
        yield People(settings, servers), farm
    finally:
        servers.close()


def find_person(store: Store, address: str, domain: str | None = None) -> Person | None:
    """Who in LDAP is meant by an address or a bare name; C{None} also where users do not come from LDAP.

    @raise DirectoryUnavailable: no LDAP server says.
    """
    if ldap_of(store) is None:
        return None
    with asking(store) as (people, farm):
        return _meant(people, farm, address, domain)


def ldap_users(store: Store, filter: str = "") -> Iterator[LdapEntry]:
    """The users that the farm's LDAP directory has, page by page; see
    L{rvpfarm.directory.ldappeople.ldap_entries}.

    @param filter: a further filter (RFC 4515).
    @raise Refused: users do not come from LDAP.
    @raise DirectoryUnavailable: no LDAP server answers, or the filter cannot be read.
    """
    settings = ldap_of(store)
    if settings is None:
        raise Refused(_ABSENT)
    yield from ldap_entries(settings, filter, password=reader_password(settings, store.sealer))


def ensure_local(store: Store, address: str, *, actor: str | None = None) -> None:
    """Give somebody who has none so far a local record: it can then be disabled, or be given a password.

    @raise DirectoryUnavailable: no LDAP server says.
    """
    settings = ldap_of(store)
    if settings is None or not settings.automatic:
        return
    with asking(store) as (people, farm):
        person = _meant(people, farm, address)
        if person is None or not people.may(person):
            return
        account = _account(people, farm, person)
    if account is not None:
        pin(store, account, person, actor=actor or default_actor())


def half_filled(store: Store) -> list[Fault]:
    """The records of Exchange's that are not served, and why (D05); none with another profile.

    @raise DirectoryUnavailable: no LDAP server says.
    """
    settings = ldap_of(store)
    if settings is None or not settings.is_exchange:
        return []
    with asking(store) as (people, farm):
        return list(people.half_filled(farm))


@dataclass(frozen=True, slots=True)
class Step:
    """One step of finding somebody.

    @ivar name: what was done.
    @ivar good: it went well.
    @ivar text: what came of it.
    """

    name: str
    good: bool
    text: str


def test_user(store: Store, user: str) -> Iterator[Step]:
    """Find C{user} as the daemons do, and tell of every step, until one goes wrong.

    @param user: an address, or whatever it signs in with.
    @raise Refused: users do not come from LDAP.
    """
    with asking(store) as (people, farm):
        settings = people.settings
        yield Step("settings", True, f"profile {settings.profile}, {len(settings.servers)} server(s)")
        try:
            yield from _server_steps(people.servers.reach(), settings)
            yield from _person_steps(store, people, farm, user)
        except DirectoryUnavailable as problem:
            yield Step("server", False, str(problem))


def _server_steps(reached: Reached, settings: LdapSettings) -> Iterator[Step]:
    for server, why in reached.failed:
        yield Step("server", False, f"{server} does not answer: {why}")
    yield Step("server", True, f"{reached.server} answers")
    if reached.server.startswith("ldap:") and not settings.starttls:
        yield Step("TLS", True, "off: the server is on this machine")
    else:
        way = "StartTLS" if reached.server.startswith("ldap:") else "from the first octet"
        yield Step("TLS", True, f"{way}; {_certificate(reached.certificate)}")
    yield Step("bind", True, f"as {settings.bind_dn}" if settings.bind_dn else "without a name")


def _certificate(octets: bytes) -> str:
    """Whose certificate it is."""
    if not octets:
        return "the certificate was verified"
    one = x509.load_der_x509_certificate(octets)
    print_ = one.fingerprint(hashes.SHA256()).hex()
    return (
        f"certificate of {one.subject.rfc4514_string()}, issued by {one.issuer.rfc4514_string()}, "
        f"good until {one.not_valid_after_utc:%Y-%m-%d}, SHA-256 {print_[:16]}..."
    )


def _person_steps(store: Store, people: People, farm: Farm, user: str) -> Iterator[Step]:
    settings = people.settings
    key = _key_meant(farm, user)
    tried = [alias_filter(settings, key)] if key is not None else []
    person = None if key is None else people.by_key(key, farm)
    if person is None:
        forms = [user] if key is None else login_forms(key, farm)
        tried.append(login_filter(settings, forms))
        person = people.by_login(*forms)
    yield Step("search", True, f"below {settings.base} for {' and then '.join(tried)}")
    if person is None:
        yield Step("entry", False, "none: check --base, --filter and --alias")
        return
    yield Step("entry", True, person.dn)
    allowed = people.may(person)
    if person.disabled:
        yield Step("group", False, "the LDAP directory says that the user is disabled")
    elif settings.groups:
        names, test = ", ".join(settings.groups), member_filter(settings, person)
        yield Step("group", allowed, f"{'a' if allowed else 'no'} member of {names}, by {test}")
    else:
        yield Step("group", True, "no group is asked for")
    found = key_of(settings, person, farm)
    values = {
        "alias": person.alias,
        "mail": person.mail,
        "display name": person.display_name,
        "unique id": person.unique_id,
        **({"virtual server": person.virtual_server} if settings.is_exchange else {}),
    }
    yield Step("values", True, ", ".join(f"{name} {value or 'none'}" for name, value in values.items()))
    if found is None:
        yield Step("account", False, "no IM domain here serves that mail address; --domain names one")
        return
    yield from _account_steps(store, people, farm, person, found, allowed)


def _account_steps(
    store: Store, people: People, farm: Farm, person: Person, key: str, allowed: bool
) -> Iterator[Step]:
    with store.read() as reading:
        local = reading.account(key)
        link = "" if local is None else reading.own_policy(local.id, LINK)
        kept = () if local is None else reading.schemes(local.id)
    if local is None:
        yield Step("local", True, f"no record for {key}")
        account = _account(people, farm, person) if people.settings.automatic and allowed else None
        why = "made at first sight"
        if account is None:
            hint = f'"rvpfarm user enable {person.mail or person.alias}" enables the user'
            half = people.settings.is_exchange and not people.is_whole(person, farm)
            why = "Exchange's record is half filled (D05)" if half else f"none; {hint}"
    else:
        tie = "tied to this entry" if link == person.unique_id else "tied to another entry" if link else "own"
        state = "enabled" if local.enabled else "disabled, which always wins"
        yield Step("local", local.enabled, f"{local.address}, {state}, {tie}")
        account = local if local.enabled and (not link or (link == person.unique_id and allowed)) else None
        why = "the local record and the entry together" if account else "not enabled"
    if account is None:
        yield Step("account", False, why)
        return
    yield Step("account", True, f"{account.address} on home {farm.homes[account.home].name}: {why}")
    yield Step("proof", *_proof(farm, account, bool(link) or local is None, kept))


def _proof(farm: Farm, account: Account, tied: bool, kept: tuple[str, ...]) -> tuple[bool, str]:
    """How a user may prove who he is."""
    ways = []
    for word in farm.policy("schemes", account.domain).split():
        if word == "basic" and tied:
            ways.append("basic (the LDAP password, over TLS only)")
        elif word == "negotiate":
            ways.append("negotiate (Kerberos, where a home has --keytab)")
        elif word in kept or (word == "ntlm" and "nt" in kept):
            ways.append(f"{word} (a password set here)")
    if ways:
        return True, ", ".join(ways)
    return False, (
        'by nothing that is offered: "rvpfarm policy set schemes" with basic among them, or '
        f'"rvpfarm user passwd {account.address}"'
    )


def _account(people: People, farm: Farm, person: Person) -> Account | None:
    """What somebody without a local record would get."""
    settings = people.settings
    if settings.is_exchange and not people.is_whole(person, farm):
        return None
    draft = new_account(settings, person, farm, "")
    if draft is None:
        return None
    home = people.home_of(person, farm) if settings.is_exchange else choose_home(farm, draft.id)
    return None if home is None else replace(draft, home=home)


def _key_meant(farm: Farm, address: str, domain: str | None = None) -> str | None:
    """The key of the node of whoever is known as C{address}; C{None} when that is not clear."""
    alias, host = split_address(address)
    if domain is not None:
        served = domain_named(farm.domains, domain)
    elif host:
        found = serving(host, farm.domains)
        if found is None:
            return None
        served = found
    elif len(farm.domains) == 1:
        served = next(iter(farm.domains.values()))
    else:
        return None
    return f"{served.name}{ALIASES}{alias}".lower()


def _meant(people: People, farm: Farm, address: str, domain: str | None = None) -> Person | None:
    key = _key_meant(farm, address, domain)
    return None if key is None else people.by_key(key, farm)
