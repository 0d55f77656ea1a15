"""Tells whoever supervises this process how it is, in the words of C{sd_notify(3)}.

That is systemd, over the socket that C{NOTIFY_SOCKET} names, or our own supervisor of several workers, over a
pipe.  It is a datagram with lines in it; C{sdnotify} on PyPI, which could do half of this, has not been
maintained since 2017.
"""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

#: Names the descriptor of the pipe to our own supervisor.
NOTIFY_FD = "RVPFARM_NOTIFY_FD"

#: What a supervisor's own environment says to it, and to none of its children.
FROM_SUPERVISOR = frozenset(
    {
        NOTIFY_FD,
        "NOTIFY_SOCKET",
        "WATCHDOG_USEC",
        "WATCHDOG_PID",
        "LISTEN_FDS",
        "LISTEN_FDNAMES",
        "LISTEN_PID",
    }
)


class Notifier:
    """Sends notices, if anybody wants to have them; a notice that cannot be sent stops nothing.

    @ivar wanted: somebody does.
    """

    _log = Logger()

    def __init__(self, environment: Mapping[str, str]) -> None:
        """The socket is opened now: later it may be out of reach, for there are C{--chroot} and C{--uid}."""
        self._path = environment.get("NOTIFY_SOCKET", "")
        pipe = environment.get(NOTIFY_FD, "")
        self._pipe = int(pipe) if pipe.isdigit() else -1
        self._socket: socket.socket | None = None
        self._complained = False
        if self._pipe >= 0:
            os.set_inheritable(self._pipe, False)
            os.set_blocking(self._pipe, False)
        elif self._path:
            self._open()
        self.wanted = self._pipe >= 0 or bool(self._path)

    def send(self, *lines: str) -> bool:
        """Send C{lines}, such as C{READY=1}, as one notice.

        @return: false if whoever listens is too busy just now, so that it is worth another try.
        """
        data = "".join(f"{line}\n" for line in lines).encode()
        try:
            if self._pipe >= 0:
                os.write(self._pipe, data)
            elif self._path:
                self._send(data)
        except BlockingIOError:
            return False
        except OSError as problem:
            if not self._complained:
                self._complained = True
                self._log.warn("the supervisor cannot be told: {why}", why=problem.strerror or str(problem))
        return True

    def close(self) -> None:
        """Nothing more will be sent."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _open(self) -> None:
        """Open the socket; an address that begins with C{@} is in the abstract name space."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        try:
            self._socket.connect("\0" + self._path[1:] if self._path.startswith("@") else self._path)
        except OSError:  # it is tried again when there is something to say
            self.close()

    def _send(self, data: bytes) -> None:
        for _ in range(2):
            if self._socket is None:
                self._open()
            if self._socket is not None:
                try:
                    self._socket.send(data)
                    return
                except ConnectionError:  # whoever listened there has gone; somebody else may have come
                    self.close()
        raise OSError(f"nobody listens at {self._path}")


def watchdog_seconds(environment: Mapping[str, str], pid: int) -> float:
    """How long the supervisor lets the process C{pid} be silent (C{sd_watchdog_enabled(3)}); 0 for ever."""
    span, whom = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not span.isdigit() or (whom and whom != str(pid)):
        return 0.0
    return int(span) / 1e6


class Notices(Service):
    """Says when this daemon is ready, what it waits for, that it reloads and stops, and that it is alive.

    It is ready, to a supervisor, when all of it has started; that is no matter of whether work should be sent
    here just now, for a supervisor that waits for it in vain would end it.

    @ivar ready: it was, once.
    """

    #: Between two looks at whether it is ready, before it was for the first time and after.
    first_seconds = 0.1
    then_seconds = 1.0

    #: What the supervisor is too busy to hear is tried again after this time, and of so much nothing is lost.
    again_seconds = 0.1
    most_unsent = 100

    def __init__(
        self,
        clock: IReactorTime,
        notifier: Notifier,
        *,
        ready: Callable[[], Sequence[str]],
        started: Callable[[], bool] | None = None,
        alive: Callable[[], bool] = lambda: True,
        environment: Mapping[str, str] = os.environ,
        getpid: Callable[[], int] = os.getpid,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        @param ready: the reasons why no work should be sent here.
        @param started: does everything run?  Left out, when there are no such reasons.
        @param alive: is everything that shows that the daemon works fine?
        @param environment: where the watchdog's span is.
        @param monotonic: C{CLOCK_MONOTONIC}, in seconds.
        """
        self._clock, self._notifier, self._ready, self._alive = clock, notifier, ready, alive
        self._started = started or (lambda: not ready())
        self._environment, self._getpid, self._monotonic = environment, getpid, monotonic
        self._timers: dict[str, IDelayedCall] = {}
        self._status = ""
        self._unsent: deque[tuple[str, ...]] = deque(maxlen=self.most_unsent)
        self._watchdog = 0.0
        self.ready = False

    def startService(self) -> None:
        """Begin to look.  Nothing is said before the reactor runs, for before that nothing is served."""
        super().startService()
        if not self._notifier.wanted:
            return
        self._watchdog = watchdog_seconds(self._environment, self._getpid())  # twistd may have forked
        self._timers["look"] = self._clock.callLater(0, self._look)
        if self._watchdog:
            self._timers["tick"] = self._clock.callLater(0, self._tick)

    def stopService(self) -> None:
        """Say no more."""
        super().stopService()
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._notifier.close()

    def stopping(self) -> None:
        """The daemon begins to stop; the watchdog is kept quiet until it has."""
        if "look" in self._timers:
            self._timers.pop("look").cancel()
        self._tell("draining", "STOPPING=1")

    def reloading(self) -> None:
        """The daemon reads its settings again; nobody is interested before it was ready once."""
        if self.ready:
            self._tell("reloading", "RELOADING=1", f"MONOTONIC_USEC={int(self._monotonic() * 1e6)}")

    def reloaded(self) -> None:
        """It has done so."""
        if self.ready:
            self._tell(self._describe(), "READY=1")

    def _look(self) -> None:
        """Say that it is ready when all has started, and whenever something else is to be said of it."""
        status = self._describe()
        if not self.ready and self._started():
            self.ready = True
            # twistd without -n forks: the process to watch is this one
            self._tell(status, "READY=1", f"MAINPID={self._getpid()}")
        elif status != self._status:
            self._tell(status)
        delay = self.then_seconds if self.ready else self.first_seconds
        self._timers["look"] = self._clock.callLater(delay, self._look)

    def _describe(self) -> str:
        return "; ".join(self._ready()) or "ready"

    def _tell(self, status: str, *lines: str) -> None:
        self._status = status
        if self._notifier.wanted:
            self._unsent.append((*lines, f"STATUS={status}"))
            if "again" not in self._timers:
                self._send()

    def _send(self) -> None:
        """Send what is to be sent, in its order."""
        self._timers.pop("again", None)
        while self._unsent and self._notifier.send(*self._unsent[0]):
            self._unsent.popleft()
        if self._unsent:
            self._timers["again"] = self._clock.callLater(self.again_seconds, self._send)

    def _tick(self) -> None:
        """The loop turns, or this would not be called."""
        if self._alive():
            self._notifier.send("WATCHDOG=1")
        self._timers["tick"] = self._clock.callLater(self._watchdog / 2, self._tick)
