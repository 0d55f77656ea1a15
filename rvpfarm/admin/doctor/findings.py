"""What a check says: how bad it is, what is wrong, and what mends it (core)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Severity(IntEnum):
    """How bad it is; the worst has the highest number."""

    INFO = 0
    WARNING = 1
    ERROR = 2

    @property
    def word(self) -> str:
        """For people and programs."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    @ivar rule: the id of the rule that found it, such as C{D22}.
    @ivar what: is wrong, in a sentence without its full stop.
    @ivar remedy: the exact command, or the record, that mends it.
    """

    rule: str
    severity: Severity
    what: str
    remedy: str


def error(rule: str, what: str, remedy: str) -> Finding:
    """Somebody cannot work."""
    return Finding(rule, Severity.ERROR, what, remedy)


def warning(rule: str, what: str, remedy: str) -> Finding:
    """Somebody will not be able to work soon, or some cannot now."""
    return Finding(rule, Severity.WARNING, what, remedy)


def info(rule: str, what: str, remedy: str) -> Finding:
    """Works as designed, and may surprise."""
    return Finding(rule, Severity.INFO, what, remedy)
