"""Tests of the clients' readers: what protocol notes 2.1, 4.3, 9 and 11 say that kills each, does."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.support import printed
from tests.support.clients.common import Client, Died
from tests.support.clients.miranda import Miranda
from tests.support.clients.netrvp import NetRvp
from tests.support.clients.strict import Librvp, Strict

WATCH = (
    b"SUBSCRIBE /instmsg/aliases/petra HTTP/1.1\r\nNotification-Type: update/propchange\r\n"
    b"Call-Back: http://im.fabrik.example/instmsg/aliases/tomasz\r\n\r\n"
)
LOGIN = b"SUBSCRIBE /instmsg/aliases/petra HTTP/1.1\r\nNotification-Type: pragma/notify\r\n\r\n"
RENEWAL = b"SUBSCRIBE /instmsg/aliases/petra HTTP/1.1\r\nSubscription-Id: 7\r\n\r\n"
LIST = b"SUBSCRIPTIONS /instmsg/aliases/petra HTTP/1.1\r\nNotification-Type: pragma/notify\r\n\r\n"
FIND = b"PROPFIND /instmsg/aliases/petra HTTP/1.1\r\nDepth: 0\r\n\r\n"
PATCH = b"PROPPATCH /instmsg/aliases/petra HTTP/1.1\r\n\r\n"
READ_ACL = b"ACL /instmsg/aliases/petra HTTP/1.1\r\n\r\n"
SEND = b"NOTIFY /instmsg/aliases/petra HTTP/1.1\r\n\r\n"
VERSION = "RVP-Notifications-Version: 0.2"
GRANTED = (VERSION, "Subscription-Id: 7", "Subscription-Lifetime: 14400")
NTLM = "WWW-Authenticate: NTLM"
CHALLENGE = "WWW-Authenticate: NTLM TlRMTVNTUAACAAAA"
DIGEST = 'WWW-Authenticate: Digest qop="auth", realm="im.fabrik.example", nonce="6f2c41d0"'
#: What a message that fits everybody carries in its CDATA.
SESSION = b"Session-Id: {3B0C7F52-91D4-4E6A-8C17-5A2E90D4B7F1}\r\n"


def answer(*headers: str, body: bytes = b"", status: str = "200 Successful") -> bytes:
    """An answer as a home gives it; a body is text/xml."""
    lines = [f"HTTP/1.1 {status}", *headers]
    if body:
        lines.append("Content-Type: text/xml")
    lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def multistatus(body: bytes, *headers: str) -> bytes:
    """An answer 207."""
    return answer(*(headers or GRANTED), body=body, status="207 Multi-Status")


def refused(*challenges: str) -> bytes:
    """An answer 401."""
    return answer(VERSION, *challenges, status="401 Access Denied")


def notify(body: bytes, target: str = "/") -> bytes:
    """What a call-back receives."""
    head = (
        f"NOTIFY {target} HTTP/1.1\r\nHost: 127.0.0.1:3155\r\n{VERSION}\r\nRVP-Hop-Count: 2\r\n"
        f"RVP-From-Principal: im.fabrik.example\r\nContent-Type: text/xml\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def changed(body: bytes, old: bytes, new: bytes) -> bytes:
    """C{body} with one thing otherwise."""
    assert old in body, old
    return body.replace(old, new, 1)


#: The printed property notification, to somebody of our own.
PROPERTY = printed.PROPERTY.replace(
    b"im.orchard.example/instmsg/aliases/ingrid", b"im.fabrik.example/instmsg/aliases/tomasz"
)
STATE = b"<r:state><r:away/></r:state>"
LEASED = b"<r:state><r:leased-value><r:value><r:away/></r:value></r:leased-value></r:state>"
SECOND = (
    b"<d:propstat><d:prop><r:shoe-size/></d:prop><d:status>HTTP/1.1 404 Not Found</d:status></d:propstat>"
)


class ClientCase(SynchronousTestCase):
    """Tests of one reader."""

    def make(self) -> Client:
        """The client."""
        raise NotImplementedError

    def lives(self, request: bytes, data: bytes, *noticed: str) -> None:
        """The client notices C{noticed} in an answer."""
        self.assertEqual(self.make().answered(request, data), list(noticed))

    def dies(self, request: bytes, data: bytes, why: str) -> None:
        """The client dies of an answer."""
        with self.assertRaises(Died) as caught:
            self.make().answered(request, data)
        self.assertIn(why, str(caught.exception))

    def dies_notified(self, body: bytes, why: str, target: str = "/") -> None:
        """The client dies of a notification."""
        with self.assertRaises(Died) as caught:
            self.make().notified(notify(body, target))
        self.assertIn(why, str(caught.exception))


class MirandaTests(ClientCase):
    """Miranda's plugin."""

    def make(self) -> Client:
        """The client."""
        return Miranda()

    def test_printed(self) -> None:
        """It takes everything that the notes print."""
        self.lives(
            WATCH,
            multistatus(printed.MULTISTATUS),
            "petra@fabrik.example is away",
            "petra@fabrik.example is called Petra Novak",
            "petra@fabrik.example has the address petra@fabrik.example",
        )
        self.lives(LOGIN, answer(*GRANTED), "logged in")
        self.lives(RENEWAL, answer(*GRANTED), "renewed")
        named = "http://im.fabrik.example/instmsg/aliases/petra"
        self.lives(READ_ACL, answer(body=printed.ACL), f"the access list names {named}")
        self.lives(PATCH, multistatus(printed.MULTISTATUS_LEASE), "succeeds")
        self.lives(SEND, answer(status="412 Precondition Failed"), "fails with 412")
        client = self.make()
        said = ["tomasz@fabrik.example (Tomasz Lis) says: Coffee at ten?"]
        self.assertEqual(client.notified(notify(printed.MESSAGE)), said)
        self.assertEqual(client.notified(notify(PROPERTY)), ["petra@fabrik.example is busy"])
        self.assertEqual(client.notified(notify(printed.RAW)), [])

    def test_lf_lines(self) -> None:
        """Line ends are all the same to it."""
        self.lives(LOGIN, answer(*GRANTED).replace(b"\r\n", b"\n"), "logged in")

    def test_framing(self) -> None:
        """A body by C{Content-Length} alone; no 1xx, no folding, no chunks (2.1)."""
        good = multistatus(printed.MULTISTATUS)
        self.dies(WATCH, good.replace(b"Content-Length: 521", b"Content-Length: 522"), "waits for 1 octets")
        self.dies(
            WATCH, good.replace(b"Content-Length: 521", b"Transfer-Encoding: chunked"), "for the next answer"
        )
        self.dies(
            WATCH,
            good.replace(b"Content-Type: text/xml", b"Content-Type:\r\n text/xml"),
            "for the next answer",
        )
        self.dies(LOGIN, b"HTTP/1.1 100 Continue\r\n\r\n" + answer(*GRANTED), "for the next answer")

    def test_challenges(self) -> None:
        """Each scheme on a line of its own, spelled so, with commas only between attributes (9.1, 9.4)."""
        self.lives(LOGIN, refused(NTLM, DIGEST), "greets with NTLM")
        self.lives(LOGIN, refused(CHALLENGE), "answers the NTLM challenge")
        self.lives(LOGIN, refused("WWW-Authenticate: Negotiate", DIGEST), "answers with Digest")
        sha = f"{DIGEST}, algorithm=SHA-256"
        self.lives(LOGIN, refused(DIGEST, sha), "answers with Digest")
        self.dies(LOGIN, refused("WWW-Authenticate: NTLM, Digest"), "for an NTLM challenge")
        self.dies(LOGIN, refused("WWW-Authenticate: ntlm"), "knows none of")
        self.dies(LOGIN, refused("WWW-Authenticate: Negotiate, NTLM"), "knows none of")
        self.dies(LOGIN, refused(sha, DIGEST), "with MD5")
        self.dies(LOGIN, refused(DIGEST.replace("nonce", "Nonce")), "no realm or no nonce")

    def test_patience(self) -> None:
        """The fourth 401 of a transaction ends it with NTLM, the third with Digest (9.2)."""
        for challenge, most in ((NTLM, 3), (DIGEST, 2)):
            client = self.make()
            for _ in range(most):
                client.answered(LOGIN, refused(challenge))
            self.assertRaises(Died, client.answered, LOGIN, refused(challenge))
            client.begin()
            client.answered(LOGIN, refused(challenge))

    def test_redirects(self) -> None:
        """It goes to an absolute place, and to no other (10.1)."""
        self.lives(LOGIN, answer("Location: http://hs2/x", status="302 Object moved"), "goes to http://hs2/x")
        self.dies(LOGIN, answer("Location: /x", status="302 Object moved"), "cannot go to")
        self.dies(LOGIN, answer(status="302 Object moved"), "cannot go to")

    def test_subscriptions(self) -> None:
        """Without the id there is nothing to renew, and a renewal must repeat it (3.1)."""
        self.dies(LOGIN, answer(VERSION), "never renew")
        self.dies(RENEWAL, answer(VERSION), "never renew")

    def test_properties(self) -> None:
        """Literal prefixes, the first propstat, a state with a child, texts that do not close themselves (4.3)."""
        for old, new, why in (
            (STATE, b"<r:state/>", "r:state has no child"),
            (STATE, b"<r:state></r:state>", "r:state has no child"),
            (STATE, LEASED, "takes r:leased-value for online"),
            (STATE, b"<r:state><r:sleepy/></r:state>", "takes r:sleepy for online"),
            (
                b"<d:displayname>Petra Novak</d:displayname>",
                b"<d:displayname/>",
                "d:displayname closes itself",
            ),
            (b"<r:email>petra@fabrik.example</r:email>", b"<r:email/>", "r:email closes itself"),
        ):
            self.dies(WATCH, multistatus(changed(printed.MULTISTATUS, old, new)), why)
        renamed = printed.MULTISTATUS.replace(b"d:", b"D:")
        self.dies(WATCH, multistatus(renamed), "finds no d:multistatus")
        spread = changed(printed.MULTISTATUS, b"><d:response>", b">\n <d:response>")
        self.lives(WATCH, multistatus(spread), *self.make().answered(WATCH, multistatus(printed.MULTISTATUS)))
        late = changed(printed.MULTISTATUS, b"<d:propstat>", SECOND + b"<d:propstat>")
        self.assertEqual(self.make().answered(WATCH, multistatus(late)), [])

    def test_lists(self) -> None:
        """An access list in other prefixes is none."""
        self.dies(READ_ACL, answer(body=printed.ACL.replace(b"a:", b"A:")), "no a:rvpacl")

    def test_messages(self) -> None:
        """A description that is there, CDATA, and hosts that it knows (4.3, 1.5)."""
        description = b"<r:description>Tomasz Lis</r:description>"
        href = b"http://im.fabrik.example/instmsg/aliases/tomasz"
        for old, new, why in (
            (description, b"", "no r:description"),
            (description, b"<r:description/>", "or it closes itself"),
            (href, b"http://hs1.fabrik.example/instmsg/local/im.fabrik.example/x/tomasz", "nobody it knows"),
            (href, href + b" ", "white space is part of the name"),
            (SESSION, b"", "without Session-Id"),
            (b"<![CDATA[MIME", b"MIME", "no CDATA"),
        ):
            body = changed(printed.MESSAGE, old, new)
            self.dies_notified(body.replace(b"]]>", b"") if why == "no CDATA" else body, why)
        plain = changed(printed.MESSAGE, description, b"<r:description></r:description>")
        self.assertEqual(len(self.make().notified(notify(plain))), 1)

    def test_changes(self) -> None:
        """A state in a property notification is as in an answer."""
        self.dies_notified(changed(PROPERTY, b"<r:busy/>", b""), "r:state has no child")
        self.dies_notified(changed(PROPERTY, b"<d:set>", b"<x:set>"), "finds nothing")


