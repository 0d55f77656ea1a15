"""The farm key: one secret that every member of a farm holds, and what is derived from it."""

from __future__ import annotations

import base64
import os
import stat
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_SECRET_OCTETS = 32
_NONCE_OCTETS = 12
_MARK_OCTETS = 4
_FILE_LIMIT = 1024

#: First octet of everything sealed.  Both are AES-256-GCM with a random nonce of 12 octets before the text;
#: the second says which key it was, by its mark (L{FarmKey.marks}).
_UNMARKED, _MARKED = b"\x01", b"\x02"

#: What a key of a key file is for: it is used; it will be, and is accepted already; it was, and still is.
USED, NEXT, FORMER = "", "next", "former"


class KeyProblem(ValueError):
    """The farm key cannot be used.  Its text is one sentence with the remedy."""


class FarmKey:
    """The keys of a farm: to prove membership, to sign nonces, and to seal secrets at rest.

    While a key is being replaced there are several: the first is used, the others are accepted.

    @ivar links: prove membership on the farm link, the one that is used first.
    @ivar nonces: sign the nonces of Digest challenges, the one that is used first.
    @ivar snapshot: seals what daemons keep of the directory for when it is down.
    @ivar marks: tell keys apart, in everything sealed and for people; the one that is used first.
    """

    __slots__ = ("_path", "_rest", "links", "marks", "nonces", "snapshot")

    def __init__(self, secret: bytes, *others: bytes, path: Path | None = None) -> None:
        """
        @param secret: the 32 octets that all keys derive from.
        @param others: of the keys that are accepted besides.
        @param path: the file that it came from, looked at again when a key is missing.
        @raise ValueError: one has another length.
        """
        secrets = (secret, *others)
        if any(len(each) != _SECRET_OCTETS for each in secrets):
            raise ValueError(f"a farm key has {_SECRET_OCTETS} octets")
        self._path = path
        self.links = tuple(_derive(each, b"rvpfarm farm link") for each in secrets)
        self.nonces = tuple(_derive(each, b"rvpfarm digest nonces") for each in secrets)
        self.snapshot = _derive(secret, b"rvpfarm directory snapshots")
        self.marks = tuple(_derive(each, b"rvpfarm mark of the key")[:_MARK_OCTETS] for each in secrets)
        self._rest = {
            mark: AESGCM(_derive(each, b"rvpfarm secrets at rest"))
            for mark, each in zip(self.marks, secrets, strict=True)
        }

    @property
    def link(self) -> bytes:
        """The first of L{links}."""
        return self.links[0]

    @property
    def nonce(self) -> bytes:
        """The first of L{nonces}."""
        return self.nonces[0]

    @property
    def prefix(self) -> bytes:
        """What everything begins with that is sealed with the key that is used."""
        return _MARKED + self.marks[0]

    @classmethod
    def load(cls, path: str | Path) -> FarmKey:
        """Read the key file.

        @raise KeyProblem: it is missing, readable by others, or not a key.
        """
        return cls(*(line.secret for line in read_key_file(path)), path=Path(path))

    @classmethod
    def create(cls, path: str | Path) -> FarmKey:
        """Make a new key, and keep it in a new file that only its owner can read.

        @raise OSError: there is something at that path already, or it cannot be written.
        """
        path = Path(path)
        secret = new_secret()
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
        return cls(secret, path=path)

    def seal(self, plain: str, context: str) -> bytes:
        """Encrypt C{plain} so that only this farm can read it, and only as what C{context} says.

        @param context: whose secret it is; L{open} must be told the same.
        """
        nonce, mark = os.urandom(_NONCE_OCTETS), self.marks[0]
        return _MARKED + mark + nonce + self._rest[mark].encrypt(nonce, plain.encode(), context.encode())

    def open(self, sealed: bytes, context: str) -> str:
        """Decrypt what L{seal} made.

        @raise ValueError: it was sealed with another key or for another context, or was changed.
        """
        marks: Sequence[bytes] = self.marks
        body = 1
        if sealed[:1] == _MARKED:
            body += _MARK_OCTETS
            marks = (sealed[1:body],)
            if marks[0] not in self._rest:
                self._look_again()
        if sealed[:1] not in (_UNMARKED, _MARKED) or len(sealed) < body + _NONCE_OCTETS:
            raise ValueError("this is not a sealed secret")
        nonce, text = sealed[body : body + _NONCE_OCTETS], sealed[body + _NONCE_OCTETS :]
        for mark in marks:
            with suppress(InvalidTag, KeyError):
                return self._rest[mark].decrypt(nonce, text, context.encode()).decode()
        raise ValueError("the sealed secret does not fit this farm key")

    def _look_again(self) -> None:
        """The file may have a key by now that was made since it was read."""
        if self._path is not None:
            with suppress(KeyProblem):
                self._rest.update(FarmKey.load(self._path)._rest)


@dataclass(frozen=True, slots=True)
class KeyLine:
    """One line of a key file.

    @ivar role: L{USED}, L{NEXT} or L{FORMER}.
    """

    secret: bytes
    role: str = USED


def read_key_file(path: str | Path) -> list[KeyLine]:
    """What a key file has: the key that is used, then others that are accepted.

    @raise KeyProblem: it is missing, readable by others, or not a key.
    """
    try:
        with Path(path).open("rb") as file:
            status = os.fstat(file.fileno())
            content = file.read(_FILE_LIMIT)
    except FileNotFoundError:
        raise KeyProblem(
            f"There is no farm key at {path}: run 'rvpfarm init', or copy it from another member."
        ) from None
    except OSError as problem:
        raise KeyProblem(f"The farm key {path} cannot be read: {problem.strerror}.") from None
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise KeyProblem(f"The farm key {path} can be read by others: run 'chmod 600 {path}'.")
    try:
        lines = [_key_line(line) for line in content.decode().strip().split("\n")]
    except ValueError:
        lines = []
    if not lines or [line.role for line in lines].count(USED) != 1 or lines[0].role != USED:
        raise KeyProblem(f"The file {path} is not a farm key: it must hold 32 octets as base64 text.")
    return lines


def _key_line(text: str) -> KeyLine:
    """
    @raise ValueError: it is none.
    """
    word, _, role = text.strip().partition(" ")
    secret = base64.b64decode(word, validate=True)
    if len(secret) != _SECRET_OCTETS or role not in (USED, NEXT, FORMER):
        raise ValueError("this is no line of a key file")
    return KeyLine(secret, role)


def write_key_file(path: Path, lines: Sequence[KeyLine]) -> None:
    """Replace a key file, in a way that leaves the old or the new one whatever happens.

    @raise OSError: it cannot be written; the old one is still there.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        status = path.stat()
        with os.fdopen(descriptor, "wb") as file:
            if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(descriptor, status.st_uid, status.st_gid)
            for line in lines:
                file.write(base64.b64encode(line.secret) + f" {line.role}".rstrip().encode() + b"\n")
            file.flush()
            os.fsync(descriptor)
        Path(name).replace(path)
        _sync_directory(path.parent)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise


def new_secret() -> bytes:
    """What the keys of a farm derive from, for one that does not have it yet."""
    return os.urandom(_SECRET_OCTETS)


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
