"""Who takes part in a transcript: connections to the home, and a call-back that says nothing by itself."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, Queue

from tests.support.clients.common import Client
from tests.support.clients.known import CLIENTS
from tests.support.processes import PATIENCE_SECONDS
from tests.support.transcript import Actor, BadTranscript
from tests.support.wire import Message, Reader, Wire


class Person:
    """One actor with all that is his: connections, a listener, and a client that reads."""

    def __init__(self, actor: Actor, connect: Callable[[], Wire]) -> None:
        """
        @param connect: opens a connection to the home.
        @raise BadTranscript: no client of that name is known.
        """
        if actor.client not in CLIENTS:
            raise BadTranscript(f"there is no client {actor.client}")
        self.actor, self.connect = actor, connect
        self.client: Client = CLIENTS[actor.client]()
        self.ear = Ear(actor.address)
        self._wires: dict[str, Wire] = {}
        self._requests: dict[str, bytes] = {}
        self._label = ""
        self._caller: Caller | None = None
        self._at_call_back = False

    @property
    def wire(self) -> Wire:
        """The connection in use."""
        assert self._label in self._wires, f"{self.actor.name} has no connection {self._label}"
        return self._wires[self._label]

    @property
    def asked(self) -> bytes:
        """The request that is being answered."""
        return self._requests[self._label]

    def ask(self, request: bytes) -> None:
        """Send a request."""
        self._requests[self._label] = request
        self.wire.send(request)

    def open(self, label: str) -> None:
        """Speak over a new connection."""
        if label in self._wires:
            self._wires[label].close()
        self._label, self._wires[label] = label, self.connect()
        self._at_call_back = False
        self.client.begin()

    def take_up(self, label: str | None = None) -> None:
        """Speak over a connection of before, the last one if C{label} does not say which."""
        self._label = self._label if label is None else label
        self._at_call_back = False

    def attend(self) -> None:
        """Turn to whoever calls, or has called last."""
        self._at_call_back = True

    def listen(self, patience: float) -> Message | None:
        """What the next caller says; C{None} if nobody calls."""
        try:
            self._caller, arrived = self.ear.heard.get(timeout=patience)
        except Empty:
            return None
        self._at_call_back = True
        return arrived

    def reply(self, data: bytes) -> None:
        """Answer whoever called last."""
        assert self._caller is not None, f"nobody has called {self.actor.name}"
        self._caller.send(data)

    def hang_up(self) -> None:
        """Close what was used last: a caller's connection, or one's own."""
        if self._at_call_back and self._caller is not None:
            self._caller.close()
        else:
            self.wire.close()

    def is_left(self, patience: float) -> bool:
        """Does the server close what was used last?"""
        if self._at_call_back and self._caller is not None:
            return self._caller.gone.wait(patience)
        return self.wire.at_end()

    def close(self) -> None:
        """Close everything."""
        for wire in self._wires.values():
            wire.close()
        self.ear.close()


class Caller:
    """A connection that was made to a call-back.

    @ivar gone: set when the other side has closed it.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.gone = threading.Event()

    def send(self, data: bytes) -> None:
        """Answer."""
        self._connection.sendall(data)

    def close(self) -> None:
        """Hang up, also for whoever is reading."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()


class Ear:
    """A call-back that says nothing by itself.

    @ivar where: C{host:port}.
    @ivar heard: the callers and what they say, in the order of its arrival.
    """

    def __init__(self, host: str) -> None:
        self._listener = socket.create_server((host, 0), backlog=16)
        self.where = f"{host}:{self._listener.getsockname()[1]}"
        self.heard: Queue[tuple[Caller, Message]] = Queue()
        self._callers: list[Caller] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        """Listen no more, and hang up on everybody."""
        with suppress(OSError):  # a thread in accept() keeps it open until it is shut down
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for caller in self._callers:
            caller.close()
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            caller = Caller(connection)
            self._callers.append(caller)
            thread = threading.Thread(target=self._read, args=(caller, connection), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _read(self, caller: Caller, connection: socket.socket) -> None:
        reader = Reader(connection)
        with suppress(OSError, AssertionError, ValueError):
            while (message := reader.read()) is not None:
                self.heard.put((caller, message))
        caller.gone.set()
