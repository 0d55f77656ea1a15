"""Vectors 1 to 20: SUBSCRIBE, UNSUBSCRIBE and SUBSCRIPTIONS."""

from __future__ import annotations

from tests.support.farmhouse import PETRA, TOMASZ
from tests.support.vectors import CALL_BACK, LOGIN, VectorTestCase, propstats, request
from tests.support.wire import Message

WATCH = ("Notification-Type: update/propchange", "Subscription-Lifetime: 14400")


class LoginVectors(VectorTestCase):
    """Putting a client's listener on the list of live call-backs."""

    def check_login(self, status: int, *headers: str, path: str = "/p", who: str = PETRA) -> Message:
        """The SUBSCRIBE of vector 1 with other headers."""
        return self.check(status, "SUBSCRIBE", path, *headers, who=who)

    def test_vector_1(self) -> None:
        """A login is granted: a positive id, the lifetime, and no body."""
        answer = self.check_login(200, *LOGIN, CALL_BACK)
        self.assertGreater(int(answer.header("Subscription-Id")), 0)
        self.assertEqual(answer.header("Subscription-Lifetime"), "14400")
        self.assertEqual(answer.body, b"")
        self.assertEqual(answer.line, "HTTP/1.1 200 Successful")

    def test_vector_2(self) -> None:
        """Nobody may subscribe for ever."""
        self.check_login(400, LOGIN[0], CALL_BACK)

    def test_vector_3(self) -> None:
        """A lifetime of nothing, or one that is no number, is malformed."""
        for lifetime in ("0", "abc"):
            self.check_login(400, LOGIN[0], f"Subscription-Lifetime: {lifetime}", CALL_BACK)

    def test_vector_4(self) -> None:
        """Too long a lifetime is cut down, not refused."""
        answer = self.check_login(200, LOGIN[0], "Subscription-Lifetime: 999999", CALL_BACK)
        self.assertEqual(answer.header("Subscription-Lifetime"), "14400")

    def test_vector_5(self) -> None:
        """A login without a call-back is malformed."""
        self.check_login(400, *LOGIN)

    def test_vector_6(self) -> None:
        """There are two kinds of subscriptions and no third."""
        self.check_login(400, "Notification-Type: weather/change", LOGIN[1], CALL_BACK)

    def test_vector_7(self) -> None:
        """Nobody receives what is somebody else's."""
        self.check_login(403, *LOGIN, CALL_BACK, who=TOMASZ)

    def test_vector_8(self) -> None:
        """A login that names the node itself would loop."""
        self.check_login(400, *LOGIN, f"Call-Back: {PETRA}")

    def test_vector_9(self) -> None:
        """Lines may end in LF alone, as Miranda writes them."""
        wire = self.connect()
        data = request("SUBSCRIBE", "/p", *LOGIN, CALL_BACK, who=PETRA).replace(b"\r\n", b"\n")
        self.assertNotIn(b"\r", data)
        answer = wire.ask(data)
        self.assertEqual(answer.status, 200, answer.raw)
        self.check_answer(answer)

    def test_vector_10(self) -> None:
        """The path may be written in any letter case: it is the same node."""
        self.check_login(200, *LOGIN, CALL_BACK)
        answer = self.check_login(200, *LOGIN, CALL_BACK, path="/INSTMSG/Aliases/PETRA")
        number = answer.header("Subscription-Id")
        held = self.check(200, "SUBSCRIPTIONS", "/p", who=PETRA)
        self.assertTrue(held.has(f"<r:subscription-id>{number}</r:subscription-id>"), held.body)
        self.assertEqual(held.body.count(b"<r:subscription>"), 2)

    def test_vector_11(self) -> None:
        """The host of an absolute target counts, and not what C{Host} says."""
        self.check(200, "SUBSCRIBE", PETRA, *LOGIN, CALL_BACK, who=PETRA, host="hs9.invalid")

    def test_vector_12(self) -> None:
        """The version may be missing, is echoed when it is 1.0, and has to be a number."""
        for version, status, said in (("", 200, "0.2"), ("1.0", 200, "1.0"), ("banana", 400, "0.2")):
            answer = self.check(status, "SUBSCRIBE", "/p", *LOGIN, CALL_BACK, who=PETRA, version=version)
            self.assertEqual(answer.header("RVP-Notifications-Version"), said, version)


