"""Routers that are stopped, restarted, rolled and reloaded while people use them: no request fails."""

from __future__ import annotations

import json
import os
import pwd
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from site import getsitepackages
from unittest import TestCase, skipUnless

from cryptography import x509

from rvpfarm.admin import handlers
from rvpfarm.directory.store import Store
from tests.support.daemons import LOOPBACK, Daemon, Site, ask, await_ready, metric, page, shared_site
from tests.support.load import Load
from tests.support.processes import PATIENCE_SECONDS, run, scratch, wait_for
from tests.support.tls import write_certificate


def python_for_all() -> str:
    """A Python like this one that whoever is nobody can run as well; none if this process cannot tell."""
    if os.getuid() != 0:
        return ""
    for path in (sys.executable, "/usr/bin/python3"):
        script = f"import sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
        with suppress(OSError):
            if subprocess.run([path, "-c", script], user="nobody", check=False).returncode == 0:
                return path
    return ""


PYTHON_FOR_ALL = python_for_all()


class OperationsCase(TestCase):
    """A site with a home, and no router."""

    def setUp(self) -> None:
        """The site."""
        self.site = shared_site()

    def router(self, *options: str, **how: object) -> Daemon:
        """Start the router; it is ended after the test if it has not ended by then."""
        daemon = self.site.router(*options, **how)
        self.addCleanup(daemon.end)
        return daemon

    @contextmanager
    def load(self, tls: ssl.SSLContext | None = None) -> Iterator[list[Load]]:
        """Clients of all kinds: of busy connections, of idle ones, and of one connection for each request."""
        where = [(LOOPBACK, self.site.port)]
        loads = [
            Load(where, ask, clients=2, tls=tls),
            Load(where, ask, clients=4, pause_seconds=0.3, tls=tls),
            Load(where, lambda: ask(close=True), clients=2, keep_alive=False, tls=tls),
        ]
        for load in loads:
            load.start()
        try:
            yield loads
        finally:
            for load in loads:
                load.stop()

    def await_more(self, loads: list[Load]) -> None:
        """Wait until all kinds have been answered for a while."""
        for load, count in zip(loads, (100, 20, 50), strict=True):
            load.await_more(count)

    def assert_nothing_failed(self, loads: list[Load], daemon: Daemon) -> None:
        """No request failed, and no connection was refused."""
        for load in loads:
            self.assertEqual((load.failures, load.refusals), ({}, {}), f"{load.report()}\n{daemon.log}")


