"""The admin API on a socket: bounded requests in, answers made in threads out."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import connectionDone
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from twisted.web.http import RESPONSES, HTTPChannel
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from rvpfarm.admin.api import Answer, Ask, problem

#: The largest head and body, the most connections at once, and the most requests in work or waiting.
HEAD_LIMIT, BODY_LIMIT, CONNECTIONS_LIMIT, WORK_LIMIT = 256 * 1024, 256 * 1024, 64, 64

#: So long may pass until a request is there, until the next one comes, and until one that is refused in its
#: middle is cut off.
REQUEST_SECONDS, IDLE_SECONDS, REFUSED_SECONDS = 30.0, 60.0, 5.0

#: Requests worked on at once.
THREADS = 8

#: So long those in work have when the server stops.
STOP_SECONDS = 10.0

_PEER = struct.Struct("3i")


def peer_of(transport: Any) -> int | None:  # Any: only some transports have a socket
    """The number of the OS user at the other end of a Unix socket; C{None} for any other connection."""
    try:
        own = transport.socket
        if own.family != socket.AF_UNIX:
            return None
        _, user, _ = _PEER.unpack(own.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    except AttributeError:
        return None
    return int(user)


class AdminChannel(HTTPChannel):
    """A connection, with an end to everything."""

    # Any: Twisted says too little of both
    site: Any
    transport: Any

    maxHeaders = 100
    totalHeadersSize = MAX_LENGTH = HEAD_LIMIT
    abortTimeout = 5

    def connectionMade(self) -> None:
        """Take part, unless there are too many."""
        super().connectionMade()
        self._deadline: Any = None  # a delayed call, which Twisted types by its interface only
        self._peer = peer_of(self.transport)
        self.site.connections.add(self)
        if len(self.site.connections) > CONNECTIONS_LIMIT:
            self.decline(problem(503, f"There are {CONNECTIONS_LIMIT} connections already; try again later."))

    @property
    def peer(self) -> int | None:
        """The number of the OS user at the other end, if it is known."""
        return self._peer

    def dataReceived(self, data: bytes) -> None:
        """Something arrived: the rest of the request has to follow in time."""
        if self._deadline is None:
            self._deadline = self.callLater(REQUEST_SECONDS, self._give_up)
        super().dataReceived(data)

    def complete(self) -> None:
        """The request is there."""
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None

    def decline(self, answer: Answer) -> None:
        """Answer at once, in the middle of whatever comes, which is read away; then close."""
        head = (
            f"HTTP/1.1 {answer.status} {RESPONSES[answer.status].decode()}\r\nConnection: close\r\n"
            f"Content-Type: {answer.kind}\r\nContent-Length: {len(answer.body)}\r\n\r\n"
        )
        self.transport.write(head.encode() + answer.body)
        self.complete()
        self._deadline = self.callLater(REFUSED_SECONDS, self._give_up)

    def _give_up(self) -> None:
        self._deadline = None
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is gone."""
        self.complete()
        self.site.connections.discard(self)
        super().connectionLost(reason)


