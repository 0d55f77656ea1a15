"""What to hope of a home that takes no calls now: how long they wait for it, how soon it is tried again."""

from __future__ import annotations

#: What had been sent over a link that broke waits so long for the next one.
PATIENCE_SECONDS = 5.0
#: Calls wait no longer than this for a home that is being replaced; less than any caller waits.
HOLD_SECONDS = 15.0
#: A call that was never sent waits so long for a home that was linked less than so long ago.
GRACE_SECONDS, RECENT_SECONDS = 3.0, 10.0
#: The longest pause between attempts to connect to such a home, and to any other.
RECENT_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 2.0


class Outlook:
    """Whether a home is expected back, and until when.  It owns no clock.

    @ivar was_linked: it has been there before.
    """

    __slots__ = ("_back_by", "_hold_seconds", "_recent_until", "was_linked")

    def __init__(self, hold_seconds: float = HOLD_SECONDS) -> None:
        """
        @param hold_seconds: the longest that calls wait, whatever the home says.
        """
        self._hold_seconds = hold_seconds
        self._back_by = self._recent_until = 0.0
        self.was_linked = False

    def back(self) -> None:
        """The home takes calls."""
        self.was_linked = True
        self._back_by = self._recent_until = 0.0

    def leaving(self, now: float, seconds: float) -> None:
        """The home is about to stop, and says that its next incarnation is worth waiting for so long."""
        self._back_by = now + min(seconds, self._hold_seconds)

    def lost(self, now: float) -> None:
        """The link broke without a word."""
        self._recent_until = now + RECENT_SECONDS

    def replaced(self, now: float) -> bool:
        """Whether the home is being replaced, so that it may be there again at any moment."""
        return now < self._back_by

    def hold(self, now: float) -> float:
        """Until when a call waits of which the home knows nothing; C{now} if it should not wait at all."""
        if now < self._back_by:
            return self._back_by
        return now + GRACE_SECONDS if now < self._recent_until else now

    def hold_sent(self, now: float) -> float:
        """Until when a call waits that the home may be working on."""
        return max(self._back_by, now + PATIENCE_SECONDS)

    def longest_pause(self, now: float) -> float:
        """How long to wait at most before the home is tried again."""
        return RECENT_PAUSE_SECONDS if now < self._recent_until else LONGEST_PAUSE_SECONDS
