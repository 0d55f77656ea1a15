"""What administrators do with users."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol

from rvpfarm.admin.actors import default_actor
from rvpfarm.admin.checks import (
    ALIASES,
    NO_HOME,
    Missing,
    Naming,
    Refused,
    Taken,
    check_text,
    derive,
    domain_named,
    enumerate_names,
    home_named,
    serving,
    split_address,
)
from rvpfarm.admin.passwords import PasswordState, describe, put_password, set_own_policy
from rvpfarm.directory.ldapsettings import LINK
from rvpfarm.directory.model import Account, Farm, Home
from rvpfarm.directory.reading import Kept, Reading
from rvpfarm.directory.store import Store

# no vowels, so that no words arise, and nothing that is mistaken for something else
_PASSWORD_ALPHABET = "23456789bcdfghjkmnpqrstvwxyz"  # noqa: S105 (not a password)
# that many of them between two hyphens
_GROUP = 5


class Rehearsed(Exception):
    """Raised in the middle of a change that was only to show what it comes to: nothing of it happens."""


@dataclass(frozen=True, slots=True)
class UserView:
    """A user with all that follows from where the directory puts it.

    @ivar home: the home server that owns it.
    @ivar password: what its password is good for.
    """

    account: Account
    home: Home
    password: PasswordState

    @property
    def schemes(self) -> tuple[str, ...]:
        """For which schemes it has verifiers; empty for a user without a password."""
        return self.password.kept

    @property
    def home_url(self) -> str:
        """The physical URL."""
        return self.account.physical_url(self.home)


@dataclass(frozen=True, slots=True)
class Plan:
    """What enabling a user comes to.

    @ivar account: as it will be, without verifiers.
    @ivar returning: it exists already and was disabled.
    """

    account: Account
    home: Home
    returning: bool


class Known(Protocol):
    """Where it is looked up what is there already: a L{Reading}, or what was read of one beforehand."""

    def account(self, key: str) -> Account | None:
        """The account of the node C{key}."""

    def account_by_address(self, address: str) -> Account | None:
        """The account with that IM address, in whatever letter case."""

    def home_loads(self) -> Mapping[str, int]:
        """How many accounts each home has, by its id; only homes that take new ones."""


def generate_password(least: int = 0) -> str:
    """A new password of 72 bits or more that can be read out and typed.

    @param least: the fewest characters (policy C{password-length}).
    """
    count = max(3, -(-(least + 1) // (_GROUP + 1)))
    groups = ("".join(secrets.choice(_PASSWORD_ALPHABET) for _ in range(_GROUP)) for _ in range(count))
    return "-".join(groups)


def plan_user(
    store: Store,
    address: str,
    home: str | None = None,
    domain: str | None = None,
    display_name: str | None = None,
    *,
    email: str | None = None,
    form: str = "mail",
) -> Plan:
    """What L{enable_user} would make of the same arguments; nothing is changed.

    @raise Refused: see the sentence.
    """
    with store.read() as reading:
        return plan_for(reading, reading.farm(), address, home, domain, display_name, email, form)


def enable_user(
    store: Store,
    address: str,
    home: str | None = None,
    domain: str | None = None,
    display_name: str | None = None,
    password: str | None = None,
    *,
    email: str | None = None,
    form: str = "mail",
    link: str = "",
    actor: str | None = None,
) -> Account:
    """Let somebody use instant messaging: a new account, or one that was disabled.

    A disabled one keeps what is not given anew; its address does not change.

    @param address: the mail address or the IM address.
    @param home: the name of the home that will own it; left out, the one with the fewest accounts.
    @param domain: the IM domain, when it does not follow from the address.
    @param form: C{"mail"} for the mail address as IM address if the IM domain serves that mail domain,
        C{"im"} for the name at the IM domain; whoever asks the DNS decides first (F20).
    @param link: what never changes of the entry that the user has in the LDAP directory, which from then on
        says whether the user may use instant messaging; empty leaves that as it is.
    @raise Refused: see the sentence.
    """
    with store.change(actor or default_actor(), "user enable", address) as writing:
        farm = writing.farm()
        plan = plan_for(writing, farm, address, home, domain, display_name, email, form)
        account = plan.account
        writing.subject = account.address
        if plan.returning:
            writing.update_account(account)
        else:
            writing.add_account(account)
        if link:
            writing.set_account_policy(account, LINK, link)
        if password is not None:
            put_password(writing, farm, account, password)
    return account


def disable_user(store: Store, address: str, *, actor: str | None = None) -> Account:
    """End somebody's use of instant messaging; the address stays reserved.

    @raise Refused: there is no such user, or it is disabled already.
    """
    with store.change(actor or default_actor(), "user disable", address) as writing:
        account = existing_user(writing, address)
        if not account.enabled:
            raise Taken(f'{account.address} is disabled already; "rvpfarm user enable" brings it back')
        account = replace(account, enabled=False)
        writing.subject = account.address
        writing.update_account(account)
    return replace(account, verifiers=())


def set_password(store: Store, address: str, password: str, *, actor: str | None = None) -> Account:
    """Give somebody a new password; the old one is worth nothing from now on.

    @raise Refused: there is no such user, or the password is too weak.
    """
    with store.change(actor or default_actor(), "user passwd", address) as writing:
        account = existing_user(writing, address)
        writing.subject = account.address
        put_password(writing, writing.farm(), account, password)
    return replace(account, verifiers=())


def change_user_policy(
    store: Store, address: str, name: str, value: str, *, actor: str | None = None, dry_run: bool = False
) -> tuple[str, ...]:
    """Give somebody a setting of his own, which goes before those of the domain and the farm.

    @param value: C{"allowed"}, C{"forbidden"}, or C{"default"} for none of his own.
    @param dry_run: only find out what it would come to.
    @return: the verifier schemes that were dropped, since they may not be kept any more.
    @raise Refused: there is no such user, or a user can have no such setting.
    """
    dropped: tuple[str, ...] = ()
    with (
        suppress(Rehearsed),
        store.change(actor or default_actor(), "user policy", address) as writing,
    ):
        account = existing_user(writing, address)
        writing.subject = account.address
        dropped = set_own_policy(writing, account, name, value)
        if dry_run:
            raise Rehearsed
    return dropped


def find_user(store: Store, address: str, domain: str | None = None) -> Account | None:
    """The account meant by a mail address, an IM address or a bare name; C{None} when there is none.

    @param domain: the IM domain, when it does not follow from the address.
    """
    with store.read() as reading:
        return account_meant(reading, reading.farm(), address, domain)


def show_user(store: Store, address: str) -> UserView:
    """Everything about one user.

    @raise Refused: there is no such user.
    """
    with store.read() as reading:
        account = existing_user(reading, address)
        farm = reading.farm()
        password = describe(farm, account, reading.kept(account.id))
        return UserView(replace(account, verifiers=()), farm.homes[account.home], password)


def list_users(store: Store, domain: str | None = None, home: str | None = None) -> list[Account]:
    """The users by address, without verifiers.

    @param domain: only those of this IM domain.
    @param home: only those on the home of this name.
    @raise Refused: there is no such domain or home.
    """
    with store.read() as reading:
        return [account for account in accounts_of(reading, domain, home) if account.kind == "user"]


def accounts_of(reading: Reading, domain: str | None, home: str | None) -> Iterator[Account]:
    """Users, groups and devices by address, without verifiers.

    @param domain: only those of this IM domain.
    @param home: only those on the home of this name.
    @raise Refused: there is no such domain or home.
    """
    farm = reading.farm()
    home_id = None if home is None else home_named(farm, home).id
    return reading.accounts(None if domain is None else domain_named(farm.domains, domain).name, home_id)


def list_lacking(store: Store, domain: str | None = None, home: str | None = None) -> list[UserView]:
    """The enabled users who can sign in only after their password was set anew, or a policy changed (D18).

    Somebody who lacks only what a policy forbids, and can sign in otherwise, is none of them.

    @param domain: only those of this IM domain.
    @param home: only those on the home of this name.
    @raise Refused: there is no such domain or home.
    """
    with store.read() as reading:
        farm = reading.farm()
        kept = reading.kept_by_account()
        views = [
            UserView(account, farm.homes[account.home], describe(farm, account, kept.get(account.id, Kept())))
            for account in accounts_of(reading, domain, home)
            if account.kind == "user" and account.enabled
        ]
    return [view for view in views if view.password.remedy]


def account_meant(known: Known, farm: Farm, address: str, domain: str | None = None) -> Account | None:
    """The account meant by C{address}: its IM address, or its name in the domain that the rest means."""
    account = known.account_by_address(address.strip())
    if account is not None and domain is None:
        return account
    alias, host = split_address(address)
    if domain is not None:
        meant = [domain_named(farm.domains, domain)]
    elif host:
        served = serving(host, farm.domains)
        meant = [] if served is None else [served]
    else:
        meant = list(farm.domains.values())
    found = [known.account(f"{one.name}{ALIASES}{alias}".lower()) for one in meant]
    accounts = [one for one in found if one is not None]
    if len(accounts) > 1:
        raise Refused(f'"{alias}" is a user of {enumerate_names(one.domain for one in accounts)}; say which')
    return accounts[0] if accounts else None


def plan_for(
    known: Known,
    farm: Farm,
    address: str,
    home: str | None,
    domain: str | None,
    display_name: str | None,
    email: str | None,
    form: str,
) -> Plan:
    """What enabling C{address} comes to.

    @raise Refused: it cannot be done.
    """
    old = account_meant(known, farm, address, domain)
    if old is not None and old.enabled:
        raise Taken(
            f"{old.address} is enabled already, on home {farm.homes[old.home].name}; "
            f'"rvpfarm user passwd {old.address}" sets its password'
        )
    if old is not None:
        chosen = farm.homes[old.home] if home is None else home_named(farm, home)
        account = replace(old, enabled=True, home=chosen.id, verifiers=())
    else:
        naming = derive(address, farm.domains, domain, form)
        chosen = choose_home(known, farm, home)
        account = _new_account(known, naming, chosen)
    if display_name is not None:
        account = replace(account, display_name=check_text(display_name, "display name"))
    if email is not None:
        account = replace(account, email=check_text(email, "mail address"))
    return Plan(account, chosen, old is not None)


def existing_user(reading: Reading, address: str) -> Account:
    """The account meant by C{address}.

    @raise Refused: there is none.
    """
    account = account_meant(reading, reading.farm(), address)
    if account is None:
        raise Missing(f'there is no user "{address}"; "rvpfarm user list" shows them', address)
    return account


def choose_home(known: Known, farm: Farm, name: str | None) -> Home:
    """The home called C{name}, or the one with the fewest accounts."""
    if name is not None:
        return home_named(farm, name)
    loads = known.home_loads()
    if not loads:
        raise Refused(NO_HOME)
    return min((farm.homes[home_id] for home_id in loads), key=lambda home: (loads[home.id], home.name))


def _new_account(known: Known, naming: Naming, home: Home) -> Account:
    """The account that C{naming} describes.

    @raise Refused: somebody else has that address or URL.
    """
    holder = known.account(naming.key) or known.account_by_address(naming.address)
    if holder is not None:
        raise Taken(f'"{naming.address}" is taken by {holder.address} ({holder.url}); use another name')
    return Account(
        id=str(uuid.uuid4()),
        key=naming.key,
        kind="user",
        domain=naming.domain,
        path=naming.path,
        alias=naming.alias,
        home=home.id,
        enabled=True,
        display_name=naming.alias,
        email=naming.email,
        address=naming.address,
    )
