"""A snapshot of what is remembered of the directory, in octets that only the farm can make or read (core).

It begins with L{MAGIC}, an octet for the version of the format and L{SALT_OCTETS} of salt.  What follows
are chunks, each a length of four octets and so many of AES-256-GCM over compressed JSON: first a chunk with
the L{Head}, then some with accounts, at last one that tells how many accounts there were.  The key is
derived from the farm key and the salt; the nonce of a chunk is its number and whether it is the last one, so
that none can be left out, added, repeated or moved, and nothing may follow.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from operator import attrgetter
from typing import Any, Protocol, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from rvpfarm.directory.model import Account, Domain, Farm, Home, Network, Router, Verifier

MAGIC = b"RVPFARM SNAPSHOT"
VERSION = 1
SALT_OCTETS = 16

#: Most octets that a chunk says, and is: what cannot be compressed becomes a little longer.
CHUNK_OCTETS = 4 * 2**20
_SEALED_OCTETS = CHUNK_OCTETS + 2**16

_PREAMBLE_OCTETS = len(MAGIC) + 1 + SALT_OCTETS
_LENGTH_OCTETS = 4

#: In the order in which they stand in a chunk; C{verifiers} come last.
_COLUMNS = tuple(field.name for field in fields(Account))
_account_values = attrgetter(*_COLUMNS[:-1])
_verifier_values = attrgetter("scheme", "username", "realm", "secret")
_encode = json.JSONEncoder(separators=(",", ":")).encode

_Record = TypeVar("_Record", Domain, Home, Router, Network)


class BadSnapshot(ValueError):
    """A snapshot that is not to be believed.  Its text is the end of a sentence that begins with the file."""


@dataclass(frozen=True, slots=True)
class Head:
    """What a snapshot says besides accounts.

    @ivar position: how far the feed of changes was read.
    @ivar mark: of the directory that the position is of; see L{rvpfarm.directory.reading.Reading.mark}.
    @ivar confirmed: when all of it was last known to be current (seconds since 1970).
    @ivar verifiers: the accounts come with what their users' passwords are checked by.
    """

    farm: Farm
    position: int
    mark: str
    confirmed: float
    verifiers: bool


@dataclass(frozen=True, slots=True)
class Kept:
    """An account that is remembered.

    @ivar fresh: nobody said that it changed.
    """

    account: Account
    fresh: bool


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A whole one, as it was read."""

    head: Head
    accounts: Sequence[Kept]


class Readable(Protocol):
    """Where a snapshot is read from: a binary file."""

    def read(self, size: int, /) -> bytes:
        """At most so many octets; fewer only at the end."""


class Sealing:
    """Makes the octets of one snapshot, piece after piece: L{begin}, L{add} as often as needed, L{end}."""

    def __init__(self, key: bytes, salt: bytes) -> None:
        """
        @param key: C{rvpfarm.auth.keys.FarmKey.snapshot}.
        @param salt: random, never used twice.
        """
        self._chunks = _Chunks(key, salt)
        self._verifiers = False
        self._accounts = 0

    def begin(self, head: Head) -> bytes:
        """The first piece.

        @raise BadSnapshot: it cannot be so large; also by L{add}.
        """
        self._verifiers = head.verifiers
        value = {
            "farm": _farm_value(head.farm),
            "position": head.position,
            "mark": head.mark,
            "confirmed": head.confirmed,
            "verifiers": head.verifiers,
            "columns": _COLUMNS,
        }
        return self._chunks.preamble + self._chunks.seal(value)

    def add(self, accounts: Sequence[Kept]) -> bytes:
        """The piece with these accounts: hundreds at once, but not many thousands, are a good size."""
        self._accounts += len(accounts)
        return self._chunks.seal([self._row(kept) for kept in accounts])

    def end(self) -> bytes:
        """The last piece, without which the others are nothing."""
        return self._chunks.seal({"accounts": self._accounts}, last=True)

    def _row(self, kept: Kept) -> tuple[Any, ...]:  # what JSON can say
        verifiers = kept.account.verifiers if self._verifiers else ()
        return (kept.fresh, *_account_values(kept.account), [_verifier_values(each) for each in verifiers])


