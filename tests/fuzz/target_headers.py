"""Header fields: a value in its range or the one refusal that the function names."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from rvpfarm.protocol.calls import METHODS, BadRequest, NotAllowed, NotSupported, Precondition, Unsupported
from rvpfarm.protocol.headers import (
    check_content_type,
    check_depth,
    check_method,
    parse_ack,
    parse_hops,
    parse_kind,
    parse_lifetime,
    parse_subscription_id,
    parse_version,
)

LONGEST = 300

TOKENS = (
    *METHODS,
    *(
        b"COPY",
        b"MOVE",
        b"SingleHop",
        b"DeepOr",
        b"DEEPAND",
        b"pragma/notify",
        b"update/propchange",
        b"text/xml",
        b"0.2",
    ),
    *(
        b"application/xml",
        b'; charset="utf-8"',
        b"1.0",
        b".",
        b"0",
        b"00000",
        b"14400",
        b"-1",
        b"+1",
        b"1_0",
        b"9A504",
    ),
    *(
        b" ",
        b"\t",
        b", ",
        b"infinity",
        b"\xd9\xa1",
        b"\xc2\xb2",
        b"9" * 60,
        b"0" * 60,
        b"1e3",
        b"\x00",
        b"\xff",
    ),
)

#: No number that is read is larger: the highest of thirteen digits.
_LARGEST = 10**13


def seeds() -> list[bytes]:
    """Values of every field."""
    return [token + suffix for token in TOKENS for suffix in (b"", b" ")]


def fuzz_one(data: bytes) -> None:
    """Read C{data} as the value of every field, as a reader of heads leaves it."""
    value = data.strip(b" \t")
    _words(value)
    _numbers(value)
    try:
        check_method(value)
        assert value in METHODS
    except (NotAllowed, NotSupported) as refused:
        assert value not in METHODS
        assert refused.status in (405, 501)


def _number(read: Callable[[], int | None]) -> int | None:
    """What it reads, C{None} if it refuses."""
    try:
        return read()
    except BadRequest:
        return None


def _words(value: bytes) -> None:
    with suppress(BadRequest):
        assert parse_ack({b"rvp-ack-type": value}) is not None
    with suppress(BadRequest):
        assert parse_kind({b"notification-type": value}, required=True) is not None
    with suppress(Precondition):
        check_depth({b"depth": value})
        assert value.strip() == b"0"
    try:
        check_content_type({b"content-type": value})
    except Unsupported as refused:
        assert refused.status == 415


def _numbers(value: bytes) -> None:
    with suppress(BadRequest):
        assert parse_version({b"rvp-notifications-version": value}) in (b"0.2", b"1.0")
    for number in (
        _number(lambda: parse_hops({b"rvp-hop-count": value})),
        _number(lambda: parse_lifetime({b"subscription-lifetime": value})),
    ):
        assert number is None or 0 < number < _LARGEST
        assert number is None or value.isdigit() or value.strip().isdigit()
    id = _number(lambda: parse_subscription_id({b"subscription-id": value}))
    assert id is None or 0 <= id < _LARGEST
