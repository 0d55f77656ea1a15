"""Tests of L{rvpfarm.protocol.notifications} and L{rvpfarm.protocol.fitness}."""

from __future__ import annotations

import re
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.protocol import notifications
from rvpfarm.protocol.calls import BadRequest
from rvpfarm.protocol.mime import parse_mime, render_text
from rvpfarm.protocol.notifications import (
    Notification,
    PropertyNotice,
    parse_changes,
    parse_notification,
    relay_body,
    render_message,
)
from rvpfarm.protocol.properties import EMAIL, Change, render_state, render_text_prop
from rvpfarm.protocol.xml import STATE, QName, parse_xml
from tests.support import printed
from tests.support.hypothesis import MODEST

P = "http://im.fabrik.example/instmsg/aliases/petra"
T = "http://im.fabrik.example/instmsg/aliases/tomasz"
I = "http://im.orchard.example/instmsg/aliases/ingrid"  # noqa: E741
SESSION = "{3B0C7F52-91D4-4E6A-8C17-5A2E90D4B7F1}"
MIME = render_text("Coffee at ten?", SESSION)
DESCRIPTION = b"<r:description>Tomasz Lis</r:description>"
TO = b"<r:notification-to>"
RVP_BOUND = b"xmlns:r='http://schemas.microsoft.com/rvp/'"


def relay(body: bytes, sender: str = T) -> bytes:
    """What of C{body} arrives at petra's call-back."""
    return relay_body(
        parse_notification(body),
        body,
        sender=sender,
        sender_name="Tomasz Lis",
        recipient=P,
        recipient_name="Petra Novak",
    )


def changed(old: bytes, new: bytes, body: bytes = printed.MESSAGE) -> bytes:
    """The printed message with one thing written differently."""
    assert old in body, old
    return body.replace(old, new, 1)


def parsed(body: bytes) -> Notification:
    """What the slow way makes of C{body}, without the tree."""
    slow = notifications._parse(body)
    return Notification(slow.kind, slow.sender, slow.sender_description, slow.recipients, slow.fit, slow.mime)


