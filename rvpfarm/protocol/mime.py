"""What travels in C{r:mime-data}: messages and typing notices as MIME (protocol notes 7).

Servers relay it untouched; only clients look inside.
"""

from __future__ import annotations

from dataclasses import dataclass

#: How a plain message is shown: C{X-MMS-IM-Format} of the system's font in black.
FORMAT = "FN=MS%20Shell%20Dlg; EF=; CO=0; CS=0; PF=0"


@dataclass(frozen=True, slots=True)
class Mime:
    """One MIME entity.

    @ivar headers: by lower-cased name.
    @ivar body: as received.
    """

    headers: dict[str, str]
    body: str

    @property
    def content_type(self) -> str:
        """The media type alone, lower case; empty when there is none."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def session(self) -> str:
        """The conversation it belongs to, upper case; empty when there is none."""
        return self.headers.get("session-id", "").upper()


def render_text(text: str, session: str) -> bytes:
    """A message.

    @param session: a GUID in braces that names the conversation.
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\r\n")
    head = (
        ("MIME-Version", "1.0"),
        ("Content-Type", "text/plain; charset=UTF-8"),
        ("X-MMS-IM-Format", FORMAT),
        ("Session-Id", session),
    )
    return _render(head, lines)


def render_typing(user: str, session: str) -> bytes:
    """The notice that C{user} (an IM address) is typing.

    @param session: a GUID in braces that names the conversation.
    """
    head = (
        ("MIME-Version", "1.0"),
        ("Content-Type", "text/x-msmsgscontrol"),
        ("TypingUser", user),
        ("Session-Id", session),
    )
    return _render(head, "\r\n")


def parse_mime(data: str) -> Mime:
    """Read a MIME entity, whatever ends its lines; empty lines before the first header are skipped.

    Lines that are no headers are skipped too, folded ones are joined, and of a repeated header the first
    counts.
    """
    head, _, body = data.replace("\r\n", "\n").lstrip("\n").partition("\n\n")
    headers: dict[str, str] = {}
    for line in head.replace("\n ", " ").replace("\n\t", " ").split("\n"):
        name, colon, value = line.partition(":")
        if colon:
            headers.setdefault(name.strip().lower(), value.strip())
    return Mime(headers, body)


def _render(head: tuple[tuple[str, str], ...], body: str) -> bytes:
    """An entity of these headers and this body.

    @raise ValueError: a header would break its line.
    """
    if any("\r" in value or "\n" in value for _, value in head):
        raise ValueError("a header value has more than one line")
    return ("".join(f"{name}: {value}\r\n" for name, value in head) + "\r\n" + body).encode()
