"""The chunked coding: the same data and the same end however it is cut, never more than allowed."""

from __future__ import annotations

from rvpfarm.protocol.calls import BadRequest, HeadTooLarge, Refusal, TooLarge
from rvpfarm.web.chunks import EXTENSIONS_LIMIT, SIZE_LINE_LIMIT, TRAILERS_LIMIT, ChunkedBody
from tests.fuzz.cuts import pieces
from tests.web.test_smuggling import CHUNKS

LIMIT = 100
LONGEST = 6000

TOKENS = (
    *(
        b"5\r\nabcde\r\n",
        b"0\r\n",
        b"0\r\n\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b";",
        b";a=b",
        b" ;",
        b"\t",
        b"a" * 16,
        b"10",
    ),
    *(
        b"X: y\r\n",
        b"Content-Length: 5\r\n",
        b"Host: a\r\n",
        b": ",
        b" folded\r\n",
        b"0x5",
        b"+5",
        b"ffffffff",
    ),
    *(
        b"000000005",
        b"1\r\na\r\n",
        b";" + b"x" * 250,
        b"X: " + b"y" * 300 + b"\r\n",
        b"\x00",
        b"\x7f",
        b"\x80",
    ),
)


def seeds() -> list[bytes]:
    """Bodies as they should be, and all that the tests of smuggling know."""
    good = [b"5\r\nabcde\r\n0\r\n\r\n", b"3;a=b\r\nabc\r\nA\r\n0123456789\r\n0\r\nX: y\r\nZ:\r\n\r\nGET"]
    long = [b"1;%s\r\na\r\n" % (b"x" * 200) * 24, b"0\r\n" + b"X: %s\r\n" % (b"y" * 200) * 22]
    long += [b"10\r\n0123456789abcdef\r\n" * 7 + b"0\r\n\r\n"]
    return good + long + list(CHUNKS.values())


def fuzz_one(data: bytes) -> None:
    """Take the chunks off C{data}, in one piece and in several."""
    assert _take(pieces(data)) == _take([data]), "the cuts make a difference"


def _take(parts: list[bytes]) -> tuple[object, ...]:
    """The data, whether it is complete, what follows it, and the refusal."""
    body, kept = ChunkedBody(LIMIT), b""
    for number, part in enumerate(parts):
        kept += part
        try:
            used = body.take(kept, 0)
        except Refusal as refusal:
            assert isinstance(refusal, BadRequest | TooLarge | HeadTooLarge)
            assert refusal.close
            assert len(body.body) <= LIMIT
            return bytes(body.body), False, b"", refusal.text
        assert 0 <= used <= len(kept)
        kept = kept[used:]
        assert len(body.body) <= LIMIT
        if body.done:
            return bytes(body.body), True, kept + b"".join(parts[number + 1 :]), None
        assert len(kept) < max(SIZE_LINE_LIMIT, TRAILERS_LIMIT)
    assert sum(map(len, parts)) <= 13 * LIMIT + EXTENSIONS_LIMIT + TRAILERS_LIMIT + SIZE_LINE_LIMIT
    return bytes(body.body), False, kept, None
