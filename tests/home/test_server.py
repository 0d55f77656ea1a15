"""The home server as its callers see it: the promises of protocol notes 2, 3, 5, 6 and 8 on a clock."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.home.courier import QUEUE
from rvpfarm.home.records import DropSubscription, PutMeta, PutSubscription, PutView, Saved
from rvpfarm.protocol.calls import Busy, Slow, Unreachable
from tests.support.homes import DOMAIN, INGRID, PETRA, TOMASZ, LocalHome, message

OLGA = f"http://{DOMAIN}/instmsg/aliases/olga"


class HomeTestCase(SynchronousTestCase):
    """Tests against one home without authentication (profile O of the protocol notes)."""

    def setUp(self) -> None:
        """A home with a clock in the test's hand."""
        self.at = self.start()

    def start(self, **settings: str) -> LocalHome:
        """A home of other settings."""
        home = LocalHome(**settings)  # type: ignore[arg-type]
        self.addCleanup(home.stop)
        return home


class SubscribeTests(HomeTestCase):
    """SUBSCRIBE, UNSUBSCRIBE, SUBSCRIPTIONS."""

    def test_login(self) -> None:
        """A login is answered 200 with a number and the granted time, and no body (vector 1)."""
        asked = self.at.login()
        self.assertEqual(
            (asked.status, asked.header(b"Subscription-Lifetime"), asked.body), (200, b"14400", "")
        )
        self.assertGreater(int(asked.header(b"Subscription-Id")), 0)

    def test_lifetimes(self) -> None:
        """Missing, zero or bad is 400; too much or too little is brought within bounds (vectors 2 to 4)."""
        statuses = [self.at.login(lifetime=text).status for text in ("0", "abc", "-5")]
        self.assertEqual(statuses, [400, 400, 400])
        missing = self.at.ask(
            "SUBSCRIBE",
            "/p",
            who=PETRA,
            Notification_Type="pragma/notify",
            Call_Back="http://192.0.2.77:3155",
        )
        self.assertEqual(missing.status, 400)
        granted = [self.at.login(lifetime=text).header(b"Subscription-Lifetime") for text in ("999999", "1")]
        self.assertEqual(granted, [b"14400", b"300"])

    def test_call_backs(self) -> None:
        """None, empty, of another scheme, or looping is 400; a server of the farm is 403 (vectors 5, 8)."""
        for url, status in (
            ("", 400),
            ("ftp://192.0.2.77/", 400),
            (PETRA, 400),
            (TOMASZ, 400),
            ("nonsense", 400),
        ):
            self.assertEqual(self.at.login(url=url, peer="192.0.2.77").status, status, url)
        self.assertEqual(self.at.login(url="http://192.0.2.10:80/", peer="192.0.2.10").status, 403)

    def test_somebody_elses_login(self) -> None:
        """Only who may receive what the node receives logs in there (vector 7)."""
        self.assertEqual(self.at.login(who=TOMASZ).status, 403)

    def test_property_subscription(self) -> None:
        """Answered 207 with one propstat and the plain state (vector 13), the body as the notes print it."""
        self.at.login()
        self.at.state("away")
        asked = self.at.watch("/p", INGRID)
        self.assertEqual(asked.status, 207)
        self.assertEqual(
            asked.body,
            "<?xml version=\"1.0\"?><d:multistatus xmlns:d='DAV:' xmlns:r='http://schemas.microsoft.com/rvp/' "
            "xmlns:a='http://schemas.microsoft.com/rvp/acl/'><d:response>"
            "<d:href>http://im.fabrik.example/instmsg/aliases/petra</d:href><d:propstat><d:prop>"
            "<r:state><r:away/></r:state><d:displayname>Petra Novak</d:displayname>"
            "<r:email>petra@im.fabrik.example</r:email><r:mobile-state>0</r:mobile-state>"
            "<r:mobile-description></r:mobile-description></d:prop>"
            "<d:status>HTTP/1.1 200 Successful</d:status></d:propstat></d:response></d:multistatus>",
        )

    def test_unrecognised_call_back(self) -> None:
        """A watcher names its own logical URL; anything else takes a right of its own (vector 14)."""
        asked = self.at.watch("/p", INGRID, call_back="http://203.0.113.5:99")
        self.assertEqual(asked.status, 403)

    def test_refresh(self) -> None:
        """Same id, no body; unknown or another node's 412, another's 403 (vectors 15 and 16)."""
        number = self.at.watch("/p", INGRID).header(b"Subscription-Id").decode()

        def refresh(path: str, who: str, number: str) -> int:
            return self.at.ask(
                "SUBSCRIBE", path, who=who, Subscription_Id=number, Subscription_Lifetime="14400"
            ).status

        asked = self.at.ask(
            "SUBSCRIBE", "/p", who=INGRID, Subscription_Id=number, Subscription_Lifetime="3600"
        )
        found = (
            asked.status,
            asked.header(b"Subscription-Id"),
            asked.header(b"Subscription-Lifetime"),
            asked.body,
        )
        self.assertEqual(found, (200, number.encode(), b"3600", ""))
        self.assertEqual(refresh("/p", INGRID, "2147483647"), 412)
        self.assertEqual(refresh("/t", INGRID, number), 412)
        self.assertEqual(refresh("/p", TOMASZ, number), 403)

    def test_unsubscribe(self) -> None:
        """By its creator or the owner; without an id 400; a second time 412 (vectors 17 and 18)."""

        def unsubscribe(who: str, **headers: str) -> int:
            return self.at.ask("UNSUBSCRIBE", "/p", who=who, **headers).status

        number = self.at.watch("/p", INGRID).header(b"Subscription-Id").decode()
        self.assertEqual(unsubscribe(INGRID), 400)
        self.assertEqual(unsubscribe(TOMASZ, Subscription_Id=number), 403)
        self.assertEqual(unsubscribe(PETRA, Subscription_Id=number), 200)
        self.assertEqual(unsubscribe(INGRID, Subscription_Id=number), 412)

    def test_list(self) -> None:
        """The owner sees who is subscribed, by id and logical URL and never by address (vectors 19, 20)."""
        number = self.at.login().header(b"Subscription-Id").decode()
        asked = self.at.ask("SUBSCRIPTIONS", "/p", who=PETRA, Notification_Type="pragma/notify")
        self.assertEqual(asked.status, 200)
        self.assertIn(f"<r:subscription-id>{number}</r:subscription-id>", asked.body)
        self.assertNotIn("192.0.2.77", asked.body)
        refused = self.at.ask("SUBSCRIPTIONS", "/p", who=TOMASZ, Notification_Type="pragma/notify")
        self.assertEqual(refused.status, 403)

    def test_lapses(self) -> None:
        """A subscription that nobody renews is gone within seconds of its end, on disk too."""
        number = int(self.at.login(lifetime="300").header(b"Subscription-Id"))
        self.at.clock.pump([1.0] * 303)
        self.assertIn(DropSubscription(number), self.at.journal.written)
        self.assertEqual(self.at.home.keeper.books.online, 0)


