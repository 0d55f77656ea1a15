"""What every daemon is told: which directory, who am I, where to listen, where is my state.

Each setting is an option of C{twistd rvp-...} and, when the option is not given, an environment variable
C{RVPFARM_...}.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.usage import Options, UsageError
from zope.interface import implementer

from rvpfarm.protocol.address import is_ip
from rvpfarm.protocol.calls import SIGN_IN_SCHEMES, withhold
from rvpfarm.tap.reactor import install

#: With this variable set to 1 a daemon stops when its standard input ends.
STOP_AT_EOF = "RVPFARM_STOP_AT_EOF"


@dataclass(frozen=True, slots=True)
class HostPort:
    """An IP address or host name, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        """As it is typed: C{127.0.0.1:8080}, C{[::1]:8080}."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_host_port(text: str, option: str) -> HostPort:
    """The value C{ADDRESS:PORT} of C{option}.

    @raise UsageError: it is something else.
    """
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    if not host or not colon or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
        raise UsageError(f"--{option}: {text!r} is not ADDRESS:PORT, such as 127.0.0.1:8080")
    return HostPort(host, int(port))


def default_key_file(directory: str) -> str:
    """The file of the farm key when none is named: C{farm.key}, beside the SQLite file if there is one."""
    scheme, separator, path = directory.partition("://")
    if separator and scheme.split("+")[0] == "sqlite":
        path = path.partition("?")[0].removeprefix("/")
        return str(Path(path).parent / "farm.key")
    return "farm.key"


class EnvironmentOptions(Options):
    """Options whose defaults come from the environment.  Making one chooses the daemon's reactor.

    @cvar environment: the variable of each option that has one.
    @cvar needed: options that must have a value.
    """

    environment: Mapping[str, str] = {}
    needed: tuple[str, ...] = ()

    def __init__(self) -> None:
        install()
        super().__init__()

    def postOptions(self) -> None:
        """Fill in from the environment, then see that nothing is missing.

        @raise UsageError: a needed option is given nowhere.
        """
        for name, variable in self.environment.items():
            if self[name] is None:
                self[name] = os.environ.get(variable) or None
        for name in self.needed:
            if self[name] is None:
                raise UsageError(f"--{name} is needed (or {self.environment[name]} in the environment)")


class DaemonOptions(EnvironmentOptions):
    """The options that routers, homes and name servers share.

    After parsing, C{self["metrics"]} is a L{HostPort} or C{None}, and C{self["key-file"]} a path.
    """

    optParameters = [
        ["directory", "d", None, "URL of the shared directory, as sqlite:///PATH ($RVPFARM_DIRECTORY)"],
        [
            "key-file",
            "k",
            None,
            "file of the farm key; default: farm.key beside the SQLite directory ($RVPFARM_KEY_FILE)",
        ],
        ["name", "n", None, "name of this server in the directory ($RVPFARM_NAME)"],
        [
            "metrics",
            "m",
            None,
            "serve metrics, health and status at ADDRESS:PORT; default: where the directory says, if it does "
            "($RVPFARM_METRICS)",
        ],
    ]
    environment = {
        "directory": "RVPFARM_DIRECTORY",
        "key-file": "RVPFARM_KEY_FILE",
        "name": "RVPFARM_NAME",
        "metrics": "RVPFARM_METRICS",
    }
    needed: tuple[str, ...] = ("directory", "name")

    def postOptions(self) -> None:
        """Complete and check.

        @raise UsageError: a needed option is missing, or an address is malformed.
        """
        super().postOptions()
        if self["key-file"] is None:
            self["key-file"] = default_key_file(self["directory"])
        if self["metrics"] is not None:
            self["metrics"] = parse_host_port(self["metrics"], "metrics")


class RouterOptions(DaemonOptions):
    """The options of a router."""

    optParameters = [
        [
            "listen",
            "l",
            None,
            "endpoint to listen on, as fast:tcp:80, or fast:tcp:80:proxyProtocol=1 behind a load balancer "
            "that sends the PROXY protocol; default: as the directory says ($RVPFARM_LISTEN)",
        ],
        [
            "schemes",
            None,
            None,
            "the only ways to sign in that are offered to callers of this listener, of those that the policy "
            f"allows: any of {', '.join(SIGN_IN_SCHEMES)}; default: all ($RVPFARM_SCHEMES)",
        ],
        [
            "snapshot",
            None,
            None,
            "file that keeps, sealed, what is known of the directory, for a start while it is down; 'none' "
            "for no such file; default: directory.snapshot in --state-dir, or NAME.snapshot beside the farm "
            "key ($RVPFARM_SNAPSHOT)",
        ],
    ]
    environment = {
        **DaemonOptions.environment,
        "listen": "RVPFARM_LISTEN",
        "schemes": "RVPFARM_SCHEMES",
        "snapshot": "RVPFARM_SNAPSHOT",
    }

    def postOptions(self) -> None:
        """Complete and check.

        C{self["schemes"]} is then the bits of L{Call.withheld}, and C{self["snapshot"]} a path or C{None}.

        @raise UsageError: a scheme is unknown.
        """
        super().postOptions()
        if self["snapshot"] is None:
            self["snapshot"] = self.default_snapshot()
        elif self["snapshot"] == "none":
            self["snapshot"] = None
        if self["schemes"] is None:
            self["schemes"] = 0
            return
        words = self["schemes"].replace(",", " ").split()
        for word in words:
            if word not in SIGN_IN_SCHEMES:
                raise UsageError(f"--schemes: {word!r} is none of {', '.join(SIGN_IN_SCHEMES)}")
        self["schemes"] = withhold(words)

    def default_snapshot(self) -> str:
        """The file of the snapshot when none is named: a router has no directory of its own."""
        return str(Path(self["key-file"]).parent / f"{self['name']}.snapshot")


class HomeOptions(RouterOptions):
    """The options of a home server, or of several in one process.

    After parsing, C{self["names"]} has the names of all, and C{self["name"]} is the first.
    """

    optParameters = [
        ["link", None, None, "endpoint of the farm link; default: as the directory says ($RVPFARM_LINK)"],
        [
            "state-dir",
            "s",
            None,
            "directory of this home's own state; of several homes each has one below it, called by its name "
            "($RVPFARM_STATE_DIR)",
        ],
        [
            "dns",
            None,
            None,
            "ADDRESS:PORT of the DNS server that says where other organisations' servers are; "
            "default: as this machine is set up ($RVPFARM_DNS)",
        ],
        [
            "keytab",
            None,
            None,
            "file with the keys of HTTP/IM-DOMAIN, to accept Kerberos tickets inside Negotiate; "
            "default: none are accepted ($RVPFARM_KEYTAB)",
        ],
    ]
    environment = {
        **RouterOptions.environment,
        "link": "RVPFARM_LINK",
        "state-dir": "RVPFARM_STATE_DIR",
        "dns": "RVPFARM_DNS",
        "keytab": "RVPFARM_KEYTAB",
    }
    needed = (*DaemonOptions.needed, "state-dir")

    def __init__(self) -> None:
        super().__init__()
        # twistd would show --name twice, for it is a parameter of all other daemons
        self.longOpt = list(dict.fromkeys(self.longOpt))

    def opt_name(self, name: str) -> None:
        """name of this server in the directory; given several times, or as NAME,NAME, that many homes run in one process ($RVPFARM_NAME)"""  # noqa: E501 (twistd shows it)
        self["name"] = name if self["name"] is None else f"{self['name']},{name}"

    opt_n = opt_name

    def postOptions(self) -> None:
        """Complete and check.

        @raise UsageError: a needed option is missing, an address is malformed, or homes are mixed up.
        """
        super().postOptions()
        names = self["names"] = [name.strip() for name in self["name"].split(",")]
        self["name"] = names[0]
        for name in names:
            if not name or names.count(name) > 1:
                raise UsageError(f"--name: {','.join(names)} does not name each home once")
        if len(names) > 1 and self["link"] is not None:
            raise UsageError(
                "--link: each of several homes has a farm link where the directory says; leave it out"
            )
        if self["dns"] is not None:
            self["dns"] = parse_host_port(self["dns"], "dns")
            if not is_ip(self["dns"].host):
                raise UsageError(f"--dns: {self['dns']} does not begin with an IP address")

    def default_snapshot(self) -> str:
        """The file of the snapshot when none is named."""
        return str(Path(self["state-dir"]) / "directory.snapshot")


def default_listen(address: str, port: int) -> str:
    """The string endpoint for C{port} on C{address}, or on every address if C{address} is empty."""
    if not address:
        return f"fast:tcp:{port}"
    escaped = address.replace(":", "\\:")
    return f"fast:tcp:{port}:interface={escaped}"


@implementer(IReadDescriptor)
class _EndOfInput:
    """Reads standard input away and reports its end."""

    def __init__(self, fd: int, ended: Any) -> None:
        self._fd = fd
        self._ended = ended

    def fileno(self) -> int:
        """The descriptor to watch."""
        return self._fd

    def logPrefix(self) -> str:
        """How the reactor names us in its log."""
        return "stdin"

    def doRead(self) -> None:
        """Something arrived, or the other end is gone."""
        try:
            data = os.read(self._fd, 4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._ended()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor lets go of us."""


