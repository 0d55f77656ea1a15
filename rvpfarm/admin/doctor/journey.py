"""What came of walking through the farm as a client does (core)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was tried.

    @ivar rule: whose business it is.
    @ivar what: such as C{log in at home hs1 by router r1}.
    @ivar trouble: why it did not work; empty if it did.
    @ivar remedy: what to do then.
    @ivar seconds: how long it took.
    """

    rule: str
    what: str
    trouble: str = ""
    remedy: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Journey:
    """All that was tried, in order.

    @ivar skipped: what could not be tried, and why, in sentences.
    """

    steps: tuple[Step, ...] = ()
    skipped: tuple[str, ...] = ()
