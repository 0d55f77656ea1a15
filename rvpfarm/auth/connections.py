"""What is known of the connections that authenticate as such: the middle of a handshake, or its outcome.

It is kept under the name that a connection bears throughout the farm, so that a handshake may pass any
router.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from rvpfarm.auth.negotiate import Negotiation, Session
from rvpfarm.auth.ntlm import Handshake
from rvpfarm.directory.model import Account

#: How long a client may take to answer a challenge; nobody types anything meanwhile.
HANDSHAKE_SECONDS = 60.0
#: A connection that made no call here for so long is forgotten: one that has proved nothing, and another.
OPEN_SECONDS, IDLE_SECONDS = 600.0, 3600.0
#: Connections that are remembered: those that have proved nothing, and the others.
OPEN_LIMIT, PROVED_LIMIT = 16384, 65536


@dataclass(frozen=True, slots=True)
class Step:
    """What a connection is in the middle of.

    @ivar at: since when.
    @ivar handshake: an NTLM challenge that waits for its answer.
    @ivar negotiation: it is wrapped in this.
    @ivar session: that of C{account}, which has proved itself; only the client's code is still to come.
    """

    at: float
    handshake: Handshake | None = None
    negotiation: Negotiation | None = None
    session: Session | None = None
    account: Account | None = None


class Connection:
    """What is known of one connection.

    @ivar scheme: by which it was proved.
    @ivar step: what it is in the middle of.
    @ivar account: who it was proved to be; C{None} if it was not.
    @ivar failures: since it last proved anything.
    @ivar turn: counts its steps.
    @ivar touched: when it made the last call here.
    """

    __slots__ = ("account", "failures", "scheme", "step", "touched", "turn")

    def __init__(self) -> None:
        self.scheme: object | None = None
        self.step: Step | None = None
        self.account: Account | None = None
        self.failures = self.turn = 0
        self.touched = 0.0


class Connections:
    """What is known of each connection; owns no clock.

    Memory is bounded: the connection that made no call for longest is forgotten first, and one that has
    proved something is never forgotten for the sake of those that have not.  The names of connections do
    not recur, so one that is forgotten late does no harm.
    """

    def __init__(self, *, open_limit: int = OPEN_LIMIT, proved_limit: int = PROVED_LIMIT) -> None:
        """
        @param open_limit: how many are remembered that have proved nothing.
        @param proved_limit: how many others.
        """
        self._open_limit, self._proved_limit = open_limit, proved_limit
        self._open: OrderedDict[str, Connection] = OrderedDict()
        self._proved: OrderedDict[str, Connection] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open) + len(self._proved)

    @property
    def proved(self) -> int:
        """How many have proved something."""
        return len(self._proved)

    def held(self, name: str) -> Connection | None:
        """The connection, if it has proved something."""
        return self._proved.get(name)

    def begin(self, name: str, now: float) -> tuple[Connection, Step | None]:
        """A connection goes on: what it is in the middle of is taken out, since that is good once.

        @return: the connection, and what it was in the middle of if that is not over.
        """
        connection = self._open.get(name) or self._proved.get(name)
        if connection is None:
            connection = self._open[name] = Connection()
        connection.turn += 1
        step, connection.step = connection.step, None
        self._touch(self._open if name in self._open else self._proved, name, connection, now)
        self._trim(self._open, self._open_limit, now - OPEN_SECONDS)
        return connection, step if step is not None and now - step.at <= HANDSHAKE_SECONDS else None

    def expect(self, name: str, connection: Connection, step: Step | None) -> None:
        """The connection is to go on with C{step}; whatever it has proved before is void."""
        connection.step, connection.scheme, connection.account = step, None, None
        if self._proved.pop(name, None) is not None:
            self._open[name] = connection

    def bind(self, name: str, connection: Connection, turn: int, scheme: object, account: Account) -> None:
        """The connection has proved to be C{account}, by the step C{turn}, unless it went on meanwhile."""
        if connection.turn != turn or self._open.get(name, self._proved.get(name)) is not connection:
            return
        connection.scheme, connection.step, connection.account = scheme, None, account
        connection.failures = 0
        self._open.pop(name, None)
        self._proved[name] = connection
        self._trim(self._proved, self._proved_limit, connection.touched - IDLE_SECONDS)

    def use(self, name: str, now: float) -> Account | None:
        """Who the connection was proved to be, if that has not become stale."""
        connection = self._proved.get(name)
        if connection is None:
            return None
        if connection.touched < now - IDLE_SECONDS:
            del self._proved[name]
            return None
        self._touch(self._proved, name, connection, now)
        return connection.account

    def forget(self, name: str) -> None:
        """The connection is gone, or what it proved does not hold any more."""
        self._open.pop(name, None)
        self._proved.pop(name, None)

    @staticmethod
    def _touch(
        connections: OrderedDict[str, Connection], name: str, connection: Connection, now: float
    ) -> None:
        connection.touched = now
        connections.move_to_end(name)

    @staticmethod
    def _trim(connections: OrderedDict[str, Connection], limit: int, since: float) -> None:
        """Forget those that were not touched C{since} then, and the oldest when there are too many."""
        while connections:
            name = next(iter(connections))
            if len(connections) <= limit and connections[name].touched >= since:
                break
            del connections[name]
