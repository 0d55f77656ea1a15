"""A router answers any call by having the right home answer it, whatever has changed meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

from prometheus_client import CollectorRegistry
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.directory.model import Domain, Home
from rvpfarm.link.links import LinkFactory, Links
from rvpfarm.observe.metrics import Metrics
from rvpfarm.protocol.calls import (
    BadRequest,
    Busy,
    Call,
    Failed,
    Forbidden,
    Limits,
    NotAllowed,
    NotFound,
    NotSupported,
    Relayed,
    Reply,
    TimedOut,
)
from rvpfarm.router.forwarder import Router
from rvpfarm.router.routing import choose_home
from rvpfarm.web.reader import parse_head
from rvpfarm.web.writer import render_reply
from tests.support.directory import FakeDirectory, make_account, make_farm
from tests.support.network import Network

KEY = b"k" * 32
HS1 = Home("id-1", "hs1", "hs1.fabrik.example", 80, 8081)
HS2 = Home("id-2", "hs2", "hs2.fabrik.example", 80, 8081)
PETRA = "im.fabrik.example/instmsg/aliases/petra"


def make_call(
    method: bytes = b"NOTIFY",
    target: bytes = b"/instmsg/aliases/petra",
    *lines: bytes,
    host: bytes = b"im.fabrik.example",
) -> Call:
    """A call as the strict reader hands it over."""
    head = b"\r\n".join([b"%b %b HTTP/1.1" % (method, target), b"Host: " + host, *lines, b"", b""])
    call = parse_head(head)
    call.peer, call.connection, call.body = "192.0.2.7", "r1/x/1", b"<x/>"
    return call


class RouterTestCase(SynchronousTestCase):
    """A router, two homes that answer with their names, and a directory that knows petra at the second."""

    policies: ClassVar[dict[str, Any]] = {}

    def setUp(self) -> None:
        """Everything is there and nothing is connected."""
        self.clock = Clock()
        self.network = Network(self.clock)
        self.seen: dict[str, list[Call]] = {}
        self.say: Callable[[str, Call], Any] = lambda name, call: Reply(200, body=name.encode())
        self.gone: list[tuple[str, str]] = []
        self.factories: dict[str, LinkFactory] = {}
        farm = make_farm([Domain("im.fabrik.example")], [HS1, HS2], **self.policies)
        self.directory = FakeDirectory(farm, [make_account(PETRA, HS2)])
        self.registry = CollectorRegistry()
        self.router = self.make_router("router-1")
        self.start(HS1)
        self.start(HS2)

    def make_router(self, name: str, own_home: str | None = None) -> Router:
        """A router with links of its own."""
        links = Links(self.clock, self.network.endpoint, key=KEY, name=name, chance=lambda: 1.0)
        metrics = Metrics(self.registry, role="router", node=name) if name == "router-1" else None
        return Router(self.directory, links, clock=self.clock, metrics=metrics, own_home=own_home)

    def start(self, home: Home, incarnation: int = 1) -> None:
        """A home takes calls from now on."""
        seen = self.seen.setdefault(home.name, [])

        def answer(call: Call) -> Any:
            seen.append(call)
            return self.say(home.name, call)

        factory = LinkFactory(
            answer,
            key=KEY,
            name=home.id,
            incarnation=incarnation,
            clock=self.clock,
            limits=Limits(),
            on_gone=lambda connection: self.gone.append((home.name, connection)),
        )
        self.network.listen(home.host, home.link_port, factory)
        self.factories[home.name] = factory

    def stop(self, home: Home) -> None:
        """A home is gone."""
        self.network.listen(home.host, home.link_port, None)

    def ask(self, *arguments: Any, router: Router | None = None, **more: Any) -> list[Any]:
        """Have the router answer a call.

        @return: where the outcome will be; a refusal is in it as itself.
        """
        outcome: list[Any] = []
        try:
            result = (router or self.router).answer(make_call(*arguments, **more))
        except Exception as refusal:
            return [refusal]
        if isinstance(result, Deferred):
            result.addCallbacks(outcome.append, lambda failure: outcome.append(failure.value))
        else:
            outcome.append(result)
        return outcome

    def routes(self) -> dict[str, float]:
        """How often each decision was counted."""
        return {
            sample.labels["decision"]: sample.value
            for metric in self.registry.collect()
            for sample in metric.samples
            if sample.name == "rvp_route_total" and sample.value
        }


class ForwardingTests(RouterTestCase):
    """A call goes to the home of its node, and the answer back as it is."""

    def test_forwarded(self) -> None:
        """The right home sees the call as it was made, and from whom."""
        outcome = self.ask(b"PROPFIND", b"/instmsg/aliases/Petra", b"Depth: 0")
        self.network.pump()
        self.assertIsInstance(outcome[0], Relayed)
        self.assertTrue(outcome[0].wire.endswith(b"hs2"))
        (call,) = self.seen["hs2"]
        self.assertEqual(call.head, make_call(b"PROPFIND", b"/instmsg/aliases/Petra", b"Depth: 0").head)
        self.assertEqual((call.peer, call.connection, call.via), ("192.0.2.7", "r1/x/1", "router-1"))
        self.assertEqual(self.routes(), {"proxy": 1})

    def test_gone(self) -> None:
        """The homes to which a connection proved itself are told when it is closed, once, and no others."""
        for line in (b"X: y", b"Authorization: Digest x", b"Authorization: NTLM x"):
            self.ask(b"PROPFIND", b"/instmsg/aliases/petra", line)
            self.network.pump()
            self.router.gone("r1/x/1")
            self.network.pump()
        self.assertEqual(self.gone, [("hs2", "r1/x/1")])
        for line in (b"Authorization: negotiate x", b"Authorization: ntlm x"):
            self.ask(b"PROPFIND", b"/instmsg/aliases/petra", line)
        self.network.pump()
        for _ in range(2):
            self.router.gone("r1/x/1")
            self.network.pump()
        self.assertEqual(self.gone, [("hs2", "r1/x/1")] * 2)

    def test_gone_from_a_home_that_left(self) -> None:
        """A home that the farm has no more is not told."""
        self.ask(b"PROPFIND", b"/instmsg/aliases/petra", b"Authorization: NTLM x")
        self.network.pump()
        self.directory.set_farm(make_farm([Domain("im.fabrik.example")], [HS1]))
        self.router.gone("r1/x/1")
        self.network.pump()
        self.assertEqual(self.gone, [])

    def test_any_name_of_the_node(self) -> None:
        """The node is found by its physical path, its absolute URL and the name of a server as well."""
        logical, absolute = b"/instmsg/aliases/petra", b"http://im.fabrik.example/instmsg/aliases/petra"
        physical = b"/instmsg/local/im.fabrik.example/instmsg/aliases/petra"
        for target, host in (
            (logical, b"hs1.fabrik.example"),
            (absolute, b"x"),
            (physical, b"hs2.fabrik.example"),
        ):
            self.ask(b"PROPFIND", target, host=host)
            self.network.pump()
        self.assertEqual((len(self.seen["hs2"]), self.seen["hs1"]), (3, []))

    def test_hops(self) -> None:
        """A forwarded NOTIFY has made one more hop (notes 1.6); other calls are left as they are."""
        for line in (b"RVP-Hop-Count: 1", b"X: y", b"RVP-Hop-Count: 8"):
            self.ask(b"NOTIFY", b"/instmsg/aliases/petra", line)
        self.ask(b"PROPFIND", b"/instmsg/aliases/petra", b"RVP-Hop-Count: 5")
        self.network.pump()
        hops = [call.headers.get(b"rvp-hop-count") for call in self.seen["hs2"]]
        self.assertEqual(hops, [b"2", b"2", b"9", b"5"])

    def test_too_many_hops(self) -> None:
        """A NOTIFY that has gone round too often ends here, and a hop count that is none is refused."""
        self.assertIsInstance(self.ask(b"NOTIFY", b"/instmsg/aliases/petra", b"RVP-Hop-Count: 9")[0], Failed)
        self.assertIsInstance(
            self.ask(b"NOTIFY", b"/instmsg/aliases/petra", b"RVP-Hop-Count: x")[0], BadRequest
        )
        self.assertEqual(self.network.attempts, 0)

    def test_refused_here(self) -> None:
        """Methods that RVP does not have and domains that are not served trouble no home."""
        self.assertIsInstance(self.ask(b"GET")[0], NotSupported)
        self.assertIsInstance(self.ask(b"MOVE")[0], NotAllowed)
        self.assertIsInstance(self.ask(host=b"im.elsewhere.example")[0], NotFound)
        self.assertEqual(self.network.attempts, 0)

    def test_unknown_node(self) -> None:
        """A home is asked about a name that does not exist too, so that it can ask who wants to know."""
        target = b"/instmsg/aliases/nobody"
        self.directory.put(make_account("im.fabrik.example/instmsg/aliases/other", HS1))
        for _ in range(2):  # the second time the directory is known to have no such node
            self.ask(b"PROPFIND", target)
            self.network.pump()
        chosen = choose_home("im.fabrik.example/instmsg/aliases/nobody", (HS1, HS2))
        assert chosen is not None
        self.assertEqual(len(self.seen[chosen.name]), 2)

    def test_cold_directory(self) -> None:
        """What the directory does not remember is looked up first."""
        self.directory.remembered.clear()
        self.directory.later = True
        outcome = self.ask()
        self.network.pump()
        self.assertEqual(outcome, [])
        self.directory.answer_finds()
        self.network.pump()
        self.assertEqual((outcome[0].status, len(self.seen["hs2"])), (200, 1))

    def test_directory_down(self) -> None:
        """A directory that is down is not taken for "no such user"; what it knew is still used."""
        self.ask(b"NOTIFY", b"/instmsg/aliases/nobody")
        self.network.pump()
        self.directory.unavailable = True
        outcome, unknown = self.ask(), self.ask(b"NOTIFY", b"/instmsg/aliases/tomasz")
        nobody = self.ask(b"NOTIFY", b"/instmsg/aliases/nobody")
        self.network.pump()
        self.assertEqual(outcome[0].status, 200)
        for refusal in (unknown[0], nobody[0]):
            self.assertIsInstance(refusal, Busy)
            self.assertEqual(refusal.headers, ((b"Retry-After", b"5"),))

    def test_hung_up(self) -> None:
        """When the caller hangs up, the look-up or the home's work is given up."""
        given_up: list[Any] = []
        self.say = lambda name, call: Deferred(given_up.append)
        waiting = self.router.answer(make_call())
        assert isinstance(waiting, Deferred)
        self.network.pump()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.network.pump()
        self.assertEqual(len(given_up), 1)
        self.directory.remembered.clear()
        self.directory.later = True
        waiting = self.router.answer(make_call())
        assert isinstance(waiting, Deferred)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)

    def test_no_homes(self) -> None:
        """A farm without homes, or with an account at a home that is gone, asks to come back later."""
        self.directory.set_farm(make_farm([Domain("im.fabrik.example")], [HS1]))
        self.assertIsInstance(self.ask()[0], Busy)
        self.directory.set_farm(make_farm([Domain("im.fabrik.example")]))
        self.assertIsInstance(self.ask(b"NOTIFY", b"/instmsg/aliases/nobody")[0], Busy)
        self.assertEqual(self.routes(), {"reject": 2})


