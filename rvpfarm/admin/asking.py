"""Asks many processes for their status pages at once, none of which can hold up or flood the asker."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable
from http.client import HTTPException, HTTPResponse, IncompleteRead
from io import BytesIO
from queue import Empty, SimpleQueue
from threading import Thread

from rvpfarm.admin.status import NoPage, Page, Place, read_page

#: Processes asked at once.
ASKED_AT_ONCE = 32
#: The largest answer that is read.
ANSWER_LIMIT = 1 << 20
#: How much longer than its time a question may take: for names that are slow to resolve.
GRACE_SECONDS = 1.0

_PIECE = 65536


def ask_all(places: Iterable[Place], seconds: float) -> dict[Place, Page | str]:
    """What each place answers: its page, or why there is none, in words.

    @param seconds: how long each of them has for its whole answer.
    """
    waiting: SimpleQueue[Place] = SimpleQueue()
    answers: SimpleQueue[tuple[Place, Page | str]] = SimpleQueue()
    asked = list(dict.fromkeys(places))
    for place in asked:
        waiting.put(place)
    for _ in range(min(len(asked), ASKED_AT_ONCE)):
        # daemon threads: one that hangs in a name server must not keep the command from ending
        Thread(target=_work, args=(waiting, answers, seconds), daemon=True).start()
    rounds = -(-len(asked) // ASKED_AT_ONCE)
    end = time.monotonic() + rounds * (seconds + GRACE_SECONDS)
    found: dict[Place, Page | str] = {}
    while len(found) < len(asked):
        try:
            place, answer = answers.get(timeout=max(0.0, end - time.monotonic()))
        except Empty:
            break
        found[place] = answer
    return {place: found.get(place, "it took too long") for place in asked}


def _work(
    waiting: SimpleQueue[Place], answers: SimpleQueue[tuple[Place, Page | str]], seconds: float
) -> None:
    """Ask one after the other, until all are asked."""
    while True:
        try:
            place = waiting.get_nowait()
        except Empty:
            return
        answers.put((place, ask(place, seconds)))


def ask(place: Place, seconds: float) -> Page | str:
    """What one place answers."""
    try:
        return read_page(fetch(place.host, place.port, seconds))
    except NoPage as problem:
        return str(problem)
    except TimeoutError:
        return "it took too long"
    except IncompleteRead:
        return "it closed in the middle of its answer"
    except HTTPException:
        return "what answers there does not speak HTTP; is it another program?"
    except OSError as problem:
        return (problem.strerror or str(problem) or "no connection").lower()


def fetch(host: str, port: int, seconds: float, path: str = "/status") -> bytes:
    """The body of C{path}.

    The standard library's own client would wait for each octet anew, so a server that sends one now and
    then could hold it up for ever: here the whole answer has one deadline and one limit.

    @raise NoPage: there is no such page, or it is too large.
    @raise OSError: it cannot be had, or not in time.
    """
    end = time.monotonic() + seconds
    with socket.create_connection((host, port), timeout=seconds) as connection:
        name = f"[{host}]" if ":" in host else host
        connection.settimeout(_left(end))
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: {name}:{port}\r\nAccept: */*\r\n\r\n".encode())
        answer = bytearray()
        while True:
            connection.settimeout(_left(end))
            piece = connection.recv(_PIECE)
            if not piece:
                break
            answer += piece
            if len(answer) > ANSWER_LIMIT:
                raise NoPage(f"its answer is larger than {ANSWER_LIMIT} octets; is it another program?")
    response = HTTPResponse(_Held(bytes(answer)))  # type: ignore[arg-type]  # it only reads from it
    response.begin()
    body = response.read()
    if response.status == 404:
        raise NoPage("it has no status page; is it an older rvpfarm?")
    if response.status != 200:
        raise NoPage(f"it answers {response.status} when it is asked for its status")
    return body


def _left(end: float) -> float:
    """How long there is until C{end}.

    @raise TimeoutError: no time at all.
    """
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class _Held:
    """An answer that has arrived, for the standard library to take apart."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> BytesIO:
        """The answer as a file."""
        return BytesIO(self._data)
