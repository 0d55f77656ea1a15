"""Tests of L{rvpfarm.auth.handshakes}: NTLM and Negotiate at the gate of a home."""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import replace

import spnego
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.auth.challenge import CAUSES, Digest, Gate, Identity
from rvpfarm.auth.connections import HANDSHAKE_SECONDS, Connections
from rvpfarm.auth.digest import Nonces
from rvpfarm.auth.handshakes import FAILURES_LIMIT, Negotiate, Ntlm
from rvpfarm.auth.logins import make_verifiers
from rvpfarm.auth.negotiate import (
    KERBEROS,
    KERBEROS_OF_WINDOWS,
    NTLM,
    BadTicket,
    State,
    Ticket,
    render_response,
)
from rvpfarm.auth.throttle import Throttle
from rvpfarm.directory.ldapsettings import RECORD
from rvpfarm.directory.model import Account, Domain
from rvpfarm.directory.names import names_of
from rvpfarm.protocol.address import parse_target
from rvpfarm.protocol.calls import BadRequest, Busy, Call, Forbidden, Refusal, Unproven
from tests.auth.test_basic import NamedDirectory
from tests.auth.test_challenge import answer_to
from tests.auth.test_negotiate import element, listed, make_list, make_offer, make_response, octets
from tests.auth.test_ntlm import TYPE1, TYPE2, TYPE3
from tests.support import ntlm
from tests.support.directory import FakeDirectory, make_account, make_farm
from tests.support.hypothesis import MODEST
from tests.support.ntlm import NtlmClient

FABRIK = Domain("im.fabrik.example", ("fabrik.example",), ("imsrv",), "FABRIK")
WEBEREI = Domain("im.weberei.example", ("weberei.example",), (), "WEBEREI")
PETRA = "http://im.fabrik.example/instmsg/aliases/Petra"
TOMASZ = "http://im.fabrik.example/instmsg/aliases/tomasz"
PASSWORD = "Blue-Kite-41"
DIGEST_ONLY = "Green-Drum-52"


def account(alias: str, domain: Domain = FABRIK, *, enabled: bool = True, nt: bool = True) -> Account:
    """A user of C{domain} whose password is L{PASSWORD}."""
    made = make_account(f"{domain.name}/instmsg/aliases/{alias}", "home-1", enabled=enabled)
    return replace(made, verifiers=make_verifiers(alias, domain, PASSWORD, nt=nt))


class FakeTickets:
    """Accepts tickets when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, Deferred[Ticket]]] = []

    def accept(self, token: bytes) -> Deferred[Ticket]:
        """Note it."""
        answer: Deferred[Ticket] = Deferred()
        self.asked.append((token, answer))
        return answer

    def answer(self, principal: str) -> None:
        """Accept the oldest."""
        self.asked.pop(0)[1].callback(FakeTicket(principal))


class FakeTicket:
    """An accepted ticket."""

    signs = True

    def __init__(self, principal: str) -> None:
        self.principal = principal
        self.reply = b"reply"

    def sign(self, data: bytes) -> bytes:
        """Our code."""
        return b"ours"

    def verify(self, data: bytes, code: bytes) -> bool:
        """The client's."""
        return code == b"theirs"


