"""Tests of C{rvpfarm.client.session}, against a scripted home."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred, succeed
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.client.directions import Directions
from rvpfarm.client.errors import NotDone, Refused, SendFailed, WrongPassword
from rvpfarm.client.exchange import Exchange
from rvpfarm.client.notices import Left, Message, Presence, Typing
from rvpfarm.client.session import Session
from rvpfarm.client.signin import SignIn
from rvpfarm.discovery.lookup import Locator
from rvpfarm.protocol.calls import Unreachable
from rvpfarm.protocol.mime import parse_mime, render_text, render_typing
from rvpfarm.protocol.notifications import PropertyNotice, parse_notification, render_message
from rvpfarm.protocol.properties import Propstat, parse_propertyupdate, render_multistatus, render_state
from rvpfarm.web.writer import render_request
from tests.support.carrier import ScriptedCarrier, response
from tests.support.fakehome import FakeHome

ALICE = "http://im.farm.localhost/instmsg/aliases/alice"
BOB = "http://im.farm.localhost/instmsg/aliases/bob"


class SessionTests(SynchronousTestCase):
    """What one person can do."""

    def setUp(self) -> None:
        """Alice, who has found her server and not spoken to it."""
        self.home = FakeHome()
        self.carrier = ScriptedCarrier(self.home.answer)
        self.reactor = MemoryReactorClock()
        self.heard: list[object] = []
        self.troubles: list[str] = []
        self.session = self.open("127.0.0.1:8080")

    def open(self, server: str) -> Session:
        """A session of alice's."""
        heard = self.heard.append
        return self.successResultOf(
            Session.open(
                "alice@farm.localhost",
                "secret",
                reactor=self.reactor,
                server=server,
                carrier=self.carrier,
                call_back_port=3155,
                find_local_address=lambda towards: "127.0.0.1",
                on_message=heard,
                on_presence=heard,
                on_typing=heard,
                on_left=heard,
                on_trouble=self.troubles.append,
            )
        )

    def do(self, work: Deferred[Any]) -> Any:
        """The result of something that is done at once."""
        return self.successResultOf(work)

    def lines(self, since: int = 0) -> list[str]:
        """What was asked."""
        return [asked.line.replace("/instmsg/aliases/", "") for asked in self.carrier.asked[since:]]

    def run_for(self, seconds: int) -> list[str]:
        """Let time pass, and see what is asked meanwhile."""
        before = len(self.carrier.asked)
        self.reactor.pump([10.0] * (seconds // 10))
        return self.lines(before)

    def tell(self, body: bytes) -> int:
        """What the listener answers to a NOTIFY from home."""
        call_back = next(a.header("Call-Back") for a in self.carrier.asked if a.header("Call-Back"))
        protocol = self.reactor.tcpServers[-1][1].buildProtocol(None)
        transport = StringTransport()
        protocol.makeConnection(transport)
        path = urlsplit(call_back or "").path.encode()
        protocol.dataReceived(render_request(b"NOTIFY", path, b"127.0.0.1:3155", (), body))
        protocol.connectionLost()
        return int(transport.value()[9:12])

    def test_open(self) -> None:
        """Opening finds the server and sends nothing; the port is where to connect and in no URL."""
        self.assertEqual(self.carrier.asked, [])
        me = self.session.me
        self.assertEqual((me.url, me.host, me.port), (ALICE, "im.farm.localhost", 8080))

    def test_login(self) -> None:
        """Logging in registers the listener as the call-back."""
        self.do(self.session.login())
        (asked,) = self.carrier.asked
        self.assertEqual(asked.line, "SUBSCRIBE /instmsg/aliases/alice")
        self.assertEqual(asked.header("Host"), "im.farm.localhost")
        self.assertEqual(asked.header("RVP-From-Principal"), ALICE)
        self.assertEqual(asked.header("Notification-Type"), "pragma/notify")
        self.assertEqual(asked.header("Subscription-Lifetime"), "14400")
        self.assertRegex(asked.header("Call-Back") or "", r"^http://127\.0\.0\.1:3155/[0-9a-f]{24}$")

    def test_login_renewed(self) -> None:
        """The login is refreshed before it ends, by its id alone."""
        self.do(self.session.login())
        self.assertEqual(self.run_for(740), [])
        self.assertEqual(self.run_for(10), ["SUBSCRIBE alice"])
        refresh = self.carrier.asked[-1]
        self.assertEqual(refresh.header("Subscription-Id"), "40001")
        self.assertEqual((refresh.header("Call-Back"), refresh.header("Notification-Type")), (None, None))
        self.assertEqual(self.run_for(750), ["SUBSCRIBE alice"])

    def test_login_lost(self) -> None:
        """A home that has lost the login gets a new one."""
        self.do(self.session.login())
        self.home.known.clear()
        self.assertEqual(self.run_for(750), ["SUBSCRIBE alice"] * 2)
        self.assertEqual(list(self.home.known), ["40002"])

    def test_login_interrupted(self) -> None:
        """A home that is down is tried until it is back; the trouble is told once."""
        self.do(self.session.login())
        self.home.refuse["SUBSCRIBE"] = Unreachable("connection refused")
        self.run_for(900)
        self.assertEqual(len(self.troubles), 1)
        self.home.refuse.clear()
        self.run_for(60)
        self.assertEqual(self.run_for(700), [])

    def test_wrong_password(self) -> None:
        """A password that is refused is told as such."""
        line = b'Digest qop="auth", realm="im.farm.localhost", nonce="n"'
        self.home.refuse["SUBSCRIBE"] = response(401, challenges=(line,))
        failure = self.failureResultOf(self.session.login(), WrongPassword)
        self.assertIn("wrong password for alice@farm.localhost", str(failure.value))
        self.assertIn(b'username="alice"', self.carrier.asked[-1].call.headers[b"authorization"])

    def test_no_known_scheme(self) -> None:
        """A server that wants another kind of proof is no case of a wrong password."""
        self.home.refuse["SUBSCRIBE"] = response(401, challenges=(b"NTLM",))
        failure = self.failureResultOf(self.session.login(), WrongPassword)
        self.assertIn("no way to sign in", str(failure.value))

    def test_strange_answer(self) -> None:
        """An answer without an id is no login."""
        self.home.refuse["SUBSCRIBE"] = response(200)
        failure = self.failureResultOf(self.session.login(), NotDone)
        self.assertIn("makes no sense", str(failure.value))

    def test_state(self) -> None:
        """A presence is shown, renewed at three quarters of what was granted, and keeps its view."""
        self.assertEqual(self.do(self.session.set_state("online")), 600)
        self.assertEqual(self.run_for(440), [])
        self.assertEqual(self.run_for(10), ["PROPPATCH alice"])
        (change,) = parse_propertyupdate(self.carrier.asked[-1].call.body)
        self.assertEqual((change.value, change.view), ("online", 77))

    def test_state_changed(self) -> None:
        """Another presence takes the place of the one that was kept."""
        self.do(self.session.set_state("online"))
        self.do(self.session.set_state("busy"))
        self.assertEqual(self.run_for(450), ["PROPPATCH alice"])
        self.assertEqual(self.home.states["/instmsg/aliases/alice"], "busy")

    def test_offline(self) -> None:
        """Being offline needs no renewal."""
        self.do(self.session.set_state("online"))
        self.do(self.session.set_state("offline"))
        self.assertEqual(self.run_for(2000), [])

    def test_no_such_state(self) -> None:
        """A presence that there is not is refused here already."""
        self.assertRaises(ValueError, self.session.set_state, "sleepy")

    def test_state_refused(self) -> None:
        """A property that the server refuses is a failure, though the status is 207."""
        body = render_multistatus(ALICE, [Propstat(409, ("<r:state/>",))])
        self.home.refuse["PROPPATCH"] = response(207, body)
        failure = self.failureResultOf(self.session.set_state("online"), Refused)
        self.assertEqual(failure.value.status, 409)

    def test_state_of(self) -> None:
        """Somebody's presence can be asked for."""
        self.home.states["/instmsg/aliases/bob"] = "at-lunch"
        self.assertEqual(self.do(self.session.state_of("bob@farm.localhost")), "at-lunch")
        self.assertEqual(self.carrier.asked[-1].header("Depth"), "0")

    def test_watch(self) -> None:
        """Watching tells the presence at once, and each change by the name that was asked for."""
        self.do(self.session.login())
        self.home.states["/instmsg/aliases/bob"] = "away"
        self.assertEqual(self.do(self.session.watch("bob@farm.localhost")), "away")
        self.assertEqual(self.carrier.asked[-1].header("Call-Back"), ALICE)
        notice = PropertyNotice(BOB, "Bob", (render_state("busy"),)).body_for(ALICE)
        self.assertEqual(self.tell(notice), 200)
        self.assertEqual(self.heard, [Presence("bob@farm.localhost", BOB, "busy")])
        self.assertEqual(self.do(self.session.watch("bob@farm.localhost")), "busy")

    def test_watch_renewed(self) -> None:
        """A watch is refreshed in time, and made anew when the server lost it."""
        self.do(self.session.watch("bob@farm.localhost"))
        self.assertEqual(self.run_for(750), ["SUBSCRIBE bob"])
        self.home.known.clear()
        self.home.states["/instmsg/aliases/bob"] = "online"
        self.assertEqual(self.run_for(750), ["SUBSCRIBE bob"] * 2)
        self.assertEqual(self.heard, [Presence("bob@farm.localhost", BOB, "online")])

    def test_watch_refused(self) -> None:
        """Who may not watch is told so."""
        self.home.refuse["SUBSCRIBE"] = response(403)
        failure = self.failureResultOf(self.session.watch("bob@farm.localhost"), Refused)
        self.assertEqual(str(failure.value), "bob@farm.localhost does not let you watch it")

    def test_unwatch(self) -> None:
        """Giving up a watch ends its subscription and its renewal."""
        self.do(self.session.watch("bob@farm.localhost"))
        self.do(self.session.unwatch("bob@farm.localhost"))
        self.do(self.session.unwatch("bob@farm.localhost"))
        self.assertEqual(self.lines(1), ["UNSUBSCRIBE bob"])
        self.assertEqual(self.run_for(2000), [])

    def test_send(self) -> None:
        """A message goes out as old clients send it, without a login."""
        self.do(self.session.send("bob@farm.localhost", "Coffee\nat ten?"))
        (asked,) = self.carrier.asked
        self.assertEqual(asked.line, "NOTIFY /instmsg/aliases/bob")
        self.assertEqual(
            [
                asked.header(n)
                for n in ("RVP-Ack-Type", "RVP-Hop-Count", "RVP-From-Principal", "Content-Type")
            ],
            ["DeepOr", "1", ALICE, "text/xml"],
        )
        told = parse_notification(asked.call.body)
        self.assertEqual(
            (told.sender, told.sender_description, told.recipients, told.fit), (ALICE, "alice", (BOB,), True)
        )
        mime = parse_mime(told.mime)
        self.assertEqual(mime.body.replace("\r", ""), "Coffee\nat ten?")
        self.assertRegex(mime.session, r"^\{[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}\}$")

    def sessions(self) -> list[str]:
        """The conversations of all messages that were sent."""
        return [
            parse_mime(parse_notification(asked.call.body).mime).session
            for asked in self.carrier.asked
            if asked.call.method == b"NOTIFY"
        ]

    def test_conversation(self) -> None:
        """One conversation per person; an answer continues the one that it answers."""
        self.do(self.session.login())
        self.do(self.session.send("bob@farm.localhost", "a"))
        self.do(self.session.typing("bob@farm.localhost"))
        self.do(self.session.send("carol@farm.localhost", "b"))
        self.tell(render_message(BOB, "Bob", ALICE, "", render_text("c", "{2F}")))
        self.do(self.session.send("bob@farm.localhost", "d"))
        first, typing, other, answer = self.sessions()
        self.assertEqual(first, typing)
        self.assertNotEqual(first, other)
        self.assertEqual(answer, "{2F}")

    def test_send_refused(self) -> None:
        """Why a message was not delivered is told in a sentence."""
        for status, words in ((412, "nobody is logged in there"), (404, "there is no bob"), (500, "left")):
            self.home.refuse["NOTIFY"] = response(status)
            failure = self.failureResultOf(self.session.send("bob@farm.localhost", "x"), SendFailed)
            self.assertEqual(failure.value.status, status)
            self.assertIn(words, failure.value.sentence)

    def test_send_nowhere(self) -> None:
        """What is no address is not sent to."""
        self.failureResultOf(self.session.send("bob", "x"), ValueError)

    def test_hear(self) -> None:
        """Messages and typing are heard, with the sender as people write him."""
        self.do(self.session.login())
        self.tell(render_message(BOB, "Bob", ALICE, "", render_typing("bob@farm.localhost", "{1}")))
        self.tell(render_message(BOB, "Bob", ALICE, "", render_text("hello", "{1}")))
        foreign = "http://im.orchard.example/instmsg/aliases/ingrid"
        self.tell(render_message(foreign, "", ALICE, "", render_text("hi", "{2}")))
        self.assertEqual(
            self.heard,
            [
                Typing("bob@farm.localhost", BOB, "{1}"),
                Message("bob@farm.localhost", BOB, "Bob", "hello", "{1}"),
                Message("ingrid@im.orchard.example", foreign, "", "hi", "{2}"),
            ],
        )

    def test_leave(self) -> None:
        """A conversation that was left refuses what still comes, and a new one is another."""
        self.do(self.session.login())
        self.do(self.session.leave("bob@farm.localhost"))
        self.tell(render_message(BOB, "Bob", ALICE, "", render_text("hello", "{1}")))
        self.do(self.session.leave("bob@farm.localhost"))
        self.assertEqual(self.tell(render_message(BOB, "Bob", ALICE, "", render_text("still?", "{1}"))), 500)
        self.assertEqual(self.tell(render_message(BOB, "Bob", ALICE, "", render_text("new", "{2}"))), 200)
        leaving = parse_mime(parse_notification(self.carrier.asked[-1].call.body).mime)
        self.assertEqual((leaving.content_type, leaving.session), ("text/x-imleave", "{1}"))

    def test_left(self) -> None:
        """Somebody else's leaving is heard."""
        self.do(self.session.login())
        mime = b"MIME-Version: 1.0\r\nContent-Type: text/x-imleave\r\nSession-Id: {1}\r\n\r\n"
        self.tell(render_message(BOB, "Bob", ALICE, "", mime))
        self.assertEqual(self.heard, [Left("bob@farm.localhost", BOB, "{1}")])

    def test_logout(self) -> None:
        """Logging out says offline, gives up every subscription and leaves nothing running."""
        self.do(self.session.login())
        self.do(self.session.set_state("online"))
        self.do(self.session.watch("bob@farm.localhost"))
        before = len(self.carrier.asked)
        self.do(self.session.logout())
        self.assertCountEqual(self.lines(before), ["UNSUBSCRIBE bob", "PROPPATCH alice", "UNSUBSCRIBE alice"])
        self.assertEqual(self.lines()[-1], "UNSUBSCRIBE alice")
        self.assertEqual((self.home.known, self.home.states), ({}, {"/instmsg/aliases/alice": "offline"}))
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.do(self.session.logout())
        self.failureResultOf(self.session.login(), NotDone)

    def test_logout_from_the_dead(self) -> None:
        """A server that does not answer cannot hold up logging out."""
        self.do(self.session.login())
        self.do(self.session.watch("bob@farm.localhost"))
        self.home.silent.add("UNSUBSCRIBE")
        leaving = self.session.logout()
        self.assertNoResult(leaving)
        self.reactor.advance(5)
        self.do(leaving)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_close(self) -> None:
        """Closing stops everything without a word."""
        self.do(self.session.login())
        self.do(self.session.set_state("online"))
        before = len(self.carrier.asked)
        self.do(self.session.close())
        self.assertEqual((self.lines(before), self.reactor.getDelayedCalls()), ([], []))

    def test_other_domains(self) -> None:
        """The server that was named by hand is for one's own domain; names of it may differ."""
        for address in ("bob@im.farm.localhost", BOB):
            self.do(self.session.send(address, "x"))
            self.assertEqual((self.carrier.asked[-1].port, self.carrier.asked[-1].host), (8080, "127.0.0.1"))
        self.do(self.session.send("eve@orchard.localhost", "x"))
        self.assertEqual(self.carrier.asked[-1].port, 80)
        self.assertEqual(self.carrier.asked[-1].header("Host"), "im.orchard.localhost")

    def test_two_ways_out(self) -> None:
        """When another address answers, the call-back is the address that leads there."""
        here = {"127.0.0.1": "127.0.0.1", "127.0.0.2": "127.0.0.9"}
        carrier = ScriptedCarrier(
            lambda asked: Unreachable("refused") if asked.host == "127.0.0.1" else self.home.answer(asked)
        )
        locator = Locator(self.reactor)
        signin = SignIn(lambda realm: "alice", "secret", lambda: "c")
        session = Session(
            replace(self.session.me, addresses=tuple(here)),
            reactor=self.reactor,
            directions=Directions(locator, self.reactor),
            exchange=Exchange(carrier, signin, locator, self.reactor),
            close=lambda: succeed(None),
            find_local_address=here.__getitem__,
        )
        self.do(session.login())
        call_backs = [a.header("Call-Back") or "" for a in carrier.asked if a.host == "127.0.0.2"]
        self.assertEqual([urlsplit(url).hostname for url in call_backs], ["127.0.0.1", "127.0.0.9"])
        self.do(session.close())
