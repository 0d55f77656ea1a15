"""Tests of L{rvpfarm.discovery.strangers}."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.discovery.strangers import (
    KEEP_NONE_SECONDS,
    KEEP_SECONDS,
    MOST_ADDRESSES,
    MOST_WAITING,
    Strangers,
)
from rvpfarm.protocol.calls import Slow, Unreachable

Result = str | Unreachable


class FakeNames:
    """Names that the test answers for.

    @ivar asked: what was asked, in order.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._waiting: dict[str, Deferred[tuple[str, ...]]] = {}

    async def addresses(self, host: str) -> tuple[str, ...]:
        """Wait for the test."""
        self.asked.append(host)
        waiting = self._waiting[host] = Deferred()
        return await waiting

    def answer(self, host: str, *addresses: str) -> None:
        """The name has C{addresses}."""
        self._waiting.pop(host).callback(addresses)

    def fail(self, host: str, problem: Exception) -> None:
        """It cannot be told."""
        self._waiting.pop(host).errback(problem)


class FakeSender:
    """What carries calls to addresses.

    @ivar sent: address, port and bytes of each call, in order.
    @ivar cancelled: how many were cancelled.
    """

    def __init__(self) -> None:
        self.sent: list[tuple[str, int, bytes]] = []
        self.cancelled = 0
        self._done: list[Callable[[Result], None]] = []

    def send(
        self,
        host: str,
        port: int,
        wire: bytes,
        done: Callable[[Result], None],
        *,
        answer_seconds: float = 10.0,
    ) -> Callable[[], None]:
        """Note the call."""
        self.sent.append((host, port, wire))
        self._done.append(done)
        return self._cancel

    def answer(self, result: Result) -> None:
        """The call that has waited longest ends so."""
        self._done.pop(0)(result)

    def _cancel(self) -> None:
        self.cancelled += 1