class HandshakeTestCase(SynchronousTestCase):
    """The gate of a home, with petra, tomasz who has nothing for NTLM, olga who is disabled, and anton elsewhere."""

    schemes = "negotiate ntlm digest-md5"

    def setUp(self) -> None:
        """Build it."""
        self.farm = make_farm([FABRIK, WEBEREI], schemes=self.schemes)
        accounts = [
            account("Petra"),
            account("tomasz", nt=False),
            account("olga", enabled=False),
            account("anton", WEBEREI),
        ]
        self.directory = FakeDirectory(self.farm, accounts)
        self.directory.remembered["im.fabrik.example/instmsg/aliases/nobody"] = None
        self.failures: list[tuple[str, str]] = []
        self.connections = Connections()
        self.tickets = FakeTickets()
        self.now = 1000.0
        self.issued = 0
        self.build(None)

    def build(self, throttle: Throttle | None) -> None:
        """Make the gate."""
        nonces = Nonces(b"k" * 32)
        self.gate = Gate(
            nonces,
            schemes=[Negotiate(self.connections, self.tickets), Ntlm(self.connections), Digest(nonces)],
            on_failure=lambda *failure: self.failures.append(failure),
            throttle=throttle,
        )

    def identify(
        self,
        credentials: str | None = None,
        connection: str = "r1/1",
        *,
        source: str | None = None,
        nonce: bytes = b"",
        minor: int = 1,
        **headers: str,
    ) -> Identity | Deferred[Identity]:
        """Who makes a call on a connection?"""
        fields = {name.lower().encode(): value.encode() for name, value in headers.items()}
        if credentials is not None:
            fields[b"authorization"] = credentials.encode()
        if source is not None:
            fields[b"rvp-from-principal"] = source.encode()
        names = names_of(self.farm)
        call = Call(
            b"PROPFIND",
            b"/instmsg/aliases/petra",
            fields,
            minor=minor,
            peer="192.0.2.1",
            connection=connection,
        )
        node = parse_target(call.target, b"im.fabrik.example", names)
        self.issued += 1
        random8 = nonce or self.issued.to_bytes(8, "big")
        return self.gate.identify(
            call, node, self.farm, names, self.directory, self.now, lambda size: random8
        )

    def known(self, credentials: str | None = None, connection: str = "r1/1", **more: str) -> Identity:
        """Who makes it, at once."""
        identity = self.identify(credentials, connection, **more)  # type: ignore[arg-type]
        assert isinstance(identity, Identity)
        return identity

    def refused(self, credentials: str | None, connection: str = "r1/1", **more: object) -> Refusal:
        """It is refused with 401."""
        return self.assertRaises(Unproven, self.identify, credentials, connection, **more)

    def lines(self, credentials: str | None, connection: str = "r1/1", **more: object) -> list[str]:
        """The challenges it is refused with; none of the answers closes the connection."""
        refusal = self.refused(credentials, connection, **more)
        self.assertFalse(refusal.close)
        self.assertEqual({name for name, _ in refusal.headers}, {b"WWW-Authenticate"})
        return [line.decode() for _, line in refusal.headers]

    def failed(self, cause: str) -> None:
        """One attempt failed since this was last asked."""
        self.assertEqual(self.failures, [("ntlm", cause)])
        self.assertIn(cause, CAUSES)
        self.failures.clear()

    def sign_in(self, client: NtlmClient, connection: str = "r1/1") -> Identity:
        """All steps of a handshake."""
        (line,) = self.lines(client.step(), connection)
        return self.known(client.step(line), connection)

    def last_step(
        self, user: str = "petra", password: str = PASSWORD, connection: str = "r1/1", level: int = ntlm.V2
    ) -> str:
        """The type 3 of a client whose type 1 has been answered on C{connection}."""
        client = NtlmClient(user, password, level=level)
        (line,) = self.lines(client.step(), connection)
        return client.step(line)


