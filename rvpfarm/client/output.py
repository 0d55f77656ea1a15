"""What the C{rvp} command prints: lines for people, or one JSON object per line for programs."""

from __future__ import annotations

import json
import time
import unicodedata
from collections.abc import Callable

from rvpfarm.client.notices import PLAIN, Left, Message, Presence


def harmless(text: str) -> str:
    """C{text} without characters that would do something to a terminal: other people wrote it."""
    return "".join(
        "\ufffd" if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c not in "\n\t" else c for c in text
    )


class Output:
    """Prints what happens."""

    def __init__(
        self, write: Callable[[str], object], *, as_json: bool = False, clock: Callable[[], str] | None = None
    ) -> None:
        """
        @param write: prints one line, without its end.
        @param clock: the time of day as text.
        """
        self._write = write
        self._as_json = as_json
        self._clock = clock or (lambda: time.strftime("%H:%M:%S"))

    def message(self, message: Message) -> None:
        """A message has come; what only programs understand is shown to programs only."""
        if self._as_json:
            self._print(
                "message",
                sender=message.sender,
                url=message.url,
                name=message.name,
                kind=message.kind,
                conversation=message.conversation,
                text=message.text,
            )
        elif message.kind == PLAIN:
            self._write(harmless(f"{self._clock()} {message.sender}: {message.text.replace(chr(13), '')}"))
        else:
            self._write(harmless(f"{self._clock()} {message.sender} sent something of kind {message.kind}"))

    def left(self, left: Left) -> None:
        """Somebody has left a conversation."""
        if self._as_json:
            self._print("left", sender=left.sender, url=left.url, conversation=left.conversation)
        else:
            self._write(harmless(f"{self._clock()} {left.sender} has left the conversation"))

    def presence(self, presence: Presence) -> None:
        """Somebody's presence has changed."""
        if presence.state is not None:
            self.state(presence.sender, presence.state, changed=True)

    def state(self, address: str, state: str, *, changed: bool, seconds: int | None = None) -> None:
        """Somebody's presence.

        @param changed: it has just changed, or was just set.
        @param seconds: how long it was granted.
        """
        if self._as_json:
            fields = {} if seconds is None else {"seconds": seconds}
            self._print("presence", address=address, state=state, changed=changed, **fields)
        else:
            until = "" if seconds is None else f" for {seconds} s"
            self._write(harmless(f"{address} is {state}{until}"))

    def logged_in(self, address: str, state: str) -> None:
        """The login worked."""
        if self._as_json:
            self._print("login", address=address, state=state)
        else:
            self._write(harmless(f"{address} is logged in ({state}); Ctrl-C logs out"))

    def sent(self, address: str) -> None:
        """A message was acknowledged."""
        if self._as_json:
            self._print("sent", to=address)
        else:
            self._write(harmless(f"delivered to {address}"))

    def _print(self, event: str, **fields: object) -> None:
        self._write(json.dumps({"event": event, **fields}))
