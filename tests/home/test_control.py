"""The administrator's door: who is in, ending it, who watches, and access lists set from outside."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.home.control import Control
from rvpfarm.home.records import DropAcl, DropSubscription, DropView, PutAcl
from rvpfarm.home.sessions import MOST_LISTINGS
from rvpfarm.protocol.calls import BadRequest, NotFound, NotSupported, Precondition, Refusal, Relayed, Reply
from rvpfarm.protocol.control import METHOD, render_question
from tests.support.homes import DOMAIN, PETRA, TOMASZ, LocalHome, message

KEY = f"{DOMAIN}/instmsg/aliases/petra"


class ControlTests(SynchronousTestCase):
    """What a farm member may ask of a home, and clients may not."""

    def setUp(self) -> None:
        """A home with its door."""
        self.there = LocalHome(users=["ann", "bea"])
        self.control = Control(self.there.home, "h1", self.there.directory, self.there.clock)

    def ask(self, operation: str, **facts: object) -> dict[str, Any]:
        """What the home answers.

        @raise Refusal: that is the answer.
        """
        call = render_question(operation, facts)
        call.via = "admin test"
        answer = self.control.answer(call)
        if isinstance(answer, Deferred):
            results: list[Any] = []
            answer.addBoth(results.append)
            (answer,) = results
        if isinstance(answer, Failure):
            answer.raiseException()
        assert isinstance(answer, Reply)
        self.assertEqual(answer.status, 200)
        said: dict[str, Any] = json.loads(answer.body)
        return said

    def log_in(self, peer: str = "192.0.2.77", state: str = "online") -> tuple[int, int]:
        """Petra logs in and shows a state; the ids of login and view."""
        there = self.there
        login = there.login(url=f"http://{peer}:3155", peer=peer, user_agent="Sprig/1.2")
        view = there.state(state, peer=peer).body
        number = view.partition("<r:view-id>")[2].partition("<")[0]
        return int(login.header(b"Subscription-Id")), int(number)

    def test_clients_have_no_door(self) -> None:
        """Without a farm member that vouches for it the method is unknown, over a link or not."""
        for via in (None, "router1"):
            call = replace(render_question("sessions", {}), vouched=False, via=via)
            self.assertRaises(NotSupported, self.control.answer, call)

    def test_calls_pass(self) -> None:
        """What is no control call reaches the home."""
        self.there.login()
        call = render_question("x", {})
        call.method = b"NOTIFY"
        self.assertRaises(Refusal, self.control.answer, call)

    def test_unknown(self) -> None:
        """An operation that this home does not know is said to be unknown, and what is no JSON to be wrong."""
        with self.assertRaises(NotSupported):
            self.ask("dance")
        call = render_question("sessions", {})
        call.body = b"["
        self.assertRaises(BadRequest, self.control.answer, call)
        with self.assertRaises(BadRequest):
            self.ask("sessions", after=7)

    def test_sessions(self) -> None:
        """A session is a login with its view: what it shows, where it is told, since when, for how long."""
        login, view = self.log_in()
        self.there.clock.advance(60)
        (session,) = self.ask("sessions")["sessions"]
        self.assertEqual(
            session,
            {
                "user": KEY,
                "address": "petra@im.fabrik.example",
                "state": "online",
                "view": view,
                "login": login,
                "call_back": "http://192.0.2.77:3155/",
                "peer": "192.0.2.77",
                "agent": "Sprig/1.2",
                "since": 1_000_000.0,
                "login_seconds": 14340,
                "view_seconds": 1140,
                "line": "ok",
                "waiting": 0,
            },
        )
        self.assertEqual(self.ask("sessions", user=KEY)["sessions"], [session])
        self.assertEqual(self.ask("sessions", user=f"{DOMAIN}/instmsg/aliases/ann")["sessions"], [])

    def test_halves(self) -> None:
        """A login without a state and a state without a login are sessions too."""
        self.there.login()
        self.there.state("away", peer="192.0.2.99")
        found = self.ask("sessions")["sessions"]
        self.assertEqual(
            [(one["state"], one["view"] is None) for one in found], [("", True), ("away", False)]
        )
        self.assertEqual([one["login"] is None for one in found], [False, True])

    def test_pages(self) -> None:
        """Page after page has everybody who is in all the time exactly once, whoever comes and goes meanwhile."""
        people = ["bea", "ann", "tomasz"]
        for number, name in enumerate(people):
            url = f"http://{DOMAIN}/instmsg/aliases/{name}"
            self.there.login(f"/instmsg/aliases/{name}", url, f"http://192.0.2.{number + 1}:80")
        first = self.ask("sessions", limit=1)
        self.ask("end", user=f"{DOMAIN}/instmsg/aliases/ann")
        self.log_in()
        second = self.ask("sessions", limit=1, after=first["next"])
        third = self.ask("sessions", limit=1, after=second["next"])
        self.assertEqual(third["next"], "")
        names = [
            one["user"].rpartition("/")[2] for page in (first, second, third) for one in page["sessions"]
        ]
        self.assertEqual(names, ["bea", "tomasz"])
        for after in (third["next"] or first["next"], "99/1"):
            with self.assertRaises(Precondition):
                self.ask("sessions", after=after)
        with self.assertRaises(BadRequest):
            self.ask("sessions", after="x")

    def test_listings_are_bounded(self) -> None:
        """Whoever begins listings and never ends them costs little: the oldest are forgotten."""
        for name in ("ann", "bea"):
            url = f"http://{DOMAIN}/instmsg/aliases/{name}"
            self.there.login(f"/instmsg/aliases/{name}", url, f"http://192.0.2.{len(name)}:80")
        first = self.ask("sessions", limit=1)["next"]
        for _ in range(MOST_LISTINGS):
            last = self.ask("sessions", limit=1)["next"]
        with self.assertRaises(Precondition):
            self.ask("sessions", after=first)
        self.assertEqual(len(self.ask("sessions", after=last)["sessions"]), 1)

    def test_call_back_in_trouble(self) -> None:
        """A call-back that holds up what it is told is seen to do so."""
        self.log_in()
        for _ in range(3):
            self.there.ask("NOTIFY", "/p", message(), who=TOMASZ)
        (session,) = self.ask("sessions")["sessions"]
        self.assertEqual((session["line"], session["waiting"]), ("waiting", 2))

    def test_kill(self) -> None:
        """Ending all sessions: watchers see an offline, nothing is told there any more, and it is on disk."""
        login, view = self.log_in()
        self.there.watch("/p", TOMASZ)
        self.there.login("/t", TOMASZ, "http://192.0.2.88:1000")
        self.there.outgoing.answers[1000] = 200
        rehearsed = self.ask("end", user=KEY, dry_run=True)
        self.assertEqual(self.ask("end", user=KEY), rehearsed)
        self.assertEqual([one["login"] for one in rehearsed["ended"]], [login])
        self.assertEqual(self.there.journal.written[-2:], [DropSubscription(login), DropView(KEY, view)])
        self.there.clock.advance(2)
        told = [sent for sent in self.there.outgoing.take() if sent.port == 1000]
        self.assertIn(b"<r:offline", told[-1].wire)
        self.assertEqual(self.there.ask("NOTIFY", "/p", message(), who=TOMASZ).status, 412)
        self.assertEqual(self.ask("end", user=KEY)["ended"], [])
        self.assertEqual(self.there.home.keeper.books.online, 1)

    def test_kill_one_view(self) -> None:
        """Only the place of that view: the other one stays."""
        self.log_in("192.0.2.77", "online")
        _, view = self.log_in("192.0.2.78", "away")
        (ended,) = self.ask("end", user=KEY, view=view)["ended"]
        self.assertEqual(ended["peer"], "192.0.2.78")
        (left,) = self.ask("sessions")["sessions"]
        self.assertEqual(left["peer"], "192.0.2.77")
        self.assertEqual(self.ask("end", user=KEY, view=view)["ended"], [])

    def test_kill_undone(self) -> None:
        """What the disk does not take has not happened."""
        self.log_in()
        before = self.ask("sessions")
        self.there.journal.broken = OSError("no space left")
        call = render_question("end", {"user": KEY})
        answer = self.control.answer(call)
        assert isinstance(answer, Deferred)
        self.assertEqual(self.failureResultOf(answer, Refusal).value.status, 503)
        self.assertEqual(
            self.ask("sessions"),
            {**before, "sessions": [{**before["sessions"][0], "agent": "", "since": None}]},
        )

    def test_watchers(self) -> None:
        """Who watches, by id and in pages."""
        self.there.watch("/p", TOMASZ, lifetime="600")
        self.there.watch("/p", f"http://{DOMAIN}/instmsg/aliases/ann")
        first = self.ask("watchers", user=KEY, limit=1)
        (one,) = first["watchers"]
        self.assertEqual((one["url"], one["seconds"], one["sees"]), (TOMASZ, 600, True))
        (other,) = self.ask("watchers", user=KEY, limit=1, after=first["next"])["watchers"]
        self.assertTrue(other["url"].endswith("/ann"))
        self.assertEqual(self.ask("watchers", user="nobody")["watchers"], [])

    def test_shown_list(self) -> None:
        """Nobody has set a list: it is the default one."""
        shown = self.ask("acl", user=KEY)
        self.assertEqual(shown["before"], {"mode": "open", "own": False, "entries": []})
        self.assertEqual(shown["after"], shown["before"])

    def test_denied_at_once(self) -> None:
        """Whoever is denied sees an offline at once and cannot write; allowed again, the present state."""
        self.log_in()
        self.there.watch("/p", TOMASZ)
        self.there.login("/t", TOMASZ, "http://192.0.2.88:1000")
        self.there.outgoing.answers[1000] = 200
        rehearsed = self.ask("acl", user=KEY, deny=[TOMASZ], dry_run=True)
        self.assertEqual(self.ask("acl", user=KEY)["after"]["entries"], [])
        done = self.ask("acl", user=KEY, deny=[TOMASZ])
        self.assertEqual(done["after"], rehearsed["after"])
        self.assertEqual(done["told"], 1)
        (entry,) = done["after"]["entries"]
        self.assertEqual((entry["effect"], entry["url"]), ("deny", TOMASZ))
        self.assertIsInstance(self.there.journal.written[-1], PutAcl)
        self.assertIn(b"<r:offline", self.there.outgoing.take()[-1].wire)
        self.assertEqual(self.there.ask("NOTIFY", "/p", message(), who=TOMASZ).status, 403)
        self.ask("acl", user=KEY, allow=[TOMASZ])
        self.assertIn(b"<r:online", self.there.outgoing.take()[-1].wire)

    def test_modes(self) -> None:
        """A mode is for everybody who is not named; whoever is named stays; default takes the list back."""
        self.ask("acl", user=KEY, allow=[TOMASZ])
        done = self.ask("acl", user=KEY, mode="contacts-only")["after"]
        self.assertEqual((done["mode"], done["own"], len(done["entries"])), ("contacts-only", True, 1))
        self.assertEqual(
            self.ask("acl", user=KEY, mode="same-organisation")["after"]["mode"], "same-organisation"
        )
        self.assertEqual(self.ask("acl", user=KEY, mode="open", remove=[TOMASZ])["after"]["entries"], [])
        last = self.ask("acl", user=KEY, mode="default")["after"]
        self.assertEqual(last, {"mode": "open", "own": False, "entries": []})
        self.assertIsInstance(self.there.journal.written[-1], DropAcl)

    def test_owner_keeps_his_rights(self) -> None:
        """A list set from outside leaves its owner what he may; so he can change it."""
        self.ask("acl", user=KEY, mode="contacts-only")
        self.assertEqual(self.there.ask("ACL", "/p", who=PETRA).status, 200)

    def test_refused_lists(self) -> None:
        """What makes no sense is refused, and changes nothing."""
        for facts in (
            {"mode": "secret"},
            {"deny": [PETRA]},
            {"allow": [TOMASZ], "deny": [TOMASZ]},
            {"remove": [TOMASZ]},
            {"mode": "default", "allow": [TOMASZ]},
            {"allow": ["ftp://x/"]},
            {"allow": "everybody"},
        ):
            with self.subTest(facts=facts), self.assertRaises(BadRequest):
                self.ask("acl", user=KEY, **facts)
        self.assertFalse(self.ask("acl", user=KEY)["after"]["own"])

    def test_elsewhere(self) -> None:
        """The list of somebody who lives at another home, or nowhere, is not here."""
        for name in ("olga", "nobody"):
            with self.assertRaises(NotFound):
                self.ask("acl", user=f"{DOMAIN}/instmsg/aliases/{name}")

    def test_relayed_passes(self) -> None:
        """The answer of another home to a call passes as it is."""
        self.there.elsewhere_answer = Relayed(b"HTTP/1.1 200 Successful\r\n\r\n")
        call = render_question("x", {})
        call.method, call.target, call.headers = (
            b"NOTIFY",
            b"/instmsg/aliases/olga",
            {b"host": DOMAIN.encode()},
        )
        self.assertIs(self.control.answer(call), self.there.elsewhere_answer)

    def test_method(self) -> None:
        """The method is none that a client could use."""
        self.assertEqual(self.there.ask(METHOD.decode(), "/p", who=PETRA).status, 501)
