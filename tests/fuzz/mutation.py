"""An engine of our own, for where atheris cannot be had: seeds, damaged at random and spliced together."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from tests.fuzz.registry import Target

#: What often sits at the edge of something.
_EDGES = (b"\x00", b"\x7f", b"\x80", b"\xff", b"\r", b"\n", b"\r\n", b" ", b"\t", b"0", b"-1", b"9" * 20)

#: Numbers at the edge of a length, a count or a flag.
_NUMBERS = (
    0,
    1,
    2,
    4,
    5,
    9,
    127,
    128,
    255,
    256,
    4095,
    4096,
    65535,
    65536,
    2**31 - 1,
    2**31,
    2**32 - 1,
    10**10,
    10**11,
    10**13,
    2**63,
    2**64 - 1,
    10**20,
)


class Mutator:
    """Makes inputs without end, the same ones again for the same seed."""

    def __init__(self, target: Target, seed: int) -> None:
        """
        @param target: what is damaged, and what with.
        @param seed: decides everything.
        """
        self._seeds = target.seeds or (b"",)
        self._tokens = (*target.tokens, *_EDGES)
        self._longest = target.longest
        self._own = target.steps
        self._random = Random(seed)
        self._steps: tuple[Callable[[bytes], bytes], ...] = (
            self._flip,
            self._overwrite,
            self._insert,
            self._insert,
            self._replace,
            self._delete,
            self._repeat,
            self._move,
            self._splice,
            self._number,
            self._digits,
            self._cut,
        )

    def make(self) -> bytes:
        """The next input."""
        random = self._random
        if random.random() < 0.1:
            return b"".join(random.choices(self._tokens, k=random.randrange(24)))[: self._longest]
        data = random.choice(self._seeds)
        careful = bool(self._own) and random.random() < 0.6
        for _ in range(min(int(random.expovariate(0.5)) + 1, 12)):
            if careful:
                data = random.choice(self._own)(data, random)
            else:
                data = random.choice(self._steps)(data)
        return data[: self._longest]

    def _at(self, data: bytes) -> int:
        return self._random.randrange(len(data) + 1)

    def _span(self, data: bytes) -> tuple[int, int]:
        """Where a piece of C{data} begins and ends: mostly a short one."""
        at = self._at(data)
        size = self._random.randrange(len(data) + 1) if self._random.random() < 0.2 else self._few()
        return at, min(at + size, len(data))

    def _few(self) -> int:
        return min(int(self._random.expovariate(0.25)) + 1, 64)

    def _flip(self, data: bytes) -> bytes:
        if not data:
            return b"\x01"
        at = self._random.randrange(len(data))
        return data[:at] + bytes((data[at] ^ 1 << self._random.randrange(8),)) + data[at + 1 :]

    def _overwrite(self, data: bytes) -> bytes:
        start, end = self._span(data)
        return data[:start] + self._random.randbytes(min(end - start, 8)) + data[end:]

    def _insert(self, data: bytes) -> bytes:
        at = self._at(data)
        return data[:at] + self._random.choice(self._tokens) + data[at:]

    def _replace(self, data: bytes) -> bytes:
        """Another token where there is one now."""
        old, new = self._random.choice(self._tokens), self._random.choice(self._tokens)
        at = data.find(old, self._at(data))
        if at < 0:
            start, end = self._span(data)
            return data[:start] + new + data[end:]
        return data[:at] + new + data[at + len(old) :]

    def _delete(self, data: bytes) -> bytes:
        start, end = self._span(data)
        return data[:start] + data[end:]

    def _repeat(self, data: bytes) -> bytes:
        start, end = self._span(data)
        times = self._random.choice((2, 2, 2, 3, 17, 100))
        return (data[:start] + data[start:end] * times + data[end:])[: 2 * self._longest]

    def _move(self, data: bytes) -> bytes:
        start, end = self._span(data)
        rest = data[:start] + data[end:]
        at = self._at(rest)
        return rest[:at] + data[start:end] + rest[at:]

    def _splice(self, data: bytes) -> bytes:
        other = self._random.choice(self._seeds)
        return data[: self._at(data)] + other[self._at(other) :]

    def _number(self, data: bytes) -> bytes:
        """A number of one to eight octets over what is there."""
        size = self._random.choice((1, 2, 4, 4, 8))
        value = self._random.choice(_NUMBERS) & (1 << 8 * size) - 1
        at = self._at(data)
        octets = value.to_bytes(size, self._random.choice(("big", "little")))
        return data[:at] + octets + data[at + size :]

    def _digits(self, data: bytes) -> bytes:
        """Another number where one is written in digits."""
        at = self._at(data)
        while at < len(data) and not 48 <= data[at] <= 57:
            at += 1
        end = at
        while end < len(data) and 48 <= data[end] <= 57:
            end += 1
        return data[:at] + b"%d" % self._random.choice(_NUMBERS) + data[end:]

    def _cut(self, data: bytes) -> bytes:
        return data[: self._at(data)]