class DurabilityTests(HomeTestCase):
    """What was answered 2xx is on disk before the answer (design section 6)."""

    def test_answer_waits_for_the_disk(self) -> None:
        """No answer before the commit."""
        self.at.journal.hold = True
        asked = self.at.login()
        self.assertEqual(asked.status, 0)
        self.at.journal.commit()
        self.assertEqual(asked.status, 200)

    def test_a_broken_disk_is_no_success(self) -> None:
        """A subscription that could not be kept is refused with 503, and is not there."""
        self.at.journal.broken = OSError("no space left")
        self.assertEqual(self.at.login().status, 503)
        self.assertEqual(len(self.at.home.keeper.books.logins), 0)

    def test_a_broken_disk_reserves_no_ids(self) -> None:
        """Ids whose reservation the disk refused are reserved anew: a restart gives none of them again."""
        self.at.journal.broken = OSError("no space left")
        self.at.login()
        self.at.journal.broken = None
        self.at.journal.written.clear()
        number = int(self.at.login().header(b"Subscription-Id"))
        kept = [change for change in self.at.journal.written if isinstance(change, PutMeta)]
        self.assertEqual([int(change.value) > number for change in kept], [True])
        self.at.watch("/p", TOMASZ)
        self.assertEqual([each for each in self.at.journal.written if isinstance(each, PutMeta)], kept)

    def test_a_broken_disk_takes_nothing_away(self) -> None:
        """An UNSUBSCRIBE that could not be kept leaves the subscription as it was."""
        number = self.at.login().header(b"Subscription-Id").decode()
        self.at.journal.broken = OSError("no space left")
        asked = self.at.ask("UNSUBSCRIBE", "/p", who=PETRA, Subscription_Id=number)
        self.assertEqual(asked.status, 503)
        self.at.journal.broken = None
        self.at.outgoing.answers[3155] = 200
        self.assertEqual(self.at.ask("NOTIFY", "/p", message(), who=TOMASZ).status, 200)

    def test_a_full_journal_stops_no_lapse(self) -> None:
        """What is due lapses all together, and presence goes on, while the journal has no room."""
        for _ in range(3):
            self.at.login(lifetime="300")
        self.at.login("/t", TOMASZ, "http://192.0.2.78:4000")
        self.at.watch("/p", TOMASZ)
        self.at.outgoing.answers[4000] = 200
        self.at.journal.full = True
        self.assertEqual(self.at.login().status, 503)
        self.assertEqual(self.at.state("busy", timeout="60").status, 207)
        self.at.clock.pump([1.0] * 303)
        self.assertEqual(len(self.at.home.keeper.books.logins), 1)
        told = [sent.wire for sent in self.at.outgoing.take()]
        self.assertEqual([b"<r:busy/>" in wire for wire in told], [True, False])

    def test_restart(self) -> None:
        """After a restart ids work, call-backs are called, the state stands until its lease ends."""
        number = self.at.login().header(b"Subscription-Id").decode()
        self.at.watch("/p", TOMASZ)
        self.at.state("busy")
        saved = saved_of(self.at)
        again = LocalHome(saved=saved, now=1_000_010.0)
        self.addCleanup(again.stop)
        refreshed = again.ask(
            "SUBSCRIBE", "/p", who=PETRA, Subscription_Id=number, Subscription_Lifetime="300"
        )
        self.assertEqual(refreshed.status, 200)
        self.assertIn("<r:busy/>", again.watch("/p", INGRID).body)
        again.login("/t", TOMASZ, "http://192.0.2.78:4000")
        again.clock.pump([1.0] * 1195)
        told = [sent for sent in again.outgoing.take() if b"offline" in sent.wire and sent.port != 80]
        self.assertEqual([sent.port for sent in told], [4000])

    def test_new_ids_after_a_restart(self) -> None:
        """An id is not used again after a restart, whatever was lost."""
        first = int(self.at.login().header(b"Subscription-Id"))
        saved = saved_of(self.at)
        again = LocalHome(saved=Saved(meta=saved.meta))
        self.addCleanup(again.stop)
        self.assertGreater(int(again.login().header(b"Subscription-Id")), first + 500)


