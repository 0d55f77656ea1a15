"""Log observers for C{twistd --logger}: JSON lines for machines, few plain lines for people."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TextIO

from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    formatEvent,
)
from twisted.python.failure import Failure
from zope.interface import implementer

#: Fields whose name contains one of these words are never written.
_SECRET = re.compile(
    r"(^|_)(password|secret|authorization|credentials?|token|body|verifiers?|ha1|blob|cookie)s?(_|$)", re.I
)

#: What the older logging interface adds to every event.
_NOISE = frozenset({"format", "isError", "message", "time", "system", "failure", "why", "log_io"})

_LONGEST_TEXT = 4000
_LONGEST_FIELD = 500
_LONGEST_TRACEBACK = 8000

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), 0x7F) if code not in (0x09, 0x0A)}


def _cleared(event: LogEvent) -> LogEvent:
    """The event with every secret field blotted out."""
    return {name: "***" if _SECRET.search(name) else value for name, value in event.items()}


def _cut(text: str, most: int) -> str:
    """The text, or as much of it as is allowed."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"


def _traceback(event: LogEvent) -> str:
    """The traceback of what failed, its end rather than its beginning; empty if nothing failed."""
    failure = event.get("log_failure")
    if not isinstance(failure, Failure):
        return ""
    text = failure.getTraceback()
    return text if len(text) <= _LONGEST_TRACEBACK else f"...{text[-_LONGEST_TRACEBACK:]}"


def _level(event: LogEvent) -> str:
    """The name of the event's level."""
    level = event.get("log_level")
    return str(level.name) if level is not None else "info"


def _value(value: object) -> object:
    """A field as JSON can carry it."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    try:
        return _cut(value if isinstance(value, str) else str(value), _LONGEST_FIELD)
    except Exception:  # a field that cannot be shown must not cost the line
        return "(unprintable)"


def render_json(event: LogEvent) -> str:
    """One event as one line of JSON: time, level, system, text, its fields, and the traceback if any."""
    event = _cleared(event)
    when = datetime.fromtimestamp(event.get("log_time", 0.0), UTC)
    line: dict[str, object] = {
        "time": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": _level(event),
        "system": event.get("log_namespace") or event.get("log_system") or "-",
        "text": _cut(formatEvent(event), _LONGEST_TEXT),
    }
    for name, value in event.items():
        if name not in line and name not in _NOISE and not name.startswith("log_"):
            line[name] = _value(value)
    traceback = _traceback(event)
    if traceback:
        line["traceback"] = traceback
    return json.dumps(line, ensure_ascii=False)


def render_plain(event: LogEvent) -> str:
    """One event for a person: level, text, and the traceback if any."""
    event = _cleared(event)
    text = _cut(formatEvent(event), _LONGEST_TEXT)
    if event.get("log_namespace") not in ("stderr", "stdout"):
        text = f"{_level(event)}: {text}"
    traceback = _traceback(event).rstrip()
    if traceback:
        text = f"{text}\n{traceback}"
    return text.translate(_CONTROLS)


@implementer(ILogObserver)
class Lines:
    """Writes one line per event, and bears with a stream that cannot be written."""

    def __init__(self, stream: TextIO, render: Callable[[LogEvent], str]) -> None:
        self._stream = stream
        self._render = render

    def __call__(self, event: LogEvent) -> None:
        """Write the event; a full disk or a closed pipe loses it, and nothing else."""
        with suppress(OSError, ValueError):
            self._stream.write(f"{self._render(event)}\n")
            self._stream.flush()


def _chosen_level() -> Any:  # the type of log levels comes from an unannotated library
    """The level named by C{RVPFARM_LOG_LEVEL}; info when it names none."""
    name = os.environ.get("RVPFARM_LOG_LEVEL", "info").lower()
    return next((level for level in LogLevel.iterconstants() if level.name == name), LogLevel.info)


def _from_level(observer: ILogObserver, level: Any) -> ILogObserver:
    """The observer, told only of events of C{level} and above."""
    return FilteringLogObserver(observer, [LogLevelFilterPredicate(level)])


def json_lines() -> ILogObserver:
    """JSON lines on standard output, for C{twistd --logger rvpfarm.observe.logs.json_lines}.

    Everything from info up, or from the level that C{RVPFARM_LOG_LEVEL} names.
    """
    return _from_level(Lines(sys.stdout, render_json), _chosen_level())


def quiet() -> ILogObserver:
    """Warnings and worse, as plain text on standard error: for a person at a terminal."""
    return _from_level(Lines(sys.stderr, render_plain), LogLevel.warn)
