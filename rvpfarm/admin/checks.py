"""What an administrator may type: names, addresses and passwords, and what follows from them.

Pure functions: the domains of the farm go in, a value or a L{Refused} with its remedy comes out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from rvpfarm.directory.model import Domain, Farm, Home, Router

#: Where people live below an IM domain (protocol notes 1.3).
ALIASES = "/instmsg/aliases/"

#: Said when a user needs a home and there is none.
NO_HOME = 'there is no home server yet; make one with "rvpfarm home create hs1 --host hs1.example.com"'

_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)\Z")
_SERVER_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
_NETBIOS = re.compile(r"[A-Z0-9][A-Z0-9!@#$%^&()_'{}~-]{0,14}\Z")
_ALIAS = re.compile(r"[A-Za-z0-9_~!$'+-]+(\.[A-Za-z0-9_~!$'+-]+)*\Z")

_ALIAS_LIMIT = 64
_NAME_LIMIT = 253
_PASSWORD_LEAST = 8
_PASSWORD_MOST = 256
# a shorter name turns up in a good password by chance
_TELLING = 3
_TEXT_LIMIT = 256
_LISTED = 12


class Refused(Exception):
    """What was asked for cannot be had; the text is one sentence with the remedy in it."""


class Missing(Refused):
    """There is nothing of that name."""

    def __init__(self, sentence: str, name: str) -> None:
        """
        @param name: the name, as it was given.
        """
        super().__init__(sentence)
        self.name = name


class Taken(Refused):
    """It contradicts what is there already."""


class Forbidden(Refused):
    """Whoever asks may not have it."""


@dataclass(frozen=True, slots=True)
class Naming:
    """What a new user will be called, everywhere.

    @ivar alias: the last segment of the logical URL.
    @ivar domain: the IM domain.
    @ivar address: the IM address, mail form: what other people type.
    @ivar email: the mail address, or empty when none follows from what was given.
    """

    alias: str
    domain: str
    address: str
    email: str

    @property
    def path(self) -> str:
        """The logical path."""
        return ALIASES + self.alias

    @property
    def key(self) -> str:
        """The node's key."""
        return (self.domain + self.path).lower()


@dataclass(frozen=True, slots=True)
class Meant:
    """Whom a typed address means.

    @ivar alias: the name before the C{@}.
    @ivar mail_domain: the mail domain that was typed, or the IM domain's primary one when none was; empty
        when an IM address was typed, or there is none.
    @ivar email: the mail address that follows, or empty.
    """

    alias: str
    domain: Domain
    mail_domain: str
    email: str


def enumerate_names(names: Iterable[str]) -> str:
    """The names for a sentence, in order and not too many of them."""
    ordered = sorted(names)
    if not ordered:
        return "none"
    more = "" if len(ordered) <= _LISTED else f" and {len(ordered) - _LISTED} more"
    return ", ".join(ordered[:_LISTED]) + more


def is_ip(text: str) -> bool:
    """Is this an IP address rather than a name?"""
    try:
        ip_address(text.strip("[]"))
    except ValueError:
        return False
    return True


def check_host(text: str, advice: str, *, single: bool = False) -> str:
    """A DNS name that clients can resolve, lower case and without the final dot.

    @param advice: what to give instead, for the sentence.
    @param single: one label is enough.
    @raise Refused: it is none.
    """
    host = text.strip().lower().removesuffix(".")
    if is_ip(host):
        raise Refused(f'"{text}" is an IP address, not a name; {advice}')
    labels = host.split(".")
    if len(labels) == 1 and not single and _LABEL.match(host):
        raise Refused(f'"{text}" is not a fully qualified name; {advice}')
    if len(host) > _NAME_LIMIT or not all(_LABEL.match(label) for label in labels) or labels[-1].isdigit():
        raise Refused(f'"{text}" is not a DNS name (letters, digits and hyphens between dots); {advice}')
    return host


def check_server_name(text: str) -> str:
    """What administrators call a home or router, lower case.

    @raise Refused: it is longer than a label or has other characters.
    """
    name = text.strip().lower()
    if not _SERVER_NAME.match(name):
        raise Refused(f'"{text}" cannot be a server\'s name; use letters, digits and hyphens, such as hs1')
    return name


def check_netbios(text: str) -> str:
    """A NetBIOS domain name, upper case; empty stays empty.

    @raise Refused: it is none.
    """
    name = text.strip().upper()
    if name and not _NETBIOS.match(name):
        raise Refused(f'"{text}" is not a NetBIOS name; give --netbios at most 15 characters, such as FABRIK')
    return name