class WorkersTests(OperationsCase):
    """Several workers on one address."""

    def start(self, *options: str) -> Daemon:
        """Two of them, ready."""
        daemon = self.router("--workers", "2", *options)
        daemon.await_text("all 2 workers are ready")
        return daemon

    def test_roll(self) -> None:
        """All workers are replaced while people use them: new processes, and not one request fails."""
        daemon = self.start()
        before = daemon.children()
        self.assertEqual(len(before), 2)
        with self.load() as loads:
            self.await_more(loads)
            daemon.send(signal.SIGUSR2)
            daemon.await_text("all 2 workers are replaced")
            self.await_more(loads)
        self.assert_nothing_failed(loads, daemon)
        after = daemon.children()
        self.assertEqual((len(after), after & before), (2, set()))
        await_ready(self.site.metrics, self.site.metrics + 1)
        served = [metric(self.site.metrics + number, "rvp_requests_total") for number in range(2)]
        self.assertTrue(all(served), served)
        pages = [json.loads(page(self.site.metrics + number, "/status")[1]) for number in range(2)]
        self.assertEqual([(one["workers"], one["worker"]) for one in pages], [(2, 0), (2, 1)])
        self.assertEqual(daemon.stop(), -signal.SIGTERM)

    def test_roll_that_fails(self) -> None:
        """A successor that does not come up leaves all as it is; once it can, the roll can be had again."""
        daemon = self.start()
        before = daemon.children()
        key = self.site.where / "farm.key"
        aside = key.rename(self.site.where / "aside.key")
        with self.load() as loads:
            daemon.send(signal.SIGUSR2)
            daemon.await_text(
                "the successor of worker0 did not become ready: it ended; the workers that are left"
            )
            daemon.await_text(r"worker0b: rvpfarm: .*farm\.key")
            self.assertEqual(daemon.children(), before)
            self.await_more(loads)
            aside.rename(key)
            daemon.send(signal.SIGUSR2)
            daemon.await_text("all 2 workers are replaced")
            self.await_more(loads)
        self.assert_nothing_failed(loads, daemon)

    def test_killed_worker(self) -> None:
        """When one is killed, what it had in work is lost and nothing else; another one takes its place."""
        daemon = self.start()
        victim, other = sorted(daemon.children())
        with self.load() as loads:
            self.await_more(loads)
            os.kill(victim, signal.SIGKILL)
            daemon.await_text("worker. ended .killed by signal 9.; it is started again")
            wait_for("another one", lambda: len(daemon.children()) == 2)
            self.await_more(loads)
        for load in loads:
            self.assertEqual(load.refusals, {})
            self.assertLessEqual(set(load.failures), {"reset", "closed", "cut"}, load.report())
            self.assertLessEqual(sum(load.failures.values()), 4, load.report())  # one for each client
        self.assertIn(other, daemon.children())
        self.assertNotIn(victim, daemon.children())

    def test_killed_supervisor(self) -> None:
        """Workers do not outlive their supervisor, however it died."""
        daemon = self.start()
        workers = daemon.children()
        daemon.kill()
        wait_for("their end", lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))

    def test_handed_down(self) -> None:
        """The sockets may be systemd's, one for each worker; the name of too few is a sentence."""
        with self.sockets(2) as sockets:
            named = [("web", sock) for sock in sockets]
            daemon = self.router(
                "--workers", "2", "--listen", "fast:systemd:domain=INET:name=web", sockets=named
            )
            daemon.await_text("all 2 workers are ready")
            with self.load() as loads:
                self.await_more(loads)
            self.assert_nothing_failed(loads, daemon)
            self.assertEqual(daemon.stop(), -signal.SIGTERM)
            few = self.router("--workers", "2", "--listen", "fast:systemd:name=web", sockets=named[:1])
            self.assertEqual(few.wait(), 1)
            self.assertIn("2 sockets are needed and one socket was handed down", few.log)
            self.assertNotIn("Traceback", few.log)

    @contextmanager
    def sockets(self, count: int) -> Iterator[list[socket.socket]]:
        """Sockets that listen on the router's address together."""
        made = [socket.socket() for _ in range(count)]
        for sock in made:
            # both, as systemd does: else connections that have ended keep the address from the next test
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind((LOOPBACK, self.site.port))
            sock.listen(128)
        yield made
        for sock in made:
            sock.close()

    def test_refusals(self) -> None:
        """What cannot work ends at once, with status 1 and a sentence."""
        for options, sentence in (
            (
                ["--listen", "tcp:80"],
                "rvp-router: --listen tcp:80: --workers needs fast:tcp, fast:ssl or fast:systemd",
            ),
            (["--name", "router9"], 'the directory has no router "router9"'),
            (["--key-file", "/nowhere"], "rvpfarm: There is no farm key at /nowhere"),
        ):
            daemon = self.router("--workers", "2", *options)
            self.assertEqual(daemon.wait(), 1, daemon.log)
            self.assertIn(sentence, "\n".join(daemon.texts()))
            self.assertNotIn("Traceback", daemon.log)

    @skipUnless(PYTHON_FOR_ALL, "needs the right to become somebody else, and a Python which they can run")
    def test_in_the_background(self) -> None:
        """It serves as a daemon with a pid file, and as somebody without privileges, whom the workers are too."""
        site, nobody = Site(), pwd.getpwnam("nobody")
        self.addCleanup(site.close)
        self.site = site
        for path in (site.where, *site.where.glob("directory.sqlite*"), site.where / "farm.key"):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
        pid_file = site.where / "router.pid"
        options = ["--workers", "2", "--listen", f"fast:tcp:{site.port}:interface={LOOPBACK}"]
        done = run(
            *(PYTHON_FOR_ALL, "-c", "from twisted.scripts.twistd import run; run()"),
            *(f"--pidfile={pid_file}", f"--logfile={site.where / 'router.log'}"),
            *("--uid", str(nobody.pw_uid), "--gid", str(nobody.pw_gid), "rvp-router"),
            *site.options("router1", site.metrics),
            *options,
            PYTHONPATH=os.pathsep.join([str(Path(__file__).parents[2]), *getsitepackages()]),
        )
        self.assertEqual((done.status, done.out, done.err), (0, "", ""))
        pid = int(pid_file.read_text())
        try:
            await_ready(site.metrics, site.metrics + 1)
            self.assertEqual(Path(f"/proc/{pid}").stat().st_uid, nobody.pw_uid)
            with self.load() as loads:
                self.await_more(loads)
            for load in loads:
                self.assertEqual(load.failures, {}, load.report())
        finally:
            os.kill(pid, signal.SIGTERM)
            wait_for("the end", lambda: not Path(f"/proc/{pid}").exists())
        for name in ("router", "router-worker0", "router-worker1"):
            text = (site.where / f"{name}.log").read_text()
            self.assertIn("Server Shut Down", text)
            self.assertNotIn("Traceback", text)


