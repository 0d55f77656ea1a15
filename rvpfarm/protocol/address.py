"""Logical and physical URLs, server-ids and call-backs: which node, which principal, where to (RVP 4.1).

Two URLs mean the same node exactly when they lead to the same I{key}: IM domain and path in lower case,
without port 80, trailing slash or needless percent escapes, and never in the physical form.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from rvpfarm.protocol.calls import BadRequest, NotFound

#: Where the users of a domain live.
USERS = "/instmsg/aliases/"

_LOCAL = "/instmsg/local/"
_LONGEST = 2048
#: How many of what callers write is kept with what it means, and how long each may be.
_KEPT, _KEPT_LENGTH = 10_000, 256
#: Call-backs are said again and again only while somebody comes and subscribes to all his contacts.
_KEPT_CALL_BACKS = 1_000

#: Bits of an IPv6 address that tell one customer of a provider from the next.
_SITE = 64

_AUTHORITY = re.compile(r"([A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*|\[[0-9A-Fa-f:.]+\])\.?(?::([0-9]{0,5}))?")
_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9A-Fa-f]*)")
_PLAIN = re.compile(r"(?:/[A-Za-z0-9_.~!$'+-]+)+/?")
_SEGMENTS = re.compile(r"(?:/(?:[A-Za-z0-9_.~!$'+&()*,;=:@-]|%[0-9A-Fa-f]{2})+)+/?")
_ANYWHERE = re.compile(r"[A-Za-z0-9_.~!$'+&()*,;=:@/?%-]*")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")
_UNESCAPED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$'+")


@dataclass(frozen=True, slots=True)
class Names:
    """What host names mean to this farm.

    @ivar domains: IM domain, or host alias of one, to IM domain; all lower case.
    @ivar servers: host name of a home or router to the IM domain that it means when no other is named.
    @ivar targets: what L{parse_target} found last, for callers say the same again and again.
    @ivar principals: the same for L{parse_principal}.
    @ivar call_backs: the same for L{parse_call_back}.
    """

    domains: Mapping[str, str]
    servers: Mapping[str, str]
    targets: dict[tuple[bytes, bytes | None], Target] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    principals: dict[str, Principal] = field(default_factory=dict, init=False, repr=False, compare=False)
    call_backs: dict[str, CallBack] = field(default_factory=dict, init=False, repr=False, compare=False)

    def domain_of(self, host: str) -> str | None:
        """The IM domain that C{host} stands for, with or without a port; C{None} for a stranger."""
        host = host.lower()
        found = self.domains.get(host) or self.servers.get(host)
        if found is None and not host.endswith("]"):
            bare = host.rpartition(":")[0] or host
            bare = bare.removesuffix(".")
            found = self.domains.get(bare) or self.servers.get(bare)
        return found


@dataclass(frozen=True, slots=True)
class Target:
    """The node that a request is for.

    @ivar key: the node's key.
    @ivar domain: its IM domain.
    @ivar path: its logical path, lower case.
    @ivar physical: the request named it by its physical path.
    @ivar host: the host that the request was sent to, without a port; empty when it named none.
    """

    key: str
    domain: str
    path: str
    physical: bool
    host: str


@dataclass(frozen=True, slots=True)
class Principal:
    """Who somebody is: a node, or a server.

    @ivar key: the key of the node, or the host name of the server.
    @ivar url: the logical URL or server-id, cleaned, as it is to be emitted; letters of the name keep
        their case.
    @ivar is_server: it is a server-id.
    """

    key: str
    url: str
    is_server: bool


@dataclass(frozen=True, slots=True)
class CallBack:
    """Where the notifications of a subscription go.

    @ivar url: normalised; two call-backs are the same when their URLs are equal.
    @ivar host: a host name or IP address (without brackets), lower case.
    @ivar path: begins with a slash, and keeps its case unless it is a principal's.
    @ivar principal: the principal key when it is somebody's logical URL and not a listener.
    """

    url: str
    host: str
    port: int
    path: str
    principal: str | None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a C{Location} says that a node is.

    @ivar host: a host name or IP address (without brackets), lower case.
    @ivar key: the node's key if the URL is a physical one; empty for any other URL.
    """

    host: str
    port: int
    key: str