class AdminRequest(Request):
    """A request whose body is bounded."""

    # Any: Twisted does not say that they are there
    channel: Any
    content: Any
    _declined = False

    def gotLength(self, length: int | None) -> None:
        """The body will be so long, or nobody says how long."""
        super().gotLength(0 if length is not None and length > BODY_LIMIT else length)
        if length is not None and length > BODY_LIMIT:
            self._decline()

    def handleContentChunk(self, data: bytes) -> None:
        """A part of the body."""
        if self._declined:
            return
        if self.content.tell() + len(data) > BODY_LIMIT:
            self._decline()
            return
        super().handleContentChunk(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """All of it is there."""
        if self._declined:
            return
        self.channel.complete()
        super().requestReceived(command, path, version)

    @property
    def body(self) -> bytes:
        """The body."""
        self.content.seek(0)
        return bytes(self.content.read())

    def _decline(self) -> None:
        self._declined = True
        self.channel.decline(problem(413, f"A body has at most {BODY_LIMIT} octets."))


class _Everything(Resource):
    """Whatever is asked for."""

    isLeaf = True

    def __init__(self, answer: Callable[[Ask], Deferred[Answer]]) -> None:
        """
        @param answer: answers a request.
        """
        super().__init__()
        self._answer = answer

    def render(self, request: AdminRequest) -> int:
        """Answer one request."""
        gone: list[Failure] = []
        request.notifyFinish().addErrback(gone.append)
        answering = self._answer(_ask_of(request))
        answering.addCallback(lambda answer: None if gone else _send(request, answer))
        answering.addErrback(AdminSite.report)
        return NOT_DONE_YET


class AdminSite(Site):
    """Serves the API; requests are worked on in threads of its own.

    @ivar connections: those there are.
    @ivar in_work: how many requests are in work or waiting.
    """

    _log = Logger()
    displayTracebacks = False

    def __init__(self, reactor: Any, answer: Callable[[Ask], Answer]) -> None:
        """
        @param reactor: C{Any}: no one interface has timers and threads.
        @param answer: answers a request, in a thread.
        """
        super().__init__(
            _Everything(self._work), requestFactory=AdminRequest, timeout=IDLE_SECONDS, reactor=reactor
        )
        # what Twisted makes by itself speaks HTTP/2 as well, which has no such limits
        self.protocol = AdminChannel  # type: ignore[method-assign, assignment]
        self.connections: set[AdminChannel] = set()
        self.in_work = 0
        self._reactor, self._answer = reactor, answer
        self._threads = ThreadPool(0, THREADS, "admin")
        self._idle: list[Deferred[None]] = []

    def log(self, request: Any) -> None:  # Any: it has its code by now, which Twisted does not say
        """Say what was asked for and what came of it, never what was sent."""
        path = request.uri.partition(b"?")[0].decode("ascii", "backslashreplace")
        self._log.info(
            "{method} {path} {status}",
            method=request.method.decode("ascii", "backslashreplace"),
            path=path,
            status=request.code,
        )

    def startFactory(self) -> None:
        """Take requests."""
        super().startFactory()
        if not self._threads.started:
            self._threads.start()

    def _work(self, ask: Ask) -> Deferred[Answer]:
        """The answer, later."""
        if self.in_work >= WORK_LIMIT:
            why = f"{WORK_LIMIT} requests are in work already; try again later."
            return succeed(problem(503, why, headers={"Retry-After": "1"}))
        self.in_work += 1
        working: Deferred[Answer] = deferToThreadPool(self._reactor, self._threads, self._answer, ask)
        return working.addBoth(self._worked)

    def _worked(self, result: Answer | Failure) -> Answer | Failure:
        self.in_work -= 1
        if not self.in_work:
            idle, self._idle = self._idle, []
            for one in idle:
                one.callback(None)
        return result

    @classmethod
    def report(cls, failure: Failure) -> None:
        """Answering failed, which it never should."""
        cls._log.failure("a request was not answered", failure)

    def drain(self) -> Deferred[None]:
        """Finish what is in work, close what is open, and end the threads."""
        return Deferred.fromCoroutine(self._drain())

    async def _drain(self) -> None:
        if self.in_work:
            idle: Deferred[None] = Deferred()
            self._idle.append(idle)
            idle.addTimeout(STOP_SECONDS, self._reactor, onTimeoutCancel=lambda *_: None)
            await idle
        for one in tuple(self.connections):
            one.loseConnection()
        if self._threads.started:
            self._threads.stop()


def _ask_of(request: AdminRequest) -> Ask:
    """What was asked."""
    path, _, query = request.uri.partition(b"?")
    header = request.requestHeaders.getRawHeaders
    kinds, tokens = header("content-type") or [""], header("authorization")
    return Ask(
        request.method.decode("ascii", "replace"),
        path.decode("ascii", "replace"),
        query.decode("ascii", "replace"),
        kinds[0].partition(";")[0].strip().lower(),
        request.body,
        None if tokens is None else tokens[0],
        request.channel.peer,
    )


def _send(request: AdminRequest, answer: Answer) -> None:
    """Answer."""
    request.setResponseCode(answer.status)
    headers = {
        "Content-Type": answer.kind,
        "Content-Length": str(len(answer.body)),
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        **answer.headers,
    }
    for name, value in headers.items():
        request.setHeader(name, value)
    if request.method != b"HEAD":
        request.write(answer.body)
    request.finish()