class PresenceTests(HomeTestCase):
    """PROPPATCH and what watchers hear."""

    def setUp(self) -> None:
        """Tomasz is logged in and watches Petra."""
        super().setUp()
        self.at.login("/t", TOMASZ, "http://192.0.2.78:4000")
        self.at.watch("/p", TOMASZ)
        self.at.outgoing.answers[4000] = 200

    def heard(self) -> list[str]:
        """The states that Tomasz has been told since last asked."""
        bodies = [sent.wire.decode() for sent in self.at.outgoing.take()]
        return [body.partition("<r:state><r:")[2].partition("/>")[0] for body in bodies]

    def test_told_once(self) -> None:
        """A new state reaches each watcher once; the same again does not (vectors 26 and 28)."""
        first, second = self.at.state("online"), self.at.state("online")
        self.assertEqual((first.status, second.status), (207, 207))
        self.assertEqual(first.body, second.body)
        self.assertIn("<r:view-id>", first.body)
        self.assertEqual(self.heard(), ["online"])

    def test_what_a_watcher_is_sent(self) -> None:
        """The notification is that of protocol notes 3.6, hop count, server-id and id included."""
        self.at.state("busy")
        (sent,) = self.at.outgoing.take()
        call = sent.call
        self.assertEqual(
            (call.method, call.target, sent.host, sent.port), (b"NOTIFY", b"/", "192.0.2.78", 4000)
        )
        self.assertEqual(call.headers[b"rvp-from-principal"], b"im.fabrik.example")
        self.assertEqual(call.headers[b"rvp-hop-count"], b"2")
        self.assertIn(b"subscription-id", call.headers)
        self.assertNotIn(b"rvp-ack-type", call.headers)
        self.assertIn(
            f"<r:notification-from><r:contact><d:href>{PETRA}</d:href><r:description>Petra Novak</r:description>",
            call.body.decode(),
        )
        self.assertIn("<d:set><d:prop><r:state><r:busy/></r:state></d:prop></d:set>", call.body.decode())

    def test_not_the_owner(self) -> None:
        """Nobody else writes (vector 29)."""
        self.assertEqual(self.at.state("online", who=TOMASZ).status, 403)
        self.assertEqual(self.heard(), [])

    def test_unknown_state(self) -> None:
        """An unknown state is a 409 inside a 207 and changes nothing (vector 30)."""
        asked = self.at.state("sleepy")
        self.assertEqual(asked.status, 207)
        self.assertIn("HTTP/1.1 409 Conflict", asked.body)
        self.assertEqual(self.heard(), [])

    def test_offline_at_once(self) -> None:
        """Offline from the same address, without a view id, takes effect at once (vector 31)."""
        self.at.state("online")
        self.at.state("offline")
        self.assertEqual(self.heard(), ["online", "offline"])

    def test_two_places(self) -> None:
        """One place going offline is no news while another is online; busy is (vector 32)."""
        self.at.state("online", peer="192.0.2.1")
        self.at.state("online", peer="192.0.2.2")
        self.at.state("offline", peer="192.0.2.2")
        self.assertEqual(self.heard(), ["online"])
        self.at.state("busy", peer="192.0.2.1")
        self.assertEqual(self.heard(), ["busy"])

    def test_lapse(self) -> None:
        """Silence ends in offline within 5 s of the lease (vector 33)."""
        self.at.state("online", timeout="60")
        self.heard()
        self.at.clock.pump([1.0] * 59)
        self.assertEqual(self.heard(), [])
        self.at.clock.pump([1.0] * 5)
        self.assertEqual(self.heard(), ["offline"])

    def test_lease_bounds(self) -> None:
        """A lease is granted between 60 s and four hours, and the answer says what was granted."""
        self.assertIn("<d:timeout>60</d:timeout>", self.at.state("online", timeout="1").body)
        self.assertIn("<d:timeout>14400</d:timeout>", self.at.state("online", timeout="99999").body)

    def test_invisible(self) -> None:
        """The owner sees invisible, everybody else offline (vector 34)."""
        self.at.login()
        self.at.watch("/p", PETRA)
        self.at.outgoing.answers[3155] = 200
        self.at.state("online")
        self.heard()
        self.at.state("invisible")
        told = {sent.port: sent.wire for sent in self.at.outgoing.take()}
        self.assertIn(b"<r:invisible/>", told[3155])
        self.assertIn(b"<r:offline/>", told[4000])
        self.assertIn("<r:offline/>", self.at.watch("/p", INGRID).body)
        self.assertIn("<r:invisible/>", self.at.watch("/p", PETRA).body)

    def test_a_watcher_at_another_home(self) -> None:
        """It is told over the farm, by a call this home answers for."""
        self.at.watch("/p", OLGA)
        self.at.state("online")
        (call,) = self.at.elsewhere
        self.assertEqual((call.method, call.target, call.vouched), (b"NOTIFY", OLGA.encode(), True))
        self.assertIn(b"<r:online/>", call.body)

    def test_nobody_logged_in(self) -> None:
        """A watcher who is not logged in misses the news and keeps the subscription."""
        self.at.watch("/t", PETRA)
        self.at.state("online", path="/t", who=TOMASZ)
        self.assertEqual(self.heard(), [])
        self.assertEqual(len(self.at.home.keeper.books.watchers), 2)

    def test_a_dead_call_back_ends_its_view(self) -> None:
        """When every call-back from a view's address is dead the view is over (5.3 rule 9)."""
        self.at.login(url="http://192.0.2.99:5000")
        self.at.watch("/p", PETRA)
        self.at.state("online", peer="192.0.2.99")
        for delay in (0, 2, 10, 30, 60):
            self.at.clock.advance(delay)
            for sent in self.at.outgoing.take():
                if sent.port == 5000:
                    sent.done(Unreachable("refused"))
        told = [sent for sent in self.at.outgoing.take() if sent.port == 4000]
        self.assertIn(b"<r:offline/>", told[-1].wire)

    def test_thousands_are_told_in_slices(self) -> None:
        """A fan-out leaves the loop room between slices of a hundred."""
        at = self.start(users=[f"user{number}" for number in range(250)])  # type: ignore[arg-type]
        for number in range(250):
            url = f"http://{DOMAIN}/instmsg/aliases/user{number}"
            at.login(f"/instmsg/aliases/user{number}", url, f"http://192.0.2.{number}:99")
            at.watch("/p", url)
        at.state("online")
        self.assertEqual((len(at.outgoing.take()), at.home.herald.waiting), (100, 150))
        at.clock.advance(0)
        self.assertEqual((len(at.outgoing.take()), at.home.herald.waiting), (150, 0))


