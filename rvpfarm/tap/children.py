"""The child processes of a farm: started, watched, started again, stopped together.

Import this only after the reactor is chosen: C{twisted.runner.procmon} imports it.
"""

from __future__ import annotations

import json
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.logfile import LogFile
from twisted.runner.procmon import ProcessMonitor

from rvpfarm.tap.settings import STOP_AT_EOF

#: What a child runs.  A process group of its own keeps Ctrl-C at the terminal from reaching it: its
#: parent alone tells it to stop, or its standard input ends.
_PROGRAM = "import os; os.setpgid(0, 0); from twisted.scripts.twistd import run; run()"

_LOG_BYTES = 1_000_000
_LOGS_KEPT = 2
_TAIL_BYTES = 32_768


#: Has twistd log JSON lines.
JSON_LINES = ("--logger", "rvpfarm.observe.logs.json_lines")


def twistd_arguments(plugin: str, *arguments: str, log: Sequence[str] = JSON_LINES) -> list[str]:
    """The command line of C{twistd PLUGIN ARGUMENTS} in the foreground.

    @param log: twistd's options that say how it logs.
    """
    return [sys.executable, "-P", "-c", _PROGRAM, "--nodaemon", "--pidfile=", *log, plugin, *arguments]


def child_environment(ours: Mapping[str, str]) -> dict[str, str]:
    """The environment for a child: ours without our own settings, which are not meant for it."""
    kept = {name: value for name, value in ours.items() if not name.startswith("RVPFARM_")}
    kept[STOP_AT_EOF] = "1"
    kept["RVPFARM_DRAIN_GRACE"] = "0.5"  # whoever presses Ctrl-C waits for it
    return kept


