"""Request smuggling: published ways of hiding one request in another, all refused."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.protocol.calls import Limits
from rvpfarm.web.reader import RequestReader

#: What a smuggler wants to be taken for a request of its own.
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"

#: Fields that make the length of a body a matter of opinion; each line ends in CR LF where it has none.
FIELDS = {
    "CL.TE": b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n",
    "TE.CL": b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
    "CL.TE with length 0": b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
    "TE.TE unknown coding": b"Transfer-Encoding: xchunked\r\n",
    "TE.TE two fields": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n",
    "TE.TE two fields, chunked last": b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n",
    "TE.TE chunked twice": b"Transfer-Encoding: chunked\r\nTransfer-encoding: chunked\r\n",
    "TE.TE list": b"Transfer-Encoding: chunked, identity\r\n",
    "TE.TE list, chunked last": b"Transfer-Encoding: identity, chunked\r\n",
    "TE.TE list of chunked": b"Transfer-Encoding: chunked, chunked\r\n",
    "TE.TE gzip": b"Transfer-Encoding: gzip, chunked\r\n",
    "TE.TE identity": b"Transfer-Encoding: identity\r\nContent-Length: 4\r\n",
    "TE.TE quoted": b'Transfer-Encoding: "chunked"\r\n',
    "TE.TE parameter": b"Transfer-Encoding: chunked;q=1\r\n",
    "TE.TE empty": b"Transfer-Encoding:\r\n",
    "TE.TE comma": b"Transfer-Encoding: ,chunked\r\n",
    "TE.TE space before the colon": b"Transfer-Encoding : chunked\r\n",
    "TE.TE tab before the colon": b"Transfer-Encoding\t: chunked\r\n",
    "TE.TE space before the name": b" Transfer-Encoding: chunked\r\n",
    "TE.TE vertical tab": b"Transfer-Encoding: \x0bchunked\r\n",
    "TE.TE form feed": b"Transfer-Encoding:\x0cchunked\r\n",
    "TE.TE NUL": b"Transfer-Encoding: chunked\x00\r\n",
    "TE.TE NUL in the name": b"Transfer-\x00Encoding: chunked\r\n",
    "TE.TE no-break space": b"Transfer-Encoding: \xa0chunked\r\n",
    "TE.TE delete": b"Transfer-Encoding: chunked\x7f\r\n",
    "TE.TE folded value": b"Transfer-Encoding:\r\n chunked\r\n",
    "TE.TE folded, tab": b"Transfer-Encoding: x\r\n\tchunked\r\n",
    "TE.TE folded into another field": b"X: y\r\n Transfer-Encoding: chunked\r\n",
    "TE.TE behind a bare LF": b"X: y\nTransfer-Encoding: chunked\r\n",
    "TE.TE ending in a bare LF": b"Transfer-Encoding: chunked\n",
    "TE.TE behind a bare CR": b"X: y\rTransfer-Encoding: chunked\r\n",
    "TE.TE bare CR in the value": b"Transfer-Encoding: chunked\r\r\n",
    "TE.TE bare CR in the name": b"Transfer\r-Encoding: chunked\r\n",
    "CL and CL": b"Content-Length: 5\r\nContent-Length: 6\r\n",
    "CL and the same CL": b"Content-Length: 5\r\nContent-Length: 5\r\n",
    "CL and CL in another case": b"Content-Length: 5\r\ncONTENT-lENGTH: 0\r\n",
    "CL list": b"Content-Length: 5, 5\r\n",
    "CL list without space": b"Content-Length: 5,5\r\n",
    "CL list of others": b"Content-Length: 5,6\r\n",
    "CL plus": b"Content-Length: +5\r\n",
    "CL minus": b"Content-Length: -5\r\n",
    "CL minus zero": b"Content-Length: -0\r\n",
    "CL hexadecimal": b"Content-Length: 0x5\r\n",
    "CL bare hexadecimal": b"Content-Length: 5a\r\n",
    "CL underscore": b"Content-Length: 5_0\r\n",
    "CL fraction": b"Content-Length: 5.0\r\n",
    "CL exponent": b"Content-Length: 5e0\r\n",
    "CL empty": b"Content-Length:\r\n",
    "CL spaces": b"Content-Length:   \r\n",
    "CL space inside": b"Content-Length: 5 0\r\n",
    "CL quoted": b'Content-Length: "5"\r\n',
    "CL parameter": b"Content-Length: 5;x\r\n",
    "CL full-width digit": "Content-Length: \uff15\r\n".encode(),
    "CL overflow": b"Content-Length: 18446744073709551621\r\n",
    "CL many zeros": b"Content-Length: 0000000000000000000000005\r\n",
    "CL space before the colon": b"Content-Length : 5\r\n",
    "CL vertical tab": b"Content-Length:\x0b5\r\n",
    "CL NUL": b"Content-Length: 5\x00\r\n",
    "CL bare CR": b"Content-Length: 5\r0\r\n",
    "CL bare CR at the end": b"Content-Length: 5\r\r\n",
    "CL folded": b"Content-Length:\r\n 5\r\n",
    "CL folded further": b"Content-Length: 5\r\n 0\r\n",
    "no name": b": 5\r\n",
    "no colon": b"Content-Length 5\r\n",
    "no colon, nothing known": b"whatever\r\n",
    "name with a slash": b"X/Y: 5\r\n",
    "name in parentheses": b"(X): 5\r\n",
    "name above ASCII": b"X\xc3\xa4: 5\r\n",
    "first field folded": b"\tX: y\r\n",
    "two hosts": b"Host: b\r\n",
    "two hosts, the same": b"host: a\r\n",
    "two principals": b"RVP-From-Principal: http://a/b\r\nRVP-From-Principal: http://a/c\r\n",
    "two hop counts": b"RVP-Hop-Count: 1\r\nrvp-hop-count: 1\r\n",
    "two authorizations": b"Authorization: x\r\nAuthorization: y\r\n",
    "two call-backs": b"Call-Back: http://a\r\nCall-Back: http://b\r\n",
}

#: Request lines (and hosts) that two readers understand differently.
HEADS = {
    "two spaces": b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
    "tab": b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "leading space": b" GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "trailing space": b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
    "space in the target": b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
    "no version": b"GET /\r\nHost: a\r\n\r\n",
    "no target": b"GET HTTP/1.1\r\nHost: a\r\n\r\n",
    "version twice": b"GET / HTTP/1.1 HTTP/1.1\r\nHost: a\r\n\r\n",
    "method no token": b"GE(T / HTTP/1.1\r\nHost: a\r\n\r\n",
    "method above ASCII": b"G\xc9T / HTTP/1.1\r\nHost: a\r\n\r\n",
    "target above ASCII": b"GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n",
    "target with a NUL": b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
    "bare CR after the method": b"GET\r / HTTP/1.1\r\nHost: a\r\n\r\n",
    "bare CR for a line end": b"GET / HTTP/1.1\rHost: a\r\n\r\n",
    "bare CR before the request": b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "empty host": b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
    "hosts in a list": b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
    "host with a path": b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "host with a user": b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
    "another scheme": b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "no authority": b"GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n",
    "authority form": b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
    "relative target": b"GET x/y HTTP/1.1\r\nHost: a\r\n\r\n",
    "a response": b"HTTP/1.1 200 OK\r\nHost: a\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "chunked in HTTP/1.0": b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked, LF only": b"GET / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\n0\r\n\r\n",
    "chunked, empty line LF": b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\n0\r\n\r\n",
    "three empty lines": b"\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
}

#: Chunked bodies that end here for one reader and there for another.
CHUNKS = {
    "size 0x": b"0x5\r\nabcde\r\n0\r\n\r\n",
    "size plus": b"+5\r\nabcde\r\n0\r\n\r\n",
    "size minus": b"-5\r\nabcde\r\n0\r\n\r\n",
    "size minus zero": b"-0\r\n\r\n",
    "size empty": b"\r\nabcde\r\n0\r\n\r\n",
    "size only an extension": b";x\r\nabcde\r\n0\r\n\r\n",
    "size no number": b"five\r\nabcde\r\n0\r\n\r\n",
    "size underscore": b"1_0\r\nabcdeabcdeabcdef\r\n0\r\n\r\n",
    "size quoted": b'"5"\r\nabcde\r\n0\r\n\r\n',
    "size with spaces after it": b"5  \r\nabcde\r\n0\r\n\r\n",
    "size with a space before it": b" 5\r\nabcde\r\n0\r\n\r\n",
    "size overflow": b"100000005\r\nabcde\r\n0\r\n\r\n",
    "size overflow of 64 bits": b"10000000000000005\r\nabcde\r\n0\r\n\r\n",
    "size with many zeros": b"0000000005\r\nabcde\r\n0\r\n\r\n",
    "size line in LF": b"5\nabcde\r\n0\r\n\r\n",
    "size line in CR": b"5\rabcde\r\n0\r\n\r\n",
    "size line in CR CR LF": b"5\r\r\nabcde\r\n0\r\n\r\n",
    "size with a NUL": b"5\x00\r\nabcde\r\n0\r\n\r\n",
    "extension with a bare LF": b"5;x\nabcde\r\n0\r\n\r\n",
    "extension with a bare CR": b"5;x\ry\r\nabcde\r\n0\r\n\r\n",
    "extension with a NUL": b"5;x\x00\r\nabcde\r\n0\r\n\r\n",
    "extension without a semicolon": b"5 x\r\nabcde\r\n0\r\n\r\n",
    "data too short": b"5\r\nabcd\r\n0\r\n\r\n",
    "data too long": b"5\r\nabcdefg\r\n0\r\n\r\n",
    "data ends in LF": b"5\r\nabcde\n0\r\n\r\n",
    "data ends in CR": b"5\r\nabcde\r0\r\n\r\n",
    "data ends in two other octets": b"5\r\nabcdeXX0\r\n\r\n",
    "last chunk in LF": b"0\n\n",
    "last chunk, trailers end in LF": b"0\r\n\n",
    "last chunk, then a request": b"0\r\n" + HIDDEN,
    "trailer without a colon": b"0\r\nwhatever\r\n\r\n",
    "trailer in LF": b"0\r\nX: y\n\r\n",
    "trailer with a bare CR": b"0\r\nX: y\rZ: z\r\n\r\n",
    "trailer folded": b"0\r\nX: y\r\n z\r\n\r\n",
    "trailer with a space before the colon": b"0\r\nX : y\r\n\r\n",
    "trailer with a length": b"0\r\nContent-Length: 50\r\n\r\n",
    "trailer with a coding": b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "trailer with a host": b"0\r\nHost: b\r\n\r\n",
}


class SmugglingTests(SynchronousTestCase):
    """What two readers could understand differently is refused, and nothing after it is a request."""

    def refused(self, name: str, wire: bytes) -> None:
        """Assert that C{wire} yields no call and ends the connection, whole or octet by octet."""
        for step in (len(wire), 1):
            reader, calls = RequestReader(Limits()), []
            for start in range(0, len(wire), step):
                calls += reader.feed(wire[start : start + step])
            calls += reader.feed(HIDDEN)
            self.assertEqual([call.target for call in calls], [], name)
            assert reader.refusal is not None, name
            self.assertIn(reader.refusal.status, (400, 505), name)
            self.assertTrue(reader.refusal.reply().close, name)
            self.assertFalse(reader.eof(), name)

    def test_fields(self) -> None:
        """Fields that leave the length of the body open are refused."""
        for name, fields in FIELDS.items():
            head = b"NOTIFY /a HTTP/1.1\r\nHost: a\r\n%s\r\n" % fields
            self.refused(name, head + b"0\r\n\r\n" + HIDDEN)
            self.refused(
                name, head.replace(b"Host: a\r\n", b"", 1).replace(b"\r\n\r\n", b"\r\nHost: a\r\n\r\n")
            )

    def test_heads(self) -> None:
        """Request lines that can be read in two ways are refused."""
        for name, head in HEADS.items():
            self.refused(name, head + HIDDEN)

    def test_chunks(self) -> None:
        """A chunked body is as RFC 9112 writes it, octet for octet, or it is refused."""
        head = b"NOTIFY /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        for name, body in CHUNKS.items():
            self.refused(name, head + body + HIDDEN)

    def test_a_body_is_never_a_request(self) -> None:
        """What lies inside a body stays there, and the request after it is found."""
        wire = b"NOTIFY /a HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN
        chunks = b"NOTIFY /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n"
        calls = RequestReader(Limits()).feed(wire + chunks % (len(HIDDEN), HIDDEN) + wire)
        self.assertEqual([call.target for call in calls], [b"/a"] * 3)
        self.assertEqual([call.body for call in calls], [HIDDEN] * 3)

    @settings(max_examples=200, deadline=None, database=None)
    @given(
        st.sampled_from((b"Content-Length", b"Transfer-Encoding")),
        st.binary(max_size=3),
        st.binary(max_size=3),
        st.sampled_from((b"5", b"chunked")),
        st.binary(max_size=3),
    )
    def test_disguises(self, name: bytes, before: bytes, after: bytes, value: bytes, end: bytes) -> None:
        """Octets put around a framing field next to C{Content-Length: 5} never make a second request.

        Either the whole is refused or the five octets, and no others, are the body.
        """
        line = name + before + b":" + after + value + end
        wire = b"NOTIFY /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n%s\r\n\r\n0\r\n\r\n" % line
        reader = RequestReader(Limits())
        calls = reader.feed(wire + HIDDEN)
        if reader.refusal is None and calls and b"\n\n" not in wire.replace(b"\r", b""):
            self.assertEqual([call.body for call in calls], [b"0\r\n\r\n", b""])
        elif calls:
            self.assertEqual(calls[0].target, b"/a")
        for call in calls:
            self.assertNotIn(b"transfer-encoding", call.headers)