class StrangersTests(SynchronousTestCase):
    """Servers of other organisations are called at the addresses of their names, if these may be called."""

    def setUp(self) -> None:
        """Nobody is known; loopback is barred."""
        self.clock, self.names, self.sender = Clock(), FakeNames(), FakeSender()
        self.refused: list[str] = []
        self.results: list[Result] = []
        self.strangers: Strangers[str] = Strangers(
            self.clock,
            self.names,
            self.sender,
            barred=lambda address, port: "special" if address.startswith("127.") else None,
            refused=self.refused.append,
            hosts=2,
        )
        self.strangers.startService()

    def send(self, host: str = "im.orchard.example", wire: bytes = b"x") -> Callable[[], None]:
        """Send something to a host."""
        return self.strangers.send(host, 80, wire, self.results.append)

    def check_failed(self, *words: str) -> None:
        """One call came back, for reasons that are told in C{words}."""
        (result,) = self.results
        self.assertIsInstance(result, Unreachable)
        for word in words:
            self.assertIn(word, str(result))

    def test_called_by_address(self) -> None:
        """It is the address that is called, and the answer comes back."""
        self.send()
        self.assertEqual(self.sender.sent, [])
        self.names.answer("im.orchard.example", "203.0.113.7")
        self.assertEqual(self.sender.sent, [("203.0.113.7", 80, b"x")])
        self.sender.answer("fine")
        self.assertEqual(self.results, ["fine"])

    def test_asked_once(self) -> None:
        """Many calls to a host wait for one look-up, and later ones for none, until it is too old."""
        self.send(wire=b"1")
        self.send(wire=b"2")
        self.names.answer("im.orchard.example", "203.0.113.7")
        self.clock.advance(KEEP_SECONDS - 1)
        self.send(wire=b"3")
        self.assertEqual([wire for _, _, wire in self.sender.sent], [b"1", b"2", b"3"])
        self.assertEqual(len(self.names.asked), 1)
        self.clock.advance(1)
        self.send()
        self.assertEqual(len(self.names.asked), 2)

    def test_barred(self) -> None:
        """A name that leads where nobody may be sent is not called, which is counted."""
        self.send()
        self.names.answer("im.orchard.example", "127.0.0.1")
        self.assertEqual(self.sender.sent, [])
        self.assertEqual(self.refused, ["special"])
        self.check_failed("im.orchard.example", "127.0.0.1", "special")

    def test_barred_among_others(self) -> None:
        """Of several addresses those that may be called are."""
        self.send()
        self.names.answer("im.orchard.example", "127.0.0.1", "203.0.113.7")
        self.assertEqual(self.sender.sent, [("203.0.113.7", 80, b"x")])
        self.assertEqual(self.refused, [])

    def test_judged_each_time(self) -> None:
        """What is remembered of a name is judged anew for each call: rules may have changed."""
        rule: list[str | None] = [None]
        self.strangers = Strangers(
            self.clock, self.names, self.sender, barred=lambda *_: rule[0], refused=self.refused.append
        )
        self.send()
        self.names.answer("im.orchard.example", "203.0.113.7")
        rule[0] = "network"
        self.send()
        self.assertEqual((len(self.sender.sent), self.refused), (1, ["network"]))

    def test_next_address(self) -> None:
        """An address that nobody answers at gives way to the next, a few times."""
        self.send()
        self.names.answer(
            "im.orchard.example", *(f"203.0.113.{number}" for number in range(MOST_ADDRESSES + 1))
        )
        for _ in range(MOST_ADDRESSES):
            self.assertEqual(self.results, [])
            self.sender.answer(Unreachable("refused"))
        self.assertEqual(
            [host for host, _, _ in self.sender.sent], ["203.0.113.0", "203.0.113.1", "203.0.113.2"]
        )
        self.check_failed("refused")

    def test_not_twice(self) -> None:
        """A call that may have arrived is not repeated elsewhere."""
        self.send()
        self.names.answer("im.orchard.example", "203.0.113.7", "203.0.113.8")
        self.sender.answer(Slow("slow", maybe_done=True))
        self.assertEqual(len(self.sender.sent), 1)
        self.check_failed("slow")

    def test_no_address(self) -> None:
        """A name without an address is asked for again only after a while."""
        self.send()
        self.names.answer("im.orchard.example")
        self.check_failed("im.orchard.example has no address")
        self.send()
        self.assertEqual((len(self.names.asked), len(self.results)), (1, 2))
        self.clock.advance(KEEP_NONE_SECONDS)
        self.send()
        self.assertEqual(len(self.names.asked), 2)

    def test_dns_is_away(self) -> None:
        """What the DNS does not say is why the call comes back."""
        self.send()
        self.names.fail("im.orchard.example", Unreachable("the DNS server does not answer"))
        self.check_failed("the DNS server does not answer")

    def test_fault(self) -> None:
        """A fault of ours is logged as one, and the call comes back all the same."""
        self.send()
        self.names.fail("im.orchard.example", RuntimeError("a bug"))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.check_failed("could not be looked up")

    def test_cancelled(self) -> None:
        """Nobody is told of a call that was cancelled, and it is not made if it was not yet."""
        cancel = self.send()
        cancel()
        self.names.answer("im.orchard.example", "203.0.113.7")
        self.assertEqual(self.sender.sent, [])
        cancel = self.send()
        cancel()
        self.assertEqual(self.sender.cancelled, 1)
        self.sender.answer(Unreachable("too late"))
        self.assertEqual(self.results, [])

    def test_waiting_is_bounded(self) -> None:
        """So many calls wait for one name; further ones come back."""
        for _ in range(MOST_WAITING):
            self.send()
        self.assertEqual(self.results, [])
        self.send()
        self.check_failed("too many calls")

    def test_hosts_are_bounded(self) -> None:
        """So many names are looked up at a time; an answered one makes room for another."""
        self.send("a.example")
        self.send("b.example")
        self.send("c.example")
        self.check_failed("c.example cannot be looked up just now")
        self.names.answer("a.example", "203.0.113.7")
        self.send("c.example")
        self.assertEqual(self.names.asked, ["a.example", "b.example", "c.example"])

    def test_stop(self) -> None:
        """Whatever waits for a name comes back, and nothing is begun any more."""
        self.send()
        self.strangers.stopService()
        self.assertEqual(len(self.results), 1)
        self.send()
        self.assertEqual((len(self.results), len(self.names.asked)), (2, 1))
        self.assertTrue(all(isinstance(result, Unreachable) for result in self.results))
