"""MIME: anything is an entity of some kind, and what was written from one reads the same."""

from __future__ import annotations

from rvpfarm.protocol.mime import Mime, parse_mime, render_text, render_typing
from tests.support import printed

_START = printed.MESSAGE.index(b"<![CDATA[") + len(b"<![CDATA[")
MESSAGE = printed.MESSAGE[_START : printed.MESSAGE.index(b"]]>")]
SESSION = "{3B0C7F52-91D4-4E6A-8C17-5A2E90D4B7F1}"

TOKENS = (
    *(
        b"MIME-Version: 1.0\r\n",
        b"Content-Type: text/plain; charset=UTF-8\r\n",
        b"Session-Id: ",
        b"TypingUser: a@b\n",
    ),
    *(
        b"text/x-msmsgscontrol",
        b"X-MMS-IM-Format: FN=MS%20Shell%20Dlg; EF=; CO=0; CS=0; PF=0",
        b": ",
        b";",
        b"=",
    ),
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"\r\n\r\n",
        b"\n\n",
        b"\n ",
        b"\n\t",
        b"\r\n ",
        b" ",
        b"\x0b",
        b"\x00",
        b"\xc2\x85",
    ),
    *(b"\xe2\x80\xa8", b"\xc4\xb0", b"\xc3\x9f", b"\xef\xac\x80", SESSION.encode(), b":" * 20, b"\n" * 20),
)


def seeds() -> list[bytes]:
    """What clients send."""
    return [
        MESSAGE,
        MESSAGE.replace(b"\r\n", b"\n"),
        b"\n\r\n" + MESSAGE.replace(b"; charset", b";\r\n charset"),
        render_text("one\r\ntwo\n\nthree", SESSION),
        render_typing("petra@fabrik.example", SESSION),
        b"no header\n\nbody",
    ]


def fuzz_one(data: bytes) -> None:
    """Read C{data} as what is in C{r:mime-data}."""
    text = data.decode("utf-8", "replace")
    mime = parse_mime(text)
    for name, value in mime.headers.items():
        assert "\n" not in name + value
        assert (name, value) == (name.strip(), value.strip())
        assert ":" not in name
    assert ";" not in mime.content_type
    assert len(mime.body) <= len(text)
    _check_again(mime)
    _check_text(text)


def _check_again(mime: Mime) -> None:
    """Written and read again, it is the same, but for a CR that a line end has joined."""
    head = "".join(f"{name}: {value}\r\n" for name, value in mime.headers.items())
    if not head:
        return  # its body would be taken for the headers
    again = parse_mime(f"{head}\r\n{mime.body}")
    assert again == Mime(mime.headers, mime.body.replace("\r\n", "\n")), (again, mime)


def _check_text(text: str) -> None:
    """A text arrives as it was, a name cannot bring a header, and neither raises anything else."""
    sent = parse_mime(render_text(text, SESSION).decode())
    assert sent.body == text.replace("\r\n", "\n").replace("\r", "\n")
    assert (sent.content_type, sent.session) == ("text/plain", SESSION)
    user = text[:60]
    try:
        notice = parse_mime(render_typing(user, SESSION).decode())
    except ValueError:
        assert "\r" in user or "\n" in user
        return
    assert "\r" not in user
    assert "\n" not in user
    assert set(notice.headers) == {"mime-version", "content-type", "typinguser", "session-id"}
    assert notice.headers["typinguser"] == user.strip()
