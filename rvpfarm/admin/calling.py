"""Asks the admin API of another process or machine for an operation."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from rvpfarm.admin import schemas
from rvpfarm.admin.checks import Refused, is_ip
from rvpfarm.admin.operations import Operation

#: How long one answer may take, and how large it may be; a broadcast answers when it is delivered.
PATIENCE_SECONDS, ANSWER_LIMIT = 600.0, 64 << 20


class CannotCall(Refused):
    """The API cannot be asked; the text is one sentence."""


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=PATIENCE_SECONDS)
        self._path = path

    def connect(self) -> None:
        """Connect."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE_SECONDS)
        self.sock.connect(self._path)


class Remote:
    """An admin API somewhere."""

    def __init__(self, url: str, token: str | None = None, authority: str | None = None) -> None:
        """
        @param url: C{unix:PATH}, C{https://HOST:PORT}, or C{http://HOST:PORT} on loopback.
        @param token: proves who asks; on a Unix socket the OS may.
        @param authority: a file of certificates to trust instead of the system's.
        @raise CannotCall: it is no such address.
        """
        self._url, self._token, self._authority = url, token, authority
        parts = urlsplit(url)
        plain = parts.scheme == "http" and _is_loopback(parts.hostname or "")
        unix = parts.scheme == "unix" and parts.path
        if not (unix or ((plain or parts.scheme == "https") and parts.hostname)):
            raise CannotCall(
                f'"{url}" is no admin API; give --api unix:/run/rvpfarm/admin.sock or https://HOST:PORT'
            )

    def call(self, operation: Operation, given: Mapping[str, object], *, rehearsing: bool = False) -> Any:
        """What the API answers: an object with what the operation returned as C{result}.

        C{Any}: it is of every shape.

        @raise Refused: the API refuses, or cannot be asked.
        """
        path, query, body = _place(operation, given)
        if rehearsing:
            query["dry_run"] = "true"
        target = f"{path}?{urlencode(query, doseq=True)}" if query else path
        headers = {"Accept": "application/json"}
        if body:
            headers["Content-Type"] = "application/json"
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        sent = json.dumps(body).encode() if body else None
        status, data = self._exchange(operation.method, target, sent, headers)
        try:
            answer = json.loads(data)
        except ValueError:
            raise CannotCall(f"what answers at {self._url} is no admin API of a farm") from None
        if status >= 400:
            told = str(answer.get("detail", status)) if isinstance(answer, dict) else str(status)
            raise Refused(told[:1].lower() + told[1:].removesuffix("."))
        return answer

    def collect(self, operation: Operation, given: Mapping[str, object]) -> list[Any]:
        """All of a list, which the API shows in parts.

        C{Any}: rows are of every shape.

        @raise Refused: the API refuses, or cannot be asked.
        """
        found: list[Any] = []
        more: dict[str, object] = {}
        while True:
            answer = self.call(operation, {**given, **more})
            found += answer["result"]
            if answer["next"] is None:
                return found
            more = {"after": answer["next"]}

    def _exchange(
        self, method: str, target: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, bytes]:
        """The status and the body of an answer.

        @raise CannotCall: there is none.
        """
        connection = self._connect()
        try:
            connection.request(method, target, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read(ANSWER_LIMIT)
        except (OSError, http.client.HTTPException) as why:
            reason = (getattr(why, "strerror", None) or str(why) or type(why).__name__).lower()
            raise CannotCall(f"the admin API at {self._url} cannot be asked: {reason}") from why
        finally:
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        """A connection, not yet made."""
        parts = urlsplit(self._url)
        if parts.scheme == "unix":
            return _UnixConnection(parts.path)
        host, port = parts.hostname or "", parts.port
        if parts.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=PATIENCE_SECONDS)
        try:
            trusted = ssl.create_default_context(cafile=self._authority)
        except OSError as why:
            raise CannotCall(f"the certificates {self._authority} cannot be read: {why.strerror}") from why
        return http.client.HTTPSConnection(host, port, timeout=PATIENCE_SECONDS, context=trusted)


def _place(
    operation: Operation, given: Mapping[str, object]
) -> tuple[str, dict[str, object], dict[str, object]]:
    """The path, the query and the body that carry the arguments."""
    path, query, body = f"/v1{operation.path}", dict[str, object](), dict[str, object]()
    for name, value in given.items():
        one = operation.parameters.get(name)
        if one is None:  # which part of a list is wanted
            query[name] = schemas.to_query(value)
        elif one.where == "path":
            path = path.replace(f"{{{name}}}", quote(str(value), safe=""))
        elif one.where == "query":
            query[name] = schemas.to_query(value)
        else:
            body[name] = value
    return path, query, body


def _is_loopback(host: str) -> bool:
    """Is this an address of this machine's own?"""
    return host == "localhost" or (is_ip(host) and ip_address(host).is_loopback)
