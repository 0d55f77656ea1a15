"""Tests of C{rvpfarm.client.output}."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.client.notices import Left, Message, Presence
from rvpfarm.client.output import Output, harmless

BOB = "http://im.farm.localhost/instmsg/aliases/bob"


class OutputTests(SynchronousTestCase):
    """What people and programs get to read."""

    def lines(self, *, as_json: bool) -> list[str]:
        """One of everything."""
        lines: list[str] = []
        out = Output(lines.append, as_json=as_json, clock=lambda: "12:00:00")
        out.logged_in("a@d", "online")
        out.message(Message("b@d", BOB, "Bob", "one\r\ntwo", "{1}"))
        out.message(Message("b@d", BOB, "Bob", "x", "{1}", "text/x-msmsgsinvite"))
        out.left(Left("b@d", BOB, "{1}"))
        out.presence(Presence("b@d", BOB, "busy"))
        out.presence(Presence("b@d", BOB, None, {"mobile-state": "1"}))
        out.state("b@d", "away", changed=True, seconds=60)
        out.sent("b@d")
        return lines

    def test_people(self) -> None:
        """A line each, as one would say it."""
        self.assertEqual(
            self.lines(as_json=False),
            [
                "a@d is logged in (online); Ctrl-C logs out",
                "12:00:00 b@d: one\ntwo",
                "12:00:00 b@d sent something of kind text/x-msmsgsinvite",
                "12:00:00 b@d has left the conversation",
                "b@d is busy",
                "b@d is away for 60 s",
                "delivered to b@d",
            ],
        )

    def test_programs(self) -> None:
        """One object per line, with everything in it."""
        read = [json.loads(line) for line in self.lines(as_json=True)]
        self.assertEqual(
            [event["event"] for event in read],
            ["login", "message", "message", "left", "presence", "presence", "sent"],
        )
        self.assertEqual(read[1]["text"], "one\r\ntwo")
        self.assertEqual(
            read[5], {"event": "presence", "address": "b@d", "state": "away", "changed": True, "seconds": 60}
        )

    def test_harmless(self) -> None:
        """What would steer a terminal or hide its direction is not printed."""
        self.assertEqual(harmless("a\x1b[1m\x9b\u202eb\n\tzoë ☕"), "a\ufffd[1m\ufffd\ufffdb\n\tzoë ☕")
