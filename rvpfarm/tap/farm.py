"""C{twistd rvp-farm}: a whole small farm on this machine, for a look at it.

Unlike the other daemons it stays on Twisted's own reactor, on which child processes work well.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from twisted.application.service import IService, MultiService
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.logger import Logger
from twisted.python.usage import Options as UsageOptions

from rvpfarm.tap.banner import render_banner
from rvpfarm.tap.plan import Member, Plan, check_free, make_plan
from rvpfarm.tap.readiness import Readiness
from rvpfarm.tap.settings import HostPort, default_listen
from rvpfarm.tap.state import State, open_state

#: What is run when no option says otherwise.
ROUTERS = ("127.0.0.1:8080", "127.0.0.2:8080")
HOMES = ("127.0.0.11:8080", "127.0.0.12:8080")
USERS = ("alice", "bob", "carol", "dave")


class Options(UsageOptions):
    """Options of C{rvp-farm}."""

    longdesc = (
        "Runs routers, homes and a DNS server as child processes and prints how to log in. "
        "Made at the first start: a directory in SQLite, four users and their passwords; "
        "RVPFARM_DEMO_PASSWORD sets one password for all."
    )

    optParameters = [
        [
            "state-dir",
            "s",
            None,
            "directory of everything that is kept; default ./demo ($RVPFARM_DEMO_STATE)",
        ],
        ["dns", None, "127.0.0.1:5300", "ADDRESS:PORT of the DNS server, for UDP and TCP"],
        ["metrics", "m", "127.0.0.1:9464", "ADDRESS:PORT of the first process's metrics; the others follow"],
        ["domain", "d", "farm.localhost", "the mail domain; the IM domain is im.DOMAIN"],
    ]

    def __init__(self) -> None:
        super().__init__()
        self["routers"], self["homes"], self["users"] = [], [], []

    def opt_router(self, place: str) -> None:
        """ADDRESS:PORT of a router; may be given several times; default 127.0.0.1:8080 and 127.0.0.2:8080"""
        self["routers"].append(place)

    def opt_home(self, place: str) -> None:
        """ADDRESS:PORT or ADDRESS:PORT/LINKPORT of a home; may be given several times; default 127.0.0.11:8080 and 127.0.0.12:8080, each with the farm link on the next port"""  # noqa: E501 (twistd shows it)
        self["homes"].append(place)

    def opt_user(self, alias: str) -> None:
        """name of a user; may be given several times; default alice, bob, carol and dave"""
        self["users"].append(alias.lower())

    def postOptions(self) -> None:
        """Work out the farm.

        @raise UsageError: an address is malformed or used twice.
        """
        if self["state-dir"] is None:
            self["state-dir"] = os.environ.get("RVPFARM_DEMO_STATE") or "demo"
        self["plan"] = make_plan(
            self["routers"] or ROUTERS,
            self["homes"] or HOMES,
            self["dns"],
            self["metrics"],
            mail_domain=self["domain"].lower().strip("."),
            aliases=tuple(dict.fromkeys(self["users"] or USERS)),
        )


def child_arguments(member: Member, plan: Plan, state: State) -> list[str]:
    """The plugin and the options of one child process."""
    plugin = {"router": "rvp-router", "home": "rvp-home", "dns": "rvp-dns"}[member.role]
    arguments = [plugin, "--directory", state.directory, "--name", member.name]
    arguments += ["--metrics", str(member.metrics)]
    if member.role == "dns":
        return [*arguments, "--zone", plan.mail_domain, "--listen", str(member.listen)]
    arguments += ["--key-file", str(state.key_file)]
    arguments += ["--listen", default_listen(member.listen.host, member.listen.port)]
    if member.link is not None:
        arguments += ["--link", default_listen(member.link.host, member.link.port)]
        arguments += ["--state-dir", str(state.home(member.name))]
    return arguments


def leave_with_failure() -> None:
    """Make the exit status of this process 1: twistd itself always leaves with 0."""

    def leave() -> None:
        sys.stdout.flush()
        os._exit(1)

    atexit.register(leave)


class FarmService(MultiService):
    """The children, who waits for them, and what is told to the person who started it all."""

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        children: Any,
        plan: Plan,
        lock: IO[str],
        announce: Callable[[], None],
        complain: Callable[[str], None],
        *,
        fail: Callable[[], None] = leave_with_failure,
    ) -> None:
        """
        @param reactor: the real one (C{Any}: no one interface has processes, connections and C{stop}).
        @param children: makes the L{rvpfarm.tap.children.Children}, given whom to tell of failing ones
            (C{Any}: its module may be imported only after the reactor is chosen).
        @param lock: keeps other farms out of the state directory.
        @param announce: called once, when all are ready.
        @param complain: told in a few lines what is wrong.
        @param fail: arranges for an exit status that tells of failure.
        """
        super().__init__()
        self._reactor = reactor
        self._lock = lock
        self._announce = announce
        self._complain = complain
        self._fail = fail
        self._announced = False
        self.children = children(self._failing)
        self.children.setServiceParent(self)
        places = {member.name: member.metrics for member in plan.members}
        self._readiness = Readiness(reactor, self._connect, places, self._ready)
        self._readiness.setServiceParent(self)

    def stopService(self) -> Deferred[Any]:
        """Stop the children; fires when the last one is gone and another farm may have the state."""
        stopped = maybeDeferred(super().stopService)

        def release(result: Any) -> Any:
            """Let another farm in."""
            self._lock.close()
            return result

        return stopped.addBoth(release)

    def _connect(self, place: HostPort) -> IStreamClientEndpoint:
        """Where a child serves its health."""
        kind = TCP6ClientEndpoint if ":" in place.host else TCP4ClientEndpoint
        return kind(self._reactor, place.host, place.port, timeout=3)

    def _ready(self) -> None:
        """Everything serves."""
        self._announced = True
        self._announce()

    def _failing(self, name: str, how: str) -> None:
        """A child keeps dying.  Before the farm was ready that ends it; later the child is tried on."""
        from rvpfarm.tap.children import tail

        path = self.children.log_path(name)
        lines = [f"rvp-farm: {name} keeps ending ({how}); the end of {path} says:", *tail(path)]
        self._complain("\n  ".join(lines))
        if not self._announced:
            self._fail()
            self._reactor.stop()


def _out(stream: IO[str] | None) -> Callable[[str], None]:
    """Writes to a person: twistd has the usual streams redirected to its log."""

    def write(text: str) -> None:
        if stream is not None:
            stream.write(f"{text}\n")
            stream.flush()

    return write


def _command(name: str, arguments: Sequence[str], here: Path) -> str:
    """How to type the installed command C{name}: it stands beside the twistd that runs, or beside Python."""
    for folder in (Path(arguments[0]).parent, Path(sys.executable).parent):
        path = folder.absolute() / name
        if path.is_file():
            return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
    return name


def makeService(
    options: Options,
    reactor: Any = None,
    environment: Mapping[str, str] = os.environ,
    write: Callable[[str], None] | None = None,
) -> IService:
    """Check that everything can be had, make what is missing, and build the farm.

    @param reactor: the installed one if C{None} (C{Any}: no one interface has all that is needed of it).
    @param environment: where C{RVPFARM_DEMO_PASSWORD} may be.
    @param write: tells the person who started it; the process's own output if C{None}.
    @raise SystemExit: an address or the state directory cannot be had; one sentence.
    """
    if reactor is None:
        from twisted.internet import reactor
    # Children brings the reactor, and both bring what only a running farm needs.
    from rvpfarm.tap.children import Children, child_environment, twistd_arguments
    from rvpfarm.tap.demo import prepare_farm

    tell = write or _out(sys.__stdout__)
    plan: Plan = options["plan"]
    state, lock = open_state(Path(options["state-dir"]))
    check_free(plan)
    users = prepare_farm(plan, state, environment.get("RVPFARM_DEMO_PASSWORD") or None)

    def announce() -> None:
        """Tell how to log in."""
        here = Path.cwd()
        rvp, rvpfarm = (_command(name, sys.argv, here) for name in ("rvp", "rvpfarm"))
        tell(render_banner(plan, users, state, rvp, rvpfarm))

    top = FarmService(
        reactor,
        lambda failing: Children(reactor, state.logs, failing),
        plan,
        lock,
        announce,
        write or _out(sys.__stderr__),
    )
    for member in plan.members:
        arguments = twistd_arguments(*child_arguments(member, plan, state))
        top.children.add(member.name, arguments, child_environment(environment))
    return top