class ReferringTests(RouterTestCase):
    """Callers that can follow are told where the node lives."""

    policies: ClassVar[dict[str, Any]] = {"referral": "auto"}

    def test_referred(self) -> None:
        """The reply is that of protocol notes 10.1, and no home is asked."""
        (reply,) = self.ask(b"SUBSCRIBE", b"/instmsg/aliases/petra", b"User-Agent: msmsgs/5.1.0.639")
        url = b"http://hs2.fabrik.example/instmsg/local/im.fabrik.example/instmsg/aliases/petra"
        self.assertEqual(render_reply(reply), render_reply(Reply(302, ((b"Location", url),))))
        self.assertEqual((self.network.attempts, self.routes()), (0, {"redirect": 1}))

    def test_forwarded(self) -> None:
        """Other callers, farm members and those who ask for nobody are not referred."""
        self.ask(b"SUBSCRIBE", b"/instmsg/aliases/petra", b"User-Agent: libwww-perl/6")
        call = make_call(b"NOTIFY", b"/instmsg/aliases/petra", b"User-Agent: msmsgs/5.1.0.639")
        call.vouched = True
        self.router.answer(call)
        self.ask(b"SUBSCRIBE", b"/instmsg/aliases/nobody", b"User-Agent: msmsgs/5.1.0.639")
        self.network.pump()
        self.assertEqual(sum(len(seen) for seen in self.seen.values()), 3)
        self.assertTrue(self.seen["hs2"][1].vouched or self.seen["hs2"][0].vouched)

    def test_moved(self) -> None:
        """Who lives elsewhere now is referred there, and so it is when a home is called otherwise."""
        ask = (b"SUBSCRIBE", b"/instmsg/aliases/petra", b"User-Agent: msmsgs/5.1.0.639")
        self.ask(*ask)
        self.directory.move(PETRA, HS1)
        self.directory.remembered[PETRA] = make_account(PETRA, HS1)
        (reply,) = self.ask(*ask)
        self.assertIn(b"\r\nLocation: http://hs1.fabrik.example/", render_reply(reply))
        renamed = replace(HS1, host="hs9.fabrik.example")
        self.directory.set_farm(make_farm([Domain("im.fabrik.example")], [renamed, HS2], **self.policies))
        (reply,) = self.ask(*ask)
        self.assertIn(b"\r\nLocation: http://hs9.fabrik.example/", render_reply(reply))

    def test_versions(self) -> None:
        """Each caller is answered in the version that it speaks, whoever asked before."""
        ask = (b"SUBSCRIBE", b"/instmsg/aliases/petra", b"User-Agent: msmsgs/5.1.0.639")
        for version in (b"0.2", b"1.0", b"0.2"):
            (reply,) = self.ask(*ask, b"RVP-Notifications-Version: " + version)
            self.assertIn(b"\r\nRVP-Notifications-Version: %b\r\n" % version, render_reply(reply))

    def test_servers(self) -> None:
        """A server is never referred, whatever the policy: servers do not follow."""
        self.directory.set_farm(make_farm([Domain("im.fabrik.example")], [HS1, HS2], referral="always"))
        notify = (b"NOTIFY", b"/instmsg/aliases/petra")
        self.ask(*notify, b"RVP-From-Principal: im.orchard.example")
        self.network.pump()
        self.assertEqual(len(self.seen["hs2"]), 1)
        (reply,) = self.ask(*notify, b"RVP-From-Principal: http://im.orchard.example/instmsg/aliases/ingrid")
        self.assertEqual(reply.status, 302)

    def test_referred_once(self) -> None:
        """Who comes by the physical URL was referred already: he is forwarded, wherever the node is."""
        self.directory.set_farm(make_farm([Domain("im.fabrik.example")], [HS1, HS2], referral="always"))
        path = b"/instmsg/local/im.fabrik.example/instmsg/aliases/petra"
        outcome = self.ask(b"SUBSCRIBE", path, b"User-Agent: msmsgs/5.1", host=b"hs1.fabrik.example")
        self.network.pump()
        self.assertEqual((outcome[0].status, len(self.seen["hs2"])), (200, 1))


