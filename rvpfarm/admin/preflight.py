"""Examines a machine before a server is installed on it; nothing stays behind (shell)."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import shutil
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from rvpfarm.admin import resolving
from rvpfarm.admin.checks import Refused, check_host
from rvpfarm.auth.keys import FarmKey

#: What came of an examination.
OK, WARNING, FAILED, SKIPPED = "ok", "warning", "failed", "skipped"

_LEAST_PYTHON = (3, 11)
#: Descriptors that a process needs besides those of its callers.
_OWN_FILES = 1000
#: Room that a home's state should have, in octets.
_ROOM = 1_000_000_000
#: A disk that takes longer to have written something makes every answer wait.
_SLOW_FSYNC_SECONDS = 0.02
_FSYNCS = 20
#: The kernel's word for a clock that nobody sets (adjtimex).
_TIME_ERROR = 5
_SKEW_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Result:
    """One thing that was examined.

    @ivar state: C{OK}, C{WARNING}, C{FAILED} or C{SKIPPED}.
    @ivar found: what was found.
    @ivar remedy: what to do; empty when there is nothing to do.
    """

    name: str
    state: str
    found: str
    remedy: str = ""


def check_python(running: Sequence[int] = tuple(sys.version_info[:3])) -> Result:
    """The version of Python is new enough."""
    found = ".".join(map(str, running[:3]))
    if tuple(running[:2]) >= _LEAST_PYTHON:
        return Result("python", OK, found)
    return Result("python", FAILED, found, "apt install python3.11 or newer, and make the venv with it")


def check_modules(wanted: Iterable[str] | None = None, installed: Callable[[str], str] = version) -> Result:
    """What rvpfarm needs is installed, in the versions that it is tested with.

    @param wanted: requirements such as C{click==8.5.1}; those of the installed rvpfarm if C{None}.
    @param installed: the version of a package, or C{PackageNotFoundError}.
    """
    lines = list(requires("rvpfarm") or ()) if wanted is None else list(wanted)
    wrong = []
    for line in lines:
        requirement, _, condition = line.partition(";")
        name, _, pinned = requirement.partition("==")
        if "extra" in condition or ("implementation_name" in condition and not _is_cpython()):
            continue
        package = name.partition("[")[0].strip()
        try:
            there = installed(package)
        except PackageNotFoundError:
            wrong.append(f"{package} is missing")
            continue
        if pinned and there != pinned.strip():
            wrong.append(f"{package} is {there}, not {pinned.strip()}")
    if wrong:
        return Result("modules", FAILED, "; ".join(wrong), "pip install --upgrade rvpfarm, in its own venv")
    return Result("modules", OK, f"{len(lines)} requirements are met")


def check_port(address: str, port: int, option: str) -> Result:
    """Somebody may listen there, and nobody does."""
    name = f"{option} {port}"
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((address, port))
            trial.listen(1)
        except OSError as problem:
            return _refused_port(name, address, port, option, problem)
    return Result(name, OK, "it is free, and may be listened on")


def _refused_port(name: str, address: str, port: int, option: str, problem: OSError) -> Result:
    """Why a port cannot be had."""
    if problem.errno == errno.EADDRINUSE:
        return Result(
            name, FAILED, "somebody listens there", f"ss -ltnp 'sport = :{port}' says who; stop that"
        )
    if problem.errno in (errno.EACCES, errno.EPERM):
        remedy = "AmbientCapabilities=CAP_NET_BIND_SERVICE in the unit, as in deploy/"
        return Result(name, FAILED, f"user {os.getuid()} may not listen there", remedy)
    if problem.errno == errno.EADDRNOTAVAIL:
        return Result(
            name, FAILED, f"this machine is not {address}", f"give --address of this machine; {option}"
        )
    return Result(
        name, FAILED, (problem.strerror or str(problem)).lower(), "give --address and the port anew"
    )


def check_reuseport() -> Result:
    """Several workers can share one port."""
    option = getattr(socket, "SO_REUSEPORT", None)
    remedy = "run routers with --workers 1"
    if option is None:
        return Result("SO_REUSEPORT", WARNING, "this system has none", remedy)
    with socket.socket() as one, socket.socket() as other:
        try:
            for each in (one, other):
                each.setsockopt(socket.SOL_SOCKET, option, 1)
            one.bind(("127.0.0.1", 0))
            other.bind(one.getsockname())
        except OSError as problem:
            return Result("SO_REUSEPORT", WARNING, str(problem.strerror).lower(), remedy)
    return Result("SO_REUSEPORT", OK, "workers can share a port")


def check_ipv6() -> Result:
    """There is IPv6 on this machine."""
    try:
        with socket.socket(socket.AF_INET6) as trial:
            trial.bind(("::1", 0))
    except OSError as problem:
        return Result(
            "IPv6", WARNING, (problem.strerror or str(problem)).lower(), "nothing, if no client uses it"
        )
    return Result("IPv6", OK, "it is there")


def check_files(connections: int, limits: tuple[int, int] | None = None) -> Result:
    """A process may have enough files open for its connections.

    @param connections: the policy C{max-connections}.
    @param limits: the soft and hard limit; those of this process if C{None}.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE) if limits is None else limits
    needed = connections + _OWN_FILES
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return Result("open files", OK, f"{soft} of {needed} that are needed")
    found = f"{soft} (at most {hard}); {connections} connections need {needed}"
    fitting = max(1, soft - _OWN_FILES)
    remedy = f"LimitNOFILE={needed} in the unit, or: rvpfarm policy set max-connections {fitting}"
    return Result("open files", FAILED, found, remedy)


