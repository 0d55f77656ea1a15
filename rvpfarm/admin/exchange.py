"""What the settings of Exchange 2000's instant messaging become here: commands to run, none of them run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address
from shlex import quote

from rvpfarm.admin.ldap import asking
from rvpfarm.directory.ldapentries import Entry
from rvpfarm.directory.ldappeople import People
from rvpfarm.directory.model import Farm
from rvpfarm.directory.store import Store

_SERVER = ("msExchIMHostName", "msExchIMServerName", "msExchIMServerHostsUsers", "cn")
_FIREWALL = ("msExchIMIPRange", "msExchIMProxy", "portNumber", "cn")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the plan.

    @ivar command: to be run; empty when there is nothing to do, or nothing that a command can do.
    @ivar why: what it comes from.
    """

    command: str
    why: str


def decode_range(value: int) -> tuple[str, str]:
    """The first and the last address of a range as Exchange keeps it: both in one number of 64 bits.

    Which of them stands in front was never published, so the lower one is taken for the first.
    """
    bits = value & (1 << 64) - 1
    low, high = sorted((bits >> 32, bits & (1 << 32) - 1))
    return str(IPv4Address(low)), str(IPv4Address(high))


def plan_import(store: Store, config_base: str = "") -> list[Line]:
    """What to do so that this farm has the servers and networks that Exchange has.

    @param config_base: below which Exchange keeps its settings; left out, as C{rvpfarm ldap set} said, or
        below where users are.
    @raise Refused: users do not come from LDAP.
    @raise DirectoryUnavailable: no LDAP server says.
    """
    with asking(store) as (people, farm):
        base = config_base or people.settings.config_base
        return [
            *_servers(_entries(people, "msExchProtocolCfgIMVirtualServer", _SERVER, base), farm),
            *_networks(_entries(people, "msExchIMFirewall", _FIREWALL, base), farm),
        ]


def _entries(people: People, kind: str, attributes: tuple[str, ...], base: str) -> list[Entry]:
    found = people.servers.pages(f"(objectClass={kind})", attributes, base)
    return sorted(found, key=lambda entry: entry.dn.lower())


def _plain(text: str) -> str:
    """What a directory says, on one line: the plan may be run as it is printed."""
    return " ".join("".join(mark if mark.isprintable() else " " for mark in text).split())


def _servers(entries: Iterable[Entry], farm: Farm) -> Iterable[Line]:
    """Homes and routers; a virtual server that hosts users is a home."""
    for entry in entries:
        host = _plain(entry.text("msExchIMHostName")).lower()
        name = _plain(entry.text("msExchIMServerName") or entry.text("cn"))
        hosts = entry.text("msExchIMServerHostsUsers").upper() == "TRUE"
        kind = "home" if hosts else "router"
        known = {one.host for one in (farm.homes if hosts else farm.routers).values()}
        if not host:
            why = f'virtual server "{name}" ({_plain(entry.dn)}) has no host name'
            yield Line("", f"{why}, so it can be no {kind}")
        elif host in known:
            yield Line("", f'virtual server "{name}" is the {kind} {host}, which is here already')
        else:
            label = host.partition(".")[0]
            command = f"rvpfarm {kind} create {quote(label)} --host {quote(host)}"
            yield Line(command, f'virtual server "{name}"')


def _networks(entries: Iterable[Entry], farm: Farm) -> Iterable[Line]:
    """What counts as inside, and the proxy on the way out."""
    known = {(one.first, one.last) for one in farm.networks if one.kind == "inside"}
    for entry in entries:
        name = _plain(entry.text("cn"))
        for text in entry.texts("msExchIMIPRange"):
            try:
                number = int(text)
            except ValueError:
                yield Line("", f'firewall "{name}": "{_plain(text)}" is no range')
                continue
            first, last = decode_range(number)
            if (first, last) in known:
                yield Line("", f'firewall "{name}": {first}-{last} counts as inside already')
            else:
                yield Line(f"rvpfarm network add inside {first}-{last}", f'firewall "{name}": {number}')
        proxy = _plain(entry.text("msExchIMProxy"))
        if proxy:
            where = f"{proxy}:{entry.number('portNumber') or 80}"
            yield Line("", f'firewall "{name}" sends calls to other organisations by the proxy {where}')
