"""The format of a snapshot: what was put in comes out, and what anybody else made or changed is refused."""

from __future__ import annotations

import io
import json
import zlib
from dataclasses import fields, replace
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.directory.model import Account, Domain, Farm, Home, Network, Router, Verifier
from rvpfarm.directory.snapshot import (
    CHUNK_OCTETS,
    MAGIC,
    SALT_OCTETS,
    BadSnapshot,
    Head,
    Kept,
    Sealing,
    Snapshot,
    read_snapshot,
)
from tests.support.directory import make_account, make_farm
from tests.support.hypothesis import MODEST

KEY, SALT = b"k" * 32, b"s" * SALT_OCTETS
PETRA = replace(
    make_account("im.fabrik.example/instmsg/aliases/Petra", "h1", display_name="Petra \N{SNOWMAN} Novák"),
    verifiers=(Verifier("digest-md5", "FABRIK\\petra", "im.fabrik.example", "0" * 32),),
)
TOMASZ = make_account("im.fabrik.example/instmsg/aliases/tomasz", "h1", enabled=False)
FARM = make_farm(
    [Domain("im.fabrik.example", ("fabrik.example",), ("omnent",), "FABRIK", {"referral": "never"})],
    [Home("h1", "hs1", "hs1.fabrik.example", 80, 8081, "192.0.2.1", "draining", "192.0.2.1:9464")],
    [Router("r1", "r1", "im.fabrik.example", 80)],
    networks=[Network("inside", "10.0.0.0", "10.255.255.255")],
    generation=12,
    directory_staleness="3600",
)
HEAD = Head(FARM, 40, "17 abcdef", 1_000_000.25, True)


def sealed(head: Head, *slices: list[Kept], key: bytes = KEY) -> bytes:
    """The octets of a snapshot."""
    sealing = Sealing(key, SALT)
    return b"".join([sealing.begin(head), *map(sealing.add, slices), sealing.end()])


def read(octets: bytes, key: bytes = KEY) -> Snapshot:
    """What they say."""
    return read_snapshot(key, io.BytesIO(octets))


def chunks_of(octets: bytes) -> list[bytes]:
    """The preamble and every chunk with its length."""
    at = len(MAGIC) + 1 + SALT_OCTETS
    parts = [octets[:at]]
    while at < len(octets):
        end = at + 4 + int.from_bytes(octets[at : at + 4], "big")
        parts.append(octets[at:end])
        at = end
    return parts


def forged(*values: object, key: bytes = KEY) -> bytes:
    """A snapshot by somebody who has the key, with C{values} in its chunks (bytes as they are)."""
    preamble = MAGIC + b"\x01" + SALT
    cipher = AESGCM(HKDF(algorithm=SHA256(), length=32, salt=SALT, info=MAGIC).derive(key))
    octets = preamble
    for number, value in enumerate(values):
        plain = value if isinstance(value, bytes) else json.dumps(value).encode()
        nonce = number.to_bytes(11, "big") + bytes((number == len(values) - 1,))
        chunk = cipher.encrypt(nonce, zlib.compress(plain), preamble)
        octets += len(chunk).to_bytes(4, "big") + chunk
    return octets


def said(head: Head) -> dict[str, Any]:
    """The first chunk of a snapshot, to be changed."""
    cipher = AESGCM(HKDF(algorithm=SHA256(), length=32, salt=SALT, info=MAGIC).derive(KEY))
    preamble, first, *_ = chunks_of(sealed(head))
    value: dict[str, Any] = json.loads(zlib.decompress(cipher.decrypt(bytes(12), first[4:], preamble)))
    return value


accounts = st.builds(
    Account,
    **{name: st.text(max_size=8) for name in ("id", "key", "kind", "domain", "path", "alias", "home")},
    **{name: st.text(max_size=8) for name in ("display_name", "email", "address", "owner")},
    enabled=st.booleans(),
    verifiers=st.lists(st.builds(Verifier, *[st.text(max_size=6)] * 4), max_size=3).map(tuple),
)
settings = st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3)
texts = st.lists(st.text(max_size=6), max_size=3).map(tuple)
domains = st.builds(Domain, st.text(), texts, texts, st.text(), settings)
farms = st.builds(
    lambda domains, policies, generation: Farm(
        {domain.name: domain for domain in domains}, policies=policies, generation=generation
    ),
    st.lists(domains, max_size=3),
    settings,
    st.integers(min_value=0),
)
heads = st.builds(
    Head, farms, st.integers(0), st.text(), st.floats(allow_nan=False, allow_infinity=False), st.just(True)
)


