"""Responses: what call-backs and servers answer, the odd ones included."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.web.responses import Response, ResponseReader

#: As our own servers answer.
OURS = b"HTTP/1.1 200 Successful\r\nRVP-Notifications-Version: 0.2\r\nContent-Length: 0\r\n\r\n"

#: As Miranda answers a NOTIFY: LF only, and then it closes.
MIR = b"HTTP/1.1 200 Successful\nContent-Length: 0\n\n"

#: As the Net* clients answer: no length, no RVP header, and the connection stays open.
NET = b"HTTP/1.1 200 OK\r\n\r\n"

examples = settings(max_examples=150, deadline=None, database=None)


class ResponseReaderTests(SynchronousTestCase):
    """A response is known as soon as it is complete, and whether the connection can be used again."""

    def read(self, wire: bytes) -> Response:
        """The response in C{wire}; it must be there at the last octet and not before."""
        early = ResponseReader()
        self.assertIsNone(early.feed(wire[:-1]))
        response = ResponseReader().feed(wire)
        assert response is not None
        self.assertEqual(early.feed(wire[-1:]), response)
        return response

    def test_usual(self) -> None:
        """An answer of a farm member: status, fields by lower-cased names, a connection to be kept."""
        expected = Response(
            200, {b"rvp-notifications-version": b"0.2", b"content-length": b"0"}, (), b"", reusable=True
        )
        self.assertEqual(self.read(OURS), expected)

    def test_body(self) -> None:
        """A body of announced length is waited for."""
        response = self.read(b"HTTP/1.1 207 Multi-Status\r\nContent-Length: 5\r\n\r\n<a/>\n")
        self.assertEqual((response.status, response.body, response.reusable), (207, b"<a/>\n", True))

    def test_lf_only(self) -> None:
        """Lines may end in LF (rule 11)."""
        response = self.read(MIR)
        self.assertEqual((response.status, response.reusable), (200, True))

    def test_no_length(self) -> None:
        """A body whose length is not announced is not waited for, and the connection is done (rule 10)."""
        response = self.read(NET)
        self.assertEqual((response.status, response.headers, response.reusable), (200, {}, False))

    def test_bare_status_lines(self) -> None:
        """The reason may be missing, or be anything."""
        for line in (b"HTTP/1.1 200", b"HTTP/1.1 200 ", b"HTTP/1.0 200 \xe4h", b"HTTP/1.1  200 OK"):
            self.assertEqual(self.read(line + b"\r\n\r\n").status, 200)

    def test_one_reader_for_one_connection(self) -> None:
        """After one response the next is read afresh."""
        reader = ResponseReader()
        for _ in range(3):
            response = reader.feed(OURS)
            assert response is not None
            self.assertTrue(response.reusable)
        self.assertIsNone(reader.eof())

    def test_surplus(self) -> None:
        """Who sends more than was asked for is not asked again on that connection."""
        for surplus in (b"x", OURS, b"\r\n"):
            response = ResponseReader().feed(OURS + surplus)
            assert response is not None
            self.assertFalse(response.reusable)
            self.assertEqual(response.body, b"")

    def test_connection(self) -> None:
        """A wish to close is respected, and HTTP/1.0 closes unless it says otherwise."""
        for start, connection, reusable in (
            (b"HTTP/1.1", b"close", False),
            (b"HTTP/1.1", b"Keep-Alive", True),
            (b"HTTP/1.1", b"TE, Close", False),
            (b"HTTP/1.0", b"Keep-Alive", True),
            (b"HTTP/1.0", b"TE", False),
        ):
            wire = b"%s 200 OK\r\nConnection: %s\r\nContent-Length: 0\r\n\r\n" % (start, connection)
            self.assertEqual(self.read(wire).reusable, reusable)
        self.assertFalse(self.read(OURS.replace(b"HTTP/1.1", b"HTTP/1.0")).reusable)

    def test_challenges(self) -> None:
        """Each C{WWW-Authenticate} line is kept apart, in order; other repeated fields are joined."""
        response = self.read(
            b"HTTP/1.1 401 Access Denied\r\nWWW-Authenticate: NTLM\r\nAllow: A\r\n"
            b'www-authenticate: Digest qop="auth",\r\n realm="a"\r\nAllow: B\r\nContent-Length: 0\r\n\r\n'
        )
        self.assertEqual(response.challenges, (b"NTLM", b'Digest qop="auth", realm="a"'))
        self.assertEqual(response.headers, {b"allow": b"A, B", b"content-length": b"0"})

    def test_interim(self) -> None:
        """Interim responses are skipped; 101 is a final one."""
        response = self.read(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 P\r\nX: y\r\n\r\n" + OURS)
        self.assertEqual((response.status, response.reusable), (200, True))
        self.assertEqual(self.read(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").status, 101)

    def test_no_body_by_status(self) -> None:
        """204 and 304 have no body, whatever they announce."""
        for status in (204, 304):
            response = self.read(b"HTTP/1.1 %d X\r\n\r\n" % status)
            self.assertTrue(response.reusable)
            self.assertEqual(self.read(b"HTTP/1.1 %d X\r\nContent-Length: 5\r\n\r\n" % status).body, b"")

    def test_chunked(self) -> None:
        """A chunked answer is decoded."""
        start = b"HTTP/1.1 207 Multi-Status\r\nTransfer-Encoding: Chunked\r\n"
        body = b"\r\n3\r\n<a>\r\n4;x\r\n</a>\r\n0\r\nX: y\r\n\r\n"
        response = self.read(start + body)
        self.assertEqual((response.body, response.reusable), (b"<a></a>", True))

    def test_dubious_framing(self) -> None:
        """An answer that frames itself twice is read as RFC 9112 6.3 says, and its connection not reused."""
        chunked = (
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"
        )
        twice = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na"
        for wire in (chunked, twice):
            response = self.read(wire)
            self.assertEqual((response.body, response.reusable), (b"a", False))

    def test_folded(self) -> None:
        """A folded field is put together; the connection is not used again."""
        response = self.read(b"HTTP/1.1 200 OK\r\nX: a\r\n\t b\r\nContent-Length: 0\r\n\r\n")
        self.assertEqual((response.headers[b"x"], response.reusable), (b"a b", False))


class HeartTests(SynchronousTestCase):
    """What is answered with the same octets is known by heart."""

    def test_known(self) -> None:
        """It means the same each time, and nobody can change what it means to others."""
        for wire in (OURS, NET, MIR):
            first, *others = (ResponseReader().feed(wire) for _ in range(4))
            for other in others:
                self.assertEqual(other, first)
        found = ResponseReader().feed(OURS)
        assert found is not None
        with self.assertRaises(TypeError):
            found.headers[b"content-length"] = b"7"  # type: ignore[index]  # which is the point


class EndTests(SynchronousTestCase):
    """What a response is worth when the connection ends in it."""

    def test_until_close(self) -> None:
        """Who wants to waits for a body of unknown length until the end."""
        reader = ResponseReader(until_close=True)
        self.assertIsNone(reader.feed(NET + b"<a>"))
        self.assertIsNone(reader.feed(b"</a>"))
        response = reader.eof()
        assert response is not None
        self.assertEqual((response.body, response.reusable), (b"<a></a>", False))

    def test_head_without_its_end(self) -> None:
        """A status line is an answer, also when the empty line never came."""
        for wire in (b"HTTP/1.1 200 OK\n", b"HTTP/1.1 200 OK\r\nServer: x\r\n", OURS[:-2], MIR[:-1]):
            reader = ResponseReader()
            self.assertIsNone(reader.feed(wire))
            response = reader.eof()
            assert response is not None
            self.assertEqual((response.status, response.reusable), (200, False))

    def test_incomplete(self) -> None:
        """Half a status line, half a body, or nothing is no answer."""
        for wire in (
            b"",
            b"HTTP/1.1 200 OK",
            b"\n",
            b"whatever\n",
            b"HTTP/1.1 100 Continue\r\n",
            b"HTTP/1.1 207 X\r\nContent-Length: 5\r\n",
            b"HTTP/1.1 207 X\r\nContent-Length: 5\r\n\r\n1234",
            b"HTTP/1.1 207 X\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n",
        ):
            reader = ResponseReader(until_close=True)
            self.assertIsNone(reader.feed(wire))
            self.assertIsNone(reader.eof(), wire)


class GarbageTests(SynchronousTestCase):
    """What is no response, or too much of one, is a C{ValueError}."""

    def test_garbage(self) -> None:
        """Other protocols, broken fields and impossible lengths."""
        for wire in (
            b"\r\n\r\n",
            b"SSH-2.0-x\r\n\r\n",
            b"NOTIFY / HTTP/1.1\r\n\r\n",
            b"HTTP/2 200\r\n\r\n",
            b"HTTP/1.1 20 OK\r\n\r\n",
            b"HTTP/1.1 2000 OK\r\n\r\n",
            b"HTTP/1.1 200OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n folded: first\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: \x00\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfive\r\n",
        ):
            self.assertRaises(ValueError, ResponseReader().feed, wire)

    def test_limits(self) -> None:
        """A head or a body over its limit, however it is framed."""
        for wire in (
            b"HTTP/1.1 200 OK\r\nX: " + b"x" * 90,
            b"HTTP/1.1 200 OK\r\nContent-Length: 51\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n33\r\n",
            b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 51,
        ):
            reader = ResponseReader(body_limit=50, head_limit=100, until_close=True)
            self.assertRaises(ValueError, reader.feed, wire)

    @examples
    @given(
        st.lists(
            st.one_of(
                st.binary(max_size=8),
                st.sampled_from((OURS, OURS[:30], NET, b"\r\n", b"\n", b"Content-Length: 3\r\n", b"abc")),
            ),
            max_size=8,
        ).map(b"".join),
        st.lists(st.integers(0, 200), max_size=6),
    )
    def test_any_stream(self, wire: bytes, cuts: list[int]) -> None:
        """Any octets give a response or a C{ValueError} and nothing else, the same however they are cut."""
        outcomes: list[object] = []
        for offsets in ([0, len(wire)], sorted({0, len(wire), *(min(cut, len(wire)) for cut in cuts)})):
            reader = ResponseReader()
            outcome: object = None
            for start, stop in pairwise(offsets):
                try:
                    response = reader.feed(wire[start:stop])
                except ValueError:
                    outcome = ValueError
                else:
                    outcome = response and response.status
                if outcome is not None:
                    break
            outcomes.append(outcome)
        self.assertEqual(outcomes[0], outcomes[-1])
