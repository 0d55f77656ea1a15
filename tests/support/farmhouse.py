"""Real homes and routers in the two profiles of the protocol notes, section 12.

A L{Farmhouse} is a directory in a directory of its own and the C{twistd} processes over it.  Those that tests
share are started when first asked for and stopped when the tests are over.
"""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from rvpfarm.admin import handlers
from rvpfarm.directory.store import Store
from tests.support.processes import BIN, PATIENCE_SECONDS, free_ports, scratch, wait_for
from tests.support.wire import Listener, NameServer, Wire

DOMAIN = "im.fabrik.example"
#: A second domain of profile S, where only the schemes of the year 2000 are offered.
MILL = "im.mill.example"
#: Whose servers are elsewhere.
ORCHARD = "im.orchard.example"
#: Whose name leads to where nobody else may send a home: its own machine.
TRAP = "im.trap.example"
PETRA = f"http://{DOMAIN}/instmsg/aliases/petra"
TOMASZ = f"http://{DOMAIN}/instmsg/aliases/tomasz"
PASSWORDS = {"petra": "Blue-Kite-41", "tomasz": "Green-Drum-52", "marta": "Oak-Lamp-63"}
NAMES = {"petra": "Petra Novak", "tomasz": "Tomasz Lis", "marta": "Marta Sowa"}


class Member:
    """One process of a farm.

    @ivar host: where it listens; C{port} likewise.
    @ivar metrics: where it shows its metrics, health and status.
    """

    def __init__(
        self, name: str, plugin: str, host: str, port: int, state: Path, *options: str, recorded: int = 0
    ) -> None:
        """
        @param recorded: the port at which it is to show its metrics since the directory says so; left out,
            an option says where.
        """
        self.name, self.host, self.port = name, host, port
        (metrics,) = free_ports(1, host)
        self.metrics = (host, recorded or metrics)
        self._log = state / f"{name}.log"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(str(BIN / "twistd"), "--nodaemon", "--pidfile="),
                    *("--logger", "rvpfarm.observe.logs.json_lines", plugin),
                    *("--directory", f"sqlite:///{state / 'directory.sqlite'}", "--name", name),
                    *("--listen", f"fast:tcp:{port}:interface={host}"),
                    *(() if recorded else ("--metrics", f"{host}:{metrics}")),
                    *options,
                ],
                stdin=subprocess.PIPE,  # it stops when this ends, however the tests may end
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=state,
                env={**os.environ, "RVPFARM_STOP_AT_EOF": "1"},
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return self._log.read_text("utf-8", "replace")

    def page(self, path: str) -> bytes:
        """A page of its health server, head included; empty while there is none."""
        try:
            with socket.create_connection(self.metrics, PATIENCE_SECONDS) as asking:
                asking.sendall(b"GET %b HTTP/1.0\r\n\r\n" % path.encode())
                with asking.makefile("rb") as answer:
                    return answer.read()
        except ConnectionError:
            return b""

    def await_ready(self) -> None:
        """Wait until it says that it is ready.

        @raise AssertionError: it ended instead, or took too long.
        """

        def ready() -> bool:
            assert self._process.poll() is None, f"{self.name} ended: {self.log}"
            return b" 200 " in self.page("/readyz").partition(b"\r\n")[0]

        wait_for(f"{self.name} being ready", ready)

    def kill(self) -> None:
        """End it as C{kill -9} does."""
        self._process.kill()
        self._process.wait(PATIENCE_SECONDS)

    def stop(self) -> None:
        """Let its standard input end, and wait for its own end.

        @raise AssertionError: that did not come; it was killed.
        """
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise AssertionError(f"{self.name} did not stop: {self.log[-4000:]}") from None


