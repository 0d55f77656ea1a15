"""What pidgin's librvp does that nobody else does: single entries of an access list, and lists of recipients."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.protocol.calls import Limits
from rvpfarm.web.reader import RequestReader
from tests.support.homes import DOMAIN, PETRA, TOMASZ, Asked, LocalHome, message

NAMESPACES = 'xmlns:d="DAV:" xmlns:r="http://schemas.microsoft.com/rvp/" xmlns:a="http://schemas.microsoft.com/rvp/acl/"'
MARTA = f"http://{DOMAIN}/instmsg/aliases/marta"
LOOKING = "<a:send-to/><a:presence/>"


def entry(who: str, grant: str = "", deny: str = "") -> str:
    """One entry as librvp writes it."""
    return (
        f"<a:ace><a:principal><a:rvp-principal>{who}</a:rvp-principal>"
        "<a:credentials><a:assertion/><a:digest/><a:ntlm/></a:credentials></a:principal>"
        f"<a:grant>{grant}</a:grant><a:deny>{deny}</a:deny></a:ace>"
    )


class LibrvpTests(SynchronousTestCase):
    """A home that serves librvp, and harms nobody else by that."""

    def setUp(self) -> None:
        """petra's list is the default one."""
        self.at = LocalHome()
        self.addCleanup(self.at.stop)
        self.default = self.read()

    def read(self) -> str:
        """petra's list."""
        return self.at.ask("ACL", "/p", who=PETRA).body

    def change(self, *entries: str) -> Asked:
        """Send entries without a Content-Type."""
        body = f'<?xml version="1.0"?>\n<a:rvpacl {NAMESPACES}><a:acl>{"".join(entries)}</a:acl></a:rvpacl>\n'
        wire = (
            f"ACL /instmsg/aliases/petra HTTP/1.1\r\nContent-Length: {len(body)}\r\nHost: {DOMAIN}\r\n"
            f"RVP-From-Principal: {PETRA}\r\n\r\n{body}"
        )
        (call,) = RequestReader(Limits()).feed(wire.encode())
        return self.at.give(call)

    def test_entries_add_up(self) -> None:
        """An entry for each contact leaves the rest of the list, and its owner, as they were."""
        self.assertEqual(self.change(entry(TOMASZ, grant=LOOKING)).status, 200)
        self.assertEqual(self.change(entry(MARTA, grant=LOOKING)).status, 200)
        for who in (TOMASZ, MARTA):
            self.assertIn(f"<a:rvp-principal>{who}</a:rvp-principal>", self.read())
        self.assertIn("<a:allprincipals/>", self.read())
        self.assertEqual(self.at.state("online").status, 207)

    def test_entry_replaces_its_like(self) -> None:
        """A denial takes the place of what was granted, and an entry for nothing takes both back."""
        self.change(entry(TOMASZ, grant=LOOKING))
        self.change(entry(TOMASZ, deny=LOOKING))
        self.assertEqual(self.read().count(TOMASZ), 1)
        self.assertEqual(self.at.watch("/p", TOMASZ).status, 403)
        self.change(entry(TOMASZ))
        self.assertEqual(self.read(), self.default)
        self.assertEqual(self.at.watch("/p", TOMASZ).status, 207)

    def test_lists_are_lists(self) -> None:
        """What says something of the owner or of everybody replaces the list, with a Content-Type or without."""
        inner = self.default.partition("</a:inheritance>")[2].partition("</a:acl>")[0]
        own = inner[inner.rindex("<a:ace>") :]
        self.change(entry(TOMASZ, grant=LOOKING))
        self.assertEqual(self.change(own).status, 200)
        self.assertNotIn(TOMASZ, self.read())
        self.assertNotIn("allprincipals", self.read())

    def test_content_type_makes_a_list(self) -> None:
        """Who says what he sends has his list replaced by it, be it a single entry (protocol notes 3.7)."""
        body = f"<a:rvpacl {NAMESPACES}><a:acl>{entry(TOMASZ, grant=LOOKING)}</a:acl></a:rvpacl>"
        self.assertEqual(self.at.ask("ACL", "/p", body, who=PETRA).status, 200)
        self.assertNotIn("allprincipals", self.read())
        self.assertEqual(self.at.state("online").status, 403)

    def test_too_many_entries(self) -> None:
        """Changes make no list longer than a list may be (protocol notes 8.6)."""
        names = [entry(f"{TOMASZ}{number}", grant=LOOKING) for number in range(512)]
        self.assertEqual(self.change(*names[:510]).status, 200)
        before = self.read()
        self.assertEqual(self.change(names[511]).status, 400)
        self.assertEqual(self.read(), before)

    def test_everybody_in_the_room(self) -> None:
        """Who takes part is named in one C{r:notification-to}, and everybody learns who they are."""
        self.at.login("/p", PETRA)
        self.at.outgoing.answers[3155] = 200
        contact = f"<r:contact><d:href>{MARTA}</d:href><r:description></r:description></r:contact>"
        body = message().replace(
            "</r:contact></r:notification-to>", f"</r:contact>{contact}</r:notification-to>"
        )
        self.assertEqual(self.at.ask("NOTIFY", "/p", body, who=TOMASZ).status, 200)
        (sent,) = self.at.outgoing.take()
        self.assertIn(f"</r:contact>{contact}</r:notification-to>".encode(), sent.wire)
        self.assertEqual(sent.wire.count(b"<r:notification-to>"), 1)

    def test_one_sender(self) -> None:
        """But a message is from one (protocol notes 3.6)."""
        contact = f"<r:contact><d:href>{MARTA}</d:href><r:description></r:description></r:contact>"
        self.at.login("/p", PETRA)
        body = message().replace(
            "</r:contact></r:notification-from>", f"</r:contact>{contact}</r:notification-from>"
        )
        self.assertEqual(self.at.ask("NOTIFY", "/p", body, who=TOMASZ).status, 400)