def read_snapshot(key: bytes, stream: Readable) -> Snapshot:
    """The snapshot in C{stream}, all of it or nothing.

    @raise BadSnapshot: it is damaged, cut short, of another farm, or no snapshot at all.
    """
    preamble = stream.read(_PREAMBLE_OCTETS)
    if not preamble.startswith(MAGIC) or len(preamble) < _PREAMBLE_OCTETS:
        raise BadSnapshot("is no snapshot of a directory")
    if preamble[len(MAGIC)] != VERSION:
        raise BadSnapshot("was made by another version of rvpfarm")
    chunks = _Chunks(key, preamble[-SALT_OCTETS:]).open_all(stream)
    try:
        value, last = next(chunks)
        head, columns = _head_of(value), _Columns(_texts(value["columns"]))
        accounts: list[Kept] = []
        while not last:
            value, last = next(chunks)
            if not last:
                accounts += map(columns.kept, value)
        if value != {"accounts": len(accounts)}:
            raise BadSnapshot("does not hold what it says")
    except BadSnapshot:
        raise
    except (KeyError, TypeError, ValueError, RecursionError) as problem:
        raise BadSnapshot("was made by another version of rvpfarm") from problem
    return Snapshot(head, accounts)


class _Chunks:
    """The chunks of one snapshot, in their order.

    @ivar preamble: what stands before them; it is sealed with each of them.
    """

    def __init__(self, key: bytes, salt: bytes) -> None:
        self.preamble = MAGIC + bytes((VERSION,)) + salt
        derived = HKDF(algorithm=SHA256(), length=32, salt=salt, info=MAGIC).derive(key)
        self._cipher = AESGCM(derived)
        self._number = 0

    def _nonce(self, last: bool) -> bytes:
        nonce = self._number.to_bytes(11, "big") + bytes((last,))
        self._number += 1
        return nonce

    def seal(self, value: object, *, last: bool = False) -> bytes:
        """The next chunk."""
        plain = _encode(value).encode("ascii")
        if len(plain) > CHUNK_OCTETS:
            raise BadSnapshot("cannot hold so much at once")
        body = zlib.compress(plain, 1)
        sealed = self._cipher.encrypt(self._nonce(last), body, self.preamble)
        return len(sealed).to_bytes(_LENGTH_OCTETS, "big") + sealed

    def open_all(self, stream: Readable) -> Iterator[tuple[Any, bool]]:
        """What each chunk says, and whether it is the last, after which nothing may come (C{Any}: any JSON).

        @raise BadSnapshot: they are not as they were made.
        """
        following = stream.read(_LENGTH_OCTETS)
        while True:
            size = int.from_bytes(following, "big")
            if len(following) < _LENGTH_OCTETS or size > _SEALED_OCTETS:
                raise BadSnapshot("is cut short or damaged")
            sealed = stream.read(size)
            following = stream.read(_LENGTH_OCTETS)
            last = not following
            if len(sealed) < size:
                raise BadSnapshot("is cut short or damaged")
            trouble = "is cut short or damaged" if self._number else "is damaged, or of another farm key"
            try:
                body = self._cipher.decrypt(self._nonce(last), sealed, self.preamble)
            except InvalidTag:
                raise BadSnapshot(trouble) from None
            yield json.loads(_decompressed(body)), last
            if last:
                return


def _decompressed(body: bytes) -> bytes:
    """
    @raise BadSnapshot: it is too much, or was not compressed.
    """
    reader = zlib.decompressobj()
    try:
        plain = reader.decompress(body, CHUNK_OCTETS)
    except zlib.error:
        raise BadSnapshot("was made by another version of rvpfarm") from None
    if not reader.eof or reader.unused_data:
        raise BadSnapshot("was made by another version of rvpfarm")
    return plain


# Values to JSON and back.


def _farm_value(farm: Farm) -> Mapping[str, object]:
    def records(values: Sequence[Any]) -> list[dict[str, object]]:  # dataclasses have no common type
        return [
            {field.name: _plain(getattr(value, field.name)) for field in fields(value)} for value in values
        ]

    return {
        "domains": records(list(farm.domains.values())),
        "homes": records(list(farm.homes.values())),
        "routers": records(list(farm.routers.values())),
        "networks": records(farm.networks),
        "policies": dict(farm.policies),
        "generation": farm.generation,
    }


