"""Connections on their way in: on each kind of loop, and where there is none; and a system without sockets."""

from __future__ import annotations

import errno
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.web.arriving import Arrivals
from rvpfarm.web.fast import FastServerEndpoint
from tests.support.folders import folder
from tests.web.test_fast import ROOT, SCRIPT


class LoopsTests(SynchronousTestCase):
    """Everything in C{loops_arriving} holds on uvloop and on the stock asyncio loop."""

    def check(self, kind: str) -> None:
        """The tests there pass on a loop of this kind."""
        where = str(folder(self) / "trial")
        command = [sys.executable, "-c", SCRIPT, kind, "--temp-directory", where, "tests.web.loops_arriving"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("PASSED", done.stdout)

    def test_uvloop(self) -> None:
        """On uvloop's loop."""
        self.check("uvloop")

    def test_asyncio(self) -> None:
        """On the stock loop."""
        self.check("asyncio")


class NoLoopTests(SynchronousTestCase):
    """On another reactor a listener cannot demand preambles, and says so."""

    def test_refused(self) -> None:
        """It would otherwise take what stands there for a request, and the proxy for the caller."""
        endpoint = FastServerEndpoint(MemoryReactorClock(), 80, proxied=True)
        problem = self.failureResultOf(endpoint.listen(Factory.forProtocol(Protocol)), CannotListenError)
        self.assertIn("proxyProtocol needs the asyncio reactor", str(problem.value))


class FakeLoop:
    """Notes what it is to watch and what it is to do later."""

    def __init__(self) -> None:
        self.readers: dict[int, Callable[[], None]] = {}
        self.later: list[tuple[float, Callable[[], None]]] = []

    def add_reader(self, fd: int, ready: Callable[[], None]) -> None:
        """Watch it."""
        self.readers[fd] = ready

    def remove_reader(self, fd: int) -> bool:
        """Watch it no longer."""
        return self.readers.pop(fd, None) is not None

    def call_later(self, seconds: float, function: Callable[[], None]) -> Any:
        """Do it later."""
        self.later.append((seconds, function))
        return self

    def cancel(self) -> None:
        """Never do it."""
        self.later.clear()


class FakeListening:
    """A listening socket on which accepting goes wrong.

    @ivar problems: what goes wrong, in order; afterwards nobody is there.
    """

    def __init__(self, *problems: int) -> None:
        self.problems = list(problems)

    def fileno(self) -> int:
        """Some number."""
        return 7

    def accept(self) -> tuple[socket.socket, tuple[str, int]]:
        """Fail."""
        if self.problems:
            number = self.problems.pop(0)
            raise OSError(number, "as the test has it")
        raise BlockingIOError


class ExhaustedTests(SynchronousTestCase):
    """A system that has no more sockets is given a rest, and what is wrong with one connection is its own."""

    def arrivals(self, *problems: int) -> tuple[Arrivals, FakeLoop, FakeListening]:
        """Arrivals that are open, and what they stand on."""
        loop, listening = FakeLoop(), FakeListening(*problems)
        arrivals = Arrivals(loop, listening, Factory.forProtocol(Protocol))  # type: ignore[arg-type]
        arrivals.open()
        return arrivals, loop, listening

    def test_rest(self) -> None:
        """Without sockets nobody is accepted for a second, instead of the loop being told of it for ever."""
        arrivals, loop, listening = self.arrivals(errno.EMFILE, errno.ENFILE)
        for _ in range(2):
            loop.readers[7]()
            self.assertEqual(loop.readers, {})
            ((seconds, again),) = loop.later
            self.assertEqual(seconds, 1.0)
            loop.later.clear()
            again()
        loop.readers[7]()
        self.assertEqual(listening.problems, [])
        arrivals.close()
        self.assertEqual(loop.readers, {})

    def test_closed_in_the_meantime(self) -> None:
        """A listener that stops during that second is not opened again."""
        arrivals, loop, _ = self.arrivals(errno.ENOMEM)
        loop.readers[7]()
        arrivals.close()
        self.assertEqual((loop.readers, loop.later), ({}, []))

    def test_one_is_gone(self) -> None:
        """A connection that is gone before it is accepted keeps nobody else waiting."""
        _, loop, listening = self.arrivals(errno.ECONNABORTED, errno.EPROTO, errno.ENETDOWN)
        loop.readers[7]()
        self.assertEqual((listening.problems, list(loop.readers)), ([], [7]))