def parse_target(target: bytes, host: bytes | None, names: Names) -> Target:
    """Find out which node a request is for (protocol notes 1.3).

    @param target: the request target: a path, or an absolute URL, whose host then counts.
    @param host: the C{Host} header.
    @raise BadRequest: it is not a URL, or names no host.
    @raise NotFound: the IM domain is not served here, or nothing can live at that path.
    """
    kept = names.targets.get((target, host))
    if kept is not None:
        return kept
    found = _target(target, host, names)
    if len(target) <= _KEPT_LENGTH and (host is None or len(host) <= _KEPT_LENGTH):
        _keep(names.targets, (target, host), found)
    return found


def _target(target: bytes, host: bytes | None, names: Names) -> Target:
    """The same, worked out."""
    try:
        text = target.decode("ascii")
        authority = "" if host is None else host.decode("ascii").strip()
    except UnicodeDecodeError:
        raise BadRequest("the request target is not a URL") from None
    if not text.startswith("/"):
        scheme, separator, rest = text.partition("://")
        if not separator or scheme.lower() not in ("http", "https"):
            raise BadRequest("the request target is not a URL")
        authority, slash, text = rest.partition("/")
        if not authority:
            raise BadRequest("the request target names no host")
        text = slash + text
    requested = authority
    if authority and authority not in names.domains:
        requested = _split(authority)[0].strip("[]")
    if text in ("", "/"):
        raise NotFound("there is no node of that name")
    embedded, path = _logical(_clean(text))
    if embedded is not None:
        authority = embedded
    elif not authority:
        raise BadRequest("the request names no host")
    domain = names.domain_of(authority)
    if domain is None:
        raise NotFound("that IM domain is not served here")
    if path.count("/") < 2:
        raise NotFound("there is no node of that name")
    path = path.lower()
    return Target(domain + path, domain, path, embedded is not None, requested)


def asked_host(target: bytes, host: bytes | None) -> str:
    """The host that a request was sent to, lower case and without a port; empty when it names none.

    @param target: as for L{parse_target}; C{host} likewise.
    """
    if not target.startswith(b"/"):
        _, absolute, rest = target.partition(b"://")
        if absolute:
            host = rest.partition(b"/")[0]
    try:
        return _split((host or b"").decode("ascii").strip())[0]
    except (BadRequest, UnicodeDecodeError):
        return ""


def parse_principal(text: str, names: Names) -> Principal:
    """Read a principal: a logical URL, a physical one (which is rewritten), or a server-id.

    @raise BadRequest: it is none of these.
    """
    kept = names.principals.get(text)
    if kept is not None:
        return kept
    found = _any_principal(text, names)
    if len(text) <= _KEPT_LENGTH:
        _keep(names.principals, text, found)
    return found


def _any_principal(text: str, names: Names) -> Principal:
    """The same, worked out."""
    text = text.strip()
    if len(text) > _LONGEST:
        raise BadRequest("the principal is too long")
    if text.startswith("http://"):
        authority, slash, path = text[7:].partition("/")
        return _principal(authority, slash + path, names)
    scheme, separator, rest = text.partition("://")
    if not separator:
        host = _host_or_domain(text.removesuffix("/"), names)
        return Principal(host, host, True)
    if scheme.lower() != "http":
        raise BadRequest("a principal is an http URL")
    authority, slash, path = rest.partition("/")
    return _principal(authority, slash + path, names)


def parse_call_back(text: str, names: Names) -> CallBack:
    """Read a C{Call-Back}: a listener's URL, or the logical URL of whoever subscribes.

    @raise BadRequest: it is not an C{http} URL.
    """
    kept = names.call_backs.get(text)
    if kept is not None:
        return kept
    found = _call_back(text.strip(), names)
    if len(text) <= _KEPT_LENGTH:
        _keep(names.call_backs, text, found, most=_KEPT_CALL_BACKS)
    return found


