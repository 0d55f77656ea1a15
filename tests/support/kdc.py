"""A Kerberos realm of the tests' own: MIT's KDC on loopback, its whole configuration in one directory."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.processes import PATIENCE_SECONDS, Ran, free_ports, run, wait_for

#: Where Debian keeps the programs of an administrator.
_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))


def find(program: str) -> str | None:
    """The path of a program of Kerberos, if it is installed."""
    return shutil.which(program, path=_PATH)


#: What a realm needs.
PROGRAMS = ("krb5kdc", "kdb5_util", "kadmin.local", "kinit")


class Kdc:
    """A realm whose KDC answers.

    @ivar environment: with it, every program finds this realm and no other.
    """

    def __init__(self, realm: str, state: Path) -> None:
        """
        @param state: an existing directory for everything.
        """
        self.realm, self._state = realm, state
        (self._port,) = free_ports(1)
        self.environment = {
            "KRB5_CONFIG": str(state / "krb5.conf"),
            "KRB5_KDC_PROFILE": str(state / "kdc.conf"),
            "KRB5RCACHEDIR": str(state),
            "KRB5CCNAME": f"FILE:{state / 'nobody'}",
        }
        self._configure()
        self._do("kdb5_util", "create", "-s", "-r", realm, "-P", "master")
        log = (state / "kdc.log").open("wb")
        with log:
            self._process = subprocess.Popen(
                [find("krb5kdc") or "krb5kdc", "-n", "-r", realm],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment},
            )

    def _configure(self) -> None:
        """Write down where everything is."""
        here = f"127.0.0.1:{self._port}"
        domain = self.realm.lower()
        (self._state / "krb5.conf").write_text(
            f"[libdefaults]\n default_realm = {self.realm}\n dns_lookup_kdc = false\n"
            " dns_lookup_realm = false\n dns_canonicalize_hostname = false\n rdns = false\n"
            f"[realms]\n {self.realm} = {{\n  kdc = {here}\n }}\n"
            f"[domain_realm]\n .{domain} = {self.realm}\n {domain} = {self.realm}\n"
        )
        (self._state / "kdc.conf").write_text(
            f"[kdcdefaults]\n kdc_listen = {here}\n kdc_tcp_listen = {here}\n"
            f"[realms]\n {self.realm} = {{\n  database_name = {self._state / 'principal'}\n"
            f"  key_stash_file = {self._state / 'stash'}\n  acl_file = {self._state / 'acl'}\n }}\n"
            f"[logging]\n kdc = FILE:{self._state / 'kdc.log'}\n"
        )

    def _do(self, program: str, *arguments: str, stdin: str = "", **environment: str) -> Ran:
        """Run a program to its end."""
        ran = run(find(program) or program, *arguments, stdin=stdin, **{**self.environment, **environment})
        assert ran.status == 0, ran.err + ran.out
        return ran

    def add(self, principal: str, password: str) -> None:
        """Somebody with a password."""
        self._do("kadmin.local", "-r", self.realm, "addprinc", "-pw", password, principal)

    def add_service(self, principal: str) -> Path:
        """A service with a key of its own, in a keytab."""
        keytab = self._state / f"{principal.replace('/', '-')}.keytab"
        self._do("kadmin.local", "-r", self.realm, "addprinc", "-randkey", principal)
        self._do("kadmin.local", "-r", self.realm, "ktadd", "-k", str(keytab), principal)
        return keytab

    def sign_in(self, principal: str, password: str) -> dict[str, str]:
        """The environment of somebody who has signed in."""
        cache = {"KRB5CCNAME": f"FILE:{self._state / principal}.cache"}

        def signed_in() -> bool:
            assert self._process.poll() is None, (self._state / "kdc.log").read_text()
            arguments = [find("kinit") or "kinit", principal]
            return run(*arguments, stdin=f"{password}\n", **{**self.environment, **cache}).status == 0

        wait_for(f"{principal}'s ticket", signed_in)
        return {**self.environment, **cache}

    def close(self) -> None:
        """Stop answering."""
        self._process.terminate()
        self._process.wait(PATIENCE_SECONDS)


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Let libraries in this process, and its children, see these variables."""
    kept = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in kept.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
