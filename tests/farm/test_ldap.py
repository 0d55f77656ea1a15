"""A home whose users are in a real LDAP directory: curl signs in over TLS with the password from there."""

from __future__ import annotations

import atexit
import socket
from contextlib import ExitStack
from dataclasses import replace
from typing import ClassVar
from unittest import TestCase

import pytest

from rvpfarm.admin import handlers
from rvpfarm.admin.ldap import set_ldap
from tests.support.daemons import Daemon
from tests.support.processes import free_ports, run, scratch, wait_for
from tests.support.slapd import OPENLDAP, READER_PASSWORD, Slapd, missing
from tests.support.tls import write_certificate
from tests.support.trees import PASSWORDS, openldap_tree, settings_for

pytestmark = pytest.mark.farm

IM = "im.fabrik.example"


class House:
    """A home that takes callers over TLS, a router before it that does and one that does not.

    @ivar doors: the ports of the home, the router with TLS, and the router without.
    """

    def __init__(self, stack: ExitStack) -> None:
        """
        @param stack: closes everything.
        """
        state = stack.enter_context(scratch())
        (state / "slapd").mkdir()
        self.slapd = Slapd(state / "slapd", OPENLDAP, openldap_tree())
        stack.callback(self.slapd.stop)
        key, self.certificate = write_certificate(state / "tls", IM)
        self.directory = f"sqlite:///{state / 'directory.sqlite'}"
        self.store, _ = handlers.prepare(self.directory, state / "farm.key")
        stack.callback(self.store.close)
        home, link, router, plain = self.doors = tuple(free_ports(4))
        handlers.init(self.store)
        handlers.add_domain(self.store, IM, ["fabrik.example"], netbios="FABRIK")
        handlers.set_policy(self.store, "schemes", "basic digest-sha-256")
        handlers.set_policy(self.store, "referral", "never")
        handlers.set_policy(self.store, "failed-logins", "0")
        handlers.create_home(self.store, "hs1", "hs1.fabrik.example", home, link, "127.0.0.1")
        for name, port in (("r1", router), ("r2", plain)):
            handlers.create_router(self.store, name, f"{name}.fabrik.example", port, "127.0.0.1")
        set_ldap(self.store, replace(settings_for(self.slapd), automatic=True), READER_PASSWORD)
        tls = f":interface=127.0.0.1:privateKey={key}:certKey={self.certificate}"
        self.daemons = {}
        for name, plugin, listen, more in (
            ("hs1", "rvp-home", f"fast:ssl:{home}{tls}", ("--state-dir", str(state / "hs1"))),
            ("r1", "rvp-router", f"fast:ssl:{router}{tls}", ()),
            ("r2", "rvp-router", f"fast:tcp:{plain}:interface=127.0.0.1", ()),
        ):
            self.daemons[name] = Daemon(
                state / f"{name}.log",
                *(plugin, "--directory", self.directory, "--name", name, "--listen", listen, *more),
            )
            stack.callback(self.daemons[name].stop)
        for port in (home, link, router, plain):
            wait_for(f"port {port}", lambda port=port: self._listens(port))

    @staticmethod
    def _listens(port: int) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0


_until_exit = ExitStack()
atexit.register(_until_exit.close)


class LdapFarmTests(TestCase):
    """The LDAP password, inside TLS and nowhere else."""

    house: ClassVar[House | None] = None

    def setUp(self) -> None:
        """See that everything runs."""
        if missing():
            self.skipTest(missing())
        if LdapFarmTests.house is None:
            LdapFarmTests.house = House(_until_exit)
        self.at = LdapFarmTests.house
        self.home, _, self.router, self.plain = self.at.doors

    def curl(self, port: int, login: str, password: str, *, tls: bool = True) -> tuple[int, str]:
        """Let curl fetch petra's access list: the status, and the head of the answer."""
        scheme = "https" if tls else "http"
        ran = run(
            *("curl", "-s", "-D", "-", "-o", "/dev/null", "-X", "ACL", "--cacert", self.at.certificate),
            *("--resolve", f"{IM}:{port}:127.0.0.1", "--basic", "-u", f"{login}:{password}"),
            f"{scheme}://{IM}:{port}/instmsg/aliases/petra",
        )
        self.assertEqual(ran.status, 0, ran.err)
        return int(ran.out.split()[1]), ran.out

    def test_signs_in(self) -> None:
        """At the home and through a router, with each form of the name."""
        for port in (self.home, self.router):
            for login in ("petra", "petra@fabrik.example", "FABRIK\\petra"):
                status, out = self.curl(port, login, PASSWORDS["petra"])
                self.assertEqual(status, 200, out + self.at.daemons["hs1"].log[-3000:])

    def test_wrong_password(self) -> None:
        """A wrong one is 401, with the challenges; so is somebody unknown, and none at all."""
        for login, password in (("petra", "wrong"), ("nobody", "wrong"), ("petra", "")):
            status, out = self.curl(self.home, login, password)
            self.assertEqual(status, 401)
            self.assertIn('Basic realm="im.fabrik.example"', out)
        for name in self.at.daemons:
            for password in PASSWORDS.values():
                self.assertNotIn(password, self.at.daemons[name].log)

    def test_not_in_clear(self) -> None:
        """A router without TLS offers no Basic, and takes none, though the home behind it has TLS."""
        status, out = self.curl(self.plain, "petra", PASSWORDS["petra"], tls=False)
        self.assertEqual(status, 401)
        self.assertNotIn("Basic", out)
        self.assertIn("Digest", out)

    def test_server_stopped(self) -> None:
        """Without the LDAP directory a password is 503 and not 401; then it is right again."""
        self.at.slapd.stop()
        try:
            for password in ("Not-Tried-Yet-1", "Nor-This-One-2"):
                self.assertEqual(self.curl(self.home, "petra", password)[0], 503)
            self.assertEqual(self.curl(self.home, "stranger", "Nor-This-One-3")[0], 503)
        finally:
            self.at.slapd.start()
        wait_for("petra signing in", lambda: self.curl(self.home, "petra", PASSWORDS["petra"])[0] == 200)

    def test_local_disable_wins(self) -> None:
        """Whoever is disabled here is out within seconds, whatever LDAP says."""
        self.assertEqual(self.curl(self.home, "tomasz", PASSWORDS["tomasz"])[0], 403)
        handlers.disable_user(self.at.store, "tomasz@fabrik.example")
        wait_for("tomasz being out", lambda: self.curl(self.home, "tomasz", PASSWORDS["tomasz"])[0] == 401)
