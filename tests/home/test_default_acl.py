"""Domain-wide default access lists: open, same organisation, contacts only (product F81)."""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.auth.acl import might_permit_with_credentials, permits
from rvpfarm.auth.challenge import Gate, Identity
from rvpfarm.auth.digest import Nonces
from rvpfarm.auth.logins import make_verifiers
from rvpfarm.directory.model import Account
from rvpfarm.home.records import PutAcl, PutSubscription, Saved, SavedAcl
from rvpfarm.protocol.acls import OPENNESS, default_acl, parse_acl, render_acl
from rvpfarm.protocol.address import Names, Principal
from rvpfarm.protocol.calls import Unproven
from tests.auth.test_challenge import FABRIK, PASSWORD, answer_to
from tests.support.homes import DOMAIN, INGRID, PETRA, TOMASZ, Asked, LocalHome, message

OWNER = Principal(f"{DOMAIN}/instmsg/aliases/petra", PETRA, False)
COLLEAGUE = Principal(f"{DOMAIN}/instmsg/aliases/tomasz", TOMASZ, False)
FOREIGNER = Principal("im.orchard.example/instmsg/aliases/ingrid", INGRID, False)
LOOKING = ("list", "read", "send-to", "presence")
OWNING = ("write", "receive-from", "readacl", "writeacl", "subscriptions", "subscribe-others")


class ListTests(SynchronousTestCase):
    """The lists themselves."""

    def allowed(self, openness: str, identity: Identity) -> set[str]:
        """What C{identity} may do on a node nobody has changed."""
        acl = default_acl(OWNER, authentication=True, openness=openness)
        return {right for right in (*LOOKING, *OWNING) if permits(acl, right, identity, OWNER.key)}

    def test_who_may_what(self) -> None:
        """The owner always everything; others look and write, or only colleagues who proved it, or nobody."""
        for openness in OPENNESS:
            for proof in ("digest", "ntlm"):
                self.assertEqual(
                    self.allowed(openness, Identity(OWNER, proof)), {*LOOKING, *OWNING}, openness
                )
        everybody = {*LOOKING}
        for identity, expected in (
            (Identity(COLLEAGUE, "digest"), (everybody, everybody, set())),
            (Identity(COLLEAGUE, "ntlm"), (everybody, everybody, set())),
            (Identity(COLLEAGUE, "internal"), (everybody, everybody, set())),
            (Identity(FOREIGNER, "assertion"), (everybody, set(), set())),
            (Identity(None, "none"), (everybody, set(), set())),
        ):
            found = tuple(self.allowed(openness, identity) for openness in OPENNESS)
            self.assertEqual(found, expected, identity)

    def test_on_the_wire(self) -> None:
        """Each can be written, and read back as it was."""
        names = Names({DOMAIN: DOMAIN}, {})
        for openness in OPENNESS:
            acl = default_acl(OWNER, authentication=True, openness=openness)
            self.assertEqual(parse_acl(render_acl(acl), names), acl)
        colleagues = render_acl(default_acl(OWNER, authentication=True, openness="same-organisation"))
        self.assertIn(
            b"<a:allprincipals/><a:credentials><a:digest/><a:internal/><a:ntlm/></a:credentials>", colleagues
        )
        alone = render_acl(default_acl(OWNER, authentication=True, openness="contacts-only"))
        self.assertNotIn(b"allprincipals", alone)

    def test_challenge_or_refusal(self) -> None:
        """Somebody nameless is asked to prove who he is; a foreigner, who cannot, is refused."""
        for openness in ("same-organisation", "contacts-only"):
            acl = default_acl(OWNER, authentication=True, openness=openness)
            self.assertTrue(might_permit_with_credentials(acl, "presence", Identity(None, "none"), OWNER.key))
            self.assertFalse(
                might_permit_with_credentials(acl, "presence", Identity(FOREIGNER, "assertion"), OWNER.key)
            )


