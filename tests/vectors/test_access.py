"""Vectors 47 to 51: which nodes there are, which methods, and access lists."""

from __future__ import annotations

from rvpfarm.protocol.calls import METHODS
from tests.support.farmhouse import PETRA, TOMASZ
from tests.support.homes import INGRID, message
from tests.support.printed import ACL, ACL_BLOCK
from tests.support.vectors import VectorTestCase, request
from tests.support.wire import Message

#: The list of section 3.7 as it is in profile O.
OPEN_ACL = ACL.replace(
    b"petra</a:rvp-principal><a:credentials>", b"petra</a:rvp-principal><a:credentials><a:assertion/>"
)


class TargetVectors(VectorTestCase):
    """What is not there, and what RVP does not have."""

    def test_vector_47(self) -> None:
        """A node or a domain that is not here, whatever the method and whoever asks."""
        for method in METHODS:
            for who in (PETRA, self.ingrid, ""):
                self.check(404, method.decode(), "/instmsg/aliases/nobody", who=who)
                self.check(404, method.decode(), "/p", who=who, host="im.elsewhere.example")

    def test_vector_48(self) -> None:
        """Methods of HTTP and WebDAV that mean nothing here; the connection goes on."""
        wire = self.connect()
        for method in ("GET", "OPTIONS", "LOCK", "DELETE", "POST", "PUT", "UNLOCK", "MKCOL", "TRACE", "get"):
            answer = wire.ask(request(method, "/p", who=PETRA))
            self.assertEqual(answer.status, 501, method)
            self.check_answer(answer)
        for method in ("COPY", "MOVE"):
            answer = wire.ask(request(method, "/p", who=PETRA))
            self.assertEqual(answer.status, 405, method)
            self.assertEqual(
                answer.header("Allow"),
                "SUBSCRIBE, UNSUBSCRIBE, SUBSCRIPTIONS, NOTIFY, PROPFIND, PROPPATCH, ACL",
            )
        wire.send(request("HEAD", "/p") + request("GET", "/p"))  # a body would pose as the second answer
        self.assertEqual((wire.read(bodiless=True).status, wire.read().status), (501, 501))


class AclVectors(VectorTestCase):
    """Reading and replacing the access list."""

    def acl(self, status: int, body: bytes = b"", *, who: str = PETRA) -> Message:
        """Read petra's list, or replace it."""
        return self.check(status, "ACL", "/p", who=who, body=body)

    def tidy(self) -> None:
        """Bring the list back that everybody starts with; without it petra may end nothing."""
        self.acl(200, OPEN_ACL)
        super().tidy()

    def test_vector_49(self) -> None:
        """The owner reads the default list, as printed in section 3.7; nobody else does."""
        self.assertEqual(self.acl(200).body, OPEN_ACL)
        self.acl(403, who=TOMASZ)
        # tomasz's was never replaced
        answer = self.check(200, "ACL", "/t", who=TOMASZ)
        self.assertEqual(answer.body, OPEN_ACL.replace(b"petra", b"tomasz"))

    def test_vector_50(self) -> None:
        """A list without credentials or with a right that there is not is refused whole."""
        blocked = self.blocked()
        empty = blocked.replace(b"<a:credentials><a:digest/><a:ntlm/></a:credentials>", b"<a:credentials/>")
        self.assertNotEqual(empty, blocked)
        answer = self.acl(400, empty)
        self.assertEqual(answer.line, "HTTP/1.1 400 Credentials not specified")
        self.acl(400, blocked.replace(b"<a:deny><a:send-to/>", b"<a:deny><a:delete/><a:send-to/>"))
        self.acl(403, blocked, who=TOMASZ)
        self.assertEqual(self.acl(200).body, OPEN_ACL)

    def test_vector_51(self) -> None:
        """A watcher who is blocked sees one last offline and no more, and sees again when let in again."""
        orchard = self.orchard()
        self.watch(self.ingrid)
        self.watch(TOMASZ)
        tomasz_hears = self.listener()
        self.login(tomasz_hears, "/t", TOMASZ)
        self.set_state("online")
        self.assertEqual((orchard.states(1), tomasz_hears.states(1)), (["online"], ["online"]))
        self.assertEqual(self.acl(200, self.blocked()).body, b"")
        self.assertEqual(self.acl(200).body, self.blocked())
        self.assertEqual(orchard.states(2), ["online", "offline"])
        self.watch(self.ingrid, status=403)
        told = message(sender=self.ingrid)
        self.check(403, "NOTIFY", "/p", "RVP-Ack-Type: DeepOr", who=self.ingrid, body=told)
        # in profile O the printed list leaves petra herself nothing but the list
        self.acl(200, self.blocked().replace(b"<a:credentials><a:digest/>", b"<a:credentials><a:any/>"))
        self.set_state("busy")
        self.assertEqual(tomasz_hears.states(2), ["online", "busy"])
        self.acl(200, OPEN_ACL)
        self.assertEqual(orchard.states(3), ["online", "offline", "busy"])
        # had ingrid been told of the change while blocked, it would stand here twice
        self.set_state("away")
        self.assertEqual(orchard.states(4), ["online", "offline", "busy", "away"])
        self.assertEqual(tomasz_hears.states(3), ["online", "busy", "away"])

    def blocked(self) -> bytes:
        """The list of section 3.7 that blocks ingrid."""
        return ACL_BLOCK.replace(INGRID.encode(), self.ingrid.encode())
