"""Tests of L{rvpfarm.protocol.headers}."""

from __future__ import annotations

from itertools import product

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.protocol import headers as module
from rvpfarm.protocol.calls import METHODS, BadRequest, NotAllowed, NotSupported, Precondition, Unsupported
from rvpfarm.protocol.headers import (
    Ack,
    Envelope,
    Kind,
    check_content_type,
    check_depth,
    check_method,
    parse_ack,
    parse_envelope,
    parse_hops,
    parse_kind,
    parse_lifetime,
    parse_subscription_id,
    parse_version,
)


class MethodTests(SynchronousTestCase):
    """RVP has seven methods (vector 48)."""

    def test_known(self) -> None:
        """Those pass."""
        for method in METHODS:
            check_method(method)

    def test_not_allowed(self) -> None:
        """COPY and MOVE are answered with what would be allowed."""
        for method in (b"COPY", b"MOVE"):
            refusal = self.assertRaises(NotAllowed, check_method, method)
            self.assertEqual(
                refusal.headers,
                ((b"Allow", b"SUBSCRIBE, UNSUBSCRIBE, SUBSCRIPTIONS, NOTIFY, PROPFIND, PROPPATCH, ACL"),),
            )

    def test_unknown(self) -> None:
        """All others are 501; letter case counts."""
        for method in (b"GET", b"HEAD", b"POST", b"OPTIONS", b"LOCK", b"DELETE", b"TRACE", b"notify", b"X"):
            self.assertRaises(NotSupported, check_method, method)


class VersionTests(SynchronousTestCase):
    """The version is answered in kind (vector 12)."""

    def test_echo(self) -> None:
        """0.2 and 1.0 come back; any other number, and none, gets 0.2."""
        for value, answer in (
            (b"0.2", b"0.2"),
            (b"1.0", b"1.0"),
            (b" 1.0 ", b"1.0"),
            (b"7", b"0.2"),
            (b"3.14", b"0.2"),
        ):
            self.assertEqual(parse_version({b"rvp-notifications-version": value}), answer)
        self.assertEqual(parse_version({}), b"0.2")

    def test_refused(self) -> None:
        """What is no number is 400."""
        for value in (b"banana", b"", b"1.", b".2", b"-1", b"1.0.0"):
            self.assertRaises(BadRequest, parse_version, {b"rvp-notifications-version": value})


class NumberTests(SynchronousTestCase):
    """Numbers are decimal."""

    def test_hops(self) -> None:
        """A missing hop count is 1; zero and nonsense are 400 (vector 42)."""
        self.assertEqual(parse_hops({}), 1)
        self.assertEqual(parse_hops({b"rvp-hop-count": b" 9 "}), 9)
        self.assertGreater(parse_hops({b"rvp-hop-count": b"9" * 9000}), 8)
        for value in (b"x", b"", b"0", b"-1", b"+1", b"1.5", "\u0661".encode()):
            self.assertRaises(BadRequest, parse_hops, {b"rvp-hop-count": value})

    def test_lifetime(self) -> None:
        """Nobody subscribes for ever, nor for no time (vectors 2, 3)."""
        self.assertEqual(parse_lifetime({b"subscription-lifetime": b"14400"}), 14400)
        self.assertGreater(parse_lifetime({b"subscription-lifetime": b"0" * 20 + b"9" * 9000}), 14400)
        for headers in (
            {},
            *({b"subscription-lifetime": value} for value in (b"0", b"abc", b"", b"-5", b"000")),
        ):
            self.assertRaises(BadRequest, parse_lifetime, headers)

    def test_subscription_id(self) -> None:
        """Any number is an id, a draft's hexadecimal one is nobody's, and other text is 400."""
        self.assertIsNone(parse_subscription_id({}))
        self.assertEqual(parse_subscription_id({b"subscription-id": b"40117"}), 40117)
        self.assertGreater(parse_subscription_id({b"subscription-id": b"9" * 5000}) or 0, 2147483647)
        self.assertEqual(parse_subscription_id({b"subscription-id": b"9A504"}), 0)
        for value in (b"", b"x", b"-1", b"1 2"):
            self.assertRaises(BadRequest, parse_subscription_id, {b"subscription-id": value})


class EnvelopeTests(SynchronousTestCase):
    """How a call travels is said by three headers, and refused as each of them is."""

    def test_like_its_parts(self) -> None:
        """It says what its headers say one by one, however often they have said it."""
        values = (
            None,
            b"",
            b"-",
            b"0.2",
            b"1.0",
            b"x",
            b"1",
            b"9",
            b" 3 ",
            b"0",
            b"DeepOr",
            b"deepand",
            b"?",
        )
        for version, hops, ack in product(values, values, values):
            fields = {
                name: value
                for name, value in (
                    (b"rvp-notifications-version", version),
                    (b"rvp-hop-count", hops),
                    (b"rvp-ack-type", ack),
                )
                if value is not None
            }
            for _ in range(2):
                try:
                    parse_version(fields)
                    expected = Envelope(parse_hops(fields), parse_ack(fields))
                except BadRequest:
                    self.assertRaises(BadRequest, parse_envelope, fields)
                else:
                    self.assertEqual(parse_envelope(fields), expected)

    def test_bounded(self) -> None:
        """Whatever callers write, no more of it is kept than the limit."""
        for number in range(2 * module._ENVELOPES):
            parse_envelope({b"rvp-hop-count": b"%d" % (number + 1)})
            self.assertLessEqual(len(module._envelopes), module._ENVELOPES)
        parse_envelope({b"rvp-hop-count": b"0" * 100 + b"7"})
        self.assertLess(max(len(hops or b"") for _, hops, _ in module._envelopes), 100)


class WordTests(SynchronousTestCase):
    """Words are compared without regard to letter case."""

    def test_ack(self) -> None:
        """The three acknowledgements are known; a fourth is 400 (vector 42)."""
        self.assertIsNone(parse_ack({}))
        for value, ack in (
            (b"SingleHop", Ack.SINGLE_HOP),
            (b"deepor", Ack.DEEP_OR),
            (b" DEEPAND", Ack.DEEP_AND),
        ):
            self.assertIs(parse_ack({b"rvp-ack-type": value}), ack)
        for value in (b"Maybe", b""):
            self.assertRaises(BadRequest, parse_ack, {b"rvp-ack-type": value})

    def test_kind(self) -> None:
        """The two kinds are known; a third is 400, and so is none where one is needed (vector 6)."""
        self.assertIs(parse_kind({b"notification-type": b"Pragma/Notify"}, required=True), Kind.LOGIN)
        self.assertIs(parse_kind({b"notification-type": b"update/propchange"}, required=True), Kind.PROPERTY)
        self.assertIsNone(parse_kind({}, required=False))
        self.assertRaises(BadRequest, parse_kind, {}, required=True)
        self.assertRaises(BadRequest, parse_kind, {b"notification-type": b"weather/change"}, required=False)

    def test_depth(self) -> None:
        """Only 0 will do (vector 22)."""
        check_depth({b"depth": b" 0 "})
        for headers in ({}, {b"depth": b"1"}, {b"depth": b"infinity"}, {b"depth": b""}):
            self.assertRaises(Precondition, check_depth, headers)

    def test_content_type(self) -> None:
        """XML and silence will do, with any parameters (vector 24)."""
        check_content_type({})
        for value in (b"text/xml", b"Application/XML", b'text/xml; charset="utf-8"', b""):
            check_content_type({b"content-type": value})
        for value in (b"text/plain", b"text/html", b"text", b"application/soap+xml"):
            self.assertRaises(Unsupported, check_content_type, {b"content-type": value})
