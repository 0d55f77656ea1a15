"""How much work a process takes on, and to whom it reports that."""

from __future__ import annotations

from typing import Protocol


class Metrics(Protocol):
    """What is counted here; see C{rvpfarm.observe.metrics}."""

    def request(self, verb: bytes, status: int, seconds: float) -> None:
        """A request was answered."""

    def rejected(self, reason: str) -> None:
        """Load was turned away.

        @param reason: C{"queue"}, C{"conn"} (too many connections), C{"source"} (too many from there),
            C{"proxy"} (a proxy that is not listed, or does not say for whom it connects) or C{"drain"}.
        """


class Admission:
    """How many requests one process works on, whatever listener they came by (KB 318158).

    @ivar in_work: requests that wait for their answer now.
    """

    __slots__ = ("in_work", "limit")

    def __init__(self, limit: int) -> None:
        """
        @param limit: further ones are answered 503.
        """
        self.limit = limit
        self.in_work = 0
