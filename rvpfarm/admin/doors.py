"""Into running homes, for commands: blocking calls over the farm link, each with a deadline.

The metrics port of a process is open to whoever reaches it, so it shows figures and nothing else.  Whoever is
in sessions, and whatever changes something, goes over the farm link, where both ends prove that they know the
farm key; see L{rvpfarm.protocol.control}.
"""

from __future__ import annotations

import html
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rvpfarm.admin.actors import default_actor
from rvpfarm.admin.asking import gather, left_until
from rvpfarm.admin.checks import NO_HOME, Refused, home_named
from rvpfarm.auth.keys import FarmKey
from rvpfarm.directory.model import Farm, Home
from rvpfarm.directory.store import Store
from rvpfarm.link.frames import (
    CHALLENGE_ONLY,
    WELCOME_ONLY,
    Frame,
    FrameReader,
    ReplyFrame,
    from_home,
    render_answered,
    render_call,
)
from rvpfarm.link.kinds import BadFrame
from rvpfarm.link.meeting import (
    NONCE_SIZE,
    Challenge,
    Hello,
    Meeting,
    Welcome,
    is_proof,
    render_hello,
    render_proof,
)
from rvpfarm.protocol.calls import BadRequest, Call
from rvpfarm.protocol.control import Facts, parse_facts, render_question

_PIECE = 65536
_TEXT = re.compile(rb"<html><body>(.*)</body></html>", re.DOTALL)
#: So much of the administrator's name is told to the home.
_NAME_LENGTH = 60

_Told = TypeVar("_Told")


class NoAnswer(Exception):
    """A home did not do what it was asked; the text says why, without naming it.

    @ivar status: what it answered; 0 when it answered nothing.
    """

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


class Door:
    """A proved connection to one home.  It belongs to one thread, and is closed at the end of a C{with}.

    @ivar home: the home at the other end.
    """

    def __init__(self, home: Home, key: bytes, caller: str, seconds: float) -> None:
        """
        @param key: the farm key's part for links.
        @param caller: what the home is to call this end in its log.
        @param seconds: how long everything may take, from now on, until L{extend}.
        @raise NoAnswer: the home cannot be reached, or does not prove itself.
        """
        self.home = home
        self._seconds = seconds
        self._until = time.monotonic() + seconds
        self._reader = FrameReader(CHALLENGE_ONLY)
        self._frames: list[Frame] = []
        self._next_id = 0
        try:
            self._socket = socket.create_connection((home.address or home.host, home.link_port), seconds)
        except OSError as problem:
            raise NoAnswer(_reason(problem)) from problem
        try:
            self._prove(home, key, caller)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Door:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def extend(self) -> None:
        """As much time as there was at the beginning."""
        self._until = time.monotonic() + self._seconds

    def ask(self, operation: str, **facts: object) -> Facts:
        """What the home answers to a control call.

        @raise NoAnswer: it refuses, fails, or takes too long.
        """
        id = self.begin(render_question(operation, facts))
        while True:
            frame = self._receive()
            if isinstance(frame, ReplyFrame) and frame.id == id:
                break
        self._send(render_answered((id,)))
        status, body = _taken_apart(frame.wire)
        if status != 200:
            said = _TEXT.search(body)
            why = html.unescape(said[1].decode("utf-8", "replace")) if said else ""
            raise NoAnswer(why or f"it answers {status}", status)
        try:
            return parse_facts(body)
        except BadRequest as problem:
            raise NoAnswer("its answer makes no sense; is it another rvpfarm?") from problem

    def begin(self, call: Call) -> int:
        """Send C{call}; L{answers} has the status of its answer under the id that is returned.

        @raise NoAnswer: the connection is gone.
        """
        self._next_id += 1
        self._send(render_call(self._next_id, call))
        return self._next_id

    def answers(self, seconds: float) -> Iterator[tuple[int, int]]:
        """The ids and statuses of the answers that are there, at least one unless C{seconds} pass before.

        @raise NoAnswer: the connection is gone.
        """
        self._until = time.monotonic() + seconds
        try:
            frame: Frame | None = self._receive()
        except TimeoutError:
            return
        self.extend()
        while frame is not None:
            if isinstance(frame, ReplyFrame):
                self._send(render_answered((frame.id,)))
                yield frame.id, _taken_apart(frame.wire)[0]
            frame = self._frames.pop(0) if self._frames else None

    def _prove(self, home: Home, key: bytes, caller: str) -> None:
        """The handshake; without editions, so that every answer comes in one frame."""
        nonce, origin = secrets.token_bytes(NONCE_SIZE), secrets.randbits(63)
        wrong = NoAnswer("it does not know the farm key; do both sides share one key file?")
        try:
            self._send(render_hello(Hello(origin, nonce, caller, home.id)))
            challenge = self._receive()
            assert isinstance(challenge, Challenge)
            meeting = Meeting(caller, home.id, origin, nonce, challenge.nonce)
            self._reader.allowed = WELCOME_ONLY
            self._send(render_proof(meeting.caller_proof(key)))
            welcome = self._receive()
        except (EOFError, BadFrame) as problem:
            raise NoAnswer(
                "it closed before it was proved: do both sides share one farm key, and is its place in the "
                "directory right?"
            ) from problem
        assert isinstance(welcome, Welcome)
        if not is_proof(welcome.proof, meeting.home_proof(key, welcome.standing)):
            raise wrong
        self._reader.allowed = from_home(0)

    def _send(self, data: bytes) -> None:
        try:
            self._socket.settimeout(left_until(self._until))
            self._socket.sendall(data)
        except TimeoutError:
            raise
        except ConnectionError as problem:
            raise EOFError from problem
        except OSError as problem:
            raise NoAnswer(_reason(problem)) from problem

    def _receive(self) -> Frame:
        """The next frame.

        @raise EOFError: the home has closed.
        @raise TimeoutError: it has taken too long.
        @raise NoAnswer: the connection failed.
        """
        while not self._frames:
            self._socket.settimeout(left_until(self._until))
            try:
                piece = self._socket.recv(_PIECE)
            except ConnectionError:
                piece = b""
            except TimeoutError:
                raise
            except OSError as problem:
                raise NoAnswer(_reason(problem)) from problem
            if not piece:
                raise EOFError
            self._frames += self._reader.feed(piece)
        return self._frames.pop(0)


