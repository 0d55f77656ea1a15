"""Tests of C{rvpfarm.client.command} and its jobs, and of a session over real sockets."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from click.testing import CliRunner
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from rvpfarm.client.command import rvp
from rvpfarm.client.notices import Message, Presence
from rvpfarm.client.session import Session
from rvpfarm.discovery.nameserver import NameServer
from rvpfarm.protocol.calls import Call, Limits, Reply
from rvpfarm.protocol.mime import parse_mime, render_text
from rvpfarm.protocol.notifications import PropertyNotice, parse_notification, render_message
from rvpfarm.web.server import CallFactory
from rvpfarm.web.writer import render_request
from tests.support.carrier import response
from tests.support.fakehome import FakeHome
from tests.support.farms import DEMO, FarmDirectory

reactor: Any = global_reactor
ALICE = "http://im.farm.localhost/instmsg/aliases/alice"
BOB = "http://im.farm.localhost/instmsg/aliases/bob"
PATIENCE_SECONDS = 15
ME = ("--as", "alice@farm.localhost", "--password", "secret")


class UsageTests(SynchronousTestCase):
    """Nonsense on the command line is refused before anything is done."""

    def complaint(self, *arguments: str) -> str:
        """What the command says of these arguments, when it ends with status 2."""
        environment = {name: None for name in os.environ if name.startswith("RVP_")}
        result = CliRunner().invoke(rvp, arguments, env=environment, prog_name="rvp")
        self.assertEqual(result.exit_code, 2, result.output)
        return result.output

    def test_help(self) -> None:
        """The help names the commands and what stands for the options."""
        result = CliRunner().invoke(rvp, ["--help"], prog_name="rvp")
        self.assertEqual(result.exit_code, 0)
        for word in ("login", "send", "watch", "status", "RVP_ADDRESS", "RVP_PASSWORD", "RVP_DNS"):
            self.assertIn(word, result.output)

    def test_nobody(self) -> None:
        """Without an address nobody can be anybody."""
        self.assertIn("--as name@domain", self.complaint("send", "bob@farm.localhost", "hi"))

    def test_no_address(self) -> None:
        """A recipient that is no address is refused before the password is asked for."""
        self.assertIn("'bob' is not an address", self.complaint("--as", "a@b", "send", "bob", "hi"))
        self.assertIn("'a' is not an address", self.complaint("send", "--as", "a", "b@c", "hi"))

    def test_no_state(self) -> None:
        """A word that is neither state nor address."""
        self.assertIn("'sleepy' is neither", self.complaint(*ME, "status", "sleepy"))

    def test_no_server(self) -> None:
        """A server that is not host:port, before or after the command."""
        self.assertIn("--server", self.complaint(*ME, "--server", "a:b", "status"))
        self.assertIn("--dns", self.complaint(*ME, "status", "--dns", "x y"))

    def test_nothing_to_send(self) -> None:
        """An empty message is none."""
        self.assertIn("nothing to send", self.complaint(*ME, "send", "bob@farm.localhost", ""))

    def test_no_password(self) -> None:
        """Without a password, and nobody there to type one."""
        self.assertIn("RVP_PASSWORD", self.complaint("--as", "alice@farm.localhost", "status"))


class Told(Protocol):
    """A connection that waits for an answer, and then for its end."""

    def __init__(self) -> None:
        self.answered: Deferred[bytes] = Deferred()
        self.gone: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        """The answer."""
        if not self.answered.called:
            self.answered.callback(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The end."""
        self.gone.callback(None)


#: How the command is run.  Whoever starts the tests in the background has Ctrl-C ignored, and Twisted
#: keeps a spare descriptor that it never closes.
COMMAND = (
    *(sys.executable, "-W", "error", "-W", "ignore::ResourceWarning", "-c"),
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "from rvpfarm.client.command import main; main()",
)


