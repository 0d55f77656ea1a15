"""The load that other tests put on servers: nothing that went wrong may look well."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain, repeat
from unittest import TestCase

from tests.support.load import Load
from tests.support.processes import free_ports, wait_for

LOOPBACK = "127.0.0.1"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
LAST = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


def request() -> bytes:
    """What is asked."""
    return b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Scripted:
    """Answers each request as its script says, then for ever with 200.

    A piece of the script is what is sent; after a piece that is not a whole answer the connection ends, with a
    reset if the piece is C{None}.

    @ivar connections: how many there were.
    """

    def __init__(self, *script: bytes | None) -> None:
        self._script: Iterator[bytes | None] = chain(script, repeat(OK))
        self._listener = socket.create_server((LOOPBACK, 0))
        self.address = (LOOPBACK, self._listener.getsockname()[1])
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Listen no longer."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while connection.recv(4096):
                piece = next(self._script)
                if piece is None:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return
                connection.sendall(piece)
                if piece != OK:
                    return


class LoadTests(TestCase):
    """Each request has one outcome, and it is the right one."""

    def serve(self, *script: bytes | None) -> Scripted:
        """A server."""
        server = Scripted(*script)
        self.addCleanup(server.close)
        return server

    def test_all_is_well(self) -> None:
        """Connections are used again, and nothing is reported."""
        server = self.serve()
        with Load([server.address], request, clients=2) as load:
            load.await_more(50)
        self.assertEqual((load.failures, load.failed, load.refusals), ({}, [], {}), load.report())
        self.assertEqual(server.connections, 2)
        self.assertGreaterEqual(load.outcomes["200"], 50)

    def test_closed_after_an_answer(self) -> None:
        """An answer that ends its connection is no failure; the next request takes another one."""
        server = self.serve(OK, LAST)
        with Load([server.address], request, clients=1) as load:
            load.await_more(5)
        self.assertEqual((load.failures, server.connections), ({}, 2), load.report())

    def test_no_keep_alive(self) -> None:
        """Without keep-alive each request has a connection of its own."""
        server = self.serve()
        with Load([server.address], request, clients=1, keep_alive=False) as load:
            load.await_more(5)
        self.assertEqual((load.failures, server.connections), ({}, load.outcomes["200"]), load.report())

    def test_failures(self) -> None:
        """Bad statuses, cut answers, closed and reset connections and nonsense are told apart."""
        server = self.serve(
            b"HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            OK[:-1],
            OK[:9],
            b"",
            None,
            b"SMTP\r\n\r\n",
        )
        with Load([server.address], request, clients=1) as load:
            load.await_more(5)
        self.assertEqual(
            load.failures, {"503": 1, "cut": 2, "closed": 1, "reset": 1, "garbage": 1}, load.report()
        )
        self.assertEqual(len(load.failed), 6)

    def test_silence(self) -> None:
        """A server that does not answer in time is one of the failures."""
        with socket.create_server((LOOPBACK, 0)) as mute:
            load = Load([mute.getsockname()], request, clients=1, patience_seconds=0.05)
            load.start()
            wait_for("a failure", lambda: bool(load.failures))
            load.stop()
        self.assertEqual(set(load.failures), {"silent"})

    def test_addresses_in_turn(self) -> None:
        """An address that refuses is passed over, and counted; it is a failure only if all refuse."""
        server = self.serve()
        (nobody,) = free_ports(1)
        load = Load([server.address, (LOOPBACK, nobody)], request, clients=2, keep_alive=False)
        with load:
            load.await_more(20)
        self.assertEqual(load.failures, {}, load.report())
        self.assertGreater(load.refusals[f"{LOOPBACK}:{nobody}"], 5)
        load = Load([(LOOPBACK, nobody)], request, clients=1)
        load.start()
        wait_for("a failure", lambda: bool(load.failures))
        load.stop()
        self.assertEqual(set(load.failures), {"refused"})