class PropertyTests(HomeTestCase):
    """PROPFIND and the other properties."""

    def find(self, inner: str, who: str = TOMASZ, depth: str = "0") -> tuple[int, str]:
        """Ask for properties."""
        body = (
            "<?xml version=\"1.0\"?><d:propfind xmlns:d='DAV:' xmlns:r='http://schemas.microsoft.com/rvp/'>"
            f"{inner}</d:propfind>"
        )
        asked = self.at.ask("PROPFIND", "/p", body, who=who, **({"Depth": depth} if depth else {}))
        return asked.status, asked.body if asked.status == 207 else ""

    def patch(self, inner: str, who: str = PETRA) -> tuple[int, str]:
        """Set properties."""
        body = (
            "<?xml version=\"1.0\"?><d:propertyupdate xmlns:d='DAV:' "
            f"xmlns:r='http://schemas.microsoft.com/rvp/'>{inner}</d:propertyupdate>"
        )
        asked = self.at.ask("PROPPATCH", "/p", body, who=who)
        return asked.status, asked.body if asked.status == 207 else ""

    def test_named(self) -> None:
        """A property by name (vector 21); what is not there comes after what is (vector 23)."""
        status, body = self.find("<d:prop><d:displayname/></d:prop>")
        self.assertEqual(status, 207)
        self.assertIn("<d:displayname>Petra Novak</d:displayname>", body)
        _, body = self.find("<d:prop><r:shoe-size/><r:email/></d:prop>")
        self.assertLess(body.index("200 Successful"), body.index("404 Not Found"))

    def test_depth(self) -> None:
        """Only depth 0 (vector 22)."""
        for depth in ("", "1", "infinity"):
            self.assertEqual(self.find("<d:prop><d:displayname/></d:prop>", depth=depth)[0], 412)

    def test_set_and_removed(self) -> None:
        """What the owner sets others read, until it is removed; on disk before the answer."""
        self.at.journal.hold = True
        body = (
            "<d:propertyupdate xmlns:d='DAV:' xmlns:x='urn:x'><d:set><d:prop><x:shoe>44</x:shoe></d:prop></d:set>"
            "</d:propertyupdate>"
        )
        asked = self.at.ask("PROPPATCH", "/p", body, who=PETRA)
        self.assertEqual(asked.status, 0)
        self.at.journal.hold = False
        self.at.journal.commit()
        self.assertEqual(asked.status, 207)
        self.assertIn(">44<", self.find("<d:prop><x:shoe xmlns:x='urn:x'/></d:prop>")[1])
        self.patch("<d:remove><d:prop><x:shoe xmlns:x='urn:x'/></d:prop></d:remove>")
        self.assertIn("404", self.find("<d:prop><x:shoe xmlns:x='urn:x'/></d:prop>")[1])

    def test_all_or_nothing(self) -> None:
        """One unacceptable change leaves the others undone: 403 or 409 for it, 424 for them."""
        _, body = self.patch(
            "<d:set><d:prop><r:mobile-state>1</r:mobile-state><d:displayname>X</d:displayname></d:prop></d:set>"
        )
        self.assertIn("403 Forbidden", body)
        self.assertIn("424 Failed Dependency", body)
        self.assertIn("<r:mobile-state>0<", self.find("<d:prop><r:mobile-state/></d:prop>")[1])

    def test_leased(self) -> None:
        """A leased property reverts when its lease ends, and watchers hear both times."""
        self.at.login("/t", TOMASZ, "http://192.0.2.78:4000")
        self.at.watch("/p", TOMASZ)
        self.at.outgoing.answers[4000] = 200
        self.patch(
            "<d:set><d:prop><r:mobile-state><r:leased-value><r:value>1</r:value><d:timeout>60</d:timeout>"
            "</r:leased-value></r:mobile-state></d:prop></d:set>"
        )
        self.assertIn("<r:mobile-state>1<", self.find("<d:prop><r:mobile-state/></d:prop>")[1])
        self.at.clock.pump([1.0] * 63)
        self.assertIn("<r:mobile-state>0<", self.find("<d:prop><r:mobile-state/></d:prop>")[1])
        bodies = [sent.wire for sent in self.at.outgoing.take()]
        self.assertEqual([b">1<" in body for body in bodies], [True, False])

    def test_bounds(self) -> None:
        """Sixty-four properties of 8 KiB and no more."""
        for number in range(64):
            self.assertIn(
                "200 Succ", self.patch(f"<d:set><d:prop><r:p{number}>x</r:p{number}></d:prop></d:set>")[1]
            )
        self.assertIn("409", self.patch("<d:set><d:prop><r:more>x</r:more></d:prop></d:set>")[1])
        self.assertIn("409", self.patch(f"<d:set><d:prop><r:p1>{'x' * 9000}</r:p1></d:prop></d:set>")[1])


