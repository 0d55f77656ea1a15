"""Replacing the farm key while everything runs: a new one is made, then used, then the old one dropped.

Between two steps the key file is copied to every machine and the daemons are started anew, in any order: all
of them accept what those of the step before and of the step after use.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rvpfarm.admin.actors import default_actor
from rvpfarm.admin.checks import Refused
from rvpfarm.admin.ldap import ldap_of, set_ldap
from rvpfarm.auth.keys import (
    FORMER,
    NEXT,
    USED,
    FarmKey,
    KeyLine,
    KeyProblem,
    new_secret,
    read_key_file,
    write_key_file,
)
from rvpfarm.directory.ldapsettings import LdapSettings
from rvpfarm.directory.ldapsource import is_sealed_with, reader_password
from rvpfarm.directory.store import Store


@dataclass(frozen=True, slots=True)
class KeyView:
    """One key of the key file.

    @ivar fingerprint: tells it from others; nothing follows from it.
    @ivar role: C{"used"}, C{"next"} for one that is accepted and will be used, or C{"former"}.
    @ivar sealed: how many secrets of the directory are sealed with it and say so.
    """

    fingerprint: str
    role: str
    sealed: int


@dataclass(frozen=True, slots=True)
class KeysView:
    """The keys of the key file, and what is sealed otherwise.

    @ivar unmarked: how many secrets do not say which key they are sealed with: they are older than that.
    @ivar foreign: how many are sealed with a key that the file does not have.
    """

    keys: tuple[KeyView, ...]
    unmarked: int
    foreign: int


@dataclass(frozen=True, slots=True)
class Sealed:
    """How far sealing anew has come.

    @ivar done: so many secrets were sealed anew.
    @ivar total: of so many.
    """

    done: int
    total: int


def show_keys(store: Store, key_file: Path) -> KeysView:
    """The keys, and how much is sealed with each.

    @raise Refused: the key file cannot be read.
    """
    lines, counts = _lines(key_file), dict(store.count_sealed())
    views = tuple(
        KeyView(mark.hex(), line.role or "used", counts.pop(b"\x02" + mark, 0))
        for line, mark in zip(lines, _key(lines).marks, strict=True)
    )
    unmarked = sum(count for prefix, count in counts.items() if prefix[:1] == b"\x01")
    return KeysView(views, unmarked, sum(counts.values()) - unmarked)


def make_key(store: Store, key_file: Path, *, actor: str | None = None, dry_run: bool = False) -> str:
    """The first step: a new key is in the key file, and accepted, but not used.

    @param dry_run: only find out whether it can be done.
    @return: its fingerprint; empty for a dry run.
    @raise Refused: a key is being replaced already, or the file cannot be written.
    """
    lines = _lines(key_file)
    if len(lines) > 1:
        raise Refused('a key is being replaced already; "rvpfarm key show" says how far that is')
    if dry_run:
        return ""
    lines.append(KeyLine(new_secret(), NEXT))
    mark = _key(lines).marks[1].hex()
    _write(key_file, lines)
    with store.change(actor or default_actor(), "key rotate", "farm key") as writing:
        writing.note("made", "", mark)
    return mark


def use_key(key_file: Path) -> str:
    """The second step: the next key of the key file is used from now on, and the one before is accepted.

    Nothing is sealed with it yet; L{seal_all} comes after this.  Once done, it does nothing more.

    @return: the fingerprint of the one that is used.
    @raise Refused: the file cannot be read or written.
    """
    lines = _lines(key_file)
    coming = [line for line in lines if line.role == NEXT]
    if coming:
        lines = [
            KeyLine(coming[0].secret),
            *(KeyLine(line.secret, FORMER) for line in lines if line.role != NEXT),
        ]
        _write(key_file, lines)
    return _key(lines).marks[0].hex()


def seal_all(store: Store, *, actor: str | None = None) -> Iterator[Sealed]:
    """Seal everything with the key that is used, some accounts at a time; what was done stays done.

    @param store: with the key file as it is now.
    @raise DirectoryUnavailable: the directory cannot be used, or there is no farm key.
    """
    counts, key = store.count_sealed(), store.sealer
    assert isinstance(key, FarmKey)
    total = sum(count for prefix, count in counts.items() if prefix != key.prefix)
    done, after = 0, ""
    yield Sealed(0, total)
    while True:
        some, last = store.seal_anew(key.prefix, after)
        done += some
        if last is None:
            break
        after = last
        yield Sealed(done, max(total, done))
    settings = _reader_elsewise(store, key)
    if settings is not None:
        set_ldap(store, settings, reader_password(settings, key), actor=actor)
    store.seal_check(actor or default_actor(), key.marks[0].hex())


def retire_keys(
    store: Store, key_file: Path, *, actor: str | None = None, dry_run: bool = False
) -> tuple[str, ...]:
    """The last step: the key file has the key that is used, and no other any more.

    @param dry_run: only find out whether it can be done.
    @return: the fingerprints of those that were dropped.
    @raise Refused: something is sealed with another key still, or there is none to drop.
    """
    lines = _lines(key_file)
    key = _key(lines)
    if len(lines) == 1:
        raise Refused('there is one farm key, and it is used; "rvpfarm key rotate" replaces it')
    if any(line.role == NEXT for line in lines):
        raise Refused('the new farm key is not used yet; "rvpfarm key rotate" does that')
    others = sum(count for prefix, count in store.count_sealed().items() if prefix != key.prefix)
    others += _reader_elsewise(store, key) is not None
    if others or store.check_prefix() != key.prefix:
        raise Refused(
            f"not everything is sealed with the key that is used, {others} secrets are not; "
            '"rvpfarm key rotate" seals them'
        )
    dropped = tuple(mark.hex() for mark in key.marks[1:])
    if not dry_run:
        with store.change(actor or default_actor(), "key retire", "farm key") as writing:
            writing.note("retired", list(dropped), [])
        _write(key_file, [line for line in lines if line.role == USED])
    return dropped


def _reader_elsewise(store: Store, key: FarmKey) -> LdapSettings | None:
    """The settings of LDAP, if their password is sealed with another key than the one that is used."""
    settings = ldap_of(store)
    if settings is None or not settings.sealed or is_sealed_with(settings, key.prefix):
        return None
    return settings


def _key(lines: list[KeyLine]) -> FarmKey:
    return FarmKey(*(line.secret for line in lines))


def _lines(key_file: Path) -> list[KeyLine]:
    try:
        return read_key_file(key_file)
    except KeyProblem as problem:
        sentence = str(problem).removesuffix(".")
        raise Refused(sentence[:1].lower() + sentence[1:]) from problem


def _write(key_file: Path, lines: list[KeyLine]) -> None:
    try:
        write_key_file(key_file, lines)
    except OSError as problem:
        raise Refused(
            f"cannot write the farm key {key_file}: {problem.strerror}; run this as who owns it"
        ) from problem
