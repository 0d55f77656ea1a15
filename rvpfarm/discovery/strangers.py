"""Calls to the servers of other organisations, wherever the DNS says that they are (shell).

Whoever subscribes chooses the host name that is called, and whoever serves the DNS of that name chooses the
address.  So an address is judged each time it is called, and it is the judged address that is called and
not the name, which could lead elsewhere a moment later (design invariant 6).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any, Generic, Protocol, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from rvpfarm.protocol.calls import Unreachable

#: How long the addresses of a host are good for, and how long it counts that there were none.
KEEP_SECONDS, KEEP_NONE_SECONDS = 60.0, 5.0

#: Hosts that are remembered or looked up at a time.
MOST_HOSTS = 1024

#: Calls that wait for one look-up.
MOST_WAITING = 1024

#: Addresses of one host that are tried for one call.
MOST_ADDRESSES = 3

_Response = TypeVar("_Response")
_Brought_co = TypeVar("_Brought_co", covariant=True)


class Addresses(Protocol):
    """Looks up names; see L{rvpfarm.discovery.lookup.Locator}."""

    # Any: what a coroutine yields and is sent is between it and Twisted
    def addresses(self, host: str) -> Coroutine[Any, Any, tuple[str, ...]]:
        """The IP addresses of C{host}.

        @raise Unreachable: the DNS does not say.
        """


class Sender(Protocol[_Brought_co]):
    """Carries a call to an address; see C{rvpfarm.web.outgoing}."""

    def send(
        self,
        host: str,
        port: int,
        wire: bytes,
        done: Callable[[_Brought_co | Unreachable], None],
        *,
        answer_seconds: float = 10.0,
    ) -> Callable[[], None]:
        """Send C{wire}; C{done} is called exactly once.  What is returned cancels the call."""


class _Found:
    """What is known of one host.

    @ivar until: when it has to be asked again; C{None} while it is being asked.
    @ivar addresses: none, when C{problem} says why.
    @ivar waiting: calls for when it is known.
    @ivar told: it was logged that this host cannot be called.
    """

    __slots__ = ("addresses", "asking", "problem", "told", "until", "waiting")

    def __init__(self) -> None:
        self.until: float | None = None
        self.addresses: tuple[str, ...] = ()
        self.problem = ""
        self.waiting: list[_Carrying[Any]] = []  # Any: calls of all kinds wait alike
        self.told = False
        self.asking: Deferred[None] | None = None


class _Carrying(Generic[_Response]):
    """One call on its way, from the name to whichever address takes it."""

    __slots__ = ("_answer_seconds", "_cancel", "_done", "_left", "_outgoing", "_wire", "port")

    def __init__(
        self,
        outgoing: Sender[_Response],
        port: int,
        wire: bytes,
        done: Callable[[_Response | Unreachable], None],
        answer_seconds: float,
    ) -> None:
        self.port = port
        self._outgoing, self._wire, self._answer_seconds = outgoing, wire, answer_seconds
        self._done: Callable[[_Response | Unreachable], None] | None = done
        self._cancel: Callable[[], None] | None = None
        self._left: list[str] = []

    def carry(self, addresses: list[str]) -> None:
        """Call one of C{addresses} after the other, until one has taken the call or may have."""
        self._left = addresses
        if self._done is not None:
            self._try()

    def settle(self, result: _Response | Unreachable) -> None:
        """Tell how it ended, unless nobody wants to know."""
        done, self._done = self._done, None
        if done is not None:
            done(result)

    def cancel(self) -> None:
        """Nobody wants to know any more."""
        self._done = None
        if self._cancel is not None:
            self._cancel()

    def _try(self) -> None:
        self._cancel = self._outgoing.send(
            self._left.pop(0), self.port, self._wire, self._answered, answer_seconds=self._answer_seconds
        )

    def _answered(self, result: _Response | Unreachable) -> None:
        again = isinstance(result, Unreachable) and not result.maybe_done and self._left
        if again and self._done is not None:
            self._try()
        else:
            self.settle(result)


class Strangers(Service, Generic[_Response]):
    """Sends calls to hosts by name, and judges each address that a name leads to."""

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        names: Addresses,
        outgoing: Sender[_Response],
        *,
        barred: Callable[[str, int], str | None],
        refused: Callable[[str], None],
        hosts: int = MOST_HOSTS,
    ) -> None:
        """
        @param outgoing: told addresses only, never names.
        @param barred: the rule that forbids to call an address and port, or C{None}.
        @param refused: told the rule whenever one kept a call from being made.
        @param hosts: that are remembered or looked up at a time.
        """
        self._clock, self._names, self._outgoing = clock, names, outgoing
        self._barred, self._refused, self._most = barred, refused, hosts
        self._hosts: OrderedDict[str, _Found] = OrderedDict()  # the one asked for longest ago comes first
        self._stopping = False

    def startService(self) -> None:
        """Take calls (which a new one does already)."""
        super().startService()
        self._stopping = False

    def stopService(self) -> None:
        """Break off every look-up; calls that wait for one come back as L{Unreachable}."""
        super().stopService()
        self._stopping = True
        for found in list(self._hosts.values()):
            if found.until is None and found.asking is not None:
                found.asking.cancel()
        self._hosts.clear()

    def send(
        self,
        host: str,
        port: int,
        wire: bytes,
        done: Callable[[_Response | Unreachable], None],
        *,
        answer_seconds: float = 10.0,
    ) -> Callable[[], None]:
        """Send a request to C{host}, wherever it is.

        @param wire: the whole of it.
        @param done: called exactly once with the response, or with L{Unreachable} when there was none,
            also because no address of the host may be called.
        @return: cancels the call; C{done} is not called then.
        """
        call = _Carrying(self._outgoing, port, wire, done, answer_seconds)
        found = self._hosts.get(host)
        if found is not None and found.until is not None and found.until <= self._clock.seconds():
            del self._hosts[host]
            found = None
        if found is None:
            found = self._ask(host)
        if found is None:
            call.settle(Unreachable(f"{host} cannot be looked up just now"))
        elif found.until is not None:
            self._carry(call, host, found)
        elif len(found.waiting) < MOST_WAITING:
            found.waiting.append(call)
        else:
            call.settle(Unreachable(f"too many calls wait for the address of {host}"))
        return call.cancel

    def _ask(self, host: str) -> _Found | None:
        """Begin to look C{host} up; C{None} if there is no room for that."""
        if self._stopping or not self._make_room():
            return None
        found = self._hosts[host] = _Found()
        found.asking = Deferred.fromCoroutine(self._look_up(host, found))
        found.asking.addErrback(self._failed, host, found)
        found.asking.addCallback(lambda _: self._carry_waiting(host, found))
        return found

    def _make_room(self) -> bool:
        """Forget the oldest host that is not just being asked for, if there are too many."""
        if len(self._hosts) < self._most:
            return True
        oldest = next((host for host, found in self._hosts.items() if found.until is not None), None)
        if oldest is not None:
            del self._hosts[oldest]
        return oldest is not None

    async def _look_up(self, host: str, found: _Found) -> None:
        found.addresses = await self._names.addresses(host)
        if not found.addresses:
            found.problem = f"{host} has no address"
        self._keep(found)

    def _failed(self, failure: Failure, host: str, found: _Found) -> None:
        """There is no answer; a fault of ours is logged as one."""
        if failure.check(Unreachable, CancelledError):
            found.problem = str(failure.value) or f"{host} is not looked up any more"
        else:
            self._log.failure("{host} could not be looked up", failure, host=host)
            found.problem = f"{host} could not be looked up"
        self._keep(found)

    def _keep(self, found: _Found) -> None:
        found.until = self._clock.seconds() + (KEEP_NONE_SECONDS if found.problem else KEEP_SECONDS)

    def _carry_waiting(self, host: str, found: _Found) -> None:
        waiting, found.waiting = found.waiting, []
        for call in waiting:
            try:
                self._carry(call, host, found)
            except Exception:  # the next call has nothing to do with it
                self._log.failure("a call to {host} went wrong", host=host)

    # Any: what kind of response a call waits for makes no difference here
    def _carry(self, call: _Carrying[Any], host: str, found: _Found) -> None:
        """Hand a call on to the addresses of its host that may be called."""
        problem, allowed, rule = found.problem, [], None
        for address in found.addresses:
            barred = self._barred(address, call.port)
            if barred is None:
                allowed.append(address)
            else:
                rule = rule or barred
        if allowed:
            call.carry(allowed[:MOST_ADDRESSES])
            return
        if rule is not None:
            self._refused(rule)
            problem = f"{host} leads to {found.addresses[0]}, which must not be called ({rule})"
        if not found.told:
            found.told = True
            self._log.warn("another organisation is not called: {problem}", problem=problem)
        call.settle(Unreachable(problem))