class NetRvpTests(ClientCase):
    """Net::RVP with its sample program."""

    def make(self) -> Client:
        """The client."""
        return NetRvp()

    def test_printed(self) -> None:
        """It takes everything that the notes print, and whatever the prefixes are."""
        noticed = (
            "petra is away",
            "petra is called Petra Novak",
            "petra has the address petra@fabrik.example",
        )
        self.lives(WATCH, multistatus(printed.MULTISTATUS), *noticed)
        renamed = printed.MULTISTATUS.replace(b"d:", b"dav:").replace(b"xmlns:d=", b"xmlns:dav=")
        self.lives(WATCH, multistatus(renamed), *noticed)
        self.lives(LOGIN, answer(*GRANTED), "logged in")
        self.lives(RENEWAL, answer(*GRANTED), "renewed")
        self.lives(LIST, answer(body=printed.SUBSCRIPTIONS), "subscription 40131", "subscription 40140")
        self.lives(FIND, multistatus(printed.MULTISTATUS_NAME), "petra is called Petra Novak")
        client = self.make()
        self.assertEqual(client.notified(notify(printed.MESSAGE)), ["tomasz says: Coffee at ten?"])
        self.assertEqual(client.notified(notify(PROPERTY)), ["petra is busy"])

    def test_login(self) -> None:
        """A lifetime above 30 and an id that is not 0 (3.1)."""
        self.dies(LOGIN, answer(VERSION, "Subscription-Id: 7"), "above 30")
        self.dies(LOGIN, answer("Subscription-Id: 7", "Subscription-Lifetime: 30"), "above 30")
        self.dies(LOGIN, answer("Subscription-Id: 0", "Subscription-Lifetime: 60"), "id 0")

    def test_challenges(self) -> None:
        """NTLM, on a line of its own; Digest with a realm is none for it (9.2)."""
        self.lives(LOGIN, refused(NTLM, DIGEST), "greets with NTLM")
        self.lives(LOGIN, refused(CHALLENGE), "answers the NTLM challenge")
        self.dies(LOGIN, refused(DIGEST), "can answer none")
        self.dies(LOGIN, refused("WWW-Authenticate: Negotiate, NTLM"), "can answer none")

    def test_properties(self) -> None:
        """One propstat, text/xml, declarations on the root, a plain state (3.1, 4.3)."""
        good = multistatus(printed.MULTISTATUS)
        self.dies(WATCH, good.replace(b"Content-Type: text/xml", b"Content-Type: text/html"), "not text/xml")
        two = changed(printed.MULTISTATUS, b"</d:propstat>", b"</d:propstat>" + SECOND)
        self.dies(WATCH, multistatus(two), "too many elements around d:prop")
        self.dies(
            WATCH, multistatus(changed(printed.MULTISTATUS, STATE, LEASED)), "'r:leased-value' as a state"
        )
        late = printed.MULTISTATUS.replace(b"d:", b"D:").replace(b" xmlns:d='DAV:'", b"")
        late = changed(late, b"<D:response>", b"<D:response xmlns:D='DAV:'>")
        self.dies(WATCH, multistatus(late), "cannot find d:multistatus")
        default = printed.MULTISTATUS.replace(b"xmlns:d=", b"xmlns=").replace(b"d:", b"")
        self.dies(WATCH, multistatus(default), "cannot find d:multistatus")
        self.dies(WATCH, good.replace(b"Content-Length: 521", b"Content-Length: 522"), "ends too soon")
        self.dies(WATCH, multistatus(printed.MULTISTATUS, "Subscription-Lifetime: 14400"), "without id")

    def test_lists(self) -> None:
        """The list of logins is text/xml and never empty (3.3)."""
        empty = printed.SUBSCRIPTIONS.partition(b"<r:subscription>")[0] + b"</r:subscriptions>"
        self.dies(LIST, answer(body=empty), "cannot find r:subscription")
        html = answer(body=printed.SUBSCRIPTIONS).replace(b"text/xml", b"text/html")
        self.dies(LIST, html, "not text/xml")

    def test_messages(self) -> None:
        """Exactly one recipient, two headers, names of letters and digits, and the path / (2.1, 3.6, 7.1)."""
        to = b"<r:notification-to>"
        party = printed.MESSAGE[printed.MESSAGE.index(to) :].partition(b"</r:notification-to>")[0]
        for old, new, why in (
            (to, party + b"</r:notification-to>" + to, "too many elements around r:contact"),
            (party + b"</r:notification-to>", b"", "cannot find r:notification-to"),
            (SESSION, b"", "without session-id"),
            (b"Content-Type: text/plain; charset=UTF-8\r\n", b"", "without content-type"),
            (b"aliases/tomasz<", b"aliases/tomasz.lis-nowak<", "can make no user"),
            (b"aliases/tomasz<", b"aliases/tomasz <", "can make no user"),
        ):
            self.dies_notified(changed(printed.MESSAGE, old, new), why)
        self.dies_notified(printed.MESSAGE, "any path but /", target="/petra")
        self.dies_notified(printed.RAW, "answers 500 to parcelEvent")
        self.dies_notified(changed(printed.MESSAGE, b"Coffee", b"]]>"), "cannot read the body")

    def test_changes(self) -> None:
        """One d:set, as for all elements."""
        two = changed(PROPERTY, b"</d:set>", b"</d:set><d:set><d:prop></d:prop></d:set>")
        self.dies_notified(two, "too many elements around d:prop")


