"""Tests of C{rvpfarm.client.notices}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.client.notices import Left, Message, Presence, Typing, parse_notice
from rvpfarm.protocol.calls import BadRequest
from rvpfarm.protocol.mime import render_text, render_typing
from rvpfarm.protocol.notifications import PropertyNotice, render_message
from rvpfarm.protocol.xml import render_document

BOB = "http://im.farm.localhost/instmsg/aliases/bob"
ALICE = "http://im.farm.localhost/instmsg/aliases/alice"
TALK = "{3B0C7F52-91D4-4E6A-8C17-5A2E90D4B7F1}"


def message(mime: bytes) -> bytes:
    """A NOTIFY from bob to alice."""
    return render_message(BOB, "Bob B.", ALICE, "", mime)


class ParseNoticeTests(SynchronousTestCase):
    """What a call-back brings."""

    def test_message(self) -> None:
        """A message, with everything that an answer needs."""
        self.assertEqual(
            parse_notice(message(render_text("Coffee ]]> at\nten?", TALK))),
            Message("bob@im.farm.localhost", BOB, "Bob B.", "Coffee ]]> at\nten?", TALK),
        )

    def test_typing(self) -> None:
        """Somebody is typing."""
        notice = parse_notice(message(render_typing("bob@farm.localhost", TALK)))
        self.assertEqual(notice, Typing("bob@im.farm.localhost", BOB, TALK))

    def test_opening(self) -> None:
        """A control without a typing user only opens the conversation."""
        mime = f"MIME-Version: 1.0\r\nContent-Type: text/x-msmsgscontrol\r\nSession-Id: {TALK}\r\n\r\n"
        self.assertIsNone(parse_notice(message(mime.encode())))

    def test_leaving(self) -> None:
        """Somebody has left."""
        mime = f"Content-Type: text/x-imleave\r\nSession-Id: {TALK.lower()}\r\n\r\n"
        self.assertEqual(parse_notice(message(mime.encode())), Left("bob@im.farm.localhost", BOB, TALK))

    def test_invitation(self) -> None:
        """Other media types come as messages that say so."""
        notice = parse_notice(message(b"Content-Type: Text/X-MSMSGSInvite; charset=UTF-8\r\n\r\nA: b"))
        assert isinstance(notice, Message)
        self.assertEqual(notice.kind, "text/x-msmsgsinvite")

    def test_no_type(self) -> None:
        """A message without a type is refused, as other clients do."""
        self.assertRaises(BadRequest, parse_notice, message(b"Session-Id: {1}\r\n\r\nhello"))

    def test_presence(self) -> None:
        """A change of presence, and other properties along with it."""
        body = PropertyNotice(
            BOB, "Bob B.", ("<r:state><r:busy/></r:state>", "<r:mobile-state>1</r:mobile-state>")
        ).body_for(ALICE)
        self.assertEqual(
            parse_notice(body), Presence("bob@im.farm.localhost", BOB, "busy", {"mobile-state": "1"})
        )

    def test_raw(self) -> None:
        """Foreign XML concerns programs only."""
        self.assertIsNone(parse_notice(render_document("r:notification", "<x xmlns='urn:x'/>")))

    def test_nonsense(self) -> None:
        """What is no notification is refused."""
        for body in (b"", b"<html/>", b"hello"):
            self.assertRaises(BadRequest, parse_notice, body)
