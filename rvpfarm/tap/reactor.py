"""The reactor of a daemon: Twisted's asyncio reactor on uvloop, chosen before anything imports a reactor."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.interfaces import IReactorDaemonize
from twisted.internet.main import installReactor
from zope.interface import implementer


def new_loop() -> asyncio.AbstractEventLoop:
    """A fresh event loop: uvloop's where it can be had, else the stock one."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


@implementer(IReactorDaemonize)
class LoopReactor(AsyncioSelectorReactor):
    """Twisted's asyncio reactor, able to survive the fork of C{twistd} without C{-n}.

    An event loop does not belong on both sides of a fork: libuv may keep rings in memory that the child
    does not get, and the epoll descriptor would be shared with the parent.  So the loop is closed
    before the fork and a new one is made after it: nobody may keep the loop, or a method of it, from
    before the services were started.

    It runs no child processes reliably: uvloop takes the descriptor by which Twisted hears of C{SIGCHLD}.
    C{rvpfarm.tap.farm}, which has children, stays on Twisted's own reactor.
    """

    def __init__(self, make: Callable[[], asyncio.AbstractEventLoop] = new_loop) -> None:
        """
        @param make: makes the loop, now and after a fork.
        """
        self._make = make
        loop = make()
        asyncio.set_event_loop(loop)
        super().__init__(loop)

    def beforeDaemonize(self) -> None:
        """Take everything off the loop and close it."""
        for fd in self._readers.values():
            self._asyncioEventloop.remove_reader(fd)
        for fd in self._writers.values():
            self._asyncioEventloop.remove_writer(fd)
        if self._timerHandle is not None:
            self._timerHandle.cancel()
            self._timerHandle = None
        self._scheduledAt = None
        self._reports = self._asyncioEventloop.get_exception_handler()
        self._asyncioEventloop.close()

    def afterDaemonize(self) -> None:
        """Put everything on a new loop."""
        self._asyncioEventloop = self._make()
        asyncio.set_event_loop(self._asyncioEventloop)
        self._asyncioEventloop.set_exception_handler(self._reports)
        readers, writers = list(self._readers), list(self._writers)
        self._readers.clear()
        self._writers.clear()
        for reader in readers:
            self.addReader(reader)
        for writer in writers:
            self.addWriter(writer)
        self._reschedule()


def install() -> None:
    """Make L{LoopReactor} the reactor of this process, unless one is installed already.

    So C{twistd -r NAME} still wins, and the default is right without it.
    """
    if "twisted.internet.reactor" not in sys.modules:
        installReactor(LoopReactor())
