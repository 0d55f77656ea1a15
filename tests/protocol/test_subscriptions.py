"""Tests of L{rvpfarm.protocol.subscriptions}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.protocol.subscriptions import SubscriptionEntry, render_subscriptions
from tests.support import printed


class RenderSubscriptionsTests(SynchronousTestCase):
    """The list of subscriptions (3.3)."""

    def test_printed(self) -> None:
        """It is the printed one, byte for byte."""
        entries = (
            SubscriptionEntry(40131, "http://im.orchard.example/instmsg/aliases/ingrid", 13877),
            SubscriptionEntry(40140, "http://im.fabrik.example/instmsg/aliases/tomasz", 9026),
        )
        self.assertEqual(render_subscriptions(entries), printed.SUBSCRIPTIONS)

    def test_empty(self) -> None:
        """An empty list has a start tag and an end tag."""
        body = render_subscriptions(())
        self.assertTrue(body.endswith(b"/rvp/acl/'></r:subscriptions>"))
        self.assertTrue(body.startswith(b'<?xml version="1.0"?><r:subscriptions xmlns:d='))
