"""Tests of L{rvpfarm.tap.supervisor}."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.observe.logs import json_lines
from rvpfarm.tap.router import Options
from rvpfarm.tap.supervisor import log_arguments, parse_workers, worker_environment
from rvpfarm.tap.workers import Seat


class OptionsTests(SynchronousTestCase):
    """How many workers there are."""

    def setUp(self) -> None:
        """An environment of our own."""
        self.environment: dict[str, str] = {}
        self.patch(os, "environ", self.environment)

    def parse(self, *arguments: str) -> Options:
        """The options of a router."""
        options = Options()
        options.parseOptions(["-d", "sqlite:///x", "-n", "r1", *arguments])
        return options

    def test_count(self) -> None:
        """One, unless an option or the environment says otherwise."""
        self.assertEqual(self.parse()["workers"], 1)
        self.environment["RVPFARM_WORKERS"] = "4"
        self.assertEqual(self.parse()["workers"], 4)
        self.assertEqual(self.parse("--workers", "2")["workers"], 2)

    def test_nonsense(self) -> None:
        """Anything but a number of processes that a machine may have is refused."""
        for text in ("0", "-1", "many", "257", "1.5", ""):
            self.assertIn("--workers", str(self.assertRaises(UsageError, parse_workers, text)))

    def test_ports(self) -> None:
        """Each worker needs a port for its metrics."""
        arguments = ["--workers", "4", "--metrics"]
        self.parse(*arguments, "127.0.0.1:65532")
        problem = self.assertRaises(UsageError, self.parse, *arguments, "127.0.0.1:65533")
        self.assertIn("4 ports from 65533 on", str(problem))

    def test_given(self) -> None:
        """What was given is known word for word, for the workers."""
        self.assertEqual(
            self.parse("--workers=2", "-k", "x").given,
            ("-d", "sqlite:///x", "-n", "r1", "--workers=2", "-k", "x"),
        )


class LaunchTests(SynchronousTestCase):
    """What a worker is told."""

    def test_environment(self) -> None:
        """The supervisor's settings, but not what systemd said to the supervisor alone."""
        ours = {
            "PATH": "/bin",
            "RVPFARM_DIRECTORY": "sqlite:///x",
            "RVPFARM_WORKERS": "4",
            "RVPFARM_METRICS": "127.0.0.1:1",
            "RVPFARM_LISTEN": "fast:tcp:80",
            "NOTIFY_SOCKET": "/run/notify",
            "WATCHDOG_PID": "7",
            "WATCHDOG_USEC": "1",
            "LISTEN_FDNAMES": "web",
        }
        known = {
            "PATH": "/bin",
            "RVPFARM_DIRECTORY": "sqlite:///x",
            "RVPFARM_STOP_AT_EOF": "1",
            "RVPFARM_METRICS": "127.0.0.1:1",
            "RVPFARM_NOTIFY_FD": "4",
            "RVPFARM_WORKER": "2/4",
        }
        self.assertEqual(worker_environment(ours, Seat(2, 4), 0.0), known)
        self.assertEqual(worker_environment(ours, Seat(2, 4), 30.0), {**known, "WATCHDOG_USEC": "30000000"})

    def test_logs(self) -> None:
        """A worker logs as its supervisor does, but never to the same file."""
        here = Path.cwd()
        for twistd, expected in (
            ({"nodaemon": True}, []),
            ({"nodaemon": True, "logfile": "-"}, []),
            ({"nodaemon": True, "logger": json_lines}, ["--logger", "rvpfarm.observe.logs.json_lines"]),
            ({"syslog": True, "prefix": "rvp"}, ["--syslog", "--prefix", "rvp-worker0"]),
            ({"logfile": "/var/log/rvp.log"}, ["--logfile", "/var/log/rvp-worker0.log"]),
            ({"nodaemon": True, "logfile": "rvp.log"}, ["--logfile", f"{here}/rvp-worker0.log"]),
            ({}, ["--logfile", f"{here}/twistd-worker0.log"]),
        ):
            self.assertEqual(log_arguments(twistd, "worker0"), expected, twistd)
