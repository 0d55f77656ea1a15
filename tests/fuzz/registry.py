"""What can be fuzzed, by name.  Nothing under test is imported before it is loaded: atheris instruments it then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from random import Random

#: The modules of targets, each of which has C{fuzz_one}, C{seeds} and C{TOKENS}, perhaps
#: C{LONGEST} and C{STEPS}.
NAMES = (
    "reader",
    "responses",
    "chunks",
    "xml",
    "bodies",
    "notifications",
    "mime",
    "address",
    "headers",
    "digest",
    "ntlm",
    "negotiate",
    "gate",
    "frames",
    "preamble",
    "forwarded",
    "snapshot",
)


@dataclass(frozen=True, slots=True)
class Target:
    """One thing to be fuzzed.

    @ivar fuzz_one: raises if C{data} makes it break a promise.
    @ivar seeds: valid inputs, and famous invalid ones.
    @ivar tokens: what inputs are made of.
    @ivar longest: no input has more octets.
    @ivar steps: ways of damaging an input that know what it is made of.
    """

    name: str
    fuzz_one: Callable[[bytes], None]
    seeds: tuple[bytes, ...]
    tokens: tuple[bytes, ...]
    longest: int
    steps: tuple[Callable[[bytes, Random], bytes], ...]


def load(name: str) -> Target:
    """The target C{name}.

    @raise KeyError: there is none.
    """
    if name not in NAMES:
        raise KeyError(name)
    module = import_module(f"tests.fuzz.target_{name}")
    longest = getattr(module, "LONGEST", 2048)
    seeds = tuple(dict.fromkeys(seed[:longest] for seed in module.seeds()))
    steps = tuple(getattr(module, "STEPS", ()))
    return Target(name, module.fuzz_one, seeds, tuple(module.TOKENS), longest, steps)
