"""Kerberos, with a real KDC: curl with a ticket signs in at a home and through a router.

It needs MIT's krb5-kdc, krb5-admin-server and krb5-user, and the extra C{rvpfarm[kerberos]}.
"""

from __future__ import annotations

import atexit
import re
from base64 import b64decode, b64encode
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar
from unittest import TestCase

import pytest

from rvpfarm.admin import handlers
from rvpfarm.auth.negotiate import KERBEROS, NTLM, Response, State, parse_token
from tests.auth.test_negotiate import element, listed, make_list, make_offer, make_response, octets
from tests.support.farmhouse import Member
from tests.support.kdc import PROGRAMS, Kdc, environment, find
from tests.support.processes import BIN, free_ports, run, scratch
from tests.support.wire import Wire

pytestmark = pytest.mark.slow

IM, REALM, PASSWORD = "im.fabrik.example", "FABRIK.EXAMPLE", "Blue-Kite-41"
MISSING = [program for program in PROGRAMS if find(program) is None]
if find_spec("gssapi") is None:
    MISSING.append("rvpfarm[kerberos]")


class House:
    """A realm with petra, who is a user, and ghost, who is none; a home with a keytab; a router."""

    def __init__(self, stack: ExitStack) -> None:
        """
        @param stack: closes everything.
        """
        state = stack.enter_context(scratch())
        self.kdc = Kdc(REALM, self.folder(state, "realm"))
        stack.callback(self.kdc.close)
        for name in ("petra", "ghost"):
            self.kdc.add(name, PASSWORD)
        self.keytab = self.kdc.add_service(f"HTTP/{IM}")
        self.directory = f"sqlite:///{state / 'directory.sqlite'}"
        store, _ = handlers.prepare(self.directory, state / "farm.key")
        home_port, link_port, router_port = free_ports(3)
        try:
            handlers.init(store)
            handlers.add_domain(store, IM, ["fabrik.example"], netbios="FABRIK")
            handlers.set_policy(store, "schemes", "negotiate ntlm")
            handlers.create_home(store, "hs1", "hs1.fabrik.example", home_port, link_port, "127.0.0.1")
            handlers.create_router(store, "router1", "router1.fabrik.example", router_port, "127.0.0.1")
            handlers.enable_user(store, "petra@fabrik.example", "hs1", password=PASSWORD)
        finally:
            store.close()
        with environment(**self.kdc.environment):
            options = ("--state-dir", str(state / "hs1"), "--keytab", str(self.keytab))
            home = Member("hs1", "rvp-home", "127.0.0.1", home_port, state, *options)
            stack.callback(home.stop)
            router = Member("router1", "rvp-router", "127.0.0.1", router_port, state)
            stack.callback(router.stop)
        for member in (home, router):
            member.await_ready()
        self.doors = (home, router)

    @staticmethod
    def folder(state: Path, name: str) -> Path:
        """A directory below C{state}."""
        made = state / name
        made.mkdir()
        return made


_until_exit = ExitStack()
atexit.register(_until_exit.close)


