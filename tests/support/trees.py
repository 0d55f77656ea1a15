"""The people in the LDAP trees of the tests, and settings that find them."""

from __future__ import annotations

import atexit
import uuid
from contextlib import ExitStack
from dataclasses import replace

from rvpfarm.auth.keys import FarmKey
from rvpfarm.directory.ldapservers import LdapServers
from rvpfarm.directory.ldapsettings import RECORD, LdapSettings, begin, check, render
from rvpfarm.directory.ldapsource import seal_password
from rvpfarm.directory.store import Store
from tests.support.processes import scratch
from tests.support.slapd import BASE, OPENLDAP, READER, READER_PASSWORD, WINDOWS, Slapd, Values, entry, trunk

PASSWORDS = {"petra": "Blue-Kite-41", "tomasz": "Green-Drum-52", "marta": "Oak-Lamp-63"}
CHATTERS = f"cn=chatters,ou=groups,{BASE}"
EXCHANGE = f"cn=exchange,{BASE}"


def person_dn(alias: str) -> str:
    """Where somebody is in the tree of OpenLDAP's style."""
    return f"uid={alias},ou=people,{BASE}"


def user_dn(alias: str) -> str:
    """Where somebody is in the tree of Active Directory's style."""
    return f"cn={alias},ou=people,{BASE}"


def person(alias: str, *, mail: str = "", name: str = "", password: str = "") -> str:
    """An C{inetOrgPerson}."""
    return entry(
        person_dn(alias),
        objectClass="inetOrgPerson",
        uid=alias,
        cn=name or alias,
        sn=alias,
        mail=mail or f"{alias}@fabrik.example",
        displayName=name or alias.title(),
        userPassword=password or PASSWORDS.get(alias, f"Pass-{alias}-1"),
    )


def openldap_tree() -> list[str]:
    """Petra, Tomasz and Marta, the first two in each of three kinds of groups."""
    members = [person_dn("petra"), person_dn("tomasz")]
    return [
        *trunk(),
        *(person(alias, name=f"{alias.title()} Novak") for alias in PASSWORDS),
        entry(CHATTERS, objectClass="groupOfNames", cn="chatters", member=members),
        entry(
            f"cn=posix,ou=groups,{BASE}",
            objectClass="posixGroup",
            cn="posix",
            gidNumber="500",
            memberUid=["petra", "tomasz"],
        ),
    ]


def windows_user(alias: str, *, control: int = 512, **more: str | list[str]) -> str:
    """A user of Active Directory's."""
    classes = ["user", "msExchIMRecipient"] if any(name.startswith("msExch") for name in more) else ["user"]
    guid = uuid.uuid5(uuid.NAMESPACE_DNS, alias).bytes_le
    values: dict[str, Values] = {
        "objectClass": classes,
        "objectCategory": "person",
        "cn": alias,
        "sAMAccountName": alias,
        "userPrincipalName": f"{alias}@fabrik.example",
        "mail": f"{alias}@fabrik.example",
        "displayName": f"{alias.title()} Novak",
        "userAccountControl": str(control),
        "objectGUID": guid,
        "userPassword": PASSWORDS.get(alias, f"Pass-{alias}-1"),
    }
    return entry(user_dn(alias), **{**values, **more})


def exchange_user(alias: str, server: str = "hs1", *, without: str = "", host: str = "") -> str:
    """A user whom Exchange enabled for instant messaging.

    @param without: an attribute that is missing.
    """
    values = {
        "msExchIMAddress": f"{alias}@fabrik.example",
        "msExchIMMetaPhysicalURL": f"http://im.fabrik.example/instmsg/aliases/{alias}",
        "msExchIMPhysicalURL": (
            f"http://{host or server}.fabrik.example/instmsg/local/im.fabrik.example/instmsg/aliases/{alias}"
        ),
        "msExchIMVirtualServer": f"cn={server},{EXCHANGE}",
    }
    values.pop(without, None)
    return windows_user(alias, **values)


def span(first: str, last: str) -> str:
    """A range as Exchange keeps it: two addresses in one number with a sign."""
    from ipaddress import IPv4Address

    number = int(IPv4Address(first)) << 32 | int(IPv4Address(last))
    return str(number - (1 << 64) if number >> 63 else number)


def windows_tree() -> list[str]:
    """Users of Active Directory: of a group, disabled, enabled by Exchange, half enabled by Exchange."""
    return [
        *trunk(),
        windows_user("petra", memberOf=[CHATTERS]),
        windows_user("marta", control=514, memberOf=[CHATTERS]),
        windows_user("lena"),
        windows_user("lotte", sn="Weber", displayName="Charlotte.Weber"),
        entry(EXCHANGE, objectClass="msExchIMGlobalSettingsContainer", cn="exchange"),
        *(
            entry(
                f"cn={name},{EXCHANGE}",
                objectClass="msExchProtocolCfgIMVirtualServer",
                cn=name,
                msExchIMServerIISId="1",
                msExchIMHostName=f"{name}.fabrik.example",
                msExchIMServerName=name.upper(),
                msExchIMServerHostsUsers=hosts,
            )
            for name, hosts in (("hs1", "TRUE"), ("hs2", "TRUE"), ("im", "FALSE"))
        ),
        entry(
            f"cn=firewall,{EXCHANGE}",
            objectClass="msExchIMFirewall",
            cn="firewall",
            msExchIMFirewallType="1",
            msExchIMIPRange=[span("10.0.0.0", "10.255.255.255"), span("192.168.0.0", "192.168.255.255")],
            msExchIMProxy="proxy.fabrik.example",
            portNumber="8080",
        ),
        exchange_user("tomasz", "hs2"),
        exchange_user("half", without="msExchIMAddress"),
        exchange_user("lost", "hs9"),
    ]


def settings_for(*servers: Slapd, profile: str = "openldap", tls: bool = False) -> LdapSettings:
    """Settings that find everybody, with a deadline that is short; the password is not in them yet.

    @param tls: C{ldaps://} and not StartTLS.
    """
    urls = tuple(server.tls_url if tls else server.url for server in servers)
    base = replace(
        begin(profile, urls), base=BASE, ca_file=servers[0].certificate, bind_dn=READER, deadline_seconds=2.0
    )
    return replace(base, config_base=EXCHANGE) if profile == "exchange" else base


def servers_for(settings: LdapSettings) -> LdapServers:
    """What asks them, as the reader."""
    return LdapServers(settings, READER_PASSWORD)


def put_settings(store: Store, settings: LdapSettings, key: FarmKey) -> LdapSettings:
    """Have a farm go by settings."""
    sealed = check(replace(settings, sealed=seal_password(READER_PASSWORD, key)))
    with store.change("test", "ldap set", "ldap") as writing:
        writing.set_policy("", RECORD, render(sealed))
    return sealed


_shared: dict[str, Slapd] = {}
_until_exit = ExitStack()
atexit.register(_until_exit.close)


def shared_slapd(style: str) -> Slapd:
    """A server that tests only read: C{openldap} or C{windows}; stopped when the tests are over."""
    if style not in _shared:
        folder = _until_exit.enter_context(scratch())
        tree = openldap_tree() if style == "openldap" else windows_tree()
        server = Slapd(folder, OPENLDAP if style == "openldap" else WINDOWS, tree)
        _until_exit.callback(server.stop)
        _shared[style] = server
    return _shared[style]
