"""Inputs that broke a promise: kept in files, made smaller, told in a line."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

#: Where findings are kept; git ignores it.  One that stays becomes a test in C{test_regressions.py}.
FINDINGS = Path(__file__).with_name("findings")

#: How many smaller inputs are tried at most.
_TRIES = 4000


def save(directory: Path, name: str, data: bytes) -> Path:
    """The file that now holds C{data}, which broke a promise of the target C{name}."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}-{sha256(data).hexdigest()[:16]}"
    path.write_bytes(data)
    return path


def signature(wrong: BaseException) -> tuple[str, ...]:
    """What makes two failures the same: the kind of exception, and the lines that lead to it."""
    frames = traceback.extract_tb(wrong.__traceback__)
    return (type(wrong).__name__, *(f"{frame.filename}:{frame.lineno}" for frame in frames[-2:]))


def shrink(fuzz_one: Callable[[bytes], None], data: bytes) -> bytes:
    """A smaller input that fails in the same way; C{data} itself if there is none, or it does not fail."""
    wanted = _failure(fuzz_one, data)
    if wanted is None:
        return data
    tries, size = 0, max(len(data) // 2, 1)
    while size and tries < _TRIES:
        at = 0
        while at < len(data) and tries < _TRIES:
            tries += 1
            smaller = data[:at] + data[at + size :]
            if _failure(fuzz_one, smaller) == wanted:
                data = smaller
            else:
                at += size
        size //= 2
    return data


def _failure(fuzz_one: Callable[[bytes], None], data: bytes) -> tuple[str, ...] | None:
    try:
        fuzz_one(data)
    except Exception as wrong:  # whatever it is: that is what is looked for
        return signature(wrong)
    return None
