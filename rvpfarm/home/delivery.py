"""Where deliveries go, and how one change is told to all who watch (shell).

A watcher of this home is told by a call to its own call-backs; one of another home over the farm link;
one elsewhere over HTTP.  Telling thousands is cut in slices, so that other work goes on in between.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from rvpfarm.auth.throttle import Buckets
from rvpfarm.directory.model import Account, Directory
from rvpfarm.home.courier import Courier, Destination, Done, Letter, Priority
from rvpfarm.home.fanout import Outcome, Spread
from rvpfarm.home.leases import LAPSED
from rvpfarm.home.node import News, Node, Subscription
from rvpfarm.protocol.address import Names, parse_call_back
from rvpfarm.protocol.calls import Call, Refusal, Relayed, Reply, Unreachable
from rvpfarm.protocol.notifications import PropertyNotice, addressed_to
from rvpfarm.web.responses import Response
from rvpfarm.web.writer import render_field, render_opening

#: How many watchers are told in one turn of the loop: some 2 ms' worth.  Answers are not read meanwhile, so
#: the last of them hears of it the sooner.
SLICE = 200
#: How many changes of one node's state are told as they come; after those, one in so many seconds.  Nobody
#: changes it by hand as fast; what does is a client or a line that comes and goes.
BURST, PACE_SECONDS = 4, 1.0
#: For how many nodes at once that is kept count of.
MOST_PACED = 10_000
#: Call-backs whose URL is not taken apart anew for each letter, and users whose name is not rendered anew;
#: beyond this many all are forgotten.
REMEMBERED = 50_000
#: How long a call-back may take to answer (protocol notes 6.2).
ANSWER_SECONDS = 10.0

Answer = Callable[[Call], Reply | Relayed | Deferred[Reply | Relayed]]


class Sender(Protocol):
    """What carries calls to strangers; see L{rvpfarm.web.outgoing.Outgoing}."""

    def send(
        self,
        host: str,
        port: int,
        wire: bytes,
        done: Callable[[Response | Unreachable], None],
        *,
        answer_seconds: float = 10.0,
    ) -> Callable[[], None]:
        """Send C{wire}; C{done} is called exactly once."""


class CallBackDestination:
    """A client's listener, or whatever else a subscriber named by its own URL."""

    __slots__ = ("_outgoing", "_port", "host", "name", "opening")
    is_client = True

    def __init__(self, url: str, outgoing: Sender) -> None:
        """
        @param url: normalised, as L{rvpfarm.protocol.address.CallBack.url}.
        """
        call_back = parse_call_back(url, _NO_NAMES)
        self.name = url
        self.host = call_back.host
        authority = call_back.host if call_back.port == 80 else f"{call_back.host}:{call_back.port}"
        self.opening = render_opening(b"NOTIFY", call_back.path.encode(), authority.encode())
        self._port = call_back.port
        self._outgoing = outgoing

    def send(self, head: bytes, body: bytes, done: Done) -> None:
        """Call the listener."""
        self._outgoing.send(self.host, self._port, head + body, done, answer_seconds=ANSWER_SECONDS)


class FarmDestination:
    """A principal of another home of this farm; found anew for each letter, since people move."""

    __slots__ = ("_elsewhere", "_target", "host", "name")
    is_client = False

    def __init__(self, name: str, target: bytes, elsewhere: Answer) -> None:
        """
        @param name: distinguishes the queue; letters for different subscriptions need not wait for
            each other.
        @param target: absolute logical URL of the principal's node.
        @param elsewhere: routes and forwards a call.
        """
        self.name, self._target, self._elsewhere = name, target, elsewhere
        self.host = ""

    def send(self, head: bytes, body: bytes, done: Done) -> None:
        """Hand the letter to the other home, which answers when its first attempt has an outcome."""
        call = Call(b"NOTIFY", self._target, {}, body, head=head, vouched=True)
        try:
            answer = self._elsewhere(call)
        except Refusal as refusal:
            done(refusal.status)
            return
        except Unreachable as problem:
            done(problem)
            return
        if isinstance(answer, Deferred):
            answer.addCallbacks(lambda reply: done(_handed_over(reply.status)), _failed, errbackArgs=(done,))
        else:
            done(_handed_over(answer.status))


