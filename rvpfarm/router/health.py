"""Which homes answer: a home that cannot be reached is not asked by every caller in turn."""

from __future__ import annotations


class Circuit:
    """Whether it is worth asking one home.  It owns no clock.

    After some failures in a row nobody asks for a while; then one call at a time tries whether the home
    is back.
    """

    __slots__ = ("_failures", "_open_seconds", "_row", "_until")

    def __init__(self, failures: int = 5, open_seconds: float = 2.0) -> None:
        """
        @param failures: so many in a row open the circuit.
        @param open_seconds: how long nobody asks.
        """
        self._failures = failures
        self._open_seconds = open_seconds
        self._row = 0
        self._until = 0.0

    @property
    def healthy(self) -> bool:
        """Whether the last call did not fail."""
        return self._row == 0

    def allow(self, now: float) -> bool:
        """Whether the home may be asked; a true answer is meant for one call."""
        if self._row < self._failures:
            return True
        if now < self._until:
            return False
        # this call tries it; if nothing is heard of it, another may after the same time
        self._until = now + self._open_seconds
        return True

    def succeeded(self) -> None:
        """The home has answered."""
        self._row = 0

    def failed(self, now: float) -> None:
        """The home could not be reached."""
        self._row += 1
        if self._row >= self._failures:
            self._until = now + self._open_seconds

    def seconds_left(self, now: float) -> float:
        """How long until it is worth asking again."""
        return max(0.0, self._until - now) if self._row >= self._failures else 0.0