class MessageTests(HomeTestCase):
    """NOTIFY and its acknowledgement."""

    def setUp(self) -> None:
        """Petra is logged in at one place."""
        super().setUp()
        self.at.login()

    def test_delivered(self) -> None:
        """Relayed unchanged, one hop further; answered when the client has (vector 35)."""
        asked = self.at.ask("NOTIFY", "/p", message(), who=TOMASZ, RVP_Ack_Type="DeepOr", RVP_Hop_Count="1")
        self.assertEqual(asked.status, 0)
        (sent,) = self.at.outgoing.take()
        call = sent.call
        self.assertEqual((call.target, call.headers[b"host"]), (b"/", b"192.0.2.77:3155"))
        self.assertEqual((call.headers[b"rvp-hop-count"], call.headers[b"rvp-ack-type"]), (b"2", b"DeepOr"))
        self.assertEqual(call.body.decode(), message())
        sent.reply()
        self.assertEqual(asked.status, 200)

    def test_verdicts(self) -> None:
        """Refused is 500, slow 504, unreachable 412, and nobody there 412 (vectors 36, 37, 39)."""
        for answer, status in ((500, 500), (Slow("late"), 504), (Unreachable("refused"), 412)):
            self.at.outgoing.answers[3155] = answer
            self.assertEqual(self.at.ask("NOTIFY", "/p", message(), who=TOMASZ).status, status)
        self.assertEqual(self.at.ask("NOTIFY", "/t", message(PETRA, TOMASZ), who=PETRA).status, 412)

    def test_single_hop(self) -> None:
        """SingleHop is answered at once (vector 39)."""
        asked = self.at.ask("NOTIFY", "/p", message(), who=TOMASZ, RVP_Ack_Type="SingleHop")
        self.assertEqual((asked.status, len(self.at.outgoing.take())), (200, 1))

    def test_what_gives_way(self) -> None:
        """A typing notice makes room for a message; what only speaks of one in its text does not (6.2)."""
        typing = message().replace("text/plain; charset=UTF-8", "text/x-msmsgscontrol")
        texts = [typing, message(text="what is text/x-msmsgscontrol?"), *[message()] * QUEUE]
        asked = [self.at.ask("NOTIFY", "/p", text, who=TOMASZ) for text in [message(), *texts]]
        self.assertEqual([each.status for each in asked], [0, 412, 0] + [0] * (QUEUE - 1) + [412])

    def test_twenty_seconds(self) -> None:
        """A deep acknowledgement never takes longer than 20 s."""
        asked = self.at.ask("NOTIFY", "/p", message(), who=TOMASZ)
        self.at.clock.advance(20)
        self.assertEqual(asked.status, 504)

    def test_two_places(self) -> None:
        """DeepOr is content with one place, DeepAnd is not (vector 38); one copy per call-back (vector 40)."""
        self.at.login(url="http://192.0.2.78:4000")
        self.at.login(url="http://192.0.2.78:4000")
        self.at.outgoing.answers = {3155: 500, 4000: 200}
        self.assertEqual(
            self.at.ask("NOTIFY", "/p", message(), who=TOMASZ, RVP_Ack_Type="DeepOr").status, 200
        )
        self.assertEqual(len(self.at.outgoing.take()), 2)
        self.assertEqual(
            self.at.ask("NOTIFY", "/p", message(), who=TOMASZ, RVP_Ack_Type="DeepAnd").status, 500
        )

    def test_forged(self) -> None:
        """The body cannot name another sender (vector 41)."""
        asked = self.at.ask("NOTIFY", "/p", message(sender=PETRA), who=TOMASZ)
        self.assertEqual((asked.status, self.at.outgoing.take()), (403, []))

    def test_bad_headers(self) -> None:
        """Nine hops are too many; nonsense is 400 (vector 42)."""
        for headers, status in (
            ({"RVP_Hop_Count": "9"}, 500),
            ({"RVP_Hop_Count": "x"}, 400),
            ({"RVP_Ack_Type": "Maybe"}, 400),
        ):
            self.assertEqual(self.at.ask("NOTIFY", "/p", message(), who=TOMASZ, **headers).status, status)

    def test_missing_description(self) -> None:
        """A message without a description gets one, or it would crash Miranda (vector 43)."""
        self.at.ask(
            "NOTIFY", "/p", message().replace("<r:description>Tomasz Lis</r:description>", ""), who=TOMASZ
        )
        (sent,) = self.at.outgoing.take()
        self.assertIn("<r:description>Tomasz Lis</r:description>", sent.call.body.decode())

    def test_raw(self) -> None:
        """Foreign XML passes unchanged, and the call-back's verdict comes back (vector 46)."""
        body = (
            "<?xml version=\"1.0\"?><r:notification xmlns:d='DAV:' xmlns:r='http://schemas.microsoft.com/rvp/' "
            "xmlns:a='http://schemas.microsoft.com/rvp/acl/'><e xmlns='urn:x'>1</e></r:notification>"
        )
        asked = self.at.ask("NOTIFY", "/p", body, who=TOMASZ, RVP_Ack_Type="DeepAnd")
        (sent,) = self.at.outgoing.take()
        self.assertEqual(sent.call.body.decode(), body)
        sent.reply(500)
        self.assertEqual(asked.status, 500)

    def test_a_revived_call_back(self) -> None:
        """A dead call-back is tried again once its client has called (protocol notes 6.5)."""
        self.at.watch("/p", PETRA)
        self.at.state("online", peer="192.0.2.1")
        for delay in (0, 2, 10, 30, 60):
            self.at.clock.advance(delay)
            for sent in self.at.outgoing.take():
                sent.done(Unreachable("refused"))
        self.assertEqual(self.at.ask("NOTIFY", "/p", message(), who=TOMASZ, peer="192.0.2.9").status, 412)
        self.at.ask("SUBSCRIPTIONS", "/p", who=PETRA, peer="192.0.2.77")
        self.at.outgoing.answers[3155] = 200
        self.assertEqual(self.at.ask("NOTIFY", "/p", message(), who=TOMASZ, peer="192.0.2.9").status, 200)


