"""nginx and HAProxy on loopback, with the configurations of C{deploy/} and everything else of their own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tests.support.processes import PATIENCE_SECONDS, wait_for

DEPLOY = Path(__file__).parents[2] / "deploy"

#: Where Debian keeps nginx's module for connections that are no HTTP; other builds have it inside.
STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")

#: Where Debian keeps the programs of an administrator.
_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))

_NGINX = """
daemon off;
master_process off;
pid nginx.pid;
error_log nginx.log;
{load}
events {{ worker_connections 256; }}
{kind} {{
    {own}
    include proxied.conf;
}}
"""

_NGINX_HTTP = """
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi; scgi_temp_path scgi;
"""


def find(program: str) -> str | None:
    """The path of a program, if it is installed."""
    return shutil.which(program, path=_PATH)


def render(name: str, places: Mapping[str, str]) -> str:
    """A configuration of C{deploy/} with other addresses.

    @param places: what stands instead of what, each of which must be there.
    """
    text = (DEPLOY / name).read_text()
    for old, new in places.items():
        assert old in text, f"{name} does not have {old}"
        text = text.replace(old, new)
    return text


class Proxy:
    """One nginx or HAProxy, as it is at work."""

    def __init__(self, command: list[str], state: Path, *ports: int) -> None:
        """
        @param state: the directory that it works in.
        @param ports: where it is to listen on 127.0.0.1.
        """
        self._log = state / "out.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=state, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        for port in ports:
            wait_for(f"{command[0]} at port {port}", lambda port=port: self._listens(port))  # type: ignore[misc]

    def _listens(self, port: int) -> bool:
        assert self._process.poll() is None, self._log.read_text()
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise


def nginx(state: Path, kind: str, configuration: str, *ports: int) -> Proxy:
    """An nginx.

    @param kind: C{"http"} or C{"stream"}, whose block has the configuration in it.
    """
    load = f"load_module {STREAM_MODULE};" if kind == "stream" and STREAM_MODULE.exists() else ""
    own = _NGINX_HTTP if kind == "http" else ""
    (state / "nginx.conf").write_text(_NGINX.format(load=load, kind=kind, own=own))
    (state / "proxied.conf").write_text(configuration)
    program = find("nginx") or "nginx"
    return Proxy([program, "-p", str(state), "-c", str(state / "nginx.conf")], state, *ports)


def haproxy(state: Path, configuration: str, *ports: int) -> Proxy:
    """An HAProxy."""
    (state / "haproxy.cfg").write_text(configuration)
    return Proxy([find("haproxy") or "haproxy", "-db", "-f", str(state / "haproxy.cfg")], state, *ports)