class FailingHomeTests(RouterTestCase):
    """What becomes of a call whose home fails is told truthfully (notes 10.3)."""

    def test_dead_home(self) -> None:
        """A home that cannot be reached is 503, to be tried again later."""
        self.stop(HS2)
        (refusal,) = self.ask()
        self.assertIsInstance(refusal, Busy)
        self.assertEqual(refusal.headers[0][0], b"Retry-After")

    def test_slow_home(self) -> None:
        """A home that does not answer in 25 seconds is 504."""
        self.say = lambda name, call: Deferred()
        outcome = self.ask()
        self.network.advance(24.9, pieces=25)
        self.assertEqual(outcome, [])
        self.network.advance(0.3)
        self.assertIsInstance(outcome[0], TimedOut)

    def test_lost_home(self) -> None:
        """A home that dies with a call: 504 for a message, which may have been delivered, else 503."""
        self.say = lambda name, call: Deferred()
        message, question = self.ask(b"NOTIFY"), self.ask(b"PROPFIND")
        self.network.pump()
        self.stop(HS2)
        self.network.cut()
        self.network.advance(6)
        self.assertIsInstance(message[0], TimedOut)
        self.assertIsInstance(question[0], Busy)

    def test_home_left_alone(self) -> None:
        """A home that fails again and again is not asked for a while, and then is again."""
        self.stop(HS2)
        for _ in range(5):
            self.ask()
            self.network.advance(3)
        attempts = self.network.attempts
        self.ask()
        self.ask()
        self.assertEqual(self.network.attempts, attempts + 1)
        self.assertFalse(self.router.healthy(HS2))
        self.start(HS2)
        self.network.advance(3)
        outcome = self.ask()
        self.network.advance(3)
        self.assertEqual((outcome[0].status, self.router.healthy(HS2)), (200, True))

    def test_replaced_home(self) -> None:
        """Calls for a home that is being replaced wait, and are answered by its next incarnation."""
        self.ask()
        self.network.pump()
        self.stop(HS2)
        self.factories["hs2"].drain()
        outcomes = [self.ask() for _ in range(10)]
        self.network.advance(5, pieces=50)
        self.assertEqual(outcomes, [[]] * 10)
        self.start(HS2, incarnation=2)
        self.network.advance(1)
        self.assertEqual([outcome[0].status for outcome in outcomes], [200] * 10)

    def test_home_not_replaced(self) -> None:
        """If it does not come back they are 503; together they are one failure, and do not ban the home."""
        self.ask()
        self.network.pump()
        self.stop(HS2)
        self.factories["hs2"].drain()
        outcomes = [self.ask() for _ in range(10)]
        self.network.advance(16, pieces=160)
        for outcome in outcomes:
            self.assertIsInstance(outcome[0], Busy)
        self.start(HS2, incarnation=2)
        late = self.ask()
        self.network.advance(3)
        self.assertEqual(late[0].status, 200)

    def test_other_homes_unharmed(self) -> None:
        """A home that is down does not keep a caller of another one waiting."""
        self.directory.put(make_account("im.fabrik.example/instmsg/aliases/tomasz", HS1))
        self.network.silent.add((HS2.host, HS2.link_port))
        slow, quick = self.ask(), self.ask(b"NOTIFY", b"/instmsg/aliases/tomasz")
        self.network.pump()
        self.assertEqual((slow, quick[0].status), ([], 200))

    def test_restarted_home(self) -> None:
        """A home started anew is used at once; a question it had is asked again."""
        self.say = lambda name, call: Deferred()
        question = self.ask(b"PROPFIND")
        self.network.pump()
        self.say = lambda name, call: Reply(207)
        self.start(HS2, incarnation=2)
        self.network.cut()
        self.network.advance(1)
        self.assertEqual(question[0].status, 207)