class NtlmTests(HandshakeTestCase):
    """NTLM authenticates a connection (protocol notes 9.3)."""

    schemes = "ntlm digest-md5"

    def test_offered(self) -> None:
        """One bare line for NTLM, one for Digest (vector 52)."""
        first, second = self.lines(None, source=PETRA)
        self.assertEqual(first, "NTLM")
        self.assertTrue(second.startswith("Digest "))

    def test_printed(self) -> None:
        """The messages of the protocol notes, and then a call without C{Authorization} (vector 53)."""
        lines = self.lines("NTLM " + b64encode(TYPE1).decode(), nonce=bytes.fromhex("0123456789abcdef"))
        self.assertEqual(lines, ["NTLM " + b64encode(TYPE2).decode()])
        identity = self.known("NTLM " + b64encode(TYPE3).decode())
        self.assertEqual((identity.proof, identity.headers), ("ntlm", ()))
        assert identity.principal is not None
        self.assertEqual(identity.principal.url, PETRA)
        self.assertEqual(self.known(), identity)
        self.assertEqual(self.known(source=PETRA), identity)
        self.assertEqual(self.failures, [])

    def test_other_connection(self) -> None:
        """The answer is worth nothing on another one, nor a second time (vector 54)."""
        last = self.last_step()
        self.assertEqual(self.lines(last, "r1/2"), ["NTLM"])
        self.failed("no-challenge")
        self.known(last)
        self.assertIn("NTLM", self.lines(None, "r1/2", source=PETRA))
        self.assertEqual(self.lines(last), ["NTLM"])
        self.failed("no-challenge")
        self.assertIn("NTLM", self.lines(None, source=PETRA))

    def test_another_principal(self) -> None:
        """He is who he proved to be (vectors 55 and 56), whatever the call claims."""
        self.known(self.last_step())
        self.assertRaises(Forbidden, self.identify, source=TOMASZ)
        self.assertRaises(Forbidden, self.identify, source="http://im.orchard.example/instmsg/aliases/i")
        identity = self.known()
        assert identity.principal is not None
        self.assertEqual(identity.principal.url, PETRA)

    def test_responses(self) -> None:
        """Whatever kind of response a client makes."""
        for level in (ntlm.V1, ntlm.EXTENDED, ntlm.V2):
            with self.subTest(level=level):
                self.known(self.last_step(level=level, connection=f"r1/{level}"), f"r1/{level}")
                self.assertEqual(self.lines(self.last_step(password="no", level=level)), ["NTLM"])
                self.failed("wrong-password")
                self.connections.forget("r1/1")

    def test_names(self) -> None:
        """A name in whatever form and case; a domain counts only if it is served here."""
        for name in (
            *("petra", "PETRA", "FABRIK\\petra", "fabrik\\Petra", "WORKGROUP\\petra", "IM\\petra"),
            *("petra@fabrik.example", "Petra@IM.FABRIK.EXAMPLE", "im.fabrik.example\\petra", "imsrv\\petra"),
        ):
            with self.subTest(name):
                identity = self.sign_in(NtlmClient(name, PASSWORD))
                assert identity.principal is not None
                self.assertEqual(identity.principal.url, PETRA)
        for name in ("WEBEREI\\anton", "anton@weberei.example"):
            with self.subTest(name):
                identity = self.sign_in(NtlmClient(name, PASSWORD))
                assert identity.principal is not None
                self.assertEqual(identity.principal.key, "im.weberei.example/instmsg/aliases/anton")

    def test_nobody(self) -> None:
        """Nobody of that name, in that domain."""
        for name in ("nobody", "FABRIK\\nobody", "petra@orchard.example", "WEBEREI\\", "@fabrik.example"):
            with self.subTest(name):
                self.directory.remembered["im.weberei.example/instmsg/aliases/nobody"] = None
                self.assertEqual(self.lines(self.last_step(name, connection=name), name), ["NTLM"])
                self.failed("unknown-user")

    def test_causes(self) -> None:
        """Each failure has its cause, and none of the answers tells it."""
        for user, password, cause in (
            ("petra", "wrong", "wrong-password"),
            ("petra", "", "wrong-password"),
            ("tomasz", PASSWORD, "no-verifier"),
            ("olga", PASSWORD, "disabled"),
            ("olga", "wrong", "wrong-password"),
        ):
            with self.subTest(cause):
                self.assertEqual(self.lines(self.last_step(user, password)), ["NTLM"])
                self.failed(cause)
                self.connections.forget("r1/1")

    def test_empty_hash_is_no_password(self) -> None:
        """Whoever answers as if the hash were all zeros does not get in as somebody who has none."""
        client = spnego.client(
            spnego.NTLMHash("tomasz", nt_hash="0" * 32),
            protocol="ntlm",
            options=spnego.NegotiateOptions.use_ntlm,
        )
        greeting = client.step(None)
        assert greeting is not None
        (line,) = self.lines("NTLM " + b64encode(greeting).decode())
        answer = client.step(b64decode(line[5:]))
        assert answer is not None
        self.assertEqual(self.lines("NTLM " + b64encode(answer).decode()), ["NTLM"])
        self.failed("no-verifier")

    def test_failures(self) -> None:
        """Two pass, the third closes the connection; a success in between counts them anew."""
        for _ in range(2):
            for _ in range(FAILURES_LIMIT):
                self.assertEqual(self.lines(self.last_step(password="wrong")), ["NTLM"])
            self.known(self.last_step())
        for _ in range(FAILURES_LIMIT):
            self.lines(self.last_step(password="wrong"))
        refusal = self.refused(self.last_step(password="wrong"))
        self.assertEqual((refusal.close, refusal.headers), (True, ((b"WWW-Authenticate", b"NTLM"),)))
        self.assertEqual(len(self.connections), 0)

    def test_restarted(self) -> None:
        """A new type 1 begins anew: nothing that was proved before holds."""
        self.known(self.last_step())
        first = self.last_step()
        self.assertIn("NTLM", self.lines(None, source=PETRA))
        self.connections.forget("r1/1")
        self.last_step()
        self.assertEqual(self.lines(first), ["NTLM"])
        self.known(self.last_step())

    def test_too_late(self) -> None:
        """An answer that takes too long."""
        last = self.last_step()
        self.now += HANDSHAKE_SECONDS + 1
        self.assertEqual(self.lines(last), ["NTLM"])
        self.failed("no-challenge")

    def test_digest_on_such_a_connection(self) -> None:
        """A call that carries Digest is judged by it, and leaves the connection what it is."""
        self.known(self.last_step())
        line = self.lines(None, "r1/2", source=PETRA)[1].encode()
        self.assertEqual(self.known(answer_to(line, "tomasz").decode()).proof, "digest")
        self.lines(answer_to(line, "tomasz", password="wrong").decode())
        identity = self.known()
        assert identity.principal is not None
        self.assertEqual((identity.proof, identity.principal.url), ("ntlm", PETRA))

    def test_short_lived(self) -> None:
        """A connection that ends after each answer cannot do it, unless it says that it stays."""
        greeting = "NTLM " + b64encode(TYPE1).decode()
        self.assertEqual(self.lines(greeting, minor=0), ["NTLM"])
        self.failed("unsupported")
        self.assertEqual(self.lines(greeting, ""), ["NTLM"])
        self.failed("unsupported")
        self.assertEqual(len(self.connections), 0)
        (line,) = self.lines(greeting, minor=0, Connection="Keep-Alive")
        self.assertNotEqual(line, "NTLM")

    def test_malformed(self) -> None:
        """What cannot be read is 400, and voids the step it came at."""
        for text in ("", "x", "====", "TlRMTVNTUAA=", "TlRMTVNTUAAC" + "A" * 80, "TlRMTVNTUAAD" + "A" * 8):
            last = self.last_step()
            self.assertRaises(BadRequest, self.identify, f"NTLM {text}")
            self.failed("malformed")
            if text not in ("x", "===="):  # those are no messages of any step
                self.assertEqual(self.lines(last), ["NTLM"])
            self.failures.clear()
            self.connections.forget("r1/1")

    def test_account_changes(self) -> None:
        """A connection loses what it has proved when the user is disabled, gone, or has another password."""
        key = "im.fabrik.example/instmsg/aliases/petra"
        petra = self.directory.remembered[key]
        assert petra is not None
        other = replace(petra, verifiers=make_verifiers("Petra", FABRIK, DIGEST_ONLY))
        for changed, cause in (
            (replace(petra, enabled=False), "disabled"),
            (other, ""),
            (None, ""),
            (replace(petra, id="another"), ""),
        ):
            with self.subTest(cause):
                self.directory.remembered[key] = petra
                self.known(self.last_step())
                self.directory.remembered[key] = changed
                self.assertIn("NTLM", self.lines(None, source=PETRA))
                self.assertEqual(self.failures, [("ntlm", cause)] if cause else [])
                self.failures.clear()
                self.directory.remembered[key] = petra
                self.assertIn("NTLM", self.lines(None, source=PETRA))
        self.known(self.last_step())
        self.directory.remembered[key] = replace(petra, display_name="Petra Novak")
        self.known()

    def test_held_back(self) -> None:
        """Who guessed too often is not listened to, not even with the right password."""
        self.build(Throttle())
        for _ in range(10):
            self.lines(self.last_step(password="wrong"))
            self.connections.forget("r1/1")
        self.failures.clear()
        self.assertEqual(self.lines(self.last_step()), ["NTLM"])
        self.failed("throttled")
        self.now += 3600
        self.known(self.last_step())


