"""The farm key: one secret that every member of a farm holds, and what is derived from it."""

from __future__ import annotations

import base64
import binascii
import os
import stat
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_SECRET_OCTETS = 32
_NONCE_OCTETS = 12

#: First octet of everything sealed: AES-256-GCM with a random nonce of 12 octets in front.
_FORMAT = b"\x01"


class KeyProblem(ValueError):
    """The farm key cannot be used.  Its text is one sentence with the remedy."""


class FarmKey:
    """The keys of a farm: to prove membership, to sign nonces, and to seal secrets at rest.

    @ivar link: proves membership on the farm link.
    @ivar nonce: signs the nonces of Digest challenges.
    @ivar snapshot: seals what daemons keep of the directory for when it is down.
    """

    __slots__ = ("_rest", "link", "nonce", "snapshot")

    def __init__(self, secret: bytes) -> None:
        """
        @param secret: the 32 octets that all keys derive from.
        @raise ValueError: it has another length.
        """
        if len(secret) != _SECRET_OCTETS:
            raise ValueError(f"a farm key has {_SECRET_OCTETS} octets")
        self.link = _derive(secret, b"rvpfarm farm link")
        self.nonce = _derive(secret, b"rvpfarm digest nonces")
        self.snapshot = _derive(secret, b"rvpfarm directory snapshots")
        self._rest = AESGCM(_derive(secret, b"rvpfarm secrets at rest"))

    @classmethod
    def load(cls, path: str | Path) -> FarmKey:
        """Read the key file.

        @raise KeyProblem: it is missing, readable by others, or not a key.
        """
        try:
            with Path(path).open("rb") as file:
                status = os.fstat(file.fileno())
                content = file.read(1024)
        except FileNotFoundError:
            raise KeyProblem(
                f"There is no farm key at {path}: run 'rvpfarm init', or copy it from another member."
            ) from None
        except OSError as problem:
            raise KeyProblem(f"The farm key {path} cannot be read: {problem.strerror}.") from None
        if stat.S_IMODE(status.st_mode) & 0o077:
            raise KeyProblem(f"The farm key {path} can be read by others: run 'chmod 600 {path}'.")
        try:
            return cls(base64.b64decode(content.strip(), validate=True))
        except (binascii.Error, ValueError):
            raise KeyProblem(
                f"The file {path} is not a farm key: it must hold 32 octets as base64 text."
            ) from None

    @classmethod
    def create(cls, path: str | Path) -> FarmKey:
        """Make a new key, and keep it in a new file that only its owner can read.

        @raise OSError: there is something at that path already, or it cannot be written.
        """
        path = Path(path)
        secret = os.urandom(_SECRET_OCTETS)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(descriptor, 0o600)  # whatever the umask
                file.write(base64.b64encode(secret) + b"\n")
                file.flush()
                os.fsync(descriptor)
            _sync_directory(path.parent)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return cls(secret)

    def seal(self, plain: str, context: str) -> bytes:
        """Encrypt C{plain} so that only this farm can read it, and only as what C{context} says.

        @param context: whose secret it is; L{open} must be told the same.
        """
        nonce = os.urandom(_NONCE_OCTETS)
        return _FORMAT + nonce + self._rest.encrypt(nonce, plain.encode(), context.encode())

    def open(self, sealed: bytes, context: str) -> str:
        """Decrypt what L{seal} made.

        @raise ValueError: it was sealed with another key or for another context, or was changed.
        """
        body = 1 + _NONCE_OCTETS
        if sealed[:1] != _FORMAT or len(sealed) < body:
            raise ValueError("this is not a sealed secret")
        try:
            return self._rest.decrypt(sealed[1:body], sealed[body:], context.encode()).decode()
        except InvalidTag:
            raise ValueError("the sealed secret does not fit this farm key") from None


def _derive(secret: bytes, purpose: bytes) -> bytes:
    """A key for one purpose (HKDF-SHA256)."""
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose).derive(secret)


def _sync_directory(path: Path) -> None:
    """Make a new name in C{path} survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