class KerberosTests(TestCase):
    """A ticket for C{HTTP/IM-DOMAIN} is all that somebody needs."""

    house: ClassVar[House | None] = None

    def setUp(self) -> None:
        """See that everything runs."""
        if MISSING:
            self.skipTest(f"not installed: {', '.join(MISSING)}")
        if KerberosTests.house is None:
            KerberosTests.house = House(_until_exit)
        self.kdc, self.doors = KerberosTests.house.kdc, KerberosTests.house.doors
        self.keytab, self.directory = KerberosTests.house.keytab, KerberosTests.house.directory

    def curl(self, door: Member, who: dict[str, str]) -> tuple[list[int], str]:
        """Let curl fetch petra's access list; the statuses that it saw, and all that it said."""
        ran = run(
            *("curl", "-s", "-i", "-X", "ACL", "--resolve", f"{IM}:{door.port}:{door.host}"),
            *("--negotiate", "-u", ":", f"http://{IM}:{door.port}/instmsg/aliases/petra"),
            **who,
        )
        self.assertEqual(ran.status, 0, ran.err)
        return [int(status) for status in re.findall(r"^HTTP/1\.1 (\d+)", ran.out, re.MULTILINE)], ran.out

    def test_curl(self) -> None:
        """One leg is enough; the answer proves the farm to curl."""
        who = self.kdc.sign_in("petra", PASSWORD)
        for door in self.doors:
            with self.subTest(door=door.name):
                statuses, out = self.curl(door, who)
                self.assertEqual(statuses[-1], 200, out)
                self.assertRegex(out, r"WWW-Authenticate: Negotiate [A-Za-z0-9+/=]+\r?\n")
                self.assertIn("<a:rvpacl", out)

    def test_refused(self) -> None:
        """Without a ticket, and with the ticket of somebody who is no user."""
        for door in self.doors:
            with self.subTest(door=door.name):
                self.assertEqual(self.curl(door, self.kdc.environment)[0][-1], 401)
                statuses, out = self.curl(door, self.kdc.sign_in("ghost", PASSWORD))
                self.assertEqual(statuses[-1], 401)
                self.assertIn("WWW-Authenticate: NTLM", out)
        page = self.doors[0].page("/metrics").decode()
        self.assertRegex(page, r'rvp_auth_failures_total\{cause="no-account",method="ntlm"[^}]*\} [1-9]')

    def test_codes(self) -> None:
        """A client whose favourite is not to be had, and both ends prove what was negotiated (RFC 4178 5)."""
        import gssapi

        offered = (b"\x2a\x03", KERBEROS, NTLM)
        for door in self.doors:
            with self.subTest(door=door.name), environment(**self.kdc.sign_in("petra", PASSWORD)):
                name = gssapi.Name(f"HTTP@{IM}", gssapi.NameType.hostbased_service)
                context = gssapi.SecurityContext(
                    name=name, usage="initiate", flags=gssapi.RequirementFlag.mutual_authentication
                )
                wire = Wire(door.host, door.port)
                self.addCleanup(wire.close)
                first = self.ask(wire, make_offer(listed(*offered), octets(2, b"something else")), 401)
                self.assertIn(element(0x0A, bytes((State.REQUEST_MIC,))), first)
                self.assertIn(KERBEROS, first)
                second = self.ask(wire, make_response(octets(2, context.step())), 401)
                answer = parse_token(second)
                assert isinstance(answer, Response)
                context.step(answer.token)
                self.assertTrue(context.complete)
                context.verify_signature(make_list(*offered), answer.mic)
                ours = context.get_signature(make_list(*offered))
                last = self.ask(wire, make_response(octets(3, ours)), 200)
                self.assertIn(element(0x0A, bytes((State.COMPLETED,))), last)

    def ask(self, wire: Wire, token: bytes, status: int) -> bytes:
        """Send a token; the token of the answer."""
        answer = wire.ask(
            b"ACL /instmsg/aliases/petra HTTP/1.1\r\nHost: %b\r\nAuthorization: Negotiate %b\r\n\r\n"
            % (IM.encode(), b64encode(token))
        )
        self.assertEqual(answer.status, status)
        return b64decode(answer.header("WWW-Authenticate").partition(" ")[2])

    def test_keytab(self) -> None:
        """A keytab that cannot be used is one sentence, before anything is started."""
        with scratch() as where:
            (where / "bad").write_bytes(b"no keytab")
            for name in ("none", "bad"):
                ran = run(
                    *(BIN / "twistd", "--nodaemon", "--pidfile=", "rvp-home", "--directory", self.directory),
                    *("--name", "hs1", "--state-dir", where, "--keytab", where / name),
                    **self.kdc.environment,
                )
                self.assertEqual(ran.status, 1)
                (line,) = (ran.err + ran.out).strip().splitlines()
                self.assertIn(f"--keytab {where / name}", line)