class WaitingTests(HandshakeTestCase):
    """The directory may take its time."""

    schemes = "ntlm"

    def setUp(self) -> None:
        """Nothing is remembered."""
        super().setUp()
        self.directory.remembered.clear()
        self.directory.later = True

    def later(self, credentials: str | None) -> Deferred[Identity]:
        """A call that waits for the directory."""
        found = self.identify(credentials)
        assert isinstance(found, Deferred)
        return found

    def test_proved(self) -> None:
        """The connection is proved when the answer is there, and not before."""
        found = self.later(self.last_step())
        self.lines(None, source=PETRA)
        self.directory.answer_finds()
        self.assertEqual(self.successResultOf(found).proof, "ntlm")
        self.assertEqual(self.known().proof, "ntlm")
        self.directory.remembered.clear()
        again = self.later(None)
        self.directory.answer_finds()
        self.assertEqual(self.successResultOf(again).proof, "ntlm")

    def test_overtaken(self) -> None:
        """A new handshake that began meanwhile is not disturbed."""
        found = self.later(self.last_step())
        second = self.last_step()
        self.directory.answer_finds()
        self.successResultOf(found)
        self.lines(None, source=PETRA)
        self.known(second)

    def test_refused(self) -> None:
        """Failures come the same way."""
        found = self.later(self.last_step(password="wrong"))
        self.directory.answer_finds()
        refusal = self.failureResultOf(found, Unproven).value
        self.assertEqual(refusal.headers, ((b"WWW-Authenticate", b"NTLM"),))
        self.failed("wrong-password")

    def test_directory_unavailable(self) -> None:
        """A directory that cannot be asked is never taken for a wrong password."""
        self.directory.later = False
        self.directory.unavailable = True
        self.failureResultOf(self.later(self.last_step()), Busy)
        self.failed("directory")

    def test_caller_hung_up(self) -> None:
        """Cancelling stops the look-up, and proves nothing."""
        found = self.later(self.last_step())
        found.cancel()
        self.failureResultOf(found, CancelledError)
        self.assertEqual((self.failures, self.connections.proved), ([], 0))