class AccessTests(HomeTestCase):
    """ACL, and who is let in at all."""

    def block(self, url: str) -> str:
        """The list of protocol notes 3.7 that blocks one principal."""
        mine = self.at.ask("ACL", "/p", who=PETRA).body
        ace = (
            f"<a:ace><a:principal><a:rvp-principal>{url}</a:rvp-principal><a:credentials><a:assertion/>"
            "<a:digest/><a:ntlm/></a:credentials></a:principal><a:grant/><a:deny><a:send-to/><a:presence/></a:deny></a:ace>"
        )
        return mine.replace("</a:inheritance>", "</a:inheritance>" + ace)

    def test_read(self) -> None:
        """The owner reads the default list, others may not (vector 49)."""
        asked = self.at.ask("ACL", "/p", who=PETRA)
        self.assertEqual(asked.status, 200)
        self.assertIn(
            "<a:rvp-principal>http://im.fabrik.example/instmsg/aliases/petra</a:rvp-principal>", asked.body
        )
        self.assertEqual(self.at.ask("ACL", "/p", who=TOMASZ).status, 403)

    def test_block(self) -> None:
        """A blocked watcher hears one last offline and is refused from then on (vector 51)."""
        self.at.login("/t", TOMASZ, "http://192.0.2.78:4000")
        self.at.outgoing.answers[4000] = 200
        self.at.watch("/p", TOMASZ)
        self.at.state("online")
        self.at.outgoing.take()
        allowed = self.at.ask("ACL", "/p", who=PETRA).body
        self.assertEqual(self.at.ask("ACL", "/p", self.block(TOMASZ), who=PETRA).status, 200)
        (sent,) = self.at.outgoing.take()
        self.assertIn(b"<r:offline/>", sent.wire)
        self.assertEqual(self.at.watch("/p", TOMASZ).status, 403)
        self.assertEqual(self.at.ask("NOTIFY", "/p", message(), who=TOMASZ).status, 403)
        self.at.state("busy")
        self.assertEqual(self.at.outgoing.take(), [])
        self.assertEqual(self.at.ask("ACL", "/p", allowed, who=PETRA).status, 200)
        (sent,) = self.at.outgoing.take()
        self.assertIn(b"<r:busy/>", sent.wire)

    def test_bad_lists(self) -> None:
        """A list without credentials or with an unknown right is 400, and nothing changes (vector 50)."""
        before = self.at.ask("ACL", "/p", who=PETRA).body
        for old, new in (("<a:digest/><a:ntlm/>", ""), ("<a:list/>", "<a:delete/>")):
            body = before.replace("<a:assertion/>", "").replace(old, new)
            self.assertEqual(self.at.ask("ACL", "/p", body, who=PETRA).status, 400)
        self.assertEqual(self.at.ask("ACL", "/p", before, who=TOMASZ).status, 403)
        self.assertEqual(self.at.ask("ACL", "/p", who=PETRA).body, before)

    def test_strangers_stay_out(self) -> None:
        """Other organisations are let in only where the administrator federates (design invariant 9)."""
        at = self.start(federation="closed")
        self.assertEqual(at.watch("/p", INGRID).status, 403)

    def test_unknown(self) -> None:
        """No such node, no such domain: 404 (vector 47)."""
        self.assertEqual(self.at.ask("PROPFIND", "/instmsg/aliases/nobody", who=TOMASZ).status, 404)
        self.assertEqual(self.at.ask("PROPFIND", "/p", who=TOMASZ, host="im.elsewhere.example").status, 404)

    def test_methods(self) -> None:
        """What RVP does not have is 501, COPY and MOVE 405 (vector 48)."""
        for method, status in (("GET", 501), ("OPTIONS", 501), ("DELETE", 501), ("COPY", 405), ("MOVE", 405)):
            self.assertEqual(self.at.ask(method, "/p").status, status)