class MessageTests(SynchronousTestCase):
    """Messages are read, and relayed untouched wherever they can be (3.6, 6.4)."""

    def test_printed(self) -> None:
        """The printed message says who, to whom, and what."""
        message = parse_notification(printed.MESSAGE)
        self.assertEqual(message, Notification("message", T, "Tomasz Lis", (P,), True, MIME.decode()))
        self.assertEqual(message.mime, MIME.decode().replace("\r\n", "\n"))

    def test_rendered(self) -> None:
        """Our own is the printed one, byte for byte."""
        self.assertEqual(render_message(T, "Tomasz Lis", P, "Petra Novak", MIME), printed.MESSAGE)

    def test_verbatim(self) -> None:
        """A fit message is relayed as the very bytes that came (vector 35)."""
        self.assertIs(relay(printed.MESSAGE), printed.MESSAGE)

    def test_verbatim_variants(self) -> None:
        """So is one with other quotes, no ACL namespace, several recipients, or elements of others."""
        for body in (
            changed(b"'DAV:'", b'"DAV:"'),
            changed(b" xmlns:a='http://schemas.microsoft.com/rvp/acl/'", b""),
            changed(b" xmlns:a=", b" xmlns:x='urn:x' xmlns:a="),
            changed(
                TO,
                TO + b"<r:contact><d:href>" + I.encode() + b"</d:href></r:contact></r:notification-to>" + TO,
            ),
            changed(DESCRIPTION, b"<r:description></r:description>"),
            changed(b"<r:msgbody>", b"<mood xmlns='urn:m' r='1'>sunny</mood><r:msgbody>"),
            changed(b"Coffee", "Kaffee \u2615 \U0001f600".encode()),
            changed(b"\r\n", b"\n"),
        ):
            self.assertIs(relay(body), body)

    def test_no_description(self) -> None:
        """A missing or self-closed display name, which kills an old client, is filled in (vector 43)."""
        for old, new in (
            (DESCRIPTION, b""),
            (DESCRIPTION, b"<r:description/>"),
            (DESCRIPTION, b"<r:description />"),
        ):
            body = changed(old, new)
            self.assertFalse(parse_notification(body).fit)
            self.assertEqual(relay(body), printed.MESSAGE)

    def test_escaped_text(self) -> None:
        """Escaped mime-data becomes CDATA; white space before it goes (vector 43)."""
        for before, after in ((b"", b""), (b"\r\n  ", b"\r\n  ")):
            body = changed(b"<![CDATA[", before)
            body = changed(b"]]></r:mime-data>", after + b"</r:mime-data>", body)
            self.assertFalse(parse_notification(body).fit)
            self.assertEqual(relay(body), printed.MESSAGE)

    def test_escaped_control(self) -> None:
        """The empty line that ends the headers stays, though nothing follows it."""
        body = changed(b"<![CDATA[", b" ")
        body = changed(b"Coffee at ten?]]>", b"", body)
        self.assertIn(b"4B7F1}\r\n\r\n]]></r:mime-data>", relay(body))
        self.assertIn(b"<![CDATA[MIME-Version", relay(body))

    def test_character_references(self) -> None:
        """Line ends that were written as references are line ends."""
        head, _, tail = printed.MESSAGE.partition(b"<![CDATA[")
        mime, _, tail = tail.partition(b"]]>")
        escaped = head + mime.replace(b"\r\n", b"&#13;&#10;") + tail
        self.assertEqual(relay(escaped), printed.MESSAGE)

    def test_spaced_sections(self) -> None:
        """White space around CDATA sections goes, what is inside stays."""
        body = changed(b"<![CDATA[", b"\n <![CDATA[")
        body = changed(b"]]></r:mime-data>", b"]]> \n</r:mime-data>", body)
        self.assertEqual(relay(body), printed.MESSAGE)
        body = changed(b"Coffee at ten?]]>", b"Coffee ]]>\n<![CDATA[ at ten?]]>")
        self.assertIn(b"Coffee \r\n at ten?]]></r:mime-data>", relay(body))

    def test_end_of_section(self) -> None:
        """A text with C{]]>} arrives intact, split over two sections (vector 45)."""
        body = changed(b"ten?", b"ten ]]]]><![CDATA[> ?")
        self.assertIs(relay(body), body)
        self.assertTrue(parse_notification(body).mime.endswith("ten ]]> ?"))
        rewritten = relay(changed(DESCRIPTION, b"", body))
        self.assertEqual(rewritten, body)

    def test_unescaped_end_of_section(self) -> None:
        """Written without splitting, it is 400 (vector 44)."""
        self.assertRaises(BadRequest, parse_notification, changed(b"ten?", b"ten ]]> ?"))

    def test_prefixes(self) -> None:
        """Other prefixes, white space and comments mean the same, and are written as clients read them."""
        other = re.sub(rb"(</?|xmlns:)([dra])(?=[:=])", rb"\1Z\2", printed.MESSAGE)
        for body in (
            other,
            changed(b"<r:message>", b"\n <r:message>"),
            changed(b"><r:contact>", b"> <r:contact>"),
            changed(b"<d:href>", b"<d:href> "),
            changed(b"<d:href>", b"<d:href xml:lang='en'>"),
            changed(b"Tomasz", b" Tomasz"),
            changed(b"<r:message>", b"<!-- x --><r:message>"),
            changed(b"<r:message>", b"<?x?><r:message>"),
            changed(b"?>", b' encoding="utf-8"?>').replace(b'"1.0"?> ', b'"1.0" '),
            printed.MESSAGE + b"\n",
            b"\xef\xbb\xbf" + printed.MESSAGE,
            changed(b'<?xml version="1.0"?>', b""),
            printed.MESSAGE.replace(b"r:notification ", b"d:notification ").replace(
                b"</r:notification>", b"</d:notification>"
            ),
            changed(RVP_BOUND, RVP_BOUND.replace(b"/rvp/", b"/RVP")),
            changed(b"<d:href>", b"<d:href><![CDATA[").replace(b"tomasz</d:href>", b"tomasz]]></d:href>"),
        ):
            self.assertFalse(parse_notification(body).fit, body)
            self.assertEqual(relay(body), printed.MESSAGE)

    def test_sender_rewritten(self) -> None:
        """Another spelling of the sender becomes the logical URL."""
        physical = b"http://hs1.fabrik.example/instmsg/local/im.fabrik.example/instmsg/aliases/Tomasz"
        body = changed(T.encode(), physical)
        self.assertEqual(parse_notification(body).sender, physical.decode())
        self.assertEqual(relay(body), printed.MESSAGE)

    def test_no_recipient(self) -> None:
        """A missing recipient is filled in; several stay as they are."""
        start, end = printed.MESSAGE.index(TO), printed.MESSAGE.index(b"<r:msgbody>")
        party = printed.MESSAGE[start:end]
        body = printed.MESSAGE[:start] + printed.MESSAGE[end:]
        self.assertEqual(parse_notification(body).recipients, ())
        self.assertEqual(relay(body), printed.MESSAGE)
        other = party.replace(P.encode(), I.encode()).replace(b"Petra Novak", b"")
        body = changed(party, party + other)
        self.assertEqual(parse_notification(body).recipients, (P, I))
        self.assertIs(relay(body), body)
        self.assertEqual(relay(changed(DESCRIPTION, b"", body)), body)

    def test_refused(self) -> None:
        """What is no message from anybody is 400 (3.6)."""
        origin = printed.MESSAGE[printed.MESSAGE.index(b"<r:notification-from>") : printed.MESSAGE.index(TO)]
        content = b"<r:msgbody>" + printed.MESSAGE.partition(b"<r:msgbody>")[2].partition(b"</r:message>")[0]
        message = (
            b"<r:message>" + printed.MESSAGE.partition(b"<r:message>")[2].partition(b"</r:notification>")[0]
        )
        for body in (
            b"",
            b"x",
            b"<notification/>",
            b"<r:notification " + RVP_BOUND + b"/>",
            b"<r:notification " + RVP_BOUND + b">text</r:notification>",
            b"<r:message " + RVP_BOUND + b"><x/></r:message>",
            changed(origin, b""),
            changed(origin, origin * 2),
            changed(T.encode(), b" "),
            changed(b"<d:href>" + T.encode() + b"</d:href>", b""),
            changed(b"<d:href>" + T.encode() + b"</d:href>", b"<d:href>x</d:href>" * 2),
            changed(content, b""),
            changed(content, content * 2),
            changed(content, b"<r:msgbody></r:msgbody>"),
            changed(message, message * 2),
            changed(message, message + b"<r:propnotification/>"),
            changed(message, b"<x>" + message + b"</x>"),
            changed(content, content + message),
            changed(b"<r:notification", b"<!DOCTYPE x><r:notification"),
        ):
            self.assertRaises(BadRequest, parse_notification, body)

    def test_disguise(self) -> None:
        """A body in which some client could see another sender is never relayed as it is (invariant 1)."""
        forged = (
            b"<r:notification-from><r:contact><d:href>"
            + P.encode()
            + b"</d:href></r:contact></r:notification-from>"
        )
        for body in (
            changed(b"<r:message>", b"<r:message><x xmlns:r='urn:x'>" + forged + b"</x>"),
            changed(b"<r:message>", b"<r:message><x>" + forged + b"</x>"),
            changed(
                b"<r:message>",
                b"<x:message xmlns:x='urn:x' xmlns:r='urn:r'>" + forged + b"</x:message><r:message>",
            ),
            changed(
                b"<d:href>", b"<x:href xmlns:x='urn:x'><d:href>" + P.encode() + b"</d:href></x:href><d:href>"
            ),
        ):
            notification = parse_notification(body)
            self.assertEqual((notification.sender, notification.fit), (T, False))
            self.assertEqual(relay(body), printed.MESSAGE)

    def test_markup_in_names(self) -> None:
        """Names with markup in them stay names."""
        body = render_message(T, "<Tomasz> & co", P, "]]>", MIME)
        notification = parse_notification(body)
        self.assertEqual((notification.sender_description, notification.fit), ("<Tomasz> & co", True))
        self.assertIs(relay(body), body)
        self.assertIn(b"&lt;Tomasz> &amp; co", relay(body, P))

    @MODEST
    @given(st.text(), st.text(st.characters(exclude_categories=("Cs", "Cc"))))
    def test_any_text(self, text: str, name: str) -> None:
        """Whatever is said by whomever, the message arrives."""
        clean = "".join(c if c in "\t\n\r" or c.isprintable() else "?" for c in text)
        mime = render_text(clean, SESSION)
        body = render_message(T, name, P, "", mime)
        notification = parse_notification(body)
        lines = clean.replace("\r\n", "\n").replace("\r", "\n")
        self.assertEqual(parse_mime(notification.mime).body, lines)
        again = relay_body(notification, body, sender=I, sender_name="x", recipient=P, recipient_name="")
        self.assertEqual(parse_mime(parse_notification(again).mime).body, lines)
        self.assertEqual(parse_notification(again).sender, I)