def _handed_over(status: int) -> int:
    """What the other home's answer means here: it retries by itself whatever its own clients missed."""
    return 412 if status in (500, 504) else status


def _failed(failure: Failure, done: Done) -> None:
    problem = failure.value
    if isinstance(problem, Refusal):
        done(problem.status)
    elif isinstance(problem, Unreachable):
        done(problem)
    else:
        done(Unreachable(failure.getErrorMessage()))
        failure.raiseException()


_NO_NAMES = Names({}, {})

# To find a member of an enumeration by its name costs a method call each time.
_PRESENCE = Priority.PRESENCE

#: Between homes the answer waits for the client, so that the figures tell the truth.
_DEEP_OR = b"RVP-Ack-Type: DeepOr\r\n"


@dataclass(frozen=True, slots=True)
class _Recipient:
    """How a user is addressed; the account's record is replaced when anything in it changes."""

    account: Account
    address: bytes


class Herald:
    """Tells news to watchers, wherever they are."""

    def __init__(
        self,
        home: str,
        directory: Directory,
        courier: Courier,
        outgoing: Sender,
        elsewhere: Answer,
        clock: IReactorTime,
        *,
        strangers: Sender | None = None,
        local: Callable[[str], Node | None],
        lost: Callable[[Subscription], None],
        report: Callable[[int, float], None],
        spared: Callable[[], None] = lambda: None,
    ) -> None:
        """
        @param home: id of this home.
        @param strangers: carries calls to the servers of other organisations; C{outgoing} if not given.
        @param local: the node of a principal of this home, if anything is kept for it.
        @param lost: told of a subscription whose watcher exists no more.
        @param report: told the size of each spread, and the seconds to its last acknowledgement.
        @param spared: told of each change of state that nobody is told, since another came soon after.
        """
        self._home, self._directory, self._courier, self._outgoing = home, directory, courier, outgoing
        self._elsewhere, self._clock, self._local, self._lost = elsewhere, clock, local, lost
        self._report = report
        self._strangers = outgoing if strangers is None else strangers
        self._spared = spared
        self._call_backs: dict[str, CallBackDestination] = {}
        self._recipients: dict[str, _Recipient] = {}
        self._jobs: deque[_Job] = deque()
        self._scheduled: IDelayedCall | None = None
        self._pace = Buckets(PACE_SECONDS, most=MOST_PACED)
        self._late: dict[str, IDelayedCall] = {}

    @property
    def waiting(self) -> int:
        """How many watchers are still to be told of something."""
        return sum(job.left for job in self._jobs)

    @property
    def busy(self) -> bool:
        """Whether anybody is still to be told of anything, now or a little later."""
        return bool(self._jobs or self._late)

    def announce(
        self, account: Account, news: Sequence[News], accepted: float, *, last: bool = False
    ) -> None:
        """Tell C{news} of the node of C{account}.

        @param accepted: when the change was accepted, for the figures.
        @param last: this home has nothing more to say of that node, so that nothing is left for later.
        """
        if last:
            late = self._late.pop(account.key, None)
            if late is not None:
                late.cancel()
        elif any(item.state for item in news):
            news = [item for item in news if not item.state] + self._state_news(account, news)
        self._tell_all(account, news, accepted)

    def hurry(self) -> None:
        """Tell at once what was put off."""
        for late in self._late.values():
            late.reset(0)

    def stop(self) -> None:
        """Tell nobody anything more."""
        for late in self._late.values():
            late.cancel()
        self._late.clear()
        self._jobs.clear()
        if self._scheduled is not None:
            self._scheduled.cancel()
            self._scheduled = None

    def prune(self, now: float) -> None:
        """Forget nodes whose state has been quiet."""
        self._pace.prune(now)

    def _state_news(self, account: Account, news: Sequence[News]) -> list[News]:
        """What is to be told now of a new state: all of it, or nothing while it changes too often.

        It is worked out once more from what each watcher was told: while a change waited for the disk,
        another one may have overtaken it.
        """
        key, now = account.key, self._clock.seconds()
        if key in self._late:
            self._spared()
            return []
        if not self._pace.has_room(key, now, BURST):
            wait = self._pace.wait(key, now, BURST)
            self._late[key] = self._clock.callLater(wait, self._catch_up, account)
            return []
        self._pace.add(key, now)
        node = self._local(key)
        return [item for item in news if item.state] if node is None else node.late_news()

    def _catch_up(self, account: Account) -> None:
        """Tell the state that a node has come to meanwhile, to whoever was told another."""
        del self._late[account.key]
        node = self._local(account.key)
        news = [] if node is None else node.late_news()
        if not news:
            self._spared()  # it came back to what everybody knows
            return
        now = self._clock.seconds()
        self._pace.add(account.key, now)
        self._tell_all(account, news, now)

    def _tell_all(self, account: Account, news: Sequence[News], accepted: float) -> None:
        """Begin to tell C{news}."""
        spread = Spread(accepted, self._report, self._clock.seconds)
        for item in news:
            notice = PropertyNotice(account.url, account.display_name, item.props)
            self._jobs.append(_Job(spread, notice, account, item))
            if item.state:
                for watcher in item.watchers:
                    watcher.told = item.state
        if news:
            self._jobs[-1].last = True
        if self._scheduled is None:
            self._work()

    def call_back(self, url: str) -> CallBackDestination:
        """The destination that a call-back URL names."""
        found = self._call_backs.get(url)
        if found is None:
            if len(self._call_backs) >= REMEMBERED:
                self._call_backs.clear()
            found = self._call_backs[url] = CallBackDestination(url, self._outgoing)
        return found

    def _recipient(self, account: Account) -> bytes:
        """How the user of C{account} is addressed in whatever it is told."""
        known = self._recipients.get(account.key)
        if known is None or known.account is not account:
            if len(self._recipients) >= REMEMBERED:
                self._recipients.clear()
            known = _Recipient(account, addressed_to(account.url, account.display_name))
            self._recipients[account.key] = known
        return known.address

    def _work(self) -> None:
        """Tell one slice of watchers, and come back for the rest."""
        self._scheduled = None
        room = SLICE
        while self._jobs and room > 0:
            job = self._jobs[0]
            for watcher in job.watchers:
                job.left -= 1
                if job.state and watcher.told != job.state:
                    continue  # newer news of the same node is already in the queue
                room -= 1
                self._tell(watcher, job)
                if room == 0:
                    break
            else:
                self._jobs.popleft()
                if job.last:
                    job.spread.complete()
        if self._jobs:
            self._scheduled = self._clock.callLater(0, self._work)

    def _tell(self, watcher: Subscription, job: _Job) -> None:
        """Tell one watcher."""
        callee = watcher.subscriber.callee
        node = self._local(callee)
        if node is not None and node.logins and node.account is not None:
            self._tell_local(node, node.account, watcher, job)
            return
        if not callee:
            recipient = watcher.url or watcher.call_back
            body = job.notice.body_for(recipient)
            hearing = _Hearing(watcher, job.state, 1) if job.state else None
            self._post_client(self.call_back(watcher.call_back), watcher, job, body, hearing, hops=1)
            return
        account = self._directory.peek(callee)
        if account is None:
            job.spread.sent()
            found = self._directory.find(callee)
            found.addCallbacks(
                lambda account: self._tell_found(watcher, job, account),
                lambda failure: None,  # unavailable: presence is dropped, a lease heals it
            )
            found.addBoth(lambda _: job.spread.settled(Outcome.DROPPED))
            return
        self._tell_found(watcher, job, account or None)

    def _tell_found(self, watcher: Subscription, job: _Job, account: Account | bool | None) -> None:
        """Tell a watcher whose own node is known, or known not to exist."""
        if not isinstance(account, Account):
            self._tell_stranger(watcher, job)
        elif account.home != self._home:
            body = job.notice.body_to(self._recipient(account))
            target = account.url.encode()
            destination = FarmDestination(f"farm:{watcher.id}", target, self._elsewhere)
            host, slash, path = watcher.callee.encode().partition(b"/")
            opening = render_opening(b"NOTIFY", slash + path, host) + _DEEP_OR
            self._post_server(destination, opening, watcher, job, body)
        else:
            node = self._local(account.key)
            if node is not None and node.logins:
                self._tell_local(node, account, watcher, job)

    def _tell_local(self, node: Node, account: Account, watcher: Subscription, job: _Job) -> None:
        """Tell a watcher who is logged in here."""
        body = job.notice.body_to(self._recipient(account))
        urls = node.live_call_backs()
        hearing = _Hearing(watcher, job.state, len(urls)) if job.state else None
        for url in urls:
            self._post_client(self.call_back(url), watcher, job, body, hearing, hops=2)

    def _tell_stranger(self, watcher: Subscription, job: _Job) -> None:
        """A watcher who is nobody of ours: gone, if it should be; else of another organisation."""
        farm = self._directory.farm()
        host = watcher.callee.partition("/")[0]
        if host in farm.domains:
            self._lost(watcher)
        elif farm.policy("federation", job.account.domain) == "open":
            body = job.notice.body_for(watcher.url or watcher.call_back)
            server = ServerDestination(watcher.call_back, self._strangers)
            self._post_server(server, server.opening, watcher, job, body)

    def _post_client(
        self,
        client: CallBackDestination,
        watcher: Subscription,
        job: _Job,
        body: bytes,
        hearing: _Hearing | None,
        hops: int,
    ) -> None:
        """Put the notification of one watcher into the queue of one call-back."""
        job.spread.sent()
        head = client.opening + job.fields(hops, watcher.id, len(body))
        self._courier.post(
            client,
            Letter(
                head,
                body,
                _PRESENCE,
                watcher.callee,
                job.settled,
                watcher.id,
                None,
                hearing,
                job.about,
            ),
        )

    def _post_server(
        self, server: Destination, opening: bytes, watcher: Subscription, job: _Job, body: bytes
    ) -> None:
        """Put it into the queue of a server, which may say that it will never take such a letter again."""
        job.spread.sent()
        head = opening + job.fields(1, watcher.id, len(body))

        def gone() -> None:
            self._lost(watcher)

        self._courier.post(
            server,
            Letter(
                head,
                body,
                _PRESENCE,
                watcher.callee,
                job.settled,
                watcher.id,
                gone,
                _Hearing(watcher, job.state, 1) if job.state else None,
                job.about,
            ),
        )


