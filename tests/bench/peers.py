"""The servers that rvpfarm is measured against, as Debian has them, each in a folder of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.bench.farm import HOST, MAIL_DOMAIN
from tests.bench.serving import Served, Servers
from tests.support.processes import free_ports

#: What is needed of each Debian package.
PROGRAMS = {
    "nginx": "nginx",
    "haproxy": "haproxy",
    "prosody": "prosody",
    "ejabberd": "ejabberdctl",
    "wrk": "wrk",
    "gcc": "gcc",
}

#: Connections are kept for good: what is measured is the work on them.
FOR_EVER = 1_000_000_000


class Missing(Exception):
    """A Debian package is needed that is not installed; says which."""

    def __init__(self, package: str) -> None:
        super().__init__(f"{package} is not installed (apt-get install {package})")
        self.package = package


def program(package: str) -> str:
    """Where the program of a package is.

    @raise Missing: it is not installed.
    """
    found = shutil.which(PROGRAMS[package], path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        raise Missing(package)
    return found


def versions() -> dict[str, str]:
    """The version of each package, C{"not installed"} included."""
    return {package: _version(package) for package in PROGRAMS}


def _version(package: str) -> str:
    try:
        program(package)
    except Missing:
        return "not installed"
    command = ["dpkg-query", "--show", "--showformat", "${Version}", package]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return "not of Debian"
    return asked.stdout or f"not of Debian's package {package}"


def nginx(servers: Servers, name: str, http: str, *, tls: bool = False, seconds: float = 30.0) -> Served:
    """An nginx with one worker.

    @param http: what stands inside its C{http} and C{server} blocks, told apart by a line C{---}; the
        C{listen} directive is added.
    @param tls: it listens for TLS; C{http} names the certificate.
    """
    path = program("nginx")
    port = free_ports(1)[0]
    outside, _, inside = http.rpartition("---\n")
    folder = servers.folder / name
    folder.mkdir()
    temporary = "".join(
        f"    {kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"{'user nobody nogroup;' if os.geteuid() == 0 else ''}\n"
        f"daemon off;\nworker_processes 1;\nworker_rlimit_nofile 16384;\npid {folder}/pid;\n"
        f"error_log {folder}/error.log crit;\nevents {{ worker_connections 8192; }}\n"
        f"http {{\n    access_log off;\n    keepalive_requests {FOR_EVER};\n    keepalive_timeout 600;\n"
        f"{temporary}{outside}"
        f"    server {{\n        listen {HOST}:{port}{' ssl' if tls else ''} backlog=4096;\n{inside}    }}\n}}\n"
    )
    command = [path, "-p", str(folder), "-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf"]
    return Served(f"{HOST}:{port}", (servers.start(name, command, ports=[port], seconds=seconds),))


def nginx_backend(servers: Servers) -> Served:
    """What stands behind the proxies: an nginx that says 200 to everything."""
    return nginx(servers, "backend", '        location / { return 200 ""; }\n')


def nginx_proxy(
    servers: Servers, backend: Served, connections: int, tls: tuple[str, str] | None = None
) -> Served:
    """An nginx that passes everything on over kept connections.

    @param tls: the files of a key and a certificate.
    """
    secure = (
        "        ssl_protocols TLSv1.2 TLSv1.3;\n"
        f"        ssl_certificate {tls[1]};\n        ssl_certificate_key {tls[0]};\n"
        if tls
        else ""
    )
    return nginx(
        servers,
        "nginx",
        f"    upstream backend {{ server {backend.place}; keepalive {connections}; "
        f"keepalive_requests {FOR_EVER}; keepalive_timeout 600; }}\n---\n{secure}"
        "        location / {\n            proxy_pass http://backend;\n            proxy_http_version 1.1;\n"
        '            proxy_set_header Connection "";\n            proxy_set_header Host $host;\n        }\n',
        tls=tls is not None,
    )


def nginx_referrals(servers: Servers, places: dict[str, str]) -> Served:
    """An nginx that refers each path of C{places} to its URL."""
    listed = "".join(f"        {path} {url};\n" for path, url in places.items())
    return nginx(
        servers,
        "nginx",
        "    map_hash_bucket_size 128;\n    map_hash_max_size 65536;\n"
        f"    map $uri $home {{\n{listed}    }}\n---\n        location / {{ return 302 $home; }}\n",
    )


def haproxy(servers: Servers, backend: Served) -> Served:
    """An HAProxy with one thread that passes everything on over kept connections."""
    path = program("haproxy")
    port = free_ports(1)[0]
    folder = servers.folder / "haproxy"
    folder.mkdir()
    configuration = folder / "haproxy.cfg"
    configuration.write_text(
        "global\n    nbthread 1\n    maxconn 4096\n"
        "defaults\n    mode http\n    option http-keep-alive\n    http-reuse always\n"
        "    timeout connect 5s\n    timeout client 600s\n    timeout server 600s\n    timeout http-keep-alive 600s\n"
        f"listen edge\n    bind {HOST}:{port} backlog 4096\n    server backend {backend.place} pool-purge-delay 600s\n"
    )
    return Served(
        f"{HOST}:{port}", (servers.start("haproxy", [path, "-db", "-f", configuration], ports=[port]),)
    )


def ejabberd(servers: Servers, name: str = "ejabberd") -> Served:
    """An ejabberd without a node name, so that it needs no epmd and leaves nothing running.

    It is started as C{ejabberdctl foreground} would start it, which only root and the user ejabberd may do,
    but for the schedulers: told not to spin while they wait, so that no CPU is counted that nobody needs.
    """
    control = Path(program("ejabberd")).read_text()
    libraries = re.search(r"^ERL_LIBS='?([^'\n]+)", control, re.MULTILINE)
    if libraries is None:
        raise Missing("ejabberd")
    port = free_ports(1)[0]
    folder = servers.folder / name
    folder.mkdir()
    (folder / "ejabberd.yml").write_text(
        f"hosts: [{MAIL_DOMAIN}]\nloglevel: error\nauth_method: internal\nauth_password_format: plain\n"
        f'listen:\n  - {{port: {port}, ip: "{HOST}", module: ejabberd_c2s, shaper: none, access: all, '
        "starttls: false, max_stanza_size: 262144}\n"
        "registration_timeout: infinity\n"
        "modules:\n  mod_roster: {}\n  mod_disco: {}\n  mod_offline: {}\n  mod_ping: {}\n"
        "  mod_register: {access: all, access_from: all, ip_access: all, password_strength: 0}\n"
    )
    environment = {
        "EJABBERD_CONFIG_PATH": f"{folder}/ejabberd.yml",
        "EJABBERD_LOG_PATH": f"{folder}/ejabberd.log",
        "ERL_LIBS": libraries[1],
        "ERL_CRASH_DUMP_BYTES": "0",
        "HOME": str(folder),
    }
    calm = ("+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none")
    command = [
        *("erl", "-noinput", "+K", "true", "+P", "250000", "+Q", "32000", *calm),
        *("-mnesia", "dir", f'"{folder}/spool"', "-s", "ejabberd"),
    ]
    pid = servers.start(
        name, command, ports=[port], user=_own(folder, "ejabberd"), environment=environment, folder=folder
    )
    return Served(f"{HOST}:{port}", (pid,))


def prosody(servers: Servers) -> Served:
    """A Prosody that keeps its accounts and rosters in memory."""
    path = program("prosody")
    port = free_ports(1)[0]
    folder = servers.folder / "prosody"
    folder.mkdir()
    (folder / "data").mkdir()
    configuration = folder / "prosody.cfg.lua"
    modules = ("roster", "saslauth", "disco", "ping", "register")
    configuration.write_text(
        f'pidfile = "{folder}/prosody.pid"\ndata_path = "{folder}/data"\n'
        f"modules_enabled = {{ {_quoted(modules)} }}\n"
        'modules_disabled = { "s2s", "posix", "tls", "limits" }\n'
        'storage = "memory"\nauthentication = "internal_plain"\nallow_registration = true\n'
        "c2s_require_encryption = false\nallow_unencrypted_plain_auth = true\n"
        f'c2s_ports = {{ {port} }}\nc2s_interfaces = {{ "{HOST}" }}\n'
        's2s_ports = {}\nhttp_ports = {}\nhttps_ports = {}\nlog = { error = "*console" }\n'
        f'VirtualHost "{MAIL_DOMAIN}"\n'
    )
    pid = servers.start(
        "prosody",
        [path, "-F", "--config", configuration],
        ports=[port],
        user=_own(folder, "prosody"),
        folder=folder,
    )
    return Served(f"{HOST}:{port}", (pid,))


def _own(folder: Path, user: str) -> str | None:
    """Give C{folder} to C{user}, as whom the server is then to run; needed by root alone."""
    if os.geteuid() != 0:
        return None
    for path in (folder, *folder.rglob("*")):
        shutil.chown(path, user, user)
    return user


def _quoted(words: Sequence[str]) -> str:
    return ", ".join(f'"{word}"' for word in words)
