"""Tests of L{tests.support.stage}: a transcript that goes otherwise fails, and shows where and how."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from unittest import TestCase

from tests.support.processes import wait_for
from tests.support.reckoning import digest_response
from tests.support.stage import Mismatch, Stage
from tests.support.transcript import BadTranscript, parse_transcript
from tests.support.wire import Message, Reader

SETTINGS = (
    "profile: O\nusers: petra\npetra: plain, LF\ntomasz: net-rvp, CRLF\n## Login\n[petra, new connection]\n"
)
ASK = ">> GET /${petra} HTTP/1.1\n>> Content-Length: ${length}\n>>\n>> a\\r\\n\n>> b\n"


class Script:
    """A home that answers by a script.

    @ivar heard: the requests, in order.
    """

    def __init__(self, *answers: bytes | Callable[[Message], bytes]) -> None:
        """
        @param answers: to the requests in their order; an empty one closes the connection.
        """
        self._answers = list(answers)
        self.heard: list[Message] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        """Stop."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        reader = Reader(connection)
        with connection, suppress(OSError, AssertionError):
            while (message := reader.read()) is not None and self._answers:
                self.heard.append(message)
                answer = self._answers.pop(0)
                data = answer if isinstance(answer, bytes) else answer(message)
                if not data:
                    return
                connection.sendall(data)


def answer(*headers: str, body: str = "", status: str = "200 Successful") -> bytes:
    """An answer with a correct length."""
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "", ""]
    return ("\r\n".join(lines) + body).encode()


