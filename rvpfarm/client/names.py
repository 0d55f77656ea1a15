"""Addresses as people write them, and the nodes they mean (protocol notes 1.5)."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from rvpfarm.protocol.address import USERS, Names, parse_principal
from rvpfarm.protocol.calls import BadRequest

#: A client serves no domain: every host is what it says.
NOBODY = Names({}, {})

#: What may stand in a name without an escape.
_PLAIN = "-_.~!$'+"


@dataclass(frozen=True, slots=True)
class Address:
    """What a person typed: C{bob@farm.localhost}, or a logical URL.

    @ivar text: as it was typed.
    @ivar alias: the name of the user.
    @ivar domain: whose server is to be looked up.
    @ivar url: the logical URL, when that was typed; otherwise it is found by look-up.
    """

    text: str
    alias: str
    domain: str
    url: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """A node, and where it is reached.

    @ivar address: as a person calls it.
    @ivar key: tells nodes apart; see C{rvpfarm.protocol.address}.
    @ivar url: the logical URL, which never carries the port of an SRV record.
    @ivar host: the IM domain, which the C{Host} header names.
    @ivar path: the target of requests.
    @ivar addresses: the IP addresses to try.
    """

    address: str
    key: str
    url: str
    host: str
    path: str
    port: int
    addresses: tuple[str, ...]


def parse_address(text: str) -> Address:
    """Read an address.

    @raise ValueError: it is none; in a sentence.
    """
    text = text.strip()
    if "://" in text:
        parts = urlsplit(text)
        try:
            principal = parse_principal(text, NOBODY)
        except BadRequest as error:
            raise ValueError(f"{text!r} is not the URL of anybody: {error.text}") from None
        if parts.scheme.lower() != "http" or principal.is_server or not parts.hostname:
            raise ValueError(f"{text!r} is not the URL of anybody")
        alias = unquote(principal.url.rpartition("/")[2])
        return Address(text, alias, parts.hostname.lower(), principal.url)
    alias, at, domain = text.rpartition("@")
    domain = domain.lower().rstrip(".")
    sound = all(label and label.replace("-", "").replace("_", "").isalnum() for label in domain.split("."))
    if not at or not alias or not sound or not domain.isascii() or any(c in alias for c in "/@ \t:?#"):
        raise ValueError(f"{text!r} is not an address: it looks like name@domain")
    return Address(text, alias, domain)


def logical_url(alias: str, im_domain: str) -> str:
    """The URL of the user C{alias} of C{im_domain}."""
    return f"http://{im_domain}{USERS}{quote(alias, safe=_PLAIN)}"


def key_of(url: str) -> str:
    """What tells the principal C{url} from others.

    @raise BadRequest: it names nobody.
    """
    return parse_principal(url, NOBODY).key


def shown(url: str) -> str:
    """The principal C{url} as people write it: C{name@host}."""
    parts = urlsplit(url)
    name = unquote(parts.path.rstrip("/").rpartition("/")[2])
    return f"{name}@{parts.netloc}" if parts.netloc and name else url
