"""C{twistd rvp-admin}: the HTTP/JSON admin API, on a Unix socket, or over TLS for those with a token."""

from __future__ import annotations

import os
import time
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from twisted.application.service import IService
from twisted.python.usage import UsageError

from rvpfarm.admin.api import Api
from rvpfarm.admin.site import AdminSite
from rvpfarm.directory.model import DirectoryUnavailable
from rvpfarm.directory.store import Store
from rvpfarm.observe.status import Status
from rvpfarm.protocol.address import is_ip
from rvpfarm.tap.daemon import Daemon, attend, load_key
from rvpfarm.tap.settings import DaemonOptions, parse_host_port
from rvpfarm.web.listening import ListeningService

#: Where the Unix socket is when nobody says.
USUAL_SOCKET = "/run/rvpfarm/admin.sock"

#: A Unix socket's path is no longer, whatever the system.
_PATH_LIMIT = 100


class Options(DaemonOptions):
    """Options of C{rvp-admin}.

    After parsing, C{self["listen"]} is a C{HostPort} or C{None}, and so is C{self["socket"]} a path.
    """

    longdesc = "Serves the admin API; /v1/openapi.json describes it."

    optParameters = [
        [
            "socket",
            "s",
            None,
            "path of the Unix socket, for root, its owner, and those of its group who have a token; default: "
            f"{USUAL_SOCKET}, or none with --listen ($RVPFARM_ADMIN_SOCKET)",
        ],
        [
            "listen",
            "l",
            None,
            "ADDRESS:PORT for those who have a token, over TLS; default: none ($RVPFARM_ADMIN_LISTEN)",
        ],
        ["certificate", "c", None, "file of the certificate for --listen ($RVPFARM_ADMIN_CERTIFICATE)"],
        [
            "private-key",
            "p",
            None,
            "file of the certificate's key; default: the same file ($RVPFARM_ADMIN_PRIVATE_KEY)",
        ],
    ]
    optFlags = [["plain", None, "without TLS, which only a loopback address of --listen may be"]]
    environment = {
        **DaemonOptions.environment,
        "socket": "RVPFARM_ADMIN_SOCKET",
        "listen": "RVPFARM_ADMIN_LISTEN",
        "certificate": "RVPFARM_ADMIN_CERTIFICATE",
        "private-key": "RVPFARM_ADMIN_PRIVATE_KEY",
    }
    needed = ("directory",)

    def postOptions(self) -> None:
        """Complete and check.

        @raise UsageError: a needed option is missing, or what is served would be open to anybody.
        """
        super().postOptions()
        self["name"] = self["name"] or "admin"
        if self["listen"] is None:
            self._check_unused()
            self["socket"] = self["socket"] or USUAL_SOCKET
        else:
            self["listen"] = parse_host_port(self["listen"], "listen")
            self._check_tls()
        if self["socket"] is not None and len(os.fsencode(self["socket"])) > _PATH_LIMIT:
            raise UsageError(f"--socket: {self['socket']} is longer than {_PATH_LIMIT} octets")

    def _check_unused(self) -> None:
        """
        @raise UsageError: there is something that only C{--listen} needs.
        """
        for name in ("certificate", "private-key"):
            if self[name] is not None:
                raise UsageError(f"--{name}: a Unix socket needs none; give --listen ADDRESS:PORT too")
        if self["plain"]:
            raise UsageError("--plain: a Unix socket is plain anyway; give --listen ADDRESS:PORT too")

    def _check_tls(self) -> None:
        """
        @raise UsageError: others could listen in.
        """
        host = self["listen"].host
        if self["plain"]:
            if self["certificate"] is not None:
                raise UsageError("--plain: leave it out, or --certificate")
            if not (is_ip(host) and ip_address(host).is_loopback):
                raise UsageError(
                    f"--plain: {host} is not a loopback address; give --certificate FILE instead"
                )
        elif self["certificate"] is None:
            raise UsageError(
                "--listen: give --certificate FILE (and --private-key FILE), or --plain on a loopback address"
            )
        else:
            self["private-key"] = self["private-key"] or self["certificate"]
            for name in ("certificate", "private-key"):
                if not os.access(self[name], os.R_OK):
                    raise UsageError(f"--{name}: {self[name]} cannot be read")


def makeService(options: Options, reactor: Any = None) -> IService:
    """Build the admin API; nothing listens until it is started.

    @param reactor: the installed one if C{None} (C{Any}: no one interface has all that is needed of it).
    @raise SystemExit: the farm key, the directory's address or the socket's cannot be used.
    """
    if reactor is None:
        from twisted.internet import reactor
    top = Daemon(reactor)
    status = Status(
        role="admin",
        name=options["name"],
        ready=lambda: () if all(one.listening for one in listeners) else ("not listening",),
        draining=lambda: top.draining,
    )
    attend(top, options, reactor, status)

    def owner() -> int | None:
        """Who owns the socket now: it may have been made before the process changed its user."""
        try:
            return None if options["socket"] is None else Path(options["socket"]).stat().st_uid
        except OSError:
            return None

    try:
        store = Store(options["directory"], load_key(options))
    except DirectoryUnavailable as problem:
        raise SystemExit(f"rvp-admin: {problem}") from problem
    _check_folder(options["socket"])
    site = AdminSite(reactor, Api(store, now=time.time, owner=owner).answer)
    listeners = [
        ListeningService(reactor, description, site, who="rvp-admin", option=f"--{option}")
        for option, description in _endpoints(options)
    ]
    for one in listeners:
        one.setServiceParent(top)
    return top


def _endpoints(options: Options) -> list[tuple[str, str]]:
    """Where to listen: the option that says so, and the endpoint."""
    found = []
    if options["socket"] is not None:
        path = _escape(str(Path(options["socket"]).absolute()))
        found.append(("socket", f"unix:{path}:mode=660:lockfile=1:backlog=128"))
    if options["listen"] is not None:
        place = options["listen"]
        where = f"{place.port}:interface={_escape(place.host)}"
        if options["plain"]:
            found.append(("listen", f"tcp:{where}"))
        else:
            files = f"privateKey={_escape(options['private-key'])}:certKey={_escape(options['certificate'])}"
            found.append(("listen", f"ssl:{where}:{files}"))
    return found


def _check_folder(path: str | None) -> None:
    """
    @raise SystemExit: no socket can be made there, for want of a folder.
    """
    if path is None:
        return
    folder = Path(path).absolute().parent
    if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        raise SystemExit(
            f"rvp-admin: {folder} is no folder that may be written; make it, or give --socket another path"
        )


def _escape(text: str) -> str:
    """As a part of an endpoint's description."""
    return text.replace("\\", "\\\\").replace(":", "\\:").replace("=", "\\=")
