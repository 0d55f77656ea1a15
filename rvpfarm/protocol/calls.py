"""What is asked and what is answered: calls, replies and the kinds of refusal.

Wire data is C{bytes} here; C{rvpfarm.protocol.headers} and its neighbours make values of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rvpfarm.protocol.streams import BodyStream

#: The reason phrase of each status, as the original server wrote it (RVP 8; protocol notes 2.5).
REASONS: Mapping[int, bytes] = MappingProxyType(
    {
        101: b"Switching Protocols",
        200: b"Successful",
        207: b"Multi-Status",
        302: b"Object moved",
        400: b"Bad Request",
        401: b"Access Denied",
        403: b"Forbidden",
        404: b"Not Found",
        405: b"Method not allowed",
        408: b"Request Timeout",
        409: b"Conflict",
        412: b"Precondition Failed",
        413: b"Request Entity Too Large",
        414: b"Request-URI Too Long",
        415: b"Unsupported Media Type",
        424: b"Failed Dependency",
        431: b"Request Header Fields Too Large",
        500: b"Internal Server Error",
        501: b"Not Implemented",
        502: b"Bad Gateway",
        503: b"Service Unavailable",
        504: b"Gateway Timeout",
        505: b"HTTP Version Not Supported",
    }
)

#: The methods that a node understands, in the order an C{Allow} header lists them.
METHODS = (b"SUBSCRIBE", b"UNSUBSCRIBE", b"SUBSCRIPTIONS", b"NOTIFY", b"PROPFIND", b"PROPPATCH", b"ACL")


#: The ways to sign in, as the policy C{schemes} names them; their order numbers the bits of L{Call.withheld}.
SIGN_IN_SCHEMES = ("negotiate", "ntlm", "digest-md5", "digest-sha-256", "basic")


def withhold(offered: Iterable[str]) -> int:
    """The bits of L{Call.withheld} for a listener that offers these schemes and no others."""
    return sum(1 << bit for bit, scheme in enumerate(SIGN_IN_SCHEMES) if scheme not in set(offered))


#: The bits of the schemes that prove who is at the other end of a connection, and not who makes each call.
CONNECTION_BOUND = withhold(("digest-md5", "digest-sha-256", "basic"))

#: The bits of the schemes that carry the password itself, and so are for encrypted connections only.
IN_CLEAR = 1 << SIGN_IN_SCHEMES.index("basic")


# Call and Reply are made once per request on the hot path: a frozen dataclass costs four times as much.
@dataclass(slots=True, eq=False)
class Call:
    """One request: its head was judged by the strict reader, and its body is complete or in L{stream}.

    @ivar method: as received, upper case by RFC 9110 (methods are case-sensitive).
    @ivar target: the request target as received: a path, or an absolute C{http} URL.
    @ivar headers: field values by lower-cased field name; a repeated field that may be
        repeated is joined with C{", "}.
    @ivar body: the body with any transfer coding removed.
    @ivar minor: the minor HTTP version, 0 or 1.
    @ivar head: request line and headers as received, from the first byte to the empty line and
        including it: what a router hands on.
    @ivar peer: the address of the caller (no port), as the edge of the farm saw it or a proxy that it
        believes; empty when it is not known.
    @ivar connection: names the caller's connection throughout the farm; NTLM is bound to it.
    @ivar via: the farm member that handed the call on over an authenticated link, or C{None} when
        the call came straight from its caller.
    @ivar withheld: the schemes that its listener does not offer, bit by bit in the order of
        L{SIGN_IN_SCHEMES}.
    @ivar vouched: a farm member itself makes this call, and answers for C{RVP-From-Principal}.
    @ivar stream: its body, if that is long and still arriving; C{body} is empty then.  Only who asks for
        that gets such calls.
    """

    method: bytes
    target: bytes
    headers: dict[bytes, bytes]
    body: bytes = b""
    minor: int = 1
    head: bytes = b""
    peer: str = ""
    connection: str = ""
    via: str | None = None
    vouched: bool = False
    withheld: int = 0
    stream: BodyStream | None = None


@dataclass(slots=True, eq=False)
class Reply:
    """One answer.  C{Content-Length}, C{RVP-Notifications-Version} and C{Connection} are the writer's.

    @ivar headers: further fields in the order in which they are to be sent; a name may repeat.
    @ivar close: the connection ends after this answer.
    """

    status: int
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    reason: bytes = b""
    close: bool = False


@dataclass(slots=True, eq=False)
class Relayed:
    """An answer that another farm member has already rendered: status line, headers and body.

    @ivar wire: the bytes of the whole response, without a C{Connection} header.
    @ivar close: the connection ends after this answer.
    """

    wire: bytes
    close: bool = False

    @property
    def status(self) -> int:
        """The status code, read from the status line."""
        return int(self.wire[9:12])


class Refusal(Exception):
    """A "no" that the caller earned.

    Raised in cores, caught in exactly one place, C{rvpfarm.web.connection}, which makes a L{Reply} of it.

    @ivar status: the status code it is answered with.
    """

    status = 400

    def __init__(
        self,
        text: str = "",
        *,
        reason: bytes = b"",
        headers: tuple[tuple[bytes, bytes], ...] = (),
        close: bool = False,
    ) -> None:
        """
        @param text: one sentence for whoever reads the log or the body of the answer.
        @param reason: the reason phrase, when it is not the usual one of the status.
        @param headers: sent with the answer.
        @param close: the connection cannot be used further.
        """
        super().__init__(text)
        self.text = text
        self.reason = reason
        self.headers = headers
        self.close = close

    def reply(self) -> Reply:
        """The answer that tells the caller so: at most a short C{text/html} body."""
        if not self.text:
            return Reply(self.status, self.headers, b"", self.reason, self.close)
        escaped = self.text.replace("&", "&amp;").replace("<", "&lt;").encode()
        headers = (*self.headers, (b"Content-Type", b"text/html"))
        return Reply(self.status, headers, b"<html><body>%s</body></html>" % escaped, self.reason, self.close)


class BadRequest(Refusal):
    """400: the request is malformed."""


class Unproven(Refusal):
    """401: prove who you are.  The challenges travel in L{Refusal.headers}, one line each."""

    status = 401


class Forbidden(Refusal):
    """403: known, and no."""

    status = 403


class NotFound(Refusal):
    """404: there is no such node, or no such domain here."""

    status = 404


class NotAllowed(Refusal):
    """405: COPY and MOVE."""

    status = 405


class TooSlow(Refusal):
    """408: the request did not arrive in time."""

    status = 408


class Precondition(Refusal):
    """412: a wrong depth, a stale subscription id, or a principal who cannot be reached."""

    status = 412


class TooLarge(Refusal):
    """413: the body is over the limit."""

    status = 413


class TargetTooLong(Refusal):
    """414: the request target is over the limit."""

    status = 414


class Unsupported(Refusal):
    """415: the body is not XML by its C{Content-Type}."""

    status = 415


class HeadTooLarge(Refusal):
    """431: the header block is over the limit."""

    status = 431


class Failed(Refusal):
    """500: a server fault, the hop limit, or a call-back that refused a message."""

    status = 500


class NotSupported(Refusal):
    """501: a method that RVP does not have."""

    status = 501


class Busy(Refusal):
    """503: over a limit, or the home cannot be reached; retry later."""

    status = 503

    def __init__(self, text: str = "", *, retry_after_seconds: int = 5, close: bool = False) -> None:
        """
        @param retry_after_seconds: when it is worth trying again.
        """
        super().__init__(text, headers=((b"Retry-After", b"%d" % retry_after_seconds),), close=close)


class TimedOut(Refusal):
    """504: the acknowledgement that was asked for did not arrive in time."""

    status = 504


class WrongVersion(Refusal):
    """505: neither HTTP/1.0 nor HTTP/1.1."""

    status = 505


class Unreachable(Exception):
    """Another machine failed us.

    Raised by shells that talk to other machines; whoever called them retries or answers 502, 503 or 504.

    @ivar maybe_done: the other side may have acted on what it was sent, so that a repetition could do
        it twice.
    @ivar echo: other calls waited for the same machine and fail for the same reason; for whoever counts
        failures, one of them is enough.
    """

    def __init__(self, text: str, *, maybe_done: bool = False, echo: bool = False) -> None:
        """
        @param text: what failed, naming the machine.
        """
        super().__init__(text)
        self.maybe_done = maybe_done
        self.echo = echo


class Untried(Unreachable):
    """It could not even be tried: this process has no descriptors or ports left.

    That tells nothing about the other machine.
    """


class Slow(Unreachable):
    """The other machine took the request and did not answer in time."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one request may be.  Sizes in octets, times in seconds.

    @ivar target: longest request target (414).
    @ivar head: largest request line and header block together (431).
    @ivar fields: most header fields (431).
    @ivar body: largest body (413).
    @ivar head_seconds: from the first byte of a request to the end of its head (408).
    @ivar body_seconds: from the end of the head to the end of the body (408).
    @ivar idle_seconds: how long a connection may rest between requests; at least 120 for old clients.
    @ivar pipelined: requests of one connection in work at once; further ones stay unread.
    @ivar connections: per listener.
    @ivar per_source: connections of a listener from one IPv4 address or IPv6 network.
    @ivar in_work: requests in work or waiting in the whole process (503, KB 318158).
    """

    target: int = 2048
    head: int = 16384
    fields: int = 100
    body: int = 262144
    head_seconds: float = 10.0
    body_seconds: float = 30.0
    idle_seconds: float = 180.0
    pipelined: int = 16
    connections: int = 20000
    per_source: int = 512
    in_work: int = 1024
