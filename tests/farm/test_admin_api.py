"""The admin API as a real process: its sockets, who comes through them, and its limits."""

from __future__ import annotations

import http.client
import json
import os
import pwd
import shutil
import signal
import socket
import ssl
import stat
import subprocess
from pathlib import Path
from unittest import TestCase

import pytest

from rvpfarm.admin import handlers
from rvpfarm.admin.administrators import add_administrator, create_token, revoke_token
from rvpfarm.admin.site import BODY_LIMIT, CONNECTIONS_LIMIT
from rvpfarm.directory.store import Store
from tests.support.adminserver import AdminServer, Told, UnixConnection, ask
from tests.support.processes import BIN, free_ports, run, wait_for
from tests.support.store import make_farm_store, make_folder
from tests.support.tls import write_certificate


class AdminCase(TestCase):
    """A directory with petra in it."""

    def setUp(self) -> None:
        """Make it."""
        self.folder = make_folder(self)  # type: ignore[arg-type]  # any test case has addCleanup
        self.store: Store = make_farm_store(self, self.folder)  # type: ignore[arg-type]
        handlers.set_policy(self.store, "address-form", "mail")  # or the machine's own DNS would be asked
        handlers.enable_user(self.store, "petra@fabrik.example", password="Blue-Kite-41")
        self.socket = self.folder / "admin.sock"

    def ask(self, method: str, path: str, body: object = None, token: str | None = None) -> Told:
        """Ask through the Unix socket."""
        return ask(UnixConnection(self.socket), method, path, body, token)

    def clerk(self) -> str:
        """The token of an administrator of users."""
        add_administrator(self.store, "clerk", domains=["im.fabrik.example"])
        return create_token(self.store, "clerk", "desk").text


@pytest.mark.farm
class UnixTests(AdminCase):
    """The Unix socket knows who comes."""

    def setUp(self) -> None:
        """Serve."""
        super().setUp()
        self.server = AdminServer(self, self.folder, "--socket", str(self.socket))

    def test_owner(self) -> None:
        """The socket is for its owner and group; the owner needs no token, and is named in the trail."""
        self.assertEqual(stat.S_IMODE(self.socket.stat().st_mode), 0o660)
        self.assertEqual(self.ask("GET", "/v1/users").body["result"][0]["alias"], "petra")
        self.assertEqual(self.ask("POST", "/v1/domains", {"name": "im.mill.example"}).status, 201)
        name = pwd.getpwuid(os.getuid()).pw_name
        self.assertEqual(handlers.list_audit(self.store)[-1].actor, f"unix:{name}")

    def test_others(self) -> None:
        """Another OS user, whom the group lets in, is nobody without a token."""
        curl, setpriv = shutil.which("curl"), shutil.which("setpriv")
        if os.getuid() or curl is None or setpriv is None:
            self.skipTest("only root can become somebody else, with setpriv and curl")
        self.folder.chmod(0o755)
        self.socket.chmod(0o666)  # as if in the group
        front = [setpriv, "--reuid=65534", "--regid=65534", "--clear-groups", curl, "-sS"]
        front += ["--unix-socket", str(self.socket)]
        self.assertEqual(json.loads(run(*front, "http://x/v1/users").out)["status"], 401)
        found = run(*front, "-H", f"Authorization: Bearer {self.clerk()}", "http://x/v1/users").out
        self.assertEqual(json.loads(found)["result"][0]["alias"], "petra")

    def test_revoked_at_once(self) -> None:
        """A token is worth nothing from the moment on in which it was revoked."""
        token = self.clerk()
        self.assertEqual(self.ask("GET", "/v1/users", token=token).status, 200)
        self.assertEqual(self.ask("GET", "/v1/routers", token=token).status, 403)
        revoke_token(self.store, "clerk", "desk")
        self.assertEqual(self.ask("GET", "/v1/users", token=token).status, 401)

    def test_large_body(self) -> None:
        """Too large a body is refused before it is there, with a length or without."""
        for head in (f"Content-Length: {BODY_LIMIT + 1}", "Transfer-Encoding: chunked"):
            with socket.socket(socket.AF_UNIX) as own:
                own.connect(str(self.socket))
                own.sendall(f"POST /v1/users HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n".encode())
                if "chunked" in head:
                    own.sendall(f"{BODY_LIMIT + 1:x}\r\n".encode() + b"x" * (BODY_LIMIT + 1))
                self.assertTrue(own.recv(65536).startswith(b"HTTP/1.1 413 "), head)

    def test_many_connections(self) -> None:
        """One connection too many is told so, and the others are served."""
        held = []
        for _ in range(CONNECTIONS_LIMIT):
            one = UnixConnection(self.socket)
            one.connect()
            held.append(one)
            self.addCleanup(one.close)
        held[0].request("GET", "/v1/homes")
        self.assertEqual(held[0].getresponse().status, 200)
        self.assertEqual(self.ask("GET", "/v1/homes").status, 503)
        for one in held:
            one.close()
        wait_for("an end of the others", lambda: self.ask("GET", "/v1/homes").status == 200)

    def test_directory_away(self) -> None:
        """Without its directory it answers 503, and serves again when that is back."""
        path = self.folder / "directory.sqlite"
        path.rename(self.folder / "away")
        self.assertEqual(self.ask("GET", "/v1/users").status, 503)
        (self.folder / "away").rename(path)
        self.assertEqual(self.ask("GET", "/v1/users").status, 200)

    def test_taken(self) -> None:
        """A second one on the same socket ends with a sentence, and so does one without a folder for it."""
        url = f"sqlite:///{self.folder / 'directory.sqlite'}"
        front = (BIN / "twistd", "-n", "--pidfile=", "rvp-admin", "--socket")
        for path, sentence in (
            (self.socket, f"rvp-admin: cannot listen on {self.socket}: address already in use (--socket)"),
            (self.folder / "no" / "a.sock", f"rvp-admin: {self.folder / 'no'} is no folder"),
        ):
            done = run(*front, path, RVPFARM_DIRECTORY=url)
            self.assertEqual(done.status, 1)
            self.assertIn(sentence, done.out + done.err)
            self.assertNotIn("Traceback", done.out + done.err)
        self.assertEqual(self.ask("GET", "/v1/users").status, 200)

    def test_stop(self) -> None:
        """Told to stop it does, cleanly, and takes the socket away; nothing secret is in its log."""
        token = self.clerk()
        body = {"password": "Red-Boat-Nine"}
        self.ask("PUT", "/v1/users/petra@fabrik.example/password", body, token)
        self.assertIn(self.server.stop(), (0, -signal.SIGTERM))  # twistd ends by the signal that ended it
        self.assertIn("Server Shut Down", self.server.said())
        self.assertFalse(self.socket.exists())
        for word in (token, "Red-Boat-Nine", "Traceback"):
            self.assertNotIn(word, self.server.said())

    def test_command(self) -> None:
        """C{rvpfarm api} goes through it, without directory or farm key."""
        program = BIN / "rvpfarm"
        environment = {"RVPFARM_API": f"unix:{self.socket}", "RVPFARM_DIRECTORY": ""}

        def say(*words: str, stdin: str = "", **more: str) -> subprocess.CompletedProcess[str]:
            """Run it."""
            done = run(program, "api", *words, stdin=stdin, **{**environment, **more})
            return subprocess.CompletedProcess(words, done.status, done.out, done.err)

        made = say("user.enable", "address=tomasz@fabrik.example", "password=@-", stdin="Blue-Kite-41\n")
        self.assertEqual((made.returncode, made.stderr), (0, ""))
        found = json.loads(say("user.list", "domain=im.fabrik.example").stdout)
        self.assertEqual([one["alias"] for one in found], ["petra", "tomasz"])
        gone = say("user.disable", "address=tomasz@fabrik.example", "--dry-run")
        self.assertFalse(json.loads(gone.stdout)["enabled"])
        self.assertTrue(handlers.show_user(self.store, "tomasz@fabrik.example").account.enabled)
        refused = say("router.list", RVPFARM_API_TOKEN=self.clerk())
        self.assertEqual(refused.returncode, 1)
        self.assertIn("administrators of the farm only", refused.stderr)
        self.assertEqual(say("user.show", "shoe=1").returncode, 1)
        elsewhere = run(program, "user", "list", **environment)
        self.assertEqual(elsewhere.status, 2)
        self.assertIn("rvpfarm api", elsewhere.err)


