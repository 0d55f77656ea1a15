"""A network that takes time and fails the way real ones do: late, cut, half open, or not at all for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import (
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
)
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.simulation.timeline import Process, Timeline
from tests.support.network import HIGH_WATER, Pipe

#: What the kernel takes from a process at once, whether or not the other side reads.
SEND_BUFFER = 262144
#: How long a segment is on its way.
LATENCY = (0.0002, 0.004)


class Host:
    """A machine with one address.

    @ivar up: it has power.
    @ivar deaf: its programs do not read what arrives, though its kernel takes it.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.up = True
        self.deaf = False


class End(Pipe):
    """One end of a connection, as the process at that end sees it.

    Each end sends a stream to the other: octets, then perhaps the end of the stream.  What the process has
    closed the kernel still delivers, and a reset is a message like any other: it can get lost.

    @ivar number: of the connection; the same at both ends.
    @ivar gone: neither process nor kernel knows this end any more: what arrives is answered with a reset.
    @ivar written: how many octets were written here.
    @ivar taken: how many of them the process at the other end has taken.
    """

    other: End

    def __init__(
        self,
        internet: Internet,
        process: Process,
        here: IPv4Address,
        there: IPv4Address,
        number: int,
        random: Random,
    ) -> None:
        super().__init__(here, there)
        self.process = process
        self.number = number
        self.gone = False
        self.written = self.taken = 0
        self._internet = internet
        self._random = random
        self._arrival: Any = None  # a delayed call
        self._ending = self._ended = False
        self._writing = True
        self._reason: Exception | None = None  # why it ended, until the protocol is told

    # what the process does

    def write(self, data: bytes) -> None:
        """Have C{data} delivered."""
        if not isinstance(data, bytes):
            raise TypeError(f"bytes are written, not {type(data).__name__}")
        if self.connected and not self.disconnecting and self._writing:
            self.waiting += data
            self.written += len(data)
            self._send_on()
            if len(self.waiting) > HIGH_WATER and self._producer is not None and not self._producer_paused:
                self._producer_paused = True
                self._producer.pauseProducing()

    def loseConnection(self) -> None:
        """Close once the kernel has everything; it delivers the rest."""
        if self.connected and not self.disconnecting:
            self.disconnecting = True
            self._close_if_flushed()

    def loseWriteConnection(self) -> None:
        """Send no more, and read on."""
        if self.connected and not self.disconnecting and self._writing:
            self._writing = False
            self._ending = True
            self._send_on()

    def abortConnection(self) -> None:
        """Close now; the other side is told, if that reaches it."""
        if self.connected:
            self.disconnecting = True
            self.process.callLater(0, self._lost, ConnectionAborted())
            self.reset()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Tell C{producer} when to pause and when to go on."""
        if not self.connected or self.disconnecting:
            producer.stopProducing()
        else:
            super().registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """Nobody needs to be told any more."""
        super().unregisterProducer()
        self._close_if_flushed()

    def resumeProducing(self) -> None:
        """Read again."""
        self.reading = True
        self.other._send_on()

    # what the kernel does

    def reset(self) -> None:
        """The kernel knows this end no longer, and says so, once."""
        self.gone = True
        self.waiting.clear()
        self._ending = False
        self._internet.tell(self, self.other.hear_reset)

    def vanish(self) -> None:
        """The process was killed: its kernel ends the connection, in one of the ways kernels do."""
        if not self.connected:
            return
        self.connected = False
        if self._random.random() < 0.5:
            self.reset()
        else:
            self.gone = self._ending = True
            self._send_on()

    def lose_power(self) -> None:
        """The machine is off: nobody tells anybody anything."""
        self.connected = self._ending = False
        self.gone = True
        self.waiting.clear()

    def hear_reset(self) -> None:
        """The other side knows nothing of this connection; what was not read yet is lost."""
        for end in (self, self.other):
            end.waiting.clear()
            end._ending = False
        self.gone = True
        if self.connected:
            self.process.callLater(0, self._lost, ConnectionLost())

    def _close_if_flushed(self) -> None:
        if (
            self.disconnecting
            and self.connected
            and not self.gone
            and self._producer is None
            and len(self.waiting) <= SEND_BUFFER
        ):
            self._ending = self.gone = True
            self.process.callLater(0, self._lost, ConnectionDone())
            self._send_on()

    def _lost(self, reason: Exception) -> None:
        if self.connected:
            self.connected = False
            self._producer = None
            self._reason = reason
            self.tell_lost()

    def tell_lost(self) -> None:
        """Tell the protocol that the connection is gone, if it is and there is one."""
        reason, self._reason = self._reason, None
        if reason is None:
            return
        if self.protocol is None:
            self._reason = reason
        else:
            self.protocol.connectionLost(Failure(reason))

    def _send_on(self, *, now: bool = False) -> None:
        """See that what waits is on its way, if it can be."""
        if self._arrival is None and (self.waiting or (self._ending and not self._ended)):
            delay = 0.0 if now else self._internet.latency(self, self._random)
            self._arrival = self._internet.later(delay, self._arrive)

    def go_on(self) -> None:
        """What held this stream up may be over."""
        self._send_on()

    def _arrive(self) -> None:
        """Something gets to the other side, or does not for now; whoever removes the obstacle calls L{go_on}."""
        self._arrival = None
        other = self.other
        if self._internet.is_cut(self, other):
            return
        if other.gone:
            if self.waiting or self.connected:
                other.reset()
            self.waiting.clear()
            self._ended = True
            return
        if not other.readable:
            return
        if self.waiting:
            piece = bytes(self.waiting[: self._piece()])
            del self.waiting[: len(piece)]
            self.taken += len(piece)
            self._internet.arrived(self, piece)
            other.protocol.dataReceived(piece)
            self._drained()
            self._send_on(now=True)
        elif self._ending and not self._ended:
            self._ended = True
            self._internet.arrived(self, b"")
            other.hear_end()

    @property
    def readable(self) -> bool:
        """Does the process at this end take what arrives?"""
        deaf = self._internet.hosts[self._here.host].deaf
        return self.reading and self.protocol is not None and not self.process.frozen and not deaf

    def hear_end(self) -> None:
        """The other side sends no more: as Twisted has it, that ends the connection."""
        if self.connected and not self.disconnecting:
            self.disconnecting = self._ending = self.gone = True
            self._producer = None
            self.process.callLater(0, self._lost, ConnectionDone())
            self._send_on()

    def _drained(self) -> None:
        """The other side has taken something."""
        if self._producer_paused and self.connected and len(self.waiting) <= HIGH_WATER // 4:
            self._producer_paused = False
            if self._producer is not None:
                self._producer.resumeProducing()
        self._close_if_flushed()

    def _piece(self) -> int:
        chance = self._random.random()
        if chance < 0.9:
            return 65536
        return self._random.choice((1, 7, 100, 1400))


@implementer(IStreamClientEndpoint)
class Way:
    """The way of one process to a host and a port."""

    def __init__(self, internet: Internet, process: Process, host: Host, where: tuple[str, int]) -> None:
        self._internet, self._process, self._host, self._where = internet, process, host, where

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect, be refused, or hear nothing."""
        return self._internet.open(self._process, self._host, self._where, protocolFactory)


