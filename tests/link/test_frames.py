"""Frames travel whole or not at all, and a proof is good for one meeting only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.link.frames import (
    ANSWERED_LIMIT,
    CALL_SLACK,
    CHALLENGE_ONLY,
    HELLO_ONLY,
    PROOF_ONLY,
    REPLY_LIMIT,
    WELCOME_ONLY,
    Answered,
    CallFrame,
    Cancel,
    FrameReader,
    Gone,
    Leaving,
    Ping,
    Pong,
    ReplyFrame,
    Returned,
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
    Meeting,
    Proof,
    Welcome,
    is_proof,
    render_challenge,
    render_edition,
    render_hello,
    render_proof,
    render_welcome,
    standing,
)
from rvpfarm.link.parts import (
    PART_SIZE,
    WHOLE_LIMIT,
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

SMALL = Limits(head=1024, body=4096)
EDITION_ONLY = {int(Kind.EDITION): 9}
AT_WORK = (from_home(0), from_home(1), from_caller(SMALL, 0), from_caller(SMALL, 1))
STAGES = (HELLO_ONLY, CHALLENGE_ONLY, PROOF_ONLY, WELCOME_ONLY, EDITION_ONLY, *AT_WORK)
HELLO = Hello(2**64 - 1, b"n" * NONCE_SIZE, "router-1", "3f0c")
MEETING = Meeting("router-1", "3f0c", 7, b"c" * NONCE_SIZE, b"h" * NONCE_SIZE)

ids = st.integers(0, 2**64 - 1)
names = st.text(min_size=1, max_size=60)
calls = st.builds(
    Call,
    st.just(b"NOTIFY"),
    st.just(b"/"),
    st.just({}),
    body=st.binary(max_size=SMALL.body),
    head=st.binary(max_size=SMALL.head),
    peer=st.text(max_size=40),
    connection=st.text(max_size=60),
    vouched=st.booleans(),
)


def in_pieces(data: bytes, sizes: list[int]) -> list[bytes]:
    """C{data} cut into pieces of these sizes, over and over."""
    pieces, at, turn = [], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)] if sizes else len(data)
        pieces.append(data[at : at + size])
        at, turn = at + size, turn + 1
    return pieces


def outline(frame: object) -> object:
    """A frame as a value that can be compared."""
    if isinstance(frame, CallFrame):
        return (frame.id, frame.vouched, frame.peer, frame.connection, frame.head, frame.body)
    if isinstance(frame, ReplyFrame):
        return (frame.id, frame.close, frame.wire)
    if isinstance(frame, Open | Part | Begin):
        return tuple(getattr(frame, name) for name in frame.__slots__)
    return frame


class FrameReaderTests(SynchronousTestCase):
    """Whatever was rendered is read again, however it was cut up; anything else is refused."""

    def read(self, allowed: Mapping[int, int], data: bytes, sizes: list[int] | None = None) -> list[object]:
        """The frames in C{data}, which arrives in pieces."""
        reader = FrameReader(allowed)
        return [outline(frame) for piece in in_pieces(data, sizes or []) for frame in reader.feed(piece)]

    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(st.tuples(ids, calls), max_size=4),
        st.lists(ids, max_size=5),
        st.lists(names, max_size=3),
        st.lists(st.integers(1, 2000), max_size=5),
    )
    def test_caller_round_trip(
        self, made: list[tuple[int, Call]], others: list[int], gone: list[str], sizes: list[int]
    ) -> None:
        """Calls, acknowledgements, cancellations, closed connections and pings arrive as sent, in order."""
        data = b"".join(render_call(id, call) for id, call in made)
        data += render_answered(others) + b"".join(render_cancel(id) + render_ping(id) for id in others)
        wanted: list[object] = [
            (id, call.vouched, call.peer, call.connection, call.head, call.body) for id, call in made
        ]
        if others:
            wanted.append(Answered(tuple(others)))
        for id in others:
            wanted += [Cancel(id), Ping(id)]
        data += b"".join(map(render_gone, gone))
        wanted += map(Gone, gone)
        self.assertEqual(self.read(from_caller(SMALL), data, sizes), wanted)

    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(st.tuples(ids, st.binary(max_size=3000), st.booleans()), max_size=4),
        st.lists(st.integers(1, 2000), max_size=5),
    )
    def test_home_round_trip(self, made: list[tuple[int, bytes, bool]], sizes: list[int]) -> None:
        """Replies, returned calls, pongs and the end of it arrive as they were sent, in order."""
        data = b"".join(
            render_answer(*reply) + render_pong(reply[0]) + render_returned(reply[0]) for reply in made
        )
        data += render_leaving(15)
        wanted: list[object] = []
        for id, wire, close in made:
            wanted += [(id, close, wire), Pong(id), Returned(id)]
        wanted.append(Leaving(15))
        self.assertEqual(self.read(from_home(), data, sizes), wanted)

    @settings(max_examples=50, deadline=None)
    @given(ids, st.binary(min_size=32, max_size=32), names, names, st.lists(st.integers(1, 50), max_size=3))
    def test_handshake_round_trip(
        self, id: int, octets: bytes, one: str, other: str, sizes: list[int]
    ) -> None:
        """The frames of the handshake arrive as they were sent."""
        hello = Hello(id, octets, one, other)
        self.assertEqual(self.read(HELLO_ONLY, render_hello(hello), sizes), [hello])
        self.assertEqual(self.read(CHALLENGE_ONLY, render_challenge(octets), sizes), [Challenge(octets)])
        self.assertEqual(self.read(PROOF_ONLY, render_proof(octets), sizes), [Proof(octets)])
        welcome = Welcome(id >> 8, id & 255, octets)
        self.assertEqual(self.read(WELCOME_ONLY, render_welcome(welcome.standing, octets), sizes), [welcome])
        self.assertEqual(self.read(EDITION_ONLY, render_edition(id), sizes), [Edition(id)])

    @settings(max_examples=200, deadline=None)
    @given(st.sampled_from(STAGES), st.lists(st.binary(max_size=300), max_size=6))
    def test_arbitrary_bytes(self, allowed: Mapping[int, int], pieces: list[bytes]) -> None:
        """Anything at all is read or refused, and never kept beyond the largest frame allowed."""
        self.never_beyond(allowed, pieces)

    @settings(max_examples=200, deadline=None)
    @given(st.data())
    def test_broken_frames(self, data: st.DataObject) -> None:
        """Right frames with wrong sizes, kinds and contents are read or refused, never a crash."""
        allowed = data.draw(st.sampled_from(STAGES))
        kind = data.draw(st.sampled_from([*allowed, 0, 99]))
        payload = data.draw(st.binary(max_size=200))
        size = data.draw(st.one_of(st.just(len(payload) + 1), st.integers(0, 300), st.integers(0, 2**32 - 1)))
        frame = size.to_bytes(4, "big") + bytes([kind]) + payload
        sizes = data.draw(st.lists(st.integers(1, 60), max_size=3))
        self.never_beyond(allowed, in_pieces(frame * 2, sizes))

    def never_beyond(self, allowed: Mapping[int, int], pieces: list[bytes]) -> None:
        """Feed C{pieces}; a refusal ends it."""
        reader = FrameReader(allowed)
        for piece in pieces:
            try:
                reader.feed(piece)
            except BadFrame:
                return
            self.assertLess(reader.buffered, max(allowed.values()) + 4)

    def test_refused_at_once(self) -> None:
        """A frame that is too large, or not expected, is refused from its first five octets."""
        for start in (
            (HELLO_ONLY[Kind.HELLO] + 1).to_bytes(4, "big") + bytes([Kind.HELLO]),
            (9).to_bytes(4, "big") + bytes([Kind.PING]),
            (0).to_bytes(4, "big") + bytes([Kind.HELLO]),
        ):
            reader = FrameReader(HELLO_ONLY)
            reader.feed(start[:4])
            self.assertRaises(BadFrame, reader.feed, start[4:])

    def test_nothing_before_its_time(self) -> None:
        """A call is not read before the handshake has ended, and a reply never at the home."""
        call = render_call(1, Call(b"NOTIFY", b"/", {}))
        for allowed in (HELLO_ONLY, CHALLENGE_ONLY, PROOF_ONLY, WELCOME_ONLY, EDITION_ONLY, from_home()):
            self.assertRaises(BadFrame, FrameReader(allowed).feed, call)
        self.assertRaises(BadFrame, FrameReader(from_caller(SMALL)).feed, render_answer(1, b"", False))
        self.assertRaises(BadFrame, FrameReader(HELLO_ONLY).feed, render_hello(HELLO) + call)

    def test_editions(self) -> None:
        """What belongs to an edition is read by those who speak it, and by nobody else."""
        for frame in (render_leaving(1), render_returned(1)):
            self.assertEqual(len(self.read(from_home(1), frame)), 1)
            self.assertRaises(BadFrame, self.read, from_home(0), frame)
            self.assertRaises(BadFrame, self.read, from_caller(SMALL), frame)
        for frame in (render_open(1, Call(b"NOTIFY", b"/", {}), 7), render_ask(1)):
            self.assertEqual(len(self.read(from_caller(SMALL, 1), frame)), 1)
            self.assertRaises(BadFrame, self.read, from_caller(SMALL, 0), frame)
        for frame in (render_part(1, b"x", True), render_window(1, 1)):
            for allowed in (from_caller(SMALL, 1), from_home(1)):
                self.assertEqual(len(self.read(allowed, frame)), 1)
            for allowed in (from_caller(SMALL, 0), from_home(0)):
                self.assertRaises(BadFrame, self.read, allowed, frame)

    def test_nothing_long(self) -> None:
        """Who knows how long calls and replies travel sends none in one piece."""
        large = Limits(body=1 << 20)
        call = render_call(1, Call(b"NOTIFY", b"/", {}, bytes(WHOLE_LIMIT + CALL_SLACK)))
        reply = render_answer(1, bytes(WHOLE_LIMIT + 5), False)
        self.assertEqual(len(self.read(from_caller(large, 0), call) + self.read(from_home(0), reply)), 2)
        self.assertRaises(BadFrame, self.read, from_caller(large, 1), call)
        self.assertRaises(BadFrame, self.read, from_home(1), reply)
        most = render_answer(1, bytes(WHOLE_LIMIT), False)
        self.assertEqual(len(self.read(from_home(1), most)), 1)

    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(st.tuples(ids, calls, st.one_of(st.none(), st.integers(0, 2**64 - 2))), max_size=3),
        st.lists(
            st.tuples(
                ids, st.binary(min_size=1, max_size=PART_SIZE), st.booleans(), st.integers(0, 2**32 - 1)
            ),
            max_size=4,
        ),
        st.lists(st.integers(1, 20000), max_size=5),
    )
    def test_parts_round_trip(
        self,
        opened: list[tuple[int, Call, int | None]],
        parts: list[tuple[int, bytes, bool, int]],
        sizes: list[int],
    ) -> None:
        """What travels in parts arrives as it was sent, in order, in both directions."""
        data = b"".join(render_open(*each) + render_ask(each[0]) for each in opened)
        wanted: list[object] = []
        for id, call, size in opened:
            wanted.append((id, call.vouched, 0, call.peer, call.connection, call.head, size))
            wanted.append(Ask(id))
        both, shown = b"", list[object]()
        for id, piece, last, octets in parts:
            both += render_part(id, piece, last) + render_part(id, b"", True) + render_window(id, octets)
            shown += [(id, last, piece), (id, True, b""), Window(id, octets)]
        self.assertEqual(self.read(from_caller(SMALL), data + both, sizes), wanted + shown)
        begun = b"".join(render_begin(id, last, len(piece) + 1, piece) for id, piece, last, _ in parts)
        wanted = [(id, last, len(piece) + 1, piece) for id, piece, last, _ in parts]
        self.assertEqual(self.read(from_home(), begun + both, sizes), wanted + shown)

    def test_broken_parts(self) -> None:
        """A part with nothing in it, a reply that begins with its end, and wrong sizes are refused."""
        opened = render_open(1, Call(b"NOTIFY", b"/", {}, head=b"head"), 7)
        for frame in (
            render_part(1, b"", False),
            b"\0\0\0\x09" + bytes([Kind.PART]) + bytes(8),
            b"\0\0\0\x0c" + bytes([Kind.WINDOW]) + bytes(11),
            opened[:3] + bytes([opened[3] + 1]) + opened[4:] + b"x",
        ):
            self.assertRaises(BadFrame, self.read, from_caller(SMALL), frame)
        self.assertRaises(BadFrame, self.read, from_home(), render_begin(1, False, 3, b"abc"))

    def test_standing(self) -> None:
        """A home of the first edition shows nothing but its incarnation, and its proof is over that."""
        old = b"\0\0\0\x29\4" + (7).to_bytes(8, "big") + b"p" * 32
        self.assertEqual(self.read(WELCOME_ONLY, old), [Welcome(7, 0, b"p" * 32)])
        self.assertEqual(render_welcome(standing(7, 0), b"p" * 32), old)

    def test_another_version(self) -> None:
        """A hello of another protocol is refused."""
        frame = render_hello(HELLO).replace(b"RVPL\x01", b"RVPL\x02")
        self.assertRaises(BadFrame, FrameReader(HELLO_ONLY).feed, frame)

    def test_largest_call(self) -> None:
        """The largest call that a home takes, with a hop more in its head, fits into a frame."""
        call = Call(b"NOTIFY", b"/", {}, b"b" * SMALL.body, head=b"h" * (SMALL.head + 25), peer="::1")
        self.assertEqual(len(self.read(from_caller(SMALL), render_call(1, call), [1])), 1)
        call.head += b"h" * CALL_SLACK
        self.assertRaises(BadFrame, self.read, from_caller(SMALL), render_call(1, call))

    def test_name_of_a_closed_connection(self) -> None:
        """It is a name, all of it, and no more."""
        frame = render_gone("r1/x/7")
        for wrong in (frame[:-1] + b"\xff", frame[:5] + b"\7" + frame[6:], frame[:5] + b"\5" + frame[6:]):
            self.assertRaises(BadFrame, self.read, from_caller(SMALL), wrong)
        self.assertRaises(BadFrame, self.read, from_caller(SMALL), b"\0\0\0\2\x16\0")
        self.assertRaises(BadFrame, self.read, from_caller(SMALL), b"\0\0\0\1\x16")
        self.assertRaises(ValueError, render_gone, "")

    def test_reply_too_large(self) -> None:
        """A reply that the caller would refuse is not rendered."""
        self.assertRaises(ValueError, render_answer, 1, bytes(REPLY_LIMIT), False)

    def test_many_acknowledgements(self) -> None:
        """More acknowledgements than one frame holds go into several."""
        many = range(ANSWERED_LIMIT + 3)
        first, second = self.read(from_caller(SMALL), render_answered(many))
        self.assertEqual((first, second), (Answered(tuple(many[:-3])), Answered(tuple(many[-3:]))))

    def test_impossible_name(self) -> None:
        """A name that does not fit into a hello is not rendered."""
        self.assertRaises(ValueError, render_hello, replace(HELLO, caller=""))
        self.assertRaises(ValueError, render_hello, replace(HELLO, home="x" * 256))


class MeetingTests(SynchronousTestCase):
    """A proof is bound to everything that makes a meeting unlike any other."""

    def test_roles_differ(self) -> None:
        """What a home says cannot be said back to it by a caller: reflection proves nothing."""
        self.assertFalse(is_proof(MEETING.home_proof(b"key", 0), MEETING.caller_proof(b"key")))

    def test_bound_to_everything(self) -> None:
        """Another key, name, origin, nonce or incarnation makes another proof."""
        others = [
            replace(MEETING, caller="router-2"),
            replace(MEETING, home="3f0d"),
            replace(MEETING, origin=8),
            replace(MEETING, caller_nonce=b"x" * NONCE_SIZE),
            replace(MEETING, home_nonce=b"x" * NONCE_SIZE),
            # the same octets, divided differently
            replace(MEETING, caller="router-1" + "3", home="f0c"),
            replace(MEETING, caller_nonce=MEETING.home_nonce, home_nonce=MEETING.caller_nonce),
        ]
        proofs = [meeting.caller_proof(b"key") for meeting in (MEETING, *others)]
        proofs.append(MEETING.caller_proof(b"another key"))
        proofs += [meeting.home_proof(b"key", 1) for meeting in (MEETING, *others)]
        proofs.append(MEETING.home_proof(b"key", 2))
        self.assertEqual(len(set(proofs)), len(proofs))

    def test_both_ends_agree(self) -> None:
        """Equal meetings and keys make equal proofs."""
        self.assertTrue(is_proof(replace(MEETING).caller_proof(b"key"), MEETING.caller_proof(b"key")))
