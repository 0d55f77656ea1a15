"""The people of an LDAP directory, for enabling many of them at once."""

from __future__ import annotations

from collections.abc import Iterator

from rvpfarm.admin.checks import Refused, serving
from rvpfarm.admin.ldap import ldap_users
from rvpfarm.admin.people import Person
from rvpfarm.directory.ldappeople import LdapEntry
from rvpfarm.directory.ldapsettings import LdapSettings, settings_of
from rvpfarm.directory.model import Farm
from rvpfarm.directory.store import Store


def people_in_ldap(store: Store, filter: str) -> Iterator[Person]:
    """Those whose entries meet C{filter}, as they come; their number stands for the line.

    @param filter: in the notation of RFC 4515, beside what the farm's LDAP settings demand anyway.
    @raise Refused: the farm has no LDAP directory.
    @raise DirectoryUnavailable: no server answers, or none understands the filter.
    """
    with store.read() as reading:
        farm = reading.farm()
    settings = settings_of(farm)
    if settings is None:
        raise Refused("this farm has no LDAP directory; import a file instead")
    found = enumerate(ldap_users(store, filter), 1)
    return (person_of(entry, number, settings, farm) for number, entry in found)


def person_of(entry: LdapEntry, number: int, settings: LdapSettings, farm: Farm) -> Person:
    """Whom an entry is about, under the name that the farm looks it up by later."""
    if not entry.alias:
        return Person(number, entry.dn, problem=f"the entry has no {settings.alias}; give it one")
    if entry.disabled:
        return Person(number, entry.alias, problem="the LDAP directory says that the account is disabled")
    host = entry.mail.rpartition("@")[2].lower()
    served = bool(host) and serving(host, farm.domains) is not None
    return Person(
        number,
        f"{entry.alias}@{host}" if served else entry.alias,
        domain="" if served else settings.domain,
        display_name=entry.display_name,
        email=entry.mail,
        link=entry.unique_id,
    )
