"""Calls into running homes, as commands make them: whatever is at the other end, they end, and say why."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.admin.checks import Refused
from rvpfarm.admin.doors import NoAnswer, homes_of, link_key, refuse_silence, visit, visit_all
from rvpfarm.directory.model import Farm, Home
from rvpfarm.directory.store import Store
from rvpfarm.link.frames import HELLO_ONLY, PROOF_ONLY, FrameReader, from_caller, render_answer
from rvpfarm.link.meeting import (
    Hello,
    Meeting,
    Proof,
    is_proof,
    render_challenge,
    render_welcome,
    standing,
)
from rvpfarm.protocol.calls import Forbidden, Limits, Refusal
from rvpfarm.protocol.control import render_answer as say
from rvpfarm.web.writer import render_reply
from tests.support.processes import free_ports
from tests.support.store import make_folder

KEY = b"k" * 32


class FakeLink:
    """A home's link port, at which C{serve} is done to each connection.

    @ivar home: its record.
    """

    def __init__(self, case: SynchronousTestCase, serve: Callable[[socket.socket], None]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        case.addCleanup(self._close)
        port = self._listener.getsockname()[1]
        self.home = Home("h1", "hs1", "hs1.fabrik.example", 80, port, "127.0.0.1")
        self._serve = serve
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection, contextlib.suppress(OSError):
                    self._serve(connection)

    def _close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(60)


def _gone() -> bytes:
    """The command has hung up.

    @raise ConnectionError: always.
    """
    raise ConnectionError("the command has hung up")


def proved(reply: bytes, key: bytes = KEY) -> Callable[[socket.socket], None]:
    """What proves itself with C{key}, and answers one call with C{reply}."""

    def serve(connection: socket.socket) -> None:
        """One connection."""
        reader = FrameReader(HELLO_ONLY)

        def receive() -> object:
            """One frame."""
            while not (frames := reader.feed(connection.recv(65536) or _gone())):
                pass
            return frames[0]

        hello = receive()
        assert isinstance(hello, Hello)
        meeting = Meeting(hello.caller, hello.home, hello.origin, hello.nonce, b"n" * 32)
        reader.allowed = PROOF_ONLY
        connection.sendall(render_challenge(b"n" * 32))
        proof = receive()
        assert isinstance(proof, Proof)
        assert is_proof(proof.proof, meeting.caller_proof(KEY))
        number = standing(7, 1)
        reader.allowed = from_caller(Limits(), 0)
        connection.sendall(render_welcome(number, meeting.home_proof(key, number)))
        receive()
        connection.sendall(render_answer(1, reply, False))
        connection.recv(65536)

    return serve


def refused(refusal: Refusal) -> bytes:
    """The wire of a refusal."""
    return render_reply(refusal.reply())


class VisitTests(SynchronousTestCase):
    """L{visit} and L{visit_all}"""

    def why(self, serve: Callable[[socket.socket], None], seconds: float = 10.0) -> str:
        """Why nothing came of it."""
        home = FakeLink(self, serve).home
        with self.assertRaises(NoAnswer) as caught:
            visit(home, KEY, seconds, lambda door: door.ask("sessions"), "test")
        return str(caught.exception)

    def test_answered(self) -> None:
        """The answer comes whole, and both ends are proved."""
        home = FakeLink(self, proved(render_reply(say({"next": "x" * 2000})))).home
        found = visit(home, KEY, 10.0, lambda door: door.ask("sessions").text("next"), "test")
        self.assertEqual(found, "x" * 2000)

    def test_refused(self) -> None:
        """A refusal is said in the home's own words."""
        self.assertEqual(self.why(proved(refused(Forbidden("not <here> & now")))), "not <here> & now")

    def test_strangers(self) -> None:
        """Whoever does not know the farm key, speaks something else, or hangs up is not believed."""
        self.assertIn("does not know the farm key", self.why(proved(b"", b"x" * 32)))
        self.assertIn("one farm key", self.why(lambda connection: None))
        self.assertIn(
            "one farm key", self.why(lambda connection: connection.sendall(b"HTTP/1.1 400 No\r\n\r\n"))
        )
        self.assertIn("no sense", self.why(proved(b"HTTP/1.1 200 OK\r\n\r\n[]")))

    def test_too_slow(self) -> None:
        """One that says nothing, or a little now and then, does not hold the command up."""

        def drip(connection: socket.socket) -> None:
            """An octet at a time."""
            for octet in render_challenge(b"n" * 32):
                connection.sendall(bytes((octet,)))
                time.sleep(0.05)

        self.assertEqual(self.why(drip, 0.3), "it took too long")

    def test_nobody(self) -> None:
        """A port where nobody listens."""
        (port,) = free_ports(1)
        home = Home("h1", "hs1", "hs1.fabrik.example", 80, port, "127.0.0.1")
        told, silent = visit_all([home], KEY, 5.0, lambda door: door.ask("x"), "test")
        self.assertEqual((told, silent), ({}, {"hs1": "connection refused"}))

    def test_said_to_people(self) -> None:
        """What the home said stands alone; that it said nothing comes with what to do."""
        home = Home("h1", "hs1", "hs1.fabrik.example", 80, 8081)
        self.assertEqual(str(refuse_silence(home, NoAnswer("no such user", 404))), "no such user")
        self.assertIn("rvpfarm status", str(refuse_silence(home, NoAnswer("it took too long"))))


class WhomTests(SynchronousTestCase):
    """Whom to ask, and with what."""

    def test_homes(self) -> None:
        """All homes by name, or the one that is named; none is a refusal."""
        homes = {name: Home(name, name, f"{name}.x", 80, 8081) for name in ("hs2", "hs1")}
        farm = Farm(homes=homes)
        self.assertEqual([home.name for home in homes_of(farm)], ["hs1", "hs2"])
        self.assertEqual([home.name for home in homes_of(farm, "HS2")], ["hs2"])
        self.assertRaises(Refused, homes_of, farm, "hs3")
        self.assertRaises(Refused, homes_of, Farm())

    def test_key(self) -> None:
        """Without the farm key nobody can be asked."""
        store = Store(f"sqlite:///{make_folder(self) / 'directory.sqlite'}")
        self.addCleanup(store.close)
        self.assertRaises(Refused, link_key, store)
