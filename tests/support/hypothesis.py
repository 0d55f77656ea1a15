"""How property tests run here: modestly, without deadlines, and leaving nothing behind."""

from __future__ import annotations

from hypothesis import settings

#: Decorates every property test.
MODEST = settings(max_examples=100, deadline=None, database=None)
