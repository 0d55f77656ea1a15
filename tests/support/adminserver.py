"""C{twistd rvp-admin} as a real process, and ways to ask it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import TestCase

from tests.support.processes import BIN, PATIENCE_SECONDS, wait_for


@dataclass(frozen=True)
class Told:
    """An answer.

    @ivar body: what the JSON of it means; C{None} without any.
    """

    status: int
    headers: Mapping[str, str]
    body: Any  # JSON is of every shape


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE_SECONDS)
        self._path = path

    def connect(self) -> None:
        """Connect."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: object = None,
    token: str | None = None,
) -> Told:
    """Ask once, and close."""
    headers = {} if body is None else {"Content-Type": "application/json"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        data = answer.read()
        return Told(answer.status, dict(answer.getheaders()), json.loads(data) if data else None)
    finally:
        connection.close()


class AdminServer:
    """The process; what it says goes into C{log} in its folder."""

    def __init__(self, test: TestCase, folder: Path, *options: str) -> None:
        """
        @param folder: has the directory C{directory.sqlite} and C{farm.key}.
        """
        self.log = folder / "admin.log"
        command = [str(BIN / "twistd"), "--nodaemon", "--pidfile=", "rvp-admin", *options]
        environment = {**os.environ, "RVPFARM_DIRECTORY": f"sqlite:///{folder / 'directory.sqlite'}"}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=folder, env=environment, stdin=subprocess.DEVNULL
            )
        test.addCleanup(self.stop)
        wait_for("the admin API's start", self._up)

    def stop(self) -> int:
        """Stop it; returns its status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_SECONDS)

    def said(self) -> str:
        """What it has logged so far."""
        return self.log.read_text("utf-8", "replace")

    def _up(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"it ended: {self.said()}")
        return "Starting factory <rvpfarm.admin.site" in self.said()
