"""Python's search for garbage, at the pace of a router (shell).

A search begins whenever so many more objects have been made than have gone.  A router has a dozen for each
call under way, and none of them is garbage: they go with the answer.  By the usual count of 700 the calls of
a thousand callers were searched again and again while they waited, taken for objects that last, and so
brought on searches of everything there is: a fifth of all the work.
"""

from __future__ import annotations

import gc

from twisted.application.service import Service

#: So many objects, of the calls of some thousand callers, may be under way without being searched.
UNDER_WAY = 20_000


class GarbagePace(Service):
    """Sees to it that calls under way are not searched for garbage; what they leave is found later."""

    def __init__(self) -> None:
        self._before = gc.get_threshold()

    def startService(self) -> None:
        """Search seldom from now on."""
        super().startService()
        self._before = gc.get_threshold()
        gc.set_threshold(UNDER_WAY, *self._before[1:])

    def stopService(self) -> None:
        """Leave the collector as it was."""
        super().stopService()
        gc.set_threshold(*self._before)