class PropertyTests(SynchronousTestCase):
    """Property notifications are rendered once for all, read, and relayed (3.6, 6.5)."""

    def test_rendered(self) -> None:
        """Ours is the printed one, byte for byte."""
        notice = PropertyNotice(P, "Petra Novak", [render_state("busy")])
        self.assertEqual(notice.body_for(I), printed.PROPERTY)

    def test_escaped(self) -> None:
        """Names with markup in them stay names, also where they look like our own elements."""
        tricky = "</d:href><r:description> & <r:notification-to>"
        notice = PropertyNotice(P, tricky, [render_state("busy"), render_text_prop("d:displayname", tricky)])
        body = notice.body_for(I + "&x", tricky)
        notification = parse_notification(body)
        self.assertEqual((notification.sender, notification.sender_description), (P, tricky))
        self.assertEqual(notification.recipients, (I + "&x",))
        self.assertEqual(parse_changes(body)[0], Change("set", STATE, "busy"))

    def test_printed(self) -> None:
        """The printed one says who changed, and how."""
        self.assertEqual(
            parse_notification(printed.PROPERTY), Notification("property", P, "Petra Novak", (I,), True)
        )
        self.assertEqual(parse_changes(printed.PROPERTY), (Change("set", STATE, "busy"),))
        self.assertIs(relay(printed.PROPERTY, P), printed.PROPERTY)

    def test_propstat(self) -> None:
        """C{d:propstat} in place of C{d:propertyupdate} is understood and never relayed."""
        body = printed.PROPERTY.replace(b"d:propertyupdate>", b"d:propstat>")
        body = body.replace(b"<d:set>", b"").replace(b"</d:set>", b"<d:status>HTTP/1.1 200 OK</d:status>")
        self.assertFalse(parse_notification(body).fit)
        self.assertEqual(parse_changes(body), (Change("set", STATE, "busy"),))
        self.assertEqual(relay(body, P), printed.PROPERTY)

    def test_rewritten(self) -> None:
        """A lease becomes plain, texts get end tags, and a presence that nobody knows is left out."""
        props = (
            b"<r:state><r:leased-value><r:value><r:busy/></r:value></r:leased-value></r:state>"
            b"<r:state><r:sleepy/></r:state><r:email/><r:shoe-size>9</r:shoe-size>"
        )
        body = changed(b"<r:state><r:busy/></r:state>", props, printed.PROPERTY)
        body = changed(b"</d:set>", b"</d:set><d:remove><d:prop><r:mobile-state/></d:prop></d:remove>", body)
        self.assertFalse(parse_notification(body).fit)
        written = relay(body, P)
        self.assertIn(b"<d:set><d:prop><r:state><r:busy/></r:state></d:prop></d:set>", written)
        self.assertIn(b"<r:email></r:email>", written)
        self.assertIn(b"<d:remove><d:prop><r:mobile-state></r:mobile-state></d:prop></d:remove>", written)
        self.assertNotIn(b"sleepy", written)
        self.assertEqual(
            [change.name for change in parse_changes(written)],
            [STATE, EMAIL, QName(STATE.namespace, "shoe-size"), QName(STATE.namespace, "mobile-state")],
        )

    def test_unfit(self) -> None:
        """A presence that is missing, leased or unknown is not relayed as it is."""
        for state in (b"<r:state/>", b"<r:state><r:sleepy/></r:state>", b"<r:state> <r:busy/></r:state>"):
            body = changed(b"<r:state><r:busy/></r:state>", state, printed.PROPERTY)
            self.assertFalse(parse_notification(body).fit)

    def test_fit(self) -> None:
        """Several properties, also other people's, are."""
        for props in (
            b"<r:state><r:idle/></r:state><d:displayname>P</d:displayname><r:mobile-state>1</r:mobile-state>",
            b"<r:email></r:email><c xmlns='urn:c'> <z/></c>",
        ):
            body = changed(b"<r:state><r:busy/></r:state>", props, printed.PROPERTY)
            self.assertIs(relay(body, P), body)

    def test_refused(self) -> None:
        """A notification of nothing is 400, and so is one by nobody."""
        start, end = printed.PROPERTY.index(b"<d:propertyupdate>"), printed.PROPERTY.index(b"</r:propnot")
        for body in (
            printed.PROPERTY[:start] + printed.PROPERTY[end:],
            changed(P.encode(), b"", printed.PROPERTY),
        ):
            self.assertRaises(BadRequest, parse_notification, body)
        self.assertRaises(BadRequest, parse_changes, printed.MESSAGE)


