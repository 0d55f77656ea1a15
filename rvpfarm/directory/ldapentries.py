"""What the entries of an LDAP directory mean: the filters that find them, and the users in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import quote, unquote

from rvpfarm.directory.ldapsettings import LdapSettings
from rvpfarm.directory.model import Account, Domain, Farm
from rvpfarm.protocol.address import USERS

#: The rule by which Active Directory follows groups in groups.
_IN_CHAIN = "1.2.840.113556.1.4.1941"

#: The bit of C{userAccountControl} that says that somebody may not sign in.
_DISABLED = 0x2

#: What Exchange writes for whoever is enabled, and all of it (product D05).
EXCHANGE = ("msExchIMAddress", "msExchIMMetaPhysicalURL", "msExchIMPhysicalURL", "msExchIMVirtualServer")


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry as a server gave it.

    @ivar values: octets by the name of the attribute in lower case.
    """

    dn: str
    values: Mapping[str, tuple[bytes, ...]]

    def text(self, name: str) -> str:
        """The first value of an attribute; empty when there is none."""
        found = self.values.get(name.lower(), ())
        return found[0].decode("utf-8", "replace").strip() if found else ""

    def texts(self, name: str) -> tuple[str, ...]:
        """All values of an attribute."""
        return tuple(value.decode("utf-8", "replace") for value in self.values.get(name.lower(), ()))

    def number(self, name: str) -> int:
        """The first value of an attribute; 0 when it is no number."""
        try:
            return int(self.text(name) or "0")
        except ValueError:
            return 0


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody in an LDAP directory, as the farm sees it.

    @ivar unique_id: never changes and never returns for somebody else.
    @ivar alias: the name in the IM address.
    @ivar mail: the mail address; may be empty.
    @ivar disabled: the directory itself says that this one may not sign in.
    @ivar virtual_server: with Exchange, the DN of the home's own entry.
    @ivar address: with Exchange, the IM address.
    @ivar url: with Exchange, the logical URL.
    """

    dn: str
    unique_id: str
    alias: str
    mail: str = ""
    display_name: str = ""
    disabled: bool = False
    virtual_server: str = ""
    address: str = ""
    url: str = ""


def escape(text: str) -> str:
    """C{text} as a value in a filter, whatever it is (RFC 4515, section 3)."""
    return "".join(
        chr(octet) if chr(octet).isalnum() and octet < 0x80 else f"\\{octet:02x}" for octet in text.encode()
    )


def wanted(settings: LdapSettings) -> list[str]:
    """The attributes to ask for."""
    names = [settings.alias, *settings.logins, settings.mail, settings.display_name, settings.unique_id]
    if settings.profile != "openldap":
        names.append("userAccountControl")
    if settings.is_exchange:
        names += EXCHANGE
    return list(dict.fromkeys(names))


def all_filter(settings: LdapSettings, extra: str = "") -> str:
    """The filter of everybody who may use instant messaging, as far as a filter can say.

    @param extra: a further filter.
    """
    groups = _group_filter(settings)
    exchange = "(msExchIMMetaPhysicalURL=*)" if settings.is_exchange else ""
    return f"(&{settings.person_filter}{exchange}{groups}{extra})"


def alias_filter(settings: LdapSettings, key: str) -> str:
    """The filter of the entry of the node C{key}."""
    domain, _, path = key.partition("/")
    name = unquote(path.rpartition("/")[2])
    if settings.is_exchange:
        return f"(&{settings.person_filter}(msExchIMMetaPhysicalURL={escape(f'http://{domain}/{path}')}))"
    return f"(&{settings.person_filter}({settings.alias}={escape(name)}))"


def login_forms(key: str, farm: Farm) -> list[str]:
    """How somebody may have written the login name that made the key of a node."""
    domain, _, path = key.partition("/")
    name, known = unquote(path.rpartition("/")[2]), farm.domains.get(domain)
    hosts = () if known is None else (known.name, *known.mail_domains)
    return [name, *(f"{name}@{host}" for host in hosts)]


def login_filter(settings: LdapSettings, forms: Iterable[str]) -> str:
    """The filter of whoever signs in by a name, which may be written in several forms."""
    names = dict.fromkeys((settings.alias, *settings.logins))
    tests = "".join(f"({name}={escape(form)})" for form in forms for name in names)
    return f"(&{settings.person_filter}(|{tests}))"


def aliases_filter(settings: LdapSettings, keys: Iterable[str]) -> str:
    """The filter of the entries of several nodes at once."""
    tests = []
    for key in keys:
        domain, _, path = key.partition("/")
        if settings.is_exchange:
            tests.append(f"(msExchIMMetaPhysicalURL={escape(f'http://{domain}/{path}')})")
        else:
            tests.append(f"({settings.alias}={escape(unquote(path.rpartition('/')[2]))})")
    return f"(&{settings.person_filter}(|{''.join(tests)}))"


def _group_filter(settings: LdapSettings) -> str:
    """The filter of who is in one of the groups, where entries themselves can tell."""
    if not settings.groups or settings.membership not in ("memberof", "in-chain"):
        return ""
    rule = f"memberOf:{_IN_CHAIN}:" if settings.membership == "in-chain" else "memberOf"
    tests = "".join(f"({rule}={escape(group)})" for group in settings.groups)
    return f"(|{tests})"


def member_filter(settings: LdapSettings, person: Person) -> str:
    """The filter that the entry of a group, or of the person, meets if the person is a member.

    Of C{memberof} and C{in-chain} it is put to the person's own entry, otherwise to that of each group.
    """
    if settings.membership == "member":
        return f"(|(member={escape(person.dn)})(uniqueMember={escape(person.dn)}))"
    if settings.membership == "posix":
        return f"(memberUid={escape(person.alias)})"
    return f"(&(objectClass=*){_group_filter(settings)})"


def person_of(settings: LdapSettings, entry: Entry) -> Person:
    """The person whom an entry describes."""
    octets = entry.values.get(settings.unique_id.lower(), ())
    return Person(
        entry.dn,
        _identifier(octets[0]) if octets else "",
        entry.text(settings.alias),
        entry.text(settings.mail),
        entry.text(settings.display_name),
        bool(entry.number("userAccountControl") & _DISABLED),
        entry.text("msExchIMVirtualServer"),
        entry.text("msExchIMAddress"),
        entry.text("msExchIMMetaPhysicalURL"),
    )


def _identifier(octets: bytes) -> str:
    """An identifier as text: Active Directory's are 16 octets, others are text already."""
    if len(octets) == 16:
        return _grouped(octets[3::-1] + octets[5:3:-1] + octets[7:5:-1] + octets[8:])
    return octets.decode("ascii", "replace").strip()


