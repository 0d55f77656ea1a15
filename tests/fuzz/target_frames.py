"""Frames of the farm link: allowed ones, whole, or the end of the connection; and no more kept than one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from rvpfarm.link.frames import (
    CHALLENGE_ONLY,
    HELLO_ONLY,
    PROOF_ONLY,
    WELCOME_ONLY,
    Answered,
    CallFrame,
    Cancel,
    Frame,
    FrameReader,
    Gone,
    Greeting,
    Leaving,
    Ping,
    Pong,
    ReplyFrame,
    Returned,
    Streamed,
    from_caller,
    from_home,
    render_answer,
    render_answered,
    render_ask,
    render_call,
    render_cancel,
    render_gone,
    render_leaving,
    render_ping,
    render_pong,
    render_returned,
)
from rvpfarm.link.kinds import (
    BadFrame,
    Kind,
)
from rvpfarm.link.meeting import (
    NONCE_SIZE,
    Challenge,
    Edition,
    Hello,
    Proof,
    render_challenge,
    render_edition,
    render_hello,
    render_proof,
    render_welcome,
)
from rvpfarm.link.parts import (
    Ask,
    Begin,
    Open,
    Part,
    Window,
    render_begin,
    render_open,
    render_part,
    render_window,
)
from rvpfarm.protocol.calls import Call, Limits
from tests.fuzz.cuts import pieces
from tests.link.test_frames import EDITION_ONLY, HELLO, outline

SMALL = Limits(head=300, body=500)

#: The stages of a link, each with what may come then.
STAGES: tuple[Mapping[int, int], ...] = (
    HELLO_ONLY,
    CHALLENGE_ONLY,
    PROOF_ONLY,
    WELCOME_ONLY,
    EDITION_ONLY,
    {**from_home(0), int(Kind.REPLY): 2000},
    {kind: min(size, 2000) for kind, size in from_home(1).items()},
    from_caller(SMALL, 0),
    {kind: min(size, 2000) for kind, size in from_caller(SMALL, 1).items()},
)

_NONCE = bytes(range(NONCE_SIZE))
_CALL = Call(b"NOTIFY", b"/", {}, b"body", 1, b"NOTIFY / HTTP/1.1\r\nHost: a\r\n\r\n", "192.0.2.1", "r1-77")

TOKENS = (
    *(bytes((0, 0, 0, size, kind)) for kind in Kind for size in (1, 9, 33)),
    *(
        b"RVPL\x01",
        b"RVPL\x02",
        b"\x00\x00\x00\x00",
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x01",
        b"\x00" * 8,
        b"\xff" * 8,
    ),
    *(
        _NONCE,
        b"\x08router-1",
        b"\x043f0c",
        b"\x00",
        b"\xc3\xa4",
        b"\xff\xfe",
        render_ping(7),
        render_cancel(7),
    ),
    *(render_answered([1, 2]), render_pong(7), b"NOTIFY / HTTP/1.1\r\n\r\n"),
)


def seeds() -> list[bytes]:
    """Every kind of frame, alone and in company."""
    vouched = Call(b"ACL", b"/", {}, b"", 1, b"ACL / HTTP/1.1\r\nHost: a\r\n\r\n", "::1", "", None, True)
    calls = render_call(1, _CALL) + render_answered([1, 2**64 - 1]) + render_call(2**63, vouched)
    return [
        render_hello(HELLO),
        render_challenge(_NONCE),
        render_proof(_NONCE),
        render_welcome(2**64 - 1, _NONCE),
        render_call(1, _CALL),
        calls + render_cancel(1) + render_gone("r1-77") + render_ping(2),
        render_gone("r1-77"),
        render_call(5, replace(_CALL, withheld=5)),
        render_answer(1, b"HTTP/1.1 200 Successful\r\n\r\n", False) + render_pong(3),
        render_answer(2, b"", True) + render_answer(3, b"x" * 300, False),
        render_answered(range(40)),
        render_edition(1),
        render_leaving(15) + render_returned(7) + render_returned(8),
        render_open(9, _CALL, 500) + render_part(9, b"x" * 300, False) + render_part(9, b"x" * 200, True),
        render_open(9, vouched, None) + render_part(9, b"", True) + render_ask(9) + render_window(9, 65536),
        render_begin(9, True, 700, b"HTTP/1.1 200 Successful\r\n\r\n") + render_part(9, b"x" * 99, True),
    ]


def fuzz_one(data: bytes) -> None:
    """Read C{data} as what a link brings, at every stage of it."""
    parts = pieces(data)
    for allowed in STAGES:
        whole, refused = _read(allowed, [data])
        cut, refused_cut = _read(allowed, parts)
        assert refused == refused_cut, "the cuts make a difference"
        if not refused:
            assert list(map(_shown, whole)) == list(map(_shown, cut))
            reader = FrameReader(allowed)
            used = sum(len(_rendered(frame)) for frame in reader.feed(data))
            assert used + reader.buffered == len(data), "octets were skipped"


def _read(allowed: Mapping[int, int], parts: list[bytes]) -> tuple[list[Frame], bool]:
    """The frames, and whether something was refused after them."""
    reader, frames = FrameReader(allowed), list[Frame]()
    for part in parts:
        try:
            found = reader.feed(part)
        except BadFrame:
            return frames, True
        for frame in found:
            _check(frame, allowed)
        frames += found
        assert reader.buffered < 4 + max(allowed.values()), reader.buffered
    return frames, False


def _check(frame: Frame, allowed: Mapping[int, int]) -> None:
    """It was allowed, and it is the same when it is written and read again."""
    rendered = _rendered(frame)
    assert rendered[4] in allowed
    assert len(rendered) - 4 <= allowed[rendered[4]]
    (again,) = FrameReader(allowed).feed(rendered)
    assert _shown(again) == _shown(frame)


def _shown(frame: Frame) -> object:
    """A frame as a value that can be compared, all of it."""
    return outline(frame), frame.withheld if isinstance(frame, CallFrame) else 0


def _rendered(frame: Frame) -> bytes:
    """The octets of any frame; flags that nobody knows are lost."""
    if isinstance(frame, CallFrame):
        call = Call(
            *(b"", b"", {}, frame.body, 1, frame.head, frame.peer, frame.connection),
            vouched=frame.vouched,
            withheld=frame.withheld,
        )
        return render_call(frame.id, call)
    if isinstance(frame, ReplyFrame):
        return render_answer(frame.id, frame.wire, frame.close)
    if isinstance(frame, Answered):
        return render_answered(frame.ids) or b"\x00\x00\x00\x01%c" % Kind.ANSWERED
    if isinstance(frame, Cancel):
        return render_cancel(frame.id)
    if isinstance(frame, Gone):
        return render_gone(frame.connection)
    if isinstance(frame, Open | Part | Window | Begin | Ask):
        return _rendered_parts(frame)
    if isinstance(frame, Leaving):
        return render_leaving(frame.seconds)
    if isinstance(frame, Returned):
        return render_returned(frame.id)
    if isinstance(frame, Ping):
        return render_ping(frame.token)
    if isinstance(frame, Pong):
        return render_pong(frame.token)
    return _rendered_greeting(frame)


def _rendered_parts(frame: Streamed) -> bytes:
    if isinstance(frame, Open):
        call = Call(
            *(b"", b"", {}, b"", 1, frame.head, frame.peer, frame.connection),
            vouched=frame.vouched,
            withheld=frame.withheld,
        )
        return render_open(frame.id, call, frame.size)
    if isinstance(frame, Part):
        return render_part(frame.id, frame.data, frame.last)
    if isinstance(frame, Window):
        return render_window(frame.id, frame.octets)
    if isinstance(frame, Begin):
        return render_begin(frame.id, frame.close, frame.size, frame.wire)
    return render_ask(frame.id)


def _rendered_greeting(frame: Greeting) -> bytes:
    if isinstance(frame, Hello):
        return render_hello(frame)
    if isinstance(frame, Challenge):
        return render_challenge(frame.nonce)
    if isinstance(frame, Proof):
        return render_proof(frame.proof)
    if isinstance(frame, Edition):
        return render_edition(frame.number)
    return render_welcome(frame.standing, frame.proof)
