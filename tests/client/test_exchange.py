"""Tests of C{rvpfarm.client.exchange}."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.names import dns
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.client.exchange import Exchange
from rvpfarm.client.names import Place
from rvpfarm.client.signin import SignIn
from rvpfarm.discovery.lookup import Locator
from rvpfarm.protocol.calls import Slow, Unreachable
from rvpfarm.web.responses import Response
from tests.discovery.test_lookup import BookResolver
from tests.support.carrier import ScriptedCarrier, in_turn, response

PATH = "/instmsg/aliases/bob"
BOB = Place(
    "bob@farm.localhost",
    "im.farm.localhost/instmsg/aliases/bob",
    "http://im.farm.localhost/instmsg/aliases/bob",
    "im.farm.localhost",
    PATH,
    8080,
    ("127.0.0.1", "127.0.0.2"),
)
HOME = f"http://home1.farm.localhost:8081/instmsg/local/im.farm.localhost{PATH}"
OK = response(200)


def challenge(nonce: str, *, stale: bool = False) -> Response:
    """A 401."""
    line = f'Digest qop="auth", realm="im.farm.localhost", nonce="{nonce}"' + (
        ", stale=true" if stale else ""
    )
    return response(401, challenges=(b"NTLM", line.encode()))


class ExchangeTests(SynchronousTestCase):
    """One request is brought to its final answer."""

    def exchange(self, carrier: ScriptedCarrier) -> Exchange:
        """With a DNS that knows one home."""
        self.clock = Clock()
        book = {("home1.farm.localhost", dns.A): [dns.Record_A("127.0.0.11")]}
        signin = SignIn(lambda realm: "alice", "secret", lambda: "c")
        return Exchange(carrier, signin, Locator(self.clock, resolver=BookResolver(book)), self.clock)

    def ask(self, exchange: Exchange, **options: Any) -> Deferred[Response]:
        """Ask bob's node."""
        work: Coroutine[Any, Any, Response] = exchange.ask(
            BOB, "NOTIFY", ((b"X", b"y"),), b"hello", **options
        )
        return Deferred.fromCoroutine(work)

    def test_plain(self) -> None:
        """The request goes to the port of the SRV record, but no name in it carries a port."""
        carrier = in_turn(OK)
        self.assertIs(self.successResultOf(self.ask(self.exchange(carrier))), OK)
        (asked,) = carrier.asked
        self.assertEqual((asked.host, asked.port), ("127.0.0.1", 8080))
        self.assertEqual(asked.line, f"NOTIFY {PATH}")
        self.assertEqual((asked.header("Host"), asked.header("X")), ("im.farm.localhost", "y"))
        self.assertEqual(asked.call.body, b"hello")
        self.assertIsNone(asked.header("Authorization"))

    def test_next_address(self) -> None:
        """A router that refuses the connection gives way to the next, which is then kept to."""
        carrier = in_turn(Unreachable("refused"), OK, OK)
        exchange = self.exchange(carrier)
        for _ in range(2):
            self.successResultOf(self.ask(exchange, repeatable=False))
        self.assertEqual([asked.host for asked in carrier.asked], ["127.0.0.1", "127.0.0.2", "127.0.0.2"])
        self.assertEqual(exchange.first_address(BOB), "127.0.0.2")

    def test_all_dead(self) -> None:
        """When none answers the error names all that was tried."""
        carrier = in_turn(Unreachable("connection refused"), Unreachable("no route"))
        failure = self.failureResultOf(self.ask(self.exchange(carrier)), Unreachable)
        self.assertEqual(
            str(failure.value),
            "the server of im.farm.localhost cannot be reached at 127.0.0.1:8080, 127.0.0.2:8080 (no route)",
        )

    def test_not_twice(self) -> None:
        """A message that may have arrived is not sent by another way."""
        for trouble in (Unreachable("broken off", maybe_done=True), Slow("no answer")):
            carrier = in_turn(trouble)
            failure = self.failureResultOf(self.ask(self.exchange(carrier), repeatable=False), Unreachable)
            self.assertTrue(failure.value.maybe_done)

    def test_repeatable(self) -> None:
        """What does no harm twice is tried at the next address even then."""
        for trouble in (Unreachable("broken off", maybe_done=True), Slow("no answer")):
            self.successResultOf(self.ask(self.exchange(in_turn(trouble, OK))))

    def test_challenge(self) -> None:
        """A challenge is met; later requests prove themselves at once, with the next count."""
        carrier = in_turn(challenge("n1"), OK, OK)
        exchange = self.exchange(carrier)
        self.successResultOf(self.ask(exchange))
        self.successResultOf(self.ask(exchange))
        proofs = [asked.header("Authorization") or "" for asked in carrier.asked]
        self.assertEqual(proofs[0], "")
        self.assertIn('nonce="n1", uri="/instmsg/aliases/bob", qop=auth, nc=00000001', proofs[1])
        self.assertIn("nc=00000002", proofs[2])

    def test_stale(self) -> None:
        """A nonce that has become too old is replaced."""
        carrier = in_turn(challenge("n1"), OK, challenge("n2", stale=True), OK)
        exchange = self.exchange(carrier)
        self.assertEqual(self.successResultOf(self.ask(exchange)).status, 200)
        self.assertEqual(self.successResultOf(self.ask(exchange)).status, 200)
        self.assertIn('nonce="n2"', carrier.asked[-1].header("Authorization") or "")

    def test_forgotten_nonce(self) -> None:
        """A server that does not know our nonce any more gets another chance to know us."""
        carrier = in_turn(challenge("n1"), OK, challenge("n2"), OK)
        exchange = self.exchange(carrier)
        self.successResultOf(self.ask(exchange))
        self.assertEqual(self.successResultOf(self.ask(exchange)).status, 200)

    def test_wrong_password(self) -> None:
        """A fresh challenge that was met in vain is the end of it."""
        carrier = in_turn(challenge("n1"), challenge("n2"))
        self.assertEqual(self.successResultOf(self.ask(self.exchange(carrier))).status, 401)

    def test_always_stale(self) -> None:
        """A server that calls every nonce stale is not asked for ever."""
        carrier = ScriptedCarrier(lambda asked: challenge("n", stale=True))
        self.assertEqual(self.successResultOf(self.ask(self.exchange(carrier))).status, 401)
        self.assertEqual(len(carrier.asked), 4)

    def test_no_scheme(self) -> None:
        """A challenge of another kind is handed back."""
        carrier = in_turn(response(401, challenges=(b"NTLM",)))
        self.assertEqual(self.successResultOf(self.ask(self.exchange(carrier))).status, 401)

    def test_referral(self) -> None:
        """A 302 is followed with the same headers and body, and remembered for ten minutes."""
        carrier = in_turn(response(302, Location=HOME), OK, OK, OK)
        exchange = self.exchange(carrier)
        self.successResultOf(self.ask(exchange))
        self.successResultOf(self.ask(exchange))
        self.clock.advance(601)
        self.successResultOf(self.ask(exchange))
        self.assertEqual(
            [(asked.host, asked.port) for asked in carrier.asked],
            [("127.0.0.1", 8080), ("127.0.0.11", 8081), ("127.0.0.11", 8081), ("127.0.0.1", 8080)],
        )
        second = carrier.asked[1]
        self.assertEqual(second.header("Host"), "home1.farm.localhost:8081")
        self.assertEqual(second.line, f"NOTIFY /instmsg/local/im.farm.localhost{PATH}")
        self.assertEqual((second.header("X"), second.call.body), ("y", b"hello"))

    def test_dead_referral(self) -> None:
        """A remembered home that is gone sends us back to the router."""
        carrier = in_turn(response(302, Location=HOME), OK, Unreachable("refused"), OK)
        exchange = self.exchange(carrier)
        self.successResultOf(self.ask(exchange))
        self.successResultOf(self.ask(exchange, repeatable=False))
        self.assertEqual(carrier.asked[-1].port, 8080)

    def test_endless_referrals(self) -> None:
        """Servers that refer to each other are left after five referrals."""
        carrier = ScriptedCarrier(lambda asked: response(302, Location=HOME))
        self.failureResultOf(self.ask(self.exchange(carrier)), Unreachable)
        self.assertEqual(len(carrier.asked), 6)

    def test_bad_referrals(self) -> None:
        """A referral that is not the URL of a node is not followed."""
        for location in (
            "",
            "/instmsg/x",
            "https://home1.farm.localhost/a/b",
            "http://home1.farm.localhost/a?b",
            "http://u@home1.farm.localhost/a",
            "http://home1.farm.localhost:x/a",
            "http://nowhere.farm.localhost/a/b",
        ):
            carrier = in_turn(response(302, Location=location))
            self.failureResultOf(self.ask(self.exchange(carrier)), Unreachable)

    def test_hang_up(self) -> None:
        """Cancelling the question cancels the request."""
        waiting: Deferred[Response] = Deferred()
        asked = self.ask(self.exchange(in_turn(waiting)))
        asked.addErrback(lambda _: None)
        asked.cancel()
        self.assertTrue(waiting.called)
