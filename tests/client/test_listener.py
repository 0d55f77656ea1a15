"""Tests of C{rvpfarm.client.listener}."""

from __future__ import annotations

from twisted.internet.error import CannotListenError
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.client.listener import Listener, local_address
from rvpfarm.client.notices import Message, Notice
from rvpfarm.protocol.calls import Unreachable
from rvpfarm.protocol.mime import render_text
from rvpfarm.protocol.notifications import render_message
from rvpfarm.web.writer import render_request

BOB = "http://im.farm.localhost/instmsg/aliases/bob"
ALICE = "http://im.farm.localhost/instmsg/aliases/alice"


class ListenerTests(SynchronousTestCase):
    """One's home server can tell things, and nobody else."""

    def setUp(self) -> None:
        """A listener on port 3155."""
        self.reactor = MemoryReactorClock()
        self.heard: list[Notice] = []
        self.open = True
        self.listener = Listener(self.reactor, self._hear, token="secret")
        self.listener.listen("127.0.0.1", 3155)

    def _hear(self, notice: Notice) -> bool:
        self.heard.append(notice)
        return self.open

    def answer(self, method: bytes = b"NOTIFY", target: bytes = b"/secret", body: bytes = b"") -> int:
        """The status that one request gets."""
        protocol = self.reactor.tcpServers[-1][1].buildProtocol(None)
        transport = StringTransport()
        protocol.makeConnection(transport)
        protocol.dataReceived(render_request(method, target, b"127.0.0.1:3155", (), body))
        protocol.connectionLost()
        return int(transport.value()[9:12])

    def message(self) -> bytes:
        """Bob says hello."""
        return render_message(BOB, "Bob", ALICE, "", render_text("hello", "{1}"))

    def test_url(self) -> None:
        """The call-back has the listener's address and a path that cannot be guessed."""
        self.assertEqual(self.listener.url(), "http://127.0.0.1:3155/secret")
        self.assertEqual(self.listener.url("nat.example"), "http://nat.example:3155/secret")
        self.assertEqual(self.listener.url("2001:db8::1"), "http://[2001:db8::1]:3155/secret")

    def test_message(self) -> None:
        """A message is heard and acknowledged."""
        self.assertEqual(self.answer(body=self.message()), 200)
        self.assertEqual(self.heard, [Message("bob@im.farm.localhost", BOB, "Bob", "hello", "{1}")])

    def test_conversation_over(self) -> None:
        """A message of a conversation that is over is answered 500 (RVP 8)."""
        self.open = False
        self.assertEqual(self.answer(body=self.message()), 500)

    def test_stranger(self) -> None:
        """By another path nothing is heard."""
        self.assertEqual(self.answer(target=b"/", body=self.message()), 404)
        self.assertEqual(self.heard, [])

    def test_other_methods(self) -> None:
        """It is no server: only NOTIFY is taken."""
        self.assertEqual([self.answer(m) for m in (b"GET", b"PROPFIND", b"COPY")], [501, 501, 405])

    def test_nonsense(self) -> None:
        """A body that is no notification is refused."""
        self.assertEqual(self.answer(body=b"<html/>"), 400)

    def test_raw(self) -> None:
        """Foreign XML is taken and not heard."""
        body = (
            b"<r:notification xmlns:r='http://schemas.microsoft.com/rvp/'><x xmlns='urn:x'/></r:notification>"
        )
        self.assertEqual((self.answer(body=body), self.heard), (200, []))

    def test_moved(self) -> None:
        """It listens once per address, and only at the last one."""
        self.listener.listen("127.0.0.1", 3155)
        self.assertEqual(len(self.reactor.tcpServers), 1)
        self.listener.listen("127.0.0.2", 3155)
        self.assertEqual(self.listener.url(), "http://127.0.0.2:3155/secret")

    def test_stop(self) -> None:
        """Stopped, it is gone; stopping twice is stopping once."""
        self.successResultOf(self.listener.stop())
        self.successResultOf(self.listener.stop())

    def test_busy(self) -> None:
        """A fixed port that is taken is one sentence."""

        class Busy(MemoryReactorClock):
            """A reactor whose ports are all taken."""

            def listenTCP(self, port: int, factory: object, backlog: int = 50, interface: str = "") -> object:
                """Refuse."""
                raise CannotListenError(interface, port, OSError(98, "taken"))

        listener = Listener(Busy(), self._hear, token="x")
        error = self.assertRaises(Unreachable, listener.listen, "127.0.0.1", 3155)
        self.assertIn("127.0.0.1 port 3155", str(error))


class LocalAddressTests(SynchronousTestCase):
    """From which address a machine is reached."""

    def test_loopback(self) -> None:
        """The loopback is reached from itself."""
        self.assertEqual(local_address("127.0.0.1"), "127.0.0.1")

    def test_nowhere(self) -> None:
        """Where nothing leads there is no address."""
        self.assertRaises(Unreachable, local_address, "240.0.0.0.1")
