"""The farm's records put into somebody's zone: what differs, and the signed message that changes it (core).

An update (RFC 2136) asks the server to make all its changes or none, and only if every record set still is as
it was seen: so nobody's work is overwritten that was done meanwhile.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rvpfarm.directory.model import Farm, Home, Router
from rvpfarm.discovery.zone import Record, edge, inside, plain_name, published

if TYPE_CHECKING:
    from dns.update import UpdateMessage

#: What is known of signatures; MD5 and SHA-1 are not worth it any more.
ALGORITHMS = ("hmac-sha224", "hmac-sha256", "hmac-sha384", "hmac-sha512")

_KEY = re.compile(r'\bkey\s+"?([^"\s{]+)"?\s*\{([^}]*)\}', re.IGNORECASE)
_FIELD = re.compile(r'\b(algorithm|secret)\s+"?([^"\s;]+)"?\s*;', re.IGNORECASE)
_COMMENT = re.compile(r"/\*.*?\*/|(?://|#)[^\n]*", re.DOTALL)
_ADDRESSES = ("A", "AAAA")


@dataclass(frozen=True, slots=True)
class Key:
    """What updates are signed with (TSIG, RFC 8945)."""

    name: str
    algorithm: str
    secret: str


@dataclass(frozen=True, slots=True)
class RecordSet:
    """All records of one name and type.

    @ivar data: what they say, sorted.
    """

    name: str
    type: str
    ttl: int
    data: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """One record set that is to be otherwise; C{None} where there is none."""

    before: RecordSet | None
    after: RecordSet | None

    @property
    def name(self) -> str:
        """Whose records."""
        one = self.before or self.after
        assert one is not None
        return one.name

    @property
    def type(self) -> str:
        """Of which type."""
        one = self.before or self.after
        assert one is not None
        return one.type


def parse_key(text: str) -> Key:
    """The key in a file as C{tsig-keygen} writes it.

    @raise ValueError: there is none, in a sentence.
    """
    match = _KEY.search(_COMMENT.sub("", text))
    if match is None:
        raise ValueError(
            'it has no key "NAME" { algorithm hmac-sha256; secret "..."; }; as tsig-keygen writes it'
        )
    fields = {name.lower(): value for name, value in _FIELD.findall(match[2])}
    algorithm = fields.get("algorithm", "hmac-sha256").lower().rstrip(".")
    if algorithm not in ALGORITHMS:
        raise ValueError(f"the algorithm {algorithm} is none of {', '.join(ALGORITHMS)}")
    try:
        sound = bool(base64.b64decode(fields.get("secret", ""), validate=True))
    except binascii.Error:
        sound = False
    if not sound:
        raise ValueError("its secret is no base64 text")
    return Key(plain_name(match[1]), algorithm, fields["secret"])


def managed_sets(farm: Farm) -> Mapping[tuple[str, str], tuple[Record, ...]]:
    """Every record set that is the farm's to decide, with what should be in it; empty for what should go.

    A name of which the directory does not know all addresses is not the farm's alone, nor is the name of a
    server without any.
    """
    found: dict[tuple[str, str], list[Record]] = {}
    for record in published(farm):
        if "." in record.name:
            found.setdefault((record.name, record.type), []).append(record)
    for name, kind in list(found):
        for other in _ADDRESSES if kind in _ADDRESSES else ():
            found.setdefault((name, other), [])
    for router in farm.routers.values():
        host = plain_name(router.host)
        if router.state != "active" and router.address and "." in host:
            for kind in _ADDRESSES:
                found.setdefault((host, kind), [])
    return {place: tuple(records) for place, records in found.items()}


def shared_names(farm: Farm) -> frozenset[str]:
    """The names that may have addresses besides those of the plan: a router's is not in the directory."""
    if all(machine.address for machine in edge(farm)):
        names: set[str] = set()
    else:
        names = {plain_name(name) for one in farm.domains.values() for name in (one.name, *one.aliases)}
    servers: list[Router | Home] = [*farm.routers.values(), *farm.homes.values()]
    names |= {plain_name(server.host) for server in servers if not server.address}
    return frozenset(names)


def differences(
    wanted: Mapping[tuple[str, str], Iterable[Record]],
    present: Mapping[tuple[str, str], RecordSet],
    shared: frozenset[str] = frozenset(),
) -> Iterator[Change]:
    """What has to change so that the record sets of C{wanted} are as they should be.

    @param present: what is there of them.
    @param shared: names from which no address is taken away.
    """
    for place, records in sorted(wanted.items()):
        name, kind = place
        before = present.get(place)
        data = {record.data for record in records}
        if name in shared and before is not None and kind in _ADDRESSES:
            data |= set(before.data)
        ttl = min((record.ttl for record in records), default=0 if before is None else before.ttl)
        after = RecordSet(name, kind, ttl, tuple(sorted(data))) if data else None
        if after != before:
            yield Change(before, after)


def in_zone(changes: Iterable[Change], zone: str, zones: Iterable[str] = ()) -> list[Change]:
    """Those of C{changes} that belong to C{zone}, and to none of the C{zones} below it."""
    below = [one for one in zones if one != zone and inside(one, zone)]
    return [
        change
        for change in changes
        if inside(change.name, zone) and not any(inside(change.name, one) for one in below)
    ]


def change_lines(changes: Iterable[Change]) -> Iterator[str]:
    """The difference as people read it: what goes with C{-}, what comes with C{+}."""
    for change in changes:
        before = set(_lines(change.before))
        after = set(_lines(change.after))
        yield from (f"- {line}" for line in sorted(before - after))
        yield from (f"+ {line}" for line in sorted(after - before))


def make_update(zone: str, changes: Iterable[Change], key: Key | None) -> UpdateMessage:
    """The message, signed: all changes or none, and only if nobody changed the same record sets meanwhile."""
    import dns.name
    import dns.tsigkeyring
    import dns.update

    message = dns.update.UpdateMessage(dns.name.from_text(zone))
    if key is not None:
        keyring = dns.tsigkeyring.from_text({f"{key.name}.": key.secret})
        message.use_tsig(keyring, algorithm=dns.name.from_text(f"{key.algorithm}."))
    for change in changes:
        name = dns.name.from_text(change.name)
        if change.before is None:
            message.absent(name, change.type)
        else:
            # with its data: the set is to be exactly as it was seen
            message.present(name, _rdataset(change.before, 0))
        if change.before is not None:
            message.delete(name, change.type)
        if change.after is not None:
            message.add(name, _rdataset(change.after, change.after.ttl))
    return message


def _rdataset(held: RecordSet, ttl: int):  # type: ignore[no-untyped-def]  # dnspython's own, loaded late
    import dns.rdataset

    return dns.rdataset.from_text_list("IN", held.type, ttl, list(held.data))


def _lines(held: RecordSet | None) -> Iterator[str]:
    if held is not None:
        for data in held.data:
            yield f"{held.name}. {held.ttl} IN {held.type} {data}"
