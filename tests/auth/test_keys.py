"""Tests of L{rvpfarm.auth.keys}."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.auth.keys import FarmKey, KeyProblem


class FarmKeyTests(SynchronousTestCase):
    """One secret in a private file, and keys that derive from it."""

    def setUp(self) -> None:
        """A place for the file."""
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = Path(directory.name) / "farm.key"

    def test_round_trip(self) -> None:
        """What was created is loaded, and opens what was sealed."""
        made = FarmKey.create(self.path)
        loaded = FarmKey.load(self.path)
        self.assertEqual((loaded.link, loaded.nonce), (made.link, made.nonce))
        self.assertEqual(loaded.open(made.seal("s\u00e9cret", "petra"), "petra"), "s\u00e9cret")

    def test_keys_differ(self) -> None:
        """Each purpose has a key of 32 octets of its own, and each farm others."""
        one, other = FarmKey(b"a" * 32), FarmKey(b"b" * 32)
        keys = {one.link, one.nonce, other.link, other.nonce}
        self.assertEqual(sorted(map(len, keys)), [32] * 4)
        self.assertRaises(ValueError, FarmKey, b"a" * 31)

    def test_derivation_is_fixed(self) -> None:
        """The same secret gives the same keys in every version, or a farm could not be updated."""
        key = FarmKey(bytes(range(32)))
        self.assertEqual(key.link.hex(), "3072b533685e5e48cd95c08ddb3e48464fa59473bcadc2a102822cc1fe0b3041")
        self.assertEqual(key.nonce.hex(), "d8080dd1125d5e69773a1724943b212f87c0f10fd30d92cc025330a41091e8a3")
        sealed = bytes.fromhex("014ebdccf2686596ef685972ce657a77dbf9893d3ffb259c0ca03d3bf687052aead1b0")
        self.assertEqual(key.open(sealed, "petra"), "secret")

    def test_private(self) -> None:
        """The file is readable by its owner alone, whatever the umask."""
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        FarmKey.create(self.path)
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)

    def test_others_may_read(self) -> None:
        """A file that others may read is refused, with the remedy."""
        FarmKey.create(self.path)
        for mode in (0o640, 0o604, 0o660):
            self.path.chmod(mode)
            problem = self.assertRaises(KeyProblem, FarmKey.load, self.path)
            self.assertIn(f"chmod 600 {self.path}", str(problem))

    def test_not_overwritten(self) -> None:
        """A key that is there is not replaced."""
        FarmKey.create(self.path)
        before = self.path.read_bytes()
        self.assertRaises(FileExistsError, FarmKey.create, self.path)
        self.assertEqual(self.path.read_bytes(), before)

    def test_missing(self) -> None:
        """A missing file is one sentence with the remedy."""
        problem = self.assertRaises(KeyProblem, FarmKey.load, self.path)
        self.assertIn(str(self.path), str(problem))
        self.assertIn("rvpfarm init", str(problem))

    def test_not_a_key(self) -> None:
        """A file with anything else in it is refused by name."""
        for content in (b"", b"hello", b"aGVsbG8=\n", b"\xff" * 32, b"A" * 2000):
            self.path.write_bytes(content)
            self.path.chmod(0o600)
            problem = self.assertRaises(KeyProblem, FarmKey.load, self.path)
            self.assertIn(str(self.path), str(problem))

    def test_unreadable(self) -> None:
        """Something that cannot be read as a file is one sentence."""
        self.path.mkdir()
        problem = self.assertRaises(KeyProblem, FarmKey.load, self.path)
        self.assertIn(str(self.path), str(problem))

    def test_sealed_twice(self) -> None:
        """The same secret is never sealed to the same octets, nor visible in them."""
        key = FarmKey(b"a" * 32)
        sealed = {key.seal("secret", "petra") for _ in range(10)}
        self.assertEqual(len(sealed), 10)
        for each in sealed:
            self.assertNotIn(b"secret", each)

    def test_does_not_fit(self) -> None:
        """Sealed secrets open for the same farm and context only, and only unchanged."""
        key = FarmKey(b"a" * 32)
        sealed = key.seal("secret", "petra digest-md5")
        self.assertRaises(ValueError, key.open, sealed, "petra digest-sha-256")
        self.assertRaises(ValueError, FarmKey(b"b" * 32).open, sealed, "petra digest-md5")
        self.assertRaises(ValueError, key.open, b"", "petra digest-md5")
        for at in range(len(sealed)):
            changed = bytearray(sealed)
            changed[at] ^= 1
            self.assertRaises(ValueError, key.open, bytes(changed), "petra digest-md5")
            self.assertRaises(ValueError, key.open, sealed[:at], "petra digest-md5")

    def test_not_printed(self) -> None:
        """No key shows when the object is printed."""
        key = FarmKey(b"a" * 32)
        self.assertNotIn(repr(key.link), repr(key))