class RestartTests(OperationsCase):
    """A single router whose socket is somebody else's."""

    def test_socket_activation(self) -> None:
        """It is restarted again and again under load; new connections wait, and no request fails."""
        with socket.create_server((LOOPBACK, self.site.port), backlog=128) as sock:

            def start() -> Daemon:
                return self.router("--listen", "fast:systemd:domain=INET:index=0", sockets=[("web", sock)])

            daemon = start()
            await_ready(self.site.metrics)
            with self.load() as loads:
                for _ in range(2):
                    self.await_more(loads)
                    self.assertEqual(daemon.stop(), -signal.SIGTERM)
                    daemon = start()
                self.await_more(loads)
            self.assert_nothing_failed(loads, daemon)
            self.assertEqual(daemon.stop(), -signal.SIGTERM)
            self.assertNotIn("Traceback", daemon.log)

    def test_home(self) -> None:
        """A home takes its sockets from systemd as well, that of the farm link by its name like the other."""
        self.site = Site()
        self.addCleanup(self.site.close)
        self.assertEqual(self.site.home.stop(), -signal.SIGTERM)
        names = ("web", "link")
        sockets = [socket.create_server((LOOPBACK, port)) for port in self.site.home_ports]
        with sockets[0], sockets[1]:
            self.site.home = self.site.start_home(
                *("--listen", "fast:systemd:name=web", "--link", "fast:systemd:domain=INET:name=link"),
                sockets=list(zip(names, sockets, strict=True)),
            )
            self.router()
            await_ready(self.site.metrics)
            for port in (self.site.port, self.site.home_ports[0]):
                with socket.create_connection((LOOPBACK, port)) as sock:
                    sock.settimeout(PATIENCE_SECONDS)
                    sock.sendall(ask(close=True))
                    self.assertIn(b"HTTP/1.1 200 ", sock.recv(65536))

    def test_bad_descriptor(self) -> None:
        """A descriptor that is none ends it with a sentence."""
        for description, sentence in (
            ("fast:fd:77", "rvp-router: --listen fast:fd:77: descriptor 77: bad file descriptor"),
            ("fast:systemd:index=0", "no socket was handed down by systemd"),
        ):
            daemon = self.router("--listen", description)
            self.assertEqual(daemon.wait(), 1)
            self.assertIn(sentence, daemon.log)
            self.assertNotIn("Traceback", daemon.log)