class MovedNodeTests(RouterTestCase):
    """A node that was moved is found again, and no call goes round in circles."""

    def setUp(self) -> None:
        """The homes have routers of their own, for nodes that are not theirs."""
        super().setUp()
        self.own = {home.name: self.make_router(home.name, own_home=home.id) for home in (HS1, HS2)}
        self.truth = HS2.name
        self.say = self.answer

    def answer(self, name: str, call: Call) -> Any:
        """A home answers for its own nodes and has its router answer for the others."""
        return Reply(200, body=name.encode()) if name == self.truth else self.own[name].answer(call)

    def test_moved(self) -> None:
        """The home that had the node says so; the router looks again, once, and finds it."""
        self.truth = HS1.name
        self.directory.move(PETRA, HS1, silently=True)
        outcome = self.ask(b"NOTIFY", b"/instmsg/aliases/petra", b"RVP-Hop-Count: 1")
        self.network.pump()
        self.assertTrue(outcome[0].wire.endswith(b"hs1"))
        self.assertEqual(self.directory.forgotten, [PETRA])
        self.assertEqual(self.seen["hs1"][0].headers[b"rvp-hop-count"], b"2")

    def test_in_between(self) -> None:
        """While no home has the node the caller is asked to come back; nobody ever sees the 421."""
        self.truth = "nowhere"
        outcome = self.ask()
        self.network.pump()
        self.assertIsInstance(outcome[0], Busy)
        self.assertEqual(len(self.seen["hs2"]), 2)

    def test_gone(self) -> None:
        """A node that is gone altogether is asked for at some home, which says what is to be said."""
        self.truth = "nowhere"
        self.directory._accounts.clear()
        outcome = self.ask()
        self.network.pump()
        self.assertIsInstance(outcome[0], Busy)
        self.assertEqual(self.directory.forgotten, [PETRA])

    def test_home_forwards(self) -> None:
        """A home that is asked directly for somebody else's node forwards the call."""
        outcome = self.ask(router=self.own["hs1"])
        self.network.pump()
        self.assertTrue(outcome[0].wire.endswith(b"hs2"))
        self.assertEqual(self.seen["hs2"][0].via, "hs1")

    def test_never_to_itself(self) -> None:
        """A home's router never forwards to that home."""
        self.assertIsInstance(self.ask(router=self.own["hs2"])[0], Busy)
        key = next(k for n in range(9) if choose_home(k := f"im.fabrik.example/u/n{n}", (HS1, HS2)) is HS2)
        target = key.removeprefix("im.fabrik.example").encode()
        self.assertIsInstance(self.ask(b"NOTIFY", target, router=self.own["hs2"])[0], NotFound)

    def test_marker_in_a_body(self) -> None:
        """What a body says moves nothing."""
        self.say = lambda name, call: Reply(200, body=b"\r\nRVP-Farm: moved\r\n")
        outcome = self.ask()
        self.network.pump()
        self.assertEqual((outcome[0].status, self.directory.forgotten), (200, []))

    def test_farm_changes(self) -> None:
        """Links to homes that the farm no longer has are closed."""
        self.ask()
        self.network.pump()
        self.assertTrue(self.network.pipes[0].connected)
        self.directory.set_farm(make_farm([Domain("im.fabrik.example")], [HS1]))
        self.network.pump()
        self.assertFalse(self.network.pipes[0].connected)


