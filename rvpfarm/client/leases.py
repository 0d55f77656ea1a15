"""Keeping leases alive: each is renewed a while before it ends, for as long as it is wanted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from rvpfarm.client.errors import NotDone
from rvpfarm.protocol.calls import Unreachable

#: Old clients renew a subscription five minutes before its end (KB 298421).
_EARLY_SECONDS = 300.0

#: After a failure: the first and the longest wait.
_FIRST_PAUSE = 2.0
_LONGEST_PAUSE = 60.0


def subscription_due(granted: float) -> float:
    """When to renew a subscription: five minutes before its end, or at three quarters of a short one."""
    return max(granted - _EARLY_SECONDS, granted * 0.75)


def presence_due(granted: float) -> float:
    """When to renew a presence: at three quarters, so that watchers never see a false offline."""
    return granted * 0.75


class Renewal:
    """Renews one lease whenever it is due; after a failure sooner, and again until it works."""

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        name: str,
        renew: Callable[[], Awaitable[float]],
        due: Callable[[float], float],
        trouble: Callable[[str], None],
    ) -> None:
        """
        @param name: what is kept, for the log.
        @param renew: ask for the lease again, and say for how many seconds it was granted.
        @param due: how long after it was granted a lease of so many seconds is to be renewed.
        @param trouble: told once when renewing begins to fail, in a sentence.
        """
        self._clock = clock
        self._name = name
        self._renew = renew
        self._due = due
        self._trouble = trouble
        self._timer: IDelayedCall | None = None
        self._running: Deferred[None] | None = None
        self._stopped = False
        self._pause = 0.0

    def granted(self, seconds: float) -> None:
        """The lease has just been granted for so long."""
        self._pause = 0.0
        self._schedule(self._due(seconds))

    def stop(self) -> Deferred[None]:
        """Let it run out; fires when nothing is under way any more."""
        self._stopped = True
        self._cancel_timer()
        if self._running is None:
            return succeed(None)
        done: Deferred[None] = Deferred()
        self._running.addBoth(lambda _: done.callback(None))
        self._running.cancel()
        return done

    def _schedule(self, seconds: float) -> None:
        self._cancel_timer()
        if not self._stopped:
            self._timer = self._clock.callLater(seconds, self._begin)

    def _cancel_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _begin(self) -> None:
        self._timer = None
        self._running = Deferred.fromCoroutine(self._renewed())
        if self._running.called:
            self._running = None

    async def _renewed(self) -> None:
        try:
            seconds = await self._renew()
        except CancelledError:
            self._running = None
            return
        except (NotDone, Unreachable) as error:
            self._failed(str(error))
        except Exception:  # or the lease would end without another try
            self._log.failure("renewing {name} failed", name=self._name)
            self._failed(f"renewing {self._name} failed")
        else:
            self.granted(seconds)
        self._running = None

    def _failed(self, sentence: str) -> None:
        first = not self._pause
        self._pause = min(self._pause * 2 or _FIRST_PAUSE, _LONGEST_PAUSE)
        self._schedule(self._pause)
        if first:
            self._log.warn("{name} could not be renewed: {why}", name=self._name, why=sentence)
            self._trouble(sentence)
