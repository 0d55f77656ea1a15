"""Following what changes in the directory: is it there, and how old is what is known of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from rvpfarm.directory.asking import Source, Threads
from rvpfarm.directory.model import DirectoryUnavailable, Farm
from rvpfarm.directory.reading import Changes
from rvpfarm.directory.spans import spell_span

#: That there is nobody is believed only if the directory was heard of within so many looks at its changes:
#: who was made just before it went down must not be told that he does not exist.
_LOOKS = 3


class Feed:
    """Reads the feed of changes, again and again, whatever happens to the directory.

    @ivar position: how far it was read.
    @ivar mark: of the directory that C{position} is of.
    @ivar trouble: why the directory cannot be asked, if so.
    @ivar outdated: the directory was not heard of for longer than L{limit_seconds}.
    @ivar limit_seconds: for how long what is known serves without news (policy C{directory-staleness}).
    """

    _log = Logger()

    def __init__(
        self,
        source: Source,
        # Any: time and threads, which no one interface has together
        reactor: Any,
        threads: Threads,
        apply: Callable[[Changes, Farm | None], None],
        expire: Callable[[], object],
        *,
        poll_seconds: float,
        answer_seconds: float,
    ) -> None:
        """
        @param apply: told what changed, and the farm if that may be another one.
        @param expire: called when C{outdated} becomes true.
        """
        self._source, self._reactor, self._threads = source, reactor, threads
        self._apply, self._expire = apply, expire
        self._poll_seconds, self._answer_seconds = poll_seconds, answer_seconds
        self._timer: IDelayedCall | None = None
        self._looking: float | None = None
        self._again = False
        self._confirmed: float | None = None
        self.position, self.mark = 0, ""
        self.trouble = ""
        self.outdated = False
        self.limit_seconds = 0.0

    @property
    def begun(self) -> bool:
        """Is anything known at all?"""
        return self._confirmed is not None

    @property
    def staleness_seconds(self) -> float:
        """How long ago what is known was last known to be current."""
        return 0.0 if self._confirmed is None else max(0.0, self._reactor.seconds() - self._confirmed)

    @property
    def heard(self) -> bool:
        """Did the directory answer just now?"""
        return not self.trouble and self.staleness_seconds <= _LOOKS * self._poll_seconds

    def recall(self, position: int, mark: str, age_seconds: float) -> None:
        """Go on from where somebody was C{age_seconds} ago; L{load} comes after this."""
        self.position, self.mark = position, mark
        self._confirmed = self._reactor.seconds() - age_seconds

    def load(self) -> None:
        """Read now, waiting for it.

        @raise DirectoryUnavailable: the directory cannot be used, with a sentence that says why, and nothing
            was recalled that could stand in for it.
        """
        try:
            if self.begun:
                self._catch_up()
            else:
                # the position first: what changes in between is then looked at again
                self.position = self._source.position()
            self._take(Changes(self.position, farm=True, mark=self.mark), self._source.farm())
        except DirectoryUnavailable as problem:
            if not self.begun:
                raise
            self._lose(str(problem))
        else:
            self._confirmed = self._reactor.seconds()

    def _catch_up(self) -> None:
        """Read everything that changed since."""
        more = True
        while more:
            changes = self._source.changes_since(self.position, self.mark)
            self._take(changes, None)
            more = changes.more

    def start(self) -> None:
        """Follow the changes from now on."""
        self._timer = self._reactor.callLater(self._poll_seconds, self._tick)

    def hasten(self) -> None:
        """Look now, if changes are followed; a look that has begun may be too early for what is new."""
        if self._timer is not None:
            self._again = self._looking is not None
            self._timer.reset(0)

    def stop(self) -> None:
        """Follow no longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        """See what changed, if the last look has ended, and how old everything is."""
        self._timer = self._reactor.callLater(self._poll_seconds, self._tick)
        if self._looking is None:
            self._look()
        elif self._reactor.seconds() - self._looking >= self._answer_seconds:
            self._lose("it does not answer in time")
        if not self.outdated and self.staleness_seconds > self.limit_seconds:
            self.outdated = True
            self._log.error(
                "the directory has not answered for {span}: nothing that is known of it is served any more",
                span=spell_span(self.staleness_seconds),
            )
            self._expire()

    def _look(self) -> None:
        """See what changed, in a thread."""
        asked = self._looking = self._reactor.seconds()

        def looked(success: bool, result: Any) -> None:
            self._reactor.callFromThread(self._looked, asked, success, result)

        # after an outage the farm may be another one though nobody says that it changed
        whole = bool(self.trouble)
        self._threads.callInThreadWithCallback(looked, self._read, self.position, self.mark, whole)

    def _read(self, position: int, mark: str, whole: bool) -> tuple[Changes, Farm | None]:
        """Runs in a thread."""
        changes = self._source.changes_since(position, mark)
        return changes, self._source.farm() if changes.farm or whole else None

    def _looked(self, asked: float, success: bool, result: Any) -> None:
        """The feed of changes was read, or could not be."""
        self._looking = None
        if self._timer is None:
            return
        if success:
            changes, farm = result
            self._regain()
            if not changes.more:
                self._confirmed = asked
            self._take(changes, farm)
            if changes.more or self._again:
                self._again = False
                self._look()
        elif result.check(DirectoryUnavailable):
            self._lose(str(result.value))
        else:
            self._log.failure("the changes of the directory cannot be read", failure=result)

    def _take(self, changes: Changes, farm: Farm | None) -> None:
        """Go on from there."""
        self.position, self.mark = changes.position, changes.mark
        self._apply(changes, farm)

    def _lose(self, reason: str) -> None:
        """The directory cannot be asked."""
        if not self.trouble:
            self._log.warn(
                "the directory cannot be asked: {reason}; "
                "what was known {age} ago is served until it is {limit} old",
                reason=reason,
                age=spell_span(self.staleness_seconds),
                limit=spell_span(self.limit_seconds),
            )
        self.trouble = reason or "the directory cannot be asked"

    def _regain(self) -> None:
        """The directory answers."""
        if self.trouble:
            span = spell_span(self.staleness_seconds)
            self._log.info("the directory answers again, after {span}", span=span)
        self.trouble, self.outdated = "", False