class Internet:
    """Joins the processes on one timeline.

    @ivar hosts: by address.
    @ivar trace: told each arrival: the number of the connection, in which direction, and the octets.
    @ivar opened: how many connections there ever were.
    """

    def __init__(
        self,
        timeline: Timeline,
        seed: int,
        trace: Callable[[int, str, bytes], None] = lambda *_: None,
        *,
        distance: float = 1.0,
    ) -> None:
        """
        @param seed: decides how long things take; each connection draws for itself, so that the order in
            which several of them are closed at one moment changes nothing.
        @param distance: everything takes so many times as long.
        """
        self._distance = distance
        self.hosts: dict[str, Host] = {}
        self.trace = trace
        self.opened = 0
        self._seed = seed
        self._kernel = Process(timeline, "kernel")
        self._listening: dict[tuple[str, int], tuple[Process, Any]] = {}
        self._ends: dict[int, tuple[End, End]] = {}
        self._cuts: dict[frozenset[str], int] = {}
        self._slow: dict[frozenset[str], float] = {}

    def host(self, address: str) -> Host:
        """The machine at C{address}."""
        found = self.hosts.get(address)
        if found is None:
            found = self.hosts[address] = Host(address)
        return found

    def endpoints(self, process: Process, host: Host) -> Callable[[str, int], Way]:
        """What makes the ways of C{process}, which runs on C{host}."""
        return lambda address, port: Way(self, process, host, (address, port))

    def listen(self, process: Process, host: Host, port: int, factory: Any) -> None:
        """Have C{factory} take the connections to C{port}."""
        self._listening[host.address, port] = (process, factory)

    def close(self, host: Host, port: int) -> None:
        """Take no more there."""
        self._listening.pop((host.address, port), None)

    # connections

    def open(self, process: Process, host: Host, where: tuple[str, int], factory: Any) -> Deferred[Any]:
        """Connect a protocol made by C{factory} to whoever listens at C{where}."""
        self.opened += 1
        number = self.opened
        random = Random(f"{self._seed} {number}")
        server = self.host(where[0])
        given_up: list[bool] = []
        made: Deferred[Any] = Deferred(lambda _: given_up.append(True))

        def arrive() -> None:
            """The first segment gets there."""
            if given_up or not process.alive:
                return
            if self._cut_between(host, server) or not server.up:
                self.later(1.0, arrive)  # it is sent again
                return
            listening = self._listening.get(where)
            alive = listening is not None and listening[0].alive
            self.later(self._draw(host, server, random), accept if alive else refuse)

        def refuse() -> None:
            if not given_up and process.alive:
                process.callLater(0, made.errback, ConnectionRefusedError())

        def accept() -> None:
            listening = self._listening.get(where)
            if given_up or not process.alive:
                return
            if listening is None or not listening[0].alive:
                refuse()
                return
            here = IPv4Address("TCP", host.address, 30000 + number % 30000)
            there = IPv4Address("TCP", *where)
            near = End(self, process, here, there, number, random)
            far = End(self, listening[0], there, here, number, random)
            near.other, far.other = far, near
            self._ends[number] = (near, far)
            process.callLater(0, connect, near)
            listening[0].callLater(0, take, far, listening[1])

        def connect(near: End) -> None:
            if given_up:
                near.connected = False
                near.reset()
                return
            near.protocol = factory.buildProtocol(near.getPeer())
            near.protocol.makeConnection(near)
            near.other.go_on()
            made.callback(near.protocol)
            near.tell_lost()

        def take(far: End, server_factory: Any) -> None:
            if not far.connected:
                return
            far.protocol = server_factory.buildProtocol(far.getPeer())
            if far.protocol is None:
                far.connected = False
                far.reset()
                return
            far.protocol.makeConnection(far)
            far.other.go_on()

        self.later(self._draw(host, server, random), arrive)
        return made

    def connections(self) -> Iterator[tuple[End, End]]:
        """Both ends of each connection that a process still has open."""
        for number, (near, far) in list(self._ends.items()):
            if near.connected or far.connected:
                yield near, far
            elif not (near.waiting or far.waiting):
                del self._ends[number]

    # what the ends need

    def later(self, delay: float, call: Callable[[], None]) -> Any:
        """Do something later, whatever becomes of the processes."""
        return self._kernel.callLater(delay, call)

    def latency(self, end: End, random: Random) -> float:
        """How long the next segment takes."""
        return self._draw(self.hosts[end.getHost().host], self.hosts[end.getPeer().host], random)

    def _draw(self, one: Host, other: Host, random: Random) -> float:
        factor = self._slow.get(frozenset((one.address, other.address)), 1.0)
        return random.uniform(*LATENCY) * self._distance * factor

    def tell(self, end: End, what: Callable[[], None]) -> None:
        """Send a reset; the network does not repeat it."""

        def arrive() -> None:
            if not self.is_cut(end, end.other):
                what()

        self.later(LATENCY[0], arrive)

    def is_cut(self, one: End, other: End) -> bool:
        """Does nothing get from C{one} to C{other} now?"""
        return self._cut_between(self.hosts[one.getHost().host], self.hosts[other.getHost().host])

    def _cut_between(self, one: Host, other: Host) -> bool:
        return not (one.up and other.up) or frozenset((one.address, other.address)) in self._cuts

    def arrived(self, sender: End, data: bytes) -> None:
        """Note what got through."""
        near, _ = self._ends.get(sender.number, (sender, sender))
        self.trace(sender.number, ">" if sender is near else "<", data)

    # what goes wrong

    def crash(self, process: Process) -> None:
        """C{process} was killed: its kernel closes what it had open."""
        for where in [where for where, (owner, _) in self._listening.items() if owner is process]:
            del self._listening[where]
        for pair in self.connections():
            for end in pair:
                if end.process is process:
                    end.vanish()

    def lose_power(self, host: Host) -> None:
        """C{host} stops in the middle of everything, and nobody hears of it."""
        host.up = False
        for where in [where for where in self._listening if where[0] == host.address]:
            del self._listening[where]
        for pair in self.connections():
            for end in pair:
                if end.getHost().host == host.address:
                    end.lose_power()

    def power(self, host: Host) -> None:
        """C{host} is back, and knows nothing of what was."""
        host.up = True
        self._go_on()

    def cut(self, one: str, other: str) -> None:
        """From now on nothing gets from C{one} to C{other}, nor back."""
        pair = frozenset((one, other))
        self._cuts[pair] = self._cuts.get(pair, 0) + 1

    def mend(self, one: str, other: str) -> None:
        """Undo one L{cut}."""
        pair = frozenset((one, other))
        left = self._cuts.pop(pair) - 1
        if left:
            self._cuts[pair] = left
        else:
            self._go_on()

    def slow_down(self, one: str, other: str, factor: float) -> None:
        """Everything between these takes C{factor} times as long."""
        self._slow[frozenset((one, other))] = factor

    def speed_up(self, one: str, other: str) -> None:
        """Undo L{slow_down}."""
        self._slow.pop(frozenset((one, other)), None)

    def break_between(self, one: str, other: str) -> int:
        """Reset every connection between two hosts, as a firewall does that forgets its state.

        @return: how many there were.
        """
        broken = 0
        for near, far in self.connections():
            if {near.getHost().host, far.getHost().host} == {one, other}:
                broken += 1
                for end in (near, far):
                    end.waiting.clear()
                    self.tell(end.other, end.hear_reset)
        return broken

    def listen_again(self, host: Host) -> None:
        """The programs of C{host} read again."""
        host.deaf = False
        self._go_on()

    def thaw(self, process: Process) -> None:
        """C{process} goes on."""
        process.thaw()
        self._go_on()

    def _go_on(self) -> None:
        for near, far in list(self._ends.values()):
            near.go_on()
            far.go_on()
