"""The errors in the drafts' own examples (protocol notes 4.5): each accepted or refused as the table says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.support.farmhouse import PETRA, TOMASZ
from tests.support.homes import leased, message
from tests.support.printed import ACL, MESSAGE, PROPFIND, PROPPATCH, RAW
from tests.support.vectors import LOGIN, PATHS, VectorTestCase, propfind, propstats, request
from tests.support.wire import Message

RVP = "http://schemas.microsoft.com/rvp/"
OPEN_ACL = ACL.decode().replace(
    "petra</a:rvp-principal><a:credentials>", "petra</a:rvp-principal><a:credentials><a:assertion/>"
)
PATCH = PROPPATCH.decode()
SENT = MESSAGE.decode()
RAW_SENT = RAW.decode()


@dataclass(frozen=True)
class Row:
    """One thing that a row of the table says.

    @ivar where: the row.
    @ivar method: what is asked of petra's node, always by whom that usually is.
    @ivar body: with the draft's error.
    @ivar status: accepted or refused.
    @ivar emitted: what must come out of it: in the answer to PROPPATCH and PROPFIND, in the list that ACL
        then reads, in what the call-back hears of NOTIFY.
    """

    where: str
    method: str
    body: str
    status: int
    emitted: str = ""


def swap(text: str, *pairs: tuple[str, str]) -> str:
    """C{text} with each of C{pairs} replaced, which must be there.

    @raise AssertionError: it is not.
    """
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    return text


def mime(old: str, new: str) -> Row:
    """A MIME part as a draft misprints it is relayed untouched."""
    body = swap(SENT, (old, new))
    return Row(f"MIME: {new!r}", "NOTIFY", body, 200, body)


LEASE = "<d:timeout>1200</d:timeout></r:leased-value><r:view-id>"
ROWS = (
    Row(
        "PROPPATCH root propupdate",
        "PROPPATCH",
        swap(PATCH, ("d:propertyupdate", "d:propupdate")),
        207,
        LEASE,
    ),
    Row(
        "PROPPATCH root as printed: starts as one, ends as the other",
        "PROPPATCH",
        swap(PATCH, ("<d:propertyupdate", "<d:propupdate")),
        400,
    ),
    Row(
        "time-out in the RVP namespace",
        "PROPPATCH",
        swap(PATCH, ("d:timeout", "r:timeout")),
        207,
        LEASE,
    ),
    Row(
        "IM root notification in DAV:",
        "NOTIFY",
        swap(SENT, ("r:notification ", "d:notification "), ("</r:notification>", "</d:notification>")),
        200,
        SENT,
    ),
    Row(
        "href closed with another prefix",
        "NOTIFY",
        swap(SENT, ("tomasz</d:href>", "tomasz</r:href>")),
        400,
    ),
    Row(
        "rvp-principal closed by a start tag",
        "ACL",
        swap(OPEN_ACL, ("</a:rvp-principal>", "<a:rvp-principal>")),
        400,
    ),
    Row("attributes without quotes", "ACL", swap(OPEN_ACL, ("'DAV:'", "DAV:")), 400),
    Row(
        "ACL namespace with a capital and without its slash",
        "ACL",
        swap(OPEN_ACL, ("schemas.microsoft.com/rvp/acl/", "schemas.Microsoft.com/rvp/acl")),
        200,
        OPEN_ACL,
    ),
    Row(
        "RVP namespace likewise",
        "PROPPATCH",
        swap(PATCH, (f"'{RVP}'", "'http://schemas.Microsoft.com/rvp'")),
        207,
        LEASE,
    ),
    Row(
        "principal and rvp-principal in the RVP namespace",
        "ACL",
        swap(
            OPEN_ACL,
            ("<a:principal>", "<r:principal>"),
            ("</a:principal>", "</r:principal>"),
            ("a:rvp-principal", "r:rvp-principal"),
        ),
        200,
        OPEN_ACL,
    ),
    Row(
        "a leased state",
        "PROPPATCH",
        leased("busy"),
        207,
        f"<r:busy/></r:value><r:default-value><r:offline/></r:default-value>{LEASE}",
    ),
    Row(
        "a plain state",
        "PROPPATCH",
        swap(PATCH, (PATCH[PATCH.index("<r:leased") : PATCH.index("</r:state>")], "<r:busy/>")),
        207,
        f"<r:busy/></r:value><r:default-value><r:offline/></r:default-value>{LEASE}",
    ),
    Row(
        "allow for grant",
        "ACL",
        swap(OPEN_ACL, ("a:grant", "a:allow")),
        200,
        OPEN_ACL,
    ),
    Row("both allprincipals and rvp-principal are principals", "ACL", OPEN_ACL, 200, OPEN_ACL),
    Row(
        "rvp-principal with a trailing slash",
        "ACL",
        swap(OPEN_ACL, ("petra</a:rvp", "petra/</a:rvp")),
        200,
        OPEN_ACL,
    ),
    Row("dots for spaces", "PROPFIND", swap(PROPFIND.decode(), ("<?xml ", "<?xml.")), 400),
    Row(
        "white space at the ends of a URL",
        "NOTIFY",
        swap(SENT, (f"<d:href>{TOMASZ}</d:href>", f"<d:href>\r\n  {TOMASZ}\r\n</d:href>")),
        200,
        SENT,
    ),
    Row(
        "white space at the ends of a principal",
        "ACL",
        swap(OPEN_ACL, (f">{PETRA}<", f">\n{PETRA}\n<")),
        200,
        OPEN_ACL,
    ),
    Row(
        "a URL wrapped in the middle",
        "NOTIFY",
        swap(SENT, (TOMASZ, TOMASZ.replace("/aliases", "\r\n/aliases"))),
        400,
    ),
    mime("text/plain", "text/x-msmsscontrol"),
    mime("MIME-Version: 1.0", "MIME-Version 1.0"),
    mime("<![CDATA[MIME", "<![CDATA[\r\nMIME"),
    mime("{3B0C7F52-91D4-4E6A-8C17-5A2E90D4B7F1}", "{3B0C7F52-91D4-4E6A-8C17-5A2E90D4B7F10}"),
    Row("raw: two roots", "NOTIFY", f"{RAW_SENT}<again/>", 400),
    Row("raw: unclosed elements", "NOTIFY", swap(RAW_SENT, ("</kind>", "")), 400),
)


class DraftsErrorsTests(VectorTestCase):
    """Every row of the table, over a socket."""

    def setUp(self) -> None:
        """Have petra logged in, so that messages arrive."""
        super().setUp()
        self.petra_hears = self.listener()
        self.login(self.petra_hears)

    def tidy(self) -> None:
        """Bring the default list back first."""
        self.check(200, "ACL", "/p", who=PETRA, body=OPEN_ACL)
        super().tidy()

    def test_bodies(self) -> None:
        """What is accepted has its effect, in the one form that is emitted; what is refused has none."""
        emitted: dict[str, Callable[[Message], str]] = {
            "PROPPATCH": lambda answer: answer.body.decode(),
            "PROPFIND": lambda answer: answer.body.decode(),
            "ACL": lambda answer: self.check(200, "ACL", "/p", who=PETRA).body.decode(),
            "NOTIFY": lambda answer: self.petra_hears.heard[-1].body.decode(),
        }
        for row in ROWS:
            with self.subTest(row.where):
                heard = len(self.petra_hears.heard)
                who = TOMASZ if row.method in ("NOTIFY", "PROPFIND") else PETRA
                headers = ("Depth: 0",) if row.method == "PROPFIND" else ()
                answer = self.ask(row.method, "/p", *headers, who=who, body=row.body)
                self.assertEqual(answer.status, row.status, answer.raw)
                self.check_answer(answer)
                if row.emitted:
                    self.assertIn(row.emitted, emitted[row.method](answer))
                else:
                    self.assertEqual(len(self.petra_hears.heard), heard)

    def test_request_lines(self) -> None:
        """A request line with dots for spaces, and a header that is wrapped, are refused."""
        whole = request("SUBSCRIPTIONS", "/p", "X-Wrapped: one two", who=PETRA)
        for old, new in (
            (
                b"SUBSCRIPTIONS %b HTTP/1.1" % PATHS["/p"].encode(),
                b"SUBSCRIPTIONS.%b.HTTP/1.1" % PATHS["/p"].encode(),
            ),
            (b"one two", b"one\r\n two"),
        ):
            self.assertIn(old, whole)
            answer = self.connect().ask(whole.replace(old, new))
            self.assertEqual(answer.status, 400, answer.raw)

    def test_subscriptions_are_rvp_elements(self) -> None:
        """SUBSCRIPTIONS answers in the RVP namespace, which Miranda and Net::RVP need.

        A home reads such elements nowhere: a body that comes with the request is not looked at.
        """
        for prefix in ("d", "r"):
            body = f"<{prefix}:subscriptions xmlns:d='DAV:' xmlns:r='{RVP}'/>"
            answer = self.check(200, "SUBSCRIPTIONS", "/p", who=PETRA, body=body)
            self.assertTrue(answer.has("<r:subscription><r:subscription-id>"), answer.body)

    def test_hexadecimal_id(self) -> None:
        """A number in hexadecimal is an id that nobody has, and is not passed on as one."""
        odd = "Subscription-Id: 9A504"
        self.check(412, "UNSUBSCRIBE", "/p", odd, who=PETRA)
        self.check(412, "SUBSCRIBE", "/p", odd, "Subscription-Lifetime: 14400", who=PETRA)
        self.check(200, "NOTIFY", "/p", odd, "RVP-Ack-Type: DeepAnd", who=TOMASZ, body=RAW)
        (told,) = self.petra_hears.heard
        self.assertEqual(told.every("Subscription-Id"), [])

    def test_subscribe_without_lengths(self) -> None:
        """No C{Content-Length} is a body of none; no lifetime is refused all the same."""
        url = f"Call-Back: {self.petra_hears.url}"
        for headers, status in (((*LOGIN, url), 200), ((LOGIN[0], url), 400)):
            data = request("SUBSCRIBE", "/p", *headers, who=PETRA)
            wire = self.connect()
            answer = wire.ask(data.replace(b"Content-Length: 0\r\n", b""))
            self.assertEqual(answer.status, status, answer.raw)
            self.assertEqual(wire.ask(data).status, status)  # the connection goes on

    def test_hop_count_of_an_answer(self) -> None:
        """A call-back may say a hop count with its answer: it means nothing, and is not passed back."""
        self.petra_hears.headers = b"RVP-Hop-Count: 99\r\n"
        answer = self.check(200, "NOTIFY", "/p", "RVP-Ack-Type: DeepOr", who=TOMASZ, body=MESSAGE)
        self.assertEqual(answer.every("RVP-Hop-Count"), [])

    def test_property_subscription(self) -> None:
        """A property subscription that asks for 14400 s is leased, not permanent."""
        self.assertEqual(len(self.watch(self.ingrid).every("Subscription-Lifetime")), 1)
        who, url = self.ingrid, f"Call-Back: {self.ingrid}"
        self.check(400, "SUBSCRIBE", "/p", "Notification-Type: update/propchange", url, who=who)

    def test_status_lines(self) -> None:
        """C{200 OK} in a propstat that somebody sends is as good as C{200 Successful}, which is emitted.

        Old servers sent C{d:propstat} in a property notification, which is accepted and never emitted.
        """
        answer = self.check(207, "PROPFIND", "/p", "Depth: 0", who=TOMASZ, body=propfind("d:displayname"))
        self.assertTrue(answer.has("<d:status>HTTP/1.1 200 Successful</d:status>"), answer.body)
        for reason in ("OK", "Successful"):
            inner = (
                "<d:propstat><d:prop><r:state><r:busy/></r:state></d:prop>"
                f"<d:status>HTTP/1.1 200 {reason}</d:status></d:propstat>"
            )
            self.check(200, "NOTIFY", "/p", who=TOMASZ, body=property_notice(inner))
        for told in self.petra_hears.wait(2):
            self.assertEqual(
                told.body.decode(),
                property_notice(
                    "<d:propertyupdate><d:set><d:prop><r:state><r:busy/></r:state></d:prop></d:set>"
                    "</d:propertyupdate>"
                ),
            )

    def test_missing_principal(self) -> None:
        """Who does not say his name may do what everybody may, and no more."""
        answer = self.check(207, "PROPFIND", "/p", "Depth: 0", body=PROPFIND)
        self.assertEqual(propstats(answer.body)[0][0], 200)
        self.assertEqual(answer.header("Content-Type"), "text/xml")
        self.assertEqual(self.ask("PROPPATCH", "/p", body=PROPPATCH).status, 403)

    def test_forbidden(self) -> None:
        """What an early draft lists as 402 is 403."""
        self.assertEqual(self.ask("PROPPATCH", "/p", who=TOMASZ, body=PROPPATCH).status, 403)


def property_notice(inner: str) -> str:
    """A property notification of tomasz about himself."""
    before, _, _ = message().replace("r:message", "r:propnotification").partition("<r:msgbody>")
    return f"{before}{inner}</r:propnotification></r:notification>"
