"""A home server on a clock, with a directory, a journal and call-backs that the test holds in its hands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from rvpfarm.auth.challenge import Gate
from rvpfarm.auth.digest import Nonces
from rvpfarm.directory.model import Domain
from rvpfarm.directory.model import Home as HomeRecord
from rvpfarm.home.records import Change, Saved
from rvpfarm.home.server import LOOK_SECONDS, Home
from rvpfarm.observe.metrics import Metrics
from rvpfarm.protocol.calls import Busy, Call, Limits, Refusal, Relayed, Reply, Unreachable
from rvpfarm.web.reader import RequestReader, parse_head
from rvpfarm.web.responses import Response
from tests.support.directory import FakeDirectory, make_account, make_farm

DOMAIN = "im.fabrik.example"
PETRA = f"http://{DOMAIN}/instmsg/aliases/petra"
TOMASZ = f"http://{DOMAIN}/instmsg/aliases/tomasz"
INGRID = "http://im.orchard.example/instmsg/aliases/ingrid"


class FakeJournal:
    """A journal that keeps its changes in a list.

    @ivar written: every change, in order.
    @ivar hold: commits wait until L{commit}.
    @ivar broken: what every commit fails with.
    @ivar full: takes nothing.
    """

    def __init__(self, saved: Saved | None = None) -> None:
        self.written: list[Change] = []
        self.hold = False
        self.broken: Exception | None = None
        self.full = False
        self.depth = 0
        self._saved = saved or Saved()
        self._waiting: list[Callable[[Failure | None], None]] = []

    def load(self, take: Callable[[Saved], None], forget: Callable[[], None]) -> None:
        """What an earlier run left."""
        take(self._saved)

    def write(self, changes: Sequence[Change], then: Callable[[Failure | None], None] | None) -> None:
        """Keep C{changes}."""
        if self.full:
            raise Busy("the journal is full")
        self.written += changes
        if then is not None:
            self._waiting.append(then)
        if not self.hold:
            self.commit()

    def commit(self) -> None:
        """The disk has taken, or refused, everything."""
        waiting, self._waiting = self._waiting, []
        for then in waiting:
            then(Failure(self.broken) if self.broken else None)


@dataclass
class Sent:
    """One request on its way to a call-back."""

    host: str
    port: int
    wire: bytes
    done: Callable[[Response | Unreachable], None]

    @property
    def call(self) -> Call:
        """The request, read back."""
        head, _, body = self.wire.partition(b"\r\n\r\n")
        call = parse_head(head + b"\r\n\r\n")
        call.body = body
        return call

    def reply(self, status: int = 200) -> None:
        """Let the call-back answer."""
        self.done(Response(status, {}, (), b"", True))


class FakeOutgoing:
    """Notes what is sent to strangers; the test answers, or C{answers} says how.

    @ivar answers: status that a port answers at once with, or what goes wrong there.
    """

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.answers: dict[int, int | Unreachable] = {}

    def send(
        self,
        host: str,
        port: int,
        wire: bytes,
        done: Callable[[Response | Unreachable], None],
        *,
        answer_seconds: float = 10.0,
    ) -> Callable[[], None]:
        """Note the request."""
        sent = Sent(host, port, wire, done)
        self.sent.append(sent)
        answer = self.answers.get(port)
        if isinstance(answer, int):
            sent.reply(answer)
        elif answer is not None:
            done(answer)
        return lambda: None

    def take(self) -> list[Sent]:
        """What was sent since last asked."""
        sent, self.sent = self.sent, []
        return sent


@dataclass
class Asked:
    """A call under way: its answer when there is one."""

    result: Reply | Relayed | Refusal | None = None
    other: list[Failure] = field(default_factory=list)

    @property
    def status(self) -> int:
        """The status of the answer; 0 while there is none."""
        return self.result.status if self.result is not None else 0

    @property
    def reply(self) -> Reply:
        """The answer."""
        assert isinstance(self.result, Reply), self.result
        return self.result

    @property
    def body(self) -> str:
        """The body of the answer."""
        return self.reply.body.decode()

    def header(self, name: bytes) -> bytes:
        """One header of the answer."""
        return dict(self.reply.headers)[name]


class LocalHome:
    """A home that owns C{petra} and C{tomasz} of C{im.fabrik.example}.

    @ivar elsewhere: calls it handed on.
    """

    def __init__(
        self,
        *,
        saved: Saved | None = None,
        now: float = 1_000_000.0,
        users: Sequence[str] = (),
        gate: Gate | None = None,
        **policies: str,
    ) -> None:
        """
        @param gate: says who calls; left out, one that takes Digest and holds nobody back.
        """
        self.clock = Clock()
        self.clock.advance(now)
        policies = {"authentication": "off", "federation": "open", **policies}
        self.record = HomeRecord("h1", "hs1", "hs1.fabrik.example", 80, 8081, "192.0.2.10")
        self.other = HomeRecord("h2", "hs2", "hs2.fabrik.example", 80, 8081, "192.0.2.11")
        farm = make_farm(
            [Domain(DOMAIN, ("fabrik.example",), netbios="FABRIK")], [self.record, self.other], **policies
        )
        accounts = [
            make_account(f"{DOMAIN}/instmsg/aliases/petra", self.record, display_name="Petra Novak"),
            make_account(f"{DOMAIN}/instmsg/aliases/tomasz", self.record, display_name="Tomasz Lis"),
            make_account(f"{DOMAIN}/instmsg/aliases/olga", self.other, display_name="Olga Berg"),
            *(make_account(f"{DOMAIN}/instmsg/aliases/{user}", self.record) for user in users),
        ]
        self.directory = FakeDirectory(farm, accounts)
        self.journal = FakeJournal(saved)
        self.outgoing = FakeOutgoing()
        self.elsewhere: list[Call] = []
        self.elsewhere_answer: Reply | Relayed | Deferred[Reply | Relayed] = Reply(200)
        self.metrics = Metrics(CollectorRegistry(), role="home", node="hs1")
        numbers = count(1)
        self.home = Home(
            "h1",
            directory=self.directory,
            gate=gate or Gate(Nonces(b"k" * 32)),
            journal=self.journal,  # type: ignore[arg-type]
            outgoing=self.outgoing,
            elsewhere=self._elsewhere,
            clock=self.clock,
            metrics=self.metrics,
            random=lambda size: next(numbers).to_bytes(size, "big"),
        )
        self.home.startService()

    def _elsewhere(self, call: Call) -> Reply | Relayed | Deferred[Reply | Relayed]:
        self.elsewhere.append(call)
        return self.elsewhere_answer

    def stop(self) -> None:
        """Stop the home, for as long as that takes."""
        stopped = self.home.stopService()
        while not stopped.called:
            self.clock.advance(LOOK_SECONDS)

    def ask(
        self,
        method: str,
        path: str,
        body: str = "",
        *,
        who: str = "",
        peer: str = "192.0.2.77",
        host: str = DOMAIN,
        **headers: str,
    ) -> Asked:
        """Send one request.

        @param path: C{"/p"} and C{"/t"} stand for petra and tomasz, as in the protocol notes.
        @param who: C{RVP-From-Principal}.
        @param headers: further headers; an underscore stands for a hyphen.
        """
        path = {"/p": "/instmsg/aliases/petra", "/t": "/instmsg/aliases/tomasz"}.get(path, path)
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "RVP-Notifications-Version: 0.2"]
        if who:
            lines.append(f"RVP-From-Principal: {who}")
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        data = body.encode()
        if data and "content_type" not in headers:
            lines.append("Content-Type: text/xml")
        lines.append(f"Content-Length: {len(data)}")
        (call,) = RequestReader(Limits()).feed("\r\n".join(lines).encode() + b"\r\n\r\n" + data)
        call.peer, call.connection = peer, f"{peer}/1"
        return self.give(call)

    def give(self, call: Call) -> Asked:
        """Hand over a call as the server would."""
        asked = Asked()
        try:
            answer = self.home.answer(call)
        except Refusal as refusal:
            asked.result = refusal
            return asked
        if not isinstance(answer, Deferred):
            asked.result = answer
            return asked

        def answered(reply: Reply | Relayed) -> None:
            asked.result = reply

        def refused(failure: Failure) -> None:
            if isinstance(failure.value, Refusal):
                asked.result = failure.value
            else:
                asked.other.append(failure)

        answer.addCallbacks(answered, refused)
        return asked

    def login(
        self, path: str = "/p", who: str = PETRA, url: str = "http://192.0.2.77:3155", **more: str
    ) -> Asked:
        """Log in with a call-back."""
        peer = more.pop("peer", urlsplit(url).hostname or "")
        return self.ask(
            "SUBSCRIBE",
            path,
            who=who,
            peer=peer,
            Notification_Type="pragma/notify",
            Subscription_Lifetime=more.pop("lifetime", "14400"),
            Call_Back=url,
            **more,
        )

    def watch(self, path: str, who: str, **more: str) -> Asked:
        """Subscribe to the properties of a node."""
        return self.ask(
            "SUBSCRIBE",
            path,
            who=who,
            Notification_Type="update/propchange",
            Subscription_Lifetime=more.pop("lifetime", "14400"),
            Call_Back=more.pop("call_back", who),
            **more,
        )

    def state(
        self, name: str, *, path: str = "/p", who: str = PETRA, peer: str = "192.0.2.77", **more: str
    ) -> Asked:
        """Set a leased state."""
        return self.ask("PROPPATCH", path, leased(name, **more), who=who, peer=peer)


def leased(state: str, *, timeout: str = "1200", view: str = "", default: str = "offline") -> str:
    """The PROPPATCH body of protocol notes 3.5."""
    view_id = f"<r:view-id>{view}</r:view-id>" if view else ""
    return (
        "<?xml version=\"1.0\"?><d:propertyupdate xmlns:d='DAV:' "
        "xmlns:r='http://schemas.microsoft.com/rvp/' xmlns:a='http://schemas.microsoft.com/rvp/acl/'>"
        f"<d:set><d:prop><r:state><r:leased-value><r:value><r:{state}/></r:value>"
        f"<r:default-value><r:{default}/></r:default-value><d:timeout>{timeout}</d:timeout>"
        f"</r:leased-value>{view_id}</r:state></d:prop></d:set></d:propertyupdate>"
    )


def message(sender: str = TOMASZ, recipient: str = PETRA, text: str = "Coffee at ten?") -> str:
    """The message body of protocol notes 3.6."""
    return (
        "<?xml version=\"1.0\"?><r:notification xmlns:d='DAV:' "
        "xmlns:r='http://schemas.microsoft.com/rvp/' xmlns:a='http://schemas.microsoft.com/rvp/acl/'>"
        f"<r:message><r:notification-from><r:contact><d:href>{sender}</d:href>"
        "<r:description>Tomasz Lis</r:description></r:contact></r:notification-from>"
        f"<r:notification-to><r:contact><d:href>{recipient}</d:href>"
        "<r:description>Petra Novak</r:description></r:contact></r:notification-to>"
        "<r:msgbody><r:mime-data><![CDATA[MIME-Version: 1.0\r\nContent-Type: text/plain; charset=UTF-8\r\n"
        "X-MMS-IM-Format: FN=MS%20Shell%20Dlg; EF=; CO=0; CS=0; PF=0\r\n"
        f"Session-Id: {{3B0C7F52-91D4-4E6A-8C17-5A2E90D4B7F1}}\r\n\r\n{text}]]></r:mime-data></r:msgbody>"
        "</r:message></r:notification>"
    )
