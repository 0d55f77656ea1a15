"""IM domains: the names in people's URLs, the mail domains they serve, and what else they are called."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace

from rvpfarm.admin.actors import default_actor
from rvpfarm.admin.checks import Missing, Refused, Taken, check_host, check_netbios, domain_named, serving
from rvpfarm.admin.users import Rehearsed
from rvpfarm.directory.model import Domain, Farm
from rvpfarm.directory.reading import Reading
from rvpfarm.directory.store import Store

_HOST_ADVICE = "give a host name such as im"
_MAIL_ADVICE = "give a mail domain such as example.com"


@dataclass(frozen=True, slots=True)
class DomainChange:
    """What giving an IM domain another name did, or taking one away; or what it would do.

    @ivar name: the alias or mail domain, as it is kept.
    @ivar users: how many users are concerned.
    """

    domain: Domain
    name: str
    users: int = 0


def add_domain(
    store: Store,
    name: str,
    mail_domains: Iterable[str] = (),
    aliases: Iterable[str] = (),
    netbios: str = "",
    *,
    actor: str | None = None,
) -> Domain:
    """A new IM domain.

    @param mail_domains: the mail domains it serves, the primary one first.
    @param aliases: further host names that mean it.
    @param netbios: what stands before the backslash when old clients log in.
    @raise Refused: a name is none, or taken.
    """
    domain = Domain(
        check_host(name, "an IM domain is a DNS name such as im.example.com"),
        _unique(check_host(one, "give --mail-domain one such as example.com") for one in mail_domains),
        _unique(check_host(one, "give --alias a host name such as im", single=True) for one in aliases),
        check_netbios(netbios),
    )
    if domain.name in domain.aliases:
        raise Refused(f'"{domain.name}" cannot be an alias of itself; leave that --alias out')
    with store.change(actor or default_actor(), "domain add", domain.name) as writing:
        farm = writing.farm()
        for one in _unique((domain.name, *domain.mail_domains, *domain.aliases)):
            other = serving(one, farm.domains)
            if other is not None and other.name == domain.name:
                raise Taken(f'there is an IM domain "{one}" already; "rvpfarm domain list" shows them')
            _check_free(one, domain.name, farm)
        _check_hosts((domain.name, *domain.aliases), farm)
        writing.add_domain(domain)
    return domain


def add_alias(
    store: Store, domain: str, host: str, *, actor: str | None = None, dry_run: bool = False
) -> DomainChange:
    """A further host name that means an IM domain.

    @raise Refused: there is no such domain, or the name is none, or taken.
    """
    name = check_host(host, _HOST_ADVICE, single=True)

    def changed(old: Domain, reading: Reading) -> DomainChange:
        if name in (old.name, *old.aliases):
            raise Taken(f'"{name}" means {old.name} already; "rvpfarm domain list" shows the names')
        farm = reading.farm()
        _check_free(name, old.name, farm)
        _check_hosts((name,), farm)
        return DomainChange(replace(old, aliases=(*old.aliases, name)), name)

    return _change(store, "domain alias add", domain, changed, actor, dry_run)


def remove_alias(
    store: Store, domain: str, host: str, *, actor: str | None = None, dry_run: bool = False
) -> DomainChange:
    """A host name that means an IM domain no longer.

    @raise Refused: there is no such domain, or it has no such alias.
    """
    name = check_host(host, _HOST_ADVICE, single=True)

    def changed(old: Domain, reading: Reading) -> DomainChange:
        if name not in old.aliases:
            raise Missing(f'{old.name} has no alias "{name}"; "rvpfarm domain list" shows those it has', host)
        return DomainChange(replace(old, aliases=tuple(one for one in old.aliases if one != name)), name)

    return _change(store, "domain alias remove", domain, changed, actor, dry_run)


def add_mail_domain(
    store: Store,
    domain: str,
    mail_domain: str,
    *,
    primary: bool = False,
    actor: str | None = None,
    dry_run: bool = False,
) -> DomainChange:
    """A further mail domain that an IM domain serves.

    @param primary: it comes before the others; that may be done with one that is served already.
    @return: with how many users have a password, for whom Digest does not know the new sign-in name.
    @raise Refused: there is no such domain, or the name is none, or taken.
    """
    name = check_host(mail_domain, _MAIL_ADVICE)

    def changed(old: Domain, reading: Reading) -> DomainChange:
        first = old.mail_domains[:1] == (name,)
        if name in old.mail_domains and (first or not primary):
            raise Taken(f'{old.name} serves "{name}" already; "rvpfarm domain list" shows what it serves')
        _check_free(name, old.name, reading.farm())
        others = tuple(one for one in old.mail_domains if one != name)
        served = (name, *others) if primary else (*others, name)
        users = 0 if name in old.mail_domains else _with_password(reading, old.name)
        return DomainChange(replace(old, mail_domains=served), name, users)

    return _change(store, "domain mail add", domain, changed, actor, dry_run)


def remove_mail_domain(
    store: Store,
    domain: str,
    mail_domain: str,
    *,
    force: bool = False,
    actor: str | None = None,
    dry_run: bool = False,
) -> DomainChange:
    """A mail domain that an IM domain serves no longer.

    @param force: also when users are addressed there, whom nobody will find by that address then.
    @return: with how many these are.
    @raise Refused: there is no such domain, or it does not serve that mail domain.
    """
    name = check_host(mail_domain, _MAIL_ADVICE)

    def changed(old: Domain, reading: Reading) -> DomainChange:
        if name not in old.mail_domains:
            raise Missing(
                f'{old.name} does not serve "{name}"; "rvpfarm domain list" shows what it serves', mail_domain
            )
        users = sum(one.address.lower().endswith(f"@{name}") for one in reading.accounts(old.name))
        if users and not force and name != old.name:
            raise Taken(
                f"{users} user{'' if users == 1 else 's'} of {old.name} would be found at @{name} no longer; "
                f'first "rvpfarm user readdress --domain {old.name} --form im", or give --yes'
            )
        served = tuple(one for one in old.mail_domains if one != name)
        return DomainChange(replace(old, mail_domains=served), name, users)

    return _change(store, "domain mail remove", domain, changed, actor, dry_run)


def _change(
    store: Store,
    action: str,
    domain: str,
    changed: Callable[[Domain, Reading], DomainChange],
    actor: str | None,
    dry_run: bool,
) -> DomainChange:
    """Replace the IM domain C{domain} by what C{changed} makes of it."""
    with suppress(Rehearsed), store.change(actor or default_actor(), action, domain) as writing:
        old = domain_named(writing.farm().domains, domain, "give")
        writing.subject = old.name
        change = changed(old, writing)
        writing.update_domain(change.domain)
        if dry_run:
            raise Rehearsed
    return change


def _with_password(reading: Reading, domain: str) -> int:
    """How many users of C{domain} have a password."""
    kept = reading.kept_by_account()
    return sum(bool(kept[account.id].schemes) for account in reading.accounts(domain) if account.id in kept)


def _check_free(name: str, own: str, farm: Farm) -> None:
    """No other IM domain than C{own} is called C{name}, or serves it.

    @raise Refused: one is, or does.
    """
    other = serving(name, farm.domains)
    if other is not None and other.name != own:
        raise Taken(f'"{name}" belongs to the IM domain {other.name} already; give another name')


def _check_hosts(names: Iterable[str], farm: Farm) -> None:
    """No home has one of these names: routers answer for them.

    @raise Refused: one has.
    """
    taken = set(names)
    for home in farm.homes.values():
        if home.host in taken:
            raise Taken(
                f'"{home.host}" is the host of home {home.name}, which needs a name of its own; '
                "give the IM domain another one, such as im.example.com"
            )


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    """The names without repetition, in their order."""
    return tuple(dict.fromkeys(names))
