"""Long calls on their way to a home: let come as they are taken, and executed when they are whole."""

from __future__ import annotations

from rvpfarm.link.kinds import BadFrame
from rvpfarm.link.parts import WINDOW_SIZE, Open, Part, render_window
from rvpfarm.protocol.calls import Busy, TooLarge, TooSlow

#: Long calls that one caller may be sending at a time.
OPEN_LIMIT = 256
#: Octets of bodies that may be arriving at one home, from all callers together.
STORE_LIMIT = 64 * 1024 * 1024
#: A body of which nothing comes for so long is not waited for any longer.
IDLE_SECONDS = 60.0


class Store:
    """Room for bodies that are arriving.

    @ivar held: how many octets of it are taken.
    """

    __slots__ = ("_limit", "held")

    def __init__(self, limit: int) -> None:
        """
        @param limit: octets.
        """
        self._limit = limit
        self.held = 0

    def reserve(self, octets: int) -> None:
        """Take so much of it.

        @raise Busy: so much is not left.
        """
        if self.held + octets > self._limit:
            raise Busy("too many long calls are on their way to this home")
        self.held += octets


class _Arrival:
    """One long call.

    @ivar reserved: how much of the store it has taken.
    @ivar coming: how much of it was let come and is not here.
    """

    __slots__ = ("body", "coming", "open", "reserved", "until")

    def __init__(self, open: Open) -> None:
        self.open = open
        self.body = bytearray()
        self.reserved = self.coming = 0
        self.until = 0.0


class Arrivals:
    """The long calls that come over one connection.  It owns no clock."""

    __slots__ = ("_calls", "_limit", "_store")

    def __init__(self, store: Store, limit: int) -> None:
        """
        @param limit: the longest body.
        """
        self._store, self._limit = store, limit
        self._calls: dict[int, _Arrival] = {}

    def __len__(self) -> int:
        return len(self._calls)

    def open(self, frame: Open, now: float) -> bytes:
        """A call is announced that is to be executed.

        @return: the frame that lets its body come.
        @raise BadFrame: it is on its way already, or has no body.
        @raise Busy: there are too many.
        @raise TooLarge: it would be too long.
        """
        if frame.id in self._calls or frame.size == 0:
            raise BadFrame("it announces a call twice, or one without a body")
        if frame.size is not None and frame.size > self._limit:
            raise TooLarge("the body is longer than allowed here")
        if len(self._calls) >= OPEN_LIMIT:
            raise Busy("too many long calls are on their way from this caller")
        arrival = _Arrival(frame)
        self._reserve(arrival, WINDOW_SIZE if frame.size is None else frame.size)
        self._calls[frame.id] = arrival
        arrival.until = now + IDLE_SECONDS
        return self._let_come(arrival)

    def part(self, frame: Part, now: float) -> tuple[Open, bytes] | bytes:
        """A part of a body has come.

        @return: the call and its body, if that was the last; else the frame that lets more of it come, which
            may be empty.
        @raise BadFrame: it was not let come, or is not what was announced.
        @raise Busy: there is no room for more of it; L{close} it.
        @raise TooLarge: the body is too long; L{close} it.
        """
        arrival = self._calls.get(frame.id)
        if arrival is None:
            return b""  # it has been given up, or was never there
        arrival.coming -= len(frame.data)
        arrival.body += frame.data
        size, announced = len(arrival.body), arrival.open.size
        if arrival.coming < 0:
            raise BadFrame("more of a body than was to come")
        if announced is not None and (size > announced or (frame.last and size < announced)):
            raise BadFrame("a body of another size than was announced")
        if size > self._limit:
            raise TooLarge("the body is longer than allowed here")
        if frame.last:
            self.close(frame.id)
            return arrival.open, bytes(arrival.body)
        arrival.until = now + IDLE_SECONDS
        return self._let_come(arrival)

    def close(self, id: int) -> None:
        """It is of no more interest."""
        arrival = self._calls.pop(id, None)
        if arrival is not None:
            self._store.held -= arrival.reserved

    def clear(self) -> list[int]:
        """None is of any more interest.

        @return: their ids.
        """
        ids = list(self._calls)
        for id in ids:
            self.close(id)
        return ids

    def idle(self, now: float) -> list[tuple[int, TooSlow]]:
        """Close those of which nothing has come for long.

        @return: their ids, and what is to be said of each.
        """
        ids = [id for id, arrival in self._calls.items() if arrival.until <= now]
        for id in ids:
            self.close(id)
        return [(id, TooSlow("the body stopped")) for id in ids]

    def _let_come(self, arrival: _Arrival) -> bytes:
        """The frame that lets more of a body come, if that is worth a frame."""
        room, size = WINDOW_SIZE - arrival.coming, arrival.open.size
        left = room if size is None else size - len(arrival.body) - arrival.coming
        octets = min(room, left)
        if octets < WINDOW_SIZE // 2 and (octets < left or not octets):
            return b""
        if size is None:
            self._reserve(arrival, len(arrival.body) + WINDOW_SIZE)
        arrival.coming += octets
        return render_window(arrival.open.id, octets)

    def _reserve(self, arrival: _Arrival, octets: int) -> None:
        """Have room for so much of it.

        @raise Busy: there is none.
        """
        self._store.reserve(max(0, octets - arrival.reserved))
        arrival.reserved = max(octets, arrival.reserved)
