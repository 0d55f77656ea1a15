"""Tests of L{rvpfarm.tap.reactor}, in processes of their own: there is one reactor per process."""

from __future__ import annotations

import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

#: What the reactor and its loop turn out to be.
_SHOW = """
from twisted.internet import reactor
print(type(reactor).__name__, type(getattr(reactor, "_asyncioEventloop", None)).__module__)
"""

#: Reads the options of a router.
_READ = """
from rvpfarm.tap.router import Options
Options().parseOptions(["-d", "sqlite:///x", "-n", "r1"])
"""


def run_python(program: str) -> str:
    """What a program prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60
    )
    return done.stdout + done.stderr


class InstallTests(SynchronousTestCase):
    """Daemons come up on the right reactor without anybody naming it."""

    def test_options_choose_uvloop(self) -> None:
        """Reading the options of a daemon chooses uvloop."""
        self.assertEqual(run_python(_READ + _SHOW), "LoopReactor uvloop\n")

    def test_several_workers(self) -> None:
        """A router with several workers starts processes, for which Twisted's own reactor is made."""
        program = _READ.replace('"r1"', '"r1", "--workers", "2"')
        self.assertRegex(run_python(program + _SHOW), r"^(?!Loop)\w+Reactor builtins\n$")

    def test_a_chosen_reactor_stays(self) -> None:
        """What C{twistd -r} installed is kept."""
        program = "from twisted.internet import selectreactor; selectreactor.install()\n" + _READ
        self.assertEqual(run_python(program + _SHOW), "SelectReactor builtins\n")

    def test_without_uvloop(self) -> None:
        """Where uvloop cannot be had, the stock loop serves."""
        program = (
            "import sys; sys.modules['uvloop'] = None\nfrom rvpfarm.tap.reactor import install; install()\n"
        )
        self.assertEqual(run_python(program + _SHOW), "LoopReactor asyncio.unix_events\n")

    def test_nothing_chooses_before(self) -> None:
        """Importing the daemons, their plugins and their log observers installs no reactor."""
        modules = ["router", "home", "farm", "nameserver", "settings"]
        program = (
            "import sys\n"
            "import rvpfarm.observe.logs, twisted.plugins.rvpfarm_plugin\n"
            f"import {', '.join(f'rvpfarm.tap.{name}' for name in modules)}\n"
            "print('twisted.internet.reactor' in sys.modules)\n"
        )
        self.assertEqual(run_python(program), "False\n")


class LoopReactorTests(SynchronousTestCase):
    """The reactor survives the fork of a daemon."""

    def test_after_the_fork(self) -> None:
        """What was scheduled and listened to before the fork goes on after it, on a loop of its own."""
        program = """
import os
from rvpfarm.tap.reactor import install
install()
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from rvpfarm.web.fast import soon_on

seen = []
class Echo(Protocol):
    def dataReceived(self, data):
        self.transport.write(data.upper())
class Ask(Protocol):
    def connectionMade(self):
        self.transport.write(b"hello")
    def dataReceived(self, data):
        seen.append(data)
        deferToThread(os.getpid).addCallback(seen.append).addBoth(lambda _: reactor.stop())

soon = soon_on(reactor)
port = reactor.listenTCP(0, Factory.forProtocol(Echo), interface="127.0.0.1")
reactor.callLater(0.01, lambda: connectProtocol(
    TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port), Ask()))
before = reactor._asyncioEventloop
reactor.beforeDaemonize()
if os.fork():
    os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
reactor.afterDaemonize()
assert reactor._asyncioEventloop is not before and before.is_closed()
soon(lambda: seen.append("soon"))
reactor.run()
assert seen == ["soon", b"HELLO", os.getpid()], seen
print("survived", flush=True)
"""
        self.assertEqual(run_python(program), "survived\n")