def domain_of(settings: LdapSettings, person: Person, farm: Farm) -> Domain | None:
    """The IM domain that a person is in; C{None} when none here serves him."""
    host = person.mail.rpartition("@")[2].lower()
    for domain in farm.domains.values():
        if host and host in (domain.name, *domain.mail_domains, *domain.aliases):
            return domain
    if settings.domain:
        return farm.domains.get(settings.domain)
    # somebody with the mail address of another organisation is not one of the only domain's for that
    return next(iter(farm.domains.values())) if len(farm.domains) == 1 and not host else None


def key_of(settings: LdapSettings, person: Person, farm: Farm) -> str | None:
    """The key of a person's node; C{None} when there can be none."""
    if settings.is_exchange:
        scheme, _, rest = person.url.partition("://")
        domain = rest.partition("/")[0].lower()
        return rest.lower() if scheme.lower() == "http" and domain in farm.domains else None
    found = domain_of(settings, person, farm)
    if found is None or not person.alias:
        return None
    return f"{found.name}{USERS}{quote(person.alias, safe=_SAFE)}".lower()


#: What stands unescaped in the name of a node.
_SAFE = "-_.~!$'+"


def account_id(person: Person) -> str:
    """The id of the account of somebody who has no local record: the same at every process."""
    return _grouped(_digest(person.unique_id)[:16])


def _digest(text: str) -> bytes:
    return sha256(b"rvpfarm ldap " + text.encode()).digest()


def _grouped(octets: bytes) -> str:
    """16 octets as identifiers are written."""
    text = octets.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def choose_home(farm: Farm, account: str) -> str | None:
    """The home of somebody without a local record: the same at every process while no home comes or goes.

    @return: its id; C{None} when no home takes anybody new.
    """
    homes = [home.id for home in farm.homes.values() if home.state == "active"]
    return max(homes, key=lambda home: _digest(f"{account} {home}"), default=None)


def new_account(settings: LdapSettings, person: Person, farm: Farm, home: str) -> Account | None:
    """The account of a person without a local record; C{None} when there can be none.

    @param home: the id of its home.
    """
    key = key_of(settings, person, farm)
    if key is None or not person.unique_id:
        return None
    if settings.is_exchange:
        path = "/" + person.url.partition("://")[2].partition("/")[2]
        address = person.address
    else:
        path = USERS + quote(person.alias, safe=_SAFE)
        domain = farm.domains[key.partition("/")[0]]
        host = person.mail.rpartition("@")[2].lower()
        mailed = host in domain.mail_domains and farm.policy("address-form", domain.name) != "im"
        address = f"{person.alias}@{host if mailed else domain.name}"
    return Account(
        id=account_id(person),
        key=key,
        kind="user",
        domain=key.partition("/")[0],
        path=path,
        alias=path.rpartition("/")[2],
        home=home,
        enabled=True,
        display_name=person.display_name or person.alias,
        email=person.mail,
        address=address,
    )


def faults(person: Person, present: Iterable[str], farm: Farm, hosts: Mapping[str, str]) -> list[str]:
    """What is wrong with a record that Exchange wrote (product D05); nothing if it can be served.

    @param present: which of L{EXCHANGE} the entry has.
    @param hosts: the host names of virtual servers by DN, both lower case.
    """
    there = {name.lower() for name in present}
    lacking = [name for name in EXCHANGE if name.lower() not in there]
    if lacking:
        return [f"it lacks {', '.join(lacking)}"]
    found = []
    domain = person.url.partition("://")[2].partition("/")[0].lower()
    if domain not in farm.domains:
        found.append(f"its IM domain {domain or 'is missing'} is not served here")
    elif USERS not in person.url.lower():
        found.append(f"{person.url} is no address of a user")
    host = hosts.get(person.virtual_server.lower())
    if host is None:
        found.append(f"its virtual server {person.virtual_server} does not exist, or has no host name")
    elif all(home.host != host for home in farm.homes.values()):
        found.append(f'no home here is called {host}; "rvpfarm home create" makes one')
    return found