class StopAtEof(Service):
    """Stops the process when its standard input ends, if C{RVPFARM_STOP_AT_EOF} is 1.

    C{rvp-farm} holds the other end, so its children never outlive it, however it died.
    """

    _log = Logger()

    #: How long an orderly stop may take.
    patience_seconds = 10.0

    def __init__(self, reactor: Any, *, fd: int = 0, wanted: bool | None = None) -> None:
        """
        @param reactor: the real one (C{Any}: no one interface has readers, timers and C{stop}).
        @param fd: what to watch.
        @param wanted: C{None} asks the environment.
        """
        self._reactor = reactor
        self._fd = fd
        self._wanted = os.environ.get(STOP_AT_EOF) == "1" if wanted is None else wanted
        self._reader: _EndOfInput | None = None

    def startService(self) -> None:
        """Watch, if wanted."""
        super().startService()
        if self._wanted:
            self._reader = _EndOfInput(self._fd, self._stop)
            self._reactor.addReader(self._reader)

    def stopService(self) -> None:
        """Watch no longer."""
        super().stopService()
        self._forget()

    def _forget(self) -> None:
        """Take the reader off the reactor."""
        if self._reader is not None:
            self._reactor.removeReader(self._reader)
            self._reader = None

    def _stop(self) -> None:
        """Standard input ended: stop, in order if possible, in any case."""
        self._forget()
        self._log.info("standard input ended; stopping")
        self._reactor.callLater(self.patience_seconds, self._leave)
        self._reactor.stop()

    def _leave(self) -> None:
        """The orderly stop took too long."""
        self._log.error("not stopped after {seconds} s; leaving at once", seconds=self.patience_seconds)
        sys.stdout.flush()
        os._exit(1)