class DrainTests(OperationsCase):
    """A router that is told to stop."""

    def test_delay(self) -> None:
        """It says that it is draining and serves on; a second signal ends that at once."""
        daemon = self.router("--drain-delay", "3600")
        await_ready(self.site.metrics)
        with self.load() as loads:
            self.await_more(loads)
            daemon.send(signal.SIGTERM)
            wait_for("draining", lambda: page(self.site.metrics, "/readyz") == (503, "draining\n"))
            self.await_more(loads)
        self.assert_nothing_failed(loads, daemon)

        def hurried() -> bool:
            if daemon.running:
                daemon.send(signal.SIGINT)
            return not daemon.running

        wait_for("the end", hurried)
        self.assertEqual(daemon.wait(), -signal.SIGTERM)
        self.assertIn("told to stop again", daemon.log)
        self.assertNotIn("Traceback", daemon.log)

    def test_idle_connections_have_a_grace(self) -> None:
        """A connection that is idle when the router stops has its next request answered, as its last."""
        daemon = self.router("--drain-grace", "3600")
        await_ready(self.site.metrics)
        with (
            socket.create_connection((LOOPBACK, self.site.port)) as one,
            socket.create_connection((LOOPBACK, self.site.port)) as other,
        ):
            for sock in (one, other):
                sock.settimeout(60)
                sock.sendall(ask())
                self.assertNotIn(b"Connection: close", sock.recv(65536))
            daemon.send(signal.SIGTERM)
            wait_for("draining", lambda: page(self.site.metrics, "/readyz") == (503, "draining\n"))
            for sock in (one, other):
                sock.sendall(ask())
                data = b""
                while part := sock.recv(65536):
                    data += part
                self.assertIn(b"HTTP/1.1 200 ", data)
                self.assertIn(b"Connection: close\r\n", data)
        self.assertEqual(daemon.wait(), -signal.SIGTERM)

    def test_draining_on_record(self) -> None:
        """A router that the directory calls draining is not ready, and serves whoever comes all the same."""
        daemon = self.router()
        await_ready(self.site.metrics)
        store = Store(self.site.url, None)
        for state, text in (("draining", "draining\n"), ("active", "ready\n")):
            with store.change("test", "router drain", "router1") as writing:
                (router,) = handlers.farm_of(store).routers.values()
                writing.update_router(replace(router, state=state))
            wait_for(text, lambda text=text: page(self.site.metrics, "/readyz")[1] == text)
            with socket.create_connection((LOOPBACK, self.site.port)) as sock:
                sock.settimeout(60)
                sock.sendall(ask(close=True))
                self.assertIn(b"HTTP/1.1 200 ", sock.recv(65536))
        store.close()
        self.assertEqual(daemon.stop(), -signal.SIGTERM)


class ReloadTests(OperationsCase):
    """A router whose certificate is replaced."""

    def setUp(self) -> None:
        """A router that speaks TLS."""
        super().setUp()
        self.keys = Path(self.enterContext(scratch()))
        self.key, self.certificate = write_certificate(self.keys)
        self.tls = ssl.create_default_context(cafile=self.certificate)
        self.tls.check_hostname, self.tls.verify_mode = False, ssl.CERT_NONE
        self.listen = (
            f"fast:ssl:{self.site.port}:interface={LOOPBACK}:privateKey={self.key}:certKey={self.certificate}"
        )

    def serial(self) -> int:
        """The serial number of the certificate that a new connection is shown."""
        with (
            socket.create_connection((LOOPBACK, self.site.port)) as sock,
            self.tls.wrap_socket(sock) as secure,
        ):
            shown = secure.getpeercert(binary_form=True)
            assert shown is not None
            return x509.load_der_x509_certificate(shown).serial_number

    def reloads(self, outcome: str) -> float:
        """How many reloads came to this."""
        return metric(self.site.metrics, "rvp_reloads_total", outcome=outcome)

    def expires(self) -> float:
        """When the certificate expires, as is told to whoever watches."""
        return metric(self.site.metrics, "rvp_certificate_expires_timestamp_seconds", listener="listen")

    def test_reload(self) -> None:
        """New connections are shown the new certificate, a broken one is passed over, and no request fails."""
        daemon = self.router("--listen", self.listen)
        await_ready(self.site.metrics)
        before, expires = self.serial(), self.expires()
        with self.load(self.tls) as loads:
            self.await_more(loads)
            write_certificate(self.keys, days=30)
            daemon.send(signal.SIGHUP)
            wait_for("a reload", lambda: self.reloads("done") == 1)
            self.await_more(loads)
            after = self.serial()
            self.assertNotEqual(after, before)
            self.assertAlmostEqual(self.expires(), expires + 29 * 24 * 3600, delta=120)
            Path(self.key).write_text("nonsense")
            daemon.send(signal.SIGHUP)
            wait_for("a reload that fails", lambda: self.reloads("failed") == 1)
            self.await_more(loads)
            self.assertEqual(self.serial(), after)
        self.assert_nothing_failed(loads, daemon)
        self.assertIn(
            f"not reloaded, what was there stays: cannot use key {self.key}", "\n".join(daemon.texts())
        )
        self.assertEqual(daemon.stop(), -signal.SIGTERM)

    def test_workers(self) -> None:
        """Workers reload when their supervisor is told to, and are replaced with TLS as without."""
        daemon = self.router("--workers", "2", "--listen", self.listen)
        daemon.await_text("all 2 workers are ready")
        before = self.serial()
        with self.load(self.tls) as loads:
            self.await_more(loads)
            write_certificate(self.keys)
            daemon.send(signal.SIGHUP)
            daemon.await_text("^reloaded", count=3)
            self.assertNotIn(before, {self.serial() for _ in range(8)})
            daemon.send(signal.SIGUSR2)
            daemon.await_text("all 2 workers are replaced")
            self.await_more(loads)
        self.assert_nothing_failed(loads, daemon)