class NegotiateTests(HandshakeTestCase):
    """NTLM inside Negotiate, as it is or wrapped in SPNEGO."""

    def wrapped(self, data: bytes) -> str:
        """A token as credentials."""
        return "Negotiate " + b64encode(data).decode()

    def test_offered(self) -> None:
        """Negotiate, NTLM, Digest, each on a line of its own."""
        first, second, third = self.lines(None, source=PETRA)
        self.assertEqual((first, second, third[:7]), ("Negotiate", "NTLM", "Digest "))

    def test_raw(self) -> None:
        """The messages of NTLM, with nothing around them."""
        client = NtlmClient("petra", PASSWORD, scheme="Negotiate")
        self.assertEqual(self.sign_in(client).headers, ())
        self.assertEqual(self.known().proof, "ntlm")

    def test_wrapped(self) -> None:
        """In SPNEGO; the last token proves us to the client, code and all."""
        for level in (ntlm.EXTENDED, ntlm.V2):
            client = NtlmClient("FABRIK\\petra", PASSWORD, scheme="Negotiate", wrapped=True, level=level)
            identity = self.sign_in(client)
            ((name, line),) = identity.headers
            self.assertEqual((identity.proof, name), ("ntlm", b"WWW-Authenticate"))
            self.assertFalse(client.complete)
            self.assertEqual(client.step(line.decode()), "")
            self.assertTrue(client.complete)
            self.assertEqual(self.known().headers, ())

    def test_wrapped_without_extended_security(self) -> None:
        """A client that cannot sign gets in where nothing need be signed."""
        self.sign_in(NtlmClient("petra", PASSWORD, scheme="Negotiate", wrapped=True, level=ntlm.V1))

    def test_wrong_password(self) -> None:
        """Everything that is offered is offered again."""
        for wrapped in (False, True):
            client = NtlmClient("petra", "wrong", scheme="Negotiate", wrapped=wrapped)
            (line,) = self.lines(client.step())
            self.assertEqual(self.lines(client.step(line))[:2], ["Negotiate", "NTLM"])
            self.failed("wrong-password")

    def test_steps_of_another_kind(self) -> None:
        """An answer counts only in the wrapping of its challenge."""
        wrapped = NtlmClient("petra", PASSWORD, scheme="Negotiate", wrapped=True)
        last = wrapped.step(self.lines(wrapped.step())[0])
        self.connections.forget("r1/1")
        raw = NtlmClient("petra", PASSWORD, scheme="Negotiate")
        (line,) = self.lines(raw.step())
        self.lines(last)
        self.failed("no-challenge")
        self.lines(raw.step(line))
        self.failed("no-challenge")

    def second_choice(self, signed: bytes) -> tuple[str, str]:
        """A client that prefers another mechanism falls back on NTLM.

        @param signed: the list that it makes its code over.
        @return: its last token, and its code.
        """
        favourite = b"\x2a\x03"
        (line,) = self.lines(self.wrapped(make_offer(listed(favourite, NTLM), octets(2, b"anything"))))
        self.assertEqual(b64decode(line[10:]), render_response(State.REQUEST_MIC, NTLM))
        context = spnego.client("petra", PASSWORD, protocol="ntlm", options=spnego.NegotiateOptions.use_ntlm)
        greeting = context.step(None)
        assert greeting is not None
        (line,) = self.lines(self.wrapped(make_response(octets(2, greeting))))
        inner = b64decode(line[10:])
        answer = context.step(inner[inner.index(b"NTLMSSP\0") :])
        assert answer is not None
        code = context.sign(signed)
        return (
            self.wrapped(make_response(octets(2, answer))),
            self.wrapped(make_response(octets(2, answer), octets(3, code))),
        )

    def test_second_choice(self) -> None:
        """It says so, has a code with its last token, and gets one."""
        _, last = self.second_choice(make_list(b"\x2a\x03", NTLM))
        ((_, line),) = self.known(last).headers
        self.assertTrue(b64decode(line[10:]).startswith(bytes.fromhex("a11b3019a0030a0100a312")))

    def test_second_choice_tampered(self) -> None:
        """Somebody took the favourite off the list."""
        _, last = self.second_choice(make_list(NTLM))
        self.lines(last)
        self.failed("tampered")

    def test_second_choice_without_code(self) -> None:
        """The client has to send one, before or after ours."""
        last, _ = self.second_choice(make_list(b"\x2a\x03", NTLM))
        (line,) = self.lines(last)
        self.assertTrue(b64decode(line[10:]).startswith(bytes.fromhex("a11b3019a0030a0101a312")))
        self.lines(None, source=PETRA)
        self.lines(self.wrapped(make_response(octets(3, b"wrong"))))
        self.failed("tampered")

    def test_unsupported(self) -> None:
        """No mechanism in common; an answer to nothing."""
        self.assertEqual(self.lines(self.wrapped(make_offer(listed(b"\x2a\x03"))))[0], "Negotiate")
        self.failed("unsupported")
        self.assertEqual(self.lines(self.wrapped(make_response(octets(2, TYPE3))))[0], "Negotiate")
        self.failed("no-challenge")

    def test_malformed(self) -> None:
        """What cannot be read is 400."""
        for data in (b"", b"\x60", b"NTLMSSP\0", make_offer(listed(NTLM), octets(2, b"no message"))):
            self.assertRaises(BadRequest, self.identify, self.wrapped(data))
            self.failed("malformed")

    @MODEST
    @given(
        st.lists(
            st.one_of(
                st.binary(max_size=120),
                st.sampled_from((TYPE1, TYPE2, TYPE3)),
                st.binary(max_size=120).map(lambda data: b"NTLMSSP\0" + data),
                st.binary(max_size=120).map(lambda data: make_offer(listed(NTLM), octets(2, data))),
                st.sampled_from((TYPE1, TYPE3)).map(lambda data: make_offer(listed(NTLM), octets(2, data))),
                st.sampled_from((TYPE1, TYPE3)).map(lambda data: make_response(octets(2, data))),
            ),
            max_size=5,
        ),
        st.sampled_from(("NTLM", "Negotiate")),
    )
    def test_anything(self, blobs: list[bytes], scheme: str) -> None:
        """Whatever comes in whatever order is refused with 400 or 401, and holds nothing up."""
        self.connections.forget("r1/1")
        for blob in blobs:
            self.assertRaises(
                (BadRequest, Unproven), self.identify, f"{scheme} {b64encode(blob).decode()}", source=PETRA
            )
        self.assertLessEqual(len(self.connections), 1)
        self.lines(None, source=PETRA)


