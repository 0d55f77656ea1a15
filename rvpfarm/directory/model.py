"""What the directory knows: domains, homes, routers, accounts, policies; and the seam to ask it.

Every value is immutable; a change in the directory makes a new one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from twisted.internet.defer import Deferred


class DirectoryUnavailable(Exception):
    """The directory cannot be asked now.  Never to be taken for "no such user" or "wrong password"."""


@dataclass(frozen=True, slots=True)
class Domain:
    """One IM domain.

    @ivar name: the DNS name after the C{@} of an IM address, lower case.
    @ivar mail_domains: the mail domains it serves, the primary one first, lower case.
    @ivar aliases: further host names that mean this domain (protocol notes 1.3), lower case.
    @ivar netbios: what stands before the backslash in C{FABRIK\\petra}, upper case; may be empty.
    @ivar policies: settings of this domain; see L{Farm.policy}.
    """

    name: str
    mail_domains: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    netbios: str = ""
    policies: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FormerHost:
    """A host that a server had before it was renamed.

    @ivar until: seconds since 1970: till then at least it answers to that name.
    """

    host: str
    until: float


def read_former(text: str) -> tuple[FormerHost, ...]:
    """The hosts that C{former} of a server tells of."""
    pairs = (word.partition("=") for word in text.split())
    return tuple(FormerHost(host, float(until)) for host, _, until in pairs)


def write_former(hosts: Iterable[FormerHost]) -> str:
    """The text that L{read_former} reads."""
    return " ".join(f"{one.host}={one.until:.0f}" for one in hosts)


def still_former(text: str, now: float) -> str:
    """Those of them that still count."""
    return write_former(one for one in read_former(text) if one.until > now) if text else ""


@dataclass(frozen=True, slots=True)
class Home:
    """One home server.

    @ivar id: a UUID that never changes.
    @ivar name: what administrators call it.
    @ivar host: its fully qualified DNS name (KB 319758), lower case.
    @ivar port: where clients reach it.
    @ivar link_port: where farm members reach it.
    @ivar address: its IP address when it is not to be looked up by C{host}; may be empty.
    @ivar state: C{"active"}, or C{"draining"}: it gets no more of what could go elsewhere.
    @ivar metrics: C{ADDRESS:PORT} where it shows its metrics, health and status; may be empty.
    @ivar former: hosts that it had before and still answers to, each as C{HOST=UNTIL}, by spaces.
    """

    id: str
    name: str
    host: str
    port: int
    link_port: int
    address: str = ""
    state: str = "active"
    metrics: str = ""
    former: str = ""

    @property
    def former_hosts(self) -> tuple[str, ...]:
        """The hosts that it had before."""
        return tuple(one.host for one in read_former(self.former)) if self.former else ()


@dataclass(frozen=True, slots=True)
class Router:
    """One router; see L{Home} for the fields."""

    id: str
    name: str
    host: str
    port: int
    address: str = ""
    state: str = "active"
    metrics: str = ""
    former: str = ""

    @property
    def former_hosts(self) -> tuple[str, ...]:
        """The hosts that it had before."""
        return tuple(one.host for one in read_former(self.former)) if self.former else ()


@dataclass(frozen=True, slots=True)
class Network:
    """A range of addresses that counts as something.

    @ivar kind: C{"inside"}, C{"trusted-proxy"} or C{"call-back"}.
    @ivar first: first address of the range.
    @ivar last: last address of the range.
    """

    kind: str
    first: str
    last: str


@dataclass(frozen=True, slots=True)
class Verifier:
    """How one credential of an account is checked; never a password.

    @ivar scheme: C{"digest-md5"}, C{"digest-sha-256"} or C{"nt"}.
    @ivar username: the form of the user name that was hashed, exactly as a client sends it.
    @ivar realm: the realm that was hashed.
    @ivar secret: HA1 as lower-case hexadecimal text, or the NT hash as hexadecimal text.
    """

    scheme: str
    username: str
    realm: str
    secret: str


@dataclass(frozen=True, slots=True)
class Account:
    """One node of the directory: a user, a group or a device.

    @ivar id: a UUID that never changes.
    @ivar key: the node's key: IM domain and path, lower case, as C{rvpfarm.protocol.address} makes it,
        such as C{"im.fabrik.example/instmsg/aliases/petra"}.
    @ivar kind: C{"user"}, C{"group"} or C{"device"}.
    @ivar domain: the IM domain.
    @ivar path: the logical path in the directory's own letter case.
    @ivar alias: the last segment of C{path} in the directory's own letter case.
    @ivar home: the id of the home that owns the node.
    @ivar enabled: may log in and be reached.
    @ivar address: the IM address, mail form.
    @ivar owner: key of the principal who owns a group or a device; empty for a user, who owns itself.
    @ivar verifiers: how the user's credentials are checked.
    """

    id: str
    key: str
    kind: str
    domain: str
    path: str
    alias: str
    home: str
    enabled: bool
    display_name: str
    email: str
    address: str
    owner: str = ""
    verifiers: tuple[Verifier, ...] = ()

    @property
    def owner_key(self) -> str:
        """Key of the principal that the node belongs to."""
        return self.owner or self.key

    @property
    def url(self) -> str:
        """The logical (public) URL, in the directory's letter case."""
        return f"http://{self.domain}{self.path}"

    def physical_url(self, home: Home) -> str:
        """The URL at which C{home} serves this node (RVP 4.1.2)."""
        port = "" if home.port == 80 else f":{home.port}"
        return f"http://{home.host}{port}/instmsg/local/{self.domain}{self.path}"