def _plain(value: object) -> object:
    """What JSON has for a value of a field."""
    return dict(value) if isinstance(value, Mapping) else value


def _head_of(value: Any) -> Head:  # any JSON, as below
    confirmed, farm = value["confirmed"], value["farm"]
    if type(confirmed) not in (int, float) or not math.isfinite(confirmed):
        raise TypeError
    domains = [_record(Domain, each) for each in farm["domains"]]
    homes = [_record(Home, each) for each in farm["homes"]]
    routers = [_record(Router, each) for each in farm["routers"]]
    known = Farm(
        {domain.name: domain for domain in domains},
        {home.id: home for home in homes},
        {router.id: router for router in routers},
        tuple(_record(Network, each) for each in farm["networks"]),
        _settings(farm["policies"]),
        _number(farm["generation"]),
    )
    return Head(
        known, _number(value["position"]), _text(value["mark"]), float(confirmed), _truth(value["verifiers"])
    )


def _record(kind: type[_Record], value: Any) -> _Record:
    """A record of that kind; one that an older version wrote may lack what is new since."""
    given = {
        field.name: _READERS[str(field.type)](value[field.name])
        for field in fields(kind)
        if field.name in value or field.default is field.default_factory is MISSING
    }
    return kind(**given)


class _Columns:
    """How the accounts of one snapshot are written."""

    def __init__(self, names: Sequence[str]) -> None:
        """
        @raise KeyError: something is missing that every account has.
        """
        own = {field.name: field for field in fields(Account)}
        for field in own.values():
            if field.name not in names and field.default is MISSING:
                raise KeyError(field.name)
        self._names = [name for name in names if name in own]
        self._places = [place for place, name in enumerate(names, 1) if name in own]
        self._readers = [self._reader(name, str(own[name].type)) for name in self._names]
        self._count = 1 + len(names)
        self._seen: dict[str, str] = {}

    def kept(self, row: Any) -> Kept:  # any JSON
        """The account in C{row}."""
        if type(row) is not list or len(row) != self._count:
            raise TypeError
        values = [read(row[place]) for read, place in zip(self._readers, self._places, strict=True)]
        return Kept(Account(**dict(zip(self._names, values, strict=True))), _truth(row[0]))

    def _reader(self, name: str, kind: str) -> Callable[[Any], Any]:
        """What reads one column; texts that thousands of accounts have in common are kept once."""
        if name == "verifiers":
            return self._verifiers
        return self._shared if name in ("kind", "domain", "home") else _READERS[kind]

    def _shared(self, value: Any) -> str:
        return self._seen.setdefault(_text(value), value)

    def _verifiers(self, value: Any) -> tuple[Verifier, ...]:
        shared, verifiers = self._seen.setdefault, []
        for scheme, username, realm, secret in value:
            if not (type(scheme) is type(username) is type(realm) is type(secret) is str):
                raise TypeError
            verifiers.append(Verifier(shared(scheme, scheme), username, shared(realm, realm), secret))
        return tuple(verifiers)


def _text(value: Any) -> str:
    if type(value) is not str:
        raise TypeError
    return value


def _number(value: Any) -> int:
    if type(value) is not int:
        raise TypeError
    return value


def _truth(value: Any) -> bool:
    if type(value) is not bool:
        raise TypeError
    return value


def _texts(value: Any) -> tuple[str, ...]:
    if type(value) is not list:
        raise TypeError
    return tuple(map(_text, value))


def _settings(value: Any) -> Mapping[str, str]:
    if type(value) is not dict:
        raise TypeError
    return {_text(name): _text(setting) for name, setting in value.items()}


#: By the annotation of the field.
_READERS: Mapping[str, Callable[[Any], Any]] = {
    "str": _text,
    "int": _number,
    "bool": _truth,
    "tuple[str, ...]": _texts,
    "Mapping[str, str]": _settings,
}
