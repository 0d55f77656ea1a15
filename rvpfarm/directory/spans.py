"""How long something took, as people say it (core)."""

from __future__ import annotations

_UNITS = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))


def spell_span(seconds: float) -> str:
    """C{seconds} in the largest unit of which there are two, rounded down: C{"36 hours"}, C{"1 second"}."""
    whole = max(0, int(seconds))
    for size, unit in _UNITS:
        if whole >= 2 * size:
            return f"{whole // size} {unit}s"
    return f"{whole} second{'' if whole == 1 else 's'}"