@dataclass(frozen=True, slots=True)
class Farm:
    """Everything farm-wide at one moment; small, whole, and replaced when anything in it changes.

    @ivar domains: by name.
    @ivar homes: by id.
    @ivar routers: by id.
    @ivar policies: farm-wide settings.
    @ivar generation: counts changes.
    """

    domains: Mapping[str, Domain] = field(default_factory=dict)
    homes: Mapping[str, Home] = field(default_factory=dict)
    routers: Mapping[str, Router] = field(default_factory=dict)
    networks: tuple[Network, ...] = ()
    policies: Mapping[str, str] = field(default_factory=dict)
    generation: int = 0

    def policy(self, name: str, domain: str | None = None) -> str:
        """The setting C{name}: the domain's own, else the farm's, else its default in L{POLICIES}.

        @raise KeyError: there is no policy of that name.
        """
        default = POLICIES[name]
        if domain is not None and domain in self.domains and name in self.domains[domain].policies:
            return self.domains[domain].policies[name]
        return self.policies.get(name, default)

    def number(self, name: str, domain: str | None = None) -> int:
        """The setting C{name}, a number; its default if something else got into the tables somehow."""
        value = self.policy(name, domain)
        return int(value if value.isascii() and value.isdigit() else POLICIES[name])


#: Every policy with its default.
POLICIES: Mapping[str, str] = {
    # is anybody asked to prove who they are: "required", or "off" on a trusted network (RVP 4.2)
    "authentication": "required",
    # offered schemes in the order of the challenge lines
    "schemes": "ntlm digest-md5 digest-sha-256",
    # may digest verifiers be kept (the original's "reversible encryption")
    "digest-verifiers": "allowed",
    # may the hashes be kept by which NTLM is checked
    "nt-hashes": "allowed",
    # whom does a router refer (302): "auto" (who is known to follow and inside), "always" (everybody, so only
    # where every client can follow; servers never), "never"
    "referral": "auto",
    # may other organisations' principals come here, and are they notified: "closed" or "open"
    "federation": "closed",
    # the default list of a node nobody has changed: "open" (protocol notes 3.7), "same-organisation" (whoever
    # has proved to be a user of this farm) or "contacts-only" (nobody before the owner says so)
    "default-acl": "open",
    # the fewest characters of a new password
    "password-length": "8",
    # wrong passwords for one account from one address before it is held back; 0 holds nobody back
    "failed-logins": "10",
    # by how many per cent at most a renewed lease is announced shorter, so that renewals spread; 0 for none
    "renewal-jitter": "5",
    # the header by which a proxy in a network of kind "trusted-proxy" says who calls: "x-forwarded-for",
    # "forwarded" (RFC 7239) or "none"; one only, for a proxy that writes one lets a forged other one pass
    "forwarded-header": "x-forwarded-for",
    # the most connections of callers that one process holds, in all and from one address (IPv6: one /64);
    # proxies in a network of kind "trusted-proxy" count only in all
    "max-connections": "20000",
    "connections-per-source": "512",
    # the most requests that one process has in work or waiting; more are answered 503 (KB 318158)
    "inbound-queue": "1024",
    # for how many seconds what is known of the directory is served on while it cannot be asked; farm-wide
    "directory-staleness": "604800",
    # which of its two forms a new user's IM address has: "mail" (the mail address), "im" (the name at the IM
    # domain), or "srv": the mail address if the mail domain's SRV record leads here then (KB 319758, D16)
    "address-form": "srv",
    # the IM address of the user in whose name "rvpfarm broadcast" speaks; empty for nobody
    "announce-from": "",
}


class Directory(Protocol):
    """The seam through which everybody asks the directory."""

    def farm(self) -> Farm:
        """The farm-wide settings as last seen; never waits."""

    def peek(self, key: str) -> Account | bool | None:
        """What is remembered of the node C{key}, without waiting.

        @return: the account, C{False} when there is known to be none, C{None} when L{find} must be asked.
        """

    def find(self, key: str) -> Deferred[Account | None]:
        """The account of the node C{key}, or C{None} if there is none.

        It fails with L{DirectoryUnavailable} when the directory cannot be asked and no account is known; that
        there was none some time ago does not count as knowing.
        """

    def forget(self, key: str) -> None:
        """What is remembered of C{key} proved wrong: the next L{find} asks again."""

    def watch(self, changed: Callable[[str | None], None]) -> None:
        """Call C{changed(key)} when an account changed, and C{changed(None)} when L{farm} did."""
