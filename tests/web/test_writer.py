"""What is written can be read, by every client and by the strict reader."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.protocol.calls import METHODS, REASONS, Limits, NotFound, Relayed, Reply
from rvpfarm.web.reader import RequestReader
from rvpfarm.web.responses import ResponseReader
from rvpfarm.web.writer import render_field, render_head, render_reply, render_request

examples = settings(max_examples=100, deadline=None, database=None)

_RESERVED = (b"host", b"content-length", b"transfer-encoding", b"rvp-notifications-version", b"connection")
_names = st.from_regex(rb"[A-Za-z!#$%&'*+.^_`|~-][A-Za-z0-9-]{0,12}", fullmatch=True).filter(
    lambda name: name.lower() not in (*_RESERVED, b"expect", b"www-authenticate")
)
_values = st.from_regex(rb"([!-~\x80-\xff]([\t -~\x80-\xff]{0,20}[!-~\x80-\xff])?)?", fullmatch=True)
_fields = st.lists(st.tuples(_names, _values), max_size=6, unique_by=lambda field: field[0].lower())


class RenderReplyTests(SynchronousTestCase):
    """An answer is a status line, fields in a fixed order, and a body of announced length."""

    def test_order(self) -> None:
        """Version first, then the given fields in order, then length (protocol notes 3.1)."""
        reply = Reply(200, ((b"Subscription-Id", b"40117"), (b"Subscription-Lifetime", b"14400")))
        self.assertEqual(
            render_reply(reply),
            b"HTTP/1.1 200 Successful\r\nRVP-Notifications-Version: 0.2\r\nSubscription-Id: 40117\r\n"
            b"Subscription-Lifetime: 14400\r\nContent-Length: 0\r\n\r\n",
        )

    def test_body_and_version(self) -> None:
        """The body follows the head; the version is the caller's."""
        reply = Reply(207, ((b"Content-Type", b"text/xml"),), b"<a/>")
        self.assertEqual(
            render_reply(reply, version=b"1.0"),
            b"HTTP/1.1 207 Multi-Status\r\nRVP-Notifications-Version: 1.0\r\nContent-Type: text/xml\r\n"
            b"Content-Length: 4\r\n\r\n<a/>",
        )

    def test_close(self) -> None:
        """An end of the connection is announced, whoever wants it."""
        expected = (
            b"HTTP/1.1 503 Service Unavailable\r\nRVP-Notifications-Version: 0.2\r\nRetry-After: 5\r\n"
            b"Connection: close\r\nContent-Length: 0\r\n\r\n"
        )
        headers = ((b"Retry-After", b"5"),)
        self.assertEqual(render_reply(Reply(503, headers), close=True), expected)
        self.assertEqual(render_reply(Reply(503, headers, close=True), keep_alive=True), expected)

    def test_keep_alive(self) -> None:
        """A caller of HTTP/1.0 is told that the connection stays open."""
        self.assertIn(b"\r\nConnection: Keep-Alive\r\n", render_reply(Reply(200), keep_alive=True))

    def test_reasons(self) -> None:
        """The original's reasons, unless the reply has its own; a status without one still has a line."""
        self.assertTrue(render_reply(Reply(404)).startswith(b"HTTP/1.1 404 Not Found\r\n"))
        own = Reply(400, reason=b"Credentials not specified")
        self.assertTrue(render_reply(own).startswith(b"HTTP/1.1 400 Credentials not specified\r\n"))
        self.assertTrue(render_reply(Reply(418)).startswith(b"HTTP/1.1 418 \r\n"))
        for status in REASONS:
            self.assertEqual(Relayed(render_reply(Reply(status))).status, status)

    def test_refusal(self) -> None:
        """A refusal becomes a short page."""
        wire = render_reply(NotFound("no <such> node").reply())
        self.assertTrue(wire.endswith(b"\r\n\r\n<html><body>no &lt;such> node</body></html>"))

    def test_relayed(self) -> None:
        """A rendered answer passes unchanged, but for C{Connection} after its status line."""
        wire = render_reply(Reply(200, (), b"\r\n"))
        self.assertEqual(render_reply(Relayed(wire), version=b"1.0"), wire)
        closing = wire.replace(b"Successful\r\n", b"Successful\r\nConnection: close\r\n")
        self.assertEqual(render_reply(Relayed(wire), close=True), closing)
        self.assertEqual(render_reply(Relayed(wire, close=True)), closing)
        kept = render_reply(Relayed(wire), keep_alive=True)
        self.assertEqual(kept, closing.replace(b"close", b"Keep-Alive"))
        self.assertRaises(ValueError, render_reply, Relayed(b"nothing"), close=True)

    def test_splitting(self) -> None:
        """No part of an answer can begin another line, or set what the writer sets."""
        for reply in (
            Reply(200, ((b"Location", b"http://a\r\nX: y"),)),
            Reply(200, ((b"Location", b"http://a\nX: y"),)),
            Reply(200, ((b"Location", b"http://a\rX: y"),)),
            Reply(200, ((b"Location", b"http://a\x00"),)),
            Reply(200, ((b"X: y\r\nZ", b"a"),)),
            Reply(200, ((b"X y", b"a"),)),
            Reply(200, ((b"", b"a"),)),
            Reply(200, ((b"Content-Length", b"5"),)),
            Reply(200, ((b"connection", b"close"),)),
            Reply(200, ((b"Transfer-Encoding", b"chunked"),)),
            Reply(400, reason=b"a\r\nb"),
            Reply(99),
            Reply(1000),
        ):
            self.assertRaises(ValueError, render_reply, reply)
        self.assertRaises(ValueError, render_reply, Reply(200), version=b"0.2\r\nX: y")
        self.assertRaises(ValueError, render_reply, Reply(200, ((b"A", b"\r"), (b"B", b"\n"))))

    @examples
    @given(st.sampled_from([200, 207, 302, 401, 404, 503]), _fields, st.binary(max_size=50), st.booleans())
    def test_round_trip(
        self, status: int, fields: list[tuple[bytes, bytes]], body: bytes, close: bool
    ) -> None:
        """The reader of responses reads what was written."""
        response = ResponseReader().feed(render_reply(Reply(status, tuple(fields), body), close=close))
        assert response is not None
        self.assertEqual((response.status, response.body), (status, body))
        self.assertEqual(response.reusable, not close)
        own = {b"rvp-notifications-version", b"content-length", b"connection"}
        read = {name: value for name, value in response.headers.items() if name not in own}
        self.assertEqual(read, {name.lower(): value for name, value in fields})


