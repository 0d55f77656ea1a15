"""Requests: what is accepted, what is refused, and that segments never matter."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.protocol.calls import METHODS, Call, Limits, Refusal
from rvpfarm.web.chunks import EXTENSIONS_LIMIT, TRAILERS_LIMIT
from rvpfarm.web.reader import KEPT, KEPT_LENGTH, RequestReader, Stage, known_fields, parse_head

LIMITS = Limits()
SMALL = Limits(target=40, head=200, fields=5, body=64)

LOGIN = (
    b"SUBSCRIBE /instmsg/aliases/petra HTTP/1.1\r\n"
    b"Host: im.fabrik.example\r\n"
    b"RVP-Notifications-Version: 0.2\r\n"
    b"RVP-From-Principal: http://im.fabrik.example/instmsg/aliases/petra\r\n"
    b"Notification-Type: pragma/notify\r\n"
    b"Subscription-Lifetime: 14400\r\n"
    b"Call-Back: http://192.0.2.77:3155\r\n"
    b"Content-Length: 0\r\n\r\n"
)
NOTIFY = (
    b"NOTIFY /instmsg/aliases/petra HTTP/1.1\r\nHost: im.fabrik.example\r\n"
    b"Content-Type: text/xml\r\nContent-Length: 11\r\n\r\n<r:notify/>"
)
CHUNKED = (
    b"NOTIFY /instmsg/aliases/petra HTTP/1.1\r\nHost: im.fabrik.example\r\nTransfer-Encoding: chunked\r\n\r\n"
)

examples = settings(max_examples=150, deadline=None, database=None)


def read(wire: bytes, limits: Limits = LIMITS) -> tuple[list[Call], RequestReader]:
    """What a fresh reader makes of C{wire} in one piece."""
    reader = RequestReader(limits)
    return reader.feed(wire), reader


def seen(calls: list[Call]) -> list[tuple[object, ...]]:
    """Everything the reader says about some calls, comparable."""
    return [(call.method, call.target, call.headers, call.body, call.minor, call.head) for call in calls]


def feed_in_parts(reader: RequestReader, wire: bytes, cuts: list[int]) -> list[Call]:
    """Feed C{wire} cut at some offsets."""
    offsets = sorted({min(cut, len(wire)) for cut in cuts} | {0, len(wire)})
    calls = []
    for start, stop in pairwise(offsets):
        calls += reader.feed(wire[start:stop])
    return calls


class RequestReaderTests(SynchronousTestCase):
    """Usual requests, and the unusual ones that real clients send."""

    def test_login(self) -> None:
        """A login is one call: method, target, lower-cased field names, no body, the head as it came."""
        calls, reader = read(LOGIN)
        self.assertIsNone(reader.refusal)
        (call,) = calls
        self.assertEqual((call.method, call.target), (b"SUBSCRIBE", b"/instmsg/aliases/petra"))
        self.assertEqual(call.headers[b"call-back"], b"http://192.0.2.77:3155")
        self.assertEqual(call.headers[b"subscription-lifetime"], b"14400")
        self.assertEqual((call.body, call.minor, call.head), (b"", 1, LOGIN))
        self.assertEqual((call.peer, call.connection, call.via, call.vouched), ("", "", None, False))

    def test_lf_only(self) -> None:
        """Lines that end in LF alone mean the same (protocol notes 2.1, rule 1)."""
        wire = NOTIFY.replace(b"\r\n", b"\n")
        (call,), _ = read(wire)
        (usual,), _ = read(NOTIFY)
        self.assertEqual((call.headers, call.body), (usual.headers, usual.body))
        self.assertEqual(call.head + call.body, wire)

    def test_mixed_line_ends(self) -> None:
        """CR LF and LF may be mixed freely, up to the empty line."""
        for wire in (
            b"NOTIFY / HTTP/1.1\nHost: a\r\nContent-Length: 2\n\r\nhi",
            b"NOTIFY / HTTP/1.1\r\nHost: a\nContent-Length: 2\r\n\nhi",
            b"NOTIFY / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\n\nhi",
        ):
            (call,), reader = read(wire)
            self.assertEqual((call.headers[b"host"], call.body), (b"a", b"hi"))
            self.assertTrue(reader.eof())

    def test_the_earliest_empty_line_ends_the_head(self) -> None:
        """An LF-only request is not read on to the CR LF CR LF of the request that follows it."""
        calls, reader = read(LOGIN.replace(b"\r\n", b"\n") + LOGIN)
        self.assertEqual(len(calls), 2)
        self.assertIsNone(reader.refusal)

    def test_no_length_is_no_body(self) -> None:
        """Without Content-Length and Transfer-Encoding the body is empty (rule 2)."""
        calls, _ = read(b"UNSUBSCRIBE /a HTTP/1.1\r\nHost: a\r\n\r\n" + LOGIN)
        self.assertEqual([call.method for call in calls], [b"UNSUBSCRIBE", b"SUBSCRIBE"])

    def test_http_1_0(self) -> None:
        """HTTP/1.0 is served, also without Host (rule 6)."""
        (call,), _ = read(b"PROPFIND /a HTTP/1.0\r\nDepth: 0\r\n\r\n")
        self.assertEqual(call.minor, 0)

    def test_absolute_target(self) -> None:
        """An absolute target is kept as it came, and then HTTP/1.1 may do without Host."""
        target = b"http://im.fabrik.example/instmsg/aliases/petra"
        for head in (
            b"SUBSCRIBE %s HTTP/1.1\r\n\r\n",
            b"SUBSCRIBE %s HTTP/1.1\r\nHost: other.example\r\n\r\n",
        ):
            (call,), _ = read(head % target)
            self.assertEqual(call.target, target)
        (call,), _ = read(b"SUBSCRIBE HTTPS://[2001:db8::1]:8443/a HTTP/1.1\r\n\r\n")
        self.assertEqual(call.target, b"HTTPS://[2001:db8::1]:8443/a")

    def test_values(self) -> None:
        """White space around a value is dropped, what is inside is kept, octets above ASCII too."""
        (call,), _ = read(b"GET / HTTP/1.1\r\nHost:a\r\nX:  \t a  b\t\r\nY: \xc3\xa4\xff\r\nEmpty:\r\n\r\n")
        self.assertEqual(call.headers[b"x"], b"a  b")
        self.assertEqual(call.headers[b"y"], b"\xc3\xa4\xff")
        self.assertEqual(call.headers[b"empty"], b"")

    def test_repeated_fields_are_joined(self) -> None:
        """A field that may be repeated is one value, in order, whatever the spelling of its name."""
        (call,), _ = read(b"GET / HTTP/1.1\r\nHost: a\r\nAccept: x\r\nACCEPT: y, z\r\n\r\n")
        self.assertEqual(call.headers[b"accept"], b"x, y, z")

    def test_empty_lines_before_a_request(self) -> None:
        """One or two are skipped and are no part of the head; the connection counts as idle meanwhile."""
        for lines in (b"\r\n", b"\n", b"\r\n\r\n", b"\n\r\n"):
            reader = RequestReader(LIMITS)
            self.assertEqual(reader.feed(lines), [])
            self.assertIs(reader.stage, Stage.IDLE)
            (call,) = reader.feed(LOGIN)
            self.assertEqual(call.head, LOGIN)
            self.assertEqual(len(reader.feed(lines + LOGIN)), 1)

    def test_three_empty_lines(self) -> None:
        """A third one is refused, even when they come one by one."""
        reader = RequestReader(LIMITS)
        for _ in range(3):
            reader.feed(b"\r\n")
        assert reader.refusal is not None
        self.assertEqual(reader.refusal.status, 400)

    def test_chunked(self) -> None:
        """A chunked body arrives decoded; sizes are hexadecimal, extensions and trailers are dropped."""
        wire = CHUNKED + b'3\r\nabc\r\nA;name="v"\r\n0123456789\r\n00\r\nX-Sum: 1\r\n\r\n'
        calls, reader = read(wire + LOGIN)
        self.assertEqual([call.body for call in calls], [b"abc0123456789", b""])
        self.assertEqual(calls[0].head, CHUNKED)
        self.assertNotIn(b"x-sum", calls[0].headers)
        self.assertTrue(reader.eof())

    def test_chunked_without_body(self) -> None:
        """The last chunk may be the only one, and the name of the coding may be spelled in any case."""
        calls, reader = read(CHUNKED.replace(b"chunked", b"Chunked") + b"0\r\n\r\n")
        self.assertEqual([call.body for call in calls], [b""])
        self.assertTrue(reader.eof())

    def test_stages(self) -> None:
        """The stage follows the stream: idle, in the head, in the body, idle again."""
        reader = RequestReader(LIMITS)
        stages = [reader.stage]
        for part in (NOTIFY[:10], NOTIFY[10:-11], NOTIFY[-11:-1], NOTIFY[-1:]):
            reader.feed(part)
            stages.append(reader.stage)
        self.assertEqual(stages, [Stage.IDLE, Stage.HEAD, Stage.BODY, Stage.BODY, Stage.IDLE])

    def test_eof(self) -> None:
        """The end is clean between requests and nowhere else."""
        for cut in range(1, len(NOTIFY)):
            _, reader = read(NOTIFY[:cut])
            self.assertFalse(reader.eof())
        self.assertTrue(RequestReader(LIMITS).eof())
        self.assertTrue(read(NOTIFY)[1].eof())
        self.assertFalse(read(b"nonsense\r\n\r\n")[1].eof())

    def test_a_body_octet_by_octet(self) -> None:
        """The largest body may come one octet at a time; every octet is looked at a few times only."""
        reader, calls = RequestReader(LIMITS), []
        head = NOTIFY.replace(b"11\r\n\r\n<r:notify/>", b"%d\r\n\r\n" % LIMITS.body)
        for octet in head + b"x" * LIMITS.body:
            calls += reader.feed(bytes((octet,)))
        self.assertEqual([len(call.body) for call in calls], [LIMITS.body])


class ExpectationTests(SynchronousTestCase):
    """Who asks for C{100 Continue} before sending a body is waited for."""

    HEAD = b"NOTIFY / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\n"

    def test_waits(self) -> None:
        """The reader says so after the head, and no more when the body is there."""
        reader = RequestReader(LIMITS)
        self.assertEqual(reader.feed(self.HEAD), [])
        self.assertTrue(reader.wants_continue)
        self.assertEqual([call.body for call in reader.feed(b"hi")], [b"hi"])
        self.assertFalse(reader.wants_continue)

    def test_does_not_wait(self) -> None:
        """Nobody waits whose body is there, who has none, who speaks HTTP/1.0, or who is refused."""
        for wire in (
            self.HEAD + b"hi",
            self.HEAD.replace(b"Length: 2", b"Length: 0"),
            self.HEAD.replace(b"HTTP/1.1", b"HTTP/1.0"),
            self.HEAD.replace(b"Length: 2", b"Length: 999999"),
            self.HEAD.replace(b"100-Continue", b"200-ok"),
        ):
            self.assertFalse(read(wire)[1].wants_continue, wire)


class LimitTests(SynchronousTestCase):
    """Every size has a limit, found without taking in more than it."""

    def refused(self, wire: bytes, status: int, limits: Limits = LIMITS) -> None:
        """Assert that C{wire} is refused, and that the connection ends with the refusal."""
        calls, reader = read(wire, limits)
        self.assertEqual(calls, [])
        assert reader.refusal is not None, wire[:80]
        self.assertEqual(reader.refusal.status, status)
        self.assertTrue(reader.refusal.reply().close)
        self.assertEqual(reader.feed(LOGIN), [])

    def test_target(self) -> None:
        """A target over its limit is 414, whether or not the head ends."""
        self.refused(b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * 2048), 414)
        self.refused(b"GET /%s" % (b"a" * 20000), 414)
        self.refused(b"GET /%s HTTP/1.1\r\nX: %s" % (b"a" * 2048, b"x" * 20000), 414)
        calls, _ = read(b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * 2047))
        self.assertEqual(len(calls), 1)

    def test_head(self) -> None:
        """A head of exactly the limit passes, one octet more is 431; so is a head that never ends."""
        start = b"GET / HTTP/1.1\r\nHost: a\r\nX: "
        fill = b"x" * (LIMITS.head - len(start) - 4)
        self.assertEqual(len(read(start + fill + b"\r\n\r\n")[0]), 1)
        self.refused(start + fill + b"x\r\n\r\n", 431)
        self.refused(start + fill + b"xxxxxx", 431)
        lf = start.replace(b"\r\n", b"\n")
        fill = b"x" * (LIMITS.head - len(lf) - 2)
        self.assertEqual(len(read(lf + fill + b"\n\n")[0]), 1)
        self.refused(lf + fill + b"\n\r\n", 431)

    def test_fields(self) -> None:
        """One field more than allowed is 431."""
        start = b"GET / HTTP/1.1\r\nHost: a\r\n"
        self.assertEqual(len(read(start + b"X: 1\r\n" * 99 + b"\r\n")[0]), 1)
        self.refused(start + b"X: 1\r\n" * 100 + b"\r\n", 431)

    def test_body(self) -> None:
        """A length over the limit is 413 before any of the body is there, however large the number."""
        start = b"NOTIFY / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
        self.assertEqual(read(start % 262144)[1].stage, Stage.BODY)
        self.refused(start % 262145, 413)
        self.refused(start % (10**18 - 1), 413)

    def test_chunked_body(self) -> None:
        """So is the chunk that would take a body over the limit."""
        self.refused(CHUNKED + b"40001\r\n", 413)
        self.refused(CHUNKED + b"3FFFF\r\n" + b"x" * 0x3FFFF + b"\r\n2\r\n", 413)
        self.refused(CHUNKED + b"FFFFFFFF\r\n", 413)

    def test_chunk_extensions(self) -> None:
        """Extensions are short, each and together."""
        self.refused(CHUNKED + b"1;" + b"x" * 300, 400)
        self.refused(CHUNKED + (b"1;" + b"x" * 200 + b"\r\na\r\n") * (EXTENSIONS_LIMIT // 200 + 1), 400)

    def test_trailers(self) -> None:
        """Trailers are limited together, whether they are many or one that never ends."""
        self.refused(CHUNKED + b"0\r\n" + b"X: 1\r\n" * (TRAILERS_LIMIT // 6 + 1), 431)
        self.refused(CHUNKED + b"0\r\nX: " + b"x" * TRAILERS_LIMIT, 431)

    def test_version(self) -> None:
        """Another version of HTTP is 505; something that is no version is 400."""
        for version in (b"HTTP/2.0", b"HTTP/1.2", b"HTTP/0.9", b"HTTP/11.1", b"HTTP/1", b"HTTP/1.10"):
            self.refused(b"GET / %s\r\nHost: a\r\n\r\n" % version, 505)
        for version in (b"http/1.1", b"HTTX/1.1", b"1.1", b""):
            self.refused(b"GET / %s\r\nHost: a\r\n\r\n" % version, 400)

    def test_calls_before_a_refusal_count(self) -> None:
        """What came whole before the broken part is returned; what comes after it is not looked at."""
        calls, reader = read(LOGIN + NOTIFY + b"GET / HTTP/3.0\r\n\r\n" + LOGIN)
        self.assertEqual([call.method for call in calls], [b"SUBSCRIBE", b"NOTIFY"])
        assert reader.refusal is not None
        self.assertEqual(reader.refusal.status, 505)
        self.assertIsNone(reader.refusal.__traceback__)
        self.assertIs(reader.stage, Stage.IDLE)


class ParseHeadTests(SynchronousTestCase):
    """A head that came over a farm link is judged as one that came from a caller."""

    def test_same_call(self) -> None:
        """It gives what the reader gave, but the body."""
        for wire in (LOGIN, NOTIFY, NOTIFY.replace(b"\r\n", b"\n"), CHUNKED + b"1\r\na\r\n0\r\n\r\n"):
            (call,), _ = read(wire)
            again = parse_head(call.head)
            call.body = b""
            self.assertEqual(seen([again]), seen([call]))

    def test_framing_is_not_judged(self) -> None:
        """The fields that frame a body are plain fields here."""
        call = parse_head(
            b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: many\r\nTransfer-Encoding: x\r\n\r\n"
        )
        self.assertEqual(call.headers[b"content-length"], b"many")

    def test_refused(self) -> None:
        """What is no head, or more than one, is refused."""
        for head in (
            b"",
            b"\r\n\r\n",
            b"\n\n",
            LOGIN[:-1],
            LOGIN[:-2],
            LOGIN + b"x",
            LOGIN + LOGIN,
            LOGIN.replace(b"\r\n", b"\n") + LOGIN,
            LOGIN.replace(b"Host", b"Ho st"),
            LOGIN.replace(b"0.2", b"0\x00.2"),
        ):
            self.assertRaises(Refusal, parse_head, head)

    def test_limits(self) -> None:
        """The limits hold here too."""
        head = b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * 110)
        for limits, status in (
            (replace(LIMITS, target=50), 414),
            (replace(LIMITS, head=130), 431),
            (replace(LIMITS, fields=0), 431),
        ):
            refusal = self.assertRaises(Refusal, parse_head, head, limits)
            self.assertEqual(refusal.status, status)


_names = st.from_regex(rb"[A-Za-z!#$%&'*+.^_`|~-][A-Za-z0-9-]{0,12}", fullmatch=True).filter(
    lambda name: (
        not name.lower().startswith((b"content", b"transfer", b"host", b"rvp", b"call", b"sub", b"not"))
        and name.lower() not in (b"authorization", b"depth", b"expect")
    )
)
_values = st.from_regex(rb"([!-~\x80-\xff]([\t -~\x80-\xff]{0,20}[!-~\x80-\xff])?)?", fullmatch=True)
_targets = st.from_regex(rb"/[!-~]{0,30}", fullmatch=True)


@st.composite
def requests(draw: st.DrawFn) -> tuple[bytes, tuple[object, ...]]:
    """A valid request in one of many spellings, and what is to be read from it."""
    method, target = draw(st.sampled_from((*METHODS, b"GET", b"X-Y"))), draw(_targets)
    body = draw(st.binary(max_size=60))
    framing = draw(st.sampled_from(("none", "length", "chunks")))
    minor = 1 if framing == "chunks" else draw(st.integers(0, 1))
    fields = draw(st.lists(st.tuples(_names, _values), max_size=5, unique_by=lambda field: field[0].lower()))
    fields.insert(draw(st.integers(0, len(fields))), (b"Host", b"im.fabrik.example:8080"))
    if framing == "length":
        fields.append((b"content-Length", b"%d" % len(body)))
    elif framing == "chunks":
        fields.append((b"Transfer-encoding", b"chunked"))
    lines = [b"%s %s HTTP/1.%d" % (method, target, minor), *(b"%s:\t %s " % field for field in fields), b""]
    ends = st.just(b"\r\n") if framing == "chunks" else st.sampled_from((b"\r\n", b"\n"))
    head = b"".join(line + draw(ends) for line in lines)
    wire = draw(st.sampled_from((b"", b"\r\n", b"\n\n"))) + head
    if framing == "none":
        body = b""
    elif framing == "length":
        wire += body
    else:
        at = 0
        while at < len(body):
            part = body[at : at + draw(st.integers(1, 20))]
            wire += b"%x%s\r\n%s\r\n" % (len(part), draw(st.sampled_from((b"", b";a=b", b" ;q"))), part)
            at += len(part)
        wire += b"0\r\n%s\r\n" % draw(st.sampled_from((b"", b"X: y\r\n", b"X: y\r\nZ:\r\n")))
    return wire, (method, target, {name.lower(): value for name, value in fields}, body, minor, head)


_pieces = st.lists(
    st.one_of(
        st.binary(max_size=12),
        st.sampled_from(
            (
                b"\r\n",
                b"\n",
                b"\r\n\r\n",
                b"GET / HTTP/1.1\r\n",
                b"NOTIFY http://a/ HTTP/1.1\n",
                b"SUBSCRIBE /a HTTP/1.0\r\n",
                b"Host: a\r\n",
                b"Content-Length: 3\r\n",
                b"Content-Length: 70\n",
                b"Transfer-Encoding: chunked\r\n",
                b"Expect: 100-continue\r\n",
                b" folded\r\n",
                b"3\r\nabc\r\n",
                b"0\r\n\r\n",
                b"x" * 70,
                LOGIN[:60],
            )
        ),
    ),
    max_size=14,
).map(b"".join)
_cuts = st.lists(st.integers(0, 600), max_size=12)


class KnownLinesTests(SynchronousTestCase):
    """Lines that were read before are not read again, and that changes nothing."""

    #: What is unusual about it, so that the quick way must leave it to the careful one.
    UNUSUAL = (
        NOTIFY.replace(b": 11", b": 011"),
        NOTIFY.replace(b"Content-Length", b"content-length"),
        NOTIFY.replace(b"\r\n\r\n", b"\r\nContent-Length: 11\r\n\r\n"),
        NOTIFY.replace(b"\r\n\r\n", b"\r\nAccept: a\r\nAccept: b\r\n\r\n"),
        NOTIFY.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n"),
        NOTIFY.replace(b"\r\n\r\n", b"\r\nX: a\x00b\r\n\r\n"),
        NOTIFY.replace(b"\r\n\r\n", b"\r\nX: a\nb: c\r\n\r\n"),
        NOTIFY.replace(b"\r\n\r\n", b"\r\n folded\r\n\r\n"),
        NOTIFY.replace(b"Host: im", b"Host: im,"),
        NOTIFY.replace(b"Host", b"X-Host"),
        NOTIFY.replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"Host", b"X-Host"),
        NOTIFY.replace(b"\r\n", b"\n"),
        b"\r\n" + NOTIFY,
        NOTIFY + b"\r\n",
        NOTIFY + NOTIFY,
        NOTIFY[:-1],
        LOGIN.replace(b"Content-Length: 0\r\n", b""),
    )

    def test_whole(self) -> None:
        """A request that arrives whole is read as one that comes octet by octet, the second time too."""
        for wire in (NOTIFY, LOGIN, *self.UNUSUAL):
            slow = RequestReader(LIMITS)
            expected = seen([call for at in range(len(wire)) for call in slow.feed(wire[at : at + 1])])
            for _ in range(2):
                calls, reader = read(wire)
                self.assertEqual(seen(calls), expected, wire)
                self.assertEqual(reader.stage, slow.stage, wire)
                self.assertEqual(
                    reader.refusal and reader.refusal.status, slow.refusal and slow.refusal.status, wire
                )

    def test_apart(self) -> None:
        """Two calls share no fields: what is done to those of one is not seen in the other."""
        reader = RequestReader(LIMITS)
        (first,) = reader.feed(NOTIFY)
        first.headers[b"host"] = b"elsewhere"
        (second,) = reader.feed(NOTIFY)
        self.assertEqual(second.headers[b"host"], b"im.fabrik.example")

    def test_credentials(self) -> None:
        """What proves who somebody is is not kept, however it is spelled."""
        for name in (b"Authorization", b"AUTHORIZATION", b"authorization"):
            line = name + b": Basic cGV0cmE6c2VjcmV0"
            ((call,), _) = read(NOTIFY.replace(b"\r\n\r\n", b"\r\n" + line + b"\r\n\r\n"))
            self.assertIn(b"authorization", call.headers)
            self.assertNotIn(line, known_fields)

    def test_bounded(self) -> None:
        """However many different lines come, or how long, only so many are kept."""
        for number in range(KEPT + 10):
            read(NOTIFY.replace(b"\r\n\r\n", b"\r\nX: %d\r\n\r\n" % number))
        self.assertLessEqual(len(known_fields), KEPT)
        long = b"X: " + b"y" * KEPT_LENGTH
        read(NOTIFY.replace(b"\r\n\r\n", b"\r\n" + long + b"\r\n\r\n"))
        self.assertNotIn(long, known_fields)


class SegmentTests(SynchronousTestCase):
    """Where TCP cuts the stream makes no difference, and no stream is too strange."""

    @examples
    @given(st.lists(requests(), min_size=1, max_size=4), _cuts)
    def test_valid_streams(self, stream: list[tuple[bytes, tuple[object, ...]]], cuts: list[int]) -> None:
        """Pipelined valid requests are read as they were meant, however they are cut."""
        wire = b"".join(request for request, _ in stream)
        reader = RequestReader(LIMITS)
        calls = feed_in_parts(reader, wire, cuts)
        self.assertIsNone(reader.refusal)
        self.assertEqual(seen(calls), [expected for _, expected in stream])
        self.assertTrue(reader.eof())

    @examples
    @given(_pieces, _cuts)
    def test_any_stream(self, wire: bytes, cuts: list[int]) -> None:
        """Any octets give the same calls and the same refusal whole, cut, or one by one; none raises."""
        outcomes = []
        for offsets in ([], cuts, list(range(len(wire)))):
            reader = RequestReader(SMALL)
            calls = feed_in_parts(reader, wire, offsets)
            refusal = reader.refusal and (reader.refusal.status, reader.refusal.text, reader.refusal.close)
            outcomes.append((seen(calls), refusal, reader.stage, reader.wants_continue, reader.eof()))
        self.assertEqual(outcomes[0], outcomes[1])
        self.assertEqual(outcomes[0], outcomes[2])

    @examples
    @given(_pieces, st.integers(1, 50))
    def test_nothing_grows(self, piece: bytes, step: int) -> None:
        """A stream repeated without end becomes calls or is refused: it never just accumulates."""
        reader, waiting = RequestReader(SMALL), 0
        # a chunk of one octet takes up to 12 on the wire
        most = SMALL.head + 13 * SMALL.body + EXTENSIONS_LIMIT + TRAILERS_LIMIT + 64
        wire = piece * (2 * most // max(len(piece), 1) + 1) if piece else b""
        for start in range(0, min(len(wire), 3 * most), step):
            if reader.feed(wire[start : start + step]):
                waiting = 0
            if reader.refusal is not None:
                break
            waiting += step
            self.assertLessEqual(waiting, most + step)
