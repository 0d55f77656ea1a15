"""Tests of C{rvpfarm.client.documents}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.client.documents import (
    Properties,
    parse_multistatus,
    read_subscription,
    render_state_change,
    render_state_question,
)
from rvpfarm.protocol.calls import BadRequest
from rvpfarm.protocol.properties import FindKind, parse_propertyupdate, parse_propfind
from rvpfarm.protocol.xml import STATE, render_document
from tests.support.carrier import response

URL = "http://im.fabrik.example/instmsg/aliases/petra"


def multistatus(*propstats: tuple[str, str]) -> bytes:
    """A multistatus with these properties and statuses."""
    inner = "".join(
        f"<d:propstat><d:prop>{props}</d:prop><d:status>HTTP/1.1 {status}</d:status></d:propstat>"
        for props, status in propstats
    )
    return render_document("d:multistatus", f"<d:response><d:href>{URL}</d:href>{inner}</d:response>")


class RenderTests(SynchronousTestCase):
    """What a client sends is what servers read."""

    def test_question(self) -> None:
        """The presence is asked for by name."""
        asked = parse_propfind(render_state_question())
        self.assertEqual((asked.kind, asked.names), (FindKind.NAMED, (STATE,)))

    def test_first_change(self) -> None:
        """The body of protocol notes 3.5, byte for byte."""
        self.assertEqual(
            render_state_change("online", 1200, None).decode(),
            "<?xml version=\"1.0\"?><d:propertyupdate xmlns:d='DAV:' "
            "xmlns:r='http://schemas.microsoft.com/rvp/' xmlns:a='http://schemas.microsoft.com/rvp/acl/'><d:set><d:prop><r:state><r:leased-value><r:value>"
            "<r:online/></r:value><r:default-value><r:offline/></r:default-value><d:timeout>1200</d:timeout>"
            "</r:leased-value></r:state></d:prop></d:set></d:propertyupdate>",
        )

    def test_later_change(self) -> None:
        """A later change names the view."""
        (change,) = parse_propertyupdate(render_state_change("back-soon", 600, 3577))
        self.assertEqual((change.value, change.view), ("back-soon", 3577))


class MultistatusTests(SynchronousTestCase):
    """The answers of servers."""

    def test_plain(self) -> None:
        """Properties as a subscription tells them."""
        props = "<r:state><r:away/></r:state><d:displayname>Petra Novak</d:displayname>"
        self.assertEqual(
            parse_multistatus(multistatus((props, "200 Successful"))),
            (200, Properties("away", texts={"displayname": "Petra Novak"})),
        )

    def test_leased(self) -> None:
        """The lease and the view of a change."""
        props = (
            "<r:state><r:leased-value><r:value><r:online/></r:value><r:default-value><r:offline/>"
            "</r:default-value><d:timeout>900</d:timeout></r:leased-value><r:view-id>3577</r:view-id></r:state>"
        )
        self.assertEqual(
            parse_multistatus(multistatus((props, "200 OK"))), (200, Properties("online", 3577, 900))
        )

    def test_mixed(self) -> None:
        """A property that was refused makes the whole a failure."""
        body = multistatus(("<r:email>p@f</r:email>", "200 OK"), ("<r:state/>", "403 Forbidden"))
        self.assertEqual(parse_multistatus(body), (403, Properties(texts={"email": "p@f"})))

    def test_nonsense(self) -> None:
        """What is no multistatus is refused."""
        for body in (b"", b"<html/>", multistatus(("<r:state/>", "fine")), render_document("d:prop", "")):
            self.assertRaises(BadRequest, parse_multistatus, body)


class SubscriptionTests(SynchronousTestCase):
    """The headers of a subscription."""

    def test_granted(self) -> None:
        """The id is kept as text, the time is a number."""
        answer = response(200, Subscription_Id="40117", Subscription_Lifetime="14400")
        self.assertEqual(read_subscription(answer), (b"40117", 14400.0))

    def test_missing(self) -> None:
        """An answer without id or time grants nothing."""
        for headers in (
            {},
            {"Subscription_Id": "1"},
            {"Subscription_Lifetime": "1"},
            {"Subscription_Id": "1", "Subscription_Lifetime": "0"},
        ):
            self.assertRaises(BadRequest, read_subscription, response(200, **headers))
