"""How the farm asks an LDAP directory for its users: the settings, and what they begin with for each kind.

They are one record among the farm-wide settings of the SQL directory, so every process has the same.  The
password of the reader is in it sealed with the farm key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any
from urllib.parse import urlsplit

from rvpfarm.directory.model import DirectoryUnavailable, Farm

#: The name of the record among the settings of the farm.
RECORD = "ldap"

#: The setting of an account that names its entry by what never changes.
LINK = "ldap-entry"

#: The scheme of the verifier of who is proved by the LDAP directory itself; its secret is that name.
BIND = "ldap"

#: What stands before the key of a node to ask for whoever signs in by that name, whatever node is his.
LOGIN = "login:"

#: How a member of a group is told.
MEMBERSHIPS = ("memberof", "in-chain", "member", "posix")

#: Hosts to which nothing need be encrypted.
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class BadSettings(ValueError):
    """Settings that cannot be used; the text is one sentence with the remedy in it."""


@dataclass(frozen=True, slots=True)
class LdapSettings:
    """Where users come from, and how their entries are read.

    @ivar servers: C{ldap://HOST:PORT} or C{ldaps://HOST:PORT}; the first that answers is stayed with.
    @ivar profile: one of L{PROFILES}, which the other values began with.
    @ivar starttls: C{ldap://} is encrypted by StartTLS; C{False} only for loopback.
    @ivar ca_file: the authorities that the servers' certificates are checked by; empty for the system's.
    @ivar bind_dn: the reader; empty to read without a name.
    @ivar sealed: its password, as L{seal_password} makes it; empty when there is none.
    @ivar base: below which users are.
    @ivar person_filter: what every user's entry has to meet.
    @ivar alias: the attribute with the name in the IM address.
    @ivar logins: further attributes by whose value somebody may sign in.
    @ivar mail: the attribute with the mail address; C{display_name} and C{unique_id} likewise.
    @ivar groups: DNs of groups; only members may use instant messaging.  Empty: whoever meets the filter.
    @ivar membership: one of L{MEMBERSHIPS}.
    @ivar automatic: whoever may use instant messaging is a user without having been enabled by hand.
    @ivar domain: the IM domain of entries whose mail address does not tell it; empty for none.
    @ivar config_base: below which Exchange keeps its own settings; empty where there is no Exchange.
    @ivar deadline_seconds: for one question, whatever it takes.
    @ivar refresh_seconds: after which what is known of somebody is confirmed.
    @ivar page_size: entries asked for at once.
    @ivar connections: to the server, at most, for questions; as many again for sign-ins.
    """

    servers: tuple[str, ...]
    profile: str = "openldap"
    starttls: bool = True
    ca_file: str = ""
    bind_dn: str = ""
    sealed: str = ""
    base: str = ""
    person_filter: str = "(objectClass=inetOrgPerson)"
    alias: str = "uid"
    logins: tuple[str, ...] = ("mail",)
    mail: str = "mail"
    display_name: str = "displayName"
    unique_id: str = "entryUUID"
    groups: tuple[str, ...] = ()
    membership: str = "memberof"
    automatic: bool = False
    domain: str = ""
    config_base: str = ""
    deadline_seconds: float = 5.0
    refresh_seconds: float = 300.0
    page_size: int = 500
    connections: int = 4

    @property
    def is_exchange(self) -> bool:
        """Are users those whom Exchange enabled?"""
        return self.profile == "exchange"


_WINDOWS: Mapping[str, object] = {
    "person_filter": "(&(objectCategory=person)(objectClass=user))",
    "alias": "sAMAccountName",
    "logins": ("userPrincipalName", "mail"),
    "unique_id": "objectGUID",
    "membership": "in-chain",
}

#: What settings begin with for each kind of directory.
PROFILES: Mapping[str, Mapping[str, object]] = {
    "openldap": {},
    "active-directory": _WINDOWS,
    "exchange": {**_WINDOWS, "automatic": True},
}


def begin(profile: str, servers: tuple[str, ...]) -> LdapSettings:
    """The settings that a profile begins with.

    @raise BadSettings: there is no such profile.
    """
    if profile not in PROFILES:
        raise BadSettings(f'there is no profile "{profile}"; give --profile one of {", ".join(PROFILES)}')
    # the values of a profile are those of the fields
    return replace(LdapSettings(servers, profile), **PROFILES[profile])  # type: ignore[arg-type]


def check(settings: LdapSettings) -> LdapSettings:
    """The same settings, which can be used.

    @raise BadSettings: they cannot.
    """
    if not settings.servers:
        raise BadSettings("no server is named; give --server ldaps://ldap.example.com")
    for server in settings.servers:
        parts = urlsplit(server)
        more = parts.path.strip("/") or parts.query
        if parts.scheme not in ("ldap", "ldaps") or not parts.hostname or more:
            raise BadSettings(f'"{server}" names no server; give --server ldaps://ldap.example.com')
        try:
            port = parts.port
        except ValueError:
            port = 0
        if port == 0:
            raise BadSettings(f'"{server}" has no port that there can be; give --server ldaps://HOST:636')
        if parts.scheme == "ldap" and not settings.starttls and parts.hostname not in LOOPBACK:
            raise BadSettings(
                f"{server} would carry passwords in clear; use ldaps:// or leave StartTLS on "
                "(--no-starttls is for loopback only)"
            )
    if not settings.base:
        raise BadSettings("where are the users? Give --base, such as --base dc=example,dc=com")
    if settings.membership not in MEMBERSHIPS:
        raise BadSettings(f"give --membership one of {', '.join(MEMBERSHIPS)}")
    if settings.bind_dn and not settings.sealed:
        raise BadSettings("a reader without a password is nobody; give --password-stdin with --bind-dn")
    for name in (settings.alias, *settings.logins, settings.mail, settings.display_name, settings.unique_id):
        if not (name.isascii() and name.replace("-", "").replace(";", "").isalnum()):
            raise BadSettings(f'"{name}" is the name of no attribute; give one such as uid or mail')
    for text in (settings.person_filter,):
        if not (text.startswith("(") and text.endswith(")") and text.count("(") == text.count(")")):
            raise BadSettings(f'"{text}" is no filter; give --filter one such as (objectClass=person)')
    return settings


def render(settings: LdapSettings) -> str:
    """The record that is kept."""
    return json.dumps(asdict(settings), sort_keys=True)


def parse(record: str) -> LdapSettings:
    """The settings in a record.

    @raise DirectoryUnavailable: it was written by a newer program, or is damaged; nobody may be told that he
        does not exist because of that.
    """
    try:
        values = json.loads(record)
        known = {field.name for field in fields(LdapSettings)}
        given: dict[str, Any] = {  # as JSON has it; check judges what matters
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
            if name in known
        }
        return check(LdapSettings(**given))
    except (ValueError, TypeError, AttributeError) as problem:
        raise DirectoryUnavailable(
            f'the LDAP settings of the farm cannot be used ({problem}); "rvpfarm ldap set" makes them anew'
        ) from None


def settings_of(farm: Farm) -> LdapSettings | None:
    """The settings of a farm; C{None} when its users do not come from LDAP.

    @raise DirectoryUnavailable: they cannot be read.
    """
    record = farm.policies.get(RECORD, "")
    return parse(record) if record else None
