"""A carrier that keeps what is sent and answers as a test says, in place of connections to servers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet.defer import Deferred, fail, succeed

from rvpfarm.protocol.calls import Call, Limits, Unreachable
from rvpfarm.web.reader import RequestReader
from rvpfarm.web.responses import Response

Outcome = Response | Unreachable | Deferred[Response]


@dataclass(frozen=True, slots=True)
class Asked:
    """One request that was sent, and where to."""

    host: str
    port: int
    call: Call

    @property
    def line(self) -> str:
        """Method and target."""
        return f"{self.call.method.decode()} {self.call.target.decode()}"

    def header(self, name: str) -> str | None:
        """One of its headers."""
        value = self.call.headers.get(name.lower().encode())
        return None if value is None else value.decode()


def response(status: int, body: bytes = b"", challenges: tuple[bytes, ...] = (), **headers: str) -> Response:
    """An answer; underscores in the names of headers stand for hyphens."""
    fields = {name.replace("_", "-").lower().encode(): value.encode() for name, value in headers.items()}
    return Response(status, fields, challenges, body, True)


class ScriptedCarrier:
    """Asks C{answer} in place of any server.

    @ivar asked: every request, in order.
    """

    def __init__(self, answer: Callable[[Asked], Outcome]) -> None:
        self._answer = answer
        self.asked: list[Asked] = []

    def request(
        self, host: str, port: int, wire: bytes, *, answer_seconds: float = 10.0
    ) -> Deferred[Response]:
        """Take one request, which the strict reader must understand."""
        (call,) = RequestReader(Limits()).feed(wire)
        self.asked.append(Asked(host, port, call))
        outcome = self._answer(self.asked[-1])
        if isinstance(outcome, Unreachable):
            return fail(outcome)
        return outcome if isinstance(outcome, Deferred) else succeed(outcome)


def in_turn(*outcomes: Outcome) -> ScriptedCarrier:
    """A carrier with one outcome for each request."""
    left = list(outcomes)
    return ScriptedCarrier(lambda asked: left.pop(0))
