"""Vectors 35 to 46: messages, and what their senders are told."""

from __future__ import annotations

import time

from tests.support.farmhouse import PETRA, TOMASZ
from tests.support.printed import MESSAGE, RAW
from tests.support.vectors import VectorTestCase, request
from tests.support.wire import Listener, Manner, Message

#: Of one line of the MIME part.
CR_LF = b"\r\n"


class NotifyVectors(VectorTestCase):
    """NOTIFY to petra, who is logged in at call-backs of the test's own."""

    def logged_in(self, *scripts: int | Manner) -> list[Listener]:
        """Log petra in at a call-back for each of C{scripts}."""
        listeners = [self.listener(script) for script in scripts]
        for listener in listeners:
            self.login(listener)
        return listeners

    def notify(
        self, status: int, body: bytes = MESSAGE, *, ack: str = "DeepOr", hops: str = "1", path: str = "/p"
    ) -> Message:
        """The NOTIFY of vector 35."""
        headers = (f"RVP-Ack-Type: {ack}", f"RVP-Hop-Count: {hops}")
        return self.check(status, "NOTIFY", path, *headers, who=TOMASZ, body=body)

    def test_vector_35(self) -> None:
        """The call-back gets the same body one hop further on, and only then the sender is told."""
        (listener,) = self.logged_in(200)
        answer = self.notify(200)
        self.assertEqual(answer.body, b"")
        (told,) = listener.heard
        self.assertEqual(told.line, "NOTIFY / HTTP/1.1")
        self.assertEqual(told.body, MESSAGE)
        for name, value in (
            ("Host", listener.url.removeprefix("http://")),
            ("RVP-Notifications-Version", "0.2"),
            ("RVP-Ack-Type", "DeepOr"),
            ("RVP-Hop-Count", "2"),
            ("RVP-From-Principal", TOMASZ),
            ("Content-Type", "text/xml"),
            ("Content-Length", "773"),
        ):
            self.assertEqual(told.header(name), value)
        for name in ("Expect", "Transfer-Encoding", "Authorization"):
            self.assertEqual(told.every(name), [])

    def test_vector_36(self) -> None:
        """Nobody logged in, and a call-back that is not there: unreachable either way."""
        self.notify(412)
        (listener,) = self.logged_in(200)
        listener.close()
        self.notify(412)

    def test_vector_37(self) -> None:
        """The call-back's "no" means that the user has left the conversation."""
        self.logged_in(500)
        self.notify(500)

    def test_vector_38(self) -> None:
        """One of two places takes it: enough for DeepOr, too few for DeepAnd."""
        refusing, taking = self.logged_in(500, 200)
        self.notify(200, ack="DeepOr")
        self.notify(500, ack="DeepAnd")
        self.assertEqual((len(refusing.wait(2)), len(taking.wait(2))), (2, 2))

    def test_vector_39(self) -> None:
        """Who asks for one hop is answered at once; who waits for silence, when 10 s are over.

        A call-back that reads and never answers and one whose connection merely stands are alike; the
        latter is tomasz's, so that both are waited for at the same time.
        """
        silent, half_open = self.listener(Manner.SILENT), self.listener(Manner.HALF_OPEN)
        number = self.login(silent)
        begun = time.monotonic()
        self.notify(200, ack="SingleHop")
        silent.wait()  # it was answered though the call-back never will
        self.check(200, "UNSUBSCRIBE", "/p", f"Subscription-Id: {number}", who=PETRA)
        self.logged_in(Manner.SILENT)
        self.login(half_open, "/t", TOMASZ)
        waiting = [self.connect(), self.connect()]
        for wire, path in zip(waiting, ("/p", "/t"), strict=True):
            wire.send(request("NOTIFY", path, "RVP-Ack-Type: DeepOr", who=TOMASZ, body=MESSAGE))
        for wire in waiting:
            answer = wire.read()
            self.assertEqual(answer.status, 504, answer.raw)
            self.check_answer(answer)
        self.assertGreater(time.monotonic() - begun, 9.5)

    def test_vector_40(self) -> None:
        """Two logins with one call-back are two subscriptions and one copy."""
        (listener,) = self.logged_in(200)
        self.login(listener)
        self.notify(200)
        self.notify(200)
        self.assertEqual(len(listener.wait(2)), 2)

    def test_vector_41(self) -> None:
        """Nobody sends in another's name."""
        (listener,) = self.logged_in(200)
        forged = MESSAGE.replace(TOMASZ.encode(), PETRA.encode(), 1)
        self.assertNotEqual(forged, MESSAGE)
        self.notify(403, forged)
        self.assertEqual(listener.heard, [])

    def test_vector_42(self) -> None:
        """Too many hops, hops that are no number, and an acknowledgement that there is not."""
        (listener,) = self.logged_in(200)
        self.notify(500, hops="9")
        self.notify(400, hops="x")
        self.notify(400, ack="Maybe")
        self.assertEqual(listener.heard, [])
        self.notify(200, hops="8")

    def test_vector_43(self) -> None:
        """What would harm Miranda is written anew: a description is put in, escaped text becomes CDATA."""
        (listener,) = self.logged_in(200)
        description = b"<r:description>Tomasz Lis</r:description>"
        bare = MESSAGE.replace(description, b"", 1)
        self.assertNotEqual(bare, MESSAGE)
        self.notify(200, bare)
        self.assertEqual(listener.wait()[0].body, MESSAGE)
        escaped = MESSAGE.replace(b"<![CDATA[", b"").replace(b"]]>", b"").replace(CR_LF, b"&#13;\n")
        self.assertNotIn(b"CDATA", escaped)
        self.notify(200, escaped)
        self.assertEqual(listener.wait(2)[1].body, MESSAGE)

    def test_vector_44(self) -> None:
        """C{]]>} that is not split ends the section, and what follows is no XML: nothing is delivered."""
        (listener,) = self.logged_in(200)
        self.notify(400, MESSAGE.replace(b"Coffee at ten?", b"Coffee ]]> at <ten?"))
        self.notify(400, MESSAGE.replace(b"Coffee at ten?", b"Coffee ]]> at ten?"))
        self.assertEqual(listener.heard, [])

    def test_vector_45(self) -> None:
        """C{]]>} that is split over two sections arrives as it was sent, wherever the split is."""
        (listener,) = self.logged_in(200)
        for number, split in enumerate((b"]]]]><![CDATA[>", b"]]]><![CDATA[]>"), 1):
            body = MESSAGE.replace(b"Coffee at ten?", b"Coffee %b at ten?" % split)
            self.notify(200, body)
            self.assertEqual(listener.wait(number)[number - 1].body, body)

    def test_vector_46(self) -> None:
        """Foreign XML goes to the call-back unchanged, and the call-back's verdict comes back."""
        (listener,) = self.logged_in(200)
        self.notify(200, RAW, ack="DeepAnd")
        listener.script = 500
        self.notify(500, RAW, ack="DeepAnd")
        self.assertEqual([told.body for told in listener.heard], [RAW, RAW])
