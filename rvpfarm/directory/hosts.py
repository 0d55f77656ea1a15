"""Which machine this is, as far as that can be told, for a directory that belongs to one machine."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

#: Names this machine where nothing else does so for good, as in containers that are made anew.
VARIABLE = "RVPFARM_HOST_ID"

# what systemd, and whoever else wants to know, finds in a container
_CONTAINER_FILES = (".dockerenv", "run/.containerenv", "run/systemd/container")

# a machine-id says too much to be passed on as it is (machine-id(5))
_SALT = b"rvpfarm directory host\n"

# the length of a machine-id, and which field of a mount is where it is (proc(5))
_MACHINE_ID, _POINT = 32, 4

# file systems that several machines can have at once, by the names that the kernel shows in mountinfo
_SHARED = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "virtiofs", "ceph", "lustre", "afs", "ocfs2", "gfs2"),
        *("glusterfs", "beegfs", "gpfs", "fuse.glusterfs", "fuse.sshfs", "fuse.ceph", "fuse.s3fs", "coda"),
    }
)


@dataclass(frozen=True, slots=True)
class Host:
    """A machine.

    @ivar id: lasts as long as the installation of the machine; empty where there is nothing that does.
    @ivar boot: changes with each start of the machine, and is the same in all its containers; may be empty.
    @ivar name: for people.
    """

    id: str
    boot: str
    name: str

    def is_other(self, recorded: Host, *, shared: bool) -> bool:
        """Is this surely, or as surely as it matters, another machine than C{recorded}?

        A container has no id that lasts, so it is judged by the start of the machine, and by whether
        another machine could have the file open at all.

        @param shared: several machines can have the file at once.
        """
        if not (recorded.id or recorded.boot):
            return False
        if self.boot and self.boot == recorded.boot:
            return False
        if self.id and recorded.id:
            return self.id != recorded.id
        return shared


def this_host(environment: Mapping[str, str] = os.environ, root: Path = Path("/")) -> Host:
    """The machine that this program runs on.

    @param environment: may name it; see L{VARIABLE}.
    @param root: where its files are.
    """
    name, boot = socket.gethostname(), _line(root / "proc/sys/kernel/random/boot_id")
    given = environment.get(VARIABLE, "").strip()
    if given:
        # whoever names machines knows better than what they are started on
        return Host(_digest(f"named {given}"), "", name)
    if any((root / file).exists() for file in _CONTAINER_FILES):
        return Host("", boot, name)
    machine = _line(root / "etc/machine-id") or _line(root / "var/lib/dbus/machine-id")
    known = machine if len(machine) == _MACHINE_ID else ""  # it may say "uninitialized"
    return Host(_digest(f"machine {known}") if known else "", boot, name)


def is_shared(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> bool:
    """Can several machines have the file C{path} at once, as far as the kernel's list of mounts tells?"""
    try:
        lines = mounts.read_text(errors="replace").splitlines()
        where = path.resolve()
    except OSError:
        return False
    best, kind = Path("/"), ""
    for line in lines:
        words, _, rest = line.partition(" - ")
        fields, kinds = words.split(), rest.split()
        if len(fields) > _POINT and kinds:
            point = Path(fields[_POINT].encode().decode("unicode_escape"))
            if where.is_relative_to(point) and len(point.parts) >= len(best.parts):
                best, kind = point, kinds[0]
    return kind in _SHARED


def _digest(text: str) -> str:
    return hashlib.sha256(_SALT + text.encode()).hexdigest()[:32]


def _line(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