class ReferringHomeTests(RouterTestCase):
    """A home that answers with a referral is taken at its word, once (notes 10.3)."""

    PATH = b"/instmsg/local/im.fabrik.example/instmsg/aliases/petra"

    def refer(self, *locations: bytes, at: str = "hs2") -> None:
        """The home C{at} refers to these places; the others answer with their names."""
        headers = tuple((b"Location", location) for location in locations)
        self.say = lambda name, call: Reply(302, headers) if name == at else Reply(200, body=name.encode())

    def test_followed(self) -> None:
        """The router forgets what it knew of the node and forwards the same call to the other home."""
        self.refer(b"http://hs1.fabrik.example" + self.PATH)
        outcome = self.ask(b"NOTIFY", b"/instmsg/aliases/petra", b"RVP-Hop-Count: 1")
        self.network.pump()
        self.assertTrue(outcome[0].wire.endswith(b"hs1"))
        self.assertEqual(self.directory.forgotten, [PETRA])
        self.assertEqual((len(self.seen["hs1"]), len(self.seen["hs2"])), (1, 1))
        self.assertEqual(self.seen["hs1"][0].headers[b"rvp-hop-count"], b"2")

    def test_handshake_follows(self) -> None:
        """Of a connection that proves itself both homes hear when it ends."""
        self.refer(b"http://hs1.fabrik.example" + self.PATH)
        self.ask(b"PROPFIND", b"/instmsg/aliases/petra", b"Authorization: NTLM x")
        self.network.pump()
        self.router.gone("r1/x/1")
        self.network.pump()
        self.assertEqual(sorted(self.gone), [("hs1", "r1/x/1"), ("hs2", "r1/x/1")])

    def test_second_referral(self) -> None:
        """Homes that refer to each other are each asked once, and the caller comes back later."""
        places = {
            "hs1": b"http://hs2.fabrik.example" + self.PATH,
            "hs2": b"http://hs1.fabrik.example" + self.PATH,
        }
        self.say = lambda name, call: Reply(302, ((b"Location", places[name]),))
        outcome = self.ask()
        self.network.pump()
        self.assertIsInstance(outcome[0], Busy)
        self.assertEqual((len(self.seen["hs1"]), len(self.seen["hs2"])), (1, 1))

    def test_referred_to_one_that_has_it_not(self) -> None:
        """A home that is referred to and does not have the node ends the search too."""
        own = self.make_router("hs1", own_home=HS1.id)
        location = b"http://hs1.fabrik.example" + self.PATH
        self.say = lambda name, call: (
            own.answer(call) if name == "hs1" else Reply(302, ((b"Location", location),))
        )
        outcome = self.ask()
        self.network.pump()
        self.assertIsInstance(outcome[0], Busy)
        self.assertEqual((len(self.seen["hs1"]), len(self.seen["hs2"])), (1, 1))

    def test_back_into_the_farm(self) -> None:
        """One to the home itself, to a router, to several places or to none is 503: nobody may go in circles."""
        itself, elsewhere = b"http://hs2.fabrik.example" + self.PATH, b"http://im.orchard.example/"
        logical = b"http://im.fabrik.example/instmsg/aliases/petra"
        for locations in ((itself,), (logical,), (), (elsewhere, elsewhere), (self.PATH,)):
            self.refer(*locations)
            outcome = self.ask()
            self.network.pump()
            self.assertIsInstance(outcome[0], Busy, locations)
        self.assertEqual(self.seen["hs1"], [])

    def test_out_of_the_farm(self) -> None:
        """One to another organisation is passed on to the caller as it is; the router goes nowhere."""
        location = b"http://im.orchard.example/instmsg/aliases/petra"
        self.refer(location)
        outcome = self.ask()
        self.network.pump()
        self.assertEqual(outcome[0].status, 302)
        self.assertIn(b"Location: " + location, outcome[0].wire)
        self.assertEqual((self.network.attempts, self.directory.forgotten), (1, []))

    def test_to_the_home_of_the_router(self) -> None:
        """A home's router that is referred to that home does not call it: the caller comes back at once."""
        self.refer(b"http://hs1.fabrik.example" + self.PATH)
        outcome = self.ask(router=self.make_router("hs1", own_home=HS1.id))
        self.network.pump()
        self.assertIsInstance(outcome[0], Busy)
        self.assertEqual((self.seen["hs1"], self.directory.forgotten), ([], [PETRA]))