class NoticeTests(OperationsCase):
    """What systemd is told."""

    def setUp(self) -> None:
        """What systemd listens on."""
        super().setUp()
        path = Path(self.enterContext(scratch())) / "notify"
        self.socket = self.enterContext(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        self.socket.settimeout(PATIENCE_SECONDS)
        self.socket.bind(str(path))
        self.environment = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "1000000"}

    def await_notice(self, *lines: str) -> str:
        """Wait for a notice with all of these lines.

        @return: the whole of it.
        """
        seen = []
        end = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < end:
            seen.append(self.socket.recv(65536).decode())
            if set(lines) <= set(seen[-1].splitlines()):
                return seen[-1]
        raise AssertionError(f"not {lines}, but {seen}")

    def check(self, daemon: Daemon) -> None:
        """A life as systemd sees it."""
        self.await_notice("READY=1", f"MAINPID={daemon.pid}")
        self.await_notice("WATCHDOG=1")
        await_ready(self.site.metrics)
        daemon.send(signal.SIGHUP)
        self.assertIn("MONOTONIC_USEC=", self.await_notice("RELOADING=1", "STATUS=reloading"))
        self.await_notice("READY=1", "STATUS=ready")
        self.await_notice("WATCHDOG=1")
        daemon.send(signal.SIGTERM)
        self.await_notice("STOPPING=1", "STATUS=draining")
        self.assertEqual(daemon.wait(), -signal.SIGTERM)
        self.assertNotIn("Traceback", daemon.log)

    def test_router(self) -> None:
        """One router: ready, alive, reloading, ready, stopping."""
        self.check(self.router(environment=self.environment))

    def test_no_home(self) -> None:
        """A router that has no home to send calls to is started all the same, or it would be ended for that."""
        self.site = Site()
        self.addCleanup(self.site.close)
        self.assertEqual(self.site.home.stop(), -signal.SIGTERM)
        daemon = self.router(environment=self.environment)
        self.await_notice("READY=1", f"MAINPID={daemon.pid}")
        status, text = page(self.site.metrics, "/readyz")
        self.assertEqual(status, 503)
        self.assertIn("no home is up", text)
        self.site.home = self.site.start_home()
        self.await_notice("STATUS=ready")
        self.assertEqual(daemon.stop(), -signal.SIGTERM)

    def test_workers(self) -> None:
        """The supervisor of several speaks for all of them, and kills one whose loop stands still."""
        daemon = self.router("--workers", "2", environment=self.environment)
        daemon.await_text("all 2 workers are ready")
        victim = min(daemon.children())
        os.kill(victim, signal.SIGSTOP)
        daemon.await_text(r"worker\d has been silent for \d+ s and is killed")
        wait_for("another one", lambda: len(daemon.children() - {victim}) == 2)
        await_ready(self.site.metrics, self.site.metrics + 1)
        self.check(daemon)