class RawTests(SynchronousTestCase):
    """Foreign content is passed on (3.6)."""

    def test_verbatim(self) -> None:
        """As it is, with comments and all (vector 46)."""
        commented = changed(b"<kind>", b"\n<!-- x --><kind>", printed.RAW)
        for body in (printed.RAW, commented):
            notification = parse_notification(body)
            self.assertEqual((notification.kind, notification.sender, notification.fit), ("raw", None, True))
            self.assertIs(relay(body), body)

    def test_rewritten(self) -> None:
        """Under another root or prefix it is written anew, and means the same."""
        for body in (
            printed.RAW.replace(b"r:notification", b"d:notification"),
            printed.RAW.replace(b"r:notification", b"z:notification").replace(b"xmlns:r=", b"xmlns:z="),
        ):
            written = relay(body)
            self.assertEqual(parse_xml(written).name, parse_xml(printed.RAW).name)
            self.assertIn(b"'><n1:parcelEvent xmlns:n1='urn:example:parcel'><n1:kind>DELIVERED<", written)

    def test_disguise(self) -> None:
        """What some client would take for a message is not passed on as one."""
        for new in (
            b"<r:message xmlns:r='urn:x'><a/></r:message><parcelEvent ",
            b"<parcelEvent xmlns:d='urn:x' ",
        ):
            body = changed(b"<parcelEvent ", new, printed.RAW)
            self.assertFalse(parse_notification(body).fit)
            self.assertNotIn(b"<r:message", relay(body))
        body = changed(b"<parcelEvent ", b"<x:message xmlns:x='urn:x'/><parcelEvent ", printed.RAW)
        body = changed(b" xmlns:a=", b" xmlns:x='http://schemas.microsoft.com/rvp/' xmlns:a=", body)
        self.assertFalse(parse_notification(body).fit)
        self.assertNotIn(b"<x:message", relay(body))