class PolicyCase(SynchronousTestCase):
    """A home where people prove who they are, which talks with other organisations."""

    def start(self, openness: str = "open", saved: Saved | None = None) -> LocalHome:
        """Petra and tomasz have passwords there."""
        at = LocalHome(
            gate=Gate(Nonces(b"k" * 32)),
            authentication="required",
            schemes="digest-md5",
            saved=saved,
            **{"default-acl": openness},
        )
        self.addCleanup(at.stop)
        for name in ("petra", "tomasz"):
            one = at.directory.peek(f"{DOMAIN}/instmsg/aliases/{name}")
            assert isinstance(one, Account)
            at.directory.put(replace(one, verifiers=make_verifiers(name, FABRIK, PASSWORD)))
        return at

    def ask(self, at: LocalHome, who: str, method: str, path: str, body: str = "", **headers: str) -> Asked:
        """Ask, and answer the challenge as one who knows his password; a foreigner is not challenged."""
        first = at.ask(method, path, body, who=who, **headers)
        if not isinstance(first.result, Unproven):
            return first
        ((_, line),) = first.result.headers
        target = {"/p": "/instmsg/aliases/petra", "/t": "/instmsg/aliases/tomasz"}[path]
        user = who.rpartition("/")[2]
        credentials = answer_to(line, user, method=method.encode(), uri=target).decode()
        return at.ask(method, path, body, who=who, **headers, Authorization=credentials)

    def watch(self, at: LocalHome, who: str) -> Asked:
        """Watch petra."""
        return self.ask(
            at,
            who,
            "SUBSCRIBE",
            "/p",
            Notification_Type="update/propchange",
            Subscription_Lifetime="14400",
            Call_Back=who,
        )

    def set_policy(self, at: LocalHome, name: str, value: str, domain: str = "") -> None:
        """As an administrator does."""
        farm = at.directory.farm()
        if domain:
            one = farm.domains[domain]
            changed = replace(one, policies={**one.policies, name: value})
            farm = replace(farm, domains={**farm.domains, domain: changed})
        else:
            farm = replace(farm, policies={**farm.policies, name: value})
        at.directory.set_farm(farm)

    def told(self, at: LocalHome) -> list[tuple[str, str]]:
        """Who was told which state since last asked."""
        found = []
        for sent in at.outgoing.take():
            text = sent.wire.decode()
            state = text.partition("<r:state><r:")[2].partition("/>")[0]
            found.append((text.partition("RVP-Hop-Count: ")[2][:1], state))
            sent.reply()
        return found


class FollowTests(PolicyCase):
    """The policy decides, whenever it is set."""

    def test_strangers(self) -> None:
        """A foreign watcher and sender is let in, or not, by the policy; a colleague likewise."""
        for openness, foreign, colleague in (
            ("open", 207, 207),
            ("same-organisation", 403, 207),
            ("contacts-only", 403, 403),
        ):
            at = self.start(openness)
            self.assertEqual(self.watch(at, INGRID).status, foreign, openness)
            self.assertEqual(self.watch(at, TOMASZ).status, colleague, openness)
            sent = self.ask(at, INGRID, "NOTIFY", "/p", message(INGRID), RVP_Ack_Type="SingleHop")
            self.assertEqual(sent.status, 412 if foreign == 207 else 403)
            own = self.ask(at, PETRA, "ACL", "/p")
            self.assertEqual((own.status, "allprincipals" in own.body), (200, openness != "contacts-only"))

    def test_contacts_only_until_granted(self) -> None:
        """The owner lets in whom he grants the right, and nobody else."""
        at = self.start("contacts-only")
        own = self.ask(at, PETRA, "ACL", "/p").body
        friend = (
            f"<a:ace><a:principal><a:rvp-principal>{TOMASZ}</a:rvp-principal><a:credentials><a:digest/>"
            "</a:credentials></a:principal><a:grant><a:presence/></a:grant><a:deny/></a:ace>"
        )
        granted = own.replace("</a:acl>", f"{friend}</a:acl>")
        self.assertEqual(self.ask(at, PETRA, "ACL", "/p", granted).status, 200)
        self.assertEqual((self.watch(at, TOMASZ).status, self.watch(at, INGRID).status), (207, 403))

    def test_notifications_still_arrive(self) -> None:
        """What the owner watches himself goes on telling him: only a denial stops that (13.20)."""
        at = self.start("contacts-only")
        at.outgoing.answers[3155] = 200
        self.ask(
            at,
            PETRA,
            "SUBSCRIBE",
            "/p",
            Notification_Type="pragma/notify",
            Subscription_Lifetime="14400",
            Call_Back="http://192.0.2.77:3155",
        )
        news = (
            "<?xml version=\"1.0\"?><r:notification xmlns:d='DAV:' "
            "xmlns:r='http://schemas.microsoft.com/rvp/'><r:propnotification><r:notification-from>"
            f"<r:contact><d:href>{INGRID}</d:href><r:description>I</r:description></r:contact>"
            "</r:notification-from><d:propertyupdate><d:set><d:prop><r:state><r:busy/></r:state></d:prop>"
            "</d:set></d:propertyupdate></r:propnotification></r:notification>"
        )
        self.assertEqual(at.ask("NOTIFY", "/p", news, who="im.orchard.example").status, 200)

    def test_change_silences_and_welcomes(self) -> None:
        """Watchers who may no longer see hear a last "offline", and the state when they may again."""
        at = self.start()
        self.ask(at, PETRA, "PROPPATCH", "/p", _BUSY)
        self.watch(at, INGRID)
        self.assertEqual(self.told(at), [])
        self.set_policy(at, "default-acl", "same-organisation")
        self.assertEqual(self.told(at), [("1", "offline")])
        self.ask(at, PETRA, "PROPPATCH", "/p", _BUSY.replace("busy", "away"))
        self.assertEqual(self.told(at), [])
        self.set_policy(at, "default-acl", "open")
        self.assertEqual(self.told(at), [("1", "away")])

    def test_only_the_domain_concerned(self) -> None:
        """A domain with a setting of its own is left alone; so is everybody when something else changes."""
        at = self.start()
        self.watch(at, INGRID)
        self.set_policy(at, "default-acl", "open", DOMAIN)
        self.set_policy(at, "default-acl", "contacts-only")
        self.set_policy(at, "referral", "never")
        self.assertEqual(self.told(at), [])
        self.set_policy(at, "default-acl", "contacts-only", DOMAIN)
        self.assertEqual(self.told(at), [("1", "offline")])

    def test_own_lists_stay(self) -> None:
        """Whoever has set a list keeps it, whatever the default becomes."""
        at = self.start()
        self.watch(at, INGRID)
        own = self.ask(at, PETRA, "ACL", "/p").body
        self.assertEqual(self.ask(at, PETRA, "ACL", "/p", own).status, 200)
        self.set_policy(at, "default-acl", "contacts-only")
        self.assertEqual(self.told(at), [])
        self.assertEqual(self.watch(at, INGRID).status, 207)

    def test_many_nodes(self) -> None:
        """A change for everybody is worked through in slices, so that the loop is not held."""
        at = self.start()
        node = at.home.keeper.get
        for _ in range(600):
            self.watch(at, INGRID)
        at.ask(
            "SUBSCRIBE",
            "/t",
            who=INGRID,
            Notification_Type="update/propchange",
            Subscription_Lifetime="14400",
            Call_Back=INGRID,
        )
        self.set_policy(at, "default-acl", "same-organisation")
        seeing = [
            sum(watcher.sees for watcher in found.watchers.values())
            for name in ("petra", "tomasz")
            if (found := node(f"{DOMAIN}/instmsg/aliases/{name}")) is not None
        ]
        self.assertEqual(seeing, [0, 1])
        at.clock.advance(0)
        last = node(f"{DOMAIN}/instmsg/aliases/tomasz")
        assert last is not None
        self.assertFalse(any(watcher.sees for watcher in last.watchers.values()))

    def test_stopped_in_between(self) -> None:
        """A home that stops leaves no timer behind."""
        at = self.start()
        for _ in range(600):
            self.watch(at, INGRID)
        self.ask(at, INGRID, "SUBSCRIBE", "/t", **_WATCHING)
        self.set_policy(at, "default-acl", "same-organisation")
        at.stop()
        self.assertEqual(at.clock.getDelayedCalls(), [])


