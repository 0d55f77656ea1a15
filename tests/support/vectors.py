"""What the tests of the protocol notes' vectors share: requests as bytes, and a home left as it was found."""

from __future__ import annotations

import re
from unittest import TestCase

from tests.support.farmhouse import DOMAIN, PETRA, TOMASZ, Farmhouse, Member, profile_o
from tests.support.homes import leased
from tests.support.wire import Listener, Manner, Message, Wire

#: C{/p} and C{/t} of the notes.
PATHS = {"/p": "/instmsg/aliases/petra", "/t": "/instmsg/aliases/tomasz"}
#: What every body of ours declares.
NAMESPACES = "xmlns:d='DAV:' xmlns:r='http://schemas.microsoft.com/rvp/' xmlns:a='http://schemas.microsoft.com/rvp/acl/'"
LOGIN = ("Notification-Type: pragma/notify", "Subscription-Lifetime: 14400")
#: The call-back of vector 1.
CALL_BACK = "Call-Back: http://192.0.2.77:3155"


def request(
    method: str,
    target: str,
    *headers: str,
    who: str = "",
    body: str | bytes = b"",
    host: str = DOMAIN,
    version: str = "0.2",
) -> bytes:
    """A request as the notes have it: C{Host}, version and a correct length unless a vector says otherwise.

    @param target: C{/p} and C{/t} stand for the nodes of petra and tomasz.
    @param who: "as X"; no C{RVP-From-Principal} if empty.
    @param version: no version header if empty.
    """
    data = body.encode() if isinstance(body, str) else body
    lines = [f"{method} {PATHS.get(target, target)} HTTP/1.1", f"Host: {host}"]
    if version:
        lines.append(f"RVP-Notifications-Version: {version}")
    if who:
        lines.append(f"RVP-From-Principal: {who}")
    lines += headers
    if data and not any(header.lower().startswith("content-type:") for header in headers):
        lines.append("Content-Type: text/xml")
    lines.append(f"Content-Length: {len(data)}")
    return "\r\n".join([*lines, "", ""]).encode() + data


def propfind(*props: str) -> str:
    """A PROPFIND body that asks for C{props} by name."""
    inner = "".join(f"<{prop}/>" for prop in props)
    return f'<?xml version="1.0"?><d:propfind {NAMESPACES}><d:prop>{inner}</d:prop></d:propfind>'


def propstats(body: bytes) -> list[tuple[int, str]]:
    """Status and content of every propstat in a multistatus, in order."""
    found = re.findall(
        r"<d:propstat><d:prop>(.*?)</d:prop><d:status>HTTP/1\.1 (\d+) [^<]*</d:status></d:propstat>",
        body.decode(),
    )
    return [(int(status), props) for props, status in found]


def view_id(answer: Message) -> str:
    """The view that the answer to a PROPPATCH names.

    @raise AssertionError: it names none.
    """
    found = re.search(rb"<r:view-id>([0-9]+)</r:view-id>", answer.body)
    assert found, answer.raw
    return found[1].decode()


class VectorTestCase(TestCase):
    """Tests against a home over sockets; after each, nobody is subscribed, seen or blocked there."""

    def setUp(self) -> None:
        """Find the home running, as a fresh one would be."""
        self.house = self.open_house()
        self._sources: set[str] = set()
        self.addCleanup(self.tidy)
        self.ingrid = self.house.ingrid

    def open_house(self) -> Farmhouse:
        """The farm to test; profile O unless a subclass says otherwise."""
        return profile_o()

    def connect(self, member: Member | None = None, *, source: str = "") -> Wire:
        """A connection for the length of the test."""
        wire = self.house.connect(member, source=source)
        self.addCleanup(wire.close)
        self._sources.add(source)
        return wire

    def ask(self, *parts: str, source: str = "", **more: str | bytes) -> Message:
        """Make one request on a connection of its own; see L{request}."""
        return self.connect(source=source).ask(request(*parts, **more))  # type: ignore[arg-type]

    def check(self, status: int, *parts: str, source: str = "", **more: str | bytes) -> Message:
        """L{ask}, and see that the answer has the status and what every answer must have."""
        answer = self.ask(*parts, source=source, **more)
        self.assertEqual(answer.status, status, answer.raw)
        self.check_answer(answer)
        return answer

    def check_answer(self, answer: Message) -> None:
        """See that any known client can read an answer (protocol notes 2.1, 2.5, 4.3)."""
        self.assertRegex(answer.line, r"^HTTP/1\.1 [1-5][0-9][0-9] [A-Za-z]")
        self.assertIn(answer.header("RVP-Notifications-Version"), ("0.2", "1.0"))
        self.assertEqual(int(answer.header("Content-Length")), len(answer.body))
        self.assertEqual(answer.every("Transfer-Encoding"), [])
        if answer.status == 207 or (answer.body and answer.status == 200):
            self.assertEqual(answer.every("Content-Type"), ["text/xml"])
            self.assertTrue(answer.body.startswith(b'<?xml version="1.0"?><'), answer.body)
            self.assertNotIn(b"\n", answer.body)

    def listener(self, script: int | Manner = 200, host: str = "127.0.0.1") -> Listener:
        """A call-back for the length of the test."""
        listener = Listener(script, host)
        self.addCleanup(listener.close)
        return listener

    def login(self, listener: Listener, path: str = "/p", who: str = PETRA) -> str:
        """Put C{listener} on the list of live call-backs; the subscription's id."""
        answer = self.check(
            200, "SUBSCRIBE", path, *LOGIN, f"Call-Back: {listener.url}", who=who, source=listener.host
        )
        return answer.header("Subscription-Id")

    def watch(self, who: str, path: str = "/p", status: int = 207) -> Message:
        """Subscribe to the properties of a node."""
        return self.check(
            status,
            "SUBSCRIBE",
            path,
            "Notification-Type: update/propchange",
            "Subscription-Lifetime: 14400",
            f"Call-Back: {who}",
            who=who,
        )

    def orchard(self) -> Listener:
        """The server of the other organisation, with nothing heard yet."""
        self.house.orchard.heard.clear()
        return self.house.orchard

    def set_state(self, name: str, *, source: str = "", **more: str) -> Message:
        """Have petra set her state, as in protocol notes 3.5."""
        return self.check(207, "PROPPATCH", "/p", who=PETRA, body=leased(name, **more), source=source)

    def state(self, who: str = TOMASZ) -> str:
        """What C{who} is told that petra's state is."""
        answer = self.check(207, "PROPFIND", "/p", "Depth: 0", who=who, body=propfind("r:state"))
        ((status, props),) = propstats(answer.body)
        self.assertEqual(status, 200)
        found = re.fullmatch(r"<r:state><r:([a-z-]+)/></r:state>", props)
        assert found, props
        return found[1]

    def tidy(self) -> None:
        """End every subscription and every view of petra and tomasz, as only they themselves may."""
        for path, who in (("/p", PETRA), ("/t", TOMASZ)):
            held = self.check(200, "SUBSCRIPTIONS", path, who=who).body.decode()
            for number in re.findall(r"<r:subscription-id>(\d+)<", held):
                self.check(200, "UNSUBSCRIBE", path, f"Subscription-Id: {number}", who=who)
            for source in tuple(self._sources):
                self.check(207, "PROPPATCH", path, who=who, body=NO_STATE, source=source)


#: Ends the view of whoever sends it.
NO_STATE = (
    f'<?xml version="1.0"?><d:propertyupdate {NAMESPACES}><d:remove><d:prop><r:state/></d:prop></d:remove>'
    "</d:propertyupdate>"
)
