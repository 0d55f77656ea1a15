"""Vectors 59 to 62: a router in front, names of a home, and limits."""

from __future__ import annotations

from tests.support.farmhouse import EXTRAS, PETRA, TOMASZ, Farmhouse, profile_o_routed
from tests.support.homes import message
from tests.support.printed import MESSAGE, MULTISTATUS_NAME, PROPFIND
from tests.support.processes import wait_for
from tests.support.vectors import LOGIN, VectorTestCase, request
from tests.support.wire import Listener, Manner, Wire

#: Where petra's node is when hs2 has it.
LOCAL = "/instmsg/local/im.fabrik.example/instmsg/aliases/petra"


class RouterVectors(VectorTestCase):
    """A separate router, and petra on C{hs2}."""

    def open_house(self) -> Farmhouse:
        """A router before two homes."""
        return profile_o_routed()

    def tidy(self) -> None:
        """Each test ends what it began."""

    def find(self, *headers: str) -> bytes:
        """A PROPFIND on petra."""
        return request("PROPFIND", "/p", "Depth: 0", *headers, who=TOMASZ, body=PROPFIND)

    def test_vector_59(self) -> None:
        """Who is known to follow is referred; anybody else is answered through the router."""
        wire = self.connect(self.house.routers["router1"])
        answer = wire.ask(self.find("User-Agent: msmsgs/5.1.0.639"))
        self.assertEqual(answer.line, "HTTP/1.1 302 Object moved")
        self.check_answer(answer)
        self.assertEqual(answer.header("Location"), f"http://hs2.fabrik.example{LOCAL}")
        self.assertEqual(answer.body, b"")
        for headers in (("User-Agent: libwww-perl/6",), ()):
            answer = wire.ask(self.find(*headers))
            self.assertEqual((answer.status, answer.body), (207, MULTISTATUS_NAME), answer.raw)
            self.check_answer(answer)

    def test_vector_59_as_proxied(self) -> None:
        """A login and a message through the router: the client's own address counts, and one hop more."""
        listener = self.listener(host="127.0.0.6")
        wire = self.connect(self.house.routers["router1"], source=listener.host)
        login = wire.ask(request("SUBSCRIBE", "/p", *LOGIN, f"Call-Back: {listener.url}", who=PETRA))
        self.assertEqual(login.status, 200, login.raw)
        number = login.header("Subscription-Id")
        answer = wire.ask(request("NOTIFY", "/p", "RVP-Ack-Type: DeepOr", who=TOMASZ, body=MESSAGE))
        self.assertEqual(answer.status, 200, answer.raw)
        (told,) = listener.heard
        self.assertEqual((told.body, told.header("RVP-Hop-Count")), (MESSAGE, "3"))
        ended = wire.ask(request("UNSUBSCRIBE", "/p", f"Subscription-Id: {number}", who=PETRA))
        self.assertEqual(ended.status, 200, ended.raw)

    def test_vector_60(self) -> None:
        """A home answers to its own name, and to the physical path; what it says of nodes is logical."""
        wire = self.connect(self.house.homes["hs2"])
        for path in ("/p", LOCAL):
            data = request("PROPFIND", path, "Depth: 0", who=TOMASZ, body=PROPFIND, host="hs2.fabrik.example")
            answer = wire.ask(data)
            self.assertEqual((answer.status, answer.body), (207, MULTISTATUS_NAME), answer.raw)
            self.check_answer(answer)


class LimitVectors(VectorTestCase):
    """How much may be in work, and how large a body may be."""

    def test_vector_61(self) -> None:
        """1024 requests wait for people's clients; the 1025th is told to come again, and then may.

        Each of 16 users is logged in at a client that never answers, and 64 messages wait for each: so
        many may (6.2).  They come over 64 connections, 16 at a time, which is how many a connection may
        have in work.
        """
        silent = [self.listener(Manner.SILENT) for _ in EXTRAS]
        wires = [self.connect() for _ in range(64)]
        for number, wire in enumerate(wires):
            user = number % 16
            if number < 16:
                self.login(silent[user], f"/instmsg/aliases/{EXTRAS[user]}", self.url(user))
            wire.send(self.sixteen(user))
        wait_for("1024 requests in work", lambda: self.in_work() == 1024)
        surplus = self.check(503, "PROPFIND", "/p", "Depth: 0", who=TOMASZ, body=PROPFIND)
        self.assertGreater(int(surplus.header("Retry-After")), 0)
        self.check(503, "NOTIFY", "/p", who=TOMASZ, body=MESSAGE)
        self.assertEqual(self.in_work(), 1024)
        self.release(silent, wires)
        self.check(207, "PROPFIND", "/p", "Depth: 0", who=TOMASZ, body=PROPFIND)

    def url(self, user: int) -> str:
        """The logical URL of one of the extra users."""
        return PETRA.replace("petra", EXTRAS[user])

    def sixteen(self, user: int) -> bytes:
        """Sixteen messages to one of them."""
        body = message(recipient=self.url(user))
        path = f"/instmsg/aliases/{EXTRAS[user]}"
        return request("NOTIFY", path, "RVP-Ack-Type: DeepOr", who=TOMASZ, body=body) * 16

    def in_work(self) -> int:
        """How many requests the home has in work, as it says itself."""
        page = self.house.home.page("/metrics").decode()
        lines = [line for line in page.splitlines() if "rvp_queue_depth{" in line and '"inbound"' in line]
        return int(float(lines[0].rpartition(" ")[2])) if lines else -1

    def release(self, silent: list[Listener], wires: list[Wire]) -> None:
        """Let the clients go away: everybody who waited is told that nobody can be reached."""
        for listener in silent:
            listener.close()
        for wire in wires:
            self.assertEqual({wire.read().status for _ in range(16)}, {412})

    def test_vector_62(self) -> None:
        """A body that is too large is refused whether or not it is all sent, and the connection ends."""
        wire = self.connect()
        answer = wire.ask(request("NOTIFY", "/p", who=TOMASZ, body=b"x" * 300 * 1024))
        self.assertEqual(answer.status, 413, answer.raw)
        self.check_answer(answer)
        self.assertTrue(wire.at_end())
        wire = self.connect()
        data = request("NOTIFY", "/p", who=TOMASZ, body=b"x" * 300 * 1024)
        head = data[: data.index(b"\r\n\r\n") + 4]
        self.assertEqual(wire.ask(head).status, 413)
