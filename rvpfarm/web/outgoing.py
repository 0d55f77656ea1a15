"""Calls to strangers: call-backs of clients, servers of other organisations.

Connections are kept and used again where the other side allows it, several to one destination when several
calls are under way to it.  One slow destination delays no other: each has a few connections and a short queue
of its own, and whatever cannot be sent or is not answered in time comes back as L{Unreachable} or L{Slow}.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf
from typing import Any
from typing import Protocol as Seam

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IAddress, IProtocol, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from rvpfarm.protocol.calls import Slow, Unreachable
from rvpfarm.web.deadline import Deadline
from rvpfarm.web.responses import Response, ResponseReader, usual_answer

#: Connections to one destination at a time.
DESTINATION_CONNECTIONS = 8

#: Calls that may wait for one of them.
DESTINATION_QUEUE = 64

#: How long closing connections are waited for when the service stops.
STOP_SECONDS = 2.0

Done = Callable[["Response | Unreachable"], None]


class Metrics(Seam):
    """What is counted here; see C{rvpfarm.observe.metrics}."""

    def outbound(self, verb: bytes, status: int, peer: str) -> None:
        """A request ended; C{status} is 0 if there was no answer."""


def _nothing() -> None:
    """There is nothing to stop."""


class _Sending:
    """One call on its way.

    @ivar stop: makes an end of it wherever it is now, without a word to whoever sent it.
    @ivar deadline: for finding a connection; the connection has one for the answer.
    @ivar repeated: it met a kept connection that proved closed; that happens once.
    """

    __slots__ = ("_done", "_outgoing", "answer_seconds", "deadline", "repeated", "stop", "wire")
    _log = Logger()

    def __init__(self, outgoing: Outgoing, wire: bytes, done: Done, answer_seconds: float) -> None:
        self._outgoing = outgoing
        self._done: Done | None = done
        self.wire = wire
        self.answer_seconds = answer_seconds
        self.deadline: Deadline | None = None
        self.repeated = False
        self.stop: Callable[[], None] = _nothing

    def settle(self, result: Response | Unreachable) -> None:
        """Tell how it ended, unless that was told or nobody wants to know."""
        done, self._done = self._done, None
        self.stop = _nothing
        if self.deadline is not None:
            self.wait(None)
        if done is not None:
            self._outgoing.report(self.wire, result)
            self.wire = b""
            try:
                done(result)
            except Exception:  # others wait for the end of their calls
                self._log.failure("the end of a call could not be told")

    def cancel(self) -> None:
        """Nobody wants to know any more."""
        self._done = None
        self.wait(None)
        stop, self.stop = self.stop, _nothing
        stop()

    def wait(self, deadline: Deadline | None) -> None:
        """What is waited for now has C{deadline}, instead of any before."""
        if self.deadline is not None:
            self.deadline.stop()
        self.deadline = deadline


class _Destination:
    """Everything that goes on with one host and port.

    @ivar idle: connections without work, the one used last at the end.
    @ivar active: how many connections have work or are being made.
    @ivar connecting: how many of them are being made.
    @ivar queue: calls for which there is no connection yet.
    """

    __slots__ = ("active", "connecting", "host", "idle", "name", "port", "queue")

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.idle: list[_Connection] = []
        self.active = self.connecting = 0
        self.queue: deque[_Sending] = deque()


class _Connection(Protocol):
    """One connection: a call, its answer, and then the next call."""

    transport: Any  # no one interface has all that both kinds of transports can do

    def __init__(self, outgoing: Outgoing, destination: _Destination, first: _Sending) -> None:
        self.destination = destination
        self._outgoing = outgoing
        self._reader = ResponseReader()
        self._sending: _Sending | None = first
        self._heard = False  # something of the answer has arrived
        self._kept = False  # it has carried a call before
        self.dismissed = False  # it will carry no other
        self._deadline = Deadline(outgoing.clock, self._overdue)  # of the answer

    def connectionMade(self) -> None:
        """Send the call that the connection was made for."""
        self._outgoing.opened(self)
        sending, self._sending = self._sending, None
        assert sending is not None
        self.begin(sending)

    def begin(self, sending: _Sending) -> None:
        """Carry C{sending}."""
        if sending.deadline is not None:
            sending.wait(None)
        sending.stop = self.abandon
        self._sending = sending
        self._heard = False
        self._deadline.move(self._outgoing.clock.seconds() + sending.answer_seconds)
        self.transport.write(sending.wire)

    def dataReceived(self, data: bytes) -> None:
        """Read what may be the answer."""
        sending = self._sending
        if sending is None:  # nobody asked for it: whatever it is, no later call is to take it for its answer
            self.abandon()
            return
        response = None if self._heard else usual_answer(data)
        if response is None:
            self._heard = True
            try:
                response = self._reader.feed(data)
            except ValueError as problem:
                self._sending = None
                self.abandon()
                sending.settle(
                    Unreachable(f"{self.destination.name} answered no HTTP: {problem}", maybe_done=True)
                )
                return
            if response is None:
                return
        self._sending = None
        self._deadline.until = inf
        if response.reusable:
            self._kept = True
            self._outgoing.free(self)
        else:
            self._outgoing.dismiss(self)
            self.transport.loseConnection()
        sending.settle(response)

    def abandon(self) -> None:
        """Close now; whoever has a call on it has been told, or does not want to be."""
        self._sending = None
        self._outgoing.dismiss(self)
        self.transport.abortConnection()

    def close(self) -> None:
        """Close; a call on it comes back as L{Unreachable}."""
        sending, self._sending = self._sending, None
        self._outgoing.dismiss(self)
        if sending is None:
            self.transport.loseConnection()
        else:
            self.transport.abortConnection()
            sending.settle(Unreachable("this server is about to stop", maybe_done=True))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The other side closed, or this one did."""
        self._deadline.stop()
        sending, self._sending = self._sending, None
        self._outgoing.dismiss(self)
        self._outgoing.closed(self)
        if sending is None:
            return
        response = self._reader.eof() if self._heard else None
        if response is not None:
            sending.settle(response)
        elif self._kept and not self._heard and not sending.repeated:
            sending.repeated = True
            self._outgoing.repeat(self.destination, sending)
        else:
            sending.settle(Unreachable(f"{self.destination.name} broke off", maybe_done=True))

    def _overdue(self) -> None:
        sending = self._sending
        if sending is not None:
            self.abandon()
            sending.settle(Slow(f"{self.destination.name} did not answer in time", maybe_done=True))