class RestartTests(PolicyCase):
    """After a restart the same people may see the same."""

    def kept(self, at: LocalHome) -> Saved:
        """What the journal keeps of subscriptions and lists."""
        rows: dict[int, PutSubscription] = {}
        acls: dict[str, SavedAcl] = {}
        for change in at.journal.written:
            if isinstance(change, PutSubscription):
                rows[change.row.id] = change
            elif isinstance(change, PutAcl):
                acls[change.row.node] = change.row
        return Saved(subscriptions=tuple(row.row for row in rows.values()), acls=tuple(acls.values()))

    def test_silenced_stay_silenced(self) -> None:
        """Somebody who was blocked, by the owner or by the policy, is not told after a restart either."""
        at = self.start()
        self.watch(at, INGRID)
        own = self.ask(at, PETRA, "ACL", "/p").body
        blocked = own.replace("<a:assertion/>", "")
        self.assertEqual(self.ask(at, PETRA, "ACL", "/p", blocked).status, 200)
        for again in (
            self.start(saved=self.kept(at)),
            self.start("same-organisation", saved=Saved(subscriptions=self.kept(at).subscriptions)),
        ):
            self.ask(again, PETRA, "PROPPATCH", "/p", _BUSY)
            self.assertEqual(self.told(again), [])

    def test_seeing_stay_seeing(self) -> None:
        """Everybody else is, and of changes only."""
        at = self.start()
        self.watch(at, INGRID)
        again = self.start(saved=self.kept(at))
        self.ask(again, PETRA, "PROPPATCH", "/p", _BUSY)
        self.assertEqual(self.told(again), [("1", "busy")])

    def test_policy_change_before_the_first_call(self) -> None:
        """A node that nobody has called at since the restart follows the policy as well."""
        at = self.start()
        self.watch(at, INGRID)
        again = self.start(saved=self.kept(at))
        self.set_policy(again, "default-acl", "contacts-only")
        self.assertEqual(self.told(again), [("1", "offline")])
        acl = self.ask(again, PETRA, "ACL", "/p").body
        self.assertIn(f"<a:rvp-principal>{PETRA}</a:rvp-principal>", acl)


_WATCHING = {
    "Notification_Type": "update/propchange",
    "Subscription_Lifetime": "14400",
    "Call_Back": INGRID,
}

_BUSY = (
    "<?xml version=\"1.0\"?><d:propertyupdate xmlns:d='DAV:' xmlns:r='http://schemas.microsoft.com/rvp/'>"
    "<d:set><d:prop><r:state><r:leased-value><r:value><r:busy/></r:value><r:default-value><r:offline/>"
    "</r:default-value><d:timeout>1200</d:timeout></r:leased-value></r:state></d:prop></d:set>"
    "</d:propertyupdate>"
)