def link_key(store: Store) -> bytes:
    """By what an administrator proves himself to homes.

    @raise Refused: the farm key is not there.
    """
    if not isinstance(store.sealer, FarmKey):
        raise Refused("running homes are asked with the farm key, and it is not here; give --key-file")
    return store.sealer.link


def homes_of(farm: Farm, name: str | None = None) -> list[Home]:
    """The homes to ask: the one of that name, or all, by name.

    @raise Refused: there is none.
    """
    if name is not None:
        return [home_named(farm, name)]
    if not farm.homes:
        raise Refused(NO_HOME)
    return sorted(farm.homes.values(), key=lambda home: home.name)


def visit(
    home: Home, key: bytes, seconds: float, what: Callable[[Door], _Told], actor: str | None = None
) -> _Told:
    """Do C{what} at one home.

    @param actor: who does it; the OS user if not given.
    @raise NoAnswer: the home did not do it.
    """
    caller = f"admin {actor or default_actor()}"[:_NAME_LENGTH]
    try:
        with Door(home, key, caller, seconds) as door:
            return what(door)
    except TimeoutError as problem:
        raise NoAnswer("it took too long") from problem
    except EOFError as problem:
        raise NoAnswer("it closed in the middle of its answer; does it stop just now?") from problem
    except (BadFrame, BadRequest) as problem:
        raise NoAnswer("its answer makes no sense; is it another rvpfarm?") from problem


def visit_all(
    homes: Iterable[Home],
    key: bytes,
    seconds: float,
    what: Callable[[Door], _Told],
    actor: str | None = None,
) -> tuple[dict[str, _Told], dict[str, str]]:
    """Do C{what} at many homes at once.

    @param seconds: how long each home has.
    @return: what each told, by its name; and why the others told nothing.
    """

    def one(home: Home) -> tuple[_Told] | str:
        try:
            return (visit(home, key, seconds, what, actor),)
        except NoAnswer as problem:
            return str(problem)

    told: dict[str, _Told] = {}
    silent: dict[str, str] = {}
    for home, answer in gather(homes, one, seconds).items():
        if isinstance(answer, str):
            silent[home.name] = answer
        else:
            told[home.name] = answer[0]
    return told, silent


def refuse_silence(home: Home, problem: NoAnswer) -> Refused:
    """What to say when the one home that is needed did not do it."""
    if problem.status in (400, 403, 404, 501):
        return Refused(str(problem))
    return Refused(
        f'home {home.name} did not answer: {problem}; it has to run for this, and "rvpfarm status" says '
        "whether it does"
    )


def _taken_apart(wire: bytes) -> tuple[int, bytes]:
    """The status and the body of an answer."""
    return int(wire[9:12]), wire.partition(b"\r\n\r\n")[2]


def _reason(problem: OSError) -> str:
    """Why there is no connection, in words."""
    if isinstance(problem, TimeoutError):
        return "it took too long"
    return (problem.strerror or str(problem) or "no connection").lower()