def _call_back(text: str, names: Names) -> CallBack:
    """The same, worked out."""
    scheme, separator, rest = text.partition("://")
    if not separator or scheme.lower() != "http" or len(text) > _LONGEST:
        raise BadRequest("Call-Back is not an http URL")
    authority, slash, path = rest.partition("/")
    host, port = _split(authority)
    path = slash + path or "/"
    if not _ANYWHERE.fullmatch(path) or _bad_escape(path):
        raise BadRequest("Call-Back is not an http URL")
    principal = _as_principal(authority, path, names)
    if principal is not None:
        authority, slash, path = principal.url.removeprefix("http://").partition("/")
        host, port = _split(authority)
        return CallBack(principal.url, host.strip("[]"), port, slash + path, principal.key)
    return CallBack(f"http://{_joined(host, port)}{path}", host.strip("[]"), port, path, None)


def _keep(kept: dict[_Key, _Value], key: _Key, value: _Value, *, most: int = _KEPT) -> None:
    """Remember C{value}; of too many, all are forgotten."""
    if len(kept) >= most:
        kept.clear()
    kept[key] = value


def parse_location(text: str, names: Names) -> Place:
    """Read a C{Location} (protocol notes 10.1).

    @raise BadRequest: it is not an absolute C{http} URL.
    """
    scheme, separator, rest = text.partition("://")
    if not separator or scheme.lower() != "http":
        raise BadRequest("that is not an absolute http URL")
    authority, slash, path = rest.partition("/")
    host, port = _split(authority)
    return Place(host.strip("[]"), port, _physical_key(slash + path, names))


def _physical_key(path: str, names: Names) -> str:
    """The key of the node that a physical path names; empty if it is none or the domain is not ours."""
    try:
        embedded, path = _logical(_clean(path))
    except BadRequest:
        return ""
    domain = None if embedded is None else names.domains.get(embedded.lower())
    return "" if domain is None or path.count("/") < 2 else domain + path.lower()


def key_to_url(key: str) -> str:
    """The logical URL of a node's key; a server's key is its server-id already."""
    return f"http://{key}" if "/" in key else key


def is_ip(host: str) -> bool:
    """Is C{host} an IP address (with or without the brackets of IPv6) and not a name?"""
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def unmapped(address: str) -> str:
    """An address as a socket names it, an IPv4 address on an IPv6 socket as what it is."""
    return address[7:] if address.startswith("::ffff:") and "." in address else address


def site_of(address: str) -> str:
    """What is counted as one address: an IPv4 address, or the network of an IPv6 one.

    A single customer has a whole IPv6 network, and could come from each of its addresses.
    """
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.ip_address(address.strip("[]").partition("%")[0])
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return f"{parsed.packed[: _SITE // 8].hex()}/{_SITE}"


def _principal(authority: str, path: str, names: Names) -> Principal:
    """The principal with a URL of these parts.

    @raise BadRequest: there cannot be one.
    """
    domain = names.domains.get(authority)
    if domain is None:
        domain = _host_or_domain(authority, names)
    embedded, path = _logical(_clean(path))
    if embedded is not None:
        domain = _host_or_domain(embedded, names)
    if path.count("/") < 2:
        raise BadRequest("that URL names no node")
    return Principal(domain + path.lower(), f"http://{domain}{path}", False)


def _host_or_domain(authority: str, names: Names) -> str:
    """The IM domain served here that C{authority} means, or the stranger's C{host[:port]}.

    @raise BadRequest: it is not a host.
    """
    host, port = _split(authority)
    return names.domain_of(host) or _joined(host, port)


