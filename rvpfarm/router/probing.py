"""Asks every home again and again whether it is there, so that callers need not find out."""

from __future__ import annotations

from collections.abc import Callable
from random import random
from typing import TYPE_CHECKING

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from rvpfarm.directory.model import Directory
from rvpfarm.link.links import Links
from rvpfarm.protocol.calls import Slow, Unreachable, Untried
from rvpfarm.router.health import Health, Outcome, State

if TYPE_CHECKING:
    from rvpfarm.observe.metrics import Metrics

#: Between two probes of one home, and by which part that varies, so that many routers do not ask at once.
PROBE_SECONDS, JITTER = 5.0, 0.2
#: How long a home has for its answer.
ANSWER_SECONDS = 3.0
#: A home that has just begun to answer again, or that is new, is asked sooner (HAProxy: fastinter).
SOON_SECONDS = 1.0
#: So many times is a home asked soon that never answered; it may not be there at all.
NEW_TRIES = 20
#: Within this time after the start every home is asked for the first time.
START_SECONDS = 0.5


class _Round:
    """The probes of one home, one after the other.

    @ivar tries: how many there were.
    @ivar began: when the latest one did.
    """

    __slots__ = ("asking", "began", "timer", "tries")

    def __init__(self) -> None:
        self.tries = 0
        self.began = 0.0
        self.timer: IDelayedCall | None = None
        self.asking: Deferred[None] | None = None

    def stop(self) -> None:
        """Ask no more."""
        timer, asking, self.timer, self.asking = self.timer, self.asking, None, None
        if timer is not None:
            timer.cancel()
        if asking is not None:
            asking.cancel()


class Prober(Service):
    """Probes every home that the directory has, over the farm link that calls take.

    That keeps the links open as well, so that the first call after a quiet night is a quick one.  The homes
    themselves do not probe each other, or their traffic would grow with the square of their number.
    """

    _log = Logger()

    def __init__(
        self,
        directory: Directory,
        links: Links,
        health: Health,
        *,
        clock: IReactorTime,
        metrics: Metrics | None = None,
        own_home: str | None = None,
        probing: bool | None = None,
        chance: Callable[[], float] = random,
    ) -> None:
        """
        @param health: is told what comes of it.
        @param own_home: the id of the home that this process is, if it is one; it is never probed.
        @param probing: whether homes are probed at all; if not given, by a process that is no home.
        @param chance: a number from 0 to 1, to spread the probes of many.
        """
        self._directory, self._links, self._health = directory, links, health
        self._clock, self._metrics, self._chance = clock, metrics, chance
        self._own_home = own_home
        self._probing = own_home is None if probing is None else probing
        self._rounds: dict[str, _Round] = {}
        directory.watch(self._changed)

    @property
    def probing(self) -> bool:
        """Whether homes are probed."""
        return self._probing and bool(self.running)

    def startService(self) -> None:
        """Begin to ask."""
        super().startService()
        self._follow()

    def stopService(self) -> None:
        """Ask no more."""
        super().stopService()
        for id in tuple(self._rounds):
            self._rounds.pop(id).stop()

    def _changed(self, key: str | None) -> None:
        if key is None:
            self._follow()

    def _follow(self) -> None:
        """Ask the homes that there are now."""
        if not self.probing:
            return
        homes = self._directory.farm().homes
        for id in [id for id in self._rounds if id not in homes]:
            self._rounds.pop(id).stop()
        for id in homes:
            if id not in self._rounds and id != self._own_home:
                self._rounds[id] = _Round()
                self._later(id, self._chance() * START_SECONDS)

    def _later(self, id: str, seconds: float) -> None:
        now = self._clock.seconds()
        self._health.of(id, now).probe_at = now + seconds
        self._rounds[id].timer = self._clock.callLater(seconds, self._ask, id)

    def _ask(self, id: str) -> None:
        """Probe one home."""
        round, home = self._rounds[id], self._directory.farm().homes[id]
        round.timer = None
        round.tries += 1
        round.began = self._clock.seconds()
        try:
            asking = self._links.to(home).probe(ANSWER_SECONDS)
        except Untried as problem:
            self._ended(id, round, Outcome.OWN, str(problem))
            return
        round.asking = asking
        asking.addCallbacks(
            lambda _: self._ended(id, round, Outcome.ANSWERED),
            lambda failure: self._ended(id, round, self._outcome(failure), failure.getErrorMessage()),
        )
        asking.addErrback(self._broken, id, round)

    def _outcome(self, failure: Failure) -> Outcome:
        """What a failed probe tells about the home."""
        if failure.check(Slow):
            return Outcome.SLOW
        if failure.check(Untried, CancelledError):
            return Outcome.OWN
        if not failure.check(Unreachable):
            self._log.failure("a home could not be probed", failure)
            return Outcome.OWN
        return Outcome.UNREACHABLE

    def _ended(self, id: str, round: _Round, outcome: Outcome, why: str = "") -> None:
        """Note what came of a probe, and set the time of the next one."""
        round.asking = None
        home = self._directory.farm().homes.get(id)
        if home is None or self._rounds.get(id) is not round:
            return  # the home is gone, or we are
        now = self._clock.seconds()
        if self._metrics is not None and outcome is not Outcome.OWN:
            self._metrics.probe(now - round.began)
        standing = self._health.of(id, now)
        state = standing.probed(outcome, now)
        flapping = standing.is_flapping(now)
        if state is not None:
            self._tell(home.name, state, why, flapping)
        soon = (standing.rising and not flapping) or (not standing.was_up and round.tries < NEW_TRIES)
        seconds = SOON_SECONDS if soon else PROBE_SECONDS
        due = round.began + seconds * (1 - JITTER + 2 * JITTER * self._chance())
        self._later(id, max(due - now, 0.0))

    def _tell(self, name: str, state: State, why: str, flapping: bool) -> None:
        """Something else is believed of a home: that is worth a line."""
        often = "; it comes and goes, and is believed later" if flapping else ""
        if state is State.DOWN:
            self._log.warn("home {home} is down: {why}{often}", home=name, why=why, often=often)
        else:
            self._log.info("home {home} is up{often}", home=name, often=often)

    def _broken(self, failure: Failure, id: str, round: _Round) -> None:
        """A fault of ours: it must not be the end of the probes."""
        self._log.failure("a probe could not be noted", failure)
        if self._rounds.get(id) is round and round.timer is None:
            self._later(id, PROBE_SECONDS)