def tail(path: Path, lines: int = 12) -> list[str]:
    """The last lines of a child's log, as a person would read them."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    shown: deque[str] = deque(maxlen=lines)
    for line in text.splitlines():
        shown.extend(_readable(line))
    return list(shown)


def _readable(line: str) -> list[str]:
    """What a line of the log says: the text of a JSON line and its traceback, any other line itself."""
    try:
        event = json.loads(line)
        found = [f"{event['level']}: {event['text']}", event.get("traceback", "")]
    except (ValueError, TypeError, KeyError):
        found = [line]
    return [part for piece in found for part in piece.splitlines() if part.strip()]


def _how(reason: Failure) -> str:
    """How a process ended, for a sentence."""
    if isinstance(reason.value, ProcessTerminated):
        if reason.value.signal is not None:
            return f"killed by signal {reason.value.signal}"
        return f"exit status {reason.value.exitCode}"
    if isinstance(reason.value, ProcessDone):
        return "exit status 0"
    return str(reason.value)


def _was_killed(reason: Failure) -> bool:
    """Did somebody end the process, rather than the process itself?"""
    ended = reason.value
    return isinstance(ended, ProcessTerminated) and ended.signal in (signal.SIGKILL, signal.SIGTERM)


class _Child(ProcessProtocol):
    """One run of one child: what it writes goes to whoever listens, its end to whoever watches."""

    def __init__(
        self, name: str, heard: Callable[[int, bytes], None], ended: Callable[[str, Failure], None]
    ) -> None:
        self._name = name
        self._heard = heard
        self._ended = ended

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """The child wrote to one of its descriptors."""
        self._heard(childFD, data)

    def processEnded(self, reason: Failure) -> None:
        """It is gone, and so is its output."""
        self._ended(self._name, reason)


@dataclass(frozen=True, slots=True)
class _Recipe:
    """How a child is run.

    @ivar how: further arguments of C{spawnProcess} (C{Any}: they are of all kinds).
    """

    arguments: list[str]
    heard: Callable[[int, bytes], None]
    how: dict[str, Any]


class Children(ProcessMonitor):
    """Keeps every child running until told to stop, and is stopped when all of them are."""

    # What ProcessMonitor goes by (seconds): who lived no longer than the first is started again later,
    # and later each time.
    threshold = 3
    minRestartDelay = 0.5  # type: ignore[assignment]  # inferred as whole seconds, used as a float
    maxRestartDelay = 5

    #: A child that ends by itself within so many seconds did not come up; so many times in a row are
    #: reported.
    trial_seconds = 30.0
    patience = 3

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        log_directory: Path | None,
        failing: Callable[[str, str], None],
        *,
        ended: Callable[[str], None] = lambda name: None,
        kill_seconds: float = 5.0,
    ) -> None:
        """
        @param reactor: starts processes and tells the time (C{Any}: no one interface does both).
        @param log_directory: gets C{<name>.log}, bounded, of each child whom nobody else listens to.
        @param failing: called with a child's name and how it ended when it keeps dying; once until it
            has come up again.
        @param ended: called with a child's name whenever a run of it ended.
        @param kill_seconds: who has not stopped so long after being told to is killed.
        """
        super().__init__(reactor)
        self.killTime = kill_seconds  # type: ignore[assignment]  # inferred as whole seconds, used as a float
        self._spawner = reactor
        self._directory = log_directory
        self._failing = failing
        self._tell_ended = ended
        self._recipes: dict[str, _Recipe] = {}
        self._logs: dict[str, LogFile] = {}
        self._deaths: dict[str, int] = {}
        self._leaving: dict[str, Deferred[None]] = {}
        self._stopped: Deferred[None] | None = None

    def add(
        self,
        name: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        *,
        descriptors: Mapping[int, int | str] | None = None,
        heard: Callable[[int, bytes], None] | None = None,
        directory: str | None = None,
    ) -> None:
        """Keep C{arguments} running under C{name}, from now on if this service runs.

        @param descriptors: the child's, as C{spawnProcess} takes them; left out, the usual three.
        @param heard: told what the child writes to which of them; left out, that goes to the log.
        @param directory: where it works; left out, where we do.
        """
        how: dict[str, Any] = {"env": dict(environment)}
        if descriptors is not None:
            how["childFDs"] = dict(descriptors)
        if directory is not None:
            how["path"] = directory
        self._recipes[name] = _Recipe(list(arguments), heard or partial(self._write_log, name), how)
        self.addProcess(name, list(arguments))

    def remove(self, name: str) -> Deferred[None]:
        """Tell C{name} to stop and never start it again; fires when it is gone."""
        waiting = self.restart.get(name)
        if waiting is not None and waiting.active():
            waiting.cancel()
        self.removeProcess(name)
        if name not in self.protocols:
            self._forget(name)
            return succeed(None)
        gone = self._leaving[name] = Deferred()
        return gone

    def send(self, signal_name: str, name: str | None = None) -> None:
        """Send C{"HUP"}, say, to the child C{name}, or to all that run."""
        for each, child in list(self.protocols.items()):
            if name in (None, each) and child.transport is not None:
                with suppress(ProcessExitedAlready):
                    child.transport.signalProcess(signal_name)

    def log_path(self, name: str) -> Path:
        """Where the output of a child goes."""
        assert self._directory is not None
        return self._directory / f"{name}.log"

    def startProcess(self, name: str) -> None:
        """Start a child that does not run; C{ProcessMonitor} calls this again when it died."""
        if name in self.protocols:
            return
        recipe = self._recipes[name]
        child = _Child(name, recipe.heard, self._end)
        self.protocols[name] = child  # type: ignore[assignment]  # all that is asked of it is its transport
        self.timeStarted[name] = self._spawner.seconds()
        try:
            self._spawner.spawnProcess(child, recipe.arguments[0], recipe.arguments, **recipe.how)
        except OSError:
            self._end(name, Failure())

    def stopService(self) -> Deferred[None]:  # type: ignore[override]  # ProcessMonitor does not wait
        """Tell all to stop; those that do not are killed.  Fires when the last one is gone."""
        super().stopService()
        if not self.protocols:
            self._close_logs()
            return succeed(None)
        self._stopped = Deferred()
        return self._stopped

    def _write_log(self, name: str, fd: int, data: bytes) -> None:
        """The child C{name} wrote something that is for its log."""
        if name not in self._logs:
            self._logs[name] = LogFile(
                f"{name}.log",
                str(self._directory),
                rotateLength=_LOG_BYTES,
                defaultMode=0o600,
                maxRotatedFiles=_LOGS_KEPT,
            )
        self._logs[name].write(data)

    def _close_logs(self) -> None:
        """Nobody writes any more."""
        for log in self._logs.values():
            log.close()
        self._logs.clear()

    def _end(self, name: str, reason: Failure) -> None:
        """A child ended; C{ProcessMonitor} decides when it is started again."""
        lived = self._spawner.seconds() - self.timeStarted[name]
        if name in self._logs:
            self._logs[name].flush()
        # The only public name of this is deprecated.
        self._monitoredProcessExited(name, reason)
        self._tell_ended(name)
        if name in self._leaving:
            gone = self._leaving.pop(name)
            self._forget(name)
            gone.callback(None)
        elif self.running:
            self._judge(name, reason, lived)
        if self._stopped is not None and not self.protocols:
            self._close_logs()
            stopped, self._stopped = self._stopped, None
            stopped.callback(None)

    def _forget(self, name: str) -> None:
        """Nobody of that name will run again, unless added again."""
        for known in (self._recipes, self._deaths, self.delay, self.timeStarted, self.restart):
            known.pop(name, None)

    def _judge(self, name: str, reason: Failure, lived: float) -> None:
        """A child ended unasked: does it keep doing that?"""
        if lived >= self.trial_seconds or _was_killed(reason):
            self._deaths[name] = 0
            self._log.warn("{name} ended ({how}); it is started again", name=name, how=_how(reason))
            return
        self._deaths[name] = self._deaths.get(name, 0) + 1
        if self._deaths[name] == self.patience:
            self._failing(name, _how(reason))