def _as_principal(authority: str, path: str, names: Names) -> Principal | None:
    """The principal whose logical URL a call-back is, if it is one and no listener's.

    A physical URL counts for the logical one inside, which must not be a listener's either: it would be one
    when it is read again, and no rule about addresses would have seen it.
    """
    if not _may_be_principal(authority, path, names):
        return None
    try:
        principal = _principal(authority, path, names)
    except BadRequest:
        return None
    authority, slash, path = principal.url.removeprefix("http://").partition("/")
    return principal if _may_be_principal(authority, slash + path, names) else None


def _may_be_principal(authority: str, path: str, names: Names) -> bool:
    """Might a URL of these parts be a principal's, and not only a listener's?"""
    host, port = _split(authority)
    if names.domain_of(host) is not None:
        return True
    return not is_ip(host) and (port == 80 or path.lower().startswith("/instmsg/"))


def _split(authority: str) -> tuple[str, int]:
    """Host (lower case, an IPv6 address in brackets) and port of C{host[:port]}.

    Numbers that only look like addresses, such as C{127.1} and C{0x7f000001}, are refused: resolvers
    take them for addresses, and the rules about addresses would not see them.

    @raise BadRequest: it is not a host.
    """
    match = _AUTHORITY.fullmatch(authority)
    if match is None or len(authority) > 260:
        raise BadRequest("that is not a host name")
    host = match[1].lower()
    if host[0] == "[":
        try:
            address = ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            raise BadRequest("that is not an IPv6 address") from None
        host = f"[{address.compressed}]" if address.ipv4_mapped is None else str(address.ipv4_mapped)
    elif host[host.rfind(".") + 1].isdigit() and _NUMBER.fullmatch(host) and not is_ip(host):
        raise BadRequest("that is not a host name")
    if not match[2]:
        return host, 80
    port = int(match[2])
    if not 0 < port < 65536:
        raise BadRequest("that is not a port")
    return host, port


def _joined(host: str, port: int) -> str:
    """C{host[:port]}, the port only when it is not 80."""
    return host if port == 80 else f"{host}:{port}"


def _clean(path: str) -> str:
    """C{path} without a trailing slash and needless escapes; its letters keep their case.

    @raise BadRequest: it is not an absolute path, or has empty, C{.} or C{..} segments.
    """
    if not _PLAIN.fullmatch(path):
        if not _SEGMENTS.fullmatch(path) or _bad_escape(path):
            raise BadRequest("the path of that URL is not one of a node")
        path = _ESCAPE.sub(_unescape, path)
    if "/." in path and not {".", ".."}.isdisjoint(path.split("/")):
        raise BadRequest("the path of that URL goes up or nowhere")
    return path.removesuffix("/")


def _bad_escape(path: str) -> bool:
    """Does it hide a slash or a control character, or is there a percent sign that escapes nothing?"""
    escapes = _ESCAPE.findall(path)
    if len(escapes) != path.count("%"):
        return True
    return any(code in ("2F", "2f", "7F", "7f") or code[0] in "01" for code in escapes)


def _unescape(match: re.Match[str]) -> str:
    """What stands for one escape: the character where that is allowed in a name."""
    character = chr(int(match[1], 16))
    return character if character in _UNESCAPED else match[0].upper()


def _logical(path: str) -> tuple[str | None, str]:
    """The IM host embedded in a physical path, or C{None}; and the logical path.

    @raise BadRequest: a physical path without a logical one inside, or with another physical one.
    """
    if path.startswith(USERS):
        return None, path
    lower = path.lower()
    embedded = None
    if lower.startswith(_LOCAL):
        embedded, slash, rest = path[len(_LOCAL) :].partition("/")
        path = slash + rest
        lower = path.lower()
        if not slash or lower.startswith(_LOCAL) or lower == _LOCAL[:-1]:
            raise BadRequest("that physical URL names no node")
        _split(embedded)
    if lower.startswith("/aliases/") and path.count("/") == 2:  # the administrators' log samples (13.21)
        path = USERS + path[len("/aliases/") :]
    elif lower.startswith(USERS):
        path = USERS + path[len(USERS) :]
    return embedded, path