class Farmhouse:
    """A farm of few members.

    @ivar homes: by name; C{routers} likewise.
    @ivar orchard: the server of the other organisation, where its name leads.
    @ivar ingrid: the logical URL of somebody there.
    """

    def __init__(
        self,
        *,
        homes: Sequence[str] = ("hs1",),
        routers: Sequence[str] = (),
        users: Mapping[str, str] | None = None,
        policies: Mapping[str, str] | None = None,
    ) -> None:
        """
        @param users: the home of each user; petra and tomasz on the first home if not given.
        @param policies: besides C{federation=open}.
        """
        self._stack = ExitStack()
        self.state = self._stack.enter_context(scratch())
        self.homes: dict[str, Member] = {}
        self.routers: dict[str, Member] = {}
        self._open_orchard()
        names = NameServer({ORCHARD: self.orchard.host, TRAP: "127.0.0.1"})
        self._stack.callback(names.close)
        self._dns = names.where
        store, _ = handlers.prepare(f"sqlite:///{self.state / 'directory.sqlite'}", self.state / "farm.key")
        try:
            self._build(store, homes, routers, users or dict.fromkeys(PASSWORDS, homes[0]), policies or {})
        finally:
            store.close()
        for name in homes:
            self.homes[name] = self._home(name)
        for name in routers:
            self.routers[name] = self._router(name)
        for member in (*self.homes.values(), *self.routers.values()):
            member.await_ready()

    @property
    def home(self) -> Member:
        """The first home."""
        return next(iter(self.homes.values()))

    def connect(self, member: Member | None = None, *, source: str = "") -> Wire:
        """A connection to a member, the first home if not given."""
        member = member or self.home
        return Wire(member.host, member.port, source=source)

    def close(self) -> None:
        """Stop everything."""
        self._stack.close()

    def _open_orchard(self) -> None:
        """Have the other organisation listen: on port 80 if we may, since RVP knows no other."""
        number = os.getpid()
        host = f"127.80.{number >> 8 & 255}.{number & 255 or 1}"
        try:
            self.orchard = Listener(200, host, 80)
            port = ""
        except OSError:
            self.orchard = Listener(200, host)
            port = f":{self.orchard.port}"
        self._stack.callback(self.orchard.close)
        self.ingrid = f"http://{ORCHARD}{port}/instmsg/aliases/ingrid"

    def _build(
        self,
        store: Store,
        homes: Sequence[str],
        routers: Sequence[str],
        users: Mapping[str, str],
        policies: Mapping[str, str],
    ) -> None:
        """Fill the directory as an administrator would."""
        handlers.init(store)
        handlers.add_domain(store, DOMAIN, ["fabrik.example"], netbios="FABRIK")
        handlers.set_policy(store, "federation", "open")
        for name, value in policies.items():
            handlers.set_policy(store, name, value)
        if policies.get("authentication") != "off":
            handlers.add_domain(store, MILL, ["mill.example"])
            handlers.set_policy(store, "schemes", "ntlm digest-md5", MILL)
        handlers.add_network(store, "call-back", "192.0.2.0/24")
        handlers.add_network(store, "call-back", f"{self.orchard.host}/32")
        for number, name in enumerate(homes, 11):
            # Clients find a home at port 80, as redirects say; --listen says where it really is.
            (link,) = free_ports(1, f"127.0.0.{number}")
            handlers.create_home(store, name, f"{name}.fabrik.example", 80, link, f"127.0.0.{number}")
        for number, name in enumerate(routers, 21):
            handlers.create_router(store, name, f"{name}.fabrik.example", 80, f"127.0.0.{number}")
        for alias, home in users.items():
            handlers.enable_user(
                store,
                f"{alias}@fabrik.example",
                home,
                display_name=NAMES.get(alias, alias),
                password=PASSWORDS.get(alias),
            )

    def restart(self, name: str) -> Member:
        """Start a home that has ended anew, with metrics where the directory says that they are."""
        known = self.homes[name]
        state, metrics = str(self.state / name), known.metrics[1]
        member = Member(
            *(name, "rvp-home", known.host, known.port, self.state),
            *("--state-dir", state, "--dns", self._dns),
            recorded=metrics,
        )
        self._stack.callback(member.stop)
        self.homes[name] = member
        return member

    def _home(self, name: str) -> Member:
        """Start a home."""
        host = f"127.0.0.{11 + len(self.homes)}"
        (port,) = free_ports(1, host)
        state = str(self.state / name)
        member = Member(name, "rvp-home", host, port, self.state, "--state-dir", state, "--dns", self._dns)
        self._stack.callback(member.stop)
        return member

    def _router(self, name: str) -> Member:
        """Start a router."""
        host = f"127.0.0.{21 + len(self.routers)}"
        (port,) = free_ports(1, host)
        member = Member(name, "rvp-router", host, port, self.state)
        self._stack.callback(member.stop)
        return member


_houses: dict[str, Farmhouse] = {}
_until_exit = ExitStack()
atexit.register(_until_exit.close)


def _shared(name: str, **how: object) -> Farmhouse:
    """The farm of that name, running; stopped when the tests are over."""
    if name not in _houses:
        house = Farmhouse(**how)  # type: ignore[arg-type]
        _until_exit.callback(house.close)
        _houses[name] = house
    return _houses[name]


#: Users beside petra and tomasz, for whoever needs many nodes.
EXTRAS = tuple(f"extra{number}" for number in range(1, 17))


def profile_o() -> Farmhouse:
    """Authentication is off; one host is router and home, with petra, tomasz and L{EXTRAS}."""
    users = dict.fromkeys((*PASSWORDS, *EXTRAS), "hs1")
    return _shared("O", users=users, policies={"authentication": "off"})


def profile_s() -> Farmhouse:
    """Everybody has to prove who he is, by any scheme there is."""
    return _shared("S")


def profile_o_routed() -> Farmhouse:
    """As L{profile_o}, but a separate router stands before C{hs2}, where petra is; tomasz is on C{hs1}."""
    return _shared(
        "routed",
        homes=("hs1", "hs2"),
        routers=("router1",),
        users={"petra": "hs2", "tomasz": "hs1"},
        policies={"authentication": "off"},
    )