class StrictTests(ClientCase):
    """Windows Messenger, for want of better knowledge."""

    def make(self) -> Client:
        """The client."""
        return Strict()

    def test_printed(self) -> None:
        """It takes everything that the notes print."""
        noticed = (
            "petra is away",
            "petra is called Petra Novak",
            "petra has the address petra@fabrik.example",
        )
        self.lives(WATCH, multistatus(printed.MULTISTATUS), *noticed)
        self.lives(LOGIN, answer(*GRANTED), "logged in")
        self.lives(RENEWAL, answer(*GRANTED), "renewed")
        self.lives(PATCH, multistatus(printed.MULTISTATUS_LEASE, VERSION), "200 for r:state")
        self.lives(
            FIND,
            multistatus(printed.MULTISTATUS_MIXED, VERSION),
            "petra has the address petra@fabrik.example",
        )
        everybody = "everybody may list read send-to presence"
        self.assertEqual(self.make().answered(READ_ACL, answer(VERSION, body=printed.ACL))[0], everybody)
        ours = printed.SUBSCRIPTIONS.replace(b"im.orchard", b"im.fabrik")
        self.lives(LIST, answer(VERSION, body=ours), "ingrid is subscribed", "tomasz is subscribed")
        self.lives(SEND, answer(VERSION), "succeeds")
        self.lives(SEND, answer(VERSION, status="500 Internal Server Error"), "fails with 500")
        client = self.make()
        self.assertEqual(client.notified(notify(printed.MESSAGE)), ["tomasz says: Coffee at ten?"])
        self.assertEqual(client.notified(notify(PROPERTY)), ["petra is busy"])

    def test_framing(self) -> None:
        """CR LF, one length that is right, nothing encoded or folded, the version."""
        good = multistatus(printed.MULTISTATUS)
        for old, new, why in (
            (b"HTTP/1.1 207", b"HTTP/1.1  207", "no status line"),
            (b"\r\nSubscription-Id", b"\nSubscription-Id", "do not end in CR LF"),
            (b"Content-Length: 521", b"Content-Length: 520", "not that of the body"),
            (b"Content-Length: 521\r\n", b"", "there 0 times"),
            (b"Content-Length: 521", b"Content-Length: 521\r\nTransfer-Encoding: chunked", "encoded"),
            (b"Content-Length: 521", b"Content-Length: 521\r\nContent-Encoding: gzip", "encoded"),
            (b"Content-Type: text/xml", b"Content-Type:\r\n text/xml", "no header on a line of its own"),
            (b"Content-Type: text/xml", b"Content-Type: text/html", "not text/xml"),
            (b"Version: 0.2", b"Version: 1.0", "another version"),
        ):
            self.dies(WATCH, changed(good, old, new), why)

    def test_documents(self) -> None:
        """Canonical documents (4.3), rule by rule."""
        for old, new, why in (
            (b'<?xml version="1.0"?>', b"", "XML declaration"),
            (b"<d:response>", b"<!-- --><d:response>", "is no tag"),
            (b"<d:response>", b" <d:response>", "is no text for d:multistatus"),
            (b"<d:response>", b"<d:response xmlns:x='y'>", "declared on the root alone"),
            (b"xmlns:d='DAV:' ", b"", "declared on the root alone"),
            (b"Petra Novak", b" Petra Novak", "is no text for d:displayname"),
            (b"Petra Novak", b"Petra &quot;", "is no text for d:displayname"),
            (b"Petra Novak", b"<![CDATA[Petra]]>", "CDATA in d:displayname"),
            (b"<d:displayname>Petra Novak</d:displayname>", b"<d:displayname/>", "closes itself"),
            (STATE, b"<r:state/>", "r:state closes itself"),
            (STATE, b"<r:state></r:state>", "[] is no state"),
            (STATE, LEASED, "['leased-value'] is no state"),
            (b"</d:propstat>", b"</d:propstat>" + SECOND, "not one d:propstat"),
            (b"</d:multistatus>", b"", "closed at the end"),
            (b"aliases/petra<", b"aliases/tomasz<", "about somebody else"),
            (b"http://im.fabrik", b"http://hs1.fabrik", "nobody is known by"),
        ):
            self.dies(WATCH, multistatus(changed(printed.MULTISTATUS, old, new)), why)
        first = changed(printed.MULTISTATUS_MIXED, b"<d:propstat>", SECOND + b"<d:propstat>")
        self.dies(FIND, multistatus(first, VERSION), "not the successful one")

    def test_subscriptions(self) -> None:
        """Numbers that are some; a renewal with its own id and no body."""
        self.dies(LOGIN, answer(VERSION, "Subscription-Id: 0", "Subscription-Lifetime: 60"), "as 0 for 60 s")
        self.dies(LOGIN, answer(VERSION, "Subscription-Id: 7"), "Subscription-Lifetime is there 0 times")
        self.dies(RENEWAL, answer(VERSION, "Subscription-Id: 8", "Subscription-Lifetime: 60"), "with its id")
        self.dies(SEND, answer(VERSION, body=b"<x/>"), "a body that nobody expects")

    def test_challenges(self) -> None:
        """NTLM or Negotiate before Digest, each alone on its line."""
        self.lives(LOGIN, refused(NTLM, DIGEST), "greets with NTLM")
        self.lives(LOGIN, refused("WWW-Authenticate: Negotiate", NTLM), "greets with Negotiate")
        self.lives(LOGIN, refused(CHALLENGE), "answers the NTLM challenge")
        self.lives(LOGIN, refused(DIGEST, f"{DIGEST}, algorithm=SHA-256"), "answers with Digest")
        self.dies(LOGIN, refused("WWW-Authenticate: Negotiate, NTLM"), "can be answered")

    def test_messages(self) -> None:
        """All that is printed, in its place."""
        to = printed.MESSAGE[
            printed.MESSAGE.index(b"<r:notification-to>") : printed.MESSAGE.index(b"<r:msgbody>")
        ]
        for old, new, why in (
            (to, b"", "not to one r:notification-to"),
            (to, to + to, "not to one r:notification-to"),
            (b"<r:description>Tomasz Lis</r:description>", b"", "no r:description"),
            (b"<r:description>Tomasz Lis</r:description>", b"<r:description/>", "closes itself"),
            (SESSION, b"", "is not the head of a message"),
            (b"PF=0\r\n", b"PF=0\n", "is not the head of a message"),
            (b"]]></r:mime-data>", b"</r:mime-data>", "CDATA does not end"),
        ):
            self.dies_notified(changed(printed.MESSAGE, old, new), why)
        self.dies_notified(printed.MESSAGE, "is for nobody", target="/x")
        self.dies_notified(printed.RAW, "is no tag")


class LibrvpTests(SynchronousTestCase):
    """librvp, as far as it was seen."""

    def test_one_challenge(self) -> None:
        """It takes any one challenge, and no two."""
        client = Librvp()
        self.assertEqual(client.answered(LOGIN, refused(NTLM)), ["greets with NTLM"])
        self.assertEqual(client.answered(LOGIN, refused(DIGEST)), ["answers with Digest"])
        self.assertRaises(Died, client.answered, LOGIN, refused(NTLM, DIGEST))
        self.assertRaises(Died, client.answered, LOGIN, refused(DIGEST, f"{DIGEST}, algorithm=SHA-256"))
