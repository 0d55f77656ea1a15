"""Daemons in the background: C{twistd} without C{-n} forks, and everything must have survived that."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from unittest import TestCase

from tests.support.processes import BIN, free_ports, run, scratch, wait_for

PASSWORD = "correct horse"


class DaemonisedTests(TestCase):
    """A router and a home serve from the background as they do in the foreground."""

    def setUp(self) -> None:
        """A directory with one user, and places for the daemons."""
        where = self.enterContext(scratch())
        self.where, self.ports = where, free_ports(5)
        url = f"sqlite:///{where / 'directory.sqlite'}"
        self.options = ["--directory", url]
        here = "--address 127.0.0.1 --port"
        for command in (
            "init",
            "domain add im.farm.localhost --mail-domain farm.localhost",
            f"home create home1 --host home1.farm.localhost {here} {self.ports[0]} --link-port {self.ports[1]}",
            f"router create router1 --host im1.farm.localhost {here} {self.ports[2]}",
            "user enable alice@farm.localhost --address-form mail --password-stdin",
        ):
            done = run(BIN / "rvpfarm", *self.options, *command.split(), stdin=f"{PASSWORD}\n")
            self.assertEqual(done.status, 0, done)

    def start(self, plugin: str, name: str, metrics: int, *options: str) -> None:
        """Start a daemon; it is ended by its pid file after the test."""
        pid_file, log = self.where / f"{name}.pid", self.where / f"{name}.log"
        done = run(
            *(BIN / "twistd", f"--pidfile={pid_file}", f"--logfile={log}", plugin, *self.options),
            *("--name", name, "--metrics", f"127.0.0.1:{metrics}", *options),
        )
        self.assertEqual((done.status, done.err), (0, ""))
        self.addCleanup(self.stop, pid_file, log)
        page = f"http://127.0.0.1:{metrics}/readyz"
        wait_for(f"{name} ready", lambda: run("curl", "-s", page).out == "ready\n")

    def stop(self, pid_file: Path, log: Path) -> None:
        """End a daemon as an administrator does, and see that nothing went wrong meanwhile."""
        os.kill(int(pid_file.read_text()), signal.SIGTERM)
        wait_for("the end", lambda: not pid_file.exists())
        text = log.read_text()
        self.assertIn("Server Shut Down", text)
        self.assertNotIn("Traceback", text)
        self.assertIn("LoopReactor", text)

    def test_login(self) -> None:
        """A login through both works, which needs their sockets, link, timers, threads and state."""
        self.start("rvp-home", "home1", self.ports[3], "--state-dir", str(self.where / "home1"))
        self.start("rvp-router", "router1", self.ports[4])
        server = f"im.farm.localhost:{self.ports[2]}"
        done = run(
            *("curl", "-s", "-i", "--digest", "-u", f"alice:{PASSWORD}", "-X", "SUBSCRIBE"),
            *("--resolve", f"{server}:127.0.0.1", "--max-time", "20"),
            *("-H", "Notification-Type: pragma/notify", "-H", "Subscription-Lifetime: 14400"),
            *("-H", "Call-Back: http://127.0.0.1:9/", f"http://{server}/instmsg/aliases/alice"),
        )
        self.assertIn("HTTP/1.1 200 Successful", done.out)
        self.assertIn("Subscription-Id: ", done.out)
