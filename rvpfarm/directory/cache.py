"""What a daemon remembers of the directory: bounded, invalidated, and good enough when it is down."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from rvpfarm.directory.model import Account, DirectoryUnavailable, Farm
from rvpfarm.directory.reading import Changes

if TYPE_CHECKING:
    from rvpfarm.observe.metrics import Metrics


class Source(Protocol):
    """A directory that is asked in threads, and may be slow or down.

    Each question fails with L{DirectoryUnavailable} when there is no answer now.
    """

    def position(self) -> int:
        """The end of the feed of changes."""

    def farm(self) -> Farm:
        """Everything farm-wide."""

    def account(self, key: str) -> Account | None:
        """The account of the node C{key}, with its verifiers."""

    def changes_since(self, position: int) -> Changes:
        """What changed after C{position}."""

    def close(self) -> None:
        """Nothing more will be asked."""


class Threads(Protocol):
    """Where the source is asked: Twisted's C{ThreadPool}, or a test's own."""

    def start(self) -> None:
        """Be ready."""

    def stop(self) -> None:
        """Finish what was begun."""

    # The results are whatever the function returns.
    def callInThreadWithCallback(
        self, onResult: Callable[[bool, Any], None] | None, func: Callable[..., Any], *args: Any
    ) -> None:
        """Call C{func} in a thread and there C{onResult(success, result or failure)}."""


class _Entry:
    """What is remembered of one key.

    @ivar account: C{None} when there was none.
    @ivar until: when knowing that there is none has to be confirmed.
    @ivar fresh: nobody said that it changed; otherwise it serves only while the directory is down.
    """

    __slots__ = ("account", "fresh", "until")

    def __init__(self, account: Account | None, until: float) -> None:
        self.account = account
        self.until = until
        self.fresh = True


class _Question:
    """One question on its way to the source, and who waits for its answer, each until a time of its own.

    @ivar current: the answer may be remembered: nothing changed since the question was put.
    """

    __slots__ = ("asked", "current", "waiting")

    def __init__(self, asked: float) -> None:
        self.asked = asked
        self.current = True
        self.waiting: dict[Deferred[Account | None], IDelayedCall] = {}

    def leave(self, waiter: Deferred[Account | None]) -> None:
        """C{waiter} waits no longer, if it still did."""
        timer = self.waiting.pop(waiter, None)
        if timer is not None and timer.active():
            timer.cancel()


class CachedDirectory(Service):
    """A L{rvpfarm.directory.model.Directory} over a slower L{Source}.

    Accounts stay until the feed of changes names them; when the source cannot be asked, the last good
    record serves on, however old.

    @ivar position: how far the feed of changes was read.
    """

    _log = Logger()

    def __init__(
        self,
        source: Source,
        # Any: time and threads, which no one interface has together
        reactor: Any,
        *,
        size: int = 200_000,
        negative_seconds: float = 10.0,
        poll_seconds: float = 1.0,
        answer_seconds: float = 5.0,
        questions: int = 2_000,
        metrics: Metrics | None = None,
        threads: Threads | None = None,
    ) -> None:
        """
        @param size: most keys remembered; the least recently used ones go.
        @param negative_seconds: how long "there is none" is believed.
        @param poll_seconds: between two looks at the feed of changes.
        @param answer_seconds: how long somebody waits for the source.
        @param questions: most look-ups on their way at once.
        @param threads: where the source is asked; left out, four threads of its own.
        """
        self._source = source
        self._reactor = reactor
        self._size = size
        self._negative_seconds = negative_seconds
        self._poll_seconds = poll_seconds
        self._answer_seconds = answer_seconds
        self._most_questions = questions
        self._metrics = metrics
        self._threads: Threads = threads or ThreadPool(0, 4, "directory")
        self._farm = Farm()
        self._loaded = False
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._questions: dict[str, _Question] = {}
        self._underway: dict[_Question, str] = {}
        self._watchers: list[Callable[[str | None], None]] = []
        self._poll: Any = None
        self._down = False
        self._confirmed = 0.0
        self.position = 0
        if metrics is not None:
            metrics.gauge("directory_staleness_seconds", lambda: self.staleness_seconds)
            metrics.gauge("directory_cache_size", lambda: len(self._entries))

    @property
    def staleness_seconds(self) -> float:
        """How long ago what is remembered was last known to be current."""
        return max(0.0, self._reactor.seconds() - self._confirmed) if self._loaded else 0.0

    @property
    def cached(self) -> int:
        """How many accounts are remembered, and names that nobody has."""
        return len(self._entries)

    def load(self) -> None:
        """Learn the farm now, waiting for it; before that L{farm} is empty.

        @raise DirectoryUnavailable: the directory cannot be used, with a sentence that says why.
        """
        # the position first: what changes in between is then looked at again
        self.position = self._source.position()
        self._farm = self._source.farm()
        self._loaded = True
        self._confirmed = self._reactor.seconds()

    def startService(self) -> None:
        """Learn the farm unless that is done, and follow the changes from now on.

        @raise SystemExit: the directory cannot be used; the sentence says why.
        """
        if not self._loaded:
            try:
                self.load()
            except DirectoryUnavailable as problem:
                raise SystemExit(f"rvpfarm: {problem}") from problem
        super().startService()
        self._threads.start()
        self._poll = self._reactor.callLater(self._poll_seconds, self._look)

    def stopService(self) -> None:
        """Follow no longer; whoever still waits is told that there is no answer."""
        if not self.running:
            return
        super().stopService()
        if self._poll is not None:
            self._poll.cancel()
            self._poll = None
        for question, key in list(self._underway.items()):
            for waiter in list(question.waiting):
                self._settle(key, question, waiter, "the directory is closed")
        self._questions.clear()
        self._underway.clear()
        self._threads.stop()
        self._source.close()

    def farm(self) -> Farm:
        """The farm-wide settings as last seen."""
        return self._farm

    def peek(self, key: str) -> Account | bool | None:
        """What is remembered of the node C{key}: its account, C{False} for none, C{None} for unknown."""
        entry = self._entries.get(key)
        if entry is None or not entry.fresh:
            return None
        if entry.account is None and entry.until <= self._reactor.seconds():
            return None
        self._entries.move_to_end(key)
        if self._metrics is not None:
            self._metrics.directory_read("none" if entry.account is None else "found", "hit")
        return entry.account or False

    def find(self, key: str) -> Deferred[Account | None]:
        """The account of the node C{key}, or C{None}.

        It fails with L{DirectoryUnavailable} when nothing is remembered and the source cannot be asked.
        """
        known = self.peek(key)
        if known is not None:
            return succeed(known if isinstance(known, Account) else None)
        question = self._questions.get(key)
        if question is None:
            if not self.running:
                return self._fall_back(key, "the directory is not open")
            if len(self._underway) >= self._most_questions:
                return self._fall_back(key, "too many look-ups wait for the directory")
            question = self._questions[key] = _Question(self._reactor.seconds())
            self._underway[question] = key
            waiter = self._wait(key, question)
            self._ask(key, question)
            return waiter
        return self._wait(key, question)

    def forget(self, key: str) -> None:
        """Ask again for C{key}; what is remembered serves only if the source cannot be asked."""
        entry = self._entries.get(key)
        if entry is not None:
            entry.fresh = False
        # an answer on its way may be from before
        question = self._questions.pop(key, None)
        if question is not None:
            question.current = False

    def watch(self, changed: Callable[[str | None], None]) -> None:
        """Call C{changed(key)} when an account changed, and C{changed(None)} when L{farm} did."""
        self._watchers.append(changed)

    def _wait(self, key: str, question: _Question) -> Deferred[Account | None]:
        """Wait for the answer to C{question}, but not for ever."""
        waiter: Deferred[Account | None] = Deferred(question.leave)
        question.waiting[waiter] = self._reactor.callLater(
            self._answer_seconds, self._out_of_time, key, question, waiter
        )
        return waiter

    def _ask(self, key: str, question: _Question) -> None:
        """Put C{question} to the source."""

        def answered(success: bool, result: Any) -> None:
            self._reactor.callFromThread(self._answered, key, question, success, result)

        self._threads.callInThreadWithCallback(answered, self._source.account, key)

    def _answered(self, key: str, question: _Question, success: bool, result: Any) -> None:
        """The source answered C{question}, however late."""
        self._underway.pop(question, None)
        if self._questions.get(key) is question:
            del self._questions[key]
        if self._metrics is not None:
            self._metrics.directory_seconds(self._reactor.seconds() - question.asked)
        if success:
            if question.current:
                self._remember(key, result)
            for waiter in list(question.waiting):
                # answering one may have made another hang up
                if waiter in question.waiting:
                    question.leave(waiter)
                    self._count("none" if result is None else "found", "miss")
                    waiter.callback(result)
            return
        if not result.check(DirectoryUnavailable):
            self._log.failure("look-up of {key} failed", failure=result, key=key)
        for waiter in list(question.waiting):
            self._settle(key, question, waiter, str(result.value) or "the directory cannot be asked")

    def _out_of_time(self, key: str, question: _Question, waiter: Deferred[Account | None]) -> None:
        """This one waits no longer; the answer, when it comes, is still remembered."""
        self._settle(key, question, waiter, "the directory did not answer in time")

    def _settle(self, key: str, question: _Question, waiter: Deferred[Account | None], reason: str) -> None:
        """Give C{waiter} the last good record, or tell it that there is none."""
        if waiter in question.waiting:
            question.leave(waiter)
            self._fall_back(key, reason).chainDeferred(waiter)

    def _fall_back(self, key: str, reason: str) -> Deferred[Account | None]:
        """The last good record, without asking."""
        entry = self._entries.get(key)
        if entry is None:
            self._count("failed", "miss")
            return fail(DirectoryUnavailable(reason))
        self._count("found" if entry.account is not None else "none", "stale")
        return succeed(entry.account)

    def _remember(self, key: str, account: Account | None) -> None:
        self._entries[key] = _Entry(account, self._reactor.seconds() + self._negative_seconds)
        self._entries.move_to_end(key)
        while len(self._entries) > self._size:
            self._entries.popitem(last=False)

    def _count(self, result: str, cache: str) -> None:
        if self._metrics is not None:
            self._metrics.directory_read(result, cache)

    def _look(self) -> None:
        """See what changed, in a thread."""
        self._poll = None

        def looked(success: bool, result: Any) -> None:
            self._reactor.callFromThread(self._looked, self._reactor.seconds(), success, result)

        self._threads.callInThreadWithCallback(looked, self._read_changes, self.position)

    def _read_changes(self, position: int) -> tuple[Changes, Farm | None]:
        """Runs in a thread."""
        changes = self._source.changes_since(position)
        return changes, self._source.farm() if changes.farm else None

    def _looked(self, when: float, success: bool, result: Any) -> None:
        """The feed of changes was read, or could not be."""
        if not self.running:
            return
        more = False
        if success:
            changes, farm = result
            more = changes.more
            self.position = changes.position
            self._confirmed = when
            if self._down:
                self._down = False
                self._log.info("the directory answers again")
            self._apply(changes, farm)
        elif result.check(DirectoryUnavailable):
            if not self._down:
                self._log.warn("the directory cannot be asked: {reason}", reason=str(result.value))
            self._down = True
        else:
            self._log.failure("the changes of the directory cannot be read", failure=result)
        self._poll = self._reactor.callLater(0 if more else self._poll_seconds, self._look)

    def _apply(self, changes: Changes, farm: Farm | None) -> None:
        """Take note of what changed, and tell who watches."""
        keys = list(self._entries) if changes.gap else list(changes.keys)
        if changes.gap:
            for key in list(self._questions):
                self.forget(key)
        for key in keys:
            self.forget(key)
        if farm is not None:
            self._farm = farm
            self._tell(None)
        for key in keys:
            self._tell(key)

    def _tell(self, key: str | None) -> None:
        for watcher in self._watchers:
            try:
                watcher(key)
            except Exception:  # or the other watchers would not learn of it
                self._log.failure("a watcher of the directory failed at {key}", key=key)