def check_clock(state: int | None = None, skews: Sequence[float] = ()) -> Result:
    """The clock is set by somebody, and agrees with the farm's.

    @param state: what the kernel says of it; asked if C{None}.
    @param skews: by how many seconds processes of the farm are ahead.
    """
    remedy = "apt install chrony, and chronyc makestep"
    worst = max(skews, key=abs, default=0.0)
    if abs(worst) > _SKEW_SECONDS:
        found = f"it is {abs(worst):.0f} s {'behind' if worst > 0 else 'ahead of'} the farm"
        return Result("clock", FAILED, found, remedy)
    known = _clock_state() if state is None else state
    if known is None:
        return Result("clock", SKIPPED, "this system does not say whether anybody sets it")
    if known == _TIME_ERROR:
        return Result("clock", WARNING, "nobody sets it", remedy)
    beside = f", and agrees with {len(skews)} processes of the farm" if skews else ""
    return Result("clock", OK, f"it is synchronised{beside}")


def check_name(host: str, resolve: Callable[[str], list[str]] = resolving.system_resolves) -> Result:
    """The server's name is a full one, and resolves here.

    @param resolve: the addresses of a name.
    """
    try:
        full = check_host(host, "give --host the name that clients resolve, such as hs1.example.com")
    except Refused as problem:
        return Result("name", FAILED, str(problem).partition(";")[0], "give --host a full name (KB 319758)")
    found = resolve(full)
    if found:
        return Result("name", OK, f"{full} is {', '.join(found)}")
    return Result("name", FAILED, f"{full} does not resolve here", "publish what rvpfarm dns plan says")


def check_disk(folder: Path, room: int = _ROOM) -> Result:
    """There is room for the state."""
    there = _existing(folder)
    free = shutil.disk_usage(there).free
    found = f"{free / 1e9:.1f} GB free at {there}"
    if free >= room:
        return Result("disk", OK, found)
    return Result(
        "disk", FAILED, found, f"give --state-dir a file system with {room / 1e9:.0f} GB, or make room"
    )


def check_fsync(folder: Path, slow_seconds: float = _SLOW_FSYNC_SECONDS) -> Result:
    """The disk says soon that something is written: answers that a home has to remember wait for it."""
    spans = []
    try:
        with tempfile.TemporaryFile(dir=_existing(folder)) as file:
            for _ in range(_FSYNCS):
                file.write(bytes(4096))
                file.flush()
                began = time.perf_counter()
                os.fsync(file.fileno())
                spans.append(time.perf_counter() - began)
    except OSError as problem:
        remedy = f"chown the state directory: chown rvpfarm {folder}"
        return Result("fsync", FAILED, f"cannot write there: {problem.strerror}", remedy)
    middle = statistics.median(spans)
    found = f"{middle * 1000:.2f} ms in the middle, {max(spans) * 1000:.2f} ms at worst"
    if middle <= slow_seconds:
        return Result("fsync", OK, found)
    return Result("fsync", WARNING, found, "put --state-dir on a faster disk, or one with a write cache")


def check_key(path: Path | None) -> Result:
    """The farm key is there, and nobody else can read it."""
    if path is None:
        return Result("farm key", SKIPPED, "nobody said where it is; give --key-file before the noun")
    if not path.exists():
        return Result("farm key", FAILED, f"{path} is missing", "copy it from another machine of the farm")
    try:
        FarmKey.load(path)
    except (OSError, ValueError) as problem:
        found = problem.strerror if isinstance(problem, OSError) and problem.strerror else str(problem)
        return Result("farm key", FAILED, f"{path}: {found}", f"chown rvpfarm {path}; chmod 600 {path}")
    return Result("farm key", OK, f"{path} is for its owner only")


def _existing(folder: Path) -> Path:
    """The folder, or what is there of the way to it."""
    there = folder.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    return there


def _clock_state() -> int | None:
    """What the kernel says of the clock; C{None} if it does not."""
    try:
        ask = ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError):
        return None
    # larger than the kernel's struct timex; all zero only asks
    state = ask(ctypes.create_string_buffer(512))
    return None if state < 0 else int(state)


def _is_cpython() -> bool:
    return sys.implementation.name == "cpython"