def check_port(port: int, option: str) -> int:
    """A TCP port.

    @raise Refused: it is none.
    """
    if not 0 < port < 65536:
        raise Refused(f"{port} is not a port; give {option} a number from 1 to 65535")
    return port


def check_address(text: str) -> str:
    """An IP address in its shortest form; empty stays empty.

    @raise Refused: it is none, or no machine can be reached at it.
    """
    if not text:
        return ""
    try:
        address = ip_address(text.strip())
    except ValueError:
        raise Refused(f'"{text}" is not an IP address; give --address one such as 192.0.2.11') from None
    if address.is_unspecified or address.is_multicast:
        raise Refused(
            f"no machine is reached at {address}; give --address the address that clients connect to"
        )
    return str(address)


def check_place(text: str, option: str) -> str:
    """C{ADDRESS:PORT} in its one spelling; empty stays empty.

    @param option: that it was given with, for the sentence.
    @raise Refused: it is none, or nobody can be asked there.
    """
    if not text:
        return ""
    host, _, port = text.strip().rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    advice = f"give {option} ADDRESS:PORT, such as 192.0.2.11:9464"
    if not (port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) < 65536):
        raise Refused(f'"{text}" does not end with a port; {advice}')
    if not is_ip(bare):
        bare = check_host(bare, advice, single=True)
    else:
        address = ip_address(bare)
        if (address.version == 6) != (host != bare):
            raise Refused(f'"{text}" is no address and port; {advice} or [2001:db8::11]:9464')
        if address.is_unspecified or address.is_multicast:
            raise Refused(f"nobody can be asked at {address}; {advice}")
        bare = str(address)
    return f"[{bare}]:{int(port)}" if ":" in bare else f"{bare}:{int(port)}"


def check_metrics(farm: Farm, server: Home | Router) -> None:
    """Nobody else is where C{server} is to show its metrics; only homes may share a process.

    @raise Refused: somebody is.
    """
    place = server.metrics
    if not place:
        return
    if place in (f"{server.address or server.host}:{port}" for port in _ports(server)):
        raise Taken(f"{server.name} itself takes calls at {place}; give --metrics another port")
    others: list[Home | Router] = [*farm.homes.values(), *farm.routers.values()]
    for other in others:
        both_homes = isinstance(server, Home) and isinstance(other, Home)
        if other.id != server.id and other.metrics == place and not both_homes:
            raise Taken(f"{place} is where {other.name} shows its metrics; give --metrics another place")


def _ports(server: Home | Router) -> tuple[int, ...]:
    """Where it listens."""
    return (server.port, server.link_port) if isinstance(server, Home) else (server.port,)


def parse_range(text: str) -> tuple[str, str]:
    """The first and last address of C{192.0.2.0/24}, C{192.0.2.1-192.0.2.9} or C{192.0.2.1}.

    @raise Refused: it is none of these.
    """
    advice = "give a range such as 192.0.2.0/24 or 192.0.2.1-192.0.2.9"
    low, dash, high = (part.strip() for part in text.partition("-"))
    try:
        if not dash:
            network = ip_network(low, strict=False)
            return str(network[0]), str(network[-1])
        first, last = ip_address(low), ip_address(high)
    except ValueError:
        raise Refused(f'"{text}" is no range of IP addresses; {advice}') from None
    if first.version != last.version or int(first) > int(last):
        raise Refused(f'"{text}" does not go from a lower address to a higher one; {advice}')
    return str(first), str(last)


def check_alias(text: str) -> str:
    """A user's name in the logical URL, in the letter case given (protocol notes 1.3).

    @raise Refused: it has characters that a URL or an address cannot carry.
    """
    if len(text) > _ALIAS_LIMIT:
        raise Refused(f'"{text[:20]}..." is too long for a user name; use at most {_ALIAS_LIMIT} characters')
    if not _ALIAS.match(text):
        raise Refused(
            f'"{text}" cannot be a user name; use letters, digits and -_~!$\'+, with dots only between them'
        )
    return text


def check_text(text: str, what: str) -> str:
    """One line of text for people, trimmed.

    @raise Refused: it is too long or has control characters.
    """
    line = text.strip()
    if len(line) > _TEXT_LIMIT or not line.isprintable():
        raise Refused(f"the {what} is not one line of at most {_TEXT_LIMIT} characters; give a shorter one")
    return line


