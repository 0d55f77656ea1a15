"""What makes the connections of a listener: their limits, their names, and their common end.

Each of them is a L{CallProtocol}, which see.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from os import urandom

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Factory

from rvpfarm.directory.model import Directory, Farm
from rvpfarm.protocol.calls import Call, Limits, Relayed, Reply
from rvpfarm.web.admission import Admission, Metrics
from rvpfarm.web.connection import LINGER_SECONDS, STALL_SECONDS, CallProtocol
from rvpfarm.web.deadline import Deadline
from rvpfarm.web.edge import Edge

__all__ = [
    "DRAIN_SECONDS",
    "LINGER_SECONDS",
    "STALL_SECONDS",
    "Admission",
    "Answer",
    "CallFactory",
    "CallProtocol",
]

Answer = Callable[[Call], "Reply | Relayed | Deferred[Reply | Relayed]"]

#: Daemons that stop give calls in work so long.
DRAIN_SECONDS = 20.0

#: Calls whose bodies were still arriving when they were begun, at any one time; those who are slow to send
#: them take nothing away from others.
LONG_LIMIT = 256


class CallFactory(Factory):
    """Makes the connections of a listener, or of several.

    @ivar edge: how many there may be, and which proxies are believed.
    @ivar connections: those that are open.
    @ivar draining: every answer is the last of its connection; see L{drain}.
    @ivar refusing: who connects is turned away.
    @ivar long: counts the calls whose bodies were still arriving when they were begun.
    """

    noisy = False

    def __init__(
        self,
        answer: Answer,
        *,
        clock: IReactorTime,
        limits: Limits,
        admission: Admission | None = None,
        metrics: Metrics | None = None,
        name: str = "",
        on_gone: Callable[[str], None] | None = None,
        withheld: int = 0,
        grace_seconds: float = 0.0,
        nonce: Callable[[int], bytes] = urandom,
        stream_over: int | None = None,
    ) -> None:
        """
        @param answer: told each call; cancelling what it returned means that the caller hung up.
        @param admission: shared by all listeners of a process.
        @param name: of this farm member; names of connections begin with it.
        @param on_gone: told the name of each connection that is closed.
        @param withheld: the schemes that are not offered here; see L{Call.withheld}.
        @param grace_seconds: how long a drain waits for the next request of idle connections.
        @param nonce: makes so many unpredictable octets.
        @param stream_over: calls with longer bodies are begun before their bodies have come; see
            L{Call.stream}.
        """
        self.stream_over, self.long = stream_over, Admission(LONG_LIMIT)
        self.withheld = withheld
        self.answer, self.clock, self.limits, self.metrics = answer, clock, limits, metrics
        self.on_gone = on_gone
        self.seconds = clock.seconds
        self.admission = Admission(limits.in_work) if admission is None else admission
        self.edge = Edge(limits)
        self.connections: set[CallProtocol] = set()
        self.turned_away: set[CallProtocol] = set()
        self.draining = self.refusing = False
        self._prefix = f"{name}/{nonce(4).hex()}/"
        self._numbers = count(1)
        self._drained: list[Deferred[None]] = []
        self._grace_seconds = grace_seconds
        self._grace = Deadline(clock, self._end_grace)
        self._patience = Deadline(clock, self.cut_off)

    def follow(self, directory: Directory) -> None:
        """Keep to the limits and to the list of proxies of C{directory}, from now on and as they change."""

        def changed(key: str | None) -> None:
            """The directory changed; C{key} is C{None} when that is more than an account."""
            if key is None:
                self._keep_to(directory.farm())

        directory.watch(changed)
        self._keep_to(directory.farm())

    def _keep_to(self, farm: Farm) -> None:
        self.admission.limit = farm.number("inbound-queue")
        if self.edge.update(farm):
            for connection in list(self.connections):
                connection.judge_anew()

    def buildProtocol(self, addr: IAddress | None) -> CallProtocol:  # type: ignore[override]  # its TypeVar is loose
        """A connection."""
        return CallProtocol(self)

    def name_connection(self) -> str:
        """A name that no other connection in the farm bears."""
        return f"{self._prefix}{next(self._numbers)}"

    def reject(self, reason: str) -> None:
        """Count load that is turned away."""
        if self.metrics is not None:
            self.metrics.rejected(reason)

    def forget(self, connection: CallProtocol) -> None:
        """C{connection} is gone."""
        self.connections.discard(connection)
        self.turned_away.discard(connection)
        if self.draining and not self.connections:
            self._finish_draining()

    def drain(self, seconds: float = DRAIN_SECONDS) -> Deferred[None]:
        """Answer what is in work, arriving, or arrives in the grace; then close, and turn away newcomers.

        Closing an idle connection races with the request that may be on its way to it, and the loser is a
        caller who cannot know whether that was heard (RFC 9112 9.6).  So an idle connection is given the
        grace: its next answer says C{Connection: close}, and only what stays idle is closed without a word.

        @param seconds: what is not finished then is cut off.
        @return: fires when no connection is left.
        """
        if not self.draining:
            self.draining = True
            now = self.seconds()
            self._patience.move(now + seconds)
            if self._grace_seconds > 0:
                self._grace.move(now + self._grace_seconds)
            else:
                self._end_grace()
        if not self.connections:
            self._finish_draining()
            return succeed(None)
        done: Deferred[None] = Deferred()
        self._drained.append(done)
        return done

    def cut_off(self) -> None:
        """Close every connection now, whatever is in work."""
        for connection in list(self.connections):
            connection.abort()

    def _end_grace(self) -> None:
        self.refusing = True
        for connection in list(self.connections):
            connection.drain()

    def _finish_draining(self) -> None:
        self.refusing = True
        self._grace.stop()
        self._patience.stop()
        for connection in list(self.turned_away):
            connection.abort()
        waiting, self._drained = self._drained, []
        for done in waiting:
            done.callback(None)
