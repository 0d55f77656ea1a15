"""The workers of C{twistd rvp-router --workers N}: kept running, and replaced one by one.

There is a socket for each of them, all of one address (C{SO_REUSEPORT}), from before privileges are dropped
until the end.  A worker only ever has a copy: when one dies, or makes room for its successor, whoever waits
in that socket's queue waits for the next.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from rvpfarm.tap.settings import HostPort

#: Tells a worker its L{Seat}, as C{2/4}.
SEAT = "RVPFARM_WORKER"

#: A successor has so long to become ready.
READY_SECONDS = 60.0

#: What a worker finds at these descriptors: its socket, and the pipe for its notices.
SOCKET_FD, NOTICES_FD = 3, 4

#: Most octets of a line of a worker's standard error, and most lines shown of one that keeps ending.
_LINE_BYTES, _LINES = 4096, 12


@dataclass(frozen=True, slots=True)
class Seat:
    """Which worker of how many a process is, counted from 0.  Its successor takes the same seat."""

    number: int = 0
    count: int = 1

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Seat:
        """What the supervisor said; alone without a word."""
        number, _, count = environment.get(SEAT, "").partition("/")
        return cls(int(number), int(count)) if number.isdigit() and count.isdigit() else ALONE

    def place(self, first: HostPort | None) -> HostPort | None:
        """Where this worker shows its metrics if the first does at C{first}; each has a port of its own."""
        if first is None or first.port + self.number > 65535:
            return None
        return HostPort(first.host, first.port + self.number)

    def __str__(self) -> str:
        """As the environment has it."""
        return f"{self.number}/{self.count}"


#: The seat of a process that has no sisters.
ALONE = Seat()


class Worker:
    """One worker, through all the runs of the process that is it.

    @ivar number: of its socket.
    @ivar name: no other worker bears it at the same time.
    @ivar ready: it serves.
    @ivar status: how it is, in a few words.
    @ivar heard: when it gave its last notice.
    @ivar said: the last lines of its standard error.
    """

    def __init__(self, number: int, name: str, changed: Callable[[Worker], None], now: float) -> None:
        """
        @param changed: told when L{ready} may be another.
        """
        self.number, self.name, self.heard = number, name, now
        self.ready = False
        self.status = "it is not up"
        self.said: deque[str] = deque(maxlen=_LINES)
        self._changed = changed
        self._notices = self._errors = b""

    def notice(self, data: bytes, now: float) -> None:
        """Part of its notices arrived."""
        self.heard = now
        *lines, self._notices = (self._notices + data).split(b"\n")
        del lines[:-1000]
        for line in lines:
            name, _, value = line.decode("utf-8", "replace").partition("=")
            if name == "STATUS":
                self.status = value
            elif name in ("READY", "STOPPING"):
                self.ready = name == "READY"
                self._changed(self)

    def error(self, data: bytes) -> list[str]:
        """Part of its standard error arrived.

        @return: the lines that are whole with it.
        """
        *lines, self._errors = (self._errors + data).split(b"\n")
        self._errors = self._errors[-_LINE_BYTES:]
        texts = [line[-_LINE_BYTES:].decode("utf-8", "replace") for line in lines if line.strip()]
        self.said.extend(texts)
        return texts

    def gone(self) -> None:
        """Its process ended."""
        self.ready, self.status, self._notices = False, "it is not up", b""
        self._changed(self)


class NotReady(Exception):
    """A successor did not become ready; the text says why."""


class Workers(Service):
    """Keeps the workers running, passes signals on to them, and replaces them one by one."""

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        children: Any,
        count: int,
        reserve: Callable[[], Sequence[socket.socket]],
        launch: Callable[[Worker, int], Mapping[str, Any]],
        give_up: Callable[[str, Sequence[str]], None],
        *,
        watchdog_seconds: float = 0.0,
    ) -> None:
        """
        @param reactor: the real one (C{Any}: no one interface has processes and timers).
        @param children: makes the L{rvpfarm.tap.children.Children}, given whom to tell of failing and of
            ended ones (C{Any}: its module may be imported only after the reactor is chosen).
        @param reserve: takes the address, once for each worker.
        @param launch: the arguments of C{Children.add} for a worker, but for its name, and its socket.
        @param give_up: called when a worker keeps ending before all were ready once, with how that is and the
            last that it said.
        @param watchdog_seconds: a worker that is silent for so long is killed; 0 for never.
        """
        self._reactor, self._count, self._launch, self._give_up = reactor, count, launch, give_up
        self._reserve = reserve
        self._children = children(self._failing, self._ended)
        self._sockets: list[socket.socket] = []
        self._workers: dict[str, Worker] = {}  # by name, successors among them
        self._serving: list[Worker] = []  # by number
        self._awaited: dict[Worker, Deferred[None]] = {}
        self._rolling: Deferred[None] | None = None
        self._again = False
        self._were_ready = False
        self._watchdog_seconds = watchdog_seconds
        self._watch = LoopingCall(self._look)
        self._watch.clock = reactor

    # the life of the service

    def privilegedStartService(self) -> None:
        """Take the address, while a low port can still be had.

        @raise CannotServe: it is not to be had.
        """
        super().privilegedStartService()
        self._sockets = list(self._reserve())

    def startService(self) -> None:
        """Start the workers."""
        super().startService()
        if not self._sockets:
            self._sockets = list(self._reserve())
        self._serving = [self._add(number) for number in range(self._count)]
        self._children.startService()
        if self._watchdog_seconds:
            self._watch.start(self._watchdog_seconds / 4, now=False)

    def stopService(self) -> Deferred[None]:
        """Tell all workers to stop; fires when the last one is gone."""
        super().stopService()
        if self._watch.running:
            self._watch.stop()
        if self._rolling is not None:
            self._rolling.cancel()
        stopped: Deferred[None] = self._children.stopService()
        # From now on the workers' copies are the only ones: the address is free when they have let go of it.
        for sock in self._sockets:
            sock.close()
        return stopped

    def hurry(self) -> None:
        """Tell the workers once more that they shall stop."""
        self._children.send("TERM")

    def reload(self) -> None:
        """Tell the workers to reload."""
        self._children.send("HUP")

    def missing(self) -> Sequence[str]:
        """Who is not ready, and why."""
        if not self._serving:
            return ["not started"]
        return [f"{worker.name}: {worker.status}" for worker in self._serving if not worker.ready]

    # one worker

    def _add(self, number: int) -> Worker:
        """Have one more worker run on the socket of that number."""
        name = f"worker{number}"
        if name in self._workers:  # which is to be replaced
            name += "b"
        worker = Worker(number, name, self._changed, self._reactor.seconds())
        self._workers[name] = worker

        def heard(fd: int, data: bytes) -> None:
            """It wrote something."""
            if fd == NOTICES_FD:
                worker.notice(data, self._reactor.seconds())
            else:
                for line in worker.error(data):
                    self._log.warn("{name}: {line}", name=name, line=line)

        self._children.add(name, heard=heard, **self._launch(worker, self._sockets[number].fileno()))
        return worker

    def _changed(self, worker: Worker) -> None:
        """A worker is ready now, or no longer."""
        waiting = self._awaited.pop(worker, None) if worker.ready else None
        if waiting is not None:
            waiting.callback(None)
        if not self._were_ready and self._serving and all(each.ready for each in self._serving):
            self._were_ready = True
            self._log.info("all {count} workers are ready", count=self._count)

    def _ended(self, name: str) -> None:
        """A worker's process ended; L{rvpfarm.tap.children.Children} starts another if it should."""
        worker = self._workers.get(name)
        if worker is None:
            return
        worker.gone()
        waiting = self._awaited.pop(worker, None)
        if waiting is not None:
            waiting.errback(NotReady("it ended"))

    def _failing(self, name: str, how: str) -> None:
        """A worker keeps dying.  Before all were ready that ends it; later the worker is tried on."""
        worker = self._workers[name]
        self._log.error("{name} keeps ending ({how})", name=name, how=how)
        if not self._were_ready:
            self._give_up(f"{name} keeps ending ({how})", tuple(worker.said))

    def _look(self) -> None:
        """Kill whoever is silent: its loop does not turn."""
        now = self._reactor.seconds()
        for worker in list(self._workers.values()):
            if worker.ready and now - worker.heard > self._watchdog_seconds:
                self._log.error(
                    "{name} has been silent for {seconds} s and is killed",
                    name=worker.name,
                    seconds=round(now - worker.heard),
                )
                worker.heard = now
                self._children.send("KILL", worker.name)

    # the roll

    def roll(self) -> None:
        """Replace the workers one by one; each goes when its successor, on the same socket, is ready."""
        if self._rolling is not None:
            self._again = True
            self._log.info("the workers are being replaced; when that is done it begins once more")
            return
        self._rolling = Deferred.fromCoroutine(self._roll())
        self._rolling.addErrback(self._not_rolled)
        if self._rolling is not None and self._rolling.called:
            self._rolling = None

    async def _roll(self) -> None:
        try:
            while True:
                self._again = False
                for number in range(self._count):
                    await self._replace(number)
                self._log.info("all {count} workers are replaced", count=self._count)
                if not self._again:
                    return
        finally:
            self._rolling = None

    async def _replace(self, number: int) -> None:
        """Replace one.

        @raise NotReady: its successor is of no use; the worker stays.
        """
        old, new = self._serving[number], self._add(number)
        try:
            await self._until_ready(new)
        except NotReady as problem:
            await self._drop(new)
            raise NotReady(f"the successor of {old.name} did not become ready: {problem}") from None
        self._serving[number] = new
        await self._drop(old)

    def _until_ready(self, worker: Worker) -> Deferred[None]:
        """Fires when the worker is ready, or fails with L{NotReady}."""
        waiting = self._awaited[worker] = Deferred()

        def late(result: Any, seconds: float) -> None:  # Any: as Twisted has it
            self._awaited.pop(worker, None)
            raise NotReady(f"not within {seconds:.0f} s")

        return waiting.addTimeout(READY_SECONDS, self._reactor, late)

    async def _drop(self, worker: Worker) -> None:
        """Have one end, and wait for that."""
        await self._children.remove(worker.name)
        del self._workers[worker.name]

    def _not_rolled(self, failure: Any) -> None:  # Any: Twisted's failures are generic in their value
        if failure.check(NotReady):
            self._log.error("{why}; the workers that are left stay as they are", why=str(failure.value))
        elif not failure.check(CancelledError):
            self._log.failure("the workers cannot be replaced", failure)