class ElsewhereTests(HomeTestCase):
    """Nodes of other homes, and accounts that change."""

    def test_handed_on(self) -> None:
        """A call for another home's node is handed on as it is (product F04)."""
        asked = self.at.ask("NOTIFY", "/instmsg/aliases/olga", message(recipient=OLGA), who=TOMASZ)
        self.assertEqual((asked.status, len(self.at.elsewhere)), (200, 1))

    def test_disabled(self) -> None:
        """Disabling somebody ends sessions and subscriptions, and watchers see it (product F49)."""
        self.at.login("/t", TOMASZ, "http://192.0.2.78:4000")
        self.at.watch("/p", TOMASZ)
        self.at.login()
        self.at.state("online")
        self.at.outgoing.take()
        account = self.at.directory.peek(f"{DOMAIN}/instmsg/aliases/petra")
        from dataclasses import replace

        self.at.directory.put(replace(account, enabled=False))  # type: ignore[type-var]
        self.assertEqual(len(self.at.home.keeper.books.watchers), 0)
        self.assertEqual(self.at.ask("NOTIFY", "/p", message(), who=TOMASZ).status, 404)

    def test_directory_away(self) -> None:
        """A directory that cannot be asked is 503, never 404 (design section 5)."""
        self.at.directory.remembered.clear()
        self.at.directory.unavailable = True
        answer = self.at.ask("PROPFIND", "/p", who=TOMASZ)
        assert isinstance(answer.result, Busy)
        self.assertEqual(answer.result.headers, ((b"Retry-After", b"5"),))

    def test_nobody_while_the_directory_is_away(self) -> None:
        """Not even when it said some time ago that there is nobody."""
        self.assertEqual(self.at.ask("PROPFIND", "/instmsg/aliases/nobody", who=TOMASZ).status, 404)
        self.at.directory.unavailable = True
        self.assertEqual(self.at.ask("PROPFIND", "/instmsg/aliases/nobody", who=TOMASZ).status, 503)


def saved_of(at: LocalHome) -> Saved:
    """What the journal of C{at} would give back after a restart."""
    subscriptions = {
        change.row.id: change.row for change in at.journal.written if isinstance(change, PutSubscription)
    }
    views = {change.row.id: change.row for change in at.journal.written if isinstance(change, PutView)}
    meta = {change.key: change.value for change in at.journal.written if isinstance(change, PutMeta)}
    return Saved(tuple(subscriptions.values()), tuple(views.values()), (), (), meta)
