"""Snapshots of the directory: the one that was made, or none; and nothing else even if the farm key lies open."""

from __future__ import annotations

import io

from rvpfarm.directory.snapshot import BadSnapshot, Kept, Sealing, Snapshot, read_snapshot
from tests.directory.test_snapshot import (
    HEAD,
    KEY,
    PETRA,
    SALT,
    TOMASZ,
    chunks_of,
    forged,
    said,
    sealed,
)

_MADE = sealed(HEAD, [Kept(PETRA, True)], [Kept(TOMASZ, False)])
_SAID = Snapshot(HEAD, [Kept(PETRA, True), Kept(TOMASZ, False)])
_HEAD = said(HEAD)

TOKENS = (
    *chunks_of(_MADE),
    *(b"RVPFARM SNAPSHOT", b"RVPFARM SNAPSHOT\x01" + SALT, b"\x00\x00\x00\x00", b"\x00\x00\x00\x10"),
    *(b'{"accounts":0}', b'{"accounts":1}', b"[", b"]", b"[[true", b"{", b"}", b"null", b"NaN", b"1e999"),
    *(b'"farm":', b'"columns":', b'"position":', b'"confirmed":', b'"verifiers":', b'"mark":', b'"key"'),
    *(b'"\\ud800"', b"\xff", b"[]", b"{}", b"true", b"-1", b"1.5"),
)


def seeds() -> list[bytes]:
    """Whole ones, parts of them, and what they say."""
    parts = chunks_of(_MADE)
    return [
        _MADE,
        sealed(HEAD),
        b"".join(parts[:-1]),
        b"".join([*parts, parts[-1]]),
        b"RVPFARM SNAPSHOT\x02" + SALT,
        b'[[true,"id","key"]]',
        b'{"accounts":1}',
        repr(_HEAD).replace("'", '"').replace("True", "true").encode(),
    ]


def fuzz_one(data: bytes) -> None:
    """Read C{data} as a snapshot, and as what one with the right key says in its head and of its accounts."""
    try:
        found = read_snapshot(KEY, io.BytesIO(data))
    except BadSnapshot:
        pass
    else:
        assert data in (_MADE, sealed(HEAD)), "somebody else made it"
        assert found == (_SAID if data == _MADE else Snapshot(HEAD, []))
    for values in ((data, {"accounts": 0}), (_HEAD, data, {"accounts": 1}), (_HEAD, data)):
        try:
            found = read_snapshot(KEY, io.BytesIO(forged(*values)))
        except BadSnapshot:
            continue
        sealing = Sealing(KEY, SALT)
        again = sealing.begin(found.head) + sealing.add(found.accounts) + sealing.end()
        assert read_snapshot(KEY, io.BytesIO(again)) == found