class KerberosTests(HandshakeTestCase):
    """Kerberos inside Negotiate, with tickets that somebody else judges."""

    def wrapped(self, data: bytes) -> str:
        """A token as credentials."""
        return "Negotiate " + b64encode(data).decode()

    def offer(self, *mechanisms: bytes) -> Deferred[Identity]:
        """A call with a ticket for the first of C{mechanisms}."""
        found = self.identify(self.wrapped(make_offer(listed(*mechanisms), octets(2, b"ticket"))))
        assert isinstance(found, Deferred)
        return found

    def answer(self, *parts: bytes) -> tuple[tuple[bytes, bytes], ...]:
        """The headers that carry a token."""
        return ((b"WWW-Authenticate", b"Negotiate " + b64encode(b"".join(parts))),)

    def test_one_step(self) -> None:
        """A ticket is enough; the answer proves us; the connection is proved."""
        for mechanism in (KERBEROS, KERBEROS_OF_WINDOWS):
            found = self.offer(mechanism, NTLM)
            self.assertEqual(self.tickets.asked[0][0], b"ticket")
            self.tickets.answer("petra@FABRIK.EXAMPLE")
            identity = self.successResultOf(found)
            assert identity.principal is not None
            self.assertEqual((identity.proof, identity.principal.url), ("ntlm", PETRA))
            token = render_response(State.COMPLETED, mechanism, b"reply")
            self.assertEqual(identity.headers, self.answer(token))
            self.assertEqual(self.known().principal, identity.principal)

    def test_bare(self) -> None:
        """Without SPNEGO, too."""
        token = element(0x60, element(0x06, KERBEROS), b"\1\0ticket")
        found = self.identify(self.wrapped(token))
        assert isinstance(found, Deferred)
        self.assertEqual(self.tickets.asked[0][0], token)
        self.tickets.answer("petra@fabrik.example")
        self.assertEqual(self.successResultOf(found).headers, self.answer(b"reply"))
        self.known()

    def test_second_choice(self) -> None:
        """With a code of each end, ours first."""
        self.lines(self.wrapped(make_offer(listed(b"\x2a\x03", KERBEROS))))
        found = self.identify(self.wrapped(make_response(octets(2, b"ticket"))))
        assert isinstance(found, Deferred)
        self.tickets.answer("petra@fabrik.example")
        refusal = self.failureResultOf(found, Unproven).value
        token = render_response(State.INCOMPLETE, b"", b"reply", b"ours")
        self.assertEqual(refusal.headers, self.answer(token))
        self.lines(None, source=PETRA)
        identity = self.known(self.wrapped(make_response(octets(3, b"theirs"))))
        self.assertEqual(identity.headers, self.answer(render_response(State.COMPLETED)))
        self.known()

    def test_principals(self) -> None:
        """The realm must be a domain of ours, and the name that of a user."""
        for principal, cause in (
            ("nobody@FABRIK.EXAMPLE", "no-account"),
            ("petra@ORCHARD.EXAMPLE", "no-account"),
            ("FABRIK/petra@ORCHARD.EXAMPLE", "no-account"),
            ("FABRIK\\petra@ORCHARD.EXAMPLE", "no-account"),
            ("petra@fabrik.example@ORCHARD.EXAMPLE", "no-account"),
            ("HTTP/petra@FABRIK.EXAMPLE", "no-account"),
            ("petra", "no-account"),
            ("@FABRIK.EXAMPLE", "no-account"),
            ("olga@FABRIK.EXAMPLE", "disabled"),
        ):
            with self.subTest(principal):
                found = self.offer(KERBEROS)
                self.tickets.answer(principal)
                refusal = self.failureResultOf(found, Unproven).value
                self.assertEqual(len(refusal.headers), 3)
                self.failed(cause)
                self.connections.forget("r1/1")

    def test_own_login_name(self) -> None:
        """A principal whose name is none of an address is whoever the LDAP directory says signs in by it."""
        self.farm = make_farm([FABRIK, WEBEREI], schemes=self.schemes, **{RECORD: "{}"})
        self.directory = NamedDirectory(self.farm, [account("Petra")])
        found = self.offer(KERBEROS)
        self.tickets.answer("pnovak@FABRIK.EXAMPLE")
        principal = self.successResultOf(found).principal
        assert principal is not None
        self.assertEqual(principal.url, PETRA)

    def test_bad_ticket(self) -> None:
        """Everything that is offered is offered again."""
        found = self.offer(KERBEROS)
        self.tickets.asked.pop()[1].errback(BadTicket("expired"))
        self.assertEqual(len(self.failureResultOf(found, Unproven).value.headers), 3)
        self.failed("bad-ticket")

    def test_busy(self) -> None:
        """Too many tickets at once."""
        found = self.offer(KERBEROS)
        self.tickets.asked.pop()[1].errback(Busy("too many"))
        self.failureResultOf(found, Busy)

    def test_without_keytab(self) -> None:
        """Kerberos is not to be had: NTLM is chosen, and a bare ticket refused."""
        nonces = Nonces(b"k" * 32)
        self.gate = Gate(
            nonces,
            schemes=[Negotiate(self.connections), Ntlm(self.connections), Digest(nonces)],
            on_failure=lambda *failure: self.failures.append(failure),
        )
        (line,) = self.lines(self.wrapped(make_offer(listed(KERBEROS, NTLM), octets(2, b"ticket"))))
        self.assertEqual(b64decode(line[10:]), render_response(State.REQUEST_MIC, NTLM))
        self.lines(self.wrapped(make_offer(listed(KERBEROS), octets(2, b"ticket"))))
        self.failed("unsupported")
        self.lines(self.wrapped(element(0x60, element(0x06, KERBEROS), b"\1\0ticket")))
        self.failed("unsupported")
