"""What keeps a memory, used in any order: no sequence of steps breaks what is promised at each of them."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.auth.connections import HANDSHAKE_SECONDS, IDLE_SECONDS, Connection, Connections, Step
from rvpfarm.auth.digest import Nonces, Verdict
from rvpfarm.directory.model import Account
from rvpfarm.protocol.calls import Call, Limits
from rvpfarm.web.reader import RequestReader
from tests.support.directory import make_account
from tests.web.test_reader import CHUNKED, LOGIN, NOTIFY, seen

STEPS = settings(max_examples=80, stateful_step_count=40, deadline=None, database=None)

_EXPECTING = NOTIFY.replace(b"Content-Type", b"Expect: 100-continue\r\nContent-Type")
_PIECES = (
    LOGIN,
    NOTIFY,
    _EXPECTING,
    CHUNKED + b"3\r\nabc\r\n0\r\n\r\n",
    b"\r\n",
    b"\n",
    b"GET / HTTP/1.1\r\n",
    b"x",
)


class ReaderMachine(RuleBasedStateMachine):
    """A connection: what has come so far means what it would have meant at once."""

    limits = Limits(target=60, head=500, fields=12, body=64)

    def __init__(self) -> None:
        super().__init__()
        self.reader = RequestReader(self.limits)
        self.stream = b""
        self.calls: list[Call] = []
        self.refused_at: int | None = None

    @rule(piece=st.sampled_from(_PIECES), start=st.integers(0, 60), size=st.integers(1, 400))
    def part(self, piece: bytes, start: int, size: int) -> None:
        """A part of something that makes sense arrives."""
        self.feed(piece[start : start + size])

    @rule(piece=st.sampled_from(_PIECES))
    def whole(self, piece: bytes) -> None:
        """All of it does."""
        self.feed(piece)

    @rule(piece=st.binary(max_size=6))
    def anything(self, piece: bytes) -> None:
        """Whatever."""
        self.feed(piece)

    @precondition(lambda self: self.reader.wants_continue)
    @rule()
    def say_continue(self) -> None:
        """The server sends C{100 Continue}, once."""
        self.reader.wants_continue = False

    def feed(self, data: bytes) -> None:
        """More arrives."""
        self.stream += data
        found = self.reader.feed(data)
        assert not (found and self.refused_at is not None), "something was read after a refusal"
        self.calls += found
        if self.reader.refusal is not None and self.refused_at is None:
            self.refused_at = len(self.calls)

    @invariant()
    def means_the_same(self) -> None:
        """A reader that gets everything at once agrees."""
        other = RequestReader(self.limits)
        assert seen(other.feed(self.stream)) == seen(self.calls)
        assert (other.refusal is None) == (self.reader.refusal is None)
        assert (other.stage, other.eof()) == (self.reader.stage, self.reader.eof())
        assert not self.reader.wants_continue or other.wants_continue


class NonceMachine(RuleBasedStateMachine):
    """Nonces of a member with a short memory: no count of any of them is good twice."""

    remembered = 3

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.made = 0
        self.nonces = Nonces(b"key", lifetime_seconds=50.0, remembered=self.remembered)
        self.known: list[tuple[str, float]] = []
        self.used: set[tuple[str, int]] = set()

    @precondition(lambda self: len(self.known) < 5)
    @rule()
    def issue(self) -> None:
        """A client is challenged."""
        self.made += 1
        self.known.append((self.nonces.issue(self.now, self.made.to_bytes(8, "big")), self.now))

    @rule(seconds=st.sampled_from((0.001, 0.001, 1.0, 60.0)))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds

    @precondition(lambda self: self.known)
    @rule(which=st.integers(0, 4), count=st.integers(1, 4) | st.sampled_from((1, 2, 65, 66, 2**32 - 1)))
    def use(self, which: int, count: int) -> None:
        """A client that knows the password uses one of the last nonces."""
        nonce, issued = self.known[which % len(self.known)]
        verdict = self.nonces.judge(nonce, count, self.now)
        assert verdict is not Verdict.FORGED
        if verdict is Verdict.FRESH:
            assert (nonce, count) not in self.used, "a replay"
            assert self.now - issued <= 50.001
            self.used.add((nonce, count))

    @precondition(lambda self: self.used)
    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        """Somebody who listened uses what was used."""
        nonce, count = data.draw(st.sampled_from(sorted(self.used)))
        assert self.nonces.judge(nonce, count, self.now) in (Verdict.REPLAYED, Verdict.STALE)

    @precondition(lambda self: self.known)
    @rule(at=st.integers(0, 59), digit=st.sampled_from("0123456789abcdef"))
    def forge(self, at: int, digit: str) -> None:
        """Somebody changes a digit."""
        nonce = self.known[-1][0]
        forged = nonce[:at] + digit + nonce[at + 1 :]
        if forged != nonce:
            assert self.nonces.judge(forged, 1, self.now) is Verdict.FORGED

    @invariant()
    def bounded(self) -> None:
        """No more is remembered than was allowed."""
        assert len(self.nonces) <= self.remembered


class ConnectionMachine(RuleBasedStateMachine):
    """Connections that authenticate: each step is good once, and memory is bounded."""

    all_names = ("r1/1", "r1/2", "r2/1")
    names = st.sampled_from(all_names)
    accounts = tuple(make_account(f"im.fabrik.example/instmsg/aliases/{name}", "h") for name in ("a", "b"))

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.connections = Connections(open_limit=2, proved_limit=2)
        self.going: dict[str, list[tuple[Connection, int]]] = {}
        self.over: dict[str, list[tuple[Connection, int]]] = {}
        self.bound: dict[str, Account] = {}
        self.steps: dict[str, Step] = {}

    @rule(name=names)
    def begin(self, name: str) -> None:
        """A message of a handshake comes: what it goes on from is what was expected last, and is used up."""
        connection, step = self.connections.begin(name, self.now)
        expected = self.steps.pop(name, None)
        if step is not None:
            assert step is expected, "a step was good twice"
            assert self.now - step.at <= HANDSHAKE_SECONDS
        self.going.setdefault(name, []).append((connection, connection.turn))

    @precondition(lambda self: self.going)
    @rule(data=st.data())
    def expect(self, data: st.DataObject) -> None:
        """The next message is waited for: what the connection had proved is void."""
        name = data.draw(st.sampled_from(sorted(self.going)))
        step = Step(self.now)
        connection, _ = self.going[name][-1]
        self.connections.expect(name, connection, step)
        self.steps[name] = step
        self.bound.pop(name, None)
        assert self.connections.use(name, self.now) is None

    @precondition(lambda self: self.going)
    @rule(data=st.data(), account=st.sampled_from(accounts))
    def bind(self, data: st.DataObject, account: Account) -> None:
        """Somebody proved himself, perhaps by a step that is over, or on a connection that was forgotten."""
        name = data.draw(st.sampled_from(sorted(self.going)))
        connection, turn = data.draw(st.sampled_from(self.going[name] + self.over.get(name, [])))
        self.connections.bind(name, connection, turn, self, account)
        if (connection, turn) == self.going[name][-1]:
            self.bound[name] = account

    @rule(name=names)
    def use(self, name: str) -> None:
        """A call without credentials: it comes from whoever was proved on that connection last, or nobody."""
        account = self.connections.use(name, self.now)
        assert account is None or account is self.bound.get(name), "somebody else"

    @rule(name=names)
    def forget(self, name: str) -> None:
        """The connection is gone, and a step of it that is still in work binds nothing."""
        self.connections.forget(name)
        self.bound.pop(name, None)
        self.steps.pop(name, None)
        self.over.setdefault(name, []).extend(self.going.pop(name, ()))
        for connection, turn in self.over[name]:
            self.connections.bind(name, connection, turn, self, self.accounts[0])
        assert self.connections.use(name, self.now) is None

    @rule(seconds=st.sampled_from((1.0, HANDSHAKE_SECONDS, IDLE_SECONDS)))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds

    @invariant()
    def proved_alone(self) -> None:
        """A connection is whose it was proved to be, and no more are remembered than was allowed."""
        for name in self.all_names:
            held = self.connections.held(name)
            assert held is None or held.account is self.bound.get(name), "somebody else"
        assert self.connections.proved <= 2
        assert len(self.connections) <= 4


class MachineTests(SynchronousTestCase):
    """Hypothesis looks for a sequence of steps that breaks something."""

    def test_reader(self) -> None:
        """The reader of requests."""
        run_state_machine_as_test(ReaderMachine, settings=STEPS)

    def test_nonces(self) -> None:
        """The memory of nonces."""
        run_state_machine_as_test(NonceMachine, settings=STEPS)

    def test_connections(self) -> None:
        """The memory of connections."""
        run_state_machine_as_test(ConnectionMachine, settings=STEPS)
