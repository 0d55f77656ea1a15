"""What the readers of all clients share: the seam, death, and names."""

from __future__ import annotations

from typing import Protocol

#: Who is who in the transcripts: the mail domain, and the host that its SRV record names.
MAIL_DOMAIN, IM_DOMAIN = "fabrik.example", "im.fabrik.example"
#: The states that any client knows (protocol notes 5.1).
STATES = ("online", "offline", "away", "busy", "back-soon", "on-phone", "at-lunch", "idle", "invisible")


class Died(AssertionError):
    """What came back is more than the client can take, or less than it needs."""


class Client(Protocol):
    """One client, as a reader of what it is sent.

    What it returns is what its user would notice, a line each.
    """

    def begin(self) -> None:
        """A new connection: whatever the client counts for each begins anew."""

    def answered(self, request: bytes, answer: bytes) -> list[str]:
        """Read the answer to a request.

        @raise Died: it cannot.
        """

    def notified(self, request: bytes) -> list[str]:
        """Read what a call-back received.

        @raise Died: it cannot.
        """


class Plain:
    """A client that takes anything: the other side of a conversation."""

    def begin(self) -> None:
        """Nothing is counted."""

    def answered(self, request: bytes, answer: bytes) -> list[str]:
        """Nothing is noticed."""
        return []

    def notified(self, request: bytes) -> list[str]:
        """Nothing is noticed."""
        return []


def method_of(request: bytes) -> str:
    """The method of a request."""
    return request.partition(b" ")[0].decode()


def alias_of(request: bytes) -> str:
    """Whose node a request is for: the last part of its path."""
    return request.split(b" ", 2)[1].rpartition(b"/")[2].decode()


def says(request: bytes, header: str) -> str:
    """The value of a header that the client itself has sent; empty if it has not."""
    for line in request.replace(b"\r\n", b"\n").partition(b"\n\n")[0].split(b"\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == header.lower().encode():
            return value.strip().decode()
    return ""