@pytest.mark.farm
class TlsTests(AdminCase):
    """Over TLS, for those who have a token."""

    def test_tls(self) -> None:
        """The certificate is shown, and a token needed; the command line trusts what it is told to."""
        key, certificate = write_certificate(self.folder / "tls")
        (port,) = free_ports(1)
        AdminServer(
            self,
            self.folder,
            "--listen",
            f"127.0.0.1:{port}",
            "--certificate",
            certificate,
            "--private-key",
            key,
        )
        trusted = ssl.create_default_context(cafile=certificate)

        def connection() -> http.client.HTTPSConnection:
            """A new one."""
            return http.client.HTTPSConnection("127.0.0.1", port, context=trusted)

        self.assertEqual(ask(connection(), "GET", "/v1/users").status, 401)
        token = self.clerk()
        self.assertEqual(ask(connection(), "GET", "/v1/users", token=token).status, 200)
        where = {"RVPFARM_API": f"https://127.0.0.1:{port}", "RVPFARM_API_TOKEN": token}
        program = BIN / "rvpfarm"
        done = run(program, "--api-ca", certificate, "api", "user.list", **where)
        self.assertIn("petra@fabrik.example", done.out)
        self.assertEqual(run(program, "api", "user.list", **where).status, 1)

    def test_refusals(self) -> None:
        """It does not start without TLS beyond loopback, and says what to do."""
        for words in (("--listen", "0.0.0.0:8443"), ("--listen", "0.0.0.0:8443", "--plain")):
            url = f"sqlite:///{Path(self.folder) / 'directory.sqlite'}"
            done = run(BIN / "twistd", "-n", "--pidfile=", "rvp-admin", *words, RVPFARM_DIRECTORY=url)
            self.assertNotEqual(done.status, 0)
            self.assertIn("--certificate", done.out + done.err)