def check_password(password: str, alias: str, least: int = _PASSWORD_LEAST) -> str:
    """A password that is worth its verifiers.

    @param least: the fewest characters (policy C{password-length}).
    @raise Refused: it is too short, too long, has control characters, or contains the user's name.
    """
    if len(password) < least:
        raise Refused(f"the password is too short; use at least {least} characters")
    if len(password) > _PASSWORD_MOST or not password.isprintable():
        raise Refused(f"the password is not one line of at most {_PASSWORD_MOST} characters; choose another")
    if len(alias) >= _TELLING and alias.lower() in password.lower():
        raise Refused(f'the password contains the user\'s name "{alias}"; choose another')
    return password


def domain_named(domains: Mapping[str, Domain], name: str, give: str = "give --domain") -> Domain:
    """The IM domain of that name.

    @param give: how it is named on the command line, for the sentence.
    @raise Refused: there is none.
    """
    domain = domains.get(name.strip().lower().removesuffix("."))
    if domain is None:
        raise Missing(f'there is no IM domain "{name}"; {give} one of {enumerate_names(domains)}', name)
    return domain


def home_named(farm: Farm, name: str) -> Home:
    """The home of that name.

    @raise Refused: there is none.
    """
    wanted = name.strip().lower()
    for home in farm.homes.values():
        if home.name == wanted:
            return home
    if not farm.homes:
        raise Refused(NO_HOME)
    names = enumerate_names(home.name for home in farm.homes.values())
    raise Missing(f'there is no home "{name}"; give --home one of {names}', name)


def im_address(alias: str, mail_domain: str, domain: Domain, form: str = "mail") -> str:
    """The IM address of C{alias}: the mail address when C{domain} serves that mail domain and C{form} is
    C{"mail"}, else C{alias@im-domain} (product F20).

    @param mail_domain: the user's primary mail domain, or empty.
    @param form: C{"mail"} or C{"im"}; which of them it has to be, L{rvpfarm.admin.addresses} finds out.
    """
    host = mail_domain.lower()
    return f"{alias}@{host if form == 'mail' and host in domain.mail_domains else domain.name}"


def serving(host: str, domains: Mapping[str, Domain]) -> Domain | None:
    """The IM domain that C{host} means: its name, one of its aliases, or a mail domain it serves."""
    if host in domains:
        return domains[host]
    for domain in domains.values():
        if host in domain.aliases or host in domain.mail_domains:
            return domain
    return None


def split_address(text: str) -> tuple[str, str]:
    """The name before the C{@} and the host after it, lower case; the host is empty without an C{@}."""
    alias, _, host = text.strip().partition("@")
    return alias, host.lower().removesuffix(".")


def whom(text: str, domains: Mapping[str, Domain], domain: str | None = None) -> Meant:
    """Whom C{text} means, who need not be a user yet.

    @param text: a mail address, an IM address, or a bare name when it is clear in which domain.
    @param domain: the IM domain, when it does not follow from the address.
    @raise Refused: the name cannot be used, or the domain is unknown or unclear.
    """
    given, host = split_address(text)
    alias = check_alias(given)
    if host:
        check_host(host, "give the part after the @ as in petra@example.com", single=True)
    chosen = _domain_for(alias, host, domains, domain)
    if host:
        spoken = serving(host, domains)
        is_mail = spoken is None or host in spoken.mail_domains
    else:
        host = chosen.mail_domains[0] if chosen.mail_domains else ""
        is_mail = bool(host)
    return Meant(alias, chosen, host if is_mail else "", f"{alias}@{host}" if is_mail else "")


def derive(text: str, domains: Mapping[str, Domain], domain: str | None = None, form: str = "mail") -> Naming:
    """What the user known as C{text} will be called; see L{whom} and L{im_address}.

    @raise Refused: the name cannot be used, or the domain is unknown or unclear.
    """
    meant = whom(text, domains, domain)
    address = im_address(meant.alias, meant.mail_domain, meant.domain, form)
    return Naming(meant.alias, meant.domain.name, address, meant.email)


def _domain_for(alias: str, host: str, domains: Mapping[str, Domain], domain: str | None) -> Domain:
    """The IM domain of whoever is known as C{alias} at C{host}.

    @param host: may be empty.
    @param domain: its name, when it was said.
    """
    if not domains:
        raise Refused('there is no IM domain yet; make one with "rvpfarm domain add im.example.com"')
    if domain is not None:
        return domain_named(domains, domain)
    if host:
        chosen = serving(host, domains)
        if chosen is None:
            raise Refused(
                f'no IM domain here serves "{host}"; give --domain one of {enumerate_names(domains)}, '
                f'or add one with "rvpfarm domain add im.{host} --mail-domain {host}"'
            )
        return chosen
    if len(domains) > 1:
        raise Refused(f'in which domain is "{alias}"? Give --domain one of {enumerate_names(domains)}')
    return next(iter(domains.values()))
