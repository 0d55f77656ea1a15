"""Which processes a farm on one machine consists of, and where each of them listens."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from twisted.python.usage import UsageError

from rvpfarm.tap.settings import HostPort, parse_host_port


@dataclass(frozen=True, slots=True)
class Spot:
    """An address that a process of the farm listens on.

    @ivar where: the address.
    @ivar whose: for people, such as C{"the farm link of home1"}.
    @ivar option: the option that changes it.
    @ivar datagrams: UDP, not TCP.
    """

    where: HostPort
    whose: str
    option: str
    datagrams: bool = False


@dataclass(frozen=True, slots=True)
class Member:
    """One process.

    @ivar role: C{"router"}, C{"home"} or C{"dns"}.
    @ivar host: its DNS name.
    @ivar link: where a home listens for farm members.
    """

    name: str
    role: str
    host: str
    listen: HostPort
    metrics: HostPort
    link: HostPort | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole farm."""

    mail_domain: str
    im_domain: str
    members: tuple[Member, ...]
    aliases: tuple[str, ...]

    @property
    def routers(self) -> tuple[Member, ...]:
        """The routers, in order."""
        return self._of("router")

    @property
    def homes(self) -> tuple[Member, ...]:
        """The homes, in order."""
        return self._of("home")

    @property
    def nameserver(self) -> Member:
        """The DNS server."""
        return self._of("dns")[0]

    def home_of(self, alias: str) -> Member:
        """Where a new user is homed: users are dealt to the homes in turn."""
        return self.homes[self.aliases.index(alias) % len(self.homes)]

    def spots(self) -> Iterator[Spot]:
        """Everything that is listened on, metrics last."""
        for member in self.members:
            yield Spot(member.listen, member.name, f"--{member.role}")
            if member.role == "dns":
                yield Spot(member.listen, member.name, "--dns", datagrams=True)
            if member.link is not None:
                yield Spot(member.link, f"the farm link of {member.name}", "--home ADDRESS:PORT/LINKPORT")
        for member in self.members:
            yield Spot(member.metrics, f"the metrics of {member.name}", "--metrics")

    def _of(self, role: str) -> tuple[Member, ...]:
        return tuple(member for member in self.members if member.role == role)


def make_plan(
    routers: Sequence[str],
    homes: Sequence[str],
    dns: str,
    metrics: str,
    *,
    mail_domain: str,
    aliases: Sequence[str],
) -> Plan:
    """The farm that the options describe.

    @param routers: C{ADDRESS:PORT} of each.
    @param homes: C{ADDRESS:PORT} or C{ADDRESS:PORT/LINKPORT} of each; the link is one port further on
        unless it is given.
    @param metrics: C{ADDRESS:PORT} of the first process; each further one takes the next port.
    @raise UsageError: an address is malformed or used twice.
    """
    first = parse_host_port(metrics, "metrics")
    count = len(routers) + len(homes) + 1
    if first.port + count > 65536:
        raise UsageError(f"--metrics: {count} ports from {first.port} on are more than there are")
    places = iter([HostPort(first.host, first.port + number) for number in range(count)])
    members = [
        Member(
            f"router{number}",
            "router",
            f"im{number}.{mail_domain}",
            parse_host_port(text, "router"),
            next(places),
        )
        for number, text in enumerate(routers, 1)
    ]
    for number, text in enumerate(homes, 1):
        listen, link = _parse_home(text)
        host = f"home{number}.{mail_domain}"
        members.append(Member(f"home{number}", "home", host, listen, next(places), link))
    members.append(Member("dns", "dns", f"ns.{mail_domain}", parse_host_port(dns, "dns"), next(places)))
    plan = Plan(mail_domain, f"im.{mail_domain}", tuple(members), tuple(aliases))
    _check_distinct(plan)
    return plan


def _parse_home(text: str) -> tuple[HostPort, HostPort]:
    """Where a home listens for callers and for farm members."""
    address, slash, link_port = text.partition("/")
    listen = parse_host_port(address, "home")
    if not slash:
        link_port = str(listen.port + 1)
    if not (link_port.isascii() and link_port.isdigit()) or not 0 < int(link_port) < 65536:
        raise UsageError(f"--home: the link port of {text!r} is not a port; write ADDRESS:PORT/LINKPORT")
    return listen, HostPort(listen.host, int(link_port))


def _check_distinct(plan: Plan) -> None:
    """
    @raise UsageError: two processes were given one address.
    """
    seen: dict[tuple[HostPort, bool], Spot] = {}
    for spot in plan.spots():
        other = seen.setdefault((spot.where, spot.datagrams), spot)
        if other is not spot:
            raise UsageError(f"{spot.where} is given to both {other.whose} and {spot.whose} ({spot.option})")


def check_free(plan: Plan) -> None:
    """Bind everything once, so that what cannot be had is known before anything starts.

    @raise SystemExit: an address is busy or not ours; one sentence naming it and the option.
    """
    for spot in plan.spots():
        problem = _problem(spot)
        if problem:
            raise SystemExit(
                f"rvp-farm: cannot listen on {spot.where} ({spot.whose}): {problem}; "
                f"stop what uses it or choose another address with {spot.option}"
            )


def _problem(spot: Spot) -> str:
    """Why the address cannot be had; empty if it can."""
    kind = socket.SOCK_DGRAM if spot.datagrams else socket.SOCK_STREAM
    try:
        found = socket.getaddrinfo(spot.where.host, spot.where.port, type=kind, flags=socket.AI_NUMERICHOST)
        with socket.socket(found[0][0], kind) as trial:
            if not spot.datagrams:
                # as the daemons do: connections that have ended do not keep an address busy
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(found[0][4])
    except socket.gaierror:
        return "that is no IP address"
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return "it is in use already"
        if error.errno == errno.EADDRNOTAVAIL:
            return "this machine has no such address"
        return os.strerror(error.errno).lower() if error.errno else str(error)
    return ""
