"""Attempts to connect to one home: one at a time, and no more often than makes sense."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.python.failure import Failure

#: From the attempt to connect to the end of the handshake.
CONNECT_SECONDS = 5.0
#: The first pause before the next attempt to connect.
FIRST_PAUSE_SECONDS = 0.1
#: The shortest and the longest pause while a home is being replaced.
SHORTEST_SOON_SECONDS, LONGEST_SOON_SECONDS = 0.1, 0.25


class Dialler:
    """Connects, again and again, until somebody says that it is enough.

    The pauses grow from failure to failure, and are spread by chance so that many callers do not come at
    once.

    @ivar failures: so many attempts in a row were of no use.
    """

    __slots__ = ("_attempt", "_chance", "_clock", "_endpoint", "_factory", "_over", "_pause", "failures")

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        *,
        clock: IReactorTime,
        chance: Callable[[], float],
        factory: Callable[[float], IProtocolFactory],
        over: Callable[[str, int], None],
    ) -> None:
        """
        @param chance: a number from 0 to 1.
        @param factory: makes what makes the protocol, given when its handshake must have ended.
        @param over: told when an attempt has ended, and if it failed why and with which error number (0 for
            none).
        """
        self._endpoint, self._clock, self._chance = endpoint, clock, chance
        self._factory, self._over = factory, over
        self._attempt: Deferred[IProtocol] | None = None
        self._pause: IDelayedCall | None = None
        self.failures = 0

    @property
    def attempting(self) -> bool:
        """Whether an attempt is under way."""
        return self._attempt is not None

    def want(self) -> None:
        """Connect, unless that is under way or has just failed."""
        if self._attempt is None and self._pause is None:
            self._connect()

    def later(self, longest: float) -> None:
        """Connect after a pause that grows with the failures.

        @param longest: up to so many seconds.
        """
        pause = min(FIRST_PAUSE_SECONDS * 2.0 ** min(self.failures, 10), longest)
        self._after(pause * (0.5 + 0.5 * self._chance()))

    def soon(self) -> None:
        """Connect after a short pause: the home is expected back."""
        spread = LONGEST_SOON_SECONDS - SHORTEST_SOON_SECONDS
        self._after(SHORTEST_SOON_SECONDS + spread * self._chance())

    def stop(self) -> None:
        """Try no more; an attempt under way is given up."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        if self._attempt is not None:
            self._attempt.cancel()

    def _after(self, seconds: float) -> None:
        if self._pause is None and self._attempt is None:
            self._pause = self._clock.callLater(seconds, self._connect)

    def _connect(self) -> None:
        self._pause = None
        factory = self._factory(self._clock.seconds() + CONNECT_SECONDS)
        attempt = self._attempt = self._endpoint.connect(factory)
        late = self._clock.callLater(CONNECT_SECONDS, attempt.cancel)

        def over(result: IProtocol | Failure) -> None:
            if late.active():
                late.cancel()
            self._attempt = None
            why = result.getErrorMessage() if isinstance(result, Failure) else "closed at once"
            problem = result.value if isinstance(result, Failure) else None
            number = getattr(problem, "osError", getattr(problem, "errno", None))
            self._over(why or "connecting took too long", number if isinstance(number, int) else 0)

        attempt.addBoth(over)
