"""OpenLDAP's C{slapd} as a throw-away: everything it has is in one folder, and it listens on loopback alone.

Two styles of tree stand for the two kinds of directories that there are: L{OPENLDAP} with C{inetOrgPerson} and
C{groupOfNames}, and L{WINDOWS} with the attributes of Active Directory and of Exchange 2000, whose schema is in
C{tests/support/windows.schema}.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tests.support.processes import PATIENCE_SECONDS, free_ports, wait_for
from tests.support.tls import write_certificate

_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
_SCHEMAS = Path("/etc/ldap/schema")
_MODULES = Path("/usr/lib/ldap")

#: Who may read everything, and with what password.
READER, READER_PASSWORD = "cn=reader,dc=fabrik,dc=example", "Reads-All-1"
BASE = "dc=fabrik,dc=example"

#: Of Debian's packages slapd and ldap-utils.
PROGRAMS = ("slapd", "slapadd", "ldapmodify")


def find(program: str) -> str | None:
    """The path of a program of OpenLDAP, if it is installed."""
    return shutil.which(program, path=_PATH)


def missing() -> str:
    """The sentence with which a test skips where something is missing; empty where nothing is."""
    if not all(map(find, PROGRAMS)):
        return "not installed: slapd (Debian's packages slapd and ldap-utils)"
    return "" if find_spec("ldap") else "not installed: rvpfarm[ldap]"


@dataclass(frozen=True, slots=True)
class Style:
    """One kind of tree.

    @ivar schemas: the names of OpenLDAP's own schema files.
    @ivar own: those of ours beside this module.
    """

    schemas: Sequence[str]
    own: Sequence[str] = ()


OPENLDAP = Style(("core", "cosine", "inetorgperson", "nis"))
WINDOWS = Style(("core", "cosine"), ("windows.schema",))

#: The values of one attribute, or of several.
Values = str | bytes | Sequence[str] | Sequence[bytes]


def entry(dn: str, **attributes: Values) -> str:
    """One entry as LDIF; values that are octets go as base 64."""
    from base64 import b64encode

    lines = [f"dn:: {b64encode(dn.encode()).decode()}"]
    for name, values in attributes.items():
        for value in (values,) if isinstance(values, str | bytes) else values:
            octets = value.encode() if isinstance(value, str) else value
            lines.append(f"{name}:: {b64encode(octets).decode()}")
    return "\n".join(lines) + "\n"


def trunk() -> list[str]:
    """What every tree begins with: its root, the folders, and the reader."""
    return [
        entry(BASE, objectClass=["dcObject", "organization"], dc="fabrik", o="Fabrik"),
        entry(
            READER,
            objectClass=["organizationalRole", "simpleSecurityObject"],
            cn="reader",
            userPassword=READER_PASSWORD,
        ),
        *(
            entry(f"ou={name},{BASE}", objectClass="organizationalUnit", ou=name)
            for name in ("people", "groups")
        ),
    ]


class Slapd:
    """One server of its own with a tree; it can be stopped and started again at the same ports.

    @ivar port: of C{ldap://}, with StartTLS; C{tls_port} of C{ldaps://}.
    @ivar certificate: the file of the certificate, which is its own authority.
    """

    def __init__(
        self, folder: Path, style: Style, entries: Iterable[str], *, host: str = "127.0.0.1"
    ) -> None:
        """
        @param folder: an existing one, for everything.
        @param entries: LDIF of each entry, parents first; see L{entry}.
        """
        self.folder, self.host = folder, host
        self.port, self.tls_port = free_ports(2, host)
        key, self.certificate = write_certificate(folder / "tls", f"ldap{self.port}.fabrik.example")
        (folder / "data").mkdir()
        self._configure(style, key)
        ldif = folder / "tree.ldif"
        ldif.write_text("\n".join(entries))
        loaded = subprocess.run(
            [find("slapadd") or "slapadd", "-q", "-f", str(folder / "slapd.conf"), "-l", str(ldif)],
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        assert loaded.returncode == 0, loaded.stderr
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        """Where it is asked with StartTLS."""
        return f"ldap://{self.host}:{self.port}"

    @property
    def tls_url(self) -> str:
        """Where it is asked over TLS from the first octet on."""
        return f"ldaps://{self.host}:{self.tls_port}"

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def _configure(self, style: Style, key: str) -> None:
        """Write down everything that it is told."""
        own = Path(__file__).parent
        lines = [f"include {_SCHEMAS / name}.schema" for name in style.schemas]
        lines += [f"include {own / name}" for name in style.own]
        lines += [
            f"modulepath {_MODULES}",
            "moduleload back_mdb",
            "moduleload memberof",
            f"pidfile {self.folder / 'slapd.pid'}",
            f"TLSCACertificateFile {self.certificate}",
            f"TLSCertificateFile {self.certificate}",
            f"TLSCertificateKeyFile {key}",
            "sizelimit size.soft=500 size.hard=500 size.prtotal=unlimited",
            "database mdb",
            f'suffix "{BASE}"',
            f'rootdn "cn=root,{BASE}"',
            "rootpw Root-Of-All-1",
            f"directory {self.folder / 'data'}",
            "maxsize 268435456",
            "index objectClass eq",
            *(f"index {name} eq" for name in ("cn", "uid", "mail") if not style.own),
            *(f"index {name} eq" for name in ("sAMAccountName", "msExchIMMetaPhysicalURL") if style.own),
            "access to attrs=userPassword by anonymous auth by * none",
            f'access to * by dn.exact="{READER}" read by self read by * none',
            "overlay memberof" if not style.own else "",
        ]
        (self.folder / "slapd.conf").write_text("\n".join(lines) + "\n")

    def start(self) -> None:
        """Answer, from now on."""
        log = (self.folder / "slapd.log").open("ab")
        urls = f"{self.url}/ {self.tls_url}/"
        with log:
            self._process = subprocess.Popen(
                [find("slapd") or "slapd", "-d", "0", "-f", str(self.folder / "slapd.conf"), "-h", urls],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

        def answers() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, (self.folder / "slapd.log").read_text()
            with socket.socket() as probe:
                return probe.connect_ex((self.host, self.port)) == 0

        wait_for("slapd", answers)

    def stop(self) -> None:
        """Answer no longer, until L{start}."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def add(self, *entries: str) -> None:
        """Enter something more; see L{entry}."""
        self.modify("\n".join(entries), "-a")

    def remove(self, dn: str) -> None:
        """Take an entry out."""
        self.modify(f"dn: {dn}\nchangetype: delete\n")

    def modify(self, ldif: str, *options: str) -> None:
        """Change the tree as its root, by C{ldapmodify}."""
        done = subprocess.run(
            [
                *(
                    "ldapmodify",
                    *options,
                    "-x",
                    "-H",
                    self.url,
                    "-D",
                    f"cn=root,{BASE}",
                    "-w",
                    "Root-Of-All-1",
                ),
            ],
            input=ldif,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def replace(self, dn: str, values: Mapping[str, str]) -> None:
        """Give the entry C{dn} other values."""
        changes = "-\n".join(f"replace: {name}\n{name}: {value}\n" for name, value in values.items())
        self.modify(f"dn: {dn}\nchangetype: modify\n{changes}")
