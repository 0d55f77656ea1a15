"""What a daemon remembers of the directory: bounded, invalidated, and good enough when it is down."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from rvpfarm.directory.asking import Question, Source, Threads
from rvpfarm.directory.feed import Feed
from rvpfarm.directory.model import Account, DirectoryUnavailable, Farm
from rvpfarm.directory.reading import Changes
from rvpfarm.directory.snapshot import Head, Kept, Snapshot
from rvpfarm.directory.spans import spell_span

if TYPE_CHECKING:
    from rvpfarm.observe.metrics import Metrics

#: The epoch of an entry that was called wrong.
_NEVER = -1

#: Accounts on one page, on average; so many are looked at in one turn of the loop.
_PAGE = 100

#: How long whoever would have to ask for many accounts waits when too many questions are on their way.
_BUSY_SECONDS = 0.05


class _Entry:
    """What is remembered of one key.

    @ivar account: C{None} when there was none.
    @ivar until: when knowing that there is none has to be confirmed.
    @ivar epoch: it is fresh while this is the cache's own: nobody said that it changed.  Otherwise it serves
        only while the directory is down.
    """

    __slots__ = ("account", "epoch", "until")

    def __init__(self, account: Account | None, until: float, epoch: int) -> None:
        self.account = account
        self.until = until
        self.epoch = epoch


class CachedDirectory(Service):
    """A L{rvpfarm.directory.model.Directory} over a slower L{Source}.

    Accounts stay until the feed of changes names them.  When the source cannot be asked, the last good
    record serves on for as long as the policy C{directory-staleness} says; that there was nobody does not.

    @ivar edition: another number whenever another L{Snapshot} could be made of this.
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
        self._answer_seconds = answer_seconds
        self._most_questions = questions
        self._metrics = metrics
        self._threads: Threads = threads or ThreadPool(0, 4, "directory")
        self._feed = Feed(
            source,
            reactor,
            self._threads,
            self._apply,
            self._expire,
            poll_seconds=poll_seconds,
            answer_seconds=answer_seconds,
        )
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._epoch = 0
        # the keys that have an account, by hash: copied at once, so many would hold the loop for long
        self._pages: list[set[str]] = [set() for _ in range(max(1, size // _PAGE))]
        self._nobodies: deque[tuple[float, str]] = deque()
        self._questions: dict[str, Question] = {}
        self._underway: dict[Question, str] = {}
        self._watchers: list[Callable[[str | None], None]] = []
        self._telling: IDelayedCall | None = None
        self.edition = 0
        self._set_farm(Farm())
        if metrics is not None:
            metrics.gauge("directory_staleness_seconds", lambda: self.staleness_seconds)
            metrics.gauge("directory_staleness_limit_seconds", lambda: self._feed.limit_seconds)
            metrics.gauge("directory_up", lambda: not self._feed.trouble)
            metrics.gauge("directory_cache_size", lambda: len(self._entries))

    @property
    def staleness_seconds(self) -> float:
        """How long ago what is remembered was last known to be current."""
        return self._feed.staleness_seconds

    @property
    def limit_seconds(self) -> float:
        """For how long it is served without news."""
        return self._feed.limit_seconds

    @property
    def source(self) -> Source:
        """What is asked for what is not remembered."""
        return self._source

    def missing(self) -> Sequence[str]:
        """Why nothing is served from what is remembered, if so; may be asked from any thread."""
        if not self._feed.outdated:
            return ()
        return (f"the directory has not answered for {spell_span(self.staleness_seconds)}",)

    # Beginning and end.

    def recall(self, snapshot: Snapshot, age_seconds: float) -> None:
        """Know again what was known C{age_seconds} ago; L{load} comes after this."""
        self._set_farm(snapshot.head.farm)
        self._feed.recall(snapshot.head.position, snapshot.head.mark, age_seconds)
        for kept in snapshot.accounts[-self._size :]:
            key = kept.account.key
            self._entries[key] = _Entry(kept.account, 0.0, self._epoch if kept.fresh else _NEVER)
            self._page_of(key).add(key)

    @property
    def cached(self) -> int:
        """How many accounts are remembered, and names that nobody has."""
        return len(self._entries)

    def load(self) -> None:
        """Learn the farm now, waiting for it; before that L{farm} is empty.

        @raise DirectoryUnavailable: the directory cannot be used, with a sentence that says why, and nothing
            was recalled that could stand in for it.
        """
        self._feed.load()

    def startService(self) -> None:
        """Learn the farm unless that is done, and follow the changes from now on.

        @raise SystemExit: the directory cannot be used; the sentence says why.
        """
        if not self._feed.begun:
            try:
                self.load()
            except DirectoryUnavailable as problem:
                raise SystemExit(f"rvpfarm: {problem}") from problem
        super().startService()
        self._threads.start()
        self._feed.start()

    def stopService(self) -> None:
        """Follow no longer; whoever still waits is told that there is no answer."""
        if not self.running:
            return
        super().stopService()
        self._feed.stop()
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        for question, key in list(self._underway.items()):
            for waiter in list(question.waiting):
                self._settle(key, question, waiter, "the directory is closed")
        self._questions.clear()
        self._underway.clear()
        self._threads.stop()
        self._source.close()

    def reload(self) -> None:
        """Look now for what changed, and not only when it is time again."""
        self._feed.hasten()

    # What is remembered.

    def farm(self) -> Farm:
        """The farm-wide settings as last seen."""
        return self._farm

    def peek(self, key: str) -> Account | bool | None:
        """What is remembered of the node C{key}: its account, C{False} for none, C{None} for unknown."""
        entry = self._entries.get(key)
        if entry is None or entry.epoch != self._epoch:
            return None
        # who was made just before the directory went down must not be told that he does not exist
        if entry.account is None and not (self._feed.heard and self._reactor.seconds() < entry.until):
            return None
        self._entries.move_to_end(key)
        if self._metrics is not None:
            self._metrics.directory_read("none" if entry.account is None else "found", "hit")
        return entry.account or False

    def find(self, key: str) -> Deferred[Account | None]:
        """The account of the node C{key}, or C{None}.

        It fails with L{DirectoryUnavailable} when no account is remembered and the source cannot be asked.
        """
        known = self.peek(key)
        if known is not None:
            return succeed(known if isinstance(known, Account) else None)
        if self._feed.trouble:  # nobody is made to wait for what is known to be down
            return self._fall_back(key, self._feed.trouble)
        question = self._questions.get(key)
        if question is None:
            if not self.running:
                return self._fall_back(key, "the directory is not open")
            if len(self._underway) >= self._most_questions:
                return self._fall_back(key, "too many look-ups wait for the directory")
            question = Question(self._reactor.seconds())
            waiter = self._wait(key, question)
            self._ask(key, question)
            return waiter
        return self._wait(key, question)

    def forget(self, key: str) -> None:
        """Ask again for C{key}; what is remembered serves only if the source cannot be asked."""
        entry = self._entries.get(key)
        if entry is not None:
            entry.epoch = _NEVER
            self.edition += entry.account is not None
        # an answer on its way may be from before
        question = self._questions.pop(key, None)
        if question is not None:
            question.current = False

    def watch(self, changed: Callable[[str | None], None]) -> None:
        """Call C{changed(key)} when an account changed, and C{changed(None)} when L{farm} did."""
        self._watchers.append(changed)

    def head(self, confirmed: float, *, verifiers: bool) -> Head:
        """What a snapshot of this says besides accounts.

        @param confirmed: L{staleness_seconds} ago, in seconds since 1970.
        @param verifiers: the source tells what passwords are checked by.
        """
        return Head(self._farm, self._feed.position, self._feed.mark, confirmed, verifiers)

    def accounts(self, page: int, least: int) -> tuple[list[Kept], int | None]:
        """At least C{least} accounts, or all there are, from C{page} on; and the page to go on from."""
        accounts: list[Kept] = []
        while page < len(self._pages) and len(accounts) < least:
            for key in self._pages[page]:
                entry = self._entries[key]
                assert entry.account is not None
                accounts.append(Kept(entry.account, entry.epoch == self._epoch))
            page += 1
        return accounts, page if page < len(self._pages) else None

    def _page_of(self, key: str) -> set[str]:
        return self._pages[hash(key) % len(self._pages)]

    def _remember(self, key: str, account: Account | None) -> None:
        now, page = self._reactor.seconds(), self._page_of(key)
        until = now + self._negative_seconds
        self._entries[key] = _Entry(account, until, self._epoch)
        self._entries.move_to_end(key)
        self.edition += account is not None or key in page
        if account is None:
            page.discard(key)
            self._nobodies.append((until, key))
        else:
            page.add(key)
        self._make_room(now)

    def _make_room(self, now: float) -> None:
        """Names that nobody has go as soon as they may: whoever tries many must not drive out the others."""
        entries, nobodies = self._entries, self._nobodies
        while nobodies and nobodies[0][0] <= now:
            _, key = nobodies.popleft()
            entry = entries.get(key)
            if entry is not None and entry.account is None and entry.until <= now:
                del entries[key]
        while len(entries) > self._size:
            key, _ = entries.popitem(last=False)
            self._page_of(key).discard(key)

    def _set_farm(self, farm: Farm) -> None:
        self._farm = farm
        self._feed.limit_seconds = float(farm.policy("directory-staleness"))
        self.edition += 1

    # Questions.

    def _wait(self, key: str, question: Question) -> Deferred[Account | None]:
        """Wait for the answer to C{question}, but not for ever."""
        waiter: Deferred[Account | None] = Deferred(question.leave)
        question.waiting[waiter] = self._reactor.callLater(
            self._answer_seconds, self._out_of_time, key, question, waiter
        )
        return waiter

    def _ask(self, key: str, question: Question) -> None:
        """Put C{question} to the source."""
        self._questions[key] = question
        self._underway[question] = key

        def answered(success: bool, result: Any) -> None:
            self._reactor.callFromThread(self._answered, key, question, success, result)

        self._threads.callInThreadWithCallback(answered, self._source.account, key)

    def _answered(self, key: str, question: Question, success: bool, result: Any) -> None:
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

    def _out_of_time(self, key: str, question: Question, waiter: Deferred[Account | None]) -> None:
        """This one waits no longer; the answer, when it comes, is still remembered."""
        self._settle(key, question, waiter, "the directory did not answer in time")

    def _settle(self, key: str, question: Question, waiter: Deferred[Account | None], reason: str) -> None:
        """Give C{waiter} the last good record, or tell it that there is none."""
        if waiter in question.waiting:
            question.leave(waiter)
            self._fall_back(key, reason).chainDeferred(waiter)

    def _fall_back(self, key: str, reason: str) -> Deferred[Account | None]:
        """The last good record, without asking."""
        entry = self._entries.get(key)
        if entry is None or entry.account is None or self._feed.outdated:
            self._count("failed", "miss")
            return fail(DirectoryUnavailable(reason))
        self._entries.move_to_end(key)
        self._count("found", "stale")
        return succeed(entry.account)

    def _count(self, result: str, cache: str) -> None:
        if self._metrics is not None:
            self._metrics.directory_read(result, cache)

    # Changes.

    def _apply(self, changes: Changes, farm: Farm | None) -> None:
        """Take note of what changed, and tell who watches."""
        keys = [*changes.keys, *self._expire()] if changes.gap else changes.keys
        for key in keys:
            self.forget(key)
        if farm is not None and (changes.farm or farm != self._farm):
            self._set_farm(farm)
            self._tell(None)
        for key in keys:
            self._tell(key)
        if changes.gap and self._watchers:
            self._tell_everybody(0)
        for key in changes.keys:
            self._refresh(key)

    def _expire(self) -> list[str]:
        """Everything remembered has to be asked for again.

        @return: what was asked or known of besides accounts.
        """
        self._epoch += 1
        self.edition += 1
        return [*self._questions, *(key for _, key in self._nobodies)]

    def _refresh(self, key: str) -> None:
        """Learn at once what became of a remembered account: the last good record should be a good one."""
        known = key in self._entries and key not in self._questions
        if known and self.running and len(self._underway) < self._most_questions // 4:
            self._ask(key, Question(self._reactor.seconds()))

    def _tell_everybody(self, page: int) -> None:
        """Tell of every account from C{page} on: some now, the others in later turns of the loop."""
        if self._telling is not None and self._telling.active():
            self._telling.cancel()
        self._telling = None
        busy = len(self._underway) > self._most_questions // 2  # who is told may ask
        told = 0
        while page < len(self._pages) and told < _PAGE and not busy:
            for key in tuple(self._pages[page]):
                self._tell(key)
                told += 1
            page += 1
        if page < len(self._pages):
            self._telling = self._reactor.callLater(_BUSY_SECONDS if busy else 0, self._tell_everybody, page)

    def _tell(self, key: str | None) -> None:
        for watcher in self._watchers:
            try:
                watcher(key)
            except Exception:  # or the other watchers would not learn of it
                self._log.failure("a watcher of the directory failed at {key}", key=key)
