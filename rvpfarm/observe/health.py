"""Metrics, health and status over HTTP, in a thread of their own: a busy loop can still be looked at."""

from __future__ import annotations

import selectors
import socket
import sys
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from threading import BoundedSemaphore, Thread
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

_PLAIN, _JSON = "text/plain; charset=utf-8", "application/json"


class _Pages:
    """What is served, whoever asks."""

    _log = Logger()

    def __init__(
        self,
        registry: CollectorRegistry,
        ready: Callable[[], Sequence[str]],
        alive: Callable[[], bool],
        status: Callable[[], bytes] | None,
    ) -> None:
        self._registry = registry
        self._ready = ready
        self._alive = alive
        self._status = status

    def page(self, path: str, accept: str) -> tuple[int, str, bytes]:
        """Status, content type and body of C{path}."""
        try:
            return self._page(path.partition("?")[0], accept)
        except Exception:  # or the caller would see a closed connection and nobody would see why
            self._log.failure("page {path} failed", path=path[:100])
            return 500, _PLAIN, b"failed; see the log\n"

    def _page(self, path: str, accept: str) -> tuple[int, str, bytes]:
        """The same, before anything went wrong."""
        if path == "/metrics":
            encode, content_type = choose_encoder(accept)
            return 200, content_type, encode(self._registry)
        if path == "/healthz":
            return (200, _PLAIN, b"alive\n") if self._alive() else (503, _PLAIN, b"the loop stands still\n")
        if path == "/readyz":
            reasons = self._ready()
            if not reasons:
                return 200, _PLAIN, b"ready\n"
            return 503, _PLAIN, "".join(f"{reason}\n" for reason in reasons).encode()
        if path == "/status" and self._status is not None:
            return 200, _JSON, self._status()
        return 404, _PLAIN, b"/metrics, /healthz, /readyz and /status are here\n"


class _Answer(BaseHTTPRequestHandler):
    """One connection, one answer."""

    server: _Server
    timeout = 5.0
    server_version = "rvpfarm"
    sys_version = ""

    def do_GET(self) -> None:
        """Serve a page."""
        self._send(with_body=True)

    def do_HEAD(self) -> None:
        """Serve the head of a page."""
        self._send(with_body=False)

    def _send(self, *, with_body: bool) -> None:
        """Write the page that was asked for."""
        status, content_type, body = self.server.pages.page(self.path, self.headers.get("Accept", ""))
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Scrapes are not worth a line (C{Any}: as the standard library has it)."""


class _Server(ThreadingMixIn, TCPServer):
    """The listening socket and the thread that accepts from it, which stops at once when told."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 16
    timeout = 0.0

    #: Most pages served at once; further callers are closed.
    most = 16

    _log = Logger()

    def __init__(self, host: str, port: int, pages: _Pages) -> None:
        """
        @raise OSError: the address cannot be had.
        """
        self.pages = pages
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._free = BoundedSemaphore(self.most)
        super().__init__((host, port), _Answer)
        self.socket.setblocking(False)
        self._wake, self._woken = socket.socketpair()
        self._thread = Thread(target=self._accept, name="metrics", daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        """Take connections until told to stop."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.socket, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while all(key.fileobj is not self._woken for key, _events in selector.select()):
                self.handle_request()

    def stop(self) -> None:
        """Accept no more; pages being written are left to their threads."""
        self._wake.send(b".")
        self._thread.join()
        self.server_close()
        self._wake.close()
        self._woken.close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, unless too many are at it (C{Any}: as the standard library has it)."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, then let the next caller have our place."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what is not merely a caller who went away."""
        if not isinstance(sys.exc_info()[1], OSError):
            self._log.failure("a page could not be served")


def _always_ready() -> Sequence[str]:
    """No reasons against it."""
    return ()


class HealthServer(Service):
    """Serves C{/metrics}, C{/healthz}, C{/readyz} and C{/status}.

    A fault here never stops the daemon: an address that cannot be had is logged once and tried again.
    """

    _log = Logger()

    #: Between two attempts to listen.
    retry_seconds = 5.0

    #: How often the loop shows that it runs, and how long it may fail to before C{/healthz} says so.
    beat_seconds = 2.0
    stall_seconds = 30.0

    def __init__(
        self,
        host: str,
        port: int,
        registry: CollectorRegistry,
        *,
        clock: IReactorTime,
        ready: Callable[[], Sequence[str]] = _always_ready,
        status: Callable[[], bytes] | None = None,
    ) -> None:
        """
        @param host: where to listen; empty for nowhere, unless L{settle} says where.
        @param port: 0 takes any; see L{port}.
        @param ready: the reasons why this daemon should not be sent work, none when it is ready; called
            in the thread that serves, so it must only look.
        @param status: the page C{/status}, in JSON; called like C{ready}.
        """
        self._host = host
        self._port = port
        self._clock = clock
        self._pages = _Pages(registry, ready, self._alive, status)
        self._server: _Server | None = None
        self._timers: dict[str, IDelayedCall] = {}
        self._beaten = 0.0
        self._complained = False

    @property
    def port(self) -> int:
        """The port listened on, 0 when there is none now."""
        return int(self._server.server_address[1]) if self._server is not None else 0

    def settle(self, host: str, port: int) -> None:
        """Listen there, from the start on."""
        assert not self.running, "it listens already"
        self._host, self._port = host, port

    def startService(self) -> None:
        """Begin to listen, now or as soon as the address is free."""
        super().startService()
        self._beat()
        if self._host:
            self._listen()

    def stopService(self) -> None:
        """Listen no longer."""
        super().stopService()
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        if self._server is not None:
            self._server.stop()
            self._server = None

    def _listen(self) -> None:
        """Listen, or try again later."""
        self._timers.pop("listen", None)
        try:
            self._server = _Server(self._host, self._port, self._pages)
        except OSError as error:
            if not self._complained:
                self._log.warn(
                    "no metrics: cannot listen on {host}:{port}: {error}; trying again every {seconds} s",
                    host=self._host,
                    port=self._port,
                    error=error.strerror or str(error),
                    seconds=self.retry_seconds,
                )
                self._complained = True
            self._timers["listen"] = self._clock.callLater(self.retry_seconds, self._listen)
        else:
            self._complained = False

    def _beat(self) -> None:
        """The loop runs."""
        self._beaten = self._clock.seconds()
        self._timers["beat"] = self._clock.callLater(self.beat_seconds, self._beat)

    def _alive(self) -> bool:
        """Did the loop run lately?"""
        return self._clock.seconds() - self._beaten < self.stall_seconds
