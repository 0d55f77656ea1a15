"""What a daemon says of itself on its page C{/status}: in JSON, for C{rvpfarm status} and other programs.

It is put together when somebody asks, in the thread that serves, from functions that only look.  It never
holds the name or the address of a user.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import islice

from twisted.logger import Logger

#: The most that any part of the page may be: items of a list, fields of an object, characters, levels.
ITEMS_LIMIT, FIELDS_LIMIT, TEXT_LIMIT, DEPTH_LIMIT = 1000, 100, 300, 6


def own_version() -> str:
    """The version of this program."""
    try:
        return version("rvpfarm")
    except PackageNotFoundError:
        return "unknown"


def bounded(value: object, depth: int = 0) -> object:
    """C{value} as JSON can carry it, cut to size; what cannot be shown is C{None}."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return round(value, 3) if math.isfinite(value) else None
    if isinstance(value, str):
        return value[:TEXT_LIMIT]
    if depth >= DEPTH_LIMIT:
        return None
    if isinstance(value, Mapping):
        fields = islice(value.items(), FIELDS_LIMIT)
        return {str(name)[:TEXT_LIMIT]: bounded(each, depth + 1) for name, each in fields}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [bounded(each, depth + 1) for each in islice(value, ITEMS_LIMIT)]
    return None


class Status:
    """Facts about this process, and whatever its services add.

    @ivar role: C{"router"}, C{"home"} or C{"dns"}.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        role: str,
        name: str,
        ready: Callable[[], Sequence[str]],
        draining: Callable[[], bool] = lambda: False,
        now: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        @param name: of this server in the directory.
        @param ready: the reasons why no work should be sent here, none when it is ready.
        @param draining: whether it is being taken away on purpose: then no work should be sent here either.
        @param now: the time of day.
        @param ticks: a time that nobody sets.
        """
        self.role, self.name, self._ready, self._draining = role, name, ready, draining
        self._ticks, self._now = ticks, now
        self._version = own_version()
        self._started, self._began = now(), ticks()
        self._parts: dict[str, Callable[[], object]] = {}
        self._groups: list[Callable[[], Mapping[str, object]]] = []
        self._complained: set[str] = set()

    def ready(self) -> Sequence[str]:
        """The reasons why no work should be sent here, none when it is ready."""
        return ("draining",) if self._draining() else self._ready()

    def show(self, name: str, read: Callable[[], object]) -> None:
        """Have the page say under C{name} what C{read()} says, asked in the thread that serves.

        A function that fails shows as null and is logged once: it must not hide the rest.
        """
        self._parts[name] = read

    def show_fields(self, read: Callable[[], Mapping[str, object]]) -> None:
        """Have the page say each field of what C{read()} says; see L{show}."""
        self._groups.append(read)

    def page(self) -> dict[str, object]:
        """The page."""
        reasons = self._read("reasons", lambda: list(self.ready()))
        page: dict[str, object] = {
            "role": self.role,
            "name": self.name,
            "version": self._version,
            "pid": os.getpid(),
            "started": round(self._started, 3),
            "time": round(self._now(), 3),
            "uptime_seconds": round(self._ticks() - self._began, 3),
            "ready": reasons == [],
            "reasons": reasons,
            "draining": self._read("draining", self._draining),
        }
        for name, read in tuple(self._parts.items()):
            page[name] = self._read(name, read)
        for group in tuple(self._groups):
            fields = self._read("a group of fields", group)
            if isinstance(fields, dict):
                page |= {name: value for name, value in fields.items() if name not in page}
        return page

    def render(self) -> bytes:
        """The page as octets."""
        return json.dumps(self.page(), ensure_ascii=False, indent=1).encode("utf-8", "replace") + b"\n"

    def _read(self, name: str, read: Callable[[], object]) -> object:
        try:
            return bounded(read())
        except Exception:  # or one broken part would hide all others
            if name not in self._complained:
                self._complained.add(name)
                self._log.failure("{name} cannot be read for the status page", name=name)
            return None