class ServerDestination(CallBackDestination):
    """The server of another organisation: its status counts, and it is tried again (6.5)."""

    __slots__ = ()
    is_client = False


class _Hearing:
    """A state on its way to one watcher: heard once it has arrived wherever the watcher is signed in."""

    __slots__ = ("_left", "_state", "_watcher")

    def __init__(self, watcher: Subscription, state: str, places: int) -> None:
        """
        @param places: to how many it goes.
        """
        self._watcher, self._state, self._left = watcher, state, places

    @property
    def obsolete(self) -> bool:
        """The subscription has ended, or something else was told since."""
        return self._watcher.until == LAPSED or self._watcher.told != self._state

    def arrived(self) -> None:
        """One more place has it."""
        self._left -= 1
        if self._left == 0 and self._watcher.told == self._state:
            self._watcher.heard = self._state


class _Job:
    """One piece of news on its way to those who watch.

    @ivar settled: one delivery has its outcome.
    """

    __slots__ = (
        "_origin",
        "about",
        "account",
        "last",
        "left",
        "notice",
        "settled",
        "spread",
        "state",
        "watchers",
    )

    def __init__(
        self,
        spread: Spread,
        notice: PropertyNotice,
        account: Account,
        news: News,
    ) -> None:
        self.spread, self.notice, self.account = spread, notice, account
        self.watchers: Iterator[Subscription] = iter(news.watchers)
        self.left = len(news.watchers)
        self.about = account.key if news.state else ""
        self.state = news.state
        self.last = False
        self.settled = spread.settled
        self._origin = render_field(b"RVP-From-Principal", account.domain)

    def fields(self, hops: int, subscription: int, size: int) -> bytes:
        """The fields of a notification, after the opening of its head.

        @param subscription: the id of the subscription that it is for.
        @param size: the length of its body.
        """
        return (
            b"RVP-Hop-Count: %d\r\n%bSubscription-Id: %d\r\n"
            b"Content-Type: text/xml\r\nContent-Length: %d\r\n\r\n" % (hops, self._origin, subscription, size)
        )