class _Attempt(Factory):
    """Makes the connection of one attempt."""

    noisy = False

    def __init__(self, outgoing: Outgoing, destination: _Destination, sending: _Sending) -> None:
        self._outgoing, self._destination, self._sending = outgoing, destination, sending
        self.connected = False

    def buildProtocol(self, addr: IAddress | None) -> _Connection:
        """The connection."""
        self.connected = True
        return _Connection(self._outgoing, self._destination, self._sending)


class Outgoing(Service):
    """Sends calls and brings their answers.

    @ivar clock: tells the time.
    """

    def __init__(
        self,
        clock: IReactorTime,
        connect: Callable[[str, int], IStreamClientEndpoint],
        *,
        connect_seconds: float = 5.0,
        idle_seconds: float = 60.0,
        connections: int = 20000,
        metrics: Metrics | None = None,
        peer: str = "client",
    ) -> None:
        """
        @param connect: makes an endpoint of a host and a port.
        @param connect_seconds: a connection is made in this time or not at all.
        @param idle_seconds: a connection without work is kept so long.
        @param connections: in all.
        @param peer: what the destinations are, C{"client"} or C{"server"}; a label of the metrics.
        """
        self.clock = clock
        self._connect_to = connect
        self._connect_seconds, self._idle_seconds = connect_seconds, idle_seconds
        self._limit, self._metrics, self._peer = connections, metrics, peer
        self._destinations: dict[tuple[str, int], _Destination] = {}
        self._open: set[_Connection] = set()
        self._idle: dict[_Connection, float] = {}  # since when; the one idle longest comes first
        self._rest = Deadline(clock, self._close_idle)  # of that one
        self._attempts: set[_Sending] = set()  # for which a connection is being made
        self._stopping = False
        self._stopped: Deferred[None] | None = None
        self._patience = Deadline(clock, self._give_up)

    @property
    def connected(self) -> int:
        """How many connections are open."""
        return len(self._open)

    @property
    def waiting(self) -> int:
        """How many calls wait for a connection."""
        return len(self._attempts) + sum(len(one.queue) for one in self._destinations.values())

    def send(
        self,
        host: str,
        port: int,
        wire: bytes,
        done: Done,
        *,
        answer_seconds: float = 10.0,
    ) -> Callable[[], None]:
        """Send a request.

        @param wire: the whole of it.
        @param done: called exactly once, after this method has returned, with the response, or with
            L{Slow} when there was none in time, or with L{Unreachable} when it could not be sent or the
            connection broke.
        @param answer_seconds: from when it is sent until the answer is whole.
        @return: cancels the call; C{done} is not called then.
        """
        sending = _Sending(self, wire, done, answer_seconds)
        destination = self._destinations.get((host, port))
        if destination is None:
            destination = _Destination(host, port)
        if self._stopping:
            self._refuse(sending, "this server is about to stop")
        elif destination.idle:
            connection = destination.idle.pop()
            del self._idle[connection]
            destination.active += 1
            connection.begin(sending)
        elif destination.active < DESTINATION_CONNECTIONS and self._has_room():
            self._destinations[host, port] = destination
            self._connect(destination, sending)
        elif destination.active:
            self._enqueue(destination, sending)
        else:
            self._refuse(sending, "too many outgoing connections")
        return sending.cancel

    def request(
        self, host: str, port: int, wire: bytes, *, answer_seconds: float = 10.0
    ) -> Deferred[Response]:
        """L{send}, for those who wait.

        @return: fires with the response, or fails with L{Unreachable}.
        """
        cancel = _nothing
        answer: Deferred[Response] = Deferred(lambda _: cancel())

        def done(result: Response | Unreachable) -> None:
            if isinstance(result, Unreachable):
                answer.errback(result)
            else:
                answer.callback(result)

        cancel = self.send(host, port, wire, done, answer_seconds=answer_seconds)
        return answer

    def startService(self) -> None:
        """Take calls (which a new one does already)."""
        super().startService()
        self._stopping = False

    def stopService(self) -> Deferred[None]:
        """Close every connection; what is under way comes back as L{Unreachable}.

        @return: fires when all are closed.
        """
        super().stopService()
        self._stopping = True
        for destination in list(self._destinations.values()):
            self._fail_queue(destination, "this server is about to stop")
        for sending in list(self._attempts):
            stop = sending.stop
            sending.settle(Unreachable("this server is about to stop"))
            stop()
        for connection in list(self._open):
            connection.close()
        if not self._open:
            return succeed(None)
        if self._stopped is None:
            self._stopped = Deferred()
            self._patience.move(self.clock.seconds() + STOP_SECONDS)
        return self._stopped

    def _give_up(self) -> None:
        for connection in list(self._open):
            connection.abandon()
        self._open.clear()
        self._finish()

    def _finish(self) -> None:
        self._patience.stop()
        stopped, self._stopped = self._stopped, None
        if stopped is not None:
            stopped.callback(None)

    # what connections tell

    def opened(self, connection: _Connection) -> None:
        """C{connection} is made."""
        self._open.add(connection)

    def closed(self, connection: _Connection) -> None:
        """C{connection} is gone."""
        self._open.discard(connection)
        if not self._open:
            self._rest.stop()
            self._finish()

    def free(self, connection: _Connection) -> None:
        """C{connection} can carry another call."""
        destination = connection.destination
        if destination.queue:
            connection.begin(destination.queue.popleft())
        elif self._stopping:
            connection.close()
        else:
            destination.active -= 1
            destination.idle.append(connection)
            now = self._idle[connection] = self.clock.seconds()
            if len(self._idle) == 1:
                self._rest.move(now + self._idle_seconds)

    def dismiss(self, connection: _Connection) -> None:
        """C{connection} carries no further call.  It may be told again."""
        if connection.dismissed:
            return
        connection.dismissed = True
        destination = connection.destination
        if connection in self._idle:
            del self._idle[connection]
            destination.idle.remove(connection)
        else:
            destination.active -= 1
        self._tidy(destination)

    def repeat(self, destination: _Destination, sending: _Sending) -> None:
        """C{sending} met a closed connection: it gets a fresh one."""
        if self._stopping:
            sending.settle(Unreachable("this server is about to stop", maybe_done=True))
        else:
            self._destinations[destination.host, destination.port] = destination
            self._connect(destination, sending)

    def report(self, wire: bytes, result: Response | Unreachable) -> None:
        """Count how a call ended."""
        if self._metrics is not None:
            status = result.status if isinstance(result, Response) else 0
            self._metrics.outbound(wire[: wire.find(b" ")], status, self._peer)

    # connections for calls

    def _close_idle(self) -> None:
        """Close what has been idle for long enough."""
        before, due = self.clock.seconds() - self._idle_seconds, []
        for connection, since in self._idle.items():
            if since > before:
                self._rest.move(since + self._idle_seconds)
                break
            due.append(connection)
        for connection in due:
            connection.close()

    def _has_room(self) -> bool:
        """May a connection be made?  One that is idle elsewhere makes way for it."""
        if len(self._open) + len(self._attempts) < self._limit:
            return True
        if not self._idle:
            return False
        next(iter(self._idle)).close()
        return True

    def _connect(self, destination: _Destination, sending: _Sending) -> None:
        destination.active += 1
        destination.connecting += 1
        self._attempts.add(sending)
        factory = _Attempt(self, destination, sending)
        attempt = self._connect_to(destination.host, destination.port).connect(factory)
        begun = late = False

        def ended() -> None:
            destination.connecting -= 1
            self._attempts.discard(sending)

        def expire() -> None:
            nonlocal late
            late = True
            attempt.cancel()

        def failed(failure: Failure) -> None:
            ended()
            if factory.connected:
                return  # the connection itself tells
            destination.active -= 1
            why = "no connection in time" if late else failure.getErrorMessage()
            if destination.active == destination.connecting and (late or not failure.check(CancelledError)):
                self._fail_queue(destination, why)  # none of its calls has a connection to hope for
            self._tidy(destination)
            why = f"{destination.name} cannot be reached: {why}"
            if begun:
                sending.settle(Unreachable(why))
            else:
                self._refuse(sending, why)

        def made(protocol: IProtocol) -> None:
            ended()

        if not factory.connected:  # else the connection has begun with it
            sending.stop = attempt.cancel
            deadline = Deadline(self.clock, expire)
            sending.wait(deadline)
            deadline.move(self.clock.seconds() + self._connect_seconds)
        attempt.addCallbacks(made, failed)
        begun = True

    def _enqueue(self, destination: _Destination, sending: _Sending) -> None:
        if len(destination.queue) >= DESTINATION_QUEUE:
            self._refuse(sending, f"the queue for {destination.name} is full")
            return

        def leave() -> None:
            destination.queue.remove(sending)

        def expire() -> None:
            leave()
            sending.settle(Unreachable(f"{destination.name} had no connection free in time"))

        destination.queue.append(sending)
        sending.stop = leave
        deadline = Deadline(self.clock, expire)
        sending.wait(deadline)
        deadline.move(self.clock.seconds() + self._connect_seconds + sending.answer_seconds)

    def _refuse(self, sending: _Sending, why: str) -> None:
        """Say no, but not before L{send} has returned."""
        timer = self.clock.callLater(0, sending.settle, Unreachable(why))

        def stop() -> None:
            if timer.active():
                timer.cancel()

        sending.stop = stop

    def _fail_queue(self, destination: _Destination, why: str) -> None:
        queue, destination.queue = destination.queue, deque()
        for sending in queue:
            sending.settle(Unreachable(f"{destination.name} cannot be reached: {why}"))

    def _tidy(self, destination: _Destination) -> None:
        """A connection of C{destination} went: make another for whoever waits, or forget it all."""
        while destination.queue and destination.active < DESTINATION_CONNECTIONS and not self._stopping:
            if not self._has_room():
                break
            self._connect(destination, destination.queue.popleft())
        if not (destination.active or destination.idle or destination.queue):
            self._destinations.pop((destination.host, destination.port), None)
