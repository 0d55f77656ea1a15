"""Python's search for garbage, kept from stopping the loop of a home with millions of objects (shell).

A full search looks at every object that there is: some 0.1 us for each, which is half a second for the three
million subscriptions of a hundred thousand users.  It is called for whenever a quarter more than at the last
one have come to stay.  What a home keeps has no circles and goes with its last reference, so none of it is
worth looking at: it is frozen, which is to say that a search passes over it.

What is frozen while it is part of a circle stays for good.  That can only be what is under way at that
moment, such as a connection, and it is frozen rarely: each time that so much has come to stay that a search
took L{LONGEST_SECONDS}.  A small home never comes to that.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from twisted.application.service import Service

#: How long a full search may take before what it found in use is not looked at again.
LONGEST_SECONDS = 0.05
#: After so many new objects the youngest are searched, and so on.  With a thousand calls under way a search
#: after every 700, as is usual, finds nothing but what is still in use, and finds it again and again.
THRESHOLDS = (5000, 5, 10)
#: So many objects at once are worth freezing.
MANY = 100_000


@contextmanager
def lasting() -> Iterator[None]:
    """What is made in here stays: no search looks at it, now or, if it is much, later."""
    enabled = gc.isenabled()
    gc.disable()  # or it would be looked at again and again while it grows
    try:
        yield
    finally:
        if gc.get_count()[0] > MANY:
            gc.freeze()  # first, or the next object made would have all of it looked at
        if enabled:
            gc.enable()


class GarbageWatch(Service):
    """Sees to it that searches for garbage are few, and none takes much longer than L{LONGEST_SECONDS}."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, freeze: Callable[[], None] = gc.freeze
    ) -> None:
        """
        @param clock: measures spans of time.
        @param freeze: has all that there is passed over from now on.
        """
        self._clock, self._freeze = clock, freeze
        self._began = 0.0
        self._before = gc.get_threshold()

    def startService(self) -> None:
        """Begin to look at the searches."""
        super().startService()
        self._before = gc.get_threshold()
        gc.set_threshold(*THRESHOLDS)
        gc.callbacks.append(self.searched)

    def stopService(self) -> None:
        """Leave the collector as it was."""
        super().stopService()
        gc.callbacks.remove(self.searched)
        gc.set_threshold(*self._before)

    def searched(self, phase: str, info: dict[str, int]) -> None:
        """A search for garbage starts or stops; the collector says so itself.

        @param info: C{generation} is 2 for a full one.
        """
        if info["generation"] < 2:
            return
        if phase == "start":
            self._began = self._clock()
            return
        if self._clock() - self._began > LONGEST_SECONDS:
            self._freeze()  # and no log line: this is called wherever an object is made, in any thread
