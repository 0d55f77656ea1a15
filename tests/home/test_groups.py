"""Groups and devices: nodes that are no people (protocol notes 1.2, 3.6)."""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from tests.support.directory import make_account
from tests.support.homes import DOMAIN, PETRA, TOMASZ, Asked, LocalHome, message

GROUP = "/groups/shipping"
PARCEL = (
    "<?xml version=\"1.0\"?><r:notification xmlns:d='DAV:' xmlns:r='http://schemas.microsoft.com/rvp/' "
    "xmlns:a='http://schemas.microsoft.com/rvp/acl/'><parcelEvent xmlns='urn:example:parcel'>"
    "<kind>DELIVERED</kind><at>2001-03-24T13:45:00Z</at></parcelEvent></r:notification>"
)


class GroupTests(SynchronousTestCase):
    """A group of Petra's: she says who receives, everybody sends."""

    def setUp(self) -> None:
        """A home with the group."""
        self.at = LocalHome()
        self.addCleanup(self.at.stop)
        account = make_account(f"{DOMAIN}{GROUP}", self.at.record, display_name="Shipping", kind="group")
        self.at.directory.put(replace(account, owner=f"{DOMAIN}/instmsg/aliases/petra"))

    def subscribe(self, who: str, port: int) -> Asked:
        """Ask to receive what the group receives."""
        return self.at.login(GROUP, who, f"http://192.0.2.77:{port}")

    def let(self, who: str) -> int:
        """Have Petra let somebody receive."""
        acl = self.at.ask("ACL", GROUP, who=PETRA).body
        ace = (
            f"<a:ace><a:principal><a:rvp-principal>{who}</a:rvp-principal><a:credentials><a:assertion/>"
            "</a:credentials></a:principal><a:grant><a:receive-from/><a:subscribe-others/></a:grant></a:ace>"
        )
        return self.at.ask("ACL", GROUP, acl.replace("</a:acl>", ace + "</a:acl>"), who=PETRA).status

    def test_the_owner_decides_who_receives(self) -> None:
        """The owner may subscribe at once, others when the owner lets them."""
        self.assertEqual(self.subscribe(PETRA, 1000).status, 200)
        self.assertEqual(self.subscribe(TOMASZ, 2000).status, 403)
        self.assertEqual(self.let(TOMASZ), 200)
        self.assertEqual(self.subscribe(TOMASZ, 2000).status, 200)

    def test_others_do_not_own_it(self) -> None:
        """Nobody else reads or sets the access list, or ends a subscription."""
        number = self.subscribe(PETRA, 1000).header(b"Subscription-Id").decode()
        self.assertEqual(self.at.ask("ACL", GROUP, who=TOMASZ).status, 403)
        asked = self.at.ask("UNSUBSCRIBE", GROUP, who=TOMASZ, Subscription_Id=number)
        self.assertEqual(asked.status, 403)
        asked = self.at.ask("UNSUBSCRIBE", GROUP, who=PETRA, Subscription_Id=number)
        self.assertEqual(asked.status, 200)

    def test_raw_event_to_all(self) -> None:
        """An event reaches every subscriber unchanged; DeepAnd waits for all of them."""
        self.let(TOMASZ)
        self.subscribe(PETRA, 1000)
        self.subscribe(TOMASZ, 2000)
        asked = self.at.ask("NOTIFY", GROUP, PARCEL, who=TOMASZ, RVP_Ack_Type="DeepAnd")
        sent = {each.port: each for each in self.at.outgoing.take()}
        self.assertEqual(
            {port: each.call.body.decode() for port, each in sent.items()}, {1000: PARCEL, 2000: PARCEL}
        )
        sent[1000].reply()
        self.assertEqual(asked.status, 0)
        sent[2000].reply()
        self.assertEqual(asked.status, 200)

    def test_message(self) -> None:
        """A message to a group goes to every subscriber too; nobody subscribed is 412."""
        body = message(recipient=f"http://{DOMAIN}{GROUP}")
        self.assertEqual(self.at.ask("NOTIFY", GROUP, body, who=TOMASZ).status, 412)
        self.subscribe(PETRA, 1000)
        self.at.outgoing.answers[1000] = 200
        self.assertEqual(self.at.ask("NOTIFY", GROUP, body, who=TOMASZ).status, 200)

    def test_removed(self) -> None:
        """A group that is removed ends its subscriptions and is not there any more."""
        self.subscribe(PETRA, 1000)
        self.at.directory.remove(f"{DOMAIN}{GROUP}")
        self.assertEqual(len(self.at.home.keeper.books.logins), 0)
        self.assertEqual(self.at.ask("NOTIFY", GROUP, PARCEL, who=TOMASZ).status, 404)