class RoundTripTests(SynchronousTestCase):
    """What was put in comes out."""

    def test_small(self) -> None:
        """Farm, position, time, and accounts with what their passwords are checked by."""
        kept = [Kept(PETRA, True), Kept(TOMASZ, False)]
        self.assertEqual(read(sealed(HEAD, kept[:1], [], kept[1:])), Snapshot(HEAD, kept))
        self.assertEqual(read(sealed(HEAD)), Snapshot(HEAD, []))

    @MODEST
    @given(heads, st.lists(st.lists(st.builds(Kept, accounts, st.booleans()), max_size=3), max_size=3))
    def test_anything(self, head: Head, slices: list[list[Kept]]) -> None:
        """So does anything that there could be, in slices of any size."""
        kept = [each for part in slices for each in part]
        self.assertEqual(read(sealed(head, *slices)), Snapshot(head, kept))

    def test_no_secrets_of_a_router(self) -> None:
        """Where nobody proves anything, nothing to check passwords by is kept."""
        head = replace(HEAD, verifiers=False)
        snapshot = read(sealed(head, [Kept(PETRA, True)]))
        self.assertEqual(snapshot, Snapshot(head, [Kept(replace(PETRA, verifiers=()), True)]))

    def test_nothing_to_be_seen(self) -> None:
        """Nobody without the key sees who is in it, and no two of them begin alike."""
        octets = sealed(HEAD, [Kept(PETRA, True)])
        for text in (b"petra", b"fabrik", b"digest"):
            self.assertNotIn(text, octets.lower())
        other = Sealing(KEY, b"t" * SALT_OCTETS).begin(HEAD)
        self.assertNotEqual(chunks_of(other)[1], chunks_of(octets)[1])

    def test_shared_texts(self) -> None:
        """What thousands of accounts have in common is kept once."""
        first, second = read(sealed(HEAD, [Kept(PETRA, True)], [Kept(TOMASZ, True)])).accounts
        self.assertIs(first.account.home, second.account.home)
        self.assertIs(first.account.domain, second.account.domain)


class RefusedTests(SynchronousTestCase):
    """What is not exactly as it was made is refused, all of it."""

    def setUp(self) -> None:
        """A small one."""
        self.octets = sealed(HEAD, [Kept(PETRA, True)], [Kept(TOMASZ, True)])

    def refused(self, octets: bytes, key: bytes = KEY) -> str:
        """Why it is refused."""
        return str(self.assertRaises(BadSnapshot, read, octets, key))

    def test_any_flipped_bit(self) -> None:
        """Whichever octet is another one."""
        for place in range(len(self.octets)):
            for bit in (1, 0x80):
                changed = bytearray(self.octets)
                changed[place] ^= bit
                self.assertTrue(self.refused(bytes(changed)), place)

    def test_cut_short(self) -> None:
        """Wherever it ends too early, between two chunks too."""
        for size in range(len(self.octets)):
            self.assertTrue(self.refused(self.octets[:size]), size)
        self.assertIn("cut short", self.refused(b"".join(chunks_of(self.octets)[:-1])))

    def test_rearranged(self) -> None:
        """Chunks left out, twice, in another order, from another snapshot, or after the end."""
        preamble, head, one, two, end = chunks_of(self.octets)
        other = chunks_of(sealed(HEAD, [Kept(TOMASZ, True)], [Kept(TOMASZ, True)], key=b"o" * 32))
        for parts in (
            (head, one, end),
            (head, one, one, two, end),
            (head, two, one, end),
            (head, one, two, end, end),
            (one, two, end),
            (head, one, other[3], end),
            (head, end),
        ):
            self.refused(preamble + b"".join(parts))
        self.refused(self.octets + b"\0")

    def test_other_key(self) -> None:
        """Of another farm."""
        self.assertIn("of another farm key", self.refused(self.octets, b"K" * 32))

    def test_no_snapshot(self) -> None:
        """Something else entirely, and one that a later version made."""
        for octets in (b"", b"RVPFARM", b"SQLite format 3\0" * 9, MAGIC, MAGIC + b"\x01"):
            self.assertEqual(self.refused(octets), "is no snapshot of a directory")
        later = MAGIC + b"\x02" + self.octets[len(MAGIC) + 1 :]
        self.assertEqual(self.refused(later), "was made by another version of rvpfarm")

    def test_too_large(self) -> None:
        """A chunk that says how long it is, and is longer than any may be, is not read."""
        preamble = chunks_of(self.octets)[0]
        self.assertIn("cut short or damaged", self.refused(preamble + b"\xff\xff\xff\xff" + b"x" * 100))
        self.refused(forged(said(HEAD), b"[" + b" " * CHUNK_OCTETS + b"]", {"accounts": 0}))
        huge = replace(PETRA, display_name="x" * CHUNK_OCTETS)
        self.assertRaises(BadSnapshot, Sealing(KEY, SALT).add, [Kept(huge, True)])