class SistersTests(RouterTestCase):
    """Homes that share a process share a router, which hands calls for one of them to it directly."""

    def setUp(self) -> None:
        """A third home is in the same process as the second."""
        super().setUp()
        self.taken: list[tuple[Call, Any]] = []
        self.given: Any = Reply(207)

        def take(call: Call, target: Any, account: Any) -> Any:
            self.taken.append((call, account))
            if isinstance(self.given, Exception):
                raise self.given
            return self.given

        links = Links(self.clock, self.network.endpoint, key=KEY, name="hs2", chance=lambda: 1.0)
        sisters = {HS2.id: take, "id-3": take}
        self.metrics = Metrics(CollectorRegistry(), role="home", node="hs2")
        self.both = Router(self.directory, links, clock=self.clock, sisters=sisters, metrics=self.metrics)

    def test_direct(self) -> None:
        """No link is used and nobody is referred, whatever the policy: the caller is there already."""
        self.directory.set_farm(make_farm([Domain("im.fabrik.example")], [HS1, HS2], referral="always"))
        outcome = self.ask(b"SUBSCRIBE", b"/instmsg/aliases/petra", router=self.both)
        self.assertEqual((outcome[0].status, self.network.attempts), (207, 0))
        ((call, account),) = self.taken
        self.assertEqual((call.peer, account.key), ("192.0.2.7", PETRA))
        labels = {"role": "home", "node": "hs2", "decision": "local"}
        self.assertEqual(self.metrics.registry.get_sample_value("rvp_route_total", labels), 1)

    def test_hops(self) -> None:
        """That is no hop: the sister reads the count that the caller gave."""
        self.ask(b"NOTIFY", b"/instmsg/aliases/petra", b"RVP-Hop-Count: 2", router=self.both)
        self.assertEqual(self.taken[0][0].headers[b"rvp-hop-count"], b"2")

    def test_others(self) -> None:
        """A call for a home elsewhere goes over its link; one that came by a link is sent back to look again."""
        self.directory.move(PETRA, HS1)
        outcome = self.ask(router=self.both)
        self.network.pump()
        self.assertTrue(outcome[0].wire.endswith(b"hs1"))
        self.directory.move(PETRA, HS2)
        call = make_call()
        call.via = "router-1"
        reply = self.both.answer(call)
        assert isinstance(reply, Reply)
        self.assertEqual((reply.status, self.taken), (421, []))

    def test_own_notification(self) -> None:
        """What a home tells the sister's users is read as it would be at the end of a link."""
        head = make_call(b"NOTIFY", b"/instmsg/aliases/petra", b"RVP-Hop-Count: 1").head
        given: list[tuple[Any, int]] = [(Reply(200), 200), (NotFound("nobody"), 404)]
        later: Deferred[Any] = Deferred()
        given.append((later, 403))
        for self.given, status in given:
            call = Call(b"NOTIFY", b"http://im.fabrik.example/instmsg/aliases/petra", {}, b"<x/>", head=head)
            call.vouched = True
            answer = self.both.answer(call)
            if isinstance(answer, Deferred):
                later.errback(Forbidden("no"))
                answer = self.successResultOf(answer)
            self.assertEqual(answer.status, status)
        for call, _ in self.taken:
            self.assertEqual((call.vouched, call.body, call.headers[b"rvp-hop-count"]), (True, b"<x/>", b"1"))

    def test_unknown_node(self) -> None:
        """A sister asks who wants to know of a name that does not exist, when it is hers to answer."""
        key = next(k for n in range(9) if choose_home(k := f"im.fabrik.example/u/n{n}", (HS1, HS2)) is HS2)
        target = key.removeprefix("im.fabrik.example").encode()
        outcome = self.ask(b"PROPFIND", target, router=self.both)
        self.assertEqual((outcome[0].status, self.taken[0][1]), (207, None))

    def test_moved_to_a_sister(self) -> None:
        """A home that lost the node says so, and the sister that has it now answers."""
        self.directory.move(PETRA, HS1)
        own = self.make_router("hs1", own_home=HS1.id)
        self.say = lambda name, call: own.answer(call)
        self.directory.move(PETRA, HS2, silently=True)
        outcome = self.ask(b"PROPFIND", router=self.both)
        self.network.pump()
        self.assertEqual((outcome[0].status, len(self.seen["hs1"])), (207, 1))
