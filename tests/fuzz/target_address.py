"""Addresses: one key for one node however it is spelled, and no host that only looks like a name."""

from __future__ import annotations

import ipaddress
import re
import socket

from rvpfarm.protocol.address import (
    CallBack,
    Names,
    Principal,
    asked_host,
    is_ip,
    key_to_url,
    parse_call_back,
    parse_location,
    parse_principal,
    parse_target,
)
from rvpfarm.protocol.calls import BadRequest, NotFound

IM = "im.fabrik.example"
KEPT = 100
NAMES = Names({IM: IM, "omnent": IM, "im.two.example": "im.two.example"}, {"hs1.fabrik.example": IM})
LONGEST = 400

TOKENS = (
    *(
        b"http://",
        b"HTTP://",
        b"https://",
        b"://",
        b"/",
        b"//",
        b"/.",
        b"/..",
        b"/./",
        b"%2F",
        b"%2e",
        b"%41",
        b"%",
        b"%0a",
    ),
    *(
        b"im.fabrik.example",
        b"IM.Fabrik.Example",
        b"omnent",
        b"hs1.fabrik.example",
        b"im.two.example",
        b":80",
        b":8080",
    ),
    *(
        b":",
        b":0",
        b":65536",
        b":99999",
        b".",
        b"@",
        b"?",
        b"#",
        b"&",
        b"127.0.0.1",
        b"127.1",
        b"0x7f000001",
        b"0177.1",
    ),
    *(
        b"2130706433",
        b"[::1]",
        b"[::ffff:127.0.0.1]",
        b"[",
        b"]",
        b"1.2.3.4.",
        b"0x",
        b"/instmsg/aliases/",
        b"/aliases/",
    ),
    *(
        b"/instmsg/local/",
        b"/INSTMSG/LOCAL/",
        b"/groups/a&b",
        b"petra",
        b"Petra",
        b" ",
        b"\t",
        b"\r\n",
        b"\x00",
        b"\xc2\xb2",
    ),
    *(b"\xd9\xa1", b"\xe2\x84\xaa", b"\xc4\xb0", b"\xef\xbd\x81", b"\n", b"a" * 300, b"*"),
)

_HIDDEN = re.compile("%(?![0-9A-Fa-f]{2})|%2[fF]|%7[fF]|%[01]")


def seeds() -> list[bytes]:
    """Every form of address that is about, with the C{Host} on a line of its own."""
    paths = (
        "/instmsg/aliases/petra",
        "/INSTMSG/Aliases/P%65tra/",
        "/groups/a&b",
        "/aliases/petra",
        "/a//b",
        "/../a",
    )
    hosts = (
        "im.fabrik.example",
        "OmnEnt:80",
        "hs1.fabrik.example:8080",
        "127.0.0.1",
        "[::1]:3155",
        "im.orchard.example.",
    )
    some = [f"http://{host}{path}" for host in hosts for path in paths]
    some += [f"{path}\n{host}" for host in hosts for path in paths]
    some += [
        f"http://hs9.elsewhere.example:8000/instmsg/local/{host}/instmsg/aliases/petra" for host in hosts
    ]
    some += [*hosts, "http://192.0.2.77:3155", "http://127.1/a", "http://0x7f.1:80", "*"]
    return [text.encode() for text in some]


def fuzz_one(data: bytes) -> None:
    """Read C{data} as a target and a C{Host}, as a principal, as a call-back, and as a C{Location}."""
    for kept in (NAMES.targets, NAMES.principals, NAMES.call_backs):
        if len(kept) > KEPT:  # they are bounded, but how full they are just at the end would look like a leak
            kept.clear()
    target, newline, host = data.partition(b"\n")
    _target(target, host if newline else None)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return
    _principal(text)
    _call_back(text)
    _location(text)


def _target(octets: bytes, host: bytes | None) -> None:
    asked = asked_host(octets, host)
    assert asked == asked.lower()
    try:
        target = parse_target(octets, host, NAMES)
    except (BadRequest, NotFound):
        return
    if asked:
        assert target.host.lower() in (asked.strip("[]"), f"{asked}.")
    assert target.domain in NAMES.domains.values()
    assert target.key == target.domain + target.path
    assert target.key == target.key.lower()
    _check_path(target.path)
    again = parse_target(target.path.encode(), target.domain.encode(), NAMES)
    assert (again.key, again.physical) == (target.key, False), "its own path leads elsewhere"
    assert parse_principal(key_to_url(target.key), NAMES).key == target.key


def _principal(text: str) -> None:
    try:
        principal = parse_principal(text, NAMES)
    except BadRequest:
        return
    _check_principal(principal)


def _check_principal(principal: Principal) -> None:
    assert principal.is_server == ("/" not in principal.key)
    assert principal.key == principal.key.lower()
    assert principal.url.isascii()
    assert parse_principal(principal.url, NAMES) == principal
    assert parse_principal(key_to_url(principal.key), NAMES).key == principal.key
    authority, slash, path = principal.key.partition("/")
    if slash:
        _check_path(slash + path)
    _check_host(authority)


def _call_back(text: str) -> None:
    try:
        where = parse_call_back(text, NAMES)
    except BadRequest:
        return
    _check_call_back(where)
    assert parse_call_back(where.url, NAMES) == where


def _check_call_back(where: CallBack) -> None:
    assert 0 < where.port < 65536
    assert where.path.startswith("/")
    assert where.url.isascii()
    assert not any(character <= " " or character == "\x7f" for character in where.url)
    host = f"[{where.host}]" if ":" in where.host else where.host
    authority = host if where.port == 80 else f"{host}:{where.port}"
    assert where.url == f"http://{authority}{where.path}"
    _check_host(host)
    if where.principal is not None:
        principal = parse_principal(where.url, NAMES)
        _check_principal(principal)
        assert principal.key == where.principal
        assert not is_ip(where.host), "an address that no rule about addresses sees"


def _location(text: str) -> None:
    try:
        place = parse_location(text, NAMES)
    except BadRequest:
        return
    assert 0 < place.port < 65536
    _check_host(f"[{place.host}]" if ":" in place.host else place.host)
    if place.key:
        domain, slash, path = place.key.partition("/")
        _check_path(slash + path)
        physical = f"http://hs2.fabrik.example/instmsg/local/{place.key}"
        assert parse_location(physical, NAMES).key == place.key
        assert parse_target((slash + path).encode(), domain.encode(), NAMES).key == place.key


def _check_path(path: str) -> None:
    assert path.startswith("/")
    assert not path.endswith("/")
    segments = path.split("/")[1:]
    assert "" not in segments
    assert {".", "..", "%2e", "%2E"}.isdisjoint(segments)
    assert path.isascii()
    assert not any(character <= " " for character in path)
    assert not _HIDDEN.search(path), "a hidden slash or control character"


def _check_host(authority: str) -> None:
    """What a resolver would take for an address is one for us, too."""
    host = authority.rpartition(":")[0] if authority.rpartition(":")[2].isdigit() else authority
    host = host or authority
    if host.startswith("["):
        ipaddress.IPv6Address(host[1:-1])
        return
    try:
        socket.inet_aton(host)
    except OSError:
        return
    assert is_ip(host), f"{host} is an address to a resolver"
