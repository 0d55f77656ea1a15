"""Asks many processes for their status pages at once, none of which can hold up or flood the asker."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Hashable, Iterable
from http.client import HTTPException, HTTPResponse, IncompleteRead
from io import BytesIO
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TypeVar

from rvpfarm.admin.status import NoPage, Page, Place, read_page

#: Processes asked at once.
ASKED_AT_ONCE = 32
#: The largest answer that is read.
ANSWER_LIMIT = 1 << 20
#: How much longer than its time a question may take: for names that are slow to resolve.
GRACE_SECONDS = 1.0

#: Why somebody has told nothing, when nothing else is known.
TOO_LONG = "it took too long"

_PIECE = 65536

_Asked = TypeVar("_Asked", bound=Hashable)
_Told = TypeVar("_Told")


def ask_all(places: Iterable[Place], seconds: float) -> dict[Place, Page | str]:
    """What each place answers: its page, or why there is none, in words.

    @param seconds: how long each of them has for its whole answer.
    """
    return gather(places, lambda place: ask(place, seconds), seconds)


def gather(
    asked: Iterable[_Asked], ask: Callable[[_Asked], _Told | str], seconds: float
) -> dict[_Asked, _Told | str]:
    """What all of C{asked} tell, many of them at once: the answer of each, or why there is none, in words.

    @param ask: asks one of them, in a thread of its own.
    @param seconds: how long each of them has.
    """
    waiting: SimpleQueue[_Asked] = SimpleQueue()
    answers: SimpleQueue[tuple[_Asked, _Told | str]] = SimpleQueue()
    all_asked = list(dict.fromkeys(asked))
    for one in all_asked:
        waiting.put(one)

    def work() -> None:
        """Ask one after the other, until all are asked."""
        while True:
            try:
                one = waiting.get_nowait()
            except Empty:
                return
            answers.put((one, ask(one)))

    for _ in range(min(len(all_asked), ASKED_AT_ONCE)):
        # daemon threads: one that hangs in a name server must not keep the command from ending
        Thread(target=work, daemon=True).start()
    rounds = -(-len(all_asked) // ASKED_AT_ONCE)
    end = time.monotonic() + rounds * (seconds + GRACE_SECONDS)
    found: dict[_Asked, _Told | str] = {}
    while len(found) < len(all_asked):
        try:
            one, answer = answers.get(timeout=max(0.0, end - time.monotonic()))
        except Empty:
            break
        found[one] = answer
    return {one: found.get(one, TOO_LONG) for one in all_asked}


def ask(place: Place, seconds: float) -> Page | str:
    """What one place answers."""
    try:
        return read_page(fetch(place.host, place.port, seconds))
    except NoPage as problem:
        return str(problem)
    except TimeoutError:
        return TOO_LONG
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
        connection.settimeout(left_until(end))
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: {name}:{port}\r\nAccept: */*\r\n\r\n".encode())
        answer = bytearray()
        while True:
            connection.settimeout(left_until(end))
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


def left_until(end: float) -> float:
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