class RenderRequestTests(SynchronousTestCase):
    """A request begins with its host and ends its head with the length."""

    def test_order(self) -> None:
        """Host, version, the given fields in order, length, body."""
        headers = ((b"RVP-Hop-Count", b"1"), (b"Content-Type", b"text/xml"))
        wire = render_request(b"NOTIFY", b"/", b"192.0.2.77:3155", headers, b"<a/>")
        self.assertEqual(
            wire,
            b"NOTIFY / HTTP/1.1\r\nHost: 192.0.2.77:3155\r\nRVP-Notifications-Version: 0.2\r\n"
            b"RVP-Hop-Count: 1\r\nContent-Type: text/xml\r\nContent-Length: 4\r\n\r\n<a/>",
        )
        self.assertEqual(render_head(b"NOTIFY", b"/", b"192.0.2.77:3155", headers, b"<a/>") + b"<a/>", wire)

    def test_empty_body(self) -> None:
        """A request without a body says so."""
        wire = render_request(b"PROPFIND", b"/a", b"a", iter([(b"Depth", b"0")]))
        self.assertTrue(wire.endswith(b"\r\nDepth: 0\r\nContent-Length: 0\r\n\r\n"))

    def test_injection(self) -> None:
        """No part of a request can break out of its place."""
        bad = (b"", b"a b", b"a\rb", b"a\nb", b"a\r\nX: y", b"a\x00b", b"a\tb", b"\xe4")
        for part in bad:
            self.assertRaises(ValueError, render_head, part, b"/", b"a")
            self.assertRaises(ValueError, render_head, b"GET", part, b"a")
            self.assertRaises(ValueError, render_head, b"GET", b"/", part)
            self.assertRaises(ValueError, render_head, b"GET", b"/", b"a", [(part, b"x")])
        for part in (b"a\rb", b"a\nb", b"a\r\nX: y", b"a\x00b", b"a\x7fb"):
            self.assertRaises(ValueError, render_head, b"GET", b"/", b"a", [(b"X", part)])
        for name in (b"Host", b"content-length", b"Transfer-Encoding", b"RVP-Notifications-Version"):
            self.assertRaises(ValueError, render_head, b"GET", b"/", b"a", [(name, b"1")])

    @examples
    @given(
        st.sampled_from((*METHODS, b"X-Y")),
        st.from_regex(rb"/[!-~]{0,30}", fullmatch=True),
        st.sampled_from((b"a", b"im.fabrik.example:8080", b"[::1]:80", b"192.0.2.77")),
        _fields,
        st.binary(max_size=50),
    )
    def test_round_trip(
        self, method: bytes, target: bytes, host: bytes, fields: list[tuple[bytes, bytes]], body: bytes
    ) -> None:
        """The strict reader reads what was written, and finds the next request after it."""
        wire = render_request(method, target, host, fields, body)
        reader = RequestReader(Limits())
        calls = reader.feed(wire + wire)
        self.assertIsNone(reader.refusal)
        self.assertEqual(len(calls), 2)
        for call in calls:
            self.assertEqual((call.method, call.target, call.body), (method, target, body))
            self.assertEqual(call.headers[b"host"], host)
            for name, value in fields:
                self.assertEqual(call.headers[name.lower()], value)

    @examples
    @given(st.binary(max_size=6), st.binary(max_size=6), st.binary(max_size=6), st.binary(max_size=6))
    def test_any_parts(self, target: bytes, host: bytes, name: bytes, value: bytes) -> None:
        """Whatever the parts are, they are refused or make exactly one request."""
        try:
            wire = render_request(b"NOTIFY", target, host, [(name, value)], b"body")
        except ValueError:
            return
        reader = RequestReader(Limits())
        calls = reader.feed(wire)
        self.assertEqual(len(calls), 0 if reader.refusal else 1)

    def test_field(self) -> None:
        """One field is the line that a whole head has of it, and as strict."""
        line = render_field(b"RVP-From-Principal", "http://im.fabrik.example/ü")
        self.assertIn(b"\r\n" + line, render_head(b"NOTIFY", b"/", b"x", [tuple(line.strip().split(b": "))]))
        for name, value in (
            (b"RVP-From-Principal", "a\r\nHost: b"),
            (b"RVP-From-Principal", "a\n"),
            (b"Host", "b"),
            (b"a b", "c"),
        ):
            for _ in range(2):
                self.assertRaises(ValueError, render_field, name, value)