class Command:
    """The command as a process, watched from threads: the reactor under test may not notice its end.

    @ivar out: what it has printed.
    @ivar err: what it has complained, once it L{ended}.
    """

    def __init__(self, *arguments: str) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("RVP_")}
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            [*COMMAND, *arguments], stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, env=environment
        )
        self.out = self.err = ""
        self.status: int | None = None

    async def ended(self) -> Command:
        """Wait for its end."""
        out, err = await deferToThread(self._process.communicate, timeout=PATIENCE_SECONDS)
        self.out, self.err, self.status = self.out + out.decode(), err.decode(), self._process.returncode
        return self

    async def printed(self, words: str) -> None:
        """Wait until it has printed C{words}."""
        while words not in self.out:
            part = await deferToThread(self._read)
            if not part:
                raise AssertionError(f"it ended or hung without {words!r}: {self.out!r}")
            self.out += part.decode()

    def _read(self) -> bytes:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], PATIENCE_SECONDS)
        return os.read(self._process.stdout.fileno(), 4096) if ready else b""

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    def finish(self) -> None:
        """Leave nothing behind."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()


class OverSocketsTests(TestCase):
    """The client against a server on real sockets, found by a real DNS."""

    timeout = 20

    def setUp(self) -> None:
        """A fake home at 127.0.0.2 alone, though the DNS names 127.0.0.1 too."""
        self.home = FakeHome()
        self.calls: list[Call] = []
        self.factory = CallFactory(self._serve, clock=reactor, limits=Limits(), name="fake")
        self.port = reactor.listenTCP(0, self.factory, interface="127.0.0.2")
        self.number = self.port.getHost().port
        routers = {key: replace(router, port=self.number) for key, router in DEMO.routers.items()}
        self.dns = NameServer(
            reactor, FarmDirectory(replace(DEMO, routers=routers)), "farm.localhost", port=0
        )
        self.dns.startService()
        self.where = ("--dns", f"127.0.0.1:{self.dns.port}")

    async def tearDown(self) -> None:
        """Stop both."""
        await maybeDeferred(self.port.stopListening)
        await self.factory.drain(0.1)
        await self.dns.stopService()

    def _serve(self, call: Call) -> Reply:
        self.calls.append(call)
        return self.home.serve(call)

    def methods(self) -> list[str]:
        """What was asked, in order."""
        return [call.method.decode() for call in self.calls]

    def start(self, *arguments: str) -> Command:
        """Run the command."""
        command = Command(*arguments)
        self.addCleanup(command.finish)
        return command

    async def tell(self, body: bytes) -> None:
        """Send a NOTIFY to whoever has logged in."""
        call_back = next(c.headers[b"call-back"] for c in self.calls if b"call-back" in c.headers).decode()
        parts = urlsplit(call_back)
        request = render_request(b"NOTIFY", parts.path.encode(), parts.netloc.encode(), (), body)

        endpoint = TCP4ClientEndpoint(reactor, parts.hostname or "", parts.port or 0)
        told = await endpoint.connect(Factory.forProtocol(Told))
        told.transport.write(request)
        self.assertIn(b" 200 ", await told.answered)
        told.transport.loseConnection()
        await told.gone

    async def test_session(self) -> None:
        """From look-up to logout: fail-over to the second router, a watch, a change, a message."""
        heard: list[object] = []
        session = await Session.open(
            "alice@farm.localhost",
            "secret",
            reactor=reactor,
            dns=f"127.0.0.1:{self.dns.port}",
            on_message=heard.append,
            on_presence=heard.append,
        )
        await session.login()
        await session.set_state("online")
        self.assertEqual(await session.watch("bob@farm.localhost"), "offline")
        await session.send("bob@farm.localhost", "hello")
        await self.tell(PropertyNotice(BOB, "Bob", ("<r:state><r:busy/></r:state>",)).body_for(ALICE))
        await self.tell(render_message(BOB, "Bob", ALICE, "", render_text("hi", "{1}")))
        await session.logout()
        self.assertEqual(
            heard,
            [
                Presence("bob@farm.localhost", BOB, "busy"),
                Message("bob@farm.localhost", BOB, "Bob", "hi", "{1}"),
            ],
        )
        self.assertEqual(self.home.known, {})
        self.assertTrue(all(call.headers[b"host"] == b"im.farm.localhost" for call in self.calls))

    async def test_send(self) -> None:
        """C{rvp send} says that it was delivered."""
        sent = await self.start(*ME, *self.where, "send", "bob@farm.localhost", "Coffee?").ended()
        self.assertEqual((sent.status, sent.out, sent.err), (0, "delivered to bob@farm.localhost\n", ""))
        told = parse_notification(self.calls[-1].body)
        self.assertEqual(parse_mime(told.mime).body, "Coffee?")

    async def test_refused(self) -> None:
        """What a server refuses is one line and status 1."""
        self.home.refuse["NOTIFY"] = response(412)
        sent = await self.start("send", *ME, *self.where, "bob@farm.localhost", "hi").ended()
        self.assertEqual(
            (sent.status, sent.err),
            (1, "rvp: bob@farm.localhost cannot be reached: nobody is logged in there now\n"),
        )

    async def test_wrong_password(self) -> None:
        """A wrong password is told as such."""
        line = b'Digest qop="auth", realm="im.farm.localhost", nonce="n"'
        self.home.refuse["PROPFIND"] = response(401, challenges=(line,))
        asked = await self.start(*ME, *self.where, "status").ended()
        self.assertEqual(asked.status, 1)
        self.assertEqual(
            asked.err, "rvp: wrong password for alice@farm.localhost, or there is no such user\n"
        )

    async def test_unreachable(self) -> None:
        """A server that is not there is named, with what to try."""
        await self.port.stopListening()
        asked = await self.start(*ME, "--server", f"127.0.0.2:{self.number}", "status").ended()
        self.assertEqual(asked.status, 1)
        self.assertRegex(
            asked.err, rf"^rvp: .*cannot be reached at 127\.0\.0\.2:{self.number} .*--server.*\n$"
        )

    async def test_not_located(self) -> None:
        """A domain that the DNS does not know is told with what to try."""
        asked = await self.start(*ME, *self.where, "send", "x@nowhere.farm.localhost", "hi").ended()
        self.assertEqual(asked.status, 1)
        self.assertRegex(asked.err, r"^rvp: nowhere\.farm\.localhost has no RVP server.*--dns ip:port.*\n$")

    async def test_status(self) -> None:
        """C{rvp status} sets one's own presence and leaves it when it ends."""
        done = await self.start(*ME, *self.where, "--json", "status", "busy").ended()
        self.assertEqual(done.status, 0, done.err)
        self.assertEqual(
            json.loads(done.out),
            {
                "event": "presence",
                "address": "alice@farm.localhost",
                "state": "busy",
                "changed": True,
                "seconds": 600,
            },
        )
        self.assertEqual(self.methods(), ["PROPPATCH"])
        done = await self.start(*ME, *self.where, "status").ended()
        self.assertEqual((done.status, done.out), (0, "alice@farm.localhost is busy\n"))

    async def test_watch(self) -> None:
        """C{rvp watch} prints the state and each change, and logs out after as many as asked."""
        watching = self.start(*ME, *self.where, "watch", "--count", "1", "bob@farm.localhost")
        await watching.printed("bob@farm.localhost is offline\n")
        await self.tell(PropertyNotice(BOB, "Bob", ("<r:state><r:online/></r:state>",)).body_for(ALICE))
        await watching.ended()
        self.assertEqual((watching.status, watching.err), (0, ""))
        self.assertEqual(watching.out, "bob@farm.localhost is offline\nbob@farm.localhost is online\n")
        self.assertEqual(self.methods()[-2:], ["UNSUBSCRIBE", "UNSUBSCRIBE"])

    async def test_login(self) -> None:
        """C{rvp login} prints what is said until Ctrl-C, and logs out cleanly."""
        process = self.start(*ME, *self.where, "login")
        await process.printed("alice@farm.localhost is logged in (online)")
        await self.tell(render_message(BOB, "Bob", ALICE, "", render_text("ring \x1b[2J\nme", "{1}")))
        await process.printed("me\n")
        process.interrupt()
        await process.ended()
        self.assertEqual((process.status, process.err), (0, ""))
        self.assertRegex(process.out, r"(?m)^\d\d:\d\d:\d\d bob@farm\.localhost: ring \ufffd+\[2J\nme$")
        self.assertEqual(self.home.states["/instmsg/aliases/alice"], "offline")
        self.assertEqual(self.home.known, {})