class WatchVectors(VectorTestCase):
    """Watching somebody's properties, renewing that, and ending it."""

    def renew(self, status: int, number: str, *, path: str = "/p", who: str = "") -> Message:
        """The refresh of vector 15."""
        headers = (f"Subscription-Id: {number}", "Subscription-Lifetime: 14400")
        return self.check(status, "SUBSCRIBE", path, *headers, who=who or self.ingrid)

    def check_lifetime(self, answer: Message) -> None:
        """What is granted of 14400 s may be a little less, but not so little that Miranda minds (3.1)."""
        granted = int(answer.header("Subscription-Lifetime"))
        self.assertTrue(3600 <= granted <= 14400, granted)

    def end(self, status: int, *headers: str, who: str = "") -> Message:
        """The UNSUBSCRIBE of vector 17."""
        return self.check(status, "UNSUBSCRIBE", "/p", *headers, who=who or self.ingrid)

    def test_vector_13(self) -> None:
        """A stranger watches: one response, one propstat, a plain state; and hears of the next change.

        The name of the stranger's server is looked up, by a DNS server of the test's own, and the
        notification arrives there as section 3.6 prints it.
        """
        orchard = self.orchard()
        answer = self.watch(self.ingrid)
        self.assertEqual(answer.body.count(b"<d:response>"), 1)
        ((status, props),) = propstats(answer.body)
        self.assertEqual(status, 200)
        self.assertEqual(
            props,
            "<r:state><r:offline/></r:state><d:displayname>Petra Novak</d:displayname>"
            "<r:email>petra@fabrik.example</r:email><r:mobile-state>0</r:mobile-state>"
            "<r:mobile-description></r:mobile-description>",
        )
        self.check_lifetime(answer)
        self.set_state("busy")
        (told,) = orchard.wait()
        self.assertEqual(told.line, "NOTIFY /instmsg/aliases/ingrid HTTP/1.1")
        self.assertEqual(told.header("Host"), self.ingrid.split("/")[2])
        self.assertEqual(told.header("RVP-Hop-Count"), "1")
        self.assertEqual(told.header("RVP-From-Principal"), "im.fabrik.example")
        self.assertEqual(told.header("Subscription-Id"), answer.header("Subscription-Id"))
        self.assertTrue(told.has(f"<d:href>{PETRA}</d:href><r:description>Petra Novak</r:description>"))
        self.assertTrue(told.has(f"<d:href>{self.ingrid}</d:href>"))
        self.assertTrue(told.has("<d:set><d:prop><r:state><r:busy/></r:state></d:prop></d:set>"))

    def test_vector_14(self) -> None:
        """A stranger must not have somebody else called."""
        self.check(403, "SUBSCRIBE", "/p", *WATCH, "Call-Back: http://203.0.113.5:99", who=self.ingrid)

    def test_vector_15(self) -> None:
        """A refresh repeats the id and has no body, by which Net::RVP tells it."""
        number = self.watch(self.ingrid).header("Subscription-Id")
        answer = self.renew(200, number)
        self.assertEqual(answer.header("Subscription-Id"), number)
        self.check_lifetime(answer)
        self.assertEqual(answer.body, b"")

    def test_vector_16(self) -> None:
        """An unknown id, one of another node, and one of somebody else."""
        number = self.watch(self.ingrid).header("Subscription-Id")
        self.renew(412, "2147483647")
        self.renew(412, number, path="/t")
        self.renew(403, number, who=TOMASZ)
        self.renew(200, number)

    def test_vector_17(self) -> None:
        """What was ended is unknown from then on."""
        number = self.watch(self.ingrid).header("Subscription-Id")
        self.assertEqual(self.end(200, f"Subscription-Id: {number}").body, b"")
        self.end(412, f"Subscription-Id: {number}")

    def test_vector_18(self) -> None:
        """No id, somebody else's, and the owner, who may end any subscription of the node."""
        number = self.watch(self.ingrid).header("Subscription-Id")
        self.end(400)
        self.end(403, f"Subscription-Id: {number}", who=TOMASZ)
        self.end(200, f"Subscription-Id: {number}", who=PETRA)

    def test_vector_19(self) -> None:
        """A login is listed to its owner by id and logical URL, never by address."""
        login = self.check(200, "SUBSCRIBE", "/p", *LOGIN, CALL_BACK, who=PETRA)
        number = login.header("Subscription-Id")
        answer = self.check(200, "SUBSCRIPTIONS", "/p", LOGIN[0], who=PETRA)
        self.assertEqual(answer.header("Content-Type"), "text/xml")
        self.assertRegex(
            answer.body.decode(),
            f"^.*<r:subscriptions .*><r:subscription><r:subscription-id>{number}</r:subscription-id>"
            f"<d:href>{PETRA}</d:href><a:principal><a:rvp-principal>{PETRA}</a:rvp-principal></a:principal>"
            r"<d:timeout>1[34]\d\d\d</d:timeout></r:subscription></r:subscriptions>$",
        )
        for address in ("192.0.2.77", "3155", "127.0.0."):
            self.assertFalse(answer.has(address), answer.body)

    def test_vector_20(self) -> None:
        """Nobody else is told who is logged in."""
        self.check(200, "SUBSCRIBE", "/p", *LOGIN, CALL_BACK, who=PETRA)
        self.check(403, "SUBSCRIPTIONS", "/p", LOGIN[0], who=TOMASZ)