class OtherVersionTests(SynchronousTestCase):
    """What a member of the farm wrote with another version is understood as far as that is possible."""

    def refused(self, *values: object) -> None:
        """Nothing but L{BadSnapshot} comes of it."""
        self.assertRaises(BadSnapshot, read, forged(*values))

    def row(self, account: Account, names: list[str]) -> list[object]:
        """An account as it stands in a chunk."""
        return [True, *(getattr(account, name) if name != "new" else 5 for name in names)]

    def test_newer_and_older(self) -> None:
        """What is new is left out; what is missing is as it is by default, if there is such a thing."""
        head = said(HEAD)
        head["farm"]["homes"][0]["colour"] = "blue"
        del head["farm"]["homes"][0]["metrics"]
        names = [field.name for field in fields(Account) if field.name not in ("owner", "verifiers")]
        names.insert(3, "new")
        head["columns"] = names
        snapshot = read(forged(head, [self.row(TOMASZ, names)], {"accounts": 1}))
        self.assertEqual(snapshot.accounts, [Kept(TOMASZ, True)])
        self.assertEqual(snapshot.head.farm.homes["h1"], replace(FARM.homes["h1"], metrics=""))
        head["columns"] = names[1:]
        self.refused(head, [self.row(TOMASZ, names[1:])], {"accounts": 1})

    def test_nonsense(self) -> None:
        """Values that cannot be meant."""
        good = said(HEAD)
        for name, value in (
            ("farm", None),
            ("farm", {}),
            ("farm", {**good["farm"], "homes": [{"id": "h1"}]}),
            ("farm", {**good["farm"], "homes": [{**good["farm"]["homes"][0], "port": "80"}]}),
            ("farm", {**good["farm"], "domains": ["name"]}),
            ("farm", {**good["farm"], "policies": [["a", "b"]]}),
            ("position", 1.5),
            ("position", True),
            ("mark", 5),
            ("confirmed", "today"),
            ("confirmed", float("nan")),
            ("confirmed", float("inf")),
            ("verifiers", 1),
            ("columns", "id"),
            ("columns", []),
        ):
            self.refused({**good, name: value}, {"accounts": 0})
        row = self.row(TOMASZ, good["columns"])
        for bad in (
            [],
            row[1:],
            [1, *row[1:]],
            [*row[:-1], [["nt", "a", "b"]]],
            [*row[:-1], 5],
            {},
            "x" * 14,
        ):
            self.refused(good, [bad], {"accounts": 1})
        for values in (
            (),
            ([],),
            (good,),
            (good, {"accounts": 1}),
            (good, [row], {"accounts": 2}),
            (good, [row], [row]),
            (good, {"accounts": 0}, {"accounts": 0}),
            (b"{", {"accounts": 0}),
            (b"[" * 100_000, {"accounts": 0}),
            (b"\xff", {"accounts": 0}),
        ):
            self.refused(*values)
