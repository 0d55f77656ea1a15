"""Finding people in an LDAP directory, by whatever they are known by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rvpfarm.directory.ldapentries import (
    EXCHANGE,
    Entry,
    Person,
    alias_filter,
    aliases_filter,
    all_filter,
    faults,
    key_of,
    login_filter,
    member_filter,
    person_of,
    wanted,
)
from rvpfarm.directory.ldapservers import LdapServers
from rvpfarm.directory.ldapsettings import LdapSettings
from rvpfarm.directory.model import DirectoryUnavailable, Farm


@dataclass(frozen=True, slots=True)
class LdapEntry:
    """One user that an LDAP directory has, for whoever makes accounts of them.

    @ivar mail: the mail address; empty when the entry has none.
    @ivar display_name: what others see; empty when the entry has none.
    @ivar alias: the name for the IM address.
    @ivar unique_id: never changes; L{rvpfarm.admin.users.enable_user} takes it as C{link}.
    @ivar disabled: the LDAP directory says that this one may not sign in.
    """

    dn: str
    mail: str
    display_name: str
    alias: str
    unique_id: str
    disabled: bool


def ldap_entries(settings: LdapSettings, filter: str = "", *, password: str = "") -> Iterator[LdapEntry]:
    """The users of an LDAP directory, as they come from the server, page by page, however many there are.

    It waits for the network: for commands and threads.  What the settings demand of a user (the filter, and
    groups whose members an entry itself can tell) is demanded here too.

    @param settings: from L{rvpfarm.directory.ldapsettings.settings_of}C{(farm)}, which is C{None} where
        users do not come from LDAP.
    @param filter: a further filter in the notation of RFC 4515, such as C{(department=Sales)}; it is the
        administrator's, and goes to the server as it is.
    @param password: of the reader, as L{rvpfarm.directory.ldapsource.reader_password} opens it.
    @raise DirectoryUnavailable: no server answers, or stopped answering; what came before is right.
    @raise DirectoryUnavailable: the server does not understand the filter; the sentence says so.
    """
    servers = LdapServers(settings, password)
    try:
        for entry in servers.pages(all_filter(settings, filter), wanted(settings)):
            person = person_of(settings, entry)
            yield LdapEntry(
                person.dn,
                person.mail,
                person.display_name,
                person.alias,
                person.unique_id,
                person.disabled,
            )
    finally:
        servers.close()


@dataclass(frozen=True, slots=True)
class Fault:
    """A record that is not served, since it is half filled or contradicts the farm (product D05)."""

    dn: str
    sentence: str


class People:
    """The people of one LDAP directory.

    @ivar settings: how they are found.
    """

    def __init__(self, settings: LdapSettings, servers: LdapServers) -> None:
        self.settings, self.servers = settings, servers
        self._hosts: dict[str, str] = {}

    def by_key(self, key: str, farm: Farm) -> Person | None:
        """Who has the node C{key}.

        @raise DirectoryUnavailable: no server says.
        """
        found = self._people(alias_filter(self.settings, key))
        return _only([one for one in found if key_of(self.settings, one, farm) == key])

    def by_keys(self, keys: Sequence[str], farm: Farm) -> dict[str, Person]:
        """Who has the nodes C{keys}, asked at once."""
        entries = self.servers.search(aliases_filter(self.settings, keys), wanted(self.settings), most=0)
        found: dict[str, list[Person]] = {}
        for entry in entries:
            person = person_of(self.settings, entry)
            key = key_of(self.settings, person, farm)
            if key is not None:
                found.setdefault(key, []).append(person)
        return {key: people[0] for key, people in found.items() if len(people) == 1}

    def by_login(self, *forms: str) -> Person | None:
        """Who signs in by a name that may be written in any of these C{forms}.

        @raise DirectoryUnavailable: no server says.
        """
        return _only(self._people(login_filter(self.settings, forms)))

    def may(self, person: Person) -> bool:
        """May this one use instant messaging: not disabled there, and a member where that is asked for?

        @raise DirectoryUnavailable: no server says.
        """
        if person.disabled:
            return False
        if not self.settings.groups:
            return True
        test = member_filter(self.settings, person)
        places = (
            (person.dn,) if self.settings.membership in ("memberof", "in-chain") else self.settings.groups
        )
        return any(self.servers.search(test, ["1.1"], place, whole=False) for place in places)

    def host_of(self, virtual_server: str) -> str:
        """The host name of one of Exchange's virtual servers, lower case; empty when there is none.

        @raise DirectoryUnavailable: no server says.
        """
        known = self._hosts.get(virtual_server.lower())
        if known is None:
            found = self.servers.search("(objectClass=*)", ["msExchIMHostName"], virtual_server, whole=False)
            known = found[0].text("msExchIMHostName").lower() if found else ""
            if known:
                self._hosts[virtual_server.lower()] = known
        return known

    def home_of(self, person: Person, farm: Farm) -> str | None:
        """The id of the home on which Exchange has somebody; C{None} when it is none of ours."""
        host = self.host_of(person.virtual_server) if person.virtual_server else ""
        return next((home.id for home in farm.homes.values() if host and home.host == host), None)

    def half_filled(self, farm: Farm) -> Iterator[Fault]:
        """The records that Exchange left half filled, or that do not fit the farm: for the doctor (D05)."""
        for entry in self.servers.pages(_touched(self.settings), wanted(self.settings)):
            person = person_of(self.settings, entry)
            server = person.virtual_server
            hosts = {server.lower(): host} if server and (host := self.host_of(server)) else {}
            for sentence in faults(person, entry.values, farm, hosts):
                yield Fault(entry.dn, sentence)

    def is_whole(self, person: Person, farm: Farm) -> bool:
        """Has Exchange written all that it takes to serve somebody?"""
        return bool(person.address and person.url and self.home_of(person, farm))

    def _people(self, filter: str) -> list[Person]:
        return [person_of(self.settings, entry) for entry in self._entries(filter)]

    def _entries(self, filter: str) -> list[Entry]:
        return self.servers.search(filter, wanted(self.settings))


def _touched(settings: LdapSettings) -> str:
    """The filter of every entry that has anything of Exchange's."""
    tests = "".join(f"({name}=*)" for name in EXCHANGE)
    return f"(&{settings.person_filter}(|{tests}))"


def _only(found: Sequence[Person]) -> Person | None:
    """The one that was found.

    @raise DirectoryUnavailable: there are several, so it cannot be told which is meant.
    """
    if len(found) > 1:
        raise DirectoryUnavailable(
            f"{found[0].dn} and {found[1].dn} have the same name in the LDAP directory; "
            'rename one, or tell them apart with "rvpfarm ldap set --filter"'
        )
    return found[0] if found else None