class TwoWaysTests(SynchronousTestCase):
    """The short way and the long way to read a body agree."""

    def agree(self, body: bytes) -> None:
        """If the short way knows C{body}, the long way says the same."""
        short = notifications._recognise(body)
        if short is not None:
            self.assertEqual(replace(short, text=short.mime), parsed(body))
        self.assertEqual(notifications._recognise(body), short)  # whose opening may be known by now

    def test_printed(self) -> None:
        """Both know the printed bodies."""
        for body in (printed.MESSAGE, printed.PROPERTY):
            self.assertIsNotNone(notifications._recognise(body))
            self.agree(body)
        self.assertIsNone(notifications._recognise(printed.RAW))

    def test_known_opening(self) -> None:
        """That the opening of a message is known says nothing of what follows it."""
        parse_notification(printed.MESSAGE)
        for old, new in (
            (b"ten?", b"ten?]]>"),
            (b"ten?", b"ten?\x00"),
            (b"ten?", b"\xff"),
            (b"ten?", b"\xef\xbf\xbf"),
            (b"</r:mime-data>", b"</r:mime-data><r:mime-data>2</r:mime-data>"),
            (b"</r:notification>", b"</r:notification><x/>"),
            (b"</r:notification>", b""),
        ):
            self.assertIsNone(notifications._recognise(changed(old, new)), new)
        self.assertEqual(parse_notification(changed(b"ten", b"two")).mime.count("two"), 1)

    def test_bounded(self) -> None:
        """However many people talk, and however many in one conversation, what is kept of them has an end."""
        start, end, after = printed.MESSAGE.partition(b"</r:notification-to>")
        recipient = start[start.index(TO) :] + end
        notifications._recognise(start + end + recipient * 20 + after)
        self.assertNotIn(20 * recipient, b"".join(notifications._openings))
        for number in range(2 * notifications._OPENINGS):
            notifications._recognise(changed(b"Petra Novak", b"Petra %d" % number))
        self.assertLessEqual(len(notifications._openings), notifications._OPENINGS)

    def test_crafted(self) -> None:
        """They agree on what was made to part them."""
        for body in (
            changed(b"ten?", b"ten\r?\n\r\n"),
            changed(b"ten?", b"]]]]><![CDATA[>]"),
            changed(b"ten?", b"<![CDATA["),
            changed(b"ten?", b"]]><![CDATA[]]><![CDATA["),
            changed(b"ten?", b"\x7f\xc2\x85\xe2\x80\xa8"),
            changed(b"ten?", b"\xef\xbf\xbe"),
            changed(b"ten?", b"\x0b"),
            changed(b"ten?", b"\xff"),
            changed(b"ten?", b"]"),
            changed(b"Tomasz Lis", "Tomasz\u00a0\u2028Lis".encode()),
            changed(b"Tomasz Lis", b"Tomasz\x1f"),
            changed(b"Petra Novak", b""),
            changed(b"<r:msgbody><r:mime-data>", b"<d:propertyupdate>"),
            changed(b"<d:propertyupdate>", b"<r:msgbody><r:mime-data><![CDATA[", printed.PROPERTY),
            changed(b"busy", b"idle", printed.PROPERTY),
            changed(b" xmlns:a=", b" xmlns:d='DAV:' xmlns:a="),
            printed.MESSAGE.replace(b"r:message>", b"r:propnotification>"),
        ):
            self.agree(body)

    @MODEST
    @given(
        st.sampled_from((printed.MESSAGE, printed.PROPERTY)),
        st.lists(
            st.tuples(
                st.integers(0, 800),
                st.integers(0, 3),
                st.sampled_from(
                    (
                        b"",
                        b" ",
                        b"<",
                        b">",
                        b"]",
                        b"]]>",
                        b"<![CDATA[",
                        b"&",
                        b"\r",
                        b"\n",
                        b"x",
                        b"'",
                        b"\x00",
                        b"\xc2\xa0",
                    )
                ),
            ),
            max_size=3,
        ),
    )
    def test_damaged(self, body: bytes, edits: list[tuple[int, int, bytes]]) -> None:
        """They agree on printed bodies that were edited anywhere, and both refuse with 400 only."""
        for at, length, new in edits:
            body = body[:at] + new + body[at + length :]
        self.agree(body)
        try:
            notification = parse_notification(body)
        except BadRequest:
            return
        if notification.sender is not None:
            parse_notification(relay(body, notification.sender))