class StageTests(TestCase):
    """Transcripts played against scripts."""

    def stage(self, text: str, *answers: bytes | Callable[[Message], bytes], patience: float = 60.0) -> Stage:
        """The stage for C{text}, with a script in place of the home."""
        script = self.script = Script(*answers)
        self.addCleanup(script.close)
        transcript = parse_transcript(SETTINGS + text, "some.rvp")
        passwords = {"petra": "Blue-Kite-41", "tomasz": "Green-Drum-52"}
        stage = Stage(transcript, "127.0.0.1", script.port, passwords, patience=patience)
        self.addCleanup(stage.close)
        return stage

    def failure(self, text: str, *answers: bytes | Callable[[Message], bytes], patience: float = 60.0) -> str:
        """How playing C{text} fails."""
        with self.assertRaises(Mismatch) as caught:
            self.stage(text, *answers, patience=patience).play()
        return str(caught.exception)

    def test_octets(self) -> None:
        """What is said is said to the octet: the actor's line ends, values, and the length of the body."""
        stage = self.stage(ASK + "<< HTTP/1.1 200 Successful\n<< Content-Length: 0\n<<\n", answer())
        stage.play()
        where = stage.values["petra"]
        self.assertEqual(
            self.script.heard[0].raw, f"GET /{where} HTTP/1.1\nContent-Length: 4\n\na\r\nb".encode()
        )

    def test_values(self) -> None:
        """What an answer tells can be said again."""
        stage = self.stage(
            ">> A / HTTP/1.1\n>>\n<< HTTP/1.1 200 Successful\n<< Id: ${id:number}\n<< Content-Length: 0\n<<\n"
            ">> B /${id} HTTP/1.1\n>>\n<< HTTP/1.1 200 Successful\n<< Id: ${id}\n<< Content-Length: 0\n<<\n",
            answer("Id: 17"),
            answer("Id: 17"),
        )
        stage.play()
        self.assertEqual(self.script.heard[1].line, "B /17 HTTP/1.1")

    def test_difference(self) -> None:
        """A wrong expectation shows the difference tag by tag; what fits a wildcard is none."""
        failure = self.failure(
            ASK + "<< HTTP/1.1 200 Successful\n<< Subscription-Id: ${id:number}\n<< Content-Length: 27\n<<\n"
            "<< <a><b>one</b>\n<< <c>three</c></a>\n",
            answer("Subscription-Id: 17", body="<a><b>one</b><c>two</c></a>"),
        )
        self.assertEqual(
            failure,
            "some.rvp:12 (Login), petra: this is not what is written:\n"
            "  << HTTP/1.1 200 Successful\n"
            "  << Subscription-Id: 17\n"
            "  << Content-Length: 27\n"
            "  <<\n"
            "  << <a>\n"
            "  << <b>one</b>\n"
            "- << <c>three</c>\n"
            "+ << <c>two</c>\n"
            "  << </a>",
        )

    def test_line_ends_differ(self) -> None:
        """An answer whose lines end otherwise is another, and shows why."""
        failure = self.failure(
            ASK + "<< HTTP/1.1 200 Successful\n<< Content-Length: 0\n<<\n",
            b"HTTP/1.1 200 Successful\nContent-Length: 0\n\n",
        )
        self.assertIn("- << HTTP/1.1 200 Successful\n", failure)
        self.assertIn("+ << HTTP/1.1 200 Successful\\n\n", failure)

    def test_header_order_counts(self) -> None:
        """So does the order of headers, and whatever is there beside what is written."""
        wanted = ASK + "<< HTTP/1.1 200 Successful\n<< A: 1\n<< Content-Length: 0\n<<\n"
        for other in (
            b"HTTP/1.1 200 Successful\r\nContent-Length: 0\r\nA: 1\r\n\r\n",
            answer("A: 1", "B: 2"),
        ):
            self.assertIn("this is not what is written", self.failure(wanted, other))

    def test_no_answer(self) -> None:
        """A connection that ends instead of an answer is a failure at its line."""
        failure = self.failure(ASK + "<< HTTP/1.1 200 Successful\n<<\n", b"")
        self.assertEqual(failure, "some.rvp:12 (Login), petra: closed without an answer")

    def test_death(self) -> None:
        """A client that cannot digest what is written, and comes, dies of it."""
        failure = self.failure(
            "[tomasz, new connection]\n>> SUBSCRIBE /instmsg/aliases/tomasz HTTP/1.1\n"
            ">> Notification-Type: pragma/notify\n>>\n"
            "<< HTTP/1.1 200 Successful\n<< Subscription-Id: 4\n<< Content-Length: 0\n<<\n",
            answer("Subscription-Id: 4"),
        )
        self.assertIn(
            "some.rvp:11 (Login), tomasz: dies of it: a login without a Subscription-Lifetime", failure
        )

    def test_understanding(self) -> None:
        """What a client makes of an answer is compared, too."""
        failure = self.failure(
            "[tomasz, new connection]\n>> ACL /instmsg/aliases/tomasz HTTP/1.1\n>>\n"
            "<< HTTP/1.1 200 Successful\n<< Content-Length: 0\n<<\n~~ fails with 403\n",
            answer(),
        )
        self.assertIn("tomasz: understands something else:\n- fails with 403\n+ succeeds", failure)

    def call(self, message: Message) -> bytes:
        """Call the call-back that a request names back, and put its verdict into the answer."""
        host, _, port = message.line.split(" ")[1].strip("/").partition(":")
        with socket.create_connection((host, int(port))) as calling:
            calling.sendall(b"NOTIFY / HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi")
            told = calling.makefile("rb").readline()
        return answer(f"Told: {told.decode().strip()}")

    def test_call_back(self) -> None:
        """A call-back is heard and answered while its sender waits; then the connection is closed."""
        self.stage(
            ASK + "[petra, call-back]\n** NOTIFY / HTTP/1.1\n** Content-Length: 2\n**\n** hi\n"
            "== HTTP/1.1 299 Fine\n==\n[the server hangs up on petra]\n[petra, same connection]\n"
            "<< HTTP/1.1 200 Successful\n<< Told: HTTP/1.1 299 Fine\n<< Content-Length: 0\n<<\n",
            self.call,
        ).play()

    def test_call_back_missing(self) -> None:
        """When nobody calls, that is said."""
        failure = self.failure(
            "[petra, call-back]\n** NOTIFY / HTTP/1.1\n**\n",
            patience=0.0,
        )
        self.assertEqual(failure, "some.rvp:8 (Login), petra: nobody calls")

    def test_call_back_unwritten(self) -> None:
        """A call that is not written down is a failure at the end."""

        def call(message: Message) -> bytes:
            host, _, port = message.line.split(" ")[1].strip("/").partition(":")
            with socket.create_connection((host, int(port))) as calling:
                calling.sendall(b"NOTIFY / HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi")
                wait_for("the call being heard", lambda: stage.unheard() > 0)
            return answer()

        stage = self.stage(ASK + "<< HTTP/1.1 200 Successful\n<< Content-Length: 0\n<<\n", call)
        with self.assertRaises(Mismatch) as caught:
            stage.play()
        self.assertEqual(
            str(caught.exception),
            "some.rvp: petra was called 1 more times, first:\n"
            "** NOTIFY / HTTP/1.1\n** Content-Length: 2\n**\n** hi",
        )

    def test_named_connections(self) -> None:
        """Requests on two connections are answered each on its own."""
        ask = ">> GET /{0} HTTP/1.1\n>>\n"
        told = "<< HTTP/1.1 200 Successful\n<< Id: {0}\n<< Content-Length: 0\n<<\n"

        def echo(message: Message) -> bytes:
            return answer(f"Id: {message.line.split()[1][1:]}")

        self.stage(
            "[petra, new connection a]\n"
            + ask.format("a")
            + "[petra, new connection b]\n"
            + ask.format("b")
            + "[petra, connection a]\n"
            + told.format("a")
            + "[petra, connection b]\n"
            + told.format("b"),
            echo,
            echo,
        ).play()

    def test_by_digest(self) -> None:
        """Who signs in by Digest is challenged, and asks again with the right response."""
        challenge = 'WWW-Authenticate: Digest qop="auth", realm="r", nonce="0a"'
        self.stage(
            "[petra, new connection, by Digest]\n>> ACL /p HTTP/1.1\n>> RVP-From-Principal: http://h/x/petra\n>>\n"
            "<< HTTP/1.1 200 Successful\n<< Content-Length: 0\n<<\n",
            answer(challenge, status="401 Access Denied"),
            answer(),
        ).play()
        wanted = digest_response("petra", "r", "Blue-Kite-41", "ACL", "/p", "0a", "00000001", "0a4f113b")
        self.assertIn(f'response="{wanted}"', self.script.heard[1].header("Authorization"))
        self.assertEqual(self.script.heard[0].every("Authorization"), [])

    def test_by_digest_without_challenge(self) -> None:
        """Who should have been challenged and was not says so."""
        failure = self.failure("[petra, new connection, by Digest]\n>> ACL /p HTTP/1.1\n>>\n", answer())
        self.assertIn("this is no Digest challenge:\nHTTP/1.1 200", failure)

    def test_reckoning(self) -> None:
        """What is worked out is kept, or compared with what it should be."""
        words = "digest FABRIK/petra im.fabrik.example SUBSCRIBE /instmsg/aliases/petra 6f 00000001 01"
        stage = self.stage(f"! first = {words}\n! second = {words}\n")
        stage.play()
        self.assertEqual(stage.values["first"], stage.values["second"])
        self.assertIn(f"it is {stage.values['first']}", self.failure(f'! "00" = {words}\n'))

    def test_cannot_be_played(self) -> None:
        """What nobody has found out or can do is the transcript's own fault."""
        for text in (">> GET /${nobody} HTTP/1.1\n>>\n", "! a = guess 1\n", "! a = digest petra\n"):
            with self.subTest(text):
                self.assertRaises(BadTranscript, self.stage(text).play)
        with self.assertRaises(BadTranscript):
            Stage(
                parse_transcript("profile: O\nusers: petra\npetra: telnet, LF\n", "other.rvp"),
                "127.0.0.1",
                1,
                {},
            )
